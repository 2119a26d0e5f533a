"""Reads an instant as people type it: ISO 8601, in a zone's local time unless it has its own offset. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

YEARS = range(1970, 9999)  # the last year has instants that cannot be written in every zone


class InstantError(ValueError):
    """A time that cannot be used. `kind`: "unreadable", "year", or "skipped" (the clocks go forward over it)."""

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.kind, self.message, self.remedy = kind, message, remedy


def parse_instant(typed: str | datetime, time_zone: str) -> datetime:
    """Read a date, or a date and time, as an instant in UTC. Raises InstantError.

    Without an offset it is local time of `time_zone`. Of a time that comes twice, when the clocks go back, the first is
    taken; one that is skipped is refused. A date alone is its first moment.
    """
    shown = repr(str(typed)[:40])
    try:
        at = typed if isinstance(typed, datetime) else datetime.fromisoformat(typed.strip())
    except ValueError:
        remedy = "write it as 2026-12-25 or 2026-12-24T14:00"
        raise InstantError("unreadable", f"{shown} is not a valid date or time", remedy) from None
    if at.year not in YEARS:
        raise InstantError("year", f"{shown} is out of range", "check the year")
    if at.tzinfo is not None:
        return at.astimezone(UTC)
    zone = ZoneInfo(time_zone)
    instant = at.replace(tzinfo=zone).astimezone(UTC)
    after = instant.astimezone(zone).replace(tzinfo=None)
    if after != at.replace(fold=0) and not _is_date(typed):
        before = at - (after - at)
        remedy = f"write {before:%H:%M} or {after:%H:%M}, or the time with its offset from UTC"
        raise InstantError("skipped", f"{shown} does not exist in {time_zone}: the clocks go forward then", remedy)
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
