"""Simulate calls of the past as one continuous day by other rules: each answer changes who is free for the next call.

Pure: the day comes from explanation/logged_day.py, and every choice that the log does not tell is drawn by a hash, so
that the same study gives the same numbers. Instants are microseconds since the epoch, durations are seconds.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import count
from math import sqrt
from typing import Any, NamedTuple

from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import GRACE
from router.core.model import Agent, Call, Cause, LastTalk, Offer, Project
from router.db.claim import AgentRow, MemberRow
from router.db.types import MICROSECOND
from router.explanation.memory import Memory, Reading

SECOND = 1_000_000
_GRACE = GRACE // MICROSECOND
ANSWERS_AFTER = 5.0  # where the log tells of no answer
UNTIL_HUNG_UP = _FOREVER = float("inf")
_LATER = 5 * SECOND  # an agent's own call waits so long for the end of another one, and again
_FEW = 8  # offers; of an agent with fewer, those of all agents count too
_LEAST_RUNS, _MOST_RUNS = 2, 12  # of a long and of a short day, with other draws each
_SIMULATED = 6_000  # calls in all these runs, and as many again with nothing changed


# ---- what the log tells


class Ring(NamedTuple):
    """What became of an offer: answered, or not, after so many seconds; UNTIL_HUNG_UP: the caller hung up before.

    `is_followed`: the platform asked again then. `is_assumed`: that it was answered is not known.
    """

    agent_id: int
    seconds: float
    is_answered: bool
    disposition: Disposition = Disposition.UNKNOWN
    is_followed: bool = False
    is_assumed: bool = False


class Asked(NamedTuple):
    """A question of the log. `agent_id` None: the answer was the overflow, because nobody was free if `found_nobody`.

    `ring` None: what became of the offer is not known.
    """

    step: str
    at: int
    agent_id: int | None
    ring: Ring | None = None
    found_nobody: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """A call of the log. `talked`: seconds, with whomever; None: not known. `gave_up`: seconds after which the caller
    hung up unanswered. `waited`: seconds for which the caller is known to have waited."""

    call: Call
    seed: str
    at: int
    asked: tuple[Asked, ...]
    talked: float | None = None
    gave_up: float | None = None
    waited: float = 0.0
    is_told: bool = True  # events told of its answer and end
    last_talk: LastTalk | None = None  # before the day, as previous_call: [asked at, answered], [] if none
    previous_call: Sequence[Any] | None = None

    @property
    def answer(self) -> Ring | None:
        """Return the offer that an agent answered."""
        return next((one.ring for one in self.asked if one.ring and one.ring.is_answered), None)


Spans = Sequence[tuple[int, int]]
"""Sorted and disjoint, ends excluded."""


@dataclass(frozen=True, slots=True)
class Day:
    """What is known of a period. Calls from before `since` are simulated to know who is busy then, and not counted.

    `projects`: the configurations in effect, with the instants from which on. `online`, `own_talks`: by login; the
    latter are talks that did not come through here. `ages`: of presence at questions, with their instants; None: none.
    `declared`: what people set, by instant and agent. `followed`: how often the platform asked again after an offer
    that nobody took, by its number in the call, and (0) after the overflow: [did, did not].
    """

    since: int
    until: int
    callers: tuple[Caller, ...]
    projects: tuple[tuple[int, Project], ...]
    online: Mapping[str, Spans]
    own_talks: Mapping[str, Spans]
    ages: Sequence[tuple[int, int | None]] = ()
    agents: Sequence[AgentRow] = ()
    members: Sequence[MemberRow] = ()
    declared: Sequence[tuple[int, int, Mapping[str, Any]]] = ()
    followed: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    tells: bool = True  # whether events tell of answers and ends
    tells_own: bool = False  # and of agents' own calls
    is_whole: bool = True  # every change of presence is known, not only those that calls met
    gave_up_as: Disposition = Disposition.NO_ANSWER  # how the platform tells that a caller hung up
    erased: int = 0  # calls that are left out: what they asked was erased with their callers


# ---- counts

COUNTS = ("calls", "questions", "answered", "overflow", "found_nobody", "unanswered", "timed", "waited")
RATES = ("answered", "overflow", "found_nobody", "unanswered")  # in per cent of all calls


@dataclass
class Share:
    """An agent's part: offers, answers, and seconds talked."""

    offered: float = 0
    answered: float = 0
    talked: float = 0


