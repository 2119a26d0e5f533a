"""Settles what no event reported: by presence and by time, and marked as inferred. Writes, never decides.

Every reservation ends and every decision gets an outcome, whether the platform tells of it or not. What is concluded
here gives way to any event that arrives later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Delete,
    Update,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session, aliased

from router.core.model import Agent, Outcome, Project
from router.db.models import AgentState, Decision, HeardCall, LoginState, Presence, Reservation
from router.db.reservations import LONGEST_TALK as LONGEST_TALK_MICROS
from router.db.reservations import call_key
from router.db.session import CLOCK_STEP, Database
from router.db.types import Instant
from router.presence.events import AnyRow, count_answer, end_talk
from router.presence.readings import lock_agents

GRACE = timedelta(seconds=10)  # after a reservation's end: a late event or the call's next step says it better
UNSEEN = timedelta(seconds=60)  # after a reservation's end without a reading: nothing will be known any more
OVERFLOW_PATIENCE = timedelta(minutes=2)  # for an event about a call that went where presence sees nothing
SLOW_SOURCE = timedelta(seconds=15)  # until a talk that was reported must show in the source, else it was short
LONGEST_TALK = timedelta(microseconds=LONGEST_TALK_MICROS)
MEMORY = timedelta(days=1)  # how long it is remembered what was heard of a call
LIMIT = 5000  # decisions looked at in one go, oldest first
BATCH = 20  # decisions concluded in one transaction, because on SQLite every call waits for it


class Conclusion(NamedTuple):
    """What is concluded of one decision: new values of its columns, and what that moves."""

    decision: AnyRow
    values: dict[str, Any]
    answered_by: str = ""  # a login that took the call
    talk_ended: bool = False  # the talk of `answered_agent_id`, at values["ended_at"]


def settle(database: Database, project: Project, now: datetime | None = None) -> int:
    """Conclude what can be concluded of the project's unfinished decisions; how many changed.

    One SELECT when there is nothing to conclude; else in short transactions, with as long a pause after each, for there
    may be thousands after an outage. `now`: an instant to take for the database's clock, aware.
    """
    with database.reading() as session:
        found = list(_conclude_all(session, project, now or database.now(session)))
    count = 0
    for start in range(0, len(found), BATCH):
        began = time.monotonic()
        count += _settle_some(database, project, found[start : start + BATCH], now)
        if start + BATCH < len(found):
            time.sleep(time.monotonic() - began)
    return count


def _settle_some(database: Database, project: Project, found: Sequence[Conclusion], now: datetime | None) -> int:
    with database.writing() as session:
        calls = _hold_calls(database, session, project.id, {c.decision.call_id for c in found})
        ids = [c.decision.id for c in found if c.decision.call_id in calls or not c.decision.call_id]
        # Again, now that nothing else writes to these calls, and by the clock of now: there was a queue before.
        at = now or database.now(session)
        conclusions = list(_conclude_all(session, project, at, ids))
        _write(session, project, conclusions, at)
    return len(conclusions)


def _hold_calls(database: Database, session: Session, project_id: int, call_ids: set[str]) -> set[str]:
    """The calls that no event or question is about just now, held. The others are left for the next time: waiting for
    one lock while holding others is how deadlocks are made."""
    if database.is_sqlite:
        return call_ids
    keys = {call_key(project_id, call_id): call_id for call_id in call_ids if call_id}
    rows = session.execute(
        text("SELECT key, pg_try_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) key"),
        {"keys": list(keys)},
    )
    return {keys[key] for key, held in rows if held}


def _conclude_all(
    session: Session, project: Project, now: datetime, ids: Sequence[int] | None = None
) -> Iterator[Conclusion]:
    talker = aliased(LoginState)
    statement = (
        select(
            Decision.id,
            Decision.call_id,
            Decision.agent_id,
            Decision.sip_login,
            Decision.asked_at,
            Decision.outcome,
            Decision.answered_agent_id,
            Decision.answered_login,
            Decision.answered_at,
            Reservation.expires_at,
            HeardCall.heard_at,
            HeardCall.talked,
            HeardCall.ended_at.label("heard_end_at"),
            talker.online,
            talker.speaking,
            talker.since_at,
            Presence.began_at,
        )
        .join(Presence, Presence.project_id == Decision.project_id)
        .outerjoin(Reservation, and_(Reservation.agent_id == Decision.agent_id, Reservation.decision_id == Decision.id))
        .outerjoin(HeardCall, and_(HeardCall.project_id == Decision.project_id, HeardCall.call_id == Decision.call_id))
        .outerjoin(
            talker,
            and_(
                talker.project_id == Decision.project_id,
                talker.login
                == case((Decision.answered_login != "", Decision.answered_login), else_=Decision.sip_login),
            ),
        )
        .where(Decision.project_id == project.id, Decision.ended_at.is_(None))
        .order_by(Decision.asked_at)
        .limit(LIMIT)
    )
    if ids is not None:
        statement = statement.where(Decision.id.in_(ids))
    for row in session.execute(statement):
        conclusion = conclude(project, row, now)
        if conclusion is not None:
            yield conclusion


def conclude(project: Project, row: AnyRow, now: datetime) -> Conclusion | None:
    """What follows now for this unfinished decision; None: nothing yet. Looks at nothing but its arguments."""
    if row.outcome == Outcome.ANSWERED:
        return _conclude_talk(row, now)
    if row.outcome:
        return Conclusion(row, {"ended_at": now})
    if row.heard_at is not None and row.heard_at >= row.asked_at and (row.talked or row.heard_end_at):
        return _conclude_heard(project, row)
    if row.agent_id is None:
        if now < row.asked_at + OVERFLOW_PATIENCE:
            return None
        return Conclusion(row, {"outcome": Outcome.UNKNOWN, "inferred": True, "ended_at": now})
    return _conclude_offer(row, now)


def _conclude_heard(project: Project, row: AnyRow) -> Conclusion:
    """Its events came before the decision was recorded: made while the database was away, it was written afterwards."""
    values: dict[str, Any] = {"outcome": Outcome.UNKNOWN, "inferred": True, "ended_at": row.heard_end_at}
    if row.talked:
        agent = project.login_named(row.talked[-1])[1]
        values["outcome"] = Outcome.ANSWERED
        values["answered_login"] = row.talked[-1]
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_at"] = row.heard_at
    return Conclusion(row, values)


def _conclude_offer(row: AnyRow, now: datetime) -> Conclusion | None:
    """Answered when the login began to speak while it was reserved; else, once that time is over, not."""
    expires_at = row.expires_at or row.asked_at  # the lease is gone: it ended before it was looked at
    if row.speaking and row.asked_at < row.since_at <= expires_at:
        values = {
            "outcome": Outcome.ANSWERED,
            "inferred": True,
            "answered_login": row.sip_login,
            "answered_agent_id": row.agent_id,
            "answered_at": row.since_at,
            "waited_seconds": (row.since_at - row.asked_at).total_seconds(),
        }
        return Conclusion(row, values, answered_by=row.sip_login)
    if now < expires_at + GRACE:
        return None
    if row.began_at is not None and row.began_at >= expires_at:
        # No cool-down follows: without an event or a next step, perhaps the caller hung up while it rang.
        return Conclusion(row, {"outcome": Outcome.NO_ANSWER, "inferred": True, "ended_at": expires_at})
    if now < expires_at + UNSEEN:
        return None
    return Conclusion(row, {"outcome": Outcome.UNKNOWN, "inferred": True, "ended_at": now})


def _conclude_talk(row: AnyRow, now: datetime) -> Conclusion | None:
    """Over when the login was seen to stop speaking, or is not seen to speak at all for long enough."""
    if row.heard_end_at is not None:
        return Conclusion(row, {"ended_at": row.heard_end_at})
    began_at = row.answered_at or row.asked_at
    # A reading of later, or a change after the last reading, is of before the clock was set back.
    seen_at = row.began_at if row.began_at is not None and row.began_at <= now + CLOCK_STEP else began_at
    if row.since_at is not None and not row.speaking and began_at < row.since_at <= seen_at:
        talked = (row.since_at - began_at).total_seconds()
        return Conclusion(row, {"ended_at": row.since_at, "talked_seconds": talked}, talk_ended=True)
    # Shorter than the time between two polls. A login that is offline for the source is one that it does not know.
    if seen_at > began_at + SLOW_SOURCE and row.online and not row.speaking:
        return Conclusion(row, {"ended_at": now}, talk_ended=True)
    if now >= began_at + LONGEST_TALK:
        return Conclusion(row, {"ended_at": now})
    return None


def _write(session: Session, project: Project, conclusions: Sequence[Conclusion], now: datetime) -> None:
    _move_agents(session, project, conclusions, now)
    ended = [c for c in conclusions if "ended_at" in c.values and c.decision.answered_login and c.decision.call_id]
    for conclusion in sorted(ended, key=lambda c: c.decision.answered_login):
        session.execute(
            update(LoginState)
            .where(
                LoginState.project_id == project.id,
                LoginState.login == conclusion.decision.answered_login,
                LoginState.event_call_id == conclusion.decision.call_id,
                LoginState.event_speaking.is_(True),
            )
            .values(event_speaking=False)
        )
    leases = [c.decision.id for c in conclusions if c.decision.expires_at is not None]
    session.execute(
        delete(Reservation).where(
            Reservation.project_id == project.id,
            Reservation.agent_id.in_([c.decision.agent_id for c in conclusions if c.decision.agent_id is not None]),
            Reservation.decision_id.in_(leases),
        )
    )
    for conclusion in conclusions:
        session.execute(update(Decision).where(Decision.id == conclusion.decision.id).values(conclusion.values))


def _move_agents(session: Session, project: Project, conclusions: Sequence[Conclusion], now: datetime) -> None:
    """The clocks that answers and ends of talks move. An answer counts once, even if a pickup is heard later."""
    answers: list[tuple[int, Conclusion]] = []
    ends: list[tuple[Agent, datetime]] = []
    for conclusion in conclusions:
        row = conclusion.decision
        login = conclusion.answered_by or row.answered_login or row.sip_login
        agent = project.holder(row.answered_agent_id or row.agent_id, login)
        if agent is not None and conclusion.answered_by:
            answers.append((agent.id, conclusion))
        if agent is not None and conclusion.talk_ended and conclusion.decision.answered_agent_id is not None:
            ends.append((agent, conclusion.values["ended_at"]))
    if answers or ends:
        lock_agents(session.connection(), {agent_id for agent_id, _ in answers} | {agent.id for agent, _ in ends})
    for agent_id, conclusion in answers:
        count_answer(session.connection(), agent_id, now, project.time_zone)
        if conclusion.decision.call_id:
            _note_answer(session, project.id, conclusion, now)
    for agent, ended_at in ends:
        end_talk(session.connection(), agent, ended_at)


def _note_answer(session: Session, project_id: int, conclusion: Conclusion, now: datetime) -> None:
    heard = session.get(HeardCall, (project_id, conclusion.decision.call_id))
    if heard is None:
        heard = HeardCall(project_id=project_id, call_id=conclusion.decision.call_id, heard_at=now, talked=[])
        session.add(heard)
    heard.talked = [*heard.talked, conclusion.answered_by]
    session.flush()


# ---- what time alone ends


def tidy(database: Database, project: Project, now: datetime | None = None) -> bool:
    """End what nothing else ended in time; was there anything? One SELECT when there is not.

    Instants ahead of the database's clock were written before it was set back: they must not hold until it comes
    there again.
    """
    with database.reading() as session:
        remedies = _remedies(project, now or database.now(session))
        overdue = session.execute(select(*(exists().where(where) for where, _ in remedies))).one()
    due = [number for number, is_due in enumerate(overdue) if is_due]
    for number in due:
        with database.writing() as session:
            # Anew: what calls wrote while this waited for them would be ahead of a clock that was read before.
            where, remedy = _remedies(project, now or database.now(session))[number]
            session.execute(remedy.where(where))
    return bool(due)


def _remedies(project: Project, now: datetime) -> list[tuple[ColumnElement[bool], Update | Delete]]:
    ahead = now + CLOCK_STEP
    wrap_up = max((agent.wrap_up for agent in project.agents.values()), default=timedelta(0))
    lease, login, agent, heard = Reservation, LoginState, AgentState, HeardCall
    seen = select(Presence.began_at).where(Presence.project_id == project.id, Presence.began_at <= ahead)
    # What events said before it was set back is older than what was seen since.
    seen_at = func.coalesce(seen.scalar_subquery(), literal(now, Instant))
    return [
        (
            and_(
                lease.project_id == project.id,
                # Some time is left to settle what the lease was for.
                or_(lease.expires_at < now - 2 * UNSEEN, lease.claimed_at > ahead),
            ),
            delete(lease),
        ),
        (
            and_(login.project_id == project.id, login.event_at < now - LONGEST_TALK, login.event_speaking.is_(True)),
            update(login).values(event_speaking=False),
        ),
        (and_(login.project_id == project.id, login.event_at > ahead), update(login).values(event_at=seen_at)),
        (
            and_(agent.project_id == project.id, agent.last_talk_end_at > ahead),
            update(agent).values(last_talk_end_at=now),
        ),
        (
            and_(agent.project_id == project.id, agent.wrap_up_until > ahead + wrap_up),
            update(agent).values(wrap_up_until=None),
        ),
        (
            and_(agent.project_id == project.id, agent.cooling_until > ahead + project.cool_down),
            update(agent).values(cooling_until=None),
        ),
        (and_(heard.project_id == project.id, heard.heard_at < now - MEMORY), delete(heard)),
    ]
