"""The live board: where each agent stands, how calls go, and one click to send somebody on a break.

The page is made of parts; each tick asks for those that changed since the last one. What the browser has is in its
request, so that any process can answer, and nothing is kept between.
"""

from __future__ import annotations

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

from router.admin.i18n import _, language
from router.admin.page import (
    CurrentProject,
    Role,
    context,
    current_project,
    current_rules,
    current_user,
    done,
    may,
    owned,
    page,
    reading,
    toast_header,
)
from router.admin.source_words import explain_source
from router.admin.standing import STATES, TILES, Standing, observed_by, snapshot_now, standings
from router.admin.told import Line, Names, line_of, mask_of
from router.core.lifecycle import after_break
from router.core.model import Project, Status, WhenUnknown
from router.db import models
from router.db.board import HOUR, Now, Tally, day_start, last_decisions, read_now, tally
from router.db.configuration import lock_project, publish
from router.db.records import record_of
from router.db.types import from_micros, to_micros

AGENT_ROWS = 200  # shown at first; the others by a click, or by a narrower look
MOST_ROWS = 600  # what is read to its end, and what a tick can name in its address; others by a narrower look
LAST_CALLS = 12
HOURS = 12
SORTS = ("name", "state", "since", "calls")
LONGEST_PAUSE = timedelta(days=31)


# ---- what somebody looks at


class Look(NamedTuple):
    """What of the board is shown: agents in a `state` (a key of TILES), of a `group`, whose name or login holds `q`."""

    state: str = ""
    group: int = 0
    q: str = ""
    sort: str = "name"
    is_all: bool = False

    @classmethod
    def read(cls, sent: Mapping[str, str]) -> Look:
        """From a query; what makes no sense asks for nothing."""
        state, group, sort = sent.get("state", ""), sent.get("group", ""), sent.get("sort", "")
        return cls(
            state if state in TILES else "",
            int(group) if group.isascii() and group.isdigit() and len(group) < 10 else 0,
            sent.get("q", "").strip()[:100],
            sort if sort in SORTS else "name",
            sent.get("all") == "1",
        )

    @property
    def arguments(self) -> dict[str, str]:
        """For a link to it."""
        wanted = {"state": self.state, "group": str(self.group or ""), "q": self.q}
        wanted |= {"sort": "" if self.sort == "name" else self.sort, "all": "1" if self.is_all else ""}
        return {name: value for name, value in wanted.items() if value}

    def url(self, endpoint: str = "admin.board", **changes: Any) -> str:
        values: dict[str, Any] = {**self._replace(**changes).arguments}
        return url_for(endpoint, **values)

    def shows(self, agent: Standing, members: frozenset[int] | None) -> bool:
        """Is this agent looked for?"""
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


# ---- what is to be seen


Skips = tuple[tuple[str, int], ...]
"""Skip reasons, and how many were skipped for them."""


class _Scene(NamedTuple):
    """The project as it stands."""

    project: CurrentProject
    configuration: Project
    now: Now
    at: datetime  # in the project's zone
    basis: str  # of core.eligibility.Observed
    agents: list[Standing]
    tally: Tally
    lines: list[tuple[Line, Skips]]  # with who was passed over


def _look_around() -> _Scene:
    project = current_project()
    zone = ZoneInfo(project.time_zone)
    mask = mask_of(project)
    with reading() as session:
        now = read_now(session, project.id)
        configuration = current_rules(session)
        at = from_micros(now.health.now).astimezone(zone)
        counts = tally(
            session, project.id, now=now.health.now, day_at=day_start(at), hours_at=to_micros(_first_hour(at))
        )
        lines = _lines(session, project)
    snapshot = snapshot_now(now, zone)
    agents = standings(configuration, now, snapshot, counts)
    if project.mask_numbers:
        agents = [agent if agent.caller is None else agent._replace(caller=mask(agent.caller)) for agent in agents]
    basis = observed_by(configuration, snapshot).basis
    return _Scene(project, configuration, now, at, basis, agents, counts, lines)


def _first_hour(at: datetime) -> datetime:
    """The beginning of the first of the HOURS that are drawn."""
    return at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)


_passed_over: WeakKeyDictionary[Engine, OrderedDict[int, Skips]] = WeakKeyDictionary()


def _lines(session: Session, project: CurrentProject) -> list[tuple[Line, Skips]]:
    """The last decisions. A record is read once: it is by far the largest part, and never changes."""
    kept = _passed_over.setdefault(context().database.engine, OrderedDict())
    names, mask = Names(session, project), mask_of(project)
    lines = []
    for entry in last_decisions(session, project.id, limit=LAST_CALLS, known=tuple(kept)):
        if entry.record is not None:
            kept[entry.id] = _skips(record_of(session, entry))
        lines.append((line_of(entry, names, mask), kept[entry.id]))
    while len(kept) > 10 * LAST_CALLS:
        kept.popitem(last=False)
    return lines


