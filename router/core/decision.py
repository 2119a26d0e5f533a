"""Decides a call: the one pure function behind the live hook, the try-out page, `router explain` and every replay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from router.core.conditions import Facts
from router.core.model import (
    Agent,
    AgentState,
    Call,
    Candidate,
    Cause,
    Decision,
    DeviceState,
    Group,
    LastTalk,
    Member,
    MemberClock,
    Offer,
    Overflow,
    OverflowOf,
    Presence,
    Project,
    SkipReason,
    Snapshot,
    Status,
    Trial,
    WhenUnknown,
)
from router.core.rules import Rule, first_match
from router.core.schedule import is_open
from router.core.strategies import Entrant, after_offer, order, turns
from router.core.words import N_, Message, Text, Worded

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_STATE = AgentState()
_NO_CLOCK = MemberClock()
_NEVER: frozenset[str] = frozenset()


# ---- the decision


def decide(project: Project, call: Call, snapshot: Snapshot) -> Decision:
    """Return who gets the call, and why nobody else. Deterministic: equal arguments give an equal decision."""
    observed = observe(project, snapshot.presence)
    facts = Facts(partial(free_count, project, snapshot), snapshot.previous_call)
    rule = first_match(project.index, call, snapshot.now, facts)
    if rule is None:
        return Decision(None, (), Overflow(project.overflow, OverflowOf.PROJECT, Cause.NO_RULE))
    trials = []
    if rule.prefer is not None:
        trial, offer = _try_preferred(project, rule, call, snapshot, observed)
        trials.append(trial)
        if offer is not None:
            return Decision(rule.id, tuple(trials), offer)
    for group_id in rule.group_ids:
        trial, offer = _try_group(project, project.groups[group_id], snapshot, observed, rule.never)
        trials.append(trial)
        if offer is not None:
            return Decision(rule.id, tuple(trials), offer)
    return Decision(rule.id, tuple(trials), _overflow(project, rule))


def free_count(project: Project, snapshot: Snapshot, group_id: int) -> int:
    """Return how many members of a group could be offered a call now."""
    entrants, _ = _consider(project, project.groups[group_id], snapshot, observe(project, snapshot.presence))
    return sum(entrant.eligible for entrant in entrants)


def candidates(project: Project, group: Group, snapshot: Snapshot, observed: Observed) -> tuple[Candidate, ...]:
    """Return everybody considered for a call to this group: the eligible first, in their order."""
    return _try_group(project, group, snapshot, observed)[0].candidates


def _overflow(project: Project, rule: Rule) -> Overflow:
    """Return the rule's overflow, else that of the last group of its chain, else the project's."""
    cause = Cause.NOBODY_FREE if rule.group_ids or rule.prefer else Cause.NO_GROUPS
    if rule.overflow is not None:
        return Overflow(rule.overflow, OverflowOf.RULE, cause)
    if rule.group_ids and (of_group := project.groups[rule.group_ids[-1]].overflow) is not None:
        return Overflow(of_group, OverflowOf.GROUP, cause)
    return Overflow(project.overflow, OverflowOf.PROJECT, cause)


def _consider(
    project: Project, group: Group, snapshot: Snapshot, observed: Observed, never: Collection[int] = ()
) -> tuple[list[Entrant], list[Candidate]]:
    """Return the members, or their deputies, as entrants, and the skipped candidates, each with a reason.

    A deputy who is not a member replaces an agent on leave. The end of a leave is when the agent became available.
    """
    clocks = snapshot.clocks.get(group.id, {})
    now, tried = snapshot.now, snapshot.tried
    here = {member.agent_id for member in group.members}
    entrants: list[Entrant] = []
    skipped: list[Candidate] = []
    for configured in group.members:
        member, agent = configured, project.agents[configured.agent_id]
        if agent.deputy_id is not None and agent.is_away(now):
            deputy = project.agents.get(agent.deputy_id)
            if deputy is not None and deputy.id not in here:
                here.add(deputy.id)
                member, agent = replace(configured, agent_id=deputy.id), deputy
        state = snapshot.agents.get(agent.id, _NO_STATE)
        if agent.away_until is not None and agent.away_until <= now and snapshot.laws > 1:
            state = state._replace(idle_since=max(state.idle_since, (agent.away_until - _EPOCH) // _MICROSECOND))
        own = skip_reason(agent, member, state, observed, now, tried)
        reason = SkipReason.EXCLUDED if agent.id in never else own
        login = offered_login(agent, observed)
        clock = clocks.get(agent.id, _NO_CLOCK)
        is_present = own is None or own in _BUSY or (snapshot.laws < 3 and reason is SkipReason.EXCLUDED)
        entrants.append(Entrant(member, login, state, clock, reason is None, is_present))
        if reason is not None:
            skipped.append(Candidate(agent.id, login, reason))
    return entrants, skipped


# Skipped for now but at work: they keep their place in the shares of `weighted` and the mean of `fewest_calls`.
_BUSY = frozenset(
    {
        SkipReason.SPEAKING,
        SkipReason.RESERVED,
        SkipReason.WRAP_UP,
        SkipReason.COOLING_DOWN,
        SkipReason.ALREADY_TRIED,
    }
)


def _try_group(
    project: Project, group: Group, snapshot: Snapshot, observed: Observed, never: Collection[int] = ()
) -> tuple[Trial, Offer | None]:
    entrants, skipped = _consider(project, group, snapshot, observed, never)
    ranked = order(group.strategy, entrants, snapshot.seed)
    eligible = [Candidate(entrant.member.agent_id, entrant.sip_login, None, key) for key, entrant in ranked]
    trial = Trial(group.id, (*eligible, *skipped))
    if not ranked:
        return trial, None
    winner = ranked[0][1]
    clocks = snapshot.clocks.get(group.id, {})
    now, away = (snapshot.now - _EPOCH) // _MICROSECOND, project.away // _MICROSECOND
    return trial, Offer(
        agent_id=winner.member.agent_id,
        sip_login=winner.sip_login,
        group_id=group.id,
        ring=group.ring,
        clock=after_offer(group.strategy, winner, entrants, clocks),
        turns=turns(group.strategy, winner, entrants, clocks, now=now, away=away),
    )


def preferred_agent(
    project: Project, rule: Rule, call: Call, last_talk: LastTalk | None, now: datetime | None = None
) -> Agent | None:
    """Return the agent that the rule's preference names, by the last talk or by a parameter (a login, staff id or
    name).

    `now` None: however long ago the talk was.
    """
    if rule.prefer is None:
        return None
    if rule.prefer.last_agent:
        if last_talk is None or (now is not None and now - last_talk.at > rule.prefer.within):
            return None
        return project.agents.get(last_talk.agent_id)
    named = call.folded.get(rule.prefer.param.casefold(), "").strip()
    return project.agent_named(named) if named else None


def _try_preferred(
    project: Project, rule: Rule, call: Call, snapshot: Snapshot, observed: Observed
) -> tuple[Trial, Offer | None]:
    agent = preferred_agent(project, rule, call, snapshot.last_talk, snapshot.now)
    if agent is not None and agent.is_away(snapshot.now):
        agent = project.agents.get(agent.deputy_id or 0, agent)
    if agent is None:
        return Trial(None, ()), None
    state = snapshot.agents.get(agent.id, _NO_STATE)
    reason = skip_reason(agent, None, state, observed, snapshot.now, snapshot.tried)
    reason = SkipReason.EXCLUDED if agent.id in rule.never else reason
    login = offered_login(agent, observed)
    trial = Trial(None, (Candidate(agent.id, login, reason),))
    if reason is not None:
        return trial, None
    ring = project.groups[rule.group_ids[0]].ring if rule.group_ids else Group(0, "", "priority").ring
    return trial, Offer(agent.id, login, None, ring, None)


# ---- who is eligible: the first check that fails is the reason, see docs/glossary.md


class Limit(NamedTuple):
    """A limit of an agent's day. `most`: the agent's attribute, None for no limit. `counted`: that of the state which
    may not reach it, in the given number of `units` to one of the limit.
    """

    reason: SkipReason
    most: str
    counted: str
    words: Text
    units: int = 1


LIMITS = (
    Limit(SkipReason.AT_CAP, "daily_cap", "answered_today", Text("of_cap", N_("%(n)s of %(cap)s answered today"))),
    Limit(
        *(SkipReason.TALKED_ENOUGH, "max_talk_per_day", "talked_today"),
        *(Text("of_talk", N_("%(n)s of %(cap)s minutes talked today")), 60),
    ),
)


def counted_for(agent: Agent) -> set[str]:
    """Return what counts for the limits of an agent: attributes of the state."""
    return {limit.counted for limit in LIMITS if getattr(agent, limit.most) is not None}


class Basis(Worded):
    """What presence counts as. The words are about a decision, the help is about now."""

    FRESH = "fresh"
    LAST_KNOWN = (
        "last_known",
        N_("out of date, so the last known state was used"),
        N_("Meanwhile calls go by what was last known, for up to %(n)s s."),
    )
    ASSUME_ONLINE = (
        "assume_online",
        N_("out of date, so everybody was taken to be online"),
        N_("Meanwhile every login is taken to be online."),
    )
    UNKNOWN = (
        "unknown",
        N_("out of date, so nobody was offered the call"),
        N_("No agent is offered a call meanwhile: calls go to the overflow."),
    )
    CHOSEN = "chosen", N_("as you chose")  # on a trial


class Observed(NamedTuple):
    """Presence as far as it may be relied on now. `online` None: every login counts as online. `known` False: nothing
    may be concluded."""

    known: bool
    online: frozenset[str] | None
    speaking: frozenset[str]
    basis: Basis


def observe(project: Project, presence: Presence) -> Observed:
    """Return what presence of this age says under the project's policy. Events are newer than the reading."""
    when_unknown = project.when_unknown
    said = presence.events
    heard = frozenset(login for login, talks in said.items() if talks)
    speaking = presence.speaking
    if said:
        speaking = frozenset(login for login in speaking if said.get(login, True)) | heard
    age = presence.age
    if age is not None and age <= project.fresh:
        return Observed(True, presence.online, speaking, Basis.FRESH)
    if when_unknown is WhenUnknown.LAST_KNOWN and age is not None and age <= project.last_known:
        return Observed(True, presence.online, speaking, Basis.LAST_KNOWN)
    # Who was last seen talking may long have hung up: only what events say still holds.
    if when_unknown is WhenUnknown.ASSUME_ONLINE:
        return Observed(True, None, heard, Basis.ASSUME_ONLINE)
    return Observed(False, _NEVER, heard, Basis.UNKNOWN)


