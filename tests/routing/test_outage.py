"""While the database is away, goes away, or comes back: what is answered then, and that nobody is promised twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import delete, select, text

from router.core.decision import decide as core_decide
from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import Result
from router.core.model import Outcome, Project, Status
from router.db import models
from router.db.claim import PostgresTransaction, SqliteTransaction
from router.db.session import DatabaseBusyError, time_limit
from router.presence.events import apply_event
from router.routing.known import Known, Routed, watched
from router.routing.route import Routing, recompute
from tests.world import FREE, OVERFLOW, World, destinations, the_agent_is_deleted, without_database, world_at

TOKEN = "0" * 64


def answered(world: World, *processes: Routing, count: int = 3) -> list[str]:
    """The destinations of so many calls, by these processes in turn."""
    stamp = time.monotonic_ns()
    return [
        world.ask(f"{stamp} {number}", routing=processes[number % len(processes)]).destination
        for number in range(count)
    ]


def known(world: World, routing: Routing) -> Known:
    return routing.projects.known(world.project_id)


def tell(routing: Routing, world: World, kind: EventKind, call_id: str, **said: Any) -> Result | None:
    """This process hears of the call."""
    event = CallEvent(kind, call_id, **said)
    return routing.hear(known(world, routing).published, event, time.monotonic(), applying(world))


def applying(world: World) -> Callable[[Project, CallEvent, float], Result]:
    def apply(project: Project, event: CallEvent, arrived_at: float) -> Result:
        return apply_event(world.database, project, event, arrived_at=arrived_at).result

    return apply


def promises_end(world: World, routing: Routing) -> None:
    """As if all promises of the host had been made long ago."""
    for each in known(world, routing).answers.values():
        each[:] = [answer._replace(until=1) for answer in each]
    known(world, routing).unshared.clear()
    with routing.outbox.exclusive():
        routing.outbox._write("UPDATE answers SET until = 1")


# ---- answers


def test_no_agent_is_promised_twice_and_turns_go_on(sales: World) -> None:
    one, other = without_database(sales), without_database(sales)
    told = [sales.ask(f"call {number}", routing=(one, other)[number % 2]) for number in range(4)]
    assert destinations(told) == [*FREE, OVERFLOW]
    assert {each.degraded for each in told} == {"DatabaseBusyError"}


def test_what_a_process_promised_just_before_is_known_to_the_others(sales: World) -> None:
    one, other = sales.routing(), sales.routing()
    other.keep_up()
    asked = sales.ask("before", routing=one)
    one.outbox.open_breaker()
    told = answered(sales, one, other)
    assert {asked.destination, *told} == {*FREE, OVERFLOW}
    assert sales.ask("before", routing=other).destination == asked.destination, "the same question, the same answer"


def test_the_first_answer_in_an_outage_waits_for_what_the_other_processes_promised(sales: World) -> None:
    one, other = sales.routing(), sales.routing()
    other.keep_up()
    assert sales.ask("before", routing=one).destination == "ann"
    one.outbox.open_breaker()
    is_over = threading.Event()

    def share() -> None:
        while not is_over.wait(0.05):
            one.outage.share()

    sharing = threading.Thread(target=share)
    sharing.start()
    told = sales.ask("after", routing=other)
    is_over.set()
    sharing.join()
    assert (told.destination, told.degraded) == ("ben", "DatabaseBusyError")


def test_a_question_asked_again_gets_the_answer_of_the_other_process(sales: World) -> None:
    one, other = without_database(sales), without_database(sales)
    known(sales, other).seen = known(sales, other).seen._replace(
        online=frozenset(FREE[1:])
    )  # it would decide otherwise
    first = sales.ask("the same", routing=one)
    again = sales.ask("the same", routing=other)
    assert (again.destination, again.decision) == (first.destination, None)
    one.keep_up()
    assert len(sales.decisions()) == 1
    assert sales.ask("the same").destination == first.destination


@pytest.mark.parametrize("is_free", [True, False], ids=["an agent", "the overflow"])
def test_a_question_asked_again_when_the_database_is_back_gets_its_answer(is_free: bool, sales: World) -> None:
    sales.see(FREE[:1] if is_free else ())
    other = without_database(sales)
    first = sales.ask("the same", routing=other)
    sales.see(FREE[1:])
    other.outbox.close_breaker()
    again = sales.ask("the same")
    assert (again.destination, again.degraded) == (first.destination, "")
    assert (first.destination == OVERFLOW) is not is_free
    other.keep_up()
    (recorded,) = sales.decisions()
    assert (recorded.destination, bool(recorded.degraded)) == (first.destination, True)


@pytest.mark.parametrize("first_is_away", [True, False])
@pytest.mark.parametrize("second_is_away", [True, False])
def test_the_same_id_with_another_caller_is_another_call(
    first_is_away: bool, second_is_away: bool, sales: World
) -> None:
    routing = sales.routing()
    sales.ask("before", routing=routing)

    def ask(caller: str, *, is_away: bool) -> Routed:
        routing.outbox.open_breaker() if is_away else routing.outbox.close_breaker()
        return sales.ask("%CALLID%", caller=caller, routing=routing)

    first = ask("380501112233", is_away=first_is_away)
    second = ask("380671112233", is_away=second_is_away)
    assert {first.destination, second.destination} == {"ben", "cat"}
    again = ask("380671112233", is_away=True)
    assert (again.destination, again.decision) == (second.destination, None)
    routing.keep_up()
    assert len({row.call_id for row in sales.decisions()}) == 3


def test_the_next_step_knows_who_was_tried(sales: World) -> None:
    other = without_database(sales)
    first = sales.ask("on its way", "1", routing=other)
    promises_end(sales, other)
    second = sales.ask("on its way", "2", routing=other)
    other.outbox.close_breaker()
    third = sales.ask("on its way", "3")
    assert {first.destination, second.destination, third.destination} == set(FREE)
    assert sales.ask("on its way", "4").destination == OVERFLOW


@pytest.fixture
def preferred(world: World) -> World:
    """Dan, who is in no group, is asked for by a parameter; else Ann is called."""
    world.configure(
        agents=["ann", "dan"],
        groups={"sales": ["ann"]},
        rules=[{"name": "own", "groups": ["sales"], "prefer": "param", "prefer_param": "who"}],
    )
    world.see(["ann", "dan"])
    return world


@pytest.mark.parametrize("is_peeked", [True, False])
def test_a_preferred_agent_is_promised_to_one_call(is_peeked: bool, preferred: World) -> None:
    routing, dan = without_database(preferred), {"who": "dan"}
    if not is_peeked:  # as where the database went away right after a process began
        found = known(preferred, routing)
        found.agents, found.members = {}, {}
    calls: list[dict[str, Any]] = [{"params": dan}, {"params": dan}, {}, {"params": dan}]
    told = [preferred.ask(f"call {n}", routing=routing, **call) for n, call in enumerate(calls)]
    assert destinations(told) == ["dan", "ann", OVERFLOW, OVERFLOW]


def test_a_preferred_agent_who_cannot_be_called_is_not(preferred: World) -> None:
    preferred.declare("dan", status=Status.ON_BREAK)
    routing = without_database(preferred)
    assert preferred.ask("call", routing=routing, params={"who": "dan"}).destination == "ann"


# ---- a process that starts then


def with_token(world: World, *, expires_at: datetime | None = None) -> None:
    token = {"token": f"{expires_at}", "token_hash": TOKEN, "created_at": datetime.now(UTC), "expires_at": expires_at}
    with world.change() as session:
        session.execute(delete(models.HookToken))
        session.add(models.HookToken(project_id=world.project_id, **token))
        session.get_one(models.Project, world.project_id).secrets_revision += 1


def started_without_database(world: World) -> Routing:
    """A process that has never seen it."""
    routing = world.routing()
    routing.outbox.open_breaker()
    return routing


def test_a_process_that_starts_knows_what_others_knew(sales: World) -> None:
    with_token(sales)
    sales.see(["ben", "cat"], speaking=["cat"])
    sales.routing().keep_up()
    routing = started_without_database(sales)
    published = routing.projects.of_token(TOKEN)
    assert published is not None
    assert published.project.id == sales.project_id
    assert answered(sales, routing, count=2) == ["ben", OVERFLOW]


def test_what_is_kept_is_all_that_was_known(sales: World) -> None:
    with_token(sales, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with sales.change() as session:
        session.get_one(models.Project, sales.project_id).hook_basic_auth = "who:knows"
    sales.see(FREE, speaking=["cat"])
    sales.ask("clocks move")
    sales.hear("ben", speaking=True)
    routing = sales.routing()
    routing.keep_up()
    kept = known(sales, routing)
    assert kept.events, "heard"
    again = Known.load(sales.project_id, kept.dump())
    assert again.published == kept.published
    for name in ("zone", "seen", "began_at", "events", "members", "agents"):
        assert getattr(again, name) == getattr(kept, name), name


@pytest.mark.parametrize("minutes", [-1, 1])
def test_a_token_that_has_expired_since_is_not_valid(minutes: int, sales: World) -> None:
    with_token(sales, expires_at=datetime.now(UTC) + timedelta(minutes=minutes))
    sales.routing().keep_up()
    assert (started_without_database(sales).projects.of_token(TOKEN) is not None) == (minutes > 0)


def test_of_a_token_that_nobody_knew_it_is_not_known_whether_it_is_valid(sales: World) -> None:
    with_token(sales)
    sales.routing().keep_up()
    routing = started_without_database(sales)
    for is_suspect in (False, True):
        with pytest.raises(DatabaseBusyError):
            routing.projects.of_token("1" * 64, is_suspect=is_suspect)
    assert routing.projects.of_token(TOKEN)


def test_a_project_that_is_deleted_is_forgotten(sales: World) -> None:
    routing = sales.routing()
    routing.keep_up()
    assert list(routing.outbox.known()) == [sales.project_id]
    with sales.database.writing() as session:
        session.get_one(models.Project, sales.project_id).deleted_at = datetime.now(UTC)
    routing.outbox.open_breaker()
    routing.keep_up()
    assert routing.outbox.known() == {}


# ---- the breaker


def test_the_first_failure_spares_the_others_of_the_host_the_wait(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = sales.routing(), sales.routing()
    one.keep_up()
    other.keep_up()
    asked: list[Routing] = []

    def fails(routing: Routing) -> Any:
        def route_once(*_: Any, **__: Any) -> Routed:
            asked.append(routing)
            raise TimeoutError("the database did not answer in time")

        return route_once

    for routing in (one, other):
        monkeypatch.setattr(routing, "_route_once", fails(routing))
    assert answered(sales, one, other) == FREE
    assert asked == [one]
    monkeypatch.undo()
    other.keep_up()
    assert not one.outbox.is_open, "who finds that it works says so to all"
    assert sales.ask("next", routing=one).degraded == ""


def test_the_upkeep_notices_before_a_call_does(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    routing = sales.routing()
    with monkeypatch.context() as patch:
        patch.setattr("router.db.queries.versions", lambda _: (_ for _ in ()).throw(TimeoutError))
        with pytest.raises(TimeoutError):
            routing.keep_up()
    assert routing.outbox.is_open
    routing.keep_up()
    assert not routing.outbox.is_open


# ---- an answer in doubt


def while_recording(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Any], object]) -> None:
    """Once, while a decision is recorded, this happens with what records it; then the database fails."""
    for kind in (SqliteTransaction, PostgresTransaction):

        def record(transaction: Any, *given: Any, real: Any = kind.record) -> int:
            monkeypatch.undo()
            happens(lambda: real(transaction, *given))
            raise TimeoutError("the database did not answer in time")

        monkeypatch.setattr(kind, "record", record)


@pytest.mark.parametrize("call_id", ["doubtful", ""])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_answer_in_doubt_stands_and_is_recorded_once(
    is_recorded: bool, call_id: str, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = sales.routing()
    while_recording(monkeypatch, lambda record: record() if is_recorded else None)
    doubtful = sales.ask(call_id, routing=routing)
    assert (doubtful.destination, doubtful.degraded) == ("ann", "TimeoutError")
    assert sales.ask("next", routing=routing).destination == "ben"
    routing.keep_up()
    recorded = {row.call_id: row for row in sales.decisions()}
    assert len(recorded) == len(sales.decisions()) == 2
    assert sales.reservations()["ann"].decision_id == recorded[call_id].id


def test_a_wait_in_vain_leaves_a_good_connection(
    migrated_postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=FREE, groups={"sales": FREE})
        world.see(FREE)
        record = PostgresTransaction.record

        def record_late(transaction: Any, *given: Any) -> int:
            monkeypatch.undo()
            with world.database.writing() as other, monkeypatch.context() as patch, time_limit(0.3):
                other.execute(text("LOCK TABLE decisions IN SHARE MODE"))  # so that it surely waits
                patch.setattr("router.db.session._SERVER_FIRST_SECONDS", 0.0)
                return record(transaction, *given)

        monkeypatch.setattr(PostgresTransaction, "record", record_late)
        routing = world.routing()
        assert world.ask("doubtful", routing=routing).degraded == "WaitedTooLongError"
        routing.keep_up()
        for number in range(2):
            assert world.ask(f"after {number}", routing=routing).degraded == ""
        assert sorted(world.reservations()) == FREE


def test_an_answer_in_doubt_yields_to_what_another_process_answered_meanwhile(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), sales.routing()
    other.keep_up()
    told: list[Routed] = []

    def answer(_: Any) -> None:
        other.outbox.open_breaker()
        known(sales, other).seen = known(sales, other).seen._replace(online=frozenset(FREE[1:]))
        told.append(sales.ask("the same", routing=other))

    while_recording(monkeypatch, answer)
    assert sales.ask("the same", routing=routing).destination == told[0].destination == "ben"


def test_an_answer_in_doubt_whose_agent_went_to_another_call_is_made_anew(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), sales.routing()
    other.keep_up()

    def promise(_: Any) -> None:
        other.outbox.open_breaker()
        assert sales.ask("another", routing=other).destination == "ann"

    while_recording(monkeypatch, promise)
    assert sales.ask("doubtful", routing=routing).destination == "ben"


# ---- one call fails while others do not


def fails_once(monkeypatch: pytest.MonkeyPatch, routing: Routing) -> None:
    """The next call gets no answer from a database that answers others."""

    def route_once(*_: Any, **__: Any) -> Routed:
        monkeypatch.undo()
        routing.outbox.worked_at = time.monotonic()
        raise DatabaseBusyError("the database is locked by another process for too long")

    monkeypatch.setattr(routing, "_route_once", route_once)


def test_a_call_that_fails_alone_goes_by_what_others_claimed(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    routing = sales.routing()
    routing.keep_up()
    assert sales.ask("before").destination == "ann"
    fails_once(monkeypatch, routing)
    told = sales.ask("late", routing=routing)
    assert (told.destination, told.degraded) == ("ben", "DatabaseBusyError")
    assert sales.ask("next", routing=routing).destination == "cat"


def test_who_is_claimed_meanwhile_is_not_promised_by_a_call_that_fails_alone(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), sales.routing()
    routing.keep_up()
    add = routing.outbox.add

    def claim_first(*given: Any) -> None:
        monkeypatch.setattr(routing.outbox, "add", add)
        assert sales.ask("faster", routing=other).destination == "ann"
        add(*given)

    fails_once(monkeypatch, routing)
    monkeypatch.setattr(routing.outbox, "exclusive", nullcontext)  # the other may add to the outbox, which it does not
    with monkeypatch.context() as patch:
        patch.setattr(routing.outbox, "add", claim_first)
        told = sales.ask("late", routing=routing)
    assert told.destination == "ben"
    routing.keep_up()
    assert {row.call_id: row.destination for row in sales.decisions()} == {"faster": "ann", "late": "ben"}


def test_who_is_claimed_as_soon_as_the_database_is_back_is_not_promised_without_it(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = without_database(sales), sales.routing()
    add = routing.outbox.add

    def claim_first(*given: Any) -> None:
        monkeypatch.setattr(routing.outbox, "add", add)
        routing.outbox.close_breaker()
        assert sales.ask("faster", routing=other).destination == "ann"
        add(*given)

    monkeypatch.setattr(routing.outbox, "exclusive", nullcontext)
    with monkeypatch.context() as patch:
        patch.setattr(routing.outbox, "add", claim_first)
        assert sales.ask("late", routing=routing).destination == "ben"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_copy_that_fails_alone_gets_the_answer_that_is_recorded(
    when: str, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), sales.routing()
    routing.keep_up()
    # It would decide otherwise.
    known(sales, routing).seen = known(sales, routing).seen._replace(online=frozenset(FREE[1:]))
    if when == "before":
        assert sales.ask("the same", routing=other).destination == "ann"
    fails_once(monkeypatch, routing)
    with monkeypatch.context() as patch:
        if when == "meanwhile":
            add = routing.outbox.add

            def answer_first(*given: Any) -> None:
                patch.setattr(routing.outbox, "add", add)
                sales.ask("the same", routing=other)
                add(*given)

            patch.setattr(routing.outbox, "exclusive", nullcontext)
            patch.setattr(routing.outbox, "add", answer_first)
        assert sales.ask("the same", routing=routing).destination == "ann"
    routing.keep_up()
    assert [row.destination for row in sales.decisions()] == ["ann"]


def test_a_claim_sees_what_is_promised_meanwhile_by_a_call_that_fails_alone(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), sales.routing()
    other.keep_up()
    decide, told = core_decide, list[Routed]()

    def decide_late(*given: Any) -> Any:
        monkeypatch.undo()
        fails_once(monkeypatch, other)
        told.append(sales.ask("late", routing=other))
        return decide(*given)

    monkeypatch.setattr("router.routing.known.decide", decide_late)
    claimed = sales.ask("claimed", routing=routing)
    assert (told[0].degraded, claimed.degraded) == ("DatabaseBusyError", "")
    assert {told[0].destination, claimed.destination} == {"ann", "ben"}


# ---- events


def test_who_picked_up_is_not_called_until_the_talk_is_over(sales: World) -> None:
    one, other = without_database(sales), without_database(sales)
    assert sales.ask("first", routing=one).destination == "ann"
    assert tell(other, sales, EventKind.PICKUP, "first") is None  # it does not say who: whoever was named
    promises_end(sales, one)
    assert answered(sales, other) == ["ben", "cat", OVERFLOW]
    tell(one, sales, EventKind.AFTER_CALL, "first", disposition=Disposition.ANSWERED)
    assert sales.ask("last", routing=other).destination == "ann"


def test_who_was_heard_to_pick_up_just_before_is_not_called_by_another_process(sales: World) -> None:
    one, other = sales.routing(), sales.routing()
    other.keep_up()
    assert sales.ask("call", routing=one).destination == "ann"
    tell(one, sales, EventKind.PICKUP, "call", sip_login="ann")
    promises_end(sales, one)
    one.outbox.open_breaker()
    one.outage.share()
    assert answered(sales, one, other) == [*FREE[1:], OVERFLOW]


def test_an_event_of_a_project_that_this_process_does_not_know_is_applied_without_reading_it(sales: World) -> None:
    one, other = sales.routing(), sales.routing()
    sales.ask("call", routing=one)
    event = CallEvent(EventKind.PICKUP, "call", sip_login="ann")
    heard = other.hear(known(sales, one).published, event, time.monotonic(), applying(sales))
    assert (heard, dict(other.projects.by_id)) == (Result.APPLIED, {})


def test_who_is_promised_to_a_call_that_is_over_is_free(sales: World) -> None:
    one, other = without_database(sales), without_database(sales)
    sales.see(["ann"])
    one.keep_up()
    other.keep_up()
    one.outbox.open_breaker()
    assert sales.ask("first", routing=one).destination == "ann"
    assert sales.ask("second", routing=other).destination == OVERFLOW
    tell(other, sales, EventKind.AFTER_CALL, "first")
    assert sales.ask("third", routing=one).destination == "ann"


def test_one_failure_among_calls_that_the_database_answers_is_no_outage(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = sales.routing()

    def answer_another(_: Any) -> None:
        with watched(routing.outbox):
            pass

    while_recording(monkeypatch, answer_another)
    assert sales.ask("late", routing=routing).degraded == "TimeoutError"
    assert sales.ask("next", routing=routing).degraded == ""


def test_who_was_heard_to_talk_before_is_not_called(sales: World) -> None:
    sales.hear("ann", speaking=True)
    assert sales.ask("call", routing=without_database(sales)).destination == "ben"


def test_a_talk_that_was_seen_before_is_over_when_that_is_heard(sales: World) -> None:
    sales.see(FREE, speaking=["ann"])
    routing = without_database(sales)
    over = {"sip_login": "ANN", "disposition": Disposition.ANSWERED}
    tell(routing, sales, EventKind.AFTER_CALL, "before", **over)
    assert sales.ask("call", routing=routing).destination == "ann"


def test_what_is_told_late_is_of_when_it_came(sales: World) -> None:
    """Whoever was seen to talk since then talks."""
    arrived_at = time.monotonic()
    sales.see(FREE, speaking=["ann"])
    routing = without_database(sales)
    over = CallEvent(EventKind.AFTER_CALL, "before", sip_login="ann", disposition=Disposition.ANSWERED)
    routing.hear(known(sales, routing).published, over, arrived_at, applying(sales))
    assert sales.ask("call", routing=routing).destination == "ben"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_there_is_wrap_up_too(sales: World, direction: str) -> None:
    with sales.change() as session:
        session.get_one(models.Agent, sales.agent_id(session, "ann")).wrap_up_seconds = 60
    routing = without_database(sales)
    own = {"sip_login": "ann", "direction": direction}
    tell(routing, sales, EventKind.BEFORE_CALL if direction == "out" else EventKind.PICKUP, "talk", **own)
    assert sales.ask("meanwhile", routing=routing).destination == "ben"
    tell(routing, sales, EventKind.AFTER_CALL, "talk", **own)
    assert sales.ask("after", routing=routing).destination == ("cat" if direction == "in" else "ann")


def test_events_may_be_late_repeated_and_of_transfers(sales: World) -> None:
    routing = without_database(sales)

    def free() -> set[str]:
        found = set(answered(sales, routing)) - {OVERFLOW}
        promises_end(sales, routing)
        return found

    def hear(kind: EventKind, call_id: str, login: str = "") -> None:
        tell(routing, sales, kind, call_id, sip_login=login, disposition=Disposition.ANSWERED)

    hear(EventKind.PICKUP, "one", "ann")
    hear(EventKind.PICKUP, "one", "ben")
    assert free() == {"ann", "cat"}, "it was transferred"
    hear(EventKind.PICKUP, "two", "ben")
    hear(EventKind.AFTER_CALL, "one", "ben")
    assert free() == {"ann", "cat"}, "the end of one call does not end the next"
    hear(EventKind.AFTER_CALL, "two")
    hear(EventKind.AFTER_CALL, "three", "cat")
    hear(EventKind.PICKUP, "three", "cat")
    assert free() == set(FREE), "what is over is not picked up"
    hear(EventKind.PICKUP, "four", "a stranger")
    assert free() == set(FREE)


def test_what_was_heard_before_the_last_reading_counts_no_more(sales: World) -> None:
    routing = without_database(sales)
    tell(routing, sales, EventKind.PICKUP, "call", sip_login="ann")
    sales.see(FREE)
    routing.keep_up()
    routing.outbox.open_breaker()
    assert sales.ask("next", routing=routing).destination == "ann"


def test_what_waits_counts_as_soon_as_the_database_is_back(sales: World) -> None:
    away, back = without_database(sales), sales.routing()
    assert sales.ask("first", routing=away).destination == "ann"
    promises_end(sales, away)
    tell(away, sales, EventKind.PICKUP, "first")
    tell(away, sales, EventKind.PICKUP, "second", sip_login="ben")
    tell(away, sales, EventKind.AFTER_CALL, "second")
    sales.hear("ben", speaking=True)  # another host's is newer
    away.outbox.close_breaker()
    told = sales.ask("third", routing=back)
    assert (told.degraded, told.destination) == ("", "cat")
    assert sales.skips(told) == {"ann": "speaking", "ben": "speaking", "cat": ""}
    with sales.database.reading() as session:
        assert recompute(session, told.decision_id).is_same


def test_an_event_waits_for_what_waits_of_its_call_and_for_nothing_else(sales: World) -> None:
    """Else an end that names nobody is nobody's, and a pickup that is applied later has no end."""
    routing = without_database(sales)
    assert sales.ask("one", routing=routing).destination == "ann"
    assert sales.ask("two", routing=routing).destination == "ben"
    routing.outbox.close_breaker()
    assert tell(routing, sales, EventKind.PICKUP, "one") is None
    assert tell(routing, sales, EventKind.PICKUP, "own", sip_login="cat") is not None
    assert tell(routing, sales, EventKind.AFTER_CALL, "one", disposition=Disposition.ANSWERED, billsec=42) is None
    assert routing.outbox.waiting() == (2, 2)
    routing.keep_up(applying(sales))
    assert routing.outbox.waiting() == (0, 0)
    decision = next(row for row in sales.decisions() if row.call_id == "one")
    assert (decision.outcome, decision.answered_login, decision.talked_seconds) == (Outcome.ANSWERED, "ann", 42)


