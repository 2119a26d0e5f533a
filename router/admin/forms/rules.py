"""The form of a rule: conditions, preferred agent, chain of groups, overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flask import request
from wtforms import RadioField
from wtforms.validators import ValidationError

from router.admin.conditions import KINDS, Known, Row, Words, first_refused, split_values
from router.admin.forms.base import TextField, choices, too_many_entries
from router.admin.forms.parts import (
    InputsField,
    ItemForm,
    RowsField,
    fill_overflow,
    move_by_button,
    name_field,
    overflow_fields,
    read_overflow,
)
from router.admin.i18n import _, lazy
from router.configuration.document import convert
from router.configuration.schema import MAX_TEXT_CHARS, RuleConfig, WhenConfig, check_param_name, most_of
from router.db.documents import named_when


class ConditionsField(InputsField):
    """The conditions of a rule. `ids`: of schedules and groups, set before it is validated."""

    item = "condition"
    parts = ("kind", "op", "name", "value")
    rows: list[Row]

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.ids: Known = {}

    def read_row(self, values: Mapping[str, str]) -> Row:
        kind = KINDS.get(values["kind"]) or KINDS["caller"]
        return Row(kind.name, kind.op(values["op"]).name, values["name"], values["value"])

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        """Set the error of each row. First the values are counted, because checking very many would delay calls."""
        self._count()
        seen: set[str] = set()
        for row in () if any(row.error for row in self.rows) else self.rows:
            kind, key = KINDS[row.kind], KINDS[row.kind].op(row.op).key
            row.error = kind.check(row, self.ids)
            if kind.is_single and key in seen:
                row.error = row.error or _("Only one condition of this kind is possible: remove the other one.")
            seen.add(key)
        self.errors = [row.error for row in self.rows if row.error][:1]

    def _count(self) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            key = KINDS[row.kind].op(row.op).key
            most, values, test = most_of(WhenConfig, key), split_values(row.value), (key, row.name.casefold())
            counts[test] += len(values)
            if most and counts[test] > most:
                row.error = too_many_entries(counts[test], most)
            elif any(len(value) > MAX_TEXT_CHARS for value in values):
                row.error = _("At most %(n)s characters.", n=MAX_TEXT_CHARS)
        if len(self.rows) > (most := most_of(WhenConfig, "params")):
            self.rows[-1].error = too_many_entries(len(self.rows), most)

    @property
    def wrong_id(self) -> str:
        """The id of the first input with an error."""
        return next(f"{self.name}-{n}-{row.part}" for n, row in enumerate(self.rows) if row.error)

    def fill_from(self, when: Words) -> None:
        """Show the conditions of a document's rule."""
        stored = self._named(when)
        self.rows = [row for kind in KINDS.values() for row in kind.rows(stored)]

    def when(self, stored: Words) -> Words:
        """Return what was typed, as a document holds it. Kinds left unchanged stay as they are stored."""
        named = self._named(stored)
        when: Words = {}
        for kind in KINDS.values():
            rows = [row for row in self.rows if row.kind == kind.name]
            if rows == [*kind.rows(named)]:
                when |= {op.key: named[op.key] for op in kind.ops if op.key in named}
            else:
                for row in rows:
                    kind.store(row, when)
        return convert(WhenConfig, when, lambda of, name: self.ids[of][name])

    def _named(self, when: Words) -> Words:
        return named_when(when, {of: {id_: name for name, id_ in ids.items()} for of, ids in self.ids.items()})


def cache_posted_numbers() -> None:
    """Normalise the posted numbers, so that router.numbers caches them.

    Called before the transaction begins, because normalising a thousand numbers takes longer than storing them.
    """
    for key, text in request.form.items():
        if key.startswith("conditions-") and key.endswith("-value"):
            values = split_values(text)
            if len(values) <= most_of(WhenConfig, "caller"):
                first_refused(values, KINDS["caller"].read)


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

    @property
    def value(self) -> list[int]:
        """The ids of the groups."""
        return [id_ for id_, _name in self.rows]


class RuleForm(ItemForm):
    kind = "rules"
    FIELDS: ClassVar = {"overflow": "overflow_to", "when": "conditions"}
    BUTTONS = ("add_condition", "remove_condition", "add_chain", "remove_group", "move")

    name = name_field(lazy("Give the rule a name."))
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
        self.groups.groups = self.choices_of("groups")
        self.conditions.ids = {of: {name: id_ for id_, name in self.choices_of(of)} for of in ("schedules", "groups")}

    def validate_prefer_param(self, field: Any) -> None:
        missing = _("Name the parameter, as the hook sends it: responsible.")
        if self.prefer.data == "param" and (wrong := first_refused([field.data or ""], check_param_name, missing)):
            raise ValidationError(wrong)

    def fill(self, row: Any) -> None:
        self._offer()
        self.conditions.fill_from(row.when)
        names = dict(self.groups.groups)
        self.groups.rows = [(group_id, names[group_id]) for group_id in row.groups]
        if isinstance(row.prefer, dict):
            self.prefer.data, self.prefer_param.data = "param", row.prefer["param"]
        elif row.prefer is None:
            self.prefer.data = ""
        fill_overflow(self, row.overflow)

    def values(self) -> dict[str, Any]:
        prefer = {"param": self.prefer_param.data} if self.prefer.data == "param" else self.prefer.data or None
        when = self.conditions.when({} if self.stored is None else self.stored.when)
        return super().values() | {"prefer": prefer, "when": when, "overflow": read_overflow(self)}
