"""The live board: the state of each agent, today's calls, and buttons to set an agent's status.

The page has parts; each refresh asks for those that changed since the last one. The browser sends tags (short hashes)
of what it shows, so that any process can answer, without state on the server.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from flask import Response, abort, current_app, g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from router.admin import words
from router.admin.check_words import troubles
from router.admin.first_steps import Step, first_steps
from router.admin.i18n import _, language, lazy
from router.admin.leave import PRESETS, LeaveError, as_document, leave_between, leave_for, leave_words
from router.admin.page import (
    CurrentProject,
    Role,
    as_id,
    audit_entry,
    changing,
    context,
    current_project,
    current_rules,
    done,
    local_now,
    may,
    offer_undo,
    owned,
    page,
    reading,
    toast_header,
)
from router.admin.source_words import explain_source
from router.admin.views.schedules import Closing, load_closing
from router.core.decision import Basis
from router.core.lifecycle import after_break
from router.core.model import Project, SkipReason, Status, WhenUnknown
from router.db import models
from router.db.board import HOUR, Now, Tally, day_start, last_decisions, read_now, tally
from router.db.records import record_of
from router.db.types import from_micros, to_micros
from router.explanation.agents import BoardAgent, Leave, board_agents, present_of
from router.explanation.decision import presence_state
from router.explanation.log import Line, Names, line_of
from router.presence.source import ErrorCode

AGENT_ROWS = 200  # shown at first; others by a click or a filter
MOST_ROWS = 600  # the most, because the URL of a refresh holds the tags of all rows; others by a filter
LAST_CALLS = 12
HOURS = 12
SORTS = ("name", "state", "since", "calls")
LONGEST_PAUSE = timedelta(days=31)

_COUNTED = ("reserved", "speaking", "wrap_up", "cooling_down", "offline", "presence_unknown", "already_tried")
TILES: Mapping[str, Sequence[str]] = {
    "idle": ("idle",),
    "reserved": ("reserved",),
    "speaking": ("speaking",),
    "wrap_up": ("wrap_up", "cooling_down"),
    "away": tuple(reason.value for reason in SkipReason if reason not in _COUNTED),
    "offline": ("offline", "presence_unknown"),
}
"""The counts above the table, with the states that each counts."""

STATES = [state for states in TILES.values() for state in states]
"""The states of agents, in the order of the board."""


# ---- filter and order


class Look(NamedTuple):
    """The filter and order of the agents: of a `state` (a key of TILES), of a `group`, with `q` in a name or login."""

    state: str = ""
    group: int = 0
    q: str = ""
    sort: str = "name"
    is_all: bool = False

    @classmethod
    def read(cls, sent: Mapping[str, str]) -> Look:
        """Read a query. Invalid values are ignored."""
        state, sort = sent.get("state", ""), sent.get("sort", "")
        return cls(
            state if state in TILES else "",
            as_id(sent.get("group")) or 0,
            sent.get("q", "").strip()[:100],
            sort if sort in SORTS else "name",
            sent.get("all") == "1",
        )

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments of a link to this view."""
        wanted = {"state": self.state, "group": str(self.group or ""), "q": self.q}
        wanted |= {"sort": "" if self.sort == "name" else self.sort, "all": "1" if self.is_all else ""}
        return {name: value for name, value in wanted.items() if value}

    def url(self, endpoint: str = "admin.board", **changes: Any) -> str:
        values: dict[str, Any] = {**self._replace(**changes).arguments}
        return url_for(endpoint, **values)

    def shows(self, agent: BoardAgent, members: frozenset[int] | None) -> bool:
        """Return whether this agent is shown. `members`: of the group, None for all agents."""
        if self.state and agent.state not in TILES[self.state]:
            return False
        if members is not None and agent.id not in members:
            return False
        wanted = self.q.casefold()
        return (
            not wanted
            or wanted in agent.name.casefold()
            or any(wanted in login.casefold() for login, _s in agent.logins)
        )


