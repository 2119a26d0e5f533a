"""Schedules: weekly hours, dates with other hours, holidays, the override, and what they say at any moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from flask import g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date
from markupsafe import Markup
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session
from wtforms import Field, RadioField, StringField
from wtforms.validators import ValidationError

from router.admin import security
from router.admin.advice import warnings_by_id
from router.admin.dates_words import dates_words, month_names, nth_names, words_of
from router.admin.faults import words_of_fault
from router.admin.forms.base import Form, TextField, choices, required
from router.admin.forms.parts import (
    InstantField,
    ItemForm,
    RowsField,
    TypedRow,
    local_input,
    name_field,
    which_of_two,
    zones,
)
from router.admin.i18n import _, language, lazy, ngettext
from router.admin.page import (
    Role,
    changing,
    current_configuration,
    current_project,
    done,
    editing,
    links_to,
    page,
    reading,
    render_form,
    saved_message,
)
from router.configuration.change import Draft, users_of
from router.configuration.schema import MAX_NAME_CHARS, MAX_TEXT_CHARS, Fault, ScheduleConfig, most_of
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
from router.core.instants import InstantError, WrongInstant, parse_instant
from router.core.schedule import Openness, Schedule, Source, Span, end_of_day, exception_on, explain, lost_minutes, week
from router.core.schedule_words import (
    ScheduleError,
    parse_schedule,
    render_exceptions,
    render_names,
    render_open,
    time_zones,
)
from router.db import models
from router.db.documents import KINDS, Document, UnknownProjectError, build_schedule

HOLIDAYS_AHEAD = timedelta(days=400)


@page("/p/<project>/schedules", see=Role.VIEWER, drafts=True)
def schedules() -> ResponseReturnValue:
    """List all schedules with their week and whether they are open now."""
    with reading() as session:
        document, project, _fault = current_configuration(session)
    users = _users(document)
    warnings = warnings_by_id(document, project, "schedule")
    now = datetime.now(UTC)
    rows = []
    for row in document["schedules"]:
        schedule = build_schedule(row)
        rows.append(
            {
                "id": schedule.id,
                "name": schedule.name,
                "time_zone": schedule.time_zone,
                "now": explained(schedule, now),
                "used": users[schedule.id],
                "warnings": warnings.get(schedule.id, []),
                **drawn(schedule, _monday(schedule, now), now),
            }
        )
    return render_template("schedules/schedules.html", schedules=rows)


# ---- a schedule in words, and its week


def explained(schedule: Schedule, at: datetime) -> dict[str, Any]:
    """Explain the schedule at an instant: `open`, `why` (words), `until`, and `until_local` (its local time)."""
    found = explain(schedule, at)
    return {
        "open": found.open,
        "why": _why(schedule, found),
        "until": found.until,
        "until_local": "" if found.until is None else _moment(found.until, schedule.time_zone),
        "at_local": _moment(at, schedule.time_zone),
    }


def _why(schedule: Schedule, found: Openness) -> str:
    day = format_date(found.day, "EEEE, d MMMM y")
    if found.because is Source.OVERRIDE:
        return _("set by hand")
    if found.because is Source.EXCEPTION:
        if name := _exception_words(schedule, found.exception):
            day = f"{day} ({name})"
        if found.span is not None:
            return _("the hours of %(day)s, a date of its own: %(span)s", day=day, span=found.span)
        return _("%(day)s is a date with other hours", day=day)
    if found.span is not None:
        return _("the hours of %(day)s: %(span)s", day=day, span=found.span)
    return _("outside the hours of %(day)s", day=day)


def _moment(at: datetime, time_zone: str) -> str:
    local = at.astimezone(ZoneInfo(time_zone))
    return f"{format_date(local.date(), 'EEE, d MMM y')}, {local:%H:%M}{which_of_two(at, time_zone)}"


def _monday(schedule: Schedule, at: datetime) -> date:
    today = at.astimezone(ZoneInfo(schedule.time_zone)).date()
    return today - timedelta(days=today.weekday())


def drawn(schedule: Schedule, monday: date, now: datetime) -> dict[str, Any]:
    """Return what _week.html needs: `week`, `now_mark`, `label`, `notes`; and the same as a table in `rows`."""
    local = now.astimezone(ZoneInfo(schedule.time_zone))
    days = [monday + timedelta(days=n) for n in range(7)]
    pieces = week(schedule, monday, now)
    mark = (days.index(local.date()), local.hour * 60 + local.minute) if local.date() in days else None
    exceptions = [exception_on(schedule, day) for day in days]
    hours = [", ".join(_span(start, end) for start, end, _source in spans) or _("closed") for spans in pieces]
    rows = [
        (format_date(day, "EEEE, d MMM"), text if dates is None else f"{text} ({_exception_note(schedule, dates)})")
        for day, text, dates in zip(days, hours, exceptions, strict=True)
    ]
    return {
        "week": [
            (format_date(day, "EEE d"), [(start, end) for start, end, _source in spans])
            for day, spans in zip(days, pieces, strict=True)
        ],
        "now_mark": mark,
        "label": "; ".join(f"{day}: {hours}" for day, hours in rows),
        "rows": rows,
        "notes": [
            (format_date(day, "EEE d"), _exception_note(schedule, dates), text)
            for day, text, dates in zip(days, hours, exceptions, strict=True)
            if dates is not None
        ],
    }


def _exception_words(schedule: Schedule, dates: Dates | None) -> str:
    """Return the name of an exception, else its dates unless it is a single one."""
    if dates is None:
        return ""
    return schedule.names.get(dates, "") or ("" if isinstance(dates, date) else dates_words(dates))


def _exception_note(schedule: Schedule, dates: Dates) -> str:
    return _exception_words(schedule, dates) or _("a date with other hours")


def _span(start: int, end: int) -> str:
    return f"{start // 60:02}:{start % 60:02}–{end // 60:02}:{end % 60:02}"


# ---- open or closed whatever the hours say

_OVERRIDDEN = {
    (False, True): lazy("closed until %(moment)s"),
    (False, False): lazy("closed until somebody opens it again"),
    (True, True): lazy("open until %(moment)s"),
    (True, False): lazy("open until somebody ends that"),
}
"""What an override says, by whether it is open and has an end."""


def overridden(session: Session, document: Document, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules of which an override holds now: .id .name .open .words .by (who set it, or "")."""
    found = []
    for row in document["schedules"]:
        if row["override"] and (override := (schedule := build_schedule(row)).override) and override.covers(now):
            moment = "" if override.until is None else _until_words(schedule, override.until, now)
            words = str(_OVERRIDDEN[override.open, bool(moment)]) % {"moment": moment}
            found.append({"id": row["id"], "name": row["name"], "open": override.open, "words": words})
    by = _who_overrode(session, [one["id"] for one in found]) if found else {}
    return [{**one, "by": by.get(one["id"], "")} for one in found]


