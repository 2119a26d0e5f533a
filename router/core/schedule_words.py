"""Reads and writes schedules in words: the same in the YAML, the forms and the JSON columns. See docs/schedules.md.

Pure. schedule.py defines what the words mean; here each word is read or refused, with its place and a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias
from zoneinfo import available_timezones

from router.core.dates import (
    DAYS,
    Calendar,
    DateRange,
    Dates,
    DatesError,
    NthWeekday,
    Yearly,
    find_clash,
    is_suspiciously_long,
    last_days,
    parse_dates,
    render_dates,
    specificity,
)
from router.core.instants import InstantError, WrongInstant, parse_instant
from router.core.schedule import DAY, Override, Schedule, Span, lost_minutes
from router.core.words import WordedError, Wrong

Hours: TypeAlias = Sequence[str] | Literal["closed"]  # the spans of a day, each "HH:MM-HH:MM"


class WrongSchedule(Wrong):
    ZONE = "time zone", "%(text)r is not a time zone", "use an IANA name, as Europe/Kyiv"
    MAPPING = "mapping", "%(text)r is not a mapping", "see docs/schedules.md for its form"
    DAY = (
        "day",
        "%(text)r is not a day of the week",
        f"write {' '.join(DAYS)}, a range as mon-fri, a list as sat,sun, or daily",
    )
    DAY_TWICE = "day_twice", "%(day)s is named in %(other)s already", "name each day once"
    HOURS = "hours", "%(text)r is not a list of hours", 'write a list, as ["09:00-13:00", "14:00-18:00"], or closed'
    SPAN = "span", "%(text)r is not a span of hours", 'write it as "09:00-18:00"'
    SECONDS = "seconds", "%(text)r has seconds", 'write hours and minutes, as "%(span)s"'
    NO_TIME = "no_time", "%(text)r holds no time of day", "start at 00:00 to 23:59 and end by 24:00"
    NO_LENGTH = "no_length", "%(text)r starts when it ends", 'for the whole day write "00:00-24:00", or closed'
    OVERLAP = "overlap", "%(span)s overlaps %(other)s of %(of)s", "join the two or change a time"
    DATE_TWICE = "date_twice", "%(dates)s stands here twice", "keep one of the two"
    NO_EXCEPTION = "no_exception", "%(dates)s is no exception", "add it under exceptions, or remove its name"
    SHARED = "shared", "%(dates)s shares dates with %(other)s", "join the two, or end one before the other begins"
    RUNS_INTO = (
        "runs_into",
        "%(span)s runs into %(dates)s, which is an exception of its own",
        "end it at 24:00 and give %(after)s the hours after midnight",
    )
    OVERRIDE = "override", "%(text)r is not known", "write open or closed, or leave it out"
    NO_OVERRIDE = "no_override", "there is no override that could end", "write override: open or closed"


class ScheduleError(WordedError):
    """A schedule that cannot be read. `place`: the word at fault ("open.mon[1]")."""

    def __init__(self, place: str, kind: Wrong, remedy: str = "", **values: Any) -> None:
        super().__init__(kind, remedy, **values)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {super().__str__()}"

    @property
    def key(self) -> str:
        """Return the days or dates at fault as they are written: "mon" of "open.mon[1]"."""
        return self.place.partition(".")[2].partition("[")[0]


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """Return the names of all IANA zones that this machine's data knows."""
    return frozenset(available_timezones()) - {"localtime", "Factory"}  # the first is whatever the machine is set to


