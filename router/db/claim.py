"""The only contended write: who is promised to which call.

One short transaction: lock the call and the groups it may go to, read all that decides in one statement, let the caller
decide, then write the decision, the lease and the clock together. The locks keep the order strict; the primary keys of
`reservations` and `reserved_phones` and the unique index on the question are the guarantee, whoever writes.

Plain SQL (claim_sql.py) on a connection of the driver, because calls pass here: two round trips on PostgreSQL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import orjson
import psycopg
from psycopg.pq import TransactionStatus

from router.core.lifecycle import History
from router.core.model import MemberClock, Project
from router.db import outcomes
from router.db.claim_sql import POSTGRES, SQLITE
from router.db.session import DATABASE_ERRORS, Database, PostgresConnection, time_limit
from router.db.state import State, state_of
from router.db.statements import Rows, run
from router.db.types import from_micros

Steps = Iterable[tuple[str, Mapping[str, Any]]]
"""Statements of claim_sql by name, with their parameters."""


class LostRaceError(Exception):
    """Somebody else was faster (the agent, or the same question): nothing was written, read and decide again."""


class Lease(NamedTuple):
    """An agent and all their `phones` promised to a call until `expires_at`, and the member's clock thereafter
    (group_id None: no member)."""

    agent_id: int
    sip_login: str
    expires_at: int
    group_id: int | None
    last_offered: int = 0
    virtual_time: int = 0
    head_start: int = 0
    weight: int = 0
    tier: int = 0
    day: str = ""
    turns: Sequence[tuple[int, MemberClock]] = ()  # (agent, clock): those of others that change with it
    phones: Sequence[str] = ()  # all that are promised with it, by core.phones.phone_of, sorted
    head_start_seconds: int = 0


class Transaction(Protocol):
    """One question's transaction. `read` first, then at most one `record`, which commits."""

    def read(
        self, *, project: Project, call_id: str, group_ids: Sequence[int], agent_ids: Sequence[int], known_snapshot: int
    ) -> State:
        """Lock the call and the groups, then read. Raises LookupError when the project is gone."""

    def history(self, *, project: int, call_id: str, now: int) -> History:
        """Return what became of the call so far, with the clocks of its agents, held until the transaction ends."""

    def write(self, steps: Steps) -> None:
        """Write what becomes of it now: see db/outcomes.py."""

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        """Write the decision with its lease and clock, commit; return the decision's id. Raises LostRaceError."""

    def run(self, steps: Steps) -> list[Rows]:
        """Run these statements; return the rows of each. Raises what the driver does."""

    def end(self) -> None:
        """Undo what was not committed."""


@contextmanager
def question(
    database: Database, *, deadline: float, is_locked: bool = True, is_apart: bool = False
) -> Iterator[Transaction]:
    """A transaction for one question, rolled back unless recorded. Waits for nothing beyond `deadline` (monotonic).

    Not `is_locked`: to read alone, the state as it stands, for dry runs and to be remembered. `is_apart`: on a
    connection of its own, where a call may hold the one of this process for long.
    """
    write_lock = database.write_lock() if is_locked else nullcontext()
    lent = database.spare_connection() if is_apart else database.call_connection()
    with time_limit(deadline - time.monotonic()), write_lock, lent as connection:
        transaction: Transaction
        if database.is_sqlite:
            transaction = SqliteTransaction(connection)
            if is_locked:
                connection.execute("BEGIN IMMEDIATE")
        else:
            transaction = PostgresTransaction(connection, is_locked=is_locked)
        try:
            yield transaction
        except DATABASE_ERRORS:
            raise  # the connection will be closed
        except Exception:
            transaction.end()
            raise
        transaction.end()


def lease_values(decision: Mapping[str, Any], lease: Lease) -> dict[str, Any]:
    """Return the parameters of the statements that write a lease, but for `decision_id`."""
    turns = [(agent_id, c.virtual_time, c.head_start, c.weight, c.tier, c.left_at) for agent_id, c in lease.turns]
    return {
        "phones": orjson.dumps(lease.phones).decode(),
        "agent_id": lease.agent_id,
        "project": decision["project"],
        "group_id": lease.group_id,
        "call_id": decision["call_id"],
        "sip_login": lease.sip_login,
        "asked_at": decision["asked_at"],
        "expires_at": lease.expires_at,
        "last_offered": lease.last_offered,
        "virtual_time": lease.virtual_time,
        "head_start": lease.head_start,
        "head_start_seconds": lease.head_start_seconds,
        "weight": lease.weight,
        "tier": lease.tier,
        "day": lease.day or None,
        "turns": orjson.dumps(turns).decode(),
    }


def _history(call_id: str, now: int, call: Sequence[Any], people: Sequence[Any]) -> History:
    history = next(iter(outcomes.histories(call)), History(call_id))
    found = outcomes.People(people, from_micros(now))
    return outcomes.with_people(history, found, found.clocks, ())


# ---- SQLite: the file lock and BEGIN IMMEDIATE serialise everything, statements cost no round trip


