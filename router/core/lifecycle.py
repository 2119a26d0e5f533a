"""Decides what becomes of a call: its history and an event, a reading of presence or a question → changes. Pure.

Events are facts; what follows from presence, from time and from the call's next step are conclusions. A fact overrules
a conclusion whenever it comes, and undoes all that the conclusion did: to the decision and, by its `Effect`, to the
agent's clocks. Events are lossy, late, repeated and out of order. The platform's own time of an event is ignored:
Ringostat's `calldate` is when the call came in, the same in all its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Agent, Outcome, Project, Status
from router.core.phones import is_outside_number, phone_of

GRACE = timedelta(seconds=10)  # after a reservation's end, for a late event or the call's next step
UNSEEN = timedelta(seconds=60)  # after a reservation's end without a reading: the outcome will stay unknown
OVERFLOW_WAIT = timedelta(minutes=2)  # for an event about a call that presence cannot see
SLOW_SOURCE = timedelta(seconds=15)  # a reported talk that the source does not show by then was short
LONGEST_TALK = timedelta(hours=4)  # a talk without an end event blocks its agent no longer
SHORT_SILENCE = timedelta(seconds=30)  # a shorter one does not end a talk known from presence alone
LONG_SILENCE = timedelta(minutes=10)  # the same for a talk known from events, which may be on hold
INEXACT = timedelta(seconds=5)  # the difference between polled, rounded presence and events
RANG_OUT = 0.9  # of the reservation's time: until then the caller hung up, later the agent did not answer

NO_ANSWERS = "no_answers"  # the reason of an automatic break

OUTCOMES: Mapping[Disposition, Outcome] = {
    **dict.fromkeys((Disposition.ANSWERED, Disposition.PROPER, Disposition.REPEATED), Outcome.ANSWERED),
    Disposition.VOICEMAIL: Outcome.VOICEMAIL,
    Disposition.NO_ANSWER: Outcome.NO_ANSWER,
    Disposition.CLIENT_NO_ANSWER: Outcome.ABANDONED,
    **dict.fromkeys((Disposition.BUSY, Disposition.DECLINE), Outcome.BUSY),
    **dict.fromkeys((Disposition.FAILED, Disposition.FAILED_FORBIDDEN_DESTINATION), Outcome.FAILED),
    **dict.fromkeys((Disposition.NO_FORWARD, Disposition.NO_EXTENSION, Disposition.WRONG_EXTENSION), Outcome.FAILED),
    # The end of a call is none of these: its outcome was not reported.
    **dict.fromkeys((Disposition.IN_PROGRESS, Disposition.CALLING, Disposition.UNKNOWN), Outcome.UNKNOWN),
}


class Result(StrEnum):
    """The effect of an event."""

    APPLIED = "applied"
    REPEATED = "repeated"  # known already: nothing changed
    NOTED = "noted"  # understood, without consequences
    UNMATCHED = "unmatched"  # neither the call nor the login is ours
    UNCLEAR = "unclear"  # what happened, or to which call, is missing


# ---- the history of a call


@dataclass(frozen=True, slots=True)
class Step:
    """One question of the call with our answer and its outcome."""

    id: int
    agent_id: int | None
    group_id: int | None
    login: str
    destination: str
    asked_at: datetime
    rings_until: datetime | None = None  # the end of its reservation, while there is one
    outcome: str = ""
    inferred: bool = False
    disposition: str = ""
    answered_agent_id: int | None = None
    answered_login: str = ""
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    waited_seconds: float | None = None
    talked_seconds: float | None = None

    @property
    def is_open(self) -> bool:
        """Return whether no event has reported its outcome yet."""
        return self.outcome == "" or (self.inferred and self.outcome != Outcome.ANSWERED)

    @property
    def is_concluded_answer(self) -> bool:
        return self.inferred and self.outcome == Outcome.ANSWERED


class Clocks(NamedTuple):
    """What calls change of an agent. Each count is of the local day beside it."""

    status: str = Status.AVAILABLE
    status_since_at: datetime | None = None
    status_reason: str = ""
    available_since_at: datetime | None = None
    wrap_up_until: datetime | None = None
    cooling_until: datetime | None = None
    missed_day: date | None = None
    no_answers: int = 0  # in a row
    declines: int = 0  # in a row
    day: date | None = None
    answered_today: int = 0
    talked_today: int = 0  # seconds of the calls that `answered_today` counts, of the same day
    last_talk_end_at: datetime | None = None
    talk_id: int | None = None  # the step whose talk was concluded to end then; None: an event said so


def after_break(at: datetime) -> dict[str, Any]:
    """Return the clocks that a return from a break sets. The counts start anew."""
    return {
        "status": Status.AVAILABLE,
        "status_since_at": at,
        "status_reason": "",
        "available_since_at": at,
        "cooling_until": None,
        "no_answers": 0,
        "declines": 0,
    }


class Line(NamedTuple):
    """What is known of a SIP login: from events (`talks` on the call `call_id`), and from presence since `since_at`."""

    talks: bool | None = None
    event_at: datetime | None = None
    call_id: str = ""
    call_came_at: datetime | None = None  # the first question about that call; None: it is not ours
    online: bool = False
    speaking: bool = False
    since_at: datetime | None = None


class Effect(NamedTuple):
    """A change of an agent's clocks: field → (before, after), of the fields that changed."""

    agent_id: int
    changed: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(cls, agent_id: int, before: Clocks, after: Clocks) -> Effect:
        pairs = zip(Clocks._fields, before, after, strict=True)
        return cls(agent_id, {name: (old, new) for name, old, new in pairs if old != new})

    def undone(self, clocks: Clocks) -> Clocks:
        """Return the clocks without this change. Later changes stay; counts go back by as much, on the same day."""
        unmoved = {name for name, (_, after) in self.changed.items() if getattr(clocks, name) == after}
        if len(unmoved) == len(self.changed):
            return clocks._replace(**{name: before for name, (before, _) in self.changed.items()})
        undone: dict[str, Any] = {}
        for name, (before, after) in self.changed.items():
            if (day := _DAY_OF.get(name)) is None:
                if name in unmoved and name not in _DAY_OF.values():
                    undone[name] = before
            elif day not in self.changed or day in unmoved:
                counted = after - (0 if day in self.changed else before)
                undone[name] = max(0, getattr(clocks, name) - counted)
        return clocks._replace(**undone)