def offered_login(agent: Agent, observed: Observed) -> str:
    """Return the first of the agent's logins, in the agent's order, that is online; "" when none is."""
    online = observed.online
    for login in agent.sip_logins:
        if online is None or login in online:
            return login
    return ""


def absence(agent: Agent, member: Member | None, state: AgentState, now: datetime) -> SkipReason | None:
    """Return why the agent is absent: declared so, or outside working hours; None when present."""
    if agent.paused or (state.paused_until is not None and state.paused_until > now):
        return SkipReason.PAUSED
    if state.status != Status.AVAILABLE:
        return SkipReason(state.status)
    if agent.away_until is not None and agent.is_away(now):
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
    """Return why this agent may not be offered any call now, None when eligible."""
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
    for reason, most, counted, _, units in LIMITS:
        if (limit := getattr(agent, most)) is not None and getattr(state, counted) >= limit * units:
            return reason
    if tried and not tried.isdisjoint(agent.sip_logins):
        return SkipReason.ALREADY_TRIED
    return None


_ENDS = {
    SkipReason.PAUSED: "paused_until",
    SkipReason.RESERVED: "reserved_until",
    SkipReason.WRAP_UP: "wrap_up_until",
    SkipReason.COOLING_DOWN: "cooling_until",
}
_FOR_ANOTHER = Text("for_another", N_("for another %(seconds)s"))
_BY_HOURS = Text("by_hours", "“%(schedule)s”")


