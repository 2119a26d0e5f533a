"""Locks and connections: between processes and threads, after a fork, and when whoever holds them dies."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from router.db.claim import run
from router.db.claim_sql import read_statements
from router.db.session import (
    DATABASE_ERRORS,
    ConnectionsInUseError,
    Database,
    DatabaseBusyError,
    FileLock,
    seconds_left,
    time_limit,
)
from tests.db.slow_wire import wire_to


def soon() -> float:
    return time.monotonic() + 60


def is_taken(lock: FileLock) -> bool:
    try:
        lock.acquire(time.monotonic())
    except DatabaseBusyError:
        return True
    lock.release()
    return False


HOLDER = """
import sys, time
from pathlib import Path
from router.db.session import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire(time.monotonic() + 60)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


def run_script(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# ---- the lock file


def test_another_process_waits_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with run_script(HOLDER, path) as holder:
        assert hear(holder) == "held"
        lock = FileLock(path)
        began = time.monotonic()
        with pytest.raises(DatabaseBusyError, match="locked by another process"):
            lock.acquire(began + 0.1)
        assert time.monotonic() >= began + 0.1
        threading.Timer(0.05, tell, [holder]).start()
        lock.acquire(soon())
        lock.release()
        tell(holder)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with run_script(HOLDER, path) as holder:
        assert hear(holder) == "held"
        assert is_taken(FileLock(path))
        holder.send_signal(signal.SIGKILL)
        FileLock(path).acquire(soon())


def test_another_thread_waits_for_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    order, found_taken = list[str](), threading.Event()

    def other() -> None:
        assert is_taken(lock)
        found_taken.set()
        lock.acquire(soon())
        order.append("other")
        lock.release()

    lock.acquire(soon())
    thread = threading.Thread(target=other)
    thread.start()
    assert found_taken.wait(60)
    order.append("first")
    lock.release()
    thread.join()
    assert order == ["first", "other"]


def test_threads_take_turns(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    inside: list[int] = []
    overlaps: list[list[int]] = []

    def work(number: int) -> None:
        for _ in range(20):
            lock.acquire(soon())
            inside.append(number)
            if len(inside) > 1:
                overlaps.append(list(inside))
            inside.remove(number)
            lock.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []


def test_a_forked_child_has_a_lock_of_its_own(tmp_path: Path) -> None:
    """flock() lets through whoever shares the open file, so a child must open its own."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire(soon())
    assert _in_fork(lambda: is_taken(lock)) is True
    lock.release()
    assert _in_fork(lambda: is_taken(lock)) is False


def test_a_killed_process_frees_the_lock_though_its_child_lives_on(tmp_path: Path) -> None:
    script = """
import os, sys, threading, time
from pathlib import Path
from router.db.session import FileLock
lock = FileLock(Path(sys.argv[1]))
held, forked = threading.Event(), threading.Event()
def hold():
    lock.acquire(time.monotonic() + 60)
    held.set()
    time.sleep(60)
threading.Thread(target=hold, daemon=True).start()
held.wait(60)
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
    path = tmp_path / "lock"
    with run_script(script, path) as parent:
        child = int(hear(parent))
        try:
            assert is_taken(FileLock(path))
            parent.send_signal(signal.SIGKILL)
            FileLock(path).acquire(soon())
        finally:
            os.kill(child, signal.SIGKILL)


def test_threads_that_come_and_go_leave_no_open_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")

    def use() -> None:
        lock.acquire(soon())
        lock.release()

    def open_files() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert open_files() <= before + 1


# ---- connections


def who(connection: Any) -> object:
    """Which connection is this, as the database has it?"""
    if isinstance(connection, sqlite3.Connection):
        return id(connection)
    return connection.info.backend_pid


def test_a_connection_stays_reserved_for_calls(migrated_url: str) -> None:
    database = Database(migrated_url, lock_seconds=0.1)
    database.reserve()
    with database.call_connection() as first:
        reserved = who(first)
    with ExitStack() as pages:
        with suppress(DatabaseBusyError):
            while True:  # pages take all that there is
                pages.enter_context(database.reading()).execute(text("SELECT 1"))
        with database.call_connection() as connection:
            assert who(connection) == reserved
    database.dispose()


@pytest.fixture
def limited_url(migrated_postgres_url: str) -> Iterator[str]:
    """A database that lets this role have three connections."""
    role = f"router_role_{secrets.token_hex(4)}"
    with closing(psycopg.connect(conninfo_of(migrated_postgres_url), autocommit=True)) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' CONNECTION LIMIT 3".encode())
        yield (
            make_url(migrated_postgres_url).set(username=role, password="secret").render_as_string(hide_password=False)
        )
        connection.execute(f"DROP ROLE {role}".encode())


def conninfo_of(url: str) -> str:
    return Database(url).conninfo


def test_where_the_server_has_no_connection_left_pages_wait_for_those_of_their_process(limited_url: str) -> None:
    database, other = Database(limited_url), Database(limited_url)
    database.reserve()
    other.reserve()
    got, done = threading.Event(), threading.Event()

    def look() -> None:
        with database.reading() as session:
            session.execute(text("SELECT 1"))
            got.set()
            done.wait(60)

    with database.reading() as session:
        session.execute(text("SELECT 1"))
        page = threading.Thread(target=look)
        page.start()
        with time_limit(0.2), pytest.raises(ConnectionsInUseError), database.writing():
            pytest.fail("the server let a fourth one in")
        assert not got.is_set()
        with database.call_connection() as connection, other.call_connection() as another:
            assert {connection.execute("SELECT 1").fetchone(), another.execute("SELECT 1").fetchone()} == {(1,)}
    assert got.wait(60)
    done.set()
    page.join()
    for one in (database, other):
        one.dispose()


def test_a_process_that_has_no_connection_at_all_says_that_the_server_lets_it_have_none(limited_url: str) -> None:
    databases = [Database(limited_url) for _ in range(4)]
    for database in databases[:3]:
        database.reserve()
    with pytest.raises(DBAPIError), databases[3].reading():
        pytest.fail("the server let a fourth one in")
    for database in databases:
        database.dispose()


def test_a_connection_that_failed_is_not_used_again(migrated_url: str) -> None:
    database = Database(migrated_url)
    kept: list[Any] = []
    with suppress(*DATABASE_ERRORS), database.call_connection() as connection:
        kept.append(connection)
        connection.execute("SELECT nonsense FROM nowhere")
    with database.call_connection() as other:
        assert other is not kept[0]
    with suppress(LookupError), database.call_connection() as same:
        assert same is other
        raise LookupError("no fault of the database's")
    with database.call_connection() as again:
        assert again is other
    database.dispose()


@pytest.mark.parametrize("is_call", [True, False], ids=["a call", "a page"])
def test_a_server_that_falls_silent_is_waited_for_no_longer_than_there_is_time(
    migrated_postgres_url: str, is_call: bool
) -> None:
    with wire_to(Database(migrated_postgres_url).conninfo) as wire:
        database = Database(wire.url)
        database.reserve()

        def ask() -> None:
            if is_call:
                with database.call_connection() as connection:
                    connection.execute("SELECT 1")
            else:
                with database.reading() as session:
                    session.execute(text("SELECT 1"))

        ask()
        wire.fall_silent()
        for _ in range(2):  # on a connection that is open, and on a new one
            with pytest.raises(DATABASE_ERRORS), time_limit(0.3):
                ask()
        wire.speak_again()
        ask()
        database.dispose()


def test_the_inner_of_two_limits_cannot_extend_the_outer() -> None:
    with time_limit(2000):
        with time_limit(3000):
            assert seconds_left() <= 2000
        with time_limit(1000):
            assert seconds_left() <= 1000
        assert 1000 < seconds_left() <= 2000
    assert seconds_left(otherwise=7) == 7


def test_statements_in_one_round_trip_are_one_transaction_and_the_first_error_counts(
    migrated_postgres_url: str,
) -> None:
    database = Database(migrated_postgres_url)
    sql = {
        "BEGIN": "BEGIN",
        "SUM": "SELECT :a::int + :b::int, :name::text, :flag::bool, :nothing::text, :many::int[]",
        "BAD": "SELECT 1 / :b::int",
        "COMMIT": "COMMIT",
    }
    statements = read_statements(sql)
    values = {"a": 70_000, "b": 0, "name": "Київ \0'", "flag": True, "nothing": None, "many": [1, 70_000]}
    with database.call_connection() as connection:
        rows = run(connection, [(statements[name], values) for name in ("BEGIN", "SUM", "COMMIT")])
        assert rows == [[], [(70_000, "Київ '", True, None, [1, 70_000])], []]
        with pytest.raises(psycopg.errors.DivisionByZero):
            run(connection, [(statements[name], values) for name in ("BEGIN", "BAD", "SUM")])
        connection.rollback()
        for number in (1, 2**40):  # of any size: one prepared statement
            run(connection, [(statements["SUM"], {**values, "a": number % 1000, "b": 1})])
        prepared = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        assert len([row for row in prepared if "::int + " in row[0]]) == 1
    database.dispose()


def _in_fork(question: object) -> bool | None:
    """What a forked child answers; None when it failed."""
    assert callable(question)
    child = os.fork()
    if child == 0:
        status = 2
        with suppress(BaseException):
            status = int(bool(question()))
        os._exit(status)
    _, status = os.waitpid(child, 0)
    return {0: False, 1: True}.get(os.waitstatus_to_exitcode(status))


# ---- transactions


def test_what_is_read_is_not_kept_and_what_is_written_is(migrated_url: str) -> None:
    database = Database(migrated_url)
    insert = text("INSERT INTO sign_in_failures (key, failures, last_at) VALUES (:key, 1, 0)")
    count = text("SELECT count(*) FROM sign_in_failures")
    with database.reading() as session:
        session.execute(insert, {"key": "read"})
    with suppress(ZeroDivisionError), database.writing() as session:
        session.execute(insert, {"key": "failed"})
        raise ZeroDivisionError
    with database.writing() as session:
        session.execute(insert, {"key": "written"})
    with database.reading() as session:
        assert session.scalar(count) == 1
    database.dispose()


def test_writers_queue_on_sqlite_within_their_patience(migrated_sqlite_url: str) -> None:
    database, impatient = Database(migrated_sqlite_url), Database(migrated_sqlite_url, lock_seconds=0.1)
    insert = text("INSERT INTO sign_in_failures (key, failures, last_at) VALUES ('held', 1, 0)")
    with database.writing() as session:
        session.execute(insert)
        failed: list[type[BaseException]] = []

        def try_to_write() -> None:
            try:
                with impatient.writing():
                    pass
            except DatabaseBusyError as error:
                failed.append(type(error))

        thread = threading.Thread(target=try_to_write)
        thread.start()
        thread.join()
        assert failed == [DatabaseBusyError]
        with impatient.reading() as reader:
            assert reader.scalar(text("SELECT count(*) FROM sign_in_failures")) == 0, "who reads need not wait"
    with impatient.writing() as session:
        assert session.scalar(text("SELECT count(*) FROM sign_in_failures")) == 1
    database.dispose()
    impatient.dispose()


def test_a_statement_that_takes_too_long_is_ended_by_postgresql(migrated_postgres_url: str) -> None:
    database = Database(migrated_postgres_url, statement_seconds=0.1)
    with pytest.raises(DBAPIError, match="statement timeout"), database.reading() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    database.dispose()


def test_the_clock_is_the_databases(migrated_url: str) -> None:
    database = Database(migrated_url)
    before = time.time()
    with database.reading() as session:
        now = database.now(session)
        assert now.tzinfo is not None
        # In a transaction too it is the time now, not when that began.
        time.sleep(0.01)
        assert database.now(session) > now
    assert before - 1 < now.timestamp() < time.time() + 1
    database.dispose()


def test_text_is_utf8_whatever_the_database_prefers(migrated_postgres_url: str) -> None:
    database = Database(migrated_postgres_url)
    name = conninfo_to_dict(database.conninfo)["dbname"]
    with database.writing() as session:
        session.execute(text(f'ALTER DATABASE "{name}" SET client_encoding TO latin1'))
    database.dispose()
    with database.call_connection() as connection:
        assert connection.execute("SELECT length(%s::text)", ["Київ"]).fetchone() == (4,)
    with database.reading() as session:  # on a connection made since
        assert session.scalar(text("SELECT 'Київ'")) == "Київ"
    database.dispose()


def test_what_another_thread_uses_is_closed_when_it_gives_it_back(migrated_url: str) -> None:
    database = Database(migrated_url)
    with database.reading() as session:
        driver: Any = session.connection().connection.dbapi_connection
        thread = threading.Thread(target=database.dispose)
        thread.start()
        thread.join()
        assert session.scalar(text("SELECT 1")) == 1, "who is still reading reads on"
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        driver.execute("SELECT 1")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_server_that_vanished_is_waited_for_seconds_not_minutes(migrated_postgres_url: str) -> None:
    """By the kernel: without limits of ours it sends again for a quarter of an hour, and asks the idle after hours."""
    with wire_to(Database(migrated_postgres_url).conninfo) as wire:
        database = Database(wire.url)
        with database.reading() as session, database.call_connection() as for_calls:
            driver: Any = session.connection().connection.dbapi_connection
            for fd in (driver.fileno(), for_calls.fileno()):
                with socket.socket(fileno=os.dup(fd)) as end:
                    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    limits = {"TCP_USER_TIMEOUT": 5000, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
                    for name, value in limits.items():  # by name: macOS has not all of them
                        assert end.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        database.dispose()


def test_a_connection_that_the_server_has_ended_fails_nobody(migrated_postgres_url: str) -> None:
    database, other = Database(migrated_postgres_url), Database(migrated_postgres_url)
    with database.reading() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    with other.reading() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with database.reading() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid
    database.dispose()
    other.dispose()


_WAITS_FOR_ANOTHER_PROGRAM = """
from gevent import monkey
monkey.patch_all()
import sys, threading, time
from sqlalchemy import make_url, text
from router.db.session import Database

database, done = Database(sys.argv[1], lock_seconds=60), threading.Event()

def write():
    with database.writing() as session:
        session.execute(text("INSERT INTO kept VALUES (1)"))
    done.set()

threading.Thread(target=write).start()
for _ in range(5):
    time.sleep(0.01)
print("still waiting" if not done.is_set() else "nobody waited", flush=True)
done.wait()
"""


def test_a_wait_for_another_program_stops_no_other_request_of_a_gevent_process(sqlite_url: str, tmp_path: Path) -> None:
    """SQLite's own wait sleeps in C: the whole process would stand still for as long."""
    Database(sqlite_url).dispose()
    with closing(sqlite3.connect(tmp_path / "router.db", isolation_level=None)) as other:
        other.executescript("PRAGMA journal_mode=WAL; CREATE TABLE kept (value); BEGIN IMMEDIATE")
        waiting = subprocess.Popen(
            [sys.executable, "-c", _WAITS_FOR_ANOTHER_PROGRAM, sqlite_url], stdout=subprocess.PIPE, text=True
        )
        with waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "still waiting\n"
            other.execute("ROLLBACK")
            assert waiting.wait(60) == 0
        assert other.execute("SELECT * FROM kept").fetchall() == [(1,)]
