"""A decision and its record: the rules' view of what was read, the row that is stored, and the replay of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import starmap
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy.orm import Session

from router.core.decision import decide, preferred_agent
from router.core.model import (
    LAWS,
    AgentState,
    Call,
    Decision,
    LastTalk,
    MemberClock,
    Offer,
    Overflow,
    Presence,
    Project,
    Snapshot,
)
from router.core.notes import NOTES
from router.core.rules import Rule, counted_groups
from router.core.words import Message
from router.db import models, queries
from router.db.claim import Lease
from router.db.documents import configured
from router.db.records import STUB, Record, pack, record_of
from router.db.session import CLOCK_STEP
from router.db.state import AgentRow, MemberRow, State
from router.db.types import MICROSECOND, from_micros, to_micros
from router.log import log
from router.routing.known import Known, Seen

CALL_MEMORY = timedelta(hours=6)  # how long the logins tried for a call id are remembered: no call lasts longer

_STUB = orjson.dumps(STUB).decode()

Admit = Callable[[queries.Published], object]
"""Raises when whoever asks may not, by this configuration. Asked before a call is answered by it."""


class Inputs(NamedTuple):
    """What decides and changes from call to call: stored with the decision, read by the replay. Instants in µs."""

    now: int
    began_at: int | None  # the reading
    events: Mapping[str, bool]  # as in State, like the rows
    agents: Sequence[AgentRow]
    members: Sequence[MemberRow] = ()
    seed: str = ""
    tried: Sequence[str] = ()  # logins
    last_talk: LastTalk | None = None
    laws: int = LAWS

    def as_json(self) -> dict[str, Any]:
        """Return what `of_json` reads, rows as arrays."""
        talk = self.last_talk
        return self._asdict() | {
            "events": list(self.events.items()),
            "agents": list(map(tuple, self.agents)),
            "members": list(map(tuple, self.members)),
            "last_talk": None if talk is None else [talk.agent_id, to_micros(talk.at), talk.logged],
        }

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Inputs:
        """Return what a release stored: one of before `laws` has none."""
        talk = stored["last_talk"]
        rows = {
            "events": {login: bool(talks) for login, talks in stored["events"]},
            "members": list(starmap(MemberRow, stored["members"])),
            "agents": list(starmap(AgentRow, stored["agents"])),
            "last_talk": None if talk is None else LastTalk(talk[0], from_micros(talk[1]), any(talk[2:])),
        }
        return cls(**{"laws": 1} | {name: stored[name] for name in cls._fields if name in stored} | rows)


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of a question. `decision` is None when an earlier answer was repeated."""

    destination: str
    decision_id: int
    decision: Decision | None = None
    presence_age: timedelta | None = None
    degraded: str = ""  # why the answer was made without the database
    result: str = "repeated"  # else the decision's


class OtherCallerError(Exception):
    """The call's id was sent for another caller before."""


class Question(NamedTuple):
    """What is asked, with what is needed to record it."""

    call: Call
    seed: str
    received: Mapping[str, Any] | None
    began: float
    admit: Admit | None

    def let_in(self, known: Known) -> None:
        """May this be answered by what is known of the project now? Raises what `admit` does if not."""
        if self.admit is not None:
            self.admit(known.published)

    def with_own_id(self) -> Question:
        """The same by an id of its own: the one that was sent is another caller's, too."""
        sent, call = self.call.call_id, self.call.with_own_id()
        problem = Message(NOTES["shared_call_id"], {"sent": repr(sent[:80])})
        received = dict(self.received or {})
        received |= {"problems": [*received.get("problems", ()), problem.as_json()], "empty_id": sent}
        return self._replace(call=call, seed=call.call_id, received=received)


class Made(NamedTuple):
    """A decision that is still to be recorded."""

    decision: Decision
    row: dict[str, Any]
    lease: Lease | None
    age: timedelta | None


