"""What tells whether all is well, read in a few statements: schema, presence, leases, retention. Writes nothing.

`Probe` reads it beside the requests, so that a database that hangs holds up nobody who asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from router.db import migrate
from router.db.models import Decision, Presence, Project, Reservation
from router.db.session import Database
from router.db.types import Instant


class ProjectVitals(NamedTuple):
    """How one project's presence does, and what is kept of its calls."""

    id: int
    age: timedelta | None  # of the newest good reading; None: there is none
    fresh: timedelta  # how old a reading may be before the hook asks anew
    failures: int  # of the source, in a row
    error: str  # the code of the last one, see presence/source.py
    poll: timedelta | None  # how long the last good reading took
    is_polled: bool  # some process holds the lease
    reservations: int  # live ones
    overdue: timedelta  # for how long the oldest decision should have been deleted

    @property
    def state(self) -> str:
        """`fresh`, `stale`, `error` (the source fails) or `never` (nothing was read yet)."""
        if self.failures:
            return "error"
        if self.age is None:
            return "never"
        return "fresh" if self.age <= self.fresh else "stale"


class Vitals(NamedTuple):
    """`schema`: how the schema stands to this release, see migrate.standing. Projects by id."""

    schema: migrate.Standing
    projects: tuple[ProjectVitals, ...]


class StillReadingError(Exception):
    """The database has not answered in time; it is still being waited for."""


def read_vitals(database: Database) -> Vitals:
    """Read them now. Of a schema older than this release nothing but its standing is read."""
    schema = migrate.standing(database)
    if schema in {"none", "behind"}:
        return Vitals(schema, ())
    with database.reading() as session:
        return Vitals(schema, _read_projects(database, session))


def _read_projects(database: Database, session: Session) -> tuple[ProjectVitals, ...]:
    now = database.now(session)
    live = session.execute(
        select(Reservation.project_id, func.count().label("live"))
        .where(Reservation.expires_at > now)
        .group_by(Reservation.project_id)
    )
    reservations = {row.project_id: row.live for row in live}
    oldest = (
        select(func.min(Decision.asked_at, type_=Instant)).where(Decision.project_id == Project.id).scalar_subquery()
    )
    rows = session.execute(
        select(
            Project.id,
            Project.keep_days,
            oldest.label("oldest_at"),
            Project.presence_fresh_seconds,
            Presence.began_at,
            func.coalesce(Presence.failures, 0).label("failures"),
            func.coalesce(Presence.error_code, "").label("error"),
            Presence.poll_ms,
            Presence.lease_until,
        )
        .outerjoin(Presence, Presence.project_id == Project.id)
        .where(Project.deleted_at.is_(None))
        .order_by(Project.id)
    )
    return tuple(
        ProjectVitals(
            id=row.id,
            age=None if row.began_at is None else max(timedelta(0), now - row.began_at),
            fresh=timedelta(seconds=row.presence_fresh_seconds),
            failures=row.failures,
            error=row.error if row.failures else "",
            poll=None if row.poll_ms is None else timedelta(milliseconds=row.poll_ms),
            is_polled=row.lease_until is not None and row.lease_until > now,
            reservations=reservations.get(row.id, 0),
            overdue=max(timedelta(0), now - (row.oldest_at or now) - timedelta(days=row.keep_days)),
        )
        for row in rows
    )


class Probe:
    """Reads the vitals in a thread of its own, at most once a second however often it is asked."""

    def __init__(self, read: Callable[[], Vitals]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reading: threading.Event | None = None  # set when the reading that is under way has ended
        self._latest: Vitals | Exception = StillReadingError()
        self._read_at = -1.0e9

    def look(self, seconds: float) -> Vitals:
        """The vitals, at most a second old. Raises what reading them raised, StillReadingError after `seconds`."""
        with self._lock:
            if self._reading is None:
                if time.monotonic() - self._read_at < 1:
                    return self._told()
                self._reading = threading.Event()
                threading.Thread(target=self._run, args=(self._reading,), name="vitals", daemon=True).start()
            reading = self._reading
        if not reading.wait(seconds):
            raise StillReadingError("the database has not answered in time")
        with self._lock:
            return self._told()

    def _told(self) -> Vitals:
        if isinstance(self._latest, Exception):
            raise self._latest
        return self._latest

    def _run(self, done: threading.Event) -> None:
        latest: Vitals | Exception
        try:
            latest = self._read()
        except Exception as error:  # noqa: BLE001 - told to whoever looks
            latest = error
        with self._lock:
            self._latest, self._read_at, self._reading = latest, time.monotonic(), None
        done.set()
