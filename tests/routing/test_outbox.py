"""The file that the processes of a host share in an outage: what it keeps, and what happens when it fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from cryptography.fernet import Fernet

from router.core.events import CallEvent, EventKind
from router.core.model import MemberClock
from router.db.claim import Earlier, Lease
from router.db.claim_sql import DECISION_KEYS
from router.db.types import use_encryption_keys
from router.routing import outbox
from router.routing.outbox import Answer, Outbox, Waiting
from router.routing.route import Routing
from tests.world import OVERFLOW, World, destinations

NOW = 1_000_000


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path, "acme")


def beside(box: Outbox) -> Outbox:
    """The same file, as another process of the host has it."""
    return Outbox(path_of(box).parent, "acme")


def answer(call_id: str = "call", *, at: int | None = None, until: int = 0) -> Answer:
    asked_at = time.time_ns() // 1000 if at is None else at
    return Answer(1, call_id, Earlier(0, "", 0, asked_at, "ann", 1, "ann", ""), (1, -5), until)


def decision(call_id: str = "call") -> Waiting:
    row: dict[str, Any] = dict.fromkeys(DECISION_KEYS, "") | {"call_id": call_id, "packed": b"\x00\xff", "half": "é"}
    turns = [(2, MemberClock(1, 2, 3, 4, 5, 6))]
    return Waiting(0, row, Lease(1, "ann", NOW, 3, 4, 5, 6, 7, 8, "2026-11-29", turns, ("ann", "501")))


def add(box: Outbox, *calls: str) -> None:
    box.add([(answer(call), decision(call)) for call in calls])


def taken(box: Outbox, limit: int = 100) -> list[str]:
    return [row.decision["call_id"] for row in box.take(limit)]


def test_a_decision_comes_out_as_it_went_in(box: Outbox) -> None:
    add(box, "call")
    assert beside(box).take(10) == [decision()._replace(id=1)]


def test_each_decision_is_written_by_one_process(box: Outbox) -> None:
    other = beside(box)
    add(box, *"abcde")
    rows, others = box.take(3), other.take(3)
    assert [row.decision["call_id"] for row in (*rows, *others)] == [*"abcde"]
    box.done("answers", [row.id for row in rows])
    other.put_back("answers", [row.id for row in others])
    assert taken(box) == [*"de"], "they could not be written, and wait again"
    assert taken(other) == []
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1)):
        assert taken(other) == [*"de"], "whoever took them was killed"
    assert [each.destination for each in other.answers(1, "a")] == ["ann"], "what is written is known all the same"


def test_the_breaker_is_the_hosts(box: Outbox) -> None:
    other = beside(box)
    seen = [other.is_open]
    box.open_breaker()
    seen.append(other.is_open)
    other.close_breaker()
    assert [*seen, box.is_open] == [False, True, False]


def test_what_another_process_adds_is_seen_at_once(box: Outbox) -> None:
    other = beside(box)
    for number in range(50):
        was_empty = box.is_empty
        add(other, f"{number}")
        assert (was_empty, box.is_empty) == (True, False)
        box.done("answers", [row.id for row in box.take(1)])


def test_nothing_can_be_read_from_the_file(box: Outbox, tmp_path: Path) -> None:
    box.keep_known(1, lambda: b"who:knows" * 100)
    add(box, "call")
    (file,) = tmp_path.glob("outbox-*.sqlite")
    assert b"knows" not in file.read_bytes()
    assert b"half" not in file.read_bytes()
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0] * len(list(tmp_path.iterdir()))


def test_what_cannot_be_read_counts_as_lost(
    box: Outbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another release, of the day before, or under another key."""
    box.keep_known(1, lambda: b"known")
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=outbox.KEPT_SECONDS + 1)):
        assert box.known() == {}
    assert box.known() == {1: b"known"}
    add(box, "of another release")
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "_fields", (*Lease._fields, "more"))
        patch.setattr(Lease, "_make", classmethod(lambda *_: (_ for _ in ()).throw(TypeError("a column is missing"))))
        assert taken(box) == []
    add(box, "under another key")
    use_encryption_keys([Fernet.generate_key()])
    assert (taken(box), box.waiting(), box.dropped) == ([], (0, 0), 2)
    assert box.known() == {}
    assert "another key, or another release" in capsys.readouterr().out


def test_a_project_is_kept_by_one_process_of_the_host_at_a_time(box: Outbox) -> None:
    other, kept = beside(box), list[str]()

    def dump(name: str) -> bytes:
        kept.append(name)
        return name.encode()

    box.keep_known(1, lambda: dump("first"))
    other.keep_known(1, lambda: dump("too soon"))
    other.keep_known(2, lambda: dump("another"))
    for seconds in (-3600, 5):
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds)):
            other.keep_known(1, lambda seconds=seconds: dump(f"{seconds}"))  # type: ignore[misc]
    assert kept == ["first", "another", "-3600", "5"], "the clock may be set back"
    other.forget_known({2})
    assert box.known() == {2: b"another"}


def test_nothing_is_kept_for_ever(box: Outbox, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 5)
    add(box, *"abcdefgh")
    assert (box.waiting(), box.dropped) == ((5, 0), 3)
    assert taken(box) == [*"defgh"], "the oldest go"
    box.done("answers", range(1, 9))
    world.configure(agents=["ann"])
    with world.database.reading() as session:
        from router.db.queries import load_published

        project = load_published(session, world.project_id).project
    for number in range(7):
        box.add_event(project, CallEvent(EventKind.PICKUP, f"{number}", sip_login="ann"), time.monotonic())
    assert box.waiting() == (0, 5)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)):
        box.tidy()
        assert (box.waiting(), box.answers(1, "d")) == ((0, 0), [])
        box.tidy()
        assert box.talks(project.id, 0) == {}


