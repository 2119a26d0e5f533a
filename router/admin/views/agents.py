"""Agents: the table, logins seen online, the import of the platform's staff, editing, deleting."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import exists, select

from router.admin.advice import advise_on_deputies
from router.admin.deleting import delete
from router.admin.forms.base import plain_number, too_many_entries
from router.admin.forms.parts import ItemForm, name_field
from router.admin.i18n import _, lazy, ngettext
from router.admin.leave import PRESETS, leave_for
from router.admin.page import (
    Role,
    as_id,
    changing,
    context,
    current_project,
    done,
    editing,
    local_now,
    may,
    page,
    present,
    reading,
    render_form,
    saved_message,
)
from router.admin.source_words import explain_source
from router.configuration.change import Draft
from router.configuration.schema import MAX_NAME_CHARS, UNFIT, AgentConfig, is_login, most_of, section_of
from router.core.model import Agent, Group
from router.db import models, queries
from router.db.types import readable
from router.explanation.agents import Present
from router.presence.fetch import Fetcher
from router.presence.source import SourceError, SourceSettings, StaffMember
from router.presence.sources.ringostat import fetch_staff

PAGE_ROWS = 50
MOST_UNOWNED = 50
MOST_WARNINGS = 5  # listed at once
MOST_TAKEN = 500  # people imported at once: more would delay calls
STAFF_SECONDS = 8.0


# ---- the table


@page("/p/<project>/agents", see=Role.VIEWER, drafts=True)
def agents() -> ResponseReturnValue:
    """Show all agents, or those that a search finds, by name."""
    now = present([])
    with reading() as session:
        shared = queries.shared_logins(session, now.project.id)
    own = {login: agent for agent in now.project.agents.values() for login in agent.sip_logins}
    q = request.args.get("q", "").strip()
    everybody = sorted(now.project.agents.values(), key=lambda agent: (agent.name.casefold(), agent.id))
    found = [
        agent for agent in everybody if any(q.casefold() in text.casefold() for text in (agent.name, *agent.sip_logins))
    ]
    start = _start(found, request.args.get("after", ""), request.args.get("before", ""))
    shown = found[start : start + PAGE_ROWS]
    older = url_for("admin.agents", q=q or None, after=shown[-1].id) if start + PAGE_ROWS < len(found) else None
    newer = url_for("admin.agents", q=q or None, before=shown[0].id) if start > 0 and shown else None
    return render_template(
        "agents/agents.html",
        agents=_rows(now, shown),
        q=q,
        total=len(now.project.agents),
        older_url=older,
        newer_url=newer,
        unowned=[] if q or start or not may(Role.EDITOR) else unowned_logins(now),
        owners=[(agent.id, agent.name) for agent in everybody],
        may_import=now.document["project"]["presence"]["source"] == "ringostat",
        warnings=[
            *((now.project.agents[one.subject_id], one.text) for one in advise_on_deputies(now.project)),
            *((own[login], _shared(login, name)) for login, name in shared.items() if login in own),
        ][:MOST_WARNINGS],
    )


def _start(found: Sequence[Agent], after: str, before: str) -> int:
    """Return where the page begins; 0 if the agent at its edge was deleted."""
    places = {str(agent.id): place for place, agent in enumerate(found)}
    if after in places:
        return places[after] + 1
    return max(0, places.get(before, 0) - PAGE_ROWS)


def _rows(now: Present, agents: Sequence[Agent]) -> list[dict[str, Any]]:
    groups: dict[int, list[dict[str, str]]] = {agent.id: [] for agent in agents}
    for group in now.project.groups.values():
        place = {"name": group.name, "url": url_for("admin.group", id=group.id)}
        for member in group.members:
            if member.agent_id in groups:
                groups[member.agent_id].append(place)
    stored = {row["id"]: row for row in now.document["agents"]}
    return [
        {
            "id": agent.id,
            "name": agent.name,
            "state": now.state(agent.id),
            "logins": [{"login": login, "state": now.login_state(login)} for login in agent.sip_logins],
            "groups": groups[agent.id],
            "limits": _limits(stored[agent.id]),
            "paused": agent.paused,
            "leave": now.leave(agent),
        }
        for agent in agents
    ]


def _limits(row: Mapping[str, Any]) -> list[str]:
    """Return the limits of a document's agent in words."""
    keys = ((row.get(key), notes) for key, notes in section_of(AgentConfig, "limits"))
    return [f"{_(notes.label)}: {plain_number(value)} {_(notes.unit)}" for value, notes in keys if value]