def make(known: Known, asked: Question, state: State, seen: Seen, last_talk: LastTalk | None) -> Routed | Made:
    """The answer given before to the same question, if that was asked not long ago, or a new decision.

    When the agent named last did not take the call, the question is asked for the next one.
    """
    project, call = known.published.project, asked.call
    if not all(call.may_be_of(earlier.caller) for earlier in state.earlier):
        raise OtherCallerError
    same = [earlier for earlier in state.earlier if earlier.step == call.step]
    if same and not (same[-1] is state.earlier[-1] and same[-1].is_refused):
        given = same[-1]
        if state.now - given.asked_at <= project.retry_window // MICROSECOND:
            return Routed(given.destination, given.id)
    inputs = inputs_of(project, state, asked.seed, last_talk)
    snapshot = snapshot_of(inputs, seen.online, seen.speaking, known.zone)
    decision = decide(project, call, snapshot)
    row = _row(project, call, state, inputs, decision, asked.received, 1 + same[-1].attempt if same else 0)
    row["snapshot_id"] = seen.snapshot_id or None
    row["latency_us"] = round((time.perf_counter() - asked.began) * 1_000_000)
    lease = _lease(project, decision.answer, state.now, snapshot.now, known.zone)
    return Made(decision, row, lease, snapshot.presence.age)


def ids_needed(
    project: Project, rules: Sequence[Rule], call: Call, last_talk: LastTalk | None
) -> tuple[list[int], list[int]]:
    """Return the groups that a decision among these rules may look into, and the agents (and their deputies) whom it
    may prefer, members or not."""
    groups = {group_id for rule in rules for group_id in (*rule.group_ids, *counted_groups(rule))}
    agents: set[int] = set()
    for rule in rules:
        agent = preferred_agent(project, rule, call, last_talk) if rule.prefer is not None else None
        if agent is not None:
            agents.add(agent.id)
            if agent.deputy_id is not None:
                agents.add(agent.deputy_id)
    return sorted(groups), sorted(agents)


def inputs_of(project: Project, state: State, seed: str, last_talk: LastTalk | None) -> Inputs:
    """Return what a decision on this state is made by."""
    began_at, since = state.began_at, state.now - CALL_MEMORY // MICROSECOND
    if began_at is not None and began_at > state.now + CLOCK_STEP // MICROSECOND:
        began_at = state.now - project.fresh // MICROSECOND - 1  # of before the clock was set back: not fresh, at least
    tried = [earlier.sip_login for earlier in state.earlier if earlier.sip_login and earlier.asked_at > since]
    return Inputs(state.now, began_at, state.events, state.agents, state.members, seed, tried, last_talk)


def snapshot_of(inputs: Inputs, online: frozenset[str], speaking: frozenset[str], zone: ZoneInfo) -> Snapshot:
    """The rules' view of what was read: live, or stored with a decision."""
    now = from_micros(inputs.now)
    today = now.astimezone(zone).date().isoformat()
    agents = {agent.agent_id: _agent_state(agent, inputs.now, today, inputs.laws) for agent in inputs.agents}
    clocks: dict[int, dict[int, MemberClock]] = {}
    for row in inputs.members:
        if row.agent_id not in agents:
            agents[row.agent_id] = _agent_state(row, inputs.now, today, inputs.laws)
        # A number alone: stored by a release that kept nothing with it.
        virtual_time, *written = [row.stood_at] if isinstance(row.stood_at, int) else row.stood_at
        head_start = row.head_start if row.head_start_day == today else None
        clock = MemberClock(row.last_offered, virtual_time, head_start, *written)
        clocks.setdefault(row.group_id, {})[row.agent_id] = clock
    presence = Presence(
        online=online,
        speaking=speaking,
        age=None if inputs.began_at is None else max(timedelta(0), (inputs.now - inputs.began_at) * MICROSECOND),
        events=inputs.events,
    )
    tried = frozenset(inputs.tried)
    return Snapshot(now, presence, agents, clocks, tried, inputs.last_talk, inputs.seed, inputs.laws)


def _agent_state(row: AgentRow | MemberRow, now: int, today: str, laws: int) -> AgentState:
    paused, reserved = row.paused_until, row.reserved_until
    wrap_up, cooling = row.wrap_up_until, row.cooling_until
    return AgentState(
        row.status,
        from_micros(paused) if paused and paused > now else None,  # what is over says nothing
        from_micros(reserved) if reserved and reserved > now else None,
        from_micros(wrap_up) if wrap_up and wrap_up > now else None,
        from_micros(cooling) if cooling and cooling > now else None,
        row.answered_today if row.day == today else 0,
        max(
            row.last_talk_end_at or 0,
            row.available_since_at or 0,
            paused if laws > 1 and paused and paused <= now else 0,
        ),
        row.talked_today if row.day == today else 0,
    )