# ---- the data


Skips = tuple[tuple[str, int], ...]
"""Skip reasons with their counts."""


class _Scene(NamedTuple):
    """The present state of the project."""

    project: CurrentProject
    configuration: Project
    now: Now
    at: datetime  # in the project's zone
    basis: Basis
    agents: list[BoardAgent]
    tally: Tally
    lines: list[tuple[Line, Skips]]
    closing: Closing


def _load_scene() -> _Scene:
    project = current_project()
    zone = ZoneInfo(project.time_zone)
    with reading() as session:
        now = read_now(session, project.id)
        configuration = current_rules(session)
        at = from_micros(now.health.now).astimezone(zone)
        counts = tally(
            session, project.id, now=now.health.now, day_at=day_start(at), hours_at=to_micros(_first_hour(at))
        )
        lines = _lines(session, project)
        closing = load_closing(session, at)
    present = present_of(configuration, now)
    agents = board_agents(present, now, counts)
    if project.mask_numbers:
        agents = [
            agent if agent.caller is None else agent._replace(caller=project.mask(agent.caller)) for agent in agents
        ]
    return _Scene(project, configuration, now, at, present.observed.basis, agents, counts, lines, closing)


def _first_hour(at: datetime) -> datetime:
    """Return the beginning of the first of the HOURS shown."""
    return at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)


_skips_by_decision: WeakKeyDictionary[Engine, OrderedDict[int, Skips]] = WeakKeyDictionary()


def _lines(session: Session, project: CurrentProject) -> list[tuple[Line, Skips]]:
    """Return the last decisions. Each record is read once: it is large and never changes."""
    known = _skips_by_decision.setdefault(context().database.engine, OrderedDict())
    names = Names(session, project.id, project.version)
    lines = []
    for entry in last_decisions(session, project.id, limit=LAST_CALLS, known=tuple(known)):
        if entry.record is not None:
            known[entry.id] = _skips(record_of(session, entry))
        lines.append((line_of(entry, names, project.mask), known[entry.id]))
    while len(known) > 10 * LAST_CALLS:
        known.popitem(last=False)
    return lines


def _skips(record: Mapping[str, Any]) -> Skips:
    """Return the most frequent skip reasons of the groups that were tried."""
    skips = Counter(skip for _group, candidates in record["trials"] for _a, _l, skip, *_k in candidates if skip)
    return tuple(skips.most_common(3))


# ---- the parts of the page


class Part(NamedTuple):
    """A part of the page that is refreshed by itself. `tag`: a short hash of its content."""

    name: str
    tag: str
    render: Callable[[], str]


def _tag(*content: Any) -> str:
    return urlsafe_b64encode(blake2b(repr((*content, language())).encode(), digest_size=3).digest()).decode()


def _parts(scene: _Scene, look: Look) -> list[Part]:
    return [
        _part("trouble", troubles=troubles()),
        _part("fault", fault=g.get("configuration_fault", "")),
        _part("presence", presence=_presence(scene)),
        _part("overflow", is_missing=not scene.configuration.overflow),
        _part("closed", closed=scene.closing.closed),
        _part("start", steps=_first_steps(scene)),
        _part("tiles", tiles=_tiles(scene, look)),
        _part("calls", **_calls(scene)),
        _part("decisions", decisions=scene.lines),
    ]


def _part(name: str, **content: Any) -> Part:
    return Part(name, _tag(content), lambda: _render(f"board/_{name}.html", **content))


def _render(template: str, **content: Any) -> str:
    # Not render_template, whose context for whole pages reads the database.
    return current_app.jinja_env.get_template(template).render(**content, can_edit=may(Role.EDITOR))


