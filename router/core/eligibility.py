"""May this agent be offered this call now? The first check that fails is the reason, see docs/glossary.md."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from router.core.model import Agent, AgentState, DeviceState, Member, Presence, SkipReason, Status, WhenUnknown
from router.core.schedule import is_open

_NEVER: frozenset[str] = frozenset()


class Observed(NamedTuple):
    """Presence as it may be relied on now. `online` None: every login is taken to be online. `known` False: nothing
    may be concluded."""

    known: bool
    online: frozenset[str] | None
    speaking: frozenset[str]
    basis: str  # "fresh", "last_known", "assume_online", "unknown"


def observe(presence: Presence, *, fresh: timedelta, when_unknown: WhenUnknown, last_known: timedelta) -> Observed:
    """What may be relied on of presence of this age under the project's policy. Events are newer than the reading."""
    speaking = presence.speaking
    if presence.events:
        said = presence.events
        speaking = frozenset(login for login in speaking if said.get(login, True)) | {
            login for login, talks in said.items() if talks
        }
    age = presence.age
    if age is not None and age <= fresh:
        return Observed(True, presence.online, speaking, "fresh")
    if when_unknown is WhenUnknown.LAST_KNOWN and age is not None and age <= last_known:
        return Observed(True, presence.online, speaking, "last_known")
    if when_unknown is WhenUnknown.ASSUME_ONLINE:
        # Who was last seen talking may long have hung up: only what events say is still held against an agent.
        return Observed(True, None, frozenset(k for k, talks in presence.events.items() if talks), "assume_online")
    return Observed(False, _NEVER, speaking, "unknown")


def offered_login(agent: Agent, observed: Observed) -> str:
    """The first of the agent's logins, in the agent's order, that is online; "" when none is."""
    online = observed.online
    for login in agent.sip_logins:
        if online is None or login in online:
            return login
    return ""


def absence(agent: Agent, member: Member | None, state: AgentState, now: datetime) -> SkipReason | None:
    """Why the agent is not there at all: declared so, or outside working hours."""
    if agent.paused or (state.paused_until is not None and state.paused_until > now):
        return SkipReason.PAUSED
    if state.status != Status.AVAILABLE:
        return SkipReason(state.status)
    if agent.away_until is not None and agent.away_until > now:
        return SkipReason.OFF_DUTY
    if agent.hours is not None and not is_open(agent.hours, now):
        return SkipReason.OFF_HOURS
    if member is not None and member.hours is not None and not is_open(member.hours, now):
        return SkipReason.OFF_HOURS
    return None


def skip_reason(
    agent: Agent,
    member: Member | None,
    state: AgentState,
    observed: Observed,
    now: datetime,
    tried: frozenset[str] = _NEVER,
) -> SkipReason | None:
    """Why this agent may not be offered the call now, None when eligible."""
    if (reason := absence(agent, member, state, now)) is not None:
        return reason
    if not observed.known:
        return SkipReason.PRESENCE_UNKNOWN
    if not offered_login(agent, observed):
        return SkipReason.OFFLINE
    if not observed.speaking.isdisjoint(agent.sip_logins):
        return SkipReason.SPEAKING
    if state.reserved_until is not None and state.reserved_until > now:
        return SkipReason.RESERVED
    if state.wrap_up_until is not None and state.wrap_up_until > now:
        return SkipReason.WRAP_UP
    if state.cooling_until is not None and state.cooling_until > now:
        return SkipReason.COOLING_DOWN
    if agent.daily_cap is not None and state.answered_today >= agent.daily_cap:
        return SkipReason.AT_CAP
    if tried and not tried.isdisjoint(agent.sip_logins):
        return SkipReason.ALREADY_TRIED
    return None


def device_state(agent: Agent, state: AgentState, observed: Observed, now: datetime) -> DeviceState:
    """What was observed of the agent, for people to look at."""
    if not observed.known:
        return DeviceState.UNKNOWN
    if not observed.speaking.isdisjoint(agent.sip_logins):
        return DeviceState.SPEAKING
    if not offered_login(agent, observed):
        return DeviceState.OFFLINE
    if state.reserved_until is not None and state.reserved_until > now:
        return DeviceState.RESERVED
    return DeviceState.IDLE
