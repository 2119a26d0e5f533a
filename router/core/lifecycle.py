"""What becomes of a call: its history, and what is told, seen or asked now → what changes. Pure.

What events tell are facts; what follows from presence, from time and from the next step of the call are conclusions.
A fact overrules a conclusion whenever it comes, and undoes all that the conclusion did: to the decision and, by its
`Effect`, to the clocks of the agent. Events are lossy, late, repeated and out of order; the platform's own time of an
event is not looked at: Ringostat's `calldate` is when the call came in, the same in all its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Agent, Outcome, Project, Status
from router.core.phones import phone_of

GRACE = timedelta(seconds=10)  # after a reservation's end: a late event or the call's next step says it better
UNSEEN = timedelta(seconds=60)  # after a reservation's end without a reading: nothing will be known any more
OVERFLOW_PATIENCE = timedelta(minutes=2)  # for an event about a call that went where presence sees nothing
SLOW_SOURCE = timedelta(seconds=15)  # until a talk that was reported must show in the source, else it was short
LONGEST_TALK = timedelta(hours=4)  # a talk whose end was never heard of blocks an agent no longer than that
SHORT_SILENCE = timedelta(seconds=30)  # who speaks again so soon talks on, as far as presence alone tells
LONG_SILENCE = timedelta(minutes=10)  # the same of a talk that was told: on hold, say
INEXACT = timedelta(seconds=5)  # by so much presence, polled and rounded, differs from what is told
RANG_OUT = 0.9  # of the reservation's time: who rang that long did not answer; before that, the caller hung up

NO_ANSWERS = "no_answers"  # why the status is on_break: nobody declared it

OUTCOMES: Mapping[Disposition, Outcome] = {
    Disposition.ANSWERED: Outcome.ANSWERED,
    Disposition.PROPER: Outcome.ANSWERED,
    Disposition.REPEATED: Outcome.ANSWERED,
    Disposition.VOICEMAIL: Outcome.VOICEMAIL,
    Disposition.NO_ANSWER: Outcome.NO_ANSWER,
    Disposition.CLIENT_NO_ANSWER: Outcome.ABANDONED,
    Disposition.BUSY: Outcome.BUSY,
    Disposition.DECLINE: Outcome.BUSY,
    Disposition.FAILED: Outcome.FAILED,
    Disposition.FAILED_FORBIDDEN_DESTINATION: Outcome.FAILED,
    Disposition.NO_FORWARD: Outcome.FAILED,
    Disposition.NO_EXTENSION: Outcome.FAILED,
    Disposition.WRONG_EXTENSION: Outcome.FAILED,
    # A call that is over is neither of these: what became of it was not said.
    Disposition.IN_PROGRESS: Outcome.UNKNOWN,
    Disposition.CALLING: Outcome.UNKNOWN,
    Disposition.UNKNOWN: Outcome.UNKNOWN,
}


class Result(StrEnum):
    """What an event did."""

    APPLIED = "applied"
    REPEATED = "repeated"  # known already: nothing changed
    NOTED = "noted"  # understood, and nothing follows from it
    UNMATCHED = "unmatched"  # neither the call nor the login is ours
    UNCLEAR = "unclear"  # it does not say what happened, or to which call


# ---- the history of a call


@dataclass(frozen=True, slots=True)
class Step:
    """One question of the call with our answer, and what became of it."""

    id: int
    agent_id: int | None
    group_id: int | None
    login: str
    destination: str
    asked_at: datetime
    rings_until: datetime | None = None  # as its reservation says, while there is one
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
        """Was nothing told of it yet?"""
        return self.outcome == "" or (self.inferred and self.outcome != Outcome.ANSWERED)

    @property
    def is_concluded_answer(self) -> bool:
        return self.inferred and self.outcome == Outcome.ANSWERED


class Clocks(NamedTuple):
    """What calls move of an agent. The counts are of the local day beside them."""

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
    last_talk_end_at: datetime | None = None
    talk_id: int | None = None  # the step whose talk was concluded to be over then; None: that was told

    def without_break(self, at: datetime) -> Clocks:
        """The same, but for an automatic break: that ends as it does by hand."""
        if self.status != Status.ON_BREAK or self.status_reason != NO_ANSWERS:
            return self
        return self._replace(**after_break(at))


def after_break(at: datetime) -> dict[str, Any]:
    """What of an agent's clocks a return from a break sets: it begins with a clean slate."""
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
    """What is known of a SIP login: by events (`talks` on the call `call_id`), and by presence since `since_at`."""

    talks: bool | None = None
    said_at: datetime | None = None
    call_id: str = ""
    call_came_at: datetime | None = None  # when that call was first asked about; None: it is not ours
    online: bool = False
    speaking: bool = False
    since_at: datetime | None = None