def test_events_that_wait_are_applied_by_any_process_as_of_when_they_came(sales: World) -> None:
    one, other = without_database(sales), sales.routing()
    sales.see(FREE, age=5)
    assert sales.ask("call", routing=one).destination == "ann"
    happened = CallEvent(EventKind.PICKUP, "call")
    one.hear(known(sales, one).published, happened, time.monotonic() - 2, applying(sales))
    one.outbox.close_breaker()
    other.keep_up(applying(sales))
    (decision,) = sales.decisions()
    assert decision.answered_at is not None
    assert (datetime.now(UTC) - decision.answered_at).total_seconds() > 2
    assert one.outbox.is_empty


def test_an_event_that_fails_holds_up_no_other_call(sales: World, capsys: pytest.CaptureFixture[str]) -> None:
    routing, apply = without_database(sales), applying(sales)
    for call in ("busy", "bad", "good"):
        tell(routing, sales, EventKind.PICKUP, call, sip_login="ann")

    def fails(project: Project, event: CallEvent, arrived_at: float) -> Result:
        if event.call_id == "busy":
            raise TimeoutError("the database did not answer in time")
        if event.call_id == "bad":
            raise ValueError("a mistake of ours")
        return apply(project, event, arrived_at)

    with pytest.raises(TimeoutError):
        routing.keep_up(fails)
    routing.keep_up(fails)
    assert routing.outbox.waiting() == (0, 1), "the one that the database did not take"
    assert "a call event that waited is lost" in capsys.readouterr().out
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=5)):
        routing.keep_up(apply)
    assert routing.outbox.waiting() == (0, 0)