_DAY_OF = {"answered_today": "day", "talked_today": "day", "no_answers": "missed_day", "declines": "missed_day"}


class Talk(NamedTuple):
    """An agent's part of a call: since when they have it, and the seconds counted for it on the day when it began."""

    since_at: datetime
    seconds: int = 0


class Heard(NamedTuple):
    """What is known of the call from events and conclusions. `effects`: by "step id:kind". `talks`: by agent, where the
    answer was counted."""

    at: datetime | None = None  # the first time; None: nothing was heard
    talked: tuple[str, ...] = ()  # logins and numbers that picked up, in order
    ended_at: datetime | None = None
    effects: Mapping[str, Effect] = {}
    talks: Mapping[int, Talk] = {}


UNHEARD = Heard()


@dataclass(frozen=True, slots=True)
class History:
    """A call as far as it is known. `steps`: newest first, all or those of interest. `others`: by agent, when the
    newest unfinished offer or talk of another call was asked about. `seen_at`: when the newest reading began."""

    call_id: str
    steps: tuple[Step, ...] = ()
    heard: Heard = UNHEARD
    clocks: Mapping[int, Clocks] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    others: Mapping[int, datetime] = field(default_factory=dict)
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written: the new steps and clocks, and what events say of logins."""

    steps: tuple[Step, ...] = ()
    clocks: Mapping[int, Clocks] = field(default_factory=dict)
    heard: Heard | None = None
    said: Mapping[str, bool] = field(default_factory=dict)  # login → does it talk on this call from now on
    unsaid: frozenset[str] = frozenset()  # logins of which this call's events say nothing any more
    hushed: frozenset[str] = frozenset()  # logins that were seen to stop talking on this call
    released: tuple[Step, ...] = ()  # whose reservations end
    releases_call: bool = False  # all its reservations end
    result: Result = Result.APPLIED
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        of_logins = self.said or self.unsaid or self.hushed
        return bool(self.steps or self.clocks or self.heard or of_logins or self.released or self.releases_call)


def hear(project: Project, history: History, event: CallEvent, at: datetime, now: datetime | None = None) -> Changes:
    """Return what follows from an event that came `at` this instant. `now`: by the database's clock, if later."""
    life = _Life(project, history, at, now or at)
    act = _ACTS.get(_kind(event))
    return life.changes(Result.NOTED) if act is None else act(life, event)


def observe(project: Project, history: History, now: datetime) -> Changes:
    """Return what follows from presence and time for unfinished steps, and for talks concluded to be over."""
    life = _Life(project, history, now, now)
    for step in history.steps:
        if step.ended_at is None:
            _conclude(life, step)
        elif step.outcome == Outcome.ANSWERED:
            _resume(life, step)
    return life.changes()


def ask_again(project: Project, history: History, now: datetime) -> Changes:
    """Return what follows for earlier steps from the call's next step, or its question asked again.

    Within the ring time it proves that nobody answered; later it proves nothing. A talk that events reported is over:
    the caller is back with us.
    """
    life = _Life(project, history, now, now)
    for step in history.steps:
        if step.outcome == Outcome.ANSWERED and not step.inferred and step.ended_at is None:
            talked = None if step.answered_at is None else _seconds(now - step.answered_at)
            life.change(step, ended_at=now, talked_seconds=talked)
            life.hushed.add(step.answered_login)
            if (holder := project.holder(step.answered_agent_id, step.answered_login)) is not None:
                life.count_talk(holder.id, now)
                life.end_talk(holder.id, now, concluded_from=step)
        if step.agent_id is None:
            continue
        in_time = now <= life.rings_until(step) + GRACE
        if step.is_concluded_answer and in_time:
            # Nobody answered a call that goes on: the talk in presence was another one.
            life.undo(step)
            life.change(step, outcome=Outcome.NO_ANSWER, ended_at=now)
        elif step.outcome in ("", Outcome.NO_ANSWER, Outcome.UNKNOWN) and step.is_open and in_time:
            life.change(step, outcome=Outcome.NO_ANSWER, inferred=False, ended_at=now)
            life.miss(step, Outcome.NO_ANSWER)
        elif step.outcome == "":
            life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=now)
    return replace(life.changes(), releases_call=True)


# ---- used by all three