# ---- logins that are online and have no owner


class Unowned(NamedTuple):
    """A login without an owner. `name`: proposed for a new agent. `owner`: (id, name) of its likely owner."""

    login: str
    name: str
    seen_at: datetime
    owner: tuple[int, str] | None


def unowned_logins(now: Present) -> list[Unowned]:
    """Return logins that are online and belong to no agent, at most MOST_UNOWNED."""
    state, login = models.LoginState, models.SipLogin
    project_id = now.project.id
    query = (
        select(state.login, state.since_at)
        .where(
            state.project_id == project_id,
            state.online.is_(True),
            ~exists().where(login.project_id == project_id, login.login == state.login),
        )
        .order_by(state.login)
        .limit(MOST_UNOWNED)
    )
    with reading() as session:
        rows = session.execute(query).all()
    owners = {login: agent for agent in now.project.agents.values() for login in agent.sip_logins}
    return [
        Unowned(row.login, name_from_login(row.login), row.since_at, _likely_owner(row.login, owners))
        for row in rows
        if row.login not in owners  # in a draft
    ]


def name_from_login(login: str) -> str:
    """Propose a name: what follows the site's part, "acme_julian_mob" → "Julian mob"."""
    _site, _underscore, rest = login.partition("_")
    words = (rest or login).replace("_", " ").replace(".", " ").strip()
    return words[:1].upper() + words[1:] if words else login


def _likely_owner(login: str, owners: Mapping[str, Agent]) -> tuple[int, str] | None:
    """Return the likely owner by the login's name: acme_julian_mob belongs to the owner of acme_julian."""
    head = login
    while "_" in head:
        head = head.rpartition("_")[0]
        if agent := owners.get(head):
            return agent.id, agent.name
    return None


@page("/p/<project>/agents/add-login", do=Role.EDITOR, drafts=True)
def agent_add_login() -> ResponseReturnValue:
    """Make a new agent of each login, or give them to an existing agent."""
    logins = list(dict.fromkeys(request.form.getlist("login")))
    to = request.form.get("agent", "")
    names: list[str] = []
    back = url_for("admin.agents")
    if not logins:
        return done(_("Tick the logins first."), back, "warning")
    if not all(map(is_login, logins)) or len(logins) > 10 * MOST_UNOWNED:
        abort(400)
    with changing() as draft:
        taken = next(((login, name) for login, name in _owners(draft).items() if login in logins), None)
        if taken is None and to:
            agent = draft.item("agents", as_id(to) or 0)
            given = [*agent["sip_logins"], *logins]
            if len(given) > (most := most_of(AgentConfig, "sip_logins")):
                return done(too_many_entries(len(given), most), back, "warning")
            draft.put("agents", {"sip_logins": given}, agent["id"])
            names = [agent["name"]]
        elif taken is None:
            typed = request.form.get("name", "").strip() if len(logins) == 1 else ""
            names = _add_agents(draft, logins, typed)
    if taken is not None:
        return done(_("“%(login)s” belongs to %(name)s already.", login=taken[0], name=taken[1]), back, "warning")
    if to:
        message = _("%(name)s has the login now.", name=names[0])
    elif len(names) == 1:
        message = _("%(name)s is added. Put them into a group next.", name=names[0])
    else:
        message = ngettext("%(num)s agent is added.", "%(num)s agents are added.", len(names))
    return done(message, back)


def _owners(draft: Draft) -> dict[str, str]:
    """Return the name of the agent who owns each login."""
    return {login: row["name"] for row in draft.document["agents"] for login in row["sip_logins"]}


