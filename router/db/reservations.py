"""The only contended write: who is promised to which call.

One short transaction: lock the call and the groups it may go to, read all that decides in one statement, let the caller
decide, then write the decision, the lease and the clock together. The locks keep the order strict; the primary keys of
`reservations` and `reserved_phones` and the unique index on the question are the guarantee, whoever writes.

Plain SQL on a connection of the driver, because calls pass here: two round trips on PostgreSQL. Instants are
microseconds since the epoch.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
import psycopg
from psycopg.pq import TransactionStatus

from router.core import lifecycle
from router.core.lifecycle import History
from router.core.model import MemberClock, Project
from router.core.phones import phone_of
from router.db import outcomes
from router.db.session import CLOCK_STEP, DATABASE_ERRORS, Database, PostgresConnection, call_settings, time_limit
from router.db.statements import Rows, Statement, read_statements, run
from router.db.types import MICROSECOND, from_micros

EARLIER_LIMIT = 100  # decisions of one call that are looked at, newest first
LONGEST_TALK = lifecycle.LONGEST_TALK // MICROSECOND

Row = TypeVar("Row", "AgentRow", "MemberRow")


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
    is_refused: bool = False  # we were told that the agent did not take it, while the call goes on
    caller: str = ""

    @classmethod
    def of(cls, decision: Mapping[str, Any], decision_id: int = 0) -> Earlier:
        """The same of a row as it is written; 0: it is not written yet."""
        return cls(
            decision_id,
            decision["step"],
            decision["attempt"],
            decision["asked_at"],
            decision["destination"],
            decision["agent_id"],
            decision["sip_login"],
            "",
            caller=decision["caller"],
        )


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


class MemberRow(NamedTuple):
    """A member's turn in a group, and then what an AgentRow holds."""

    group_id: int
    last_offered: int
    stood_at: Sequence[int] | int  # virtual time, weight, tier, left at; a release stored the virtual time alone
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

    @property
    def agent(self) -> AgentRow:
        """Return the agent's state alone."""
        return AgentRow._make(self[5:])

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

    def reserved(self) -> set[int]:
        """Return the ids of the agents who are promised to other calls."""
        rows: list[AgentRow | MemberRow] = [*self.members, *self.agents]
        return {row.agent_id for row in rows if (row.reserved_until or 0) > self.now}


def promised(state: State, until: Mapping[int, int]) -> State:
    """Return the state with these agents reserved for so long at least."""

    def rows(found: list[Row]) -> list[Row]:
        return [
            row._replace(reserved_until=until[row.agent_id])
            if until.get(row.agent_id, 0) > (row.reserved_until or 0)
            else row
            for row in found
        ]

    return state._replace(members=rows(state.members), agents=rows(state.agents)) if until else state


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
    phones: Sequence[str] = ()  # see core.phones.phone_of; that of `sip_login` is promised in any case


_AGENT = (
    "a.agent_id, a.status, a.paused_until, r.expires_at, a.wrap_up_until, a.cooling_until, a.answered_today, a.day,"
    " a.last_talk_end_at, a.available_since_at"
)
_MEMBER = (
    f"c.group_id, c.last_offered, %(array)s(c.virtual_time, c.weight, c.tier, c.left_at), c.head_start, c.day, {_AGENT}"
)

# A lease of the same call does not stand in its own way. Calls without an id are all different.
_LEASED = "LEFT JOIN reservations r ON r.agent_id = a.agent_id AND (r.call_id <> :call_id OR r.call_id = '')"

