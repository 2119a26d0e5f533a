"""Find out what a decision did not look at: states of agents and turns in groups, from other decisions and the log.

Turns change with decisions that look at the group, so those that the next one found are known exactly. The state of an
agent is known between two looks at it where all that the log tells (offers, talks, breaks and pauses by people) leads
from the first to the second; everything else stays unknown. Decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from router.core.lifecycle import LONGEST_TALK
from router.core.model import Agent, Group, LastTalk, Outcome, Project, Snapshot
from router.db import models
from router.db.claim import AgentRow, MemberRow
from router.db.documents import configured
from router.db.records import TOLD, Inputs, snapshot_of, told_of
from router.db.types import MICROSECOND, from_micros, to_micros
from router.routing.route import Then

FAR = timedelta(hours=2)  # that a look at the same agent or group may be away
INEXACT = 2_000_000  # µs: nobody can say which of two things came first that are nearer
CONCLUDED = 20_000_000  # µs: the same where the one was concluded from presence, which is polled
_MISSED = {Outcome.NO_ANSWER, Outcome.BUSY, Outcome.FAILED}
_NEVER = 2**62
_QUARTER = 900_000_000  # µs: no zone's day begins within a quarter of an hour
_ROW = len(MemberRow._fields) - len(AgentRow._fields)  # columns of a member before those of the agent


class Look(NamedTuple):
    """What a decision found an agent to be. `told`: what else its record tells, of `TOLD`."""

    at: int
    row: AgentRow
    told: frozenset[str]


class _Offer(NamedTuple):
    """An agent reserved for a call, at most until `until`, or until it was released."""

    at: int
    until: int
    call_id: str
    is_exact: bool  # an event said when it ended, or it ended by itself


class _Talk(NamedTuple):
    """A talk on a call that we routed. `until` None: it is not over, or nobody knows."""

    at: int
    until: int | None
    seconds: int
    is_exact: bool


class _Said(NamedTuple):
    """What a person set of an agent on the board: the status, or until when it is paused (0: not)."""

    at: int
    name: str
    value: Any


@dataclass(slots=True)
class _Past:
    """What the log tells of an agent, the oldest first."""

    offers: list[_Offer] = field(default_factory=list)
    talks: list[_Talk] = field(default_factory=list)
    handed_on: list[tuple[int, int]] = field(default_factory=list)  # calls that went from one agent to another
    missed: list[tuple[int, bool]] = field(default_factory=list)  # when it was known, and whether exactly
    said: list[_Said] = field(default_factory=list)


class Log:
    """The offers, talks, breaks and pauses of a project's agents in a period."""

    def __init__(self, session: Session, project: Project, since: datetime, until: datetime) -> None:
        self._past: dict[int, _Past] = defaultdict(_Past)
        self._zone, self._days = ZoneInfo(project.time_zone), dict[int, str]()
        decision = models.Decision
        columns = (
            decision.asked_at, decision.call_id, decision.agent_id, decision.group_id, decision.rule_id,
            decision.config_version, decision.outcome, decision.inferred, decision.answered_agent_id,
            decision.answered_at, decision.ended_at, decision.talked_seconds,
        )  # fmt: skip
        query = select(*columns).where(
            decision.project_id == project.id,
            decision.asked_at.between(since - LONGEST_TALK, until),
            ~decision.is_test,
            or_(decision.agent_id.is_not(None), decision.answered_agent_id.is_not(None)),
        )
        for row in session.execute(query.order_by(decision.asked_at, decision.id)):
            self._note(session, project, row)
        entry = models.AuditEntry
        of_agents = (entry.project_id == project.id, entry.subject == "agent", entry.action == "changed")
        said = select(entry.at, entry.subject_id, entry.after).where(*of_agents, entry.at.between(since, until))
        for at, agent_id, after in session.execute(said.order_by(entry.id)):
            if after and agent_id and "status" in after:
                self._past[agent_id].said.append(_Said(to_micros(at), "status", after["status"]))
            elif after and agent_id and "paused_until" in after:
                value = after["paused_until"]
                pause = to_micros(datetime.fromisoformat(value)) if value else 0
                self._past[agent_id].said.append(_Said(to_micros(at), "paused_until", pause))
        for past in self._past.values():
            past.talks.sort()
            past.missed.sort()

    def _note(self, session: Session, project: Project, row: Any) -> None:
        at, ended = to_micros(row.asked_at), None if row.ended_at is None else to_micros(row.ended_at)
        picked_up = None if row.answered_at is None else to_micros(row.answered_at)
        if row.agent_id is not None:
            found = configured(session, project.id, row.config_version)
            ring = _ring(found.project if found else project, row.group_id, row.rule_id) // MICROSECOND
            released = [each for each in (picked_up, ended) if each is not None and each < at + ring]
            is_exact = not released or not row.inferred
            offer = _Offer(at, min([at + ring, *released]), row.call_id, is_exact)
            self._past[row.agent_id].offers.append(offer)
            if row.answered_agent_id not in (None, row.agent_id):
                self._past[row.agent_id].handed_on.append((at, ended or _NEVER))
            if row.outcome in _MISSED and row.answered_agent_id is None:
                self._past[row.agent_id].missed.append((ended or at + ring, not row.inferred))
        if row.answered_agent_id not in (None, row.agent_id):
            self._past[row.answered_agent_id].handed_on.append((at, ended or _NEVER))
        elif row.answered_agent_id is not None and picked_up is not None:
            talk = _Talk(picked_up, ended, round(row.talked_seconds or 0), not row.inferred)
            self._past[row.answered_agent_id].talks.append(talk)

    def of(self, agent_id: int) -> _Past:
        return self._past[agent_id]

    def day(self, at: int) -> str:
        """Return the project's local date."""
        quarter = at // _QUARTER
        if quarter not in self._days:
            self._days[quarter] = from_micros(at).astimezone(self._zone).date().isoformat()
        return self._days[quarter]


