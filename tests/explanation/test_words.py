"""Messages in words, in any language."""

from __future__ import annotations

import pytest

from router.core.strategies import STRATEGIES
from router.core.words import NN_, Message, Text
from router.explanation.words import ENGLISH, Language


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 day"),
        (200_000, "2 days"),
    ],
)
def test_a_duration_is_told_in_the_units_that_people_use(seconds: float, told: str) -> None:
    assert ENGLISH.duration(seconds) == told


def test_a_short_duration_is_told_exactly_where_that_matters() -> None:
    told = [ENGLISH.duration(seconds, exact=True) for seconds in (0.0064, 0.85, 7, 7.24, 12.4, 204)]
    assert told == ["6 ms", "850 ms", "7 s", "7.2 s", "12 s", "3 min 24 s"]


def test_a_message_is_told_with_its_values_in_the_form_for_their_number() -> None:
    text = Text("calls", *NN_("%(num)s call of %(values)s", "%(num)s calls of %(values)s"))
    assert ENGLISH.say(Message(text, {"num": 1, "values": ["a", "b"]})) == "1 call of a, b"
    assert ENGLISH.say(Message(text, {"num": 2, "values": ["a"]})) == "2 calls of a"


def test_a_message_is_told_in_another_language() -> None:
    shouting = Language(str.upper, lambda one, _many, _number: one)
    assert shouting.say(Message(Text("here", "here"))) == "HERE"


def test_a_message_is_a_code_and_values_for_programs() -> None:
    assert Message(Text("free_for", "free for %(seconds)s"), {"seconds": 3}).as_json() == {
        "code": "free_for",
        "seconds": 3,
    }


def test_every_strategy_has_its_words() -> None:
    assert all(strategy.label and strategy.help for strategy in STRATEGIES.values())
