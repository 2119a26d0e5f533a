"""From a question to an answer, on both databases: one question one answer, configuration and presence as they are at
that instant, and every decision recomputed from what was stored with it.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import time_machine
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import delete, select, text

from router.core.model import Call, SkipReason, Status
from router.core.strategies import STRATEGIES
from router.db import claim_sql, models
from router.db.claim import LostRaceError, PostgresTransaction, SqliteTransaction, question
from router.db.personal import erase_caller
from router.db.records import record_of, store_record
from router.db.retention import Pruner
from router.routing.route import NotRecomputableError, recompute
from tests.world import FREE, FRESH, OVERFLOW, World, destinations, the_agent_is_deleted, without_database, world_at

STALE = FRESH + 10
QUICK = Call(call_id="quick", caller="380501112233", dialed="380441112233")


# ---- one question, one answer


def test_the_same_question_again_gets_the_stored_answer_and_nothing_changes(sales: World) -> None:
    first = sales.ask("call", "step")
    again = [sales.ask("call", "step"), sales.ask("call", "step")]  # each process knows nothing of the others
    assert [(each.destination, each.decision_id, each.decision) for each in again] == [
        (first.destination, first.decision_id, None)
    ] * 2
    assert first.decision is not None
    assert len(sales.decisions()) == 1
    assert list(sales.reservations()) == [first.destination]


def test_the_same_question_after_the_retry_window_goes_to_another(sales: World) -> None:
    first = sales.ask("call", "step")
    sales.later(6)
    second = sales.ask("call", "step")
    assert second.destination != first.destination
    assert sales.skips(second)[first.destination] == SkipReason.ALREADY_TRIED
    one, other = sales.decisions()
    assert (one.outcome, one.attempt, one.ended_at) == ("no_answer", 0, other.asked_at)
    assert (other.outcome, other.attempt) == ("", 1)
    assert list(sales.reservations()) == [second.destination], "the one who did not answer is free for other calls"
    state = sales.state(first.destination)
    assert state.no_answers == 1
    assert state.cooling_until == other.asked_at + timedelta(seconds=30)
    assert sales.skips(sales.ask("another"))[first.destination] == SkipReason.COOLING_DOWN


def test_the_next_step_goes_to_another_at_once(sales: World) -> None:
    asked = [sales.ask("call", f"step {n}") for n in range(4)]
    assert destinations(asked) == ["ann", "ben", "cat", OVERFLOW]
    assert sales.skips(asked[3]) == {
        "ann": SkipReason.COOLING_DOWN,
        "ben": SkipReason.COOLING_DOWN,
        "cat": SkipReason.ALREADY_TRIED,
    }
    assert [row.outcome for row in sales.decisions()] == ["no_answer"] * 3 + [""]
    assert sales.reservations() == {}


def test_a_login_is_never_named_twice_to_a_call_though_it_cooled_down(sales: World) -> None:
    asked = []
    for n in range(4):
        asked.append(sales.ask("call", f"step {n}"))
        sales.later(40)
    assert destinations(asked) == ["ann", "ben", "cat", OVERFLOW]
    assert set(sales.skips(asked[3]).values()) == {SkipReason.ALREADY_TRIED}


def test_what_a_call_was_told_before_is_found_by_its_key_in_a_long_log(sales: World) -> None:
    sales.ask("call")
    columns = [column.name for column in models.Decision.__table__.columns if column.name != "id"]
    ours = ", ".join("call_id || number" if name == "call_id" else name for name in columns)
    numbers = "WITH RECURSIVE n AS (SELECT 1 AS number UNION ALL SELECT number + 1 FROM n WHERE number < 2000)"
    with sales.database.writing() as session:
        session.execute(text(f"INSERT INTO decisions ({', '.join(columns)}) {numbers} SELECT {ours} FROM decisions, n"))  # noqa: S608
        session.execute(text("ANALYZE"))  # as either database does by itself, sooner or later
    if sales.database.is_sqlite:
        nothing = defaultdict[str, None](lambda: None)
        with sales.database.call_connection() as connection:
            plans = {
                name: connection.execute(f"EXPLAIN QUERY PLAN {sql}", nothing).fetchall()
                for name, sql in claim_sql.SQLITE.items()
            }
    else:
        theirs = {name: each.sql for name, each in claim_sql.POSTGRES.items() if b"decisions" in each.sql}
        with psycopg.connect(sales.database.conninfo) as connection:
            plans = {
                name: connection.execute(b"EXPLAIN (GENERIC_PLAN) " + sql).fetchall() for name, sql in theirs.items()
            }
    looked = [
        (name, step)
        for name, plan in plans.items()
        for *_, step in plan
        if re.search(r"(SCAN|SEARCH|Scan).* (\w+_)?decisions", step) and "Bitmap Heap Scan" not in step
    ]
    assert {name for name, _ in looked} == {"READ", "CALL", "AGENTS", "OUTCOME"}
    by_key = re.compile("uq_decisions_question|pk_decisions|PRIMARY KEY|ix_decisions_project_id_caller_id")
    assert [(name, step) for name, step in looked if not by_key.search(step)] == []


def test_a_step_asked_again_out_of_order_gets_its_own_answer(sales: World) -> None:
    first, second = sales.ask("call", "1"), sales.ask("call", "2")
    assert sales.ask("call", "1").decision_id == first.decision_id
    assert sales.ask("call", "2").decision_id == second.decision_id


def test_calls_without_an_id_are_all_different(sales: World) -> None:
    assert destinations([sales.ask(), sales.ask(), sales.ask(), sales.ask()]) == ["ann", "ben", "cat", OVERFLOW]
    assert {row.outcome for row in sales.decisions()} == {""}


BOGUS = "%CALLID%"
ANN, BEN, CAT = ("380501112233", "380671112233", "380931112233")


def test_the_same_id_with_another_caller_is_another_call(sales: World) -> None:
    told = [sales.ask(BOGUS, caller=caller) for caller in (ANN, BEN, CAT)]
    assert destinations(told) == FREE
    assert [row.outcome for row in sales.decisions()] == ["", "", ""], "no no-answer is held against anybody"
    assert len({row.call_id for row in sales.decisions()}) == 3
    again = [sales.ask(BOGUS, caller=caller) for caller in (CAT, ANN, BEN)]
    assert [one.decision_id for one in again] == [told[place].decision_id for place in (2, 0, 1)]


def test_each_caller_with_the_same_id_goes_on_by_steps_of_their_own(sales: World) -> None:
    first, other = sales.ask(BOGUS, "1", caller=ANN), sales.ask(BOGUS, "1", caller=BEN)
    assert (first.destination, other.destination) == ("ann", "ben")
    assert sales.ask(BOGUS, "2", caller=BEN).destination == "cat"
    outcomes = {row.destination: row.outcome for row in sales.decisions()}
    assert outcomes == {"ann": "", "ben": "no_answer", "cat": ""}
    sales.later(20)
    assert sales.ask(BOGUS, "1", caller=BEN).decision_id != other.decision_id, "asked again after the retry window"


@pytest.mark.parametrize("callers", [("", ANN), (ANN, ""), (ANN, ANN)])
def test_a_caller_who_is_not_known_makes_no_other_call(sales: World, callers: tuple[str, str]) -> None:
    first = sales.ask("call", "1", caller=callers[0])
    assert sales.ask("call", "1", caller=callers[1]).decision_id == first.decision_id
    assert sales.ask("call", "2", caller=callers[1]).destination == "ben"
    assert {row.call_id for row in sales.decisions()} == {"call"}


def test_an_id_that_two_callers_have_stands_among_the_problems_of_the_second(sales: World) -> None:
    for caller in (ANN, BEN):
        call = Call(call_id=BOGUS, caller=caller, dialed="380441112233")
        sales.routing().route_call(
            sales.project_id, call, deadline=time.monotonic() + 60, received={"problems": ("a", "b")}
        )
    first, second = (sales.record(row)["received"] for row in sales.decisions())
    assert first == {"problems": ["a", "b"]}
    assert second["problems"][:2] == ["a", "b"]
    assert second["problems"][2] == {"code": "shared_call_id", "sent": "'%CALLID%'"}
    assert second["empty_id"] == BOGUS


def test_callers_with_the_same_id_at_the_same_instant_each_get_an_agent(sales: World) -> None:
    routings = [sales.routing() for _ in range(6)]
    gate = threading.Barrier(len(routings))

    def ask(place: int) -> tuple[str, str]:
        caller = (ANN, BEN, CAT)[place % 3]
        gate.wait()
        return caller, sales.ask(BOGUS, caller=caller, routing=routings[place]).destination

    with ThreadPoolExecutor(len(routings)) as pool:
        told = set(pool.map(ask, range(len(routings))))
    assert {caller for caller, _ in told} == {ANN, BEN, CAT}
    assert sorted(destination for _, destination in told) == FREE, "one for each, and copies the same"


def test_a_call_id_is_one_projects_own(sales: World, tmp_path: Path) -> None:
    first = sales.ask("call")
    with sales.database.writing() as session:
        session.execute(text("UPDATE projects SET name = 'other'"))
    other = World(sales.database.url, tmp_path)
    other.configure(agents=["dan"], groups={"support": ["dan"]})
    other.see(["dan"])
    assert (first.destination, other.ask("call").destination) == ("ann", "dan")
    other.database.dispose()


def test_a_repeated_question_is_answered_as_before_though_all_has_changed(sales: World) -> None:
    first = sales.ask("call", "step")
    with sales.change() as session:
        session.execute(delete(models.RuleGroup))
        session.execute(delete(models.Rule))
    sales.see([])
    assert sales.ask("call", "step").destination == first.destination


def test_after_so_many_no_answers_in_a_row_an_agent_is_on_break(world: World) -> None:
    world.configure(agents=FREE[:1], groups={"sales": FREE[:1]}, break_after_no_answers=2)
    world.see(FREE)
    for n in range(2):
        world.ask(f"call {n}", "1")
        world.ask(f"call {n}", "2")
        world.later(40)
    state = world.state("ann")
    assert (state.status, state.status_reason, state.no_answers) == (Status.ON_BREAK, "no_answers", 2)
    assert world.skips(world.ask("call 3")) == {"ann": SkipReason.ON_BREAK}


# ---- the lease


def test_who_is_reserved_is_not_offered_another_call_until_the_lease_ends(world: World) -> None:
    world.configure(agents=["ann"], groups={"sales": {"members": ["ann"], "ring_seconds": 20}})
    world.see(["ann"])
    first = world.ask("one")
    lease = world.reservations()["ann"]
    assert lease.expires_at - lease.claimed_at == timedelta(seconds=20)
    assert lease.claimed_at == world.decision(first.decision_id).asked_at
    assert (lease.call_id, lease.decision_id) == ("one", first.decision_id)
    assert world.skips(world.ask("two")) == {"ann": SkipReason.RESERVED}
    world.later(21)
    assert world.ask("three").destination == "ann"
    assert world.reservations()["ann"].call_id == "three"


def test_a_lease_without_length_holds_nobody(world: World) -> None:
    world.configure(agents=["ann"], groups={"sales": {"members": ["ann"], "ring_seconds": 0}})
    world.see(["ann"])
    assert destinations([world.ask(f"call {n}") for n in range(3)]) == ["ann"] * 3


def test_an_agent_in_two_groups_is_promised_once(world: World) -> None:
    world.configure(
        agents=["ann"],
        groups={"sales": ["ann"], "support": ["ann"]},
        rules=[
            {"name": "sales", "groups": ["sales"], "conditions": {"dialed": ["1"]}},
            {"name": "support", "groups": ["support"]},
        ],
    )
    world.see(["ann"])
    assert world.ask("one", dialed="1").destination == "ann"
    assert world.skips(world.ask("two", dialed="2")) == {"ann": SkipReason.RESERVED}


def test_a_preferred_agent_is_reserved_without_a_turn_in_any_group(world: World) -> None:
    world.configure(
        agents={"ann": {}, "dan": {"external_id": "77"}},
        groups={"sales": {"members": ["ann"], "ring_seconds": 11}},
        rules=[{"name": "own", "groups": ["sales"], "prefer": "param", "prefer_param": "Manager"}],
    )
    world.see(["ann", "dan"])
    routed = world.ask("one", params={"manager": "77"})
    assert routed.destination == "dan"
    lease = world.reservations()["dan"]
    assert (lease.group_id, lease.expires_at - lease.claimed_at) == (None, timedelta(seconds=11))
    assert world.ask("two", params={"manager": "77"}).destination == "ann"


# ---- what was read is what decides


def test_a_change_of_configuration_counts_from_the_next_call_in_every_process(sales: World) -> None:
    processes = [sales.routing(), sales.routing()]
    for n, routing in enumerate(processes):
        sales.ask(f"before {n}", routing=routing)
    with sales.change() as session:
        session.scalars(select(models.Agent).where(models.Agent.name == "cat")).one().paused = True
        version = session.get_one(models.Project, sales.project_id).version + 1
    for n, routing in enumerate(processes):
        after = sales.ask(f"after {n}", routing=routing)
        assert sales.skips(after)["cat"] == SkipReason.PAUSED
        assert sales.decision(after.decision_id).config_version == version


def test_a_change_of_configuration_under_way_holds_up_no_call(migrated_postgres_url: str, tmp_path: Path) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=FREE, groups={"sales": FREE})
        world.see(FREE)
        routing = world.routing()
        with world.change() as session:
            session.scalars(select(models.Agent).where(models.Agent.name == "cat")).one().paused = True
            session.flush()
            with ThreadPoolExecutor() as pool:
                routed = pool.submit(world.ask, "call", routing=routing).result(timeout=60)
        assert routed.destination == "ann"
        assert routed.degraded == ""


def test_a_status_counts_at_once(sales: World) -> None:
    routing = sales.routing()
    sales.ask("before", routing=routing)
    sales.declare("ben", status=Status.ON_BREAK)
    assert sales.skips(sales.ask("after", routing=routing))["ben"] == SkipReason.ON_BREAK


def test_the_newest_reading_and_later_events_count(sales: World) -> None:
    routing = sales.routing()
    sales.ask("before", routing=routing)
    sales.see(FREE, speaking=["ben"])
    sales.hear("cat", speaking=True)
    routed = sales.ask("after", routing=routing)
    assert sales.skips(routed) == {
        "ann": SkipReason.RESERVED,
        "ben": SkipReason.SPEAKING,
        "cat": SkipReason.SPEAKING,
    }
    sales.see(FREE)
    assert sales.ask("later", routing=routing).destination == "ben", "a reading that began later knows better"


def test_limits_count_in_the_projects_local_day(world: World) -> None:
    world.configure(agents={"ann": {"daily_cap": 2}}, groups={"sales": {"members": ["ann"], "ring_seconds": 0}})
    world.see(["ann"])
    today = datetime.now(UTC).date()
    world.declare("ann", day=today, answered_today=2)
    assert world.skips(world.ask("one")) == {"ann": SkipReason.AT_CAP}
    world.declare("ann", day=today - timedelta(days=1))
    assert world.ask("two").destination == "ann"


def test_who_has_talked_enough_today_gets_no_call(world: World) -> None:
    limit = {"more": {"max_talk_per_day": 30}}
    world.configure(agents={"ann": limit, "ben": limit}, groups={"sales": ["ann", "ben"]})
    world.see(["ann", "ben"])
    today = datetime.now(UTC).date()
    world.declare("ann", day=today, talked_today=1800)
    world.declare("ben", day=today, talked_today=1799)
    routed = world.ask("one")
    assert routed.destination == "ben"
    assert world.skips(routed) == {"ann": SkipReason.TALKED_ENOUGH, "ben": ""}


# ---- stale presence


class Source:
    """Counts how often it is asked; says what it is told to."""

    def __init__(self, world: World, says: list[str] | None) -> None:
        self.world, self.says, self.asked = world, says, 0
        self.deadlines: list[float] = []

    def __call__(self, project_id: int, deadline: float) -> bool:
        self.asked += 1
        self.deadlines.append(deadline)
        if self.says is not None:
            self.world.see(self.says)
        return self.says is not None


def test_stale_presence_is_asked_for_once_and_decides(sales: World) -> None:
    sales.see(FREE, age=STALE)
    source = Source(sales, ["cat"])
    routing = sales.routing(source)
    routed = sales.ask("one", routing=routing)
    assert (routed.destination, source.asked) == ("cat", 1)
    assert routed.presence_age is not None
    assert routed.presence_age < timedelta(seconds=FRESH)
    assert sales.ask("two", routing=routing).destination == OVERFLOW
    assert source.asked == 1, "fresh presence is not asked for"


def test_a_reading_of_before_the_clock_was_set_back_is_not_fresh(sales: World) -> None:
    """Nobody knows how old it is; and all events may be newer."""
    sales.hear("ann", speaking=True)
    sales.see(FREE, age=-120)
    source = Source(sales, None)
    told = sales.ask("one", routing=sales.routing(source))
    assert (told.destination, source.asked) == ("ben", 1)
    assert told.presence_age is not None
    assert told.presence_age > timedelta(seconds=FRESH), "which is the longest for which a reading is fresh"
    source.says = ["cat"]
    assert sales.ask("two", routing=sales.routing(source)).destination == "cat"
    with sales.database.reading() as session:
        assert all(recompute(session, decision.id).is_same for decision in sales.decisions())


def test_when_nobody_tells_the_projects_policy_decides(world: World) -> None:
    world.configure(agents=FREE, groups={"sales": FREE}, presence_when_unknown="last_known")
    world.see(FREE, age=STALE)
    source = Source(world, None)
    routed = world.ask("one", routing=world.routing(source))
    assert (routed.destination, source.asked, routed.degraded) == ("ann", 1, "")
    world.see(FREE, age=120)
    assert set(world.skips(world.ask("two", routing=world.routing(source))).values()) == {SkipReason.PRESENCE_UNKNOWN}


def test_asking_the_source_leaves_time_to_decide(sales: World) -> None:
    sales.see(FREE, age=STALE)

    asked_until = []

    def in_vain(project_id: int, deadline: float) -> bool:
        asked_until.append(deadline)
        return False

    call, deadline = Call("one", caller="1", dialed="2"), time.monotonic() + 300
    routed = sales.routing(in_vain).route_call(sales.project_id, call, deadline=deadline)
    assert (routed.destination, routed.degraded) == ("ann", "")
    assert deadline - 300 < asked_until[0] < deadline - 50


def test_a_call_that_needs_nobody_asks_for_nobodys_presence(world: World) -> None:
    world.configure(
        agents=FREE,
        groups={"sales": FREE},
        rules=[
            {"name": "blocked", "conditions": {"caller": ["666"]}, "overflow": ""},
            {"name": "everyone", "groups": ["sales"]},
        ],
    )
    world.see(FREE, age=3600)
    source = Source(world, None)
    routing = world.routing(source)
    assert world.ask("one", caller="666", routing=routing).destination == ""
    assert source.asked == 0
    world.ask("two", routing=routing)
    assert source.asked == 1


# ---- the boundary of a schedule


def closing(world: World, at: datetime) -> None:
    """Open until `at`, then closed: the calls go to a number."""
    with world.change() as session:
        session.add(
            models.Schedule(
                project_id=world.project_id, name="hours", time_zone="UTC", override="open", override_until=at
            )
        )
        session.flush()
        hours = session.scalars(select(models.Schedule)).one()
        for rule in session.scalars(select(models.Rule)):
            rule.position += 1
            rule.inside_id = hours.id
        world.add_rule(session, name="night", position=9, groups=["night shift"], outside_id=hours.id)


@pytest.mark.parametrize("skew", [-3600, -1, 1, 3600])
def test_the_databases_clock_decides_whether_it_is_open(
    migrated_postgres_url: str, tmp_path: Path, skew: float
) -> None:
    """Whatever the clock of the host that asks says: there is one answer, and it comes at once."""
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(
            agents=FREE,
            groups={"sales": FREE[:1], "night shift": FREE[1:]},
            rules=[{"name": "day", "groups": ["sales"]}],
        )
        world.see(FREE)
        now = datetime.now(UTC)
        closing(world, now + timedelta(seconds=1800))
        routing = world.routing()
        with time_machine.travel(now + timedelta(seconds=skew), tick=True):
            routed = routing.route_call(world.project_id, Call("one"), deadline=time.monotonic() + 60)
        assert (routed.destination, routed.degraded) == ("ann", "")
        with world.change() as session:
            session.scalars(select(models.Schedule)).one().override_until = now - timedelta(seconds=1800)
        with time_machine.travel(now - timedelta(seconds=2700), tick=True):
            routed = routing.route_call(world.project_id, Call("two"), deadline=time.monotonic() + 60)
        assert (routed.destination, routed.degraded) == ("ben", "")


def test_groups_that_only_the_databases_clock_asks_for_are_read_too(migrated_postgres_url: str, tmp_path: Path) -> None:
    """A rule that counts the free of a group, and opened between the two clocks: nobody is taken to be free unseen."""
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=FREE, groups={"sales": FREE[:1], "support": FREE[1:]}, rules=[])
        world.see(FREE)
        world.declare("ann", status=Status.ON_BREAK)
        now = datetime.now(UTC)
        with world.change() as session:
            hours = models.Schedule(
                project_id=world.project_id,
                name="hours",
                time_zone="UTC",
                override="closed",
                override_until=now - timedelta(minutes=5),
                open={"daily": ["00:00-24:00"]},
            )
            session.add(hours)
            session.flush()
            world.add_rule(
                session,
                name="sales are few",
                groups=["support"],
                inside_id=hours.id,
                free_group="sales",
                free_fewer_than=1,
            )
            world.add_rule(session, name="else", position=1, overflow="999")
        with time_machine.travel(now - timedelta(minutes=10), tick=True):
            routed = world.routing().route_call(world.project_id, Call("one"), deadline=time.monotonic() + 60)
        assert routed.destination == "ben"


# ---- whom the caller talked with last


def talked(world: World, agent: str, *, days_ago: float, caller: str = "380501112233") -> None:
    routed = world.ask(f"talk with {agent} {days_ago} days ago", caller=caller)
    with world.database.writing() as session:
        row = session.get_one(models.Decision, routed.decision_id)
        row.asked_at -= timedelta(days=days_ago)
        row.outcome, row.answered_agent_id = "answered", world.agent_id(session, agent)
        row.ended_at = row.asked_at
    world.free_everybody()


def last_agents(world: World, *rules: dict[str, Any]) -> None:
    world.configure(agents=FREE, groups={"sales": FREE}, rules=list(rules))
    world.see(FREE)


def test_prefers_who_last_talked_with_the_caller(world: World) -> None:
    last_agents(world, {"name": "own", "groups": ["sales"], "prefer": "last_agent", "prefer_days": 30})
    talked(world, "cat", days_ago=3)
    talked(world, "ben", days_ago=20)
    talked(world, "ann", days_ago=1, caller="1")
    assert world.ask("one").destination == "ben", "the last in the log"
    assert world.decisions()[-1].group_id is None


RETURNING = {"within": 2, "unit": "hours", "unanswered": False}


def returning(world: World, **before: Any) -> None:
    """Who called before goes to Ann, everybody else to Ben."""
    world.configure(
        agents=["ann", "ben"],
        groups={"again": ["ann"], "first": ["ben"]},
        rules=[
            {"name": "again", "groups": ["again"], "conditions": {"called_before": RETURNING | before}},
            {"name": "everybody", "groups": ["first"]},
        ],
    )
    world.see(["ann", "ben"])


def group_of(world: World, call_id: str, **asked: Any) -> str:
    """The group to which this call goes while everybody is free."""
    world.free_everybody()
    routed = world.ask(call_id, **asked)
    return {"ann": "again", "ben": "first", OVERFLOW: "first"}[routed.destination]


def recomputed_alike(world: World) -> bool:
    with world.database.reading() as session:
        return all(recompute(session, row.id).is_same for row in world.decisions())


def test_who_called_before_falls_under_the_rule_for_them(world: World) -> None:
    returning(world)
    assert group_of(world, "one", caller="1") == "first"
    assert group_of(world, "one", caller="1", step="2") == "first", "the same call goes on"
    assert group_of(world, "two", caller="2") == "first", "somebody else"
    assert group_of(world, "three", caller="1") == "again"
    assert [group_of(world, f"hidden {n}", caller="") for n in range(2)] == ["first", "first"]
    assert [group_of(world, "", caller="4") for _ in range(2)] == ["first", "again"], (
        "calls without an id are different"
    )
    world.later(2 * 3600 + 1)
    assert group_of(world, "four", caller="2") == "first", "too long ago"
    assert recomputed_alike(world)


@pytest.mark.parametrize("outcome", ["", "no_answer", "voicemail", "unknown", "answered"])
def test_only_who_was_not_answered_falls_under_a_rule_for_the_unanswered(world: World, outcome: str) -> None:
    returning(world, unanswered=True)
    world.ask("one", "1")
    world.ask("one", "2")
    with world.database.writing() as session:
        session.scalars(select(models.Decision).order_by(models.Decision.id)).first().outcome = outcome  # type: ignore[union-attr]
    assert group_of(world, "two") == ("first" if outcome == "answered" else "again")
    assert recomputed_alike(world)


def test_earlier_calls_are_read_for_rules_that_ask_for_them_alone(world: World) -> None:
    returning(world)
    world.ask("one")
    asked = world.ask("two")
    assert len(world.record(world.decision(asked.decision_id))["inputs"]["previous_call"]) == 2
    with world.change() as session:
        session.scalars(select(models.Rule).where(models.Rule.name == "again")).one().enabled = False
    asked = world.ask("three")
    assert "previous_call" not in world.record(world.decision(asked.decision_id))["inputs"]


def test_without_the_database_nobody_is_known_to_have_called_before(world: World) -> None:
    returning(world)
    world.ask("one")
    world.free_everybody()
    routing = without_database(world)
    assert world.ask("two", routing=routing).destination == "ben"
    world.routing().keep_up()
    assert recomputed_alike(world)


def test_an_agent_who_is_gone_hides_nobody_who_talked_before(world: World) -> None:
    last_agents(world, {"name": "own", "groups": ["sales"], "prefer": "last_agent", "prefer_days": 365})
    talked(world, "ben", days_ago=3)
    talked(world, "ann", days_ago=1)
    the_agent_is_deleted(world)
    routed = world.ask("one")
    assert (routed.destination, world.decision(routed.decision_id).group_id) == ("ben", None)
    with world.database.reading() as session:
        assert recompute(session, routed.decision_id).is_same


def test_who_last_talked_is_known_as_long_as_a_rule_looks_back_though_the_call_is_not(world: World) -> None:
    last_agents(world, {"name": "own", "groups": ["sales"], "prefer": "last_agent", "prefer_days": 365})
    for agent, days_ago in (("ben", 300), ("cat", 200), ("ann", 100), ("ann", 400)):
        talked(world, agent, days_ago=days_ago)
    Pruner(world.database).run()
    assert world.decisions() == []
    assert world.ask("one").destination == "ann"
    the_agent_is_deleted(world)
    world.free_everybody()
    assert world.ask("two").destination == "cat"
    with world.change() as session:
        session.get_one(models.Project, world.project_id).keep_days = 3650  # what went before does not come back
    world.free_everybody()
    assert world.ask("three").destination == "cat"
    with world.change() as session:
        session.scalars(select(models.Rule)).one().prefer_days = 250
    Pruner(world.database).run()
    with world.database.reading() as session:
        kept = session.scalars(select(models.LastTalk.agent_id)).all()
        assert len(kept) == 2, "ben's is older than any rule looks back"
    erase_caller(world.database, world.project_id, "380501112233", "test")
    with world.database.reading() as session:
        assert session.scalars(select(models.LastTalk)).all() == []


def test_a_talk_of_long_ago_counts_for_no_rule_that_looks_back_less_far(world: World) -> None:
    """A rule above that looks back further must not lend its eyes to the one that matches."""
    last_agents(
        world,
        {
            "name": "few free",
            "groups": ["sales"],
            "prefer": "last_agent",
            "prefer_days": 30,
            "free_group": "sales",  # never so few, but that is not known before all was read
            "free_fewer_than": 1,
        },
        {"name": "own", "groups": ["sales"], "prefer": "last_agent", "prefer_days": 7},
    )
    talked(world, "cat", days_ago=20)
    routed = world.ask("one")
    assert routed.destination != "cat"
    assert world.decision(routed.decision_id).group_id is not None
    talked(world, "cat", days_ago=3)
    assert world.ask("two").destination == "cat"


@pytest.mark.parametrize("hangs", ["last_talk", "load_published"])
def test_what_is_read_beside_takes_no_longer_than_the_call_has_time(
    hangs: str, migrated_postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world:
        last_agents(world, {"name": "own", "groups": ["sales"], "prefer": "last_agent", "prefer_days": 30})
        routing = world.routing()
        routing.keep_up()
        with world.change() as session:
            session.scalars(select(models.Agent).where(models.Agent.name == "cat")).one().paused = True
        monkeypatch.setattr(
            f"router.db.queries.{hangs}", lambda session, *_, **__: session.execute(text("SELECT pg_sleep(120)"))
        )
        began = time.monotonic()
        told = routing.route_call(world.project_id, QUICK, deadline=began + 1)
        took = time.monotonic() - began
    assert told.destination == "ann"
    assert told.degraded
    assert took < 60


# ---- threads of one process


def test_what_another_thread_learns_meanwhile_is_not_mixed_in(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision is made by the reading that its row names, and by no half of another."""
    routing = sales.routing()
    sales.ask("before", routing=routing)
    transaction = SqliteTransaction if sales.database.is_sqlite else PostgresTransaction
    read = transaction.read

    def read_while_another_learns(self: Any, **arguments: Any) -> Any:
        state = read(self, **arguments)
        known = routing.projects.known(sales.project_id)
        known.learn(state._replace(snapshot_id=99, presence=([], [])), known.seen)
        return state

    monkeypatch.setattr(transaction, "read", read_while_another_learns)
    routed = sales.ask("one", routing=routing)
    assert routed.destination == "ben"
    with sales.database.reading() as session:
        assert recompute(session, routed.decision_id).is_same


