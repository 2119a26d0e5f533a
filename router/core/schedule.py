"""Open or closed at this instant: weekly hours in one time zone, dated exceptions, a temporary override.

Pure: no clock and no I/O but zoneinfo's own data; instants come in as aware datetimes. Meaning: docs/schedules.md.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = 24 * 60
_ONE_DAY = timedelta(days=1)
_date_of = itemgetter(0)
_zone = lru_cache(maxsize=None)(ZoneInfo)  # ZoneInfo's own cache keeps only eight zones alive


class Span(NamedTuple):
    """Minutes since the local midnight of the day it starts on, end excluded; past midnight the end exceeds 1440."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Override:
    """Open or closed, whatever the hours say, from `since` until `until` (aware; None: no bound on that side)."""

    open: bool
    until: datetime | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("until", "since"):
            instant = getattr(self, name)
            if instant is not None:
                if instant.tzinfo is None:
                    raise ValueError(f"Override.{name} must be an aware datetime")
                # UTC: elsewhere two equal instants compare unequal when one lies in a DST fold.
                object.__setattr__(self, name, instant.astimezone(UTC))

    def covers(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`weekly`: the spans that start on each day, Monday first. `exceptions`: by date, instead of the weekly spans."""

    id: int
    name: str
    time_zone: str = "UTC"
    weekly: tuple[tuple[Span, ...], ...] = ((),) * 7
    exceptions: tuple[tuple[date, tuple[Span, ...]], ...] = ()
    override: Override | None = None

    def __post_init__(self) -> None:
        if len(self.weekly) != 7:
            raise ValueError("Schedule.weekly must have seven days")
        object.__setattr__(self, "exceptions", tuple(sorted(self.exceptions)))


def is_open(schedule: Schedule, at: datetime) -> bool:
    """Is it open at this instant (aware)? Spans are compared with the time on the wall of the schedule's zone."""
    if schedule.override is not None and schedule.override.covers(at):
        return schedule.override.open
    if at.tzinfo is None:
        raise ValueError("at must be an aware datetime")
    local = at.astimezone(_zone(schedule.time_zone))
    day, minute = local.date(), local.hour * 60 + local.minute
    spans = _exception(schedule, day)
    if spans is not None:  # an exception is the whole truth about its date: nothing spills into it
        return any(start <= minute < end for start, end in spans)
    if any(start <= minute < end for start, end in schedule.weekly[day.weekday()]):
        return True
    before = day - _ONE_DAY
    spans = _exception(schedule, before)
    spill = schedule.weekly[before.weekday()] if spans is None else spans
    return any(minute + DAY < end for _, end in spill)


def _exception(schedule: Schedule, day: date) -> tuple[Span, ...] | None:
    """The spans that the exception of this date gives, `()` = closed; None: no exception on this date."""
    exceptions = schedule.exceptions
    index = bisect_left(exceptions, day, key=_date_of)
    if index < len(exceptions) and exceptions[index][0] == day:
        return exceptions[index][1]
    return None
