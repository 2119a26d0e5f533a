"""What presence and time tell of calls when no event does, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.orm import Session

from router.core.lifecycle import GRACE, LONGEST_TALK, OVERFLOW_WAIT, SLOW_SOURCE, UNSEEN
from router.core.model import Outcome
from router.db import models, outcomes
from router.db.claim import call_key
from router.presence.events import apply_event
from router.presence.settle import BATCH, MEMORY, settle, tidy
from tests.presence.office import (
    ALICE,
    ALICE_MOBILE,
    BOB,
    NIGHT_DESK,
    Office,
    after_call,
    missed,
    opened_office,
    pickup,
)

SECOND = timedelta(seconds=1)
RING = 25 * SECOND
FREE: frozenset[str] = frozenset()
KYIV = ZoneInfo("Europe/Kyiv")


@pytest.fixture
def office(migrated_url: str) -> Iterator[Office]:
    with opened_office(migrated_url) as opened:
        yield opened


@pytest.fixture
def sqlite_office(migrated_sqlite_url: str) -> Iterator[Office]:
    """Where the kind of database makes no difference."""
    with opened_office(migrated_sqlite_url) as opened:
        yield opened


def offered(office: Office, call_id: str = "c1") -> datetime:
    """A call is offered to Alice; when."""
    assert office.ask(call_id) == ALICE
    return office.decision(call_id).asked_at


def settled(office: Office, now: datetime) -> int:
    return settle(office.database, office.project, now)


def clear_wrap_up(office: Office) -> None:
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(wrap_up_until=None, cooling_until=None))


# ---- offers


def test_a_login_that_began_to_speak_while_reserved_has_answered(office: Office) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
    assert settled(office, at + 7 * SECOND) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.ANSWERED, True)
    assert (decision.answered_agent_id, decision.answered_login) == (office.agents["Alice"], ALICE)
    assert (decision.answered_at, decision.waited_seconds) == (at + 6 * SECOND, 6)
    assert decision.ended_at is None
    assert office.reserved() == []
    assert (office.agent("Alice").answered_today, office.agent("Alice").no_answers) == (1, 0)


def test_a_login_that_spoke_before_it_was_offered_a_call_has_not_answered_it(sqlite_office: Office) -> None:
    """Presence is unknown, everybody is assumed to be online, and the call goes to Alice who talks on."""
    office = sqlite_office
    office.see(speaking=frozenset({ALICE}), at=office.now() - 3600 * SECOND)
    office.configure(presence_when_unknown="assume_online")
    at = offered(office)
    assert settled(office, at + 20 * SECOND) == 0


def test_an_offer_is_left_alone_while_it_rings_and_a_little_longer(office: Office) -> None:
    at = offered(office)
    office.see(speaking=FREE, at=at + RING + SECOND)
    before = office.everything()
    assert settled(office, at + RING + GRACE - SECOND) == 0
    assert office.everything() == before


def test_an_offer_that_ran_out_was_not_answered_and_no_cool_down_follows(office: Office) -> None:
    at = offered(office)
    office.see(speaking=FREE, at=at + RING + SECOND)
    assert settled(office, at + RING + GRACE) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.NO_ANSWER, True)
    assert decision.ended_at == at + RING
    assert office.reserved() == []
    alice = office.agent("Alice")
    assert (alice.no_answers, alice.cooling_until, alice.answered_today) == (0, None, 0)


def test_a_next_step_after_that_still_starts_the_cool_down_once(sqlite_office: Office) -> None:
    at = offered(sqlite_office)
    sqlite_office.see(speaking=FREE, at=at + RING + SECOND)
    settled(sqlite_office, at + RING + GRACE)
    sqlite_office.ask("c1", "2")
    assert sqlite_office.agent("Alice").no_answers == 1
    assert not sqlite_office.decisions("c1")[0].inferred
    sqlite_office.ask("c1", "3")
    assert sqlite_office.agent("Alice").no_answers == 1


def test_without_any_reading_since_then_nothing_is_known(office: Office) -> None:
    at = offered(office)
    assert settled(office, at + RING + UNSEEN - SECOND) == 0
    assert settled(office, at + RING + UNSEEN) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.UNKNOWN, True)
    assert office.reserved() == []


def test_a_talk_that_began_after_the_reservation_is_of_another_call(office: Office) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + RING + SECOND)
    settled(office, at + RING + GRACE)
    assert office.decision("c1").outcome == Outcome.NO_ANSWER


def test_a_reservation_that_another_call_took_over_ends_the_first_decision(office: Office) -> None:
    at = offered(office, "c1")
    with office.database.writing() as session:
        past = {"claimed_at": at - 60 * SECOND, "expires_at": at - 35 * SECOND}
        session.execute(update(models.Reservation).values(past))
        session.execute(update(models.ReservedPhone).values(expires_at=past["expires_at"]))
        session.execute(update(models.Decision).values(asked_at=at - 60 * SECOND))
    offered(office, "c2")
    office.see(speaking=FREE, at=at + SECOND)
    assert settled(office, at + 2 * SECOND) == 1
    assert (office.decision("c1").outcome, office.decision("c2").outcome) == (Outcome.NO_ANSWER, "")
    assert office.reserved() == [ALICE], "of the second call"


def test_a_call_without_an_id_is_settled_too(office: Office) -> None:
    office.ask("")
    at = office.decision("").asked_at
    office.see(speaking=frozenset({ALICE}), at=at + 3 * SECOND)
    assert settled(office, at + 4 * SECOND) == 1
    assert (office.decision("").outcome, office.agent("Alice").answered_today) == (Outcome.ANSWERED, 1)
    assert office.reserved() == []


# ---- calls that went to the overflow


def test_an_overflow_that_nobody_told_of_becomes_unknown(office: Office) -> None:
    office.see(online=FREE, speaking=FREE)
    assert office.ask("c1") == NIGHT_DESK
    at = office.decision("c1").asked_at
    assert settled(office, at + OVERFLOW_WAIT - SECOND) == 0
    assert settled(office, at + OVERFLOW_WAIT) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.UNKNOWN, True)


def test_a_late_event_overrules_what_was_concluded(office: Office) -> None:
    office.see(online=FREE, speaking=FREE)
    office.ask("c1")
    settled(office, office.now() + OVERFLOW_WAIT + SECOND)
    apply_event(office.database, office.project, after_call("c1", NIGHT_DESK, billsec=200))
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred, decision.talked_seconds) == (Outcome.ANSWERED, False, 200)


# ---- talks


def test_a_talk_ends_when_the_login_stops_speaking(office: Office) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
    settled(office, at + 6 * SECOND)
    office.see(speaking=FREE, at=at + 66 * SECOND)
    assert settled(office, at + 66 * SECOND) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred) == (Outcome.ANSWERED, True)
    assert (decision.ended_at, decision.talked_seconds) == (at + 66 * SECOND, 60)
    alice = office.agent("Alice")
    assert (alice.last_talk_end_at, alice.wrap_up_until) == (at + 66 * SECOND, at + 76 * SECOND)
    assert alice.answered_today == 1
    assert settled(office, at + 80 * SECOND) == 0


def test_a_reported_talk_whose_end_was_lost_is_ended_by_presence(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1"), at + 5 * SECOND)
    office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
    assert settled(office, at + 7 * SECOND) == 0
    office.see(speaking=FREE, at=at + 36 * SECOND)
    settled(office, at + 37 * SECOND)
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred, decision.talked_seconds) == (Outcome.ANSWERED, False, 31)
    assert office.agent("Alice").answered_today == 1
    assert office.speaking_by_events() == set()


def test_a_pickup_that_is_told_after_all_counts_no_second_call(office: Office) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
    settled(office, at + 6 * SECOND)
    apply_event(office.database, office.project, pickup("c1"), at + 9 * SECOND)
    assert office.agent("Alice").answered_today == 1
    assert not office.decision("c1").inferred


def test_nothing_is_left_of_a_talk_that_was_only_concluded_when_the_caller_hung_up(office: Office) -> None:
    at = offered(office)
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(no_answers=2, missed_day=at.astimezone(KYIV).date()))
    before = office.agent("Alice")
    office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
    settled(office, at + 6 * SECOND)
    office.see(speaking=FREE, at=at + 15 * SECOND)
    settled(office, at + 15 * SECOND)
    assert office.agent("Alice").wrap_up_until == at + 25 * SECOND
    apply_event(office.database, office.project, missed("c1"), at + 20 * SECOND)
    after = office.agent("Alice")
    for column in models.AgentState.__table__.columns:
        if column.name not in ("day", "answered_today"):
            assert getattr(after, column.name) == getattr(before, column.name), column.name
    assert after.answered_today == 0


def test_a_gap_in_the_talk_of_a_call_without_an_id_is_no_end_either(sqlite_office: Office) -> None:
    office = sqlite_office
    office.ask("")
    at = office.decision("").asked_at
    for seconds, speaking in ((6, True), (66, False), (67, True), (300, False)):
        office.see(speaking=frozenset({ALICE}) if speaking else FREE, at=at + seconds * SECOND)
        settled(office, at + seconds * SECOND)
    assert office.decision("").ended_at == at + 300 * SECOND
    assert office.agent("Alice").wrap_up_until == at + 310 * SECOND


def went_on(office: Office) -> datetime:
    """Alice was rung, and began a call of her own instead; the call went on to Bob. When it came."""
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 2 * SECOND)
    settled(office, at + 2 * SECOND)
    assert office.decision("c1").outcome == Outcome.ANSWERED
    assert office.ask("c1", "2") == BOB
    return at


def test_the_end_of_a_call_is_of_its_last_step_where_an_answer_of_an_earlier_one_was_only_concluded(
    office: Office,
) -> None:
    went_on(office)
    apply_event(office.database, office.project, missed("c1"), office.decision("c1").asked_at + 20 * SECOND)
    first, second = office.decisions("c1")
    assert (first.outcome, first.inferred) == (Outcome.NO_ANSWER, False)
    assert (first.answered_login, first.disposition) == ("", "")
    assert (second.outcome, second.inferred, second.disposition) == (Outcome.ABANDONED, True, "no_answer")


def test_a_pickup_that_names_nobody_is_of_the_last_step_where_an_earlier_answer_was_only_concluded(
    office: Office,
) -> None:
    at = went_on(office)
    apply_event(office.database, office.project, pickup("c1", ""), at + 9 * SECOND)
    assert office.decision("c1").answered_login == BOB


def test_a_talk_too_short_to_be_seen_ends_when_the_source_had_time_enough(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1"), at + 5 * SECOND)
    office.see(speaking=frozenset({BOB}), at=at + 5 * SECOND + SLOW_SOURCE)
    assert settled(office, at + 6 * SECOND + SLOW_SOURCE) == 0
    office.see(speaking=frozenset({BOB}), at=at + 6 * SECOND + SLOW_SOURCE)
    assert settled(office, at + 7 * SECOND + SLOW_SOURCE) == 1
    assert office.decision("c1").talked_seconds is None
    assert office.agent("Alice").wrap_up_until is not None


def test_a_talk_at_a_phone_that_the_source_does_not_know_goes_on(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1", ALICE_MOBILE), at + 5 * SECOND)
    office.see(at=at + 300 * SECOND)
    assert settled(office, at + 301 * SECOND) == 0
    assert settled(office, at + 5 * SECOND + LONGEST_TALK) == 1
    assert office.decision("c1").ended_at == at + 5 * SECOND + LONGEST_TALK


def test_a_talk_goes_on_while_the_source_is_silent_but_not_for_ever(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1"), at + 5 * SECOND)
    assert settled(office, at + 3600 * SECOND) == 0
    assert settled(office, at + 5 * SECOND + LONGEST_TALK) == 1


def test_a_transferred_talk_is_followed_to_the_other_agent(office: Office) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 5 * SECOND)
    settled(office, at + 5 * SECOND)
    office.see(speaking=frozenset({BOB}), at=at + 60 * SECOND)
    settled(office, at + 60 * SECOND)
    assert office.decision("c1").ended_at == at + 60 * SECOND, "for all that presence shows"
    apply_event(office.database, office.project, pickup("c1", BOB), at + 61 * SECOND)
    decision = office.decision("c1")
    assert (decision.answered_login, decision.ended_at) == (BOB, None)
    office.see(speaking=FREE, at=at + 90 * SECOND)
    settled(office, at + 91 * SECOND)
    assert office.agent("Bob").last_talk_end_at == at + 90 * SECOND
    assert office.agent("Alice").last_talk_end_at == at + 60 * SECOND


# ---- decisions that were recorded late


def test_what_was_heard_before_the_decision_was_recorded_is_used(office: Office) -> None:
    at = offered(office)
    with office.database.writing() as session:
        session.add(
            models.HeardCall(
                project_id=office.project_id,
                call_id="c1",
                heard_at=at + 4 * SECOND,
                talked=[ALICE],
                ended_at=at + 30 * SECOND,
            )
        )
    assert settled(office, at + 31 * SECOND) == 1
    decision = office.decision("c1")
    assert (decision.outcome, decision.answered_login, decision.inferred) == (Outcome.ANSWERED, ALICE, True)
    assert (decision.answered_agent_id, decision.ended_at) == (office.agents["Alice"], at + 30 * SECOND)


def test_what_was_heard_of_an_earlier_step_does_not_answer_the_next(sqlite_office: Office) -> None:
    office = sqlite_office
    offered(office)
    apply_event(office.database, office.project, pickup("c1"))
    office.see(speaking=FREE)
    office.ask("c1", "2")
    assert office.decision("c1").outcome == ""
    settled(office, office.now())
    assert office.decision("c1").outcome == ""


# ---- what it costs


def test_nothing_to_conclude_takes_no_write_lock(sqlite_office: Office) -> None:
    at = offered(sqlite_office)
    with sqlite_office.database.write_lock():
        assert settled(sqlite_office, at + SECOND) == 0
        assert not tidy(sqlite_office.database, sqlite_office.project, at + SECOND)


def test_unfinished_decisions_are_found_by_the_small_index(office: Office) -> None:
    asked = "SELECT id FROM decisions WHERE project_id = 1 AND ended_at IS NULL ORDER BY asked_at"
    with office.database.reading() as session:
        if office.database.is_sqlite:
            plan = session.execute(text("EXPLAIN QUERY PLAN " + asked))
        else:
            for other in ("seqscan", "bitmapscan", "sort"):  # the table is all but empty, whatever was there before
                session.execute(text(f"SET enable_{other} = off"))
            plan = session.execute(text("EXPLAIN " + asked))
        assert "ix_decisions_unfinished" in " ".join(str(row) for row in plan)


def test_a_long_log_costs_neither_settling_nor_events_anything(sqlite_office: Office) -> None:
    """SQLite would walk through all decisions of the project for the earliest of a call, under the write lock."""
    nothing = defaultdict[str, None](lambda: None)
    by_key = re.compile("uq_decisions_question|PRIMARY KEY|ix_decisions_unfinished")
    with sqlite_office.database.call_connection() as connection:
        for name, sql in outcomes.statements("sqlite").items():
            plan = [str(row[-1]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", nothing)]
            looked = [step for step in plan if re.search(r"SEARCH (d|decisions)\b|SCAN decisions", step)]
            assert [step for step in looked if not by_key.search(step)] == [], name


# ---- what time alone ends


def tidied(office: Office, now: datetime) -> bool:
    return tidy(office.database, office.project, now)


def on_automatic_break(office: Office, reason: str = "no_answers") -> datetime:
    """Alice, an hour after the noon of a day; when."""
    since = datetime(2026, 11, 24, 11, tzinfo=UTC)
    columns = {
        "status": "on_break",
        "status_reason": reason,
        "status_since_at": since,
        "available_since_at": since - SECOND,
        "no_answers": 3,
    }
    with office.database.writing() as session:
        session.execute(
            update(models.AgentState).where(models.AgentState.agent_id == office.agents["Alice"]).values(columns)
        )
    return since


def test_an_automatic_break_ends_when_the_agent_goes_offline_and_comes_back(office: Office) -> None:
    since = on_automatic_break(office)
    assert not tidied(office, since + 60 * SECOND)
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(available_since_at=since + 60 * SECOND))
    at = since + 61 * SECOND
    assert tidied(office, at)
    alice = office.agent("Alice")
    assert (alice.status, alice.status_reason, alice.status_since_at) == ("available", "", at)
    assert (alice.no_answers, alice.available_since_at) == (0, at)
    assert office.agent("Carol").status == "on_break", "as she declared"


def test_an_automatic_break_ends_when_the_agent_is_seen_to_talk(office: Office) -> None:
    since = on_automatic_break(office)
    seen = {"online": True, "speaking": True, "event_call_id": ""}
    with office.database.writing() as session:
        session.execute(
            update(models.LoginState).where(models.LoginState.login == ALICE).values(seen | {"since_at": since})
        )
    assert not tidied(office, since + 60 * SECOND), "on the talk of before"
    with office.database.writing() as session:
        session.execute(
            update(models.LoginState).where(models.LoginState.login == ALICE).values(since_at=since + 60 * SECOND)
        )
    assert tidied(office, since + 61 * SECOND)
    assert office.agent("Alice").status == "available"


@pytest.mark.parametrize("reason", ["no_answers", ""])
def test_an_automatic_break_ends_with_the_local_day(office: Office, reason: str) -> None:
    on_automatic_break(office, reason)
    midnight = datetime(2026, 11, 24, 22, tzinfo=UTC)  # in Kyiv
    assert not tidied(office, midnight - SECOND)
    assert tidied(office, midnight + SECOND) == (reason != "")
    assert office.agent("Alice").status == ("available" if reason else "on_break")


def test_leases_long_over_are_dropped(office: Office) -> None:
    at = offered(office)
    assert not tidied(office, at + RING + 60 * SECOND)
    assert tidied(office, at + RING + 121 * SECOND)
    assert office.reserved() == []


def test_a_pickup_whose_end_was_never_heard_of_is_forgotten(office: Office) -> None:
    now = office.now()
    apply_event(office.database, office.project, pickup("direct"), now)
    assert not tidied(office, now + LONGEST_TALK - SECOND)
    assert tidied(office, now + LONGEST_TALK + SECOND)
    assert office.speaking_by_events() == set()


def test_a_pickup_of_hours_ago_blocks_nobody_even_where_nobody_tidies(office: Office) -> None:
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(began_at=None, snapshot_id=None))
    office.configure(presence_when_unknown="assume_online")
    apply_event(office.database, office.project, pickup("direct"), office.now() - LONGEST_TALK + 60 * SECOND)
    assert office.ask("c1") != ALICE
    apply_event(office.database, office.project, pickup("direct2"), office.now() - LONGEST_TALK - SECOND)
    with office.database.writing() as session:
        session.execute(delete(models.Reservation))
        session.execute(update(models.MemberClock).values(last_offered=0))
    assert office.ask("c2") == ALICE


def test_what_was_heard_is_remembered_for_a_day(office: Office) -> None:
    now = office.now()
    apply_event(office.database, office.project, pickup("direct"), now)
    tidied(office, now + MEMORY - SECOND)
    with office.database.reading() as session:
        assert session.scalars(select(models.HeardCall.call_id)).all() == ["direct"]
    tidied(office, now + MEMORY + SECOND)
    with office.database.reading() as session:
        assert session.scalars(select(models.HeardCall.call_id)).all() == []


def test_a_clock_that_was_set_back_blocks_nobody_until_it_comes_there_again(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1"), at)
    apply_event(office.database, office.project, after_call("c1"), at)
    clear_wrap_up(office)
    offered(office, "c2")
    with office.database.writing() as session:
        session.execute(update(models.AgentState).values(wrap_up_until=at, cooling_until=at, last_talk_end_at=at))
    earlier = at - 3600 * SECOND
    assert tidied(office, earlier)
    assert office.reserved() == []
    alice, login = office.agent("Alice"), office.login(ALICE)
    assert (alice.wrap_up_until, alice.cooling_until, alice.last_talk_end_at) == (None, None, earlier)
    assert login is not None
    assert login.event_at == earlier
    assert office.see(speaking=FREE, at=earlier + 5 * SECOND), "and a reading of now is newer than one of the future"
    assert not tidied(office, earlier + 6 * SECOND)


def test_what_was_said_before_the_clock_was_set_back_is_older_than_what_was_seen_since(office: Office) -> None:
    at = offered(office)
    apply_event(office.database, office.project, pickup("c1"), at)
    apply_event(office.database, office.project, after_call("c1"), at)
    earlier = at - 3600 * SECOND
    office.see(speaking=frozenset({ALICE}), at=earlier)
    assert tidied(office, earlier + SECOND)
    login, presence = office.login(ALICE), office.presence()
    assert login is not None
    assert login.event_at == presence.began_at == earlier, "so the reading counts"


@pytest.mark.parametrize("seconds", [3600, 3], ids=["far", "to a moment before what was seen"])
def test_a_talk_after_the_clock_was_set_back_is_not_over_by_what_was_seen_before(office: Office, seconds: int) -> None:
    at = offered(office)
    office.see(speaking=frozenset({ALICE}), at=at + 19 * SECOND)
    office.see(at=at + 20 * SECOND)  # Alice is silent; then the clock is set back, and she picks up
    earlier = at + 20 * SECOND - seconds * SECOND
    assert office.see(at=earlier - 0.1 * SECOND)
    apply_event(office.database, office.project, pickup("c1"), earlier)
    settle(office.database, office.project, earlier + SECOND)
    assert office.decision("c1").ended_at is None
    assert office.speaking_by_events() == {ALICE}


Queue = Callable[[Office, Callable[[], object]], None]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Sets what others do while whoever wants to write next waits, longer than a clock may differ."""
    monkeypatch.setattr("router.presence.settle.CLOCK_STEP", 0.1 * SECOND)

    def wait_for(office: Office, others: Callable[[], object]) -> None:
        writing, before = office.database.writing, [others]

        @contextmanager
        def queued() -> Iterator[Session]:
            began = office.now()
            while before:
                while office.now() <= began + 0.1 * SECOND:
                    time.sleep(0.01)
                before.pop()()
            with writing() as session:
                yield session

        monkeypatch.setattr(office.database, "writing", queued)

    return wait_for


