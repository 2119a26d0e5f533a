"""The form of a group with its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import request
from sqlalchemy import select
from wtforms import RadioField

from router.admin.forms.base import choices, too_many_entries
from router.admin.forms.parts import (
    NamedForm,
    RowsField,
    bounds,
    choices_of,
    fill_overflow,
    is_whole,
    move_by_button,
    name_field,
    number_field,
    overflow_fields,
    read_overflow,
)
from router.admin.i18n import _, lazy
from router.admin.words import WORDS
from router.config_file.rows import set_members
from router.config_file.schema import GroupConfig, MemberConfig, most_of
from router.core.strategies import STRATEGIES
from router.db import models


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

    def populate_obj(self, obj: Any, name: str) -> None:
        # By tier, as the page shows them: saving an unchanged form must not move anybody.
        rows = sorted(self.rows, key=lambda row: int(row.tier))
        members = [
            {
                "agent": row.agent_id,
                "tier": int(row.tier),
                "weight": int(row.weight),
                "position": position,
                "hours": int(row.hours_id) if row.hours_id else None,
            }
            for position, row in enumerate(rows)
        ]
        set_members(obj, members)


class GroupForm(NamedForm):
    model = models.Group
    BUTTONS = ("remove", "move", "add")

    name = name_field(lazy("Give the group a name."))
    strategy = RadioField(
        lazy("Strategy"),
        choices=choices((name, WORDS["strategy"][name]) for name in STRATEGIES),
        default="round_robin",
    )
    ring_seconds = number_field(lazy("Ring for"), GroupConfig, "ring_seconds")
    overflow_kind, overflow_to = overflow_fields(lazy("None of its own: the project’s"))
    listed = MembersField(lazy("Members"), id="members")  # with the name `members` WTForms would load those of the row

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.listed.agents:
            self._offer()
        if self.reads_post:
            self.listed.read()

    def _offer(self) -> None:
        self.listed.agents = choices_of(self._session, models.Agent)
        self.listed.schedules = choices_of(self._session, models.Schedule)

    def fill(self, row: Any) -> None:
        self._offer()
        names = dict(self.listed.agents)
        member = models.Member
        members = self._session.execute(  # row.members would make a thousand objects, which cost more than the form
            select(member.agent_id, member.tier, member.weight, member.hours_id)
            .where(member.group_id == row.id)
            .order_by(member.tier, member.position, member.agent_id)
        )
        self.listed.rows = [
            MemberRow(agent_id, names[agent_id], str(tier), str(weight), str(hours_id or ""))
            for agent_id, tier, weight, hours_id in members
        ]
        fill_overflow(self, row.overflow)

    def store(self, row: Any) -> None:
        for field_ in (self.name, self.strategy, self.ring_seconds, self.listed, self.revision):
            field_.populate_obj(row, field_.name)
        row.overflow = read_overflow(self)
