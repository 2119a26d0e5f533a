"""The keeper at work: real HTTP, real databases, real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import structlog
from psycopg import sql
from sqlalchemy import exc, select, update
from sqlalchemy.engine import make_url
from structlog.typing import EventDict

from router.core.model import Outcome
from router.db import models
from router.db.session import Database
from router.log import log
from router.presence.fetch import Fetcher
from router.presence.keeper import LEASE, REFRESH_SECONDS, REFRESH_SHARE, Keeper
from router.presence.source import ErrorCode, Reading, SourceError
from router.presence.sources import SOURCES
from router.routing.route import Routing
from tests.presence.office import ALICE, BOB, ENCRYPTION_KEY, NIGHT_DESK, ONLINE, Office, opened_office
from tests.presence.scripted_server import Asked, ScriptedServer, reply
from tests.rows import publish

SECOND = timedelta(seconds=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
PATIENCE = 60.0  # seconds that a noisy machine may need for what takes a moment


class StatusApi:
    """A status API for several projects, told apart by their Auth-key, whose behaviour can change as it runs."""

    def __init__(self) -> None:
        self.online: frozenset[str] = ONLINE
        self.speaking: frozenset[str] = frozenset()
        self.asked: list[tuple[float, str]] = []  # when the speaking logins were asked for, with which key
        self.hanging: set[str] = set()
        self.status: dict[str, str] = {}
        self.closing = threading.Event()

    def __call__(self, asked: Asked, sock: socket.socket) -> bytes | None:
        key = asked.headers["auth-key"]
        speaking = asked.path.endswith("/speaking")
        if speaking:
            self.asked.append((time.monotonic(), key))
        while key in self.hanging:
            if self.closing.wait(0.01):
                return None
        if key in self.status:
            return reply("", self.status[key])
        return reply(json.dumps(sorted(self.speaking if speaking else self.online)))

    def times(self, key: str = "key") -> list[float]:
        return [at for at, asked_key in self.asked if asked_key == key]


@pytest.fixture
def api() -> StatusApi:
    return StatusApi()


@pytest.fixture
def server(api: StatusApi) -> Iterator[ScriptedServer]:
    with ScriptedServer(api) as running:
        yield running
        api.closing.set()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(allow_private=True, max_in_flight=192) as made:
        yield made


def configured(office: Office, server: ScriptedServer, **settings: Any) -> Office:
    given = {"presence_api_url": server.url, "presence_auth_key": "key", "presence_poll_seconds": 0.5}
    office.configure(**(given | settings))
    with office.database.writing() as session:  # nothing is known yet
        nothing = {"snapshot_id": None, "began_at": None, "next_poll_at": None}
        session.execute(update(models.Presence).values(nothing))
    return office


@pytest.fixture
def office(migrated_url: str, server: ScriptedServer) -> Iterator[Office]:
    """Polled twice a second, once somebody does."""
    with opened_office(migrated_url) as opened:
        yield configured(opened, server)


@pytest.fixture
def sqlite_office(migrated_sqlite_url: str, server: ScriptedServer) -> Iterator[Office]:
    """Where the kind of database makes no difference."""
    with opened_office(migrated_sqlite_url) as opened:
        yield configured(opened, server)


MakeKeeper = Callable[..., Keeper]


@pytest.fixture
def make_keeper(fetcher: Fetcher) -> MakeKeeper:
    """Keepers for an office, by name."""

    def make(office: Office, name: str = "me") -> Keeper:
        return Keeper(office.database, fetcher, name=name)

    return make


@contextmanager
def running(*keepers: Keeper) -> Iterator[list[threading.Event]]:
    """The keepers at work, with the event that stops each."""
    stops = [threading.Event() for _ in keepers]
    threads = [threading.Thread(target=keeper.run, args=(stop,)) for keeper, stop in zip(keepers, stops, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield stops
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)


@contextmanager
def logged() -> Iterator[list[EventDict]]:
    """What is logged, at whatever level an app of another test has set for this process."""
    before = structlog.get_config()
    structlog.reset_defaults()
    vars(log).pop("bind", None)
    try:
        with structlog.testing.capture_logs() as lines:
            yield lines
    finally:
        structlog.configure(**before)


def until(condition: Callable[[], Any]) -> None:
    """Wait for the condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def soon(seconds: float = 2 * PATIENCE) -> float:
    return time.monotonic() + seconds


