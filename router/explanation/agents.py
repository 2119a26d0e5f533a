"""The agents' present states, by the functions that route calls, so that all pages agree with decisions. Reads only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.core.decision import Observed, Standing, candidates, login_state, observe, standing
from router.core.model import Agent, AgentState, Candidate, Project, Snapshot
from router.db.board import AgentNow, LoginNow, Now, Tally
from router.db.claim import AgentRow, question
from router.db.documents import Configured, Document
from router.db.records import Inputs, snapshot_of
from router.db.session import Database
from router.db.types import from_micros

_TIMEOUT_SECONDS = 2.0


class Leave(NamedTuple):
    """A leave that is not over. `begin` None: it began when it was set. `deputy`: a name, "" for nobody."""

    begin: datetime | None
    until: datetime
    is_now: bool
    deputy: str


class Present(NamedTuple):
    """A project with what is known of its agents now."""

    project: Project
    document: Document
    snapshot: Snapshot
    observed: Observed

    @classmethod
    def of(cls, project: Project, inputs: Inputs, online: Collection[str], speaking: Collection[str]) -> Present:
        """Return the state that follows from what was read of it."""
        zone = ZoneInfo(project.time_zone)
        snapshot = snapshot_of(inputs, frozenset(online), frozenset(speaking), zone)
        return cls(project, {}, snapshot, observe(project, snapshot.presence))

    def standing(self, agent: Agent) -> Standing:
        """Return the agent's state: idle when a call could be offered now, else why not."""
        state = self.snapshot.agents.get(agent.id, AgentState())
        return standing(agent, state, self.observed, self.snapshot.now)

    def state(self, agent_id: int) -> str:
        """Return the name of the agent's state; "unknown" if calls go by an earlier version without the agent."""
        agent = self.project.agents.get(agent_id)
        return "unknown" if agent is None else self.standing(agent).shown

    def leave(self, agent: Agent) -> Leave | None:
        """Return the agent's leave, None if there is none to come."""
        until, now = agent.away_until, self.snapshot.now
        if until is None or until <= now:
            return None
        deputy = "" if agent.deputy_id is None else self.project.agents[agent.deputy_id].name
        return Leave(agent.away_from, until, agent.is_away(now), deputy)

    def login_state(self, login: str) -> str:
        """Return the state of a SIP login: "speaking", "idle", "offline" or "unknown"."""
        return login_state(login, self.observed).value

    def queue(self, group_id: int) -> Sequence[Candidate]:
        """Return the candidates for a call that came to this group now, the eligible first, in their order."""
        group = self.project.groups.get(group_id)
        return candidates(self.project, group, self.snapshot, self.observed) if group else ()

    def state_in_queue(self, candidate: Candidate) -> str:
        """Return "eligible", else the agent's state, else why this group cannot offer the call."""
        if candidate.skip is None:
            return "eligible"
        told = self.standing(self.project.agents[candidate.agent_id])
        return told.shown if told.skip else candidate.skip.value  # the member's hours


def load_present(database: Database, found: Configured, group_ids: Collection[int] | None = None) -> Present:
    """Return a project's present state, in one read. `group_ids`: whose queues are needed; None: all."""
    project = found.project
    with question(database, deadline=time.monotonic() + _TIMEOUT_SECONDS, is_locked=False) as transaction:
        state = transaction.read(
            project=project,
            call_id="",
            group_ids=list(project.groups if group_ids is None else group_ids),
            agent_ids=list(project.agents),
            known_snapshot=0,
        )
    inputs = Inputs(state.now, state.began_at, state.events, state.agents, state.members)
    return Present.of(project, inputs, *(state.presence or ([], [])))._replace(document=found.document)


# ---- for the board


