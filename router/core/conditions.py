"""Define the conditions of rules, a class per kind: how its notation is read, its test of a call, what it implies.

A condition whose key is the second of its kind excludes: the call must not pass its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from router.core.patterns import NumberTest, ParamTest, number_test, param_tests
from router.core.schedule import Schedule, is_open

if TYPE_CHECKING:
    from router.core.model import Call

T = TypeVar("T")
FreeCount = Callable[[int], int]
"""How many members of the group with this id could be offered the call now."""


@dataclass(frozen=True, slots=True)
class Condition(Generic[T]):
    """One condition. `key`: its key in the configuration file, "caller" or "not_params.utm_source"."""

    key: str
    wanted: bool  # False: it excludes
    value: T

    keys: ClassVar[Sequence[str]]  # of the file: the one that wants, and the one that excludes, if there is one
    parse: ClassVar[Any] = staticmethod(lambda words: words)  # of a key

    @classmethod
    def read(cls, when: Mapping[str, Any]) -> Iterator[Self]:
        """Yield the conditions of this kind that a rule has."""
        for key, wanted in zip(cls.keys, (True, False), strict=False):
            if words := when.get(key):
                yield cls(key, wanted, cls.parse(words))

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        """Return whether the call passes the test, whether that is wanted or excluded."""
        raise NotImplementedError

    def covers(self, narrow: Self) -> bool:
        """Return whether every call that passes the test of `narrow` surely passes this one."""
        raise NotImplementedError

    def starts(self) -> list[str]:
        """Return the possible beginnings of this key's text in calls that pass, for an index; [] for any."""
        return []


class _Number(Condition[NumberTest]):
    parse = staticmethod(number_test)

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        return self.value.matches(getattr(call, self.keys[0]))

    def covers(self, narrow: Self) -> bool:
        return self.value.covers(narrow.value)

    def starts(self) -> list[str]:
        numbers = self.value
        return [*numbers.exact, *numbers.prefixes, *(span.start for span in numbers.ranges), *[""] * numbers.anonymous]


class Dialed(_Number):
    keys = ("dialed", "not_dialed")


class Caller(_Number):
    keys = ("caller", "not_caller")


class Direction(Condition[frozenset[str]]):
    keys = ("direction",)
    parse = staticmethod(lambda words: frozenset(map(str.casefold, words)))

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        return call.direction.casefold() in self.value

    def covers(self, narrow: Self) -> bool:
        return narrow.value <= self.value


class Param(Condition[tuple[str, tuple[ParamTest, ...]]]):
    """A condition on a parameter. `value`: its case-folded name, and tests that are ORed."""

    keys = ("params", "not_params")

    @classmethod
    def read(cls, when: Mapping[str, Any]) -> Iterator[Self]:
        for key, wanted in zip(cls.keys, (True, False), strict=True):
            for name, words in {name.casefold(): words for name, words in when.get(key, {}).items()}.items():
                yield cls(f"{key}.{name}", wanted, (name, param_tests(words)))

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        name, tests = self.value
        sent = call.folded.get(name)
        return sent is not None and any(test.passes(sent) for test in tests)

    def covers(self, narrow: Self) -> bool:
        (name, tests), (other_name, others) = self.value, narrow.value
        return name == other_name and all(any(test.covers(other) for test in tests) for other in others)

    def starts(self) -> list[str]:
        _name, tests = self.value
        return [t.value.casefold() for t in tests] if all(t.kind in ("equals", "prefix") for t in tests) else []


class Hours(Condition[Schedule]):
    keys = ("schedule", "outside")

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        return is_open(self.value, now)

    def covers(self, narrow: Self) -> bool:
        return self.value.id == narrow.value.id


class FewFree(Condition[tuple[int, int]]):
    """A condition on free agents. `value`: a group's id, and the number below which the free members must be."""

    keys = ("free",)
    parse = staticmethod(itemgetter("group", "fewer_than"))

    def matches(self, call: Call, now: datetime, free_count: FreeCount) -> bool:
        group_id, limit = self.value
        return free_count(group_id) < limit

    def covers(self, narrow: Self) -> bool:
        (group_id, limit), (other_id, other_limit) = self.value, narrow.value
        return group_id == other_id and other_limit <= limit


KINDS: Sequence[type[Condition[Any]]] = (Dialed, Caller, Direction, Param, Hours, FewFree)
"""In the order in which they are tested: the first that fails is told."""


def read_conditions(when: Mapping[str, Any]) -> tuple[Condition[Any], ...]:
    """Return the conditions of a rule from its `when`, in which schedules are values and groups are ids."""
    return tuple(condition for kind in KINDS for condition in kind.read(when))
