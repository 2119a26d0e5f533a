"""The forms of schedules: weekly hours as text, dates with other hours, the override."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

from flask import request
from wtforms import Field, RadioField, StringField
from wtforms.validators import ValidationError

from router.admin.dates_words import month_names, nth_names, words_of
from router.admin.faults import words_of_fault
from router.admin.forms.base import Form, TextField, at_most, choices, required, too_many_entries
from router.admin.forms.parts import InputsField, InstantField, ItemForm, name_field
from router.admin.i18n import _, lazy
from router.configuration.schema import MAX_TEXT_CHARS, ScheduleConfig, most_of
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
from router.core.instants import WrongInstant
from router.core.schedule import Schedule, Span, lost_minutes
from router.core.schedule_words import (
    ScheduleError,
    parse_schedule,
    render_exceptions,
    render_open,
    time_zones,
)

DAY_NAMES = {
    "mon": lazy("Monday"),
    "tue": lazy("Tuesday"),
    "wed": lazy("Wednesday"),
    "thu": lazy("Thursday"),
    "fri": lazy("Friday"),
    "sat": lazy("Saturday"),
    "sun": lazy("Sunday"),
}

_UNREADABLE: dict[str, Any] = {
    "range": lazy("Write two dates like 2026-12-25, the earlier one first."),
    "yearly": lazy("There is no such day in the year."),
    "season": lazy("There is no such day in the year."),
    "weekday": lazy("Choose which weekday of which month."),
}
"""The message for invalid dates, by the kind of their row. A single date has a message by its error, as has a year."""


def read_hours(text: str) -> list[str] | str:
    """Read typed hours: "9:00-13:00, 14:00-18:00" is a list of spans; "" and "closed" are "closed"."""
    spans = [span.strip() for span in text.replace(";", ",").replace("\n", ",").split(",") if span.strip()]
    return "closed" if [span.casefold() for span in spans] in ([], ["closed"], [_("closed").casefold()]) else spans


class DayField(StringField):  # type: ignore[misc]
    """The hours of one day of the week."""

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, [at_most(MAX_TEXT_CHARS)], **kwargs)


@dataclass
class OtherHours:
    """Dates with other hours, as typed. The kind decides which attributes count.

    "date": `date`, in any notation that the file takes. "range": `date` to `last`. "yearly": `day` and `month`.
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
    warning: str = ""

    @classmethod
    def of(cls, dates: Dates, spans: Sequence[Span]) -> OtherHours:
        """Return an exception as the form shows it."""
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
        """The dates in the notation of the file."""
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
        """Whether `date` is empty or a plain date, which a date input can show."""
        return not self.date or re.fullmatch(r"\d{4}-\d\d-\d\d", self.date) is not None

    @property
    def label(self) -> str:
        """The dates in the reader's language."""
        return words_of(self.words)

    @property
    def error(self) -> str:
        return self.dates_error or self.hours_error

    def __str__(self) -> str:
        return f"{self.label}: {self.hours or _('closed')}"


def _month_day(month: str, day: str) -> str:
    return f"{month.zfill(2)}-{day.zfill(2)}"


def date_choices() -> dict[str, list[tuple[str, str]]]:
    """Return the choices of the rows' selects."""
    return {
        "nths": list(nth_names().items()),
        "weekdays": [(name, str(label)) for name, label in DAY_NAMES.items()],
        "months": [(str(n), name) for n, name in enumerate(month_names(), start=1)],
    }


class ExceptionsField(InputsField):
    item = "exception"
    kinds = ("date", "range", "yearly", "season", "weekday")
    parts = ("kind", "date", "last", "day", "month", "last_day", "last_month", "nth", "weekday", "hours")
    rows: list[OtherHours]

    def read_row(self, values: Mapping[str, str]) -> OtherHours:
        kind = values["kind"] if values["kind"] in self.kinds else "date"
        return OtherHours(**{**values, "kind": kind})