def test_what_calls_wrote_while_it_waited_for_them_is_not_ahead_of_the_clock(office: Office, queue: Queue) -> None:
    at = offered(office)
    with office.database.writing() as session:
        session.execute(update(models.Reservation).values(expires_at=at - 3 * UNSEEN))
        session.execute(update(models.ReservedPhone).values(expires_at=at - 3 * UNSEEN))
    queue(office, lambda: office.ask("c2"))
    assert tidy(office.database, office.project)
    assert office.reserved() == [office.decision("c2").sip_login]


def test_what_events_said_while_it_waited_for_them_is_not_set_back(office: Office, queue: Queue) -> None:
    future = office.now() + 3600 * SECOND
    with office.database.writing() as session:
        session.execute(update(models.LoginState).values(event_at=future))
    said: list[datetime] = []

    def pick_up() -> None:
        said.append(office.now())
        with office.database.writing() as session:
            session.execute(update(models.LoginState).where(models.LoginState.login == BOB).values(event_at=said[0]))

    queue(office, pick_up)
    assert tidy(office.database, office.project)
    alice, bob = office.login(ALICE), office.login(BOB)
    assert alice is not None
    assert bob is not None
    assert bob.event_at == said[0]
    assert alice.event_at == office.presence().began_at, "it was before"


