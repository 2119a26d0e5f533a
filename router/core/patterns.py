"""Reads the notation of conditions: `+38050*`, `380441112200-380441112299`, `anonymous`; `google`, `goo*`, `*oog*`,
`*`.

Numbers are international here; config_file/schema.py has rewritten national notation, where the country is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.core.rules import NumberRange, NumberTest, ParamTest

ANONYMOUS = "anonymous"

_STAR_LAST = "a star may stand at the end only, as in +38050*"


class PatternError(ValueError):
    """A condition's value that means nothing. `value`: as written."""

    def __init__(self, value: str, message: str, remedy: str) -> None:
        super().__init__(f"{value!r} {message}; {remedy}")
        self.value, self.message, self.remedy = value, message, remedy


def number_test(values: Iterable[str]) -> NumberTest:
    """Return the test for a list of numbers, prefixes (`38050*`), ranges (`38044112200-38044112299`), `anonymous`."""
    exact: set[str] = set()
    prefixes: set[str] = set()
    ranges: list[NumberRange] = []
    anonymous = False
    for value in values:
        text = value.strip()
        first, dash, last = (part.strip().lstrip("+") for part in text.partition("-"))
        if text.casefold() == ANONYMOUS:
            anonymous = True
        elif dash and first.isdigit() and last.isdigit():
            if len(first) != len(last) or first > last:
                raise PatternError(
                    value, "is not a valid range", "write two numbers of one length, the lower one first"
                )
            ranges.append(NumberRange(first, last))
        elif text.endswith("*"):
            prefix = text[:-1].lstrip("+")
            if not prefix.strip("*"):
                raise PatternError(
                    value, "matches every number", "write the first digits before the star, or leave the condition out"
                )
            if "*" in prefix:
                raise PatternError(value, "is not a valid number", _STAR_LAST)
            prefixes.add(prefix)
        elif "*" in text or not text.lstrip("+"):
            raise PatternError(value, "is not a valid number", _STAR_LAST)
        else:
            exact.add(text.lstrip("+"))
    return NumberTest(frozenset(exact), tuple(sorted(prefixes)), tuple(ranges), anonymous)


def param_tests(values: Iterable[str]) -> tuple[ParamTest, ...]:
    """Return the tests for one parameter: `text` equals, `text*` begins with, `*text*` contains, `*` is present."""
    tests = []
    for value in values:
        if value == "*":
            tests.append(ParamTest("present"))
        elif len(value) > 2 and value.startswith("*") and value.endswith("*"):
            tests.append(ParamTest("contains", value[1:-1]))
        elif len(value) > 1 and value.endswith("*"):
            tests.append(ParamTest("prefix", value[:-1]))
        elif value.startswith("*"):
            raise PatternError(value, "cannot be searched for", "write *text* for contains, text* for begins with")
        else:
            tests.append(ParamTest("equals", value))
    return tuple(tests)