# ---- the state of an agent


class _UnclearError(Exception):
    """The looks and the log do not agree, or leave more than one state possible."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """An agent at an instant between two looks at it.

    `project`: by which calls were routed then. `spoke`: when presence last showed the agent talking. `was_away`:
    presence showed it offline since the look before. Each method raises _UnclearError where the log leaves a doubt.
    """

    log: Log
    project: Project
    agent: Agent
    at: int
    before: Look
    after: Look
    spoke: int | None
    was_away: bool

    @property
    def past(self) -> _Past:
        return self.log.of(self.agent.id)

    def state(self, call_id: str) -> tuple[AgentRow, frozenset[str]]:
        """Return the state for this call, and what else is told of it."""
        if any(begin <= self.at and self.before.at <= end for begin, end in self.past.handed_on):
            raise _UnclearError  # when the one ended and the other began to talk is not stored
        known = self._counts()
        row = AgentRow(
            self.agent.id,
            self._status(),
            self._paused_until(),
            self._reserved_until(call_id),
            self._wraps_up_until(),
            self._cools_down_until(),
            known.get("answered_today", 0),
            self.log.day(self.at),
            known.get("idle_since"),
            None,
            known.get("talked_today", 0),
        )
        return row, frozenset(known)

    def _keep_off(self, edges: Iterable[tuple[int, bool]]) -> None:
        """Refuse an instant so near to a change that nobody can say which came first. Edges: when, and is it exact?"""
        if any(abs(edge - self.at) < (INEXACT if is_exact else CONCLUDED) for edge, is_exact in edges):
            raise _UnclearError

    def _is_since(self, at: int | None) -> bool:
        """Return whether this was after the look before, and before now."""
        return at is not None and self.before.at <= at <= self.at

    # -- what people declare

    def _said(self, name: str, until: int) -> Any:
        """Return what was set on the board by then, else what the look before found."""
        said = [one.value for one in self.past.said if one.name == name and self.before.at <= one.at <= until]
        return said[-1] if said else getattr(self.before.row, name)

    def _status(self) -> str:
        self._keep_off((one.at, True) for one in self.past.said)
        if self._said("status", self.after.at) != self.after.row.status or self._may_have_been_on_a_break():
            raise _UnclearError
        return str(self._said("status", self.at))

    def _may_have_been_on_a_break(self) -> bool:
        """Return whether so many calls were missed before that a break may have begun and ended between the looks."""
        limit = self.project.break_after_no_answers
        if not limit or not any(self._is_since(missed) for missed, _ in self.past.missed):
            return False
        answered = max((talk.at for talk in self.past.talks if talk.at <= self.at), default=0)
        today = self.log.day(self.at)
        return limit <= sum(answered < one <= self.at and self.log.day(one) == today for one, _ in self.past.missed)

    def _paused_until(self) -> int | None:
        end = self.after.at
        if _live(self._said("paused_until", end), end) != _live(self.after.row.paused_until, end):
            raise _UnclearError
        return _live(self._said("paused_until", self.at), self.at)

    # -- what calls do

    def _reserved_until(self, call_id: str) -> int | None:
        offers = [one for one in self.past.offers if one.at <= self.at and (one.call_id != call_id or not call_id)]
        self._keep_off((one.until, one.is_exact) for one in offers)
        return max((one.until for one in offers if one.until > self.at), default=None)

    def _wraps_up_until(self) -> int | None:
        lasts = self.agent.wrap_up // MICROSECOND
        ends = [(one.until, one.is_exact) for one in self.past.talks if one.until is not None]
        self._keep_off((one.at, one.is_exact) for one in self.past.talks)
        if lasts and self._has_unknown_talk(lasts):
            raise _UnclearError
        return self._holds_until(self.before.row.wrap_up_until, self.after.row.wrap_up_until, lasts, ends)

    def _has_unknown_talk(self, wrap_up: int) -> bool:
        """Return whether a talk that the log does not know may have ended less than a wrap-up ago."""
        if self.spoke is not None and self.at - wrap_up - CONCLUDED < self.spoke and not _talked(self.past, self.spoke):
            return True
        idle = _idle_since(self.after)
        if not self._is_since(idle) or self.at >= idle + wrap_up + INEXACT:
            return False
        known = [one.until for one in self.past.talks if one.until] + [one.at for one in self.past.said]
        return not any(abs(idle - one) < INEXACT for one in known)

    def _cools_down_until(self) -> int | None:
        answered = [one.at for one in self.past.talks if self._is_since(one.at)]
        last = max(answered, default=0)
        missed = [one for one in self.past.missed if one[0] > last]
        before = None if answered else self.before.row.cooling_until
        lasts = self.project.cool_down // MICROSECOND
        return self._holds_until(before, self.after.row.cooling_until, lasts, missed, is_checked=not answered)

    def _holds_until(
        self,
        before: int | None,
        after: int | None,
        lasts: int,
        begun: Iterable[tuple[int, bool]],
        *,
        is_checked: bool = True,
    ) -> int | None:
        """Return until when a pause holds that was begun at these instants and lasts so long, None if it does not.

        `before`, `after`: until when by the looks. `is_checked`: the look after must agree.
        """
        begun = [one for one in begun if self.before.at <= one[0] <= self.after.at]
        self._keep_off([*begun, *((begin + lasts, is_exact) for begin, is_exact in begun)])
        untils = [before or 0, *(begin + lasts for begin, _ in begun if begin <= self.at)]
        if is_checked and after and after > self.after.at:
            untils += [after] if after - lasts <= self.at else []
        elif is_checked and any(begin + lasts > self.after.at + INEXACT for begin, _ in begun):
            raise _UnclearError
        until = max(untils)
        self._keep_off([(until, True)])
        return until if until > self.at else None

    # -- what counts for strategies and limits

    def _counts(self) -> dict[str, int]:
        """Return what is known of the day's counts and of the idle time, by the names of `TOLD`."""
        told = set(self.before.told & self.after.told)
        if self.was_away:
            told.discard("idle_since")
        known: dict[str, int | None] = dict.fromkeys(told)
        if "answered_today" in told:
            known["answered_today"] = self._count(lambda row: row.answered_today, lambda one: (one.at, 1))
        if "talked_today" in told:
            known["talked_today"] = self._count(lambda row: row.talked_today, lambda one: (one.until, one.seconds))
        if "idle_since" in told:
            known["idle_since"] = self._idle()
        return {name: value for name, value in known.items() if value is not None}

    def _count(self, of: Callable[[AgentRow], int], one_of: Callable[[_Talk], tuple[int | None, int]]) -> int | None:
        """Return a count of the local day; None if the looks disagree about it. `one_of`: when a talk was counted, and
        as how many.
        """
        day = self.log.day(self.at)

        def counted(until: int) -> int:
            today = [one_of(talk) for talk in self.past.talks if self.log.day(talk.at) == day]
            since = sum(many for at, many in today if at is not None and self.before.at <= at <= until)
            return since + (of(self.before.row) if self.before.row.day == day else 0)

        is_of_day = self.log.day(self.after.at) == day
        found = of(self.after.row) if self.after.row.day == day else 0
        return None if is_of_day and counted(self.after.at) != found else counted(self.at)

    def _idle(self) -> int:
        """Return since when the agent is idle, as the look after says, or what came after the one before."""
        first, second = map(_idle_since, (self.before, self.after))
        if second <= self.at:
            return second
        came: list[int] = [one.until for one in self.past.talks if one.until]
        came += [one.at for one in self.past.said if one.value in ("available", 0)]
        came += [one.value for one in self.past.said if one.name == "paused_until"]
        return max([first, *filter(self._is_since, came)])


