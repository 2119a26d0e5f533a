"""Define the WSGI applications that the hook is compared with, for gunicorn: `bench.apps:bare()`.

All answer like the hook: one destination as JSON. They read the environment (BENCH_*), which plan.py sets.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import requests
from flask import Flask, Response, request

ANSWER = b'{"destination":"bench_agent"}'
ASK = "/hook/ask"  # under the hook's path, which the web server treats in its own way
OVERFLOW = "380441234567"  # where (d) sends calls while nobody is free
ROWS = 20  # as many rows to update as there are groups for the hook's calls

_TABLES = (
    "CREATE TABLE turns (id integer PRIMARY KEY, turn bigint NOT NULL)",
    *(f"INSERT INTO turns (id, turn) VALUES ({row}, 0)" for row in range(ROWS)),
    "CREATE TABLE log (id integer PRIMARY KEY{}, call text NOT NULL)",
)


def bare() -> Flask:
    """(a) Return a constant answer, without reading the body: the cost of Flask and gunicorn."""
    app = Flask("bare")

    @app.post(ASK)
    def ask() -> Response:
        return Response(ANSWER, content_type="application/json")

    return app


def prepare_sqlite(path: Path) -> None:
    """Create the tables of (b) in a new SQLite file."""
    connection = _sqlite(path)
    for statement in _TABLES:
        connection.execute(statement.format(""))
    connection.close()


def prepare_postgres(conninfo: str) -> None:
    """Create the tables of (b) in a PostgreSQL database."""
    with psycopg.connect(conninfo) as connection:
        for statement in _TABLES:
            connection.execute(statement.format(" GENERATED ALWAYS AS IDENTITY"))


def _sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def sqlite_writes() -> Flask:
    """(b) on SQLite: one UPDATE and one INSERT in a transaction; writers wait for each other on a file lock."""
    app = Flask("sqlite_writes")
    path = Path(os.environ["BENCH_DATABASE"])
    turns = count()  # the row by turns: finding it by the question is not part of this floor
    held: list[tuple[sqlite3.Connection, int]] = []  # opened at the first call: connections do not survive a fork

    @app.post(ASK)
    def ask() -> Response:
        if not held:
            held.append((_sqlite(path), os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)))
        connection, lock = held[0]
        call = request.get_data().decode()
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE turns SET turn = turn + 1 WHERE id = ?", ((next(turns) + os.getpid()) % ROWS,))
            connection.execute("INSERT INTO log (call) VALUES (?)", (call,))
            connection.execute("COMMIT")
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
        return Response(ANSWER, content_type="application/json")

    return app


def postgres_writes() -> Flask:
    """(b) on PostgreSQL: one UPDATE and one INSERT in a transaction, through psycopg."""
    app = Flask("postgres_writes")
    turns = count()
    held: list[psycopg.Connection[Any]] = []

    @app.post(ASK)
    def ask() -> Response:
        if not held:
            held.append(psycopg.connect(os.environ["BENCH_DATABASE"]))
        connection = held[0]
        call = request.get_data().decode()
        connection.execute("UPDATE turns SET turn = turn + 1 WHERE id = %s", ((next(turns) + os.getpid()) % ROWS,))
        connection.execute("INSERT INTO log (call) VALUES (%s)", (call,))
        connection.commit()
        return Response(ANSWER, content_type="application/json")

    return app


def prepare_naive(path: Path) -> None:
    """Create the counter of (d)."""
    connection = _sqlite(path)
    connection.execute("CREATE TABLE counter (n integer)")
    connection.execute("INSERT INTO counter VALUES (0)")
    connection.close()


def naive() -> Flask:
    """(d) A script written in an hour: ask on every call who is online and speaking, take the next by a counter."""
    app = Flask("naive")
    api = os.environ["BENCH_STATUS_API"]
    path = os.environ["BENCH_DATABASE"]
    key = {"Auth-key": "key"}

    @app.post(ASK)
    def ask() -> dict[str, str]:
        online = requests.get(f"{api}/sipstatus/online", headers=key, timeout=5).json()
        speaking = requests.get(f"{api}/sipstatus/speaking", headers=key, timeout=5).json()
        free = [login for login in online if login not in speaking]
        with sqlite3.connect(path, timeout=30) as connection:
            (n,) = connection.execute("UPDATE counter SET n = n + 1 RETURNING n").fetchone()
        connection.close()
        return {"destination": free[n % len(free)] if free else OVERFLOW}

    return app
