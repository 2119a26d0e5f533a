"""Groups: their members and strategy, who is next, editing, deleting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flask import render_template, url_for
from flask.typing import ResponseReturnValue

from router.admin.advice import advise
from router.admin.deleting import delete
from router.admin.forms.overflow import fill_overflow, overflow_fields, read_overflow
from router.admin.forms.parts import (
    ItemForm,
    RowsField,
    TypedRow,
    is_whole,
    name_field,
)
from router.admin.i18n import _, lazy
from router.admin.page import Role, done, editing, page, present, render_form, saved_message
from router.configuration.schema import GroupConfig, MemberConfig, bounds, most_of
from router.core.model import Candidate, Group
from router.core.rules import counted_groups
from router.core.strategies import STRATEGIES
from router.explanation.agents import Present

NEXT_SHOWN = 3
STATES_SHOWN = 60
QUEUE_SHOWN = 100


# ---- the list


@page("/p/<project>/groups", see=Role.VIEWER, drafts=True)
def groups() -> ResponseReturnValue:
    """List all groups with who is next."""
    now = present()
    queues = {group_id: now.queue(group_id) for group_id in now.project.groups}
    used: dict[int, list[dict[str, Any]]] = {}
    for rule in now.project.rules:
        for group_id in dict.fromkeys((*rule.group_ids, *counted_groups(rule))):
            used.setdefault(group_id, []).append({"name": rule.name, "url": url_for("admin.rule", id=rule.id)})
    warnings: dict[int, list[str]] = {}
    for one in advise(now.document, now.project):
        if one.subject == "group" and one.kind != "unused_group":  # the card says it with a link
            warnings.setdefault(one.subject_id, []).append(one.text)
    rows = [
        {
            "id": group.id,
            "name": group.name,
            "strategy": group.strategy,
            "members": len(group.members),
            "tiers": _tiers(group),
            "free": sum(one.skip is None for one in queues[group.id]),
            "next": [_place(now, one) for one in queues[group.id] if one.skip is None][:NEXT_SHOWN],
            "rules": used.get(group.id, []),
            "overflow": group.overflow,
            "warnings": warnings.get(group.id, []),
        }
        for group in now.project.groups.values()
    ]
    return render_template("groups/groups.html", groups=rows, agents=len(now.project.agents))


def _tiers(group: Group) -> str:
    """Return how many members each tier has; "" where all are of one tier."""
    counts = Counter(member.tier for member in group.members)
    texts = (_("tier %(tier)s: %(n)s", tier=tier, n=n) for tier, n in sorted(counts.items()))
    return ", ".join(texts) if len(counts) > 1 else ""


def _place(now: Present, one: Candidate) -> dict[str, Any]:
    return {"id": one.agent_id, "name": now.project.agents[one.agent_id].name, "login": one.sip_login}


# ---- one group


@dataclass
class MemberRow(TypedRow):
    """A member as typed. `agent` and `hours`: ids, the latter "" for always. `name`, `state`: of the agent."""

    agent: str = ""
    tier: str = "1"
    weight: str = "1"
    hours: str = ""
    name: str = field(default="", init=False)
    state: str = field(default="unknown", init=False)

    def __str__(self) -> str:
        weight = _("weight %(n)s", n=self.weight) if self.weight != "1" else ""
        parts = (self.name, _("tier %(n)s", n=self.tier), weight, _("own hours") if self.hours else "")
        return ", ".join(filter(None, parts))


class MembersField(RowsField):
    """The members in their order. Agents who join are posted as join=ID."""

    row, most = MemberRow, most_of(GroupConfig, "members")
    rows: list[MemberRow]

    def read(self, formdata: Any) -> None:
        super().read(formdata)
        self.rows += map(MemberRow, formdata.getlist("join"))

    def offer(self, agents: Sequence[tuple[int, str]], schedules: Sequence[tuple[int, str]]) -> None:
        """Set (id, name) of all in the project. An agent who was deleted meanwhile is left out."""
        self.agents, self.schedules = agents, schedules
        names = {str(id_): name for id_, name in agents}
        once = {row.agent: row for row in reversed(self.rows)}
        self.rows = [row for row in self.rows if row.agent in names and once[row.agent] is row]
        for row in self.rows:
            row.name = names[row.agent]

    def check(self) -> None:
        known = {"", *(str(id_) for id_, _name in self.schedules)}
        for row in self.rows:
            for part, label in (("tier", _("Tier")), ("weight", _("Weight"))):
                limits = bounds(MemberConfig, part)
                if not is_whole(getattr(row, part), **limits):
                    text = _("%(what)s: write a whole number from %(least)s to %(most)s.", what=label, **limits)
                    row.errors[part] = text
            if row.hours not in known:
                row.errors["hours"] = _("This schedule no longer exists: choose another.")

    @property
    def value(self) -> list[dict[str, Any]]:
        """The members as a document holds them: by tier, as the page shows them."""
        return [
            {
                "agent": int(row.agent),
                "tier": int(row.tier),
                "weight": int(row.weight),
                "hours": int(row.hours) if row.hours else None,
            }
            for row in sorted(self.rows, key=lambda row: int(row.tier))
        ]


class GroupForm(ItemForm):
    kind = "groups"
    FIELDS: ClassVar = {"overflow": "overflow_to"}
    BUTTONS = ("add", "preview")

    name = name_field(lazy("Give the group a name."))
    overflow_kind, overflow_to = overflow_fields(lazy("Use the project’s overflow"))
    members = MembersField(lazy("Members"))

    def offer(self) -> None:
        super().offer()
        self.members.offer(self.choices_of("agents"), self.choices_of("schedules"))

    def fill(self, row: Any) -> None:
        texts = (
            {key: str(value or "") for key, value in one.items()} | {"tier": str(one["tier"])} for one in row.members
        )
        self.members.rows = [MemberRow(**one) for one in texts]
        self.offer()
        fill_overflow(self, row.overflow)

    def values(self) -> dict[str, Any]:
        return super().values() | {"overflow": read_overflow(self)}


@page("/p/<project>/groups/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True, drafts=True)
def group_new() -> ResponseReturnValue:
    """Add a group with its members."""
    with editing() as draft:
        form = GroupForm(draft)
        if form.saves():
            text = _("%(name)s is added. Use it in a rule next.", name=form.name.data)
            return done(text, url_for("admin.groups"))
    return _form_page(form, present([]), None)


@page("/p/<project>/groups/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True, drafts=True)
def group(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one group, with its queue as it is now."""
    with editing() as draft:
        form = GroupForm(draft, id)
        if form.saves():
            return done(saved_message(), url_for("admin.group", id=id))
    return _form_page(form, present([id]), id)


