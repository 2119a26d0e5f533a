"""What a process does before its first call and beside the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.background import Background
from router.config import Settings
from router.db.session import Database, DatabaseBusyError


@pytest.fixture
def background(tmp_path: Path) -> Background:
    url = f"sqlite:///{tmp_path / 'router.db'}"
    settings = Settings.load({"DATABASE_URL": url, "SECRET_KEY": "s" * 40, "PRESENCE_KEEPER": "off"})
    return Background(Database(url), settings)


def test_a_process_knows_its_projects_before_its_first_call(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.background.START_SECONDS", 60.0)
    learned = threading.Event()

    def learn() -> None:
        time.sleep(0.3)
        learned.set()

    background.upkeep = learn
    background.start()
    assert learned.is_set()
    background.stop()


def test_a_database_that_does_not_answer_keeps_no_process_from_its_calls(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.background.START_SECONDS", 0.05)
    monkeypatch.setattr("router.background.RECALL_SECONDS", 0.05)
    answers = threading.Event()
    background.upkeep = answers.wait
    background.start()
    assert not answers.is_set(), "it waited for the database all the same"
    answers.set()
    background.stop()


def test_nor_does_one_where_the_processes_before_it_left_what_they_knew(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.background.START_SECONDS", 60.0)
    monkeypatch.setattr("router.background.RECALL_SECONDS", 0.05)
    recalled, answers = threading.Event(), threading.Event()

    def recall() -> bool:
        recalled.set()
        return True

    background.upkeep, background.recall = answers.wait, recall
    background.start()
    assert recalled.is_set()
    answers.set()
    background.stop()


def test_what_was_left_is_not_asked_for_where_the_database_answers(background: Background) -> None:
    background.upkeep, background.recall = lambda: None, lambda: pytest.fail("an old configuration was taken")
    background.start()
    background.stop()


def test_a_process_begins_once_the_server_has_a_connection_for_its_calls(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def reserve() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise DatabaseBusyError("too many clients")

    monkeypatch.setattr("router.background.START_SECONDS", 60.0)
    monkeypatch.setattr(Database, "reserve", lambda _self: reserve())
    background.upkeep = lambda: None
    background.start()
    background.stop()
    assert tries == [0, 1, 2]


def test_no_process_waits_for_a_connection_in_an_outage(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reserve() -> None:
        raise DatabaseBusyError("nobody is there")

    monkeypatch.setattr("router.background.START_SECONDS", 3600.0)
    monkeypatch.setattr(Database, "reserve", lambda _self: reserve())
    background.upkeep, background.is_behind = lambda: None, lambda: True
    background.start()
    background.stop()


def test_an_upkeep_that_fails_without_a_text_is_logged_by_its_kind(background: Background) -> None:
    def fail() -> None:
        raise TimeoutError

    background.upkeep = fail
    with capture_logs() as lines:
        background.start()
        background.stop()
    assert {line["kind"] for line in lines if line["event"] == "upkeep: postponed"} == {"TimeoutError"}


def test_an_error_while_sharing_does_not_end_it(background: Background, capsys: pytest.CaptureFixture[str]) -> None:
    tries, tried_again = [0], threading.Event()

    def share() -> None:
        tries.append(len(tries))
        if len(tries) > 2:
            tried_again.set()
        raise ValueError("a mistake of ours")

    background.upkeep, background.share = lambda: None, share
    background.start()
    assert tried_again.wait(60)
    background.stop()
    assert "could not be shared" in capsys.readouterr().out
