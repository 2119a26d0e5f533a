"""The only contended write: who is promised to which call.

One short transaction: lock the call and the groups it may go to, read all that decides in one statement, let the caller
decide, then write the decision, the lease and the clock together. The locks keep the order strict; the primary key of
`reservations` and the unique index on the question are the guarantee, whoever writes.

Plain SQL on the driver's connection, because calls pass here: two round trips on PostgreSQL. Instants are microseconds.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
import psycopg
from sqlalchemy.pool import PoolProxiedConnection

from router.db.session import Database

EARLIER_LIMIT = 100  # decisions of one call that are looked at, newest first


class LostRaceError(Exception):
    """Somebody else was faster (the agent, or the same question): nothing was written, read and decide again."""


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


class State(NamedTuple):
    """All that decides and changes from call to call, as read under the locks."""

    now: int
    version: int
    snapshot_id: int | None
    began_at: int | None
    presence: tuple[list[str], list[str]] | None  # online, speaking; None: as in the snapshot already known
    earlier: list[Earlier]  # oldest first
    events: list[list[Any]]  # [login, speaking] heard since the snapshot
    members: list[list[Any]]  # MEMBER_COLUMNS
    agents: list[list[Any]]  # AGENT_COLUMNS, of agents asked for by id


class Lease(NamedTuple):
    """An agent promised to a call until `expires_at`, and the member's clock thereafter (group_id None: no member)."""

    agent_id: int
    sip_login: str
    expires_at: int
    group_id: int | None
    last_offered: int = 0
    virtual_time: int = 0
    head_start: int = 0
    day: str = ""
    absent: Sequence[int] = ()
    lift: int = 0


_AGENT = (
    "a.agent_id, a.status, a.paused_until, r.expires_at, a.wrap_up_until, a.cooling_until, a.answered_today, a.day,"
    " a.last_talk_end_at, a.available_since_at"
)
AGENT_COLUMNS = [column.partition(".")[2] for column in _AGENT.split(", ")]
_MEMBER = f"c.group_id, c.last_offered, c.virtual_time, c.head_start, c.day, {_AGENT}"
MEMBER_COLUMNS = [column.partition(".")[2] for column in _MEMBER.split(", ")]

# A lease of the same call does not stand in its own way. Calls without an id are all different.
_LEASED = "LEFT JOIN reservations r ON r.agent_id = a.agent_id AND (r.call_id <> :call_id OR r.call_id = '')"

_READ = f"""
SELECT %(now)s, p.version, pr.snapshot_id, pr.began_at,
  CASE WHEN pr.snapshot_id = :known_snapshot THEN NULL ELSE
    (SELECT %(pair)s FROM presence_snapshots s WHERE s.id = pr.snapshot_id) END,
  (SELECT %(rows)sd.id, d.step, d.attempt, d.asked_at, d.destination, d.agent_id, d.sip_login, d.outcome%(end)s
    FROM (SELECT * FROM decisions WHERE project_id = :project AND call_id = :call_id AND call_id <> ''
          ORDER BY id DESC LIMIT {EARLIER_LIMIT}) d),
  (SELECT %(rows)sl.login, l.event_speaking%(end)s FROM login_states l
    WHERE l.project_id = :project AND l.event_at > coalesce(pr.began_at, 0)),
  (SELECT %(rows)s{_MEMBER}%(end)s FROM member_clocks c JOIN agent_states a ON a.agent_id = c.agent_id {_LEASED}
    WHERE c.group_id %(in_groups)s),
  (SELECT %(rows)s{_AGENT}%(end)s FROM agent_states a {_LEASED} WHERE a.agent_id %(in_agents)s)
FROM projects p LEFT JOIN presence pr ON pr.project_id = p.id WHERE p.id = :project
"""

