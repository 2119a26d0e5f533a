"""SCENARIOS: name → fault while calls go on. Each function breaks something, waits, and repairs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import psycopg
import requests

from chaos import clients
from chaos.caller import BUDGET_SECONDS
from chaos.postgres import PASSWORD
from chaos.stage import RELATIVE, Contained, Stage, decisions, full, small_disk
from simulator.service import Service

OLD_CALLS = 20_000
CALLS = 60_000  # for a download that is larger than all buffers
OTHER_CALLS = 40
WORST_MS = 300  # limit for a call, whatever other clients do
FEW = 5  # calls that a busy machine may answer without the database, though it works
WRITTEN_SECONDS = 12.0  # within which decisions and events of an outage must be written
PEOPLE = 8
KILLS = 3
SECONDS = 6.0  # how long most faults last


class Scenario(NamedTuple):
    """A fault. `kinds`: the databases on which it makes sense. `prepare`: a context around the calls, to set things up.
    `lies`: the status API does not show talks, so that a promise may end two readings later. `worst_ms`, `degraded`:
    the slowest call and the number of degraded answers that are allowed, if limited. `needs`: returns why the scenario
    cannot run here, "" if it can.
    """

    run: Callable[[Stage], None]
    kinds: tuple[str, ...] = ("sqlite", "postgres")
    prepare: Callable[[Stage], AbstractContextManager[None]] | None = None
    lies: bool = False
    worst_ms: int | None = None
    degraded: int | None = None
    needs: Callable[[], str] | None = None


def _api_fault(fault: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        stage.pbx.faults["online"] = fault
        stage.pbx.faults["speaking"] = fault
        time.sleep(SECONDS)
        stage.pbx.faults.pop("online")
        stage.pbx.faults.pop("speaking")

    return run


def nothing(stage: Stage) -> None:
    """Cause no fault, for comparison."""
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
    time.sleep(SECONDS)  # the outbox is written


def database_gone_and_workers_killed(stage: Stage) -> None:
    """Kill workers while the database is away: the new ones have never seen it."""
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
    """Hold the database two thirds of the time, as on a disk that others use."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with stage.database_held():
            time.sleep(0.4)
        time.sleep(0.2)


def database_locked(stage: Stage) -> None:
    """Hold locks that every call needs, as another program's long transaction does."""
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
    with full(stage.data_folder):
        time.sleep(SECONDS)
    if stage.postgres is not None:  # the server may have stopped; an operator would start it again
        stage.postgres.stop()
        stage.postgres.start()
    time.sleep(2)


def worker_killed(stage: Stage) -> None:
    """Kill workers while they answer a call: the kills have the same rhythm as the calls."""
    for _ in range(KILLS):
        stage.kill_a_worker()
        time.sleep(SECONDS / KILLS)


def processes_stopped(stage: Stage) -> None:
    """Stop single processes of the service and the database for moments, as on a machine that others use."""
    with stage.stuttering():
        time.sleep(SECONDS)


def keeper_killed(stage: Stage) -> None:
    stage.kill_the_keeper()
    time.sleep(SECONDS)


def workers_reloaded(stage: Stage) -> None:
    stage.reload()
    time.sleep(SECONDS)


def release_rolled_out(stage: Stage) -> None:
    """Run the next release's migration under the old processes, then start new ones."""
    with stage.schema_of_the_next_release():
        time.sleep(2)
        stage.replace_service()
        time.sleep(2)


def old_calls_pruned(stage: Stage) -> None:
    """Delete calls that are past their retention."""
    stage.service.run("prune")


@contextmanager
def _many_old_calls(stage: Stage) -> Iterator[None]:
    stage.add_old_calls(OLD_CALLS)
    yield


def _beside(
    count: int, job: Callable[..., None], address: Callable[[Stage], tuple[str, ...]]
) -> Callable[[Stage], None]:
    """Return a scenario with `count` clients of a kind."""

    def run(stage: Stage) -> None:
        with clients.at_work(count, job, *address(stage)):
            time.sleep(SECONDS)

    return run


