"""Find the rule of a call: from top to bottom, the first match wins.

Conditions of different kinds are ANDed, values of one kind ORed (core/conditions.py). An index keeps the cost flat
however many rules there are: only rules whose most selective value occurs in the call are tested, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from router.core.conditions import CalledBefore, Condition, Facts, FewFree, Hours

if TYPE_CHECKING:
    from router.core.model import Call


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
    conditions: tuple[Condition[Any], ...] = ()
    prefer: Preference | None = None
    overflow: str | None = None
    enabled: bool = True
    never: tuple[int, ...] = ()  # agents who are not offered its calls


def counted_groups(rule: Rule) -> list[int]:
    """Return the groups whose free members a condition counts."""
    return [one.value[0] for one in rule.conditions if isinstance(one, FewFree)]


def asks_previous_call(rules: Iterable[Rule]) -> bool:
    """Return whether one of these rules that is enabled has a condition on the caller's previous call."""
    return any(isinstance(one, CalledBefore) for rule in rules if rule.enabled for one in rule.conditions)


def looks_back(rules: Iterable[Rule]) -> timedelta:
    """Return how long ago the caller's previous call may be at most for one of these rules that is enabled."""
    conditions = [one for rule in rules if rule.enabled for one in rule.conditions]
    return max((one.value[0] for one in conditions if isinstance(one, CalledBefore)), default=timedelta(0))


def hours_of(rule: Rule) -> list[Hours]:
    """Return the conditions that ask for hours."""
    return [one for one in rule.conditions if isinstance(one, Hours)]


def mismatch(rule: Rule, call: Call, now: datetime, facts: Facts | None) -> str | None:
    """Return the key of the first condition that fails ("caller", "params.utm_source"), None when the rule matches.

    `facts` None: they are not known yet, and no condition that asks them fails.
    """
    if not rule.enabled:
        return "disabled"
    for condition in rule.conditions:
        if facts is None and condition.asks_facts:
            continue
        if condition.matches(call, now, cast("Facts", facts)) is not condition.wanted:
            return condition.key
    return None


class RuleIndex:
    """The rules by how a text of the call must begin: the dialed number, the caller, or a parameter's value.

    `candidates` yields, in order, every rule that could match, so the first match among them is the first match of all.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self.depends_on_time = any(map(hours_of, rules))
        self.asks_previous_call = asks_previous_call(rules)
        self._by_start: dict[str, dict[str, list[int]]] = {}  # by key of a condition, by the start of its text
        for position, rule in enumerate(self._rules):
            told = ((one.key, starts) for one in rule.conditions if one.wanted and (starts := one.starts()))
            key, starts = next(told, ("", [""]))
            for start in starts if rule.enabled else ():
                self._by_start.setdefault(key, {}).setdefault(start, []).append(position)
        self._lengths = {key: sorted({len(start) for start in starts}) for key, starts in self._by_start.items()}
        self._params = [(key, name) for key in self._by_start if (name := key.partition("params.")[2])]

    def candidates(self, call: Call) -> Iterator[Rule]:
        """Return every rule that could match this call, first to last."""
        texts = {key: call.folded[name].casefold() for key, name in self._params if name in call.folded}
        found = [*self._by_start.get("", {}).get("", ())]
        for key, text in (("dialed", call.dialed), ("caller", call.caller), *texts.items()):
            for length in self._lengths.get(key, ()):
                if length > len(text):
                    break
                found += self._by_start[key].get(text[:length], ())
        return map(self._rules.__getitem__, sorted(set(found)))


def first_match(index: RuleIndex, call: Call, now: datetime, facts: Facts) -> Rule | None:
    """Return the rule of this call, None when no rule matches."""
    return next((rule for rule in index.candidates(call) if mismatch(rule, call, now, facts) is None), None)


def possible_matches(index: RuleIndex, call: Call, now: datetime) -> list[Rule]:
    """Return the rules of which one will match, whatever the facts: their groups must be loaded to decide."""
    found = []
    for rule in index.candidates(call):
        if mismatch(rule, call, now, None) is None:
            found.append(rule)
            if not any(condition.asks_facts for condition in rule.conditions):
                break
    return found


def explain_rules(rules: Sequence[Rule], call: Call, now: datetime, facts: Facts) -> list[tuple[Rule, str]]:
    """Return every rule up to the matching one with why it did not match ("" for the one that did)."""
    told = []
    for rule in rules:
        why = mismatch(rule, call, now, facts)
        told.append((rule, why or ""))
        if why is None:
            break
    return told
