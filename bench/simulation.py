"""`python -m bench.simulation`: how each strategy shares calls in a group, by the rules alone: no database, no clock.

Every strategy gets the same callers, talks and missed calls, all from the seed. They are compared with the counter that
scripts use: the n-th of those who are free. `--write` puts the tables into docs/strategies.md.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bench.published import publish
from router.core.decision import decide
from router.core.model import (
    Agent,
    AgentState,
    Call,
    Group,
    Member,
    MemberClock,
    Offer,
    Presence,
    Project,
    Snapshot,
)
from router.core.rules import Rule
from router.core.strategies import STRATEGIES

AGENTS = 10
WEIGHTS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4)
TALK_SECONDS = 120.0
WRAP_UP = timedelta(seconds=10)
RING = timedelta(seconds=20)
COOL_DOWN = timedelta(seconds=30)
ANSWER_PROBABILITY = 0.95
CALM, BUSY = 0.3, 0.85  # offered load, as a share of the agents
CALLS = 5000
SETTLED = 1000  # calls before anything changes
WINDOW = 2  # rounds of the group that are examined after a change
COUNTER = "(counter)"
START = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[1] / "docs" / "strategies.md"


class Offered(NamedTuple):
    """One offer: the call, the agent, and how many agents were eligible."""

    call: int
    agent_id: int
    free: int


@dataclass(slots=True)
class Floor:
    """A group and its calls. Decisions use only what a database would hold: states, clocks, who talks."""

    strategy: str
    load: float
    seed: int = 1
    members: list[int] = field(default_factory=lambda: list(range(1, AGENTS + 1)))
    away: set[int] = field(default_factory=set)
    states: dict[int, AgentState] = field(default_factory=dict)
    clocks: dict[int, MemberClock] = field(default_factory=dict)
    talking: set[int] = field(default_factory=set)
    now: datetime = START
    calls: int = 0
    overflowed: int = 0
    counter: int = 0
    offers: list[Offered] = field(default_factory=list)
    _events: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    # ---- the world

    def run(self, calls: int) -> None:
        """Let `calls` more callers arrive. Their talks may go on afterwards."""
        last = self.calls + calls
        while self.calls < last:
            self.calls += 1
            dice = Random(f"{self.seed}/call/{self.calls}")
            rate = self.load * AGENTS / TALK_SECONDS
            arrives = self.now + timedelta(seconds=dice.expovariate(rate))
            while self._events and self._events[0][0] <= arrives:
                self.now, _, job = heapq.heappop(self._events)
                job()
            self.now = arrives
            self._ask(self.calls, frozenset())

    def _ask(self, call: int, tried: frozenset[int]) -> None:
        chosen = self._by_counter(tried) if self.strategy == COUNTER else self._by_rules(call, tried)
        if chosen is None:
            self.overflowed += 1
            return
        dice = Random(f"{self.seed}/offer/{call}/{len(tried)}")
        answers, after, talk = dice.random() < ANSWER_PROBABILITY, dice.uniform(2, 8), dice.expovariate(1.0)
        self._change(chosen, reserved_until=self.now + RING)
        if answers:
            self._later(after, lambda: self._pick_up(chosen, talk * TALK_SECONDS))
        else:
            self._later(RING.total_seconds(), lambda: self._miss(chosen, call, tried))

    def _pick_up(self, agent_id: int, talk_seconds: float) -> None:
        self.talking.add(agent_id)
        self._change(agent_id, reserved_until=None, answered_today=self._state(agent_id).answered_today + 1)
        self._later(talk_seconds, lambda: self._hang_up(agent_id, talk_seconds))

    def _hang_up(self, agent_id: int, talk_seconds: float) -> None:
        self.talking.discard(agent_id)
        self._change(agent_id, talked_today=self._state(agent_id).talked_today + round(talk_seconds))
        self._change(agent_id, wrap_up_until=self.now + WRAP_UP, idle_since=self._micros())

    def _miss(self, agent_id: int, call: int, tried: frozenset[int]) -> None:
        self._change(agent_id, reserved_until=None, cooling_until=self.now + COOL_DOWN)
        self._ask(call, tried | {agent_id})

    def _later(self, seconds: float, job: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + timedelta(seconds=seconds), next(self._numbers), job))

    def _state(self, agent_id: int) -> AgentState:
        return self.states.get(agent_id, AgentState(idle_since=0))

    def _change(self, agent_id: int, **values: Any) -> None:
        self.states[agent_id] = self._state(agent_id)._replace(**values)

    def _micros(self) -> int:
        return (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    # ---- the choice

    def _by_rules(self, call: int, tried: frozenset[int]) -> int | None:
        snapshot = Snapshot(
            now=self.now,
            presence=Presence(
                frozenset(login(m) for m in self.members if m not in self.away),
                frozenset(login(m) for m in self.talking),
                timedelta(0),
            ),
            agents=self.states,
            clocks={1: self.clocks},
            tried=frozenset(login(m) for m in tried),
            seed=f"{self.seed}/{call}",
        )
        decision = decide(self.project, Call(), snapshot)
        answer = decision.answer
        if not isinstance(answer, Offer) or answer.clock is None:
            return None
        free = sum(candidate.skip is None for candidate in decision.trials[0].candidates)
        self.offers.append(Offered(call, answer.agent_id, free))
        self.clocks.update(answer.turns)
        self.clocks[answer.agent_id] = answer.clock
        return answer.agent_id

    @property
    def project(self) -> Project:
        """Build the configuration of this moment, as a process does that has just started."""
        group = Group(
            1,
            "group",
            self.strategy,
            tuple(Member(m, position=n, weight=weight(m)) for n, m in enumerate(self.members)),
            RING,
        )
        agents = {m: Agent(m, f"agent {m}", (login(m),), wrap_up=WRAP_UP) for m in self.members}
        return Project(
            1, "simulation", 1, overflow="0", agents=agents, groups={1: group}, rules=(Rule(1, "all", (1,)),)
        )

    def _by_counter(self, tried: frozenset[int]) -> int | None:
        free = [m for m in self.members if m not in self.away | self.talking | tried and self._is_idle(self._state(m))]
        if not free:
            return None
        chosen = free[self.counter % len(free)]
        self.counter += 1
        self.offers.append(Offered(self.calls, chosen, len(free)))
        return chosen

    def _is_idle(self, state: AgentState) -> bool:
        holds = (state.reserved_until, state.wrap_up_until, state.cooling_until)
        return all(until is None or until <= self.now for until in holds)

    # ---- changes of a group

    def add(self, agent_id: int) -> None:
        """Add a member at the end of the list, available from now on."""
        self.members.append(agent_id)
        self._change(agent_id, idle_since=self._micros())

    def remove(self, agent_id: int) -> None:
        """Remove a member from the group. Its offers stay recorded."""
        self.members.remove(agent_id)

    def leave(self, agent_id: int) -> None:
        self.away.add(agent_id)

    def come_back(self, agent_id: int) -> None:
        self.away.discard(agent_id)
        self._change(agent_id, idle_since=self._micros())

    def restart(self) -> None:
        """Drop everything that a process has in memory, and read the stored state again."""
        self.counter = 0
        kept = json.loads(json.dumps({agent_id: list(clock) for agent_id, clock in self.clocks.items()}))
        self.clocks = {int(agent_id): MemberClock(*values) for agent_id, values in kept.items()}


def login(agent_id: int) -> str:
    return f"sim_agent_{agent_id:02d}"


def weight(agent_id: int) -> int:
    return WEIGHTS[(agent_id - 1) % AGENTS]


# ---- measures


def shares(floor: Floor) -> tuple[float, float]:
    """Return the smallest and the largest share of the offers, as multiples of the due share (equal, or by weight)."""
    due = {m: weight(m) if floor.strategy == "weighted" else 1 for m in floor.members}
    got = Counter(offer.agent_id for offer in floor.offers)
    ratios = [got[m] / len(floor.offers) * sum(due.values()) / due[m] for m in floor.members]
    return min(ratios), max(ratios)


def longest_run(offers: Iterable[Offered]) -> int:
    """Return the longest run of offers to one agent while another was eligible for each of them."""
    longest = run = last = 0
    for offer in offers:
        run = 0 if offer.free < 2 else run + 1 if offer.agent_id == last else 1
        longest, last = max(longest, run), offer.agent_id
    return longest


def settled(strategy: str, seed: int) -> Floor:
    """Return a calm group after SETTLED calls."""
    floor = Floor(strategy, CALM, seed)
    floor.run(SETTLED)
    return floor


def window_after(floor: Floor, rounds: int = WINDOW) -> list[Offered]:
    """Return the next offers: `rounds` for each member."""
    before, wanted = len(floor.offers), rounds * len(floor.members)
    while len(floor.offers) < before + wanted:
        floor.run(1)
    return floor.offers[before : before + wanted]


def joining(strategy: str, seed: int) -> tuple[int, int]:
    """Return the number of a newcomer's offers in the first rounds, and the longest run among them."""
    floor = settled(strategy, seed)
    floor.add(AGENTS + 1)
    return _of(AGENTS + 1, window_after(floor))


