"""The laws of what becomes of a call, without a database: facts beat conclusions, and undoing one undoes all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import (
    GRACE,
    NO_ANSWERS,
    SHORT_SILENCE,
    Changes,
    Clocks,
    Effect,
    Heard,
    History,
    Line,
    Result,
    Step,
    ask_again,
    hear,
    observe,
)
from router.core.model import Agent, Group, Member, Outcome, Project, Status

SECOND = timedelta(seconds=1)
RING = 25 * SECOND
NOON = datetime(2026, 11, 24, 10, tzinfo=UTC)
ALICE, BOB = 1, 2
PHONES = {ALICE: "alice", BOB: "bob"}
PROJECT = Project(
    1,
    "acme",
    1,
    time_zone="Europe/Kyiv",
    agents={
        ALICE: Agent(ALICE, "Alice", ("alice", "alice_mob"), wrap_up=10 * SECOND),
        BOB: Agent(BOB, "Bob", ("bob",), wrap_up=10 * SECOND),
    },
    groups={1: Group(1, "sales", "round_robin", (Member(ALICE), Member(BOB)), RING)},
)
BEFORE = Clocks(
    missed_day=date(2026, 11, 24),
    no_answers=1,
    day=date(2026, 11, 24),
    answered_today=4,
    talked_today=700,
    last_talk_end_at=NOON - 3600 * SECOND,
)


class Talk:
    """A call as it goes: what is told, seen or asked changes it."""

    def __init__(self, clocks: Clocks = BEFORE) -> None:
        self.history = History("c1", clocks={ALICE: clocks, BOB: clocks})

    def offer(self, agent: int, at: datetime) -> None:
        """The call is asked about, and offered to this agent."""
        self.apply(ask_again(PROJECT, self.history, at), at)
        number = len(self.history.steps) + 1
        step = Step(number, agent, 1, PHONES[agent], PHONES[agent], at, rings_until=at + RING)
        self.history = replace(self.history, steps=(step, *self.history.steps))

    def hear(self, kind: EventKind, at: datetime, login: str = "alice", **said: Any) -> Changes:
        event = CallEvent(kind, "c1", sip_login=login, direction="in", **said)
        changes = hear(PROJECT, self.history, event, at)
        self.apply(changes, at)
        return changes

    def see(self, at: datetime, *speaking: str) -> None:
        """A reading that began then; what it tells is settled."""
        lines = dict(self.history.lines)
        for login in ("alice", "alice_mob", "bob"):
            line = lines.get(login, Line(since_at=NOON - 3600 * SECOND))
            if line.speaking != (login in speaking):
                line = line._replace(speaking=login in speaking, since_at=at)
            lines[login] = line._replace(online=True)
        self.history = replace(self.history, lines=lines, seen_at=at)
        self.apply(observe(PROJECT, self.history, at), at)

    def apply(self, changes: Changes, at: datetime) -> None:
        changed = {step.id: step for step in changes.steps}
        steps = [changed.get(step.id, step) for step in self.history.steps]
        if changes.releases_call:
            steps = [replace(step, rings_until=None) for step in steps]
        released = {step.id for step in changes.released}
        steps = [replace(step, rings_until=None) if step.id in released else step for step in steps]
        lines = dict(self.history.lines)
        said: Mapping[str, bool | None] = {
            **changes.said,
            **dict.fromkeys(changes.unsaid),
            **dict.fromkeys(changes.hushed, False),
        }
        for login, talks in said.items():
            lines[login] = lines.get(login, Line())._replace(talks=talks, event_at=at, call_id="c1")
        self.history = replace(
            self.history,
            steps=tuple(steps),
            heard=changes.heard or self.history.heard,
            clocks={**self.history.clocks, **changes.clocks},
            lines=lines,
        )

    @property
    def outcomes(self) -> list[str]:
        """Of the steps, the first first."""
        return [str(step.outcome) for step in reversed(self.history.steps)]

    @property
    def alice(self) -> Clocks:
        return self.history.clocks[ALICE]

    @property
    def bob(self) -> Clocks:
        return self.history.clocks[BOB]


# ---- what a conclusion did can be undone


instants = st.none() | st.integers(0, 50).map(lambda minutes: NOON + timedelta(minutes=minutes))
clocks = st.builds(
    Clocks,
    status=st.sampled_from(list(Status)),
    status_since_at=instants,
    status_reason=st.sampled_from(["", NO_ANSWERS]),
    wrap_up_until=instants,
    cooling_until=instants,
    missed_day=st.none() | st.just(date(2026, 11, 23)) | st.just(date(2026, 11, 24)),
    no_answers=st.integers(0, 5),
    declines=st.integers(0, 5),
    day=st.none() | st.just(date(2026, 11, 23)) | st.just(date(2026, 11, 24)),
    answered_today=st.integers(0, 9),
    talked_today=st.integers(0, 900),
    last_talk_end_at=instants,
)


@given(before=clocks, after=clocks)
def test_an_effect_undone_at_once_leaves_no_trace(before: Clocks, after: Clocks) -> None:
    assert Effect.of(ALICE, before, after).undone(after) == before


@given(before=clocks, own=st.integers(1, 3), others=st.integers(0, 5))
def test_an_effect_undone_takes_back_its_own_count_and_leaves_that_of_others(
    before: Clocks, own: int, others: int
) -> None:
    after = before._replace(answered_today=before.answered_today + own, cooling_until=None)
    since = after._replace(answered_today=after.answered_today + others, last_talk_end_at=NOON)
    undone = Effect.of(ALICE, before, after).undone(since)
    assert undone.answered_today == before.answered_today + others
    assert undone.last_talk_end_at == NOON


def test_a_count_of_yesterday_is_not_taken_from_todays() -> None:
    first_of_today = BEFORE._replace(day=date(2026, 11, 25), answered_today=1)
    undone = Effect.of(ALICE, BEFORE, first_of_today).undone(first_of_today._replace(answered_today=3))
    assert (undone.day, undone.answered_today) == (date(2026, 11, 25), 2)


def test_the_first_answer_of_a_day_undone_gives_back_the_day_before() -> None:
    first_of_today = BEFORE._replace(day=date(2026, 11, 25), answered_today=1, talked_today=0)
    assert Effect.of(ALICE, BEFORE, first_of_today).undone(first_of_today) == BEFORE
    talked_since = Effect.of(ALICE, BEFORE, first_of_today).undone(
        first_of_today._replace(answered_today=2, talked_today=60)
    )
    assert (talked_since.day, talked_since.answered_today, talked_since.talked_today) == (date(2026, 11, 25), 1, 60)


# ---- facts beat conclusions, on every way


def dialled_out() -> Talk:
    """While the call rings Alice begins a call of her own, of which no event tells, and it ends."""
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 2 * SECOND, "alice")
    assert talk.outcomes == ["answered"]
    assert (talk.alice.answered_today, talk.alice.no_answers) == (5, 0)
    talk.see(NOON + 9 * SECOND)
    assert (talk.alice.last_talk_end_at, talk.alice.wrap_up_until) == (NOON + 9 * SECOND, NOON + 19 * SECOND)
    return talk


def test_an_answer_that_was_only_concluded_is_undone_when_the_caller_hangs_up() -> None:
    talk = dialled_out()
    talk.hear(EventKind.AFTER_CALL, NOON + 20 * SECOND, "", disposition=Disposition.NO_ANSWER)
    (step,) = talk.history.steps
    assert (step.outcome, step.inferred, step.answered_login, step.answered_at) == ("no_answer", False, "", None)
    assert talk.alice == BEFORE
    assert talk.history.heard.talked == ()


def test_it_is_undone_when_the_call_goes_on() -> None:
    talk = dialled_out()
    talk.offer(BOB, NOON + RING)
    assert talk.outcomes == ["no_answer", ""]
    assert talk.alice == BEFORE


@pytest.mark.parametrize("disposition", [Disposition.BUSY, Disposition.DECLINE, Disposition.FAILED])
def test_it_is_undone_when_the_agent_did_not_take_it(disposition: Disposition) -> None:
    talk = dialled_out()
    talk.hear(EventKind.UNAVAILABLE, NOON + 20 * SECOND, disposition=disposition)
    declines = 1 if disposition is Disposition.DECLINE else 0
    assert talk.alice == BEFORE._replace(cooling_until=NOON + 50 * SECOND, declines=declines)


def test_it_is_undone_when_the_call_reaches_a_voice_mail_box() -> None:
    talk = dialled_out()
    talk.hear(EventKind.PICKUP, NOON + 20 * SECOND, "", answered=False)
    assert (talk.outcomes, talk.alice) == (["voicemail"], BEFORE)


def test_it_is_undone_when_an_event_tells_of_the_other_call() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 2 * SECOND, "alice")
    line = talk.history.lines["alice"]._replace(talks=True, event_at=NOON + SECOND, call_id="own")
    talk.history = replace(talk.history, lines={**talk.history.lines, "alice": line})
    talk.see(NOON + 4 * SECOND, "alice")
    assert (talk.outcomes, talk.alice) == ([""], BEFORE)


def test_a_pickup_told_of_a_step_that_was_passed_over_takes_back_that_it_was_missed() -> None:
    talk = Talk(BEFORE._replace(no_answers=2))
    talk.offer(ALICE, NOON)
    talk.offer(BOB, NOON + RING)
    assert (talk.alice.no_answers, talk.alice.status) == (3, Status.ON_BREAK)
    talk.hear(EventKind.PICKUP, NOON + RING + SECOND)
    assert talk.outcomes == ["answered", "no_answer"]
    assert (talk.alice.no_answers, talk.alice.status, talk.alice.cooling_until) == (0, Status.AVAILABLE, None)
    assert talk.alice.answered_today == 5


def test_busy_told_after_the_next_step_takes_back_that_it_was_missed() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.offer(BOB, NOON + 6 * SECOND)
    assert talk.alice.no_answers == 2
    for _ in range(2):
        talk.hear(EventKind.UNAVAILABLE, NOON + 7 * SECOND, disposition=Disposition.BUSY)
        assert (talk.outcomes, talk.alice.no_answers) == (["busy", ""], 1)
    assert talk.history.steps[0].rings_until is not None, "Bob's phone rings on"


@pytest.mark.parametrize("seconds", [RING.total_seconds(), (RING + GRACE).total_seconds()])
def test_a_next_step_within_the_ring_time_proves_that_nobody_answered(seconds: float) -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.offer(BOB, NOON + seconds * SECOND)
    assert (talk.outcomes, talk.alice.no_answers) == (["no_answer", ""], 2)


def test_a_talk_that_was_seen_took_place_when_the_caller_is_sent_back_later() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 600 * SECOND)
    talk.offer(BOB, NOON + 601 * SECOND)
    first = talk.history.steps[1]
    assert (first.outcome, first.answered_agent_id, first.talked_seconds) == ("answered", ALICE, 595)
    assert (talk.alice.answered_today, talk.alice.no_answers) == (5, 0)


def test_a_talk_that_was_told_is_over_when_the_caller_is_sent_back() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.offer(BOB, NOON + 60 * SECOND)
    first = talk.history.steps[1]
    assert (first.outcome, first.inferred, first.ended_at) == ("answered", False, NOON + 60 * SECOND)
    assert first.talked_seconds == 56
    assert (talk.alice.last_talk_end_at, talk.alice.wrap_up_until) == (NOON + 60 * SECOND, NOON + 70 * SECOND)
    assert not talk.history.lines["alice"].talks
    talk.hear(EventKind.PICKUP, NOON + 80 * SECOND, "bob")
    assert talk.alice.wrap_up_until == NOON + 70 * SECOND


def test_a_next_step_much_later_holds_nothing_against_an_agent_of_whom_nothing_was_seen() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.offer(BOB, NOON + 600 * SECOND)
    assert (talk.outcomes, talk.alice) == (["unknown", ""], BEFORE)


# ---- a talk ends when it ends


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "seen"])
def test_a_talk_goes_on_after_a_gap_in_presence_and_wraps_up_at_its_true_end(*, is_told: bool) -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    if is_told:
        talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 5 * SECOND, "alice")
    answered = talk.alice
    talk.see(NOON + 60 * SECOND)
    assert talk.alice.last_talk_end_at == NOON + 60 * SECOND
    talk.see(NOON + 60.5 * SECOND, "alice")
    assert (talk.history.steps[0].ended_at, talk.history.steps[0].talked_seconds) == (None, None)
    assert talk.alice == answered, "as if nothing had been"
    talk.see(NOON + 300 * SECOND)
    assert talk.history.steps[0].ended_at == NOON + 300 * SECOND
    assert (talk.alice.last_talk_end_at, talk.alice.wrap_up_until) == (NOON + 300 * SECOND, NOON + 310 * SECOND)
    assert talk.alice.answered_today == 5


@pytest.mark.parametrize("gap", [0, 3])
def test_a_talk_that_is_taken_on_at_another_phone_of_the_agent_goes_on(gap: int) -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    if gap:
        talk.see(NOON + (60 - gap) * SECOND)
    talk.see(NOON + 60 * SECOND, "alice_mob")
    assert (talk.history.steps[0].ended_at, talk.alice.wrap_up_until) == (None, None)
    talk.see(NOON + 200 * SECOND)
    assert talk.history.steps[0].ended_at == NOON + 200 * SECOND
    assert talk.alice.wrap_up_until == NOON + 210 * SECOND


def test_speech_long_after_a_talk_is_not_that_talk() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    talk.see(NOON + 61 * SECOND + SHORT_SILENCE, "alice")
    assert talk.history.steps[0].ended_at == NOON + 60 * SECOND


def test_speech_on_a_newer_call_is_not_the_talk_before() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    talk.history = replace(talk.history, others={ALICE: NOON + 70 * SECOND})
    talk.see(NOON + 75 * SECOND, "alice")
    assert talk.history.steps[0].ended_at == NOON + 60 * SECOND


@pytest.mark.parametrize("billsec", [None, 1196])
def test_the_end_that_is_told_ends_a_talk_that_was_on_hold(billsec: int | None) -> None:
    """On hold for longer than a silence may last, so that it was taken to be over."""
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    talk.see(NOON + 1000 * SECOND, "alice")
    over = NOON + 1200 * SECOND
    talk.hear(EventKind.AFTER_CALL, over, disposition=Disposition.ANSWERED, billsec=billsec)
    assert (talk.alice.last_talk_end_at, talk.alice.wrap_up_until) == (over, over + 10 * SECOND)
    assert talk.history.steps[0].ended_at == over
    assert talk.history.steps[0].talked_seconds == 1196


@pytest.mark.parametrize("billsec", [None, 296])
def test_a_talk_that_presence_never_showed_ends_when_that_is_told(billsec: int | None) -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 30 * SECOND)
    assert talk.alice.last_talk_end_at == NOON + 30 * SECOND, "as far as presence tells"
    over = NOON + 300 * SECOND
    talk.hear(EventKind.AFTER_CALL, over, disposition=Disposition.ANSWERED, billsec=billsec)
    assert talk.alice.wrap_up_until == over + 10 * SECOND
    assert (talk.history.steps[0].ended_at, talk.history.steps[0].talked_seconds) == (over, 296)


def test_a_late_word_of_an_end_that_was_seen_moves_nothing() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    talk.hear(EventKind.AFTER_CALL, NOON + 90 * SECOND, disposition=Disposition.ANSWERED, billsec=56)
    assert talk.alice.wrap_up_until == NOON + 70 * SECOND


def test_whoever_gets_the_call_handed_back_wraps_up_at_its_end() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.hear(EventKind.PICKUP, NOON + 60 * SECOND, "bob")
    assert talk.alice.last_talk_end_at == NOON + 60 * SECOND
    over = NOON + 300 * SECOND
    talk.hear(EventKind.AFTER_CALL, over, "alice", disposition=Disposition.ANSWERED, billsec=296)
    assert (talk.alice.last_talk_end_at, talk.alice.wrap_up_until) == (over, over + 10 * SECOND)


def test_all_of_a_conference_wrap_up_at_its_end() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 10 * SECOND, "alice")
    talk.hear(EventKind.PICKUP, NOON + 60 * SECOND, "bob")
    talk.see(NOON + 100 * SECOND, "alice", "bob")
    over = NOON + 300 * SECOND
    talk.hear(EventKind.AFTER_CALL, over, "bob", disposition=Disposition.ANSWERED, billsec=296)
    assert [talk.alice.wrap_up_until, talk.bob.wrap_up_until] == [over + 10 * SECOND] * 2


# ---- the seconds of a day's talks


def talked(clocks: Clocks) -> int:
    return clocks.talked_today - BEFORE.talked_today


@pytest.mark.parametrize(("billsec", "seconds"), [(None, 56), (50, 50)], ids=["by our clock", "as reported"])
def test_counts_the_seconds_from_pickup_to_end(billsec: int | None, seconds: int) -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    assert talked(talk.alice) == 0
    for at in (60, 61, 90):
        talk.hear(EventKind.AFTER_CALL, NOON + at * SECOND, disposition=Disposition.ANSWERED, billsec=billsec)
        assert (talk.alice.answered_today, talked(talk.alice)) == (5, seconds)


def test_counts_the_seconds_that_are_reported_of_a_talk_whose_pickup_was_lost() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.AFTER_CALL, NOON + 60 * SECOND, disposition=Disposition.ANSWERED, billsec=50)
    talk.hear(EventKind.PICKUP, NOON + 61 * SECOND)
    assert (talk.alice.answered_today, talked(talk.alice)) == (5, 50)


def test_counts_the_seconds_that_presence_showed_until_an_event_tells_better() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    assert talked(talk.alice) == 55
    talk.hear(EventKind.AFTER_CALL, NOON + 63 * SECOND, disposition=Disposition.ANSWERED, billsec=52)
    assert talked(talk.alice) == 52


def test_counts_no_seconds_of_a_talk_of_which_neither_end_was_seen() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.see(NOON + 30 * SECOND)
    assert (talk.alice.answered_today, talked(talk.alice)) == (5, 0)
    talk.hear(EventKind.AFTER_CALL, NOON + 300 * SECOND, disposition=Disposition.ANSWERED)
    assert talked(talk.alice) == 296


def test_counts_a_talk_with_a_gap_in_presence_once_and_whole() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.see(NOON + 5 * SECOND, "alice")
    talk.see(NOON + 60 * SECOND)
    talk.see(NOON + 61 * SECOND, "alice")
    assert talked(talk.alice) == 0, "it goes on"
    talk.see(NOON + 105 * SECOND)
    assert talked(talk.alice) == 100


def test_counts_a_talk_of_a_call_without_id_alike() -> None:
    talk = Talk()
    talk.history = replace(talk.history, call_id="")
    talk.offer(ALICE, NOON)
    for at, speaking in ((5, ["alice"]), (60, []), (61, ["alice"]), (105, [])):
        talk.see(NOON + at * SECOND, *speaking)
    assert (talk.alice.answered_today, talked(talk.alice)) == (5, 100)


def test_shares_the_seconds_of_a_transferred_call() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.hear(EventKind.PICKUP, NOON + 60 * SECOND, "bob")
    talk.hear(EventKind.AFTER_CALL, NOON + 100 * SECOND, "bob", disposition=Disposition.ANSWERED, billsec=96)
    assert (talked(talk.alice), talked(talk.bob)) == (56, 40)


def test_counts_the_talk_that_is_over_when_the_caller_is_sent_back() -> None:
    talk = Talk()
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    talk.offer(BOB, NOON + 60 * SECOND)
    talk.hear(EventKind.PICKUP, NOON + 70 * SECOND, "bob")
    talk.hear(EventKind.AFTER_CALL, NOON + 100 * SECOND, "bob", disposition=Disposition.ANSWERED, billsec=96)
    assert (talked(talk.alice), talked(talk.bob)) == (56, 30)


def test_counts_a_talk_on_the_day_when_it_began() -> None:
    midnight = datetime(2026, 11, 24, 22, tzinfo=UTC)  # in Kyiv
    talk = Talk()
    talk.offer(ALICE, midnight - 30 * SECOND)
    talk.hear(EventKind.PICKUP, midnight - 20 * SECOND)
    talk.hear(EventKind.AFTER_CALL, midnight + 20 * SECOND, disposition=Disposition.ANSWERED)
    assert (talk.alice.day, talked(talk.alice)) == (date(2026, 11, 24), 40)
    of_today = BEFORE._replace(day=date(2026, 11, 25), answered_today=1, talked_today=10)
    talk = Talk()
    talk.offer(ALICE, midnight - 30 * SECOND)
    talk.hear(EventKind.PICKUP, midnight - 20 * SECOND)
    talk.history = replace(talk.history, clocks={ALICE: of_today})
    talk.hear(EventKind.AFTER_CALL, midnight + 40 * SECOND, disposition=Disposition.ANSWERED)
    assert (talk.alice.answered_today, talk.alice.talked_today) == (1, 10), "another talk began the next day"


def test_begins_each_day_at_nothing() -> None:
    talk = Talk(BEFORE._replace(day=date(2026, 11, 23)))
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    assert (talk.alice.answered_today, talk.alice.talked_today) == (1, 0)
    talk.hear(EventKind.AFTER_CALL, NOON + 10 * SECOND, disposition=Disposition.ANSWERED)
    assert (talk.alice.answered_today, talk.alice.talked_today) == (1, 6)


def test_counts_nothing_for_a_call_that_was_not_routed_here() -> None:
    talk = Talk()
    talk.hear(EventKind.PICKUP, NOON)
    talk.hear(EventKind.AFTER_CALL, NOON + 60 * SECOND, disposition=Disposition.ANSWERED, billsec=60)
    assert (talk.alice.last_talk_end_at, talked(talk.alice)) == (NOON + 60 * SECOND, 0)


# ---- calls in a row that were not taken


def missed_at(at: datetime, clocks: Clocks) -> Clocks:
    talk = Talk(clocks)
    talk.offer(ALICE, at)
    talk.offer(BOB, at + RING)
    return talk.alice


def test_missed_calls_of_different_days_do_not_add_up() -> None:
    clocks = Clocks()
    for days in range(5):
        clocks = missed_at(NOON + timedelta(days=days), clocks)
        assert (clocks.no_answers, clocks.status) == (1, Status.AVAILABLE)
    for _ in range(2):
        clocks = missed_at(NOON + timedelta(days=4, hours=1), clocks)
    assert (clocks.no_answers, clocks.status, clocks.status_reason) == (3, Status.ON_BREAK, NO_ANSWERS)


def test_missed_and_declined_calls_count_apart_and_busy_ones_not_at_all() -> None:
    clocks = Clocks()
    at = NOON
    for disposition in [Disposition.NO_ANSWER, Disposition.DECLINE, Disposition.BUSY, Disposition.FAILED] * 2:
        talk = Talk(clocks)
        talk.offer(ALICE, at)
        talk.hear(EventKind.UNAVAILABLE, at + 5 * SECOND, disposition=disposition)
        clocks, at = talk.alice, at + 60 * SECOND
    assert (clocks.no_answers, clocks.declines, clocks.status) == (2, 2, Status.AVAILABLE)


@pytest.mark.parametrize(
    "event",
    [
        CallEvent(EventKind.PICKUP, "direct", sip_login="alice"),
        CallEvent(EventKind.BEFORE_CALL, "own", sip_login="alice", direction="out"),
    ],
    ids=["answers", "makes a call"],
)
def test_an_automatic_break_ends_when_the_agent_is_at_the_phone(event: CallEvent) -> None:
    on_break = Clocks(Status.ON_BREAK, NOON, NO_ANSWERS, no_answers=3, cooling_until=NOON + 30 * SECOND)
    at = NOON + 60 * SECOND
    history = History(event.call_id, clocks={ALICE: on_break})
    clocks = hear(PROJECT, history, event, at).clocks[ALICE]
    assert clocks == Clocks(Status.AVAILABLE, at, "", available_since_at=at)
    declared = on_break._replace(status_reason="")
    kept = hear(PROJECT, replace(history, clocks={ALICE: declared}), event, at).clocks.get(ALICE, declared)
    assert kept.status == Status.ON_BREAK, "what a person declared stays"


def test_what_is_told_of_an_earlier_day_counts_no_more() -> None:
    today = BEFORE._replace(day=date(2026, 11, 25), cooling_until=NOON + timedelta(days=1), no_answers=2)
    talk = Talk(today)
    talk.offer(ALICE, NOON)
    talk.hear(EventKind.PICKUP, NOON + 4 * SECOND)
    assert (talk.alice.day, talk.alice.answered_today, talk.alice.no_answers) == (date(2026, 11, 25), 4, 2)


# ---- in any order, any number of times


STORY = (
    CallEvent(EventKind.PICKUP, "c1", sip_login="alice", direction="in"),
    CallEvent(EventKind.PICKUP, "c1", sip_login="bob", direction="in"),
    CallEvent(EventKind.AFTER_CALL, "c1", sip_login="bob", disposition=Disposition.ANSWERED, billsec=30),
)


@given(
    events=st.lists(st.sampled_from(STORY), max_size=6).flatmap(lambda more: st.permutations([*STORY, *more])),
    seen=st.lists(st.sets(st.sampled_from(["alice", "bob"])), max_size=9),
)
def test_what_is_told_comes_to_the_same_whatever_is_seen_between(
    events: Sequence[CallEvent], seen: list[set[str]]
) -> None:
    talk, at = Talk(), NOON
    talk.offer(ALICE, at)
    told: list[CallEvent] = []
    for place, event in enumerate(events):
        at += SECOND
        if place < len(seen):
            talk.see(at, *seen[place])
        at += SECOND
        before = talk.history
        changes = hear(PROJECT, before, event, at)
        if event in told:
            assert changes.result is Result.REPEATED
            assert not changes
        told.append(event)
        talk.apply(changes, at)
    (step,) = talk.history.steps
    assert (step.outcome, step.inferred, step.answered_login) == (Outcome.ANSWERED, False, "bob")
    assert step.ended_at is not None
    assert (talk.alice.answered_today, talk.bob.answered_today) == (5, 5)
    assert (talk.alice.no_answers, talk.bob.no_answers) == (0, 0)
    longest = max(30, (at - NOON).total_seconds())
    assert all(0 <= talked(clocks) <= longest for clocks in (talk.alice, talk.bob)), "nothing twice"


ENDS = [
    CallEvent(EventKind.AFTER_CALL, "c1", disposition=disposition)
    for disposition in Disposition
    if disposition.is_final and not disposition.is_answered
]


@given(
    seen=st.lists(st.tuples(st.integers(1, 9), st.sets(st.sampled_from(["alice", "bob"]))), max_size=8),
    steps=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([ALICE, BOB])), max_size=3),
    end=st.sampled_from(ENDS),
)
def test_a_call_that_nobody_answered_leaves_no_trace_of_what_was_concluded(
    seen: list[tuple[int, set[str]]], steps: list[tuple[int, int]], end: CallEvent
) -> None:
    talk, at = Talk(), NOON
    talk.offer(ALICE, at)
    for seconds, agent in steps:
        for later, speaking in seen:
            at += later * SECOND
            talk.see(at, *speaking)
        at += seconds * SECOND
        talk.offer(agent, at)
    talk.apply(hear(PROJECT, talk.history, end, at + SECOND), at + SECOND)
    assert Outcome.ANSWERED not in talk.outcomes
    assert all(step.ended_at and step.outcome for step in talk.history.steps)
    assert talk.history.heard.talked == ()
    for now in (talk.alice, talk.bob):
        assert (now.answered_today, now.talked_today) == (BEFORE.answered_today, BEFORE.talked_today)
        assert now.last_talk_end_at == BEFORE.last_talk_end_at
        assert now.wrap_up_until is None
        assert now.no_answers >= BEFORE.no_answers


@given(at=st.integers(1, 34), disposition=st.sampled_from([d for d in Disposition if d.is_refusal]))
def test_a_refusal_leaves_the_same_before_and_after_the_next_step(at: int, disposition: Disposition) -> None:
    first, then = Talk(), Talk()
    for talk in (first, then):
        talk.offer(ALICE, NOON)
    refusal = {"disposition": disposition}
    first.hear(EventKind.UNAVAILABLE, NOON + at * SECOND, **refusal)
    first.offer(BOB, NOON + at * SECOND)
    then.offer(BOB, NOON + at * SECOND)
    then.hear(EventKind.UNAVAILABLE, NOON + at * SECOND, **refusal)
    assert first.outcomes == then.outcomes
    assert first.alice == then.alice


def test_the_history_that_is_given_is_left_as_it_is() -> None:
    history = History("c1", heard=Heard(NOON, ("alice",)), clocks={ALICE: BEFORE})
    hear(PROJECT, history, STORY[1], NOON)
    assert history == History("c1", heard=Heard(NOON, ("alice",)), clocks={ALICE: BEFORE})
