"""SCENARIOS: name → what goes wrong while calls go on. Each function breaks something, waits, and mends it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import psycopg

from chaos.stage import Stage

OLD_CALLS = 20_000
PEOPLE = 8
KILLS = 3
SECONDS = 6.0  # how long a fault lasts, unless it says otherwise


class Scenario(NamedTuple):
    """`kinds`: the databases on which it makes sense. `prepare`: around the calls, for what must be set up before.
    `lies`: the status API denies who talks, so that a promise may be over two readings later.
    """

    run: Callable[[Stage], None]
    kinds: tuple[str, ...] = ("sqlite", "postgres")
    prepare: Callable[[Stage], AbstractContextManager[None]] | None = None
    lies: bool = False


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
    time.sleep(60)
    stage.postgres.start()
    time.sleep(SECONDS)  # while what was put off is written


def database_gone_and_workers_killed(stage: Stage) -> None:
    """Those that take their place have never seen the database."""
    assert stage.postgres is not None
    stage.postgres.stop()
    for _ in range(KILLS):
        time.sleep(SECONDS / KILLS)
        stage.kill_a_worker()
    time.sleep(SECONDS)
    stage.postgres.start()
    time.sleep(2)


def database_frozen(stage: Stage) -> None:
    with stage.database_held():
        time.sleep(SECONDS)


def database_slow(stage: Stage) -> None:
    """Two thirds of the time nothing moves, as on a disk that others use."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with stage.database_held():
            time.sleep(0.4)
        time.sleep(0.2)


def database_locked(stage: Stage) -> None:
    """A long transaction of somebody else holds what every call needs."""
    if stage.postgres is not None:
        with psycopg.connect(stage.postgres.maintenance_url) as holder:
            holder.execute("LOCK TABLE decisions, reservations IN ACCESS EXCLUSIVE MODE")
            time.sleep(SECONDS)
            holder.rollback()
        return
    with stage.database_held():
        time.sleep(SECONDS)


def connections_exhausted(stage: Stage) -> None:
    assert stage.postgres is not None
    with stage.postgres.connections_taken():
        time.sleep(SECONDS)


def disk_full(stage: Stage) -> None:
    filler = stage.data_folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 512):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    time.sleep(SECONDS)
    filler.unlink()
    if stage.postgres is not None:  # it may have given up: somebody frees the disk and starts it again
        stage.postgres.stop()
        stage.postgres.start()
    time.sleep(2)


def worker_killed(stage: Stage) -> None:
    """In the midst of a call: calls come at multiples of the same interval."""
    for _ in range(KILLS):
        stage.kill_a_worker()
        time.sleep(SECONDS / KILLS)


def processes_stopped(stage: Stage) -> None:
    """Each web process, and each of the database's, stands still for moments, as on a machine that others use."""
    with stage.stuttering():
        time.sleep(SECONDS)


def keeper_killed(stage: Stage) -> None:
    stage.kill_the_keeper()
    time.sleep(SECONDS)


def workers_reloaded(stage: Stage) -> None:
    stage.reload()
    time.sleep(SECONDS)


def release_rolled_out(stage: Stage) -> None:
    """The next release's migration under the old processes, then the new ones."""
    with stage.schema_of_the_next_release():
        time.sleep(2)
        stage.replace_service()
        time.sleep(2)


def old_calls_pruned(stage: Stage) -> None:
    """Retention deletes what is past its time, beside the calls."""
    stage.service.run("prune")


@contextmanager
def _many_old_calls(stage: Stage) -> Iterator[None]:
    stage.add_old_calls(OLD_CALLS)
    yield


def pages_hammered(stage: Stage) -> None:
    """More people ask for pages than the service has processes, without a pause."""
    until = time.monotonic() + SECONDS

    def look() -> None:
        while time.monotonic() < until:
            with suppress(OSError), urlopen(f"{stage.service.url}/sign-in", timeout=5) as page:  # noqa: S310 - ours
                page.read()

    people = [threading.Thread(target=look) for _ in range(PEOPLE)]
    for one in people:
        one.start()
    for one in people:
        one.join()


def log_disk_full(stage: Stage) -> None:
    time.sleep(SECONDS)


@contextmanager
def _log_to_a_full_disk(stage: Stage) -> Iterator[None]:
    stage.restart_with(log=Path("/dev/full"))
    yield
    stage.restart_with()


def clock_stepped_back(stage: Stage) -> None:
    (stage.folder / "clock").write_text("-120")
    # Between two calls: to a clock that is set forward, the second of two copies is a question asked minutes later.
    time.sleep(SECONDS + 0.025)
    (stage.folder / "clock").write_text("0")
    time.sleep(1)


@contextmanager
def _clock_that_can_step(stage: Stage) -> Iterator[None]:
    library = stage.folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    (stage.folder / "clock").write_text("0")
    stage.restart_with(LD_PRELOAD=str(library), CLOCK_FILE=str(stage.folder / "clock"))
    yield
    stage.restart_with()


@contextmanager
def _tiny_disk(stage: Stage) -> Iterator[None]:
    with stage.tiny_disk():
        yield


POSTGRES = ("postgres",)
SQLITE = ("sqlite",)
SCENARIOS: dict[str, Scenario] = {
    "nothing": Scenario(nothing),
    "status API dead": Scenario(_api_fault("dead")),
    "status API hanging": Scenario(_api_fault("hang")),
    "status API trickling a byte a second": Scenario(_api_fault("trickle")),
    "status API flapping": Scenario(_api_fault("flapping")),
    "status API lying": Scenario(_api_fault("lying"), lies=True),
    "database restarted": Scenario(database_restarted, POSTGRES),
    "database gone for a minute": Scenario(database_gone, POSTGRES),
    "database gone, workers killed": Scenario(database_gone_and_workers_killed, POSTGRES),
    "database frozen": Scenario(database_frozen, POSTGRES),
    "database slow": Scenario(database_slow),
    "database locked by a long transaction": Scenario(database_locked),
    "connections exhausted": Scenario(connections_exhausted, POSTGRES),
    "disk full": Scenario(disk_full, prepare=_tiny_disk),
    "worker killed": Scenario(worker_killed),
    "processes stopped for moments": Scenario(processes_stopped),
    "keeper's process killed": Scenario(keeper_killed),
    "workers reloaded": Scenario(workers_reloaded),
    "release rolled out": Scenario(release_rolled_out),
    "old calls pruned": Scenario(old_calls_pruned, prepare=_many_old_calls),
    "pages hammered": Scenario(pages_hammered),
    "log disk full": Scenario(log_disk_full, prepare=_log_to_a_full_disk),
    "clock stepped back two minutes": Scenario(clock_stepped_back, SQLITE, _clock_that_can_step),
}