def ends_at(skip: SkipReason | None, agent: Agent, state: AgentState) -> datetime | None:
    """Return until when a skip reason holds, None if that is not known."""
    if skip is SkipReason.OFF_DUTY and state.status == Status.AVAILABLE:
        return agent.away_until
    if skip not in _ENDS or (skip is SkipReason.PAUSED and agent.paused):
        return None
    until: datetime | None = getattr(state, _ENDS[skip])
    return until


def skip_details(
    skip: SkipReason | None, agent: Agent, member: Member | None, state: AgentState, now: datetime
) -> list[Message]:
    """Return what more there is to say of a skip reason: until when, of how many, by which hours."""
    until = ends_at(skip, agent, state)
    if until is not None:
        return [Message(_FOR_ANOTHER, {"seconds": (until - now).total_seconds()})]
    for limit in LIMITS:
        if skip is limit.reason:
            counted, most = getattr(state, limit.counted) // limit.units, getattr(agent, limit.most)
            return [Message(limit.words, {"n": counted, "cap": most})]
    if skip is SkipReason.OFF_HOURS:
        hours = (agent.hours, member.hours if member else None)
        return [Message(_BY_HOURS, {"schedule": one.name}) for one in hours if one and not is_open(one, now)]
    return []


def device_state(agent: Agent, state: AgentState, observed: Observed, now: datetime) -> DeviceState:
    """Return what was observed of the agent. Events and leases are known even while presence is not."""
    if not observed.speaking.isdisjoint(agent.sip_logins):
        return DeviceState.SPEAKING
    is_reserved = state.reserved_until is not None and state.reserved_until > now
    if not observed.known:
        return DeviceState.RESERVED if is_reserved else DeviceState.UNKNOWN
    if not offered_login(agent, observed):
        return DeviceState.OFFLINE
    return DeviceState.RESERVED if is_reserved else DeviceState.IDLE