def test_what_is_settled_after_a_wait_is_over_after_it(office: Office, queue: Queue) -> None:
    office.see(online=FREE, speaking=FREE)
    assert office.ask("c1") == NIGHT_DESK
    with office.database.writing() as session:
        session.execute(update(models.Decision).values(asked_at=office.now() - 2 * OVERFLOW_WAIT))
    waited: list[datetime] = []
    queue(office, lambda: waited.append(office.now()))
    assert settle(office.database, office.project) == 1
    ended_at = office.decision("c1").ended_at
    assert ended_at is not None
    assert ended_at >= waited[0]


def test_settlement_leaves_a_call_alone_that_an_event_is_about_just_now(migrated_postgres_url: str) -> None:
    with opened_office(migrated_postgres_url) as office:
        at = offered(office)
        office.see(speaking=frozenset({ALICE}), at=at + 6 * SECOND)
        with office.database.writing() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": call_key(office.project_id, "c1")})
            assert settled(office, at + 7 * SECOND) == 0
        assert settled(office, at + 7 * SECOND) == 1


def test_only_this_projects_decisions_are_settled(sqlite_office: Office) -> None:
    at = offered(sqlite_office)
    with sqlite_office.database.writing() as session:
        other = models.Project(name="other", created_at=at)
        session.add(other)
        session.flush()
        session.execute(update(models.Decision).values(project_id=other.id))
    assert settled(sqlite_office, at + 3600 * SECOND) == 0


def test_what_piles_up_is_settled_in_short_transactions_with_room_for_calls_between(office: Office) -> None:
    for number in range(3 * BATCH):
        office.ask(f"c{number}")  # two are offered to agents, all others go to the overflow
    wrote: list[int] = []
    held: list[int] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE decisions"):
            held.append(1)

    def commit(_connection: object) -> None:
        wrote.append(len(held))
        held.clear()

    event.listen(office.database.engine, "before_cursor_execute", count)
    event.listen(office.database.engine, "commit", commit)
    assert settled(office, office.now() + LONGEST_TALK) == 3 * BATCH
    assert len(wrote) == 3
    assert max(wrote) <= BATCH
