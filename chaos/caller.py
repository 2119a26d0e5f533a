"""Callers at a steady rate, whatever happens: each asks the hook once, on a connection of its own, and is judged."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlencode, urlsplit

BUDGET_SECONDS = 1.5  # the default of HOOK_BUDGET_MS: an answer after that is a lost call
PATIENCE_SECONDS = 8.0


@dataclass(slots=True)
class Asked:
    """One question and what became of it. Instants of time.monotonic()."""

    call_id: str
    at: float
    seconds: float = 0.0
    status: int = 0
    destination: str = ""
    problem: str = ""

    @property
    def is_lost(self) -> bool:
        """No answer, not 200, no destination, or over budget."""
        return bool(self.problem) or self.status != 200 or not self.destination or self.seconds > BUDGET_SECONDS


@dataclass
class Callers:
    """`rate` calls a second to `hook_url()`, from start() to stop()."""

    hook_url: Callable[[], str]
    rate: float
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._numbers = count(1)
        self._pool = ThreadPoolExecutor(max_workers=96, thread_name_prefix="caller")
        self._thread = threading.Thread(target=self._run, name="callers", daemon=True)
        self._run_id = f"{time.time_ns():x}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            call = Asked(f"chaos-{self._run_id}-{next(self._numbers)}", time.monotonic())
            self.asked.append(call)
            self._pool.submit(self._ask, call)
            due += 1 / self.rate
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _ask(self, call: Asked) -> None:
        number = int(call.call_id.rpartition("-")[2])
        query = {"uniqueid": call.call_id, "caller": f"38050{number % 10**7:07}", "destination": "380441112233"}
        began = time.monotonic()
        try:
            url = urlsplit(self.hook_url())
            connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE_SECONDS)
            try:
                connection.request("GET", f"{url.path}?{urlencode(query)}", headers={"Connection": "close"})
                response = connection.getresponse()
                call.destination = response.read().decode()
                call.status = response.status
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            call.problem = f"{type(error).__name__}: {error}"
        call.seconds = time.monotonic() - began


def double_promises(asked: list[Asked], ring_seconds: float, overflow: str, since: float = 0.0) -> int:
    """Offers of a login that another call had been given less than a lease ago, among calls asked after `since`."""
    last: dict[str, float] = {}
    doubles = 0
    for call in sorted(asked, key=lambda one: one.at + one.seconds):
        if not call.destination or call.destination == overflow:
            continue
        answered = call.at + call.seconds
        # The lease began before the answer came: by the latency at most, which is left in the callers' favour.
        if call.at >= since and answered - last.get(call.destination, -1e9) < ring_seconds - call.seconds - 0.1:
            doubles += 1
        last[call.destination] = answered
    return doubles