def returning(strategy: str, seed: int) -> tuple[int, int]:
    """Return the same for a member that was away for five hundred calls."""
    floor = settled(strategy, seed)
    floor.leave(5)
    floor.run(500)
    floor.come_back(5)
    return _of(5, window_after(floor))


def _of(agent_id: int, offers: Sequence[Offered]) -> tuple[int, int]:
    own = [
        offer if offer.agent_id == agent_id else offer._replace(free=0) for offer in offers
    ]  # other members' runs do not count
    return sum(offer.agent_id == agent_id for offer in offers), longest_run(own)


def leaving(strategy: str, seed: int) -> int:
    """Return the most offers to one of the others in the first rounds after a member was removed."""
    floor = settled(strategy, seed)
    floor.remove(5)
    return max(Counter(offer.agent_id for offer in window_after(floor)).values())


def restarting(strategy: str, seed: int) -> int:
    """Return how many offers of the first rounds go to another agent than without the restart."""
    floor, untouched = settled(strategy, seed), settled(strategy, seed)
    floor.restart()
    return sum(a.agent_id != b.agent_id for a, b in zip(window_after(floor), window_after(untouched), strict=True))


# ---- the tables

_FIRST = f"""\
{AGENTS} agents, talks of {TALK_SECONDS:.0f} s on average, one offer in {1 / (1 - ANSWER_PROBABILITY):.0f} not answered.
*Share* is what members were offered, least and greatest, as a multiple of what is due to them: equal parts, under
`weighted` by the weights {", ".join(str(w) for w in WEIGHTS)}. *Run* is the most offers in a row to one agent while
another was free. *Counter* is the script's way: the n-th of those who are free.

| strategy | share at {CALM:.0%} load | run | share at {BUSY:.0%} load | run | nobody free |
|---|---|---|---|---|---|
"""
_SECOND = f"""
What changes do to a calm group, in the next {WINDOW} offers per member ({WINDOW} are due to each where shares are
equal), the worst of several runs. *Other*: the agent present who is offered most after a member was removed.

| strategy | newcomer | run | back after 500 calls | run | one is removed: other | restart changes |
|---|---|---|---|---|---|---|
"""


