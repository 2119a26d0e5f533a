"""The simulation of the strategies: that its world is one, and that the published tables are of all strategies."""

from __future__ import annotations

import re

import pytest

from bench import simulation
from bench.published import published
from bench.simulation import BUSY, COUNTER, DOCUMENT, Floor, Offered, longest_run, restarting, shares
from router.core.strategies import STRATEGIES

EVERYBODY = pytest.mark.parametrize("strategy", [*STRATEGIES, COUNTER])


def at_work(strategy: str, seed: int = 1) -> Floor:
    floor = Floor(strategy, BUSY, seed)
    floor.run(150)
    return floor


@EVERYBODY
def test_the_same_seed_is_the_same_day_and_another_is_another(strategy: str) -> None:
    assert at_work(strategy).offers == at_work(strategy).offers
    assert at_work(strategy).offers != at_work(strategy, seed=2).offers


@EVERYBODY
def test_nobody_is_offered_a_call_while_ringing_or_talking(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holding: set[int] = set()
    rings, hangs_up, misses = Floor._change, Floor._hang_up, Floor._miss

    def change(floor: Floor, agent_id: int, **values: object) -> None:
        if values.get("reserved_until"):
            assert agent_id not in holding
            holding.add(agent_id)
        rings(floor, agent_id, **values)

    def hang_up(floor: Floor, agent_id: int, talk_seconds: float) -> None:
        holding.remove(agent_id)
        hangs_up(floor, agent_id, talk_seconds)

    def miss(floor: Floor, agent_id: int, call: int, tried: frozenset[int]) -> None:
        holding.remove(agent_id)
        misses(floor, agent_id, call, tried)

    monkeypatch.setattr(Floor, "_change", change)
    monkeypatch.setattr(Floor, "_hang_up", hang_up)
    monkeypatch.setattr(Floor, "_miss", miss)
    floor = at_work(strategy)
    assert floor.overflowed > 0
    assert {offer.agent_id for offer in floor.offers} == set(floor.members)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_remembers_anything_that_is_not_stored(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SETTLED", 100)
    assert restarting(strategy, 1) == 0


def test_a_run_is_one_of_choices() -> None:
    offers = [(1, 3), (1, 3), (1, 1), (1, 2), (2, 2), (2, 2), (2, 2), (1, 2)]
    assert longest_run([Offered(n, agent, free) for n, (agent, free) in enumerate(offers)]) == 3


def test_shares_are_multiples_of_what_is_due() -> None:
    floor = Floor("weighted", BUSY, members=[1, 10])  # of weights 1 and 4
    floor.offers = [Offered(n, 10 if n % 4 else 1, 2) for n in range(100)]
    assert shares(floor) == (0.9375, 1.25)


def test_the_published_tables_are_of_all_strategies() -> None:
    rows = re.findall(r"^\| [`*](\w+)[`*] \|", published(DOCUMENT, "simulation"), re.MULTILINE)
    assert rows == 2 * [*STRATEGIES, "counter"]