def _presence(scene: _Scene) -> dict[str, Any]:
    """Return what _presence.html needs. `state`: fresh, old, unknown, failed, or "new" before the Auth-key was entered;
    `policy`: what calls do meanwhile.
    """
    health = scene.now.health
    state = presence_state(scene.basis)
    if health.began_at is None and health.error_code in ("", ErrorCode.NO_KEY) and not scene.lines:
        state = "new"
    error = explain_source(health.error_code, health.error_message, health.error_remedy) if health.error_code else None
    return {
        "state": "failed" if error and state == "unknown" else state,
        "source": "Ringostat",
        "at": None if health.began_at is None else from_micros(health.began_at),
        "error": error,
        "error_at": None if health.error_at is None else from_micros(health.error_at),
        "policy": _policy(scene),
    }


def _policy(scene: _Scene) -> str:
    configuration, basis = scene.configuration, scene.basis
    if basis is Basis.UNKNOWN and configuration.when_unknown is WhenUnknown.LAST_KNOWN:
        return _("The last known presence is too old: all calls go to the overflow.")
    return basis.help and _(basis.help, n=int(configuration.last_known.total_seconds()))


def _first_steps(scene: _Scene) -> list[Step]:
    configuration, health = scene.configuration, scene.now.health
    owned = {login for agent in configuration.agents.values() for login in agent.sip_logins}
    return first_steps(
        configuration,
        is_connected=health.began_at is not None,
        has_calls=bool(scene.lines),
        unowned_logins=len(set(health.online) - owned),
    )


_COUNTED_AS = {"": lazy("All agents"), "idle": lazy("Free"), "speaking": lazy("Talking")}
"""The words for several agents, where they are not those of the state."""


class Tile(NamedTuple):
    """A count of agents that filters the table; `state` "" counts all."""

    state: str
    label: str
    agents: int
    url: str
    is_current: bool


def _tiles(scene: _Scene, look: Look) -> list[Tile]:
    counts = Counter(agent.state for agent in scene.agents)
    counted = {"": len(scene.agents), **{name: sum(counts[state] for state in TILES[name]) for name in TILES}}
    return [
        Tile(name, str(_COUNTED_AS.get(name) or words.STATES[name].label), n, look.url(state=name), look.state == name)
        for name, n in counted.items()
    ]


def _calls(scene: _Scene) -> dict[str, Any]:
    first, last = to_micros(_first_hour(scene.at)) // HOUR, scene.now.health.now // HOUR
    hours = [
        (
            from_micros(hour * HOUR).astimezone(scene.at.tzinfo).strftime("%H:%M"),
            scene.tally.to_agents[hour],
            scene.tally.to_overflow[hour],
        )
        for hour in range(first, last + 1)
    ]
    return {
        "hours": hours,
        "offered": sum(scene.tally.offers.values()),
        "answered": sum(agent.answered for agent in scene.agents),
    }


# ---- the table of agents, refreshed row by row


class Row(NamedTuple):
    """A rendered row with its tag."""

    id: int
    tag: str
    html: Markup


def _row_macro() -> Callable[[BoardAgent], str]:
    """Return the macro that renders a row, made once in a request."""
    if "row_macro" not in g:
        template = current_app.jinja_env.get_template("board/_agent.html")
        g.row_macro = template.make_module({"can_edit": may(Role.EDITOR)}).row  # type: ignore[attr-defined]  # its macro
    macro: Callable[[BoardAgent], str] = g.row_macro
    return macro


@lru_cache(maxsize=8192)
def _row_of(agent: BoardAgent, _language: str, _project: str, _zone: str, can_edit: bool) -> Row:
    """Render a row. Cached: rows change rarely, are asked for every two seconds, and are the same for all readers."""
    html = _row_macro()(agent)
    tag = urlsafe_b64encode(blake2b(html.encode(), digest_size=3).digest()).decode()
    return Row(agent.id, tag, Markup(html))  # noqa: S704 - made by Jinja


class Table(NamedTuple):
    """The table of agents. `total`: all agents, `found`: those that the filter finds, `rows`: those shown."""

    tag: str
    rows: list[Row]
    found: int
    total: int
    look: Look
    columns: list[tuple[str, str, str]]  # sort, label, class

    @property
    def html(self) -> Markup:
        return Markup("\n".join([row.html for row in self.rows]))  # noqa: S704 - made by Jinja


