"""While the database is away, goes away, or comes back: what is answered then, and that nobody is promised twice."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, text

from router import host_memory
from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Call, Status
from router.db import models, reservations
from router.db.reservations import LostRaceError
from router.db.types import to_micros
from router.fallback import Seen
from router.host_memory import ANSWERS_KEPT_SECONDS, HostMemory, Shared
from router.host_store import Spooled
from router.routing import Routed, Routing, recompute
from tests.world import FREE, OVERFLOW, World, destinations, the_agent_is_deleted, without_database, world_at

QUICK = Call(call_id="quick", caller="380501112233", dialed="380441112233")


def test_an_answer_in_doubt_stays_what_it_was_and_leaves_a_good_connection(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is asked to record and does not answer in time; perhaps it has recorded all the same."""
    routing = sales.routing()
    sales.ask("before", routing=routing)

    def in_doubt(kind: Any) -> None:
        record = kind.record

        def record_late(transaction: Any, *given: Any) -> int:
            monkeypatch.undo()
            monkeypatch.setattr("router.fallback._PAUSE_SECONDS", 0.0)  # the next call tries the database again
            if kind is reservations._PostgresTransaction:
                transaction._deadline = time.monotonic()  # it is sent, and the answer stays in the wire
                return int(record(transaction, *given))
            record(transaction, *given)
            raise TimeoutError("the database did not answer in time")

        monkeypatch.setattr(kind, "record", record_late)

    in_doubt(reservations._SqliteTransaction)
    in_doubt(reservations._PostgresTransaction)
    doubtful = sales.ask("doubtful", routing=routing)
    assert doubtful.degraded == "TimeoutError"
    assert len({doubtful.destination, sales.ask("after", routing=routing).destination}) == 2
    for number in range(3):
        sales.free_everybody()
        assert sales.ask(f"after {number}", routing=routing).degraded == ""
    routing.keep_up()
    (recorded,) = (decision for decision in sales.decisions() if decision.call_id == "doubtful")
    assert recorded.destination == doubtful.destination


