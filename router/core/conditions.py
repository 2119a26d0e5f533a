"""Define the conditions of rules, a class per kind: how its notation is read, its test of a call, why a call failed it,
what it implies.

A condition whose key is the second of its kind excludes: the call must not pass its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from router.core.patterns import NumberTest, ParamTest, number_test, param_tests
from router.core.schedule import Schedule, is_open
from router.core.words import N_, NN_, Message, Text

if TYPE_CHECKING:
    from router.core.model import Call

T = TypeVar("T")
FreeCount = Callable[[int], int]
"""How many members of the group with this id could be offered the call now."""


class PreviousCall(NamedTuple):
    """The latest call of the same caller before this one: how long ago, None if there was none."""

    ago: timedelta | None = None
    is_answered: bool = False  # somebody is known to have talked


class Facts(NamedTuple):
    """What conditions ask of the state that is read for a call. `previous_call` None: not known."""

    free_count: FreeCount
    previous_call: PreviousCall | None = None


@dataclass(frozen=True, slots=True)
class Condition(Generic[T]):
    """One condition. `key`: its key in the configuration file, "caller" or "not_params.utm_source"."""

    key: str
    wanted: bool  # False: it excludes
    value: T

    keys: ClassVar[Sequence[str]]  # of the file: the one that wants, and the one that excludes, if there is one
    parse: ClassVar[Any] = staticmethod(lambda words: words)  # of a key
    asks_facts: ClassVar[bool] = False  # so whatever the call, it may match or not

    @classmethod
    def read(cls, when: Mapping[str, Any]) -> Iterator[Self]:
        """Yield the conditions of this kind that a rule has."""
        for key, wanted in zip(cls.keys, (True, False), strict=False):
            if words := when.get(key):
                yield cls(key, wanted, cls.parse(words))

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        """Return whether the call passes the test, whether that is wanted or excluded."""
        raise NotImplementedError

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        """Return why a call failed it. `when`: of the rule, as the configuration file has it."""
        raise NotImplementedError

    def covers(self, narrow: Self) -> bool:
        """Return whether every call that passes the test of `narrow` surely passes this one."""
        raise NotImplementedError

    def starts(self) -> list[str]:
        """Return the possible beginnings of this key's text in calls that pass, for an index; [] for any."""
        return []


class _Number(Condition[NumberTest]):
    parse = staticmethod(number_test)
    other: ClassVar[Text]  # why a call fails it: another number, none, an excluded one
    none: ClassVar[Text]
    excluded: ClassVar[Text]

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        return self.value.matches(getattr(call, self.keys[0]))

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        number = getattr(call, self.keys[0])
        text = self.excluded if not self.wanted else self.other if number else self.none
        return Message(text, {"number": number, "numbers": when[self.key]})

    def covers(self, narrow: Self) -> bool:
        return self.value.covers(narrow.value)

    def starts(self) -> list[str]:
        numbers = self.value
        return [*numbers.exact, *numbers.prefixes, *(span.start for span in numbers.ranges), *[""] * numbers.anonymous]


class Dialed(_Number):
    keys = ("dialed", "not_dialed")
    other = Text("other_dialed", N_("the dialed number is %(number)s, not %(numbers)s"))
    none = Text("no_dialed", N_("no dialed number was sent; the rule needs %(numbers)s"))
    excluded = Text("dialed_excluded", N_("the dialed number is excluded: %(numbers)s"))


class Caller(_Number):
    keys = ("caller", "not_caller")
    other = Text("other_caller", N_("the caller is not %(numbers)s"))
    none = Text("caller_hidden", N_("the caller withholds the number; the rule needs %(numbers)s"))
    excluded = Text("caller_excluded", N_("the caller is excluded: %(numbers)s"))


class Direction(Condition[frozenset[str]]):
    keys = ("direction",)
    parse = staticmethod(lambda words: frozenset(map(str.casefold, words)))
    other: ClassVar = Text("other_direction", N_("the direction is %(direction)s, not %(values)s"))
    none: ClassVar = Text("no_direction", N_("no direction was sent; the rule needs %(values)s"))

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        return call.direction.casefold() in self.value

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        values = {"direction": call.direction, "values": when[self.key]}
        return Message(self.other if call.direction else self.none, values)

    def covers(self, narrow: Self) -> bool:
        return narrow.value <= self.value


