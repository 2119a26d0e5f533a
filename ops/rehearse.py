#!/usr/bin/env python3
"""Plays a hosting platform on one machine: release step, PORT, a router in front, two dynos of two web processes, and a
restart of one after the other with calls going on. Ends with 1 when a call was lost or anything is not as promised.

    .venv/bin/python ops/rehearse.py postgresql://USER@HOST/EMPTY_DATABASE

It knows what a platform knows: the Procfile and the environment. It runs from a clone, where `simulator` is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import secrets
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from simulator.processes import Server

ROOT = Path(__file__).resolve().parents[1]
GRACE_SECONDS = 30  # between TERM and KILL, as Heroku, Render and Fly.io have it
CALLERS = 4
PAUSE_SECONDS = 0.1  # between a caller's questions: as many as people ask, not as many as a machine bears
OVERFLOW = "380440000000"
CONFIG = f"""
projects:
  - name: rehearsal
    overflow: "{OVERFLOW}"
    # Nothing listens there: what is rehearsed is the platform, not presence.
    presence: {{api_url: "https://127.0.0.1:9", auth_key: rehearsal-auth-key, when_unknown: overflow}}
"""


class RehearsalError(RuntimeError):
    """Something is not as promised."""


# ---- what a platform does


def procfile() -> dict[str, str]:
    """Process type → command."""
    return dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines())


def environment(**environ: str) -> dict[str, str]:
    """What a platform sets, and nothing of this shell's but the way to the programs."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "DYNO": "web.1", "PROXY_HOPS": "1", **environ}


def run(command: str, environ: dict[str, str], given: str = "") -> str:
    """Run a one-off process; its output."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environ,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RehearsalError(f"`{command}` ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


class Dyno(Server):
    """One instance of the web process, with a port of its own."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        super().__init__(folder, ["bash", "-c", f"exec {procfile()['web']}"], name=name)
        self.name, self.works_in = name, ROOT
        self.environ = {**environ, "PORT": str(self.port)}

    def end(self) -> float:
        """Stop it within the time that platforms give; return how long it took."""
        began, process = time.monotonic(), self.process
        self.stop(GRACE_SECONDS)
        if process is not None and process.returncode:
            raise RehearsalError(f"{self.name} ended with {process.returncode}: {self.log_text()[-1000:]}")
        return time.monotonic() - began