def known(office: Office) -> models.Presence:
    return office.presence()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that hangs is waited for longer than any test takes."""
    monkeypatch.setattr("router.presence.keeper.READ", timedelta(seconds=2 * PATIENCE))


def asked_too_often(api: StatusApi, since: float, interval: float) -> bool:
    """Return whether a question came sooner after `since` than so many intervals allow. A late one proves nothing."""
    return any(at < since + number * interval for number, at in enumerate(api.times()))


# ---- polling


def test_a_project_is_polled_at_its_interval(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    before, since = office.now(), time.monotonic()
    with running(make_keeper(office)):
        until(lambda: len(api.times()) >= 4 and known(office).failures == 0)
        presence = known(office)
    assert presence.began_at is not None
    assert presence.began_at > before
    assert presence.poll_ms is not None
    assert not asked_too_often(api, since, 0.5)
    with office.database.reading() as session:
        snapshots = session.scalars(select(models.PresenceSnapshot).order_by(models.PresenceSnapshot.id.desc())).all()
    assert (snapshots[0].online, snapshots[0].speaking) == (sorted(ONLINE), [])


@pytest.mark.usefixtures("patient")
def test_the_instant_of_a_reading_is_that_of_its_request(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    """A slow answer is as old as its question: events heard meanwhile are newer."""
    api.hanging = {"key"}
    with running(make_keeper(office)):
        until(api.times)
        asked_by = office.now()
        api.speaking, api.hanging = frozenset(), set()
        until(lambda: known(office).began_at is not None)
    with office.database.reading() as session:
        began_at = select(models.PresenceSnapshot.began_at).order_by(models.PresenceSnapshot.id)
        assert list(session.scalars(began_at))[1] <= asked_by


def test_a_new_project_is_polled_without_further_ado(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    with office.database.writing() as session:
        session.delete(session.get_one(models.Presence, office.project_id))
    with running(make_keeper(office)):
        until(lambda: api.times() and known(office).began_at is not None)


def test_a_deleted_project_is_not_polled(
    sqlite_office: Office, server: ScriptedServer, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    with sqlite_office.database.writing() as session:
        session.get_one(models.Project, sqlite_office.project_id).deleted_at = datetime.now(UTC)
    others = many_projects(sqlite_office, server, 1, presence_poll_seconds=0.1)
    with running(make_keeper(sqlite_office)):
        until(lambda: all(len(api.times(key)) >= 5 for key in others))
    assert api.times() == []


def test_calls_are_settled_by_what_is_seen(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    with running(make_keeper(office)):
        until(lambda: known(office).began_at is not None)
        assert office.ask("c1") == ALICE
        api.speaking = frozenset({ALICE})
        until(lambda: office.decision("c1").outcome == Outcome.ANSWERED)
        assert office.reserved() == []
        api.speaking = frozenset()
        until(lambda: office.decision("c1").ended_at is not None)
    assert office.agent("Alice").answered_today == 1
    assert office.agent("Alice").wrap_up_until is not None


def test_calls_are_settled_when_the_source_is_dead_too(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    api.status["key"] = "500 Broken"
    sqlite_office.see()
    assert sqlite_office.ask("c1") == ALICE
    long_ago = sqlite_office.now() - 600 * SECOND
    with sqlite_office.database.writing() as session:
        session.execute(update(models.Reservation).values(claimed_at=long_ago, expires_at=long_ago + 25 * SECOND))
        session.execute(update(models.Decision).values(asked_at=long_ago))
    with running(make_keeper(sqlite_office)):
        until(lambda: sqlite_office.decision("c1").outcome)
    assert sqlite_office.reserved() == []


# ---- failures of the source


def test_a_failure_is_kept_and_backed_off_from(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.status["key"] = "401 Unauthorized"
    before = office.now()
    with running(make_keeper(office)):
        until(lambda: known(office).failures >= 3)
        presence = known(office)
    assert presence.error_code == "unauthorized"
    assert "Auth-key" in presence.error_remedy
    assert presence.began_at is None
    assert presence.next_poll_at is not None
    assert presence.error_at is not None
    assert presence.error_at > before
    shortest, longest = 0.5 * presence.failures * SECOND, 0.5 * 2**presence.failures * SECOND
    assert before + shortest <= presence.next_poll_at <= office.now() + longest


def test_a_source_that_is_well_again_is_believed(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.status["key"] = "500 Broken"
    with running(make_keeper(office)):
        until(lambda: known(office).failures >= 1)
        api.status.clear()
        until(lambda: known(office).began_at is not None)
        presence = known(office)
    assert (presence.failures, presence.error_code, presence.error_message) == (0, "", "")


def test_each_change_of_health_is_one_line_of_the_log(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    api.status["key"] = "500 Broken"
    sqlite_office.configure(presence_poll_seconds=0.1)
    with logged() as lines, running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).failures >= 3)
        api.status.clear()
        until(lambda: known(sqlite_office).began_at is not None)
    assert [(line["event"], line.get("error")) for line in lines] == [
        ("presence is unknown", "server_error"),
        ("presence is known again", None),
    ]


def test_corrected_settings_are_tried_at_once(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.status["key"] = "429 Too Many Requests"
    with running(make_keeper(office)):
        until(lambda: known(office).failures >= 1)
        with office.database.writing() as session:
            session.execute(update(models.Presence).values(next_poll_at=office.now() + 600 * SECOND))
        office.configure(presence_auth_key="new key", secrets_revision=1)
        until(lambda: known(office).began_at is not None)
    assert len(api.times("new key")) >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"presence_source": "carrier pigeon"}, "'carrier pigeon' is not a known presence source."),
        ({"presence_auth_key": None}, "Auth-key"),
    ],
)
def test_settings_that_cannot_work_are_told(
    sqlite_office: Office, make_keeper: MakeKeeper, settings: Mapping[str, Any], message: str
) -> None:
    sqlite_office.configure(**settings)
    with running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).failures)
    presence = known(sqlite_office)
    assert presence.error_code == ("bad_settings" if "presence_source" in settings else "no_key")
    assert message in presence.error_message


def test_credentials_under_a_lost_key_are_told(sqlite_office: Office, make_keeper: MakeKeeper) -> None:
    with sqlite_office.database.writing() as session:
        session.connection().exec_driver_sql("UPDATE projects SET presence_auth_key = 'not ours'")
    with running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).failures)
    presence = known(sqlite_office)
    assert (presence.error_code, presence.error_message) == (
        "bad_settings",
        "The project’s credentials cannot be read.",
    )
    assert "ENCRYPTION_KEYS" in presence.error_remedy


# ---- many projects


def many_projects(office: Office, server: ScriptedServer, count: int, **settings: Any) -> dict[str, int]:
    """More projects at the same API; their ids by Auth-key."""
    made = {}
    with office.database.writing() as session:
        for n in range(count):
            project = models.Project(
                name=f"project {n}",
                created_at=datetime.now(UTC),
                presence_api_url=server.url,
                presence_auth_key=f"key {n}",
                **settings,
            )
            session.add(project)
            session.flush()
            publish(session, project.id, "test")
            made[f"key {n}"] = project.id
    return made


@pytest.mark.usefixtures("patient")
def test_a_source_that_hangs_delays_none_of_fifty_projects(
    migrated_postgres_url: str, server: ScriptedServer, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    with opened_office(migrated_postgres_url) as office:
        configured(office, server)
        others = many_projects(office, server, 50, presence_poll_seconds=1)
        api.hanging = {"key"}
        with running(make_keeper(office)):
            until(lambda: api.times() and all(len(api.times(key)) >= 2 for key in others))
            assert len(api.times()) == 1, "it hangs all the time"
        with office.database.reading() as session:
            presence = {row.project_id: row for row in session.scalars(select(models.Presence))}
        assert all(presence[project].began_at for project in others.values())


def test_a_source_that_hangs_for_too_long_has_failed(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.presence.keeper.READ", timedelta(seconds=0.1))
    api.hanging = {"key"}
    with running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).error_code == "timeout")


# ---- several keepers


def test_two_keepers_do_not_ask_twice(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    first, second, since = make_keeper(office, "first"), make_keeper(office, "second"), time.monotonic()
    with running(first, second):
        until(lambda: len(api.times()) >= 6)
        assert known(office).lease_holder in {"first", "second"}
    assert not asked_too_often(api, since, 0.5)


def test_a_keeper_that_stops_gives_its_leases_back_at_once(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    with running(make_keeper(office)):
        until(lambda: known(office).began_at is not None)
    presence = known(office)
    assert (presence.lease_holder, presence.lease_until, presence.asking_until) == ("", None, None)


def test_a_lease_that_is_live_is_respected_and_one_that_ran_out_is_taken(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    now = office.now()
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(lease_holder="elsewhere", lease_until=now + SECOND))
    with running(make_keeper(office, "me")):
        until(lambda: known(office).lease_holder == "me")
        assert office.now() >= now + SECOND
        until(api.times)


def test_leases_of_a_clock_that_was_set_back_are_taken(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    tomorrow = sqlite_office.now() + timedelta(days=1)
    ahead = {"lease_holder": "elsewhere", "lease_until": tomorrow, "next_poll_at": tomorrow, "asking_until": tomorrow}
    with sqlite_office.database.writing() as session:
        session.execute(update(models.Presence).values(**ahead, began_at=tomorrow))
    with running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).began_at != tomorrow)
    assert api.times()


@pytest.mark.parametrize("of_before", ["began_at", "error_at"])
def test_a_clock_that_was_set_back_by_minutes_does_not_put_off_the_next_poll(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper, of_before: str
) -> None:
    """So far a source that fails may be left in peace, too."""
    ahead = sqlite_office.now() + timedelta(minutes=2)
    values = {of_before: ahead, "next_poll_at": ahead, "failures": int(of_before == "error_at")}
    with sqlite_office.database.writing() as session:
        session.execute(update(models.Presence).values(**values))
    with running(make_keeper(sqlite_office)):
        until(lambda: bool(api.times()))
        until(lambda: (known(sqlite_office).began_at or ahead) < ahead)


def test_when_the_holder_is_killed_another_takes_over_when_its_lease_runs_out(
    sqlite_office: Office, make_keeper: MakeKeeper
) -> None:
    """The holder is a real process: `router poll`."""
    environment = {
        **os.environ,
        "DATABASE_URL": sqlite_office.database.url,
        "SECRET_KEY": "of the test, long enough for anybody who asks",
        "ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "PRESENCE_ALLOW_PRIVATE": "1",
    }
    holder = subprocess.Popen([sys.executable, "-m", "router", "poll"], env=environment)
    try:
        until(lambda: f":{holder.pid}:" in known(sqlite_office).lease_holder)
        until(lambda: known(sqlite_office).began_at is not None)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        held, died_by = known(sqlite_office).lease_until, sqlite_office.now()
        assert held is not None
        assert held <= died_by + LEASE
        with running(make_keeper(sqlite_office, "me")):
            until(lambda: known(sqlite_office).lease_holder == "me")
            until(lambda: (known(sqlite_office).began_at or LONG_AGO) > died_by)
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.usefixtures("patient")
def test_stopping_does_not_wait_for_a_source_that_hangs(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    api.hanging = {"key"}
    with running(make_keeper(sqlite_office)) as (stop,):
        until(api.times)
        stop.set()
        until(lambda: known(sqlite_office).lease_holder == "")
    assert known(sqlite_office).asking_until is None, "the next may ask at once"


# ---- the database goes away


def test_a_database_that_is_gone_for_a_while_is_waited_for(
    migrated_postgres_url: str,
    postgres_server: str,
    server: ScriptedServer,
    api: StatusApi,
    make_keeper: MakeKeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[Database] = []
    reading = Database.reading

    def counted(database: Database) -> Any:
        tries.append(database)
        return reading(database)

    monkeypatch.setattr(Database, "reading", counted)
    monkeypatch.setattr("router.presence.keeper.LOOK_SECONDS", 0.1)
    name = sql.Identifier(make_url(migrated_postgres_url).database or "")
    with opened_office(migrated_postgres_url) as office:
        configured(office, server)
        with (
            psycopg.connect(postgres_server, autocommit=True) as server_admin,
            logged() as lines,
            running(make_keeper(office)),
        ):
            until(api.times)
            server_admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            server_admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [make_url(migrated_postgres_url).database],
            )
            until(lambda: any("does not answer" in line["event"] for line in lines))
            before = len(tries)
            until(lambda: len(tries) >= before + 2)
            server_admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
            until(lambda: len(lines) > 1)
            back = len(api.times())
            until(lambda: len(api.times()) > back + 1)
    told = [line["event"] for line in lines]
    assert told == ["presence keeper: the database does not answer; trying again", "presence keeper: works again"]


def test_a_failure_of_any_other_kind_does_not_end_the_keeper(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"left": 2}

    def settle(*_: object) -> int:
        if broken["left"]:
            broken["left"] -= 1
            raise ZeroDivisionError
        return 0

    monkeypatch.setattr("router.presence.keeper.settle", settle)
    with logged() as lines, running(make_keeper(sqlite_office)):
        until(lambda: len(api.times()) >= 4)
        until(lambda: broken["left"] == 0)
        until(lambda: "calls could not be settled" in {line["event"] for line in lines})


def test_a_project_is_polled_more_often_than_the_keeper_looks_where_it_says_so(
    office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.presence.keeper.LOOK_SECONDS", PATIENCE)
    office.configure(presence_poll_seconds=0.2)
    since = time.monotonic()
    with running(make_keeper(office)):
        until(lambda: len(api.times()) >= 4)
    assert not asked_too_often(api, since, 0.2)


def test_calls_to_be_settled_delay_no_poll(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands of them."""
    is_over, settling = threading.Event(), threading.Event()

    def settle(*_: object) -> int:
        settling.set()
        is_over.wait(PATIENCE)
        return 0

    monkeypatch.setattr("router.presence.keeper.settle", settle)
    with running(make_keeper(sqlite_office)):
        try:
            assert settling.wait(PATIENCE)
            before = len(api.times())
            until(lambda: len(api.times()) >= before + 4)
            until(lambda: (known(sqlite_office).began_at or LONG_AGO) > sqlite_office.now() - SECOND)
        finally:
            is_over.set()


