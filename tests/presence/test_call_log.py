"""The platform's call log: what is asked for, what is made of it, and whom a caller gets by it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from router.db import models
from router.presence import call_log
from router.presence.call_log import AGAIN, SPAN, next_span, talks
from router.presence.fetch import Fetcher
from router.presence.keeper import Keeper
from router.presence.source import LoggedCall, SourceSettings
from router.presence.sources import CALL_LOGS
from router.routing.route import recompute
from simulator.cast import make_staff
from simulator.pbx import DemoPbx
from simulator.settings import PbxSettings
from tests.presence.office import ALICE, BOB, ONLINE, Office, opened_office
from tests.presence.scripted_server import Asked, ScriptedServer, reply
from tests.presence.test_keeper import PATIENCE, running, until
from tests.rows import changing

KYIV = ZoneInfo("Europe/Kyiv")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CLIENT = "380501112233"


def logged(**fields: Any) -> LoggedCall:
    """A client calls and Alice answers."""
    usual: dict[str, Any] = {
        "calldate": NOW,
        "caller": CLIENT,
        "dst": "380441112233",
        "disposition": "ANSWERED",
        "billsec": timedelta(seconds=30),
        "duration": timedelta(seconds=40),
        "call_type": "in",
        "uniqueid": "ua9-1",
        "connected_with": ALICE,
    }
    return LoggedCall(**(usual | fields))


# ---- what is asked for


@given(st.integers(1, 40), st.lists(st.floats(0, 3), max_size=8))
def test_no_hour_of_the_days_wanted_is_left_out(days: int, pauses: list[float]) -> None:
    """However long the service is down in between: span follows span without a gap, and the newest hours come again."""
    since = reached = None
    now, spans = NOW, []
    while reached is None or reached < now or pauses:
        span = next_span(since, reached, days, now)
        assert span.begin < span.end <= now
        assert span.end - span.begin <= SPAN
        spans.append(span)
        since, reached = span.since, span.end
        if reached == now and pauses:
            now += pauses.pop() * DAY + timedelta(minutes=2)
    for hour in range(24 * days):
        at = now - timedelta(hours=hour)
        assert any(span.begin <= at <= span.end for span in spans)
        ended = [span for span in spans if at <= span.end - AGAIN]
        assert at > now - AGAIN or any(span.begin <= at for span in ended), "what went on then is over when it is read"


@pytest.mark.parametrize("days", [2, 30])
def test_more_days_are_read_from_their_beginning(days: int) -> None:
    span = next_span(NOW - (days - 1) * DAY, NOW, days, NOW)
    assert (span.since, span.begin) == (NOW - days * DAY, NOW - days * DAY)


def test_fewer_days_need_no_reading_anew() -> None:
    span = next_span(NOW - 30 * DAY, NOW - timedelta(minutes=2), 7, NOW)
    assert (span.since, span.end) == (NOW - 7 * DAY, NOW)
    assert span.begin == NOW - timedelta(minutes=2) - AGAIN


# ---- what is made of it


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (logged(), (CLIENT, ALICE)),
        (logged(caller="0501112233", disposition="Proper"), (CLIENT, ALICE)),
        (logged(call_type="out", caller=BOB, dst="+380501112233", connected_with=BOB), (CLIENT, BOB)),
        (logged(call_type="out", caller=BOB, dst=CLIENT, connected_with=""), (CLIENT, BOB)),
        (logged(call_type="out", caller=BOB, dst=CLIENT, connected_with=CLIENT), (CLIENT, BOB)),
        (logged(disposition="NO ANSWER"), None),
        (logged(disposition="VOICEMAIL"), None),
        (logged(disposition="something new"), None),
        (logged(caller="anonymous"), None),
        (logged(connected_with=""), None),
        (logged(connected_with="+380671112233"), None),
        (logged(connected_with="a" * 256), None),
    ],
    ids=lambda value: None if value is None or isinstance(value, LoggedCall) else "-".join(value),
)
def test_a_talk_is_between_a_number_and_a_login(row: LoggedCall, found: tuple[str, str] | None) -> None:
    assert list(talks([row], "UA")) == ([found] if found else [])


def test_the_latest_talk_counts_in_whatever_order_they_are_listed() -> None:
    rows = [logged(calldate=NOW - n * DAY) for n in (3, 1, 2)]
    assert talks(rows, "UA") == {(CLIENT, ALICE): NOW - DAY}


def test_the_demo_pbx_tells_who_talked_with_whom() -> None:
    staff = make_staff(4)
    day = PbxSettings(
        staff=staff, auth_key="key", speed=200, calls_per_minute=10, own_calls_per_hour=30, talk_seconds=20
    )
    with DemoPbx(day, answer_with=lambda _call: staff[0].logins[0]) as pbx:
        pbx.run(12)
        now = datetime.now(KYIV)
        with Fetcher(allow_private=True) as fetcher:
            source = SourceSettings(pbx.url, "key")
            deadline = time.monotonic() + PATIENCE
            rows = CALL_LOGS["ringostat"](source, now - 2 * DAY, now + 2 * DAY, deadline=deadline, session=fetcher)
        told = {(call.caller, call.answered_by) for call in pbx.calls if call.outcome == "answered"}
    assert told
    assert told <= set(talks(rows, "UA"))


# ---- whom a caller gets by it


class Platform:
    """Presence and a call log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []
        self.status = ""
        self.asked: list[tuple[str, str]] = []  # the span asked for
        self.anything = False  # whatever the span is
        self.hangs = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, asked: Asked, sock: socket.socket) -> bytes | None:
        if asked.path != "/calls/list":
            return reply(json.dumps([] if asked.path.endswith("/speaking") else sorted(ONLINE)))
        begin, end = asked.query["from"], asked.query["to"]
        self.asked.append((begin, end))
        if self.hangs.is_set():
            self.may_go_on.wait(PATIENCE)
        if self.status:
            return reply("", self.status)
        return reply(json.dumps([row for row in self.rows if self.anything or begin <= row["calldate"] <= end]))

    def add(self, login: str, ago: timedelta, caller: str = CLIENT) -> None:
        at = datetime.now(KYIV) - ago
        row = {"calldate": f"{at:%Y-%m-%d %H:%M:%S}", "caller": caller, "dst": "380441112233", "call_type": "in"}
        self.rows.append(row | {"disposition": "ANSWERED", "billsec": "9", "connected_with": login})


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform()
    yield made
    made.may_go_on.set()