class Effect(NamedTuple):
    """What was done to an agent's clocks: field → (before, after), of those that changed."""

    agent_id: int
    changed: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(cls, agent_id: int, before: Clocks, after: Clocks) -> Effect:
        pairs = zip(Clocks._fields, before, after, strict=True)
        return cls(agent_id, {name: (old, new) for name, old, new in pairs if old != new})

    def undone(self, clocks: Clocks) -> Clocks:
        """The clocks without it: what was moved since stays, and counts go back by as much, on the same day."""
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


_DAY_OF = {"answered_today": "day", "no_answers": "missed_day", "declines": "missed_day"}


class Heard(NamedTuple):
    """What the call has gone through, by what was told and concluded. `effects`: "step id:kind" → what that did."""

    at: datetime | None = None  # the first time; None: nothing was heard
    talked: tuple[str, ...] = ()  # logins and numbers that picked up, in that order
    ended_at: datetime | None = None
    effects: Mapping[str, Effect] = {}


UNHEARD = Heard()


@dataclass(frozen=True, slots=True)
class History:
    """A call as it is known. `steps`: newest first, all of them or those that are looked at. `others`: by agent, when
    the newest unfinished offer or talk of another call was asked about. `seen_at`: when the newest reading began."""

    call_id: str
    steps: tuple[Step, ...] = ()
    heard: Heard = UNHEARD
    clocks: Mapping[int, Clocks] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    others: Mapping[int, datetime] = field(default_factory=dict)
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written: steps and clocks as they are from now on, and what is to be said of logins."""

    steps: tuple[Step, ...] = ()
    clocks: Mapping[int, Clocks] = field(default_factory=dict)
    heard: Heard | None = None
    said: Mapping[str, bool] = field(default_factory=dict)  # who talks on this call from now on, and who does not
    unsaid: frozenset[str] = frozenset()  # what was said of them for this call counts no more
    hushed: frozenset[str] = frozenset()  # they were seen not to talk on this call any more
    released: tuple[Step, ...] = ()  # whose reservations end
    releases_call: bool = False  # all its reservations end
    result: Result = Result.APPLIED
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        told = self.said or self.unsaid or self.hushed
        return bool(self.steps or self.clocks or self.heard or told or self.released or self.releases_call)


def hear(project: Project, history: History, event: CallEvent, at: datetime, now: datetime | None = None) -> Changes:
    """What follows from an event that came `at` this instant. `now`: of the database's clock, if that is later."""
    life = _Life(project, history, at, now or at)
    act = _ACTS.get(_kind(event))
    return life.changes(Result.NOTED) if act is None else act(life, event)


def observe(project: Project, history: History, now: datetime) -> Changes:
    """What presence and time tell of the steps that are not over, and of talks that were taken to be over."""
    life = _Life(project, history, now, now)
    for step in history.steps:
        if step.ended_at is None:
            _conclude(life, step)
        elif step.outcome == Outcome.ANSWERED:
            _resume(life, step)
    return life.changes()


