"""Reads an instant as people type it: ISO 8601, in a zone's local time unless it has its own offset. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from router.core.words import WordedError, Wrong

YEARS = range(1970, 9999)  # the last year has instants that cannot be written in every zone


class WrongInstant(Wrong):
    UNREADABLE = "unreadable", "%(text)r is not a valid date or time", "write it as 2026-12-25 or 2026-12-24T14:00"
    YEAR = "year", "%(text)r is out of range", "check the year"
    SKIPPED = (
        "skipped",
        "%(text)r does not exist in %(zone)s: the clocks go forward then",
        "write %(before)s or %(after)s, or the time with its offset from UTC",
    )


class InstantError(WordedError):
    """A time that cannot be used."""


def parse_instant(typed: str | datetime, time_zone: str) -> datetime:
    """Read a date, or a date and time, as an instant in UTC. Raises InstantError.

    Without an offset it is local time of `time_zone`. Of a time that comes twice, when the clocks go back, the first is
    taken; one that is skipped is refused. A date alone is its first moment.
    """
    text = str(typed)[:40]
    try:
        at = typed if isinstance(typed, datetime) else datetime.fromisoformat(typed.strip())
    except ValueError:
        raise InstantError(WrongInstant.UNREADABLE, text=text) from None
    if at.year not in YEARS:
        raise InstantError(WrongInstant.YEAR, text=text)
    if at.tzinfo is not None:
        return at.astimezone(UTC)
    zone = ZoneInfo(time_zone)
    instant = at.replace(tzinfo=zone).astimezone(UTC)
    after = instant.astimezone(zone).replace(tzinfo=None)
    if after != at.replace(fold=0) and not _is_date(typed):
        before = at - (after - at)
        clock = {"before": f"{before:%H:%M}", "after": f"{after:%H:%M}"}
        raise InstantError(WrongInstant.SKIPPED, text=text, zone=time_zone, **clock)
    return instant


def is_repeated(at: datetime, time_zone: str) -> bool:
    """Return whether the zone's clock shows the time of this instant twice, because the clocks go back."""
    local = at.astimezone(ZoneInfo(time_zone))
    return local.replace(fold=0).utcoffset() > local.replace(fold=1).utcoffset()  # type: ignore[operator]


def _is_date(typed: str | datetime) -> bool:
    try:
        return isinstance(typed, str) and bool(date.fromisoformat(typed.strip()))
    except ValueError:
        return False