def _idle_since(look: Look) -> int:
    row, paused = look.row, look.row.paused_until or 0
    return max(row.last_talk_end_at or 0, row.available_since_at or 0, paused if paused <= look.at else 0)


def _live(until: Any, at: int) -> int | None:
    return until if until and until > at else None


def _talked(past: _Past, at: int) -> bool:
    """Return whether the agent talked on a call of ours then."""
    return any(one.at - CONCLUDED <= at <= (one.until or at) + CONCLUDED for one in past.talks)


def _ring(project: Project, group_id: int | None, rule_id: int | None) -> timedelta:
    """Return how long an agent is reserved; a preferred one as long as the rule's first group says."""
    rule = next((rule for rule in project.rules if rule.id == rule_id), None)
    first = group_id or next(iter(rule.group_ids if rule else ()), 0)
    return project.groups.get(first, Group(0, "", "priority")).ring


# ---- looks


class Found(NamedTuple):
    """What a decision found: rows of members and agents as they are stored, and what they tell, of `TOLD`."""

    at: int
    members: Sequence[Sequence[Any]]
    agents: Sequence[Sequence[Any]]
    told: frozenset[str]

    @property
    def ids(self) -> list[int]:
        return [member[_ROW] for member in self.members] + [agent[0] for agent in self.agents]

    def look(self, agent_id: int) -> Look:
        """Return what it found of one of these agents."""
        row = next((one[_ROW:] for one in self.members if one[_ROW] == agent_id), None)
        return Look(self.at, AgentRow._make(row or next(one for one in self.agents if one[0] == agent_id)), self.told)