def _table(scene: _Scene, look: Look) -> Table:
    members: frozenset[int] | None = None
    if look.group:
        group = scene.configuration.groups.get(look.group)
        members = frozenset(member.agent_id for member in group.members) if group else frozenset()
    found = [agent for agent in scene.agents if look.shows(agent, members)]
    if look.sort == "state":
        found.sort(key=lambda agent: STATES.index(agent.state))
    elif look.sort == "since":
        found.sort(key=lambda agent: agent.since or scene.at)
    elif look.sort == "calls":
        found.sort(key=lambda agent: (-agent.answered, -agent.offered))
    shown = found[: MOST_ROWS if look.is_all else AGENT_ROWS]
    project = scene.project
    rows = [_row_of(agent, language(), project.name, project.time_zone, may(Role.EDITOR)) for agent in shown]
    columns = [
        ("name", _("Agent"), ""),
        ("state", _("State"), ""),
        ("since", _("Since"), ""),
        ("calls", _("Calls today"), "end"),
    ]
    tag = _tag(look, len(found), len(scene.agents), [row.id for row in rows])
    return Table(tag, rows, len(found), len(scene.agents), look, columns)


# ---- views


@page("/p/<project>/board", see=Role.VIEWER)
def board() -> ResponseReturnValue:
    """Show the board."""
    look = Look.read(request.args)
    scene = _load_scene()
    parts, table = _parts(scene, look), _table(scene, look)
    groups = sorted((group.name, group.id) for group in scene.configuration.groups.values())
    return render_template(
        "board/board.html",
        parts={part.name: Markup(part.render()) for part in parts},  # noqa: S704 - made by Jinja
        table=table,
        look=look,
        groups=groups,
        schedules=scene.closing.schedules,
        seen=_seen(parts, table),
    )


@page("/p/<project>/board/live", see=Role.VIEWER)
def board_live() -> ResponseReturnValue:
    """Render what changed since `seen`; 204 when nothing did."""
    return _news(Look.read(request.args), request.args.get("seen", ""))


def _seen(parts: Sequence[Part], table: Table) -> str:
    """Return the tags of the parts, the table and its rows, which the browser sends with the next refresh."""
    return "".join([*(part.tag for part in parts), table.tag, *(row.tag for row in table.rows)])


def _news(look: Look, seen: str) -> Response:
    scene = _load_scene()
    parts, table = _parts(scene, look), _table(scene, look)
    now_seen = _seen(parts, table)
    if now_seen == seen:
        return Response(status=204)
    has = [seen[place : place + 4] for place in range(0, len(seen), 4)]
    news = [part for part, tag in zip_longest(parts, has[: len(parts)]) if part is not None and part.tag != tag]
    is_same_table = has[len(parts) : len(parts) + 1] == [table.tag] and len(has) == len(parts) + 1 + len(table.rows)
    rows = [row for row, tag in zip(table.rows, has[len(parts) + 1 :], strict=False) if row.tag != tag]
    html = _render(
        "board/_news.html",
        parts=[(part.name, Markup(part.render())) for part in news],  # noqa: S704 - made by Jinja
        table=None if is_same_table else table,
        rows=rows if is_same_table else [],
        seen=now_seen,
    )
    return Response(html, mimetype="text/html")


# ---- one agent