def test_an_event_that_the_database_did_not_take_is_tried_again_soon(sales: World) -> None:
    routing = without_database(sales)
    tell(routing, sales, EventKind.PICKUP, "call", sip_login="ann")

    def is_busy(*_: Any) -> Result:
        raise DatabaseBusyError("the database is locked by another process for too long")

    with pytest.raises(DatabaseBusyError):
        routing.keep_up(is_busy)
    assert routing.outbox.waiting() == (0, 1)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=5)):
        routing.keep_up(applying(sales))
    assert routing.outbox.waiting() == (0, 0)


# ---- when the database is back


def test_what_a_process_answered_outlives_it(sales: World) -> None:
    processes = [without_database(sales), without_database(sales)]
    told = answered(sales, *processes)
    del processes  # killed
    heir = sales.routing()
    assert heir.outbox.waiting() == (3, 0)
    heir.keep_up()
    assert heir.outbox.waiting() == (0, 0)
    assert [(row.destination, row.degraded) for row in sales.decisions()] == [
        (each, "DatabaseBusyError") for each in told
    ]
    assert sorted(sales.reservations()) == FREE


def test_the_promise_of_an_agent_who_is_deleted_since_holds_up_nobody(sales: World) -> None:
    other = without_database(sales)
    assert sales.ask("promised", routing=other).destination == "ann"
    the_agent_is_deleted(sales)
    other.outbox.close_breaker()
    told = sales.ask("another")
    assert (told.destination, told.degraded) == ("ben", "")
    other.keep_up()
    assert {row.call_id: row.sip_login for row in sales.decisions()} == {"promised": "ann", "another": "ben"}
    assert set(sales.reservations()) == {"ann", "ben"}, "her phone rings"