class Param(Condition[tuple[str, tuple[ParamTest, ...]]]):
    """A condition on a parameter. `value`: its case-folded name, and tests that are ORed."""

    keys = ("params", "not_params")
    other: ClassVar = Text("other_param", N_("%(name)s is “%(sent)s”, not %(values)s"))
    empty: ClassVar = Text("empty_param", N_("%(name)s is empty; the rule needs %(values)s"))
    none: ClassVar = Text("no_param", N_("%(name)s was not sent; the rule needs %(values)s"))
    excluded: ClassVar = Text("param_excluded", N_("%(name)s “%(sent)s” is excluded"))

    @classmethod
    def read(cls, when: Mapping[str, Any]) -> Iterator[Self]:
        for key, wanted in zip(cls.keys, (True, False), strict=True):
            for name, words in {name.casefold(): words for name, words in when.get(key, {}).items()}.items():
                yield cls(f"{key}.{name}", wanted, (name, param_tests(words)))

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        name, tests = self.value
        sent = call.folded.get(name)
        return sent is not None and any(test.passes(sent) for test in tests)

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        folded, sent = self.value[0], call.folded.get(self.value[0])
        if not self.wanted:
            return Message(self.excluded, {"name": folded, "sent": sent})
        name, words = next(item for item in when["params"].items() if item[0].casefold() == folded)
        text = self.none if sent is None else self.other if sent else self.empty
        return Message(text, {"name": name, "sent": sent, "values": words})

    def covers(self, narrow: Self) -> bool:
        (name, tests), (other_name, others) = self.value, narrow.value
        return name == other_name and all(any(test.covers(other) for test in tests) for other in others)

    def starts(self) -> list[str]:
        _name, tests = self.value
        return [t.value.casefold() for t in tests] if all(t.kind in ("equals", "prefix") for t in tests) else []


class Hours(Condition[Schedule]):
    keys = ("schedule", "outside")
    out_of_hours: ClassVar = Text("closed", N_("“%(schedule)s” is closed at this time"))
    in_hours: ClassVar = Text("open", N_("“%(schedule)s” is open at this time"))

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        return is_open(self.value, now)

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        return Message(self.out_of_hours if self.wanted else self.in_hours, {"schedule": self.value.name})

    def covers(self, narrow: Self) -> bool:
        return self.value.id == narrow.value.id


class FewFree(Condition[tuple[int, int]]):
    """A condition on free agents. `value`: a group's id, and the number below which the free members must be."""

    keys = ("free",)
    asks_facts = True
    parse = staticmethod(itemgetter("group", "fewer_than"))
    enough: ClassVar = Text(
        "enough_free",
        *NN_(
            "%(num)s member of %(group)s is free, not fewer than %(limit)s",
            "%(num)s members of %(group)s are free, not fewer than %(limit)s",
        ),
    )

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        group_id, limit = self.value
        return facts.free_count(group_id) < limit

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        group_id, limit = self.value
        return Message(self.enough, {"num": facts.free_count(group_id), "group": when["free"]["group"], "limit": limit})

    def covers(self, narrow: Self) -> bool:
        (group_id, limit), (other_id, other_limit) = self.value, narrow.value
        return group_id == other_id and other_limit <= limit


class CalledBefore(Condition[tuple[timedelta, bool]]):
    """A condition on the caller's previous call. `value`: how long ago at most, and whether it must be unanswered."""

    keys = ("called_before",)
    parse = staticmethod(lambda words: (timedelta(**{words["unit"]: words["within"]}), words["unanswered"]))
    asks_facts = True
    hidden: ClassVar = Text("previous_call_hidden", N_("the caller withholds the number, so no earlier call is known"))
    unknown: ClassVar = Text("previous_call_unknown", N_("earlier calls are not known without the database"))
    none: ClassVar = Text("no_previous_call", N_("the caller has not called before"))
    too_long_ago: ClassVar = Text("previous_call_too_long_ago", N_("the caller last called %(seconds)s ago"))
    answered: ClassVar = Text("previous_call_answered", N_("the call %(seconds)s ago was answered"))

    def matches(self, call: Call, now: datetime, facts: Facts) -> bool:
        return self._fault(call, facts) is None

    def why_not(self, call: Call, when: Mapping[str, Any], facts: Facts) -> Message:
        ago = facts.previous_call.ago if facts.previous_call else None
        values = {} if ago is None else {"seconds": ago.total_seconds()}
        return Message(self._fault(call, facts) or self.unknown, values)

    def _fault(self, call: Call, facts: Facts) -> Text | None:
        (within, is_unanswered), previous = self.value, facts.previous_call
        if not call.caller:
            return self.hidden
        if previous is None:
            return self.unknown
        if previous.ago is None:
            return self.none
        if previous.ago > within:
            return self.too_long_ago
        return self.answered if is_unanswered and previous.is_answered else None

    def covers(self, narrow: Self) -> bool:
        (within, is_unanswered), (other_within, is_other_unanswered) = self.value, narrow.value
        return other_within <= within and is_other_unanswered >= is_unanswered


KINDS: Sequence[type[Condition[Any]]] = (Dialed, Caller, Direction, Param, Hours, FewFree, CalledBefore)
"""In the order in which they are tested: the first that fails is told."""


def read_conditions(when: Mapping[str, Any]) -> tuple[Condition[Any], ...]:
    """Return the conditions of a rule from its `when`, in which schedules are values and groups are ids."""
    return tuple(condition for kind in KINDS for condition in kind.read(when))
