"""What outlives a process while the database is away: what it knew of the projects, and what it could not write."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sqlite3
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from cryptography.fernet import Fernet
from sqlalchemy import delete

from router import host_store
from router.core.model import MemberClock
from router.db import models
from router.db.reservations import DECISION_KEYS, Lease
from router.db.session import DatabaseBusyError
from router.db.types import use_encryption_keys
from router.fallback import Known, Spool
from router.host_memory import HostMemory, Shared
from router.host_store import KEPT_SECONDS, TAKEN_SECONDS, HostStore, Spooled
from router.routing import Routing
from tests.world import FREE, OVERFLOW, World, destinations, without_database

TOKEN = "0" * 64


def half() -> Spooled:
    decision = dict.fromkeys(DECISION_KEYS) | {"call_id": "half", "text": "ä" * 500}
    return Spooled(decision, Lease(1, "ann", 2, None, turns=[(2, MemberClock(7, 8, None, 3, 1))]))


@pytest.fixture
def store(tmp_path: Path) -> HostStore:
    return HostStore(tmp_path / "host.sqlite")


def with_token(world: World, *, expires_at: datetime | None = None) -> None:
    with world.change() as session:
        session.execute(delete(models.HookToken))
        session.add(
            models.HookToken(
                project_id=world.project_id,
                token=f"{expires_at}",
                token_hash=TOKEN,
                created_at=datetime.now(UTC),
                expires_at=expires_at,
            )
        )
        session.get_one(models.Project, world.project_id).secrets_revision += 1


def started_without_database(world: World) -> Routing:
    """A process that has never seen it."""
    routing = world.routing()
    routing._breaker.failed()
    return routing


def test_a_process_that_starts_without_the_database_knows_what_others_knew(sales: World) -> None:
    with_token(sales)
    sales.see(["ben", "cat"], speaking=["cat"])
    sales.routing().keep_up()
    routing = started_without_database(sales)
    published = routing.project_of_token(TOKEN)
    assert published is not None
    assert published.project.id == sales.project_id
    told = [sales.ask(f"call {number}", routing=routing) for number in range(2)]
    assert destinations(told) == ["ben", OVERFLOW]
    assert {each.degraded for each in told} == {"RoutingError"}


def test_what_is_kept_is_all_that_was_known(sales: World) -> None:
    with_token(sales, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with sales.change() as session:
        session.get_one(models.Project, sales.project_id).hook_basic_auth = "who:knows"
    sales.see(FREE, speaking=["cat"])
    sales.ask("clocks move")
    sales.hear("ben", speaking=True)
    routing = sales.routing()
    routing.keep_up()
    known = routing._known[sales.project_id]
    assert known.events, "heard"
    assert {clock[1] for clock in known.clocks.values()} == {0, 1}
    again = Known.load(sales.project_id, known.dump())
    assert again.published == known.published
    for name in ("zone", "seen", "began_at", "clocks", "agents"):
        assert getattr(again, name) == getattr(known, name), name
    assert [list(row) for row in again.events] == [list(row) for row in known.events]


@pytest.mark.parametrize("minutes", [-1, 1])
def test_a_token_that_has_expired_since_is_not_valid(minutes: int, sales: World) -> None:
    with_token(sales, expires_at=datetime.now(UTC) + timedelta(minutes=minutes))
    sales.routing().keep_up()
    assert (started_without_database(sales).project_of_token(TOKEN) is not None) == (minutes > 0)


def test_of_a_token_that_nobody_knew_it_is_not_known_whether_it_is_valid(sales: World) -> None:
    with_token(sales)
    sales.routing().keep_up()
    routing = started_without_database(sales)
    with pytest.raises(DatabaseBusyError):
        routing.project_of_token("1" * 64)
    assert routing.project_of_token(TOKEN)


def test_who_asks_with_wrong_tokens_costs_one_look_a_second(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def kept(_store: HostStore) -> dict[int, bytes]:
        looks.append(1)
        return {}

    monkeypatch.setattr(HostStore, "kept", kept)
    routing = started_without_database(sales)
    for _ in range(50):
        with pytest.raises(DatabaseBusyError):
            routing.project_of_token(TOKEN, is_suspect=True)
    assert len(looks) <= 2


def test_a_project_that_is_deleted_is_forgotten(sales: World) -> None:
    routing = sales.routing()
    routing.keep_up()
    assert list(routing.store.kept()) == [sales.project_id]
    with sales.database.writing() as session:
        session.get_one(models.Project, sales.project_id).deleted_at = datetime.now(UTC)
    routing.keep_up()
    assert routing.store.kept() == {}


def test_what_cannot_be_read_is_as_if_it_were_not_kept(
    store: HostStore, sales: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another release, of the day before, or under another key."""
    store.keep(sales.project_id, b'{"version": 1}')
    routing = started_without_database(sales)
    with pytest.raises(DatabaseBusyError):
        routing.project_of_token(TOKEN)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=KEPT_SECONDS + 1)):
        assert store.kept() == {}
    assert store.kept()
    monkeypatch.setattr(Lease, "_fields", (*Lease._fields, "more"))
    store.add([Spooled({"of": "another release"}, None), half()])
    spool = Spool(store)
    assert (spool.take(10), spool.dropped) == ([], 2)
    monkeypatch.undo()
    store.add([half()])
    use_encryption_keys([Fernet.generate_key()])
    assert (spool.take(10), spool.dropped, len(spool)) == ([], 3, 0)
    assert store.kept() == {}


