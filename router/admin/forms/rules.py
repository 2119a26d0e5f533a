"""The form of a rule: conditions, preferred agent, chain of groups, overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import request
from wtforms import BooleanField, RadioField
from wtforms.validators import ValidationError

from router.admin.forms.base import TextField, choices, too_many_entries
from router.admin.forms.groups import is_whole
from router.admin.forms.parts import (
    InputsField,
    NamedForm,
    RowsField,
    bounds,
    choices_of,
    fill_overflow,
    first_refused,
    join_values,
    move_by_button,
    name_field,
    number_field,
    overflow_fields,
    pattern_refused,
    read_overflow,
    split_values,
)
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.config_file.rows import set_chain
from router.config_file.schema import (
    MAX_TEXT_CHARS,
    FreeConfig,
    RuleConfig,
    SchemaError,
    WhenConfig,
    check_direction,
    check_param_name,
    most_of,
    notation,
    number_pattern,
    param_test,
)
from router.core.patterns import PatternError, param_tests
from router.core.rules import ParamTest
from router.db import models

OPS: dict[str, tuple[str, ...]] = {
    "caller": ("is", "is_not"),
    "dialed": ("is", "is_not"),
    "param": tuple(f"{no}{op}" for no in ("", "not_") for op in ("equals", "prefix", "contains", "present")),
    "direction": ("is",),
    "schedule": ("inside", "outside"),
    "free": ("fewer",),
}
"""Kinds of conditions in the order of the page, with their comparisons, the default first."""

_KEYS = {"dialed": "dialed", "param": "params", "direction": "direction"}  # by kind, the key whose limit counts
_STAR_FORMS = {"equals": "{}", "prefix": "{}*", "contains": "*{}*"}


@dataclass
class Condition:
    """A condition as typed. `name`: of a parameter or a group. `value`: several are separated by commas."""

    kind: str
    op: str
    name: str = ""
    value: str = ""
    error: str = ""
    part: str = "value"  # which input has the error: name or value

    def __str__(self) -> str:
        parts = (self.kind, self.name, self.op.replace("_", " "), self.value)
        return " ".join(part for part in parts if part)


class ConditionsField(InputsField):
    """The conditions of a rule. `groups` and `schedules`: ids by name, set before it is validated."""

    item = "condition"
    parts = ("kind", "op", "name", "value")
    rows: list[Condition]

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.groups: dict[str, int] = {}
        self.schedules: dict[str, int] = {}

    def read_row(self, values: Mapping[str, str]) -> Condition:
        kind = values["kind"] if values["kind"] in OPS else "caller"
        op = values["op"] if values["op"] in OPS[kind] else OPS[kind][0]
        return Condition(kind, op, values["name"], values["value"])

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        """Set the error of each row."""
        seen: set[str] = set()
        if self._are_too_many():
            return
        for row in self.rows:
            row.error = _CHECKS[row.kind](self, row)
            if row.kind in ("schedule", "free"):
                place = f"{row.kind} {row.op}"
                if place in seen and not row.error:
                    row.error = _("Only one condition of this kind is possible: remove the other one.")
                seen.add(place)
        errors = [row.error for row in self.rows if row.error]
        self.errors = errors[:1]

    def _are_too_many(self) -> bool:
        """Return whether there are too many values. Checked first: checking each of very many would delay calls."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for row in self.rows:
            most = most_of(WhenConfig, _KEYS.get(row.kind, "caller"))
            values = split_values(row.value)
            test = (row.kind, row.op.partition("_")[0] if row.kind == "param" else row.op, row.name.casefold())
            counts[test] += len(values)
            if counts[test] > most:
                row.error = too_many_entries(counts[test], most)
            elif any(len(value) > MAX_TEXT_CHARS for value in values):
                row.error = _("At most %(n)s characters.", n=MAX_TEXT_CHARS)
        if len(self.rows) > (most := most_of(WhenConfig, "params")):
            self.rows[-1].error = too_many_entries(len(self.rows), most)
        self.errors = [row.error for row in self.rows if row.error][:1]
        return bool(self.errors)

    @property
    def wrong_id(self) -> str:
        """The id of the first input with an error."""
        return next(f"{self.name}-{n}-{row.part}" for n, row in enumerate(self.rows) if row.error)

    # ---- from and to the row

    def fill_from(self, rule: models.Rule) -> None:
        """Show the conditions of a row."""
        names = {("group", id_): name for name, id_ in self.groups.items()}
        names |= {("schedule", id_): name for name, id_ in self.schedules.items()}
        rows = _rows_of(rule.conditions)
        for op, schedule_id in (("inside", rule.inside_id), ("outside", rule.outside_id)):
            if schedule_id is not None:
                rows.append(Condition("schedule", op, "", names["schedule", schedule_id]))
        if rule.free_group_id is not None:
            rows.append(Condition("free", "fewer", names["group", rule.free_group_id], str(rule.free_fewer_than)))
        self.rows = sorted(rows, key=lambda row: list(OPS).index(row.kind))

    def store_into(self, rule: models.Rule) -> None:
        """Store what was typed, normalised. Conditions left unchanged stay as they are stored."""
        if [row for row in self.rows if row.kind in _STORED_AS_WORDS] != _rows_of(rule.conditions or {}):
            rule.conditions = self.as_words()
        named = {(row.kind, row.op): row for row in self.rows}
        inside, outside = named.get(("schedule", "inside")), named.get(("schedule", "outside"))
        rule.inside_id = None if inside is None else self.schedules[inside.value]
        rule.outside_id = None if outside is None else self.schedules[outside.value]
        free = named.get(("free", "fewer"))
        rule.free_group_id = None if free is None else self.groups[free.name]
        rule.free_fewer_than = 0 if free is None else int(free.value)

    def as_words(self) -> dict[str, Any]:
        """Return the words of the configuration file's `when`, without references to other rows."""
        words: dict[str, Any] = {}
        for row in self.rows:
            values = split_values(row.value)
            if row.kind in ("caller", "dialed"):
                key = row.kind if row.op == "is" else f"not_{row.kind}"
                _extend(words.setdefault(key, []), map(_read_number, values))
            elif row.kind == "direction":
                _extend(words.setdefault("direction", []), map(check_direction, values))
            elif row.kind == "param":
                key = "not_params" if row.op.startswith("not_") else "params"
                tests = words.setdefault(key, {})
                name = next((name for name in tests if name.casefold() == row.name.casefold()), row.name)
                _extend(tests.setdefault(name, []), param_words(row.op.removeprefix("not_"), values))
        return words


