"""Poll the presence sources of all projects in the background. A lease in the database chooses a process per project.

One thread stores the results. Each poll runs in its own thread, so that a source that hangs delays no other. Calls are
settled in further threads, so that thousands of them delay no poll. The holder of the lease also reads the platform's
call log if the project wants it. Decides nothing about calls.
"""

from __future__ import annotations

import os
import queue
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, exc, func, or_, select, text, update
from sqlalchemy.orm import Session

from router.core import model
from router.core.words import N_
from router.db import queries
from router.db.documents import BuildError
from router.db.models import CallLog, Presence, Project
from router.db.session import CLOCK_STEP, Database, DatabaseBusyError, time_limit
from router.db.types import SecretError, readable
from router.log import log
from router.metrics import POLLS
from router.presence import call_log
from router.presence.call_log import CallLogs
from router.presence.fetch import Fetcher
from router.presence.readings import Readings
from router.presence.settle import settle, tidy
from router.presence.source import ErrorCode, Reading, SourceError, SourceSettings, backoff
from router.presence.sources import SOURCES

LEASE = timedelta(seconds=5)  # how long after its holder's death another process may take a project
READ = timedelta(seconds=4)  # timeout of a poll; shorter than the lease, so that its result is still the holder's
LOOK_SECONDS = 1.0  # the longest time between two checks of what is due
SHORTEST_LOOK_SECONDS = 0.05  # the shortest, so that polls due at about the same time start together
SETTLE_SECONDS = 5.0  # the longest time between two settlements, also without readings
MAX_POLLS = 64  # at the same time
REFRESH_SECONDS = 0.8  # the most that a waiting hook spends on a refresh
REFRESH_SHARE = 0.5  # and the largest share of its remaining time
HURRIED_SECONDS = 0.3  # how long such a hook waits for a lock or a statement
SETTLERS = 2  # threads: while one settles thousands of calls of a project, the other settles the other projects
# A waiting call asks the source even during a back-off, because it may work again: but not after these errors.
_FORBIDDEN = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED, ErrorCode.BAD_SETTINGS})
LONGEST_WAIT = timedelta(minutes=15)  # no poll is delayed by more than this and its interval, see source.backoff

_DATABASE_IS_AWAY = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, DatabaseBusyError, OSError)

AnyRow = Row[*tuple[Any, ...]]


class _Source(NamedTuple):
    """How a project is polled, at one version of its configuration."""

    version: int
    name: str
    settings: SourceSettings | SourceError
    poll: timedelta


class _Clock(NamedTuple):
    """The database's clock, continued from a reading. It is never ahead of the real one: the reading took some time."""

    at: datetime
    monotonic: float

    def now(self) -> datetime:
        return self.at + timedelta(seconds=time.monotonic() - self.monotonic)


class _Unsettled(NamedTuple):
    """An error while settling a project's calls."""

    project: AnyRow
    error: Exception


class _Heard(NamedTuple):
    """The result of one poll."""

    project: AnyRow
    outcome: Reading | SourceError
    began_at: datetime
    took: timedelta


@dataclass(slots=True)
class _State:
    """The polling thread's state for a project."""

    asked_version: int = 0
    settled: float = 0.0  # time.monotonic()
    tidied: float = 0.0  # time.monotonic()
    failing: str = ""  # the error that was logged
    core: model.Project | None = None
    core_version: int = 0  # the published version that `core` was built from