def _lease(project: Project, answer: Offer | Overflow, now: int, now_at: datetime, zone: ZoneInfo) -> Lease | None:
    if isinstance(answer, Overflow):
        return None
    expires_at = now + answer.ring // MICROSECOND
    phones = project.agents[answer.agent_id].phones
    if answer.clock is None:
        return Lease(answer.agent_id, answer.sip_login, expires_at, None, phones=phones)
    return Lease(
        answer.agent_id,
        answer.sip_login,
        expires_at,
        answer.group_id,
        answer.clock.last_offered,
        answer.clock.virtual_time,
        answer.clock.head_start or 0,
        answer.clock.weight,
        answer.clock.tier,
        now_at.astimezone(zone).date().isoformat(),
        answer.turns,
        phones,
        answer.clock.head_start_seconds,
    )


def _row(
    project: Project,
    call: Call,
    state: State,
    inputs: Inputs,
    decision: Decision,
    received: Mapping[str, Any] | None,
    attempt: int,
) -> dict[str, Any]:
    answer = decision.answer
    offer = answer if isinstance(answer, Offer) else None
    record: Record = {
        "call": {
            "step": call.step,
            "caller": call.caller,
            "dialed": call.dialed,
            "direction": call.direction,
            "params": call.params,
        },
        "received": received,
        "inputs": inputs.as_json(),
        "trials": trials_as_json(decision),
        "answer": _answer_as_json(decision),
    }
    stored: dict[str, Any]
    try:
        stored = {"record": _STUB, "packed": pack(record, project)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits, so it is stored plain
        log.error("a decision's record cannot be packed", error=repr(error))
        stored = {"record": orjson.dumps(record).decode(), "packed": None}
    return {
        "project": project.id,
        "call_id": call.call_id,
        "step": call.step,
        "attempt": attempt,
        "asked_at": state.now,
        "caller": call.caller,
        "dialed": call.dialed,
        "rule_id": decision.rule_id,
        "group_id": offer and offer.group_id,
        "agent_id": offer and offer.agent_id,
        "sip_login": offer.sip_login if offer else "",
        "destination": answer.sip_login if isinstance(answer, Offer) else answer.destination,
        "result": "offer" if offer else "overflow",
        "degraded": "",
        "config_version": project.version,
        **stored,
    }


class NotRecomputableError(LookupError):
    """What a decision was made by is no longer kept."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A decision made again by what was stored with it. `is_same`: does it equal what was answered then?"""

    project: Project
    call: Call
    snapshot: Snapshot
    decision: Decision
    is_same: bool


def recompute(session: Session, decision_id: int) -> Recomputed:
    """Decide again by the configuration, the presence and the inputs of then. Raises NotRecomputableError."""
    row = session.get(models.Decision, decision_id)
    if row is None:
        raise NotRecomputableError(f"decision {decision_id} is no longer kept")
    record = record_of(session, row)
    if "erased_at" in record:
        raise NotRecomputableError(f"the caller of decision {decision_id} was erased")
    found = configured(session, row.project_id, row.config_version)
    if found is None:
        raise NotRecomputableError(f"version {row.config_version} of the configuration is no longer kept")
    seen = None if row.snapshot_id is None else session.get(models.PresenceSnapshot, row.snapshot_id)
    if row.snapshot_id is not None and seen is None:
        raise NotRecomputableError(f"presence reading {row.snapshot_id} is no longer kept")
    online, speaking = (frozenset(seen.online), frozenset(seen.speaking)) if seen else (frozenset(), frozenset())
    project = found.project
    call = Call(call_id=row.call_id, **record["call"])
    snapshot = snapshot_of(Inputs.of_json(record["inputs"]), online, speaking, ZoneInfo(project.time_zone))
    decision = decide(project, call, snapshot)
    then = (row.rule_id, row.destination, record["trials"], record["answer"])
    now = (decision.rule_id, decision.answer.destination, trials_as_json(decision), _answer_as_json(decision))
    return Recomputed(project, call, snapshot, decision, then == now and row.result == decision.result)


def _answer_as_json(decision: Decision) -> list[str] | None:
    """[whose overflow, cause], None for an offer."""
    answer = decision.answer
    return None if isinstance(answer, Offer) else [answer.of, answer.cause]


def trials_as_json(decision: Decision) -> list[Any]:
    """[[group id, [[agent id, login, skip reason or None, *sort key], …]], …]"""
    return [
        [trial.group_id, [[c.agent_id, c.sip_login, c.skip, *c.key] for c in trial.candidates]]
        for trial in decision.trials
    ]
