"""Read what the live board shows of a project's agents and calls, in five statements however many there are.

explanation/agents.py computes the states by the rules' own functions, so that the board always agrees with a decision.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import BigInteger, ColumnElement, Engine, Row, and_, case, func, literal, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

from router.db import models
from router.db.claim import AgentRow
from router.db.claim_sql import LONGEST_TALK
from router.db.queries import is_of_call
from router.db.types import to_micros

HOUR = 3_600_000_000  # µs

AnyRow = Row[*tuple[Any, ...]]


class Health(NamedTuple):
    """The newest reading of the source, and its error if any. Instants in microseconds."""

    now: int  # the database's clock
    snapshot_id: int | None
    began_at: int | None
    failures: int
    error_code: str
    error_message: str
    error_remedy: str
    error_at: int | None
    next_poll_at: int | None
    online: list[str]
    speaking: list[str]


class AgentNow(NamedTuple):
    """An agent's state as the hook reads it, and what only the board shows. `caller` None: no lease."""

    row: AgentRow
    status_since_at: int | None = None
    status_reason: str = ""
    claimed_at: int | None = None
    decision_id: int | None = None
    caller: str | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> AgentNow:
        """Return it from the columns."""
        row = AgentRow._make(values[: len(AgentRow._fields)])
        return cls(row._replace(day=row.day and row.day.isoformat()), *values[len(row) :])  # type: ignore[attr-defined]  # a date


class LoginNow(NamedTuple):
    """What is known of one login. `caller`, `decision_id`: of the call that it talks on, if that is ours."""

    login: str
    since_at: int
    event_speaking: bool | None
    event_at: int | None
    decision_id: int | None
    caller: str | None


class Now(NamedTuple):
    """The state of presence, agents and logins."""

    health: Health
    agents: list[AgentNow]
    logins: list[LoginNow]

    @property
    def events(self) -> dict[str, bool]:
        """Return by login whether it talks, from call events newer than the reading, as the hook reads it."""
        since = max(self.health.began_at or 0, self.health.now - LONGEST_TALK)
        return {row.login: bool(row.event_speaking) for row in self.logins if row.event_at and row.event_at > since}


def read_now(session: Session, project_id: int) -> Now:
    """Return presence, agents and logins of a project, in three statements."""
    return Now(_health(session, project_id), _agents(session, project_id), _logins(session, project_id))


def _us(column: InstrumentedAttribute[Any]) -> ColumnElement[int]:
    """Return an instant as stored: a board has thousands, and creating a datetime takes a microsecond."""
    return type_coerce(column, BigInteger)