def tables(calls: int = CALLS, seeds: Sequence[int] = (1, 2, 3, 4, 5)) -> str:
    """Return both tables as Markdown."""
    names = (*STRATEGIES, COUNTER)
    first = "".join(_row(name, _at_work(name, calls)) for name in names)
    second = "".join(_row(name, _changed(name, seeds)) for name in names)
    return f"{_FIRST}{first}{_SECOND}{second}"


def _row(strategy: str, cells: Iterable[object]) -> str:
    name = "*counter*" if strategy == COUNTER else f"`{strategy}`"
    return f"| {name} | {' | '.join(str(cell) for cell in cells)} |\n"


def _at_work(strategy: str, calls: int) -> list[object]:
    cells: list[object] = []
    overflowed = 0.0
    for load in (CALM, BUSY):
        floor = Floor(strategy, load)
        floor.run(calls)
        least, greatest = shares(floor)
        overflowed = floor.overflowed / floor.calls
        cells += [f"{least:.2f} – {greatest:.2f}", longest_run(floor.offers)]
    return [*cells, f"{overflowed:.1%}"]


def _changed(strategy: str, seeds: Sequence[int]) -> list[object]:
    joined = [joining(strategy, seed) for seed in seeds]
    returned = [returning(strategy, seed) for seed in seeds]
    left = max(leaving(strategy, seed) for seed in seeds)
    moved = max(restarting(strategy, seed) for seed in seeds)
    worst = [max(values) for values in (*zip(*joined, strict=True), *zip(*returned, strict=True))]
    return [*worst, left, f"{moved} of {WINDOW * AGENTS}" if moved else "nothing"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulation", description="Strategies at work, by rules alone."
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="in each run of the first table")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    given = parser.parse_args(arguments)
    text = tables(given.calls)
    print(text)
    if given.write:
        publish(DOCUMENT, "simulation", f"\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
