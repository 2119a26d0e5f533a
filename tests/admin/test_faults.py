"""Every error of the rules has a code, and forms have words for each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest

from router.admin.faults import WORDS, words_of_fault
from router.core.dates import DatesError
from router.core.instants import InstantError
from router.core.patterns import PatternError
from router.core.schedule_words import ScheduleError
from router.core.words import WordedError, Wrong

CODES = [*chain.from_iterable(Wrong.__subclasses__())]


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_words_in_a_form(code: Wrong) -> None:
    assert "%" not in str(WORDS[code]) % {"text": "typed"}
    assert code.words
    assert code.help


def test_a_code_means_one_thing() -> None:
    assert len({*CODES}) == len(CODES) > 30


@pytest.mark.parametrize(
    ("error", "arguments"),
    [(PatternError, ()), (DatesError, ()), (InstantError, ()), (ScheduleError, ("open",))],
)
def test_an_error_without_a_code_cannot_be_raised(
    error: Callable[..., WordedError], arguments: tuple[str, ...]
) -> None:
    with pytest.raises((AttributeError, TypeError)):
        error(*arguments, "is not valid", "write another")


def test_a_long_text_is_shown_by_its_beginning() -> None:
    assert len(words_of_fault(PatternError(next(code for code in CODES if code == "range"), text="1" * 999))) < 200