class Closing(NamedTuple):
    """The schedules that can be closed, as (id, name), and those that are: see `overridden`."""

    schedules: list[tuple[int, str]]
    closed: list[dict[str, Any]]


def load_closing(session: Session, now: datetime) -> Closing:
    """Return what the board shows of schedules."""
    try:
        document = current_configuration(session).document
    except UnknownProjectError:
        return Closing([], [])
    return Closing([(row["id"], row["name"]) for row in document["schedules"]], overridden(session, document, now))


def _until_words(schedule: Schedule, until: datetime, now: datetime) -> str:
    """Return the end of an override as short as it can be told."""
    zone = ZoneInfo(schedule.time_zone)
    local, today = until.astimezone(zone), now.astimezone(zone).date()
    if local == datetime.combine(today + timedelta(days=1), time(), zone):
        return _("the end of the day")
    return f"{local:%H:%M}" if local.date() == today else _moment(until, schedule.time_zone)


def _who_overrode(session: Session, schedule_ids: Iterable[int]) -> dict[int, str]:
    """Return by schedule who changed its override last, by the audit trail; "" if that is not known."""
    entry, schedule = models.AuditEntry, models.Schedule
    actor = (
        select(entry.actor)
        .where(entry.project_id == schedule.project_id, entry.subject == "schedule", entry.subject_id == schedule.id)
        .where(entry.draft_id.is_(None), or_(*map(_differs, ("override", "override_until"))))
        .order_by(entry.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(select(schedule.id, actor).where(schedule.id.in_(schedule_ids)))
    return {schedule_id: name or "" for schedule_id, name in rows}


def _differs(key: str) -> ColumnElement[bool]:
    before, after = (column[key].as_string() for column in (models.AuditEntry.before, models.AuditEntry.after))
    differs: ColumnElement[bool] = before.is_distinct_from(after)
    return differs


# ---- what uses it


def _users(document: Document) -> dict[int, list[dict[str, str]]]:
    """Return by schedule the rules, groups (for a member's hours) and agents that name it: [.kind .name .url]."""
    users = users_of(document)
    found: dict[int, list[dict[str, str]]] = {}
    for schedule in document["schedules"]:
        rows = ((KINDS[kind], document[kind][place]) for kind, place in users.get(("schedules", schedule["id"]), ()))
        found[schedule["id"]] = [
            {"kind": kind, "name": row["name"], "url": url_for(f"admin.{kind}", id=row["id"])} for kind, row in rows
        ]
    return found


# ---- one schedule


@page("/p/<project>/schedules/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True, drafts=True)
def schedule_new() -> ResponseReturnValue:
    """Add a schedule, starting from usual office hours."""
    with editing() as draft:
        workdays = dict.fromkeys(DAYS[:5], "09:00-18:00")
        form = ScheduleForm(draft, data={"time_zone": current_project().time_zone, **workdays})
        if form.saves():
            return done(
                _("%(name)s is added. Choose it in a rule, or as an agent’s working hours.", name=form.name.data),
                url_for("admin.schedule", id=form.row_id),
            )
    return _preview(form, None) if _is_previewed() else _form_page(form, None)


@page("/p/<project>/schedules/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True, drafts=True)
def schedule(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one schedule."""
    with editing() as draft:
        form = ScheduleForm(draft, id)
        if form.saves():
            return done(saved_message(), url_for("admin.schedule", id=id))
        saved = draft.item("schedules", id)
        used = [] if _is_previewed() else _users(draft.document)[id]
    return _preview(form, saved) if _is_previewed() else _form_page(form, saved, used)


def _is_previewed() -> bool:
    return "HX-Request" in request.headers and "preview" in request.form


def _preview(form: ScheduleForm, row: Mapping[str, Any] | None) -> tuple[str, int]:
    """Render the week as it is typed."""
    if (typed := form.parsed or form.typed()) is None:
        return "", 204  # not readable yet: the week stays as it was drawn
    now = datetime.now(UTC)
    week = drawn(typed, _monday(typed, now), now)
    return render_template("schedules/_drawn.html", drawn=week, is_preview=True, schedule=row), 200


def _form_page(
    form: ScheduleForm,
    row: Mapping[str, Any] | None,
    used: Sequence[Mapping[str, str]] = (),
    override: OverrideForm | None = None,
) -> tuple[str, int]:
    """Render the page. `override`: the form of an override that was refused."""
    now = datetime.now(UTC)
    saved = None if row is None else build_schedule(row)
    shown = form.parsed or saved or form.typed()
    if shown is not None and (form.parsed or not form.is_posted):
        form.warn(shown)
    values: dict[str, Any] = {}
    if saved is not None and row is not None:
        values = {
            "now_says": explained(saved, now),
            "override": override or OverrideForm.of(saved, now),
            "override_is": row["override"] if saved.override is not None and saved.override.covers(now) else "",
            "override_until": None if saved.override is None else saved.override.until,
            "probe": _probe(saved),
            "probe_at": request.args.get("at", "") or local_input(now, saved.time_zone),
            "holidays": _proposed(saved, now),
            "country": current_project().country,
        }
    if shown is not None:
        monday = _asked_week(shown, now)
        values |= {"drawn": drawn(shown, monday, now), "monday": format_date(monday, "d MMMM y")}
        values |= {"week_before": monday - timedelta(days=7), "week_after": monday + timedelta(days=7)}
    return render_form(
        "schedules/schedule.html",
        form,
        schedule=row,
        used=used,
        zones=zones(),
        is_edited=form.is_being_edited or "here" in g,
        is_preview=form.parsed is not None or saved is None,
        **date_choices(),
        **values,
    )


def _asked_week(schedule: Schedule, now: datetime) -> date:
    try:
        day = date.fromisoformat(request.args.get("week", ""))
        if not 1970 < day.year < 9990:
            raise ValueError
    except ValueError:
        return _monday(schedule, now)
    return day - timedelta(days=day.weekday())


def _probe(schedule: Schedule) -> dict[str, Any] | None:
    """Explain the schedule at ?at= in its local time; {"refused": message} for an invalid one."""
    text = request.args.get("at", "").strip()
    if not text:
        return None
    try:
        at = parse_instant(text, schedule.time_zone)
    except InstantError as error:
        return {"refused": words_of_fault(error)}
    return explained(schedule, at)


def _proposed(schedule: Schedule, now: datetime) -> list[tuple[date, str, str]]:
    """Return (date, day in words, name) of the coming holidays that are not exceptions of the schedule yet."""
    today = now.astimezone(ZoneInfo(schedule.time_zone)).date()
    found = holidays_of(current_project().country, today, today + HOLIDAYS_AHEAD, language())
    return [(day, format_date(day, "EEE, d MMM y"), name) for day, name in found if exception_on(schedule, day) is None]


@page("/p/<project>/schedules/<int:id>/holidays", do=Role.EDITOR, drafts=True)
def schedule_holidays(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Add the ticked holidays as closed."""
    with changing() as draft:
        form, row = _form_beside(draft, id), draft.item("schedules", id)
        offered = {day.isoformat(): name for day, _words, name in _proposed(build_schedule(row), datetime.now(UTC))}
        taken = [day for day in request.form.getlist("day") if day in offered]
        names = row["exception_names"] | {day: offered[day] for day in taken}
        problem = "" if taken else _("Tick the holidays first.")
        try:
            wanted = parse_schedule("", "UTC", None, row["exceptions"] | dict.fromkeys(taken, "closed"))
            values = {"exceptions": render_exceptions(wanted), "exception_names": names}
            draft.put("schedules", values, id)
        except ScheduleError as error:  # hours of the day before run into a holiday
            problem = f"{words_of(error.key)}: {words_of_fault(error)}"
        draft.save()
        row = draft.item("schedules", id)
    if problem:
        return _done_beside(form, row, problem, "warning")
    message = ngettext("Closed on %(num)s more date.", "Closed on %(num)s more dates.", len(taken))
    return _done_beside(form, row, message)


@page("/p/<project>/schedules/<int:id>/override", do=Role.EDITOR)
def schedule_override(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Set or end the override."""
    with changing() as draft:
        form, row = _form_beside(draft, id), draft.item("schedules", id)
        override = OverrideForm.of(build_schedule(row), formdata=request.form)
        if "end" in request.form:
            draft.put("schedules", {"override": None, "override_until": None}, id)
            g.here = security.safe_next(request.form.get("next"), g.here)
            message = _("The hours apply again.")
        else:
            message = override.store(draft, id) if override.validate() else ""
        draft.save()
        row = draft.item("schedules", id)
    if override.errors:
        page, _status = _form_page(form, row, _used_by(id), override)
        return page, 422
    return _done_beside(form, row, message)


@page("/p/<project>/schedules/<int:id>/close", see=Role.EDITOR, do=Role.EDITOR, is_form=True)
def schedule_close(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Close a schedule for the rest of the day, or until a moment: the short way from the board."""
    with editing() as draft:
        schedule = build_schedule(draft.item("schedules", id))
        form = OverrideForm.of(schedule, datetime.now(UTC), formdata=request.form if request.method == "POST" else None)
        if form.saves():
            return done(form.store(draft, id), url_for("admin.board"))
    return render_form("schedules/close.html", form, schedule=schedule)


# The forms of holidays and override also post the hours of the main form, so that the page can show them again.


def _form_beside(draft: Draft, schedule_id: int) -> ScheduleForm:
    """Return the form of the hours as typed, or as stored if they were not posted."""
    g.here = url_for("admin.schedule", id=schedule_id)
    return ScheduleForm(draft, schedule_id, **({} if "name" in request.form else {"formdata": None}))


def _done_beside(
    form: ScheduleForm, row: Mapping[str, Any], message: str, level: str = "success"
) -> ResponseReturnValue:
    """Redirect with the message; if hours were typed and not saved, show the page with them again instead."""
    answer = done(message, g.here, level)
    if "name" not in request.form or not form.differs_from(row):
        return answer
    return _form_page(form, row, _used_by(row["id"]))


def _used_by(schedule_id: int) -> Sequence[Mapping[str, str]]:
    with reading() as session:
        return _users(current_configuration(session).document)[schedule_id]


@page("/p/<project>/schedules/<int:id>/delete", do=Role.EDITOR, drafts=True)
def schedule_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete a schedule, unless something uses it."""
    with changing() as draft:
        name, used = draft.item("schedules", id)["name"], _users(draft.document)[id]
        if not used:
            draft.remove("schedules", id)
    if used:
        links = links_to((one["url"], one["name"]) for one in used)
        text = Markup("{} {}").format(_("Not deleted: it is used here. Choose other hours there first:"), links)
        return done(text, url_for("admin.schedule", id=id), "warning")
    return done(_("%(name)s is deleted.", name=name), url_for("admin.schedules"))


# ---- the form


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


_FIRST_INPUTS = {"date": "date", "range": "date", "yearly": "day", "season": "day", "weekday": "nth"}
"""The kinds of rows of dates, each with its first input."""


def read_hours(text: str) -> list[str] | str:
    """Read typed hours: "9-13, 14:00 – 18.00" is a list of spans; "" and "closed" alone are "closed"."""
    # One space for many first: a pattern that begins with any number of them takes the square of their time.
    spans = re.sub(r" ?[-–—] ?", "-", " ".join(text.split())).replace(",", " ").replace(";", " ").split()
    return "closed" if " ".join(spans).casefold() in ("", "closed", _("closed").casefold()) else spans


def without_lunch(text: str, lunch: Span) -> str:
    """Return typed hours with a break in those that run through it. What cannot be read stays as it is."""
    if _error_of_hours(text):
        return text
    (spans, *_rest) = parse_schedule("", "UTC", {"mon": read_hours(text)}).weekly
    found = []
    for start, end in spans:
        is_through = start < lunch.start and lunch.end < end
        found += [Span(start, lunch.start), Span(lunch.end, end)] if is_through else [Span(start, end)]
    return ", ".join(map(str, found))


class DayField(StringField):  # type: ignore[misc]
    """The hours of one day of the week."""

    def pre_validate(self, form: Any) -> None:
        if wrong := _error_of_hours(self.data or ""):
            raise ValidationError(wrong)


@dataclass
class OtherHours(TypedRow):
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
    name: str = ""
    warning: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.kind = self.kind if self.kind in _FIRST_INPUTS else "date"

    @property
    def first(self) -> str:
        """The input that shows what is wrong with the dates."""
        return _FIRST_INPUTS[self.kind]

    @classmethod
    def of(cls, dates: Dates, spans: Sequence[Span], name: str) -> OtherHours:
        """Return an exception as the form shows it."""
        row = cls._of(dates)
        row.hours, row.name = ", ".join(map(str, spans)), name
        return row

    @classmethod
    def _of(cls, dates: Dates) -> OtherHours:
        match dates:
            case DateRange(first, last):
                return cls("range", str(first), str(last))
            case Yearly(first, last) if first == last:
                return cls("yearly", day=str(first.day), month=str(first.month))
            case Yearly(first, last):
                ends = {"last_day": str(last.day), "last_month": str(last.month)}
                return cls("season", day=str(first.day), month=str(first.month), **ends)
            case NthWeekday(nth, weekday, month):
                return cls("weekday", month=str(month), nth=core_dates.NTHS[nth], weekday=DAYS[weekday])
        return cls("date", str(dates))

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

    def __str__(self) -> str:
        hours = self.hours or _("closed")
        return f"{self.label}: {hours}"


def _month_day(month: str, day: str) -> str:
    return f"{month.zfill(2)}-{day.zfill(2)}"


def date_choices() -> dict[str, list[tuple[str, str]]]:
    """Return the choices of the rows' selects."""
    return {
        "nths": list(nth_names().items()),
        "weekdays": [(name, str(label)) for name, label in DAY_NAMES.items()],
        "months": [(str(n), name) for n, name in enumerate(month_names(), start=1)],
    }


class ExceptionsField(RowsField):
    row, most = OtherHours, most_of(ScheduleConfig, "exceptions")
    rows: list[OtherHours]

    def check(self) -> None:
        seen: set[str] = set()
        for row in self.rows:
            twice = _("This date occurs twice: keep one of the two.") if row.words in seen else ""
            if wrong := _error_of_dates(row) or twice:
                row.errors[row.first] = wrong
            if wrong := _error_of_hours(row.hours):
                row.errors["hours"] = wrong
            if row.name and not (len(row.name) <= MAX_NAME_CHARS and row.name.isprintable()):
                row.errors["name"] = words_of_fault(Fault((), "", "", "name"))
            seen.add(row.words)


class ScheduleForm(ItemForm):
    kind = "schedules"
    FIELDS: ClassVar = {
        "open": "exceptions",
        "exception_names": "exceptions",
        "override": "name",
        "override_until": "name",
    }
    BUTTONS = ("preview", "copy", "add_lunch")

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
        self.lunch, self.lunch_error = request.form.get("lunch", "13:00-14:00"), ""
        if "copy" in request.form and "formdata" not in kwargs:
            for day in self.days[1:5]:
                day.data, day.raw_data = self.mon.data, None
        if "add_lunch" in request.form and "formdata" not in kwargs:
            self._add_lunch()

    def _add_lunch(self) -> None:
        self.lunch_error = _error_of_hours(self.lunch)
        spans = () if self.lunch_error else parse_schedule("", "UTC", {"mon": read_hours(self.lunch)}).weekly[0]
        for day in self.days if spans else ():
            day.data = without_lunch(day.data or "", spans[0])

    @property
    def days(self) -> list[Field]:
        """The seven fields, Monday first."""
        return [self._fields[day] for day in DAYS]

    def saves(self, row: Any = None) -> bool:
        if self.is_being_edited and "add_exceptions" not in request.form:  # a row just added is empty
            self.validate()
        return super().saves(row)

    def validate_time_zone(self, field: Any) -> None:
        if field.data not in time_zones():
            raise ValidationError(_("There is no such time zone: write it like Europe/Kyiv."))

    def validate(self, extra_validators: Any = None) -> bool:
        """Check each day and date by itself, so that every input gets its error; then all together."""
        if not super().validate(extra_validators):
            return False
        try:
            self.parsed = self._parse(self.name.data)
        except ScheduleError as error:
            self._refuse_conflict(error)
            return False
        return True

    def typed(self) -> Schedule | None:
        """Return the schedule as it is typed, None while it cannot be read. What exceeds a limit is not parsed."""
        rows = self.exceptions.rows
        hours = [*(day.data or "" for day in self.days), *(row.hours for row in rows)]
        if len(rows) > self.exceptions.most or any(map(_error_of_hours, hours)):
            return None
        try:
            return self._parse("")
        except ScheduleError:
            return None

    def _parse(self, name: str) -> Schedule:
        week = {day: read_hours(self._fields[day].data or "") for day in DAYS}
        dates = {row.words: read_hours(row.hours) for row in self.exceptions.rows}
        names = {row.words: row.name for row in self.exceptions.rows if row.name}
        return parse_schedule(name, self.time_zone.data, week, dates, exception_names=names)

    def _refuse_conflict(self, error: ScheduleError) -> None:
        """Set the error of the day or row that conflicts with another."""
        wrong = words_of_fault(error)
        if error.place.startswith("open."):
            self.refuse(error.key, wrong)
            return
        self.exceptions.errors = [wrong]
        for row in self.exceptions.rows:
            if row.words == error.key:
                row.errors["hours" if error.place.endswith("]") else row.first] = wrong

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
        schedule = parse_schedule(
            row.name, row.time_zone, row.open, row.exceptions, exception_names=row.exception_names
        )
        for day, spans in zip(self.days, schedule.weekly, strict=True):
            day.data = ", ".join(map(str, spans))
        named = schedule.names
        self.exceptions.rows = [OtherHours.of(*one, named.get(one[0], "")) for one in schedule.exceptions]

    def values(self) -> dict[str, Any]:
        if self.parsed is None:
            raise ValueError("the form is not valid")
        hours = {"open": render_open(self.parsed), "exceptions": render_exceptions(self.parsed)}
        return super().values() | hours | {"exception_names": render_names(self.parsed)}


def _error_of_dates(row: OtherHours) -> str:
    """Return the message for invalid dates; "" for valid ones."""
    try:
        parse_dates(row.words)
    except DatesError as error:
        known_by_row = row.kind in _UNREADABLE and error.kind is not WrongInstant.YEAR
        return str(_UNREADABLE[row.kind]) if known_by_row else words_of_fault(error)
    return ""


def _error_of_hours(text: str) -> str:
    """Return the message for invalid hours as typed; "" for valid ones."""
    if len(text) > MAX_TEXT_CHARS:
        return _("At most %(n)s characters.", n=MAX_TEXT_CHARS)
    try:
        parse_schedule("", "UTC", {"mon": read_hours(text)})
    except ScheduleError as error:
        return words_of_fault(error)
    return ""


class OverrideForm(Form):
    """Open or closed for a while, whatever the hours say."""

    override = RadioField(
        lazy("Now"),
        choices=choices([("closed", lazy("Closed now")), ("open", lazy("Open now"))]),
        validators=[required(lazy("Choose open or closed."))],
    )
    override_until = InstantField(lazy("Until"))

    @classmethod
    def of(cls, schedule: Schedule, now: datetime | None = None, formdata: Any = None) -> OverrideForm:
        """Return the form for a schedule: as posted, else closed until the end of its day."""
        form = cls(formdata=None)
        form.override_until.time_zone = schedule.time_zone
        until = None if now is None else end_of_day(schedule, now)
        form.process(formdata, data={"override": "closed", "override_until": until} if formdata is None else None)
        return form

    def validate(self, extra_validators: Any = None) -> bool:
        until = self.override_until
        if super().validate(extra_validators) and until.data is not None and until.data <= datetime.now(UTC):
            self.refuse("override_until", _("That moment is past: choose one in the future."))
        return not self.errors

    def store(self, draft: Draft, schedule_id: int) -> str:
        """Store what was posted; return what that does."""
        values = {"override": self.override.data, "override_until": self.override_until.value}
        draft.put("schedules", values, schedule_id)
        is_open = self.override.data == "open"
        return _("Open from the next call on.") if is_open else _("Closed from the next call on.")


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