@pytest.mark.parametrize("call_id", ["doubtful", ""])
def test_an_answer_in_doubt_that_was_recorded_is_not_recorded_again(
    call_id: str, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = sales.routing()
    for kind in (reservations._SqliteTransaction, reservations._PostgresTransaction):

        def record(transaction: Any, *given: Any, real: Any = kind.record) -> int:
            monkeypatch.undo()
            real(transaction, *given)
            raise TimeoutError("the database did not answer in time")

        monkeypatch.setattr(kind, "record", record)
    doubtful = sales.ask(call_id, routing=routing)
    assert (doubtful.destination, doubtful.degraded) == ("ann", "TimeoutError")
    routing._breaker.worked()
    routing.keep_up()
    (decision,) = sales.decisions()
    assert sales.reservations()["ann"].decision_id == decision.id


@pytest.mark.parametrize("call_id", ["doubtful", ""])
def test_an_answer_in_doubt_whose_agent_went_to_another_call_is_made_anew(
    call_id: str, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = sales.routing()
    sales.ask("before", routing=routing)

    def fail(_transaction: Any, _decision: Any, lease: reservations.Lease) -> int:
        monkeypatch.undo()
        routing._host.recent.note(lease.agent_id, lease.expires_at + 1)  # as the process does that was faster
        raise TimeoutError("the database did not answer in time")

    taken = sales.ask("taken").destination
    monkeypatch.setattr(reservations._SqliteTransaction, "record", fail)
    monkeypatch.setattr(reservations._PostgresTransaction, "record", fail)
    doubtful = sales.ask(call_id, routing=routing)
    assert doubtful.degraded == "TimeoutError"
    assert doubtful.destination == OVERFLOW, f"all three are promised: {taken} and two others"


def while_recording(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], *, fails: bool = False) -> None:
    """Once, while a decision is recorded, this happens; `fails`: then the database does not say whether it has it."""
    for kind in (reservations._SqliteTransaction, reservations._PostgresTransaction):

        def record(transaction: Any, *given: Any, real: Any = kind.record) -> int:
            monkeypatch.undo()
            happens()
            if fails:
                raise TimeoutError("the database did not answer in time")
            return int(real(transaction, *given))

        monkeypatch.setattr(kind, "record", record)


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
def test_without_the_database_a_preferred_agent_is_promised_to_one_call(is_peeked: bool, preferred: World) -> None:
    routing, dan = without_database(preferred), {"who": "dan"}
    if not is_peeked:  # as where the database went away right after a process began
        known = routing._known[preferred.project_id]
        known.agents, known.clocks = {}, {}
    calls: list[dict[str, Any]] = [{"params": dan}, {"params": dan}, {}, {"params": dan}]
    told = [preferred.ask(f"call {n}", routing=routing, **call) for n, call in enumerate(calls)]
    assert destinations(told) == ["dan", "ann", OVERFLOW, OVERFLOW]
    assert all(each.degraded for each in told)


def test_without_the_database_a_preferred_agent_who_cannot_be_called_is_not(preferred: World) -> None:
    preferred.declare("dan", status=Status.ON_BREAK)
    routing = without_database(preferred)
    assert preferred.ask("call", routing=routing, params={"who": "dan"}).destination == "ann"


def test_without_the_database_who_was_heard_to_talk_is_not_called(sales: World) -> None:
    sales.hear("ann", speaking=True)
    assert sales.ask("call", routing=without_database(sales)).destination == "ben"


def tell(process: Routing, world: World, kind: EventKind, call_id: str, **said: Any) -> None:
    """This process hears of the call, and cannot apply it to the database."""
    project = process._known[world.project_id].published.project
    process.hear(project, CallEvent(kind, call_id, **said), time.monotonic())


def leases_end(*processes: Routing) -> None:
    """As if all promises of the host had been made long ago."""
    for process in processes:
        for known in process._known.values():
            known.promised.clear()
    memory = processes[0]._host
    for agent_id in memory.recent.live(0):
        memory.recent.note(agent_id, 1)
    connection = memory._open()
    assert connection is not None
    connection.execute("DELETE FROM promises")


def test_without_the_database_who_picked_up_is_not_called_until_the_talk_is_over(sales: World) -> None:
    one, other = without_database(sales), without_database(sales)
    assert sales.ask("first", routing=one).destination == "ann"
    tell(other, sales, EventKind.PICKUP, "first")  # it does not say who: whoever was named
    leases_end(one, other)
    asked = [sales.ask(f"call {number}", routing=other).destination for number in range(3)]
    assert asked == ["ben", "cat", OVERFLOW]
    tell(one, sales, EventKind.AFTER_CALL, "first", disposition=Disposition.ANSWERED)
    assert sales.ask("last", routing=other).destination == "ann"


def test_without_the_database_a_talk_that_was_seen_before_is_over_when_that_is_heard(sales: World) -> None:
    sales.see(FREE, speaking=["ann"])
    routing = without_database(sales)
    over = {"sip_login": "ANN", "disposition": Disposition.ANSWERED}
    tell(routing, sales, EventKind.AFTER_CALL, "before", **over)
    assert sales.ask("call", routing=routing).destination == "ann"


def test_what_is_told_late_to_the_host_is_of_when_it_came(sales: World) -> None:
    """Whoever was seen to talk since then talks."""
    arrived_at = time.monotonic()
    sales.see(FREE, speaking=["ann"])
    routing = without_database(sales)
    project = routing._known[sales.project_id].published.project
    over = CallEvent(EventKind.AFTER_CALL, "before", sip_login="ann", disposition=Disposition.ANSWERED)
    routing.hear(project, over, arrived_at)
    assert sales.ask("call", routing=routing).destination == "ben"


def test_who_picked_up_by_the_database_talks_though_the_host_heard_of_the_end_of_another_call(sales: World) -> None:
    sales.hear("ann", speaking=True)
    routing = without_database(sales)
    tell(routing, sales, EventKind.AFTER_CALL, "before", sip_login="ann", disposition=Disposition.ANSWERED)
    assert sales.ask("call", routing=routing).destination == "ben"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_without_the_database_there_is_wrap_up_too(sales: World, direction: str) -> None:
    with sales.change() as session:
        session.get_one(models.Agent, sales.agent_id(session, "ann")).wrap_up_seconds = 60
    routing = without_database(sales)
    own = {"sip_login": "ann", "direction": direction}
    tell(routing, sales, EventKind.BEFORE_CALL if direction == "out" else EventKind.PICKUP, "talk", **own)
    assert sales.ask("meanwhile", routing=routing).destination == "ben"
    tell(routing, sales, EventKind.AFTER_CALL, "talk", **own)
    assert sales.ask("after", routing=routing).destination == ("cat" if direction == "in" else "ann")


def test_without_the_database_events_may_be_late_repeated_and_of_transfers(sales: World) -> None:
    routing = without_database(sales)

    def free() -> set[str]:
        found = {sales.ask(f"{time.monotonic_ns()}", routing=routing).destination for _ in FREE}
        leases_end(routing)
        return found - {OVERFLOW}

    def hear(kind: EventKind, call_id: str, login: str = "") -> None:
        tell(routing, sales, kind, call_id, sip_login=login, disposition=Disposition.ANSWERED)

    hear(EventKind.PICKUP, "one", "ann")
    hear(EventKind.PICKUP, "one", "ben")
    assert free() == {"ann", "cat"}, "it was transferred"
    hear(EventKind.PICKUP, "one", "ann")
    assert free() == {"ann", "cat"}, "heard before"
    hear(EventKind.PICKUP, "two", "ben")
    hear(EventKind.AFTER_CALL, "one", "ben")
    assert free() == {"ann", "cat"}, "the end of one call does not end the next"
    hear(EventKind.AFTER_CALL, "two")
    hear(EventKind.AFTER_CALL, "three", "cat")
    hear(EventKind.PICKUP, "three", "cat")
    assert free() == set(FREE), "what is over is not picked up"
    hear(EventKind.PICKUP, "", "ann")
    hear(EventKind.PICKUP, "four", "a stranger")
    assert free() == set(FREE)


def test_what_was_heard_before_the_last_reading_counts_no_more(sales: World) -> None:
    routing = without_database(sales)
    tell(routing, sales, EventKind.PICKUP, "call", sip_login="ann")
    sales.see(FREE)
    routing._breaker.worked()
    routing.keep_up()
    routing._breaker.failed()
    assert sales.ask("next", routing=routing).destination == "ann"


def test_what_waits_for_the_database_counts_as_soon_as_that_is_back(sales: World) -> None:
    """Its events are applied one after the other, and calls do not wait for that."""
    away, back = without_database(sales), sales.routing()
    assert sales.ask("first", routing=away).destination == "ann"
    leases_end(away)
    tell(away, sales, EventKind.PICKUP, "first")
    tell(away, sales, EventKind.PICKUP, "second", sip_login="ben")
    tell(away, sales, EventKind.AFTER_CALL, "second")
    sales.hear("ben", speaking=True)  # another host's is newer
    answered = sales.ask("third", routing=back)
    assert (answered.degraded, answered.destination) == ("", "cat")
    assert sales.skips(answered) == {"ann": "speaking", "ben": "speaking", "cat": ""}
    with sales.database.reading() as session:
        assert recompute(session, answered.decision_id).is_same


def test_what_was_heard_before_the_clock_was_set_back_is_as_old_as_it_is(sales: World) -> None:
    """Be it set back to a moment before that was heard, by what it said then."""
    routing = without_database(sales)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=1)):
        for kind in (EventKind.PICKUP, EventKind.AFTER_CALL):
            tell(routing, sales, kind, "before", sip_login="ann", disposition=Disposition.ANSWERED)
    time.sleep(0.1)
    sales.see(FREE, speaking=["ann"])
    sales.ask("now", routing=routing)
    with sales.database.reading() as session:
        seen_at = session.scalars(select(models.Presence.began_at)).one()
    assert seen_at is not None
    assert not routing._host.look(sales.project_id, "", "", to_micros(seen_at)).heard
    assert routing._host.look(sales.project_id, "", "", to_micros(seen_at + timedelta(hours=1))).heard, "not known when"


