"""Studies: a process of its own answers, its result is stored, and nothing of it is left stuck or running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from router.db import models
from router.db.documents import load_document
from router.db.personal import erase_caller
from router.db.session import Database
from router.explanation import studies
from router.explanation.studies import BusyError, State, Study
from tests.desk import ACME, SECRET, Desk

PARAMETERS = {"since": "2026-01-01T00:00:00+00:00", "until": "2999-01-01T00:00:00+00:00", "most": 1000}


@pytest.fixture
def desk(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Three calls, and the environment of a web process."""
    for name, value in {"DATABASE_URL": migrated_url, "SECRET_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    with closing(Desk(migrated_url)) as made:
        made.see("acme_alice", "acme_bob")
        for number in range(3):
            made.ask(caller=f"38050111000{number}", call_id=str(number))
        yield made


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The studies for which a process would have been started."""
    found: list[int] = []
    monkeypatch.setattr(studies, "launch", lambda _database, study_id: found.append(study_id))
    return found


def document(desk: Desk) -> dict[str, Any]:
    with desk.database.reading() as session:
        row = session.get_one(models.Project, desk.project_id())
        found = load_document(session, row.id, row.version)
    assert found is not None
    return found


def start(desk: Desk, project: str = "acme") -> int:
    return studies.start(desk.database, desk.project_id(project), "replay", document(desk), PARAMETERS, "emil")


def look(desk: Desk, study_id: int) -> Study:
    (found,) = studies.list_studies(desk.database, desk.project_id(), study_id=study_id)
    return found


def when(is_so: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def use(monkeypatch: pytest.MonkeyPatch, kind: studies.Run) -> None:
    monkeypatch.setattr(studies, "KINDS", {"replay": kind})


def said(desk: Desk, study_id: int) -> list[dict[str, Any]]:
    """What the process of a study says, run in this one."""
    out = StringIO()
    studies.run(desk.database, study_id, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


# ---- with a real process


def zombies() -> set[str]:
    """The ids of our child processes that have ended and that nobody waited for; none where there is no /proc."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            found |= {path.parent.name} if (state, parent) == ("Z", str(os.getpid())) else set()
    return found


def test_a_process_of_its_own_answers_and_leaves_nothing_behind(desk: Desk) -> None:
    threads, dead = set(threading.enumerate()), zombies()
    study_id = start(desk)
    when(lambda: look(desk, study_id).state is not State.RUNNING)
    study = look(desk, study_id)
    assert (study.state, study.done, study.total, study.started_by) == (State.DONE, 3, 3, "emil")
    loaded = studies.load_study(desk.database, desk.project_id(), study_id)
    assert loaded is not None
    assert (loaded[2]["total"], loaded[2]["differing"]) == (3, 0)
    when(lambda: {one for one in threading.enumerate() if one.name == "study"} <= threads)
    assert zombies() <= dead


def test_a_study_that_is_stopped_ends_with_its_process(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.sys, "executable", "/bin/sh")  # type: ignore[attr-defined]
    monkeypatch.setattr(studies, "COMMAND", ["-c", """while echo '{"done": 1, "total": 9}'; do sleep 0.05; done"""])
    study_id = start(desk)
    when(lambda: look(desk, study_id).percent == 11)
    assert studies.stop(desk.database, desk.project_id(), study_id)
    when(lambda: not [one for one in threading.enumerate() if one.name == "study"])
    assert look(desk, study_id).state is State.STOPPED
    assert not studies.stop(desk.database, desk.project_id(), study_id), "it has ended"


def test_a_study_of_a_deleted_project_ends_and_takes_no_place(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.sys, "executable", "/bin/sh")  # type: ignore[attr-defined]
    monkeypatch.setattr(studies, "COMMAND", ["-c", "while :; do sleep 1; done"])
    monkeypatch.setattr(studies, "AT_ONCE", 1)
    desk.configure("projects: [{name: other}]")
    study_id, other, rules = start(desk), desk.project_id("other"), document(desk)
    with desk.database.writing() as session:
        session.execute(
            update(models.Project).where(models.Project.name == "acme").values(deleted_at=datetime.now(UTC))
        )
    second = studies.start(desk.database, other, "replay", rules, PARAMETERS, "emil")
    when(lambda: desk.all(models.Study, id=study_id)[0].state == State.INTERRUPTED)
    (running,) = [one for one in desk.all(models.Study) if one.state == State.RUNNING]
    assert running.id == second
    assert studies.stop(desk.database, running.project_id, second)
    when(lambda: not [one for one in threading.enumerate() if one.name == "study"])


def test_a_process_that_gets_no_processor_is_not_lost(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.sys, "executable", "/bin/sh")  # type: ignore[attr-defined]
    monkeypatch.setattr(studies, "COMMAND", ["-c", "while :; do sleep 1; done"])
    study_id = start(desk)
    began_at = look(desk, study_id).started_at
    when(lambda: look(desk, study_id).heartbeat_at > began_at)
    assert studies.stop(desk.database, desk.project_id(), study_id)
    when(lambda: not [one for one in threading.enumerate() if one.name == "study"])


def test_a_process_that_dies_is_told_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.sys, "executable", "/bin/sh")  # type: ignore[attr-defined]
    monkeypatch.setattr(studies, "COMMAND", ["-c", "kill -9 $$"])
    study_id = start(desk)
    when(lambda: look(desk, study_id).state is State.INTERRUPTED)