class _Life:
    """A call's history while it changes."""

    def __init__(self, project: Project, history: History, at: datetime, now: datetime) -> None:
        self.project, self.history, self.at = project, history, at
        self.zone = ZoneInfo(project.time_zone)
        self.today = self.local_day(now)
        self.steps = {step.id: step for step in history.steps}
        self.clocks = dict(history.clocks)
        self.talked = list(history.heard.talked)
        self.ended_at = history.heard.ended_at
        self.effects = dict(history.heard.effects)
        self.talks = dict(history.heard.talks if history.call_id else self._talks_of_steps())
        self.said: dict[str, bool] = {}
        self.unsaid: set[str] = set()
        self.hushed: set[str] = set()
        self.released: list[Step] = []
        self.releases_call = False

    def changes(self, result: Result = Result.APPLIED, *notes: str) -> Changes:
        before = self.history
        heard = Heard(before.heard.at or self.at, tuple(self.talked), self.ended_at, self.effects, self.talks)
        is_heard = heard[1:] != before.heard[1:] and bool(before.call_id)
        return Changes(
            steps=tuple(self.steps[step.id] for step in before.steps if self.steps[step.id] != step),
            clocks={agent: clocks for agent, clocks in self.clocks.items() if before.clocks.get(agent) != clocks},
            heard=heard if is_heard else None,
            said=self.said,
            unsaid=frozenset(self.unsaid),
            hushed=frozenset(self.hushed),
            released=tuple(self.released),
            releases_call=self.releases_call,
            result=result,
            notes=notes,
        )

    def _talks_of_steps(self) -> Iterator[tuple[int, Talk]]:
        """Yield what is counted for the talks of a call without id, of which nothing but its step is stored."""
        for step in self.history.steps:
            holder = self.project.holder(step.answered_agent_id, step.answered_login)
            if step.outcome == Outcome.ANSWERED and holder is not None and step.answered_at is not None:
                yield holder.id, Talk(step.answered_at, round(step.talked_seconds or 0))

    # -- logins, agents, steps

    @property
    def is_ours(self) -> bool:
        """Return whether we were asked where to send the call."""
        return bool(self.history.steps)

    def named(self, name: str) -> tuple[str, Agent | None]:
        return _named(self.project, self.history.steps, name)

    def is_sent_to(self, name: str) -> bool:
        """Return whether the call was sent there, to an agent or elsewhere."""
        return any(name.removeprefix("+") in (step.login, step.destination) for step in self.steps.values())

    def is_with_agent(self) -> bool:
        """Return whether an agent is known to talk on the call."""
        return any(
            step.outcome == Outcome.ANSWERED and step.ended_at is None and step.answered_agent_id is not None
            for step in self.steps.values()
        )

    def agents_of(self, logins: Iterable[str]) -> set[int]:
        agents = (self.named(login)[1] for login in logins)
        return {agent.id for agent in agents if agent is not None}

    def step_of(self, login: str) -> Step | None:
        """Return the step that this login's answer belongs to: the open offer of it, else the step of the talk, else
        the newest offer of it, else the newest step. A concluded talk counts only in the newest step."""
        steps = list(self.steps.values())
        offered = [step for step in steps if login and step.login == login]
        open_offers = [step for step in offered if step.outcome == ""]
        answered = [
            step for step in steps if step.outcome == Outcome.ANSWERED and not (step.inferred and step is not steps[0])
        ]
        return next(iter([*open_offers, *answered, *offered, *steps]), None)

    def rings_until(self, step: Step) -> datetime:
        if step.rings_until is not None:
            return step.rings_until
        group = self.project.groups.get(step.group_id or 0)
        rings = [group.ring] if group is not None else [group.ring for group in self.project.groups.values()]
        return step.asked_at + max(rings, default=timedelta(0))

    def line(self, login: str) -> Line:
        return self.history.lines.get(login, Line())

    def lines_of(self, step: Step) -> list[Line]:
        """Return the lines of the agent who answered the step, the answering login first."""
        holder = self.project.holder(step.answered_agent_id, step.answered_login)
        logins = dict.fromkeys([step.answered_login, *(holder.sip_logins if holder is not None else ())])
        return [self.line(login) for login in logins]

    def talks_here(self, login: str) -> bool:
        line = self.line(login)
        return bool(line.talks) and line.call_id == self.history.call_id

    def talks_elsewhere(self, login: str) -> bool:
        line = self.line(login)
        return bool(line.talks) and line.call_id != self.history.call_id

    def is_on_newer_call(self, agent_id: int) -> bool:
        other = self.history.others.get(agent_id)
        # The start of a call that is not ours is not known: its first event may be late too.
        return other is not None and (not self.is_ours or other > self.history.steps[-1].asked_at)

    def was_left_before(self, login: str) -> bool:
        """Return whether the login was seen to hang up, or its agent offered a newer call, before this event came."""
        if any(step.answered_login == login and step.ended_at is not None for step in self.history.steps):
            return True
        agent = self.named(login)[1]
        return agent is not None and self.is_on_newer_call(agent.id)

    # -- changes of steps

    def change(self, step: Step, **values: Any) -> None:
        self.steps[step.id] = replace(self.steps[step.id], **values)

    def close_others(self, step: Step) -> None:
        """End the call's other steps. Those without an outcome were not answered."""
        for other in list(self.steps.values()):
            if other.id != step.id and other.ended_at is None:
                self.change(other, ended_at=self.at, outcome=other.outcome or Outcome.NO_ANSWER)

    def undo(self, step: Step) -> None:
        """Undo everything that was concluded for the step."""
        if step.is_concluded_answer:
            if step.answered_login in self.talked:
                self.talked.remove(step.answered_login)
            holder = self.project.holder(step.answered_agent_id, step.answered_login)
            if holder is not None and holder.id not in self.agents_of(self.talked):
                self.count_seconds(holder.id, 0)
                self.talks.pop(holder.id, None)
        for kind in ("end", "answer", "miss"):
            self.undo_effect(step, kind)
        self.change(step, outcome="", inferred=False, ended_at=None, waited_seconds=None, **_NOBODY)

    # -- changes of logins

    def free(self, logins: Iterable[str]) -> set[str]:
        """Note that these logins do not speak on this call any more; return those for which that comes too late:
        newer observations stand, and nothing is noted."""
        late = {login for login in logins if self.was_left_before(login)}
        self.said |= dict.fromkeys(set(logins) - late, False)
        self.unsaid |= late
        return late

    # -- changes of agents

    def move(self, agent_id: int, clocks: Clocks, concluded_from: Step | None = None, kind: str = "") -> None:
        """Set the agent's clocks. A conclusion is kept as an effect, so that it can be undone."""
        before = self.clocks.get(agent_id)
        if before is None or before == clocks:
            return
        self.clocks[agent_id] = clocks
        if concluded_from is not None and self.history.call_id:
            self.effects[f"{concluded_from.id}:{kind}"] = Effect.of(agent_id, before, clocks)

    def undo_effect(self, step: Step, kind: str) -> None:
        effect = self.effects.pop(f"{step.id}:{kind}", None)
        if effect is not None and effect.agent_id in self.clocks:
            self.clocks[effect.agent_id] = effect.undone(self.clocks[effect.agent_id])

    def plausible(self, day: date | None) -> date | None:
        """Return the day of a count, None when a clock that was days ahead wrote it."""
        return day if day is not None and day <= self.today + timedelta(days=1) else None

    def count_answer(self, agent_id: int, at: datetime, concluded_from: Step | None = None) -> None:
        """Count one more answered call on the local day, and end the row of missed ones. The talk begins.

        An answer of an earlier day is not counted, nor does it end a cool-down that began since.
        """
        self.talks.setdefault(agent_id, Talk(at))
        clocks = self.clocks.get(agent_id, Clocks())
        day = self.local_day(at)
        known = self.plausible(clocks.day)
        if known is None or day > known:
            clocks = clocks._replace(day=day, answered_today=1, talked_today=0)
        elif day == known:
            clocks = clocks._replace(answered_today=clocks.answered_today + 1)
        if clocks.cooling_until is None or clocks.cooling_until - self.project.cool_down <= at:
            clocks = clocks._replace(no_answers=0, declines=0, cooling_until=None)
        self.move(agent_id, clocks if concluded_from else self._without_break(clocks), concluded_from, "answer")

    def count_talk(self, agent_id: int, until: datetime) -> None:
        """Count the seconds of the agent's talk, which ended then, if its answer was counted."""
        if (talk := self.talks.get(agent_id)) is not None:
            self.count_seconds(agent_id, _seconds(until - talk.since_at))

    def count_seconds(self, agent_id: int, seconds: float) -> None:
        """Count so many seconds for the agent's talk, instead of those counted before, on the day when it began."""
        talk, clocks = self.talks.get(agent_id), self.clocks.get(agent_id)
        if talk is None or clocks is None:
            return
        self.talks[agent_id] = talk._replace(seconds=round(seconds))
        if clocks.day == self.local_day(talk.since_at):
            talked = clocks.talked_today - talk.seconds + round(seconds)
            self.clocks[agent_id] = clocks._replace(talked_today=max(0, talked))

    def local_day(self, at: datetime) -> date:
        return at.astimezone(self.zone).date()

    def end_break(self, agent: Agent | None) -> None:
        """End an automatic break: the agent is at the phone."""
        if agent is not None and agent.id in self.clocks:
            self.move(agent.id, self._without_break(self.clocks[agent.id]))

    def _without_break(self, clocks: Clocks) -> Clocks:
        since, is_automatic = clocks.status_since_at, clocks.status_reason == NO_ANSWERS
        if clocks.status != Status.ON_BREAK or not is_automatic or (since is not None and since > self.at):
            return clocks
        return clocks._replace(**after_break(self.at))

    def end_talk(
        self,
        agent_id: int,
        at: datetime,
        *,
        wraps_up: bool = True,
        handed_on_from: Step | None = None,
        concluded_from: Step | None = None,
    ) -> None:
        """Note that a talk of this agent ended: idle from then on, after the wrap-up. The latest end counts."""
        clocks, agent = self.clocks.get(agent_id), self.project.agents.get(agent_id)
        if clocks is None or agent is None or (clocks.last_talk_end_at is not None and clocks.last_talk_end_at > at):
            return
        step = concluded_from or handed_on_from
        moved = clocks._replace(last_talk_end_at=at, talk_id=step.id if step is not None else None)
        if wraps_up and agent.wrap_up:
            moved = moved._replace(wrap_up_until=at + agent.wrap_up)
        self.move(agent_id, moved, concluded_from, "end")

    def miss(self, step: Step, outcome: Outcome, *, declined: bool = False) -> None:
        """Note that the step's agent did not take the call, and cools down. Missed and declined calls are counted
        apart, in a row within a day, and lead to a break; busy or unreachable agents are not to blame."""
        agent_id = step.agent_id
        if agent_id is None or (clocks := self.clocks.get(agent_id)) is None:
            return
        until = self.at + self.project.cool_down
        moved = clocks._replace(cooling_until=max(until, clocks.cooling_until or until))
        count = "declines" if declined else "no_answers" if outcome is Outcome.NO_ANSWER else ""
        day = self.local_day(self.at)
        known = self.plausible(moved.missed_day)
        if count and (known is None or day >= known):
            if day != known:
                moved = moved._replace(missed_day=day, no_answers=0, declines=0)
            in_a_row = getattr(moved, count) + 1
            moved = moved._replace(**{count: in_a_row})
            limit = self.project.break_after_no_answers
            if 0 < limit <= in_a_row and moved.status == Status.AVAILABLE:
                moved = moved._replace(status=Status.ON_BREAK, status_since_at=self.at, status_reason=NO_ANSWERS)
        self.move(agent_id, moved, step, "miss")