_READ = f"""
SELECT %(now)s, p.version, pr.snapshot_id, pr.began_at,
  CASE WHEN pr.snapshot_id = :known_snapshot THEN NULL ELSE
    (SELECT %(pair)s FROM presence_snapshots s WHERE s.id = pr.snapshot_id) END,
  (SELECT %(rows)sd.id, d.step, d.attempt, d.asked_at, d.destination, d.agent_id, d.sip_login, d.outcome,
      d.agent_id IS NOT NULL AND d.outcome IN ('busy', 'no_answer', 'failed') AND NOT d.inferred AND NOT EXISTS
        (SELECT 1 FROM heard_calls h WHERE h.project_id = d.project_id AND h.call_id = d.call_id
          AND h.ended_at IS NOT NULL) AND NOT EXISTS
        (SELECT 1 FROM decisions o WHERE o.project_id = d.project_id AND o.call_id = d.call_id AND o.call_id <> ''
          AND o.outcome = 'answered' AND o.ended_at IS NULL AND o.answered_at >= d.asked_at), d.caller%(end)s
    FROM (SELECT * FROM decisions WHERE project_id = :project AND call_id = :call_id AND call_id <> ''
          ORDER BY id DESC LIMIT {EARLIER_LIMIT}) d),
  (SELECT %(rows)sl.login, l.event_speaking%(end)s FROM login_states l
    WHERE l.project_id = :project AND l.event_at > %(now)s - {LONGEST_TALK}
      AND (pr.began_at IS NULL OR l.event_at > pr.began_at OR pr.began_at > %(now)s + {CLOCK_STEP // MICROSECOND})),
  (SELECT %(rows)s{_MEMBER}%(end)s FROM member_clocks c JOIN agent_states a ON a.agent_id = c.agent_id {_LEASED}
    WHERE c.group_id %(in_groups)s),
  (SELECT %(rows)s{_AGENT}%(end)s FROM agent_states a {_LEASED} WHERE a.agent_id %(in_agents)s),
  (SELECT %(rows)sf.phone, f.expires_at%(end)s FROM reserved_phones f
    WHERE f.project_id = :project AND f.expires_at > %(now)s AND (f.call_id <> :call_id OR f.call_id = ''))
FROM projects p LEFT JOIN presence pr ON pr.project_id = p.id WHERE p.id = :project
"""

_DECISION = (
    "project_id, call_id, step, attempt, asked_at, caller, dialed, rule_id, group_id, agent_id, sip_login, destination,"
    " result, degraded, config_version, snapshot_id, latency_us, record, packed, outcome, inferred, answered_login,"
    " disposition"
)
_DECISION_VALUES = (
    ":project, :call_id, :step, :attempt, :asked_at, :caller, :dialed, :rule_id, :group_id, :agent_id, :sip_login,"
    " :destination, :result, :degraded, :config_version, :snapshot_id, :latency_us, :record, :packed, '', false, '', ''"
)
DECISION_KEYS = frozenset(re.findall(r":(\w+)", _DECISION_VALUES))  # of a row as it is recorded
_INSERT_DECISION = f"INSERT INTO decisions ({_DECISION}) VALUES ({_DECISION_VALUES})"
_LEASE_COLUMNS = "agent_id, project_id, group_id, decision_id, call_id, sip_login, claimed_at, expires_at"
# One statement takes the lease, and only if none is live.
_ON_LEASED = (
    " ON CONFLICT (agent_id) DO UPDATE SET project_id = excluded.project_id, group_id = excluded.group_id,"
    " decision_id = excluded.decision_id, call_id = excluded.call_id, sip_login = excluded.sip_login,"
    " claimed_at = excluded.claimed_at, expires_at = excluded.expires_at"
    " WHERE reservations.expires_at <= excluded.claimed_at"
)
_PHONE_COLUMNS = "project_id, phone, agent_id, call_id, expires_at"
_ON_PHONE_RESERVED = (
    " ON CONFLICT (project_id, phone) DO UPDATE SET agent_id = excluded.agent_id, call_id = excluded.call_id,"
    " expires_at = excluded.expires_at WHERE reserved_phones.expires_at <="
)
_MOVE_CLOCK = (
    "INSERT INTO member_clocks (group_id, agent_id, last_offered, virtual_time, head_start, weight, tier, day)"
    " VALUES (:group_id, :agent_id, :last_offered, :virtual_time, :head_start, :weight, :tier, :day)"
    " ON CONFLICT (group_id, agent_id) DO UPDATE SET last_offered = excluded.last_offered,"
    " virtual_time = excluded.virtual_time, head_start = excluded.head_start, weight = excluded.weight,"
    " tier = excluded.tier, left_at = 0, day = excluded.day"
)
_TURNS = (
    "UPDATE member_clocks SET virtual_time = t.virtual_time, head_start = t.head_start, weight = t.weight,"
    " tier = t.tier, left_at = t.left_at FROM (%(turns)s) t"
    " WHERE group_id = :group_id AND member_clocks.agent_id = t.agent_id"
)