# ---- what goes wrong between reading and recording


def everybody_is_promised(world: World) -> None:
    with world.database.writing() as session:
        far = datetime(2100, 1, 1, tzinfo=UTC)
        for agent_id in session.scalars(select(models.Agent.id)):
            session.add(
                models.Reservation(
                    agent_id=agent_id,
                    project_id=world.project_id,
                    decision_id=0,
                    call_id="thief",
                    sip_login="",
                    claimed_at=far,
                    expires_at=far,
                )
            )


@pytest.mark.parametrize(
    ("meanwhile", "destination"), [(everybody_is_promised, OVERFLOW), (the_agent_is_deleted, "ben")]
)
def test_a_lost_race_is_decided_anew(
    migrated_postgres_url: str, tmp_path: Path, meanwhile: Callable[[World], None], destination: str
) -> None:
    """What somebody else did between reading and recording, past every lock of ours."""
    record = PostgresTransaction.record
    lost: list[LostRaceError] = []

    def record_too_late(self: Any, *arguments: Any) -> int:
        if not lost:
            meanwhile(acme)
        try:
            return record(self, *arguments)
        except LostRaceError as error:
            lost.append(error)
            raise

    with world_at(migrated_postgres_url, tmp_path) as acme, pytest.MonkeyPatch.context() as patch:
        acme.configure(agents=FREE, groups={"sales": FREE})
        acme.see(FREE)
        patch.setattr(PostgresTransaction, "record", record_too_late)
        routed = acme.ask("late")
        assert len(lost) == 1
        assert (routed.destination, routed.degraded) == (destination, "")


