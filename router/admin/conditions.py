"""Define the kinds of conditions for the pages: their inputs, and their part of a rule's sentence.

They work on the notation of the configuration file's `when`. core/conditions.py tests calls.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from router.admin.faults import words_of_fault
from router.admin.forms.parts import TypedRow, is_whole
from router.admin.i18n import READER, _, lazy, ngettext
from router.admin.page import current_project
from router.configuration.schema import (
    CalledBeforeConfig,
    Config,
    FreeConfig,
    SchemaError,
    bounds,
    check_direction,
    check_param_name,
    check_param_value,
    notation,
    notes_of,
    number_pattern,
)
from router.core.patterns import PatternError, WrongPattern, param_tests
from router.core.words import NN_

Words = dict[str, Any]
"""The words of `when`, by key."""

Known = Mapping[str, Mapping[str, int]]
"""The ids of "schedules" and "groups", by name."""


@dataclass
class Row(TypedRow):
    """A condition as typed. `name`: of a parameter or a group, or the value's unit. `value`: several are separated by
    commas. One of no known kind or comparison is of the first."""

    kind: str = ""
    op: str = ""
    name: str = ""
    value: str = ""

    def __post_init__(self) -> None:
        kind = KINDS.get(self.kind) or KINDS["caller"]
        self.kind, self.op = kind.name, kind.op(self.op).name

    def refuse(self, wrong: str, part: str = "value") -> None:
        """Set the error of an input, "" for none."""
        self.errors |= {part: wrong} if wrong else {}

    def __str__(self) -> str:
        kind = KINDS[self.kind]
        name, unit = ("", kind.units.get(self.name, "")) if kind.units else (self.name, "")
        parts = (name, kind.op(self.op).label, self.value, unit)
        return f"{kind.label}: {' '.join(str(part) for part in parts if part)}"


class Op(NamedTuple):
    """A comparison. `key`: of its values in `when`. `phrase`: the text before them in a rule's sentence."""

    name: str
    key: str
    label: Any
    phrase: Any = None


class Phrase(NamedTuple):
    """A part of a rule's sentence: text, values one of which is enough, the name of a parameter.

    Phrases of one key have one text, which the page looks up once.
    """

    key: str
    text: Any
    values: Sequence[str]
    name: str = ""


class Kind:
    """A kind of condition with a list of values. Kinds of another form override the methods."""

    name: ClassVar[str]
    label: ClassVar[Any]
    ops: ClassVar[Sequence[Op]]  # the default first
    example = ""
    help: ClassVar[Any] = ""
    missing: ClassVar[Any] = ""  # the message for an input without a value
    name_label: ClassVar[Any] = ""  # of the input for a name; "": it has none
    chosen = ""  # "schedules": the value is one of them; "groups": the name is
    units: ClassVar[Mapping[str, Any]] = {}  # of the value, which is a number: one of them is the name
    is_single = False  # only one row of it
    reads: ClassVar[Any]  # normalises a value, given the country
    show: ClassVar[Any] = staticmethod(str)  # renders a value as people read it

    def op(self, name: str) -> Op:
        """Return the comparison of this name, else the default."""
        return next((op for op in self.ops if op.name == name), self.ops[0])

    def read(self, text: str) -> str:
        """Normalise a typed value. Raises PatternError or SchemaError."""
        return str(self.reads(text, current_project().country))

    def rows(self, when: Words) -> Iterator[Row]:
        """Yield the rows that the page of a rule shows."""
        for op in self.ops:
            if words := when.get(op.key):
                values = (notation(word, current_project().country, self.reads) for word in words)
                yield Row(self.name, op.name, "", join_values(values))

    def check(self, row: Row, known: Known) -> None:
        """Set the errors of a row."""
        values = split_values(row.value)
        row.refuse(first_refused(values, self.read, self.missing) if values else str(self.missing))

    def store(self, row: Row, when: Words) -> None:
        """Add a row without an error to `when`."""
        _extend(when, self.op(row.op).key, map(self.read, split_values(row.value)))

    def phrases(self, when: Words) -> Iterator[Phrase]:
        """Yield the condition's parts of a rule's sentence."""
        for op in self.ops:
            if words := when.get(op.key):
                yield Phrase(op.key, op.phrase, self._shown(words))

    def _shown(self, words: Any) -> list[str]:
        return [*map(self.show, [words] if isinstance(words, str) else words)]


def _extend(words: Words, key: str, more: Iterable[str]) -> None:
    words[key] = [*dict.fromkeys([*words.get(key, ()), *more])]