@dataclass
class Tally:
    """The counts of a period. `overflow`: calls that were sent there in the end. `found_nobody`: calls for which nobody
    was free at their first question. `unanswered`: calls that neither an agent nor the overflow got. `waited`: seconds,
    of those calls that agents answered of which it is known when: `timed`."""

    calls: float = 0
    questions: float = 0
    answered: float = 0
    overflow: float = 0
    found_nobody: float = 0
    unanswered: float = 0
    timed: float = 0
    waited: float = 0
    agents: dict[int, Share] = field(default_factory=dict)

    def agent(self, agent_id: int) -> Share:
        """Return the part of an agent."""
        return self.agents.setdefault(agent_id, Share())

    def rate(self, part: float) -> float:
        """Return a count of calls in per cent of all."""
        return 100 * part / self.calls if self.calls else 0.0

    def share(self, agent_id: int) -> float:
        """Return the per cent of all answered calls that the agent answered."""
        found = self.agents.get(agent_id)
        return 100 * found.answered / self.answered if found and self.answered else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the counts and, in per cent and seconds, what is compared."""
        counts = {name: round(getattr(self, name), 2) for name in COUNTS}
        agents = {
            str(agent_id): {
                "offered": round(one.offered, 2),
                "answered": round(one.answered, 2),
                "talked_seconds": round(one.talked, 1),
                "share": round(self.share(agent_id), 2),
            }
            for agent_id, one in self.agents.items()
        }
        rates = {f"{name}_rate": round(self.rate(getattr(self, name)), 2) for name in RATES}
        wait = None if self.mean_wait is None else round(self.mean_wait, 2)
        return {**counts, **rates, "mean_wait": wait, "agents": agents}

    @property
    def mean_wait(self) -> float | None:
        """Return the mean of seconds until an agent answered, None if no wait is known."""
        return self.waited / self.timed if self.timed else None

    def add_answer(self, ring: Ring, waited: float, talked: float) -> None:
        """Count an answer, and what the caller waited unless the answer is only assumed."""
        self.answered += 1
        if not ring.is_assumed:
            self.timed += 1
            self.waited += waited
        share = self.agent(ring.agent_id)
        share.answered += 1
        share.talked += talked


class Distance(NamedTuple):
    """How far two tallies differ, in percentage points: the overflow, and the share of the agent that differs most."""

    overflow: float
    share: float


def distance(one: Tally, other: Tally) -> Distance:
    """Return how far two tallies differ."""
    shares = [abs(one.share(agent) - other.share(agent)) for agent in one.agents.keys() | other.agents.keys()]
    return Distance(abs(one.rate(one.overflow) - other.rate(other.overflow)), max(shares, default=0.0))


def tally_of(day: Day) -> Tally:
    """Return what really happened."""
    tally = Tally()
    for caller in day.callers:
        if not day.since <= caller.at < day.until:
            continue
        tally.calls += 1
        tally.questions += len(caller.asked)
        tally.found_nobody += caller.asked[0].found_nobody
        for asked in caller.asked:
            if asked.agent_id is not None:
                tally.agent(asked.agent_id).offered += 1
        if (answer := caller.answer) is not None:
            tally.add_answer(answer, caller.waited, caller.talked or 0)
        elif caller.asked[-1].agent_id is None:
            tally.overflow += 1
        else:
            tally.unanswered += 1
    return tally


# ---- what the log does not tell is drawn


def _chance(*words: object) -> float:
    """Return a number from 0 to 1, the same for the same words."""
    digest = blake2b(":".join(map(str, words)).encode(errors="surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


class _Habits:
    """What callers, agents and the platform do, by the log. `is_known`: it tells of most offers what became of them."""

    def __init__(self, day: Day) -> None:
        self.rings: dict[int, list[Ring]] = {}
        self.all_rings: list[Ring] = []
        self.own: dict[tuple[str, int], Ring] = {}
        for caller in day.callers:
            for asked in caller.asked:
                if (ring := asked.ring) is not None:
                    if ring.seconds < UNTIL_HUNG_UP and not ring.is_assumed:
                        self.rings.setdefault(ring.agent_id, []).append(ring)
                        self.all_rings.append(ring)
                    self.own.setdefault((caller.seed, ring.agent_id), ring)
        for rings in (self.all_rings, *self.rings.values()):
            rings.sort(key=lambda ring: ring.seconds)
        self.is_known = bool(self.all_rings) and 2 * sum(ring.is_assumed for ring in self.own.values()) <= len(self.own)
        self.talks = sorted(caller.talked for caller in day.callers if caller.talked)
        self.ends = _survival(day.callers)
        self.followed = day.followed

    def ring(self, seed: str, agent_id: int, alike: int, ring_seconds: float, run: int) -> Ring:
        """Return what becomes of this offer: as in the log if it was made there, else as other offers of the agent."""
        if (own := self.own.get((seed, agent_id))) is not None:
            return own
        rings = self.rings.get(alike, [])
        if len(rings) < _FEW:
            rings = sorted([*rings, *self.all_rings], key=lambda ring: ring.seconds)
        if not rings:
            return Ring(agent_id, min(ANSWERS_AFTER, ring_seconds), is_answered=True, is_assumed=True)
        taken = rings[int(_chance("ring", run, seed, agent_id) * len(rings))]
        return taken._replace(agent_id=agent_id, is_followed=False)

    def talk(self, caller: Caller, run: int) -> float:
        """Return how long the call lasts: as in the log, else as another one of it."""
        if caller.talked is not None:
            return caller.talked
        return self.talks[int(_chance("talk", run, caller.seed) * len(self.talks))] if self.talks else 60.0

    def patience(self, caller: Caller, run: int) -> float:
        """Return after how many seconds the caller hangs up: as in the log, else as those who waited longer did."""
        if caller.gave_up is not None:
            return caller.gave_up
        place = bisect_right(self.ends, caller.waited, key=lambda one: one[0])
        left = (self.ends[place - 1][1] if place else 1.0) * _chance("patience", run, caller.seed)
        return next((after for after, stay in self.ends[place:] if stay <= left), _FOREVER)

    def asks_again(self, number: int, seed: str, run: int) -> bool:
        """Return whether the platform asks again after the offer of this number in the call; 0: after the overflow."""
        did, did_not = self.followed.get(number, (0, 0))
        return did > 0 and _chance("again", run, seed, number) * (did + did_not) < did


def _survival(callers: Iterable[Caller]) -> list[tuple[float, float]]:
    """Return after how many seconds of waiting which part of the callers has not hung up yet: Kaplan and Meier's
    estimate, in which those who were answered count for as long as they waited."""
    waits = sorted((caller.waited, caller.gave_up is None) for caller in callers)
    found, stay, left = [], 1.0, len(waits)
    for seconds, is_served in waits:
        if not is_served:
            stay *= 1 - 1 / left
            found.append((seconds, stay))
        left -= 1
    return found


# ---- the simulation

Progress = Callable[[int, int], object]
"""Is told how many calls of how many were simulated."""


@dataclass(slots=True)
class _Live:
    """A simulated call. `number`: of its questions. `line`: the login that rings or talks."""

    caller: Caller
    patience: float
    number: int = 0
    line: str = ""


class _Simulation:
    """One run of a day. `projects`: the configurations, with the instants from which they are in effect."""

    def __init__(
        self,
        day: Day,
        habits: _Habits,
        projects: Sequence[tuple[int, Project]],
        alike: Mapping[int, int],
        run: int,
        progress: Callable[[], object],
    ) -> None:
        self.day, self.habits, self.alike, self.number, self.progress = day, habits, alike, run, progress
        self.starts, self.projects = [at for at, _ in projects], [project for _, project in projects]
        self.tally = Tally()
        copies = [row._replace(agent_id=new) for new, old in alike.items() for row in day.agents if row.agent_id == old]
        self.memory = Memory(self.projects[0].time_zone, [*day.agents, *copies], day.members, self._line)
        self.due: list[tuple[int, int, Callable[[int], None]]] = []
        self.order = count()
        self.busy: Counter[str] = Counter()  # logins that ring or talk
        self.talks: dict[str, list[tuple[int, int]]] = {}  # by login; an end in the far future: goes on
        self.most = max((len(caller.asked) for caller in day.callers), default=1)
        self.asked_at = [at for at, _ in day.ages]
        self.online = presence_by(day, self.projects, alike).online
        self.changes, self.sets = _timeline(self.online)

    def run(self) -> Tally:
        """Simulate all calls to their end."""
        for caller in self.day.callers:
            self._at(caller.at, partial(self._arrive, caller))
        for at, agent_id, changed in self.day.declared:
            for one in (agent_id, *(new for new, old in self.alike.items() if old == agent_id)):
                self._at(at, partial(self.memory.declare, one, changed))
        for at, agent_id in self._comings():
            self._at(at, partial(self.memory.declare, agent_id, {"available_since": True}))
        for login, spans in self.day.own_talks.items():
            for begin, end in spans:
                self._at(begin, partial(self._call_somebody, login, end - begin))
        while self.due:
            at, _, job = heapq.heappop(self.due)
            job(at)
        return self.tally

    def _at(self, at: int, job: Callable[[int], None]) -> None:
        heapq.heappush(self.due, (at, next(self.order), job))

    def _project(self, at: int) -> Project:
        return self.projects[max(0, bisect_right(self.starts, at) - 1)]

    # -- presence

    def _comings(self) -> Iterator[tuple[int, int]]:
        """Yield when agents came online, after a gap that counts."""
        project = self.projects[-1]
        away = project.away // MICROSECOND
        first = self.day.callers[0].at if self.day.callers else 0
        for agent in project.agents.values():
            left_at = None
            for begin, end in _union(self.online.get(login, ()) for login in agent.sip_logins):
                if begin > first and (left_at is None or begin - left_at >= away):
                    yield begin, agent.id
                left_at = end

    def _reading(self, at: int) -> Reading:
        """Return what presence told at this instant: as old as it was at the nearest question of the log."""
        place = bisect_left(self.asked_at, at)
        near = min(self.day.ages[max(0, place - 1) : place + 1], key=lambda one: abs(one[0] - at), default=(0, None))
        if (age := near[1]) is None:
            return Reading()
        seen_at = at - age
        speaking = frozenset(login for login in self.talks if self._talk(login, seen_at)[0])
        return Reading(seen_at, self.sets[bisect_right(self.changes, seen_at)], speaking)

    def _talk(self, login: str, at: int) -> tuple[bool, int | None]:
        """Return whether a login talks at an instant, and since when it does, or does not any more."""
        for begin, end in reversed(self.talks.get(login, ())):
            if end <= at:
                return False, end
            if begin <= at:
                return True, begin
        return False, None

    def _line(self, login: str, at: int) -> tuple[bool, bool, int | None]:
        """Return what presence shows: the log has instants as they were seen, so nothing is seen later than here."""
        speaking, since = self._talk(login, at)
        return login in self.sets[bisect_right(self.changes, at)], speaking, since

    # -- a call

    def _arrive(self, caller: Caller, at: int) -> None:
        self.progress()
        self._ask(_Live(caller, self.habits.patience(caller, self.number)), at)

    def _counted(self, live: _Live) -> Tally:
        """Return the tally that counts this call."""
        return self.tally if self.day.since <= live.caller.at < self.day.until else Tally()

    def _ask(self, live: _Live, at: int) -> None:
        caller, tally, number = live.caller, self._counted(live), live.number
        live.number += 1
        tally.calls += not number
        tally.questions += 1
        step = caller.asked[number].step if number < len(caller.asked) else f"#{live.number}"
        decision = self.memory.ask(
            self._project(at),
            replace(caller.call, step=step),
            caller.seed,
            at,
            self._reading(at),
            caller.last_talk,
            caller.previous_call,
        ).decision
        answer = decision.answer
        if isinstance(answer, Offer):
            tally.agent(answer.agent_id).offered += 1
            self._ring(live, answer, at)
            return
        tally.found_nobody += not number and answer.cause is Cause.NOBODY_FREE
        if self._asks_again(live, 0):
            self._ask(live, at)
            return
        tally.overflow += 1
        if caller.is_told:
            self._tell(live, EventKind.PICKUP, at, answer.destination)
        self._at(at + round(self.habits.talk(caller, self.number) * SECOND), partial(self._end, live, True))

    def _asks_again(self, live: _Live, number: int) -> bool:
        is_possible = live.number < self.most
        return is_possible and self.habits.asks_again(number, f"{live.caller.seed}:{live.number}", self.number)

    def _ring(self, live: _Live, offer: Offer, at: int) -> None:
        login, caller = offer.sip_login, live.caller
        logins = self._project(at).agents[offer.agent_id].sip_logins
        online = self.sets[bisect_right(self.changes, at)]
        if login not in online or any(self.busy[one] for one in logins):
            self._pass_over(live, Ring(offer.agent_id, 0, is_answered=False), at)
            return
        live.line = login
        self.busy[login] += 1
        alike = self.alike.get(offer.agent_id, offer.agent_id)
        ring = self.habits.ring(caller.seed, offer.agent_id, alike, offer.ring.total_seconds(), self.number)
        left = live.patience - (at - caller.at) / SECOND
        if left < ring.seconds:
            self._at(at + round(max(0.0, left) * SECOND), partial(self._give_up, live))
        else:
            then = self._pick_up if ring.is_answered else self._pass_over
            self._at(at + round(ring.seconds * SECOND), partial(then, live, ring))
        if not caller.is_told:
            self._settle_at(live, at + offer.ring // MICROSECOND + _GRACE)

    def _pick_up(self, live: _Live, ring: Ring, at: int) -> None:
        talk = self.habits.talk(live.caller, self.number)
        self._counted(live).add_answer(ring, (at - live.caller.at) / SECOND, talk)
        until = at + round(talk * SECOND)
        self.talks.setdefault(live.line, []).append((at, until))
        if live.caller.is_told:
            self._tell(live, EventKind.PICKUP, at, live.line)
        else:
            self._settle_at(live, at)
        self._at(until, partial(self._end, live, True))

    def _pass_over(self, live: _Live, ring: Ring, at: int) -> None:
        """Note that the agent did not take the call: the platform asks for the next one, or gives up."""
        if live.caller.is_told and ring.disposition:
            self._tell(live, EventKind.UNAVAILABLE, at, live.line, ring.disposition)
        self._free(live)
        if ring.is_followed or self._asks_again(live, live.number):
            self._ask(live, at)
        else:
            self._counted(live).unanswered += 1
            self._end(live, False, at)

    def _give_up(self, live: _Live, at: int) -> None:
        self._counted(live).unanswered += 1
        self._end(live, False, at)

    def _end(self, live: _Live, talked: bool, at: int) -> None:
        line = live.line
        self._free(live)
        if live.caller.is_told:
            disposition = Disposition.ANSWERED if talked else self.day.gave_up_as
            self._tell(live, EventKind.AFTER_CALL, at, line if talked else "", disposition)
        elif line:
            self._settle_at(live, at)

    def _free(self, live: _Live) -> None:
        if live.line:
            self.busy[live.line] -= 1
            live.line = ""

    def _tell(
        self, live: _Live, kind: EventKind, at: int, login: str, disposition: Disposition = Disposition.UNKNOWN
    ) -> None:
        answered = True if kind is EventKind.PICKUP else None
        event = CallEvent(kind, live.caller.call.call_id, sip_login=login, disposition=disposition, answered=answered)
        self.memory.hear(self._project(at), event, at)

    def _settle_at(self, live: _Live, at: int) -> None:
        """Let what presence shows be concluded at this instant."""
        call_id = live.caller.call.call_id
        self._at(at, lambda now: self.memory.settle(self._project(now), call_id, now))

    # -- an agent's own call

    def _call_somebody(self, login: str, long: int, at: int) -> None:
        agent = self._project(at).login_named(login)[1]
        if any(self.busy[one] for one in (agent.sip_logins if agent else (login,))):
            self._at(at + _LATER, partial(self._call_somebody, login, long))
            return
        self.busy[login] += 1
        self.talks.setdefault(login, []).append((at, at + long))
        call_id = f"own {login} {at}"
        if self.day.tells_own:
            event = CallEvent(EventKind.BEFORE_CALL, call_id, sip_login=login, direction="out")
            self.memory.hear(self._project(at), event, at)
        self._at(at + long, partial(self._hang_up_own, login, call_id))

    def _hang_up_own(self, login: str, call_id: str, at: int) -> None:
        self.busy[login] -= 1
        if self.day.tells_own:
            said = Disposition.ANSWERED
            event = CallEvent(EventKind.AFTER_CALL, call_id, sip_login=login, direction="out", disposition=said)
            self.memory.hear(self._project(at), event, at)


class Presence(NamedTuple):
    """When each login is online. `unseen`: names of agents whom the log does not know; `renamed`: of known agents with
    logins that it does not know."""

    online: Mapping[str, Spans]
    unseen: Sequence[str]
    renamed: Sequence[str]


def presence_by(day: Day, projects: Iterable[Project], alike: Mapping[int, int]) -> Presence:
    """Return when logins of these configurations are online. An agent whom the log does not know is there whenever
    anybody is; a known one's new login, when the old ones are; a copy of an agent, when that one is."""
    logins: dict[int, set[str]] = {}
    for _, project in day.projects:
        for agent in project.agents.values():
            logins.setdefault(agent.id, set()).update(agent.sip_logins)
    known = {*day.online, *(login for some in logins.values() for login in some)}
    online = dict(day.online)
    unseen, renamed = dict[int, str](), dict[int, str]()
    copies: list[tuple[Agent, Agent]] = []
    for project in projects:
        for agent in project.agents.values():
            new = [login for login in agent.sip_logins if login not in known]
            if agent.id in alike:
                copies.append((agent, project.agents[alike[agent.id]]))
            elif new:
                (renamed if agent.id in logins else unseen)[agent.id] = agent.name
                of = [day.online.get(login, ()) for login in logins[agent.id]] if agent.id in logins else None
                online |= dict.fromkeys(new, _union(day.online.values() if of is None else of))
    for copy, agent in copies:
        spans = _union(online.get(login, ()) for login in agent.sip_logins)
        for login in copy.sip_logins:
            online.setdefault(login, spans)
    return Presence(online, list(unseen.values()), list(renamed.values()))