def test_nothing_can_be_read_from_the_file(store: HostStore, tmp_path: Path) -> None:
    store.keep(1, b"who:knows" * 100)
    store.add([half()])
    assert store.keep_event(b"heard:of" * 100)
    written = (tmp_path / "host.sqlite").read_bytes()
    assert b"knows" not in written
    assert b"heard:of" not in written
    assert b"half" not in written
    assert (tmp_path / "host.sqlite").stat().st_mode & 0o077 == 0


def test_a_project_is_kept_by_one_process_of_the_host_at_a_time(store: HostStore, tmp_path: Path) -> None:
    other, now = HostStore(tmp_path / "host.sqlite"), datetime.now(UTC)
    assert other.is_due(1)
    store.keep(1, b"")
    assert [other.is_due(1), other.is_due(2)] == [False, True]
    for seconds in (-3600, 5):
        with time_machine.travel(now + timedelta(seconds=seconds)):
            assert other.is_due(1), "the clock may be set back"


def test_what_a_process_answered_without_the_database_outlives_it(sales: World) -> None:
    sales.routing().keep_up()
    first, second = started_without_database(sales), started_without_database(sales)
    told = []
    for number, routing in enumerate((first, second, first)):
        routing.recall()
        told.append(sales.ask(f"call {number}", routing=routing))
    del first, second, routing  # killed
    heir = sales.routing()
    assert len(heir.spool) == 3
    heir.keep_up()
    assert len(heir.spool) == 0
    assert [(row.call_id, row.destination, row.degraded) for row in sales.decisions()] == [
        (f"call {number}", each.destination, "RoutingError") for number, each in enumerate(told)
    ]
    assert sorted(sales.reservations()) == FREE


def test_a_decision_comes_out_as_it_went_in(store: HostStore) -> None:
    store.add([half()])
    assert store.take(10) == ([replace(half(), id=1, is_filed=True)], 0)


def test_two_processes_write_each_decision_once(store: HostStore, tmp_path: Path) -> None:
    other = HostStore(tmp_path / "host.sqlite")
    store.add([half()] * 5)
    taken, others = store.take(3)[0], other.take(3)[0]
    assert [row.id for row in (*taken, *others)] == [1, 2, 3, 4, 5]
    store.written([row.id for row in taken])
    other.put_back([row.id for row in others])
    assert [row.id for row in store.take(9)[0]] == [4, 5], "they could not be written, and wait again"
    assert other.take(9) == ([], 0)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=TAKEN_SECONDS + 1)):
        assert [row.id for row in other.take(9)[0]] == [4, 5], "whoever took them was killed"


def test_what_finds_no_room_stays_with_its_process(sales: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_store, "ROOM_BYTES", 0)
    routing, other = without_database(sales), sales.routing()
    told = sales.ask("call", routing=routing)
    assert [len(routing.spool), len(other.spool)] == [1, 0]
    assert sales.ask("call", routing=started_without_database(sales)).destination == told.destination, "it is told"
    routing._breaker.worked()
    routing.keep_up()
    assert [row.call_id for row in sales.decisions()] == ["call"]
    assert len(routing.spool) == 0


