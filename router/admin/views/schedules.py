"""Schedules: weekly hours, dates with other hours, holidays, the override, and what they say at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date
from markupsafe import Markup

from router.admin.advice import warnings_by_id
from router.admin.dates_words import dates_words, words_of
from router.admin.faults import words_of_fault
from router.admin.forms.parts import local_input, which_of_two, zones
from router.admin.forms.schedules import (
    OtherHours,
    OverrideForm,
    ScheduleForm,
    date_choices,
    holidays_of,
)
from router.admin.i18n import _, language, ngettext
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
)
from router.configuration.change import Draft, users_of
from router.core.dates import DAYS, Dates
from router.core.instants import InstantError, parse_instant
from router.core.schedule import Openness, Schedule, Source, exception_on, explain, week
from router.core.schedule_words import ScheduleError, parse_schedule, render_exceptions
from router.db.documents import KINDS, Document, build_schedule

HOLIDAYS_AHEAD = timedelta(days=400)


@page("/p/<project>/schedules", see=Role.VIEWER)
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
        return _("by the override")
    if found.because is Source.EXCEPTION:
        if found.exception is not None and not isinstance(found.exception, date):
            day = f"{day} ({dates_words(found.exception)})"
        if found.span is not None:
            return _("the hours of %(day)s, a date of its own: %(span)s", day=day, span=found.span)
        return _("%(day)s is a date with other hours", day=day)
    if found.span is not None:
        return _("the hours of %(day)s: %(span)s", day=day, span=found.span)
    return _("no hours then on %(day)s", day=day)


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
        (format_date(day, "EEEE, d MMM"), text if dates is None else f"{text} ({_exception_words(dates)})")
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
            (format_date(day, "EEE d"), _exception_words(dates), text)
            for day, text, dates in zip(days, hours, exceptions, strict=True)
            if dates is not None
        ],
    }


def _exception_words(dates: Dates) -> str:
    return _("a date with other hours") if isinstance(dates, date) else dates_words(dates)


def _span(start: int, end: int) -> str:
    return f"{start // 60:02}:{start % 60:02}–{end // 60:02}:{end % 60:02}"


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


@page("/p/<project>/schedules/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True)
def schedule_new() -> ResponseReturnValue:
    """Add a schedule, starting from usual office hours."""
    with editing() as draft:
        workdays = dict.fromkeys(DAYS[:5], "09:00-18:00")
        form = ScheduleForm(draft, data={"time_zone": current_project().time_zone, **workdays})
        if form.saves():
            return done(
                _("%(name)s is added. Name it in a rule, or as somebody’s working hours.", name=form.name.data),
                url_for("admin.schedule", id=form.row_id),
            )
    return _form_page(form, None)


@page("/p/<project>/schedules/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True)
def schedule(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one schedule."""
    with editing() as draft:
        form = ScheduleForm(draft, id)
        if form.saves():
            return done(_("Saved. Applies from the next call."), url_for("admin.schedule", id=id))
        saved = draft.item("schedules", id)
        used = _users(draft.document)[id]
    return _form_page(form, saved, used)


def _form_page(
    form: ScheduleForm,
    row: Mapping[str, Any] | None,
    used: Sequence[Mapping[str, str]] = (),
    override: OverrideForm | None = None,
) -> tuple[str, int]:
    """Render the page. `override`: the form of an override that was refused."""
    now = datetime.now(UTC)
    saved = None if row is None else build_schedule(row)
    shown = form.parsed or saved
    if shown is not None and (form.parsed or not form.is_posted):
        form.warn(shown)
    values: dict[str, Any] = {}
    if saved is not None and row is not None:
        values = {
            "now_says": explained(saved, now),
            "override": override or OverrideForm(formdata=None, data={"override": "closed"}),
            "override_is": row["override"] if saved.override is not None and saved.override.covers(now) else "",
            "override_until": None if saved.override is None else saved.override.until,
            "probe": _probe(saved),
            "probe_at": request.args.get("at", "") or local_input(now, saved.time_zone),
            "holidays": _proposed(saved, now),
            "country": current_project().country,
        }
    if shown is not None:
        monday = _asked_week(shown, now)
        values |= {"drawn": drawn(shown, monday, now), "monday": monday}
        values |= {"week_before": monday - timedelta(days=7), "week_after": monday + timedelta(days=7)}
    return render_form(
        "schedules/schedule.html",
        form,
        schedule=row,
        used=used,
        zones=zones(),
        is_edited=form.is_being_edited or "here" in g,
        is_preview=form.parsed is not None,
        blank=OtherHours,
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


@page("/p/<project>/schedules/<int:id>/holidays", do=Role.EDITOR)
def schedule_holidays(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Add the ticked holidays as closed."""
    with changing() as draft:
        form, row = _form_beside(draft, id), draft.item("schedules", id)
        offered = {day.isoformat() for day, _words, _name in _proposed(build_schedule(row), datetime.now(UTC))}
        taken = [day for day in request.form.getlist("day") if day in offered]
        problem = "" if taken else _("Tick the holidays first.")
        try:
            wanted = parse_schedule("", "UTC", None, row["exceptions"] | dict.fromkeys(taken, "closed"))
            draft.put("schedules", {"exceptions": render_exceptions(wanted)}, id)
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
        override = OverrideForm(formdata=None)
        override.override_until.time_zone = row["time_zone"]
        override.process(request.form)
        until = override.override_until
        if "end" in request.form:
            draft.put("schedules", {"override": None, "override_until": None}, id)
            message = _("The hours count again.")
        else:
            is_valid = bool(override.validate())
            if is_valid and until.data is not None and until.data <= datetime.now(UTC):
                override.refuse("override_until", _("That moment is past: choose one in the future."))
            if not override.errors:
                draft.put("schedules", {"override": override.override.data, "override_until": until.value}, id)
            is_open = override.override.data == "open"
            message = _("Open from the next call on.") if is_open else _("Closed from the next call on.")
        draft.save()
        row = draft.item("schedules", id)
    if override.errors:
        page, _status = _form_page(form, row, _used_by(id), override)
        return page, 422
    return _done_beside(form, row, message)


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


@page("/p/<project>/schedules/<int:id>/delete", do=Role.EDITOR)
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