def _form_page(form: GroupForm, now: Present, group_id: int | None) -> ResponseReturnValue:
    members = {int(row.agent) for row in form.members.rows}
    for row in form.members.rows:
        row.state = now.state(int(row.agent))
    return render_form(
        "groups/group.html",
        form,
        group=None if group_id is None else _in_use(now, group_id, form),
        members=form.members.rows,
        strategy=form.strategy.data,
        others=_others(now, [agent for agent in form.members.agents if agent[0] not in members]),
        schedules=form.members.schedules,
        is_edited=form.is_being_edited,
        **({} if group_id is None else _queue(now, group_id)),
    )


def _in_use(now: Present, group_id: int, form: GroupForm) -> Group:
    """Return the group by which calls are routed; a blank one if they use an earlier version without it."""
    return now.project.groups.get(group_id) or Group(group_id, str(form.name.data), next(iter(STRATEGIES)))


def _others(now: Present, agents: Sequence[tuple[int, str]]) -> list[tuple[int, str, str]]:
    """Return (id, name, state) of agents that can be added; without states ("") if there are many."""
    if len(agents) > STATES_SHOWN:
        return [(id_, name, "") for id_, name in agents]
    return [(id_, name, now.state(id_)) for id_, name in agents]


def _queue(now: Present, group_id: int) -> dict[str, Any]:
    """Return the values for _queue.html. `queue`: all candidates in their present order, the eligible first."""
    queue = now.queue(group_id)
    return {
        "queue": [{**_place(now, one), "state": now.state_in_queue(one)} for one in queue[:QUEUE_SHOWN]],
        "is_any_free": any(one.skip is None for one in queue),
        "more": len(queue) - len(queue[:QUEUE_SHOWN]),
        "by_chance": group_id in now.project.groups and now.project.groups[group_id].strategy == "random",
    }


@page("/p/<project>/groups/<int:id>/queue", see=Role.VIEWER, drafts=True)
def group_queue(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Render the queue as the fragment that refreshes itself."""
    now = present([id])
    if id not in now.project.groups:
        return "", 404
    return render_template("groups/_queue.html", group=now.project.groups[id], **_queue(now, id))


@page("/p/<project>/groups/<int:id>/delete", see=Role.EDITOR, do=Role.EDITOR, drafts=True)
def group_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete a group, after a page that shows the rules that use it."""
    return delete("groups", id)