def is_refusal(error: BaseException) -> bool:
    """Does this say that the row is wrong, not the database? It would never be taken, however often it is tried."""
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "")[:2] in ("22", "23")  # data exception, integrity constraint violation
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError | UnicodeError)


class Transaction(Protocol):
    """One question's transaction. `read` first, then at most one `record`, which commits."""

    def read(
        self, *, project: Project, call_id: str, group_ids: Sequence[int], agent_ids: Sequence[int], known_snapshot: int
    ) -> State:
        """Lock the call and the groups, then read. Raises LookupError when the project is gone."""

    def history(self, *, project: int, call_id: str, now: int) -> History:
        """What became of the call so far, with the clocks of its agents, held until the transaction ends."""

    def write(self, statements: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Write what becomes of it now: see db/outcomes.py."""

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        """Write the decision with its lease and clock, commit; the decision's id. Raises LostRaceError."""

    def restore(self, rows: Sequence[tuple[dict[str, Any], Lease | None]]) -> None:
        """Write what was decided without the database, commit."""


@contextmanager
def question(database: Database, *, deadline: float) -> Iterator[Transaction]:
    """A transaction for one question, rolled back unless recorded. Waits for nothing beyond `deadline` (monotonic)."""
    open_transaction = _sqlite_transaction if database.is_sqlite else _postgres_transaction
    with time_limit(deadline - time.monotonic()), open_transaction(database) as transaction:
        yield transaction


def peek(
    database: Database,
    *,
    project: Project,
    group_ids: Sequence[int],
    agent_ids: Sequence[int],
    known_snapshot: int,
    deadline: float,
    call_id: str = "",
    is_apart: bool = False,
) -> State:
    """The state as it stands, without a lock: for dry runs, and to be remembered.

    `is_apart`: on a connection of its own, where a call may hold the one of this process for long.
    """
    values = {
        "now": time.time_ns() // 1000,
        "project": project.id,
        "call_id": call_id,
        "known_snapshot": known_snapshot,
    }
    lend = database.spare_connection if is_apart else database.call_connection
    with time_limit(deadline - time.monotonic()), lend() as connection:
        if database.is_sqlite:
            lists = {"group_ids": orjson.dumps(group_ids).decode(), "agent_ids": orjson.dumps(agent_ids).decode()}
            return _state(project, connection.execute(_SQLITE["READ"], values | lists).fetchone())
        values |= {"group_ids": list(group_ids), "agent_ids": list(agent_ids)}
        return _state(project, next(iter(run(connection, [(_POSTGRES["READ"], values)])[0]), None))


def restore(database: Database, rows: Sequence[tuple[dict[str, Any], Lease | None]], *, deadline: float) -> None:
    """Write decisions that were answered without the database, all or none.

    A question that somebody recorded meanwhile stays as it is. A lease still live keeps its agent from other calls;
    of two that were promised apart the longer one stays. The clock moves as if the offer were made now.
    """
    with question(database, deadline=deadline) as transaction:
        transaction.restore(rows)


def _state(project: Project, row: Sequence[Any] | None) -> State:
    if row is None:
        raise LookupError("the project is gone")
    now, version, snapshot_id, began_at, presence, earlier, events, members, agents, phones = row
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
    )
    return promised(state, until)


