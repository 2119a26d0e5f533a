"""Delete rows that are past their retention while calls go on, in short transactions with long pauses.

A transaction deletes as many rows as fit HOLD_SECONDS, because on SQLite every call waits for it. The pause after it is
nine times as long. The rows are found before, without locks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from router.db.models import (
    AuditEntry,
    Base,
    CallLog,
    ConfigVersion,
    Decision,
    EndedSession,
    HeardCall,
    HookToken,
    LastTalk,
    LoggedTalk,
    LoginState,
    OneTimeLink,
    Presence,
    PresenceSnapshot,
    Project,
    RefusedRequest,
    Rule,
    SignInFailure,
    SipLogin,
    Study,
)
from router.db.session import Database

REFUSED_KEPT = 200  # per project, the newest
AUDIT_KEPT = timedelta(days=730)
VERSIONS_KEPT = timedelta(days=30)  # configurations without decisions, for rollbacks
LINKS_KEPT = timedelta(days=30)  # expired one-time links; replaced hook tokens
LOGINS_KEPT = timedelta(days=30)  # states of SIP logins without an owner that no source lists
SESSIONS_KEPT = timedelta(days=15)  # signed-out sessions: longer than their cookies last
FAILURES_KEPT = timedelta(days=1)  # wrong passwords
STUDIES_KEPT = timedelta(days=30)
HEARD_KEPT = timedelta(days=2)  # events of calls; the keeper deletes them after one day, except of deleted projects
# A decision made while the database was away is stored later, and refers to a snapshot and a version of that time. So
# younger ones are not deleted.
LATE = timedelta(days=1)

HOLD_SECONDS = 0.01
_REST = 9  # how many times as long as the transaction the pause after it is
_LEAST, _MOST = 10, 1000  # rows in a transaction
_LOOK = 500  # presence snapshots examined together

Find = Callable[[Session, int], Sequence[Any]]
"""Returns the keys of at most so many rows to delete; [] when there are none left."""

Keep = Callable[[Session, ColumnElement[bool]], object]
"""Stores what is kept of these rows, in the transaction that deletes them."""


class _Place(NamedTuple):
    """How far a project's snapshots have been examined."""

    began_at: datetime
    id: int


