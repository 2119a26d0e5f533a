"""Says whether a schedule is open: weekly hours in one time zone, exceptions by date, a temporary override.

Pure: no clock, no I/O but zoneinfo's own data. A schedule is open when the local time of its zone lies in a piece of
that date's hours. schedule_words.py reads and writes schedules; docs/schedules.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.core.dates import CYCLE, Calendar, DateRange, Dates, order

DAY = 24 * 60  # minutes
HORIZON = timedelta(days=400)  # how far ahead a change is looked for: a year, its holidays and some weeks more

_ONE_DAY = timedelta(days=1)
_zone = lru_cache(maxsize=None)(ZoneInfo)  # ZoneInfo's own cache keeps only eight zones alive


class Source(StrEnum):
    """The part of the schedule that decided."""

    WEEKLY = "weekly"
    EXCEPTION = "exception"
    OVERRIDE = "override"


class Span(NamedTuple):
    """Minutes since the midnight of the day it starts on, end excluded; past the next midnight the end exceeds 1440."""

    start: int
    end: int

    def __str__(self) -> str:
        end = self.end if self.end <= DAY else self.end - DAY
        return f"{self.start // 60:02}:{self.start % 60:02}-{end // 60:02}:{end % 60:02}"


@dataclass(frozen=True, slots=True)
class Override:
    """Open or closed, whatever the hours say, until the aware instant `until` (None: until it is removed)."""

    open: bool
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.until is not None:
            # Kept in UTC: in other zones Python calls equal instants unequal when one lies in a DST fold.
            object.__setattr__(self, "until", _aware(self.until).astimezone(UTC))

    def covers(self, at: datetime) -> bool:
        return self.until is None or at < self.until


@dataclass(frozen=True, slots=True)
class Schedule:
    """`weekly`: the spans that start on each day, Monday first. `exceptions`: (dates, their spans), `()` = closed."""

    id: int
    name: str
    time_zone: str = "UTC"
    weekly: tuple[tuple[Span, ...], ...] = ((),) * 7
    exceptions: tuple[tuple[Dates, tuple[Span, ...]], ...] = ()
    override: Override | None = None
    names: Mapping[Dates, str] = field(default_factory=dict, compare=False)  # of exceptions that have one: "Christmas"
    calendar: Calendar[tuple[Span, ...]] = field(init=False, repr=False, compare=False)  # the exceptions, to look up

    def __post_init__(self) -> None:
        if len(self.weekly) != 7:
            raise ValueError("Schedule.weekly must have seven days, Monday first")
        exceptions = tuple(sorted(self.exceptions, key=lambda exception: order(exception[0])))
        object.__setattr__(self, "exceptions", exceptions)
        object.__setattr__(self, "calendar", Calendar(exceptions))


class Openness(NamedTuple):
    """Whether a schedule is open, and why.

    `day`: the date whose hours decided. `span`: the hours that are open, None when closed or overridden. `until`: as
    `next_change`. `exception`: the dates of the exception that decided.
    """

    open: bool
    because: Source
    day: date
    span: Span | None
    until: datetime | None
    exception: Dates | None = None


class _Piece(NamedTuple):
    """An open part of one date, in minutes of that date. `day`: the date on which its `span` starts."""

    start: int
    end: int
    source: Source
    day: date
    span: Span


# ---- the questions


def is_open(schedule: Schedule, at: datetime) -> bool:
    """Return whether the schedule is open at this aware instant."""
    if schedule.override is not None and schedule.override.covers(at):
        return schedule.override.open
    return _piece_at(schedule, _local(schedule, at)) is not None


def explain(schedule: Schedule, at: datetime) -> Openness:
    """Return whether the schedule is open at this aware instant, why, and until when (as `next_change`)."""
    local = _local(schedule, at)
    until = next_change(schedule, at)
    if schedule.override is not None and schedule.override.covers(at):
        return Openness(schedule.override.open, Source.OVERRIDE, local.date(), None, until)
    piece = _piece_at(schedule, local)
    if piece is not None:
        return Openness(True, piece.source, piece.day, piece.span, until, exception_on(schedule, piece.day))
    exception = exception_on(schedule, local.date())
    source = Source.WEEKLY if exception is None else Source.EXCEPTION
    return Openness(False, source, local.date(), None, until, exception)


def exception_on(schedule: Schedule, day: date) -> Dates | None:
    """Return the dates of the exception that holds on this date, None on an ordinary day."""
    found = schedule.calendar.find(day)
    return None if found is None else found[0]


def next_change(schedule: Schedule, at: datetime) -> datetime | None:
    """Return the next instant (UTC, after `at`) at which it opens or closes, None when that is beyond HORIZON."""
    now = is_open(schedule, at)
    end = at + HORIZON
    return next((edge for edge in _edges(schedule, at, end) if is_open(schedule, edge) != now), None)


def end_of_day(schedule: Schedule, at: datetime) -> datetime:
    """Return the midnight (UTC) that ends the local day of this aware instant, or the end of hours that run past it."""
    zone = _zone(schedule.time_zone)
    today = _local(schedule, at).date()
    midnight = datetime.combine(today + _ONE_DAY, time(), zone)
    piece = _piece_at(schedule, midnight)
    spilled = piece.end if piece is not None and piece.day == today else 0
    return (midnight + timedelta(minutes=spilled)).astimezone(UTC)


def never_open(schedule: Schedule) -> bool:
    """Return whether no weekly hours, no exception and no override ever open it."""
    if schedule.override is not None and schedule.override.open:
        return False
    yearly = tuple(each for each in schedule.exceptions if not isinstance(each[0], date | DateRange))
    if any(spans for dates, spans in schedule.exceptions if isinstance(dates, date | DateRange)):
        return False
    if not yearly:
        return not any(schedule.weekly)
    schedule = replace(schedule, exceptions=yearly)
    days = range(date(CYCLE.start, 1, 1).toordinal(), date(CYCLE.stop, 1, 1).toordinal())
    return not any(_hours(schedule, date.fromordinal(day))[1] for day in days)


class LostMinute(NamedTuple):
    """Hours that leave one minute closed, likely because their end was thought to be open: 00:00-23:59.

    `where`: the weekday (0: Monday) or the exception. `meant`: the hours without the gap.
    """

    where: int | Dates
    span: Span
    meant: Span


def lost_minutes(schedule: Schedule) -> list[LostMinute]:
    """Return hours that end in an hour's last minute or a minute before others, or begin a minute past midnight."""
    found = []
    for day, spans in enumerate(schedule.weekly):
        next_starts = {DAY + span.start for span in schedule.weekly[(day + 1) % 7]}
        found += [LostMinute(day, *pair) for pair in _with_gap(spans, next_starts)]
    for dates, spans in schedule.exceptions:
        found += [LostMinute(dates, *pair) for pair in _with_gap(spans, set())]
    return found


