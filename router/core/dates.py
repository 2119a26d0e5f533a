"""Reads and writes the dates of a schedule's exceptions: a day, a range, a yearly range, the nth weekday of a month.

Pure. `parse_dates` and `render_dates` are inverse; `Calendar` finds the most specific exception of a date.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from router.core.instants import YEARS, WrongInstant
from router.core.words import WordedError, Wrong

T = TypeVar("T")

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LAST = -1
NTHS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST: "last"}

CYCLE = range(2000, 2028)
"""Years in which each day of the year, 29 February too, falls on each day of the week."""

_ONE_DAY = timedelta(days=1)
_LEAP_YEAR = 2024
_DAYS_IN_FULL = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS_IN_FULL = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_NTH_WORDS = {word: nth for nth, word in NTHS.items()} | {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5}
_BETWEEN = re.compile(r"\s*(?:\.{2,3}|…|–|—|\s-\s)\s*")  # people paste dashes for the two dots
_MONTH_DAY = re.compile(r"(\d\d)-(\d\d)")
_NTH_WEEKDAY = re.compile(r"(\w+) (\w+)\.? (?:of|in) (\w+)\.?")


class WrongDates(Wrong):
    UNREADABLE = (
        "date",
        "%(text)r is not a date",
        "write 2026-12-25, 2027-01-01..2027-01-08, 08-24 or 12-31..01-02 for every year, or last mon of may",
    )
    NO_DAY = "no_day", "%(text)r is not a date: the year has no %(day)s", "write month and day, as 08-24"
    ONE_YEAR = "one_year", "%(text)r has a year at one end only", "write both ends with the year, or both without"
    ORDER = "order", "%(text)r ends before it begins", "write the earlier date first: %(last)s..%(first)s"
    NTH = "nth", "%(text)r: %(word)s is none of first to fifth and last", "write it as last mon of may"
    WEEKDAY = "weekday", "%(text)r: %(word)s is not a day of the week", f"write one of {' '.join(DAYS)}"
    MONTH = "month", "%(text)r: %(word)s is not a month", f"write one of {' '.join(MONTHS)}"


class DatesError(WordedError):
    """Words that name no dates."""


class MonthDay(NamedTuple):
    """A day of every year; 29 February exists in leap years only."""

    month: int
    day: int

    def __str__(self) -> str:
        return f"{self.month:02}-{self.day:02}"


@dataclass(frozen=True, slots=True)
class DateRange:
    """The dates from `first` to a later `last`, both included."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Yearly:
    """The days from `first` to `last` of every year, both included; `last` before `first` lies in the next year."""

    first: MonthDay
    last: MonthDay

    @property
    def days(self) -> Iterator[MonthDay]:
        """Yield each of the days of a leap year."""
        day = date(_LEAP_YEAR, *self.first)
        while (found := MonthDay(day.month, day.day)) != self.last:
            yield found
            day = day + _ONE_DAY if found != (12, 31) else date(_LEAP_YEAR, 1, 1)
        yield self.last


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """The first (1) to fifth or LAST weekday (0: Monday) of a month in every year; a month may have no fifth."""

    nth: int
    weekday: int
    month: int


Dates: TypeAlias = date | DateRange | Yearly | NthWeekday


def specificity(dates: Dates) -> int:
    """Return the rank by which one of several exceptions holds on a date: the least does.

    A date, a range of dates, a day of every year, a weekday of every year, a range of every year.
    """
    match dates:
        case date():
            return 0
        case DateRange():
            return 1
        case Yearly(first, last):
            return 2 if first == last else 4
        case NthWeekday():
            return 3


def order(dates: Dates) -> tuple[int, ...]:
    """Return the sort key: dates by year, then yearly ones through the year."""
    match dates:
        case date():
            return (0, dates.toordinal(), dates.toordinal(), 0)
        case DateRange(first, last):
            return (0, first.toordinal(), last.toordinal(), 1)
        case Yearly(first, last):
            return (1, *first, 0, *last)
        case NthWeekday(nth, weekday, month):
            return (1, month, (nth if nth != LAST else 6) * 7, 1, weekday)