@dataclass(slots=True)
class SqliteTransaction:
    """A transaction that has begun. A rehearsal never commits."""

    connection: sqlite3.Connection
    is_rehearsal: bool = False

    def read(
        self, *, project: Project, call_id: str, group_ids: Sequence[int], agent_ids: Sequence[int], known_snapshot: int
    ) -> State:
        values = {
            "now": time.time_ns() // 1000,  # the database's host is this host, its clock this clock
            "project": project.id,
            "call_id": call_id,
            "known_snapshot": known_snapshot,
            "group_ids": orjson.dumps(group_ids).decode(),
            "agent_ids": orjson.dumps(agent_ids).decode(),
        }
        return state_of(project, self.connection.execute(SQLITE["READ"], values).fetchone())

    def history(self, *, project: int, call_id: str, now: int) -> History:
        call = {"project": project, "call_id": call_id}
        return _history(call_id, now, *(rows[0] for rows in self.run([("CALL", call), ("AGENTS", call)])))

    def write(self, steps: Steps) -> None:
        self.run(steps)

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        execute = self.connection.execute
        try:
            decision_id = execute(SQLITE["DECISION"], decision).lastrowid or 0
        except sqlite3.IntegrityError as error:
            raise LostRaceError from error
        if lease is not None:
            values = lease_values(decision, lease) | {"decision_id": decision_id}
            if execute(SQLITE["LEASE"], values).rowcount != 1:
                raise LostRaceError
            if execute(SQLITE["PHONES"], values).rowcount != len(lease.phones):
                raise LostRaceError
            if lease.group_id is not None:
                execute(SQLITE["CLOCK"], values)
            if lease.turns:
                execute(SQLITE["TURNS"], values)
        if not self.is_rehearsal:
            execute("COMMIT")
        return decision_id

    def run(self, steps: Steps) -> list[Rows]:
        return [self.connection.execute(SQLITE[name], values).fetchall() for name, values in steps]

    def end(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


# ---- PostgreSQL: advisory locks on the call and its groups; two round trips in all

# Somebody else was faster: duplicate key, no lease, agent deleted, deadlock, serialization failure.
_LOST = frozenset({"23505", "22012", "23503", "40P01", "40001"})
_READING = frozenset({"BEGIN", "SETTINGS", "LOCK", "READ", "CALL", "AGENTS"})


@dataclass(slots=True)
class PostgresTransaction:
    """A transaction that begins with its first statement. A rehearsal has begun, and never commits."""

    connection: PostgresConnection
    is_locked: bool = True
    is_rehearsal: bool = False
    _has_begun: bool = field(default=False, init=False)
    _has_written: bool = field(default=False, init=False)

    def read(
        self, *, project: Project, call_id: str, group_ids: Sequence[int], agent_ids: Sequence[int], known_snapshot: int
    ) -> State:
        keys = sorted(group_ids)
        if call_id:
            keys.insert(0, call_key(project.id, call_id))
        values = {
            "keys": keys,
            "project": project.id,
            "call_id": call_id,
            "known_snapshot": known_snapshot,
            "group_ids": list(group_ids),
            "agent_ids": list(agent_ids),
        }
        rows = self._run([("LOCK", values), ("READ", values)] if self.is_locked else [("READ", values)])[-1]
        return state_of(project, next(iter(rows), None))

    def history(self, *, project: int, call_id: str, now: int) -> History:
        call = {"project": project, "call_id": call_id}
        return _history(call_id, now, *(rows[0] for rows in self._run([("CALL", call), ("AGENTS", call)])))

    def write(self, steps: Steps) -> None:
        self._run(steps)

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        steps: list[tuple[str, Mapping[str, Any]]] = [("DECISION", decision)]
        if lease is not None:
            values = lease_values(decision, lease) | decision
            steps = [("PREFERRED" if lease.group_id is None else "OFFER", values)]
            if lease.turns:
                steps.append(("TURNS", values))
        if not self.is_rehearsal:
            steps.append(("COMMIT", {}))
        decision_id: int = self._run(steps)[0][0][0]
        return decision_id

    def run(self, steps: Steps) -> list[Rows]:
        first: list[tuple[str, Mapping[str, Any]]] = []
        if self.is_locked and not self._has_begun:
            names = ["SETTINGS"] if self.is_rehearsal else ["BEGIN", "SETTINGS"][: 1 + self.connection.is_pooled]
            first, self._has_begun = [(name, {}) for name in names], True
        steps = [*first, *steps]
        self._has_written = self._has_written or not _READING.issuperset(name for name, _ in steps)
        return run(self.connection, [(POSTGRES[name], values) for name, values in steps])[len(first) :]

    def _run(self, steps: Steps) -> list[Rows]:
        try:
            return self.run(steps)
        except psycopg.Error as error:
            if error.sqlstate in _LOST:
                raise LostRaceError from error
            raise

    def end(self) -> None:
        status = self.connection.info.transaction_status
        if status == TransactionStatus.INTRANS and not self._has_written:
            self._run([("COMMIT", {})])  # after a rollback psycopg forgets what it has prepared
        elif status != TransactionStatus.IDLE:
            self.connection.rollback()


def call_key(project: int, call_id: str) -> int:
    """Return the number by which a call is locked: negative, so that it is no group's, and its lock is the first."""
    digest = blake2b(f"{project}:{call_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return -1 - (int.from_bytes(digest) >> 1)