def _with_gap(spans: tuple[Span, ...], next_starts: set[int]) -> Iterator[tuple[Span, Span]]:
    starts = {span.start for span in spans} | next_starts
    for span in spans:
        ends_early = span.end not in {*starts, DAY} and (span.end % 60 == 59 or span.end + 1 in starts)
        start, end = 0 if span.start == 1 else span.start, span.end + ends_early
        meant = Span(start, end) if end - start < DAY else Span(0, DAY)
        if meant != span:
            yield span, meant


def week(schedule: Schedule, monday: date, now: datetime | None = None) -> list[list[tuple[int, int, Source]]]:
    """Return what is open on seven dates from `monday`, in minutes of each date's local time, sorted and disjoint.

    The override covers what lies after `now` (aware; None: all), since the past knew nothing of it.
    """
    override = schedule.override
    days = []
    for day in (monday + n * _ONE_DAY for n in range(7)):
        pieces = [(piece.start, piece.end, piece.source) for piece in _pieces(schedule, day)]
        start = 0 if now is None else _minute_of(day, _local(schedule, now))
        end = DAY if override is None or override.until is None else _minute_of(day, _local(schedule, override.until))
        if override is not None and start < end:
            before = [(a, min(b, start), source) for a, b, source in pieces if a < start]
            after = [(max(a, end), b, source) for a, b, source in pieces if b > end]
            pieces = before + [(start, end, Source.OVERRIDE)] * override.open + after
        days.append(pieces)
    return days