def test_where_nothing_can_be_filed_a_process_keeps_its_decisions(sales: World, tmp_path: Path) -> None:
    routing = without_database(sales)
    connection = routing._host._open()
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 1")
    connection = routing.store._connections.open()
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 1")
    for _ in range(2):
        sales.ask("", routing=routing, params={"long": secrets.token_hex(20_000)})
    assert [len(routing.spool), len(sales.routing().spool)] == [2, 0]
    connection.execute("PRAGMA max_page_count = 1000")
    routing.spool.save()
    assert len(sales.routing().spool) == 2, "filed as soon as that can be"
    routing._breaker.worked()
    routing.keep_up()
    assert len(sales.decisions()) == 2


def test_what_was_written_before_it_could_be_filed_is_filed_no_more(sales: World) -> None:
    """Else it would be written again: without an id nothing else tells it from a new call once its lease is over."""
    routing = without_database(sales)
    connection, kept = routing._host._open(), routing.store._connections.open()
    assert connection is not None
    assert kept is not None
    for each in (connection, kept):
        each.execute("PRAGMA max_page_count = 1")
    sales.ask("", routing=routing, params={"long": secrets.token_hex(20_000)})
    routing._breaker.worked()
    routing.keep_up()
    sales.free_everybody()
    for each in (connection, kept):
        each.execute("PRAGMA max_page_count = 1000")
    routing.keep_up()
    routing.keep_up()
    assert len(sales.decisions()) == 1


def test_a_process_that_stands_still_holds_up_nobody_for_long(store: HostStore, tmp_path: Path) -> None:
    store.keep(1, b"1")
    with sqlite3.connect(tmp_path / "host.sqlite", isolation_level=None) as stopped:
        stopped.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        row = half()
        store.add([row])
        assert not row.is_filed
        assert store.kept() == {}
        assert time.monotonic() - began < 5
        stopped.execute("ROLLBACK")
    assert store.kept() == {1: b"1"}


def _killed_while_writing(path: Path, schema: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(schema)
    connection.execute("PRAGMA cache_size = 1")  # so that it writes before it commits
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE answers_to SET call_id = randomblob(500)")
    connection.execute("DELETE FROM answers_to WHERE rowid % 2")
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_memory_of_the_host_is_whole_after_a_process_was_killed_in_the_midst_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "host.sqlite"
    memory, now = HostMemory(path), time.time_ns() // 1000
    for number in range(500):
        answer = {"project": 1, "call_id": f"{number}", "step": "", "attempt": 0, "destination": "ann"}
        answer |= {"asked_at": now, "agent_id": 1, "sip_login": "ann", "caller": ""}
        with memory.promising(time.monotonic()):
            assert memory.note(Spooled(answer, None), Shared())
    killed = multiprocessing.get_context("spawn").Process(target=_killed_while_writing, args=(path, host_store._SCHEMA))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    other = HostMemory(path)
    assert [len(other.answers(1, f"{number}")) for number in range(500)] == [1] * 500
    connection = other._open()
    assert connection is not None
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _killed_before_it_files(url: str, folder: Path, project_id: int, key: bytes) -> None:
    use_encryption_keys([key])
    world = World(url, folder)
    world.project_id = project_id

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(HostMemory, "_commit", kill)
    world.ask("call", routing=without_database(world))


def test_a_question_whose_process_was_killed_is_on_record_by_the_next_one(sales: World, tmp_path: Path) -> None:
    """It had told of its answer and not yet filed it: nobody knows why it was given, and nobody has heard it."""
    key = Fernet.generate_key()
    use_encryption_keys([key])
    url = sales.database.engine.url.render_as_string(hide_password=False)
    killed = multiprocessing.get_context("spawn").Process(
        target=_killed_before_it_files, args=(url, tmp_path, sales.project_id, key)
    )
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    routing = without_database(sales)
    told = [sales.ask("call", routing=routing) for routing in (routing, without_database(sales))]
    assert destinations(told) == ["ben", "ben"], "of Ann it is only known that she was promised"
    routing._breaker.worked()
    routing.keep_up()
    assert [(row.call_id, row.destination) for row in sales.decisions()] == [("call", "ben")]