_NOBODY: Mapping[str, Any] = {
    "answered_agent_id": None,
    "answered_login": "",
    "answered_at": None,
    "talked_seconds": None,
}


# ---- events


def _kind(event: CallEvent) -> EventKind:
    kind = event.kind
    if kind is EventKind.FORWARDING or (kind is EventKind.BEFORE_CALL and event.direction != "out"):
        # A ringing call may show NO ANSWER, which means nothing yet.
        refused = event.disposition.is_refusal and event.disposition is not Disposition.NO_ANSWER
        return EventKind.UNAVAILABLE if refused else EventKind.FORWARDING
    return kind


def _before_own_call(life: _Life, event: CallEvent) -> Changes:
    """Note that an agent dials somebody: the phone is in use from now on."""
    login, agent = life.named(event.sip_login or event.caller)
    if agent is None:
        return _unmatched(life, login)
    if life.ended_at is not None or login in life.talked:
        return life.changes(Result.REPEATED)
    life.talked.append(login)
    life.said[login] = True
    life.end_break(agent)
    return life.changes()


def _pick_up(life: _Life, event: CallEvent) -> Changes:
    """Note that somebody answered: from now on they have the talk, and the previous talker is free."""
    step = life.step_of("")
    fallback = (step.login or step.destination) if step is not None else ""
    login, agent = life.named(event.sip_login or fallback)
    if event.answered is False:
        return _reach_voicemail(life, step)
    if not login or (agent is None and not life.is_ours):
        return _unmatched(life, login)
    notes = () if agent else (_stranger(login),)
    if agent is None and not life.is_sent_to(login):
        # Perhaps the agent's phone under an unreadable name: it frees nobody.
        if life.is_with_agent():
            return life.changes(Result.NOTED, *notes)
        if step is not None and step.agent_id is not None and step.is_open and not is_outside_number(login):
            login, agent = life.named(step.login)
    if login in life.talked:
        return _confirm(life, login)
    talkers = life.agents_of(life.talked)
    if life.ended_at is None:
        _take_over(life, login, agent)
    life.talked.append(login)
    life.releases_call = True
    _record_answer(life, login, agent)
    if agent is not None and life.is_ours and agent.id not in talkers:
        life.count_answer(agent.id, life.at)
    else:
        life.end_break(agent)
    return life.changes(Result.APPLIED, *notes)


