"""Open or closed: the rules by example, and by law against a slow reference that walks minute by minute."""

from __future__ import annotations

import zoneinfo
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.dates import LAST, MONTHS, NTHS, DateRange, Dates, MonthDay, NthWeekday, Yearly
from router.core.schedule import (
    DAY,
    Openness,
    Override,
    Schedule,
    Source,
    Span,
    end_of_day,
    explain,
    is_open,
    never_open,
    next_change,
    open_minutes,
    week,
)
from router.core.schedule_words import ScheduleError, parse_schedule, render_exceptions, render_open

KYIV = "Europe/Kyiv"
NIGHTS = {"daily": ["22:00-06:00"]}
MINUTE = timedelta(minutes=1)

LAW = settings(max_examples=40, deadline=None)


def render_schedule(schedule: Schedule) -> dict[str, Any]:
    """Return all words of a schedule, for `parse_schedule` to read back."""
    words: dict[str, Any] = {"name": schedule.name, "time_zone": schedule.time_zone, "open": render_open(schedule)}
    if schedule.exceptions:
        words["exceptions"] = render_exceptions(schedule)
    if schedule.override is not None:
        words["override"] = "open" if schedule.override.open else "closed"
        if schedule.override.until is not None:
            words["override_until"] = schedule.override.until.astimezone(ZoneInfo(schedule.time_zone)).isoformat()
    return words


