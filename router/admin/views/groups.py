"""Groups: their members and strategy, and who is next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import render_template, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from router.admin.advice import warnings_by_id
from router.admin.forms.groups import GroupForm
from router.admin.i18n import _
from router.admin.page import Role, changing, done, editing, links_to, page, present, render_form
from router.configuration.change import users_of
from router.core.model import Candidate, Group
from router.core.strategies import STRATEGIES
from router.explanation.agents import Present

NEXT_SHOWN = 3
STATES_SHOWN = 60
QUEUE_SHOWN = 100


@page("/p/<project>/groups", see=Role.VIEWER)
def groups() -> ResponseReturnValue:
    """List all groups with who is next."""
    now = present()
    queues = {group_id: now.queue(group_id) for group_id in now.project.groups}
    used: dict[int, list[dict[str, Any]]] = {}
    for rule in now.project.rules:
        for group_id in rule.group_ids:
            used.setdefault(group_id, []).append({"name": rule.name, "url": url_for("admin.rule", id=rule.id)})
    warnings = warnings_by_id(now.document, now.project, "group")
    rows = [
        {
            "id": group.id,
            "name": group.name,
            "strategy": group.strategy,
            "members": len(group.members),
            "free": sum(one.skip is None for one in queues[group.id]),
            "next": [_place(now, one) for one in queues[group.id] if one.skip is None][:NEXT_SHOWN],
            "rules": used.get(group.id, []),
            "overflow": group.overflow,
            "warnings": warnings.get(group.id, []),
        }
        for group in now.project.groups.values()
    ]
    return render_template("groups/groups.html", groups=rows, agents=len(now.project.agents))


def _place(now: Present, one: Candidate) -> dict[str, Any]:
    return {"id": one.agent_id, "name": now.project.agents[one.agent_id].name, "login": one.sip_login}


@page("/p/<project>/groups/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True)
def group_new() -> ResponseReturnValue:
    """Add a group with its members."""
    with editing() as draft:
        form = GroupForm(draft)
        if form.saves():
            text = _("%(name)s is added. Name it in a rule next.", name=form.name.data)
            return done(text, url_for("admin.groups"))
    return _form_page(form, present([]), None)


@page("/p/<project>/groups/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True)
def group(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one group, with its queue as it is now."""
    with editing() as draft:
        form = GroupForm(draft, id)
        if form.saves():
            return done(_("Saved. Applies from the next call."), url_for("admin.group", id=id))
    return _form_page(form, present([id]), id)


def _form_page(form: GroupForm, now: Present, group_id: int | None) -> ResponseReturnValue:
    members = {row.agent_id for row in form.members.rows}
    for row in form.members.rows:
        row.state = now.state(row.agent_id)
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


@page("/p/<project>/groups/<int:id>/queue", see=Role.VIEWER)
def group_queue(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Render the queue as the fragment that refreshes itself."""
    now = present([id])
    if id not in now.project.groups:
        return "", 404
    return render_template("groups/_queue.html", group=now.project.groups[id], **_queue(now, id))


@page("/p/<project>/groups/<int:id>/delete", do=Role.EDITOR)
def group_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete a group, unless rules name it."""
    with changing() as draft:
        name = draft.item("groups", id)["name"]
        rules = [draft.document[kind][place] for kind, place in users_of(draft.document).get(("groups", id), ())]
        if not rules:
            draft.remove("groups", id)
    if rules:
        return done(_refusal(rules), url_for("admin.group", id=id), "warning")
    return done(_("%(name)s is deleted.", name=name), url_for("admin.groups"))


def _refusal(rules: Sequence[Mapping[str, Any]]) -> Markup:
    links = links_to((url_for("admin.rule", id=rule["id"]), rule["name"]) for rule in rules)
    return Markup("{} {}").format(_("Not deleted: these rules name the group. Take it out of them first:"), links)
