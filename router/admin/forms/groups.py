"""The form of a group with its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flask import request

from router.admin.forms.base import too_many_entries
from router.admin.forms.parts import (
    ItemForm,
    RowsField,
    fill_overflow,
    is_whole,
    move_by_button,
    name_field,
    overflow_fields,
    read_overflow,
)
from router.admin.i18n import _, lazy
from router.configuration.schema import GroupConfig, MemberConfig, bounds, most_of


@dataclass
class MemberRow:
    """A member as typed. `hours_id` "": always."""

    agent_id: int
    name: str
    tier: str = "1"
    weight: str = "1"
    hours_id: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    state: str = "unknown"

    def __str__(self) -> str:
        text = f"{self.name}, {_('tier')} {self.tier}"
        text += f", {_('weight')} {self.weight}" if self.weight != "1" else ""
        return text + (f", {_('own hours')}" if self.hours_id else "")


class MembersField(RowsField):
    """The members in their order, posted as order=ID with tier-ID, weight-ID, hours-ID; and join=ID for new ones.

    `agents` and `schedules`: (id, name) of all in the project, set before `read`.
    """

    agents: Sequence[tuple[int, str]] = ()
    schedules: Sequence[tuple[int, str]] = ()
    rows: list[MemberRow]

    def read(self) -> None:
        """Read the posted members. An agent who was deleted meanwhile is left out."""
        names = {str(id_): name for id_, name in self.agents}
        posted = dict.fromkeys([*request.form.getlist("order"), *request.form.getlist("join")])
        ids = [id_ for id_ in posted if id_ in names and id_ != request.form.get("remove")]
        move_by_button(ids)
        self.rows = [
            MemberRow(
                int(id_),
                names[id_],
                request.form.get(f"tier-{id_}", "1").strip(),
                request.form.get(f"weight-{id_}", "1").strip(),
                request.form.get(f"hours-{id_}", ""),
            )
            for id_ in ids
        ]

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        known = {"", *(str(id_) for id_, _name in self.schedules)}
        if len(self.rows) > (most := most_of(GroupConfig, "members")):
            self.errors = [too_many_entries(len(self.rows), most)]
            return
        for row in self.rows:
            for part, label in (("tier", _("Tier")), ("weight", _("Weight"))):
                limits = bounds(MemberConfig, part)
                if not is_whole(getattr(row, part), **limits):
                    text = _("%(what)s: write a whole number from %(least)s to %(most)s.", what=label, **limits)
                    row.errors[part] = text
            if row.hours_id not in known:
                row.errors["hours"] = _("This schedule no longer exists: choose another.")
        if any(row.errors for row in self.rows):
            self.errors = [next(text for row in self.rows for text in row.errors.values())]

    @property
    def wrong_id(self) -> str:
        """The id of the first input with an error."""
        return next(f"{part}-{row.agent_id}" for row in self.rows for part in row.errors)

    @property
    def value(self) -> list[dict[str, Any]]:
        """The members as a document holds them: by tier, as the page shows them."""
        return [
            {
                "agent": row.agent_id,
                "tier": int(row.tier),
                "weight": int(row.weight),
                "hours": int(row.hours_id) if row.hours_id else None,
            }
            for row in sorted(self.rows, key=lambda row: int(row.tier))
        ]


class GroupForm(ItemForm):
    kind = "groups"
    FIELDS: ClassVar = {"overflow": "overflow_to"}
    BUTTONS = ("remove", "move", "add")

    name = name_field(lazy("Give the group a name."))
    overflow_kind, overflow_to = overflow_fields(lazy("None of its own: the project’s"))
    members = MembersField(lazy("Members"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offer()
        if self.reads_post:
            self.members.read()

    def _offer(self) -> None:
        self.members.agents, self.members.schedules = self.choices_of("agents"), self.choices_of("schedules")

    def fill(self, row: Any) -> None:
        self._offer()
        names = dict(self.members.agents)
        self.members.rows = [
            MemberRow(one["agent"], names[one["agent"]], str(one["tier"]), str(one["weight"]), str(one["hours"] or ""))
            for one in row.members
        ]
        fill_overflow(self, row.overflow)

    def values(self) -> dict[str, Any]:
        return super().values() | {"overflow": read_overflow(self)}
