"""Start PostgreSQL with its default settings; measure CPU time and memory of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from sqlalchemy.engine import make_url

from simulator.postgres import server_in
from simulator.processes import children

_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")  # µs


class Postgres(NamedTuple):
    """A running PostgreSQL server: its postmaster's pid and the URL of its maintenance database."""

    pid: int
    url: str

    def new_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Start a new server with PostgreSQL's default settings, which write each commit to disk."""
    server = server_in(folder)
    server.start()
    try:
        yield Postgres(server.get_pid() or 0, server.get_uri())
    finally:
        server.stop()


def cpu_micros(pid: int) -> float:
    """Return the CPU time of the process and its living children so far: user and system, all threads, in µs."""
    return sum(_ticks(each) for each in (pid, *children(pid))) * _TICK


def largest_megabytes(pid: int) -> float:
    """Return the resident memory of the largest of a process's children."""
    return max(map(_resident_kilobytes, children(pid)), default=0) / 1024


def _resident_kilobytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return int(status.partition("VmRSS:")[2].split()[0])


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
