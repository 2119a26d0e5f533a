"""Store the readings of presence sources: the newest one, its snapshot, each login's changes. Decides nothing.

All code takes locks in the same order: the row of `presence`, the call (advisory), agent_states, login_states,
reservations, decisions, and each of them in the order of its keys.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, and_, bindparam, insert, or_, select, text, update
from sqlalchemy.orm import Session

from router.db.models import AgentState, LoginState, Presence, PresenceSnapshot, Project, SipLogin
from router.db.session import CLOCK_STEP, Database
from router.db.types import to_micros
from router.presence.source import Reading, SourceError

NOBODY = Reading(frozenset(), frozenset())

_KEEP_LOGIN = text(
    "INSERT INTO login_states (project_id, login, online, speaking, since_at, event_call_id)"
    " VALUES (:project, :login, :online, :speaking, :since, '') ON CONFLICT (project_id, login)"
    " DO UPDATE SET online = excluded.online, speaking = excluded.speaking, since_at = excluded.since_at"
)


class Readings:
    """Writes the readings and failures of all projects for one process. Used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: dict[int, tuple[int, Reading]] = {}  # by project: the newest snapshot that was written or read

    def keep(
        self,
        project_id: int,
        reading: Reading,
        *,
        began_at: datetime,
        took: timedelta,
        next_poll_at: datetime,
        now: datetime | None = None,
    ) -> bool:
        """Store a good reading, unless a newer one is stored already; return whether it was stored.

        `began_at`: an instant of the database's clock. `now`: an instant to use as that clock. An unchanged reading
        costs one statement.
        """
        values = {"began_at": began_at, "previous_at": Presence.began_at, "poll_ms": took // timedelta(milliseconds=1)}
        no_error = {"failures": 0, "error_code": "", "error_message": "", "error_remedy": "", "error_at": None}
        with self._database.writing() as session:
            statement = self._update(project_id, began_at, now, **values, **no_error, next_poll_at=next_poll_at)
            kept = session.execute(statement.returning(Presence.snapshot_id)).one_or_none()
            if kept is None:
                return False
            last = self._last.get(project_id)
            if kept.snapshot_id is None:
                before = NOBODY
            elif last is not None and last[0] == kept.snapshot_id:
                before = last[1]
            else:
                before = _known(session, project_id)
            snapshot_id = kept.snapshot_id
            if snapshot_id is None or before != reading:
                snapshot_id = _keep_snapshot(session, project_id, reading, began_at)
                _keep_changes(session, project_id, before, reading, began_at)
        self._last[project_id] = (snapshot_id, reading)
        return True

    def keep_error(
        self,
        project_id: int,
        error: SourceError,
        *,
        began_at: datetime,
        failures: int,
        next_poll_at: datetime,
        now: datetime | None = None,
    ) -> bool:
        """Store the `failures`-th failure in a row, unless a newer good reading is stored already.

        The last reading stays as it is and ages: presence is unknown, which is not the same as "nobody is online".
        """
        failed = {"error_code": error.code, "error_message": error.message, "error_remedy": error.remedy}
        with self._database.writing() as session:
            error_at = now or self._database.clock()
            values = {**failed, "failures": failures, "error_at": error_at, "next_poll_at": next_poll_at}
            statement = self._update(project_id, began_at, now, **values)
            return session.execute(statement.returning(Presence.project_id)).one_or_none() is not None

    def _update(self, project_id: int, began_at: datetime, now: datetime | None, /, **values: Any) -> Update:
        """Return the update of an older reading. To be built in its transaction: on SQLite it contains the time."""
        is_newer = self._is_newer(began_at, now)
        return update(Presence).where(Presence.project_id == project_id, is_newer).values(**values, asking_until=None)

    def _is_newer(self, began_at: datetime, now: datetime | None) -> ColumnElement[bool]:
        """Return the condition that this is newer than the stored reading. The statement itself reads the clock: a
        newer reading may be stored while it waits for a lock.
        """
        ahead = self._database.clock(CLOCK_STEP) if now is None else now + CLOCK_STEP
        return or_(Presence.began_at.is_(None), Presence.began_at < began_at, Presence.began_at > ahead)


def _known(session: Session, project_id: int) -> Reading:
    """Return the last reading from the logins' rows."""
    rows = session.execute(
        select(LoginState.login, LoginState.online, LoginState.speaking).where(
            LoginState.project_id == project_id, or_(LoginState.online, LoginState.speaking)
        )
    ).all()
    return Reading(frozenset(r.login for r in rows if r.online), frozenset(r.login for r in rows if r.speaking))


def _keep_snapshot(session: Session, project_id: int, reading: Reading, began_at: datetime) -> int:
    snapshot_id = session.execute(
        insert(PresenceSnapshot)
        .values(
            project_id=project_id, began_at=began_at, online=sorted(reading.online), speaking=sorted(reading.speaking)
        )
        .returning(PresenceSnapshot.id)
    ).scalar_one()
    session.execute(update(Presence).where(Presence.project_id == project_id).values(snapshot_id=snapshot_id))
    return snapshot_id


def _keep_changes(session: Session, project_id: int, before: Reading, after: Reading, began_at: datetime) -> None:
    if after.online - before.online:
        _note_available(session, project_id, before, after, began_at)
    changed = (before.online ^ after.online) | (before.speaking ^ after.speaking)
    since = to_micros(began_at)
    rows = [
        {
            "project": project_id,
            "login": login,
            "online": login in after.online,
            "speaking": login in after.speaking,
            "since": since,
        }
        for login in sorted(changed)
    ]
    if rows:
        session.execute(_KEEP_LOGIN, rows)


def _note_available(session: Session, project_id: int, before: Reading, after: Reading, began_at: datetime) -> None:
    """Note that agents came online, unless the gap was a short one.

    The gap begins at the first reading without them, or at a later event. Only time covered by readings counts, and a
    reading covers `fresh_seconds`.
    """
    owned = session.execute(
        select(SipLogin.agent_id, SipLogin.login, LoginState.since_at, LoginState.event_at, LoginState.event_speaking)
        .outerjoin(LoginState, and_(LoginState.project_id == project_id, LoginState.login == SipLogin.login))
        .where(SipLogin.project_id == project_id)
    ).all()
    came = {row.agent_id for row in owned if row.login in after.online}
    came -= {row.agent_id for row in owned if row.login in before.online or row.event_speaking}
    if not came:
        return
    settings = session.execute(
        select(Project.presence_away_seconds, Project.presence_fresh_seconds, Presence.previous_at)
        .join(Presence, Presence.project_id == Project.id)
        .where(Project.id == project_id)
    ).one()
    seen_until = began_at
    if settings.previous_at is not None:
        seen_until = min(began_at, settings.previous_at + timedelta(seconds=settings.presence_fresh_seconds))
    last_seen: dict[int, datetime] = {}
    for row in owned:
        for at in (row.since_at, row.event_at):
            if at is not None:
                last_seen[row.agent_id] = max(at, last_seen.get(row.agent_id, at))
    away = timedelta(seconds=settings.presence_away_seconds)
    came = {agent_id for agent_id in came if agent_id not in last_seen or seen_until - last_seen[agent_id] >= away}
    if came:
        lock_agents(session.connection(), came)
        session.execute(update(AgentState).where(AgentState.agent_id.in_(came)).values(available_since_at=began_at))


def lock_agents(connection: Connection, agent_ids: set[int]) -> None:
    """Lock the states of these agents until the transaction ends, in the order that all code uses."""
    connection.execute(_LOCK_AGENTS, {"agents": sorted(agent_ids)}).all()


_LOCK_AGENTS = (
    select(AgentState.agent_id)
    .where(AgentState.agent_id.in_(bindparam("agents", expanding=True)))
    .order_by(AgentState.agent_id)
    .with_for_update()
)