def ask_again(project: Project, history: History, now: datetime) -> Changes:
    """What the next step of the call, or its question asked anew, tells of the steps before.

    Within the time that the phone rings, nobody answered. Later it proves nothing: if anybody talked, they did. A talk
    that was told is over: the caller is back with us.
    """
    life = _Life(project, history, now, now)
    for step in history.steps:
        if step.outcome == Outcome.ANSWERED and not step.inferred and step.ended_at is None:
            talked = None if step.answered_at is None else _seconds(now - step.answered_at)
            life.change(step, ended_at=now, talked_seconds=talked)
            life.hushed.add(step.answered_login)
            if (holder := project.holder(step.answered_agent_id, step.answered_login)) is not None:
                life.end_talk(holder.id, now, step=step, is_told=False)
        if step.agent_id is None:
            continue
        in_time = now <= life.rings_until(step) + GRACE
        if step.is_concluded_answer and in_time:
            # A call that goes on was answered by nobody: the talk that presence showed was another one.
            life.undo(step)
            life.change(step, outcome=Outcome.NO_ANSWER, ended_at=now)
        elif step.outcome in ("", Outcome.NO_ANSWER, Outcome.UNKNOWN) and step.is_open and in_time:
            life.change(step, outcome=Outcome.NO_ANSWER, inferred=False, ended_at=now)
            life.miss(step, Outcome.NO_ANSWER)
        elif step.outcome == "":
            life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=now)
    return replace(life.changes(), releases_call=True)


# ---- what all three do


