"""Try a call: what would be decided, now or at a chosen moment, with live or chosen presence. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from router.admin.forms.parts import which_of_two
from router.admin.forms.try_call import TryForm
from router.admin.page import Role, context, current_configuration, current_project, is_in_draft, page, reading
from router.admin.security import here_under
from router.core.decision import decide, login_state, observe
from router.core.model import Agent, AgentState, Call, DeviceState, Presence, Project, Snapshot, Status
from router.db.documents import Configured
from router.explanation.decision import explain_call

MOST_LISTED = 300  # agents in the list to tick; more only if presence is chosen


class Tick(NamedTuple):
    """An agent in the list to tick."""

    id: int
    name: str
    online: bool
    speaking: bool


@page("/p/<project>/try", see=Role.VIEWER, do=Role.VIEWER, is_form=True, drafts=True)
def try_call() -> ResponseReturnValue:
    """Show the form, and with numbers in the URL the decision. A post redirects to that URL, which can be shared."""
    form = TryForm(request.form if request.method == "POST" else request.args)
    is_valid = form.validate()
    if request.method == "POST" and is_valid:
        arguments: dict[str, Any] = form.arguments
        return redirect(url_for("admin.try_call", **arguments, _anchor="result"), 303)
    project = current_project()
    is_asked = is_valid and bool({"caller", "dialed"} & request.args.keys())
    call = form.call(project.country) if is_asked else Call()
    draft = _draft()
    rules = draft and draft.project
    configuration, snapshot, decision = context().routing.explain(project.id, call, at=form.at.data, instead=rules)
    ticks = _ticks(form, configuration, snapshot)
    if form.is_chosen:
        snapshot = _as_chosen(form, configuration, snapshot, ticks)
        decision = decide(configuration, call, snapshot)
    explained = None
    if is_asked:
        with reading() as session:
            explained = explain_call(session, configuration, call, snapshot, decision, draft)
        if form.is_chosen:
            explained = explained._replace(presence="chosen", presence_age_seconds=None)
    is_long = len(configuration.agents) > MOST_LISTED and not form.is_chosen
    page_html = render_template(
        "try/try.html",
        form=form,
        which_of_two=which_of_two(form.at.data, project.time_zone) if form.at.data else "",
        d=explained,
        call=call,
        params=call.params,
        ticks=[] if is_long else ticks,
        is_long=is_long,
        agents=len(configuration.agents),
        rows=form.rows or [("", "")],
        address=here_under(context().settings.public_url or request.root_url),  # to be shared
    )
    return page_html, 422 if request.method == "POST" else 200


def _draft() -> Configured | None:
    """Return the draft on its pages."""
    if not is_in_draft():
        return None
    with reading() as session:
        return current_configuration(session)


def _ticks(form: TryForm, configuration: Project, snapshot: Snapshot) -> list[Tick]:
    """Return all agents with the ticks of the form; before any choice, as they are now."""
    observed = observe(configuration, snapshot.presence)
    ticks = []
    for agent in sorted(configuration.agents.values(), key=lambda agent: agent.name.casefold()):
        if form.online is None or form.speaking is None:
            states = {login_state(login, observed) for login in agent.sip_logins}
            online, speaks = DeviceState.IDLE in states, DeviceState.SPEAKING in states
        else:
            online, speaks = agent.id in form.online, agent.id in form.speaking
        ticks.append(Tick(agent.id, agent.name, online or speaks, speaks))
    return ticks


def _as_chosen(form: TryForm, configuration: Project, snapshot: Snapshot, ticks: list[Tick]) -> Snapshot:
    """Return the snapshot with these agents online and speaking now."""
    agents: dict[int, Agent] = dict(configuration.agents)
    presence = Presence(
        online=frozenset(login for tick in ticks if tick.online for login in agents[tick.id].sip_logins),
        speaking=frozenset(login for tick in ticks if tick.speaking for login in agents[tick.id].sip_logins[:1]),
        age=timedelta(0),
    )
    states = snapshot.agents
    if form.ready.data:
        states = {agent_id: _ready(state) for agent_id, state in states.items()}
    return replace(snapshot, presence=presence, agents=states)


def _ready(state: AgentState) -> AgentState:
    return state._replace(
        status=Status.AVAILABLE, paused_until=None, reserved_until=None, wrap_up_until=None, cooling_until=None
    )
