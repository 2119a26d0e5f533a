"""Hours that no rule covers."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.conditions import Condition, read_conditions
from router.core.coverage import WEEK, uncovered_hours
from router.core.dates import parse_dates
from router.core.model import Project
from router.core.rules import Rule
from router.core.schedule import Override, Schedule, Span

MONDAY = date(2026, 11, 23)
DAY = 24 * 60
OFFICE = Schedule(1, "office", "Europe/Kyiv", ((Span(9 * 60, 18 * 60),),) * 5 + ((), ()))
SATURDAY = Schedule(2, "saturday", "Europe/Kyiv", ((),) * 5 + ((Span(10 * 60, 15 * 60),), ()))


Conditions = tuple[Condition[Any], ...]


def when(**words: Any) -> Conditions:
    return read_conditions(words)


def project(*conditions: Conditions, enabled: bool = True) -> Project:
    rules = tuple(Rule(n, f"rule {n}", (1,), each, enabled=enabled) for n, each in enumerate(conditions, 1))
    return Project(1, "acme", 1, time_zone="Europe/Kyiv", rules=rules)


def test_hours_of_the_only_rule_leave_the_rest_of_the_week_over() -> None:
    left = uncovered_hours(project(when(schedule=SATURDAY)), MONDAY)
    assert left == [(0, 5 * DAY + 600), (5 * DAY + 900, WEEK)]


def test_open_and_closed_together_cover_the_week() -> None:
    assert uncovered_hours(project(when(schedule=OFFICE), when(outside=OFFICE)), MONDAY) == []


def test_a_rule_for_all_calls_covers_the_week() -> None:
    assert uncovered_hours(project(when(schedule=OFFICE), when()), MONDAY) == []


def test_a_rule_that_asks_for_more_than_hours_covers_nothing() -> None:
    narrow = when(outside=OFFICE, dialed=["380441112233"])
    left = uncovered_hours(project(when(schedule=OFFICE), narrow), MONDAY)
    assert left[0] == (0, 9 * 60)
    assert left[-1] == (4 * DAY + 18 * 60, WEEK)
    assert len(left) == 6


def test_without_a_rule_by_hours_there_is_nothing_to_say() -> None:
    assert uncovered_hours(project(when(dialed=["380441112233"])), MONDAY) == []
    assert uncovered_hours(project(), MONDAY) == []


def test_a_rule_turned_off_covers_nothing() -> None:
    assert uncovered_hours(project(when(schedule=OFFICE), enabled=False), MONDAY) == []


def test_within_one_schedule_and_outside_another_means_both() -> None:
    lunch = Schedule(3, "lunch", "Europe/Kyiv", ((Span(13 * 60, 14 * 60),),) * 7)
    left = uncovered_hours(project(when(schedule=OFFICE, outside=lunch)), MONDAY)
    assert (13 * 60, 14 * 60) in left
    assert (0, 9 * 60) in left


def test_an_override_that_passes_is_left_aside() -> None:
    shut = Schedule(1, "office", "Europe/Kyiv", OFFICE.weekly, override=Override(False))
    assert uncovered_hours(project(when(schedule=shut)), MONDAY) == uncovered_hours(
        project(when(schedule=OFFICE)), MONDAY
    )


@pytest.mark.parametrize(
    ("dates", "uncovered"),
    [
        ("11-24", (DAY, 2 * DAY)),
        ("fourth tue of nov", (DAY, 2 * DAY)),
        ("2026-11-24..2026-11-25", (DAY, 3 * DAY)),
        ("11-20..11-24", (0, 2 * DAY)),
    ],
)
def test_what_an_exception_closes_is_covered_by_no_rule(dates: str, uncovered: tuple[int, int]) -> None:
    shut = Schedule(1, "office", "Europe/Kyiv", ((Span(0, DAY),),) * 7, exceptions=((parse_dates(dates), ()),))
    assert uncovered_hours(project(when(schedule=shut)), MONDAY) == [uncovered]


def test_hours_of_another_zone_are_counted_in_that_of_the_project() -> None:
    london = Schedule(4, "london", "Europe/London", ((Span(9 * 60, 18 * 60),),) * 7)
    assert uncovered_hours(project(when(schedule=london)), MONDAY)[0] == (0, 11 * 60)


spans = st.lists(st.tuples(st.integers(0, 23), st.integers(1, 12)), max_size=1)


@given(st.lists(spans, min_size=7, max_size=7), st.integers(0, WEEK - 1))
def test_each_minute_is_either_covered_or_told(days: list[list[tuple[int, int]]], minute: int) -> None:
    weekly = tuple(tuple(Span(h * 60, min(h * 60 + n * 60, DAY)) for h, n in day) for day in days)
    schedule = Schedule(5, "any", "UTC", weekly)
    utc = Project(1, "acme", 1, rules=(Rule(1, "r", (1,), when(schedule=schedule)),))
    told = any(a <= minute < b for a, b in uncovered_hours(utc, MONDAY))
    open_now = any(span.start <= minute % DAY < span.end for span in weekly[minute // DAY])
    assert told is not open_now
