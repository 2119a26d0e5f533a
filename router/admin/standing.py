"""Where each agent stands, in the board's terms: told by the rules' own functions from what the hook would read.

Pure: rows in, words' keys out. What is shown of it, and how, is the templates' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.core.eligibility import Observed, login_state, observe, standing
from router.core.model import LAWS, Agent, AgentState, Project, SkipReason, Snapshot
from router.db.board import AgentNow, LoginNow, Now, Tally
from router.db.types import from_micros
from router.routing import snapshot_of

_NOBODY_KNOWN = AgentState()

STATES = ("idle", "reserved", "speaking", "wrap_up", "cooling_down", "on_break", "paused", "off_duty", "off_hours",
          "at_cap", "offline", "presence_unknown")  # fmt: skip
"""All that `Standing.state` can be, who can be reached by a call first."""

TILES: Mapping[str, frozenset[str]] = {
    "idle": frozenset({"idle"}),
    "reserved": frozenset({"reserved"}),
    "speaking": frozenset({"speaking"}),
    "wrap_up": frozenset({"wrap_up", "cooling_down"}),
    "away": frozenset({"on_break", "paused", "off_duty", "off_hours", "at_cap"}),
    "offline": frozenset({"offline", "presence_unknown"}),
}
"""Name of a count above the table → the states that it counts."""


class LoginTold(NamedTuple):
    """One SIP login: `state` speaking, idle (online), offline or unknown."""

    login: str
    state: str


class Standing(NamedTuple):
    """One agent. `state` is why the next call will or will not come, a talk or a lease before anything else; `also` is
    what else holds. `since`, `until`: of `state`, None where nothing says so. `caller` None: there is no call."""

    id: int
    name: str
    logins: tuple[LoginTold, ...]
    state: str
    also: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    caller: str | None
    call_id: int | None  # of its decision
    status: str
    paused: bool
    reason: str  # why the status is so: "" by a person, "no_answers"
    offered: int
    answered: int
    daily_cap: int | None
    groups: tuple[str, ...]


def snapshot_now(now: Now, zone: ZoneInfo) -> Snapshot:
    """What a decision would be made by at this instant."""
    inputs = {
        "laws": LAWS,
        "now": now.health.now,
        "seed": "",
        "began_at": now.health.began_at,
        "events": now.events,
        "members": [],
        "agents": [row.as_input for row in now.agents],
        "tried": [],
        "last_talk": None,
    }
    return snapshot_of(inputs, frozenset(now.health.online), frozenset(now.health.speaking), zone)


def observed_by(project: Project, snapshot: Snapshot) -> Observed:
    """What may be relied on of presence under the project's policy."""
    return observe(
        snapshot.presence, fresh=project.fresh, when_unknown=project.when_unknown, last_known=project.last_known
    )


def standings(project: Project, now: Now, snapshot: Snapshot, tally: Tally) -> list[Standing]:
    """Every agent of the project, by name."""
    observed = observed_by(project, snapshot)
    rows = {row.agent_id: row for row in now.agents}
    logins = {row.login: row for row in now.logins}
    groups: dict[int, list[str]] = {}
    for group in project.groups.values():
        for member in group.members:
            groups.setdefault(member.agent_id, []).append(group.name)
    told = []
    for agent in project.agents.values():
        state = snapshot.agents.get(agent.id, _NOBODY_KNOWN)
        shown, also, skip = standing(agent, state, observed, snapshot.now)
        row = rows.get(agent.id)
        own = [logins[login] for login in agent.sip_logins if login in logins]
        talk = next((login for login in own if login.caller is not None), None) if shown == "speaking" else None
        since, until = _span(shown, agent, state, row, own, observed, now)
        told.append(
            Standing(
                id=agent.id,
                name=agent.name,
                logins=tuple([LoginTold(login, login_state(login, observed).value) for login in agent.sip_logins]),
                state=shown,
                also=also,
                since=since,
                until=until,
                caller=talk.caller if talk else row.caller if row and shown == "reserved" else None,
                call_id=talk.decision_id if talk else row.decision_id if row and shown == "reserved" else None,
                status=state.status,
                paused=skip == SkipReason.PAUSED,
                reason=row.status_reason if row else "",
                offered=tally.offers[agent.id],
                answered=state.answered_today,
                daily_cap=agent.daily_cap,
                groups=tuple(groups.get(agent.id, ())),
            )
        )
    told.sort(key=lambda agent: agent.name.casefold())
    return told


def _span(
    shown: str,
    agent: Agent,
    state: AgentState,
    row: AgentNow | None,
    logins: list[LoginNow],
    observed: Observed,
    now: Now,
) -> tuple[datetime | None, datetime | None]:
    """Since when, and until when if that is known."""
    at = now.health.now
    if shown == "speaking":
        return _at(max((_since(login) for login in logins if login.login in observed.speaking), default=None)), None
    if shown == "offline":
        return _at(max((login.since_at for login in logins), default=None)), None
    if shown == "presence_unknown":
        return _at(now.health.began_at), None
    if shown == "idle":
        return _at(state.idle_since or None), None
    if row is None:
        return None, None
    if shown == "reserved":
        return _at(row.claimed_at), _at(row.reserved_until)
    if shown == "wrap_up":
        return _at(row.last_talk_end_at), _at(row.wrap_up_until)
    if shown == "cooling_down":
        return None, _at(row.cooling_until)
    if shown == "paused":
        return None, _at(row.paused_until) if row.paused_until and row.paused_until > at else None
    if shown in ("on_break", "off_duty") and state.status == shown:
        return _at(row.status_since_at), None
    return None, agent.away_until if shown == "off_duty" else None


def _since(login: LoginNow) -> int:
    """Since when a login that speaks does so: as the poll saw it, or as an event said since."""
    return max(login.since_at, login.event_at or 0) if login.event_speaking else login.since_at


def _at(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def local_hours_ago(now: datetime, hours: int) -> datetime:
    """The full hour, of the local clock, that lies so many hours before the present one."""
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