def _phones(login: str, others: Sequence[str] = ()) -> str:
    # In one order, for whoever else takes several of them.
    return orjson.dumps(sorted({phone_of(login), *others})).decode()


def _history(call_id: str, now: int, call: Sequence[Any], people: Sequence[Any]) -> History:
    history = next(iter(outcomes.histories(call)), History(call_id))
    return outcomes.with_people(history, outcomes.People(people, from_micros(now)))


def _outcome_statements(kind: str) -> dict[str, str]:
    """Those of db/outcomes.py that a next step needs."""
    wanted = ("CALL", "AGENTS", "CLOCKS", "HUSH", "RELEASE_CALL", "OUTCOME", "HEARD")
    return {name: sql for name, sql in outcomes.statements(kind).items() if name in wanted}


def _lease_values(decision: dict[str, Any], lease: Lease) -> dict[str, Any]:
    return {
        "phones": _phones(lease.sip_login, lease.phones),
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
        "weight": lease.weight,
        "tier": lease.tier,
        "day": lease.day or None,
    }


def _turns_values(lease: Lease) -> dict[str, Any]:
    turns = [(agent_id, c.virtual_time, c.head_start, c.weight, c.tier, c.left_at) for agent_id, c in lease.turns]
    return {"group_id": lease.group_id, "turns": orjson.dumps(turns).decode()}


# The project may be deleted since. The same promise again counts where it names its decision.
_RESTORE_LEASE = (
    f"INSERT INTO reservations ({_LEASE_COLUMNS}) SELECT :agent_id, :project, :group_id, :decision_id, :call_id,"
    " :sip_login, :asked_at, :expires_at FROM projects WHERE id = :project%(held)s"
    " ON CONFLICT (agent_id) DO UPDATE SET project_id = excluded.project_id,"
    " group_id = excluded.group_id, decision_id = excluded.decision_id, call_id = excluded.call_id,"
    " sip_login = excluded.sip_login, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at"
    " WHERE (reservations.expires_at, 0) < (excluded.expires_at, excluded.decision_id)"
)
_RESTORE_PHONES = (
    f"INSERT INTO reserved_phones ({_PHONE_COLUMNS}) SELECT r.project_id, value, r.agent_id, :call_id, :expires_at"
    f" FROM reservations r, %(phones)s WHERE r.agent_id = :agent_id{_ON_PHONE_RESERVED} excluded.expires_at"
)
_RESTORE_CLOCK = (
    "UPDATE member_clocks SET last_offered = 1 +"
    " (SELECT max(last_offered) FROM member_clocks WHERE group_id = :group_id)"
    " WHERE group_id = :group_id AND agent_id = :agent_id"
)
# It may be recorded though nobody heard so. The question of a call without an id has no key, but its lease shows it.
_RESTORE = (
    f"INSERT INTO decisions ({_DECISION}) SELECT {_DECISION_VALUES} WHERE NOT EXISTS (SELECT * FROM reservations"
    " WHERE agent_id = :agent_id AND claimed_at = :asked_at AND decision_id > 0)"
    " ON CONFLICT DO NOTHING RETURNING id"
)


# ---- SQLite: the file lock and BEGIN IMMEDIATE serialise everything, statements cost no round trip