def _health(session: Session, project_id: int) -> Health:
    presence, snapshot = models.Presence, models.PresenceSnapshot
    is_sqlite = session.get_bind().dialect.name == "sqlite"  # its clock is this host's
    clock = literal(time.time_ns() // 1000) if is_sqlite else func.extract("epoch", func.clock_timestamp()) * 1_000_000
    row = session.execute(
        select(clock, *_columns(Health._fields[1:9], presence), snapshot.online, snapshot.speaking)
        .select_from(models.Project)
        .outerjoin(presence, presence.project_id == models.Project.id)
        .outerjoin(snapshot, snapshot.id == presence.snapshot_id)
        .where(models.Project.id == project_id)
    ).one()
    now, snapshot_id, began_at, failures, *texts, error_at, next_poll_at, online, speaking = row
    error = [text or "" for text in texts]  # None without a row of presence
    known = [snapshot_id, began_at, failures or 0, *error, error_at, next_poll_at, online or [], speaking or []]
    return Health._make([int(now), *known])


def _columns(names: Iterable[str], model: Any, **others: Any) -> Iterator[ColumnElement[Any]]:
    """Yield the columns of these names of the model, or of `others`; instants as they are stored."""
    for name in names:
        column = others[name] if name in others else getattr(model, name)
        yield _us(column) if name.endswith(("_at", "_until")) else column


def _agents(session: Session, project_id: int) -> list[AgentNow]:
    state, lease, decision = models.AgentState, models.Reservation, models.Decision
    login, phone = models.SipLogin, models.ReservedPhone
    # A ringing phone reserves its present owner too, even if another agent owned it when it began to ring.
    of_lease = {
        "reserved_until": lease.expires_at,
        "claimed_at": lease.claimed_at,
        "decision_id": lease.decision_id,
        "caller": decision.caller,
    }
    rows = session.execute(
        select(*_columns((*AgentRow._fields, *AgentNow._fields[1:]), state, **of_lease))
        .outerjoin(login, login.agent_id == state.agent_id)
        .outerjoin(
            phone,
            and_(
                phone.project_id == state.project_id,
                phone.phone == func.lower(login.login),
                phone.agent_id != state.agent_id,
            ),
        )
        .outerjoin(lease, lease.agent_id.in_([state.agent_id, phone.agent_id]))
        .outerjoin(decision, decision.id == lease.decision_id)
        .where(state.project_id == project_id)
        .order_by(func.coalesce(lease.expires_at, 0))
    )
    return list({row[0]: AgentNow.of(row) for row in rows}.values())


def _logins(session: Session, project_id: int) -> list[LoginNow]:
    login, decision = models.LoginState, models.Decision
    talks_on = and_(
        decision.project_id == login.project_id,
        decision.call_id == login.event_call_id,
        decision.call_id != "",  # as in the index's condition
        login.event_speaking.is_(True),
    )
    rows = session.execute(
        select(*_columns(LoginNow._fields, login, decision_id=decision.id, caller=decision.caller))
        .outerjoin(decision, talks_on)
        .where(login.project_id == project_id)
        .order_by(decision.id)  # the last of several steps of a call counts
    )
    return list({row.login: LoginNow._make(row) for row in rows}.values())


# ---- calls: counted from an index alone; each time only the new ones are read


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a project's questions: the day's `offers` by agent; by hour those to agents and to overflows."""

    offers: Counter[int] = field(default_factory=Counter)
    to_agents: Counter[int] = field(default_factory=Counter)  # by hour since the epoch
    to_overflow: Counter[int] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.offers + other.offers, self.to_agents + other.to_agents, self.to_overflow + other.to_overflow)


class _Settled(NamedTuple):
    day_at: int
    hours_at: int
    until: int
    tally: Tally


_SETTLES_IN = 60_000_000  # µs; older questions are stored by now, except degraded ones
_COUNT_AGAIN = 120_000_000
_settled: WeakKeyDictionary[Engine, dict[int, _Settled]] = WeakKeyDictionary()


def tally(session: Session, project_id: int, *, now: int, day_at: int, hours_at: int) -> Tally:
    """Return the counts of questions since `hours_at` and of offers since `day_at` (µs).

    One statement; three once in two minutes.
    Decisions that were made while the database was away, and stored later, are counted within two minutes.
    """
    bind = session.get_bind()
    kept = _settled.setdefault(bind if isinstance(bind, Engine) else bind.engine, {})
    found = kept.get(project_id)
    if found is None or found[:2] != (day_at, hours_at) or not now - _COUNT_AGAIN < found.until <= now:
        until = max(now - _SETTLES_IN, hours_at)
        counted = Tally(
            _offers(session, project_id, day_at, until),
            *_by_hour(session, project_id, hours_at, until),
        )
        found = kept[project_id] = _Settled(day_at, hours_at, until, counted)
    return found.tally + _recent(session, project_id, found.until, day_at)


def _asked(project_id: int, since: int, until: int | None = None) -> list[ColumnElement[bool]]:
    at = _us(models.Decision.asked_at)
    bounds = [models.Decision.project_id == project_id, at >= since, is_of_call([project_id])]
    return bounds if until is None else [*bounds, at < until]


def _offers(session: Session, project_id: int, since: int, until: int) -> Counter[int]:
    agent = models.Decision.agent_id
    rows = session.execute(
        select(agent, func.count()).where(*_asked(project_id, since, until), agent.is_not(None)).group_by(agent)
    )
    return Counter({agent_id: count for agent_id, count in rows if agent_id is not None})


def _hour() -> ColumnElement[int]:
    return _us(models.Decision.asked_at) // HOUR


def _by_hour(session: Session, project_id: int, since: int, until: int) -> tuple[Counter[int], Counter[int]]:
    hour, agent = _hour(), models.Decision.agent_id
    is_offer = func.count(agent)
    rows = session.execute(
        select(hour, is_offer, func.count() - is_offer).where(*_asked(project_id, since, until)).group_by(hour)
    ).all()
    return Counter({int(row[0]): row[1] for row in rows}), Counter({int(row[0]): row[2] for row in rows})


def _recent(session: Session, project_id: int, since: int, day_at: int) -> Tally:
    hour, agent = _hour(), models.Decision.agent_id
    is_today = case((_us(models.Decision.asked_at) >= day_at, 1), else_=0)
    rows = session.execute(
        select(hour, agent, func.count(), func.sum(is_today)).where(*_asked(project_id, since)).group_by(hour, agent)
    )
    recent = Tally()
    for at, agent_id, count, today in rows:
        (recent.to_overflow if agent_id is None else recent.to_agents)[int(at)] += count
        if agent_id is not None:
            recent.offers[agent_id] += int(today)
    return recent


# ---- the last decisions


def last_decisions(session: Session, project_id: int, *, limit: int, known: Iterable[int] = ()) -> Sequence[AnyRow]:
    """Return the newest decisions with the columns that `record_of` takes. Records of `known` ids are left out, because
    they never change.
    """
    decision = models.Decision
    is_known = decision.id.in_(list(known))
    shown = [
        *(decision.id, decision.asked_at, decision.caller, decision.dialed, decision.rule_id, decision.agent_id),
        *(decision.sip_login, decision.destination, decision.degraded, decision.config_version, decision.outcome),
        *(decision.project_id, decision.is_test),
    ]
    record = [
        type_coerce(case((is_known, None), else_=column), column.type).label(column.key)
        for column in (decision.record, decision.packed)
    ]
    return session.execute(
        select(*shown, *record)
        .where(decision.project_id == project_id, ~decision.is_test)
        .order_by(decision.asked_at.desc(), decision.id.desc())
        .limit(limit)
    ).all()


def day_start(now: datetime) -> int:
    """Return the midnight, in microseconds, at which this aware instant's local day began."""
    return to_micros(now.replace(hour=0, minute=0, second=0, microsecond=0))
