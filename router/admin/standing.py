"""Compute the state of each agent for the board, by the functions that route calls. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.core.eligibility import Observed, login_state, observe, standing
from router.core.model import Agent, AgentState, Project, SkipReason, Snapshot
from router.db.board import AgentNow, LoginNow, Now, Tally
from router.db.types import from_micros
from router.routing.record import Inputs, snapshot_of

STATES = ("idle", "reserved", "speaking", "wrap_up", "cooling_down", "on_break", "paused", "off_duty", "off_hours",
          "at_cap", "offline", "presence_unknown")  # fmt: skip
"""The values of `Standing.state`, in the order of the board."""

TILES: Mapping[str, frozenset[str]] = {
    "idle": frozenset({"idle"}),
    "reserved": frozenset({"reserved"}),
    "speaking": frozenset({"speaking"}),
    "wrap_up": frozenset({"wrap_up", "cooling_down"}),
    "away": frozenset({"on_break", "paused", "off_duty", "off_hours", "at_cap"}),
    "offline": frozenset({"offline", "presence_unknown"}),
}
"""The counts above the table, with the states that each counts."""


class ShownLogin(NamedTuple):
    """One SIP login: `state` speaking, idle (online), offline or unknown."""

    login: str
    state: str


class Standing(NamedTuple):
    """One agent.

    `state`: speaking or reserved if so, else why a call could be offered or not; `also`: a second state. `since`,
    `until`: of `state`, None if not known. `caller` None: there is no call.
    """

    id: int
    name: str
    logins: tuple[ShownLogin, ...]
    state: str
    also: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    caller: str | None
    call_id: int | None  # of its decision
    status: str
    paused: bool
    reason: str  # of the status: "" set by a person, "no_answers"
    offered: int
    answered: int
    daily_cap: int | None
    groups: tuple[str, ...]


def snapshot_now(now: Now, zone: ZoneInfo) -> Snapshot:
    """Return the inputs of a decision at this instant."""
    inputs = Inputs(now.health.now, now.health.began_at, now.events, [agent.as_row for agent in now.agents])
    return snapshot_of(inputs, frozenset(now.health.online), frozenset(now.health.speaking), zone)


def standings(project: Project, now: Now, snapshot: Snapshot, tally: Tally) -> list[Standing]:
    """Return all agents of the project, by name."""
    observed = observe(project, snapshot.presence)
    rows = {row.agent_id: row for row in now.agents}
    logins = {row.login: row for row in now.logins}
    groups: dict[int, list[str]] = {}
    for group in project.groups.values():
        for member in group.members:
            groups.setdefault(member.agent_id, []).append(group.name)
    found = []
    for agent in project.agents.values():
        state = snapshot.agents.get(agent.id) or AgentState()
        shown, also, skip = standing(agent, state, observed, snapshot.now)
        row = rows.get(agent.id)
        own = [logins[login] for login in agent.sip_logins if login in logins]
        talk = next((login for login in own if login.caller is not None), None) if shown == "speaking" else None
        since, until = _span(shown, agent, state, row, own, observed, now)
        call = talk or (row if shown == "reserved" else None)
        found.append(
            Standing(
                id=agent.id,
                name=agent.name,
                logins=tuple([ShownLogin(login, login_state(login, observed).value) for login in agent.sip_logins]),
                state=shown,
                also=also,
                since=since,
                until=until,
                caller=call.caller if call else None,
                call_id=call.decision_id if call else None,
                status=state.status,
                paused=skip == SkipReason.PAUSED,
                reason=row.status_reason if row else "",
                offered=tally.offers[agent.id],
                answered=state.answered_today,
                daily_cap=agent.daily_cap,
                groups=tuple(groups.get(agent.id, ())),
            )
        )
    return sorted(found, key=lambda agent: agent.name.casefold())


def _span(
    shown: str,
    agent: Agent,
    state: AgentState,
    row: AgentNow | None,
    logins: list[LoginNow],
    observed: Observed,
    now: Now,
) -> tuple[datetime | None, datetime | None]:
    """Return since when and until when the state lasts, None where not known."""
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
        return None, _at(row.paused_until) if (row.paused_until or 0) > now.health.now else None
    if shown in ("on_break", "off_duty") and state.status == shown:
        return _at(row.status_since_at), None
    return None, agent.away_until if shown == "off_duty" else None


def _since(login: LoginNow) -> int:
    """Return since when a login speaks: by the poll, or by a later event."""
    return max(login.since_at, login.event_at or 0) if login.event_speaking else login.since_at


def _at(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
