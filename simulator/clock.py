"""Run timers on one thread, at any speed. Knows nothing of calls.

`Scheduler.lock` guards the whole simulation: timers run while holding it, and every other thread takes it before it
reads or changes anything. Jobs take tens of microseconds, so one lock costs less than several.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("simulator")


class Timer:
    """A job that is due at some time, unless `cancel()` is called."""

    __slots__ = ("due", "job")

    def __init__(self, due: float, job: Callable[[], None]) -> None:
        self.due = due
        self.job: Callable[[], None] | None = job

    def cancel(self) -> None:
        self.job = None


class Scheduler:
    """Runs jobs at their time. `speed` simulated seconds pass in one real second."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.lock = threading.RLock()
        self.worst_lag = 0.0  # the latest job, in real seconds: large on a machine too slow for the speed
        self._changed = threading.Condition(self.lock)
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="demo-pbx-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self.lock:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def at(self, due: float, job: Callable[[], None]) -> Timer:
        """Run the job at this instant of `time.monotonic()`."""
        timer = Timer(due, job)
        with self.lock:
            heapq.heappush(self._heap, (due, next(self._order), timer))
            if self._heap[0][2] is timer:
                self._changed.notify_all()
        return timer

    def after(self, simulated_seconds: float, job: Callable[[], None]) -> Timer:
        return self.at(time.monotonic() + simulated_seconds / self.speed, job)

    def _run(self) -> None:
        with self.lock:
            while not self._stopping:
                now = time.monotonic()
                if not self._heap or self._heap[0][0] > now:
                    self._changed.wait(self._heap[0][0] - now if self._heap else None)
                    continue
                due, _, timer = heapq.heappop(self._heap)
                job = timer.job
                if job is None:
                    continue
                self.worst_lag = max(self.worst_lag, now - due)
                try:
                    job()
                except Exception:
                    # An error of one call must not stop the clock for all others. The log shows the bug.
                    log.exception("a job of the simulation failed")