def _take_over(life: _Life, login: str, agent: Agent | None) -> None:
    left = {other for other in life.talked if life.talks_here(other)}
    late = life.free(left - {login})
    if agent is not None and not (life.talks_elsewhere(login) and _is_older(life, login)):
        life.said[login] = True
    step = life.step_of(login)
    for agent_id in life.agents_of(left) - life.agents_of([login, *late]):
        life.count_talk(agent_id, life.at)
        life.end_talk(agent_id, life.at, handed_on_from=step)


def _is_older(life: _Life, login: str) -> bool:
    """Return whether this call came before the one that the login talks on: then this pickup is late."""
    came_at = life.line(login).call_came_at
    return life.is_ours and came_at is not None and life.history.steps[-1].asked_at < came_at


def _record_answer(life: _Life, login: str, agent: Agent | None) -> None:
    step = life.step_of(login)
    if step is None or (step.outcome == Outcome.VOICEMAIL and life.ended_at is not None):
        return
    if agent is not None and agent.id == step.agent_id:
        life.undo_effect(step, "miss")
    answered_at = step.answered_at or life.at
    values: dict[str, Any] = {"outcome": Outcome.ANSWERED, "inferred": False, "answered_at": answered_at}
    if life.ended_at is None:
        values["ended_at"] = None  # if a conclusion said otherwise, it was wrong
        values["waited_seconds"] = _seconds(answered_at - life.history.steps[-1].asked_at)
    if life.ended_at is None or not step.answered_login:
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_login"] = login
    life.change(step, **values)
    _undo_concluded_answers(life, but=step)
    for other in list(life.steps.values()):
        if other.id != step.id and other.outcome == "":
            life.change(other, outcome=Outcome.NO_ANSWER, ended_at=life.at)


def _confirm(life: _Life, login: str) -> Changes:
    """Turn an answer that presence showed into a fact; an answer known from events is repeated."""
    for step in life.steps.values():
        if step.inferred and step.answered_login == login:
            life.change(step, inferred=False)
            life.effects.pop(f"{step.id}:answer", None)
            life.end_break(life.named(login)[1])
            return life.changes()
    return life.changes(Result.REPEATED)


def _reach_voicemail(life: _Life, step: Step | None) -> Changes:
    """Note that the call rings no agent any more. A voice mail box is nobody, as the end of the call will confirm."""
    if step is None:
        return life.changes(Result.NOTED)
    concluded = {one.answered_login for one in life.steps.values() if one.is_concluded_answer}
    if life.ended_at is not None or set(life.talked) - concluded or step.outcome == Outcome.VOICEMAIL:
        return life.changes(Result.REPEATED)
    _undo_concluded_answers(life)
    life.releases_call = True
    life.change(step, outcome=Outcome.VOICEMAIL, inferred=False, ended_at=life.at)
    return life.changes()


def _undo_concluded_answers(life: _Life, *, but: Step | None = None) -> None:
    for step in list(life.steps.values()):
        if step.is_concluded_answer and (but is None or step.id != but.id):
            life.undo(step)
            life.change(step, outcome=Outcome.NO_ANSWER, ended_at=life.at)