def parse_schedule(
    name: str,
    time_zone: str,
    open: Mapping[Any, Hours] | None = None,  # noqa: A002 - the word of the YAML
    exceptions: Mapping[Any, Hours] | None = None,
    override: str = "",
    override_until: str | datetime | None = None,
    exception_names: Mapping[Any, str] | None = None,
    *,
    id: int = 0,  # noqa: A002 - the field's name
) -> Schedule:
    """Read the words of docs/schedules.md, which may come from anybody. Raises ScheduleError for the first fault.

    `open`: days ("mon", "mon-fri", "sat,sun", "daily") → hours; `exceptions`: dates → hours; hours: "closed" or a list
    of "HH:MM-HH:MM". `override`: "open", "closed" or "" for none; `override_until`: ISO 8601 or datetime, in the
    schedule's zone unless it says its own. `exception_names`: dates → what they are called.
    """
    zone = str(time_zone)
    if zone not in time_zones():
        raise ScheduleError("time_zone", WrongSchedule.ZONE, _zone_remedy(time_zone), text=time_zone)
    weekly, dated = _parse_weekly(_mapping("open", open)), _parse_exceptions(_mapping("exceptions", exceptions))
    return Schedule(
        id=id,
        name=name,
        time_zone=zone,
        weekly=weekly,
        exceptions=dated,
        override=_parse_override(override, override_until, zone),
        names=_parse_names(_mapping("exception_names", exception_names), {dates for dates, _spans in dated}),
    )


class Doubt(NamedTuple):
    """Words that can be read but likely mean something else. `part`: "open" or "exceptions"; `position`: among the
    key's hours."""

    part: str
    key: str
    position: int | None
    message: str
    remedy: str


def doubts_of(
    open: Mapping[Any, Hours],  # noqa: A002 - the word of the YAML
    exceptions: Mapping[Any, Hours],
) -> list[Doubt]:
    """Return the doubtful words of a readable schedule: a minute left closed, dates without end."""
    lost = lost_minutes(parse_schedule("", "UTC", open, exceptions))
    meant = {(minute.where, minute.span): minute.meant for minute in lost}
    found = []
    for part, words in (("open", open), ("exceptions", exceptions)):
        for key, hours in words.items():
            place = f"{part}.{key}"
            named: list[Any] = _parse_days(place, key) if part == "open" else [parse_dates(key)]
            if part == "exceptions" and is_suspiciously_long(named[0]):
                remedy = "check which end comes first" if isinstance(named[0], Yearly) else "check the years"
                found.append(Doubt(part, key, None, "names nearly a whole year, or more", remedy))
            for position, span in enumerate(_parse_hours(place, hours).values()):
                if likely := next((meant[where, span] for where in named if (where, span) in meant), None):
                    message, remedy = f"{span} leaves one minute closed", f'write "{likely}": the end itself is closed'
                    found.append(Doubt(part, key, position, message, remedy))
    return found


def render_open(schedule: Schedule) -> dict[str, list[str]]:
    """Return the weekly hours with equal days under one key, in the order of the week: {"mon-fri": ["09:00-18:00"]}."""
    days_of: dict[tuple[Span, ...], list[int]] = {}
    for day, spans in enumerate(schedule.weekly):
        if spans:
            days_of.setdefault(spans, []).append(day)
    return {_render_days(days): [str(span) for span in spans] for spans, days in days_of.items()}


def render_exceptions(schedule: Schedule) -> dict[str, Hours]:
    """Return the exceptions by their dates: {"2026-12-25": "closed", "08-24": "closed"}."""
    return {render_dates(dates): [str(span) for span in spans] or "closed" for dates, spans in schedule.exceptions}


def render_names(schedule: Schedule) -> dict[str, str]:
    """Return the names of the exceptions that have one, by their dates: {"2026-12-25": "Christmas"}."""
    named = ((dates, schedule.names.get(dates, "")) for dates, _spans in schedule.exceptions)
    return {render_dates(dates): name for dates, name in named if name}


_SPAN = re.compile(r"\s*(\d{1,2})(?:[:.](\d{2}))?\s*[-–—]\s*(\d{1,2})(?:[:.](\d{2}))?\s*")  # as people type
_SPAN_WITH_SECONDS = re.compile(r"\s*(\d{1,2}:\d{2})(?::\d{2})?\s*[-–]\s*(\d{1,2}):(\d{2})(?::(\d{2}))?\s*")


