"""Leave of agents: what is chosen with one click, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from flask import g

from router.admin.i18n import _, lazy
from router.core.instants import parse_instant
from router.explanation.agents import Leave

PRESETS = {"today": lazy("Rest of today"), "tomorrow": lazy("Tomorrow"), "week": lazy("This week")}


class LeaveError(ValueError):
    """Dates that are no leave; the message says why."""


def leave_for(preset: str, now: datetime) -> tuple[datetime | None, datetime]:
    """Return when the leave of a preset begins (None: at once) and ends. `now`: in the project's zone."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": 1, "tomorrow": 2, "week": 7 - now.weekday()}[preset]
    return midnight + timedelta(days=1) if preset == "tomorrow" else None, midnight + timedelta(days=days)


def leave_between(first: str, last: str, now: datetime) -> tuple[datetime | None, datetime]:
    """Return the same for dates as typed, both included. Without a first at once, without a last for one day.

    Raises LeaveError.
    """
    try:
        begin = parse_instant(first, str(now.tzinfo)) if first else None
        until = parse_instant(str(date.fromisoformat(last or first) + timedelta(days=1)), str(now.tzinfo))
    except (ValueError, OverflowError):
        raise LeaveError(_("Choose the days of the leave.")) from None
    if until <= max(now, begin or now):
        raise LeaveError(_("The last day is before the first one, or past."))
    return begin, until


def as_document(begin: datetime | None, until: datetime | None) -> Mapping[str, str | None]:
    """Return a leave as a document holds it."""
    leave = {"away_from": begin, "away_until": until}
    return {key: None if at is None else at.astimezone(UTC).isoformat() for key, at in leave.items()}


def leave_words(leave: Leave) -> str:
    """Return a leave in words, in the time zone of the page's project."""
    when = {"start": _moment(leave.begin), "end": _moment(leave.until, is_end=True)}
    if leave.begin is None or leave.is_now:
        text = _("Away until %(end)s", **when)
    else:
        text = _("Away from %(start)s until %(end)s", **when)
    return text + " · " + _("deputy %(name)s", name=leave.deputy) if leave.deputy else text


def _moment(at: datetime | None, *, is_end: bool = False) -> str:
    """Render a moment in short; a midnight as a date, or 24:00 of the day before where something ends."""
    if at is None:
        return ""
    local = at.astimezone(g.time_zone)
    if local.hour or local.minute:
        return f"{local:%d.%m %H:%M}"
    return f"{local - timedelta(minutes=1):%d.%m} 24:00" if is_end else f"{local:%d.%m}"