def test_a_promise_outlives_the_agent_who_is_deleted_meanwhile(migrated_postgres_url: str, tmp_path: Path) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world, ThreadPoolExecutor(1) as pool:
        world.configure(agents=FREE, groups={"sales": FREE})
        world.see(FREE)
        other = without_database(world)
        world.ask("promised", routing=other)
        with world.database.writing() as session:
            session.execute(text("DELETE FROM agents WHERE name = 'ann'"))
            written = pool.submit(other.keep_up)
            deadline = time.monotonic() + 60
            while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            session.commit()
        written.result(timeout=60)
        assert [row.call_id for row in world.decisions()] == ["promised"]
        assert list(world.reservations()) == ["ann"]


def test_a_decision_that_the_database_will_never_take_holds_up_no_other(sales: World) -> None:
    other = without_database(sales)
    sales.see(FREE[:1])
    for number in range(6):
        if number == 3:
            bad = known(sales, other).published.project
            object.__setattr__(bad, "id", 999)
        sales.ask(f"call {number}", routing=other)
        object.__setattr__(known(sales, other).published.project, "id", sales.project_id)
    other.keep_up()
    assert (other.outbox.waiting(), other.outbox.dropped) == ((0, 0), 1)
    assert [row.call_id for row in sales.decisions()] == [f"call {number}" for number in (0, 1, 2, 4, 5)]


def test_what_cannot_be_written_keeps_nobody_from_learning(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk is full: what waits goes on waiting, and what there is to know is known."""
    other = without_database(sales)
    sales.ask("call", routing=other)
    sales.see(["cat"])

    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError("the database did not answer in time")

    with monkeypatch.context() as patch:
        patch.setattr("router.routing.outage.restore", fail)
        with pytest.raises(TimeoutError):
            other.keep_up()
    assert other.outbox.waiting() == (1, 0)
    assert known(sales, other).seen.online == {"cat"}
    other.keep_up()
    assert [row.call_id for row in sales.decisions()] == ["call"]


def test_nothing_is_written_into_another_database(sales: World, capsys: pytest.CaptureFixture[str]) -> None:
    """As where the address leads elsewhere since: to a copy of another installation."""
    routing = without_database(sales)
    sales.ask("call", routing=routing)
    routing.outbox.belongs_to("the one before")
    with sales.database.writing() as session:
        session.execute(delete(models.Installation))
        session.add(models.Installation(id=1, name="another"))
    later = sales.routing()
    later.keep_up()
    assert later.outbox.waiting() == (0, 0)
    assert list(session.scalars(select(models.Decision))) == []
    assert "another database" in capsys.readouterr().out
