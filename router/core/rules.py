"""Finds the rule of a call: from top to bottom, the first match wins.

Conditions of different kinds are ANDed, values of one kind ORed. An index keeps the cost flat however many rules there
are: only rules whose most selective value occurs in the call are tested, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from router.core.schedule import Schedule, is_open

if TYPE_CHECKING:
    from router.core.model import Call

FreeCount = Callable[[int], int]
"""How many members of the group with this id could be offered the call now."""

# What marketing and telephony systems send when they have nothing to say (shared/ringostat: parameter vocabulary).
UNSET = frozenset({"", "-1", "(none)", "(direct)", "(not set)"})


class NumberRange(NamedTuple):
    """Numbers of one length between two, both included."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class NumberTest:
    """A test whether a number is one of these values, which are ORed."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    ranges: tuple[NumberRange, ...] = ()
    anonymous: bool = False

    def matches(self, number: str) -> bool:
        if not number:
            return self.anonymous
        return (
            number in self.exact
            or number.startswith(self.prefixes)
            or any(len(number) == len(r.first) and r.first <= number <= r.last for r in self.ranges)
        )


class ParamTest(NamedTuple):
    """One test of a hook parameter: `kind` names an entry of PARAM_TESTS."""

    kind: str
    value: str = ""


PARAM_TESTS: dict[str, Callable[[str, str], bool]] = {
    "equals": lambda sent, value: sent.casefold() == value.casefold(),
    "prefix": lambda sent, value: sent.casefold().startswith(value.casefold()),
    "contains": lambda sent, value: value.casefold() in sent.casefold(),
    "present": lambda sent, _: sent not in UNSET,
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """`not_*` exclude. Names of parameters are kept and compared case-folded."""

    caller: NumberTest | None = None
    not_caller: NumberTest | None = None
    dialed: NumberTest | None = None
    not_dialed: NumberTest | None = None
    params: Mapping[str, tuple[ParamTest, ...]] = field(default_factory=dict)
    not_params: Mapping[str, tuple[ParamTest, ...]] = field(default_factory=dict)
    direction: frozenset[str] = frozenset()
    inside: Schedule | None = None
    outside: Schedule | None = None
    free_group_id: int | None = None
    free_fewer_than: int = 0


@dataclass(frozen=True, slots=True)
class Preference:
    """The agent to try before the chain: the last one who talked with this caller, or the one named in a parameter."""

    last_agent: bool = False
    param: str = ""
    within: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions → chain of groups → overflow (None: not set here; "": answer empty on purpose)."""

    id: int
    name: str
    group_ids: tuple[int, ...] = ()
    conditions: Conditions = Conditions()
    prefer: Preference | None = None
    overflow: str | None = None
    enabled: bool = True


def mismatch(rule: Rule, call: Call, now: datetime, free_count: FreeCount) -> str | None:
    """Return the first kind of condition that fails ("caller", "params.utm_source", …), None when the rule matches."""
    if not rule.enabled:
        return "disabled"
    when = rule.conditions
    for kind, test, number, wanted in (
        ("dialed", when.dialed, call.dialed, True),
        ("not_dialed", when.not_dialed, call.dialed, False),
        ("caller", when.caller, call.caller, True),
        ("not_caller", when.not_caller, call.caller, False),
    ):
        if test is not None and test.matches(number) is not wanted:
            return kind
    if when.direction and call.direction.casefold() not in when.direction:
        return "direction"
    if (when.params or when.not_params) and (failing := _failing_param(when, folded_params(call.params))):
        return failing
    if when.inside is not None and not is_open(when.inside, now):
        return "schedule"
    if when.outside is not None and is_open(when.outside, now):
        return "outside"
    if when.free_group_id is not None and free_count(when.free_group_id) >= when.free_fewer_than:
        return "free"
    return None


def _failing_param(when: Conditions, sent: Mapping[str, str]) -> str:
    for name, tests in when.params.items():
        if not _any_passes(tests, sent.get(name)):
            return f"params.{name}"
    for name, tests in when.not_params.items():
        if _any_passes(tests, sent.get(name)):
            return f"not_params.{name}"
    return ""


