"""Warnings are right: what is said never to match never does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.conditions import Condition, Facts, PreviousCall, read_conditions
from router.core.model import Agent, Call, Group, Member, Project
from router.core.review import WORDINGS, warnings_of
from router.core.rules import Preference, Rule, asks_previous_call, first_match
from router.core.schedule import Schedule
from router.core.schedule_words import parse_schedule

DAYS = parse_schedule("days", "UTC", {"daily": ["08:00-18:00"]}, id=1)
NIGHTS = parse_schedule("nights", "UTC", {"daily": ["18:00-08:00"]}, id=2)
NEVER = parse_schedule("never", "UTC", id=3)

Conditions = tuple[Condition[Any], ...]


def when(**words: Any) -> Conditions:
    return read_conditions(words)


def _before(within: int, unit: str, *, unanswered: bool = False) -> dict[str, Any]:
    return {"within": within, "unit": unit, "unanswered": unanswered}


def rules_of(*conditions: Conditions) -> tuple[Rule, ...]:
    return tuple(Rule(i, f"r{i}", (1,), each) for i, each in enumerate(conditions, start=1))


def project_of(*conditions: Conditions, overflow: str = "100") -> Project:
    return Project(
        id=7,
        name="acme",
        version=1,
        overflow=overflow,
        agents={1: Agent(1, "Ann", ("ann",))},
        groups={1: Group(1, "sales", "priority", (Member(1),))},
        rules=rules_of(*conditions),
    )


def said(project: Project, schedules: Sequence[Schedule] = ()) -> list[tuple[str, str, int, str]]:
    return [(w.kind, w.subject, w.subject_id, " and ".join(map(repr, w.by))) for w in warnings_of(project, schedules)]


def test_has_nothing_to_say_of_a_project_that_is_all_right() -> None:
    project = project_of(when(dialed=["380441112233"]), when())
    assert said(project) == []


@pytest.mark.parametrize(
    ("above", "below"),
    [
        (when(), when()),
        (when(), when(caller=["38050*"])),
        (when(caller=["380*"]), when(caller=["38050*", "380671234567"])),
        (when(caller=["38050*"]), when(caller=["380501110000-380501119999"])),
        (
            when(dialed=["380501110000-380501119999"]),
            when(dialed=["380501111234", "380501112000-380501112999"]),
        ),
        (when(caller=["anonymous", "1*"]), when(caller=["anonymous"])),
        (when(not_caller=["1"]), when(not_caller=["1*"])),
        (when(params={"utm": ["*oo*"]}), when(params={"utm": ["GOO", "foo*"]})),
        (when(params={"utm": ["*"]}), when(params={"utm": ["google"]})),
        (when(not_params={"bot": ["1"]}), when(not_params={"bot": ["*"]})),
        (when(direction=["in", "callback"]), when(direction=["in"])),
        (when(schedule=DAYS), when(schedule=DAYS, direction=["in"])),
        (when(free={"group": 1, "fewer_than": 3}), when(free={"group": 1, "fewer_than": 2})),
        (when(called_before=_before(1, "days")), when(called_before=_before(24, "hours", unanswered=True))),
    ],
)  # fmt: skip
def test_a_rule_below_one_that_takes_all_its_calls_never_matches(above: Conditions, below: Conditions) -> None:
    assert said(project_of(above, below)) == [("shadowed", "rule", 2, "'r1'")]


@pytest.mark.parametrize(
    ("above", "below"),
    [
        (when(caller=["38050*"]), when()),
        (when(caller=["38050*"]), when(caller=["380*"])),
        (when(caller=["38050*"]), when(caller=["38050*", "anonymous"])),
        (when(caller=["38050*"]), when(dialed=["38050*"])),
        (when(not_caller=["1*"]), when(not_caller=["1"])),
        (when(not_caller=["1"]), when()),
        (when(params={"utm": ["google"]}), when(params={"utm": ["goo*"]})),
        (when(params={"utm": ["*"]}), when(params={"utm": ["(none)"]})),
        (when(params={"utm": ["*"]}), when(params={"utm": ["(*"]})),
        (when(not_params={"bot": ["*"]}), when(not_params={"bot": ["1"]})),
        (when(direction=["in"]), when()),
        (when(schedule=DAYS), when(schedule=NIGHTS)),
        (when(schedule=DAYS), when(outside=DAYS)),
        (when(free={"group": 1, "fewer_than": 2}), when(free={"group": 1, "fewer_than": 3})),
        (when(free={"group": 1, "fewer_than": 2}), when(free={"group": 2, "fewer_than": 2})),
        (when(called_before=_before(1, "hours")), when(called_before=_before(61, "minutes"))),
        (when(called_before=_before(1, "hours", unanswered=True)), when(called_before=_before(1, "minutes"))),
    ],
)
def test_a_rule_of_which_some_calls_are_left_is_not_warned_about(above: Conditions, below: Conditions) -> None:
    assert said(project_of(above, below)) == []


def test_two_rules_can_take_all_calls_together_in_hours_and_out_of_hours() -> None:
    project = project_of(when(schedule=DAYS), when(outside=DAYS), when(schedule=NIGHTS))
    assert said(project) == [("shadowed_by_two", "rule", 3, "'r1' and 'r2'")]
    assert said(project_of(when(schedule=DAYS), when(outside=NIGHTS), when())) == []
    half = when(outside=DAYS, caller=["1*"])
    assert said(project_of(when(schedule=DAYS), half, when())) == []


def test_a_rule_that_is_not_enabled_takes_no_calls_and_gets_no_warning() -> None:
    everybody, also = rules_of(when(), when())
    off = Rule(1, "off", (1,), enabled=False)
    assert said(Project(7, "acme", 1, overflow="1", rules=(off, also))) == []
    assert said(Project(7, "acme", 1, overflow="1", rules=(everybody, Rule(2, "off", (1,), enabled=False)))) == []


@pytest.mark.parametrize(
    ("conditions", "kind", "by"),
    [
        (when(caller=["38050*"], not_caller=["380*"]), "excludes_itself", "'caller'"),
        (when(dialed=["1"], not_dialed=["1", "2"]), "excludes_itself", "'dialed'"),
        (
            when(params={"utm": ["google"]}, not_params={"utm": ["*"]}),
            "excludes_itself",
            "'params.utm'",
        ),
        (when(schedule=DAYS, outside=DAYS), "in_and_out", "'days'"),
        (when(schedule=NEVER), "never_in_hours", "'never'"),
    ],
)
def test_a_rule_that_contradicts_itself_never_matches(conditions: Conditions, kind: str, by: str) -> None:
    assert said(project_of(conditions, when())) == [(kind, "rule", 1, by)]


def test_warns_of_what_nobody_can_reach() -> None:
    project = Project(
        id=7,
        name="acme",
        version=1,
        agents={
            1: Agent(1, "Ann", ("ann",), deputy_id=2),
            2: Agent(2, "Bob"),
            3: Agent(3, "Cid", ("cid",), hours=NIGHTS),
        },
        groups={1: Group(1, "sales", "priority", (Member(1),)), 2: Group(2, "vip", "priority")},
        rules=(Rule(1, "all", (1,), enabled=False),),
    )
    assert said(project, [DAYS, NIGHTS, NEVER]) == [
        ("no_overflow", "project", 7, ""),
        ("no_rules", "project", 7, ""),
        ("no_members", "group", 2, ""),
        ("unused_group", "group", 2, ""),
        ("no_logins", "agent", 2, ""),
        ("no_group", "agent", 3, ""),
        ("unused_schedule", "schedule", 1, ""),
        ("never_open", "schedule", 3, ""),
        ("unused_schedule", "schedule", 3, ""),
    ]


def test_an_agent_whom_a_parameter_may_name_needs_no_group() -> None:
    agents = {1: Agent(1, "Ann", ("ann",))}
    by_parameter = Rule(1, "crm", prefer=Preference(param="responsible"))
    assert said(Project(7, "acme", 1, overflow="1", agents=agents, rules=(by_parameter,))) == []
    by_talk = Rule(1, "crm", prefer=Preference(last_agent=True))
    found = said(Project(7, "acme", 1, overflow="1", agents=agents, rules=(by_talk,)))
    assert found == [("no_group", "agent", 1, "")]


def test_warns_of_deputies_in_a_circle_and_of_no_others() -> None:
    deputies = {1: 2, 2: 1, 3: 4, 4: 5, 5: 3, 6: 3, 7: 7, 8: None}
    agents = {n: Agent(n, f"A{n}", (f"a{n}",), deputy_id=deputy) for n, deputy in deputies.items()}
    groups = {1: Group(1, "sales", "priority", tuple(map(Member, agents)))}
    project = Project(7, "acme", 1, overflow="1", agents=agents, groups=groups, rules=rules_of(when()))
    assert sorted((n, by) for kind, _, n, by in said(project) if kind == "deputies_in_a_circle") == [
        (1, "'A2'"),
        (2, "'A1'"),
        (3, "'A4' and 'A5'"),
        (4, "'A5' and 'A3'"),
        (5, "'A3' and 'A4'"),
        (7, "'A7'"),
    ]
    assert len(said(project)) == 6


def test_a_warning_says_what_is_wrong_and_what_to_do() -> None:
    (warning,) = warnings_of(project_of(when(), when()), [])
    assert warning.name == "r2"
    assert warning.message == "can never match: 'r1' above it takes every call that it would match"
    assert warning.remedy == "move it up, narrow what stands above it, or remove it"
    assert all(wording.remedy for wording in WORDINGS.values())


# ---- the law: never a false alarm. A world so small that all its calls can be tried

_NUMBERS = ["", *("".join(digits) for length in (1, 2, 3) for digits in product("01", repeat=length))]
_VALUES = [None, "", "a", "A", "b", "ab", "ba", "(none)"]
_HOURS = [datetime(2026, 11, 23, hour, tzinfo=UTC) for hour in (3, 12)]
_CALLS = [
    Call(caller=caller, params={} if value is None else {"X": value}, direction=direction)
    for caller, value, direction in product(_NUMBERS, _VALUES, ("in", "out"))
]

_PATTERNS = ["0", "1", "01", "001", "0*", "01*", "1*", "00-01", "00-11", "000-011", "001-101", "anonymous"]
_NUMBER_TESTS = st.lists(st.sampled_from(_PATTERNS), min_size=1, max_size=3)
_TESTS = ["a", "B", "ab", "a*", "(*", "*b*", "*", "", "(none)"]
_PARAMS = st.lists(st.sampled_from(_TESTS), min_size=1, max_size=2).map(lambda values: {"x": values})
_KINDS: dict[str, st.SearchStrategy[object]] = {
    "caller": _NUMBER_TESTS,
    "not_caller": _NUMBER_TESTS,
    "params": _PARAMS,
    "not_params": _PARAMS,
    "direction": st.lists(st.sampled_from(["in", "out"]), min_size=1),
    "schedule": st.sampled_from([DAYS, NIGHTS, NEVER]),
    "outside": st.sampled_from([DAYS, NIGHTS]),
    "free": st.integers(1, 2).map(lambda count: {"group": 1, "fewer_than": count}),
    "called_before": st.builds(
        lambda within, is_unanswered: _before(within, "hours", unanswered=is_unanswered),
        st.integers(1, 2),
        st.booleans(),
    ),
}
_PREVIOUS = [PreviousCall(timedelta(hours=hours), told) for hours in (1, 2) for told in (True, False)]


@st.composite
def conditions(draw: st.DrawFn) -> Conditions:
    """Few conditions each, and of few kinds, so that one rule often covers another."""
    kinds = draw(st.lists(st.sampled_from(sorted(_KINDS)), max_size=2, unique=True))
    return when(**{kind: draw(_KINDS[kind]) for kind in kinds})


_NEVER_MATCHES = {"shadowed", "shadowed_by_two", "excludes_itself", "in_and_out", "never_in_hours"}


@settings(max_examples=200)
@given(st.lists(conditions(), min_size=1, max_size=3))
def test_a_rule_said_never_to_match_matches_no_call(some: list[Conditions]) -> None:
    project = project_of(*some)
    dead = {warning.subject_id for warning in warnings_of(project, []) if warning.kind in _NEVER_MATCHES}
    if not dead:
        return
    asks_previous = asks_previous_call(project.rules)
    for call, now, free, previous in product(_CALLS, _HOURS, (0, 1, 2), _PREVIOUS if asks_previous else (None,)):
        facts = Facts(lambda _, free=free: free, previous)  # type: ignore[misc]
        found = first_match(project.index, call, now, facts)
        assert found is None or found.id not in dead


def test_hours_that_end_a_minute_early_are_warned_about() -> None:
    office = parse_schedule("office", "UTC", {"daily": ["00:00-23:59"]}, {"08-24": ["09:00-17:59"]})
    found = [one for one in warnings_of(Project(1, "acme", 1), [office]) if one.kind == "loses_minute"]
    assert [(one.subject, one.name, one.by) for one in found] == [
        ("schedule", "office", ("00:00-23:59", "09:00-17:59"))
    ]
    assert "24:00" in found[0].remedy
