"""Send calls as fast as they are answered (wrk), or at given times. Check every answer."""

from __future__ import annotations

import json
import random
import selectors
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("calls.lua")
CONNECTIONS = 16
CALLER, CALLERS = "38067111", 10_000  # a caller's number: these digits and four more
MANY = 10_000  # connections: no limit in practice
TIMEOUT_SECONDS = 10.0
PICKUP_SECONDS, END_SECONDS = 0.3, 0.6  # after the question


class LoadError(Exception):
    """Answers were wrong or missing, so that the figures of the run mean nothing."""


class Target(NamedTuple):
    """Where calls are sent. Dialed numbers are `dialed` and two digits, `numbers` of them."""

    port: int
    path: str
    dialed: str
    numbers: int = 1


class Planned(NamedTuple):
    """A request to send `due` seconds after the start. `is_question`: its answer names a destination."""

    due: float
    request: bytes
    is_question: bool = True


class Latencies(NamedTuple):
    """The latencies that the caller measured, in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float


def closed_loop(target: Target, seconds: int, *, run: str) -> Latencies:
    """Ask again on each connection as soon as it is answered. `run`: a unique text, for unique call ids."""
    url = f"http://127.0.0.1:{target.port}{target.path}"
    pressure = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--timeout", "10s"]
    questions = ["--", run, target.dialed, str(target.numbers), CALLER]
    command = ["wrk", *pressure, "--latency", "--script", str(SCRIPT), url, *questions]
    wrk = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in wrk.stdout.splitlines() if line.startswith("BENCH\t")]
    if wrk.returncode or not found:
        raise LoadError(f"wrk failed: {wrk.stdout}{wrk.stderr}")
    *figures, example = found[0].removeprefix("BENCH\t").split("\t")
    requests, micros, p50, p95, p99, failed, wrong = map(int, figures)
    if failed or wrong or not requests:
        raise LoadError(f"{url}: {requests} answers, {failed} connections failed, {wrong} answers wrong: {example}")
    return Latencies(requests, micros / 1e6, p50 / 1000, p95 / 1000, p99 / 1000)


def steady(per_second: float, count: int) -> list[float]:
    """Return the times of `count` calls at equal distances, in seconds from the start."""
    return [number / per_second for number in range(count)]


def by_chance(per_second: float, seconds: float, *, seed: int = 1, bursts: bool = False) -> list[float]:
    """Return the random times of calls (a Poisson process). With `bursts`, there are a quarter more in every fifth
    second.
    """
    dice = random.Random(seed)
    due: list[float] = []
    at = 0.0
    while at < seconds:
        due.append(at)
        share = 1.0 if not bursts else 1.25 if int(at) % 5 == 4 else 0.9375
        at += dice.expovariate(per_second * share)
    return due


def questions(target: Target, due: Iterable[float], run: str) -> list[Planned]:
    """Return a question for each time. `run`: a unique text, for unique call ids."""
    return [Planned(at, _question(target, f"{run}.{number}", number)) for number, at in enumerate(due)]


def whole_calls(target: Target, due: Iterable[float], run: str) -> list[Planned]:
    """Return the requests of calls that somebody picks up and that end: a question and two events each."""
    planned: list[Planned] = []
    for number, at in enumerate(due):
        call_id = f"{run}.{number}"
        pickup = {"event": "pickup", "uniqueid": call_id}
        end = {"event": "after_call", "uniqueid": call_id, "disposition": "ANSWERED", "billsec": "1"}
        planned.append(Planned(at, _question(target, call_id, number)))
        planned.append(Planned(at + PICKUP_SECONDS, _post(target, "/event", pickup), is_question=False))
        planned.append(Planned(at + END_SECONDS, _post(target, "/event", end), is_question=False))
    return sorted(planned)


class _Connection:
    """A connection with one request."""

    def __init__(self, port: int, planned: Planned, due: float) -> None:
        self.due = due
        self.request, self._is_question = planned.request, planned.is_question
        self.answer = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))

    def is_right(self) -> bool:
        head, _, body = self.answer.partition(b"\r\n\r\n")
        try:
            return head.startswith(b"HTTP/1.1 200 ") and (
                not self._is_question or bool(json.loads(body)["destination"])
            )
        except (ValueError, LookupError):
            return False


def scheduled(port: int, due: Sequence[Planned], connections: int = MANY) -> Latencies:
    """Send each request when it is due, whether or not earlier ones have been answered. Latency counts from that time,
    so that a server that falls behind cannot hide it. `due`: in order. `connections`: the most at a time.
    """
    latencies: list[float] = []
    wrong: list[bytes] = []
    waiting = deque(due)
    open_connections = 0
    with selectors.DefaultSelector() as selector:
        began = time.monotonic() + 0.05
        while waiting or open_connections:
            now = time.monotonic()
            while waiting and began + waiting[0].due <= now and open_connections < connections:
                planned = waiting.popleft()
                connection = _Connection(port, planned, began + planned.due)
                selector.register(connection.socket, selectors.EVENT_WRITE, connection)
                open_connections += 1
            pause = began + waiting[0].due - now if waiting and open_connections < connections else TIMEOUT_SECONDS
            events = selector.select(max(0.0, pause))
            if not events and (not waiting or open_connections >= connections):
                raise LoadError(f"{open_connections} of {len(due)} requests were not answered in {TIMEOUT_SECONDS:g} s")
            for key, mask in events:
                connection = key.data
                try:
                    if mask & selectors.EVENT_WRITE:
                        connection.socket.send(connection.request)
                        selector.modify(connection.socket, selectors.EVENT_READ, connection)
                        continue
                    data = connection.socket.recv(65536)
                except OSError as error:
                    data, connection.answer = b"", repr(error).encode()
                connection.answer += data
                if not data:
                    latencies.append((time.monotonic() - connection.due) * 1000)
                    if not connection.is_right():
                        wrong.append(connection.answer)
                    selector.unregister(connection.socket)
                    connection.socket.close()
                    open_connections -= 1
    if wrong:
        raise LoadError(f"{len(wrong)} of {len(due)} answers wrong: {wrong[0][:300]!r}")
    latencies.sort()
    p50, p95, p99 = (latencies[min(len(due) - 1, int(len(due) * share))] for share in (0.5, 0.95, 0.99))
    return Latencies(len(due), time.monotonic() - began, p50, p95, p99)


def _question(target: Target, call_id: str, number: int) -> bytes:
    question = {
        "uniqueid": call_id,
        "userfield": f"{CALLER}{number % CALLERS:04}",
        "dst": f"{target.dialed}{number % target.numbers:02}",
        "call_type": "in",
        "step_forward": "webhookNumber%3A120",
        "utm_source": "google",
    }
    return _post(target, "", question)


def _post(target: Target, below: str, body: Mapping[str, str]) -> bytes:
    text = json.dumps(body)
    return (
        f"POST {target.path}{below} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()
