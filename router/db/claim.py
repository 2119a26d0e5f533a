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
from psycopg import RawCursor
from psycopg.pq import TransactionStatus

from router.core.lifecycle import History
from router.core.model import MemberClock, Project
from router.db import outcomes
from router.db.claim_sql import POSTGRES, SQLITE, Statement
from router.db.session import DATABASE_ERRORS, Database, PostgresConnection, time_limit
from router.db.types import from_micros

Rows = list[tuple[Any, ...]]
Steps = Iterable[tuple[str, Mapping[str, Any]]]
"""Statements of claim_sql by name, with their parameters."""

# ---- what is read


class Earlier(NamedTuple):
    """A decision made before for the same call."""

    id: int
    step: str
    attempt: int
    asked_at: int
    destination: str
    agent_id: int | None
    sip_login: str
    outcome: str
    is_refused: bool = False  # we were told that the agent did not take it, while the call goes on
    caller: str = ""


class AgentRow(NamedTuple):
    """What an agent declared, and the clocks that calls change. Columns in the order in which they are stored with a
    decision; instants in µs."""

    agent_id: int
    status: str = "available"
    paused_until: int | None = None
    reserved_until: int | None = None  # by another call
    wrap_up_until: int | None = None
    cooling_until: int | None = None
    answered_today: int = 0
    day: str | None = None  # the local date that `answered_today` is of
    last_talk_end_at: int | None = None
    available_since_at: int | None = None
    talked_today: int = 0  # seconds, of the same `day`; a release that did not count them stored rows without


class MemberRow(NamedTuple):
    """A member's turn in a group, and then what an AgentRow holds."""

    group_id: int
    last_offered: int
    stood_at: Sequence[int] | int  # virtual time, weight, tier, left at, head start in seconds; releases stored fewer
    head_start: int | None
    head_start_day: str | None
    agent_id: int
    status: str
    paused_until: int | None
    reserved_until: int | None
    wrap_up_until: int | None
    cooling_until: int | None
    answered_today: int
    day: str | None
    last_talk_end_at: int | None
    available_since_at: int | None
    talked_today: int = 0

    def with_agent(self, agent: AgentRow) -> MemberRow:
        """Return the same turn, of an agent in this state."""
        return MemberRow._make((*self[:5], *agent))


class State(NamedTuple):
    """All that decides and changes from call to call, as read under the locks."""

    now: int
    version: int
    snapshot_id: int | None
    began_at: int | None
    presence: tuple[list[str], list[str]] | None  # online, speaking; None: as in the snapshot already known
    earlier: list[Earlier]  # oldest first
    events: dict[str, bool]  # who talks, or not any more, by what was heard since the snapshot
    members: list[MemberRow]
    agents: list[AgentRow]  # of agents asked for by id
    previous_call: Sequence[Any] | None = None  # of the caller: [asked at, answered], [] if none; None: not asked for

    def reserved(self) -> set[int]:
        """Return the ids of the agents who are promised to other calls."""
        rows: list[AgentRow | MemberRow] = [*self.members, *self.agents]
        return {row.agent_id for row in rows if (row.reserved_until or 0) > self.now}

    def promised(self, until: Mapping[int, int]) -> State:
        """Return the state with these agents reserved for so long at least."""
        found: Sequence[list[Any]] = (self.members, self.agents)
        members, agents = (
            [
                row._replace(reserved_until=until[row.agent_id])
                if until.get(row.agent_id, 0) > (row.reserved_until or 0)
                else row
                for row in rows
            ]
            for rows in found
        )
        return self._replace(members=members, agents=agents)


def state_of(project: Project, row: Sequence[Any] | None) -> State:
    """Return the state of a row of READ. Raises LookupError when the project is gone."""
    if row is None:
        raise LookupError("the project is gone")
    now, version, snapshot_id, began_at, presence, earlier, events, members, agents, phones, previous = row
    # Whoever owns a promised phone is promised until then: perhaps it was somebody else's before.
    until: dict[int, int] = {}
    for phone, expires_at in orjson.loads(phones) if phones else ():
        for agent_id in project.phone_owners.get(phone, ()):
            until[agent_id] = max(expires_at, until.get(agent_id, 0))
    state = State(
        now,
        version,
        snapshot_id,
        began_at,
        None if presence is None else tuple(orjson.loads(presence)),
        [Earlier(*values) for values in reversed(orjson.loads(earlier))] if earlier else [],
        {login: bool(talks) for login, talks in orjson.loads(events)} if events else {},
        list(map(MemberRow._make, orjson.loads(members))) if members else [],
        list(map(AgentRow._make, orjson.loads(agents))) if agents else [],
        None if previous is None else orjson.loads(previous),
    )
    return state.promised(until) if until else state


# ---- what is written


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
        self,
        *,
        project: Project,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int],
        known_snapshot: int,
        caller: str = "",
    ) -> State:
        """Lock the call and the groups, then read. `caller`: whose previous call is asked for. Raises LookupError when
        the project is gone."""

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
        self,
        *,
        project: Project,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int],
        known_snapshot: int,
        caller: str = "",
    ) -> State:
        values = {
            "now": time.time_ns() // 1000,  # the database's host is this host, its clock this clock
            "project": project.id,
            "call_id": call_id,
            "known_snapshot": known_snapshot,
            "caller": caller,
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
        self,
        *,
        project: Project,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int],
        known_snapshot: int,
        caller: str = "",
    ) -> State:
        keys = sorted(group_ids)
        if call_id:
            keys.insert(0, call_key(project.id, call_id))
        values = {
            "keys": keys,
            "project": project.id,
            "call_id": call_id,
            "known_snapshot": known_snapshot,
            "caller": caller,
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


def run(connection: PostgresConnection, steps: Sequence[tuple[Statement, Mapping[str, Any]]]) -> list[Rows]:
    """Run these statements in order, in one round trip. Return the rows of each.

    Raises psycopg.Error for the first that fails; those after it do not run.
    """
    spare, cursors = connection.cursors, []
    with connection.pipeline() as pipeline:
        connection.is_queueing = True
        try:
            for statement, values in steps:
                cursor = spare.pop(statement.sql) if statement.sql in spare else RawCursor(connection)
                parameters = [_text(values[name]) for name in statement.parameters]
                cursors.append(cursor.execute(statement.sql, parameters, prepare=statement.is_prepared))
        finally:
            connection.is_queueing, connection.queued = False, pipeline.command_queue
    spare.update(zip((statement.sql for statement, _ in steps), cursors, strict=True))
    return [[] if cursor.rownumber is None else cursor.fetchall() for cursor in cursors]


def _text(value: Any) -> str | None:
    """Return the value as text. The server knows its type, so numbers of all sizes share one prepared statement."""
    if value is None:
        return None
    if value.__class__ is str:
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if value.__class__ is list:
        return f"{{{','.join(map(str, value))}}}"
    if value.__class__ is bool:
        return "t" if value else "f"
    if value.__class__ is bytes:
        return f"\\x{value.hex()}"
    return str(value)