class Keeper:
    """Keeps presence up to date for all projects of a database, together with the keepers of other processes.

    Must be created after a fork. `name` identifies the holder of a lease.
    """

    def __init__(self, database: Database, fetcher: Fetcher, *, name: str = "") -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._database = database
        self._fetcher = fetcher
        self._readings = Readings(database)
        self._sources: dict[int, _Source] = {}
        self._states: dict[int, _State] = {}
        self._results: queue.SimpleQueue[_Heard | _Unsettled | call_log.Heard] = queue.SimpleQueue()
        self._call_logs = CallLogs(database, fetcher, self._results.put)
        self._asking: set[int] = set()
        self._to_settle: queue.SimpleQueue[tuple[AnyRow, bool] | None] = queue.SimpleQueue()
        self._settling: set[int] = set()  # projects in that queue, or being settled
        self._clock = _Clock(datetime.now(UTC), time.monotonic())
        self._is_down = False

    # ---- in the background

    def run(self, stop: threading.Event) -> None:
        """Poll until `stop` is set, then give the leases back. No error ends it."""
        settlers = [
            threading.Thread(target=self._run_settling, args=(stop,), name=f"settle-{n}", daemon=True)
            for n in range(SETTLERS)
        ]
        for settler in settlers:
            settler.start()
        while not stop.is_set():
            try:
                wait = self._look()
            except Exception as error:  # noqa: BLE001 - polling must go on after any error
                self._note_down(error)
                wait = LOOK_SECONDS
            else:
                self._note_up()
            self._listen(time.monotonic() + wait, stop)
        for _ in settlers:
            self._to_settle.put(None)
        self._give_back()
        for settler in settlers:
            settler.join(timeout=SETTLE_SECONDS)

    def _look(self) -> float:
        """Start the polls that are due and ours. Return the seconds until the next may be due."""
        rows, clock = self._read_projects()
        now = clock.now()
        if any(row.project_id is None for row in rows):
            self._create_missing()
            return 0.0
        ours = [row for row in rows if self._may_hold(row, now)]
        due = [row for row in ours if row.id not in self._asking and self._is_due(row, now)]
        due.sort(key=lambda row: row.next_poll_at or row.created_at)
        due = due[: max(0, MAX_POLLS - len(self._asking))]
        renew = any(row.lease_holder == self.name and row.lease_until < now + LEASE / 2 for row in ours)
        if due or renew:
            taken = self._take([row.id for row in due], clock)
            for row in due:
                if row.id in taken:
                    self._start_poll(row, clock)
        self._settle_held(ours, clock)
        self._read_call_logs(ours, clock)
        now = clock.now()
        waits = [
            (row.next_poll_at - now).total_seconds() for row in ours if row.next_poll_at and row.next_poll_at > now
        ]
        return max(SHORTEST_LOOK_SECONDS, min(LOOK_SECONDS, *waits)) if waits else LOOK_SECONDS

    def _read_projects(self) -> tuple[Sequence[AnyRow], _Clock]:
        with self._database.reading() as session:
            rows = session.execute(_projects()).all()
            self._clock = _Clock(self._database.now(session), time.monotonic())
            return rows, self._clock

    def _create_missing(self) -> None:
        with self._database.writing() as session:
            session.execute(_CREATE_MISSING)

    def _may_hold(self, row: AnyRow, now: datetime) -> bool:
        return row.lease_holder == self.name or _is_past(row.lease_until, now, 2 * LEASE)

    def _is_due(self, row: AnyRow, now: datetime) -> bool:
        if not _is_past(row.asking_until, now, 2 * READ):
            return False
        # Corrected settings are used at once, not after the back-off that the wrong ones have caused.
        corrected = row.failures > 0 and self._state(row.id).asked_version not in {0, row.version}
        was_set_back = any(at is not None and at > now + CLOCK_STEP for at in (row.began_at, row.error_at))
        return corrected or was_set_back or _is_past(row.next_poll_at, now, _longest_wait(row))

    def _take(self, project_ids: Sequence[int], clock: _Clock) -> set[int]:
        """Take or renew the leases. Return the ids of the projects that we may poll now."""
        with self._database.writing() as session:
            now = clock.now()
            until = now + LEASE
            held = (
                select(Presence.project_id)
                .where(Presence.lease_holder == self.name, Presence.lease_until < now + LEASE / 2)
                .order_by(Presence.project_id)
                .with_for_update(skip_locked=True)
            )
            renewed = session.scalars(held).all()
            session.execute(update(Presence).where(Presence.project_id.in_(renewed)).values(lease_until=until))
            mine = or_(Presence.lease_holder == self.name, _past(Presence.lease_until, now, 2 * LEASE))
            free = (
                select(Presence.project_id)
                .where(Presence.project_id.in_(project_ids), mine, _past(Presence.asking_until, now, 2 * READ))
                .order_by(Presence.project_id)
                .with_for_update(skip_locked=True)
            )
            taken = set(session.scalars(free))
            session.execute(
                update(Presence)
                .where(Presence.project_id.in_(taken))
                .values(lease_holder=self.name, lease_until=until, asking_until=now + READ)
            )
        return taken

    def _start_poll(self, row: AnyRow, clock: _Clock) -> None:
        source = self._source(row.id, row.version)
        self._state(row.id).asked_version = row.version
        self._asking.add(row.id)

        def poll() -> None:
            began_at, began = clock.now(), time.monotonic()
            outcome = self._ask(source, began + READ.total_seconds())
            self._results.put(_Heard(row, outcome, began_at, timedelta(seconds=time.monotonic() - began)))

        try:
            threading.Thread(target=poll, name=f"presence-poll-{row.id}", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            error = SourceError(ErrorCode.UNREACHABLE, "The source was not asked: this server is out of threads.")
            self._results.put(_Heard(row, error, clock.now(), timedelta(0)))

    def _ask(self, source: _Source, deadline: float) -> Reading | SourceError:
        if isinstance(source.settings, SourceError):
            return source.settings
        try:
            return SOURCES[source.name](source.settings, deadline=deadline, session=self._fetcher)
        except SourceError as error:
            return error
        except Exception:  # noqa: BLE001 - one broken source must not end the polling of the others
            log.exception("presence: a source failed in a way it should not", source=source.name)
            return SourceError(
                ErrorCode.UNREACHABLE, "The source could not be asked because of an error in this service."
            )

    def _listen(self, until: float, stop: threading.Event) -> None:
        """Store the results of polls until `until`, or until a poll that one of them makes due earlier."""
        earliest = time.monotonic() + SHORTEST_LOOK_SECONDS
        while not stop.is_set():
            remaining = until - time.monotonic()
            if remaining <= 0:
                return
            try:
                heard = self._results.get(timeout=min(remaining, 0.2))
            except queue.Empty:
                continue
            if isinstance(heard, _Heard):
                self._asking.discard(heard.project.id)
            try:
                if isinstance(heard, _Unsettled):
                    self._note_lost(heard, heard.error)
                elif isinstance(heard, _Heard):
                    wait = self._keep(heard)
                    until = min(until, max(earliest, time.monotonic() + wait.total_seconds() + 0.002))
                else:
                    self._call_logs.keep(heard, self._clock.now())
            except Exception as error:  # noqa: BLE001 - one project must not hold up the others
                self._note_lost(heard, error)

    def _keep(self, heard: _Heard) -> timedelta:
        """Store the result of a poll. Return how long until the next one is due."""
        row = heard.project
        source = self._source(row.id, row.version)
        state = self._state(row.id)
        outcome = heard.outcome
        POLLS.labels(outcome.code if isinstance(outcome, SourceError) else "ok").inc()
        if isinstance(outcome, SourceError):
            failures, wait = _wait_after(row.failures, outcome, source.poll)
            next_poll_at = self._clock.now() + wait
            self._readings.keep_error(
                row.id, outcome, began_at=heard.began_at, failures=failures, next_poll_at=next_poll_at
            )
            if state.failing != outcome.code:
                log.warning("presence is unknown", project=row.name, error=outcome.code, message=outcome.message)
            state.failing = outcome.code
            return wait
        next_poll_at = heard.began_at + source.poll
        outcome = _by_login(self._core(row), outcome)
        self._readings.keep(row.id, outcome, began_at=heard.began_at, took=heard.took, next_poll_at=next_poll_at)
        if state.failing:
            log.info("presence is known again", project=row.name)
        state.failing = ""
        self._settle(row)
        return next_poll_at - self._clock.now()

    def _settle_held(self, rows: Iterable[AnyRow], clock: _Clock) -> None:
        for row in rows:
            holds = row.lease_holder == self.name and row.lease_until > clock.now()
            if holds and time.monotonic() > self._state(row.id).settled + SETTLE_SECONDS:
                self._settle(row)

    def _read_call_logs(self, rows: Iterable[AnyRow], clock: _Clock) -> None:
        for row in rows:
            holds = row.lease_holder == self.name and row.lease_until > clock.now()
            if not holds or not self._call_logs.is_due(row, clock.now()):
                continue
            source, core = self._source(row.id, row.version), self._core(row)
            if core is not None and isinstance(source.settings, SourceSettings):  # else presence says why
                self._call_logs.start(row, core, source.name, source.settings, clock.now())

    def _settle(self, row: AnyRow) -> None:
        """Queue the project for settling its calls unless it is queued already; now and then for `tidy` as well."""
        if row.id in self._settling:
            return
        self._settling.add(row.id)
        state = self._state(row.id)
        state.settled = time.monotonic()
        tidies = state.settled > state.tidied + SETTLE_SECONDS
        if tidies:
            state.tidied = state.settled
        self._to_settle.put((row, tidies))

    def _run_settling(self, stop: threading.Event) -> None:
        while (waiting := self._to_settle.get()) is not None and not stop.is_set():
            row, tidies = waiting
            try:
                core = self._core(row)
                if core is not None:
                    settle(self._database, core)
                    if tidies:
                        tidy(self._database, core)
            except Exception as error:  # noqa: BLE001 - tried again with the next reading; the polling thread logs it
                self._results.put(_Unsettled(row, error))
            finally:
                self._settling.discard(row.id)

    def _core(self, row: AnyRow) -> model.Project | None:
        """Return the project's configuration; None if none was published, so that no call was ever decided by it."""
        state = self._state(row.id)
        if row.version == 0:
            return None
        if state.core_version != row.version:
            with self._database.reading() as session, suppress(BuildError):  # the hook logs it
                state.core = queries.load_published(session, row.id).project
            state.core_version = row.version
        return state.core

    def _give_back(self) -> None:
        try:
            with self._database.writing() as session:
                mine = Presence.lease_holder == self.name
                asking = and_(mine, Presence.project_id.in_(self._asking))
                session.execute(update(Presence).where(asking).values(asking_until=None))
                session.execute(update(Presence).where(mine).values(lease_holder="", lease_until=None))
        except Exception as error:  # noqa: BLE001 - the process ends, and the leases expire
            log.warning("presence keeper: its leases could not be given back; they will expire", error=_line(error))

    def _note_down(self, error: Exception) -> None:
        if self._is_down:
            return
        self._is_down = True
        if isinstance(error, _DATABASE_IS_AWAY):
            log.error("presence keeper: the database does not answer; trying again", error=_line(error))
        else:
            log.error("presence keeper: failed; trying again", exc_info=error)

    def _note_lost(self, heard: _Heard | _Unsettled | call_log.Heard, error: Exception) -> None:
        state = self._state(heard.project.id)
        if isinstance(error, _DATABASE_IS_AWAY):
            self._note_down(error)
        elif state.failing != type(error).__name__:
            state.failing = type(error).__name__
            if isinstance(heard, _Unsettled):
                what = "calls could not be settled"
            else:
                what = f"{'presence' if isinstance(heard, _Heard) else 'the call log'} could not be kept"
            log.error(what, project=heard.project.name, exc_info=error)

    def _note_up(self) -> None:
        if self._is_down:
            log.info("presence keeper: works again")
        self._is_down = False

    def _state(self, project_id: int) -> _State:
        return self._states.setdefault(project_id, _State())

    # ---- for a hook that waits

    def refresh(self, project_id: int, deadline: float) -> bool:
        """Ask one project's source for a waiting hook. Return whether there is a newer reading. Raises nothing.

        Takes at most half of the time left until `deadline` (time.monotonic()), and at most 0.8 s. It does not ask
        during the back-off after a refusal. While another process asks, it waits for the result of that.
        """
        left = deadline - time.monotonic()
        ends = time.monotonic() + min(REFRESH_SECONDS, left * REFRESH_SHARE)
        if left <= 0:
            return False
        try:
            return self._refresh(project_id, ends)
        except Exception as error:  # noqa: BLE001 - the hook can answer by what is known
            log.warning("presence could not be refreshed", project_id=project_id, error=_line(error))
            return False

    def _refresh(self, project_id: int, ends: float) -> bool:
        with time_limit(HURRIED_SECONDS):
            row, clock = self._read_project(project_id)
            if row is None:
                return False
            is_resting = row.failures > 0 and not _is_past(row.next_poll_at, clock.now(), _longest_wait(row))
            if is_resting and row.error_code in _FORBIDDEN:
                return False
            is_our_turn = self._take_turn(row, clock, ends)
        if not is_our_turn:
            return self._await_news(row, ends)
        source = self._source(project_id, row.version)
        began_at, began = clock.now(), time.monotonic()
        outcome = self._ask(source, ends)
        took = timedelta(seconds=time.monotonic() - began)
        readings = Readings(self._database)
        with time_limit(HURRIED_SECONDS):
            if isinstance(outcome, SourceError):
                failures, wait = _wait_after(row.failures, outcome, source.poll)
                next_at = clock.now() + wait
                if is_resting:  # this extra try must not prolong the back-off
                    failures, next_at = row.failures, row.next_poll_at
                readings.keep_error(project_id, outcome, began_at=began_at, failures=failures, next_poll_at=next_at)
                return False
            next_at = began_at + source.poll
            outcome = _by_login(self._core(row), outcome)
            return readings.keep(project_id, outcome, began_at=began_at, took=took, next_poll_at=next_at)

    def _read_project(self, project_id: int) -> tuple[AnyRow | None, _Clock]:
        with self._database.reading() as session:
            row = session.execute(_projects().where(Project.id == project_id)).one_or_none()
            return row, _Clock(self._database.now(session), time.monotonic())

    def _take_turn(self, row: AnyRow, clock: _Clock, ends: float) -> bool:
        """Mark the project as being asked. Return False if another process asks already."""
        now = clock.now()
        until = now + timedelta(seconds=ends - time.monotonic() + 0.2)
        free = _past(Presence.asking_until, now, 2 * READ)
        turn = update(Presence).where(Presence.project_id == row.id, free).values(asking_until=until)
        with self._database.writing() as session:
            if row.project_id is None:
                session.execute(_CREATE_MISSING)
            return session.execute(turn.returning(Presence.project_id)).one_or_none() is not None

    def _await_news(self, before: AnyRow, ends: float) -> bool:
        for pause in (0.05, 0.1, 0.2, 0.4):
            if time.monotonic() + pause > ends:
                return False
            time.sleep(pause)
            row, _ = self._read_project(before.id)
            if row is None or row.asking_until is None:
                return row is not None and row.began_at is not None and row.began_at != before.began_at
            if row.began_at != before.began_at:
                return True
        return False

    # ---- for both

    def _source(self, project_id: int, version: int) -> _Source:
        """Return how to ask the project's source. Secrets are decrypted once for each version of the configuration."""
        known = self._sources.get(project_id)
        if known is not None and known.version == version:
            return known
        with self._database.reading() as session:
            source = _load_source(session, project_id, version)
        self._sources[project_id] = source
        return source


# ---- rows and clocks


def _projects() -> Any:
    return (
        select(
            Project.id,
            Project.name,
            Project.version,
            Project.created_at,
            Project.presence_poll_seconds,
            Project.country,
            Project.presence_call_log_days.label("call_log_days"),
            CallLog.next_at.label("call_log_next_at"),
            Presence.project_id,
            Presence.began_at,
            func.coalesce(Presence.failures, 0).label("failures"),
            Presence.error_code,
            Presence.error_at,
            Presence.next_poll_at,
            Presence.asking_until,
            Presence.lease_holder,
            Presence.lease_until,
        )
        .outerjoin(Presence, Presence.project_id == Project.id)
        .outerjoin(CallLog, CallLog.project_id == Project.id)
        .where(Project.deleted_at.is_(None))
    )


_CREATE_MISSING = text(
    "INSERT INTO presence (project_id, failures, error_code, error_message, error_remedy, lease_holder)"
    " SELECT p.id, 0, '', '', '', '' FROM projects p WHERE p.deleted_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM presence WHERE presence.project_id = p.id) ON CONFLICT (project_id) DO NOTHING"
)


def _load_source(session: Session, project_id: int, version: int) -> _Source:
    row = session.get_one(Project, project_id)
    poll = timedelta(seconds=row.presence_poll_seconds)
    try:
        auth_key, token = readable(row.presence_auth_key), readable(row.presence_token)
    except SecretError:
        unreadable = SourceError(
            ErrorCode.BAD_SETTINGS,
            N_("The project’s credentials cannot be read."),
            remedy=N_(
                "Enter them again in the settings. Or the operator of this service adds the old key behind the new one "
                "in ENCRYPTION_KEYS."
            ),
        )
        return _Source(version, row.presence_source, unreadable, poll)
    if row.presence_source not in SOURCES:
        unknown = SourceError(
            ErrorCode.BAD_SETTINGS,
            f"{row.presence_source!r} is not a known presence source.",
            remedy=f"Set the project's presence source to one of: {', '.join(SOURCES)}.",
        )
        return _Source(version, row.presence_source, unknown, poll)
    settings = SourceSettings(
        api_url=row.presence_api_url,
        auth_key=auth_key,
        online_from=row.presence_online_from,
        project_id=row.presence_project_id,
        token=token,
        with_do_not_disturb=row.presence_with_do_not_disturb,
    )
    return _Source(version, row.presence_source, settings, poll)


def _wait_after(failures_before: int, error: SourceError, poll: timedelta) -> tuple[int, timedelta]:
    """Return the number of failures in a row, and how long to wait before the next poll."""
    failures = failures_before + 1
    return failures, backoff(failures, error=error, base=poll, jitter=random.random())  # noqa: S311 - no secret


def _by_login(core: model.Project | None, reading: Reading) -> Reading:
    """Return the reading with the logins of the configuration: a source may write them differently, as events do."""
    if core is None:
        return reading
    online, speaking = (frozenset(map(core.phone_named, logins)) for logins in (reading.online, reading.speaking))
    return Reading(online, speaking)


def _longest_wait(row: AnyRow) -> timedelta:
    return LONGEST_WAIT + timedelta(seconds=row.presence_poll_seconds)


def _is_past(at: datetime | None, now: datetime, longest: timedelta) -> bool:
    """Return whether this instant is past. One further ahead than `longest` counts as past: it was written before the
    clock was set back.
    """
    return at is None or at <= now or at > now + longest


def _past(at: Any, now: datetime, longest: timedelta) -> ColumnElement[bool]:
    return or_(at.is_(None), at <= now, at > now + longest)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