def test_a_deadlock_while_releasing_is_a_lost_race(migrated_postgres_url: str, tmp_path: Path) -> None:
    """Whoever else writes to the same rows in another order: the call is decided anew, and not without the database."""
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=FREE, groups={"sales": FREE})
        world.see(FREE)
        routing = world.routing()
        first = world.ask("call", "1", routing=routing)
        with world.database.writing() as session:
            session.execute(text("SET LOCAL deadlock_timeout = '10s'"))  # not this one is to be ended, but the call
            session.execute(text("UPDATE agent_states SET no_answers = no_answers WHERE no_answers = 0"))
            with ThreadPoolExecutor() as pool:
                asked = pool.submit(world.ask, "call", "2", routing=routing)
                deadline = time.monotonic() + 60
                while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                session.execute(
                    text("UPDATE decisions SET talked_seconds = 0 WHERE id = :id"), {"id": first.decision_id}
                )
                session.commit()
                second = asked.result(timeout=60)
        assert (second.destination, second.degraded) == ("ben", "")
        assert world.state("ann").no_answers == 1


def test_reads_what_was_committed_before_the_lock_whatever_the_database_prefers(
    migrated_postgres_url: str, tmp_path: Path
) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=FREE, groups={"sales": {"members": FREE, "ring_seconds": 0}})
        world.see(FREE)
        with world.database.writing() as session:
            name = conninfo_to_dict(world.database.conninfo)["dbname"]
            session.execute(text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation TO 'repeatable read'"))
        world.database.dispose()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: world.ask(f"call {n}"), range(24)))
        assert sorted(destinations(answers)) == sorted(FREE * 8)
        assert [row.sip_login for row in world.decisions()] == FREE * 8


