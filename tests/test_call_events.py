"""Call events that are put off while the database is away, and what becomes of them when their process is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.fernet import Fernet

from router import call_events, host_store
from router.call_events import CallEvents
from router.core.events import CallEvent, Disposition
from router.core.model import Outcome, Project
from router.db import aside
from router.db.aside import Aside
from router.db.session import DatabaseBusyError
from router.db.types import use_encryption_keys
from router.host_store import HostStore
from tests.presence.office import ALICE, BOB, Office, after_call, opened_office, pickup


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "RETRY_SECONDS", 0.001)


@pytest.fixture
def office(migrated_url: str) -> Iterator[Office]:
    with opened_office(migrated_url) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host.sqlite"


def process_of(office: Office, file: Path, *, degraded: Collection[str] = ()) -> tuple[CallEvents, Aside]:
    """`degraded`: the calls that were answered without the database."""
    jobs = Aside()
    return CallEvents(office.database, jobs, HostStore(file), lambda _, call_id: call_id in degraded), jobs


def finish(jobs: Aside) -> None:
    deadline = time.monotonic() + 30
    while len(jobs):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> NoReturn:
        raise DatabaseBusyError("away")

    monkeypatch.setattr(call_events, "apply_event", away)


def kept(file: Path) -> int:
    found: int = sqlite3.connect(file).execute("SELECT count(*) FROM put_off").fetchone()[0]
    return found


def ended_with(office: Office, file: Path, work: Callable[[CallEvents, Aside], object]) -> None:
    """A process without the database does this and is killed."""

    def live() -> None:
        with pytest.MonkeyPatch.context() as patch:
            without_database(patch)
            work(*process_of(office, file))
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def killed_with(office: Office, file: Path, project: Project, *events: CallEvent) -> None:
    """A process puts these off and is killed."""
    ended_with(office, file, lambda process, _: [process.apply(project, event, time.monotonic()) for event in events])


def test_what_a_process_put_off_is_applied_by_another_when_it_is_killed(office: Office, file: Path) -> None:
    assert office.ask("c1") == ALICE
    killed_with(office, file, office.project, pickup("c1"), after_call("c1", billsec=42, waittime=3))
    assert (kept(file), office.decision("c1").outcome) == (2, "")
    heir, jobs = process_of(office, file)
    heir.take_over()
    finish(jobs)
    decision = office.decision("c1")
    assert (decision.outcome, decision.inferred, decision.answered_login) == (Outcome.ANSWERED, False, ALICE)
    assert (decision.talked_seconds, decision.disposition) == (42, Disposition.ANSWERED)
    assert kept(file) == 0


def test_it_counts_as_of_when_it_came(office: Office, file: Path) -> None:
    assert office.ask("c1") == ALICE
    killed_with(office, file, office.project, pickup("c1"))
    time.sleep(0.3)
    heir, jobs = process_of(office, file)
    heir.take_over()
    finish(jobs)
    decision = office.decision("c1")
    assert decision.answered_at is not None
    assert (office.now() - decision.answered_at).total_seconds() > 0.3


def test_what_a_living_process_put_off_is_its_own(office: Office, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert office.ask("c1") == ALICE
    process, jobs = process_of(office, file)
    with monkeypatch.context() as patch:
        without_database(patch)
        assert process.apply(office.project, pickup("c1"), time.monotonic()) is None
        assert kept(file) == 1
        other, others = process_of(office, file)
        other.take_over()
        assert len(others) == 0
    finish(jobs)
    assert office.decision("c1").outcome == Outcome.ANSWERED
    assert kept(file) == 0, "it is applied"


def test_what_is_applied_at_once_is_kept_nowhere(office: Office, file: Path) -> None:
    assert office.ask("c1") == ALICE
    process, jobs = process_of(office, file)
    assert process.apply(office.project, pickup("c1"), time.monotonic()) in ("applied", None)
    finish(jobs)
    assert not file.exists() or kept(file) == 0


def test_it_is_taken_over_again_when_the_heir_is_killed_too(office: Office, file: Path) -> None:
    assert office.ask("c1") == ALICE
    killed_with(office, file, office.project, pickup("c1"))

    ended_with(office, file, lambda process, _: process.take_over())
    heir, jobs = process_of(office, file)
    heir.take_over()
    finish(jobs)
    assert office.decision("c1").answered_login == ALICE


def test_a_process_that_is_told_to_stop_leaves_what_it_could_not_apply(office: Office, file: Path) -> None:
    assert office.ask("c1") == ALICE
    project = office.project

    def stop(process: CallEvents, jobs: Aside) -> None:
        process.apply(project, pickup("c1"), time.monotonic())
        jobs.end(30)
        assert len(jobs) == 0

    ended_with(office, file, stop)
    heir, jobs = process_of(office, file)
    heir.take_over()
    finish(jobs)
    assert office.decision("c1").answered_login == ALICE


def test_what_cannot_be_read_is_told_and_holds_up_nothing(
    office: Office, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert office.ask("c1") == ALICE
    project = office.project
    killed_with(office, file, project, pickup("c1", BOB))
    use_encryption_keys([Fernet.generate_key()])
    killed_with(office, file, project, pickup("c1"))
    with monkeypatch.context() as patch:
        patch.setattr(call_events, "_FIELDS", ("call_id", "kind"))
        killed_with(office, file, project, pickup("of another release"))
    heir, jobs = process_of(office, file)
    heir.take_over()
    finish(jobs)
    assert office.decision("c1").answered_login == ALICE
    assert kept(file) == 0
    told = capsys.readouterr().out
    assert "the key was changed" in told
    assert "a call event that was put off cannot be read" in told


def test_an_event_waits_for_the_decision_that_is_still_to_be_written(
    office: Office, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an end that names nobody is nobody's, and the pickup that another process applies later has no end."""
    monkeypatch.setattr(call_events, "UNWRITTEN_TRIES", 1_000_000)
    process, jobs = process_of(office, file, degraded={"c1"})
    assert process.apply(office.project, after_call("c1", "", billsec=42), time.monotonic()) is None
    assert office.ask("c1") == ALICE  # it was written
    finish(jobs)
    decision = office.decision("c1")
    assert (decision.outcome, decision.answered_login, decision.talked_seconds) == (Outcome.ANSWERED, ALICE, 42)


def test_the_events_of_other_calls_do_not_wait_for_it(
    office: Office, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_events, "UNWRITTEN_TRIES", 1_000_000)
    process, jobs = process_of(office, file, degraded={"c1"})
    assert process.apply(office.project, pickup("c1"), time.monotonic()) is None
    assert process.apply(office.project, pickup("c2", BOB), time.monotonic()) in ("applied", None)
    deadline = time.monotonic() + 30
    while len(jobs) > 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert office.speaking_by_events() == {BOB}
    assert office.ask("c1") == ALICE  # it was written
    finish(jobs)
    assert office.speaking_by_events() == {ALICE, BOB}


def test_but_not_for_ever(office: Office, file: Path) -> None:
    process, jobs = process_of(office, file, degraded={"c1"})
    process.apply(office.project, pickup("c1"), time.monotonic())
    finish(jobs)
    assert office.speaking_by_events() == {ALICE}


def test_an_event_without_room_is_still_applied(office: Office, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_store, "ROOM_BYTES", 0)
    assert office.ask("c1") == ALICE
    process, jobs = process_of(office, file)
    with monkeypatch.context() as patch:
        without_database(patch)
        assert process.apply(office.project, pickup("c1"), time.monotonic()) is None
        assert kept(file) == 0
    finish(jobs)
    assert office.decision("c1").outcome == Outcome.ANSWERED
