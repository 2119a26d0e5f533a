"""Settle calls whose end no event reported: load them, ask core/lifecycle.py for the changes by presence and time, and
write these.

So every reservation ends and every decision gets an outcome, whether or not the platform reports it. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import ColumnElement, Delete, Update, and_, delete, exists, func, literal, or_, select, text, update
from sqlalchemy.orm import Session

from router.core.lifecycle import (
    LONG_SILENCE,
    LONGEST_TALK,
    NO_ANSWERS,
    UNSEEN,
    Clocks,
    History,
    after_break,
    looked_at,
    observe,
)
from router.core.model import Project, Status
from router.db import outcomes
from router.db.claim import call_key
from router.db.models import AgentState, Decision, HeardCall, LoginState, Presence, Reservation, SipLogin
from router.db.session import CLOCK_STEP, Database
from router.db.types import Instant
from router.presence.events import STATEMENTS, write

MEMORY = timedelta(days=1)  # how long the events of a call are stored
LIMIT = 5000  # decisions examined at once, oldest first
BATCH = 20  # decisions settled in one transaction: on SQLite every call waits for it


def settle(database: Database, project: Project, now: datetime | None = None) -> int:
    """Settle the project's unfinished decisions where presence and time allow. Return how many changed.

    It writes in short transactions, with a pause as long as each after it, because there may be thousands after an
    outage; nothing if nothing changes. `now`: an aware instant to use as the database's clock.
    """
    with database.reading() as session:
        at = now or database.now(session)
        unfinished = _load(session, project, _looked_at(session, project, at), at, "LOOK")
        found = [step.id for history in unfinished for step in observe(project, history, at).steps]
    count = 0
    for start in range(0, len(found), BATCH):
        began = time.monotonic()
        count += _settle_some(database, project, found[start : start + BATCH], now)
        if start + BATCH < len(found):
            time.sleep(time.monotonic() - began)
    return count


def _settle_some(database: Database, project: Project, ids: Sequence[int], now: datetime | None) -> int:
    count = 0
    with database.writing() as session:
        held = _hold_calls(database, session, project.id, ids)
        # Loaded again now that the calls are locked, with the present clock: waiting for the locks may take long.
        at = now or database.now(session)
        clocks: dict[int, Clocks] = {}
        for history in _load(session, project, held, at, "PEOPLE"):
            changes = observe(project, replace(history, clocks={**history.clocks, **clocks}), at)
            clocks |= changes.clocks
            write(session.connection(), project.id, history.call_id, changes)
            count += len(changes.steps)
    return count


def _hold_calls(database: Database, session: Session, project_id: int, ids: Sequence[int]) -> list[int]:
    """Lock the calls of these decisions; return the decisions whose calls could be locked. The others, whose events or
    questions are in progress, are settled the next time: waiting for a lock while holding others causes deadlocks.
    """
    if database.is_sqlite:
        return list(ids)
    calls = {
        row.id: row.call_id
        for row in session.execute(select(Decision.id, Decision.call_id).where(Decision.id.in_(ids)))
    }
    keys = {call_key(project_id, call_id): call_id for call_id in calls.values() if call_id}
    rows = session.execute(
        text("SELECT key, pg_try_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) key"),
        {"keys": list(keys)},
    )
    held = {"", *(keys[key] for key, is_held in rows if is_held)}
    return [decision for decision, call_id in calls.items() if call_id in held]


def _looked_at(session: Session, project: Project, now: datetime) -> list[int]:
    """Return the decisions that are not over, and those whose talk was taken to be over, by presence, lately."""
    unfinished = select(Decision.id).where(Decision.project_id == project.id, Decision.ended_at.is_(None))
    state = AgentState
    talks = select(state.talk_id).where(state.project_id == project.id, state.last_talk_end_at > now - LONG_SILENCE)
    found = [*session.scalars(unfinished.order_by(Decision.asked_at).limit(LIMIT)), *session.scalars(talks)]
    return [decision for decision in dict.fromkeys(found) if decision is not None]


def _load(session: Session, project: Project, ids: Sequence[int], now: datetime, people_by: str) -> Iterator[History]:
    """Yield the calls of these decisions with the agents and logins that the statement `people_by` reads."""
    if not ids:
        return
    connection = session.connection()
    statements = STATEMENTS[connection.dialect.name]
    row = connection.execute(statements["STEPS"], {"project": project.id, "ids": orjson.dumps(list(ids)).decode()})
    found = outcomes.histories(row.one())
    looked = [looked_at(project, history) for history in found]
    agents = {agent for of_agents, _ in looked for agent in of_agents}
    logins = {login for _, of_logins in looked for login in of_logins}
    wanted = outcomes.people_wanted(project.id, found, sorted(agents), sorted(logins))
    people = outcomes.People(connection.execute(statements[people_by], wanted).one(), now)
    for history, named in zip(found, looked, strict=True):
        yield outcomes.with_people(history, people, *named)


# ---- states that end by time alone


def tidy(database: Database, project: Project, now: datetime | None = None) -> bool:
    """End states whose time has passed: pauses, breaks, old leases. Return whether there were any. One SELECT if none.

    States with an instant ahead of the database's clock end too: the clock was set back, and they would last too long.
    """
    with database.reading() as session:
        remedies = _remedies(project, now or database.now(session))
        overdue = session.execute(select(*(exists().where(where) for where, _ in remedies))).one()
    due = [number for number, is_due in enumerate(overdue) if is_due]
    for number in due:
        with database.writing() as session:
            # The clock is read again: calls may have written newer instants during the wait for the lock.
            where, remedy = _remedies(project, now or database.now(session))[number]
            session.execute(remedy.where(where))
    return bool(due)


def _remedies(project: Project, now: datetime) -> list[tuple[ColumnElement[bool], Update | Delete]]:
    ahead = now + CLOCK_STEP
    wrap_up = max((agent.wrap_up for agent in project.agents.values()), default=timedelta(0))
    lease, login, agent, heard = Reservation, LoginState, AgentState, HeardCall
    seen = select(Presence.began_at).where(Presence.project_id == project.id, Presence.began_at <= ahead)
    # Events from before the clock was set back are older than later readings, whatever their instants.
    seen_at = func.coalesce(seen.scalar_subquery(), literal(now, Instant))
    midnight = now.astimezone(ZoneInfo(project.time_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    came_back = or_(
        agent.status_since_at < midnight.astimezone(UTC),
        agent.available_since_at > agent.status_since_at,  # went offline and came back
        exists().where(  # answers a call that never came to our hook, or makes one
            SipLogin.agent_id == agent.agent_id,
            login.project_id == project.id,
            login.login == SipLogin.login,
            login.speaking,
            login.since_at > agent.status_since_at,
        ),
    )
    on_break = and_(agent.status == Status.ON_BREAK, agent.status_reason == NO_ANSWERS)
    # Leases are deleted some time after their end, so that their decisions can be settled first.
    is_old_lease = or_(lease.expires_at < now - 2 * UNSEEN, lease.claimed_at > ahead)
    is_endless_talk = and_(login.event_at < now - LONGEST_TALK, login.event_speaking.is_(True))
    remedies: list[tuple[Any, ColumnElement[bool], Update | Delete]] = [
        (agent, and_(on_break, came_back), update(agent).values(after_break(now))),
        (lease, is_old_lease, delete(lease)),
        (login, is_endless_talk, update(login).values(event_speaking=False)),
        (login, login.event_at > ahead, update(login).values(event_at=seen_at)),
        (agent, agent.last_talk_end_at > ahead, update(agent).values(last_talk_end_at=now)),
        (agent, agent.wrap_up_until > ahead + wrap_up, update(agent).values(wrap_up_until=None)),
        (agent, agent.cooling_until > ahead + project.cool_down, update(agent).values(cooling_until=None)),
        (heard, heard.heard_at < now - MEMORY, delete(heard)),
    ]
    return [(and_(model.project_id == project.id, where), remedy) for model, where, remedy in remedies]