def test_what_is_no_fault_of_the_database_leaves_the_connection_open(sales: World) -> None:
    """Stale presence and new configuration end a transaction, not a connection: to connect anew costs a call dearly."""
    routing = sales.routing(Source(sales, FREE))
    sales.ask("before", routing=routing)
    with sales.database.call_connection() as connection:
        pass
    with sales.change() as session:
        session.scalars(select(models.Agent).where(models.Agent.name == "cat")).one().paused = True
    sales.ask("new configuration", routing=routing)
    sales.see(FREE, age=STALE)
    sales.ask("stale presence", routing=routing)
    project = routing.projects.known(sales.project_id).published.project
    with suppress(ZeroDivisionError), question(sales.database, deadline=time.monotonic() + 60) as transaction:
        transaction.read(project=project, call_id="x", group_ids=[1], agent_ids=[], known_snapshot=0)
        raise ZeroDivisionError
    with sales.database.call_connection() as still:
        assert still is connection
    assert sales.ask("after", routing=routing).degraded == ""


# ---- the replay


def offered(world: World, count: int) -> list[str]:
    """Whom so many calls are offered to, each of which is over at once."""
    answers = []
    for _ in range(count):
        answers.append(world.ask().destination)
        world.free_everybody()
    return answers


def test_changed_weights_tiers_and_members_count_from_then_on(world: World) -> None:
    world.configure(agents=FREE, groups={"sales": {"strategy": "weighted", "members": FREE[:2]}})
    world.see(FREE)
    offered(world, 3)
    with world.change() as session:
        for member in session.scalars(select(models.Member)):
            member.weight = 50
    assert Counter(offered(world, 10)) == {"ann": 5, "ben": 5}
    with world.change() as session:
        group = session.scalars(select(models.Group)).one()
        cat = world.agent_id(session, "cat")
        group.members.append(models.Member(agent_id=cat, tier=2, position=2, weight=50))
    world.see(["cat"])
    offered(world, 20)
    world.see(FREE)
    with world.change() as session:
        session.scalars(select(models.Member).where(models.Member.tier == 2)).one().tier = 1
    assert set(Counter(offered(world, 12)).values()) <= {3, 4, 5}
    with world.change() as session:
        session.delete(session.scalars(select(models.Member).where(models.Member.agent_id == cat)).one())
    offered(world, 20)
    with world.change() as session:
        group = session.scalars(select(models.Group)).one()
        group.members.append(models.Member(agent_id=cat, position=2, weight=100))
    assert Counter(offered(world, 16))["cat"] in (7, 8, 9)
    with world.database.reading() as session:
        assert all(recompute(session, decision.id).is_same for decision in world.decisions())


