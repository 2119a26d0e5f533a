"""Write the dates of a schedule's exceptions in the reader's language: "last Monday of May, every year"."""

from __future__ import annotations

from datetime import date

from flask_babel import format_date

from router.admin.i18n import _, pgettext
from router.core.dates import LAST, DateRange, Dates, DatesError, MonthDay, NthWeekday, Yearly, parse_dates

_LEAP_YEAR = 2024


def dates_words(dates: Dates) -> str:
    """Return the dates of an exception in words: one date, a range, or days of every year."""
    match dates:
        case date():
            return str(format_date(dates, "d MMMM y"))
        case DateRange(first, last):
            return f"{format_date(first, 'd MMMM y')} – {format_date(last, 'd MMMM y')}"
        case Yearly(first, last) if first == last:
            return _("%(day)s, every year", day=_day(first))
        case Yearly(first, last):
            return _("%(day)s, every year", day=f"{_day(first)} – {_day(last)}")
        case NthWeekday(nth, weekday, month):
            monday = date(_LEAP_YEAR, 1, 1)
            day = _(
                "%(nth)s %(weekday)s of %(month)s",
                nth=_nth(nth, weekday),
                weekday=format_date(monday.replace(day=weekday + 1), "EEEE"),
                month=format_date(date(_LEAP_YEAR, month, 1), "MMMM"),
            )
            return _("%(day)s, every year", day=day)


def words_of(text: str) -> str:
    """Return dates in the file's notation in words; unchanged where they cannot be read."""
    try:
        return dates_words(parse_dates(text))
    except DatesError:
        return text


def month_names() -> list[str]:
    """Return the names of the months, in the form that stands alone."""
    return [format_date(date(_LEAP_YEAR, month, 1), "LLLL") for month in range(1, 13)]


def nth_names() -> dict[str, str]:
    """Return the choices of "which weekday of a month", by the file's word."""
    return {
        "first": pgettext("any weekday", "first"),
        "second": pgettext("any weekday", "second"),
        "third": pgettext("any weekday", "third"),
        "fourth": pgettext("any weekday", "fourth"),
        "fifth": pgettext("any weekday", "fifth"),
        "last": pgettext("any weekday", "last"),
    }


def _day(day: MonthDay) -> str:
    return str(format_date(date(_LEAP_YEAR, *day), "d MMMM"))


def _nth(nth: int, weekday: int) -> str:
    """Return the ordinal. In Ukrainian it agrees with the weekday: перший понеділок, перша середа."""
    if weekday in (0, 1, 3):
        return {
            1: pgettext("Monday, Tuesday, Thursday", "first"),
            2: pgettext("Monday, Tuesday, Thursday", "second"),
            3: pgettext("Monday, Tuesday, Thursday", "third"),
            4: pgettext("Monday, Tuesday, Thursday", "fourth"),
            5: pgettext("Monday, Tuesday, Thursday", "fifth"),
            LAST: pgettext("Monday, Tuesday, Thursday", "last"),
        }[nth]
    return {
        1: pgettext("Wednesday, Friday, Saturday, Sunday", "first"),
        2: pgettext("Wednesday, Friday, Saturday, Sunday", "second"),
        3: pgettext("Wednesday, Friday, Saturday, Sunday", "third"),
        4: pgettext("Wednesday, Friday, Saturday, Sunday", "fourth"),
        5: pgettext("Wednesday, Friday, Saturday, Sunday", "fifth"),
        LAST: pgettext("Wednesday, Friday, Saturday, Sunday", "last"),
    }[nth]
