"""The forms of schedules: a week in text, dates with other hours, the override, the holidays to adopt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from flask import request
from sqlalchemy.orm import Session
from wtforms import Field, RadioField, StringField
from wtforms.validators import ValidationError

from router.admin.dates_words import month_names, nth_names, words_of
from router.admin.forms.base import Form, RowForm, TextField, at_most, choices, required, too_many_entries
from router.admin.forms.parts import InstantField, RowsField, name_field
from router.admin.i18n import _, lazy
from router.config_file.words import MAX_TEXT_CHARS, ScheduleWords, most_of
from router.core import dates as core_dates
from router.core.dates import (
    DAYS,
    MONTHS,
    DateRange,
    Dates,
    DatesError,
    NthWeekday,
    Yearly,
    is_suspiciously_long,
    parse_dates,
)
from router.core.schedule import Schedule, Span, lost_minutes
from router.core.schedule_words import (
    ScheduleError,
    parse_schedule,
    render_exceptions,
    render_open,
    time_zones,
)
from router.db import models

DAY_NAMES = {
    "mon": lazy("Monday"),
    "tue": lazy("Tuesday"),
    "wed": lazy("Wednesday"),
    "thu": lazy("Thursday"),
    "fri": lazy("Friday"),
    "sat": lazy("Saturday"),
    "sun": lazy("Sunday"),
}

_REFUSED: tuple[tuple[str, Any], ...] = (
    ("overlaps", lazy("These hours overlap others: join the two, or change a time.")),
    ("runs into", lazy("These hours run into the next date, which has hours of its own: end them at 24:00.")),
    ("starts when it ends", lazy("Hours start and end at the same time: for the whole day write 00:00-24:00.")),
    ("holds no time of day", lazy("There is no such time of day: start at 00:00 to 23:59 and end by 24:00.")),
    ("has seconds", lazy("Write hours and minutes only; until midnight: 24:00.")),
    ("is not a span", lazy("Write hours like 09:00-13:00, 14:00-18:00. Leave empty for closed.")),
    ("stands here twice", lazy("This date stands here twice: keep one of the two.")),
    ("shares dates with", lazy("This meets another row of its kind: keep one, or end one before the other begins.")),
    ("is out of range", lazy("Check the year.")),
    ("ends before it begins", lazy("Write two dates like 2026-12-25, the earlier one first.")),
    ("the year has no", lazy("There is no such day in the year.")),
    ("", lazy("Write the date like 2026-12-25.")),
)


_UNREADABLE: dict[str, Any] = {
    "range": lazy("Write two dates like 2026-12-25, the earlier one first."),
    "yearly": lazy("There is no such day in the year."),
    "season": lazy("There is no such day in the year."),
    "weekday": lazy("Choose which weekday of which month."),
}
"""What is said of dates that make no sense, by the kind of their row; of one date what is wrong with it is said."""


def told(error: ScheduleError | DatesError) -> str:
    """What is wrong with a schedule, for the reader."""
    return next(str(words) for sign, words in _REFUSED if sign in str(error))


def read_hours(text: str) -> list[str] | str:
    """Typed hours as the words of a schedule: "9:00-13:00, 14:00-18:00" is a list; "" and "closed" are closed."""
    spans = [span.strip() for span in text.replace(";", ",").replace("\n", ",").split(",") if span.strip()]
    return "closed" if [span.casefold() for span in spans] in ([], ["closed"], [_("closed").casefold()]) else spans


class DayField(StringField):  # type: ignore[misc]
    """The hours of one day of the week."""

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, [at_most(MAX_TEXT_CHARS)], **kwargs)

    def populate_obj(self, obj: Any, name: str) -> None:
        """All seven days are one value of the row: see `ScheduleForm.store`."""


@dataclass
class OtherHours:
    """Dates with other hours, as they are typed: which parts count goes by the kind.

    "date": `date`, which may hold all that the file takes. "range": `date` to `last`. "yearly": `day` and `month`.
    "season": from those to `last_day` and `last_month`. "weekday": `nth`, `weekday` and `month`.
    """

    kind: str = "date"
    date: str = ""
    last: str = ""
    day: str = ""
    month: str = ""
    last_day: str = ""
    last_month: str = ""
    nth: str = ""
    weekday: str = ""
    hours: str = ""
    dates_error: str = ""
    hours_error: str = ""
    doubt: str = ""

    @classmethod
    def of(cls, dates: Dates, spans: Sequence[Span]) -> OtherHours:
        """An exception as the form shows it."""
        hours = ", ".join(map(str, spans))
        match dates:
            case DateRange(first, last):
                return cls("range", str(first), str(last), hours=hours)
            case Yearly(first, last) if first == last:
                return cls("yearly", day=str(first.day), month=str(first.month), hours=hours)
            case Yearly(first, last):
                ends = {"last_day": str(last.day), "last_month": str(last.month)}
                return cls("season", day=str(first.day), month=str(first.month), **ends, hours=hours)
            case NthWeekday(nth, weekday, month):
                return cls("weekday", month=str(month), nth=core_dates.NTHS[nth], weekday=DAYS[weekday], hours=hours)
        return cls("date", str(dates), hours=hours)

    @property
    def words(self) -> str:
        """What the file calls these dates."""
        match self.kind:
            case "range" if self.last or ".." not in self.date:
                return f"{self.date}..{self.last}"
            case "yearly":
                return _month_day(self.month, self.day)
            case "season":
                return f"{_month_day(self.month, self.day)}..{_month_day(self.last_month, self.last_day)}"
            case "weekday":
                month = MONTHS[int(self.month) - 1] if self.month in map(str, range(1, 13)) else self.month
                return f"{self.nth} {self.weekday} of {month}"
        return self.date

    @property
    def has_date(self) -> bool:
        """Does a date, or nothing yet, stand where a date is asked for?"""
        return not self.date or re.fullmatch(r"\d{4}-\d\d-\d\d", self.date) is not None

    @property
    def told(self) -> str:
        """These dates, for the reader."""
        return words_of(self.words)

    @property
    def error(self) -> str:
        return self.dates_error or self.hours_error

    def __str__(self) -> str:
        return f"{self.told}: {self.hours or _('closed')}"


def _month_day(month: str, day: str) -> str:
    return f"{month.zfill(2)}-{day.zfill(2)}"


def date_choices() -> dict[str, list[tuple[str, str]]]:
    """What the selects of the rows offer."""
    return {
        "nths": list(nth_names().items()),
        "weekdays": [(name, str(label)) for name, label in DAY_NAMES.items()],
        "months": [(str(n), name) for n, name in enumerate(month_names(), start=1)],
    }


class ExceptionsField(RowsField):
    kinds = ("date", "range", "yearly", "season", "weekday")
    parts = ("kind", "date", "last", "day", "month", "last_day", "last_month", "nth", "weekday", "hours")
    rows: list[OtherHours]

    def read_row(self, values: dict[str, str]) -> OtherHours:
        kind = values["kind"] if values["kind"] in self.kinds else "date"
        return OtherHours(**{part: values[part] for part in self.parts if part != "kind"}, kind=kind)

    def _posted(self, formdata: Any) -> Iterable[dict[str, str]]:
        """A row is there if any part of it is: one without its kind is a date."""
        pattern = re.compile(rf"{re.escape(self.name)}-(\d{{1,6}})-(?:{'|'.join(self.parts)})")
        found = dict.fromkeys(match[1] for key in formdata if (match := pattern.fullmatch(key)))
        for n in found:
            yield {part: formdata.get(f"{self.name}-{n}-{part}", "").strip() for part in self.parts} | {"n": n}

    def apply_buttons(self) -> None:
        """What the buttons beside the rows ask for, where no script did it."""
        if "add_exception" in request.form:
            kind = request.form["add_exception"]
            self.rows.append(OtherHours(kind if kind in self.kinds else "date"))
        gone = request.form.get("remove_exception", "")
        posted = [values["n"] for values in self._posted(request.form)]
        if gone in posted:
            del self.rows[posted.index(gone)]


class ScheduleForm(RowForm):
    name = name_field(lazy("Give the schedule a name."))
    time_zone = TextField(lazy("Time zone"), [required()])
    mon = DayField(DAY_NAMES["mon"])
    tue = DayField(DAY_NAMES["tue"])
    wed = DayField(DAY_NAMES["wed"])
    thu = DayField(DAY_NAMES["thu"])
    fri = DayField(DAY_NAMES["fri"])
    sat = DayField(DAY_NAMES["sat"])
    sun = DayField(DAY_NAMES["sun"])
    exceptions = ExceptionsField(lazy("Dates with other hours"))

    def __init__(self, *args: Any, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, obj=obj, **kwargs)
        self.parsed: Schedule | None = None
        self.doubts: dict[str, str] = {}  # by day, what its hours likely mean else
        if self.is_posted and "formdata" not in kwargs:
            self.exceptions.apply_buttons()

    @property
    def days(self) -> list[Field]:
        """The seven fields, Monday first."""
        return [self._fields[day] for day in DAYS]

    @property
    def is_being_edited(self) -> bool:
        """Was it posted by a button that only changes the page, or to see the week before it is saved?"""
        return any(name in request.form for name in ("add_exception", "remove_exception", "preview"))

    def saves(self, row: Any = None, session: Session | None = None) -> bool:
        if self.is_posted and "preview" in request.form:
            self.validate()
        return not self.is_being_edited and super().saves(row, session)

    def validate_time_zone(self, field: Any) -> None:
        if field.data not in time_zones():
            raise ValidationError(_("There is no such time zone: write it like Europe/Kyiv."))

    def validate(self, extra_validators: Any = None) -> bool:
        """Each day and each date by itself, so that each fault stands in its place; then the whole."""
        good = bool(super().validate(extra_validators))
        if len(self.exceptions.rows) > (most := most_of(ScheduleWords, "exceptions")):
            self.exceptions.errors = [too_many_entries(len(self.exceptions.rows), most)]
            return False
        week = {day: read_hours(self._fields[day].data or "") for day in DAYS}
        for day, hours in week.items():
            if fault := self._fault(lambda hours=hours: parse_schedule("", "UTC", {"mon": hours})):  # type: ignore[misc]
                self.refuse(day, fault)
                good = False
        dates: dict[str, list[str] | str] = {}
        for row in self.exceptions.rows:
            hours = read_hours(row.hours)
            row.dates_error = self._fault(lambda at=row.words: parse_dates(at))  # type: ignore[misc]
            if len(row.hours) > MAX_TEXT_CHARS:
                row.hours_error = _("At most %(n)s characters.", n=MAX_TEXT_CHARS)
                continue
            row.hours_error = self._fault(lambda hours=hours: parse_schedule("", "UTC", {"mon": hours}))  # type: ignore[misc]
            if row.dates_error and row.dates_error != _("Check the year."):
                row.dates_error = str(_UNREADABLE.get(row.kind, row.dates_error))
            if not row.error and row.words in dates:
                row.dates_error = _("This date stands here twice: keep one of the two.")
            dates[row.words] = hours
        faults = [row.error for row in self.exceptions.rows if row.error]
        if not good or faults:
            self.exceptions.errors = faults[:1]
            return False
        try:
            self.parsed = parse_schedule(self.name.data, self.time_zone.data, week, dates)
        except ScheduleError as error:  # between days, or between dates
            self._refuse_together(error)
            return False
        return True

    def _refuse_together(self, error: ScheduleError) -> None:
        """Tell it beside the day, or the row, at which it was found."""
        if error.place.startswith("open."):
            self.refuse(error.key, told(error))
            return
        self.exceptions.errors = [told(error)]
        for row in self.exceptions.rows:
            if row.words == error.key:
                part = "hours_error" if error.place.endswith("]") else "dates_error"
                setattr(row, part, told(error))

    def doubt(self, schedule: Schedule) -> None:
        """Tell beside the hours what of this schedule, which is the one that is shown, likely means something else."""
        doubts: dict[int | Dates, str] = {}
        for minute in lost_minutes(schedule):
            words = {"span": minute.span, "meant": minute.meant}
            said = _("%(span)s leaves one minute closed: the end itself is closed. Did you mean %(meant)s?", **words)
            doubts[minute.where] = " ".join(filter(None, (doubts.get(minute.where), said)))
        self.doubts = {day: doubts[n] for n, day in enumerate(DAYS) if n in doubts}
        for row in self.exceptions.rows:
            dates = parse_dates(row.words)
            long = _("This is nearly a whole year, or more: check both ends.") if is_suspiciously_long(dates) else ""
            row.doubt = " ".join(filter(None, (long, doubts.get(dates))))

    def _fault(self, parse: Callable[[], object]) -> str:
        try:
            parse()
        except (ScheduleError, DatesError) as error:
            return told(error)
        return ""

    def fill(self, row: Any) -> None:
        schedule = parse_schedule(row.name, row.time_zone, row.open, row.exceptions)
        for field, spans in zip(self.days, schedule.weekly, strict=True):
            field.data = ", ".join(map(str, spans))
        self.exceptions.rows = [OtherHours.of(dates, spans) for dates, spans in schedule.exceptions]

    def store(self, row: Any) -> None:
        super().store(row)
        if self.parsed is not None:
            put(row, open=render_open(self.parsed), exceptions=render_exceptions(self.parsed))


def put(row: models.Schedule, **values: Any) -> None:
    """Set what differs: JSON columns count as changed by being set."""
    for name, value in values.items():
        if getattr(row, name) != value:
            setattr(row, name, value)


class OverrideForm(Form):
    """Open or closed, whatever the hours say, for a while."""

    override = RadioField(
        lazy("Now"),
        choices=choices(
            [("closed", lazy("Closed, whatever the hours say")), ("open", lazy("Open, whatever the hours say"))]
        ),
        validators=[required(lazy("Choose open or closed."))],
    )
    override_until = InstantField(lazy("Until"))


def holidays_of(country: str, first: date, last: date, language: str) -> list[tuple[date, str]]:
    """The public holidays of a country between two dates, both included, by name in the language where it is known.

    [] where the calendar knows none: Ukraine has none while martial law lasts.
    """
    import holidays  # a large package, and only this page needs it

    known = holidays.list_supported_countries()
    if country not in known:
        return []
    calendar = getattr(holidays, country)
    languages = getattr(calendar, "supported_languages", ())
    wanted = next((one for one in languages if one.split("_")[0] == language), None)
    found = holidays.country_holidays(country, years=range(first.year, last.year + 1), language=wanted)
    return [(day, name) for day, name in sorted(found.items()) if first <= day <= last]