@pytest.mark.parametrize("ends", ["by hand", "by itself"])
def test_a_pause_leaves_the_same_place_however_it_ends(sales: World, ends: str) -> None:
    with sales.change() as session:
        session.scalars(select(models.Group)).one().strategy = "longest_idle"
    now = datetime.now(UTC)
    ended_at = now - timedelta(minutes=5)
    for name, minutes in (("ann", 60), ("ben", 20), ("cat", 1)):
        sales.declare(name, available_since_at=now - timedelta(minutes=minutes))
    by_hand = {"paused_until": None, "available_since_at": ended_at}
    sales.declare("ann", **(by_hand if ends == "by hand" else {"paused_until": ended_at}))
    assert offered(sales, 1) == ["ben"]
    sales.declare("ben", paused_until=now + timedelta(hours=1))
    assert offered(sales, 1) == ["ann"]
    with sales.database.reading() as session:
        assert all(recompute(session, decision.id).is_same for decision in sales.decisions())


def test_what_an_earlier_release_stored_is_recomputed_alike(sales: World) -> None:
    """Its members' virtual times stand alone, without weight and tier, and nobody's talks are counted."""
    with sales.change() as session:
        session.scalars(select(models.Group)).one().strategy = "weighted"
    offered(sales, 3)
    routed = sales.ask()
    with sales.database.writing() as session:
        row = session.get_one(models.Decision, routed.decision_id)
        record = deepcopy(record_of(session, row))
        del record["inputs"]["laws"]
        for member in record["inputs"]["members"]:
            member[2] = member[2][0]
            del member[-1]
        row.record, row.packed = record, None
    with sales.database.reading() as session:
        assert recompute(session, routed.decision_id).is_same