class _Laid(NamedTuple):
    """A span on one axis of minutes, to be compared with its neighbours."""

    start: int
    end: int
    place: str
    span: Span


def _parse_weekly(words: Mapping[Any, Any]) -> tuple[tuple[Span, ...], ...]:
    weekly: list[tuple[Span, ...]] = [()] * 7
    named: dict[int, str] = {}
    laid: list[_Laid] = []
    for key, hours in words.items():
        place = f"open.{key}"
        spans = _parse_hours(place, hours)
        for day in _parse_days(place, key):
            if day in named:
                raise ScheduleError(place, WrongSchedule.DAY_TWICE, day=DAYS[day], other=named[day])
            named[day] = place
            weekly[day] = tuple(sorted(spans.values()))
            laid += [_Laid(day * DAY + span.start, day * DAY + span.end, at, span) for at, span in spans.items()]
    laid.sort()
    week_later = [first._replace(start=first.start + 7 * DAY) for first in laid[:1]]
    _refuse_overlap(laid + week_later)
    return tuple(weekly)


def _parse_exceptions(words: Mapping[Any, Any]) -> tuple[tuple[Dates, tuple[Span, ...]], ...]:
    exceptions: dict[Dates, dict[str, Span]] = {}
    places: dict[Dates, str] = {}
    for key, hours in words.items():
        place = f"exceptions.{key}"
        dates = _dates(place, key)
        if dates in exceptions:
            these = "this date" if isinstance(dates, date) else render_dates(dates)
            raise ScheduleError(place, WrongSchedule.DATE_TWICE, dates=these)
        exceptions[dates], places[dates] = _parse_hours(place, hours), place
        laid = sorted(_Laid(span.start, span.end, at, span) for at, span in exceptions[dates].items())
        if isinstance(dates, DateRange) or (isinstance(dates, Yearly) and dates.first != dates.last):
            laid += [first._replace(start=first.start + DAY) for first in laid[:1]]  # the day after is one of them
        _refuse_overlap(laid)
    if clash := find_clash(exceptions):
        one, other = clash
        remedy = "keep one of the two" if isinstance(one, NthWeekday) else ""
        shared = {"dates": render_dates(one), "other": render_dates(other)}
        raise ScheduleError(places[one], WrongSchedule.SHARED, remedy, **shared)
    found = tuple((dates, tuple(sorted(spans.values()))) for dates, spans in exceptions.items())
    calendar = Calendar(found)
    for dates, spans in exceptions.items():
        for place, span in spans.items():
            if span.end > DAY and (contrary := _runs_into(dates, calendar)) is not None:
                named = render_dates(contrary)
                after = named if isinstance(contrary, date) else "the day after"
                raise ScheduleError(place, WrongSchedule.RUNS_INTO, span=span, dates=named, after=after)
    return found


def _parse_names(words: Mapping[Any, Any], exceptions: set[Dates]) -> dict[Dates, str]:
    names: dict[Dates, str] = {}
    for key, name in words.items():
        place = f"exception_names.{key}"
        dates = _dates(place, key)
        if dates not in exceptions:
            raise ScheduleError(place, WrongSchedule.NO_EXCEPTION, dates=key)
        names[dates] = str(name)
    return names


def _dates(place: str, key: object) -> Dates:
    try:
        return parse_dates(key)
    except DatesError as error:
        raise ScheduleError(place, error.kind, error.remedy, **error.values) from None


def _runs_into(dates: Dates, calendar: Calendar[Any]) -> Dates | None:
    """Return the exception, no more specific, that holds on the day after these dates, in some year."""
    for last in last_days(dates):
        found, after = calendar.find(last), calendar.find(last + timedelta(days=1))
        is_contrary = after is not None and after[0] != dates and specificity(after[0]) >= specificity(dates)
        if found is not None and found[0] == dates and after is not None and is_contrary:
            return after[0]
    return None