_DECISION = (
    "project_id, call_id, step, attempt, asked_at, caller, dialed, rule_id, group_id, agent_id, sip_login, destination,"
    " result, degraded, config_version, snapshot_id, latency_us, record, outcome, inferred, answered_login, disposition"
)
_INSERT_DECISION = (
    f"INSERT INTO decisions ({_DECISION}) VALUES (:project, :call_id, :step, :attempt, :asked_at, :caller, :dialed,"
    " :rule_id, :group_id, :agent_id, :sip_login, :destination, :result, :degraded, :config_version, :snapshot_id,"
    " :latency_us, :record, '', false, '', '')"
)
_LEASE_COLUMNS = "agent_id, project_id, group_id, decision_id, call_id, sip_login, claimed_at, expires_at"
# One statement takes the lease, and only if none is live.
_ON_LEASED = (
    " ON CONFLICT (agent_id) DO UPDATE SET project_id = excluded.project_id, group_id = excluded.group_id,"
    " decision_id = excluded.decision_id, call_id = excluded.call_id, sip_login = excluded.sip_login,"
    " claimed_at = excluded.claimed_at, expires_at = excluded.expires_at"
    " WHERE reservations.expires_at <= excluded.claimed_at"
)
_MOVE_CLOCK = (
    "INSERT INTO member_clocks (group_id, agent_id, last_offered, virtual_time, head_start, day)"
    " VALUES (:group_id, :agent_id, :last_offered, :virtual_time, :head_start, :day) ON CONFLICT (group_id, agent_id)"
    " DO UPDATE SET last_offered = excluded.last_offered, virtual_time = excluded.virtual_time,"
    " head_start = excluded.head_start, day = excluded.day"
)
_LIFT_ABSENT = (
    "UPDATE member_clocks SET virtual_time = :lift WHERE group_id = :group_id AND virtual_time < :lift"
    " AND agent_id %(in_agents)s"
)
_END_NO_ANSWER = (
    "UPDATE decisions SET outcome = 'no_answer', ended_at = :now WHERE project_id = :project AND call_id = :call_id"
    " AND outcome = '' AND agent_id IS NOT NULL RETURNING agent_id"
)
_RELEASE_CALL = "DELETE FROM reservations WHERE project_id = :project AND call_id = :call_id"
_COOL_DOWN = (
    "UPDATE agent_states SET cooling_until = :until, no_answers = no_answers + 1,"
    " status = CASE WHEN :limit > 0 AND no_answers + 1 >= :limit AND status = 'available' THEN 'on_break'"
    " ELSE status END,"
    " status_since_at = CASE WHEN :limit > 0 AND no_answers + 1 >= :limit AND status = 'available' THEN :now"
    " ELSE status_since_at END,"
    " status_reason = CASE WHEN :limit > 0 AND no_answers + 1 >= :limit AND status = 'available' THEN 'no_answers'"
    " ELSE status_reason END"
    " WHERE agent_id = :agent_id"
)