def test_a_decision_is_recomputed_from_what_was_stored_with_it(sales: World) -> None:
    routed = sales.ask("call", "step", params={"tag": "x\0y"})
    assert routed.decision is not None
    with sales.change() as session:
        for agent in session.scalars(select(models.Agent)):
            agent.paused = True
    sales.see([])
    with sales.database.reading() as session:
        found = recompute(session, routed.decision_id)
    assert found.is_same
    assert found.decision == routed.decision
    assert found.call == Call("call", "step", "380501112233", "380441112233", "", {"tag": "x\0y"})
    assert found.project.version == 1


@pytest.mark.parametrize(
    "forged",
    [
        {"rule_id": 99},
        {"destination": "ben"},
        {"result": "overflow"},
        {"record": "trials"},
        {"record": "answer"},
    ],
    ids=str,
)
def test_a_decision_that_is_not_what_was_decided_is_seen(sales: World, forged: dict[str, Any]) -> None:
    routed = sales.ask("call", "step")
    with sales.database.writing() as session:
        row = session.get_one(models.Decision, routed.decision_id)
        for name, value in forged.items():
            if name == "record":
                store_record(session, row, record_of(session, row) | {value: []})
            else:
                setattr(row, name, value)
    with sales.database.reading() as session:
        assert not recompute(session, routed.decision_id).is_same