_SQLITE_WORDS = {
    "now": ":now",
    "rows": "json_group_array(json_array(",
    "end": "))",
    "array": "json_array",
    "pair": "json_array(json(s.online), json(s.speaking))",
    "turns": "SELECT json_extract(value, '$[0]') AS agent_id, json_extract(value, '$[1]') AS virtual_time,"
    " json_extract(value, '$[2]') AS head_start, json_extract(value, '$[3]') AS weight,"
    " json_extract(value, '$[4]') AS tier, json_extract(value, '$[5]') AS left_at FROM json_each(:turns)",
    "in_groups": "IN (SELECT value FROM json_each(:group_ids))",
    "in_agents": "IN (SELECT value FROM json_each(:agent_ids))",
    "held": "",
    "phones": "json_each(:phones)",
}
_SQLITE = {
    "READ": _READ % _SQLITE_WORDS,
    "DECISION": _INSERT_DECISION,
    "LEASE": f"INSERT INTO reservations ({_LEASE_COLUMNS}) VALUES (:agent_id, :project, :group_id, :decision_id,"
    f" :call_id, :sip_login, :asked_at, :expires_at){_ON_LEASED}",
    "PHONES": f"INSERT INTO reserved_phones ({_PHONE_COLUMNS}) SELECT :project, value, :agent_id, :call_id, :expires_at"
    f" FROM json_each(:phones) WHERE true{_ON_PHONE_RESERVED} :asked_at",
    "CLOCK": _MOVE_CLOCK,
    "TURNS": _TURNS % _SQLITE_WORDS,
    **_outcome_statements("sqlite"),
    "RESTORE": _RESTORE,
    "RESTORE_LEASE": _RESTORE_LEASE % _SQLITE_WORDS,
    "RESTORE_PHONES": _RESTORE_PHONES % _SQLITE_WORDS,
    "RESTORE_CLOCK": _RESTORE_CLOCK,
}