class Caller(Kind):
    name, label = "caller", lazy("Caller")
    ops = (
        Op("is", "caller", lazy("is"), lazy("from")),
        Op("is_not", "not_caller", lazy("is not"), lazy("not from")),
    )
    example = "+38050*, 0671234567, anonymous"
    help = lazy("Numbers, first digits with *, ranges with –, or “anonymous”. Separate several with commas.")
    missing = lazy("Write a number, or remove the condition.")
    reads, show = staticmethod(number_pattern), staticmethod(READER.pattern)


class Dialed(Kind):
    name, label = "dialed", lazy("Dialed number")
    ops = (
        Op("is", "dialed", lazy("is"), lazy("to")),
        Op("is_not", "not_dialed", lazy("is not"), lazy("not to")),
    )
    example, help, missing = (
        "380441112233",
        lazy("The number that was called. Separate several with commas."),
        Caller.missing,
    )
    reads, show = staticmethod(number_pattern), staticmethod(READER.pattern)


class Param(Kind):
    name, label, name_label = "param", lazy("Parameter"), lazy("Parameter")
    ops = (
        Op("equals", "params", lazy("is"), lazy("with")),
        Op("prefix", "params", lazy("begins with")),
        Op("contains", "params", lazy("contains")),
        Op("present", "params", lazy("is sent")),
        Op("not_equals", "not_params", lazy("is not"), lazy("without")),
        Op("not_prefix", "not_params", lazy("does not begin with")),
        Op("not_contains", "not_params", lazy("does not contain")),
        Op("not_present", "not_params", lazy("is not sent")),
    )
    example = "google, bing"
    help = lazy("A call parameter as Ringostat sends it. Separate several values with commas.")

    def rows(self, when: Words) -> Iterator[Row]:
        for key, no in (("params", ""), ("not_params", "not_")):
            for name, words in when.get(key, {}).items():
                values: dict[str, list[str]] = {}
                for kind, value in _tests(words):
                    values.setdefault(kind, []).extend([value] if value else [])
                yield from (Row(self.name, no + kind, name, join_values(some)) for kind, some in values.items())

    def check(self, row: Row, known: Known) -> None:
        if not row.name:
            row.refuse(_("Write the parameter’s name as Ringostat sends it: utm_source."), "name")
        else:
            row.refuse(first_refused([row.name], check_param_name, _("Not a valid name of a parameter.")), "name")
        values = split_values(row.value)
        if not values and not row.op.endswith("present"):
            row.refuse(_("Write a value, or choose “is sent”."))
        elif starred := next((value for value in values if value.startswith("*") or value.endswith("*")), None):
            row.refuse(words_of_fault(PatternError(WrongPattern.STARS, text=starred)))
        else:
            row.refuse(first_refused(self._words(row), check_param_value))

    def store(self, row: Row, when: Words) -> None:
        tests = when.setdefault(self.op(row.op).key, {})
        name = next((name for name in tests if name.casefold() == row.name.casefold()), row.name)
        _extend(tests, name, self._words(row))

    def phrases(self, when: Words) -> Iterator[Phrase]:
        dots = {"equals": "{}", "prefix": "{}…", "contains": "…{}…"}
        for op in (op for op in self.ops if op.phrase is not None):
            for name, words in when.get(op.key, {}).items():
                values = [dots[kind].format(value) for kind, value in _tests(words) if value]
                yield Phrase(op.key, op.phrase, values, name)

    def _words(self, row: Row) -> list[str]:
        stars = {"equals": "{}", "prefix": "{}*", "contains": "*{}*"}
        kind = row.op.removeprefix("not_")
        return ["*"] if kind == "present" else [stars[kind].format(value) for value in split_values(row.value)]


def _tests(words: Sequence[str]) -> Sequence[tuple[str, str]]:
    try:
        return param_tests(words)
    except PatternError:  # stored by another release: shown unchanged, and refused when saved
        return [("equals", word) for word in words]


class Direction(Kind):
    name, label = "direction", lazy("Direction")
    ops = (Op("is", "direction", lazy("is"), lazy("of direction")),)
    example, help = "in, callback", lazy("in, out, callback, transitin, transitout")
    missing = lazy("Write one or more of in, out, callback, transitin, transitout.")
    reads = staticmethod(check_direction)