class PlatformRouter(socketserver.ThreadingTCPServer):
    """What stands in front: takes turns among the dynos in rotation and says whose request it is."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.rotation: list[int] = []
        self._turn = itertools.count()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next_port(self) -> int:
        rotation = self.rotation
        return rotation[next(self._turn) % len(rotation)]


class _Handler(socketserver.BaseRequestHandler):
    server: PlatformRouter

    def handle(self) -> None:
        head, _, body = read_message(self.request).partition(b"\r\n\r\n")
        head += b"\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https"
        with socket.create_connection(("127.0.0.1", self.server.next_port()), timeout=30) as upstream:
            upstream.sendall(head + b"\r\n\r\n" + body)
            while data := upstream.recv(65536):
                self.request.sendall(data)


def read_message(sock: socket.socket) -> bytes:
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := sock.recv(65536)):
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int((re.search(rb"(?i)content-length: *(\d+)", head) or [b"", b"0"])[1])
    while len(body) < length and (more := sock.recv(65536)):
        body += more
    return head + b"\r\n\r\n" + body


class Answer(NamedTuple):
    """Of an HTTP request."""

    status: int
    body: str


def ask(port: int, line: str, body: str = "", *headers: str) -> Answer:
    """One request over a connection of its own, as a PBX sends it."""
    lines = [line, "Host: rehearsal", "Connection: close", f"Content-Length: {len(body.encode())}", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, text = data.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    return Answer(int(words[1]) if len(words) > 1 else 0, text.decode())


# ---- calls going on


class Callers:
    """Ask one after the other until told to stop, each question with an id of its own."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answered, self.lost, self.worst = 0, list[str](), 0.0
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Until so many more were answered."""
        until, deadline = self.answered + count, time.monotonic() + 60
        while self.answered < until:
            if time.monotonic() > deadline:
                raise RehearsalError(f"no {count} calls in a minute; lost so far: {self.lost[:3]}")
            time.sleep(0.02)

    def _run(self, number: int) -> None:
        for call in itertools.count():
            if self._stop.wait(PAUSE_SECONDS):
                return
            question = json.dumps({"call_id": f"rehearsal-{number}-{call}", "userfield": "+380501112233"})
            began = time.monotonic()
            try:
                answer = ask(self._port, f"POST {self._path} HTTP/1.1", question, "Content-Type: application/json")
                good = answer.status == 200 and json.loads(answer.body) == {"destination": OVERFLOW}
                trouble = "" if good else str(answer)
            except (OSError, ValueError) as error:
                trouble = repr(error)
            with self._lock:
                self.answered += 1
                self.worst = max(self.worst, time.monotonic() - began)
                if trouble:
                    self.lost.append(trouble)


# ---- the rehearsal


@contextmanager
def step(what: str) -> Iterator[Callable[[str], None]]:
    """One line of the report. What is given to it is told beside it."""
    began, notes = time.monotonic(), [""]
    yield notes.append
    print(f"{what:<58}ok {time.monotonic() - began:6.1f} s  {' '.join(notes)}", flush=True)


def rehearse(database_url: str, folder: Path) -> None:
    """Everything on PostgreSQL."""
    secret = secrets.token_urlsafe(48)
    environ = environment(
        DATABASE_URL=database_url, SECRET_KEY=secret, PUBLIC_URL="https://router.example.com", WEB_CONCURRENCY="2"
    )
    with step("release step"):
        run(procfile()["release"], environ)
        run("router db check", environ)
    with step("configuration"):
        run("router config apply -", environ, CONFIG)
        url = run("router hook-url rehearsal", environ).strip()
        if not url.startswith("https://router.example.com/hook/"):
            raise RehearsalError(f"the hook's URL is not under PUBLIC_URL: {url}")
    path = url.removeprefix("https://router.example.com")
    dynos: list[Dyno] = []
    with PlatformRouter() as router:
        try:
            with step("two dynos of two web processes come up"):
                dynos += [Dyno(f"web.{number}", folder, environ) for number in (1, 2)]
                for dyno in dynos:
                    dyno.start()
                router.rotation = [dyno.port for dyno in dynos]
                check_ready(router.port)
            with Callers(router.port, path) as callers:
                with step("calls"):
                    callers.wait_for(50)
                for number, old in enumerate(list(dynos), start=3):
                    with step(f"{old.name} is replaced with calls going on") as tell:
                        fresh = Dyno(f"web.{number}", folder, environ)
                        dynos.append(fresh)
                        fresh.start()
                        others = [port for port in router.rotation if port != old.port]
                        router.rotation = [*others, fresh.port]
                        tell(f"TERM to end: {old.end():.1f} s")
                        callers.wait_for(25)
            with step("what was answered is written down") as tell:
                if callers.lost:
                    raise RehearsalError(f"{len(callers.lost)} calls were lost: {callers.lost[:3]}")
                degraded = check_log_of_calls(database_url, callers.answered)
                worst = callers.worst * 1000
                tell(f"{callers.answered} calls, 0 lost, {degraded} degraded, worst {worst:.0f} ms")
            with step("metrics are closed to strangers"):
                if ask(router.port, "GET /metrics HTTP/1.1").status != 403:
                    raise RehearsalError("/metrics answers whoever asks")
            for dyno in dynos[-2:]:
                dyno.end()
            with step("logs are JSON, without secrets"):
                for dyno in dynos:
                    check_log(dyno.log, [path.rpartition("/")[2], secret, "rehearsal-auth-key"])
        finally:
            router.shutdown()
            for dyno in dynos:
                dyno.stop(GRACE_SECONDS)


def check_ready(port: int) -> None:
    answer = ask(port, "GET /readyz HTTP/1.1")
    if answer.status != 200:
        raise RehearsalError(f"/readyz says {answer}")


def check_log_of_calls(database_url: str, answered: int) -> int:
    """Each call once, those too that were answered without the database for a moment; how many were."""
    import psycopg

    with closing(psycopg.connect(database_url.replace("postgresql+psycopg:", "postgresql:"))) as connection:
        counts = "SELECT count(*), count(DISTINCT call_id), count(*) FILTER (WHERE degraded <> '') FROM decisions"
        deadline = time.monotonic() + 15
        while True:
            written, calls, degraded = connection.execute(counts).fetchone() or (0, 0, 0)
            connection.rollback()
            if written == calls == answered:
                return int(degraded)
            if time.monotonic() > deadline:
                raise RehearsalError(f"{answered} calls were answered, {written} decisions on {calls} are on record")
            time.sleep(0.2)


def check_log(log: Path, secret_texts: list[str]) -> None:
    text = log.read_text(encoding="utf-8")
    for secret in secret_texts:
        if secret in text:
            raise RehearsalError(f"{log.name} holds a secret")
    routed = [line for line in text.splitlines() if '"call routed"' in line]
    if not routed or any(json.loads(line)["caller"] != "380501112233" for line in routed):
        raise RehearsalError(f"{log.name} has no line for its calls: {text[-500:]}")


def rehearse_throw_away_disk(folder: Path) -> None:
    """A platform whose disk does not stay, and nobody who thought of it."""
    with step("SQLite on a disk that is thrown away is refused, and warned about"):
        environ = environment(
            DATABASE_URL=f"sqlite:///{folder}/router.db", SECRET_KEY=secrets.token_urlsafe(48), WEB_CONCURRENCY="1"
        )
        try:
            run(procfile()["release"], environ)
        except RehearsalError as error:
            if "throws this machine away" not in str(error):
                raise
        else:
            raise RehearsalError("a release step filled a database that no web process sees")
        dyno = Dyno("throw-away", folder, environ)
        dyno.launch()
        with suppress(RuntimeError):  # with its log
            dyno.wait_until(dyno.answers)
        dyno.stop()
        if not all(words in dyno.log_text() for words in ("all will be lost", "Refusing to start")):
            raise RehearsalError(f"nothing in the log warns of it: {dyno.log_text()[-1000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Rehearse a deployment on one machine.")
    parser.add_argument("database_url", help="of an empty PostgreSQL database, which is filled and left so")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-rehearsal-") as name:
        try:
            rehearse(given.database_url, Path(name))
            rehearse_throw_away_disk(Path(name))
        except RuntimeError as error:
            print(f"Not as promised: {error}", file=sys.stderr)
            return 1
    print("As promised.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