@contextmanager
def _signed_in(stage: Stage) -> Iterator[None]:
    assert stage.visitor
    yield


@contextmanager
def _many_calls(stage: Stage) -> Iterator[None]:
    stage.add_calls(CALLS)
    with _signed_in(stage):
        yield


def _as_visitor(stage: Stage) -> tuple[str, ...]:
    return stage.service.url, stage.visitor


_look_at_pages = _beside(PEOPLE, clients.hammer, _as_visitor)


def two_installations(stage: Stage) -> None:
    """Take the database of another installation on this host away: ours must not be affected."""
    other, prefix, answered = stage.other, f"other-{time.time_ns():x}", set()
    assert other is not None
    hook = other.hook_url("acme")
    with stage.its_database_away(other):
        for number in range(OTHER_CALLS):
            call = {"uniqueid": f"{prefix}-{number}", "caller": "380501112233", "destination": "380441112233"}
            with suppress(requests.RequestException):
                if requests.get(hook, params=call, timeout=BUDGET_SECONDS).ok:
                    answered.add(call["uniqueid"])
            time.sleep(SECONDS / OTHER_CALLS)
    if len(answered) < OTHER_CALLS:
        stage.complaints.append(f"the other installation lost {OTHER_CALLS - len(answered)} calls")
    deadline = time.monotonic() + WRITTEN_SECONDS
    while answered - decisions(other, prefix).keys() and time.monotonic() < deadline:
        time.sleep(0.5)
    if left := len(answered - decisions(other, prefix).keys()):
        stage.complaints.append(f"{left} calls of the other installation were not recorded")
    if strangers := len(decisions(stage.service, prefix)):
        stage.complaints.append(f"{strangers} calls of the other installation are in our database")


@contextmanager
def _beside_another_installation(stage: Stage) -> Iterator[None]:
    with (
        stage.started_by(DATABASE_URL=stage.database_url if stage.postgres else RELATIVE),
        stage.another_installation(),
    ):
        yield


def shared_memory_full(stage: Stage) -> None:
    """Fill the shared memory of running processes and of new ones."""
    with full(Path(f"/proc/{stage.service.pid}/root/dev/shm")):
        time.sleep(SECONDS / 2)
        stage.reload()
        time.sleep(SECONDS)


@contextmanager
def _small_shared_memory(stage: Stage) -> Iterator[None]:
    mounted = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$0" "$@"'
    with stage.started_by("unshare", "--mount", "sh", "-c", mounted):
        yield


def outbox_full(stage: Stage) -> None:
    """Fill the outbox's disk in an outage."""
    with full(stage.outbox), stage.database_held():
        time.sleep(SECONDS)


@contextmanager
def _small_outbox(stage: Stage) -> Iterator[None]:
    with small_disk(stage.outbox, "8m"), stage.started_by():
        yield


@contextmanager
def _behind_pgbouncer(stage: Stage) -> Iterator[None]:
    assert stage.postgres is not None
    with stage.postgres.behind_pgbouncer(stage.folder) as url, stage.started_by(DATABASE_URL=url):
        yield


@contextmanager
def _with_a_password(stage: Stage) -> Iterator[None]:
    assert stage.postgres is not None
    with stage.postgres.a_user_with_a_password() as url, stage.started_by(DATABASE_URL=url):
        yield
        logged = stage.service.log_text()
        if any(words in logged for words in (PASSWORD, quote(PASSWORD), quote_plus(PASSWORD))):
            stage.complaints.append("the database's password is in the log")


@contextmanager
def _ten_connections(stage: Stage) -> Iterator[None]:
    assert stage.postgres is not None
    assert stage.visitor
    stage.service.stop()
    with stage.postgres.limited_to(10):
        stage.restart_with()
        yield
        stage.service.stop()
    stage.restart_with()