def test_a_source_may_name_phones_as_the_pbx_does(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.online = frozenset({f"PJSIP/{ALICE}", f"{BOB.upper()}@pbx.example", "somebody@pbx.example"})
    api.speaking = frozenset({f"SIP/{BOB}-00000012"})
    with running(make_keeper(office)):
        until(lambda: known(office).began_at is not None)
        assert office.ask("c1") == ALICE
    with office.database.reading() as session:
        seen = session.get_one(models.PresenceSnapshot, known(office).snapshot_id)
    assert (seen.online, seen.speaking) == ([ALICE, BOB, "somebody@pbx.example"], [BOB])


# ---- for a hook that waits


@pytest.fixture
def unhurried(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests has all the time it needs."""
    monkeypatch.setattr("router.presence.keeper.REFRESH_SECONDS", PATIENCE)
    monkeypatch.setattr("router.presence.keeper.HURRIED_SECONDS", PATIENCE)


@pytest.mark.usefixtures("unhurried")
def test_a_refresh_asks_and_keeps_the_news(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.speaking = frozenset({BOB})
    before = office.now()
    assert make_keeper(office).refresh(office.project_id, soon())
    presence = known(office)
    assert presence.began_at is not None
    assert before <= presence.began_at <= office.now()
    assert presence.asking_until is None
    assert len(api.times()) == 1
    bob = office.login(BOB)
    assert bob is not None
    assert bob.speaking


@pytest.mark.usefixtures("unhurried")
def test_a_refresh_makes_the_row_of_a_project_that_nobody_polled_yet(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    with office.database.writing() as session:
        session.delete(session.get_one(models.Presence, office.project_id))
    assert make_keeper(office).refresh(office.project_id, soon())
    assert known(office).began_at is not None


@pytest.mark.usefixtures("unhurried")
def test_of_many_hooks_one_asks(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.hanging = {"key"}
    keepers = [make_keeper(office, f"{n}") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(keeper.refresh, office.project_id, soon()) for keeper in keepers]
        until(lambda: sum(one.done() for one in asked) == 3)  # they waited for the news of the one that asks
        api.hanging = set()
        assert sorted(one.result() for one in asked) == [False, False, False, True]
    assert len(api.times()) == 1


@pytest.mark.usefixtures("unhurried")
def test_a_hook_waits_for_the_news_of_whoever_asks(
    office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(asking_until=office.now() + PATIENCE * SECOND))
    monkeypatch.setattr("router.presence.keeper.time.sleep", lambda _: office.see())  # the news come while it waits
    assert make_keeper(office).refresh(office.project_id, soon())
    assert api.times() == []


@pytest.mark.parametrize("left", [1.0, PATIENCE])
def test_a_refresh_takes_no_more_than_its_share_of_the_time(
    sqlite_office: Office, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    shares: list[tuple[float, float]] = []  # seconds that the source got, of how many that were left
    keeper = make_keeper(sqlite_office)

    def source(_: object, *, deadline: float, session: object) -> Reading:
        now = time.monotonic()
        shares.append((deadline - now, ends - now))
        raise SourceError(ErrorCode.TIMEOUT, "It hangs.")

    monkeypatch.setitem(SOURCES, "ringostat", source)
    while not shares:  # a machine that is busy with other tests may leave no time to ask
        ends = time.monotonic() + left
        assert not keeper.refresh(sqlite_office.project_id, ends)
    ((got, there_were),) = shares
    assert got <= min(REFRESH_SECONDS, there_were * REFRESH_SHARE)


@pytest.mark.usefixtures("unhurried")
def test_a_refresh_that_failed_is_kept_and_backed_off_from(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    api.status["key"] = "403 Forbidden"
    keeper, before = make_keeper(office), office.now()
    assert not keeper.refresh(office.project_id, soon())
    presence = known(office)
    assert (presence.failures, presence.error_code, presence.asking_until) == (1, "forbidden", None)
    assert presence.error_at is not None
    assert presence.next_poll_at is not None
    assert presence.next_poll_at >= before + timedelta(seconds=0.5)
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(next_poll_at=office.now() + 60 * SECOND))
    assert not keeper.refresh(office.project_id, soon())
    until(lambda: len(api.times()) == 1)
    assert known(office).failures == 1, "a back-off is in force"
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(next_poll_at=office.now() - SECOND))
    assert not keeper.refresh(office.project_id, soon())
    assert known(office).failures == 2
    until(lambda: len(api.times()) == 2)  # the logins online were denied first, perhaps, and nobody waited for the rest


@pytest.mark.usefixtures("unhurried")
def test_a_call_asks_a_source_that_is_back_though_it_was_away_for_long(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    api.status["key"] = "500 Broken"
    keeper = make_keeper(office)
    assert not keeper.refresh(office.project_id, soon())
    in_a_minute = office.now() + 60 * SECOND
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(failures=9, next_poll_at=in_a_minute))
    assert not keeper.refresh(office.project_id, soon()), "it is asked, and still away"
    assert (known(office).failures, known(office).next_poll_at) == (9, in_a_minute), "which puts off no poll"
    api.status.clear()
    assert keeper.refresh(office.project_id, soon())
    assert (known(office).failures, known(office).asking_until) == (0, None)


@pytest.mark.usefixtures("unhurried")
def test_calls_ask_again_and_again_while_a_source_refuses_at_once(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    """To ask costs them nothing then, and the first that comes when it is back decides by what is so."""
    api.status["key"] = "500 Broken"
    office.routing = Routing(office.database, make_keeper(office).refresh)
    for call in range(3):
        assert office.ask(f"away {call}") == NIGHT_DESK
    api.status.clear()
    asked = iter(range(100))
    until(lambda: office.ask(f"back {next(asked)}") == ALICE)
    assert known(office).failures == 0


@pytest.mark.usefixtures("patient")
def test_a_refresh_gives_up_in_time_while_somebody_asks_in_vain(
    office: Office, api: StatusApi, make_keeper: MakeKeeper
) -> None:
    others_end = office.now() + PATIENCE * SECOND
    with office.database.writing() as session:
        session.execute(update(models.Presence).values(asking_until=others_end))
    assert not make_keeper(office).refresh(office.project_id, time.monotonic() + 1.2)
    assert office.now() < others_end
    assert api.times() == []


def test_a_refresh_never_raises(
    sqlite_office: Office, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make_keeper(sqlite_office)
    assert not keeper.refresh(sqlite_office.project_id, time.monotonic() - 1)
    assert not keeper.refresh(123456, soon())

    def gone(*_: object) -> None:
        raise exc.OperationalError("SELECT", None, Exception("gone"))

    monkeypatch.setattr(Database, "reading", gone)
    assert not keeper.refresh(sqlite_office.project_id, soon())


def test_a_refresh_waits_for_no_writer_beyond_its_time(sqlite_office: Office, make_keeper: MakeKeeper) -> None:
    keeper = make_keeper(sqlite_office)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite_office.database.write_lock():
            held.set()
            release.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        try:
            assert held.wait(PATIENCE)
            assert not keeper.refresh(sqlite_office.project_id, soon())
            assert not holder.done(), "the writer is still at work"
        finally:
            release.set()


@pytest.mark.usefixtures("unhurried")
def test_the_hook_decides_by_what_the_refresh_brought(office: Office, api: StatusApi, make_keeper: MakeKeeper) -> None:
    api.online, api.speaking = frozenset({ALICE, BOB}), frozenset({ALICE})
    office.routing = Routing(office.database, make_keeper(office).refresh)
    assert office.ask("c1") == BOB


def test_what_time_alone_ends_is_ended_however_often_presence_is_read(
    sqlite_office: Office, api: StatusApi, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.presence.keeper.SETTLE_SECONDS", 1.0)  # more than between two readings
    with running(make_keeper(sqlite_office)):
        until(lambda: known(sqlite_office).snapshot_id is not None)
        with sqlite_office.database.writing() as session:
            yesterday = sqlite_office.now() - timedelta(days=1)
            session.execute(
                update(models.AgentState).values(
                    status="on_break", status_reason="no_answers", status_since_at=yesterday
                )
            )
        until(lambda: sqlite_office.agent("Alice").status == "available")