class Hours(Kind):
    name, label, chosen, is_single = "schedule", lazy("Time"), "schedules", True
    ops = (
        Op("inside", "schedule", lazy("within"), lazy("within")),
        Op("outside", "outside", lazy("outside"), lazy("outside")),
    )

    def rows(self, when: Words) -> Iterator[Row]:
        yield from (Row(self.name, op.name, "", when[op.key]) for op in self.ops if op.key in when)

    def check(self, row: Row, known: Known) -> None:
        if row.value not in known["schedules"]:
            row.refuse(_("This schedule no longer exists: choose another."))

    def store(self, row: Row, when: Words) -> None:
        when[self.op(row.op).key] = row.value


class FewFree(Kind):
    name, label, name_label, chosen, is_single = "free", lazy("Free agents"), lazy("Group"), "groups", True
    ops = (Op("fewer", "free", lazy("has fewer free than")),)
    example, help = "2", lazy("Agents of the group who could take the call now.")

    def rows(self, when: Words) -> Iterator[Row]:
        if free := when.get("free"):
            yield Row(self.name, "fewer", free["group"], str(free["fewer_than"]))

    def check(self, row: Row, known: Known) -> None:
        if row.name not in known["groups"]:
            row.refuse(_("This group no longer exists: choose another."), "name")
        row.refuse(_fault_of_number(row.value, FreeConfig, "fewer_than"))

    def store(self, row: Row, when: Words) -> None:
        when["free"] = {"group": row.name, "fewer_than": int(row.value)}

    def phrases(self, when: Words) -> Iterator[Phrase]:
        if free := when.get("free"):
            text = _("when fewer than %(n)s are free in", n=free["fewer_than"])
            yield Phrase(text, text, [free["group"]])


class CalledBefore(Kind):
    name, label, is_single = "called_before", lazy("Called before"), True
    ops = (
        Op("any", "called_before", lazy("in the last"), lazy("of callers who called in the last")),
        Op("unanswered", "called_before", lazy("unanswered"), lazy("of callers who were not answered in the last")),
    )
    example = "2"
    help = lazy("Looks at the caller’s previous call. “Unanswered”: as far as is known, nobody talked with the caller.")
    units: ClassVar = {
        unit: lazy(label) for unit, label in notes_of(CalledBeforeConfig.model_fields["unit"]).words.items()
    }
    spans: ClassVar[Mapping[str, tuple[str, str]]] = {
        "minutes": NN_("%(num)s minute", "%(num)s minutes"),
        "hours": NN_("%(num)s hour", "%(num)s hours"),
        "days": NN_("%(num)s day", "%(num)s days"),
    }

    def rows(self, when: Words) -> Iterator[Row]:
        if before := when.get("called_before"):
            yield Row(self.name, self._op(before).name, before["unit"], str(before["within"]))

    def check(self, row: Row, known: Known) -> None:
        row.refuse(_fault_of_number(row.value, CalledBeforeConfig, "within"))

    def store(self, row: Row, when: Words) -> None:
        unit = row.name if row.name in self.units else next(iter(self.units))
        is_unanswered = row.op == "unanswered"
        when["called_before"] = {"within": int(row.value), "unit": unit, "unanswered": is_unanswered}

    def phrases(self, when: Words) -> Iterator[Phrase]:
        if before := when.get("called_before"):
            op, (one, many) = self._op(before), self.spans[before["unit"]]
            yield Phrase(op.name, op.phrase, [ngettext(one, many, before["within"])])

    def _op(self, before: Words) -> Op:
        return self.op("unanswered" if before["unanswered"] else "any")


_ALL = (Caller(), Dialed(), Param(), Direction(), Hours(), FewFree(), CalledBefore())
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
"""In the order of the pages."""


# ---- values


def _fault_of_number(text: str, model: type[Config], key: str) -> str:
    limits = bounds(model, key)
    return "" if is_whole(text, **limits) else _("Write a whole number from %(least)s to %(most)s.", **limits)


def split_values(text: str) -> list[str]:
    """Return values separated by commas. One that holds a comma is in double quotes."""
    try:
        rows = list(csv.reader([" ".join(text.splitlines())], skipinitialspace=True))
    except csv.Error:
        return [text]
    return [value.strip() for value in (rows[0] if rows else []) if value.strip()]


def join_values(values: Iterable[str]) -> str:
    """Return the text that `split_values` reads back."""

    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if "," in value or value.startswith('"') else value

    return ", ".join(quoted(value) for value in values)


def first_refused(texts: Iterable[str], read: Callable[[str], object], otherwise: Any = "") -> str:
    """Return the message for the first text that `read` refuses; "" when it takes all.

    `otherwise`: the message for errors that are not about a pattern.
    """
    for text in texts:
        try:
            read(text)
        except PatternError as error:
            return words_of_fault(error)
        except SchemaError:
            return str(otherwise)
    return ""
