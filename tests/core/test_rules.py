"""Which rule a call falls under: each condition by example; and by law that the index never changes the first match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.conditions import Facts, PreviousCall, read_conditions
from router.core.model import Call
from router.core.rules import (
    Rule,
    RuleIndex,
    asks_previous_call,
    counted_groups,
    explain_rules,
    first_match,
    mismatch,
    possible_matches,
)
from router.core.schedule import DAY, Schedule, Span

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OPEN = Schedule(1, "always", weekly=((Span(0, DAY),),) * 7)
CLOSED = Schedule(2, "never")
CALL = Call(
    call_id="c1",
    caller="380501112233",
    dialed="380441112233",
    direction="In",
    params={"UTM_Source": "Google", "client": "42", "tag": "(not set)"},
)


def nobody_free(group_id: int) -> int:
    return 0


NOTHING = Facts(nobody_free)


def rule(rule_id: int = 1, *, enabled: bool = True, **conditions: Any) -> Rule:
    return Rule(rule_id, f"rule {rule_id}", conditions=read_conditions(conditions), enabled=enabled)


def why_not(
    one: Rule, call: Call, free: Callable[[int], int] = nobody_free, previous: PreviousCall | None = None
) -> str | None:
    return mismatch(one, call, NOW, Facts(free, previous))


# ---- each condition


@pytest.mark.parametrize(
    ("conditions", "failing"),
    [
        ({}, None),
        ({"dialed": ["380441112233"]}, None),
        ({"dialed": ["38044*"]}, None),
        ({"dialed": ["380442*", "anonymous"]}, "dialed"),
        ({"not_dialed": ["380442*"]}, None),
        ({"not_dialed": ["38044*"]}, "not_dialed"),
        ({"caller": ["380501112200-380501112299"]}, None),
        ({"caller": ["anonymous"]}, "caller"),
        ({"not_caller": ["anonymous"]}, None),
        ({"not_caller": ["380501112233"]}, "not_caller"),
        ({"direction": ["in", "transitin"]}, None),
        ({"direction": ["out"]}, "direction"),
        ({"params": {"utm_source": ["bing", "GOOGLE"], "client": ["*"]}}, None),
        ({"params": {"utm_source": ["bing"]}}, "params.utm_source"),
        ({"params": {"utm_source": ["google"], "missing": ["*"]}}, "params.missing"),
        ({"params": {"tag": ["*"]}}, "params.tag"),
        ({"not_params": {"missing": ["*"], "utm_source": ["bing*"]}}, None),
        ({"not_params": {"utm_source": ["*oog*"]}}, "not_params.utm_source"),
        ({"schedule": OPEN}, None),
        ({"schedule": CLOSED}, "schedule"),
        ({"outside": CLOSED}, None),
        ({"outside": OPEN}, "outside"),
        ({"free": {"group": 7, "fewer_than": 1}}, None),
        ({"free": {"group": 7, "fewer_than": 0}}, "free"),
    ],
)
def test_each_condition_matches_or_is_named(conditions: dict[str, Any], failing: str | None) -> None:
    assert why_not(rule(**conditions), CALL) == failing


def test_a_rule_that_is_disabled_never_matches() -> None:
    assert why_not(rule(enabled=False), CALL) == "disabled"
    assert list(RuleIndex([rule(enabled=False)]).candidates(CALL)) == []


def test_an_anonymous_caller_matches_anonymous_and_no_number() -> None:
    hidden = replace(CALL, caller="")
    assert why_not(rule(caller=["anonymous"]), hidden) is None
    assert why_not(rule(caller=["380*"]), hidden) == "caller"
    assert why_not(rule(not_caller=["380*"]), hidden) is None


def test_matches_while_fewer_are_free_than_asked_for() -> None:
    few = rule(free={"group": 7, "fewer_than": 2})
    asked: list[int] = []

    def free(count: int) -> Callable[[int], int]:
        def count_of(group_id: int) -> int:
            asked.append(group_id)
            return count

        return count_of

    assert [why_not(few, CALL, free(count)) for count in (0, 1, 2, 3)] == [None, None, "free", "free"]
    assert asked == [7] * 4


@pytest.mark.parametrize(
    ("previous", "code"),
    [
        (PreviousCall(timedelta(hours=2)), None),
        (PreviousCall(timedelta(hours=2, seconds=1)), "previous_call_too_long_ago"),
        (PreviousCall(timedelta(0), is_answered=True), "previous_call_answered"),
        (PreviousCall(), "no_previous_call"),
        (None, "previous_call_unknown"),
    ],
)
def test_matches_who_called_not_long_ago_and_was_not_answered(previous: PreviousCall | None, code: str | None) -> None:
    before = {"within": 2, "unit": "hours", "unanswered": True}
    returning, facts = rule(called_before=before), Facts(nobody_free, previous)
    assert why_not(returning, CALL, previous=previous) == (code and "called_before")
    if code is not None:
        assert returning.conditions[0].why_not(CALL, {"called_before": before}, facts).text.code == code
    whoever = rule(called_before=before | {"unanswered": False})
    assert (why_not(whoever, CALL, previous=previous) is None) == (code in (None, "previous_call_answered"))


def test_a_caller_who_hides_the_number_never_called_before() -> None:
    hidden, previous = replace(CALL, caller=""), PreviousCall(timedelta(0))
    returning = rule(called_before={"within": 10_000, "unit": "days", "unanswered": False})
    assert why_not(returning, hidden, previous=previous) == "called_before"
    why = returning.conditions[0].why_not(hidden, {}, Facts(nobody_free, previous))
    assert why.text.code == "previous_call_hidden"


def test_first_match_wins_top_to_bottom() -> None:
    rules = [rule(1, dialed=["999"]), rule(2, caller=["38050*"]), rule(3)]
    index = RuleIndex(rules)
    assert first_match(index, CALL, NOW, NOTHING) is rules[1]
    assert first_match(index, replace(CALL, caller="1"), NOW, NOTHING) is rules[2]
    assert first_match(RuleIndex(rules[:2]), replace(CALL, caller="1"), NOW, NOTHING) is None
    assert first_match(RuleIndex([]), CALL, NOW, NOTHING) is None


def test_tells_why_each_rule_above_the_match_did_not_match() -> None:
    rules = [rule(1, dialed=["999"]), rule(2, enabled=False), rule(3), rule(4)]
    told = explain_rules(rules, CALL, NOW, NOTHING)
    assert [(found.id, why) for found, why in told] == [(1, "dialed"), (2, "disabled"), (3, "")]


def test_of_parameters_alike_but_for_case_the_first_is_kept() -> None:
    assert Call(params={"Tag": "a", "TAG": "b", "Straße": "c"}).folded == {"tag": "a", "strasse": "c"}


# ---- the index

DICE = Random(7)  # what rules are drawn from is always the same; which rules and calls meet is Hypothesis' choice


def some(values: list[str]) -> list[str]:
    return DICE.sample(values, DICE.choice([1, 1, 2, 3]))


def some_numbers() -> Any:
    return some(["0", "1", "01", "10", "0*", "1*", "01*", "101*", "00-01", "1-1", "anonymous"])


def some_params() -> Any:
    names = some(["x", "y", "ss"])
    return {name: some(["a", "A", "b", "a*", "*b*", "*", "", "ß", "SS"]) for name in names}


DRAWN: dict[str, Callable[[], Any]] = {
    "caller": some_numbers,
    "not_caller": some_numbers,
    "dialed": some_numbers,
    "not_dialed": some_numbers,
    "params": some_params,
    "not_params": some_params,
    "direction": lambda: ["in"],
    "schedule": lambda: DICE.choice([OPEN, CLOSED]),
    "outside": lambda: DICE.choice([OPEN, CLOSED]),
    "free": lambda: {"group": DICE.choice([1, 2]), "fewer_than": DICE.randint(0, 2)},
    "called_before": lambda: {"within": DICE.choice([1, 3]), "unit": "hours", "unanswered": DICE.random() < 0.5},
}
# Most have one condition: with many, next to none would ever match.
SOME_CONDITIONS = [
    read_conditions({kind: DRAWN[kind]() for kind in kinds})
    for kinds in (
        *[("caller",), ("dialed",), ("params",)] * 50,
        *((kind,) for kind in DRAWN for _ in range(4)),
        *(DICE.sample(sorted(DRAWN), 3) for _ in range(20)),
        (),
    )
]
SOME_CALLS = [
    Call(caller=caller, dialed=dialed, direction=direction, params=params)
    for caller in ("", "0", "1", "01", "10", "010", "101")
    for dialed, direction in (("", ""), ("0", "IN"), ("01", "out"), ("101", "in"))
    for params in ({}, {"X": "a", "x": "b"}, {"y": "A"}, {"ß": "ẞ"}, {"x": "-1", "y": "ab"}, {"ss": ""})
]
RULES = st.lists(st.sampled_from(SOME_CONDITIONS), max_size=8).map(
    lambda drawn: [Rule(n, f"rule {n}", conditions=c, enabled=n % 5 != 3) for n, c in enumerate(drawn)]
)
CALLS = st.sampled_from(SOME_CALLS)
FREE = st.sampled_from([{}, {1: 1}, {2: 1}, {1: 2, 2: 2}]).map(lambda free: lambda group_id: free.get(group_id, 0))


PREVIOUS = st.sampled_from([None, PreviousCall(), PreviousCall(timedelta(hours=2)), PreviousCall(timedelta(0), True)])
FACTS = st.builds(Facts, FREE, PREVIOUS)


def plain_scan(rules: list[Rule], call: Call, facts: Facts) -> Rule | None:
    return next((each for each in rules if why_not(each, call, *facts) is None), None)


def test_the_index_leaves_out_no_rule_that_matches() -> None:
    for n, conditions in enumerate(SOME_CONDITIONS):
        alone = Rule(n, f"rule {n}", conditions=conditions)
        index = RuleIndex([alone])
        for call in SOME_CALLS:
            if why_not(alone, call) is None:
                assert list(index.candidates(call)) == [alone], call
                assert possible_matches(index, call, NOW) == [alone], call


@given(RULES, CALLS, FACTS)
def test_the_index_never_changes_the_first_match(rules: list[Rule], call: Call, facts: Facts) -> None:
    index = RuleIndex(rules)
    assert first_match(index, call, NOW, facts) is plain_scan(rules, call, facts)
    candidates = list(index.candidates(call))
    assert candidates == [each for each in rules if each in candidates], "in order, each once"
    left_out = [each for each in rules if each not in candidates]
    assert all(mismatch(each, call, NOW, None) is not None for each in left_out)


@given(RULES, CALLS, FACTS)
def test_the_match_is_among_those_that_were_prepared_for(rules: list[Rule], call: Call, facts: Facts) -> None:
    found = first_match(RuleIndex(rules), call, NOW, facts)
    prepared = possible_matches(RuleIndex(rules), call, NOW)
    assert found is None or found in prepared
    assert all(counted_groups(rule) or asks_previous_call([rule]) for rule in prepared[:-1])


def test_looks_at_few_rules_however_many_there_are() -> None:
    rules = [rule(n, dialed=[f"38044{n:07}"]) for n in range(1000)]
    rules += [rule(2000, params={"utm_source": ["google", "bing"]}), rule(2001)]
    index = RuleIndex(rules)
    looked_at = [each.id for each in index.candidates(replace(CALL, dialed="380440000500"))]
    assert looked_at == [500, 2000, 2001]