def _add_agents(draft: Draft, logins: Sequence[str], typed: str) -> list[str]:
    taken = {row["name"] for row in draft.document["agents"]}
    names = []
    for login in logins:
        names.append(free_name(typed[:MAX_NAME_CHARS] or name_from_login(login), login, taken))
        draft.put("agents", {"name": names[-1], "sip_logins": [login]})
    return names


def free_name(name: str, distinction: str, taken: set[str]) -> str:
    """Return the name, or a longer one that is not in `taken`, and add it there."""
    tries = [name, f"{name} ({distinction})", *(f"{name} ({distinction}, {n})" for n in range(2, 100))]
    free = next(one for one in tries if one not in taken)
    taken.add(free)
    return free


# ---- one agent


class AgentForm(ItemForm):
    kind = "agents"
    BUTTONS = ("leave",)

    name = name_field(lazy("Give the agent a name."), lazy("Agent’s name"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_posted and "formdata" not in kwargs and (preset := request.form.get("leave")) in _PRESETS:
            leave = leave_for(preset, local_now()) if preset in PRESETS else (None, None)
            for field, at in zip((self.away_from, self.away_until), leave, strict=True):
                field.data, field.raw_data = at, None


_PRESETS = {**PRESETS, "none": lazy("Not away")}


@page("/p/<project>/agents/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True, drafts=True)
def agent_new() -> ResponseReturnValue:
    """Add an agent."""
    with editing() as draft:
        form = AgentForm(draft)
        if form.saves():
            return done(_("%(name)s is added.", name=form.name.data), url_for("admin.agents"))
    return render_form("agents/agent.html", form, agent=None, presets=_PRESETS, groups=[])


@page("/p/<project>/agents/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True, drafts=True)
def agent(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one agent."""
    with editing() as draft:
        form = AgentForm(draft, id)
        if form.saves():
            return done(saved_message(), url_for("admin.agents"))
        shared = queries.shared_logins(draft.session, current_project().id)
        name = draft.item("agents", id)["name"]
    now = present([])
    in_use = now.project.agents.get(id) or Agent(id, name)  # calls may go by an earlier version
    return render_form(
        "agents/agent.html",
        form,
        agent=in_use,
        state=now.state(id),
        leave=now.leave(in_use),
        presets=_PRESETS,
        logins=[(login, now.login_state(login)) for login in in_use.sip_logins],
        groups=[group for group in now.project.groups.values() if any(m.agent_id == id for m in group.members)],
        warnings=[
            *(one.text for one in advise_on_deputies(now.project) if one.subject_id == id),
            *(_shared(login, name) for login, name in shared.items() if login in in_use.sip_logins),
        ],
    )


def _shared(login: str, name: str) -> str:
    return _(
        "“%(login)s” is a login of project %(name)s too, on the same Ringostat account. Neither project knows of the "
        "other’s calls: keep the login in one of them.",
        login=login,
        name=name,
    )


@page("/p/<project>/agents/<int:id>/delete", see=Role.EDITOR, do=Role.EDITOR, drafts=True)
def agent_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete an agent, after a page that shows its groups and whose deputy it is."""
    return delete("agents", id)


# ---- import of the platform's staff


class Proposal(NamedTuple):
    """What the import would do with one person of the staff list.

    `kind`: "new", "changed" (an existing agent, with `changes` for ui.diff), "same", or "no_login" (no call could be
    offered). `refused`: logins of other agents, with their owners. `agent_id`: of an existing agent.
    """

    staff_id: str
    name: str
    logins: list[str]
    kind: str
    agent_id: int | None
    changes: list[tuple[str, str, str]]
    refused: list[tuple[str, str]]


@page("/p/<project>/agents/import", see=Role.EDITOR, do=Role.EDITOR, drafts=True)
def agents_import() -> ResponseReturnValue:
    """Show what an import of the platform's staff would change; on POST import the ticked people."""
    if request.method == "POST":
        return _import()
    try:
        staff = _ask_staff()
    except SourceError as error:
        problem = explain_source(error.code, error.message, error.remedy)
        return render_template("agents/import.html", proposals=[], departments=[], problem=problem)
    project = present([]).project
    proposals = propose(project.agents.values(), staff)
    departments = propose_groups(project.groups.values(), staff, proposals)
    return render_template("agents/import.html", proposals=proposals, departments=departments, problem=None)


def _ask_staff() -> list[StaffMember]:
    with reading() as session:
        row = session.get_one(models.Project, current_project().id)
        settings = SourceSettings(
            api_url=row.presence_api_url,
            auth_key=readable(row.presence_auth_key),
            online_from=row.presence_online_from,
            project_id=row.presence_project_id,
            token=readable(row.presence_token),
            with_do_not_disturb=row.presence_with_do_not_disturb,
        )
    with Fetcher(allow_private=context().settings.presence_allow_private, max_in_flight=1) as fetcher:
        return fetch_staff(settings, deadline=time.monotonic() + STAFF_SECONDS, session=fetcher)


def propose(agents: Iterable[Agent], staff: Iterable[StaffMember]) -> list[Proposal]:
    """Return what would change for each person of the list. Agents are matched by staff id, else by a login."""
    ours = list(agents)
    by_staff_id = {agent.staff_id: agent for agent in ours if agent.staff_id}
    owners = {login: agent for agent in ours for login in agent.sip_logins}
    seen: set[int] = set()
    claimed: set[str] = set()
    proposals = []
    for person in staff:
        logins = [login for login in person.sip_logins if is_login(login)]
        agent = by_staff_id.get(person.staff_id) or next((owners[login] for login in logins if login in owners), None)
        if agent is not None and agent.id in seen:
            agent = None  # two people in the list have logins of one agent: the first person gets it
        theirs = [(login, owners[login].name) for login in logins if login in owners and owners[login] is not agent]
        free = [login for login in logins if login not in owners or owners[login] is agent]
        free = [login for login in free if login not in claimed]
        claimed.update(free)
        if agent is None:
            name = (person.name or name_from_login(logins[0] if logins else person.staff_id))[:MAX_NAME_CHARS]
            kind = "new" if free else "no_login"
            proposals.append(Proposal(person.staff_id, name, free, kind, None, [], theirs))
            continue
        seen.add(agent.id)
        name = person.name[:MAX_NAME_CHARS] or agent.name
        wanted = [*agent.sip_logins, *(login for login in free if login not in agent.sip_logins)]
        changes = [
            (label, before, after)
            for label, before, after in (
                (_("Agent’s name"), agent.name, name),
                (_("SIP logins"), ", ".join(agent.sip_logins), ", ".join(wanted)),
                (_("Staff id"), agent.staff_id, person.staff_id),
            )
            if before != after
        ]
        kind = "changed" if changes else "same"
        proposals.append(Proposal(person.staff_id, name, wanted, kind, agent.id, changes, theirs))
    order = {"new": 0, "changed": 1, "no_login": 2, "same": 3}
    return sorted(proposals, key=lambda p: (order[p.kind], p.name.casefold()))


class Department(NamedTuple):
    """A department of the staff list whose people would make a group, or join the one of its name.

    `group_id` None: a new group. `people`: the places of their proposals who are no members yet.
    """

    name: str
    group_id: int | None
    people: list[int]


def propose_groups(
    groups: Iterable[Group], staff: Iterable[StaffMember], proposals: Sequence[Proposal]
) -> list[Department]:
    """Return what departments could become, by name. People who have no agent and get none are left out."""
    own = {group.name.casefold(): group for group in groups}
    places = {one.staff_id: place for place, one in enumerate(proposals) if one.kind != "no_login"}
    names: dict[str, str] = {}  # by what tells departments apart: "Sales" and "SALES" mean one group
    people: dict[str, set[int]] = {}
    for person in staff:
        for department in person.departments:
            name = _("Department %(n)s", n=department) if department.isdigit() else department[:MAX_NAME_CHARS]
            if person.staff_id in places:
                names.setdefault(name.casefold(), name)
                people.setdefault(name.casefold(), set()).add(places[person.staff_id])
    found = []
    for key, name in sorted(names.items()):
        group = own.get(key)
        here = {member.agent_id for member in group.members} if group else set()
        joining = [place for place in sorted(people[key]) if proposals[place].agent_id not in here]
        if joining:
            found.append(Department(group.name if group else name, group.id if group else None, joining))
    return found


def _import() -> ResponseReturnValue:
    """Import the ticked people as they were shown. The preview posts its proposals, which are checked again."""
    added, changed, left = 0, 0, 0
    if len(request.form.getlist("take")) > MOST_TAKEN:
        message = _("Tick at most %(most)s people at once, and the others afterwards.", most=MOST_TAKEN)
        return done(message, url_for("admin.agents_import"), "warning")
    with changing() as draft:
        agents = {row["id"]: row for row in draft.document["agents"]}
        owners = {login: row["id"] for row in agents.values() for login in row["sip_logins"]}
        taken = {row["name"] for row in agents.values()}
        imported: dict[str, int] = {}
        for n in request.form.getlist("take"):
            name = request.form.get(f"name-{n}", "").strip()[:MAX_NAME_CHARS]
            logins = list(dict.fromkeys(request.form.getlist(f"login-{n}")))
            staff_id = request.form.get(f"staff-{n}", "").strip()[:MAX_NAME_CHARS]
            agent_id = request.form.get(f"agent-{n}", "")
            row = agents.get(as_id(agent_id) or 0)
            is_fit = name and name.isprintable() and not UNFIT.search(staff_id) and all(map(is_login, logins))
            if not is_fit or (agent_id and row is None):
                left += 1
                continue
            own_id = None if row is None else row["id"]
            logins = [login for login in logins if owners.get(login) in (None, own_id)]
            if row is None or name != row["name"]:
                taken.discard("" if row is None else row["name"])
                name = free_name(name, staff_id, taken)
            added, changed = added + (row is None), changed + (row is not None)
            imported[n] = draft.put("agents", {"name": name, "staff_id": staff_id, "sip_logins": logins}, own_id)
            owners |= dict.fromkeys(logins, imported[n])
        groups = _import_groups(draft, imported)
    if not added and not changed and not groups:
        return done(_("Nothing was ticked, so nothing was changed."), url_for("admin.agents_import"), "info")
    message = ngettext("%(num)s agent added", "%(num)s agents added", added)
    message += ", " + ngettext("%(num)s changed", "%(num)s changed", changed) + "."
    if groups:
        message += " " + _("They are in the groups: %(names)s.", names=", ".join(groups))
    if left:
        gone = ngettext("%(num)s was left out, gone meanwhile.", "%(num)s were left out, gone meanwhile.", left)
        message += f" {gone}"
    return done(message, url_for("admin.agents"))


def _import_groups(draft: Draft, imported: Mapping[str, int]) -> list[str]:
    """Make or extend the ticked groups, with the agents `imported`, by their place, and those of before."""
    sent, names = request.form, []
    agents = {row["id"] for row in draft.document["agents"]}
    groups = {row["id"]: row for row in draft.document["groups"]}
    taken = {row["name"] for row in groups.values()}
    for n in sent.getlist("group"):
        row, name = groups.get(as_id(sent.get(f"group-id-{n}")) or 0), sent.get(f"group-name-{n}", "").strip()
        members = [*row["members"]] if row else []
        here = {member["agent"] for member in members}
        people = (imported.get(place) or as_id(sent.get(f"agent-{place}")) for place in sent.getlist(f"group-of-{n}"))
        joining = [agent_id for agent_id in dict.fromkeys(people) if agent_id in agents and agent_id not in here]
        if not joining or not name.isprintable() or not name:
            continue
        members += ({"agent": agent_id, "tier": 1, "weight": 1, "hours": None} for agent_id in joining)
        names.append(row["name"] if row else free_name(name[:MAX_NAME_CHARS], "Ringostat", taken))
        draft.put("groups", {"name": names[-1], "members": members}, row and row["id"])
    return names
