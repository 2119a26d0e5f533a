"""SCENARIOS: name → what goes wrong while calls go on. Each function breaks something, waits, and mends it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from chaos.stage import Stage

SECONDS = 6.0  # how long a fault lasts, unless it says otherwise
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")  # Debian's package libfaketime


class Scenario(NamedTuple):
    """`kinds`: the databases on which it makes sense. `prepare`: around the calls, for what must be set up before."""

    run: Callable[[Stage], None]
    kinds: tuple[str, ...] = ("sqlite", "postgres")
    prepare: Callable[[Stage], AbstractContextManager[None]] | None = None


def _api_fault(fault: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        stage.pbx.faults["online"] = fault
        stage.pbx.faults["speaking"] = fault
        time.sleep(SECONDS)
        stage.pbx.faults.pop("online")
        stage.pbx.faults.pop("speaking")

    return run


def nothing(stage: Stage) -> None:
    """The measure of the others."""
    time.sleep(SECONDS)


def database_restarted(stage: Stage) -> None:
    assert stage.postgres is not None
    stage.postgres.stop()
    stage.postgres.start()
    time.sleep(2)


def database_gone(stage: Stage) -> None:
    assert stage.postgres is not None
    stage.postgres.stop()
    time.sleep(20)
    stage.postgres.start()
    time.sleep(2)


def database_frozen(stage: Stage) -> None:
    assert stage.postgres is not None
    stage.postgres.freeze(frozen=True)
    time.sleep(SECONDS)
    stage.postgres.freeze(frozen=False)


def database_locked(stage: Stage) -> None:
    """A long transaction of somebody else holds what every call needs."""
    if stage.postgres is not None:
        with psycopg.connect(stage.postgres.maintenance_url) as holder:
            holder.execute("LOCK TABLE decisions, reservations IN ACCESS EXCLUSIVE MODE")
            time.sleep(SECONDS)
            holder.rollback()
        return
    with closing(sqlite3.connect(stage.sqlite_path, isolation_level=None, timeout=10)) as holder_:
        holder_.execute("BEGIN IMMEDIATE")
        time.sleep(SECONDS)
        holder_.execute("ROLLBACK")


def connections_exhausted(stage: Stage) -> None:
    assert stage.postgres is not None
    with stage.postgres.connections_taken():
        time.sleep(SECONDS)


def disk_full(stage: Stage) -> None:
    filler = stage.sqlite_path.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
    time.sleep(SECONDS)
    filler.unlink()


def worker_killed(stage: Stage) -> None:
    for _ in range(3):
        stage.kill_a_worker()
        time.sleep(SECONDS / 3)


def keeper_killed(stage: Stage) -> None:
    stage.kill_the_keeper()
    time.sleep(SECONDS)


def workers_reloaded(stage: Stage) -> None:
    stage.reload()
    time.sleep(SECONDS)


def release_rolled_out(stage: Stage) -> None:
    stage.replace_service()
    time.sleep(2)


def log_disk_full(stage: Stage) -> None:
    time.sleep(SECONDS)


@contextmanager
def _log_to_a_full_disk(stage: Stage) -> Iterator[None]:
    stage.restart_with(log=Path("/dev/full"))
    yield
    stage.restart_with()


def clock_stepped_back(stage: Stage) -> None:
    (stage.folder / "clock").write_text("-120\n")
    time.sleep(SECONDS)
    (stage.folder / "clock").write_text("+0\n")
    time.sleep(1)


@contextmanager
def _clock_that_can_step(stage: Stage) -> Iterator[None]:
    (stage.folder / "clock").write_text("+0\n")
    stage.restart_with(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(stage.folder / "clock"),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    yield
    stage.restart_with()


@contextmanager
def _tiny_disk(stage: Stage) -> Iterator[None]:
    kept = stage.folder / "kept"
    stage.service.stop()
    shutil.copytree(stage.sqlite_path.parent, kept, dirs_exist_ok=True)
    with stage.tiny_disk() as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        stage.restart_with()
        yield
        stage.service.stop()
    stage.restart_with()


POSTGRES = ("postgres",)
SQLITE = ("sqlite",)
SCENARIOS: dict[str, Scenario] = {
    "nothing": Scenario(nothing),
    "status API dead": Scenario(_api_fault("dead")),
    "status API hanging": Scenario(_api_fault("hang")),
    "status API trickling a byte a second": Scenario(_api_fault("trickle")),
    "status API flapping": Scenario(_api_fault("flapping")),
    "status API lying": Scenario(_api_fault("lying")),
    "database restarted": Scenario(database_restarted, POSTGRES),
    "database gone for 20 s": Scenario(database_gone, POSTGRES),
    "database frozen": Scenario(database_frozen, POSTGRES),
    "database locked by a long transaction": Scenario(database_locked),
    "connections exhausted": Scenario(connections_exhausted, POSTGRES),
    "disk full": Scenario(disk_full, SQLITE, _tiny_disk),
    "worker killed": Scenario(worker_killed),
    "keeper's process killed": Scenario(keeper_killed),
    "workers reloaded": Scenario(workers_reloaded),
    "release rolled out": Scenario(release_rolled_out),
    "log disk full": Scenario(log_disk_full, prepare=_log_to_a_full_disk),
    "clock stepped back two minutes": Scenario(clock_stepped_back, SQLITE, _clock_that_can_step),
}
