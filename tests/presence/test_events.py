"""Call events, lost, late, repeated and out of order, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import OUTCOMES, Result
from router.core.model import Outcome
from router.db import models
from router.presence.events import apply_event
from router.presence.settle import settle
from tests.presence.office import (
    ALICE,
    ALICE_MOBILE,
    BOB,
    CAROL,
    DAVE,
    NIGHT_DESK,
    ONLINE,
    Office,
    after_call,
    missed,
    opened_office,
    pickup,
)
from tests.rows import changing

SECOND = timedelta(seconds=1)


@pytest.fixture
def office(migrated_url: str) -> Iterator[Office]:
    with opened_office(migrated_url) as opened:
        yield opened


@pytest.fixture
def sqlite_office(migrated_sqlite_url: str) -> Iterator[Office]:
    """Where the kind of database makes no difference."""
    with opened_office(migrated_sqlite_url) as opened:
        yield opened


def hear(office: Office, event: CallEvent, now: datetime | None = None) -> Result:
    return apply_event(office.database, office.project, event, now).result


def free_everybody(office: Office) -> None:
    """Bob hangs up, Carol comes back: three agents can be offered calls."""
    office.see(speaking=frozenset())
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(status="available"))


# ---- pickup


def test_a_pickup_makes_the_agent_speak_at_once(office: Office) -> None:
    assert office.ask("c1") == ALICE
    assert hear(office, pickup("c1")) == Result.APPLIED
    assert office.ask("c2") == NIGHT_DESK, "Alice talks, and nobody else is free"
    told = office.login(ALICE)
    assert told is not None
    assert (told.event_speaking, told.event_call_id) == (True, "c1")


def test_a_pickup_ends_the_reservation_as_answered(office: Office) -> None:
    office.ask("c1")
    asked_at = office.decision("c1").asked_at
    hear(office, pickup("c1"), asked_at + 7 * SECOND)
    assert office.reserved() == []
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.ANSWERED, False)
    assert (decision.answered_agent_id, decision.answered_login) == (office.agents["Alice"], ALICE)
    assert decision.answered_at == asked_at + 7 * SECOND
    assert decision.waited_seconds == 7
    assert decision.ended_at is None


def test_a_pickup_counts_one_answered_call_and_ends_the_no_answers_in_a_row(office: Office) -> None:
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(no_answers=2, cooling_until=office.now() - SECOND))
    office.ask("c1")
    hear(office, pickup("c1"))
    alice = office.agent("Alice")
    assert (alice.answered_today, alice.no_answers, alice.cooling_until) == (1, 0, None)
    assert office.agent("Bob").no_answers == 2


def test_answered_calls_are_counted_by_the_local_day_of_the_project(sqlite_office: Office) -> None:
    office = sqlite_office  # in Kyiv
    before_midnight, after_midnight = (datetime(2026, 11, 23, hour, 30, tzinfo=UTC) for hour in (21, 22))
    for number, at in enumerate((before_midnight, before_midnight, after_midnight)):
        office.ask(f"c{number}")
        hear(office, pickup(f"c{number}"), at)
        hear(office, after_call(f"c{number}"), at)
        with office.database.writing() as session:
            session.execute(update(models.AgentState).values(wrap_up_until=None))
        if number == 1:
            assert office.agent("Alice").answered_today == 2
    assert office.agent("Alice").answered_today == 1
    assert str(office.agent("Alice").day) == "2026-11-24"


def test_the_same_pickup_again_changes_nothing(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    before = office.everything()
    assert hear(office, pickup("c1"), office.now() + 3 * SECOND) == Result.REPEATED
    assert office.everything() == before


def test_a_pickup_with_the_login_in_other_letters_is_the_same_agents(sqlite_office: Office) -> None:
    sqlite_office.ask("c1")
    hear(sqlite_office, pickup("c1", "ACME_Alice"))
    assert sqlite_office.speaking_by_events() == {ALICE}
    assert hear(sqlite_office, pickup("c1", ALICE)) == Result.REPEATED


def test_a_pickup_that_names_the_agent_means_the_phone_that_was_offered(sqlite_office: Office) -> None:
    sqlite_office.see(online=frozenset({ALICE_MOBILE}))
    assert sqlite_office.ask("c1") == ALICE_MOBILE
    hear(sqlite_office, pickup("c1", "Alice"))
    assert sqlite_office.speaking_by_events() == {ALICE_MOBILE}


def test_a_pickup_that_names_nobody_is_by_whom_the_call_was_offered_to(sqlite_office: Office) -> None:
    sqlite_office.ask("c1")
    hear(sqlite_office, pickup("c1", ""))
    assert sqlite_office.speaking_by_events() == {ALICE}
    assert sqlite_office.decision("c1").answered_login == ALICE


def test_a_pickup_at_the_overflow_is_recorded_with_its_number(office: Office) -> None:
    office.see(online=frozenset())
    assert office.ask("c1") == NIGHT_DESK
    applied = apply_event(office.database, office.project, pickup("c1", NIGHT_DESK))
    assert (applied.result, applied.notes) == (Result.APPLIED, (f"{NIGHT_DESK!r} is no agent's SIP login.",))
    decision = office.decision("c1")
    assert (decision.outcome, decision.answered_agent_id, decision.answered_login) == ("answered", None, NIGHT_DESK)
    assert office.login(NIGHT_DESK) is None, "a number is no login"


def test_a_voice_mail_box_that_answers_is_nobody(office: Office) -> None:
    office.ask("c1")
    assert hear(office, pickup("c1", answered=False)) == Result.APPLIED
    assert hear(office, pickup("c1", answered=False)) == Result.REPEATED
    assert office.reserved() == []
    assert office.speaking_by_events() == set()
    assert (office.decision("c1").outcome, office.agent("Alice").answered_today) == (Outcome.VOICEMAIL, 0)


def test_a_pickup_that_came_after_the_next_step_was_asked_still_counts(office: Office) -> None:
    free_everybody(office)
    first = office.ask("c1", "1")
    second = office.ask("c1", "2")
    assert first != second
    hear(office, pickup("c1", first))
    assert [d.outcome for d in office.decisions("c1")] == [Outcome.ANSWERED, Outcome.NO_ANSWER]
    assert office.reserved() == [], "the second phone stopped ringing"


def test_each_agent_who_answers_a_step_of_the_call_answers_that_step(office: Office) -> None:
    """Alice answers, the caller is sent back to the queue, Bob answers."""
    free_everybody(office)
    office.ask("c1", "1")
    hear(office, pickup("c1", ALICE))
    assert office.ask("c1", "2") == BOB
    hear(office, pickup("c1", BOB))
    assert office.speaking_by_events() == {BOB}
    hear(office, after_call("c1", BOB))
    decisions = office.decisions("c1")
    assert [d.answered_login for d in decisions] == [ALICE, BOB]
    assert all(d.outcome == Outcome.ANSWERED and d.ended_at for d in decisions)
    assert (office.agent("Alice").answered_today, office.agent("Bob").answered_today) == (1, 1)


def test_an_earlier_overflow_was_not_answered_when_the_next_step_is(sqlite_office: Office) -> None:
    office = sqlite_office
    office.see(online=frozenset())
    office.ask("c1", "1")
    office.see()
    assert office.ask("c1", "2") == ALICE
    hear(office, pickup("c1"))
    settle(office.database, office.project)
    assert [d.outcome for d in office.decisions("c1")] == [Outcome.NO_ANSWER, Outcome.ANSWERED]
    assert not any(d.inferred for d in office.decisions("c1"))


# ---- transfer


def test_a_transfer_moves_the_talk_to_the_other_agent(office: Office) -> None:
    office.ask("c1")
    now = office.now()
    hear(office, pickup("c1", ALICE), now)
    hear(office, pickup("c1", BOB), now + 40 * SECOND)
    assert office.speaking_by_events() == {BOB}
    alice = office.agent("Alice")
    assert (alice.last_talk_end_at, alice.wrap_up_until) == (now + 40 * SECOND, now + 50 * SECOND)
    assert (alice.answered_today, office.agent("Bob").answered_today) == (1, 1)
    decision = office.decision("c1")
    assert (decision.answered_login, decision.answered_at) == (BOB, now)


def test_the_end_after_a_transfer_frees_the_last_one_and_leaves_the_first_alone(office: Office) -> None:
    office.ask("c1")
    now = office.now()
    hear(office, pickup("c1", ALICE), now)
    hear(office, pickup("c1", BOB), now + 40 * SECOND)
    hear(office, after_call("c1", BOB, billsec=90), now + 90 * SECOND)
    assert office.speaking_by_events() == set()
    assert office.agent("Alice").last_talk_end_at == now + 40 * SECOND
    assert office.agent("Bob").wrap_up_until == now + 100 * SECOND
    assert office.decision("c1").talked_seconds == 90


def test_a_transfer_to_ones_own_mobile_is_neither_an_end_nor_a_second_call(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1", ALICE))
    hear(office, pickup("c1", ALICE_MOBILE))
    assert office.speaking_by_events() == {ALICE_MOBILE}
    alice = office.agent("Alice")
    assert (alice.answered_today, alice.wrap_up_until) == (1, None)


def test_the_end_names_another_agent_when_the_pickup_of_the_transfer_was_lost(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1", ALICE))
    hear(office, after_call("c1", BOB))
    assert office.speaking_by_events() == set()
    assert office.decision("c1").answered_login == BOB
    assert (office.agent("Alice").answered_today, office.agent("Bob").answered_today) == (1, 1)
    assert office.agent("Bob").wrap_up_until is not None


# ---- the end


def test_the_end_frees_the_agent_at_once_and_starts_the_wrap_up(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    office.see(speaking=frozenset({ALICE, BOB}))  # the last reading still shows the talk
    now = office.now()
    assert hear(office, after_call("c1"), now) == Result.APPLIED
    alice = office.agent("Alice")
    assert (alice.last_talk_end_at, alice.wrap_up_until) == (now, now + 10 * SECOND)
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(wrap_up_until=None))
    assert office.ask("c2") == ALICE


def test_the_end_writes_what_became_of_the_call(office: Office) -> None:
    office.ask("c1")
    now = office.now()
    hear(office, pickup("c1"), now)
    hear(office, after_call("c1", disposition=Disposition.PROPER, billsec=61, waittime=6), now + 61 * SECOND)
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred, decision.disposition) == ("answered", False, "proper")
    assert (decision.talked_seconds, decision.waited_seconds) == (61, 6)
    assert decision.ended_at == now + 61 * SECOND


def test_the_end_without_durations_is_timed_by_our_own_clock(office: Office) -> None:
    office.ask("c1")
    asked_at = office.decision("c1").asked_at
    hear(office, pickup("c1"), asked_at + 8 * SECOND)
    hear(office, after_call("c1", billsec=None, duration=None, waittime=None), asked_at + 20 * SECOND)
    decision = office.decision("c1")
    assert (decision.waited_seconds, decision.talked_seconds) == (8, 12)


def test_the_end_tells_of_a_talk_whose_pickup_was_lost(office: Office) -> None:
    office.ask("c1")
    now = office.now() + 60 * SECOND
    hear(office, after_call("c1", billsec=30), now)
    decision = office.decision("c1")
    assert (decision.outcome, decision.answered_agent_id) == (Outcome.ANSWERED, office.agents["Alice"])
    assert decision.answered_at == now - 30 * SECOND
    alice = office.agent("Alice")
    assert (alice.answered_today, alice.wrap_up_until) == (1, now + 10 * SECOND)
    assert office.reserved() == []


def test_an_answered_end_that_names_nobody_was_answered_by_whom_it_was_offered_to(sqlite_office: Office) -> None:
    sqlite_office.ask("c1")
    hear(sqlite_office, after_call("c1", ""))
    assert sqlite_office.decision("c1").answered_login == ALICE
    assert sqlite_office.agent("Alice").answered_today == 1


def test_the_same_end_again_changes_nothing(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    hear(office, after_call("c1"))
    before = office.everything()
    assert hear(office, after_call("c1"), office.now() + 5 * SECOND) == Result.REPEATED
    assert office.everything() == before


def test_a_late_end_does_not_free_the_agent_from_the_next_call(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    office.see()  # Alice was seen to be free again, the end of c1 is still on its way
    office.ask("c2")
    hear(office, pickup("c2"))
    hear(office, after_call("c1"))
    assert office.speaking_by_events() == {ALICE}
    assert office.agent("Alice").wrap_up_until is None
    hear(office, after_call("c2"))
    assert office.speaking_by_events() == set()


def on_the_next_call(office: Office) -> None:
    """Alice was seen to be free again and was offered c2. She was seen to talk, though no event has told of it yet."""
    office.see()
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(wrap_up_until=None))
    assert office.ask("c2") == ALICE
    office.see(speaking=frozenset({ALICE, BOB}))
    settle(office.database, office.project)
    assert (office.decision("c2").outcome, office.reserved()) == (Outcome.ANSWERED, [])


def why_not_alice(office: Office, call_id: str) -> str:
    """The reason for which the next call is not offered to her."""
    office.ask(call_id)
    ((_, candidates),) = office.record(office.decision(call_id))["trials"]
    return next(str(skip) for _, login, skip, *_ in candidates if login == ALICE)


@pytest.mark.parametrize("is_told", [True, False], ids=["its pickup was told", "its pickup was lost"])
def test_a_late_end_does_not_free_an_agent_who_was_seen_on_the_next_call(office: Office, *, is_told: bool) -> None:
    office.ask("c1")
    if is_told:
        hear(office, pickup("c1"))
    else:
        office.see(speaking=frozenset({ALICE, BOB}))
        settle(office.database, office.project)
    office.see()
    settle(office.database, office.project)
    on_the_next_call(office)
    assert hear(office, after_call("c1")) == Result.APPLIED
    assert why_not_alice(office, "c3") == "speaking"
    assert office.agent("Alice").wrap_up_until is None
    assert hear(office, after_call("c2")) == Result.APPLIED
    assert why_not_alice(office, "c4") == "wrap_up"


def test_a_late_end_does_not_free_an_agent_who_was_seen_to_hang_up_and_talk_again(office: Office) -> None:
    office.ask("c1")
    office.see(speaking=frozenset({ALICE, BOB}))
    settle(office.database, office.project)
    office.see()
    settle(office.database, office.project)
    office.see(speaking=frozenset({ALICE, BOB}))  # a call of her own, of which no event told
    assert hear(office, after_call("c1")) == Result.APPLIED
    assert why_not_alice(office, "c2") == "speaking"


def test_a_late_pickup_elsewhere_does_not_free_an_agent_who_was_seen_on_the_next_call(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    on_the_next_call(office)
    assert hear(office, pickup("c1", CAROL)) == Result.APPLIED
    assert why_not_alice(office, "c3") == "speaking"
    assert office.agent("Alice").wrap_up_until is None


@pytest.mark.parametrize("beginning", ["told", "told late", "lost"])
def test_a_late_end_of_an_own_call_does_not_free_an_agent_who_was_seen_on_the_next_call(
    office: Office, beginning: str
) -> None:
    if beginning == "told":
        hear(office, own_call(EventKind.BEFORE_CALL))
    on_the_next_call(office)
    if beginning == "told late":
        hear(office, own_call(EventKind.BEFORE_CALL))
    hear(office, own_call(EventKind.AFTER_CALL))
    assert why_not_alice(office, "c3") == "speaking"


def test_a_late_pickup_of_an_earlier_call_does_not_displace_the_talk_of_a_later_one(office: Office) -> None:
    office.ask("c1")
    office.ask("c1", "2")  # nobody: the reservation is given back
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(cooling_until=None))
    office.see()
    assert office.ask("c2") == ALICE
    hear(office, pickup("c2"))
    hear(office, pickup("c1"))
    hear(office, after_call("c1"))
    assert office.speaking_by_events() == {ALICE}, "on c2"


def hear_put_off(office: Office, event: CallEvent, seconds: float) -> Result:
    """It came so long ago, while the database was away."""
    arrived_at = time.monotonic() - seconds
    return apply_event(office.database, office.project, event, arrived_at=arrived_at).result


def test_what_was_put_off_does_not_displace_what_came_later(office: Office) -> None:
    """Neither call is on record yet: both were answered without the database."""
    hear(office, pickup("c2"))
    hear_put_off(office, pickup("c1"), 40)
    hear_put_off(office, after_call("c1"), 30)
    assert office.speaking_by_events() == {ALICE}, "on c2"
    assert why_not_alice(office, "c3") == "speaking"
    hear(office, after_call("c2"))
    assert office.speaking_by_events() == set()


def test_what_was_put_off_is_older_than_what_was_seen_since(office: Office) -> None:
    hear_put_off(office, pickup("c1"), 40)
    office.see(speaking=frozenset({ALICE, BOB}))  # on another call
    hear_put_off(office, after_call("c1"), 30)
    assert why_not_alice(office, "c3") == "speaking"
    office.see()
    hear_put_off(office, pickup("c2"), 30)
    assert office.ask("c4") == ALICE


def test_of_one_call_the_end_counts_however_long_it_was_put_off(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    assert hear_put_off(office, after_call("c1"), 1) == Result.APPLIED
    assert office.speaking_by_events() == set()


def test_an_event_from_before_the_clock_was_set_back_counts_no_more(office: Office) -> None:
    hear(office, pickup("c1"), office.now() + timedelta(hours=1))
    hear(office, after_call("c1"), office.now() + timedelta(hours=1))
    hear(office, pickup("c2"))
    assert office.speaking_by_events() == {ALICE}


def test_an_event_that_just_came_is_the_newest_though_the_clock_was_set_back_to_a_moment_before(office: Office) -> None:
    hear(office, pickup("c1"), office.now() + SECOND)
    hear(office, after_call("c1"), office.now() + SECOND)
    hear(office, pickup("c2"))
    assert office.speaking_by_events() == {ALICE}


def test_a_talk_lasted_as_long_as_it_did_though_its_events_were_put_off(office: Office) -> None:
    office.ask("c1")
    with office.database.writing() as session:
        session.execute(update(models.Decision).values(asked_at=office.now() - 60 * SECOND))
    hear_put_off(office, pickup("c1"), 50)
    hear_put_off(office, after_call("c1", billsec=None, duration=None, waittime=None), 20)
    decision = office.decision("c1")
    assert decision.waited_seconds == pytest.approx(10, abs=5)
    assert decision.talked_seconds == pytest.approx(30, abs=5)


@pytest.mark.parametrize("disposition", list(Disposition))
def test_every_disposition_has_its_outcome(sqlite_office: Office, disposition: Disposition) -> None:
    sqlite_office.ask("c1")
    hear(sqlite_office, missed("c1", disposition=disposition), sqlite_office.now() + 24 * SECOND)
    decision = sqlite_office.decision("c1")
    assert decision.outcome == OUTCOMES[disposition]
    assert decision.disposition == disposition
    assert decision.ended_at is not None
    assert sqlite_office.reserved() == []
    answered = disposition.is_answered
    assert (OUTCOMES[disposition] is Outcome.ANSWERED) == answered
    assert sqlite_office.agent("Alice").answered_today == (1 if answered else 0)


@pytest.mark.parametrize("late", [False, True])
def test_a_picked_up_call_was_answered_whatever_the_end_says(sqlite_office: Office, *, late: bool) -> None:
    sqlite_office.ask("c1")
    events = [pickup("c1"), missed("c1")]
    for event in reversed(events) if late else events:
        hear(sqlite_office, event)
    decision = sqlite_office.decision("c1")
    assert (decision.outcome, decision.answered_login) == (Outcome.ANSWERED, ALICE)
    assert sqlite_office.agent("Alice").answered_today == 1
    assert sqlite_office.speaking_by_events() == set()


def test_a_call_that_rang_out_starts_the_cool_down(office: Office) -> None:
    office.ask("c1")
    at = office.decision("c1").asked_at + 24 * SECOND
    hear(office, missed("c1"), at)
    alice = office.agent("Alice")
    assert (alice.no_answers, alice.cooling_until) == (1, at + 30 * SECOND)
    assert office.decision("c1").outcome == Outcome.NO_ANSWER


def test_a_caller_who_hung_up_early_is_not_held_against_the_agent(office: Office) -> None:
    office.ask("c1")
    hear(office, missed("c1"), office.decision("c1").asked_at + 9 * SECOND)
    alice = office.agent("Alice")
    assert (alice.no_answers, alice.cooling_until) == (0, None)
    assert (office.decision("c1").outcome, office.decision("c1").inferred) == (Outcome.ABANDONED, True)
    assert office.reserved() == []
    assert office.ask("c2") == ALICE


def test_an_agent_who_declines_cools_down_at_once(office: Office) -> None:
    office.ask("c1")
    hear(office, missed("c1", disposition=Disposition.DECLINE), office.decision("c1").asked_at + 2 * SECOND)
    assert office.agent("Alice").cooling_until is not None
    assert office.agent("Alice").no_answers == 0, "counted apart"
    assert office.decision("c1").outcome == Outcome.BUSY


def test_no_answers_in_a_row_put_the_agent_on_break(office: Office) -> None:
    for number in range(3):
        assert office.ask(f"c{number}") == ALICE
        hear(office, missed(f"c{number}"), office.now() + 30 * SECOND)
        with office.database.writing() as session:
            session.execute(update(models.AgentState).values(cooling_until=None))
    alice = office.agent("Alice")
    assert (alice.status, alice.status_reason, alice.no_answers) == ("on_break", "no_answers", 3)


def test_a_step_that_was_not_answered_is_not_counted_twice(office: Office) -> None:
    office.ask("c1", "1")
    office.ask("c1", "2")
    assert office.agent("Alice").no_answers == 1
    hear(office, missed("c1", ALICE), office.now() + 60 * SECOND)
    assert office.agent("Alice").no_answers == 1
    assert [d.outcome for d in office.decisions("c1")] == [Outcome.NO_ANSWER, Outcome.NO_ANSWER]


# ---- an agent who does not take it, while the call goes on


def unavailable(call_id: str, login: str = ALICE, disposition: Disposition = Disposition.UNKNOWN) -> CallEvent:
    return CallEvent(EventKind.UNAVAILABLE, call_id, sip_login=login, direction="in", disposition=disposition)


@pytest.mark.parametrize(
    ("disposition", "outcome"),
    [
        (Disposition.UNKNOWN, Outcome.NO_ANSWER),
        (Disposition.NO_ANSWER, Outcome.NO_ANSWER),
        (Disposition.BUSY, Outcome.BUSY),
        (Disposition.DECLINE, Outcome.BUSY),
        (Disposition.FAILED, Outcome.FAILED),
    ],
)
def test_the_same_question_gets_the_next_agent_once_the_first_did_not_take_it(
    office: Office, disposition: Disposition, outcome: Outcome
) -> None:
    free_everybody(office)
    assert [office.ask("c1"), office.ask("c1")] == [ALICE, ALICE], "asked twice at once"
    assert hear(office, unavailable("c1", disposition=disposition)) == Result.APPLIED
    assert (office.decision("c1").outcome, office.decision("c1").inferred) == (outcome, False)
    assert office.decision("c1").disposition == disposition
    assert office.reserved() == []
    assert [office.ask("c1"), office.ask("c1")] == [BOB, BOB]
    assert office.reserved() == [BOB]
    assert hear(office, unavailable("c1", disposition=disposition)) == Result.REPEATED
    assert office.reserved() == [BOB], "who rings on"
    assert office.ask("c1") == BOB
    assert hear(office, unavailable("c1", "")) == Result.APPLIED, "whoever was named last"
    assert office.ask("c1") == CAROL


def test_whoever_did_not_take_it_is_not_first_for_the_next_call(office: Office) -> None:
    for disposition in (Disposition.BUSY, Disposition.FAILED):
        office.ask(f"c-{disposition}")
        hear(office, unavailable(f"c-{disposition}", disposition=disposition))
        assert why_not_alice(office, f"next-{disposition}") == "cooling_down"
        with office.database.writing() as session:
            session.execute(update(models.AgentState).values(cooling_until=None))
    assert office.agent("Alice").no_answers == 0, "but no call was missed"


def test_a_disposition_told_while_the_call_goes_on_says_it_too(office: Office) -> None:
    free_everybody(office)
    assert office.ask("c1") == ALICE
    told = CallEvent(EventKind.FORWARDING, "c1", sip_login=ALICE, disposition=Disposition.BUSY)
    assert hear(office, told) == Result.APPLIED
    assert office.ask("c1") == BOB
    ringing = CallEvent(EventKind.FORWARDING, "c1", sip_login=BOB, disposition=Disposition.NO_ANSWER)
    assert hear(office, ringing) == Result.NOTED, "so far"
    assert office.ask("c1") == BOB


def test_once_the_call_is_over_the_same_question_gets_the_same_answer(office: Office) -> None:
    free_everybody(office)
    assert office.ask("c1") == ALICE
    hear(office, missed("c1", disposition=Disposition.BUSY))
    assert office.ask("c1") == ALICE
    assert hear(office, unavailable("c1")) == Result.REPEATED


def test_an_earlier_question_asked_again_gets_its_own_answer(office: Office) -> None:
    free_everybody(office)
    assert office.ask("c1", "1") == ALICE
    hear(office, unavailable("c1"))
    assert office.ask("c1", "2") == BOB
    assert office.ask("c1", "1") == ALICE


def test_while_somebody_talks_the_last_question_asked_again_gets_its_own_answer(office: Office) -> None:
    free_everybody(office)
    assert office.ask("c1", "1") == ALICE
    assert office.ask("c1", "2") == BOB
    hear(office, pickup("c1", ALICE))
    assert [decision.outcome for decision in office.decisions("c1")] == [Outcome.ANSWERED, Outcome.NO_ANSWER]
    assert office.ask("c1", "2") == BOB
    assert len(office.decisions("c1")) == 2
    assert office.speaking_by_events() == {ALICE}


def test_whoever_picked_up_was_available(office: Office) -> None:
    office.ask("c1")
    hear(office, pickup("c1"))
    before = office.everything()
    assert hear(office, unavailable("c1")) == Result.REPEATED
    assert office.everything() == before


def test_what_was_put_off_from_yesterday_does_not_set_back_the_count_of_today(sqlite_office: Office) -> None:
    office = sqlite_office  # in Kyiv
    before_midnight, after_midnight = (datetime(2026, 11, 23, hour, 58, tzinfo=UTC) for hour in (21, 22))
    office.ask("c1")
    office.ask("c2")
    hear(office, pickup("c2"), after_midnight)
    hear(office, pickup("c1"), before_midnight)
    assert (office.agent("Alice").answered_today, str(office.agent("Alice").day)) == (1, "2026-11-24")


# ---- the agents' own calls


def own_call(kind: EventKind, login: str = ALICE, call_id: str = "own1") -> CallEvent:
    return CallEvent(kind=kind, call_id=call_id, sip_login=login, direction="out", dialed="380671234567")


def test_an_own_call_makes_the_agent_speak_and_its_end_frees_without_wrap_up(office: Office) -> None:
    assert hear(office, own_call(EventKind.BEFORE_CALL)) == Result.APPLIED
    assert office.ask("c1") == NIGHT_DESK
    now = office.now()
    assert hear(office, own_call(EventKind.AFTER_CALL), now) == Result.APPLIED
    alice = office.agent("Alice")
    assert (alice.last_talk_end_at, alice.wrap_up_until, alice.answered_today) == (now, None, 0)
    assert office.ask("c2") == ALICE


def test_an_own_call_that_began_after_its_end_makes_nobody_speak(office: Office) -> None:
    hear(office, own_call(EventKind.AFTER_CALL))
    assert hear(office, own_call(EventKind.BEFORE_CALL)) == Result.REPEATED
    assert office.speaking_by_events() == set()


def test_the_caller_of_an_own_call_may_be_the_login(sqlite_office: Office) -> None:
    event = CallEvent(kind=EventKind.BEFORE_CALL, call_id="own1", caller=ALICE, direction="out")
    assert hear(sqlite_office, event) == Result.APPLIED
    assert sqlite_office.speaking_by_events() == {ALICE}


# ---- what is not ours, or says too little


def test_a_call_that_was_not_routed_by_us_still_makes_its_agent_speak(office: Office) -> None:
    assert hear(office, pickup("direct", ALICE)) == Result.APPLIED
    assert office.ask("c1") == NIGHT_DESK
    hear(office, after_call("direct", ALICE))
    alice = office.agent("Alice")
    assert (alice.answered_today, alice.wrap_up_until is not None) == (0, True)
    assert hear(office, pickup("direct", ALICE)) == Result.REPEATED
    assert office.speaking_by_events() == set()


@pytest.mark.parametrize(
    "event", [pickup("x", "nobody"), after_call("x", "nobody"), own_call(EventKind.BEFORE_CALL, "nobody")]
)
def test_an_unknown_login_on_an_unknown_call_leaves_no_trace(office: Office, event: CallEvent) -> None:
    before = office.everything()
    applied = apply_event(office.database, office.project, event)
    assert applied.result == Result.UNMATCHED
    assert "'nobody' is no agent's SIP login." in applied.notes
    assert office.everything() == before


@pytest.mark.parametrize(
    ("event", "result"),
    [
        (CallEvent(kind=EventKind.UNKNOWN, call_id="c1", sip_login=ALICE), Result.UNCLEAR),
        (pickup("", ALICE), Result.UNCLEAR),
        (CallEvent(kind=EventKind.BEFORE_CALL, call_id="c1", direction="in"), Result.NOTED),
        (CallEvent(kind=EventKind.FORWARDING, call_id="c1", sip_login=ALICE, direction="in"), Result.NOTED),
        (after_call("unheard", ""), Result.UNMATCHED),
    ],
)
def test_events_that_say_too_little_change_nothing(sqlite_office: Office, event: CallEvent, result: Result) -> None:
    sqlite_office.ask("c1")
    before = sqlite_office.everything()
    assert hear(sqlite_office, event) == result
    assert sqlite_office.everything() == before


def test_an_agent_who_left_the_configuration_is_a_stranger(sqlite_office: Office) -> None:
    sqlite_office.ask("c1")
    project = replace(sqlite_office.project, agents={})
    assert apply_event(sqlite_office.database, project, pickup("c1")).result == Result.APPLIED
    decision = sqlite_office.decision("c1")
    assert (decision.answered_agent_id, decision.answered_login) == (None, ALICE)


# ---- all at once


def test_events_and_settlement_at_once_count_once_and_never_stop(migrated_postgres_url: str) -> None:
    """Eight threads deliver the same events of twelve calls in unlike orders while settlement runs."""
    with opened_office(migrated_postgres_url) as office:
        free_everybody(office)
        office.see(online=ONLINE | {DAVE}, speaking=frozenset())
        project, calls = office.project, [f"c{n}" for n in range(12)]
        answered_by = {}
        for call_id in calls:
            answered_by[call_id] = office.ask(call_id)
        transfers = {ALICE: BOB, BOB: CAROL, CAROL: DAVE, DAVE: ALICE, NIGHT_DESK: ALICE}
        events = [
            event
            for call_id in calls
            for event in (
                pickup(call_id, answered_by[call_id]),
                pickup(call_id, transfers[answered_by[call_id]]),
                after_call(call_id, transfers[answered_by[call_id]]),
            )
        ]
        barrier = threading.Barrier(9)

        def deliver(shift: int) -> None:
            barrier.wait()
            for n in range(len(events)):
                apply_event(office.database, project, events[(n * 7 + shift * 5) % len(events)])

        def settle_on() -> None:
            barrier.wait()
            for _ in range(30):
                settle(office.database, project)

        with ThreadPoolExecutor(9) as pool:
            for done in [*(pool.submit(deliver, n) for n in range(8)), pool.submit(settle_on)]:
                done.result()
        assert office.speaking_by_events() == set()
        assert office.reserved() == []
        expected = dict.fromkeys(("Alice", "Bob", "Carol", "Dave"), 0)
        for first in answered_by.values():
            for login in {first, transfers[first]} - {NIGHT_DESK}:
                expected[login.removeprefix("acme_").capitalize()] += 1
        assert {name: office.agent(name).answered_today for name in expected} == expected
        assert {office.decision(call_id).outcome for call_id in calls} == {Outcome.ANSWERED}


# ---- an id that several callers' calls have


ANN, BEN = "380501112233", "380671112233"


@pytest.mark.parametrize("names_the_caller", [True, False], ids=["by the caller", "by the login"])
def test_an_event_is_of_its_own_caller_s_call_where_others_have_the_same_id(
    office: Office, names_the_caller: bool
) -> None:
    free_everybody(office)
    ann, ben = office.ask("%CALLID%", caller=ANN), office.ask("%CALLID%", caller=BEN)
    assert len({ann, ben}) == 2
    for login, caller in ((ben, BEN), (ann, ANN)):
        said = {"caller": caller} if names_the_caller else {}
        assert hear(office, pickup("%CALLID%", login, **said)) is Result.APPLIED
    assert office.speaking_by_events() == {ann, ben}
    said = {"caller": BEN} if names_the_caller else {}
    assert hear(office, after_call("%CALLID%", ben, **said)) is Result.APPLIED
    assert office.speaking_by_events() == {ann}
    with office.database.reading() as session:
        outcomes = {row.caller: (row.answered_login, row.ended_at is None) for row in session.query(models.Decision)}
    assert outcomes == {ANN: (ann, True), BEN: (ben, False)}


def test_an_event_that_names_another_caller_than_the_question_is_still_of_the_call_with_its_id(office: Office) -> None:
    office.ask("call", caller=ANN)
    assert hear(office, pickup("call", caller="101")) is Result.APPLIED
    assert office.decision("call").outcome == Outcome.ANSWERED


# ---- phones under other names


@pytest.mark.parametrize(
    "name",
    [
        *("PJSIP/acme_alice-00000012", "SIP/acme_alice", "SIP/acme_alice-00000abc", "IAX2/acme_alice-12"),
        *("Local/acme_alice@ctx-0001;1", "sip:acme_alice@pbx;transport=tcp", "ACME_Alice@pbx.example"),
        '"Alice" <sip:acme_alice@pbx.example>;tag=as1f2e',
    ],
)
def test_a_pickup_makes_the_agent_speak_whatever_the_phone_is_called(sqlite_office: Office, name: str) -> None:
    sqlite_office.ask("c1")
    assert hear(sqlite_office, pickup("c1", name)) == Result.APPLIED
    assert sqlite_office.speaking_by_events() == {ALICE}
    assert sqlite_office.ask("c2") == NIGHT_DESK
    assert hear(sqlite_office, pickup("c1", ALICE)) == Result.REPEATED
    hear(sqlite_office, after_call("c1", name))
    assert sqlite_office.speaking_by_events() == set()
    decision = sqlite_office.decision("c1")
    assert (decision.answered_login, decision.answered_agent_id) == (ALICE, sqlite_office.agents["Alice"])
    assert sqlite_office.agent("Alice").answered_today == 1


@pytest.mark.parametrize("name", ["ghost", "SIP/ghost-00000001", "105", "+380671112233", "Somebody <sip:x@y>"])
def test_a_pickup_by_somebody_unknown_frees_no_agent_who_talks(office: Office, name: str) -> None:
    office.ask("c1")
    hear(office, pickup("c1", ALICE))
    before = office.everything()
    applied = apply_event(office.database, office.project, pickup("c1", name))
    assert applied.result == Result.NOTED
    assert "is no agent's SIP login." in applied.notes[0]
    assert office.everything() == before
    assert office.ask("c2") == NIGHT_DESK
    hear(office, after_call("c1", name))
    assert office.speaking_by_events() == set()


@pytest.mark.parametrize("name", ["ghost", "SIP/ghost-00000001", "105"])
def test_a_pickup_under_an_unknown_name_is_by_whom_the_call_was_offered_to(office: Office, name: str) -> None:
    office.ask("c1")
    assert hear(office, pickup("c1", name)) == Result.APPLIED
    assert office.speaking_by_events() == {ALICE}
    assert office.ask("c2") == NIGHT_DESK
    hear(office, after_call("c1", name))
    assert office.decision("c1").answered_login == ALICE


@pytest.mark.parametrize("moves", [{"Alice": (ALICE_MOBILE,), "Bob": (BOB, ALICE)}, {"Alice": ("new",), "Bob": (BOB,)}])
def test_a_talk_stays_the_agents_whoever_is_given_the_login(office: Office, moves: dict[str, tuple[str, ...]]) -> None:
    office.ask("c1")
    give(office, moves)
    hear(office, pickup("c1", ALICE))
    assert (office.agent("Alice").answered_today, office.agent("Bob").answered_today) == (1, 0)
    assert office.ask("c2") == NIGHT_DESK, "neither of them is free"
    hear(office, after_call("c1", ALICE))
    assert office.agent("Alice").wrap_up_until is not None
    assert office.agent("Bob").wrap_up_until is None
    assert office.speaking_by_events() == set()


def give(office: Office, logins: dict[str, tuple[str, ...]]) -> None:
    with changing(office.database, office.project_id, "test") as session:
        for name in logins:
            session.get_one(models.Agent, office.agents[name]).sip_logins = []
        session.flush()
        for name, given in logins.items():
            session.get_one(models.Agent, office.agents[name]).sip_logins = [
                models.SipLogin(project_id=office.project_id, login=login, position=n) for n, login in enumerate(given)
            ]