@contextmanager
def _sqlite_transaction(database: Database) -> Iterator[Transaction]:
    with database.write_lock(), database.call_connection() as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield _SqliteTransaction(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute: Callable[..., sqlite3.Cursor] = connection.execute

    def read(
        self, *, project: Project, call_id: str, group_ids: Sequence[int], agent_ids: Sequence[int], known_snapshot: int
    ) -> State:
        cursor = self._execute(
            _SQLITE["READ"],
            {
                "now": time.time_ns() // 1000,  # the database's host is this host, its clock this clock
                "project": project.id,
                "call_id": call_id,
                "known_snapshot": known_snapshot,
                "group_ids": orjson.dumps(group_ids).decode(),
                "agent_ids": orjson.dumps(agent_ids).decode(),
            },
        )
        return _state(project, cursor.fetchone())

    def history(self, *, project: int, call_id: str, now: int) -> History:
        call = {"project": project, "call_id": call_id}
        rows = [self._execute(_SQLITE[name], call).fetchone() for name in ("CALL", "AGENTS")]
        return _history(call_id, now, *rows)

    def write(self, statements: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        for name, values in statements:
            self._execute(_SQLITE[name], values)

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        try:
            decision_id = self._execute(_SQLITE["DECISION"], decision).lastrowid or 0
        except sqlite3.IntegrityError as error:
            raise LostRaceError from error
        if lease is not None:
            values = _lease_values(decision, lease) | {"decision_id": decision_id}
            if self._execute(_SQLITE["LEASE"], values).rowcount != 1:
                raise LostRaceError
            if self._execute(_SQLITE["PHONES"], values).rowcount != len(orjson.loads(values["phones"])):
                raise LostRaceError
            if lease.group_id is not None:
                self._execute(_SQLITE["CLOCK"], values)
            if lease.turns:
                self._execute(_SQLITE["TURNS"], _turns_values(lease))
        self._execute("COMMIT")
        return decision_id

    def restore(self, rows: Sequence[tuple[dict[str, Any], Lease | None]]) -> None:
        for decision, lease in rows:
            written = self._execute(_SQLITE["RESTORE"], decision).fetchone()
            if written is not None and lease is not None:
                values = _lease_values(decision, lease) | {"decision_id": written[0]}
                for name in ("RESTORE_LEASE", "RESTORE_PHONES", "RESTORE_CLOCK"):
                    self._execute(_SQLITE[name], values)
        self._execute("COMMIT")


# ---- PostgreSQL: advisory locks on the call and its groups; two round trips in all

_POSTGRES_WORDS = {
    "now": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",  # now() would be the time before the locks
    "rows": "json_agg(json_build_array(",
    "end": "))::text",
    "array": "json_build_array",
    "pair": "json_build_array(s.online, s.speaking)::text",
    "turns": "SELECT (value->>0)::int AS agent_id, (value->>1)::bigint AS virtual_time, (value->>2)::int AS head_start,"
    " (value->>3)::int AS weight, (value->>4)::int AS tier, (value->>5)::bigint AS left_at"
    " FROM json_array_elements(:turns::json) AS value",
    "in_groups": "= ANY(:group_ids::int[])",
    "in_agents": "= ANY(:agent_ids::int[])",
    "held": " FOR KEY SHARE",  # waits for whoever is deleting the row
    "phones": "json_array_elements_text(:phones::json) value",
}


# The decision, the lease with its phones and the clock in one statement. Where not all of it was to be had it divides
# by zero, which fails the transaction: so the COMMIT can travel with it, and nothing half is ever kept.
_OFFER = (
    f"WITH decision AS ({_INSERT_DECISION} RETURNING id)%(clock)s, lease AS (INSERT INTO reservations"
    f" ({_LEASE_COLUMNS}) SELECT :agent_id, :project, :group_id, id, :call_id, :sip_login, :asked_at, :expires_at"
    f" FROM decision{_ON_LEASED} RETURNING decision_id), phones AS (INSERT INTO reserved_phones ({_PHONE_COLUMNS})"
    " SELECT :project, value, :agent_id, :call_id, :expires_at"
    f" FROM lease, json_array_elements_text(:phones::json) value{_ON_PHONE_RESERVED} :asked_at RETURNING phone)"
    " SELECT (SELECT decision_id FROM lease),"
    " 1 / (CASE (SELECT count(*) FROM phones) WHEN json_array_length(:phones::json) THEN 1 ELSE 0 END)"
)
_POSTGRES = read_statements(
    {
        "BEGIN": "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SETTINGS": call_settings(is_local=True),
        "COMMIT": "COMMIT",
        # A statement sees what was committed when it began: the locks must be held before the one that reads begins.
        "LOCK": "SELECT pg_advisory_xact_lock(key) FROM unnest(:keys::bigint[]) key",
        "READ": _READ % _POSTGRES_WORDS,
        "DECISION": f"{_INSERT_DECISION} RETURNING id",
        "OFFER": _OFFER % {"clock": f", clock AS ({_MOVE_CLOCK})"},
        "PREFERRED": _OFFER % {"clock": ""},
        "TURNS": _TURNS % _POSTGRES_WORDS,
        **_outcome_statements("postgres"),
        "RESTORE": _RESTORE,
        "RESTORE_LEASE": _RESTORE_LEASE % _POSTGRES_WORDS,
        "RESTORE_PHONES": _RESTORE_PHONES % _POSTGRES_WORDS,
        "RESTORE_CLOCK": _RESTORE_CLOCK,
    }
)
# Somebody else was faster: duplicate key, no lease, agent deleted, deadlock, serialization failure.
_LOST = frozenset({"23505", "22012", "23503", "40P01", "40001"})


@contextmanager
def _postgres_transaction(database: Database) -> Iterator[Transaction]:
    with database.call_connection() as connection:
        transaction = _PostgresTransaction(connection)
        try:
            yield transaction
        except DATABASE_ERRORS:
            raise
        except Exception:
            transaction.roll_back()
            raise
        transaction.roll_back()


class _PostgresTransaction:
    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._has_written = False

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
        return _state(project, next(iter(self._run([*self._begin(), ("LOCK", values), ("READ", values)])[-1]), None))

    def _begin(self) -> list[tuple[str, dict[str, Any]]]:
        return [("BEGIN", {}), ("SETTINGS", {})] if self._connection.is_pooled else [("BEGIN", {})]

    def _run(self, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Rows]:
        try:
            return run(self._connection, self._steps(steps))
        except psycopg.Error as error:
            if error.sqlstate in _LOST:
                raise LostRaceError from error
            raise

    def history(self, *, project: int, call_id: str, now: int) -> History:
        call = {"project": project, "call_id": call_id}
        rows = [found[0] for found in self._run([("CALL", call), ("AGENTS", call)])]
        return _history(call_id, now, *rows)

    def write(self, statements: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        self._has_written = True
        self._run(list(statements))

    def record(self, decision: dict[str, Any], lease: Lease | None) -> int:
        steps: list[tuple[str, dict[str, Any]]]
        if lease is None:
            steps = [("DECISION", decision)]
        else:
            name = "PREFERRED" if lease.group_id is None else "OFFER"
            steps = [(name, _lease_values(decision, lease) | decision)]
            if lease.turns:
                steps.append(("TURNS", _turns_values(lease)))
        decision_id: int = self._run([*steps, ("COMMIT", {})])[0][0][0]
        return decision_id

    def restore(self, rows: Sequence[tuple[dict[str, Any], Lease | None]]) -> None:
        began = self._begin()
        ran = run(self._connection, self._steps([*began, *(("RESTORE", row) for row, _ in rows)]))
        written = ran[len(began) :]
        steps: list[tuple[str, dict[str, Any]]] = []
        for (decision, lease), ids in zip(rows, written, strict=True):
            if ids and lease is not None:
                values = _lease_values(decision, lease) | {"decision_id": ids[0][0]}
                steps += [(name, values) for name in ("RESTORE_LEASE", "RESTORE_PHONES", "RESTORE_CLOCK")]
        run(self._connection, self._steps([*steps, ("COMMIT", {})]))

    def _steps(self, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[Statement, Mapping[str, Any]]]:
        return [(_POSTGRES[name], values) for name, values in steps]

    def roll_back(self) -> None:
        status = self._connection.info.transaction_status
        if status == TransactionStatus.INTRANS and not self._has_written:
            self._run([("COMMIT", {})])  # after a rollback psycopg forgets what it has prepared
        elif status != TransactionStatus.IDLE:
            self._connection.rollback()


# ---- a rehearsal


@contextmanager
def rehearsal(database: Database) -> Iterator[tuple[Transaction, Callable[[str], object]]]:
    """A transaction like those of calls, of which nothing stays whatever it records, and what runs other SQL in it.

    Waits no longer than the time_limit around it, and no call waits for its connection.
    """
    with database.write_lock(), database.spare_connection() as connection:
        connection.execute("BEGIN IMMEDIATE" if database.is_sqlite else _POSTGRES["BEGIN"].sql)
        try:
            transaction: Transaction
            if database.is_sqlite:
                transaction = _SqliteRehearsal(connection)
            else:
                transaction = _PostgresRehearsal(connection)
            yield transaction, connection.execute
        finally:
            with suppress(*DATABASE_ERRORS):  # a connection that broke has rolled back
                connection.rollback()


class _SqliteRehearsal(_SqliteTransaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        execute = connection.execute

        def execute_unless_commit(sql: str, values: Any = ()) -> sqlite3.Cursor:
            return execute("SELECT 1" if sql == "COMMIT" else sql, values)

        self._execute = execute_unless_commit


class _PostgresRehearsal(_PostgresTransaction):
    def _begin(self) -> list[tuple[str, dict[str, Any]]]:
        return [("SETTINGS", {})]

    def _steps(self, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[Statement, Mapping[str, Any]]]:
        return super()._steps([step for step in steps if step[0] != "COMMIT"])


def call_key(project: int, call_id: str) -> int:
    """A lock's number for a call: negative, so that it never meets a group's. Always taken first."""
    return _key(f"{project}:{call_id}")


def phone_key(project: int, phone: str) -> int:
    """A phone's number where promises go by numbers: negative, so that it never meets an agent's id."""
    return _key(f"{project}:{phone}")


def promised_keys(project: int, lease: Lease) -> list[int]:
    """What is promised, by number: the agent and each of the phones."""
    phones = {phone_of(lease.sip_login), *lease.phones}
    return [lease.agent_id, *(phone_key(project, phone) for phone in phones)]


def _key(name: str) -> int:
    digest = blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return -1 - (int.from_bytes(digest) >> 1)