class _Life:
    """A call's history while it changes."""

    def __init__(self, project: Project, history: History, at: datetime, now: datetime) -> None:
        self.project, self.history, self.at = project, history, at
        self.zone = ZoneInfo(project.time_zone)
        self.today = now.astimezone(self.zone).date()
        self.steps = {step.id: step for step in history.steps}
        self.clocks = dict(history.clocks)
        self.talked = list(history.heard.talked)
        self.ended_at = history.heard.ended_at
        self.effects = dict(history.heard.effects)
        self.said: dict[str, bool] = {}
        self.unsaid: set[str] = set()
        self.hushed: set[str] = set()
        self.released: list[Step] = []
        self.releases_call = False

    def changes(self, result: Result = Result.APPLIED, *notes: str) -> Changes:
        before = self.history
        heard = Heard(before.heard.at or self.at, tuple(self.talked), self.ended_at, self.effects)
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

    # -- whom and what is meant

    @property
    def is_ours(self) -> bool:
        """We were asked where it should go."""
        return bool(self.history.steps)

    def named(self, name: str) -> tuple[str, Agent | None]:
        return _named(self.project, self.history.steps, name)

    def is_sent_to(self, name: str) -> bool:
        """Was the call sent there, agent or not?"""
        return any(name.removeprefix("+") in (step.login, step.destination) for step in self.steps.values())

    def is_with_agent(self) -> bool:
        """Does an agent talk on it, by what is known?"""
        return any(
            step.outcome == Outcome.ANSWERED and step.ended_at is None and step.answered_agent_id is not None
            for step in self.steps.values()
        )

    def agents_of(self, logins: Iterable[str]) -> set[int]:
        agents = (self.named(login)[1] for login in logins)
        return {agent.id for agent in agents if agent is not None}

    def step_of(self, login: str) -> Step | None:
        """The one that this login's answer belongs to: the open offer of it, else that of the talk, else the newest
        that offered it, else the newest. Where the call went on, a talk that was only concluded was another one."""
        steps = list(self.steps.values())
        offered = [step for step in steps if login and step.login == login]
        open_offers = [step for step in offered if step.outcome == ""]
        answered = [
            step
            for place, step in enumerate(steps)
            if step.outcome == Outcome.ANSWERED and not (place and step.inferred)
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
        """Of whoever answered it, first that of the login at which they did."""
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
        # When any other call began is not known: what is first heard of it may be late too.
        return other is not None and (not self.is_ours or other > self.history.steps[-1].asked_at)

    def was_left_before(self, login: str) -> bool:
        """Was the login seen to hang up, or its agent offered a newer call, before this came?"""
        if any(step.answered_login == login and step.ended_at is not None for step in self.history.steps):
            return True
        agent = self.named(login)[1]
        return agent is not None and self.is_on_newer_call(agent.id)

    # -- what is done to steps

    def change(self, step: Step, **values: Any) -> None:
        self.steps[step.id] = replace(self.steps[step.id], **values)

    def close_others(self, step: Step) -> None:
        """The call's other steps are over. Those without an outcome had no answer."""
        for other in list(self.steps.values()):
            if other.id != step.id and other.ended_at is None:
                self.change(other, ended_at=self.at, outcome=other.outcome or Outcome.NO_ANSWER)

    def undo(self, step: Step) -> None:
        """Undo what was concluded of the step, all of it."""
        if step.is_concluded_answer and step.answered_login in self.talked:
            self.talked.remove(step.answered_login)
        for kind in ("end", "answer", "miss"):
            self.undo_effect(step, kind)
        self.change(step, outcome="", inferred=False, ended_at=None, waited_seconds=None, **_NOBODY)

    # -- what is done to logins

    def free(self, logins: Iterable[str]) -> set[str]:
        """These logins do not speak on this call any more. Gives those for which that comes late: what it tells is
        older than what was seen since, so nothing is said of them."""
        late = {login for login in logins if self.was_left_before(login)}
        self.said |= dict.fromkeys(set(logins) - late, False)
        self.unsaid |= late
        return late

    # -- what is done to agents

    def move(self, agent_id: int, clocks: Clocks, step: Step | None = None, kind: str = "") -> None:
        """Set the agent's clocks. `step`: of what conclusion, so that it can be undone."""
        before = self.clocks.get(agent_id)
        if before is None or before == clocks:
            return
        self.clocks[agent_id] = clocks
        if step is not None and self.history.call_id:
            self.effects[f"{step.id}:{kind}"] = Effect.of(agent_id, before, clocks)

    def undo_effect(self, step: Step, kind: str) -> None:
        effect = self.effects.pop(f"{step.id}:{kind}", None)
        if effect is not None and effect.agent_id in self.clocks:
            self.clocks[effect.agent_id] = effect.undone(self.clocks[effect.agent_id])

    def credible(self, day: date | None) -> date | None:
        """The day that counts are of, unless it was written by a clock that was wrong by days."""
        return day if day is not None and day <= self.today + timedelta(days=1) else None

    def count_answer(self, agent_id: int, at: datetime, step: Step | None = None) -> None:
        """One more call answered on the local day, and no calls missed in a row any more. `step`: if it is concluded.

        What is told of an earlier day counts no more; nor does it end what began since.
        """
        clocks = self.clocks.get(agent_id, Clocks())
        day = at.astimezone(self.zone).date()
        known = self.credible(clocks.day)
        if known is None or day > known:
            clocks = clocks._replace(day=day, answered_today=1)
        elif day == known:
            clocks = clocks._replace(answered_today=clocks.answered_today + 1)
        if clocks.cooling_until is None or clocks.cooling_until - self.project.cool_down <= at:
            clocks = clocks._replace(no_answers=0, declines=0, cooling_until=None)
        self.move(agent_id, clocks if step else self._back(clocks), step, "answer")

    def note_back(self, agent: Agent | None) -> None:
        """The agent is at the phone: an automatic break is over."""
        if agent is not None and agent.id in self.clocks:
            self.move(agent.id, self._back(self.clocks[agent.id]))

    def _back(self, clocks: Clocks) -> Clocks:
        since = clocks.status_since_at
        return clocks if since is not None and since > self.at else clocks.without_break(self.at)

    def end_talk(
        self, agent_id: int, at: datetime, *, wraps_up: bool = True, step: Step | None = None, is_told: bool = True
    ) -> None:
        """A talk of this agent ended at this instant: idle from then on, after the wrap-up. The latest end counts.

        `step`: whose talk it was, if that is not told to be over but concluded.
        """
        clocks, agent = self.clocks.get(agent_id), self.project.agents.get(agent_id)
        if clocks is None or agent is None:
            return
        if clocks.last_talk_end_at is not None and clocks.last_talk_end_at > at:
            return
        moved = clocks._replace(last_talk_end_at=at, talk_id=step.id if step is not None else None)
        if wraps_up and agent.wrap_up:
            moved = moved._replace(wrap_up_until=at + agent.wrap_up)
        self.move(agent_id, moved, None if is_told else step, "end")

    def miss(self, step: Step, outcome: Outcome, *, declined: bool = False) -> None:
        """The agent of this step did not take it, and cools down. Missed calls and declined ones count apart, in a row
        within a day, and put the agent on break; who was busy or out of reach could not help it."""
        agent_id = step.agent_id
        if agent_id is None or (clocks := self.clocks.get(agent_id)) is None:
            return
        until = self.at + self.project.cool_down
        moved = clocks._replace(cooling_until=max(until, clocks.cooling_until or until))
        count = "declines" if declined else "no_answers" if outcome is Outcome.NO_ANSWER else ""
        day = self.at.astimezone(self.zone).date()
        known = self.credible(moved.missed_day)
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


# ---- what events tell


def _kind(event: CallEvent) -> EventKind:
    kind = event.kind
    if kind is EventKind.FORWARDING or (kind is EventKind.BEFORE_CALL and event.direction != "out"):
        # That it rings the reservation says already. A call that nobody has answered yet may show NO ANSWER: that says
        # nothing yet.
        refused = event.disposition.is_refusal and event.disposition is not Disposition.NO_ANSWER
        return EventKind.UNAVAILABLE if refused else EventKind.FORWARDING
    return kind


def _before_own_call(life: _Life, event: CallEvent) -> Changes:
    """An agent dials somebody: the phone is in use from now on."""
    login, agent = life.named(event.sip_login or event.caller)
    if agent is None:
        return _unmatched(life, login)
    if life.ended_at is not None or login in life.talked:
        return life.changes(Result.REPEATED)
    life.talked.append(login)
    life.said[login] = True
    life.note_back(agent)
    return life.changes()


def _pick_up(life: _Life, event: CallEvent) -> Changes:
    """Somebody answered: the talk is theirs from now on, and whoever had it before is free."""
    step = life.step_of("")
    fallback = (step.login or step.destination) if step is not None else ""
    login, agent = life.named(event.sip_login or fallback)
    if event.answered is False:
        return _reach_voicemail(life, step)
    if not login or (agent is None and not life.is_ours):
        return _unmatched(life, login)
    notes = () if agent else (_stranger(login),)
    if agent is None and not life.is_sent_to(login):
        # Perhaps a phone of the agent's under a name that nobody can read: it frees nobody.
        if life.is_with_agent():
            return life.changes(Result.NOTED, *notes)
        if step is not None and step.agent_id is not None and step.is_open and not _is_number(login):
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
        life.note_back(agent)
    return life.changes(Result.APPLIED, *notes)


def _is_number(name: str) -> bool:
    """A number of the world outside: what is shorter may be the extension of one of our phones."""
    return len(name) > 6 and name.removeprefix("+").isdecimal()


def _take_over(life: _Life, login: str, agent: Agent | None) -> None:
    left = {other for other in life.talked if life.talks_here(other)}
    late = life.free(left - {login})
    if agent is not None and not (life.talks_elsewhere(login) and _is_older(life, login)):
        life.said[login] = True
    step = life.step_of(login)
    for agent_id in life.agents_of(left) - life.agents_of([login, *late]):
        life.end_talk(agent_id, life.at, step=step)


def _is_older(life: _Life, login: str) -> bool:
    """Did this call come before the one that the login talks on? Then that pickup is newer, and this one was late."""
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
        # Whatever was concluded meanwhile, the talk goes on.
        values["ended_at"] = None
        values["waited_seconds"] = _seconds(answered_at - life.history.steps[-1].asked_at)
    if life.ended_at is None or not step.answered_login:
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_login"] = login
    life.change(step, **values)
    for other in list(life.steps.values()):
        if other.id != step.id and other.outcome == "":
            life.change(other, outcome=Outcome.NO_ANSWER, ended_at=life.at)


def _confirm(life: _Life, login: str) -> Changes:
    """Known already, if only because presence showed it: then it is no conclusion any more."""
    for step in life.steps.values():
        if step.inferred and step.answered_login == login:
            life.change(step, inferred=False)
            life.effects.pop(f"{step.id}:answer", None)
            life.note_back(life.named(login)[1])
            return life.changes()
    return life.changes(Result.REPEATED)


def _reach_voicemail(life: _Life, step: Step | None) -> Changes:
    """The call rings nobody any more. A voice mail box is nobody, and the end of the call will say so too."""
    if step is None:
        return life.changes(Result.NOTED)
    concluded = {one.answered_login for one in life.steps.values() if one.is_concluded_answer}
    if life.ended_at is not None or set(life.talked) - concluded or step.outcome == Outcome.VOICEMAIL:
        return life.changes(Result.REPEATED)
    _undo_concluded_answers(life)
    life.releases_call = True
    life.change(step, outcome=Outcome.VOICEMAIL, inferred=False, ended_at=life.at)
    return life.changes()


def _undo_concluded_answers(life: _Life) -> None:
    for step in list(life.steps.values()):
        if step.is_concluded_answer:
            life.undo(step)
            life.change(step, outcome=Outcome.NO_ANSWER, ended_at=life.at)


def _refuse(life: _Life, event: CallEvent) -> Changes:
    """The agent named did not take it, and the call goes on: the same question gets the next agent."""
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
    # Told after the next step was asked: that nobody answered was concluded by that.
    corrects = offer.outcome == Outcome.NO_ANSWER and not offer.disposition and disposition.is_refusal
    is_untold = offer.is_open or offer.is_concluded_answer or corrects
    if life.ended_at is not None or not is_untold:
        return life.changes(Result.REPEATED)
    outcome = OUTCOMES[disposition] if disposition.is_refusal else Outcome.NO_ANSWER
    is_early = not disposition and _hung_up_early(life, offer)
    ended_at = offer.ended_at if corrects and offer.ended_at else life.at
    life.undo(offer)
    life.change(offer, outcome=outcome, disposition=disposition, ended_at=ended_at)
    # Whoever was not said to have missed it, nor rang out, was out of reach for all that is known.
    held = Outcome.FAILED if is_early else outcome
    life.miss(offer, held, declined=disposition is Disposition.DECLINE)
    life.released.append(offer)
    return life.changes()


def _end(life: _Life, event: CallEvent) -> Changes:
    """The call is over: everybody on it is free, and this is what became of it."""
    if life.ended_at is not None:
        return life.changes(Result.REPEATED)
    outcome = _outcome(life, event)
    login, agent = life.named(_who_ended(life, event, outcome))
    if not life.is_ours and life.history.heard.at is None and agent is None:
        return _unmatched(life, login)
    step = life.step_of(login)
    talked = outcome is Outcome.ANSWERED
    if not talked:
        _undo_concluded_answers(life)
    talkers = life.agents_of(life.talked)
    ends = _free(life, event, login if talked else "", step)
    if talked and agent is not None:
        if step is not None and step.agent_id == agent.id:
            life.undo_effect(step, "miss")
        if life.is_ours and agent.id not in talkers:
            life.count_answer(agent.id, life.at)
        else:
            life.note_back(agent)
    if talked and login and login not in life.talked:
        life.talked.append(login)
    life.ended_at = life.at
    life.releases_call = True
    if step is not None:
        # Neither is held against an agent who was told so already, nor a caller's impatience against anyone.
        if step.agent_id is not None and step.is_open:
            if outcome is Outcome.NO_ANSWER and _hung_up_early(life, step):
                outcome = Outcome.ABANDONED
            elif outcome in {Outcome.NO_ANSWER, Outcome.BUSY, Outcome.FAILED}:
                life.miss(step, outcome, declined=event.disposition is Disposition.DECLINE)
        _record_end(life, event, step, outcome, login, agent, ends)
    is_stranger = event.sip_login and talked and agent is None
    return life.changes(Result.APPLIED, *((_stranger(login),) if is_stranger else ()))


def _outcome(life: _Life, event: CallEvent) -> Outcome:
    """The same whichever of pickup and end is heard first: a pickup is a fact, a voice mail box is nobody."""
    said = OUTCOMES[event.disposition]
    if said is Outcome.VOICEMAIL:
        return said
    concluded = {step.answered_login for step in life.steps.values() if step.inferred}
    told = set(life.talked) - concluded
    if told or event.answered or (event.billsec or 0) > 0 or (life.talked and said is Outcome.UNKNOWN):
        return Outcome.ANSWERED
    return said


def _who_ended(life: _Life, event: CallEvent, outcome: Outcome) -> str:
    """Who talked, as the event names it, else as the pickups did, else whoever it was offered to."""
    named = event.sip_login
    if outcome is not Outcome.ANSWERED or not (life.is_ours or life.talked):
        return named
    if named and (_is_number(named) or life.named(named)[1] is not None or life.is_sent_to(named)):
        return named
    if life.talked:
        return life.talked[-1]
    step = life.step_of("")
    return (step.login or step.destination) if step is not None else ""


def _free(life: _Life, event: CallEvent, login: str, step: Step | None) -> dict[int, datetime]:
    """End the talks of this call; by agent, when. `login`: who talked last, known from the event alone perhaps."""
    names = dict.fromkeys([*life.talked, *filter(None, [login])])
    freed = {name for name in names if life.talks_here(name)}
    finished = life.agents_of(freed)
    agent = life.named(login)[1] if login else None
    if agent is not None and not life.talks_elsewhere(login):
        freed.add(login)
        # The talk of a login that had picked up may be over for us: transferred, or seen to end by presence.
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
        # Nothing is to be noted down after a call of one's own.
        life.end_talk(agent_id, end, wraps_up=event.direction != "out")
    return ends


def _true_end(life: _Life, event: CallEvent, name: str, agent: Agent, named: str, step: Step | None) -> datetime | None:
    """When the talk of this login was really over that was taken to be over before: a gap in presence, hold, a
    conference, a call handed back. None: it was over then."""
    clocks = life.clocks.get(agent.id, Clocks())
    left_at = clocks.last_talk_end_at
    if left_at is None or clocks.talk_id not in life.steps or life.is_on_newer_call(agent.id):
        return None
    if life.talks_elsewhere(name):
        return None
    own = step if name == named else None
    if own is not None and event.billsec is not None and own.answered_at is not None:
        told = own.answered_at + timedelta(seconds=event.billsec)
        return min(life.at, told) if told > left_at + INEXACT else None
    line, seen_at = life.line(name), life.history.seen_at
    if line.since_at is not None and line.since_at > left_at:
        return life.at if line.speaking else line.since_at
    if line.speaking and seen_at is not None and seen_at > left_at + INEXACT:
        return life.at
    # Handed back, or never seen: then that it was over was only concluded from that.
    is_vague = own is not None and (name != life.talked[-1] or own.talked_seconds is None)
    return life.at if is_vague else None


def _hung_up_early(life: _Life, step: Step) -> bool:
    """Did the caller not wait until the agent's phone had rung out? The platform calls that NO ANSWER too."""
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
        if step.outcome == Outcome.ANSWERED and step.ended_at is not None:  # seen by presence before we were told
            values["ended_at"] = max(step.ended_at, ends.get(agent.id, step.ended_at) if agent else step.ended_at)
        values["talked_seconds"] = _seconds(values["ended_at"] - reached_at) if event.billsec is None else event.billsec
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
    told = _stranger(login) if login else "The event names nobody."
    return life.changes(Result.UNMATCHED, told, "The call is not ours.")


def _stranger(login: str) -> str:
    return f"{login!r} is no agent's SIP login."


# ---- what presence and time tell


def _conclude(life: _Life, step: Step) -> None:
    """What follows now for this unfinished step, if anything."""
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
    elif life.at >= step.asked_at + OVERFLOW_PATIENCE:
        life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.at)