class ScheduleForm(ItemForm):
    kind = "schedules"
    FIELDS: ClassVar = {"open": "exceptions", "override": "name", "override_until": "name"}
    BUTTONS = ("add_exception", "remove_exception", "preview")

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parsed: Schedule | None = None
        self.warnings: dict[str, str] = {}  # by day
        if self.reads_post:
            self.exceptions.apply_buttons()

    @property
    def days(self) -> list[Field]:
        """The seven fields, Monday first."""
        return [self._fields[day] for day in DAYS]

    def saves(self, row: Any = None) -> bool:
        if self.is_posted and "preview" in request.form:
            self.validate()
        return super().saves(row)

    def validate_time_zone(self, field: Any) -> None:
        if field.data not in time_zones():
            raise ValidationError(_("There is no such time zone: write it like Europe/Kyiv."))

    def validate(self, extra_validators: Any = None) -> bool:
        """Check each day and date by itself, so that every input gets its error; then all together."""
        is_valid = bool(super().validate(extra_validators))
        if len(self.exceptions.rows) > (most := most_of(ScheduleConfig, "exceptions")):
            self.exceptions.errors = [too_many_entries(len(self.exceptions.rows), most)]
            return False
        week = {day: read_hours(self._fields[day].data or "") for day in DAYS}
        for day, hours in week.items():
            if error := _error_of_hours(hours):
                self.refuse(day, error)
                is_valid = False
        dates: dict[str, list[str] | str] = {}
        for row in self.exceptions.rows:
            hours = read_hours(row.hours)
            row.dates_error = _error_of_dates(row)
            if len(row.hours) > MAX_TEXT_CHARS:
                row.hours_error = _("At most %(n)s characters.", n=MAX_TEXT_CHARS)
                continue
            row.hours_error = _error_of_hours(hours)
            if not row.error and row.words in dates:
                row.dates_error = _("This date occurs twice: keep one of the two.")
            dates[row.words] = hours
        errors = [row.error for row in self.exceptions.rows if row.error]
        if not is_valid or errors:
            self.exceptions.errors = errors[:1]
            return False
        try:
            self.parsed = parse_schedule(self.name.data, self.time_zone.data, week, dates)
        except ScheduleError as error:
            self._refuse_conflict(error)
            return False
        return True

    def _refuse_conflict(self, error: ScheduleError) -> None:
        """Set the error of the day or row that conflicts with another."""
        if error.place.startswith("open."):
            self.refuse(error.key, words_of_fault(error))
            return
        self.exceptions.errors = [words_of_fault(error)]
        for row in self.exceptions.rows:
            if row.words == error.key:
                part = "hours_error" if error.place.endswith("]") else "dates_error"
                setattr(row, part, words_of_fault(error))

    def warn(self, schedule: Schedule) -> None:
        """Set warnings for hours and dates that likely mean something else."""
        warnings: dict[int | Dates, list[str]] = {}
        for minute in lost_minutes(schedule):
            text = _(
                "%(span)s leaves one minute closed: the end itself is closed. Did you mean %(meant)s?",
                span=minute.span,
                meant=minute.meant,
            )
            warnings.setdefault(minute.where, []).append(text)
        self.warnings = {day: " ".join(warnings[n]) for n, day in enumerate(DAYS) if n in warnings}
        for row in self.exceptions.rows:
            dates = parse_dates(row.words)
            long = [_("Nearly a whole year, or more: check both ends.")] if is_suspiciously_long(dates) else []
            row.warning = " ".join([*long, *warnings.get(dates, [])])

    def fill(self, row: Any) -> None:
        schedule = parse_schedule(row.name, row.time_zone, row.open, row.exceptions)
        for field, spans in zip(self.days, schedule.weekly, strict=True):
            field.data = ", ".join(map(str, spans))
        self.exceptions.rows = [OtherHours.of(dates, spans) for dates, spans in schedule.exceptions]

    def values(self) -> dict[str, Any]:
        if self.parsed is None:
            raise ValueError("the form is not valid")
        hours = {"open": render_open(self.parsed), "exceptions": render_exceptions(self.parsed)}
        return super().values() | hours


def _error_of_dates(row: OtherHours) -> str:
    """Return the message for invalid dates; "" for valid ones."""
    try:
        parse_dates(row.words)
    except DatesError as error:
        known_by_row = row.kind in _UNREADABLE and error.kind is not WrongInstant.YEAR
        return str(_UNREADABLE[row.kind]) if known_by_row else words_of_fault(error)
    return ""


def _error_of_hours(hours: list[str] | str) -> str:
    """Return the message for invalid hours; "" for valid ones."""
    try:
        parse_schedule("", "UTC", {"mon": hours})
    except ScheduleError as error:
        return words_of_fault(error)
    return ""


class OverrideForm(Form):
    """Open or closed for a while, whatever the hours say."""

    override = RadioField(
        lazy("Now"),
        choices=choices(
            [("closed", lazy("Closed, whatever the hours say")), ("open", lazy("Open, whatever the hours say"))]
        ),
        validators=[required(lazy("Choose open or closed."))],
    )
    override_until = InstantField(lazy("Until"))


def holidays_of(country: str, first: date, last: date, language: str) -> list[tuple[date, str]]:
    """Return the public holidays of a country between two dates, both included, named in the language if possible.

    [] for a country without any: Ukraine has none under martial law.
    """
    import holidays  # a large package, which only this page needs

    known = holidays.list_supported_countries()
    if country not in known:
        return []
    calendar = getattr(holidays, country)
    languages = getattr(calendar, "supported_languages", ())
    wanted = next((one for one in languages if one.split("_")[0] == language), None)
    found = holidays.country_holidays(country, years=range(first.year, last.year + 1), language=wanted)
    return [(day, name) for day, name in sorted(found.items()) if first <= day <= last]