def _skips(record: Mapping[str, Any]) -> Skips:
    """Who of the groups that were tried was not free, most frequent first."""
    skips = Counter(skip for _group, candidates in record["trials"] for _a, _l, skip, *_k in candidates if skip)
    return tuple(skips.most_common(3))


# ---- the parts


class Part(NamedTuple):
    """A part of the page that is renewed by itself. `tag` says what is in it."""

    name: str
    tag: str
    render: Callable[[], str]


def _tag(*content: Any) -> str:
    return urlsafe_b64encode(blake2b(repr((*content, language())).encode(), digest_size=3).digest()).decode()


def _parts(scene: _Scene, look: Look) -> list[Part]:
    return [
        _part("fault", fault=g.get("configuration_fault", "")),
        _part("presence", presence=_presence(scene)),
        _part("start", steps=_first_steps(scene)),
        _part("tiles", tiles=_tiles(scene, look)),
        _part("calls", **_calls(scene)),
        _part("decisions", decisions=scene.lines),
    ]


def _part(name: str, **content: Any) -> Part:
    return Part(name, _tag(content), lambda: _render(f"board/_{name}.html", **content))


def _render(template: str, **content: Any) -> str:
    # Not render_template: what every page needs around it is asked of the database, and parts stand in a page already.
    return current_app.jinja_env.get_template(template).render(**content, can_edit=may(Role.EDITOR))


class Presence(NamedTuple):
    """What is known of the phones. `state` fresh, old, unknown or failed; `policy` what calls do meanwhile."""

    state: str
    source: str
    at: datetime | None
    error: Any
    error_at: datetime | None
    policy: str


def _presence(scene: _Scene) -> Presence:
    health = scene.now.health
    state = {"fresh": "fresh", "unknown": "unknown"}.get(scene.basis, "old")
    error = explain_source(health.error_code, health.error_message, health.error_remedy) if health.error_code else None
    return Presence(
        state="failed" if error and state == "unknown" else state,
        source="Ringostat",
        at=None if health.began_at is None else from_micros(health.began_at),
        error=error,
        error_at=None if health.error_at is None else from_micros(health.error_at),
        policy=_policy(scene),
    )


def _policy(scene: _Scene) -> str:
    if scene.basis == "fresh":
        return ""
    if scene.basis == "assume_online":
        return _("Meanwhile every login is taken to be online.")
    if scene.basis == "last_known":
        seconds = int(scene.configuration.last_known.total_seconds())
        return _("Meanwhile calls go by what was last known, for up to %(n)s s.", n=seconds)
    if scene.configuration.when_unknown is WhenUnknown.LAST_KNOWN:
        return _("What was last known is too old by now: no agent is offered a call, calls go to the overflow.")
    return _("No agent is offered a call meanwhile: calls go to the overflow.")


class Step(NamedTuple):
    """A step of the way to the first routed call."""

    title: str
    text: str
    done: bool
    url: str
    action: str


def _first_steps(scene: _Scene) -> list[Step]:
    """What is still to do before calls are routed; [] once all is done."""
    configuration, health = scene.configuration, scene.now.health
    has_agents = any(agent.sip_logins for agent in configuration.agents.values())
    has_group = any(group.members for group in configuration.groups.values())
    has_rule = any(rule.enabled for rule in configuration.rules)
    owned = {login for agent in configuration.agents.values() for login in agent.sip_logins}
    unowned = len(set(health.online) - owned)
    steps = [
        Step(_("Make a project"), "", True, "", ""),
        Step(
            _("Connect to Ringostat"),
            _("Enter the Auth-key, and check the connection: then we know who is online."),
            health.began_at is not None,
            url_for("admin.settings"),
            _("Enter the Auth-key"),
        ),
        Step(
            _("Add the agents"),
            _("%(n)s logins are online and belong to nobody yet.", n=unowned)
            if unowned
            else _("The people who take calls, with their SIP logins."),
            has_agents,
            url_for("admin.agents"),
            _("Add agents"),
        ),
        Step(
            _("Make a group"),
            _("Who answers one kind of call, and in which order they are tried."),
            has_group,
            url_for("admin.groups"),
            _("Make a group"),
        ),
        Step(
            _("Make a rule"),
            _("Which calls go to which group."),
            has_rule,
            url_for("admin.rules"),
            _("Make a rule"),
        ),
        Step(
            _("Enter the hook in Ringostat’s cabinet"),
            _("Then call your own number: the call shows up here by itself."),
            bool(scene.lines),
            url_for("admin.hook"),
            _("Show the hook"),
        ),
    ]
    return [] if all(step.done for step in steps) else steps


