"""Calls ring, are answered, transferred and hung up while their events are lost, late, repeated and out of order.

A simulated telephone exchange holds the truth; the product hears what arrives of it, in any order, and sees a poll now
and then. Time is simulated, so the database is SQLite, whose clock is that of this host.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Outcome
from router.db import models
from router.presence.events import Result, apply_event
from router.presence.settle import LONGEST_TALK, settle, tidy
from tests.presence.office import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    NIGHT_DESK,
    Office,
    after_call,
    missed,
    opened_office,
    pickup,
)

PHONES = (ALICE, BOB, CAROL, DAVE)
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
    """`template` is a migrated SQLite database."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="router-calls-"))
        shutil.copyfile(self.template, self.folder / "router.db")
        self.clock = time_machine.travel(MORNING, tick=False)
        self.time = self.clock.start()
        self.opened = opened_office(f"sqlite+pysqlite:///{self.folder / 'router.db'}", wrap_up=5)
        self.office: Office = self.opened.__enter__()
        self.project = self.office.project
        self.calls: list[TrueCall] = []
        self.own: dict[str, str] = {}  # call id by phone
        self.sent: list[CallEvent] = []
        self.delivered: list[CallEvent] = []

    @initialize()
    def everybody_is_there(self) -> None:
        with self.office.database.writing() as session:
            for state in session.scalars(select(models.AgentState)):
                state.status = "available"
        self.poll()

    def teardown(self) -> None:
        try:
            self.everything_comes_to_its_end()
        finally:
            self.opened.__exit__(None, None, None)
            self.clock.stop()
            shutil.rmtree(self.folder)

    # ---- the truth

    def busy(self) -> set[str]:
        talks = {call.talked[-1] for call in self.calls if call.is_talking}
        return (talks | set(self.own)) & set(PHONES)

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.time.shift(timedelta(seconds=seconds))

    @precondition(lambda self: len(self.calls) < 8)
    @rule()
    def a_call_comes_in(self) -> None:
        call = TrueCall(f"c{len(self.calls)}")
        call.ringing = self.office.ask(call.call_id, "1")
        self.calls.append(call)

    @rule(which=st.integers(0, 7))
    def it_rings_on_somewhere_else(self, which: int) -> None:
        for call in self.picked(which, lambda call: not call.talked and not call.is_over and call.steps < 4):
            call.steps += 1
            call.ringing = self.office.ask(call.call_id, str(call.steps))

    @rule(which=st.integers(0, 7))
    def somebody_answers(self, which: int) -> None:
        for call in self.picked(which, lambda call: not call.talked and not call.is_over):
            if call.ringing not in self.busy():
                call.talked.append(call.ringing)
                self.sent.append(pickup(call.call_id, call.ringing))

    @rule(which=st.integers(0, 7), to=st.sampled_from(PHONES))
    def the_talk_is_transferred(self, which: int, to: str) -> None:
        for call in self.picked(which, lambda call: call.is_talking and to not in call.talked):
            if to not in self.busy():
                call.talked.append(to)
                self.sent.append(pickup(call.call_id, to))

    @rule(which=st.integers(0, 7))
    def the_caller_hangs_up(self, which: int) -> None:
        for call in self.picked(which, lambda call: not call.is_over):
            call.is_over = True
            if call.talked:
                self.sent.append(after_call(call.call_id, call.talked[-1]))
            else:
                self.sent.append(missed(call.call_id))

    @rule(phone=st.sampled_from(PHONES))
    def an_agent_calls_somebody(self, phone: str) -> None:
        if phone not in self.busy():
            self.own[phone] = f"own{len(self.sent)}-{phone}"
            self.sent.append(self.own_event(EventKind.BEFORE_CALL, phone))

    @rule(phone=st.sampled_from(PHONES))
    def and_hangs_up(self, phone: str) -> None:
        if phone in self.own:
            self.sent.append(self.own_event(EventKind.AFTER_CALL, phone))
            del self.own[phone]

    def own_event(self, kind: EventKind, phone: str) -> CallEvent:
        said = Disposition.ANSWERED if kind is EventKind.AFTER_CALL else Disposition.UNKNOWN
        return CallEvent(kind, self.own[phone], sip_login=phone, direction="out", disposition=said)

    def picked(self, which: int, fits: object) -> list[TrueCall]:
        assert callable(fits)
        found = [call for call in self.calls if fits(call)]
        return found[which % len(found) : which % len(found) + 1] if found else []

    # ---- what arrives of it

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 30))
    def an_event_arrives(self, which: int) -> None:
        event = self.sent.pop(which % len(self.sent))
        apply_event(self.office.database, self.project, event)
        self.delivered.append(event)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 30))
    def an_event_is_lost(self, which: int) -> None:
        self.sent.pop(which % len(self.sent))

    @precondition(lambda self: self.delivered)
    @rule(which=st.integers(0, 30))
    def an_event_arrives_again(self, which: int) -> None:
        before = self.office.everything()
        applied = apply_event(self.office.database, self.project, self.delivered[which % len(self.delivered)])
        assert applied.result in {Result.REPEATED, Result.UNMATCHED}
        assert self.office.everything() == before

    @rule()
    def poll(self) -> None:
        self.time.shift(timedelta(milliseconds=10))
        self.office.see(online=frozenset(PHONES), speaking=frozenset(self.busy()))
        settle(self.office.database, self.project)
        tidy(self.office.database, self.project)

    # ---- what holds at any time

    def ended(self) -> set[str]:
        return {event.call_id for event in self.delivered if event.kind is EventKind.AFTER_CALL}

    @invariant()
    def nobody_speaks_on_a_call_whose_end_was_heard(self) -> None:
        with self.office.database.reading() as session:
            speaking = session.scalars(select(models.LoginState).where(models.LoginState.event_speaking.is_(True)))
            assert {row.event_call_id for row in speaking} & self.ended() == set()

    @invariant()
    def every_answer_counts_once(self) -> None:
        with self.office.database.reading() as session:
            heard = {row.call_id: row.talked for row in session.scalars(select(models.HeardCall))}
        for call_id, talked in heard.items():
            assert len(talked) == len(set(talked))
            told = {event.sip_login for event in self.delivered if is_answer(event, call_id)}
            assert told <= set(talked)
        for name, phone in zip(("Alice", "Bob", "Carol", "Dave"), PHONES, strict=True):
            answered = sum(phone in talked for call_id, talked in heard.items() if not call_id.startswith("own"))
            assert self.office.agent(name).answered_today == answered

    @invariant()
    def the_outcome_is_what_the_end_of_the_call_told(self) -> None:
        for event in self.delivered:
            if event.kind is not EventKind.AFTER_CALL or event.call_id.startswith("own"):
                continue
            decisions = self.office.decisions(event.call_id)
            assert all(decision.outcome and decision.ended_at for decision in decisions)
            answered = [decision for decision in decisions if decision.outcome == Outcome.ANSWERED]
            if event.disposition.is_answered:
                assert event.sip_login in {decision.answered_login for decision in answered}
                assert not any(decision.inferred for decision in answered)

    @invariant()
    def a_reservation_is_of_a_call_that_may_still_ring(self) -> None:
        with self.office.database.reading() as session:
            for row in session.scalars(select(models.Reservation)):
                assert row.call_id not in self.ended()
                answered = [event for event in self.delivered if is_answer(event, row.call_id)]
                assert not answered

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


def is_answer(event: CallEvent, call_id: str) -> bool:
    if event.call_id != call_id:
        return False
    return event.kind is EventKind.PICKUP or (event.kind is EventKind.AFTER_CALL and event.disposition.is_answered)


@pytest.fixture
def telephony(migrated_sqlite_url: str) -> type[Telephony]:
    class OnTemplate(Telephony):
        template = Path(migrated_sqlite_url.removeprefix("sqlite+pysqlite:///"))

    return OnTemplate


def test_events_in_any_order_leave_nobody_speaking_and_nothing_open(telephony: type[Telephony]) -> None:
    case = telephony.TestCase
    case.settings = settings(max_examples=25, stateful_step_count=40)
    case().runTest()
