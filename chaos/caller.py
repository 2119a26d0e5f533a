"""Call at a steady rate, whatever happens: each call asks the hook once, on its own connection, and is checked.

For every second call the PBX sends events: pickup, then the end. Half of these talks last longer than the reservation.
Every fourth question is asked twice, the second time before the first can be answered.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit

PICKUP_SECONDS = 0.3  # after the answer
TALK_SECONDS = (4.0, 0.5)  # by turns: longer and shorter than the reservation
BUDGET_SECONDS = 1.5  # the default of HOOK_BUDGET_MS: an answer after that is a lost call
TIMEOUT_SECONDS = 8.0
AGAIN_SECONDS = 0.005  # between a question and the same question again
_TICK = 0.01  # tolerance for the difference of two clocks and for the lag of measurements


@dataclass(slots=True)
class Asked:
    """One question and its result. Instants by time.monotonic()."""

    call_id: str
    at: float
    seconds: float = 0.0
    status: int = 0
    destination: str = ""
    problem: str = ""
    ended_at: float = 0.0  # when the PBX reported the end of the call; 0: nobody picks it up
    failed_events: list[str] = field(default_factory=list)  # not answered with 200 in time
    again: str = ""  # the answer to the same question asked again; "": it was not

    @property
    def is_lost(self) -> bool:
        """Whether there was no answer, not 200, no destination, or it took longer than the budget."""
        return bool(self.problem) or self.status != 200 or not self.destination or self.seconds > BUDGET_SECONDS

    @property
    def has_two_answers(self) -> bool:
        """Whether the same question got two different answers."""
        return self.again not in {"", self.destination}


@dataclass
class Callers:
    """Sends `rate` calls a second to `hook_url()`, from start() to stop()."""

    hook_url: Callable[[], str]
    set_state: Callable[[str, str], None]  # sets the state of a login in the PBX's status API: "speaking", "idle"
    rate: float
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._numbers = count(1)
        self._pool = ThreadPoolExecutor(max_workers=128, thread_name_prefix="caller")
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
            if number_of(call) % 4 == 1:
                self._pool.submit(self._ask_again, call)
            due += 1 / self.rate
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _ask(self, call: Asked) -> None:
        began = time.monotonic()
        try:
            call.status, call.destination = self._get("", _question(call))
        except (OSError, http.client.HTTPException) as error:
            call.problem = f"{type(error).__name__}: {error}"
        call.seconds = time.monotonic() - began
        if number_of(call) % 2 == 0 and not call.is_lost and not call.destination.isdigit():
            self._talk(call)

    def _ask_again(self, call: Asked) -> None:
        time.sleep(AGAIN_SECONDS)
        with suppress(OSError, http.client.HTTPException):
            status, destination = self._get("", _question(call))
            call.again = destination if status == 200 else ""

    def _talk(self, call: Asked) -> None:
        time.sleep(PICKUP_SECONDS)
        self.set_state(call.destination, "speaking")
        self._send_event(call, {"event": "pickup", "uniqueid": call.call_id, "connected_with": call.destination})
        self._stop.wait(TALK_SECONDS[number_of(call) // 2 % 2])
        self.set_state(call.destination, "idle")
        call.ended_at = time.monotonic()
        over = {"event": "after_call", "uniqueid": call.call_id, "disposition": "ANSWERED", "billsec": "1"}
        self._send_event(call, over)

    def _send_event(self, call: Asked, event: dict[str, str]) -> None:
        began = time.monotonic()
        try:
            status, _ = self._get("/event", event)
        except (OSError, http.client.HTTPException):
            status = 0
        seconds = time.monotonic() - began
        if status != 200 or seconds > BUDGET_SECONDS:
            call.failed_events.append(f"{event['event']}: {status} after {seconds:.2f} s")

    def _get(self, below: str, query: dict[str, str]) -> tuple[int, str]:
        url = urlsplit(self.hook_url())
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"{url.path}{below}?{urlencode(query)}", headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def number_of(call: Asked) -> int:
    return int(call.call_id.rpartition("-")[2])


def _question(call: Asked) -> dict[str, str]:
    caller = f"38050{number_of(call) % 10**7:07}"
    return {"uniqueid": call.call_id, "caller": caller, "destination": "380441112233"}


def double_promises(
    asked: list[Asked],
    ring_seconds: float,
    overflow: str,
    decided: Mapping[str, float] = MappingProxyType({}),
    degraded: Collection[str] = (),
    *,
    talks_show: bool = True,
) -> list[str]:
    """Return a sentence for each offer of a login that another call held: it was offered less than a lease ago, or its
    talk had not ended. The sentence names both calls and how they were answered.

    `decided`: by call id, the recorded instant of the decision, by time.time(). One that is not between the question
    and its answer comes from a wrong clock: then the time of the answer counts. `degraded`: the calls that were
    answered without the database. `talks_show`: False if the status API does not show talks.
    """
    ahead = time.time() - time.monotonic()

    def promised(call: Asked) -> tuple[float, float]:
        """Return the earliest and the latest instant at which the login was promised."""
        answered_at, on_record = call.at + call.seconds, decided.get(call.call_id, 0.0) - ahead
        is_known = call.at - _TICK <= on_record <= answered_at
        return (on_record, on_record) if is_known else (call.at, answered_at)

    def described(call: Asked) -> str:
        how = "without the database" if call.call_id in degraded else "through the database"
        return f"{call.call_id} {how} between {promised(call)[0]:.3f} and {promised(call)[1]:.3f}"

    held: dict[str, tuple[float, Asked]] = {}  # login → held until, by which call
    doubles: list[str] = []
    for call in sorted(
        (one for one in asked if one.destination not in {"", overflow}), key=lambda one: promised(one)[1]
    ):
        earliest, latest = promised(call)
        until, holder = held.get(call.destination, (0.0, call))
        if latest + _TICK < until:
            doubles.append(f"{call.destination}: {described(holder)}, held until {until:.3f}, and {described(call)}")
        lease_ends = earliest + ring_seconds
        ends = call.ended_at or lease_ends
        held[call.destination] = (ends if talks_show else min(ends, lease_ends), call)
    return doubles