def foreign_encoding(stage: Stage) -> None:
    """Check that a database in LATIN1 is refused at the start, with the remedy."""
    assert stage.postgres is not None
    stage.postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    folder = stage.folder / "latin"
    folder.mkdir()
    try:
        with Service(folder, stage.postgres.url_of("latin"), processes=1, ENVIRONMENT="production"):
            stage.complaints.append("a database in LATIN1 is served")
    except RuntimeError as refused:
        if not ("LATIN1" in str(refused) and re.search("UTF-?8", str(refused))):
            stage.complaints.append(f"a database in LATIN1 is refused without the remedy: {str(refused)[-300:]}")
    stage.postgres.execute("DROP DATABASE latin WITH (FORCE)")


def containers_replaced(stage: Stage) -> None:
    """Replace the container twice, with the same process ids, while something waits in the outbox."""
    for _ in range(2):
        with stage.database_held():
            time.sleep(2)
        stage.replace_service()
        time.sleep(2)


@contextmanager
def _contained(stage: Stage) -> Iterator[None]:
    with stage.started_by(kind=Contained):
        yield


def log_disk_full(stage: Stage) -> None:
    time.sleep(SECONDS)


@contextmanager
def _log_to_a_full_disk(stage: Stage) -> Iterator[None]:
    stage.restart_with(log=Path("/dev/full"))
    yield
    stage.restart_with()


def clock_stepped_back(stage: Stage) -> None:
    (stage.folder / "clock").write_text("-120")
    # Set forward between two calls: otherwise the copy of a question would count as one asked minutes later.
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


def _root() -> str:
    return "" if os.geteuid() == 0 else "only root may mount and make namespaces"


def _pgbouncer() -> str:
    return "" if shutil.which("pgbouncer") else "there is no pgbouncer; on Debian: apt-get install pgbouncer"


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
    "disk full": Scenario(disk_full, prepare=_tiny_disk, needs=_root),
    "worker killed": Scenario(worker_killed),
    "processes stopped for moments": Scenario(processes_stopped),
    "keeper's process killed": Scenario(keeper_killed),
    "workers reloaded": Scenario(workers_reloaded),
    "release rolled out": Scenario(release_rolled_out),
    "old calls pruned": Scenario(old_calls_pruned, prepare=_many_old_calls),
    "300 slow clients": Scenario(_beside(1, clients.send_slowly, lambda stage: (stage.hook_url,)), worst_ms=WORST_MS),
    "8 forms of one-byte chunks": Scenario(
        _beside(8, clients.send_chunks, lambda stage: (stage.service.url,)), worst_ms=WORST_MS
    ),
    "5 slow downloads": Scenario(
        _beside(5, clients.download_slowly, _as_visitor), prepare=_many_calls, worst_ms=WORST_MS
    ),
    "pages hammered": Scenario(_look_at_pages, prepare=_signed_in, worst_ms=WORST_MS),
    "two installations on one host": Scenario(two_installations, prepare=_beside_another_installation, degraded=FEW),
    "shared memory full": Scenario(shared_memory_full, prepare=_small_shared_memory, degraded=FEW, needs=_root),
    "outbox's disk full": Scenario(outbox_full, prepare=_small_outbox, needs=_root),
    "PgBouncer in transaction mode": Scenario(nothing, POSTGRES, _behind_pgbouncer, degraded=FEW, needs=_pgbouncer),
    "password with a space": Scenario(nothing, POSTGRES, _with_a_password, degraded=FEW),
    "ten connections for everybody": Scenario(_look_at_pages, POSTGRES, _ten_connections, degraded=FEW),
    "database in LATIN1": Scenario(foreign_encoding, POSTGRES, degraded=FEW),
    "containers replaced": Scenario(containers_replaced, prepare=_contained, needs=_root),
    "log disk full": Scenario(log_disk_full, prepare=_log_to_a_full_disk),
    "clock stepped back two minutes": Scenario(clock_stepped_back, SQLITE, _clock_that_can_step),
}