def open_minutes(schedule: Schedule, monday: date, time_zone: str | None = None) -> list[tuple[int, int]]:
    """Return what is open in the week from `monday`, without the override, in elapsed minutes since its first midnight.

    Counted in `time_zone` (default: the schedule's own), so that schedules of several zones can be compared. Elapsed
    minutes are local minutes unless the clocks change in that week. Sorted, disjoint, never touching.
    """
    schedule = replace(schedule, override=None)
    zone = _zone(time_zone or schedule.time_zone)
    first, last = (datetime.combine(day, time(), zone).astimezone(UTC) for day in (monday, monday + 7 * _ONE_DAY))
    found: list[tuple[int, int]] = []
    for start, end in pairwise((first, *_edges(schedule, first, last), last)):
        if is_open(schedule, start):
            minutes = (int((start - first).total_seconds() // 60), int((end - first).total_seconds() // 60))
            if found and found[-1][1] == minutes[0]:
                minutes = (found.pop()[0], minutes[1])
            found.append(minutes)
    return found


# ---- the one definition


def _pieces(schedule: Schedule, day: date) -> list[_Piece]:
    """Return what is open on this date, sorted and disjoint.

    An exception replaces the spans that start on its dates, and nothing that started the day before runs into it, but
    from one of its dates to the next. So "closed" is closed from midnight to midnight.
    """
    exception, spans = _hours(schedule, day)
    eve = day - _ONE_DAY
    exception_before, spans_before = _hours(schedule, eve)
    pieces = []
    spilled = 0
    if exception is None or exception == exception_before:
        for span in spans_before:
            if span.end > DAY:
                spilled = span.end - DAY
                pieces.append(_Piece(0, spilled, _source_of(exception_before), eve, span))
    source = _source_of(exception)
    return pieces + [
        _Piece(max(span.start, spilled), min(span.end, DAY), source, day, span) for span in spans if span.end > spilled
    ]


def _hours(schedule: Schedule, day: date) -> tuple[Dates | None, tuple[Span, ...]]:
    """Return the spans that start on this date, and the exception they come from."""
    return schedule.calendar.find(day) or (None, schedule.weekly[day.weekday()])


def _source_of(exception: Dates | None) -> Source:
    return Source.WEEKLY if exception is None else Source.EXCEPTION


def _piece_at(schedule: Schedule, local: datetime) -> _Piece | None:
    minute = local.hour * 60 + local.minute
    for piece in _pieces(schedule, local.date()):
        if piece.start <= minute < piece.end:
            return piece
    return None


def _edges(schedule: Schedule, at: datetime, end: datetime) -> Iterator[datetime]:
    """Yield in order every instant (UTC) between the two at which the answer may change; between neighbours it does
    not."""
    zone = _zone(schedule.time_zone)
    until = None if schedule.override is None else schedule.override.until
    at = _aware(at).astimezone(UTC)
    while True:
        local = at.astimezone(zone)
        clock = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        walls = [timedelta(minutes=wall) for piece in _pieces(schedule, local.date()) for wall in piece[:2]]
        edge = at + min(wall - clock for wall in (*walls, _ONE_DAY) if wall > clock)
        if edge.astimezone(zone).utcoffset() != local.utcoffset():
            edge = _transition(zone, at, edge)
        at = until if until is not None and at < until < edge else edge
        if at >= end:
            return
        yield at


def _transition(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first whole second after `before` with the UTC offset of `after`; the clocks change once between."""
    before = before.replace(microsecond=0)
    offset = after.astimezone(zone).utcoffset()
    while (gap := (after - before) // timedelta(seconds=1)) > 1:
        middle = before + timedelta(seconds=gap // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def _local(schedule: Schedule, at: datetime) -> datetime:
    return _aware(at).astimezone(_zone(schedule.time_zone))


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:  # Python would take it for the time of the machine's own zone
        raise ValueError(f"{at} has no time zone: pass an aware datetime")
    return at


def _minute_of(day: date, local: datetime) -> int:
    """Return the minute of this local time on the date: 0 when earlier, 1440 when later."""
    if local.date() != day:
        return 0 if local.date() < day else DAY
    return local.hour * 60 + local.minute