class Tile(NamedTuple):
    """A count that narrows the table; `state` "" counts everybody."""

    state: str
    agents: int
    url: str
    is_current: bool


def _tiles(scene: _Scene, look: Look) -> list[Tile]:
    counts = Counter(agent.state for agent in scene.agents)
    tiles = [Tile("", len(scene.agents), look.url(state=""), not look.state)]
    for name, states in TILES.items():
        agents = sum(counts[state] for state in states)
        tiles.append(Tile(name, agents, look.url(state=name), look.state == name))
    return tiles


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


# ---- the table of agents, renewed row by row


class Row(NamedTuple):
    """A row as it is sent, with the tag of what is in it."""

    id: int
    tag: str
    html: Markup


def _drawer() -> Callable[[Standing], str]:
    """What draws rows, made once in a request: with the reader's words and all else that rows have in common."""
    if "draw_row" not in g:
        template = current_app.jinja_env.get_template("board/_agent.html")
        g.draw_row = template.make_module({"can_edit": may(Role.EDITOR)}).row  # type: ignore[attr-defined]  # its macro
    draw: Callable[[Standing], str] = g.draw_row
    return draw


@lru_cache(maxsize=8192)
def _row_of(agent: Standing, _language: str, _project: str, _zone: str, can_edit: bool) -> Row:
    """Rows change seldom, are asked for every two seconds, and look alike to everybody."""
    html = _drawer()(agent)
    tag = urlsafe_b64encode(blake2b(html.encode(), digest_size=3).digest()).decode()
    return Row(agent.id, tag, Markup(html))  # noqa: S704 - made by Jinja


class Table(NamedTuple):
    """The agents that are looked at. `total` all there are, `found` those that the look finds, `rows` those shown."""

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
        ("calls", _("Calls today"), "end nowrap"),
    ]
    tag = _tag(look, len(found), len(scene.agents), [row.id for row in rows])
    return Table(tag, rows, len(found), len(scene.agents), look, columns)


# ---- views


@page("/p/<project>/board", see=Role.VIEWER)
def board() -> ResponseReturnValue:
    """The board as a page."""
    look = Look.read(request.args)
    scene = _look_around()
    parts, table = _parts(scene, look), _table(scene, look)
    groups = sorted((group.name, group.id) for group in scene.configuration.groups.values())
    return render_template(
        "board/board.html",
        parts={part.name: Markup(part.render()) for part in parts},  # noqa: S704 - made by Jinja
        table=table,
        look=look,
        groups=groups,
        seen=_seen(parts, table),
    )


@page("/p/<project>/board/live", see=Role.VIEWER)
def board_live() -> ResponseReturnValue:
    """What changed since `seen`; 204 when nothing did."""
    return _news(Look.read(request.args), request.args.get("seen", ""))


def _seen(parts: Sequence[Part], table: Table) -> str:
    """What the browser has when it shows this: the tags of the parts, of the table, and of its rows."""
    return "".join([*(part.tag for part in parts), table.tag, *(row.tag for row in table.rows)])


def _news(look: Look, seen: str) -> Response:
    scene = _look_around()
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


# ---- one agent, and what can be done with one


