"""Readings and failures, as they are kept in a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from sqlalchemy import event, func, select, update

from router.db import models
from router.presence.readings import Readings
from router.presence.source import ErrorCode, Reading, SourceError
from tests.presence.office import ALICE, ALICE_MOBILE, BOB, CAROL, DAVE, ONLINE, SPEAKING, Office, opened_office

SECOND = timedelta(seconds=1)


@pytest.fixture
def office(migrated_url: str) -> Iterator[Office]:
    with opened_office(migrated_url) as opened:
        yield opened


def keep(readings: Readings, office: Office, online: frozenset[str], speaking: frozenset[str], at: datetime) -> bool:
    reading = Reading(online, speaking)
    poll = {"began_at": at, "now": at, "next_poll_at": at + 2 * SECOND}
    return readings.keep(office.project_id, reading, took=timedelta(milliseconds=80), **poll)


def keep_error(office: Office, at: datetime, failures: int = 1) -> bool:
    error = SourceError(ErrorCode.TIMEOUT, "Asked for the online logins, the API did not answer in time.")
    return Readings(office.database).keep_error(
        office.project_id, error, began_at=at, now=at, failures=failures, next_poll_at=at + 4 * SECOND
    )


def snapshots(office: Office) -> list[models.PresenceSnapshot]:
    with office.database.reading() as session:
        return list(session.scalars(select(models.PresenceSnapshot).order_by(models.PresenceSnapshot.id)))


@contextmanager
def counted(office: Office) -> Iterator[list[str]]:
    """The statements that are sent to the database."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "SELECT set_config")):  # where a transaction begins
            sent.append(statement)

    event.listen(office.database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(office.database.engine, "before_cursor_execute", note)


def test_a_reading_is_kept_with_the_instant_at_which_it_began(office: Office) -> None:
    keep_error(office, office.now())
    at = office.now()
    assert office.see(online=frozenset({DAVE}), speaking=frozenset(), at=at)
    presence = office.presence()
    assert (presence.began_at, presence.poll_ms, presence.next_poll_at) == (at, 80, at + 2 * SECOND)
    assert (presence.failures, presence.error_code, presence.error_message, presence.error_at) == (0, "", "", None)
    newest = snapshots(office)[-1]
    assert (newest.id, newest.began_at, newest.online, newest.speaking) == (presence.snapshot_id, at, [DAVE], [])


def test_a_reading_that_says_the_same_costs_one_statement_and_no_snapshot(office: Office) -> None:
    readings = Readings(office.database)
    now = office.now()
    keep(readings, office, ONLINE, SPEAKING, now)
    before = snapshots(office)
    with counted(office) as sent:
        assert keep(readings, office, ONLINE, SPEAKING, now + 2 * SECOND)
    assert len(sent) == 1, sent
    assert [s.id for s in snapshots(office)] == [s.id for s in before]
    assert office.presence().began_at == now + 2 * SECOND


def test_a_process_that_knows_nothing_yet_writes_no_snapshot_for_the_same_news(office: Office) -> None:
    count = len(snapshots(office))
    assert office.see()
    assert len(snapshots(office)) == count


def test_a_thousand_logins_are_written_in_a_handful_of_statements(office: Office) -> None:
    everybody = frozenset(f"acme_{n:04}" for n in range(1000))
    with counted(office) as sent:
        office.see(online=everybody, speaking=frozenset(sorted(everybody)[:300]))
    assert len(sent) <= 10, sent
    with office.database.reading() as session:
        online = select(func.count()).where(models.LoginState.online)
        assert session.scalar(online) == 1000
        assert session.scalar(online.where(models.LoginState.speaking)) == 300


def test_only_logins_that_changed_are_touched(office: Office) -> None:
    spoke = office.login(BOB)
    at = office.now() + 5 * SECOND
    office.see(online=ONLINE - {CAROL}, speaking=frozenset({ALICE, BOB}), at=at)
    alice, bob, carol = office.login(ALICE), office.login(BOB), office.login(CAROL)
    assert alice is not None
    assert bob is not None
    assert carol is not None
    assert spoke is not None
    assert (alice.online, alice.speaking, alice.since_at) == (True, True, at)
    assert (carol.online, carol.speaking, carol.since_at) == (False, False, at)
    assert (bob.speaking, bob.since_at) == (True, spoke.since_at)


def test_what_events_said_is_left_alone(office: Office) -> None:
    with office.database.writing() as session:
        row = session.get_one(models.LoginState, (office.project_id, ALICE))
        row.event_speaking, row.event_at, row.event_call_id = True, office.now(), "c1"
    office.see(speaking=frozenset({ALICE}), at=office.now() + SECOND)
    kept = office.login(ALICE)
    assert kept is not None
    assert (kept.event_speaking, kept.event_call_id) == (True, "c1")


def test_an_older_reading_never_replaces_a_newer_one(office: Office) -> None:
    now = office.now()
    office.see(online=frozenset({ALICE}), speaking=frozenset(), at=now + SECOND)
    assert not office.see(online=frozenset(), speaking=frozenset(), at=now)
    assert not keep_error(office, now)
    assert office.presence().failures == 0
    assert snapshots(office)[-1].online == [ALICE]
    login = office.login(ALICE)
    assert login is not None
    assert login.online


def test_a_reading_that_waited_long_for_its_turn_never_replaces_a_newer_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the lock on SQLite, for the row on PostgreSQL."""
    monkeypatch.setattr("router.presence.readings.CLOCK_STEP", SECOND / 10)
    older = office.now() + SECOND / 10
    holds = threading.Event()

    def keep_newer() -> None:
        with office.database.writing() as session:
            session.execute(update(models.Presence).values(poll_ms=0))
            holds.set()
            while office.database.now(session) <= older + SECOND / 5:
                time.sleep(0.01)
            session.execute(update(models.Presence).values(began_at=office.database.now(session)))

    others = threading.Thread(target=keep_newer)
    others.start()
    holds.wait()
    reading = Reading(frozenset(), frozenset())
    took = timedelta(milliseconds=80)
    assert not Readings(office.database).keep(
        office.project_id, reading, began_at=older, took=took, next_poll_at=older + SECOND
    )
    others.join()


def test_a_reading_of_now_replaces_one_of_before_the_clock_was_set_back(office: Office) -> None:
    now = office.now()
    office.see(at=now + 60 * SECOND)
    reading, took = Reading(frozenset({BOB}), frozenset()), timedelta(milliseconds=80)
    readings = Readings(office.database)
    assert readings.keep(office.project_id, reading, began_at=now, took=took, next_poll_at=now + SECOND)
    assert office.presence().began_at == now
    error = SourceError(ErrorCode.TIMEOUT, "Too slow.")
    assert readings.keep_error(
        office.project_id, error, began_at=now + SECOND, failures=1, next_poll_at=now + 2 * SECOND
    )
    error_at = office.presence().error_at
    assert error_at is not None
    assert now <= error_at <= office.now(), "the database's clock"


def test_changes_are_told_from_what_another_process_kept_last(office: Office) -> None:
    mine, others = Readings(office.database), Readings(office.database)
    now = office.now()
    keep(mine, office, frozenset({ALICE}), frozenset(), now)
    keep(others, office, frozenset({BOB}), frozenset(), now + SECOND)
    keep(mine, office, frozenset({ALICE}), frozenset(), now + 2 * SECOND)
    with office.database.reading() as session:
        online = session.scalars(select(models.LoginState.login).where(models.LoginState.online)).all()
    assert online == [ALICE]
    assert snapshots(office)[-1].online == [ALICE]


def test_a_failure_leaves_what_was_seen_and_says_why(office: Office) -> None:
    seen = office.presence()
    at = office.now() + SECOND
    assert keep_error(office, at, failures=3)
    presence = office.presence()
    assert (presence.began_at, presence.snapshot_id) == (seen.began_at, seen.snapshot_id)
    assert (presence.failures, presence.error_code, presence.error_at) == (3, "timeout", at)
    assert presence.error_message == "Asked for the online logins, the API did not answer in time."
    assert presence.error_remedy.startswith("Nothing to do if it passes.")
    assert presence.next_poll_at == at + 4 * SECOND
    login = office.login(ALICE)
    assert login is not None
    assert login.online, "unknown is not offline"


def test_an_agent_who_comes_online_is_available_since_then(office: Office) -> None:
    bob = office.agent("Bob").available_since_at
    at = office.now() + 60 * SECOND
    office.see(online=ONLINE | {DAVE}, at=at)
    assert office.agent("Dave").available_since_at == at
    assert office.agent("Bob").available_since_at == bob


def test_a_second_phone_that_comes_online_makes_nobody_available_anew(office: Office) -> None:
    before = office.agent("Alice").available_since_at
    office.see(online=ONLINE | {ALICE_MOBILE}, at=office.now() + 60 * SECOND)
    assert office.agent("Alice").available_since_at == before


# ---- gaps in presence


def seen(office: Office, *gaps: tuple[float, bool]) -> None:
    """Readings so many seconds after one in which Carol was online, with her or without."""
    start = office.now()
    office.see(at=start)
    for seconds, is_online in gaps:
        office.see(online=ONLINE if is_online else ONLINE - {CAROL}, at=start + seconds * SECOND)


def test_a_reading_without_an_agent_moves_no_clock(office: Office) -> None:
    before = office.agent("Carol").available_since_at
    seen(office, (2, False), (4, True), (60, False), (62, False), (87, False), (89, True))
    assert office.agent("Carol").available_since_at == before


def test_a_gap_as_long_as_the_project_says_is_an_absence(office: Office) -> None:
    office.configure(presence_away_seconds=3)
    start = office.now()
    seen(office, (2, False), (4, False), (6, True))
    came_at = office.agent("Carol").available_since_at
    assert came_at is not None
    assert came_at >= start + 6 * SECOND


def test_what_no_reading_told_is_no_absence(office: Office) -> None:
    """One reading without her, then the source or the poller is away for ten minutes: nothing is known of these."""
    office.configure(presence_fresh_seconds=5)
    before = office.agent("Carol").available_since_at
    seen(office, (2, False))
    keep_error(office, office.now() + 30 * SECOND)
    office.see(at=office.now() + 600 * SECOND)
    assert office.agent("Carol").available_since_at == before


def test_an_agent_of_whom_an_event_told_in_between_was_not_away(office: Office) -> None:
    before = office.agent("Carol").available_since_at
    seen(office, (2, False), (20, False), (40, False))
    with office.database.writing() as session:
        row = session.get_one(models.LoginState, (office.project_id, CAROL))
        row.event_speaking, row.event_at = False, office.now() + 30 * SECOND
    office.see(at=office.now() + 42 * SECOND)
    assert office.agent("Carol").available_since_at == before
