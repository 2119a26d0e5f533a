"""Read the platform's own call log: who last talked with whom, also in calls that never came to our hook.

It is read in the background, never while a call waits: one day at a time, oldest first, up to the present. A call that
goes on shows no talk yet, so the newest hours are read again each time. Decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from random import random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from router.core.events import parse_disposition
from router.core.model import Project
from router.core.phones import is_outside_number
from router.db.models import CallLog
from router.db.session import Database
from router.db.types import to_micros
from router.log import log
from router.numbers import normalise_number
from router.presence.fetch import Fetcher
from router.presence.source import ErrorCode, LoggedCall, SourceError, SourceSettings, backoff
from router.presence.sources import CALL_LOGS

EVERY = timedelta(minutes=2)  # between two requests once all is read; the platform's rate limit is not known
CATCH_UP = timedelta(seconds=5)  # between two requests before that
SPAN = timedelta(days=1)
AGAIN = timedelta(hours=4)  # the newest time that is read again: the longest possible talk; shorter than SPAN
TIME = timedelta(seconds=20)  # timeout of a request for one span
MAX_SIDE_BY_SIDE = 4
LONGEST_LOGIN = 255  # characters
_ROWS = 500  # written in one transaction, so that no call waits long for it


class Span(NamedTuple):
    """The time to read now, from `begin` to `end`. `since`: where the known time begins after that. Aware."""

    since: datetime
    begin: datetime
    end: datetime


class Heard(NamedTuple):
    """The result of reading one span."""

    project: Project
    country: str
    span: Span
    failures: int
    outcome: list[LoggedCall] | SourceError


def next_span(known_since: datetime | None, known_until: datetime | None, days: int, now: datetime) -> Span:
    """Return the span to read next, of the last `days`. Known so far: from `known_since` to `known_until`, no gaps."""
    start = now - timedelta(days=days)
    if known_since is None or known_until is None or known_until < start or known_since > start + AGAIN:
        return Span(start, start, min(now, start + SPAN))  # `days` has grown, or the clock was set back
    begin = max(start, min(known_until, now) - AGAIN)
    return Span(max(start, known_since), begin, min(now, begin + SPAN))


def talks(calls: Iterable[LoggedCall], country: str) -> dict[tuple[str, str], datetime]:
    """Return when each login last talked with each caller. In an outgoing call the dialed number is the caller."""
    found: dict[tuple[str, str], datetime] = {}
    for call in calls:
        disposition = parse_disposition(call.disposition)
        if disposition is None or not disposition.is_answered:
            continue
        is_out = call.call_type.casefold() in {"out", "transitout"}
        caller = normalise_number(call.dst if is_out else call.caller, country)
        login = call.connected_with
        if is_out and (not login or normalise_number(login, country) == caller):
            login = call.caller  # the meaning of `connected_with` in outgoing calls is not documented
        if caller and login and len(login) <= LONGEST_LOGIN and not is_outside_number(login):
            found[caller, login] = max(call.calldate, found.get((caller, login), call.calldate))
    return found


class CallLogs:
    """Read the call logs of projects whose lease a keeper holds. `ready` gets each result, in another thread."""

    def __init__(self, database: Database, fetcher: Fetcher, ready: Callable[[Heard], None]) -> None:
        self._database = database
        self._fetcher = fetcher
        self._ready = ready
        self._asking: set[int] = set()
        self._rest: dict[int, float] = {}  # by project: the next request is not before (time.monotonic())

    def is_due(self, row: Any, now: datetime) -> bool:
        """Return whether a row with `call_log_days` and `call_log_next_at` is due. An instant far ahead counts as due:
        it was written before the clock was set back.
        """
        if not row.call_log_days or row.id in self._asking or len(self._asking) >= MAX_SIDE_BY_SIDE:
            return False
        if time.monotonic() < self._rest.get(row.id, 0):
            return False
        at: datetime | None = row.call_log_next_at
        return at is None or at <= now or at > now + timedelta(hours=1)

    def start(self, row: Any, project: Project, source: str, settings: SourceSettings, now: datetime) -> None:
        """Read the next span in a new thread."""
        with self._database.reading() as session:
            known = session.get(CallLog, project.id)
        since, reached, failures = (known.known_since, known.known_until, known.failures) if known else (None, None, 0)
        span = next_span(since, reached, row.call_log_days, now)
        self._asking.add(project.id)
        self._rest[project.id] = time.monotonic() + EVERY.total_seconds()

        def read() -> None:
            outcome = self._read(source, settings, span, ZoneInfo(project.time_zone))
            self._ready(Heard(project, row.country, span, failures, outcome))

        try:
            threading.Thread(target=read, name=f"call-log-{project.id}", daemon=True).start()
        except RuntimeError:  # the system has no thread left: tried again later
            self._asking.discard(project.id)

    def _read(
        self, source: str, settings: SourceSettings, span: Span, zone: ZoneInfo
    ) -> list[LoggedCall] | SourceError:
        begin, end = span.begin.astimezone(zone), span.end.astimezone(zone)
        deadline = time.monotonic() + TIME.total_seconds()
        try:
            calls = CALL_LOGS[source](settings, begin, end, deadline=deadline, session=self._fetcher)
        except SourceError as error:
            return error
        except Exception:  # noqa: BLE001 - one broken log must not end the reading of the others
            log.exception("call log: a source failed in a way it should not", source=source)
            return SourceError(
                ErrorCode.UNREACHABLE, "The call log could not be asked because of an error in this service."
            )
        # Without wrong dates: a talk in the future would count as the last one until then.
        return [call for call in calls if begin - SPAN <= call.calldate <= end + SPAN]

    def keep(self, heard: Heard, now: datetime) -> None:
        """Store the result of a span."""
        self._asking.discard(heard.project.id)
        project, span = heard.project, heard.span
        if isinstance(heard.outcome, SourceError):
            error = heard.outcome
            wait = backoff(heard.failures + 1, error=error, base=EVERY, jitter=random())  # noqa: S311 - no secret
            if not heard.failures:
                log.warning("call log: cannot be read", project=project.name, error=error.code, message=error.message)
            with self._database.writing() as session:
                _note(session, project.id, next_at=now + wait, failures=heard.failures + 1, error=error)
            self._rest.pop(project.id, None)
            return
        for rows in _rows(project.id, talks(heard.outcome, heard.country)):
            with self._database.writing() as session:
                session.execute(_KEEP, rows)
        if heard.failures:
            log.info("call log: can be read again", project=project.name)
        is_behind = span.end < now - AGAIN
        with self._database.writing() as session:
            _note(
                session,
                project.id,
                next_at=now + (CATCH_UP if is_behind else EVERY),
                known_since=span.since,
                known_until=span.end,
            )
        self._rest.pop(project.id, None)


_KEEP = text(
    "INSERT INTO logged_talks (project_id, caller, login, talked_at) VALUES (:project, :caller, :login, :at)"
    " ON CONFLICT (project_id, caller, login) DO UPDATE SET talked_at = excluded.talked_at"
    " WHERE excluded.talked_at > logged_talks.talked_at"
)


def _rows(project_id: int, found: Mapping[tuple[str, str], datetime]) -> Iterator[list[dict[str, Any]]]:
    rows = [
        {"project": project_id, "caller": caller, "login": login, "at": to_micros(at)}
        for (caller, login), at in sorted(found.items())
    ]
    for begin in range(0, len(rows), _ROWS):
        yield rows[begin : begin + _ROWS]


def _note(
    session: Session,
    project_id: int,
    *,
    next_at: datetime,
    failures: int = 0,
    error: SourceError | None = None,
    **known: datetime,
) -> None:
    row = session.scalar(select(CallLog).where(CallLog.project_id == project_id).with_for_update())
    if row is None:
        row = CallLog(project_id=project_id)
        session.add(row)
    row.next_at, row.failures = next_at, failures
    row.error_code = error.code if error else ""
    row.error_message, row.error_remedy = (error.message, error.remedy) if error else ("", "")
    for name, value in known.items():
        setattr(row, name, value)