@page("/p/<project>/board/agents/<int:id>", see=Role.EDITOR)
def board_agent(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """What the button at the end of a row opens."""
    scene = _look_around()
    agent = next((agent for agent in scene.agents if agent.id == id), None)
    if agent is None:
        abort(404)
    end_of_day = (scene.at + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    is_htmx = bool(request.headers.get("HX-Request"))
    return render_template(
        "board/_panel.html" if is_htmx else "board/agent.html",
        a=agent,
        rest_of_day=max(1, (to_micros(end_of_day) - to_micros(scene.at)) // 60_000_000),
        is_htmx=is_htmx,
    )


class _DeedError(Exception):
    """It cannot be done; the message says why."""


@page("/p/<project>/board/deed", do=Role.EDITOR)
def agent_deed() -> ResponseReturnValue:
    """Set an agent's status, pause or resume.

    `do` is "on_break:7", "available:7", "off_duty:7", "pause:7:30" (minutes), "pause:7" with `until` ("14:30", of today
    or else of tomorrow), or "resume:7".
    """
    deed, _colon, rest = request.form.get("do", "").partition(":")
    number, _colon, argument = rest.partition(":")
    if deed not in (*Status, "pause", "resume") or not number.isascii() or not number.isdigit() or len(number) > 9:
        abort(400)
    look = Look.read(dict(parse_qsl(request.form.get("look", ""))))
    is_htmx = bool(request.headers.get("HX-Request"))
    try:
        if deed in ("pause", "resume"):
            message = _pause_or_resume(int(number), deed, argument or request.form.get("until", ""))
        else:
            message = _declare(int(number), Status(deed))
    except _DeedError as error:
        if is_htmx:
            return Response(status=204, headers=toast_header(str(error), "danger"))
        return done(str(error), look.url(), "danger")
    if not is_htmx:
        return done(message, look.url())
    response = _news(look, request.form.get("seen", ""))
    response.headers.update(toast_header(message))
    return response


def _hold(session: Session, agent_id: int) -> tuple[models.Agent, models.AgentState]:
    """The agent and its state, held until the transaction ends."""
    agent = owned(session, models.Agent, agent_id)
    state = session.get(models.AgentState, agent.id, with_for_update=True)
    if state is None:
        state = models.AgentState(agent_id=agent.id, project_id=agent.project_id, status=Status.AVAILABLE)
        session.add(state)
    return agent, state


def _declare(agent_id: int, status: Status) -> str:
    """Set the status; a return from a break begins with a clean slate."""
    database = context().database
    with database.writing() as session:
        agent, state = _hold(session, agent_id)
        before = str(state.status)
        if before != status:
            now = database.now(session)
            state.status, state.status_since_at, state.status_reason = status, now, ""
            if status is Status.AVAILABLE:
                for name, value in after_break(now).items():
                    setattr(state, name, value)
            _write_down(session, agent, now, {"status": before}, {"status": status.value})
    return _SAID[status](agent.name)


_SAID: Mapping[Status, Callable[[str], str]] = {
    Status.AVAILABLE: lambda name: _("%(name)s is available.", name=name),
    Status.ON_BREAK: lambda name: _("%(name)s is on a break.", name=name),
    Status.OFF_DUTY: lambda name: _("%(name)s is off duty.", name=name),
}


def _pause_or_resume(agent_id: int, deed: str, argument: str) -> str:
    database, project = context().database, current_project()
    until = None
    if deed == "pause":
        until = _until(argument, datetime.now(UTC).astimezone(ZoneInfo(project.time_zone)))
    with database.writing() as session:
        lock_project(session, project.id)  # first, as whoever changes the configuration does
        agent, state = _hold(session, agent_id)
        name, before = agent.name, state.paused_until
        now = database.now(session)
        state.paused_until = until
        if until is None:
            state.available_since_at = now
        _write_down(session, agent, now, {"paused_until": _iso(before)}, {"paused_until": _iso(until)})
        if until is None and agent.paused:  # by the agent's form: that is configuration
            agent.paused = False
            publish(session, project.id, current_user().email)
    if until is not None:
        clock = (
            until.strftime("%H:%M") if until.date() == now.astimezone(until.tzinfo).date() else f"{until:%d.%m. %H:%M}"
        )
        return _("%(name)s is paused until %(time)s.", name=name, time=clock)
    return _("%(name)s goes on.", name=name)


def _until(text: str, now: datetime) -> datetime:
    """So many minutes from now, or the next time that the clock shows this. Raises _DeedError."""
    hours, colon, minutes = text.strip().partition(":")
    if not (hours + minutes).isascii() or not (hours + minutes).isdigit() or len(text) > 6:
        raise _DeedError(_("Write until when, as in 14:30."))
    if not colon:
        until = (now.astimezone(UTC) + timedelta(minutes=int(hours))).astimezone(now.tzinfo)
    elif int(hours) < 24 and int(minutes or 0) < 60:
        until = now.replace(hour=int(hours), minute=int(minutes or 0), second=0, microsecond=0)
        if until <= now:
            until += timedelta(days=1)
    else:
        raise _DeedError(_("Write until when, as in 14:30."))
    if not now < until <= now + LONGEST_PAUSE:
        raise _DeedError(_("A pause lasts from a minute to 31 days."))
    return until


def _write_down(
    session: Session, agent: models.Agent, at: datetime, before: dict[str, Any], after: dict[str, Any]
) -> None:
    session.add(
        models.AuditEntry(
            at=at,
            actor=current_user().email,
            project_id=agent.project_id,
            action="changed",
            subject="agent",
            subject_id=agent.id,
            subject_name=agent.name,
            before=before,
            after=after,
        )
    )


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
