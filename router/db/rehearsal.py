"""Rehearse a call, from its question to its next step, on an invented project, in a transaction that is rolled back.

It runs the statements of a claim, so that an error here would occur in every call.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import orjson
from sqlalchemy import JSON, Dialect, Table, Text, insert, literal

from router.core.lifecycle import ask_again
from router.core.model import Agent, MemberClock, Project
from router.db import models
from router.db.claim import Lease, PostgresTransaction, SqliteTransaction, Transaction
from router.db.claim_sql import DECISION_KEYS, POSTGRES
from router.db.outcomes import written
from router.db.session import DATABASE_ERRORS, Database
from router.db.types import EPOCH, from_micros

_NAME = "router-check"
_RING = 20_000_000  # µs


def rehearse(database: Database) -> None:
    """Raise the error with which a call would fail. Waits no longer than the time_limit around it; stores nothing."""
    number = -1 - secrets.randbelow(2**31 - 1)  # negative, unlike the ids of stored rows
    agent = Agent(number, _NAME, (_NAME,))
    project = Project(number, _NAME, 1, agents={number: agent})
    asked: dict[str, Any] = {"project": project, "call_id": _NAME, "group_ids": [number], "agent_ids": [number]}
    with _rehearsal(database) as (transaction, execute):
        for statement in _made_up(number, database.engine.dialect):
            execute(statement)
        state = transaction.read(**asked, known_snapshot=0)
        clock = MemberClock(1, 0, None, 1, 0, 0)
        lease = Lease(number, _NAME, state.now + _RING, number, 1, weight=1, turns=[(number, clock)], phones=[_NAME])
        row: dict[str, Any] = dict.fromkeys(DECISION_KEYS, "") | {
            **dict.fromkeys(("rule_id", "snapshot_id", "packed")),
            **dict.fromkeys(("project", "group_id", "agent_id"), number),
            **dict.fromkeys(("call_id", "sip_login", "destination"), _NAME),
            **dict.fromkeys(("attempt", "latency_us"), 0),
            "asked_at": state.now,
            "config_version": 1,
            "result": "offer",
            "record": "{}",
        }
        transaction.record(row, lease)
        state = transaction.read(**asked, known_snapshot=0)
        history = transaction.history(project=number, call_id=_NAME, now=state.now)
        changes = ask_again(project, history, from_micros(state.now))
        transaction.write(written(number, _NAME, changes))
        transaction.record(row | {"step": "2", "result": "overflow", "group_id": None, "agent_id": None}, None)


@contextmanager
def _rehearsal(database: Database) -> Iterator[tuple[Transaction, Callable[[str], object]]]:
    """A transaction like those of calls, of which nothing stays whatever it records, and what runs other SQL in it.

    No call waits for its connection.
    """
    with database.write_lock(), database.spare_connection() as connection:
        connection.execute("BEGIN IMMEDIATE" if database.is_sqlite else POSTGRES["BEGIN"].sql)
        kind = SqliteTransaction if database.is_sqlite else PostgresTransaction
        try:
            yield kind(connection, is_rehearsal=True), connection.execute
        finally:
            with suppress(*DATABASE_ERRORS):  # a connection that broke has rolled back
                connection.rollback()


def _made_up(number: int, dialect: Dialect) -> Iterator[str]:
    """Yield statements that insert the rows which a call reads."""
    of_project, of_agent = {"project_id": number}, {"agent_id": number}
    seen_at = from_micros(time.time_ns() // 1000)
    snapshot = {"id": number, "began_at": seen_at, "online": [_NAME], "speaking": []}
    rows: list[tuple[Any, dict[str, Any]]] = [
        (models.Project, {"id": number, "name": f"{_NAME}{number}", "created_at": EPOCH, "version": 1}),
        (models.Agent, {"id": number, "name": _NAME, **of_project}),
        (models.Group, {"id": number, "name": _NAME, **of_project}),
        (models.AgentState, {"status": "available", **of_agent, **of_project}),
        (models.MemberClock, {"group_id": number, **of_agent}),
        (models.PresenceSnapshot, snapshot | of_project),
        (models.Presence, {"snapshot_id": number, "began_at": seen_at, **of_project}),
        (
            models.LoginState,
            {"login": _NAME, "event_speaking": False, "since_at": seen_at, "event_at": seen_at, **of_project},
        ),
    ]
    for model, values in rows:
        statement = insert(model).values(_literals(model.__table__, values))
        yield str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _literals(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row's values by column, with the models' defaults, which apply only to their own objects."""
    found = dict(values)
    for column in table.columns:
        default: Any = column.default
        if default is not None:
            found.setdefault(column.name, default.arg(None) if callable(default.arg) else default.arg)
        if isinstance(column.type, JSON) and column.name in found:  # JSON has no literals
            found[column.name] = literal(orjson.dumps(found[column.name]).decode(), Text)
    return found
