"""Work that is put off: in order, again while the database refuses, and nobody waits for what hangs."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest

from router.db import aside
from router.db.aside import Aside, NotYetError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "RETRY_SECONDS", 0.001)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a job that hangs waits for; opened at the end, so that no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


def test_gives_the_result_or_raises_the_error_as_if_called() -> None:
    jobs = Aside()
    assert jobs.do(lambda: 42, wait=30) == 42
    with pytest.raises(ZeroDivisionError):
        jobs.do(lambda: 1 / 0, wait=30)
    assert jobs.do(lambda: "goes on", wait=30) == "goes on"


def test_does_not_wait_for_what_hangs_nor_for_what_stands_behind_it(gate: threading.Event) -> None:
    jobs, done = Aside(), list[int]()
    assert jobs.do(gate.wait, wait=0.01) is None
    for number in range(3):
        assert jobs.do(lambda number=number: done.append(number), wait=0.01) is None  # type: ignore[misc]
    assert (len(jobs), done) == (4, [])
    gate.set()
    jobs.end(30)
    assert (len(jobs), done) == (0, [0, 1, 2])


def test_tries_again_while_the_database_refuses() -> None:
    tries: list[int] = []

    def work() -> int:
        tries.append(1)
        if len(tries) < 4:
            raise sqlite3.OperationalError("database is locked")
        return len(tries)

    assert Aside().do(work, wait=30) == 4


def test_gives_up_what_was_refused_for_too_long_and_tells_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aside, "KEPT_SECONDS", 0.02)
    jobs = Aside()

    def work() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    assert jobs.do(work, wait=0) is None
    jobs.end(30)
    assert "what was put off is lost" in capsys.readouterr().out


def test_drops_the_oldest_that_waits_when_there_are_too_many(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "LIMIT", 3)
    jobs, done = Aside(), list[int]()
    jobs.do(gate.wait, wait=0)
    for number in range(5):
        jobs.do(lambda number=number: done.append(number), wait=0)  # type: ignore[misc]
    gate.set()
    jobs.end(30)
    assert done == [3, 4]


def test_what_is_not_to_be_done_yet_holds_up_what_is_about_the_same_alone(gate: threading.Event) -> None:
    jobs, done = Aside(), list[str]()

    def wait_for_gate() -> None:
        if not gate.is_set():
            raise NotYetError
        done.append("first of a")

    assert jobs.do(wait_for_gate, wait=0, about="a") is None
    assert jobs.do(lambda: done.append("second of a"), wait=0, about="a") is None
    jobs.do(lambda: done.append("b"), wait=30, about="b")
    jobs.do(lambda: None, wait=30, about="c")
    deadline = time.monotonic() + 30
    while len(jobs) > 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert done == ["b"]
    gate.set()
    while len(jobs) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert done == ["b", "first of a", "second of a"]


def test_ends_without_trying_again() -> None:
    jobs, began = Aside(), threading.Event()

    def work() -> None:
        began.set()
        raise sqlite3.OperationalError("database is locked")

    jobs.do(work, wait=0)
    assert began.wait(30)
    jobs.end(30)
    assert len(jobs) == 0