class Case(NamedTuple):
    """A stored question with all that is known of its moment. `told`: see `records.told_of`; `own`: the same of agents
    whose state was found out.
    """

    row: models.Decision
    then: Then
    snapshot: Snapshot
    told: frozenset[str]
    more: Inputs | None = None  # with what was found out
    own: Mapping[int, frozenset[str]] = MappingProxyType({})
    is_reconstructed: bool = False
    knows_last_talk: bool = False

    @classmethod
    def of(cls, row: models.Decision, then: Then) -> Case:
        told = told_of(row, then.record, then.project)
        return cls(row, then, then.snapshot, told)

    @property
    def at(self) -> int:
        return to_micros(self.row.asked_at)

    @property
    def inputs(self) -> Inputs:
        return self.more or Inputs.of_json(self.then.record["inputs"])

    @property
    def found(self) -> Found:
        inputs = self.then.record["inputs"]
        return Found(self.at, inputs["members"], inputs["agents"], self.told)

    def tells(self, agent_id: int) -> frozenset[str]:
        return self.own.get(agent_id, self.told)

    def completed(self, inputs: Inputs, own: Mapping[int, frozenset[str]] = MappingProxyType({})) -> Case:
        """Return the case with inputs that were not stored with it."""
        presence, zone = self.snapshot.presence, ZoneInfo(self.then.project.time_zone)
        snapshot = snapshot_of(inputs, presence.online, presence.speaking, zone)
        return self._replace(more=inputs, snapshot=snapshot, own={**self.own, **own}, is_reconstructed=True)


