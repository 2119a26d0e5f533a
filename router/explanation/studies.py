"""Studies: questions to the call log that take long, each answered by a process of its own, of the lowest priority.

The web process that starts it reads progress and result from a pipe and stores them. The process of the study only
reads the database: no call waits for a lock held by a process that gets no processor. If either process ends, so does
the study, and whoever looks at it next sees that it was interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from select import select as wait_for
from typing import IO, Any, NamedTuple, TextIO

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError

from router.db import models
from router.db.documents import Document, upgrade
from router.db.failures import describe_failure
from router.db.session import DATABASE_ERRORS, Database
from router.explanation.replay import replay_study
from router.explanation.variations import what_if_study
from router.log import log

KEPT = 20  # per project, the newest
AT_ONCE = 2  # of all projects: each takes memory
MOST_SECONDS = 1800.0
LOST = timedelta(seconds=20)  # without a heartbeat
_TICK = 1.0  # s between two heartbeats
_STORE_SECONDS = 30.0  # for which it is tried to store a result
COMMAND = ["-m", "router", "study", "run"]  # of Python; the study's id follows
_LOWEST_PRIORITY = 19
# Our child must not count its metrics as those of a web process, in files that nobody would remove.
_NOT_INHERITED = {"PROMETHEUS_MULTIPROC_DIR"}

Progress = Callable[[int, int], object]
"""Is told how many calls are done, and of how many."""

Run = Callable[[Database, int, Document, Mapping[str, Any], Progress], dict[str, Any]]
"""Makes the result, given the project, the configuration to look at and the parameters. The result must not hold
numbers of callers: those are hidden, erased and deleted where calls are stored."""

KINDS: Mapping[str, Run] = {"replay": replay_study, "what_if": what_if_study}


class State(StrEnum):
    """What became of a study."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # by a person
    INTERRUPTED = "interrupted"  # its process or the web process has ended


class Study(NamedTuple):
    """A study without its configuration and its result. `total`: 0 while it is not known."""

    id: int
    kind: str
    parameters: Mapping[str, Any]
    started_at: datetime
    started_by: str
    heartbeat_at: datetime
    done: int
    total: int
    state: State
    error: str

    @property
    def percent(self) -> int:
        return min(100, 100 * self.done // self.total) if self.total else 0


class BusyError(Exception):
    """No study can be started now. `study`: the one of the same project that runs; None: too many of other projects."""

    def __init__(self, study: Study | None) -> None:
        super().__init__("a study is running")
        self.study = study


# ---- for pages


def start(
    database: Database,
    project_id: int,
    kind: str,
    document: Document,
    parameters: Mapping[str, Any],
    actor: str,
) -> int:
    """Start a study of this configuration and return its id. Raises BusyError."""
    if kind not in KINDS:
        raise ValueError(f"there is no kind of study {kind!r}")
    row = models.Study
    try:
        with database.writing() as session:
            now = database.now(session)
            is_lost = (row.state == State.RUNNING, row.heartbeat_at < now - LOST)
            session.execute(update(row).where(*is_lost).values(state=State.INTERRUPTED))
            at_work = select(row.id).where(row.state == State.RUNNING, _is_of_project_there())
            if len(session.scalars(at_work).all()) >= AT_ONCE:
                raise BusyError(None)
            made = row(
                project_id=project_id,
                kind=kind,
                document=document,
                parameters=dict(parameters),
                started_at=now,
                started_by=actor,
                heartbeat_at=now,
            )
            session.add(made)
            session.flush()
            of_project = (row.project_id == project_id, row.id != made.id)
            newest = select(row.id).where(*of_project).order_by(row.id.desc()).offset(KEPT - 1).limit(1)
            if (surplus := session.scalar(newest)) is not None:
                session.execute(delete(row).where(*of_project, row.id <= surplus))
    except IntegrityError:  # one of this project runs: see the index
        running = [one for one in list_studies(database, project_id) if one.state is State.RUNNING]
        raise BusyError(running[0] if running else None) from None
    launch(database, made.id)
    return made.id


def _is_of_project_there() -> ColumnElement[bool]:
    """Return the condition that the project is not deleted: studies of one that is are stopped."""
    return models.Study.project_id.in_(select(models.Project.id).where(models.Project.deleted_at.is_(None)))


def list_studies(
    database: Database, project_id: int, *, kind: str = "", study_id: int | None = None, limit: int = KEPT
) -> Sequence[Study]:
    """Return the newest studies of a project first. `kind`: only these. `study_id`: only this one."""
    row = models.Study
    columns = [getattr(row, name) for name in Study._fields]
    query = select(*columns).where(row.project_id == project_id).order_by(row.id.desc()).limit(limit)
    if kind:
        query = query.where(row.kind == kind)
    if study_id is not None:
        query = query.where(row.id == study_id)
    with database.reading() as session:
        now = database.now(session)
        found = [Study(*values) for values in session.execute(query)]
    return [_with_state(one, now) for one in found]


def _with_state(study: Study, now: datetime) -> Study:
    state = State(study.state)
    is_lost = state is State.RUNNING and study.heartbeat_at < now - LOST
    return study._replace(state=State.INTERRUPTED if is_lost else state)


def load_study(database: Database, project_id: int, study_id: int) -> tuple[Study, Document, dict[str, Any]] | None:
    """Return a study with its configuration and its result ({} while there is none); None if it is not stored."""
    found = list_studies(database, project_id, study_id=study_id)
    row = models.Study
    with database.reading() as session:
        stored = session.execute(select(row.document, row.result).where(row.id == study_id)).one_or_none()
    return (found[0], upgrade(stored.document), stored.result or {}) if found and stored else None


def sums_of(database: Database, study_ids: Collection[int], *names: str) -> dict[int, dict[str, int]]:
    """Return these numbers of the results of studies that are done, by the study's id."""
    row = models.Study
    columns = [row.result[name].as_integer() for name in names]
    with database.reading() as session:
        found = session.execute(select(row.id, *columns).where(row.id.in_(study_ids), row.state == State.DONE)).all()
    return {study_id: dict(zip(names, numbers, strict=True)) for study_id, *numbers in found}


def stop(database: Database, project_id: int, study_id: int) -> bool:
    """Stop a study: its process ends with its next heartbeat. Return whether it ran."""
    row = models.Study
    with database.writing() as session:
        is_it = (row.id == study_id, row.project_id == project_id, row.state == State.RUNNING)
        return bool(session.connection().execute(update(row).where(*is_it).values(state=State.STOPPED)).rowcount)


# ---- in the web process


def launch(database: Database, study_id: int) -> None:
    """Start the process of a study, and a thread that stores what it says."""
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    command = [sys.executable, *COMMAND, str(study_id)]
    try:
        # Without a session of its own: Linux would weigh it as a whole against the web processes, whatever its
        # priority, and whoever presses Ctrl-C means this process too.
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environ, close_fds=True
        )
    except OSError as error:
        _store(database, study_id, {"state": State.FAILED, "error": str(error)})
        return
    with suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)
    threading.Thread(target=_follow, args=(database, study_id, process), name="study", daemon=True).start()