class Calendar(Generic[T]):
    """Values by the dates they hold on; the most specific value holds."""

    def __init__(self, entries: Iterable[tuple[Dates, T]]) -> None:
        self._entries: dict[object, tuple[Dates, T]] = {}  # by date, day of the year, weekday or day of a season
        self._ranges: list[tuple[DateRange, tuple[Dates, T]]] = []
        for entry in entries:
            match entry[0]:
                case DateRange() as dates:
                    self._ranges.append((dates, entry))
                case Yearly(first, last) as yearly:
                    season = [("season", *day) for day in yearly.days] if first != last else [first]
                    self._entries.update(dict.fromkeys(season, entry))
                case NthWeekday(nth, weekday, month):
                    self._entries[month, weekday, nth] = entry
                case date() as day:
                    self._entries[day] = entry
        self._ranges.sort(key=lambda pair: pair[0].first)
        self._firsts = [dates.first for dates, _entry in self._ranges]

    def find(self, day: date) -> tuple[Dates, T] | None:
        """Return the dates and the value that hold on this date, None for none."""
        if day in self._entries:
            return self._entries[day]
        if place := bisect_right(self._firsts, day):
            dates, entry = self._ranges[place - 1]
            if day <= dates.last:
                return entry
        if not self._entries:
            return None
        month, weekday = day.month, day.weekday()
        nths = [(day.day - 1) // 7 + 1, *([LAST] if day.day + 7 > monthrange(day.year, month)[1] else [])]
        keys = ((month, day.day), *((month, weekday, nth) for nth in nths), ("season", month, day.day))
        return next((self._entries[key] for key in keys if key in self._entries), None)


def find_clash(all_dates: Iterable[Dates]) -> tuple[Dates, Dates] | None:
    """Return two equally specific dates that share a day, the one written later first; None when there are none."""
    ranges: list[tuple[date, date, int]] = []
    seasons: dict[MonthDay, Yearly] = {}
    weekdays: dict[tuple[int, int, int], NthWeekday] = {}
    written = list(all_dates)
    for place, dates in enumerate(written):
        match dates:
            case DateRange(first, last):
                ranges.append((first, last, place))
            case Yearly(first, last) if first != last:
                for day in dates.days:
                    if (other := seasons.setdefault(day, dates)) is not dates:
                        return dates, other
            case NthWeekday(nth, weekday, month):
                for rival in (4, 5) if nth == LAST else (LAST,) if nth in (4, 5) else ():
                    if (month, weekday, rival) in weekdays:
                        return dates, weekdays[month, weekday, rival]
                weekdays[month, weekday, nth] = dates
    for one, two in pairwise(sorted(ranges)):
        if two[0] <= one[1]:
            return written[max(one[2], two[2])], written[min(one[2], two[2])]
    return None


def is_suspiciously_long(dates: Dates) -> bool:
    """Return whether these are more than a year, or nearly a whole year because the end is before the start."""
    match dates:
        case DateRange(first, last):
            return (last - first).days >= 366
        case Yearly(first, last):
            return last < first and len(list(dates.days)) > 330
    return False


def last_days(all_dates: Dates) -> Iterator[date]:
    """Yield the last of these dates; for yearly ones, in each year of a calendar cycle (28 years)."""
    match all_dates:
        case date():
            yield all_dates
        case DateRange():
            yield all_dates.last
        case Yearly(first, last):
            for year in CYCLE:
                if last != (2, 29) or year % 4 == 0:
                    yield date(year, *last)
                elif first != last:
                    yield date(year, 2, 28)
        case NthWeekday(nth, weekday, month):
            for year in CYCLE:
                first_day = date(year, month, 1)
                first_day += (weekday - first_day.weekday()) % 7 * _ONE_DAY
                weeks = (first_day + n * 7 * _ONE_DAY for n in range(5))
                days = [day for day in weeks if day.month == month]
                if nth <= len(days):
                    yield days[nth if nth == LAST else nth - 1]


# ---- words


def parse_dates(words: object) -> Dates:
    """Read the key of an exception, see docs/schedules.md. Raises DatesError."""
    if type(words) is date:
        return _in_range(words, words)
    text = " ".join(words.split()).casefold() if isinstance(words, str) else ""
    ends = _BETWEEN.split(text)
    if len(ends) == 2:
        return _parse_range(words, *ends)
    if found := _NTH_WEEKDAY.fullmatch(text):
        return _parse_nth_weekday(words, *found.groups())
    if _MONTH_DAY.fullmatch(text):
        day = _month_day(words, text)
        return Yearly(day, day)
    return _date(words, text)


def render_dates(dates: Dates) -> str:
    """Return the words that `parse_dates` reads back."""
    match dates:
        case date():
            return dates.isoformat()
        case DateRange(first, last):
            return f"{first}..{last}"
        case Yearly(first, last):
            return str(first) if first == last else f"{first}..{last}"
        case NthWeekday(nth, weekday, month):
            return f"{NTHS[nth]} {DAYS[weekday]} of {MONTHS[month - 1]}"


def _parse_range(words: object, first: str, last: str) -> Dates:
    is_yearly = [_MONTH_DAY.fullmatch(end) is not None for end in (first, last)]
    if all(is_yearly):
        return Yearly(_month_day(words, first), _month_day(words, last))
    if any(is_yearly):
        raise DatesError(WrongDates.ONE_YEAR, text=words)
    start, end = _date(words, first), _date(words, last)
    if end < start:
        raise DatesError(WrongDates.ORDER, text=words, first=start, last=end)
    return DateRange(start, end) if start < end else start


def _parse_nth_weekday(words: object, nth: str, weekday: str, month: str) -> NthWeekday:
    if nth not in _NTH_WORDS:
        raise DatesError(WrongDates.NTH, text=words, word=nth)
    day_index, month_index = _index_of(weekday, _DAYS_IN_FULL), _index_of(month, _MONTHS_IN_FULL)
    if day_index is None:
        raise DatesError(WrongDates.WEEKDAY, text=words, word=weekday)
    if month_index is None:
        raise DatesError(WrongDates.MONTH, text=words, word=month)
    return NthWeekday(_NTH_WORDS[nth], day_index, month_index + 1)


def _index_of(word: str, names: tuple[str, ...]) -> int | None:
    """Return the number of the name that begins with this word of three letters or more."""
    return next((n for n, name in enumerate(names) if len(word) >= 3 and name.startswith(word)), None)


def _month_day(words: object, text: str) -> MonthDay:
    month, day = map(int, text.split("-"))
    try:
        date(_LEAP_YEAR, month, day)
    except ValueError:
        swapped = f"write the month first: {day:02}-{month:02}" if month > 12 >= day else ""
        raise DatesError(WrongDates.NO_DAY, swapped, text=words, day=text) from None
    return MonthDay(month, day)


def _date(words: object, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise DatesError(WrongDates.UNREADABLE, text=words) from None
    return _in_range(words, day)


def _in_range(words: object, day: date) -> date:
    if day.year not in YEARS:
        raise DatesError(WrongInstant.YEAR, text=str(words))
    return day