def _parse_override(word: object, until: object, zone: str) -> Override | None:
    if word not in ("", None, "open", "closed"):
        raise ScheduleError("override", WrongSchedule.OVERRIDE, text=word)
    instant = _parse_instant("override_until", until, zone)
    if word in ("open", "closed"):
        return Override(word == "open", instant)
    if instant is not None:
        raise ScheduleError("override_until", WrongSchedule.NO_OVERRIDE)
    return None


def _parse_hours(place: str, words: object) -> dict[str, Span]:
    """Return the spans by place as written."""
    if words == "closed":
        return {}
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise ScheduleError(place, WrongSchedule.HOURS, text=words)
    return {f"{place}[{index}]": _parse_span(f"{place}[{index}]", word) for index, word in enumerate(words)}


def _parse_span(place: str, word: object) -> Span:
    found = _SPAN.fullmatch(word) if isinstance(word, str) else None
    if isinstance(word, str) and found is None and (timed := _SPAN_WITH_SECONDS.fullmatch(word)):
        hours, minutes, seconds = (int(part or 0) for part in timed.groups()[1:])
        end = hours * 60 + minutes + (seconds == 59)
        span = f"{timed[1]}-{end // 60:02}:{end % 60:02}"
        raise ScheduleError(place, WrongSchedule.SECONDS, text=word, span=span)
    if found is None:
        raise ScheduleError(place, WrongSchedule.SPAN, text=word)
    hour, minute, end_hour, end_minute = (int(part or 0) for part in found.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    if minute > 59 or end_minute > 59 or start >= DAY or end > DAY:
        raise ScheduleError(place, WrongSchedule.NO_TIME, text=word)
    if start == end:
        raise ScheduleError(place, WrongSchedule.NO_LENGTH, text=word)
    return Span(start, end if end > start else end + DAY)


def _parse_days(place: str, key: object) -> list[int]:
    text = key.strip().lower() if isinstance(key, str) else ""
    days: list[int] = []
    for part in ("mon-sun" if text == "daily" else text).split(","):
        first, _, last = (word.strip() for word in part.partition("-"))
        if first not in DAYS or ("-" in part and last not in DAYS):
            raise ScheduleError(place, WrongSchedule.DAY, text=part)
        start = DAYS.index(first)
        days += [(start + n) % 7 for n in range((DAYS.index(last or first) - start) % 7 + 1)]
    return days


def _parse_instant(place: str, word: object, time_zone: str) -> datetime | None:
    if word is None or word == "":
        return None
    try:
        return parse_instant(word if isinstance(word, datetime) else str(word), time_zone)
    except InstantError as error:
        endless = "; leave it out when there is no end" if error.kind is WrongInstant.YEAR else ""
        raise ScheduleError(place, error.kind, error.remedy + endless, **error.values) from None


def _mapping(place: str, words: object) -> Mapping[Any, Any]:
    if words is None:
        return {}
    if not isinstance(words, Mapping):
        raise ScheduleError(place, WrongSchedule.MAPPING, text=words)
    return words


def _refuse_overlap(laid: list[_Laid]) -> None:
    for one, other in pairwise(laid):
        if other.start < one.end:
            raise ScheduleError(other.place, WrongSchedule.OVERLAP, span=other.span, other=one.span, of=one.place)


def _zone_remedy(name: object) -> str:
    """Return the nearest zone by its name or city, "" for none. An offset has none: Etc/GMT+2 is behind UTC."""
    known = {zone.rpartition("/")[2].casefold(): zone for zone in sorted(time_zones())}
    known |= {zone.casefold(): zone for zone in time_zones()}
    text = str(name).strip().casefold()
    near = [] if re.search(r"\d", text) else get_close_matches(text, known, n=1, cutoff=0.76)
    return f"did you mean {known[near[0]]}?" if near else ""


def _render_days(days: list[int]) -> str:
    if len(days) == 7:
        return "daily"
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(
        f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[day] for day in run) for run in runs
    )