def _union(spans: Iterable[Spans]) -> Spans:
    found: list[tuple[int, int]] = []
    for begin, end in sorted(span for some in spans for span in some):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def _timeline(online: Mapping[str, Spans]) -> tuple[list[int], list[frozenset[str]]]:
    """Return the instants at which somebody comes or goes, and who is online before the first and after each."""
    changes: dict[int, tuple[set[str], set[str]]] = {}
    for login, spans in online.items():
        for begin, end in spans:
            changes.setdefault(begin, (set(), set()))[0].add(login)
            changes.setdefault(end, (set(), set()))[1].add(login)
    now: set[str] = set()
    sets = [frozenset(now)]
    for _, (come, gone) in sorted(changes.items()):
        now = (now - gone) | come
        sets.append(frozenset(now))
    return sorted(changes), sets


# ---- a study


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What really happened, what the simulation makes of it with nothing changed, and with the change.

    `error`: of the reproduction. `by_chance`: how far single runs are from their mean, which is `changed`. Not
    `is_known`: the log does not tell whether agents answer, so that neither error nor chance can be seen.
    """

    real: Tally
    reproduced: Tally
    changed: Tally
    error: Distance
    by_chance: Distance
    runs: int
    is_known: bool = True

    @property
    def margin(self) -> float:
        """Return up to which difference of the overflow, in percentage points, nothing is said: the error, and by
        chance what the runs differ, or the standard error of so many calls, at least one of them, if that is more."""
        calls = max(1.0, self.real.calls)
        part = sum(one.rate(one.overflow) / 200 for one in (self.real, self.changed))
        return self.error.overflow + max(self.by_chance.overflow, 100 * sqrt(part * (1 - part) / calls), 100 / calls)

    def as_json(self) -> dict[str, Any]:
        """Return it with plain values; agents' ids are text."""
        return {
            **{name: getattr(self, name).as_json() for name in ("real", "reproduced", "changed")},
            "error": self.error._asdict(),
            "by_chance": self.by_chance._asdict(),
            "runs": self.runs,
            "margin": round(self.margin, 2),
            "is_known": self.is_known,
        }


