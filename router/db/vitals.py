"""Read the state of an installation in a few statements: schema, presence, leases, retention. Writes nothing.

`Probe` reads it in a thread, so that a database that hangs delays no request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from router.db import migrate
from router.db.models import Decision, Presence, Project, Reservation
from router.db.session import Database
from router.db.types import Instant

T = TypeVar("T")


class ProjectVitals(NamedTuple):
    """The state of one project's presence, and of its stored calls."""

    id: int
    age: timedelta | None  # of the newest good reading, if any
    fresh: timedelta  # how old a reading may be before the hook asks the source itself
    failures: int  # of the source, in a row
    error: str  # the code of the last one, see presence/source.py
    poll: timedelta | None  # how long the last good reading took
    is_polled: bool  # some process holds the lease
    reservations: int  # live leases
    overdue: timedelta  # for how long the oldest decision should have been deleted

    @property
    def state(self) -> str:
        """Return `fresh`, `stale`, `error` (the source fails) or `never` (nothing was read yet)."""
        if self.failures:
            return "error"
        if self.age is None:
            return "never"
        return "fresh" if self.age <= self.fresh else "stale"


class Vitals(NamedTuple):
    """The state of an installation. `schema`: see migrate.standing. `projects`: by id."""

    schema: migrate.Standing
    projects: tuple[ProjectVitals, ...]


class StillReadingError(Exception):
    """The database has not answered in time. The reading goes on in its thread."""


def read_vitals(database: Database) -> Vitals:
    """Read the vitals now. If the schema is older than this release, nothing else is read."""
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


class Probe(Generic[T]):
    """Reads something in a thread, at most once in `every` seconds however often it is asked for."""

    def __init__(self, read: Callable[[], T], *, every: float = 1.0) -> None:
        self._read = read
        self._every = every
        self._lock = threading.Lock()
        self._reading: Future[T] | None = None
        self._read_at = 0.0  # by time.monotonic()
        self._latest: T | None = None

    def look(self, seconds: float) -> T:
        """Return a result that is at most `every` seconds old.

        Raises the error of the reading, or StillReadingError after `seconds`.
        """
        with self._lock:
            reading = self._reading
            if reading is None or (reading.done() and time.monotonic() - self._read_at >= self._every):
                reading = self._reading = Future()
                # A daemon thread, unlike an executor's: a database that hangs must not keep the process alive.
                threading.Thread(target=self._run, args=(reading,), name="vitals", daemon=True).start()
        if not wait([reading], seconds).done:
            raise StillReadingError("the database has not answered in time")
        return reading.result()

    def latest(self, seconds: float) -> T | None:
        """Return a new result; the last one, if any, if reading takes longer than `seconds` or fails."""
        try:
            return self.look(seconds)
        except Exception:  # noqa: BLE001 - it is read again in a moment
            return self._latest

    def _run(self, reading: Future[T]) -> None:
        try:
            found = self._read()
        except Exception as error:  # noqa: BLE001 - look() raises it
            result = partial(reading.set_exception, error)
        else:
            self._latest = found
            result = partial(reading.set_result, found)
        self._read_at = time.monotonic()
        result()
