"""Many callers at one instant: real processes with threads, who ask at the stroke of one barrier."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.fernet import Fernet

from router.core.model import Call
from router.db.claim import LostRaceError
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.routing.known import Routed
from router.routing.outbox import Outbox
from router.routing.route import Routing

CALLERS = 64
PATIENCE = 60.0  # seconds


class Answer(NamedTuple):
    """What one caller was told."""

    call_id: str
    destination: str
    degraded: str


class Told(NamedTuple):
    """What all were told, and how many races for an agent or a question were lost on the way."""

    answers: list[Answer]
    lost_races: int


class Task(NamedTuple):
    """What a process is to ask: in each round, one call of each of its callers."""

    url: str
    folder: Path
    project_id: int
    rounds: list[list[Call]]
    is_away: bool  # is the database?
    key: bytes


class Crowd:
    """Processes with CALLERS threads in all, each a caller of its own."""

    def __init__(self, processes: int) -> None:
        # Forked by one that has loaded everything and runs no thread: each of its own would load for a second.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._threads = CALLERS // processes
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        self._barrier = context.Barrier(CALLERS)
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._barrier, self._threads), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def ask(
        self, url: str, folder: Path, project_id: int, rounds: Sequence[Sequence[Call]], *, is_away: bool = False
    ) -> Told:
        """All calls of a round (one for each of CALLERS) at the same instant, round after round."""
        key = Fernet.generate_key()
        for number, pipe in enumerate(self._pipes):
            mine = slice(number * self._threads, (number + 1) * self._threads)
            pipe.send(Task(url, folder, project_id, [list(calls[mine]) for calls in rounds], is_away, key))
        answers: list[Answer] = []
        lost_races = 0
        for pipe in self._pipes:
            told = pipe.recv()
            if isinstance(told, str):
                raise AssertionError(told)
            answers += told.answers
            lost_races += told.lost_races
        return Told(answers, lost_races)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()


class _CountingRouting(Routing):
    """A process's own, which counts the races that it lost."""

    lost_races = 0

    def _route_once(self, *arguments: Any, **options: Any) -> Routed:
        try:
            return super()._route_once(*arguments, **options)
        except LostRaceError:
            self.lost_races += 1
            raise


def _work(pipe: Connection[Any, Any], barrier: Barrier, threads: int) -> None:
    while True:
        task = pipe.recv()
        try:
            told: object = _ask(task, barrier, threads)
        except Exception:  # noqa: BLE001 - told to the test
            barrier.abort()  # nobody waits for us in vain
            told = traceback.format_exc()
        pipe.send(told)


def _ask(task: Task, barrier: Barrier, threads: int) -> Told:
    use_encryption_keys([task.key])
    database = Database(task.url, lock_seconds=PATIENCE, statement_seconds=PATIENCE)
    routing = _CountingRouting(database, outbox=Outbox(task.folder, "acme"))

    def caller(number: int) -> list[Answer]:
        answers = []
        routing.explain(task.project_id, Call())  # connected, and all is loaded
        if task.is_away:
            routing.outbox.open_breaker()
        for calls in task.rounds:
            barrier.wait(PATIENCE)
            routed = routing.route_call(task.project_id, calls[number], deadline=time.monotonic() + PATIENCE)
            answers.append(Answer(calls[number].call_id, routed.destination, routed.degraded))
        return answers

    with ThreadPoolExecutor(threads) as pool:
        told = [answer for answers in pool.map(caller, range(threads)) for answer in answers]
    database.dispose()
    return Told(told, routing.lost_races)
