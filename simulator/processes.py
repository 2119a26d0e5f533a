"""Run a program that listens on $PORT, on this machine only: gunicorn as the Procfile starts it, or another one. Tests,
benchmarks, faults and the rehearsal of a deployment start their servers with it.
"""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from socket import create_server
from typing import Self

ROOT = Path(__file__).parents[1]
SECRET = "s" * 40
START_SECONDS = 60.0
CLOSE = {"Connection": "close"}  # of a request: a connection that is kept open delays the end of the process
GRACE_SECONDS = 40.0  # between TERM and KILL


def free_port() -> int:
    """Return a port that nobody listens on, of those that no kernel gives to clients: it is still free in a moment."""
    while True:
        port = secrets.choice(range(10_000, 30_000))
        with suppress(OSError), create_server(("127.0.0.1", port)):
            return port


def children(pid: int) -> list[int]:
    """Return the ids of the processes that this one started."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except FileNotFoundError:  # macOS; a kernel without CONFIG_PROC_CHILDREN
        listed = subprocess.run(["/usr/bin/pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(child) for child in listed.split()]


def gunicorn(app: str = "router.app:create_app()", *arguments: str, root: Path = ROOT) -> list[str]:
    """Return the command of the Procfile, for its app or another. `arguments`: for gunicorn, such as "-k", "sync"."""
    return [sys.executable, "-m", "gunicorn", "-c", str(root / "gunicorn.conf.py"), *arguments, app]


class Server:
    """A program that listens on $PORT. `folder`: its working directory, and that of its log. `environ`: added to its
    environment.
    """

    def __init__(self, folder: Path, command: Sequence[str], *, name: str = "service", **environ: str) -> None:
        self.folder = self.works_in = folder
        self.command = command
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},  # no others
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "development",  # listens on loopback only
            "SECRET_KEY": SECRET,
            "LOG_FORMAT": "json",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the id of the first process, which starts the others."""
        if self.process is None:
            raise RuntimeError("it is not started")
        return self.process.pid

    def start(self) -> None:
        """Start the program and wait until it answers. Raises RuntimeError with the end of its log."""
        self.launch()
        self.wait_until(self.answers)

    def launch(self) -> None:
        """Start the program without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.works_in, env=self.environ, stdout=log, stderr=log, start_new_session=True
            )

    def answers(self) -> bool:
        """Return whether a process answers, with any status. The port is open before that."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def wait_until(self, is_so: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """Wait for this condition. Raises RuntimeError with the end of the log after so many seconds, or if the program
        ends before.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[-1]}: {self.log_text()[-3000:]}")
            time.sleep(0.02)

    def log_text(self) -> str:
        """Return the text of the log."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def complaints(self) -> str:
        """Return the beginning of the log without lines of level info: it names the first error."""
        return "\n".join(line for line in self.log_text().splitlines() if '"level":"info"' not in line)[:5000]

    def workers(self) -> list[int]:
        """Return the ids of the processes that the first one started."""
        return children(self.pid)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the program as a platform does, if it runs. Raises RuntimeError if it had to be killed."""
        if self.process is None:
            return
        process = self.process
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        self.process = None
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{self.command[-1]} had to be killed after {grace_seconds:g} s") from None
        finally:
            with suppress(ProcessLookupError):  # all processes have ended
                os.killpg(process.pid, signal.SIGKILL)