class Transaction:
    """One question's transaction. `read` first, then at most one `record`, which commits."""

    def read(
        self,
        *,
        project: int,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int] = (),
        known_snapshot: int = 0,
    ) -> State:
        """Lock the call and the groups, then read. Raises LookupError when the project is gone."""
        raise NotImplementedError

    def release(self, *, project: int, call_id: str, now: int, cool_down: int, break_after: int) -> None:
        """The agents named to this call before did not answer: end their leases, start their cool-down (µs)."""
        call = {"project": project, "call_id": call_id, "now": now}
        self._execute("RELEASE", call)
        for (agent_id,) in self._execute("END_NO_ANSWER", call):
            self._execute(
                "COOL_DOWN", {"agent_id": agent_id, "until": now + cool_down, "limit": break_after, "now": now}
            )

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        """Write the decision with its lease and clock, commit; the decision's id. Raises LostRaceError."""
        raise NotImplementedError

    def _execute(self, statement: str, values: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        raise NotImplementedError


@contextmanager
def question(database: Database, *, deadline: float) -> Iterator[Transaction]:
    """A transaction for one question, rolled back unless recorded. Waits for locks until `deadline` (monotonic)."""
    if database.is_sqlite:
        with database.write_lock(deadline), _borrowed(database) as pooled:
            connection: sqlite3.Connection = pooled.driver_connection  # type: ignore[assignment]
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteTransaction(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    else:
        with _borrowed(database) as pooled:
            session: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
            try:
                yield _PostgresTransaction(session)
            finally:
                session.rollback()


@contextmanager
def _borrowed(database: Database) -> Iterator[PoolProxiedConnection]:
    pooled = database.raw()
    try:
        yield pooled
    except (sqlite3.OperationalError, psycopg.OperationalError):
        pooled.invalidate()  # the connection may be broken: the next call gets a new one
        raise
    finally:
        with suppress(Exception):
            pooled.close()


def _state(row: Sequence[Any] | None) -> State:
    if row is None:
        raise LookupError("the project is gone")
    now, version, snapshot_id, began_at, presence, earlier, events, members, agents = row
    return State(
        now,
        version,
        snapshot_id,
        began_at,
        None if presence is None else tuple(orjson.loads(presence)),
        [Earlier(*values) for values in reversed(orjson.loads(earlier))] if earlier else [],
        orjson.loads(events) if events else [],
        orjson.loads(members) if members else [],
        orjson.loads(agents) if agents else [],
    )


def _lease_values(decision: dict[str, Any], lease: Lease) -> dict[str, Any]:
    return {
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
        "day": lease.day or None,
    }


# ---- SQLite: the file lock and BEGIN IMMEDIATE serialise everything, statements cost no round trip

_SQLITE_WORDS = {
    "now": ":now",
    "rows": "json_group_array(json_array(",
    "end": "))",
    "pair": "json_array(json(s.online), json(s.speaking))",
    "in_groups": "IN (SELECT value FROM json_each(:group_ids))",
    "in_agents": "IN (SELECT value FROM json_each(:agent_ids))",
}
_SQLITE = {
    "READ": _READ % _SQLITE_WORDS,
    "DECISION": _INSERT_DECISION,
    "LEASE": f"INSERT INTO reservations ({_LEASE_COLUMNS}) VALUES (:agent_id, :project, :group_id, :decision_id,"
    f" :call_id, :sip_login, :asked_at, :expires_at){_ON_LEASED}",
    "CLOCK": _MOVE_CLOCK,
    "LIFT": _LIFT_ABSENT % _SQLITE_WORDS,
    "RELEASE": _RELEASE_CALL,
    "END_NO_ANSWER": _END_NO_ANSWER,
    "COOL_DOWN": _COOL_DOWN,
}


class _SqliteTransaction(Transaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _execute(self, statement: str, values: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(_SQLITE[statement], values).fetchall()

    def read(
        self,
        *,
        project: int,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int] = (),
        known_snapshot: int = 0,
    ) -> State:
        return _state(
            self._connection.execute(
                _SQLITE["READ"],
                {
                    "now": time.time_ns() // 1000,  # the database's host is this host, its clock this clock
                    "project": project,
                    "call_id": call_id,
                    "known_snapshot": known_snapshot,
                    "group_ids": orjson.dumps(group_ids).decode(),
                    "agent_ids": orjson.dumps(agent_ids).decode(),
                },
            ).fetchone()
        )

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        execute = self._connection.execute
        try:
            decision_id = execute(_SQLITE["DECISION"], decision).lastrowid or 0
        except sqlite3.IntegrityError as error:
            raise LostRaceError from error
        if lease is not None:
            values = _lease_values(decision, lease)
            values["decision_id"] = decision_id
            if execute(_SQLITE["LEASE"], values).rowcount != 1:
                raise LostRaceError
            if lease.group_id is not None:
                execute(_SQLITE["CLOCK"], values)
            if lease.absent:
                absent = orjson.dumps(lease.absent).decode()
                execute(_SQLITE["LIFT"], {"group_id": lease.group_id, "lift": lease.lift, "agent_ids": absent})
        execute("COMMIT")
        return decision_id


# ---- PostgreSQL: advisory locks on the call and its groups; two round trips and the commit

_POSTGRES_WORDS = {
    "now": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",  # now() would be the time before the locks
    "rows": "json_agg(json_build_array(",
    "end": "))::text",
    "pair": "json_build_array(s.online, s.speaking)::text",
    "in_groups": "= ANY(:group_ids)",
    "in_agents": "= ANY(:agent_ids)",
}


def _for_psycopg(sql: str) -> str:
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", sql)


_POSTGRES = {
    name: _for_psycopg(sql)
    for name, sql in {
        # A statement sees what was committed when it began: the locks must be held before the one that reads begins.
        "LOCK": "SELECT pg_advisory_xact_lock(key) FROM unnest(:keys::bigint[]) key",
        "READ": _READ % _POSTGRES_WORDS,
        "DECISION": f"{_INSERT_DECISION} RETURNING id",
        "OFFER": f"WITH decision AS ({_INSERT_DECISION} RETURNING id), clock AS ({_MOVE_CLOCK})"
        f" INSERT INTO reservations ({_LEASE_COLUMNS}) SELECT :agent_id, :project, :group_id, id, :call_id, :sip_login,"
        f" :asked_at, :expires_at FROM decision{_ON_LEASED} RETURNING decision_id",
        "PREFERRED": f"WITH decision AS ({_INSERT_DECISION} RETURNING id)"
        f" INSERT INTO reservations ({_LEASE_COLUMNS}) SELECT :agent_id, :project, NULL, id, :call_id, :sip_login,"
        f" :asked_at, :expires_at FROM decision{_ON_LEASED} RETURNING decision_id",
        "LIFT": _LIFT_ABSENT % _POSTGRES_WORDS,
        "RELEASE": _RELEASE_CALL,
        "END_NO_ANSWER": _END_NO_ANSWER,
        "COOL_DOWN": _COOL_DOWN,
    }.items()
}


class _PostgresTransaction(Transaction):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursor = connection.cursor()

    def _execute(self, statement: str, values: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        cursor = self._cursor.execute(_POSTGRES[statement], values)
        return cursor.fetchall() if cursor.description else []

    def read(
        self,
        *,
        project: int,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int] = (),
        known_snapshot: int = 0,
    ) -> State:
        keys = sorted(group_ids)
        if call_id:
            keys.insert(0, _call_key(project, call_id))
        values = {
            "project": project,
            "call_id": call_id,
            "known_snapshot": known_snapshot,
            "group_ids": list(group_ids),
            "agent_ids": list(agent_ids),
        }
        with self._connection.pipeline():
            self._connection.execute(_POSTGRES["LOCK"], {"keys": keys})
            reading = self._cursor.execute(_POSTGRES["READ"], values)
            return _state(reading.fetchone())

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        try:
            if lease is None:
                cursor = self._cursor.execute(_POSTGRES["DECISION"], decision)
            else:
                statement = "PREFERRED" if lease.group_id is None else "OFFER"
                cursor = self._cursor.execute(_POSTGRES[statement], decision | _lease_values(decision, lease))
            row = cursor.fetchone()
            if row is None:
                raise LostRaceError
            if lease is not None and lease.absent:
                values = {"group_id": lease.group_id, "lift": lease.lift, "agent_ids": list(lease.absent)}
                self._cursor.execute(_POSTGRES["LIFT"], values)
            self._connection.commit()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected) as error:
            raise LostRaceError from error
        return int(row[0])


def _call_key(project: int, call_id: str) -> int:
    """A lock's number for a call: negative, so that it never meets a group's. Always taken first."""
    digest = blake2b(f"{project}:{call_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return -1 - (int.from_bytes(digest) >> 1)