def test_the_memory_of_the_host_keeps_no_event_for_ever(sales: World) -> None:
    routing = sales.routing()
    routing.keep_up()
    project = routing._known[sales.project_id].published.project
    long_ago = time.monotonic() - reservations.LONGEST_TALK / 1_000_000 - 1
    for number in range(3 * host_memory._PRUNE_EVERY):
        routing.hear(project, CallEvent(EventKind.PICKUP, f"{number}", sip_login="ann"), long_ago)
    connection = routing._host._open()
    assert connection is not None
    assert connection.execute("SELECT count(*) FROM heard").fetchone()[0] < host_memory._PRUNE_EVERY
    plans = [
        connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        for statement, values in (
            (host_memory._HEARD, (1, 0, 0)),
            (host_memory._HEAR_TALKING[2], dict.fromkeys(("project", "call_id", "login"), "")),
        )
    ]
    assert all("USING" in step and "INDEX heard_" in step for ((*_, step), *_) in plans), "however many there are"


def test_who_picked_up_before_the_database_went_away_is_known_to_all_processes(sales: World) -> None:
    routing, other = sales.routing(), without_database(sales)
    project = other._known[sales.project_id].published.project
    routing.hear(project, CallEvent(EventKind.PICKUP, "call", sip_login="ann"), time.monotonic())
    assert sales.ask("next", routing=other).destination == "ben"