def _follow(database: Database, study_id: int, process: subprocess.Popen[bytes]) -> None:
    """Store what the process says, until it ends or its study is stopped. Waiting for it leaves no zombie."""
    values: dict[str, Any] = {}
    with process:
        try:
            for line in _lines(process.stdout):
                said = json.loads(line) if line else {}
                values = said or values
                if "state" not in values and not _store(database, study_id, said):
                    break
        finally:
            process.kill()
    if "state" not in values:
        values = {"state": State.INTERRUPTED, "error": f"exit code {process.returncode}"}
    give_up_at = time.monotonic() + _STORE_SECONDS
    while not _store(database, study_id, values, is_last=time.monotonic() > give_up_at):
        time.sleep(_TICK)


def _lines(pipe: IO[bytes] | None) -> Iterator[bytes]:
    """Yield the lines that come, and b"" at each tick without one: a process that gets no processor is not lost."""
    rest = b""
    while pipe is not None:
        if not wait_for([pipe], [], [], _TICK)[0]:
            yield b""
            continue
        if not (some := os.read(pipe.fileno(), 1 << 16)):
            return
        *lines, rest = (rest + some).split(b"\n")
        yield from filter(None, lines)


def _store(database: Database, study_id: int, values: Mapping[str, Any], *, is_last: bool = True) -> bool:
    """Store what a running study says. Return whether it is still wanted, or, unless `is_last`, needs no more tries."""
    row = models.Study
    running = update(row).where(row.id == study_id, row.state == State.RUNNING)
    if "state" not in values:
        running = running.where(_is_of_project_there())
    try:
        with database.writing() as session:
            changed = running.values(heartbeat_at=database.now(session), **values)
            return bool(session.connection().execute(changed).rowcount) or "state" in values
    except DATABASE_ERRORS as error:
        log.warning("a study: what it says is not stored", study=study_id, kind=type(error).__name__)
        return is_last


# ---- in the process of the study


def run(database: Database, study_id: int, out: TextIO) -> None:
    """Run a study, and tell progress and result in lines of JSON: the columns of its row that change."""
    row = models.Study
    with database.reading() as session:
        study = session.scalar(select(row).where(row.id == study_id, row.state == State.RUNNING))
    if study is None:
        raise LookupError(f"study {study_id} is not to be run")
    told = {"done": 0, "total": 0}
    is_over = threading.Event()

    def tell(**values: object) -> None:
        try:
            out.write(json.dumps(values, ensure_ascii=False) + "\n")
            out.flush()
        except OSError:  # nobody listens any more
            os._exit(1)

    def tick() -> None:
        give_up_at = time.monotonic() + MOST_SECONDS
        while not is_over.wait(_TICK):
            tell(**told)
            if time.monotonic() > give_up_at:
                tell(state=State.FAILED, error=f"it took longer than {MOST_SECONDS / 60:.0f} minutes")
                os._exit(1)

    def progress(done: int, total: int) -> None:
        told.update(done=done, total=total)

    ticks = threading.Thread(target=tick, name="tick", daemon=True)
    ticks.start()
    outcome: dict[str, Any]
    try:
        outcome = {
            "result": KINDS[study.kind](database, study.project_id, study.document, study.parameters, progress),
            "state": State.DONE,
        }
    except Exception as error:  # noqa: BLE001 - whatever it is, the page tells it
        outcome = {"state": State.FAILED, "error": describe_failure(error) or f"{type(error).__name__}: {error}"}
        log.exception("a study failed", study=study_id)
    finally:
        is_over.set()
        ticks.join()
    tell(**told, **outcome)
