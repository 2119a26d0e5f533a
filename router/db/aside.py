"""Database work that a waiting PBX must not wait for: done in time, or later, by a thread that may hang alone.

No driver can end a wait for a PostgreSQL server that has stopped; db/pipeline.py can, where calls pass.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from router.db.reservations import DATABASE_ERRORS
from router.log import log

T = TypeVar("T")

LIMIT = 10_000  # jobs that wait; beyond that the oldest is dropped
KEPT_SECONDS = 600.0  # a job that the database has refused for so long is given up
RETRY_SECONDS = 1.0
QUICK_SECONDS = 0.1  # a job done so soon after it was given is worth waiting for


class NotYetError(Exception):
    """This job waits for something of its own. Those about other things need not wait for it."""


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    about: Hashable  # jobs about the same thing are done in order
    future: Future[Any]
    given_at: float  # time.monotonic()
    due_at: float = 0.0  # not before, because it was not to be done yet


class Aside:
    """One job after the other, in a thread of its own; again and again while the database refuses."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._doing: _Job | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._is_slow = False  # somebody waited in vain, and nothing was quick since

    def __len__(self) -> int:
        return len(self._jobs)

    def do(
        self,
        work: Callable[[], T],
        *,
        wait: float,
        about: Hashable = None,
        keep: Callable[[], Callable[[], object] | None] | None = None,
    ) -> T | None:
        """Do this after all that was given before: its result, or None when it is not done within `wait` seconds.
        Where `work` raises NotYetError it is done later, and what is `about` something else before it.

        Raises what `work` raises, as long as somebody waits; later that is told in the log. After somebody has waited
        in vain nobody waits, until a job is quick again: while the database is slow, calls need the processes.

        `keep` is called when nobody waits any more: should this process end before it is done, another one can do it
        then. What it gives is called once it is done, or given up; None: it cannot be kept.
        """
        job = _Job(work, about, Future(), time.monotonic())
        with self._changed:
            if self._thread is None:  # at the first job: a thread does not survive a fork
                self._thread = threading.Thread(target=self._work, name="aside", daemon=True)
                self._thread.start()
            if self._is_slow:
                wait = 0.0
            self._jobs.append(job)
            if len(self._jobs) > LIMIT:
                dropped = next(job for job in list(self._jobs)[1:] if job is not self._doing)
                self._jobs.remove(dropped)
                dropped.future.set_exception(OverflowError("too much waits for the database"))
            self._changed.notify()
        try:
            result: T = job.future.result(wait)
        except TimeoutError:
            if job.future.done() and job.future.exception() is not None:
                raise
            self._is_slow = wait > 0 or self._is_slow
            forget = keep() if keep is not None else None
            job.future.add_done_callback(lambda future: _finish(future, forget))
            return None
        return result

    def _work(self) -> None:
        while True:
            with self._changed:
                while (job := self._next()) is None:
                    self._changed.wait(RETRY_SECONDS if self._jobs else None)
                self._doing = job
            self._try(job)
            if time.monotonic() - job.given_at < QUICK_SECONDS:
                self._is_slow = False
            with self._changed:
                self._doing = None
                if job.future.done():
                    self._jobs.remove(job)
                self._changed.notify_all()

    def _next(self) -> _Job | None:
        """The first that is due, and that nothing earlier about the same thing stands before."""
        now, waiting = time.monotonic(), set[Hashable]()
        for job in self._jobs:
            if job.about not in waiting:
                if job.due_at <= now:
                    return job
                waiting.add(job.about)
        return None

    def _try(self, job: _Job) -> None:
        while not job.future.done():
            try:
                job.future.set_result(job.work())
            except NotYetError as error:
                if self._is_ending:
                    job.future.cancel()
                elif time.monotonic() - job.given_at > KEPT_SECONDS:
                    job.future.set_exception(error)
                else:
                    job.due_at = time.monotonic() + RETRY_SECONDS
                    return
            except DATABASE_ERRORS as error:
                if self._is_ending:
                    job.future.cancel()
                elif time.monotonic() - job.given_at > KEPT_SECONDS:
                    job.future.set_exception(error)
                else:
                    time.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for, or told
                job.future.set_exception(error)

    def end(self, seconds: float) -> None:
        """Let what waits be done, for so many seconds at most; nothing is tried again from now on."""
        self._is_ending = True
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._jobs and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)


def _finish(future: Future[Any], forget: Callable[[], object] | None) -> None:
    if future.cancelled():  # this process ends
        if forget is None:
            log.error("database: what was put off is lost", kind="Cancelled")
        return
    if forget is not None:
        forget()
    error = future.exception()
    if error is not None:
        log.error("database: what was put off is lost", error=str(error), kind=type(error).__name__)