def test_who_picked_up_by_an_event_that_was_put_off_talks_though_the_database_answers(sales: World) -> None:
    """As where no connection is left for events, but those of the calls are good."""
    routing, other = sales.routing(), sales.routing()
    other.keep_up()
    project = other._known[sales.project_id].published.project
    picked_up = CallEvent(EventKind.PICKUP, "call", sip_login="ann")
    other.hear(project, picked_up, time.monotonic(), is_put_off=True)
    told = sales.ask("next", routing=routing)
    assert (told.destination, told.degraded) == ("ben", "")
    hung_up = CallEvent(EventKind.AFTER_CALL, "call", sip_login="ann", disposition=Disposition.ANSWERED)
    other.hear(project, hung_up, time.monotonic(), is_put_off=True)
    assert sales.ask("one more", routing=routing).destination == "ann"


def test_the_end_of_an_earlier_call_that_is_heard_late_frees_nobody_who_is_seen_to_talk(sales: World) -> None:
    """The database leaves it aside, and so does whoever asks it while others do without it."""
    sales.see(FREE, speaking=["ann"])
    routing, other = sales.routing(), without_database(sales)
    project = other._known[sales.project_id].published.project
    over = CallEvent(EventKind.AFTER_CALL, "earlier", sip_login="ann", disposition=Disposition.ANSWERED)
    other.hear(project, over, time.monotonic(), is_put_off=True)
    assert sales.ask("next", routing=routing).destination == "ben"


def test_what_is_noted_of_another_call_is_never_promised_again(sales: World) -> None:
    """Whatever it was decided by."""
    memory, until = sales.routing()._host, time.time_ns() // 1000 + 25_000_000
    answer = {"project": sales.project_id, "call_id": "other", "step": "", "attempt": 0, "asked_at": until}
    answer |= {"destination": "ann", "agent_id": 1, "sip_login": "ann", "caller": ""}
    for holder, held_until, is_noted in (
        ("", until, False),
        ("third", until, False),
        ("other", until - 1, False),
        ("other", until, True),
        ("other", until + 1, True),
    ):
        memory.recent.note(1, until)
        known = Shared({1: (holder, held_until)})
        assert memory.note(Spooled(answer, reservations.Lease(1, "ann", until + 9, None)), known) == is_noted
        if is_noted:
            memory.withdraw(answer)


def test_who_is_being_claimed_is_not_promised_without_the_database(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), without_database(sales)
    told: list[Routed] = []
    while_recording(monkeypatch, lambda: told.append(sales.ask("other", routing=other)))
    claimed = sales.ask("claimed", routing=routing)
    assert told[0].degraded
    assert {claimed.destination, told[0].destination} < set(FREE), "two of the three, not the same one twice"