def login_state(login: str, observed: Observed) -> DeviceState:
    """Return what was observed of one login: speaking, idle (online, or assumed to be), offline or unknown."""
    if login in observed.speaking:
        return DeviceState.SPEAKING
    if not observed.known:
        return DeviceState.UNKNOWN
    return DeviceState.IDLE if observed.online is None or login in observed.online else DeviceState.OFFLINE


class Standing(NamedTuple):
    """An agent's state for people to look at, the same on every page.

    `shown`: a talk or a reservation before anything else, then why no call would be offered, else idle. `also`: a
    second state to show. `skip`: why no call would be offered, None when one would. `until`: of `shown`, if known.
    """

    shown: str
    also: tuple[str, ...]
    skip: SkipReason | None
    until: datetime | None = None


def standing(agent: Agent, state: AgentState, observed: Observed, now: datetime) -> Standing:
    """Return the agent's state now, whatever the group, by the same checks as for a call."""
    device = device_state(agent, state, observed, now)
    skip = skip_reason(agent, None, state, observed, now)
    if device in (DeviceState.SPEAKING, DeviceState.RESERVED):
        also = () if skip is None or skip.value == device.value else (skip.value,)
        return Standing(device.value, also, skip, ends_at(SkipReason(device.value), agent, state))
    if skip is None:
        return Standing(DeviceState.IDLE.value, (), skip)
    is_told = device is DeviceState.IDLE or skip in (SkipReason.OFFLINE, SkipReason.PRESENCE_UNKNOWN)
    return Standing(skip.value, () if is_told else (device.value,), skip, ends_at(skip, agent, state))