# A date beside which something happens to the clocks of the zone.
ANCHORS = {
    "Europe/Kyiv": (date(2026, 3, 29), date(2026, 10, 25)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "Australia/Lord_Howe": (date(2026, 4, 5), date(2026, 10, 4)),  # by half an hour
    "Asia/Kathmandu": (date(2026, 1, 1), date(1986, 1, 1)),  # +05:45, before 1986 +05:30
    "Africa/Cairo": (date(2026, 4, 24), date(2026, 10, 30)),  # the gap starts at midnight, the fold ends there
    "America/Havana": (date(2026, 3, 8), date(2026, 11, 1)),  # the hour after midnight is skipped, is repeated
    "Antarctica/Troll": (date(2026, 3, 29), date(2026, 10, 25)),  # by two hours
    "Pacific/Apia": (date(2011, 12, 30), date(2011, 12, 31)),  # the 30th never was
    "Etc/GMT-14": (date(2026, 1, 1), date(2026, 12, 31)),
}


def local(zone: str, text: str, *, fold: int = 0) -> datetime:
    """An instant by the wall clock of a zone, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


# ---- the reference: every open minute of the calendar, one at a time


def open_walls(schedule: Schedule, first: date, days: int) -> set[tuple[date, int]]:
    """(date, minute) of each wall minute that the hours, without the override, call open."""
    exceptions: dict[Dates | None, tuple[Span, ...]] = dict(schedule.exceptions)
    walls = set()
    for start_day in (first + timedelta(days=n) for n in range(-1, days)):
        by, by_next = (exception_for(schedule, start_day + timedelta(days=n)) for n in (0, 1))
        for start, end in exceptions.get(by, schedule.weekly[start_day.weekday()]):
            for minute in range(start, end):
                if minute < DAY:
                    walls.add((start_day, minute))
                elif by_next is None or by_next == by:
                    walls.add((start_day + timedelta(days=1), minute - DAY))
    return walls


def exception_for(schedule: Schedule, day: date) -> Dates | None:
    """Which exception holds: the first kind of which one names the date."""
    named = [dates for dates, _spans in schedule.exceptions if names(dates, day)]

    def is_one_day(dates: Dates) -> bool:
        return isinstance(dates, Yearly) and dates.first == dates.last

    return next(
        (
            dates
            for is_of_kind in (
                lambda dates: isinstance(dates, date),
                lambda dates: isinstance(dates, DateRange),
                is_one_day,
                lambda dates: isinstance(dates, NthWeekday),
                lambda dates: isinstance(dates, Yearly),
            )
            for dates in named
            if is_of_kind(dates)
        ),
        None,
    )


def names(dates: Dates, day: date) -> bool:
    """Is the date one of these, by the letter of what they say?"""
    match dates:
        case date():
            return dates == day
        case DateRange(first, last):
            return first <= day <= last
        case Yearly(first, last):
            after, before = (day.month, day.day) >= first, (day.month, day.day) <= last
            return (after and before) if first <= last else (after or before)
        case NthWeekday(nth, weekday, month):
            alike = [
                n for n in range(1, 32) if is_date(day.year, month, n) and date(day.year, month, n).weekday() == weekday
            ]
            place = nth if nth == LAST else nth - 1
            return day.month == month and place < len(alike) and alike[place] == day.day


def is_date(year: int, month: int, day: int) -> bool:
    try:
        return bool(date(year, month, day))
    except ValueError:
        return False


class Reference:
    """Answers for the days around an anchor."""

    def __init__(self, schedule: Schedule, around: date) -> None:
        self.zone, self.override = ZoneInfo(schedule.time_zone), schedule.override
        self.walls = open_walls(schedule, around - timedelta(days=8), 18)

    def is_open(self, at: datetime) -> bool:
        if self.override is not None and (self.override.until is None or at < self.override.until):
            return self.override.open
        wall = at.astimezone(self.zone)
        return (wall.date(), wall.hour * 60 + wall.minute) in self.walls


@st.composite
def spans(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """Sorted spans on an axis of so many minutes, disjoint, none longer than a schedule can say."""
    grid = st.one_of(*(st.sampled_from(range(0, length + 1, step)) for step in (DAY, 30, 1)))
    cuts = sorted(draw(st.sets(grid, max_size=16)))
    pairs = list(pairwise(cuts))  # spans that touch
    if draw(st.booleans()):
        pairs = pairs[::2]
    return [(start, end) for start, end in pairs if end - start < DAY or (start % DAY == 0 and end - start == DAY)]


@st.composite
def schedules(draw: st.DrawFn, zone: str = "", around: date | None = None) -> Schedule:
    """Any schedule that the words can say, its exceptions within a week of a date."""
    zone = zone or draw(st.sampled_from(sorted(ANCHORS)))
    around = around or draw(st.sampled_from(ANCHORS[zone]))
    weekly: list[list[Span]] = [[] for _ in range(7)]
    if draw(st.booleans()):  # equal days
        equal = [Span(*span) for span in draw(spans(DAY))]
        named = [draw(st.booleans()) for _ in range(7)]
        weekly = [equal if name else [] for name in named]
    else:
        for start, end in draw(spans(7 * DAY)):
            weekly[start // DAY].append(Span(start % DAY, start % DAY + end - start))
        if draw(st.booleans()) and weekly[6]:  # Sunday's last hours run into Monday
            last = weekly[6].pop()
            free = min((span.start for span in weekly[0]), default=DAY)
            weekly[6].append(Span(last.start, DAY + min(free, last.start // 2)) if last.start else last)
    exceptions: dict[date, tuple[Span, ...]] = {}
    near = st.integers(-7, 7).map(lambda n: around + timedelta(days=n))
    for day in sorted(draw(st.sets(near, max_size=4)), reverse=True):
        hours = [Span(*span) for span in draw(spans(DAY))]
        if hours and day + timedelta(days=1) not in exceptions and draw(st.booleans()):
            hours[-1] = Span(hours[-1].start, DAY + hours[-1].start // 2) if hours[-1].start else hours[-1]
        exceptions[day] = tuple(hours)
    schedule = Schedule(7, "any", zone, tuple(map(tuple, weekly)), tuple(exceptions.items()))
    for _ in range(draw(st.integers(0, 4))):
        schedule = draw(with_another_exception(schedule, around))
    return schedule


@st.composite
def with_another_exception(draw: st.DrawFn, schedule: Schedule, around: date) -> Schedule:
    """The schedule with one more exception of any kind near the date; as it is where the words refuse that."""
    first, last = sorted(around + timedelta(days=n) for n in draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9))))
    start, end = MonthDay(first.month, first.day), MonthDay(last.month, last.day)
    nth = draw(st.sampled_from([(first.day + 6) // 7, 5, LAST]))
    dates: Dates = draw(
        st.sampled_from(
            [
                first,
                DateRange(first, last) if first < last else first,
                Yearly(start, start),
                Yearly(MonthDay(2, 29), MonthDay(2, 29)),
                Yearly(start, end),
                Yearly(end, start),
                NthWeekday(nth, first.weekday(), first.month),
            ]
        )
    )
    hours = [Span(*span) for span in draw(spans(DAY))]
    if hours and hours[-1].start and draw(st.booleans()):
        hours[-1] = Span(hours[-1].start, DAY + min(hours[0].start, hours[-1].start - 1) // 2)
    more = replace(schedule, exceptions=(*schedule.exceptions, (dates, tuple(hours))))
    try:
        return replace(parse_schedule(**render_schedule(more)), id=schedule.id)
    except ScheduleError:
        return schedule


@st.composite
def moments(draw: st.DrawFn, *, overridden: bool = False) -> tuple[Schedule, date, datetime]:
    """A schedule, a date beside which its clocks may change, and an instant within three days of it."""
    zone = draw(st.sampled_from(sorted(ANCHORS)))
    around = draw(st.sampled_from(ANCHORS[zone]))
    schedule = draw(schedules(zone, around))
    noon = datetime.combine(around, time(12), UTC)
    second = st.integers(-3 * 86400, 3 * 86400)
    at = noon + timedelta(seconds=draw(second), microseconds=draw(st.sampled_from((0, 1, 999_999))))
    if overridden:
        until = draw(st.none() | st.integers(-2000, 4000).map(lambda n: noon + n * MINUTE))
        schedule = replace(schedule, override=Override(draw(st.booleans()), until))
    return schedule, around, at


# ---- laws


@LAW
@given(moments() | moments(overridden=True))
def test_agrees_with_walking_minute_by_minute(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, around, at = moment
    reference = Reference(schedule, around)
    for n in range(-200, 200):
        instant = at + n * 13 * MINUTE
        assert is_open(schedule, instant) == reference.is_open(instant), instant


@LAW
@given(moments() | moments(overridden=True))
def test_the_next_change_is_the_first_minute_that_differs(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, around, at = moment
    reference = Reference(schedule, around)
    now, minute = reference.is_open(at), at.replace(second=0, microsecond=0)
    change = next_change(schedule, at)
    for n in range(1, 4 * DAY):
        if reference.is_open(minute + n * MINUTE) != now:
            assert change == minute + n * MINUTE
            return
    assert change is None or change > minute + 4 * DAY * MINUTE


@LAW
@given(moments() | moments(overridden=True))
def test_the_explanation_agrees_with_the_answer(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, _, at = moment
    answer = explain(schedule, at)
    wall = at.astimezone(ZoneInfo(schedule.time_zone))
    assert answer.open == is_open(schedule, at)
    assert answer.until == next_change(schedule, at)
    if answer.because is Source.OVERRIDE:
        assert schedule.override is not None
        assert answer.open == schedule.override.open
        return
    assert answer.open == (answer.span is not None)
    assert answer.exception == exception_for(schedule, answer.day)
    assert (answer.because is Source.EXCEPTION) == (answer.exception is not None)
    if answer.span is not None:
        minute = (wall.date() - answer.day).days * DAY + wall.hour * 60 + wall.minute
        assert answer.span.start <= minute < answer.span.end


@LAW
@given(moments())
def test_the_week_shows_each_open_minute_once(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, around, _ = moment
    monday = around - timedelta(days=around.weekday())
    shown = [
        (monday + timedelta(days=n), minute)
        for n, pieces in enumerate(week(schedule, monday))
        for start, end, _ in pieces
        for minute in range(start, end)
    ]
    walls = open_walls(schedule, monday, 7)
    assert shown == sorted(wall for wall in walls if monday <= wall[0] < monday + timedelta(days=7))


@LAW
@given(moments(overridden=True), st.sampled_from(["", "UTC", "Asia/Kathmandu", "Australia/Lord_Howe"]))
def test_open_minutes_are_those_of_the_hours_in_any_zone(moment: tuple[Schedule, date, datetime], zone: str) -> None:
    schedule, around, _ = moment
    monday = around - timedelta(days=around.weekday())
    reference = Reference(replace(schedule, override=None), around)
    at, end = (
        datetime.combine(day, time(), ZoneInfo(zone or schedule.time_zone)).astimezone(UTC)
        for day in (monday, monday + timedelta(days=7))
    )
    expected = {n for n in range(int((end - at) / MINUTE)) if reference.is_open(at + n * MINUTE)}
    found = open_minutes(schedule, monday, zone or None)
    assert {minute for start, stop in found for minute in range(start, stop)} == expected
    assert all(one[1] < other[0] for one, other in pairwise(found))


@settings(LAW, max_examples=30)
@given(schedules())
def test_only_a_schedule_without_hours_on_any_day_that_counts_is_never_open(schedule: Schedule) -> None:
    exceptions: dict[Dates | None, tuple[Span, ...]] = dict(schedule.exceptions)
    dated = [dates for dates in schedule.exceptions if isinstance(dates[0], date | DateRange)]
    yearly = replace(schedule, exceptions=tuple(each for each in schedule.exceptions if each not in dated))
    days = (date(1996, 1, 1) + timedelta(days=n) for n in range(28 * 366))
    has_hours = any(exceptions.get(exception_for(yearly, day), schedule.weekly[day.weekday()]) for day in days)
    assert never_open(schedule) == (not has_hours and not any(hours for _, hours in dated))
    assert never_open(replace(schedule, override=Override(open=False))) == never_open(schedule)
    assert not never_open(replace(schedule, override=Override(open=True)))


@pytest.mark.parametrize(
    ("hours", "exceptions", "never"),
    [
        ({}, {"08-24": "closed"}, True),
        ({}, {"08-24": ["10:00-12:00"]}, False),
        ({"daily": ["09:00-18:00"]}, {"01-01..12-31": "closed"}, True),
        ({"daily": ["09:00-18:00"]}, {"01-01..02-28": "closed", "03-01..12-31": "closed"}, False),  # 29 February
        ({"daily": ["09:00-18:00"]}, {"01-01..12-31": "closed", "fifth sun of feb": ["10:00-12:00"]}, False),  # 2032
        ({}, {"02-29": ["10:00-12:00"]}, False),
        ({}, {"fifth mon of feb": ["10:00-12:00"], "02-29": "closed"}, True),
        (
            {"mon": ["09:00-18:00"]},
            {f"{nth} mon of {m}": "closed" for nth in NTHS.values() for m in MONTHS if nth != "last"},
            True,
        ),
        ({"daily": ["09:00-18:00"]}, {"2020-01-01..2090-12-31": "closed"}, False),
    ],
)
def test_a_schedule_whose_exceptions_close_every_day_is_never_open(hours: Any, exceptions: Any, *, never: bool) -> None:
    assert never_open(parse_schedule("any", KYIV, hours, exceptions)) is never


@LAW
@given(schedules())
def test_schedules_are_values(schedule: Schedule) -> None:
    shuffled = replace(schedule, exceptions=schedule.exceptions[::-1])
    assert shuffled == schedule
    assert hash(shuffled) == hash(schedule)


# ---- the clock on the wall


def test_takes_the_instant_in_any_zone_but_not_without_one() -> None:
    office = parse_schedule("office", KYIV, {"daily": ["09:00-18:00"]})
    assert is_open(office, datetime(2026, 11, 24, 13, tzinfo=ZoneInfo("Asia/Kathmandu")))
    for question in (is_open, explain, next_change):
        with pytest.raises(ValueError, match="aware"):
            question(office, datetime(2026, 11, 24, 12))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="aware"):
        Override(open=False, until=datetime(2026, 11, 24, 12))  # noqa: DTZ001 - the point


def test_hours_across_midnight_belong_to_the_day_they_start_on() -> None:
    friday_night = parse_schedule("night", KYIV, {"fri": ["22:00-06:00"]})
    assert is_open(friday_night, local(KYIV, "2026-11-27T23:00"))
    assert is_open(friday_night, local(KYIV, "2026-11-28T05:59"))
    assert not is_open(friday_night, local(KYIV, "2026-11-28T06:00"))
    assert not is_open(friday_night, local(KYIV, "2026-11-27T05:00"))


# ---- when the clocks change


def test_hours_that_start_in_the_skipped_hour_start_when_it_is_over() -> None:
    early = parse_schedule("early", KYIV, {"sun": ["03:30-05:00"]})  # 2026-03-29: 03:00 becomes 04:00
    gap = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert not is_open(early, gap - timedelta(seconds=1))
    assert is_open(early, gap)
    assert next_change(early, gap - timedelta(hours=2, microseconds=1)) == gap


def test_a_repeated_hour_counts_both_times() -> None:
    repeated = parse_schedule("repeated", KYIV, {"sun": ["03:30-04:00"]})  # 2026-10-25: 04:00 becomes 03:00
    first, second = (local(KYIV, "2026-10-25T03:30", fold=fold) for fold in (0, 1))
    assert second - first == timedelta(hours=1)
    assert is_open(repeated, first)
    assert not is_open(repeated, first + 30 * MINUTE)  # it is 03:00 again
    assert is_open(repeated, second)
    assert [first, first + 30 * MINUTE, second, second + 30 * MINUTE] == changes(repeated, first - MINUTE, 4)


def changes(schedule: Schedule, at: datetime, count: int) -> list[datetime]:
    found: list[datetime] = []
    for _ in range(count):
        change = next_change(schedule, found[-1] if found else at)
        assert change is not None
        found.append(change)
    return found


# ---- exceptions


def test_a_date_that_is_closed_is_closed_from_midnight_to_midnight() -> None:
    nights = parse_schedule("nights", KYIV, NIGHTS, {"2027-01-01": "closed"})
    assert is_open(nights, local(KYIV, "2026-12-31T23:59"))
    assert not is_open(nights, local(KYIV, "2027-01-01T00:00"))  # the shift of 31 December ends at midnight
    assert not is_open(nights, local(KYIV, "2027-01-01T22:30"))
    assert not is_open(nights, local(KYIV, "2027-01-02T01:00"))  # the shift of 1 January never started
    assert is_open(nights, local(KYIV, "2027-01-02T22:00"))


def test_an_exception_across_midnight_runs_into_an_ordinary_day() -> None:
    party = parse_schedule("party", KYIV, {"daily": ["09:00-18:00"]}, {"2026-12-31": ["20:00-10:00"]})
    assert is_open(party, local(KYIV, "2027-01-01T08:00"))
    assert is_open(party, local(KYIV, "2027-01-01T12:00"))
    assert week(party, date(2026, 12, 28))[4] == [(0, 600, Source.EXCEPTION), (600, 1080, Source.WEEKLY)]


@pytest.mark.parametrize(
    ("key", "dates", "others"),
    [
        (
            "2027-01-01..2027-01-08",
            ["2027-01-01", "2027-01-05", "2027-01-08"],
            ["2026-12-31", "2027-01-09", "2028-01-05"],
        ),
        ("08-24", ["2026-08-24", "2031-08-24"], ["2026-08-23", "2026-08-25"]),
        ("02-29", ["2028-02-29", "2032-02-29"], ["2027-02-28", "2027-03-01"]),
        ("12-31..01-02", ["2026-12-31", "2027-01-01", "2027-01-02"], ["2026-12-30", "2027-01-03", "2027-06-01"]),
        ("02-27..02-29", ["2027-02-28", "2028-02-29"], ["2027-03-01"]),
        ("last mon of may", ["2026-05-25", "2027-05-31"], ["2026-05-18", "2027-05-24", "2026-06-29"]),
        ("first sun of oct", ["2026-10-04", "2028-10-01"], ["2026-10-11"]),
        ("2nd tue of nov", ["2026-11-10", "2027-11-09"], ["2026-11-03", "2026-11-17"]),
        ("4th thu of nov", ["2026-11-26", "2029-11-22"], ["2029-11-29"]),
        ("fifth mon of may", ["2027-05-31"], ["2026-05-25"]),
    ],
)
def test_an_exception_holds_on_its_dates_and_on_no_other(key: str, dates: list[str], others: list[str]) -> None:
    office = parse_schedule("office", KYIV, {"daily": ["09:00-18:00"]}, {key: "closed"})
    assert not any(is_open(office, local(KYIV, f"{day}T12:00")) for day in dates)
    assert all(is_open(office, local(KYIV, f"{day}T12:00")) for day in others)


def test_of_several_exceptions_on_one_date_the_most_specific_holds() -> None:
    words = {
        "2026-08-31": ["01:00-02:00"],
        "2026-08-30..2026-09-02": ["02:00-03:00"],
        "08-31": ["03:00-04:00"],
        "last mon of aug": ["04:00-05:00"],
        "08-25..09-05": ["05:00-06:00"],
    }
    left = list(words)
    while left:
        office = parse_schedule("office", KYIV, {"daily": ["06:00-07:00"]}, {key: words[key] for key in reversed(left)})
        found = [hour for hour in range(24) if is_open(office, local(KYIV, f"2026-08-31T{hour:02}:30"))]
        assert found == [6 - len(left)]
        left.pop(0)


# ---- the override


def test_the_week_shows_an_override_from_now_to_its_end() -> None:
    hours = {"daily": ["09:00-18:00"]}
    monday, now, until = date(2026, 11, 23), local(KYIV, "2026-11-24T10:30"), local(KYIV, "2026-11-25T14:00")
    plain = [(540, 1080, Source.WEEKLY)]
    closed = parse_schedule("office", KYIV, hours, override="closed", override_until=until)
    assert week(closed, monday, now) == [plain, [(540, 630, Source.WEEKLY)], [(840, 1080, Source.WEEKLY)], *[plain] * 4]
    opened = parse_schedule("office", KYIV, hours, override="open", override_until=until)
    assert week(opened, monday, now)[1:3] == [
        [(540, 630, Source.WEEKLY), (630, 1440, Source.OVERRIDE)],
        [(0, 840, Source.OVERRIDE), (840, 1080, Source.WEEKLY)],
    ]
    assert week(parse_schedule("office", KYIV, hours, override="closed"), monday) == [[]] * 7


# ---- explanations


def test_explains_weekly_hours_exceptions_and_overrides() -> None:
    office = parse_schedule("office", KYIV, {"mon-fri": ["22:00-06:00"]}, {"2026-12-25": "closed"})
    small_hours = local(KYIV, "2026-11-28T02:00")
    assert explain(office, small_hours) == Openness(
        True, Source.WEEKLY, date(2026, 11, 27), Span(1320, 1800), local(KYIV, "2026-11-28T06:00")
    )
    assert explain(office, local(KYIV, "2026-11-28T12:00")) == Openness(
        False, Source.WEEKLY, date(2026, 11, 28), None, local(KYIV, "2026-11-30T22:00")
    )
    assert explain(office, local(KYIV, "2026-12-25T01:00")) == Openness(
        False, Source.EXCEPTION, date(2026, 12, 25), None, local(KYIV, "2026-12-28T22:00"), date(2026, 12, 25)
    )
    holidays = parse_schedule("office", KYIV, {}, {"last mon of may": ["22:00-06:00"]})
    assert explain(holidays, local(KYIV, "2026-05-26T02:00")) == Openness(
        True,
        Source.EXCEPTION,
        date(2026, 5, 25),
        Span(1320, 1800),
        local(KYIV, "2026-05-26T06:00"),
        NthWeekday(LAST, 0, 5),
    )
    until = small_hours + timedelta(hours=1)
    paused = parse_schedule("office", KYIV, {"mon-fri": ["22:00-06:00"]}, override="closed", override_until=until)
    assert explain(paused, small_hours) == Openness(False, Source.OVERRIDE, date(2026, 11, 28), None, until)


def test_a_change_is_looked_for_four_hundred_days_ahead() -> None:
    once = parse_schedule("once", KYIV, {}, {"2027-12-29": ["12:00-13:00"]})
    opens = local(KYIV, "2027-12-29T12:00")
    assert next_change(once, opens - timedelta(days=400)) is None
    assert next_change(once, opens - timedelta(days=400) + MINUTE) == opens


def test_equal_overrides_are_equal_in_any_zone_and_in_a_repeated_hour() -> None:
    until = datetime(2026, 10, 25, 3, 30, tzinfo=ZoneInfo(KYIV), fold=1)
    assert until != until.astimezone(UTC)  # Python's own rule
    assert Override(open=False, until=until) == Override(open=False, until=until.astimezone(UTC))


def test_a_week_of_six_days_is_refused() -> None:
    with pytest.raises(ValueError, match="seven days"):
        Schedule(1, "short", weekly=((),) * 6)


# ---- zone data


def test_the_zones_are_those_of_the_locked_package_not_of_the_machine() -> None:
    assert zoneinfo.TZPATH == ()
    santiago, coyhaique = (ZoneInfo(f"America/{city}") for city in ("Santiago", "Coyhaique"))  # apart since 2025
    winter = datetime(2026, 7, 1, tzinfo=UTC)
    assert winter.astimezone(coyhaique).utcoffset() != winter.astimezone(santiago).utcoffset()


def test_recent_changes_of_law_are_known() -> None:
    noon = parse_schedule("noon", "Asia/Almaty", {"daily": ["12:00-13:00"]})
    assert is_open(noon, datetime(2024, 2, 29, 6, tzinfo=UTC))  # +06 until 1 March 2024
    assert is_open(noon, datetime(2026, 11, 24, 7, tzinfo=UTC))
    noon = parse_schedule("noon", "America/Asuncion", {"daily": ["12:00-13:00"]})
    assert is_open(noon, datetime(2026, 7, 1, 15, tzinfo=UTC))  # summer time all year since 2024


@pytest.mark.parametrize(
    ("words", "at", "until"),
    [
        ({"mon-fri": ["09:00-18:00"]}, "2026-11-27T12:00", "2026-11-28T00:00"),
        ({"daily": ["00:00-24:00"]}, "2026-11-27T12:00", "2026-11-28T00:00"),
        (NIGHTS, "2026-11-27T23:00", "2026-11-28T06:00"),  # it does not open again in the middle of the night
        (NIGHTS, "2026-11-27T03:00", "2026-11-28T06:00"),
        ({"fri": ["22:00-06:00"]}, "2026-10-24T12:00", "2026-10-25T00:00"),
        ({"sat": ["22:00-06:00"]}, "2026-10-24T12:00", "2026-10-25T06:00"),  # the clocks go back in between
    ],
)
def test_a_day_ends_at_midnight_or_with_the_hours_that_run_past_it(
    words: dict[str, list[str]], at: str, until: str
) -> None:
    schedule = parse_schedule("office", KYIV, words)
    assert end_of_day(schedule, local(KYIV, at)) == local(KYIV, until)