def test_a_process_to_which_nobody_listens_any_more_ends(desk: Desk, launched: list[int]) -> None:
    program = f"""if True:
        import sys, threading
        from router.db.session import Database
        from router.explanation import studies
        studies.KINDS = {{"replay": lambda *_: threading.Event().wait()}}
        studies.run(Database({desk.database.url!r}), {start(desk)}, sys.stdout)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"done": 0, "total": 0}
            process.stdout.close()  # as when the web process dies
            assert process.wait(60) == 1
        finally:
            process.kill()


def test_a_process_that_cannot_be_started_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.sys, "executable", "/nowhere")  # type: ignore[attr-defined]
    study = look(desk, start(desk))
    assert study.state is State.FAILED
    assert "/nowhere" in study.error


# ---- without


def test_one_study_of_a_project_runs_at_a_time(desk: Desk, launched: list[int]) -> None:
    study_id = start(desk)
    with pytest.raises(BusyError) as refused:
        start(desk)
    assert refused.value.study is not None
    assert refused.value.study.id == study_id
    assert launched == [study_id]


def test_projects_together_take_only_so_much_memory(desk: Desk, launched: list[int]) -> None:
    names = [f"other {n}" for n in range(studies.AT_ONCE)]
    desk.configure(f"projects: [{', '.join(f'{{name: {name}}}' for name in names)}]")
    for name in names:
        start(desk, name)
    with pytest.raises(BusyError) as refused:
        start(desk)
    assert refused.value.study is None
    assert len(launched) == studies.AT_ONCE


def test_a_study_whose_web_process_died_is_interrupted_and_in_nobodys_way(desk: Desk, launched: list[int]) -> None:
    study_id = start(desk)
    with desk.database.writing() as session:
        session.execute(update(models.Study).values(heartbeat_at=datetime.now(UTC) - 2 * studies.LOST))
    assert look(desk, study_id).state is State.INTERRUPTED
    second = start(desk)
    assert launched == [study_id, second]
    assert look(desk, second).state is State.RUNNING
    assert look(desk, study_id).state is State.INTERRUPTED


def test_the_newest_studies_of_a_project_are_kept(desk: Desk, launched: list[int]) -> None:
    for _ in range(studies.KEPT + 2):
        study_id = start(desk)
        assert studies.stop(desk.database, desk.project_id(), study_id)
    kept = studies.list_studies(desk.database, desk.project_id(), limit=100)
    assert [one.id for one in kept] == launched[: -studies.KEPT - 1 : -1]


def test_a_study_that_fails_says_why(desk: Desk, launched: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError("by nothing")

    use(monkeypatch, fail)
    *_, last = said(desk, start(desk))
    assert (last["state"], last["error"]) == ("failed", "ZeroDivisionError: by nothing")


def test_progress_is_told_while_it_works(desk: Desk, launched: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def work(
        _database: Database, _project: int, _document: Any, _parameters: Mapping[str, Any], progress: studies.Progress
    ) -> dict[str, Any]:
        progress(3, 10)
        when(lambda: out.getvalue().count("\n") > 1)
        return {"sum": 1}

    out = StringIO()
    use(monkeypatch, work)
    studies.run(desk.database, start(desk), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {"done": 3, "total": 10} in lines
    assert lines[-1] == {"done": 3, "total": 10, "state": "done", "result": {"sum": 1}}


def test_what_is_not_to_be_run_is_not_run(desk: Desk, launched: list[int]) -> None:
    study_id = start(desk)
    studies.stop(desk.database, desk.project_id(), study_id)
    with pytest.raises(LookupError):
        said(desk, study_id)


def test_a_study_whose_rules_or_tests_hold_a_callers_number_is_erased_with_the_caller(
    desk: Desk, launched: list[int]
) -> None:
    plain = document(desk)
    rule = {**plain["rules"][0], "name": "one caller", "when": {"caller": ["+380501110001"]}}
    test = {"name": "+380 50 111 00 01 to sales", "call": {"caller": "", "params": {}}, "expect": {}}
    for holding in ({**plain, "rules": [rule, *plain["rules"]]}, {**plain, "tests": [test]}, plain):
        study_id = studies.start(desk.database, desk.project_id(), "replay", holding, PARAMETERS, "emil")
        studies.stop(desk.database, desk.project_id(), study_id)
    erase_caller(desk.database, desk.project_id(), "0501110001", "olena")
    assert [one.id for one in desk.all(models.Study)] == launched[-1:]


def test_a_study_belongs_to_its_project(desk: Desk, launched: list[int]) -> None:
    desk.configure(ACME.replace("acme", "globex"))
    study_id, other = start(desk), desk.project_id("globex")
    assert studies.load_study(desk.database, other, study_id) is None
    assert not studies.stop(desk.database, other, study_id)
    assert studies.list_studies(desk.database, other) == []
    assert studies.list_studies(desk.database, desk.project_id(), kind="replay")
    assert not studies.list_studies(desk.database, desk.project_id(), kind="what_if")


def test_a_result_names_no_caller(desk: Desk, launched: list[int]) -> None:
    (*_, last) = said(desk, start(desk))
    assert "38050111000" not in json.dumps(last)
    assert datetime.now(UTC) - look(desk, launched[0]).started_at < timedelta(minutes=5)