def cache_posted_numbers() -> None:
    """Normalise the posted numbers, which router.numbers caches.

    Called before the transaction begins: to normalise a thousand numbers takes longer than to store them.
    """
    for key, text in request.form.items():
        if key.startswith("conditions-") and key.endswith("-value"):
            values = split_values(text)
            if len(values) <= most_of(WhenConfig, "caller"):
                first_refused(values, _read_number)


def _read_number(text: str) -> str:
    return number_pattern(text, current_project().country)


def _extend(words: list[str], values: Iterable[str]) -> None:
    words[:] = dict.fromkeys([*words, *values])


def param_words(op: str, values: Sequence[str]) -> list[str]:
    """Return the configuration file's notation of a comparison: text, text*, *text*, *."""
    return ["*"] if op == "present" else [_STAR_FORMS[op].format(value) for value in values]


_STORED_AS_WORDS = ("caller", "dialed", "param", "direction")  # in the column `conditions`; the others refer to rows


def _rows_of(when: Mapping[str, Any]) -> list[Condition]:
    """Return the stored words as the form shows them: numbers in a notation that is read back unchanged."""
    country, rows = current_project().country, []
    for kind in ("caller", "dialed"):
        for key, op in ((kind, "is"), (f"not_{kind}", "is_not")):
            if when.get(key):
                numbers = [notation(value, country, number_pattern) for value in when[key]]
                rows.append(Condition(kind, op, "", join_values(numbers)))
    for key, no in (("params", ""), ("not_params", "not_")):
        for name, words in when.get(key, {}).items():
            for kind, values in by_kind(_tests(words)).items():
                rows.append(Condition("param", f"{no}{kind}", name, join_values(values)))
    if when.get("direction"):
        rows.append(Condition("direction", "is", "", join_values(when["direction"])))
    return rows


def _tests(words: Sequence[str]) -> Sequence[ParamTest]:
    try:
        return param_tests(words)
    except PatternError:  # stored by another release: shown unchanged, and refused when saved
        return [ParamTest("equals", word) for word in words]


def by_kind(tests: Iterable[ParamTest]) -> dict[str, list[str]]:
    """Return the values of tests by their kind."""
    found: dict[str, list[str]] = {}
    for test in tests:
        found.setdefault(test.kind, []).extend([test.value] if test.value else [])
    return found


# ---- checks by kind: they return "" or the message


def _is_valid(check: Callable[[str], str], text: str) -> bool:
    try:
        check(text)
    except SchemaError:
        return False
    return True


def _check_numbers(_field: ConditionsField, row: Condition) -> str:
    values = split_values(row.value)
    if not values:
        return _("Write a number, or remove the condition.")
    return first_refused(values, _read_number)


def _check_param(_field: ConditionsField, row: Condition) -> str:
    row.part = "name"
    if not row.name:
        return _("Name the parameter, as the hook sends it: utm_source.")
    if not _is_valid(check_param_name, row.name):
        return _("Not a valid name of a parameter.")
    row.part = "value"
    op = row.op.removeprefix("not_")
    values = split_values(row.value)
    if op == "present":
        return ""
    if not values:
        return _("Write a value, or choose “is sent”.")
    if starred := next((value for value in values if value.startswith("*") or value.endswith("*")), None):
        return pattern_refused(PatternError(starred, "has a star too many", ""))
    return first_refused(param_words(op, values), param_test)