@pytest.fixture
def office(migrated_url: str, platform: Platform) -> Iterator[Office]:
    """Two days of the call log are read, and the rule prefers who last talked with the caller."""
    with ScriptedServer(platform) as server, opened_office(migrated_url) as opened:
        url = server.url
        opened.configure(
            presence_api_url=url, presence_auth_key="key", presence_call_log_days=2, presence_poll_seconds=0.5
        )
        with opened.database.writing() as session:
            session.execute(update(models.Presence).values(next_poll_at=None))
        _prefer_last(opened)
        yield opened
        platform.may_go_on.set()


def _prefer_last(office: Office) -> None:
    with changing(office.database, office.project_id, "test") as session:
        session.execute(update(models.Rule).values(prefer="last_agent", prefer_days=30))


@pytest.fixture
def keep(office: Office, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    monkeypatch.setattr("router.presence.keeper.LOOK_SECONDS", 0.1)  # what is due is seen soon
    with Fetcher(allow_private=True) as fetcher:
        keeper = Keeper(office.database, fetcher, name="me")
        yield lambda: running(keeper)


def log_of(office: Office) -> models.CallLog | None:
    with office.database.reading() as session:
        return session.get(models.CallLog, office.project_id)


def caught_up(office: Office) -> bool:
    read = log_of(office)
    return read is not None and read.known_until is not None and read.known_until > office.now() - AGAIN


def due_again(office: Office) -> None:
    with office.database.writing() as session:
        session.execute(update(models.CallLog).values(next_at=office.now()))


def read_all(office: Office, keep: Callable[[], Any]) -> None:
    with keep():

        def done() -> bool:
            due_again(office)
            return caught_up(office)

        until(done)


def test_a_caller_gets_whom_the_call_log_says_they_talked_with(
    office: Office, platform: Platform, keep: Callable[[], Any]
) -> None:
    platform.add(ALICE, timedelta(hours=30))
    platform.add(BOB, timedelta(hours=3))
    platform.add("acme_nobody", timedelta(hours=1))
    read_all(office, keep)
    office.see(speaking=frozenset())
    assert office.ask("one") == BOB, "the last who is one of ours"
    assert office.decision("one").group_id is None
    with office.database.reading() as session:
        again = recompute(session, office.decision("one").id)
    assert again.is_same
    assert again.snapshot.last_talk is not None
    assert again.snapshot.last_talk.logged


def test_what_is_dated_to_another_time_than_was_asked_for_is_left_out(
    office: Office, platform: Platform, keep: Callable[[], Any]
) -> None:
    platform.add(BOB, timedelta(hours=3))
    platform.anything = True
    platform.add(ALICE, -400 * DAY)
    read_all(office, keep)
    office.see(speaking=frozenset())
    assert office.ask("one") == BOB


def test_what_cannot_be_kept_is_not_asked_for_again_at_once(
    office: Office, platform: Platform, keep: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def fail(*_given: Any) -> dict[Any, Any]:
        kept.append(None)
        raise ZeroDivisionError

    monkeypatch.setattr(call_log, "talks", fail)
    with keep():
        until(lambda: kept)
        for _ in range(3):
            seen = office.presence().began_at
            until(lambda seen=seen: office.presence().began_at != seen)  # type: ignore[misc]
    assert len(platform.asked) == 1


def test_our_own_outcome_counts_where_it_is_newer(office: Office, platform: Platform, keep: Callable[[], Any]) -> None:
    platform.add(BOB, timedelta(hours=3))
    read_all(office, keep)
    office.see(speaking=frozenset())
    office.ask("own", caller="380509998877")
    with office.database.writing() as session:
        row = session.scalars(select(models.Decision)).one()
        row.caller, row.outcome, row.ended_at = CLIENT, "answered", office.now()
        row.answered_agent_id, row.asked_at = office.agents["Alice"], office.now() - timedelta(hours=1)
        session.execute(delete(models.Reservation))
    assert office.ask("one") == ALICE
    with office.database.writing() as session:
        session.execute(delete(models.Reservation))
        session.execute(update(models.LoggedTalk).values(talked_at=office.now()))
    assert office.ask("two") == BOB


def test_the_days_are_asked_for_piece_by_piece_in_the_projects_zone(
    office: Office, platform: Platform, keep: Callable[[], Any]
) -> None:
    read_all(office, keep)
    begins = [datetime.fromisoformat(begin).replace(tzinfo=KYIV) for begin, _ in platform.asked]
    ends = [datetime.fromisoformat(end).replace(tzinfo=KYIV) for _, end in platform.asked]
    assert abs(begins[0] - (datetime.now(KYIV) - 2 * DAY)) < timedelta(minutes=5)
    assert all(later <= end for later, end in zip(begins[1:], ends, strict=False)), "without a gap"
    assert max(ends) > datetime.now(KYIV) - AGAIN


def test_nothing_is_asked_where_nobody_wants_it(office: Office, platform: Platform, keep: Callable[[], Any]) -> None:
    platform.add(BOB, timedelta(hours=3))
    read_all(office, keep)
    office.configure(presence_call_log_days=0)
    platform.asked.clear()
    seen = office.presence().began_at
    with keep():
        due_again(office)
        until(lambda: office.presence().began_at != seen)
    assert platform.asked == []
    office.see(speaking=frozenset())
    assert office.ask("one") == ALICE, "what was read before does not count either"


def test_a_call_log_that_fails_is_said_to_and_holds_up_nothing(
    office: Office, platform: Platform, keep: Callable[[], Any]
) -> None:
    platform.status = "403 Forbidden"
    with keep():
        until(lambda: (read := log_of(office)) is not None and read.failures == 1)
        seen = office.presence().began_at
        until(lambda: office.presence().began_at != seen)
        read = log_of(office)
        assert read is not None
        assert (read.error_code, read.known_until) == ("forbidden", None)
        assert "call log" in read.error_message
        assert read.next_at > office.now(), "left in peace for a while"
        platform.status = ""

        def well_again() -> bool:
            due_again(office)
            told = log_of(office)
            return told is not None and told.failures == 0

        until(well_again)
    told = log_of(office)
    assert told is not None
    assert (told.error_code, told.error_message) == ("", "")


def test_a_call_log_that_hangs_delays_neither_polls_nor_calls(
    office: Office, platform: Platform, keep: Callable[[], Any]
) -> None:
    platform.hangs.set()
    with keep():
        until(lambda: platform.asked)
        seen = office.presence().began_at
        until(lambda: office.presence().began_at != seen)
        assert office.ask("one") == ALICE
        assert len(platform.asked) == 1, "one at a time"
        platform.may_go_on.set()
        until(lambda: (read := log_of(office)) is not None and read.known_until is not None)