def what_if(
    day: Day,
    project: Project,
    alike: Mapping[int, int] | None = None,
    progress: Progress = lambda _done, _all: None,
    *,
    runs: int | None = None,
) -> WhatIf:
    """Return what the day would have been by this configuration. `alike`: agents who are copies of others, by id.

    `runs`: over how many the mean is taken; by default more for a short day.
    """
    habits, real, done = _Habits(day), tally_of(day), count(1)
    affordable = max(1, _SIMULATED // max(1, len(day.callers)))
    runs = runs or max(_LEAST_RUNS, min(_MOST_RUNS, affordable))
    reproductions = min(runs, affordable)  # in which little is drawn
    total = (runs + reproductions) * len(day.callers)

    def simulate(projects: Sequence[tuple[int, Project]], alike: Mapping[int, int], run: int) -> Tally:
        return _Simulation(day, habits, projects, alike, run, lambda: progress(next(done), total)).run()

    before = _mean([simulate(day.projects, {}, run) for run in range(reproductions)])
    changed = [simulate([(0, project)], alike or {}, run) for run in range(runs)]
    mean = _mean(changed)
    apart = [distance(one, mean) for one in changed]
    by_chance = Distance(max(one.overflow for one in apart), max(one.share for one in apart))
    return WhatIf(real, before, mean, distance(real, before), by_chance, runs, habits.is_known)


def _mean(runs: Sequence[Tally]) -> Tally:
    found = Tally()
    for run in runs:
        for name in COUNTS:
            setattr(found, name, getattr(found, name) + getattr(run, name) / len(runs))
        for agent_id, share in run.agents.items():
            sums = found.agent(agent_id)
            sums.offered += share.offered / len(runs)
            sums.answered += share.answered / len(runs)
            sums.talked += share.talked / len(runs)
    return found
