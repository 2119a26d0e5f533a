"""Calls ring, are answered, transferred and hung up while their events are lost, late, repeated and out of order.

A simulated telephone exchange holds the truth; the product hears what arrives of it, in any order, and sees a poll now
and then. Time is simulated, so the database is SQLite, whose clock is that of this host.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select, update

from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import LONGEST_TALK, Result
from router.core.model import Outcome
from router.db import models
from router.db.session import Database
from router.presence.events import apply_event
from router.presence.settle import settle, tidy
from tests.presence.office import ALICE, BOB, CAROL, DAVE, NIGHT_DESK, Office, after_call, missed, opened_office, pickup

PHONES = (ALICE, BOB, CAROL, DAVE)
ANY = st.integers(0, 11)
T = TypeVar("T")
HARDLY = timedelta(seconds=0.9)  # by which two clocks may differ here
MORNING = datetime(2026, 11, 24, 8, tzinfo=UTC)


@dataclass
class TrueCall:
    """What really happens to a call."""

    call_id: str
    ringing: str = ""
    steps: int = 1
    talked: list[str] = field(default_factory=list)
    is_over: bool = False

    @property
    def is_talking(self) -> bool:
        return bool(self.talked) and not self.is_over


class Telephony(RuleBasedStateMachine):
    """`template` is a SQLite database with the office in it."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="router-calls-"))
        shutil.copyfile(self.template, self.folder / "router.db")
        self.clock = time_machine.travel(MORNING, tick=False)
        self.time = self.clock.start()
        self.office = Office(Database(f"sqlite+pysqlite:///{self.folder / 'router.db'}"), 1)
        self.project = self.office.project
        self.calls: list[TrueCall] = []
        self.own: dict[str, str] = {}  # call id by phone
        self.sent: list[CallEvent] = []
        self.delivered: list[CallEvent] = []
        self.put_off: list[tuple[CallEvent, datetime]] = []  # with when it came
        self.came: set[tuple[str, datetime]] = set()  # call id, when one of its events came

    @initialize()
    def the_day_begins(self) -> None:
        self.poll()

    def teardown(self) -> None:
        try:
            self.everything_comes_to_its_end()
        finally:
            self.office.database.dispose()
            self.clock.stop()
            shutil.rmtree(self.folder)

    # ---- the truth

    def busy(self) -> set[str]:
        talks = {call.talked[-1] for call in self.calls if call.is_talking}
        return (talks | set(self.own)) & set(PHONES)

    def ringing(self) -> list[TrueCall]:
        return [call for call in self.calls if not call.talked and not call.is_over]

    def talking(self) -> list[TrueCall]:
        return [call for call in self.calls if call.is_talking]

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.time.shift(timedelta(seconds=seconds))

    @precondition(lambda self: len(self.calls) < 10)
    @rule(answered=st.booleans())
    def a_call_comes_in(self, *, answered: bool) -> None:
        call = TrueCall(f"c{len(self.calls)}")
        call.ringing = self.office.ask(call.call_id, "1")
        self.calls.append(call)
        if answered:
            self.answer(call)

    @precondition(lambda self: len(self.calls) < 10)
    @rule(phone=st.sampled_from(PHONES))
    def a_call_comes_and_goes(self, phone: str) -> None:
        """All of a call before anything of it is heard, transferred to this phone if that is free."""
        self.a_call_comes_in(answered=True)
        if self.calls[-1].is_talking:
            self.the_talk_is_transferred(len(self.talking()) - 1, phone)
            self.time.shift(timedelta(seconds=3))
            self.the_talk_ends(len(self.talking()) - 1)

    @precondition(lambda self: self.ringing())
    @rule(which=ANY)
    def it_rings_on_somewhere_else(self, which: int) -> None:
        call = one(which, self.ringing())
        call.steps += 1
        call.ringing = self.office.ask(call.call_id, str(call.steps))

    @precondition(lambda self: self.ringing())
    @rule(which=ANY)
    def somebody_answers(self, which: int) -> None:
        self.answer(one(which, self.ringing()))

    def answer(self, call: TrueCall) -> None:
        if call.ringing not in self.busy():
            call.talked.append(call.ringing)
            self.sent.append(pickup(call.call_id, call.ringing))

    @precondition(lambda self: self.talking())
    @rule(which=ANY, to=st.sampled_from(PHONES))
    def the_talk_is_transferred(self, which: int, to: str) -> None:
        call = one(which, self.talking())
        if to not in self.busy() and to not in call.talked:
            call.talked.append(to)
            self.sent.append(pickup(call.call_id, to))

    @precondition(lambda self: self.talking())
    @rule(which=ANY)
    def the_talk_ends(self, which: int) -> None:
        call = one(which, self.talking())
        call.is_over = True
        self.sent.append(after_call(call.call_id, call.talked[-1]))

    @precondition(lambda self: self.ringing())
    @rule(which=ANY)
    def the_caller_gives_up(self, which: int) -> None:
        call = one(which, self.ringing())
        call.is_over = True
        self.sent.append(missed(call.call_id))

    @rule(phone=st.sampled_from(PHONES))
    def an_agent_calls_somebody_or_hangs_up(self, phone: str) -> None:
        if phone in self.own:
            self.sent.append(self.own_event(EventKind.AFTER_CALL, phone))
            del self.own[phone]
        elif phone not in self.busy():
            self.own[phone] = f"own{len(self.sent) + len(self.delivered)}-{phone}"
            self.sent.append(self.own_event(EventKind.BEFORE_CALL, phone))

    def own_event(self, kind: EventKind, phone: str) -> CallEvent:
        said = Disposition.ANSWERED if kind is EventKind.AFTER_CALL else Disposition.UNKNOWN
        return CallEvent(kind, self.own[phone], sip_login=phone, direction="out", disposition=said)

    # ---- what arrives of it

    @precondition(lambda self: self.sent)
    @rule(places=st.lists(ANY, min_size=1, max_size=4))
    def events_arrive(self, places: list[int]) -> None:
        for place in places:
            if self.sent:
                event = one(place, self.sent)
                self.sent.remove(event)
                self.hear(event, datetime.now(UTC))

    def hear(self, event: CallEvent, came_at: datetime) -> None:
        late = (datetime.now(UTC) - came_at).total_seconds()
        self.came.add((event.call_id, came_at))
        apply_event(self.office.database, self.project, event, arrived_at=time.monotonic() - late)
        self.delivered.append(event)

    @precondition(lambda self: self.sent)
    @rule(places=st.lists(ANY, min_size=1, max_size=4))
    def events_are_put_off(self, places: list[int]) -> None:
        """They come while the database is away."""
        for place in places:
            if self.sent:
                event = one(place, self.sent)
                self.sent.remove(event)
                self.put_off.append((event, datetime.now(UTC)))

    @precondition(lambda self: self.put_off)
    @rule(places=st.lists(ANY, min_size=1, max_size=8))
    def what_was_put_off_is_applied(self, places: list[int]) -> None:
        """Each process had put off its own, so the order is any."""
        for place in places:
            if self.put_off:
                self.hear(*self.put_off.pop(place % len(self.put_off)))

    @precondition(lambda self: self.sent)
    @rule(which=ANY)
    def an_event_is_lost(self, which: int) -> None:
        self.sent.remove(one(which, self.sent))

    @precondition(lambda self: self.delivered)
    @rule(which=ANY)
    def an_event_arrives_again(self, which: int) -> None:
        before = self.office.everything()
        applied = apply_event(self.office.database, self.project, one(which, self.delivered))
        assert applied.result in {Result.REPEATED, Result.UNMATCHED}
        assert self.office.everything() == before

    @rule()
    def poll(self) -> None:
        self.time.shift(timedelta(milliseconds=10))
        self.office.see(online=frozenset(PHONES), speaking=frozenset(self.busy()))
        settle(self.office.database, self.project)
        tidy(self.office.database, self.project)

    # ---- what holds at any time

    @invariant()
    def what_was_heard_holds(self) -> None:
        with self.office.database.reading() as session:
            said = session.scalars(select(models.LoginState).where(models.LoginState.event_at.is_not(None))).all()
            speaking = [login.event_call_id for login in said if login.event_speaking]
            reserved = session.scalars(select(models.Reservation.call_id)).all()
            calls = session.scalars(select(models.HeardCall)).all()
            heard = {call.call_id: call.talked for call in calls}
            agents = session.scalars(select(models.AgentState)).all()
            answered_today = {agent.agent_id: agent.answered_today for agent in agents}
            talked_today = {agent.agent_id: agent.talked_today for agent in agents}
            decisions = session.execute(
                select(
                    models.Decision.call_id,
                    models.Decision.outcome,
                    models.Decision.inferred,
                    models.Decision.answered_login,
                    models.Decision.ended_at,
                )
            ).all()
        ends = [event for event in self.delivered if event.kind is EventKind.AFTER_CALL]
        ended = {event.call_id for event in ends}
        answers = [event for event in self.delivered if is_answer(event)]

        for login in said:
            came = [at for call_id, at in self.came if call_id == login.event_call_id]
            assert any(login.event_at and abs(at - login.event_at) < HARDLY for at in came), "it is of when it came"
        assert not ended & set(speaking), "nobody speaks on a call whose end was heard"
        assert not ended & set(reserved), "and it rings nowhere"
        assert not {event.call_id for event in answers} & set(reserved), "nor does one that was picked up"

        assert all(len(talked) == len(set(talked)) for talked in heard.values())
        assert all(event.sip_login in heard[event.call_id] for event in answers)
        ours = [talked for call_id, talked in heard.items() if not call_id.startswith("own")]
        for agent_id, phone in zip(sorted(answered_today), PHONES, strict=True):
            assert answered_today[agent_id] == sum(phone in talked for talked in ours), "every answer counts once"
        counted = [(int(agent), seconds) for call in calls for agent, (_since, seconds) in (call.talks or {}).items()]
        assert talked_today == {
            agent_id: sum(seconds for agent, seconds in counted if agent == agent_id) for agent_id in answered_today
        }, "and every second of it"
        longest = max(30, (datetime.now(UTC) - MORNING).total_seconds())
        assert all(0 <= seconds <= longest for _agent, seconds in counted)

        for event in ends:
            of_call = [decision for decision in decisions if decision.call_id == event.call_id]
            assert all(decision.outcome and decision.ended_at for decision in of_call)
            if event.disposition.is_answered and of_call:
                answered = [decision for decision in of_call if decision.outcome == Outcome.ANSWERED]
                assert event.sip_login in {decision.answered_login for decision in answered}
                assert not any(decision.inferred for decision in answered)

    def everything_comes_to_its_end(self) -> None:
        """All phones are put down, no more events arrive, and presence goes on."""
        self.own.clear()
        for call in self.calls:
            call.is_over = True
        for seconds in (1, 20, 60, 120):
            self.time.shift(timedelta(seconds=seconds))
            self.poll()
        assert self.office.reserved() == []
        decisions = [decision for call in self.calls for decision in self.office.decisions(call.call_id)]
        for decision in decisions:
            assert decision.outcome
            assert decision.ended_at is not None or decision.answered_login == NIGHT_DESK
        with self.office.database.writing() as session:
            for state in session.scalars(select(models.AgentState)):
                assert state.wrap_up_until is None or state.wrap_up_until <= self.office.now()
                state.status, state.cooling_until = "available", None
        assert self.office.ask("the last") != NIGHT_DESK, "everybody is free"
        self.time.shift(LONGEST_TALK)  # presence sees nothing of a talk at a number
        self.poll()
        for call in self.calls:
            assert all(decision.ended_at for decision in self.office.decisions(call.call_id))