def _is_another_talk(life: _Life, step: Step, began_at: datetime) -> bool:
    """Are we told that the talk which the step's login was seen to begin then is on another call?"""
    said_at = life.line(step.login).said_at
    if said_at is None or not life.talks_elsewhere(step.login):
        return False
    return step.asked_at <= said_at <= began_at + INEXACT


def _conclude_heard(life: _Life, step: Step, heard_at: datetime) -> None:
    """Its events came before it was on record: made while the database was away, it was written afterwards."""
    life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.ended_at)
    life.released.append(step)
    if life.talked:
        login, agent = life.talked[-1], life.named(life.talked[-1])[1]
        answered_by = agent.id if agent else None
        life.change(step, outcome=Outcome.ANSWERED, answered_login=login, answered_agent_id=answered_by)
        life.change(step, answered_at=heard_at)


def _conclude_offer(life: _Life, step: Step, agent_id: int) -> None:
    """Answered when the login began to speak while it was reserved; else, once that time is over, not."""
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
        # No cool-down follows: without an event or a next step, perhaps the caller hung up while it rang.
        life.change(step, outcome=Outcome.NO_ANSWER, inferred=True, ended_at=until)
    elif life.at < until + UNSEEN:
        return
    else:
        life.change(step, outcome=Outcome.UNKNOWN, inferred=True, ended_at=life.at)
    life.released.append(step)