def folded_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters by case-folded name; of names alike but for case the first is kept."""
    folded: dict[str, str] = {}
    for name, value in params.items():
        folded.setdefault(name.casefold(), value)
    return folded


def _any_passes(tests: Sequence[ParamTest], sent: str | None) -> bool:
    return sent is not None and any(PARAM_TESTS[test.kind](sent, test.value) for test in tests)


class RuleIndex:
    """The rules by their most selective value: a dialed number, a caller, or a parameter's value.

    `_always` holds rules without such a value. `candidates` yields, in order, every rule that could match, so the first
    match among them is the first match of all.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self.depends_on_time = any(rule.conditions.inside or rule.conditions.outside for rule in rules)
        self._always: list[int] = []
        self._by_value: dict[tuple[str, str], list[int]] = {}
        self._prefix_lengths: dict[str, list[int]] = {"dialed": [], "caller": []}
        self._param_names: tuple[str, ...] = ()
        lengths: dict[str, set[int]] = {"dialed": set(), "caller": set()}
        names: set[str] = set()
        for position, rule in enumerate(self._rules):
            if not rule.enabled:
                continue
            values = _telling_values(rule.conditions)
            for kind, value in values:
                self._by_value.setdefault((kind, value), []).append(position)
                if kind in lengths:
                    lengths[kind].add(len(value))
                elif kind.startswith("param."):
                    names.add(kind.removeprefix("param."))
            if not values:
                self._always.append(position)
        self._prefix_lengths = {kind: sorted(found) for kind, found in lengths.items()}
        self._param_names = tuple(sorted(names))

    def candidates(self, call: Call) -> Iterator[Rule]:
        """Return every rule that could match this call, first to last."""
        if not self._by_value:
            return map(self._rules.__getitem__, self._always)
        found = list(self._always)
        for kind, number in (("dialed", call.dialed), ("caller", call.caller)):
            for length in self._prefix_lengths[kind]:
                if length > len(number):
                    break
                found += self._by_value.get((kind, number[:length]), ())
            if not number:
                found += self._by_value.get((kind, ""), ())
        if self._param_names:
            sent = folded_params(call.params)
            for name in self._param_names:
                if name in sent:
                    found += self._by_value.get((f"param.{name}", sent[name].casefold()), ())
        return map(self._rules.__getitem__, sorted(set(found)))


def _telling_values(when: Conditions) -> list[tuple[str, str]]:
    """Return values of one kind, one of which occurs in each call that matches; [] when there is no such kind.

    A number stands for itself and for all that begin with it, which is wider than `exact`: that is safe, since
    candidates are tested in full.
    """
    for kind, test in (("dialed", when.dialed), ("caller", when.caller)):
        if test is not None and not test.ranges:
            values = [(kind, value) for value in (*test.exact, *test.prefixes)]
            return [*values, (kind, "")] if test.anonymous else values
    for name, tests in when.params.items():
        if all(test.kind == "equals" for test in tests):
            return [(f"param.{name}", test.value.casefold()) for test in tests]
    return []


def first_match(index: RuleIndex, call: Call, now: datetime, free_count: FreeCount) -> Rule | None:
    """Return the rule of this call, None when no rule matches."""
    for rule in index.candidates(call):
        if mismatch(rule, call, now, free_count) is None:
            return rule
    return None


def possible_matches(index: RuleIndex, call: Call, now: datetime) -> list[Rule]:
    """Return the rules one of which will match, whoever is free: what must be loaded to decide."""
    found = []
    for rule in index.candidates(call):
        if mismatch(rule, call, now, lambda _: -1) is None:  # as if nobody were free: never "free"
            found.append(rule)
            if rule.conditions.free_group_id is None:
                break
    return found


def explain_rules(rules: Sequence[Rule], call: Call, now: datetime, free_count: FreeCount) -> list[tuple[Rule, str]]:
    """Return every rule up to the matching one with why it did not match ("" for the one that did)."""
    told = []
    for rule in rules:
        why = mismatch(rule, call, now, free_count)
        told.append((rule, why or ""))
        if why is None:
            break
    return told