def test_who_is_claimed_after_the_look_is_not_promised_without_the_database(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = without_database(sales)
    look = HostMemory.look
    with sales.database.reading() as session:
        ann = sales.agent_id(session, "ann")

    def look_a_moment_early(memory: HostMemory, *given: Any) -> Shared:
        monkeypatch.undo()
        found = look(memory, *given)
        memory.recent.note(ann, time.time_ns() // 1000 + 25_000_000)
        return found

    monkeypatch.setattr(HostMemory, "look", look_a_moment_early)
    told = sales.ask("other", routing=other)
    assert told.degraded
    assert told.destination == "ben", "the second, though the first was free when it looked"


def test_a_claim_sees_what_is_promised_without_the_database_meanwhile(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise is made between the reading that the claim is decided by and its note."""
    routing, other = sales.routing(), without_database(sales)
    claiming = HostMemory.claiming
    told: list[Routed] = []

    def promised_first(memory: HostMemory, *given: Any) -> Any:
        monkeypatch.undo()
        told.append(sales.ask("other", routing=other))
        return claiming(memory, *given)

    monkeypatch.setattr(HostMemory, "claiming", promised_first)
    claimed = sales.ask("claimed", routing=routing)
    assert told[0].degraded
    assert not claimed.degraded
    assert {claimed.destination, told[0].destination} < set(FREE)


def test_an_answer_in_doubt_yields_to_the_one_given_to_the_same_question(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), without_database(sales)
    told: list[Routed] = []
    while_recording(monkeypatch, lambda: told.append(sales.ask("the same", routing=other)), fails=True)
    doubtful = sales.ask("the same", routing=routing)
    assert doubtful.destination == told[0].destination


def test_an_answer_in_doubt_yields_to_the_one_that_the_database_has(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of a question that waited in the database is answered as soon as the first one failed there."""
    routing, other = sales.routing(), sales.routing()
    stand_by = Routing._stand_by
    told: list[Routed] = []

    def answered_first(self: Routing, *given: Any) -> Routed | None:
        monkeypatch.undo()
        told.append(sales.ask("the same", routing=other))
        return stand_by(self, *given)

    while_recording(monkeypatch, lambda: monkeypatch.setattr(Routing, "_stand_by", answered_first), fails=True)
    doubtful = sales.ask("the same", routing=routing)
    assert not told[0].degraded
    assert (doubtful.destination, bool(sales.ask("the same").degraded)) == (told[0].destination, False)


@pytest.mark.parametrize("is_free", [True, False], ids=["an agent", "the overflow"])
def test_a_question_asked_again_without_the_database_gets_the_answer_of_the_other_process(
    is_free: bool, sales: World
) -> None:
    routing, other = sales.routing(), without_database(sales)
    if not is_free:
        sales.see(())
        other._breaker.worked()
        other.keep_up()
        other._breaker.failed()
    first = sales.ask("the same", routing=routing)
    if is_free:
        sales.ask("another", routing=other)  # so that it would not come to the same by itself
    again = sales.ask("the same", routing=other)
    assert (first.destination == OVERFLOW) is not is_free
    assert (again.destination, again.decision) == (first.destination, None)
    other._breaker.worked()
    other.keep_up()
    assert len([row for row in sales.decisions() if row.call_id == "the same"]) == 1


@pytest.mark.parametrize("is_free", [True, False], ids=["an agent", "the overflow"])
def test_a_question_asked_again_gets_the_answer_that_was_given_without_the_database(
    is_free: bool, sales: World
) -> None:
    routing = sales.routing()
    sales.see(FREE[:1] if is_free else ())
    other = without_database(sales)
    first = sales.ask("the same", routing=other)
    sales.see(FREE[1:])
    again = sales.ask("the same", routing=routing)
    assert (first.destination == OVERFLOW) is not is_free
    assert (again.destination, again.degraded) == (first.destination, "")
    other._breaker.worked()
    other.keep_up()
    (recorded,) = sales.decisions()
    assert (recorded.destination, bool(recorded.degraded)) == (first.destination, True)


@pytest.mark.parametrize("first_is_away", [True, False])
@pytest.mark.parametrize("second_is_away", [True, False])
def test_the_same_id_with_another_caller_is_another_call_without_the_database_too(
    first_is_away: bool, second_is_away: bool, sales: World
) -> None:
    routing, away = sales.routing(), without_database(sales)
    sales.ask("before", routing=routing)
    first = sales.ask("%CALLID%", caller="380501112233", routing=away if first_is_away else routing)
    second = sales.ask("%CALLID%", caller="380671112233", routing=away if second_is_away else routing)
    assert {first.destination, second.destination} == {"ben", "cat"}
    again = sales.ask("%CALLID%", caller="380671112233", routing=away)
    assert (again.destination, again.decision) == (second.destination, None)
    away._breaker.worked()
    away.keep_up()
    assert sorted(row.outcome for row in sales.decisions()) == ["", "", ""]
    assert len({row.call_id for row in sales.decisions()}) == 3


def test_the_next_step_knows_who_was_tried_without_the_database(sales: World) -> None:
    routing, other = sales.routing(), without_database(sales)
    first = sales.ask("on its way", "1", routing=other)
    sales.later(3600)  # the promise is over, nothing else keeps anybody from being called twice
    sales.see(FREE)
    second, third = (sales.ask("on its way", step, routing=routing) for step in ("2", "3"))
    assert {first.destination, second.destination, third.destination} == set(FREE)
    assert sales.ask("on its way", "4", routing=routing).destination == OVERFLOW


@pytest.mark.parametrize("when", ["before the claim", "while recording"])
def test_the_same_question_at_the_same_time_gets_one_answer_with_and_without_the_database(
    when: str, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), without_database(sales)
    sales.see(FREE[:1])  # whom the other process does not know: it decides differently
    other._known[sales.project_id].seen = Seen(0, frozenset(FREE[1:]), frozenset())
    told: list[Routed] = []
    claiming = HostMemory.claiming

    def answered_first(memory: HostMemory, *given: Any) -> Any:
        monkeypatch.undo()
        told.append(sales.ask("the same", routing=other))
        return claiming(memory, *given)

    if when == "while recording":
        while_recording(monkeypatch, lambda: told.append(sales.ask("the same", routing=other)))
    else:
        monkeypatch.setattr(HostMemory, "claiming", answered_first)
    assert sales.ask("the same", routing=routing).destination == told[0].destination
    assert (told[0].destination in FREE[1:]) == (when == "before the claim")


def test_a_question_answered_after_the_look_is_not_answered_otherwise_without_the_database(
    sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, other = sales.routing(), without_database(sales)
    other._known[sales.project_id].seen = Seen(0, frozenset(FREE[1:]), frozenset())
    sales.see(FREE[:1])
    look = HostMemory.look
    told: list[Routed] = []

    def answered_after(memory: HostMemory, *given: Any) -> Shared:
        monkeypatch.undo()
        found = look(memory, *given)
        told.append(sales.ask("the same", routing=routing))
        return found

    monkeypatch.setattr(HostMemory, "look", answered_after)
    assert sales.ask("the same", routing=other).destination == told[0].destination == FREE[0]


def ann_is_promised_and_deleted(world: World) -> Routing:
    """Ann is promised without the database while an admin deletes her."""
    other = without_database(world)
    assert world.ask("promised", routing=other).destination == "ann"
    the_agent_is_deleted(world)
    return other


def test_the_promise_of_an_agent_who_is_deleted_since_holds_up_nobody(sales: World) -> None:
    other = ann_is_promised_and_deleted(sales)
    told = sales.ask("another")
    assert (told.destination, told.degraded) == ("ben", "")
    other._breaker.worked()
    other.keep_up()
    assert len(other.spool) == 0
    assert {row.call_id: row.sip_login for row in sales.decisions()} == {"promised": "ann", "another": "ben"}
    assert set(sales.reservations()) == {"ann", "ben"}, "her phone rings"


def test_a_promise_written_again_keeps_the_name_of_its_decision(sales: World) -> None:
    """Each process writes the promises that it has not seen written, whoever has done so before."""
    other = without_database(sales)
    sales.ask("promised", routing=other)
    late = sales.routing()
    sales.ask("first")
    assert sales.reservations()["ann"].decision_id == 0, "not written yet"
    other._breaker.worked()
    other.keep_up()
    sales.ask("second", routing=late)
    (decision,) = (row for row in sales.decisions() if row.call_id == "promised")
    assert sales.reservations()["ann"].decision_id == decision.id


def test_a_promise_outlives_the_agent_who_is_deleted_meanwhile(migrated_postgres_url: str, tmp_path: Path) -> None:
    with world_at(migrated_postgres_url, tmp_path) as world, ThreadPoolExecutor(1) as pool:
        world.configure(agents=FREE, groups={"sales": FREE})
        world.see(FREE)
        other = without_database(world)
        world.ask("promised", routing=other)
        other._breaker.worked()
        with world.database.writing() as session:
            session.execute(text("DELETE FROM agents WHERE name = 'ann'"))
            written = pool.submit(other.keep_up)
            deadline = time.monotonic() + 10
            while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            session.commit()
        written.result(timeout=30)
        assert [row.call_id for row in world.decisions()] == ["promised"]
        assert list(world.reservations()) == ["ann"]


def test_a_decision_that_the_database_will_never_take_holds_up_no_other(sales: World) -> None:
    other = without_database(sales)
    for number in range(6):
        sales.ask(f"call {number}", routing=other)
        if number == 2:
            rows = other.spool.take(1)
            other.spool.put_back(rows)
            bad = rows[0].decision | {"call_id": "bad", "project": 999, "asked_at": 0}
            other.spool.add(Spooled(bad, None))
    sales.see(FREE[:1])
    other._breaker.worked()
    other.keep_up()
    assert (len(other.spool), other.spool.dropped) == (0, 1)
    assert [row.call_id for row in sales.decisions()] == [f"call {number}" for number in range(6)]


def test_what_cannot_be_written_keeps_nobody_from_learning(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk is full: what waits goes on waiting, and what there is to know is known."""
    other = without_database(sales)
    sales.ask("call", routing=other)
    sales.see(["cat"])
    other._breaker.worked()

    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError("the database did not answer in time")

    monkeypatch.setattr("router.routing.restore", fail)
    with pytest.raises(TimeoutError):
        other.keep_up()
    assert len(other.spool) == 1
    assert other._known[sales.project_id].seen.online == {"cat"}


@contextmanager
def stopped_while_promising(world: World, agent: str) -> Iterator[None]:
    """A process is stopped for a while where it has told of a promise and not yet filed it."""
    memory, is_told, may_go_on = world.routing()._host, threading.Event(), threading.Event()
    with world.database.reading() as session:
        agent_id = world.agent_id(session, agent)
    now = time.time_ns() // 1000
    lease = reservations.Lease(agent_id, agent, now + 25_000_000, None)
    answer = {"project": world.project_id, "call_id": "slow", "step": "", "attempt": 0, "asked_at": now}
    answer |= {"destination": agent, "agent_id": agent_id, "sip_login": agent, "caller": ""}

    def promise() -> None:
        with memory.promising(time.monotonic()):
            assert memory.note(Spooled(answer, lease), Shared())
            is_told.set()
            may_go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        promised = pool.submit(promise)
        assert is_told.wait(20)
        try:
            yield
        finally:
            may_go_on.set()
            promised.result()


def test_nobody_is_claimed_while_what_was_promised_cannot_be_read(sales: World) -> None:
    sales.see(["ann"])
    routing = sales.routing()
    routing.keep_up()
    with stopped_while_promising(sales, "ann"):
        assert routing._host.unwritten(time.monotonic()) is None
        told = routing.route_call(sales.project_id, QUICK, deadline=time.monotonic() + 0.5)
    assert (told.destination, bool(told.degraded)) == (OVERFLOW, True)
    assert sales.ask("later", routing=routing).destination == OVERFLOW
    assert sales.reservations()["ann"].call_id == "slow"


def test_who_is_promised_while_another_process_is_stopped_is_not_claimed_before_that_is_filed(
    sales: World,
) -> None:
    routing, other = sales.routing(), sales.routing()
    routing.keep_up()
    other.keep_up()
    with stopped_while_promising(sales, "ann"):
        began = time.monotonic()
        told = routing.route_call(sales.project_id, QUICK, deadline=began + 4)
        took = time.monotonic() - began
    assert told.destination == "ben"
    assert took < 7.9, "the time is not spent again for each thing that is locked"
    assert sales.ask("quick", routing=other).destination == "ben", "one answer to one question"
    assert sales.ask("later", routing=other).destination == "cat"
    routing.keep_up()
    assert sales.ask("last", routing=other).degraded == ""
    assert {login: lease.call_id for login, lease in sales.reservations().items()} == {
        "ann": "slow",
        "ben": "quick",
        "cat": "later",
    }


def test_what_cannot_be_filed_for_a_reader_that_was_stopped_is_filed_later(sales: World, tmp_path: Path) -> None:
    routing = without_database(sales)
    routing._host.look(sales.project_id, "", "")
    reader = sqlite3.connect(tmp_path / "host.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM answers_to").fetchall()
    told = sales.ask("call", routing=routing)
    reader.close()
    assert told.destination == "ann"
    assert routing._host.recent.until(1) > 0
    assert len(routing._host._unfiled) == 1
    other = sales.routing()
    other.keep_up()
    another = sales.ask("another", routing=other)
    assert (another.destination, bool(another.degraded)) == ("ben", True)
    routing._host.file(time.monotonic())
    assert len(routing._host._unfiled) == 0
    sales.ask("one more")
    assert sales.reservations()["ann"].call_id == "call"


def test_an_answer_stands_though_the_memory_of_the_host_is_full(sales: World) -> None:
    routing = without_database(sales)
    connection = routing._host._open()
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 1")
    told = [sales.ask(f"call {n}" + 3000 * "x", routing=routing) for n in range(3)]
    assert destinations(told) == FREE
    assert (connection.in_transaction, len(routing._host._unfiled)) == (False, 3)
    connection.execute("PRAGMA max_page_count = 100")
    routing.keep_up()
    assert len(routing._host._unfiled) == 0
    assert sales.ask("another").destination == OVERFLOW


def test_a_full_memory_of_the_host_ends_no_process(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", no_room)
    routing = without_database(sales)
    recent = routing._host.recent
    recent.note(1, time.time_ns())
    recent.tell_news()
    assert (recent.until(1), recent.news, recent.live(0), recent.unfiled(0)) == (0, 0, {}, set())
    assert sales.ask("call").destination == "ann"
    assert sales.ask("other", routing=routing).degraded


def test_the_memory_of_the_host_keeps_no_answer_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "host.sqlite"
    memory, now, every = HostMemory(path), datetime.now(UTC), ANSWERS_KEPT_SECONDS // 50
    for number in range(1000):
        with time_machine.travel(now + timedelta(seconds=number * every), tick=False):
            answer = {"project": 1, "call_id": f"{number}", "step": "", "attempt": 0, "destination": "ann"}
            answer |= {"asked_at": time.time_ns() // 1000, "agent_id": 1, "sip_login": "ann", "caller": ""}
            with memory.promising(time.monotonic()):
                assert memory.note(Spooled(answer, None), Shared())
    ((kept,),) = sqlite3.connect(path).execute("SELECT count(*) FROM answers_to")
    assert 50 <= kept <= 200


def test_any_thread_learns_what_was_answered_without_the_database(sales: World) -> None:
    routing, other = sales.routing(), without_database(sales)
    first = sales.ask("the same", routing=other)
    with ThreadPoolExecutor(1) as pool:
        told = [pool.submit(sales.ask, "the same", routing=routing).result() for routing in (other, routing)]
    told.append(sales.ask("the same", routing=routing))
    assert destinations(told) == [first.destination] * 3
    assert list(sales.reservations()) == [first.destination]


def test_a_lost_race_leaves_no_promise_and_no_answer_behind(sales: World) -> None:
    memory = sales.routing()._host
    until = time.time_ns() // 1000 + 25_000_000
    lease = reservations.Lease(1, "ann", until, None)
    answer = {"project": 1, "call_id": "lost", "step": "", "attempt": 0, "asked_at": until, "destination": "ann"}
    answer |= {"agent_id": 1, "sip_login": "ann", "caller": ""}
    with suppress(LostRaceError), memory.claiming(answer, lease):
        assert memory.recent.until(1) == until
        assert [earlier.destination for earlier in memory.look(1, "lost", "").answers] == ["ann"]
        raise LostRaceError
    assert memory.recent.until(1) == 0
    assert memory.look(1, "lost", "").answers == []