class _Seen(NamedTuple):
    """Who was online and who talked, by the presence and the events that a decision was made by."""

    at: int
    online: frozenset[str]
    speaking: frozenset[str]


class Missing(NamedTuple):
    """What a decision asks for and was not stored: states of agents, and turns of groups."""

    agents: frozenset[int]
    groups: frozenset[int]


@dataclass
class Waiting:
    """A case that waits for the looks before it. `after`, `turns`: what the looks after it found."""

    case: Case
    after: Mapping[int, Look]
    turns: Mapping[int, Found]
    before: dict[int, Look] = field(default_factory=dict)
    spoke: dict[int, int] = field(default_factory=dict)  # when presence last showed these agents talking
    away: set[int] = field(default_factory=set)  # whom it showed offline since the look before

    def see(self, agent_id: int, found: Found, seen: Sequence[_Seen]) -> None:
        """Take what the look before found of an agent, and what presence showed since, `seen` the newest first."""
        self.before[agent_id] = found.look(agent_id)
        agent = self.case.then.project.agents.get(agent_id)
        for one in reversed(seen):
            if agent is None or one.at > self.case.at:
                break
            if not one.speaking.isdisjoint(agent.sip_logins):
                self.spoke[agent_id] = one.at
            if one.online.isdisjoint(agent.sip_logins):
                self.away.add(agent_id)


