"""Block callers: one rule at the top holds their numbers, and answers their calls empty.

It is known by how it is built, so that admins may rename it and change it like any other rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from router.configuration.change import Draft
from router.configuration.document import defaults_of
from router.configuration.schema import RuleConfig, WhenConfig, most_of, notation, number_pattern
from router.core.patterns import number_test
from router.db.documents import Document

Row = Mapping[str, Any]

_ANSWER = {"overflow": ""}


def can_block(caller: str, country: str) -> bool:
    """Return whether calls from this caller can be recognised: not if the number is withheld."""
    try:
        return bool(caller) and number_pattern(notation(caller, country, number_pattern), country) == caller
    except ValueError:
        return False


def blocked_by(document: Document, caller: str) -> Row | None:
    """Return the rule that blocks this caller, if any: the first that could take one of their calls decides."""
    first = next((rule for rule in document["rules"] if caller and _may_take(rule, caller)), None)
    return first if first is not None and _is_list(first) else None


def block(draft: Draft, caller: str, name: str) -> int:
    """Block a caller from the next call on, and return the id of the rule that does it, see `Draft.put`.

    A rule that holds plain numbers is extended and moved to the top; any other is extended only if it is there.
    `name`: of a new rule, if no other one has it.
    """
    rules = draft.document["rules"]
    most, number = most_of(WhenConfig, "caller"), notation(caller, draft.document["project"]["country"], number_pattern)
    for rule in filter(_is_list, rules):
        numbers = [*dict.fromkeys([*rule["when"]["caller"], number])]
        if len(numbers) <= most and (rule["id"] == rules[0]["id"] or _is_plain(numbers)):
            rule_id = draft.put("rules", {"when": {"caller": numbers}}, rule["id"])
            break
    else:
        taken = {rule["name"] for rule in rules}
        free = next(one for one in _numbered(name) if one not in taken)
        rule_id = draft.put("rules", {**_ANSWER, "name": free, "when": {"caller": [number]}})
    draft.order("rules", [rule_id, *(rule["id"] for rule in rules if rule["id"] != rule_id)])
    return rule_id


def _is_list(rule: Row) -> bool:
    """Return whether the rule does nothing but block callers."""
    if [*rule["when"]] != ["caller"]:
        return False
    built = {**defaults_of(RuleConfig), **_ANSWER}
    return all(rule[key] == built[key] for key in built.keys() - {"name", "when"})


def _is_plain(numbers: Sequence[str]) -> bool:
    """Return whether these are single numbers, so that a move to the top concerns nobody else."""
    test = number_test(numbers)
    return not (test.prefixes or test.ranges or test.anonymous)


def _may_take(rule: Row, caller: str) -> bool:
    """Return whether the rule could take a call of this caller, if the call fits its other conditions."""
    wanted, excluded = (rule["when"].get(key) for key in ("caller", "not_caller"))
    if not rule["enabled"] or (wanted and not number_test(wanted).matches(caller)):
        return False
    return not (excluded and number_test(excluded).matches(caller))


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} {number}" for number in count(2))