class BoardAgent(NamedTuple):
    """One agent.

    `state`: see core.decision.Standing; `also`: a second state. `since`, `until`: of `state`, None if not known.
    `caller` None: there is no call.
    """

    id: int
    name: str
    logins: tuple[tuple[str, str], ...]  # with its state: speaking, idle (online), offline or unknown
    state: str
    also: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    caller: str | None
    call_id: int | None  # of its decision
    status: str
    paused: bool
    leave: Leave | None
    reason: str  # of the status: "" set by a person, "no_answers"
    offered: int
    answered: int
    talked: int  # seconds
    daily_cap: int | None
    groups: tuple[str, ...]

    @property
    def way_back(self) -> str:
        """What makes the agent take calls again: "resume", "return" (from a leave), "available"; "" if nothing must."""
        if self.paused:
            return "resume"
        if self.leave is not None and self.leave.is_now:
            return "return"
        return "" if self.status == "available" else "available"


def present_of(project: Project, now: Now) -> Present:
    """Return the state of a project that the board has read."""
    inputs = Inputs(now.health.now, now.health.began_at, now.events, [agent.row for agent in now.agents])
    return Present.of(project, inputs, now.health.online, now.health.speaking)


def board_agents(present: Present, now: Now, tally: Tally) -> list[BoardAgent]:
    """Return all agents of the project, by name."""
    agents = {agent.row.agent_id: agent for agent in now.agents}
    logins = {row.login: row for row in now.logins}
    groups: dict[int, list[str]] = {}
    for group in present.project.groups.values():
        for member in group.members:
            groups.setdefault(member.agent_id, []).append(group.name)
    found = []
    for agent in present.project.agents.values():
        state = present.snapshot.agents.get(agent.id) or AgentState()
        told = standing(agent, state, present.observed, present.snapshot.now)
        own = [logins[login] for login in agent.sip_logins if login in logins]
        facts = _Facts(agents.get(agent.id, _NOTHING), state, own, present.observed, now.health.began_at)
        talk = next((login for login in own if login.caller is not None), None) if told.shown == "speaking" else None
        call = talk or (facts.agent if told.shown == "reserved" else None)
        since = _SINCE[told.shown](facts) if told.shown in _SINCE else None
        found.append(
            BoardAgent(
                id=agent.id,
                name=agent.name,
                logins=tuple([(login, present.login_state(login)) for login in agent.sip_logins]),
                state=told.shown,
                also=told.also,
                since=from_micros(since) if since else None,
                until=told.until,
                caller=call.caller if call else None,
                call_id=call.decision_id if call else None,
                status=state.status,
                paused=told.skip == "paused",
                leave=present.leave(agent),
                reason=facts.agent.status_reason,
                offered=tally.offers[agent.id],
                answered=state.answered_today,
                talked=state.talked_today,
                daily_cap=agent.daily_cap,
                groups=tuple(groups.get(agent.id, ())),
            )
        )
    return sorted(found, key=lambda agent: agent.name.casefold())


class _Facts(NamedTuple):
    """What is known of an agent."""

    agent: AgentNow
    state: AgentState
    logins: list[LoginNow]
    observed: Observed
    began_at: int | None  # the reading of presence

    def speaks_since(self) -> int | None:
        """Return since when a login speaks: by the poll, or by a later event."""
        speaking = [login for login in self.logins if login.login in self.observed.speaking]
        return max((max(one.since_at, (one.event_speaking and one.event_at) or 0) for one in speaking), default=None)


_NOTHING = AgentNow(AgentRow(0))

_SINCE: Mapping[str, Callable[[_Facts], int | None]] = {
    "idle": lambda facts: facts.state.idle_since,
    "speaking": _Facts.speaks_since,
    "reserved": lambda facts: facts.agent.claimed_at,
    "wrap_up": lambda facts: facts.agent.row.last_talk_end_at,
    "on_break": lambda facts: facts.agent.status_since_at,
    "off_duty": lambda facts: facts.agent.status_since_at if facts.state.status == "off_duty" else None,
    "offline": lambda facts: max((login.since_at for login in facts.logins), default=None),
    "presence_unknown": lambda facts: facts.began_at,
}
"""Since when a state lasts, in µs, where that is known."""
