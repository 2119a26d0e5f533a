"""Instants as people type them: on a zone's clock, where a time may be skipped or come twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.instants import InstantError, is_repeated, parse_instant
from tests.core.test_schedule import ANCHORS, LAW

KYIV = "Europe/Kyiv"


@LAW
@given(st.data())
def test_reads_what_the_clock_of_the_zone_shows(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(sorted(ANCHORS)))
    noon = datetime.combine(data.draw(st.sampled_from(ANCHORS[zone])), datetime.min.time(), UTC) + timedelta(hours=12)
    at = noon + timedelta(minutes=data.draw(st.integers(-3 * 1440, 3 * 1440)))
    local = at.astimezone(ZoneInfo(zone))
    read = parse_instant(local.replace(tzinfo=None).isoformat(), zone)
    assert read.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) == local.replace(tzinfo=None, fold=0)
    assert (read != at) == (local.fold == 1)  # of two, the first
    assert is_repeated(at, zone) == is_repeated(read, zone)
    assert is_repeated(at, zone) or read == at
    assert parse_instant(local.isoformat(), zone) == at


@LAW
@given(st.data())
def test_refuses_exactly_the_times_that_the_clock_never_shows(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(sorted(ANCHORS)))
    midnight = datetime.combine(data.draw(st.sampled_from(ANCHORS[zone])), datetime.min.time())
    wall = midnight + timedelta(minutes=data.draw(st.integers(-1440, 2 * 1440)))
    first = (midnight - timedelta(days=2)).replace(tzinfo=UTC)
    minutes = (first + timedelta(minutes=n) for n in range(7200))
    shown = {minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) for minute in minutes}
    kind = ""
    try:
        parse_instant(wall.isoformat(), zone)
    except InstantError as error:
        kind = error.kind
    assert kind == ("" if wall in shown else "skipped")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-11-30T08:30", "2026-11-30T06:30+00:00"),
        (" 2026-11-30 08:30:15 ", "2026-11-30T06:30:15+00:00"),
        ("2026-11-30", "2026-11-29T22:00+00:00"),
        ("2026-11-30T08:30Z", "2026-11-30T08:30+00:00"),
        ("2026-11-30T08:30-05:00", "2026-11-30T13:30+00:00"),
        ("2026-10-25T03:30", "2026-10-25T00:30+00:00"),
        ("2026-10-25T03:30+02:00", "2026-10-25T01:30+00:00"),
        ("2026-03-29T03:30+02:00", "2026-03-29T01:30+00:00"),
    ],
)
def test_a_time_without_an_offset_is_the_zones(typed: str, meant: str) -> None:
    assert parse_instant(typed, KYIV) == datetime.fromisoformat(meant)


def test_a_date_whose_midnight_is_skipped_begins_when_the_clocks_have_gone_forward() -> None:
    assert parse_instant("2026-04-24", "Africa/Cairo") == datetime(2026, 4, 23, 22, tzinfo=UTC)
    with pytest.raises(InstantError) as refused:
        parse_instant("2026-04-24T00:00", "Africa/Cairo")
    assert refused.value.remedy == "write 23:00 or 01:00, or the time with its offset from UTC"


@pytest.mark.parametrize(
    ("typed", "kind"),
    [("", "unreadable"), ("08:30", "unreadable"), ("30.11.2026", "unreadable"), ("2026-13-01", "unreadable"),
     ("now", "unreadable"), ("0001-01-01T00:00", "year"), ("9999-12-31", "year"), ("2026-03-29T03:00", "skipped")],
)  # fmt: skip
def test_what_cannot_be_used_is_told_apart(typed: str, kind: str) -> None:
    with pytest.raises(InstantError) as refused:
        parse_instant(typed, KYIV)
    assert refused.value.kind == kind
    assert refused.value.remedy
