"""The form of a rule: conditions, preferred agent, chain of groups, overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flask import request
from wtforms import BooleanField, RadioField
from wtforms.validators import ValidationError

from router.admin.conditions import KINDS, Known, Row, Words, first_refused, split_values
from router.admin.forms.base import TextField, choices, too_many_entries
from router.admin.forms.parts import (
    InputsField,
    NamedForm,
    RowsField,
    choices_of,
    fill_overflow,
    move_by_button,
    name_field,
    number_field,
    overflow_fields,
    read_overflow,
)
from router.admin.i18n import _, lazy
from router.config_file.document import render_when
from router.config_file.rows import set_chain, write_row
from router.config_file.schema import MAX_TEXT_CHARS, RuleConfig, WhenConfig, check_param_name, most_of
from router.db import models
from router.db.configuration import rule_document, when_words


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
            if kind.chosen and key in seen:
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

    def fill_from(self, rule: models.Rule) -> None:
        """Show the conditions of a row."""
        when = self._stored(rule)
        self.rows = [row for kind in KINDS.values() for row in kind.rows(when)]

    def store_into(self, rule: models.Rule) -> None:
        """Store what was typed, normalised. Kinds left unchanged stay as they are stored."""
        stored: Words = self._stored(rule) if rule.id else {}
        when: Words = {}
        for kind in KINDS.values():
            rows = [row for row in self.rows if row.kind == kind.name]
            if rows == [*kind.rows(stored)]:
                when |= {op.key: stored[op.key] for op in kind.ops if op.key in stored}
            else:
                for row in rows:
                    kind.store(row, when)
        write_row(rule, render_when(when, self.ids))

    def _stored(self, rule: models.Rule) -> Words:
        names = {of: {id_: name for name, id_ in ids.items()} for of, ids in self.ids.items()}
        return when_words(rule_document(rule), names)


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
        schedules = choices_of(self._session, models.Schedule)
        known = {"schedules": schedules, "groups": self.groups.groups}
        self.conditions.ids = {kind: {name: id_ for id_, name in rows} for kind, rows in known.items()}

    def validate_prefer_param(self, field: Any) -> None:
        missing = _("Name the parameter, as the hook sends it: responsible.")
        if self.prefer.data == "param" and (wrong := first_refused([field.data or ""], check_param_name, missing)):
            raise ValidationError(wrong)

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
