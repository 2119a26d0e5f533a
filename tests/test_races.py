"""Real processes that ask at the same instant: nobody promised twice, nobody overlooked, one answer to one question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from router.core.model import Call
from router.db import models
from tests.crowd import CALLERS, Crowd, Told
from tests.world import OVERFLOW, World


@pytest.fixture(scope="module")
def crowds() -> Iterator[dict[int, Crowd]]:
    """By number of processes. Made once: a process takes a second to start."""
    crowds: dict[int, Crowd] = {}
    yield crowds
    for crowd in crowds.values():
        crowd.close()


class Hall(World):
    """A world and the crowd before its door."""

    crowd: Crowd

    def all_ask(self, rounds: list[list[Call]], *, is_away: bool = False) -> Told:
        url = self.database.url
        told = self.crowd.ask(url, self._folder, self.project_id, rounds, is_away=is_away)
        assert any(answer.degraded for answer in told.answers) == is_away, "the database was there all the time"
        return told


@pytest.fixture
def hall(migrated_url: str, tmp_path: Path, crowds: dict[int, Crowd]) -> Iterator[Hall]:
    hall = Hall(migrated_url, tmp_path)
    processes = 2 if hall.database.is_sqlite else 4  # as deployed: SQLite has one writer at a time
    if processes not in crowds:
        crowds[processes] = Crowd(processes)
    hall.crowd = crowds[processes]
    yield hall
    hall.database.dispose()


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n:02}" for n in range(count)]


def test_of_64_who_ask_at_once_20_get_an_agent_each_and_the_others_the_overflow(hall: Hall) -> None:
    rounds = range(5)
    agents = {n: named(f"agent{n}_", 20) for n in rounds}
    hall.configure(
        agents=[name for names in agents.values() for name in names],
        groups={f"group {n}": agents[n] for n in rounds},
        rules=[{"name": f"{n}", "groups": [f"group {n}"], "conditions": {"dialed": [f"{n}"]}} for n in rounds],
    )
    hall.see([name for names in agents.values() for name in names])
    told = hall.all_ask([[Call(f"call {n} {k}", dialed=f"{n}") for k in range(CALLERS)] for n in rounds])
    for n in rounds:
        given = Counter(each.destination for each in told.answers if each.call_id.startswith(f"call {n} "))
        assert given.pop(OVERFLOW) == CALLERS - 20
        assert given == Counter(agents[n])
    rows = hall.decisions()
    assert Counter(row.call_id for row in rows) == Counter(each.call_id for each in told.answers)
    assert {row.call_id: row.destination for row in rows} == {each.call_id: each.destination for each in told.answers}
    assert {name: lease.call_id for name, lease in hall.reservations().items()} == {
        row.sip_login: row.call_id for row in rows if row.sip_login
    }


def test_in_an_outage_too(hall: Hall) -> None:
    """And what was answered is not lost with the processes."""
    agents = named("agent", 20)
    hall.configure(agents=agents, groups={"sales": agents})
    hall.see(agents)
    told = hall.all_ask([[Call(f"call {k % 40}") for k in range(CALLERS)]], is_away=True)
    answers = {(each.call_id, each.destination) for each in told.answers}
    assert len(answers) == 40, "one answer to one question"
    assert Counter(destination for _, destination in answers) == Counter({OVERFLOW: 20} | dict.fromkeys(agents, 1))


def test_64_copies_of_a_question_get_one_answer_fifty_times(hall: Hall) -> None:
    """Four calls a round, sixteen copies of each, over all processes."""
    agents = named("agent", 60)
    hall.configure(agents=agents, groups={"sales": {"members": agents, "ring_seconds": 3600}})
    hall.see(agents)
    told = hall.all_ask([[Call(f"call {n} {k % 4}", "step") for k in range(CALLERS)] for n in range(13)])
    answers: dict[str, set[str]] = {}
    for each in told.answers:
        answers.setdefault(each.call_id, set()).add(each.destination)
    assert len(answers) == 52
    assert all(len(destinations) == 1 for destinations in answers.values()), "one login for all copies"
    given = [destination for destinations in answers.values() for destination in destinations]
    assert len(set(given)) == 52, "and none of them for two calls"
    assert Counter(row.call_id for row in hall.decisions()) == Counter(answers.keys())
    assert Counter(lease.call_id for lease in hall.reservations().values()) == Counter(answers.keys())


def test_turns_are_strict_and_shares_even_however_many_ask_at_once(hall: Hall) -> None:
    agents = named("agent", 7)
    hall.configure(agents=agents, groups={"sales": {"members": agents, "ring_seconds": 0}})
    hall.see(agents)
    hall.all_ask([[Call(f"call {n} {k}") for k in range(CALLERS)] for n in range(4)])
    with hall.database.reading() as session:
        rows = session.scalars(select(models.Decision.sip_login).order_by(models.Decision.asked_at, models.Decision.id))
        offered = list(rows)
    assert offered == [agents[n % 7] for n in range(4 * CALLERS)], "each in turn, and nobody was ever overlooked"


def test_groups_that_share_agents_promise_nobody_twice_and_overlook_nobody(hall: Hall) -> None:
    """Six groups of the same twelve agents: locks on groups keep nothing apart, the lease itself does."""
    agents = named("agent", 12)
    groups = named("group", 6)
    hall.configure(
        agents=agents,
        groups=dict.fromkeys(groups, agents),
        rules=[{"name": name, "groups": [name], "conditions": {"dialed": [name]}} for name in groups],
    )
    hall.see(agents)
    lost_races = 0
    for n in range(3):
        told = hall.all_ask([[Call(f"call {n} {k}", dialed=groups[k % 6]) for k in range(CALLERS)]])
        lost_races += told.lost_races
        given = Counter(each.destination for each in told.answers)
        assert given.pop(OVERFLOW) == CALLERS - 12
        assert given == Counter(agents)
        hall.free_everybody()
    if hall.database.is_sqlite:
        assert lost_races == 0
    else:
        assert lost_races > 0, "else this did not try what it says"


def test_chains_that_cross_do_not_deadlock(hall: Hall) -> None:
    one, other = named("one", 10), named("other", 10)
    hall.configure(
        agents=[*one, *other],
        groups={"one": {"members": one, "ring_seconds": 3600}, "other": {"members": other, "ring_seconds": 3600}},
        rules=[
            {"name": "there", "groups": ["one", "other"], "conditions": {"dialed": ["1"]}},
            {"name": "and back", "groups": ["other", "one"], "conditions": {"dialed": ["2"]}},
        ],
        cool_down_seconds=0,
    )
    hall.see([*one, *other])
    told = hall.all_ask([[Call(f"call {k}", dialed=f"{1 + k % 2}") for k in range(CALLERS)]])
    given = Counter(each.destination for each in told.answers)
    assert given.pop(OVERFLOW) == CALLERS - 20
    assert given == Counter([*one, *other])

    # The next step of each, with a lease to give back. Nobody is promised twice, and nobody twice to one call.
    hall.all_ask([[Call(f"call {k}", "2", dialed=f"{1 + k % 2}") for k in range(CALLERS)]])
    offers = [row for row in hall.decisions() if row.sip_login]
    assert len({(row.call_id, row.sip_login) for row in offers}) == len(offers)
    holders = Counter(lease.call_id for lease in hall.reservations().values())
    assert set(holders.values()) == {1}, "a call holds one agent at a time"
    assert len(offers) > 20