def _check_direction(_field: ConditionsField, row: Condition) -> str:
    values = split_values(row.value)
    if not values or not all(_is_valid(check_direction, value) for value in values):
        return _("Write one or more of in, out, callback, transitin, transitout.")
    return ""


def _check_schedule(field: ConditionsField, row: Condition) -> str:
    return "" if row.value in field.schedules else _("This schedule no longer exists: choose another.")


def _check_free(field: ConditionsField, row: Condition) -> str:
    if row.name not in field.groups:
        row.part = "name"
        return _("This group no longer exists: choose another.")
    limits = bounds(FreeConfig, "fewer_than")
    if not is_whole(row.value, **limits):
        return _("Write a whole number from %(least)s to %(most)s.", **limits)
    return ""


_CHECKS: dict[str, Callable[[ConditionsField, Condition], str]] = {
    "caller": _check_numbers,
    "dialed": _check_numbers,
    "param": _check_param,
    "direction": _check_direction,
    "schedule": _check_schedule,
    "free": _check_free,
}


# ---- the chain of groups


class ChainField(RowsField):
    """Groups in the order in which they are tried, posted as order=ID; add_group=ID puts one at the end.

    `groups`: (id, name) of all in the project, set before `read`. `rows`: those of the chain.
    """

    groups: Sequence[tuple[int, str]] = ()
    rows: list[tuple[int, str]]

    def read(self) -> None:
        """Read the posted chain. A group that was deleted meanwhile is left out."""
        names = {str(id_): name for id_, name in self.groups}
        posted = dict.fromkeys([*request.form.getlist("order"), request.form.get("add_group", "")])
        ids = [id_ for id_ in posted if id_ in names and id_ != request.form.get("remove_group")]
        move_by_button(ids)
        self.rows = [(int(id_), names[id_]) for id_ in ids]

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        if len(self.rows) > (most := most_of(RuleConfig, "groups")):
            self.errors = [too_many_entries(len(self.rows), most)]

    @property
    def data(self) -> list[str]:
        return [name for _id, name in self.rows]

    @data.setter
    def data(self, _value: Any) -> None:
        """Do nothing: see `RuleForm.fill`."""

    def populate_obj(self, obj: Any, name: str) -> None:
        set_chain(obj, [id_ for id_, _name in self.rows])


class RuleForm(NamedForm):
    model = models.Rule
    BUTTONS = ("add_condition", "remove_condition", "add_chain", "remove_group", "move")

    name = name_field(lazy("Give the rule a name."))
    enabled = BooleanField(lazy("Turned on"), default=True)
    conditions = ConditionsField(lazy("Conditions"))
    prefer = RadioField(
        lazy("Preferred agent"),
        choices=choices(
            [
                ("", lazy("Nobody in particular")),
                ("last_agent", lazy("Whoever last talked with the caller")),
                ("param", lazy("The agent that a hook parameter names")),
            ]
        ),
        default="",
    )
    prefer_days = number_field(lazy("Looks back"), RuleConfig, "prefer_days")
    prefer_param = TextField(lazy("Parameter that names the agent"))
    groups = ChainField(lazy("Groups"))
    overflow_kind, overflow_to = overflow_fields(lazy("None of its own: the last group’s, else the project’s"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offer()
        if self.reads_post:
            self.groups.read()
            self.conditions.apply_buttons()

    def _offer(self) -> None:
        self.groups.groups = choices_of(self._session, models.Group)
        self.conditions.groups = {name: id_ for id_, name in self.groups.groups}
        self.conditions.schedules = {name: id_ for id_, name in choices_of(self._session, models.Schedule)}

    def validate_prefer_param(self, field: Any) -> None:
        if self.prefer.data == "param" and not _is_valid(check_param_name, field.data or ""):
            raise ValidationError(_("Name the parameter, as the hook sends it: responsible."))

    def fill(self, row: Any) -> None:
        self._offer()
        self.conditions.fill_from(row)
        names = dict(self.groups.groups)
        links = sorted(row.groups, key=lambda link: link.position)
        self.groups.rows = [(link.group_id, names[link.group_id]) for link in links]
        fill_overflow(self, row.overflow)

    def store(self, row: Any) -> None:
        for field in (self.name, self.enabled, self.prefer, self.prefer_days, self.groups, self.revision):
            field.populate_obj(row, field.name)
        row.prefer_param = self.prefer_param.data if self.prefer.data == "param" else ""
        row.overflow = read_overflow(self)
        self.conditions.store_into(row)
