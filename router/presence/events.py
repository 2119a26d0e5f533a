"""Apply call events: load the call, ask core/lifecycle.py for the changes, write them. Decides nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Integer, bindparam, select, text, union_all
from sqlalchemy.orm import Session

from router.core.events import CallEvent, EventKind
from router.core.lifecycle import Changes, History, Result, hear, looked_at
from router.core.model import Project, is_own_call_id, own_call_id
from router.db import outcomes
from router.db.claim import call_key
from router.db.models import Decision, LoginState, Reservation
from router.db.session import CLOCK_STEP, Database
from router.db.types import to_micros


class Applied(NamedTuple):
    """The effect of an event, and a note about what could not be applied."""

    result: Result
    notes: tuple[str, ...] = ()


def apply_event(
    database: Database,
    project: Project,
    event: CallEvent,
    now: datetime | None = None,
    *,
    arrived_at: float | None = None,
) -> Applied:
    """Apply one event in one short transaction. A repeated or late event changes nothing.

    `arrived_at`: when the event arrived, by time.monotonic(), if it has waited: observations since then are newer.
    `now`: an aware instant to use as the database's clock.
    """
    if event.kind is EventKind.UNKNOWN:
        return Applied(Result.UNCLEAR, ("The event does not say what happened.",))
    if not event.call_id:
        return Applied(Result.UNCLEAR, ("The event names no call.",))
    if event.kind is EventKind.FORWARDING and not event.disposition.is_refusal:
        return Applied(Result.NOTED)  # ringing is known from the reservation
    with database.writing() as session:
        event = _by_own_id(session, project, event)
        connection = session.connection()
        if not database.is_sqlite:
            # Serialises the events and questions of a call. On SQLite all writers wait for each other anyway.
            connection.execute(_LOCK, {"key": call_key(project.id, event.call_id)})
        if now is None:
            now = database.now(session)
        late = timedelta(seconds=0 if arrived_at is None else time.monotonic() - arrived_at)
        history = load_call(connection, project, event, now)
        changes = hear(project, history, event, now - late, now)
        # An event that has just arrived is newer than all earlier ones, even if the clock was set back meanwhile.
        displaces = now + CLOCK_STEP if late < CLOCK_STEP else now - late
        said = {"now": to_micros(now - late), "displaces": to_micros(displaces), "ahead": to_micros(now + CLOCK_STEP)}
        write(connection, project.id, event.call_id, changes, said)
    return Applied(changes.result, changes.notes)


def _by_own_id(session: Session, project: Project, event: CallEvent) -> CallEvent:
    """Return the event with the id of its own call, where several callers' calls had the same id: of the call of its
    caller, else of the call for which the named login rings or talks.
    """
    own = own_call_id(event.call_id, event.caller)
    login = project.login_named(event.sip_login)[0]
    if not event.caller and not login:
        return event
    statement = _CALL_BY_ID if event.caller else _CALLS_OF_LOGIN
    found = session.scalars(statement, {"project": project.id, "call": own, "login": login})
    its_own = next((call_id for call_id in found if is_own_call_id(call_id, event.call_id)), event.call_id)
    return replace(event, call_id=its_own)


def load_call(connection: Connection, project: Project, event: CallEvent, now: datetime) -> History:
    """Return the event's call; lock its agents and logins until the transaction ends."""
    statements = STATEMENTS[connection.dialect.name]
    row = connection.execute(statements["CALL"], {"project": project.id, "call_id": event.call_id}).one()
    (history,) = outcomes.histories(row) or [History(event.call_id)]
    named = looked_at(project, history, (event.sip_login, event.caller))
    people = connection.execute(statements["PEOPLE"], outcomes.people_wanted(project.id, [history], *named)).one()
    return outcomes.with_people(history, outcomes.People(people, now), *named)


def write(
    connection: Connection, project_id: int, call_id: str, changes: Changes, said: dict[str, int] | None = None
) -> None:
    """Write the changes of a call. `said`: see db/outcomes.py."""
    statements = STATEMENTS[connection.dialect.name]
    for name, values in outcomes.written(project_id, call_id, changes, said):
        connection.execute(statements[name], values)


# Built once, because building a statement takes longer than running it.
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_PROJECT = bindparam("project", type_=Integer)
_CALL_BY_ID = (
    select(Decision.call_id)
    .where(Decision.project_id == _PROJECT, Decision.call_id == bindparam("call"), Decision.call_id != "")
    .limit(1)
)
_CALLS_OF_LOGIN = union_all(
    select(Reservation.call_id).where(Reservation.project_id == _PROJECT, Reservation.sip_login == bindparam("login")),
    select(LoginState.event_call_id).where(
        LoginState.project_id == _PROJECT, LoginState.login == bindparam("login"), LoginState.event_speaking.is_(True)
    ),
)
STATEMENTS = {
    dialect: {name: text(sql) for name, sql in outcomes.statements(kind).items()}
    for dialect, kind in (("sqlite", "sqlite"), ("postgresql", "postgres"))
}
