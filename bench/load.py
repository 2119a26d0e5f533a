"""Calls from outside: as fast as they are answered (wrk), or at a steady pace. Every answer is checked."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("calls.lua")
CONNECTIONS = 16


class LoadError(Exception):
    """Answers were wrong or missing: figures of such a run mean nothing."""


class Target(NamedTuple):
    """Where calls go. Dialed numbers are `dialed` and two digits, `numbers` of them; callers `caller` and four."""

    port: int
    path: str
    dialed: str
    numbers: int = 1
    caller: str = "38067111"


class Latencies(NamedTuple):
    """What the caller saw. Latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float


def closed_loop(target: Target, seconds: int, *, run: str) -> Latencies:
    """Each connection asks again as soon as it is answered. `run`: unique, makes the call ids unique."""
    url = f"http://127.0.0.1:{target.port}{target.path}"
    pressure = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--timeout", "10s"]
    questions = ["--", run, target.dialed, str(target.numbers), target.caller]
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


def steady(target: Target, count: int, *, run: str, per_second: float) -> Latencies:
    """So many calls at a pace that does not wait for answers. Latency counts from when the call was due."""
    latencies: list[float] = []
    wrong: list[str] = []

    def ask(number: int, due: float) -> None:
        try:
            answer = _ask(target, f"{run}.{number}", number)
        except OSError as error:
            answer = repr(error)
        latencies.append((time.monotonic() - due) * 1000)
        if not answer.startswith("200 ") or not json.loads(answer[4:])["destination"]:
            wrong.append(answer)

    began = time.monotonic() + 0.05
    threads = []
    for number in range(count):
        due = began + number / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        threads.append(threading.Thread(target=ask, args=(number, due)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if wrong:
        raise LoadError(f"{len(wrong)} of {count} answers wrong: {wrong[0][:300]}")
    latencies.sort()
    p50, p95, p99 = (latencies[min(count - 1, int(count * share))] for share in (0.5, 0.95, 0.99))
    return Latencies(count, time.monotonic() - began, p50, p95, p99)


def _ask(target: Target, call_id: str, number: int) -> str:
    body = {
        "uniqueid": call_id,
        "userfield": f"{target.caller}{number % 10_000:04}",
        "dst": f"{target.dialed}{number % target.numbers:02}",
        "call_type": "in",
        "step_forward": "webhookNumber%3A120",
        "utm_source": "google",
    }
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", target.path, json.dumps(body), headers)
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"
    finally:
        connection.close()