@pytest.mark.parametrize("gone", [models.Decision, models.ConfigVersion, models.PresenceSnapshot])
def test_what_is_no_longer_kept_cannot_be_recomputed(sales: World, gone: type[models.Base]) -> None:
    routed = sales.ask("call", "step")
    with sales.database.writing() as session:
        session.execute(delete(gone))
    with sales.database.reading() as session, pytest.raises(NotRecomputableError, match="no longer kept"):
        recompute(session, routed.decision_id)


def test_every_stored_decision_recomputes_equal_itself(world: World) -> None:
    """Under traffic of all kinds: strategies, tiers, deputies, preferences, schedules, changes and lost presence."""
    dice = Random(11)
    world.configure(
        agents={
            "ann": {},
            "ben": {"daily_cap": 3},
            "cat": {"logins": ["cat", "cat_mobile"], "wrap_up_seconds": 3},
            "dan": {"deputy": "ann", "away_until": datetime.now(UTC) + timedelta(days=1)},
            "eve": {"external_id": "5"},
        },
        groups={
            name: {
                "strategy": name,
                "ring_seconds": dice.choice([0, 20]),
                "members": [
                    {"agent": agent, "tier": dice.randint(1, 2), "weight": dice.randint(1, 4)}
                    for agent in dice.sample(["ann", "ben", "cat", "dan", "eve"], 4)
                ],
            }
            for name in STRATEGIES
        },
        rules=[
            {
                "name": "own",
                "groups": ["priority"],
                "prefer": "param",
                "prefer_param": "who",
                "conditions": {"params": {"who": ["*"]}},
            },
            {"name": "last", "groups": ["random"], "prefer": "last_agent", "conditions": {"caller": ["1*"]}},
            {"name": "few", "groups": ["weighted"], "free_group": "longest_idle", "free_fewer_than": 2},
            {"name": "calls", "groups": ["fewest_calls", "weighted"], "conditions": {"dialed": ["2"]}},
            {"name": "talks", "groups": ["least_talk_time"], "conditions": {"dialed": ["4"]}},
            {"name": "all", "groups": ["round_robin", "longest_idle", "random"]},
        ],
    )
    logins = ["ann", "ben", "cat", "cat_mobile", "dan", "eve"]
    world.see(logins)
    routing = world.routing()
    for n in range(60):
        happens = dice.random()
        if happens < 0.15:
            age = dice.choice([0, 1, STALE, 100])
            world.see(dice.sample(logins, dice.randint(2, 6)), dice.sample(logins, dice.randint(0, 2)), age=age)
        elif happens < 0.25:
            world.hear(dice.choice(logins), speaking=dice.random() < 0.5)
        elif happens < 0.35:
            name = dice.choice(["ann", "ben", "cat", "eve"])
            world.declare(
                name,
                status=dice.choice(list(Status)),
                answered_today=dice.randint(0, 4),
                talked_today=dice.randint(0, 900),
                day=datetime.now(UTC).date(),
            )
        elif happens < 0.4:
            with world.change() as session:
                member = dice.choice(session.scalars(select(models.Member)).all())
                member.tier, member.weight = dice.randint(1, 2), dice.randint(1, 5)
        elif happens < 0.5:
            world.later(dice.choice([10, 60]))
        call = dice.choice(["", f"call {n % 7}", f"call {n}"])
        world.ask(
            call,
            dice.choice(["1", "2"]),
            routing=routing,
            caller=dice.choice(["", "12", "34"]),
            dialed=dice.choice(["2", "3", "4"]),
            params=dice.choice([{}, {}, {"Who": "5"}, {"who": "dan"}]),
        )
    rows = world.decisions()
    assert len(rows) > 40
    assert {row.result for row in rows} == {"offer", "overflow"}
    with world.database.reading() as session:
        for row in rows:
            found = recompute(session, row.id)
            assert found.is_same, (row.id, found.decision, world.record(row)["trials"])