def _refuse(life: _Life, event: CallEvent) -> Changes:
    """Note that the agent did not take the call, which goes on: the same question gets the next agent."""
    login, agent = life.named(event.sip_login)
    offers = [
        step
        for step in life.steps.values()
        if step.agent_id is not None
        and (not login or step.login == login or (agent is not None and step.agent_id == agent.id))
    ]
    if not offers:
        return life.changes(Result.NOTED) if life.is_ours else _unmatched(life, login)
    offer, disposition = offers[0], event.disposition
    # Comes after the next step, from which NO_ANSWER was concluded.
    corrects = offer.outcome == Outcome.NO_ANSWER and not offer.disposition and disposition.is_refusal
    is_news = offer.is_open or offer.is_concluded_answer or corrects
    if life.ended_at is not None or not is_news:
        return life.changes(Result.REPEATED)
    outcome = OUTCOMES[disposition] if disposition.is_refusal else Outcome.NO_ANSWER
    is_early = not disposition and _hung_up_early(life, offer)
    ended_at = offer.ended_at if corrects and offer.ended_at else life.at
    life.undo(offer)
    life.change(offer, outcome=outcome, disposition=disposition, ended_at=ended_at)
    # Without a disposition and before the ring time is over, the agent counts as unreachable.
    life.miss(offer, Outcome.FAILED if is_early else outcome, declined=disposition is Disposition.DECLINE)
    life.released.append(offer)
    return life.changes()


def _end(life: _Life, event: CallEvent) -> Changes:
    """Note the end and the outcome of the call: everybody on it is free."""
    if life.ended_at is not None:
        return life.changes(Result.REPEATED)
    outcome = _outcome(life, event)
    login, agent = life.named(_last_talker(life, event, outcome))
    if not life.is_ours and life.history.heard.at is None and agent is None:
        return _unmatched(life, login)
    step = life.step_of(login)
    talked = outcome is Outcome.ANSWERED
    _undo_concluded_answers(life, but=step if talked else None)
    talkers = life.agents_of(life.talked)
    ends = _free(life, event, login if talked else "", step)
    if talked and agent is not None:
        if step is not None and step.agent_id == agent.id:
            life.undo_effect(step, "miss")
        if life.is_ours and agent.id not in talkers:
            life.count_answer(agent.id, life.at)
        else:
            life.end_break(agent)
    if talked and login and login not in life.talked:
        life.talked.append(login)
    life.ended_at = life.at
    life.releases_call = True
    if step is not None:
        # A miss is counted once, and never when the caller hung up early.
        if step.agent_id is not None and step.is_open:
            if outcome is Outcome.NO_ANSWER and _hung_up_early(life, step):
                outcome = Outcome.ABANDONED
            elif outcome in {Outcome.NO_ANSWER, Outcome.BUSY, Outcome.FAILED}:
                life.miss(step, outcome, declined=event.disposition is Disposition.DECLINE)
        _record_end(life, event, step, outcome, login, agent, ends)
    is_stranger = event.sip_login and talked and agent is None
    return life.changes(Result.APPLIED, *((_stranger(login),) if is_stranger else ()))


def _outcome(life: _Life, event: CallEvent) -> Outcome:
    """Return the same outcome whichever of pickup and end comes first: a pickup is a fact, a voice mail box nobody."""
    reported = OUTCOMES[event.disposition]
    if reported is Outcome.VOICEMAIL:
        return reported
    picked_up = set(life.talked) - {step.answered_login for step in life.steps.values() if step.inferred}
    if picked_up or event.answered or (event.billsec or 0) > 0 or (life.talked and reported is Outcome.UNKNOWN):
        return Outcome.ANSWERED
    return reported


def _last_talker(life: _Life, event: CallEvent, outcome: Outcome) -> str:
    """Return the name of who talked last: from the event, else the pickups, else the offer."""
    named = event.sip_login
    if outcome is not Outcome.ANSWERED or not (life.is_ours or life.talked):
        return named
    if named and (is_outside_number(named) or life.named(named)[1] is not None or life.is_sent_to(named)):
        return named
    if life.talked:
        return life.talked[-1]
    step = life.step_of("")
    return (step.login or step.destination) if step is not None else ""


def _free(life: _Life, event: CallEvent, login: str, step: Step | None) -> dict[int, datetime]:
    """End the talks of this call; return the end by agent. `login`: who talked last, if only by the event."""
    names = dict.fromkeys([*life.talked, *filter(None, [login])])
    freed = {name for name in names if life.talks_here(name)}
    finished = life.agents_of(freed)
    agent = life.named(login)[1] if login else None
    if agent is not None and not life.talks_elsewhere(login):
        freed.add(login)
        # The talk of a login that had picked up may have ended before: transferred, or by presence.
        goes_on = step is not None and step.answered_login == login and step.ended_at is None
        if login not in life.talked or goes_on:
            finished.add(agent.id)
    late = life.free(freed)
    ends = dict.fromkeys(finished - life.agents_of(late), life.at)
    for name in names:
        talker = life.named(name)[1]
        if talker is not None and talker.id not in ends and (end := _true_end(life, event, name, talker, login, step)):
            ends[talker.id] = end
    for agent_id, end in sorted(ends.items()):
        life.count_talk(agent_id, end)
        life.end_talk(agent_id, end, wraps_up=event.direction != "out")  # no wrap-up after an agent's own call
    return ends


