"""A record is the same packed and unpacked, decides the same, and takes little room."""

from __future__ import annotations

import time
from base64 import b85decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from router.core.decision import decide
from router.core.model import Agent, Call, Decision, Group, Member, Project, Status
from router.core.rules import Rule
from router.core.strategies import STRATEGIES
from router.db import models
from router.db.personal import erase_caller, export_caller
from router.db.records import STUB, Inputs, pack, record_of, snapshot_of, trials_as_json, unpack
from router.db.types import to_micros, use_encryption_keys
from router.routing.route import recompute
from tests.world import World, without_database, world_at

NOW = to_micros(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
HOUR = 3_600_000_000
MEMBERS = 100

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Case:
    """A project with groups that overlap, what is known of its agents at an instant, and the decision."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = Random(seed)
        count = dice.choice([1, 4, 40, 150])
        agents = [
            Agent(
                number,
                f"agent {number}",
                (f"acme_{dice.choice('abc')}{number}", f"mob_{number}")[: dice.randint(1, 2)],
                daily_cap=dice.choice([None, 5]),
                max_talk_per_day=dice.choice([None, None, 3]),
                away_until=dice.choice([None, None, None, datetime(2026, 11, 23, dice.choice([11, 13]), tzinfo=UTC)]),
                deputy_id=dice.choice([None, dice.randint(1, count)]),
            )
            for number in range(1, count + 1)
        ]
        groups = [self.group(number, agents) for number in range(1, dice.randint(1, 3) + 1)]
        rule = Rule(1, "all", group_ids=tuple(group.id for group in groups))
        self.project = Project(
            1,
            "acme",
            1,
            agents={agent.id: agent for agent in agents},
            groups={group.id: group for group in groups},
            rules=(rule,),
        )
        logins = [login for agent in agents for login in agent.sip_logins]
        busy = dice.choice([0.0, 0.5, 1.0])
        self.online = frozenset(login for login in logins if dice.random() < 0.8)
        self.speaking = frozenset(login for login in logins if dice.random() < busy)
        states = {agent.id: self.state(agent.id) for agent in agents}
        self.inputs: dict[str, Any] = {
            "laws": 2,
            "now": NOW,
            "seed": "c1",
            "began_at": dice.choice([None, NOW - 1_000_000]),
            "events": [[login, dice.random() < 0.5] for login in logins[:2]],
            "members": [self.member(group, states[m.agent_id]) for group in groups for m in group.members],
            "agents": [states[agent.id] for agent in agents[:2]],
            "tried": logins[:1],
            "last_talk": None,
        }
        self.call = Call("c1", "1", "380501112233", "380443330001", "in", {"name": "Олена\0"})
        decision = self.decided(self.inputs)
        self.trials = trials_as_json(decision)
        self.record: dict[str, Any] = {
            "call": {"step": "1", "caller": "380501112233", "params": {"name": "Олена\0"}},
            "received": {"body": "caller=380501112233"},
            "inputs": self.inputs,
            "trials": self.trials,
            "answer": None,
        }

    def group(self, number: int, agents: list[Agent]) -> Group:
        dice = self.dice
        chosen = dice.sample(agents, dice.randint(1, len(agents)))
        if dice.random() < 0.5:
            chosen.sort(key=lambda agent: agent.id)
        members = tuple(
            Member(agent.id, dice.choice([1, 1, 2]), position, dice.choice([1, 1, 3]))
            for position, agent in enumerate(chosen)
        )
        return Group(number, f"group {number}", dice.choice(sorted(STRATEGIES)), members)

    def instant(self) -> int | None:
        return self.dice.choice(
            [None, NOW + self.dice.randint(-5 * HOUR, HOUR // 4), NOW - self.dice.randint(0, 9 * HOUR)]
        )

    def state(self, agent_id: int) -> list[Any]:
        dice = self.dice
        until = [self.instant() for _ in range(4)]
        day = dice.choice([None, "2026-11-23", "2026-11-22"])
        status = dice.choice([Status.AVAILABLE.value] * 4 + [Status.ON_BREAK.value])
        talked = dice.choice([0, dice.randint(0, 20_000)])
        return [agent_id, status, *until, dice.randint(0, 30), day, self.instant(), self.instant(), talked]

    def member(self, group: Group, state: list[Any]) -> list[Any]:
        dice = self.dice
        member = next(member for member in group.members if member.agent_id == state[0])
        stood_at = [
            dice.choice([0, dice.randint(0, 2**50)]),
            dice.choice([0, member.weight, 2]),
            member.tier,
            dice.choice([0, NOW]),
            dice.choice([0, 4000]),
        ]
        day = dice.choice([None, "2026-11-23"])
        return [group.id, dice.randint(0, 10**6), stood_at, day and dice.choice([None, 3]), day, *state]

    def decided(self, inputs: dict[str, Any]) -> Decision:
        return decide(
            self.project, self.call, snapshot_of(Inputs.of_json(inputs), self.online, self.speaking, ZoneInfo("UTC"))
        )


@given(record=st.dictionaries(st.text(), json_values, max_size=5))
def test_any_record_is_the_same_packed_and_unpacked(record: dict[str, Any]) -> None:
    assert unpack(pack(record, None), None) == record


@given(
    broken=st.fixed_dictionaries(
        {"call": json_values, "inputs": json_values, "trials": st.lists(st.tuples(json_values, st.lists(json_values)))}
    )
)
def test_a_record_of_another_shape_is_the_same_too(broken: dict[str, Any]) -> None:
    record = {**broken, "trials": [list(trial) for trial in broken["trials"]] * 40}
    assert unpack(pack(record, None), None) == record


@given(seed=st.integers(0, 2**32))
def test_what_was_asked_and_answered_is_the_same_and_what_was_known_decides_the_same(seed: int) -> None:
    case = Case(seed)
    found = unpack(pack(case.record, case.project), case.project)
    assert found.keys() == case.record.keys()
    for name in ("call", "received", "trials", "answer"):
        assert found[name] == case.record[name]
    now, then = case.decided(found["inputs"]), case.decided(case.inputs)
    assert (now.trials, now.answer[:4]) == (then.trials, then.answer[:4])
    now_members, then_members = (
        [(row[:2], row[2][:4], row[3:6]) for row in inputs["members"]] for inputs in (found["inputs"], case.inputs)
    )
    assert now_members == then_members


@given(seed=st.integers(0, 2**32))
def test_what_is_left_out_is_left_out_once(seed: int) -> None:
    case = Case(seed)
    found = unpack(pack(case.record, case.project), case.project)
    assert unpack(pack(found, case.project), case.project) == found


@given(seed=st.integers(0, 2**32), forged=st.integers(0, 2**32))
def test_what_no_rule_of_today_would_decide_is_given_back_too(seed: int, forged: int) -> None:
    """Decided by another release: another order, other keys, other logins, agents that nobody knows."""
    case, dice = Case(seed), Random(forged)
    for _group, candidates in case.trials:
        eligible = [row for row in candidates if row[2] is None]
        dice.shuffle(eligible)
        candidates[:] = [*eligible, *(row for row in candidates if row[2] is not None)]
        for row in dice.sample(candidates, min(3, len(candidates))):
            row[0], row[1] = dice.choice([row[0], 10**6]), dice.choice(["", "somebody", row[1]])
            row[3:-2] = [dice.choice([key, -(2**40), "ab"]) for key in row[3:-2]]
    found = unpack(pack(case.record, case.project), case.project)
    assert found["trials"] == case.record["trials"]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_who_was_considered_is_told_though_the_configuration_is_gone(seed: int) -> None:
    case = Case(seed)
    found = unpack(pack(case.record, case.project), None)
    told = [(group, {(row[0], row[2]) for row in rows}) for group, rows in found["trials"]]
    assert told == [(group, {(row[0], row[2]) for row in rows}) for group, rows in case.trials]


PACKED_BEFORE = (
    "0*zB!3cw%?yHE$I?!nF?e(fB)`?NmDo=mEwq_sg}2>oGpwsWyJn|+tNoMuGW>f$!Nh^uu=tNSZe#UV!`a|FvL(HKisnY6*5)$)A9H}K*GrPuy8*"
    "1_YgS<}e_ebP~yLA;V6Se1Joan|0a;6ka)gh#?k*i{_k0Ro%_I0|qS-~+fQc#{FDBwUKgnV?~Y7-5D"
)
"""As a release packed it that counted no talks: twenty members of a group with `fewest_calls`."""


def test_what_was_packed_before_talks_were_counted_decides_the_same() -> None:
    numbers = range(1, 21)
    group = Group(1, "sales", "fewest_calls", tuple(Member(n, 1 + n % 2, n) for n in numbers))
    agents = {n: Agent(n, f"agent {n}", (f"login{n}",)) for n in numbers}
    project = Project(1, "acme", 1, agents=agents, groups={1: group}, rules=(Rule(1, "all", group_ids=(1,)),))
    found = unpack(b85decode(PACKED_BEFORE), project)
    online = frozenset(f"login{n}" for n in numbers)
    snapshot = snapshot_of(Inputs.of_json(found["inputs"]), online, frozenset(), ZoneInfo("UTC"))
    assert trials_as_json(decide(project, Call("c1"), snapshot)) == found["trials"]
    assert {state.answered_today for state in snapshot.agents.values()} == {0, 1, 2, 3, 4}
    assert unpack(pack(found, project), project) == found
    assert pack(found, project)[:1] == b85decode(PACKED_BEFORE)[:1], "which that release can read"


# ---- in the database


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(migrated_url: str, tmp_path: Path) -> Iterator[World]:
    with world_at(migrated_url, tmp_path) as world:
        yield world


def open_office(world: World, strategy: str = "longest_idle", members: int = MEMBERS) -> None:
    """A group in which everybody has clocks of their own, to the microsecond, and two logins."""
    dice = Random(1)
    names = [f"brandcom_{dice.choice(['olena', 'ivan', 'taras'])}.{dice.randrange(10**9):09}" for _ in range(members)]
    world.configure(
        agents={name: {"logins": [name, f"{name}_mob"]} for name in names},
        groups={
            "sales": {
                "strategy": strategy,
                "members": [{"agent": name, "weight": dice.randint(1, 9)} for name in names],
            }
        },
    )
    world.see([name for name in names if dice.random() < 0.9], dice.sample(names, members // 5))
    now = datetime.now(UTC)
    with world.database.writing() as session:
        for state in session.scalars(select(models.AgentState)):
            state.available_since_at = now - timedelta(microseconds=dice.randrange(6 * HOUR))
            state.last_talk_end_at = now - timedelta(microseconds=dice.randrange(2 * HOUR))
            state.wrap_up_until = state.last_talk_end_at + timedelta(seconds=15)
            state.day, state.answered_today = now.date(), dice.randrange(40)
            state.talked_today = 150 * state.answered_today + dice.randrange(900)
            state.status = dice.choice(["available"] * 9 + ["on_break"])
        for clock in session.scalars(select(models.MemberClock)):
            clock.last_offered, clock.day = dice.randrange(90_000, 90_150), now.date()
            clock.head_start = dice.randrange(3)
            clock.head_start_seconds = 150 * clock.head_start
            member = session.get_one(models.Member, (clock.group_id, clock.agent_id))
            clock.tier, clock.weight = member.tier, member.weight
            if strategy == "weighted":
                clock.virtual_time = 2**45 + dice.randrange(2**30 // member.weight)


def ask_in_full(world: World, number: int) -> int:
    """A call as Ringostat tells of it; the decision's id."""
    caller, call_id = f"38050{1110000 + number}", f"ua9_-{1790775458 + number}.{2139025 + number}"
    params = {"call_id": call_id, "step_forward": "webhookNumber:1", "userfield": caller, "dst": "380443330001"}
    body = "&".join(f"{name}={value}" for name, value in params.items())
    received = {
        "method": "POST", "query": "", "content_type": "application/x-www-form-urlencoded", "body": body,
        "remote": "203.0.113.7", "user_agent": "ringostat HTTP Client v1.1", "form": "ringostat form",
        "understood": {"call_id": "body call_id", "step": "body step_forward", "caller": "body userfield"},
        "problems": [],
    }  # fmt: skip
    call = Call(call_id, "webhookNumber:1", caller, "380443330001", "", params)
    routed = world.routing().route_call(world.project_id, call, deadline=time.monotonic() + 60, received=received)
    return routed.decision_id


def test_decisions_of_a_hundred_candidates_take_little_room_and_are_made_again_alike(
    world: World, strategy: str
) -> None:
    open_office(world, strategy)
    count = 24
    decision_ids = [ask_in_full(world, number) for number in range(count)]
    with world.database.writing() as session:
        if world.database.is_sqlite:
            query = "SELECT sum(pgsize) FROM dbstat WHERE name = 'decisions' AND pagetype = 'leaf'"
        else:  # of the rows, with what each page adds: the table's own pages hold rows of other tests as well
            query = "SELECT sum(pg_column_size(decisions.*) + 28) FROM decisions"
        taken = session.execute(text(query)).scalar_one()
    assert taken / count < 4e9 / (30_000 * 90)  # 4 GB for 30,000 calls a day over 90 days
    for decision_id in decision_ids[::6]:
        with world.database.reading() as session:
            row = session.get_one(models.Decision, decision_id)
            assert row.packed is not None
            assert row.record == STUB
            again = recompute(session, decision_id)
            assert again.is_same
            assert again.decision == recompute(session, decision_id).decision
            assert len(record_of(session, row)["trials"][0][1]) == MEMBERS


def test_a_record_that_cannot_be_packed_is_stored_plain(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("router.db.records.pack", fail)
    open_office(world, members=3)
    decision_id = ask_in_full(world, 1)
    row = world.decision(decision_id)
    assert row.packed is None
    assert row.record["received"]["user_agent"] == "ringostat HTTP Client v1.1"
    with world.database.reading() as session:
        assert recompute(session, decision_id).is_same


@pytest.mark.parametrize("members", [3, MEMBERS])
def test_a_caller_is_exported_from_packed_records_and_erased_from_them(world: World, members: int) -> None:
    open_office(world, members=members)
    decision_id = ask_in_full(world, 1)
    (exported,) = export_caller(world.database, world.project_id, "380501110001", "test")
    assert exported["params"]["userfield"] == "380501110001"
    assert "380501110001" in exported["received"]["body"]
    trials = world.record(world.decision(decision_id))["trials"]
    erase_caller(world.database, world.project_id, "380501110001", "test")
    row = world.decision(decision_id)
    record = world.record(row)
    assert row.packed is not None
    assert "501110001" not in str((row.caller, row.record, record))
    assert record["trials"] == trials
    assert record["erased_at"]
    assert list(export_caller(world.database, world.project_id, "380501110001", "test")) == []


def test_decisions_made_without_the_database_are_packed_too(world: World) -> None:
    use_encryption_keys([Fernet.generate_key()])
    open_office(world)
    assert world.ask("away", routing=without_database(world)).degraded
    world.routing().keep_up()
    (row,) = world.decisions()
    assert row.packed is not None
    assert len(world.record(row)["trials"][0][1]) == MEMBERS