@page("/p/<project>/board/agents/<int:id>", see=Role.EDITOR)
def board_agent(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show the panel of an agent, which the button at the end of a row opens."""
    return _panel(id)


def _panel(id: int, error: str = "") -> str:  # noqa: A002 - as above
    scene = _load_scene()
    agent = next((agent for agent in scene.agents if agent.id == id), None)
    if agent is None:
        abort(404)
    deputies = sorted((other.name, other.id) for other in scene.configuration.agents.values() if other.id != id)
    return render_template(
        "board/_panel.html" if request.headers.get("HX-Request") else "board/agent.html",
        a=agent,
        presets=PRESETS,
        deputies=deputies,
        typed={"deputy": str(scene.configuration.agents[id].deputy_id or ""), **request.form},
        error=error,
    )


class ActionError(Exception):
    """An action that is not possible; the message says why."""


@page("/p/<project>/board/deed", do=Role.EDITOR)
def agent_action() -> ResponseReturnValue:
    """Set an agent's status, pause or resume, set or end a leave.

    `do` is "on_break:7", "available:7", "off_duty:7", "pause:7:30" (minutes), "pause:7" with `until` ("14:30", of today
    or else of tomorrow), "pause:7:" and an instant, "resume:7", "leave:7:tomorrow" (one of PRESETS), "leave:7" with the
    dates `first` and `last`, both with `deputy`, or "return:7".
    """
    action, _colon, rest = request.form.get("do", "").partition(":")
    number, _colon, argument = rest.partition(":")
    agent_id = as_id(number)
    if action not in (*Status, *_ACTIONS) or agent_id is None:
        abort(400)
    look = Look.read(dict(parse_qsl(request.form.get("look", ""))))
    is_htmx = bool(request.headers.get("HX-Request"))
    try:
        message = _ACTIONS[action](agent_id, argument) if action in _ACTIONS else _set_status(agent_id, Status(action))
    except (ActionError, LeaveError) as error:
        panel = _panel(agent_id, str(error))
        return (
            f'<hx-partial hx-target="#agent-panel" hx-swap="innerHTML">{panel}</hx-partial>' if is_htmx else panel
        ), 422
    if not is_htmx:
        return done(message, look.url())
    response = _news(look, request.form.get("seen", ""))
    response.headers.update(toast_header(message, back=look.url()))
    return response


def _lock_agent(session: Session, agent_id: int) -> tuple[models.Agent, models.AgentState]:
    """Return the agent and its state, locked until the transaction ends."""
    agent = owned(session, models.Agent, agent_id)
    state = session.get(models.AgentState, agent.id, with_for_update=True)
    if state is None:
        state = models.AgentState(agent_id=agent.id, project_id=agent.project_id, status=Status.AVAILABLE)
        session.add(state)
    return agent, state


def _set_status(agent_id: int, status: Status) -> str:
    """Set the status. A return from a break resets what core.lifecycle.after_break names."""
    database = context().database
    with database.writing() as session:
        agent, state = _lock_agent(session, agent_id)
        before = str(state.status)
        if before != status:
            now = database.now(session)
            state.status, state.status_since_at, state.status_reason = status, now, ""
            if status is Status.AVAILABLE:
                for name, value in after_break(now).items():
                    setattr(state, name, value)
            _audit(session, agent, {"status": before}, {"status": status.value})
            offer_undo(url_for("admin.agent_action"), do=f"{before}:{agent_id}")
    return {
        Status.AVAILABLE: _("%(name)s is available.", name=agent.name),
        Status.ON_BREAK: _("%(name)s is on a break.", name=agent.name),
        Status.OFF_DUTY: _("%(name)s is off duty.", name=agent.name),
    }[status]


def _pause(agent_id: int, argument: str) -> str:
    until = _until(argument or request.form.get("until", ""), local_now())
    with context().database.writing() as session:
        name, now, before = _set_pause(session, agent_id, until)
    offer_undo(url_for("admin.agent_action"), do=pause_as_it_was(agent_id, before, now) or f"resume:{agent_id}")
    is_today = until.date() == now.astimezone(until.tzinfo).date()
    clock = until.strftime("%H:%M" if is_today else "%d.%m %H:%M")
    return _("%(name)s is paused until %(time)s.", name=name, time=clock)


def _resume(agent_id: int, _argument: str) -> str:
    with changing() as draft:
        name, now, before = _set_pause(draft.session, agent_id, None)
        is_configured = draft.item("agents", agent_id)["paused"]  # in the agent's form
        if is_configured:
            draft.put("agents", {"paused": False}, agent_id)
    if not is_configured and (do := pause_as_it_was(agent_id, before, now)):
        offer_undo(url_for("admin.agent_action"), do=do)
    return _("%(name)s takes calls again.", name=name)


def pause_as_it_was(agent_id: int, until: datetime | None, now: datetime) -> str:
    """Return the action that pauses until then once more; "" where there is none left."""
    return f"pause:{agent_id}:{_iso(until)}" if until is not None and until > now else ""


def _set_pause(session: Session, agent_id: int, until: datetime | None) -> tuple[str, datetime, datetime | None]:
    """Pause until then; None: resume. Return the agent's name, when that was, and until when it was paused before."""
    agent, state = _lock_agent(session, agent_id)
    now, before = context().database.now(session), state.paused_until
    state.paused_until = until
    if until is None:
        state.available_since_at = now
    _audit(session, agent, {"paused_until": _iso(before)}, {"paused_until": _iso(until)})
    return agent.name, now, before


def _leave(agent_id: int, preset: str) -> str:
    now, sent = local_now(), request.form
    if preset and preset not in PRESETS:
        abort(400)
    begin, until = leave_for(preset, now) if preset else leave_between(sent.get("first", ""), sent.get("last", ""), now)
    with changing() as draft:
        deputies = {row["id"]: row["name"] for row in draft.document["agents"] if row["id"] != agent_id}
        deputy = as_id(sent.get("deputy"))
        if deputy is not None and deputy not in deputies:
            raise ActionError(_("This deputy no longer exists: choose another."))
        name = draft.item("agents", agent_id)["name"]
        draft.put("agents", {"deputy": deputy, **as_document(begin, until)}, agent_id)
    is_now = begin is None or begin <= now
    return f"{name}: {leave_words(Leave(begin, until, is_now, deputies.get(deputy or 0, '')))}"


def _return(agent_id: int, _argument: str) -> str:
    with changing() as draft:
        name = draft.item("agents", agent_id)["name"]
        draft.put("agents", as_document(None, None), agent_id)
    return _("%(name)s is back.", name=name)


_ACTIONS: Mapping[str, Callable[[int, str], str]] = {
    "pause": _pause,
    "resume": _resume,
    "leave": _leave,
    "return": _return,
}
"""The actions besides setting a status: given the agent and the argument they return what to say."""


def _until(text: str, now: datetime) -> datetime:
    """Return the end of a pause: minutes from now ("30"), the next such local time ("14:30"), or an instant of a pause
    before. Raises ActionError.
    """
    found = re.fullmatch(r"(\d{1,6})|([01]?\d|2[0-3]):([0-5]?\d)?|(\d{4}-\S+\+00:00)", text.strip(), re.ASCII)
    if found is None:
        raise ActionError(_("Write until when, as in 14:30."))
    if found[4]:
        try:
            until = datetime.fromisoformat(found[4]).astimezone(now.tzinfo)
        except ValueError:
            raise ActionError(_("Write until when, as in 14:30.")) from None
    elif found[1]:
        until = (now.astimezone(UTC) + timedelta(minutes=int(found[1]))).astimezone(now.tzinfo)
    else:
        until = now.replace(hour=int(found[2]), minute=int(found[3] or 0), second=0, microsecond=0)
        if until <= now:
            until += timedelta(days=1)
    if not now < until <= now + LONGEST_PAUSE:
        raise ActionError(_("A pause lasts from a minute to 31 days."))
    return until


def _audit(session: Session, agent: models.Agent, before: dict[str, Any], after: dict[str, Any]) -> None:
    entry = audit_entry("changed", "agent", project_id=agent.project_id, name=agent.name, subject_id=agent.id)
    entry.before, entry.after = before, after
    session.add(entry)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