def _true_end(life: _Life, event: CallEvent, name: str, agent: Agent, named: str, step: Step | None) -> datetime | None:
    """Return the true end of a talk that was concluded to be over too early, after a gap in presence, hold, a
    conference or a call handed back; None when the conclusion was right."""
    clocks = life.clocks.get(agent.id, Clocks())
    left_at = clocks.last_talk_end_at
    if left_at is None or clocks.talk_id not in life.steps or life.is_on_newer_call(agent.id):
        return None
    if life.talks_elsewhere(name):
        return None
    own = step if name == named else None
    if own is not None and event.billsec is not None and own.answered_at is not None:
        reported = own.answered_at + timedelta(seconds=event.billsec)
        return min(life.at, reported) if reported > left_at + INEXACT else None
    line, seen_at = life.line(name), life.history.seen_at
    if line.since_at is not None and line.since_at > left_at:
        return life.at if line.speaking else line.since_at
    if line.speaking and seen_at is not None and seen_at > left_at + INEXACT:
        return life.at
    # Handed back, or never seen: only from that the end was concluded.
    is_vague = own is not None and (name != life.talked[-1] or own.talked_seconds is None)
    return life.at if is_vague else None


def _hung_up_early(life: _Life, step: Step) -> bool:
    """Return whether the caller hung up before the agent's phone had rung out. The platform says NO ANSWER too."""
    if step.rings_until is None:
        return False
    return life.at - step.asked_at < RANG_OUT * (step.rings_until - step.asked_at)


def _record_end(
    life: _Life,
    event: CallEvent,
    step: Step,
    outcome: Outcome,
    login: str,
    agent: Agent | None,
    ends: Mapping[int, datetime],
) -> None:
    values: dict[str, Any] = {
        "outcome": outcome,
        "inferred": outcome is Outcome.ABANDONED and OUTCOMES[event.disposition] is not outcome,
        "disposition": event.disposition,
        "ended_at": life.at,
        **_NOBODY,
    }
    reached_at = life.at
    if outcome is Outcome.ANSWERED:
        talked = timedelta(seconds=event.billsec or 0)
        reached_at = step.answered_at or max(life.at - talked, step.asked_at)
        values["answered_at"] = reached_at
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_login"] = login
        if step.outcome == Outcome.ANSWERED and step.ended_at is not None:  # presence showed the end before
            values["ended_at"] = max(step.ended_at, ends.get(agent.id, step.ended_at) if agent else step.ended_at)
        values["talked_seconds"] = _seconds(values["ended_at"] - reached_at) if event.billsec is None else event.billsec
        if agent is not None and all(life.named(name)[1] is agent for name in life.talked):  # nobody else had it
            life.count_seconds(agent.id, values["talked_seconds"])
    waited = event.waittime
    if waited is None and event.duration is not None:
        waited = max(0, event.duration - (event.billsec or 0))
    values["waited_seconds"] = _seconds(reached_at - life.history.steps[-1].asked_at) if waited is None else waited
    life.change(step, **values)
    life.close_others(step)


_ACTS: Mapping[EventKind, Callable[[_Life, CallEvent], Changes]] = {
    EventKind.BEFORE_CALL: _before_own_call,
    EventKind.PICKUP: _pick_up,
    EventKind.AFTER_CALL: _end,
    EventKind.UNAVAILABLE: _refuse,
}


def _unmatched(life: _Life, login: str) -> Changes:
    note = _stranger(login) if login else "The event names nobody."
    return life.changes(Result.UNMATCHED, note, "The call is not ours.")


def _stranger(login: str) -> str:
    return f"{login!r} is no agent's SIP login."


# ---- presence and time


def _conclude(life: _Life, step: Step) -> None:
    """Change this unfinished step as far as presence and time allow."""
    heard_at = life.history.heard.at
    if step.is_concluded_answer and step.answered_at and _is_another_talk(life, step, step.answered_at):
        life.undo(step)
        step = life.steps[step.id]
    if step.outcome == Outcome.ANSWERED:
        _conclude_talk(life, step)
    elif step.outcome:
        life.change(step, ended_at=life.at)
    elif heard_at is not None and heard_at >= step.asked_at and (life.talked or life.ended_at):
        _conclude_heard(life, step, heard_at)
    elif step.agent_id is not None:
        _conclude_offer(life, step, step.agent_id)
    elif life.at >= step.asked_at + OVERFLOW_WAIT:
        life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.at)


def _is_another_talk(life: _Life, step: Step, began_at: datetime) -> bool:
    """Return whether events say that the talk which presence shows since then is on another call."""
    event_at = life.line(step.login).event_at
    if event_at is None or not life.talks_elsewhere(step.login):
        return False
    return step.asked_at <= event_at <= began_at + INEXACT


def _conclude_heard(life: _Life, step: Step, heard_at: datetime) -> None:
    """Apply events that came before the step was stored, as it was answered while the database was away."""
    life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.ended_at)
    life.released.append(step)
    if life.talked:
        login, agent = life.talked[-1], life.named(life.talked[-1])[1]
        answered_by = agent.id if agent else None
        life.change(step, outcome=Outcome.ANSWERED, answered_login=login, answered_agent_id=answered_by)
        life.change(step, answered_at=heard_at)


