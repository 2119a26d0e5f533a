"""Finds the hours of a week that no rule covers, in which every call goes to the project's overflow. Pure.

A rule covers an hour when it would match every call in it, so only rules with no conditions but hours count.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from router.core.conditions import Hours
from router.core.model import Project
from router.core.rules import hours_of
from router.core.schedule import open_minutes

WEEK = 7 * 24 * 60  # minutes, but for weeks in which the clocks change

Spans = list[tuple[int, int]]
"""Sorted and disjoint, in minutes since the first midnight of the week, ends excluded."""


def uncovered_hours(project: Project, monday: date) -> Spans:
    """Return the minutes of the week from `monday`, in the project's zone, in which no rule takes every call.

    Returns [] where no rule asks for hours alone, since then it is not the hours that leave calls over. Overrides are
    ignored: they pass.
    """
    alike: dict[frozenset[tuple[int, bool]], list[Hours]] = {}
    for rule in project.rules:
        hours = hours_of(rule)
        if rule.enabled and len(hours) == len(rule.conditions):
            alike[frozenset((one.value.id, one.wanted) for one in hours)] = hours
    if not any(alike):
        return []
    return _rest(_union(span for hours in alike.values() for span in _spans(hours, monday, project.time_zone)))


def _spans(conditions: Iterable[Hours], monday: date, time_zone: str) -> Spans:
    """Return when all of these hold."""
    spans = [(0, WEEK)]
    for hours in conditions:
        times = open_minutes(hours.value, monday, time_zone)
        times = times if hours.wanted else _rest(times)
        spans = _union((max(a, c), min(b, d)) for a, b in spans for c, d in times if max(a, c) < min(b, d))
    return spans


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