def _conclude_talk(life: _Life, step: Step) -> None:
    """Over when the login was seen to stop speaking, or is not seen to speak at all for long enough."""
    line, *others = life.lines_of(step)
    seen_at, began_at = life.history.seen_at, step.answered_at or step.asked_at
    if seen_at is None:
        seen_at = began_at
    if life.ended_at is not None:
        life.change(step, ended_at=life.ended_at)
        life.hushed.add(step.answered_login)
        return
    silences = [one.since_at for one in (line, *others) if one.since_at and began_at < one.since_at <= seen_at]
    # Taken on at another phone of the same agent, it goes on.
    is_silent = (
        not any(one.speaking for one in others if one.since_at and one.since_at > began_at) and not line.speaking
    )
    if is_silent and line.since_at in silences:
        ended_at = max(silences)
        life.change(step, ended_at=ended_at, talked_seconds=(ended_at - began_at).total_seconds())
    elif is_silent and seen_at > began_at + SLOW_SOURCE and line.online:
        # Shorter than the time between two polls. A login that is offline for the source is one that it does not know.
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
        life.end_talk(holder.id, over_at, step=step, is_told=False)


def _resume(life: _Life, step: Step) -> None:
    """A talk that was seen to end goes on when the login soon speaks again, and no other call explains that."""
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
        if life.clocks[agent_id].talk_id == step.id:  # of a call without id nothing is kept that could be undone
            life.clocks[agent_id] = life.clocks[agent_id]._replace(wrap_up_until=None, talk_id=None)
        life.change(step, ended_at=None, talked_seconds=None)