# ---- when the file fails


@contextmanager
def locked(box: Outbox) -> Iterator[None]:
    """Another process stands still in the midst of writing."""
    with sqlite3.connect(path_of(box), isolation_level=None) as stopped:
        stopped.execute("BEGIN EXCLUSIVE")
        yield
        stopped.execute("ROLLBACK")


@contextmanager
def full(box: Outbox) -> Iterator[None]:
    """The disk has no room, and what the file has reserved of it is used up."""
    with full_disk(box) as file:
        file.execute("CREATE TABLE filler (page)")
        with suppress(sqlite3.OperationalError):
            while True:
                file.execute("INSERT INTO filler VALUES (zeroblob(4000))")
        yield
    file.execute("DROP TABLE filler")


@contextmanager
def full_disk(box: Outbox) -> Iterator[sqlite3.Connection]:
    """The file cannot grow."""
    box.is_empty  # noqa: B018 - the file is open
    file = box._file
    assert file is not None
    ((pages,),) = file.execute("PRAGMA page_count").fetchall()
    file.execute(f"PRAGMA max_page_count = {pages}")
    yield file
    file.execute("PRAGMA max_page_count = 100000")


def without_a_folder(box: Outbox) -> Any:
    path_of(box).parent.chmod(0o500)
    path_of(box).mkdir()  # nobody can make a file there, be it root
    return _nothing()


def path_of(box: Outbox) -> Path:
    assert box.path is not None
    return box.path


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("failure", [locked, full, without_a_folder])
def test_what_the_file_does_not_take_stays_with_its_process(failure: Any, sales: World, tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box", "acme")
    routing = Routing(sales.database, None, box)
    (tmp_path / "box").mkdir()
    failing = failure(box)
    routing.keep_up()
    with failing:
        box.open_breaker()
        told = [sales.ask(f"call {number}" + 9000 * "x", routing=routing) for number in range(4)]
        assert destinations(told) == ["ann", "ben", "cat", OVERFLOW]
        assert box.waiting() == (4, 0)
    while box.is_open:  # it tries once a second
        routing.keep_up()
        time.sleep(0.01)
    assert box.waiting() == (0, 0)
    assert len(sales.decisions()) == 4


def test_nobody_waits_again_for_a_file_that_was_locked_a_moment_ago(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(box, "one")
    clock = [time.monotonic()]
    monkeypatch.setattr("router.routing.outbox.time.monotonic", lambda: clock[0])
    with locked(box):
        assert box.waiting() == (0, 0)
    assert box.waiting() == (0, 0), "nobody looks into it"
    clock[0] += 1
    assert box.waiting() == (1, 0)


def test_a_disk_that_is_full_takes_the_first_decisions_of_an_outage_all_the_same(box: Outbox) -> None:
    with full_disk(box):
        box.open_breaker()
        add(box, *map(str, range(300)))
        assert beside(box).is_open
        assert taken(beside(box)) == [str(number) for number in range(100)]


def test_what_the_file_does_not_take_has_numbers_of_its_own(box: Outbox) -> None:
    """Rows are done by number, in both places."""
    add(box, "in the file")
    with full(box):
        add(box, *(f"{number}" + 9000 * "x" for number in range(3)))
    (first,) = beside(box).take(100)
    assert first.id not in {row.id for row in box.take(100)}


def test_a_file_that_is_damaged_begins_anew(box: Outbox, capsys: pytest.CaptureFixture[str]) -> None:
    add(box, "lost")
    path_of(box).write_bytes(b"this is no database" * 1000)
    other = beside(box)
    add(other, "kept")
    assert taken(beside(other)) == ["kept"]
    assert "damaged" in capsys.readouterr().out


def test_a_link_of_another_account_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    box = Outbox(tmp_path / "box", "acme")
    path_of(box).parent.mkdir()
    path_of(box).symlink_to(victim)
    add(box, "call")
    assert (taken(box), victim.read_text()) == (["call"], "")


def test_each_database_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, other = Outbox(tmp_path, "sqlite /srv/one/router.db"), Outbox(tmp_path, "sqlite /srv/two/router.db")
    one.open_breaker()
    assert not other.is_open


def test_a_forked_process_opens_it_anew(box: Outbox) -> None:
    add(box, "parent")

    def live() -> None:
        add(box, "child")
        os._exit(0 if box.waiting() == (2, 0) else 1)

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert taken(box) == ["parent", "child"]


def _killed_while_writing(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=PERSIST; PRAGMA synchronous=OFF; PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE answers SET call_id = randomblob(500)")
    connection.execute("DELETE FROM answers WHERE rowid % 2")
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_file_is_whole_after_a_process_was_killed_in_the_midst_of_writing(box: Outbox) -> None:
    with box.exclusive():
        box.add([(answer(f"{number}"), None) for number in range(500)])
    killed = multiprocessing.get_context("spawn").Process(target=_killed_while_writing, args=(path_of(box),))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    other = beside(box)
    assert [len(other.answers(1, f"{number}")) for number in range(500)] == [1] * 500