def _conclude_offer(life: _Life, step: Step, agent_id: int) -> None:
    """Conclude an answer when the login began to speak while reserved; after that time, none."""
    line, until, seen_at = life.line(step.login), life.rings_until(step), life.history.seen_at
    since = line.since_at
    if line.speaking and since and step.asked_at < since <= until and not _is_another_talk(life, step, since):
        waited = (since - step.asked_at).total_seconds()
        life.change(step, outcome=Outcome.ANSWERED, inferred=True, answered_at=since, waited_seconds=waited)
        life.change(step, answered_login=step.login, answered_agent_id=agent_id)
        holder = life.project.holder(agent_id, step.login)
        if holder is not None and holder.id not in life.agents_of(life.talked):
            life.count_answer(holder.id, since, step)
        if step.login not in life.talked:
            life.talked.append(step.login)
    elif life.at < until + GRACE:
        return
    elif seen_at is not None and seen_at >= until:
        # No cool-down: without an event or a next step, the caller may have hung up while it rang.
        life.change(step, outcome=Outcome.NO_ANSWER, inferred=True, ended_at=until)
    elif life.at < until + UNSEEN:
        return
    else:
        life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.at)
    life.released.append(step)


def _conclude_talk(life: _Life, step: Step) -> None:
    """Conclude the end of a talk when the login stopped speaking, or was not seen to speak for long enough."""
    line, *others = life.lines_of(step)
    began_at = step.answered_at or step.asked_at
    seen_at = life.history.seen_at or began_at
    if life.ended_at is not None:
        life.change(step, ended_at=life.ended_at)
        life.hushed.add(step.answered_login)
        return
    silences = [one.since_at for one in (line, *others) if one.since_at and began_at < one.since_at <= seen_at]
    # A talk taken over at another phone of the same agent goes on.
    talks_on = any(one.speaking for one in others if one.since_at and one.since_at > began_at)
    is_silent = not talks_on and not line.speaking
    if is_silent and line.since_at in silences:
        ended_at = max(silences)
        life.change(step, ended_at=ended_at, talked_seconds=(ended_at - began_at).total_seconds())
    elif is_silent and seen_at > began_at + SLOW_SOURCE and line.online:
        # It was shorter than a poll interval. An offline login may be one that the source does not know.
        life.change(step, ended_at=life.at)
    elif life.at >= began_at + LONGEST_TALK:
        life.change(step, ended_at=life.at)
        life.hushed.add(step.answered_login)
        return
    else:
        return
    life.hushed.add(step.answered_login)
    over_at = life.steps[step.id].ended_at
    holder = life.project.holder(step.answered_agent_id, step.answered_login)
    if step.answered_agent_id is not None and holder is not None and over_at is not None:
        if life.steps[step.id].talked_seconds is not None:
            life.count_talk(holder.id, over_at)
        life.end_talk(holder.id, over_at, concluded_from=step)


def _resume(life: _Life, step: Step) -> None:
    """Continue a talk that presence showed to end when the login soon speaks again, and no other call explains it."""
    holder, ended_at = life.project.holder(step.answered_agent_id, step.answered_login), step.ended_at
    if holder is None or ended_at is None or life.ended_at is not None:
        return
    agent_id = holder.id
    clocks = life.clocks.get(agent_id)
    if clocks is None or clocks.talk_id != step.id:
        return
    asked = [one.asked_at for one in life.history.steps if agent_id in (one.agent_id, one.answered_agent_id)]
    newest = max([*asked, life.history.others.get(agent_id, step.asked_at)])
    if newest > step.asked_at or life.talks_elsewhere(step.answered_login):
        return
    longest = SHORT_SILENCE if step.inferred else LONG_SILENCE
    spoken_since = [line.since_at for line in life.lines_of(step) if line.speaking and line.since_at]
    if any(ended_at < since <= ended_at + longest for since in spoken_since):
        life.undo_effect(step, "end")
        life.count_seconds(agent_id, 0)
        if life.clocks[agent_id].talk_id == step.id:  # a call without id has no stored effects
            life.clocks[agent_id] = life.clocks[agent_id]._replace(wrap_up_until=None, talk_id=None)
        life.change(step, ended_at=None, talked_seconds=None)


def _seconds(span: timedelta) -> float:
    return max(0.0, span.total_seconds())


def _named(project: Project, steps: Sequence[Step], name: str) -> tuple[str, Agent | None]:
    """Return the login with this name, as its agent's configuration writes it, and the agent; a number has none.

    For a phone of this call's offers and answers, the agent is who had it then, if they still exist.
    """
    login, owner = project.login_named(name, [step.login for step in steps])
    phone = phone_of(login)
    for step in steps:
        for of_login, agent_id in ((step.answered_login, step.answered_agent_id), (step.login, step.agent_id)):
            if login and phone_of(of_login) == phone and (agent := project.agents.get(agent_id or 0)) is not None:
                return (login if owner is not None else next(iter(agent.sip_logins), login)), agent
    return login, owner


def looked_at(project: Project, history: History, names: Iterable[str] = ()) -> tuple[list[int], list[str]]:
    """Return the agents and logins that a change of this history needs, in order. `names`: of the event."""
    steps = history.steps
    of_steps = [name for step in steps for name in (step.login, step.answered_login, step.destination)]
    meant = [_named(project, steps, name) for name in (*names, *history.heard.talked, *of_steps) if name]
    logins = {login for login, _ in meant} | set(of_steps)
    agents = {effect.agent_id for effect in history.heard.effects.values()} | history.heard.talks.keys()
    agents |= {agent.id for _, agent in meant if agent is not None}
    agents |= {agent for step in steps for agent in (step.agent_id, step.answered_agent_id) if agent is not None}
    talkers = [project.holder(step.answered_agent_id, step.answered_login) for step in steps if step.answered_login]
    logins |= {login for agent in talkers if agent is not None for login in agent.sip_logins}
    return sorted(agents), sorted(logins - {""})
