"""Finds the hours of a week that no rule covers, in which every call goes to the project's overflow. Pure.

A rule covers an hour when it would match every call in it, so only rules with no conditions but hours count.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from router.core.model import Project
from router.core.rules import Conditions, Rule
from router.core.schedule import Schedule, open_minutes

WEEK = 7 * 24 * 60  # minutes, but for weeks in which the clocks change

Spans = list[tuple[int, int]]
"""Sorted and disjoint, in minutes since the first midnight of the week, ends excluded."""


def uncovered_hours(project: Project, monday: date) -> Spans:
    """Return the minutes of the week from `monday`, in the project's zone, in which no rule takes every call.

    Returns [] where no rule asks for hours alone, since then it is not the hours that leave calls over. Overrides are
    ignored: they pass.
    """
    rules = [rule for rule in project.rules if rule.enabled and _asks_for_hours_alone(rule)]
    if not any(rule.conditions.inside or rule.conditions.outside for rule in rules):
        return []
    alike = {(_id(rule.conditions.inside), _id(rule.conditions.outside)): rule.conditions for rule in rules}
    return _rest(_union(span for when in alike.values() for span in _hours(when, monday, project.time_zone)))


def _id(schedule: Schedule | None) -> int | None:
    return None if schedule is None else schedule.id


def _asks_for_hours_alone(rule: Rule) -> bool:
    when = rule.conditions
    return when == Conditions(inside=when.inside, outside=when.outside)


def _hours(when: Conditions, monday: date, time_zone: str) -> Spans:
    """Return when these conditions hold: while `inside` is open and `outside` is closed."""
    spans = [(0, WEEK)] if when.inside is None else open_minutes(when.inside, monday, time_zone)
    if when.outside is None:
        return spans
    closed = _rest(open_minutes(when.outside, monday, time_zone))
    return _union((max(a, c), min(b, d)) for a, b in spans for c, d in closed if max(a, c) < min(b, d))


def _union(spans: Iterable[tuple[int, int]]) -> Spans:
    found: Spans = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _rest(spans: Spans) -> Spans:
    """Return the parts of the week outside the spans."""
    found, at = [], 0
    for start, end in spans:
        if start > at:
            found.append((at, start))
        at = max(at, end)
    return [*found, (at, WEEK)] if at < WEEK else found