class Pruner:
    """Prunes all projects, also deleted ones. The next run continues with the snapshots where the last one stopped."""

    def __init__(self, database: Database, stop: threading.Event | None = None) -> None:
        self._database = database
        self._stop = stop or threading.Event()
        self._thinned: dict[int, _Place] = {}
        self._batch = 100
        self.deleted: dict[str, int] = {}

    def run(self, now: datetime | None = None) -> dict[str, int]:
        """Delete rows that are past their retention, until told to stop. Return the number of deleted rows by table."""
        now = datetime.now(UTC) if now is None else now
        self.deleted = {}
        with self._database.reading() as session:
            projects = session.execute(
                select(
                    Project.id, Project.keep_days, Project.version, Project.presence_call_log_days, Project.deleted_at
                ).order_by(Project.id)
            ).all()
        for project in projects:
            looks_back = timedelta(days=0 if project.deleted_at else self._looks_back(project.id))
            self._prune_talks(
                project.id, 0 if project.deleted_at else project.presence_call_log_days, now, now - looks_back
            )
            self._prune_project(
                project.id, project.version, now - timedelta(days=project.keep_days), now, now - looks_back
            )
        gone = and_(
            ~exists().where(SipLogin.project_id == LoginState.project_id, SipLogin.login == LoginState.login),
            ~LoginState.online,
            ~LoginState.speaking,
            LoginState.since_at < now - LOGINS_KEPT,
            or_(LoginState.event_at.is_(None), LoginState.event_at < now - LOGINS_KEPT),
        )
        for model, where in (
            (LoginState, gone),
            (HeardCall, HeardCall.heard_at < now - HEARD_KEPT),
            (HookToken, HookToken.expires_at < now - LINKS_KEPT),
            (OneTimeLink, OneTimeLink.expires_at < now - LINKS_KEPT),
            (EndedSession, EndedSession.ended_at < now - SESSIONS_KEPT),
            (SignInFailure, SignInFailure.last_at < now - FAILURES_KEPT),
            (AuditEntry, AuditEntry.at < now - AUDIT_KEPT),
            (Study, Study.started_at < now - STUDIES_KEPT),
        ):
            self._delete(model, _keys_of(model, where))
        return self.deleted

    def _looks_back(self, project_id: int) -> int:
        """Return how many days a rule of the project looks back for who last talked with a caller."""
        with self._database.reading() as session:
            of_rules = and_(Rule.project_id == project_id, Rule.prefer == "last_agent")
            return session.scalar(select(func.max(Rule.prefer_days)).where(of_rules)) or 0

    def _prune_project(
        self, project_id: int, version: int, cutoff: datetime, now: datetime, talks_since: datetime
    ) -> None:
        """Prune a project. `talks_since`: of deleted calls, talks after this are kept."""
        old = and_(Decision.project_id == project_id, Decision.asked_at < cutoff)
        too_old = _keys_of(Decision, and_(old, Decision.asked_at < talks_since), Decision.asked_at)
        self._delete(Decision, too_old)
        self._delete(Decision, _keys_of(Decision, old, Decision.asked_at), self._keep_talks)
        self._delete(PresenceSnapshot, _keys_of(PresenceSnapshot, self._old_snapshots(project_id, cutoff)))
        self._thin_snapshots(project_id, now - LATE)
        self._delete_keys(ConfigVersion, self._unused_versions(project_id, version, now - VERSIONS_KEPT))
        with self._database.reading() as session:
            newest = select(RefusedRequest.id).where(RefusedRequest.project_id == project_id)
            surplus = session.scalar(newest.order_by(RefusedRequest.id.desc()).offset(REFUSED_KEPT).limit(1))
        if surplus is not None:
            where = and_(RefusedRequest.project_id == project_id, RefusedRequest.id <= surplus)
            self._delete(RefusedRequest, _keys_of(RefusedRequest, where))

    def _prune_talks(self, project_id: int, days: int, now: datetime, since: datetime) -> None:
        """Delete talks older than any rule looks back, and those of a call log that is no longer read."""
        if days == 0:  # if it is turned on again, it is read from its beginning
            self._delete(CallLog, _keys_of(CallLog, CallLog.project_id == project_id))
        until = min(now - timedelta(days=days), since) if days else now
        self._delete(
            LoggedTalk, _keys_of(LoggedTalk, and_(LoggedTalk.project_id == project_id, LoggedTalk.talked_at < until))
        )
        self._delete(LastTalk, _keys_of(LastTalk, and_(LastTalk.project_id == project_id, LastTalk.talked_at < since)))

    def _keep_talks(self, session: Session, calls: ColumnElement[bool]) -> None:
        """Store who last talked with the callers of these calls, before they are deleted."""
        talk = LastTalk
        insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(talk)
        key = (Decision.project_id, Decision.caller, Decision.answered_agent_id)
        talked = and_(calls, Decision.answered_agent_id.is_not(None), Decision.caller != "")
        session.execute(
            insert.from_select(
                ["project_id", "caller", "agent_id", "talked_at"],
                select(*key, func.max(Decision.asked_at)).where(talked).group_by(*key).order_by(*key),
            ).on_conflict_do_update(
                index_elements=["project_id", "caller", "agent_id"],
                set_={"talked_at": insert.excluded.talked_at},
                where=talk.talked_at < insert.excluded.talked_at,
            )
        )

    # ---- presence snapshots: one row per change at the source; no decision refers to most of them

    def _old_snapshots(self, project_id: int, cutoff: datetime) -> ColumnElement[bool]:
        """Return the condition for snapshots to which no stored decision can refer: older than the one at the cutoff,
        and not the newest.
        """
        of_project = PresenceSnapshot.project_id == project_id
        held = (
            select(PresenceSnapshot.began_at)
            .where(of_project, PresenceSnapshot.began_at <= cutoff)
            .order_by(PresenceSnapshot.began_at.desc())
            .limit(1)
            .scalar_subquery()
        )
        return and_(of_project, PresenceSnapshot.began_at < held, ~_is_newest())

    def _thin_snapshots(self, project_id: int, before: datetime) -> None:
        """Examine the snapshots to which decisions may refer, and delete those to which none does."""
        while not self._stop.is_set():
            with self._database.reading() as session:
                seen, unnamed = self._look_at_snapshots(session, project_id, before)
            if seen is None:
                return
            self._delete_keys(PresenceSnapshot, unnamed)
            self._thinned[project_id] = seen

    def _look_at_snapshots(
        self, session: Session, project_id: int, before: datetime
    ) -> tuple[_Place | None, Sequence[Any]]:
        """Return the place of the last of the next snapshots, and those of them to which no decision refers."""
        snapshot = PresenceSnapshot
        query = select(snapshot.id, snapshot.began_at, _is_newest().label("is_newest")).where(
            snapshot.project_id == project_id
        )
        if (place := self._thinned.get(project_id)) is not None:
            # The first condition lets the database use the index.
            query = query.where(
                snapshot.began_at >= place.began_at, or_(snapshot.began_at > place.began_at, snapshot.id > place.id)
            )
        rows = session.execute(query.order_by(snapshot.began_at, snapshot.id).limit(_LOOK + 1)).all()
        looked_at = [row for row in rows[:-1] if row.began_at < before]
        if not looked_at:
            return None, []
        until = rows[len(looked_at)].began_at  # when the next snapshot replaced the last of them
        named = (
            select(Decision.snapshot_id)
            .distinct()
            .where(
                Decision.project_id == project_id,
                Decision.asked_at.between(looked_at[0].began_at, until + LATE),
                Decision.snapshot_id.between(min(row.id for row in looked_at), max(row.id for row in looked_at)),
            )
        )
        keep = set(session.scalars(named))
        unnamed = [(row.id,) for row in looked_at if row.id not in keep and not row.is_newest]
        return _Place(looked_at[-1].began_at, looked_at[-1].id), unnamed

    # ---- versions of the configuration

    def _unused_versions(self, project_id: int, current: int, before: datetime) -> list[Any]:
        """Return the versions by which no stored decision was made.

        It compares with the time in which they were in use, with a margin on the safe side.
        """
        version = ConfigVersion
        with self._database.reading() as session:
            rows = session.execute(
                select(version.version, version.published_at)
                .where(version.project_id == project_id, version.version <= current)
                .order_by(version.version)
            ).all()
            unused = []
            for row, following in pairwise(rows):
                if following.published_at >= before:
                    break
                used = exists().where(
                    Decision.project_id == project_id,
                    Decision.asked_at.between(row.published_at - LATE, following.published_at + LATE),
                )
                if not session.scalar(select(used)):
                    unused.append((project_id, row.version))
        return unused

    # ---- deletion

    def _delete(self, model: type[Base], find: Find, keep: Keep | None = None) -> None:
        while not self._stop.is_set():
            with self._database.reading() as session:
                keys = find(session, self._batch)
            if not keys or not self._delete_batch(model, keys, keep):
                return

    def _delete_keys(self, model: type[Base], keys: Sequence[Any]) -> None:
        while keys and not self._stop.is_set():
            batch, keys = keys[: self._batch], keys[self._batch :]
            self._delete_batch(model, batch)

    def _delete_batch(self, model: type[Base], keys: Sequence[Any], keep: Keep | None = None) -> int:
        """Delete rows and return how many. Locked rows are left for the next run, because waiting for a lock while
        holding others causes deadlocks.
        """
        rows = tuple_(*_key(model)).in_(keys)
        if not self._database.is_sqlite:
            free = select(*_key(model)).where(rows).with_for_update(skip_locked=True)
            rows = tuple_(*_key(model)).in_(free)
        with self._database.writing() as session:
            began = time.monotonic()
            if keep is not None:
                keep(session, tuple_(*_key(model)).in_(keys))
            deleted = session.connection().execute(delete(model).where(rows)).rowcount
        took = time.monotonic() - began
        name = model.__tablename__
        self.deleted[name] = self.deleted.get(name, 0) + deleted
        fits = self._batch * HOLD_SECONDS / max(took, 0.0001)
        self._batch = max(_LEAST, min(_MOST, int(fits), 2 * self._batch))
        self._stop.wait(_REST * took)
        return deleted


def _key(model: type[Base]) -> Sequence[Any]:
    return list(model.__table__.primary_key)


def _keys_of(model: type[Base], where: ColumnElement[bool], *order: Any) -> Find:
    query = select(*_key(model)).where(where).order_by(*order)
    return lambda session, limit: [tuple(row) for row in session.execute(query.limit(limit))]


def _is_newest() -> ColumnElement[bool]:
    return exists().where(
        Presence.project_id == PresenceSnapshot.project_id, Presence.snapshot_id == PresenceSnapshot.id
    )


def is_first_keeper(database: Database, name: str) -> bool:
    """Return whether the keeper of this name polls the first of all polled projects: only one keeper does.

    Without projects every keeper is the first.
    """
    kept = Project.deleted_at.is_(None)  # deleted projects are not polled, though their rows may name a keeper
    first = (
        select(Presence.lease_holder)
        .join(Project, Project.id == Presence.project_id)
        .where(kept, Presence.lease_until > database.clock())
        .order_by(Presence.project_id)
        .limit(1)
    )
    with database.reading() as session:
        holder = session.scalar(first)
        return holder == name or (holder is None and not session.scalar(select(exists().where(kept))))
