"""The form of a group with its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import request
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import Field, RadioField

from router.admin.forms.base import NumberField, RowForm, choices, too_many_entries
from router.admin.forms.parts import (
    bounds,
    choices_of,
    fill_overflow,
    name_field,
    overflow_fields,
    read_overflow,
)
from router.admin.i18n import _, lazy
from router.config_file.words import GroupWords, MemberWords, most_of
from router.core.strategies import STRATEGIES
from router.db import models

STRATEGY_NAMES = {
    "round_robin": lazy("Round robin"),
    "priority": lazy("Priority"),
    "longest_idle": lazy("Longest idle"),
    "fewest_calls": lazy("Fewest calls"),
    "weighted": lazy("Weighted"),
    "random": lazy("Random"),
}


@dataclass
class MemberRow:
    """A member as it is typed. `hours_id` "": always."""

    agent_id: int
    name: str
    tier: str = "1"
    weight: str = "1"
    hours_id: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    state: str = "unknown"

    def __str__(self) -> str:
        said = f"{self.name}, {_('tier')} {self.tier}"
        said += f", {_('weight')} {self.weight}" if self.weight != "1" else ""
        return said + (f", {_('own hours')}" if self.hours_id else "")


class MembersField(Field):  # type: ignore[misc]
    """The members in their order, posted as order=ID with tier-ID, weight-ID, hours-ID; and join=ID for new ones.

    `agents` and `schedules`: (id, name) of those that there are, set before the form is read.
    """

    agents: Sequence[tuple[int, str]] = ()
    schedules: Sequence[tuple[int, str]] = ()

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.rows: list[MemberRow] = []

    def process(self, formdata: Any, data: Any = None, extra_filters: Any = None) -> None:
        """Rows are read by `read`, once it is known which agents there are."""
        self.process_errors: list[str] = []

    def read(self) -> None:
        names = {str(id_): name for id_, name in self.agents}
        ids = dict.fromkeys([*request.form.getlist("order"), *request.form.getlist("join")])
        gone = request.form.get("remove")
        self.rows = [
            MemberRow(
                int(id_),
                names[id_],
                request.form.get(f"tier-{id_}", "1").strip(),
                request.form.get(f"weight-{id_}", "1").strip(),
                request.form.get(f"hours-{id_}", ""),
            )
            for id_ in ids
            if id_ in names and id_ != gone  # an agent who was deleted meanwhile is no member any more
        ]
        way, _colon, moved = request.form.get("move", "").partition(":")
        places = [str(row.agent_id) for row in self.rows]
        if moved in places:
            here = places.index(moved)
            there = here + {"up": -1, "down": 1}.get(way, 0)
            if 0 <= there < len(places):
                self.rows[here], self.rows[there] = self.rows[there], self.rows[here]

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        known = {"", *(str(id_) for id_, _name in self.schedules)}
        if len(self.rows) > (most := most_of(GroupWords, "members")):
            self.errors = [too_many_entries(len(self.rows), most)]
            return
        for row in self.rows:
            for part, said in (("tier", _("Tier")), ("weight", _("Weight"))):
                limits = bounds(MemberWords, part)
                if not is_whole(getattr(row, part), limits["least"], limits["most"]):
                    row.errors[part] = _(
                        "%(what)s: write a whole number from %(least)s to %(most)s.",
                        what=said,
                        least=limits["least"],
                        most=limits["most"],
                    )
            if row.hours_id not in known:
                row.errors["hours"] = _("This schedule no longer exists: choose another.")
        if any(row.errors for row in self.rows):
            self.errors = [next(text for row in self.rows for text in row.errors.values())]

    @property
    def wrong_id(self) -> str:
        """Of the first input that holds something wrong."""
        return next(f"{part}-{row.agent_id}" for row in self.rows for part in row.errors)

    @property
    def data(self) -> list[str]:
        return [str(row) for row in self.rows]

    @data.setter
    def data(self, _value: Any) -> None:
        """What the group holds is for `GroupForm.fill`."""

    def populate_obj(self, obj: Any, name: str) -> None:
        kept = {member.agent_id: member for member in obj.members}
        members = []
        # By tier, as they are shown the next time: a form that is saved untouched moves nobody.
        for place, row in enumerate(sorted(self.rows, key=lambda row: int(row.tier))):
            member = kept.get(row.agent_id) or models.Member(agent_id=row.agent_id)
            member.tier, member.weight, member.position = int(row.tier), int(row.weight), place
            member.hours_id = int(row.hours_id) if row.hours_id else None
            members.append(member)
        obj.members = members


def is_whole(text: str, least: float, most: float) -> bool:
    """Is it a whole number in this range?"""
    return text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most


class GroupForm(RowForm):
    name = name_field(lazy("Give the group a name."))
    strategy = RadioField(
        lazy("Strategy"), choices=choices((name, STRATEGY_NAMES[name]) for name in STRATEGIES), default="round_robin"
    )
    ring_seconds = NumberField(lazy("Ring for"), **bounds(GroupWords, "ring_seconds"), default=25)
    overflow_kind, overflow_to = overflow_fields(lazy("None of its own: the project’s"))
    listed = MembersField(lazy("Members"), id="members")  # not `members`: WTForms would load those of the row

    def __init__(self, *args: Any, session: Session, obj: Any = None, **kwargs: Any) -> None:
        self._session = session
        super().__init__(*args, obj=obj, **kwargs)
        if not self.listed.agents:
            self._offer()
        if self.is_posted and "formdata" not in kwargs:
            self.listed.read()

    def _offer(self) -> None:
        self.listed.agents = choices_of(self._session, models.Agent)
        self.listed.schedules = choices_of(self._session, models.Schedule)

    def anew(self, row: Any) -> GroupForm:
        return GroupForm(formdata=None, obj=row, session=self._session)

    @property
    def is_being_edited(self) -> bool:
        """Was it posted by a button that only changes the list of members on the page?"""
        return any(name in request.form for name in ("remove", "move", "add"))

    def saves(self, row: Any = None, session: Session | None = None) -> bool:
        return not self.is_being_edited and super().saves(row, session)

    def fill(self, row: Any) -> None:
        self._offer()
        names = dict(self.listed.agents)
        member = models.Member
        members = self._session.execute(  # not row.members: a thousand objects cost more than the form
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