def is_answer(event: CallEvent) -> bool:
    if event.direction == "out":
        return False
    return event.kind is EventKind.PICKUP or (event.kind is EventKind.AFTER_CALL and event.disposition.is_answered)


def one(place: int, things: list[T]) -> T:
    return things[place % len(things)]


@pytest.fixture
def template(migrated_sqlite_url: str) -> Path:
    """A database with the office in it, where everybody is at work."""
    with time_machine.travel(MORNING, tick=False), opened_office(migrated_sqlite_url, wrap_up=5) as office:
        with office.database.writing() as session:
            session.execute(update(models.AgentState).values(status="available"))
        office.see(online=frozenset(PHONES), speaking=frozenset(), at=MORNING + timedelta(seconds=1))
    return Path(migrated_sqlite_url.removeprefix("sqlite+pysqlite:///"))


def test_events_lost_late_and_repeated_leave_nobody_speaking_and_nothing_open(template: Path) -> None:
    class OnTemplate(Telephony):
        pass

    OnTemplate.template = template
    case = OnTemplate.TestCase
    case.settings = settings(max_examples=12, stateful_step_count=50)
    case().runTest()


def story(call_id: str, first: str, then: str) -> list[CallEvent]:
    """Somebody answers, transfers, and the other ends the call."""
    return [pickup(call_id, first), pickup(call_id, then), after_call(call_id, then)]


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_events_in_any_order_and_number_come_to_the_same(template: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, time_machine.travel(MORNING, tick=False) as clock:
        shutil.copyfile(template, Path(folder) / "router.db")
        office = Office(Database(f"sqlite+pysqlite:///{folder}/router.db"), 1)
        project = office.project
        first = {call_id: office.ask(call_id) for call_id in ("c0", "c1", "c2")}
        assert set(first.values()) == {ALICE, BOB, CAROL}
        events = [event for call_id, login in first.items() for event in story(call_id, login, DAVE)]
        events.append(missed("c3"))
        assert office.ask("c3") == DAVE
        repeated = data.draw(st.lists(st.sampled_from(events), max_size=5))
        for event in data.draw(st.permutations([*events, *repeated])):
            clock.shift(timedelta(seconds=1))
            apply_event(office.database, project, event)
        assert office.speaking_by_events() == set()
        assert office.reserved() == []
        assert [office.agent(name).answered_today for name in ("Alice", "Bob", "Carol", "Dave")] == [1, 1, 1, 3]
        talked = [office.agent(name).talked_today for name in ("Alice", "Bob", "Carol", "Dave")]
        assert all(0 <= seconds <= 90 for seconds in talked), "of 30 s each, at most"
        for call_id in first:
            decision = office.decision(call_id)
            assert (decision.outcome, decision.inferred, decision.answered_login) == (Outcome.ANSWERED, False, DAVE)
            assert (decision.disposition, decision.talked_seconds) == (Disposition.ANSWERED, 30)
        assert office.decision("c3").outcome in {Outcome.NO_ANSWER, Outcome.ABANDONED}
        office.database.dispose()


def test_an_answer_that_presence_showed_gives_way_to_whoever_picked_up(template: Path) -> None:
    """The first phone rang while its agent spoke on another call. Asked again so late, nobody knows that it did."""
    with time_machine.travel(MORNING, tick=False) as clock:
        office = Office(Database(f"sqlite+pysqlite:///{template}"), 1)
        try:
            first = office.ask("c1", "1")
            clock.shift(timedelta(seconds=23))
            office.see(online=frozenset(PHONES), speaking=frozenset({first}))
            settle(office.database, office.project)
            assert office.decision("c1").outcome == Outcome.ANSWERED
            clock.shift(timedelta(seconds=15))
            office.see(online=frozenset(PHONES), speaking=frozenset({first}))
            second = office.ask("c1", "2")
            apply_event(office.database, office.project, pickup("c1", second))
            told = [(decision.outcome, decision.inferred) for decision in office.decisions("c1")]
            assert told == [(Outcome.NO_ANSWER, False), (Outcome.ANSWERED, False)]
            with office.database.reading() as session:
                counts = session.scalars(select(models.AgentState.answered_today)).all()
            assert sorted(counts) == [0, 0, 0, 1]
        finally:
            office.database.dispose()
