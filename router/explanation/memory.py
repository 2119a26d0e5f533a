"""Route simulated calls: what the database keeps of calls and agents, kept in this process instead.

Decides nothing: the functions of the rules that decide live calls are asked, in the order of routing/route.py and
presence/events.py, at instants that the simulation gives. Instants are microseconds since the epoch. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from router.core.decision import decide
from router.core.events import CallEvent
from router.core.lifecycle import (
    NO_ANSWERS,
    UNHEARD,
    Changes,
    Clocks,
    Heard,
    History,
    Line,
    Step,
    after_break,
    ask_again,
    hear,
    looked_at,
    observe,
)
from router.core.model import Call, Decision, LastTalk, MemberClock, Offer, Outcome, Project, Snapshot, Status
from router.core.rules import possible_matches
from router.db.claim import AgentRow, Earlier, MemberRow, State
from router.db.records import Inputs, snapshot_of
from router.db.types import MICROSECOND, from_micros, to_micros
from router.routing.known import ids_needed, inputs_of

_NOBODY: frozenset[str] = frozenset()


class Reading(NamedTuple):
    """What a source of presence last told. `began_at` None: nothing yet."""

    began_at: int | None = None
    online: frozenset[str] = _NOBODY
    speaking: frozenset[str] = _NOBODY


class _Lease(NamedTuple):
    call_id: str
    step_id: int
    expires_at: int


class _Said(NamedTuple):
    """What the events of a call said of a login. `talks` None: nothing any more."""

    talks: bool | None
    at: int
    call_id: str


class _Turn(NamedTuple):
    clock: MemberClock
    day: str | None = None  # of the head start


@dataclass(slots=True)
class _Kept:
    """A call. `steps`: the newest first."""

    caller: str = ""
    steps: tuple[Step, ...] = ()
    heard: Heard = UNHEARD
    names: list[str] = field(default_factory=list)  # of the steps as they were asked, the oldest first


class Answered(NamedTuple):
    """A decision with what it was made by."""

    decision: Decision
    inputs: Inputs


class Memory:
    """The state of a project. `line`: what presence shows of a login at an instant: online, speaking, since when."""

    def __init__(
        self,
        time_zone: str,
        agents: Iterable[AgentRow],
        members: Iterable[MemberRow],
        line: Callable[[str, int], tuple[bool, bool, int | None]] = lambda _login, _at: (False, False, None),
    ) -> None:
        self.zone = ZoneInfo(time_zone)
        self._line = line
        self.clocks: dict[int, Clocks] = {}
        self.paused_until: dict[int, int | None] = {}
        self._turns: dict[int, dict[int, _Turn]] = {}
        for agent in agents:
            self._know(agent)
        for member in members:
            self._turns.setdefault(member.group_id, {})[member.agent_id] = _turn_of(member)
        self._leases: dict[int, _Lease] = {}
        self._phones: dict[str, _Lease] = {}
        self._said: dict[str, _Said] = {}
        self._calls: dict[str, _Kept] = {}
        self._open: dict[int, str] = {}  # the steps that are not over, by id: their calls
        self._of_caller: dict[str, list[tuple[str, int]]] = {}
        self._talked: dict[str, LastTalk] = {}
        self._days: dict[int, str] = {}  # by hours since the epoch
        self._steps = 0

    def _know(self, row: AgentRow) -> None:
        def at(micros: int | None) -> Any:
            return None if micros is None else from_micros(micros)

        self.paused_until[row.agent_id] = row.paused_until
        self.clocks[row.agent_id] = Clocks(
            status=row.status,
            available_since_at=at(row.available_since_at),
            wrap_up_until=at(row.wrap_up_until),
            cooling_until=at(row.cooling_until),
            day=None if row.day is None else date.fromisoformat(row.day),
            answered_today=row.answered_today,
            talked_today=row.talked_today,
            last_talk_end_at=at(row.last_talk_end_at),
        )

    # ---- what happens

    def ask(
        self,
        project: Project,
        call: Call,
        seed: str,
        now: int,
        reading: Reading,
        last_talk: LastTalk | None = None,
        previous_call: Sequence[Any] | None = None,
    ) -> Answered:
        """Answer a question, reserve the agent and move the turns, as for a live call.

        `last_talk`, `previous_call`: of this caller before the simulation began.
        """
        at = from_micros(now)
        kept = self._calls.setdefault(call.call_id, _Kept()) if call.call_id else _Kept()
        rules = possible_matches(project.index, call, at)
        last_talk = self._talked.get(call.caller, last_talk) if call.caller else None
        group_ids, agent_ids = ids_needed(project, rules, call, last_talk)
        self.end_breaks(project, now)
        state = State(
            now=now,
            version=project.version,
            snapshot_id=None,
            began_at=reading.began_at,
            presence=None,
            earlier=[
                Earlier(s.id, name, 0, to_micros(s.asked_at), s.destination, s.agent_id, s.login, s.outcome)
                for s, name in zip(reversed(kept.steps), kept.names, strict=True)
            ],
            events={
                login: said.talks
                for login, said in self._said.items()
                if said.talks is not None and (reading.began_at is None or said.at > reading.began_at)
            },
            members=[row for group_id in group_ids for row in self._members(project, group_id, call.call_id)],
            agents=[self._agent(agent_id, call.call_id) for agent_id in agent_ids],
            previous_call=self._previous_call(call, previous_call) if project.index.asks_previous_call else None,
        )
        promised: dict[int, int] = {}
        for phone, lease in self._phones.items():
            if lease.expires_at > now and (lease.call_id != call.call_id or not call.call_id):
                for agent_id in project.phone_owners.get(phone, ()):
                    promised[agent_id] = max(lease.expires_at, promised.get(agent_id, 0))
        inputs = inputs_of(project, state.promised(promised) if promised else state, seed, last_talk)
        snapshot = snapshot_of(inputs, reading.online, reading.speaking, self.zone)
        decision = decide(project, call, snapshot)
        if kept.steps:
            history = self._history(project, call.call_id, now)
            self._apply(project, call.call_id, kept, ask_again(project, history, at), now)
        self._record(project, call, kept, decision, snapshot, now)
        return Answered(decision, inputs)

    def steps(self, call_id: str) -> tuple[Step, ...]:
        """Return what became of a call's questions, the newest first."""
        kept = self._calls.get(call_id)
        return kept.steps if kept else ()

    def hear(self, project: Project, event: CallEvent, now: int) -> None:
        """Apply an event that comes now."""
        kept = self._calls.setdefault(event.call_id, _Kept())
        history = self._history(project, event.call_id, now, (event.sip_login, event.caller))
        self._apply(project, event.call_id, kept, hear(project, history, event, from_micros(now)), now)

    def settle(self, project: Project, call_id: str, now: int) -> None:
        """Conclude what presence and time say of a call."""
        if (kept := self._calls.get(call_id)) is not None:
            changes = observe(project, self._history(project, call_id, now), from_micros(now))
            self._apply(project, call_id, kept, changes, now)

    def declare(self, agent_id: int, changed: Mapping[str, Any], now: int) -> None:
        """Set what a person declared: a status, a pause, or since when the agent is there."""
        at, clocks = from_micros(now), self.clocks.get(agent_id, Clocks())
        if "paused_until" in changed:
            self.paused_until[agent_id] = changed["paused_until"]
            if changed["paused_until"] is None:
                clocks = clocks._replace(available_since_at=at)
        if (status := changed.get("status")) is not None and status != clocks.status:
            clocks = clocks._replace(status=status, status_since_at=at, status_reason="")
            if status == Status.AVAILABLE:
                clocks = clocks._replace(**after_break(at))
        if "available_since" in changed:
            clocks = clocks._replace(available_since_at=at)
        self.clocks[agent_id] = clocks

    def end_breaks(self, project: Project, now: int) -> None:
        """End automatic breaks: the agent came back, speaks, or the local day is over, as presence/settle.py does."""
        for agent_id, clocks in self.clocks.items():
            since = clocks.status_since_at
            if clocks.status_reason != NO_ANSWERS or clocks.status != Status.ON_BREAK or since is None:
                continue
            agent, came = project.agents.get(agent_id), clocks.available_since_at
            lines = [self._line(login, now) for login in agent.sip_logins] if agent else []
            speaks = any(speaking and at is not None and at > to_micros(since) for _, speaking, at in lines)
            is_of_today = self.day(to_micros(since)) == self.day(now)
            if speaks or not is_of_today or (came is not None and came > since):
                self.clocks[agent_id] = clocks._replace(**after_break(from_micros(now)))

    def day(self, now: int) -> str:
        """Return the project's local date."""
        quarter = now // 900_000_000  # no zone's day begins within one
        if quarter not in self._days:
            self._days[quarter] = from_micros(now).astimezone(self.zone).date().isoformat()
        return self._days[quarter]

    # ---- what is read

    def _agent(self, agent_id: int, call_id: str) -> AgentRow:
        clocks, lease = self.clocks.setdefault(agent_id, Clocks()), self._leases.get(agent_id)
        reserved = lease.expires_at if lease and (lease.call_id != call_id or not call_id) else None

        def raw(at: Any) -> int | None:
            return None if at is None else to_micros(at)

        return AgentRow(
            agent_id,
            clocks.status,
            self.paused_until.get(agent_id),
            reserved,
            raw(clocks.wrap_up_until),
            raw(clocks.cooling_until),
            clocks.answered_today,
            None if clocks.day is None else clocks.day.isoformat(),
            raw(clocks.last_talk_end_at),
            raw(clocks.available_since_at),
            clocks.talked_today,
        )

    def _members(self, project: Project, group_id: int, call_id: str) -> Iterable[MemberRow]:
        turns = self._turns.setdefault(group_id, {})
        for member in project.groups[group_id].members:
            turns.setdefault(member.agent_id, _Turn(MemberClock()))
        for agent_id, (clock, day) in turns.items():
            stood_at = [clock.virtual_time, clock.weight, clock.tier, clock.left_at, clock.head_start_seconds]
            yield MemberRow(
                group_id, clock.last_offered, stood_at, clock.head_start, day, *self._agent(agent_id, call_id)
            )

    def _previous_call(self, call: Call, before: Sequence[Any] | None) -> Sequence[Any]:
        for call_id, asked_at in reversed(self._of_caller.get(call.caller, [])):
            if call_id != call.call_id or not call_id:
                steps = self._calls[call_id].steps if call_id else ()
                return [asked_at, any(step.outcome == Outcome.ANSWERED for step in steps)]
        return before or []

    def _history(self, project: Project, call_id: str, now: int, names: Iterable[str] = ()) -> History:
        kept = self._calls.get(call_id, _Kept())
        history = History(call_id, tuple(map(self._rung, kept.steps)), kept.heard)
        agents, logins = looked_at(project, history, names)
        others: dict[int, datetime] = {}
        since = kept.steps[-1].asked_at if kept.steps else None
        for step_id, other in self._open.items():
            if other == call_id and call_id:
                continue
            step = next(one for one in self._calls[other].steps if one.id == step_id)
            if since is None or step.asked_at > since:
                for agent_id in {step.agent_id, step.answered_agent_id}.intersection(agents):
                    if agent_id is not None:
                        others[agent_id] = max(step.asked_at, others.get(agent_id, step.asked_at))
        clocks = {agent_id: self.clocks[agent_id] for agent_id in agents if agent_id in self.clocks}
        lines = {login: self._lines(login, now) for login in logins}
        return History(call_id, history.steps, kept.heard, clocks, lines, others, from_micros(now))

    def _rung(self, step: Step) -> Step:
        lease = self._leases.get(step.agent_id or 0)
        if lease is None or lease.step_id != step.id:
            return step
        return replace(step, rings_until=from_micros(lease.expires_at))

    def _lines(self, login: str, now: int) -> Line:
        online, speaking, since = self._line(login, now)
        since_at = None if since is None else from_micros(since)
        said = self._said.get(login)
        if said is None:
            return Line(online=online, speaking=speaking, since_at=since_at)
        steps = self._calls[said.call_id].steps if said.call_id in self._calls else ()
        came_at = steps[-1].asked_at if steps else None
        event_at = None if said.talks is None else from_micros(said.at)
        return Line(said.talks, event_at, said.call_id, came_at, online, speaking, since_at)

    # ---- what is written

    def _record(
        self, project: Project, call: Call, kept: _Kept, decision: Decision, snapshot: Snapshot, now: int
    ) -> None:
        answer = decision.answer
        offer = answer if isinstance(answer, Offer) else None
        self._steps += 1
        expires_at = now + offer.ring // MICROSECOND if offer else None
        step = Step(
            id=self._steps,
            agent_id=offer and offer.agent_id,
            group_id=offer and offer.group_id,
            login=offer.sip_login if offer else "",
            destination=answer.destination,
            asked_at=snapshot.now,
        )
        kept.caller, kept.steps, kept.names = call.caller, (step, *kept.steps), [*kept.names, call.step]
        if call.call_id:
            self._open[step.id] = call.call_id
        if call.caller:
            self._of_caller.setdefault(call.caller, []).append((call.call_id, now))
        if offer is None or expires_at is None:
            return
        lease = _Lease(call.call_id, step.id, expires_at)
        self._end_lease(project, offer.agent_id)
        self._leases[offer.agent_id] = lease
        self._phones |= dict.fromkeys(project.agents[offer.agent_id].phones, lease)
        if offer.group_id is None:
            return
        turns = self._turns[offer.group_id]
        for agent_id, clock in offer.turns:
            was = turns[agent_id]
            moved = was.clock._replace(
                virtual_time=clock.virtual_time,
                head_start=clock.head_start,
                weight=clock.weight,
                tier=clock.tier,
                left_at=clock.left_at,
            )
            turns[agent_id] = _Turn(moved, was.day)
        if offer.clock is not None:
            turns[offer.agent_id] = _Turn(offer.clock._replace(head_start=offer.clock.head_start or 0), self.day(now))

    def _end_lease(self, project: Project, agent_id: int, step_id: int | None = None) -> None:
        lease = self._leases.get(agent_id)
        if lease is None or step_id not in (None, lease.step_id):
            return
        del self._leases[agent_id]
        for phone in [phone for phone, of_phone in self._phones.items() if of_phone is lease]:
            del self._phones[phone]

    def _apply(self, project: Project, call_id: str, kept: _Kept, changes: Changes, now: int) -> None:
        self.clocks |= changes.clocks
        self._say(call_id, changes, now)
        if changes.releases_call:
            for agent_id in [agent_id for agent_id, lease in self._leases.items() if lease.call_id == call_id]:
                self._end_lease(project, agent_id)
        for step in changes.released:
            if step.agent_id is not None:
                self._end_lease(project, step.agent_id, step.id)
        changed = {step.id: step for step in changes.steps}
        kept.steps = tuple(changed.get(step.id, step) for step in kept.steps) if changed else kept.steps
        for step in changed.values():
            if step.ended_at is None and call_id:
                self._open[step.id] = call_id
            else:
                self._open.pop(step.id, None)
            if step.outcome == Outcome.ANSWERED and step.answered_agent_id is not None and kept.caller:
                self._talked[kept.caller] = LastTalk(step.answered_agent_id, step.asked_at)
        if changes.heard is not None:
            kept.heard = changes.heard

    def _say(self, call_id: str, changes: Changes, now: int) -> None:
        self._said |= {login: _Said(talks, now, call_id) for login, talks in changes.said.items()}
        for login in changes.unsaid | changes.hushed:
            if (said := self._said.get(login)) is None or said.call_id != call_id:
                continue
            if login in changes.unsaid:
                self._said[login] = said._replace(talks=None)
            elif said.talks:
                self._said[login] = said._replace(talks=False)


def _turn_of(row: MemberRow) -> _Turn:
    virtual_time, *written = [row.stood_at] if isinstance(row.stood_at, int) else row.stood_at
    return _Turn(MemberClock(row.last_offered, virtual_time, row.head_start, *written), row.head_start_day)