class Looks:
    """What decisions found, read from the newest to the oldest."""

    def __init__(self) -> None:
        self._agents: dict[int, Found] = {}  # the oldest so far that found the agent
        self._turns: dict[int, Found] = {}
        self._waiting: dict[int, Waiting] = {}  # by the decision's id, the newest first
        self._wanted: dict[int, set[int]] = defaultdict(set)  # by agent: the decisions that wait for a look
        self._seen: list[_Seen] = []  # presence while anything waits

    @property
    def waiting(self) -> list[Waiting]:
        return [*self._waiting.values()]

    def know(self, at: datetime, members: Sequence[MemberRow]) -> None:
        """Take the states and turns as they are now: after all decisions."""
        self._learn(Found(to_micros(at), members, (), TOLD))

    def wait(self, case: Case, missing: Missing) -> bool:
        """Let a case wait for the looks before it. Return whether those after it found anything that it misses."""
        near = range(case.at, case.at + FAR // MICROSECOND)
        after = {agent: look for agent in missing.agents if (look := self._agents.get(agent)) and look.at in near}
        turns = {group: look for group in missing.groups if (look := self._turns.get(group)) and look.at in near}
        if not after and not turns:
            return False
        looks = {agent: found.look(agent) for agent, found in after.items()}
        self._waiting[case.row.id] = Waiting(case, looks, turns)
        for agent_id in looks:
            self._wanted[agent_id].add(case.row.id)
        return True

    def see(self, older: Case) -> list[Waiting]:
        """Learn what an older decision found; return what waits no longer."""
        if older.row.degraded:  # made by what a process knew: no look, and it moved turns that no other decision saw
            self._turns.pop(older.row.group_id or 0, None)
            return []
        found, presence = older.found, older.snapshot.presence
        self._learn(found)
        if not self._waiting:
            self._seen.clear()
            return []
        heard = {login for login, talks in presence.events.items() if talks}
        self._seen.append(_Seen(found.at, presence.online, presence.speaking | heard))
        done: dict[int, Waiting] = {}
        for agent_id in self._wanted.keys() & set(found.ids):
            for row_id in self._wanted.pop(agent_id):
                waiting = self._waiting[row_id]
                waiting.see(agent_id, found, self._seen)
                if len(waiting.before) == len(waiting.after):
                    done[row_id] = waiting
        for row_id, waiting in self._waiting.items():
            if waiting.case.at - FAR // MICROSECOND <= found.at and waiting.after:
                break
            done[row_id] = waiting
        for row_id, waiting in done.items():
            del self._waiting[row_id]
            for agent_id in waiting.after.keys() - waiting.before.keys():
                self._wanted[agent_id].discard(row_id)
        return [*done.values()]

    def _learn(self, found: Found) -> None:
        self._agents |= dict.fromkeys(found.ids, found)
        self._turns |= dict.fromkeys({member[0] for member in found.members}, found)


def complete(waiting: Waiting, log: Log) -> Case:
    """Return the case with what the looks around it tell."""
    case, inputs = waiting.case, waiting.case.inputs
    known = {one.agent_id: AgentRow._make(one[_ROW:]) for one in inputs.members}
    known |= {one.agent_id: one for one in inputs.agents}
    own: dict[int, frozenset[str]] = {}
    project = case.then.project
    for agent_id, before in waiting.before.items():
        if agent_id in known or agent_id not in project.agents:
            continue
        agent, after = project.agents[agent_id], waiting.after[agent_id]
        spoke, was_away = waiting.spoke.get(agent_id), agent_id in waiting.away
        with suppress(_UnclearError):
            moment = _Moment(log, project, agent, case.at, before, after, spoke, was_away)
            known[agent_id], own[agent_id] = moment.state(case.row.call_id)
    members = []
    for group_id, found in waiting.turns.items():
        for turn in (MemberRow._make(one) for one in found.members if one[0] == group_id and one[_ROW] in known):
            members.append(turn.with_agent(known[turn.agent_id]))
            if "talked_today" not in found.told:  # and so the head start in seconds is not either
                own[turn.agent_id] = own.get(turn.agent_id, case.told) - {"talked_today"}
    agents = [known[agent_id] for agent_id in own.keys() - {one.agent_id for one in members}]
    if not members and not agents:
        return case
    inputs = inputs._replace(members=[*inputs.members, *members], agents=[*inputs.agents, *agents])
    return case.completed(inputs, own)


# ---- the caller


def with_last_talk(session: Session, project: Project, case: Case) -> Case | None:
    """Return the case with who had last talked with the caller when the call came; None if that is not known, as in an
    outage. `project`: whose agents count.
    """
    row = case.row
    if row.degraded:
        return None
    decision, logged, kept = models.Decision, models.LoggedTalk, models.LastTalk
    of_caller = (decision.project_id == row.project_id, decision.caller == row.caller)
    answers = select(decision.answered_agent_id, decision.asked_at).where(
        *of_caller,
        decision.answered_agent_id.in_(project.agents),
        decision.answered_at <= row.asked_at,
        decision.id < row.id,
    )
    found = session.execute(answers.order_by(decision.id.desc()).limit(1)).one_or_none()
    ours = None if found is None or found[0] is None else LastTalk(found[0], found[1])
    later = select(func.count()).where(
        logged.project_id == row.project_id, logged.caller == row.caller, logged.talked_at > row.asked_at
    )
    if session.scalar(later):
        return None  # that log says of each login only when it last talked with a caller
    others = select(kept.agent_id, kept.talked_at).where(
        kept.project_id == row.project_id, kept.caller == row.caller, kept.talked_at <= row.asked_at
    )
    if ours is None and (older := session.execute(others.order_by(kept.talked_at.desc()).limit(1)).one_or_none()):
        ours = LastTalk(older[0], older[1])
    talks = select(logged.login, logged.talked_at).where(
        logged.project_id == row.project_id, logged.caller == row.caller, logged.talked_at <= row.asked_at
    )
    for login, at in session.execute(talks.order_by(logged.talked_at.desc(), logged.login)):
        agent = project.login_named(login)[1]
        if agent is not None and (ours is None or at >= ours.at):
            ours = LastTalk(agent.id, at, logged=True)
            break
    return case.completed(case.inputs._replace(last_talk=ours))._replace(knows_last_talk=True)


def with_previous_call(session: Session, case: Case, within: timedelta) -> Case | None:
    """Return the case with the caller's call before this one; None if that is not known.

    `within`: how far rules look back. That there was none is known only where the log reaches back so far. A call of an
    outage is stored later: it was not known to those that came meanwhile, and nothing was known to it.
    """
    row = case.row
    if row.degraded:
        return None
    decision = models.Decision
    of_caller = (decision.project_id == row.project_id, decision.caller == row.caller, ~decision.is_test)
    is_before = or_(decision.asked_at < row.asked_at, and_(decision.asked_at == row.asked_at, decision.id < row.id))
    query = select(decision.id, decision.call_id, decision.asked_at).where(*of_caller, is_before)
    if row.call_id:
        query = query.where(decision.call_id != row.call_id)
    newest = query.order_by(decision.asked_at.desc(), decision.id.desc())
    found = session.execute(newest.limit(1)).one_or_none()
    if found is None:
        oldest = session.scalar(select(func.min(decision.asked_at)).where(decision.project_id == row.project_id))
        if oldest is None or oldest > row.asked_at - within:
            return None
        return case.completed(case.inputs._replace(previous_call=[]))
    if found.id > row.id:
        return None
    is_of_it = decision.call_id == found.call_id if found.call_id else decision.id == found.id
    answered = select(func.count()).where(
        decision.project_id == row.project_id,
        is_of_it,
        decision.outcome == Outcome.ANSWERED,
        decision.answered_at <= row.asked_at,
    )
    previous = [to_micros(found.asked_at), bool(session.scalar(answered))]
    return case.completed(case.inputs._replace(previous_call=previous))


def now_known(session: Session, group_ids: Collection[int]) -> Iterator[MemberRow]:
    """Yield the turns and states as they are now."""
    clock, state = models.MemberClock, models.AgentState
    query = select(clock, state).join(state, state.agent_id == clock.agent_id).where(clock.group_id.in_(group_ids))

    def micros(at: datetime | None) -> int | None:
        return None if at is None else to_micros(at)

    for turn, agent in session.execute(query):
        yield MemberRow(
            turn.group_id,
            turn.last_offered,
            [turn.virtual_time, turn.weight, turn.tier, turn.left_at, turn.head_start_seconds],
            turn.head_start,
            None if turn.day is None else turn.day.isoformat(),
            agent.agent_id,
            agent.status,
            micros(agent.paused_until),
            None,
            micros(agent.wrap_up_until),
            micros(agent.cooling_until),
            agent.answered_today,
            None if agent.day is None else agent.day.isoformat(),
            micros(agent.last_talk_end_at),
            micros(agent.available_since_at),
            agent.talked_today,
        )
