"""The notation of conditions: `+38050*`, `380441112200-380441112299`, `anonymous`; `google`, `goo*`, `*oog*`, `*`.

Numbers are international here; configuration/schema.py has rewritten national notation, where the country is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from router.core.words import WordedError, Wrong

ANONYMOUS = "anonymous"

# What marketing and telephony systems send when they have nothing to say (shared/ringostat: parameter vocabulary).
UNSET = frozenset({"", "-1", "(none)", "(direct)", "(not set)"})


class WrongPattern(Wrong):
    RANGE = "range", "%(text)r is not a valid range", "write two numbers of one length, the lower one first"
    EVERY = (
        "every",
        "%(text)r matches every number",
        "write the first digits before the star, or leave the condition out",
    )
    STAR = "star", "%(text)r is not a valid number", "a star may stand at the end only, as in +38050*"
    LONG = "long_number", "%(text)r is not a valid number", "write at most %(n)s visible characters"
    NUMBER = (
        "number",
        "%(text)r is not a valid number",
        f"write it as +380441112233, as +38050* for all that begin so, or {ANONYMOUS}",
    )
    HIDDEN = "hidden_number", "%(text)r stands for a hidden number", f"write {ANONYMOUS}"
    EMPTY = "empty_value", "%(text)r is empty", "write a value, or * for any"
    VALUE = "value", "%(text)r is not a valid value", "write at most %(n)s visible characters"
    STARS = "stars", "%(text)r has a star too many", "write *text* for contains, text* for begins with"
    SEARCH = "search", "%(text)r cannot be searched for", "write *text* for contains, text* for begins with"


class PatternError(WordedError):
    """A condition's value that means nothing. `values["text"]`: as written."""


# ---- numbers


class NumberRange(NamedTuple):
    """Numbers of one length between two, both included."""

    first: str
    last: str

    def holds(self, number: str) -> bool:
        return len(number) == len(self.first) and self.first <= number <= self.last

    @property
    def start(self) -> str:
        """The digits with which all of them begin."""
        return next(self.first[:n] for n in range(len(self.first), -1, -1) if self.last.startswith(self.first[:n]))


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
            number in self.exact or number.startswith(self.prefixes) or any(span.holds(number) for span in self.ranges)
        )

    def covers(self, narrow: NumberTest) -> bool:
        """Return whether this matches every number that `narrow` matches."""
        return (
            (self.anonymous or not narrow.anonymous)
            and all(self.matches(number) for number in narrow.exact)
            and all(prefix.startswith(self.prefixes) for prefix in narrow.prefixes)
            and all(
                # Of one length, so what begins both ends begins all between them.
                any(span.first.startswith(prefix) and span.last.startswith(prefix) for prefix in self.prefixes)
                or any(other.holds(span.first) and other.holds(span.last) for other in self.ranges)
                for span in narrow.ranges
            )
        )


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
                raise PatternError(WrongPattern.RANGE, text=value)
            ranges.append(NumberRange(first, last))
        elif text.endswith("*"):
            prefix = text[:-1].lstrip("+")
            if not prefix.strip("*"):
                raise PatternError(WrongPattern.EVERY, text=value)
            if "*" in prefix:
                raise PatternError(WrongPattern.STAR, text=value)
            prefixes.add(prefix)
        elif "*" in text or not text.lstrip("+"):
            raise PatternError(WrongPattern.STAR, text=value)
        else:
            exact.add(text.lstrip("+"))
    return NumberTest(frozenset(exact), tuple(sorted(prefixes)), tuple(ranges), anonymous)


# ---- values of parameters


class ParamTest(NamedTuple):
    """One test of a hook parameter: `kind` names an entry of PARAM_TESTS."""

    kind: str
    value: str = ""

    def passes(self, sent: str) -> bool:
        return PARAM_TESTS[self.kind](sent, self.value)

    def covers(self, narrow: ParamTest) -> bool:
        """Return whether each value that passes `narrow`, and so holds its text, passes this."""
        if narrow.kind == "present":
            return self.kind == "present"
        if self.kind == "present":
            return not any(narrow.passes(unset) for unset in UNSET)
        return self.kind in _IMPLIED[narrow.kind] and self.passes(narrow.value)


PARAM_TESTS: dict[str, Callable[[str, str], bool]] = {
    "equals": lambda sent, value: sent.casefold() == value.casefold(),
    "prefix": lambda sent, value: sent.casefold().startswith(value.casefold()),
    "contains": lambda sent, value: value.casefold() in sent.casefold(),
    "present": lambda sent, _: sent not in UNSET,
}
_IMPLIED = {"equals": {"equals", "prefix", "contains"}, "prefix": {"prefix", "contains"}, "contains": {"contains"}}


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
            raise PatternError(WrongPattern.SEARCH, text=value)
        else:
            tests.append(ParamTest("equals", value))
    return tuple(tests)