def _seconds(span: timedelta) -> float:
    return max(0.0, span.total_seconds())


def _named(project: Project, steps: Sequence[Step], name: str) -> tuple[str, Agent | None]:
    """The login that is meant, as its agent's configuration writes it, and the agent; a number has none.

    Of a phone that the call was offered or answered at it is the agent who had it then, if they are still there.
    """
    login, owner = project.login_named(name, [step.login for step in steps])
    phone = phone_of(login)
    for step in steps:
        for of_login, agent_id in ((step.answered_login, step.answered_agent_id), (step.login, step.agent_id)):
            if login and phone_of(of_login) == phone and (agent := project.agents.get(agent_id or 0)) is not None:
                return (login if owner is not None else next(iter(agent.sip_logins), login)), agent
    return login, owner


def looked_at(project: Project, history: History, names: Iterable[str] = ()) -> tuple[list[int], list[str]]:
    """The agents and the logins that a change of this history looks at, in order. `names`: in the event."""
    steps = history.steps
    of_steps = [name for step in steps for name in (step.login, step.answered_login, step.destination)]
    meant = [_named(project, steps, name) for name in (*names, *history.heard.talked, *of_steps) if name]
    logins = {login for login, _ in meant} | set(of_steps)
    agents = {effect.agent_id for effect in history.heard.effects.values()}
    agents |= {agent.id for _, agent in meant if agent is not None}
    agents |= {agent for step in steps for agent in (step.agent_id, step.answered_agent_id) if agent is not None}
    talkers = [project.holder(step.answered_agent_id, step.answered_login) for step in steps if step.answered_login]
    logins |= {login for agent in talkers if agent is not None for login in agent.sip_logins}
    return sorted(agents), sorted(logins - {""})
