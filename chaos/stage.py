"""Run the service, its database and the demo PBX, and cause faults in them."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from random import Random

import requests
from sqlalchemy import insert, select, text

from bench.log import multiply
from chaos import clients
from chaos.postgres import Postgres
from router.config import Settings, processes_for
from router.db import migrate, models
from router.db.session import Database
from router.db.types import use_encryption_keys
from simulator.cast import make_staff
from simulator.pbx import DemoPbx
from simulator.processes import SECRET, children, free_port
from simulator.service import Service
from simulator.settings import PbxSettings

AGENTS = 100  # about sixty are reserved or talk at any time
RING_SECONDS = 2.0
POLL_SECONDS = 1.0  # between two readings
OVERFLOW = "380441234567"
RELATIVE = "sqlite:///data/router.db"
_STAFF = make_staff(AGENTS)
_AGENTS = ", ".join(f"{{name: {p.logins[0]}, sip_logins: [{p.logins[0]}]}}" for p in _STAFF)
_MEMBERS = ", ".join(f"{{agent: {p.logins[0]}}}" for p in _STAFF)
CONFIG = f"""
projects:
  - name: acme
    overflow: "{OVERFLOW}"
    presence: {{api_url: "${{API_URL}}", auth_key: demo-key, poll_seconds: {POLL_SECONDS:g}, fresh_seconds: 3}}
    agents: [{_AGENTS}]
    groups:
      - {{name: sales, strategy: round_robin, ring_seconds: {RING_SECONDS}, members: [{_MEMBERS}]}}
    rules: [{{name: everyone, groups: [sales]}}]
"""


class Contained(Service):
    """The service as in a container: in its own namespace of process ids, so that its processes have the same ids in
    each container.
    """

    def launch(self) -> None:
        self.command = ["unshare", "--pid", "--fork", "--mount-proc", *self.command]
        super().launch()

    @property
    def pid(self) -> int:
        outside = super().pid
        return next(iter(children(outside)), outside)


def decisions(service: Service, prefix: str) -> dict[str, tuple[float, bool]]:
    """Return the recorded calls whose id has this prefix: when decided (by time.time()), and whether degraded."""
    table = models.Decision
    with service.database.reading() as session:
        found = session.execute(
            select(table.call_id, table.asked_at, table.degraded).where(table.call_id.startswith(prefix))
        ).all()
    return {call_id: (asked_at.timestamp(), degraded != "") for call_id, asked_at, degraded in found}


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk of this folder."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small disk in memory on the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock a SQLite file as a program does that does not use our lock file."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


class Stage:
    """A service on one kind of database, and the PBX that it asks for presence."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.log_start = 0  # length of the log when the scenario began
        self.complaints: list[str] = []  # of the current scenario, besides those about its calls
        self.other: Service | None = None  # another installation, if there is one
        self.service_kind: type[Service] = Service
        self.before_the_command: Sequence[str] = ()
        self.postgres = Postgres(folder) if kind == "postgres" else None
        self.sqlite_path = folder / "data" / "router.db"
        self.sqlite_path.parent.mkdir(exist_ok=True)
        self.database_url = self.postgres.url if self.postgres else f"sqlite+pysqlite:///{self.sqlite_path}"
        self.outbox = folder / "outbox"
        self.outbox.mkdir()
        api_port = free_port()
        settings = PbxSettings(staff=_STAFF, calls_per_minute=0.001, port=api_port)
        self.pbx = DemoPbx(settings)
        use_encryption_keys(Settings.load({"SECRET_KEY": SECRET}).fernet_keys)
        database = Database(self.database_url)
        migrate.upgrade(database)
        database.dispose()
        self.service = self.new_service()
        self.service.configure(CONFIG, API_URL=f"http://127.0.0.1:{api_port}")
        self.hook_url = self.service.hook_url("acme")

    def new_service(self, **environ: str) -> Service:
        given = {"OVERFLOW_DESTINATION": OVERFLOW, "OUTBOX_DIR": str(self.outbox), **environ}
        service = self.service_kind(self.folder, self.database_url, processes=processes_for(self.database_url), **given)
        service.command = [*self.before_the_command, *service.command]
        return service

    @cached_property
    def visitor(self) -> str:
        """The cookie of a viewer of the pages."""
        return clients.sign_in(self.service)

    def start(self) -> None:
        self.pbx.__enter__()
        self.service.start()
        self._wait_for_presence()

    def _wait_for_presence(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with self.service.database.reading() as session:
                if session.scalar(select(models.Presence.snapshot_id)):
                    return
            time.sleep(0.2)
        raise RuntimeError("presence never came")

    def stop(self) -> None:
        self.service.stop()
        self.pbx.__exit__(None, None, None)
        if self.postgres:
            self.postgres.freeze(frozen=False)
            self.postgres.stop()

    def over(self, prefix: str) -> set[str]:
        """Return the calls whose id has this prefix and whose pickup and end are recorded."""
        table = models.HeardCall
        with self.service.database.reading() as session:
            found = session.scalars(
                select(table).where(table.call_id.startswith(prefix), table.ended_at.is_not(None))
            ).all()
        return {call.call_id for call in found if call.talked}

    def add_calls(self, count: int) -> None:
        """Add copies of real decisions, over the last weeks."""
        for number in range(50):
            requests.get(self.hook_url, params={"uniqueid": f"real-{time.time_ns()}-{number}"}, timeout=10)
        with self.service.database.reading() as session:
            project_id = session.scalars(select(models.Project.id)).one()
        multiply(self.service.database, project_id, count, days=20)
        if self.postgres is None:  # weeks of calls are long in the file itself
            with self.service.database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def add_old_calls(self, count: int) -> None:
        """Add `count` equal decisions that are past their retention."""
        with self.service.database.writing() as session:
            project = session.scalars(select(models.Project)).one()
            old = datetime.now(UTC) - timedelta(days=project.keep_days + 1)
            session.execute(
                insert(models.Decision),
                [
                    {
                        "project_id": project.id,
                        "call_id": f"old-{time.time_ns()}-{number}",
                        "step": "",
                        "asked_at": old,
                        "caller": "380501112233",
                        "dialed": "380441112233",
                        "destination": OVERFLOW,
                        "result": "overflow",
                        "config_version": project.version,
                        "latency_us": 1000,
                        "record": {"received": "x" * 2000},
                    }
                    for number in range(count)
                ],
            )

    def kill_a_worker(self) -> None:
        workers = self.service.workers()
        if workers:
            os.kill(workers[0], signal.SIGKILL)

    @contextmanager
    def stuttering(self) -> Iterator[None]:
        """Stop random processes for up to 0.2 s, a few at a time."""
        is_over, dice = threading.Event(), Random(1)

        def stop_one(processes: Callable[[], list[int]]) -> None:
            while not is_over.wait(dice.uniform(0.0, 0.02)):
                with suppress(ProcessLookupError):
                    os.kill(pid := dice.choice(processes()), signal.SIGSTOP)
                    is_over.wait(dice.uniform(0.02, 0.2))
                    os.kill(pid, signal.SIGCONT)

        stoppers = [self.service.workers, self.service.workers]
        if self.postgres:
            stoppers.append(self.postgres.backends)
        threads = [threading.Thread(target=stop_one, args=[processes]) for processes in stoppers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    def kill_the_keeper(self) -> None:
        """Kill the web process that polls presence."""
        with self.service.database.reading() as session:
            holder = session.scalar(select(models.Presence.lease_holder)) or ""
        pid = int([*holder.split(":"), "0", "0"][1])
        if pid:
            os.kill(pid, signal.SIGKILL)

    @contextmanager
    def another_installation(self) -> Iterator[None]:
        """Start another installation of the same user on its own database. A relative DATABASE_URL is equal in both."""
        folder, environ = self.folder / "other", {"OUTBOX_DIR": str(self.outbox)}
        (folder / "data").mkdir(parents=True)
        if self.postgres:
            self.postgres.execute("CREATE DATABASE other")
            url = self.postgres.url_of("other")
        else:
            url = f"sqlite+pysqlite:///{folder}/data/router.db"
            environ["DATABASE_URL"] = RELATIVE
        other = Service(folder, url, processes=2, **environ)
        other.run("db", "upgrade")
        other.configure(CONFIG, API_URL=self.pbx.url)
        try:
            with other:
                self.other = other
                yield
        finally:
            self.other = None
            shutil.rmtree(folder)
            if self.postgres:
                self.postgres.execute("DROP DATABASE other WITH (FORCE)")

    @contextmanager
    def its_database_away(self, other: Service) -> Iterator[None]:
        """Make the other installation's database unusable, and not ours."""
        if self.postgres is None:
            with held(other.folder / "data" / "router.db"):
                yield
            return
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'other'"
        self.postgres.execute("ALTER DATABASE other ALLOW_CONNECTIONS false", ended)
        yield
        self.postgres.execute("ALTER DATABASE other ALLOW_CONNECTIONS true")

    def reload(self) -> None:
        """Replace the workers, as a release on one host does."""
        os.kill(self.service.pid, signal.SIGHUP)

    def replace_service(self) -> None:
        """Replace the service as a release on a platform does: start a new instance, then stop the old one."""
        old = self.service
        fresh = self.new_service()
        fresh.start()
        self.service = fresh
        self.hook_url = fresh.hook_url("acme")
        time.sleep(0.5)
        old.stop()

    @property
    def data_folder(self) -> Path:
        """The folder of the database's files."""
        return self.postgres.folder if self.postgres else self.sqlite_path.parent

    @contextmanager
    def database_held(self) -> Iterator[None]:
        """Stop PostgreSQL's processes, or lock the SQLite file as a program does that does not use our lock file."""
        if self.postgres is not None:
            self.postgres.freeze(frozen=True)
            yield
            self.postgres.freeze(frozen=False)
            return
        with held(self.sqlite_path):
            yield

    @contextmanager
    def schema_of_the_next_release(self) -> Iterator[None]:
        """Migrate to an unknown schema that is safe for this release, as every migration must be."""
        ahead = ["ALTER TABLE decisions ADD COLUMN of_the_next_release VARCHAR"]
        back = ["ALTER TABLE decisions DROP COLUMN of_the_next_release"]
        with self.service.database.writing() as session:
            version = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
            for statement in (*ahead, "UPDATE alembic_version SET version_num = 'next'"):
                session.execute(text(statement))
        yield
        with self.service.database.writing() as session:
            for statement in back:
                session.execute(text(statement))
            session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

    @contextmanager
    def tiny_disk(self) -> Iterator[None]:
        """Move a copy of the database to a small disk that can be filled."""
        folder, kept = self.data_folder, self.folder / "kept"
        self.service.stop()
        if self.postgres:
            self.postgres.stop()
        subprocess.run(["cp", "--archive", folder, kept], check=True)
        with small_disk(folder, "400m"):
            subprocess.run(["cp", "--archive", "--no-target-directory", kept, folder], check=True)
            if self.postgres:
                self.postgres.start()
            self.restart_with()
            yield
            self.service.stop()
            if self.postgres:
                self.postgres.stop()
        if self.postgres:
            self.postgres.start()
        self.restart_with()

    @contextmanager
    def started_by(self, *words: str, kind: type[Service] = Service, **environ: str) -> Iterator[None]:
        """Restart the service with these words before its command and these variables; restore it afterwards."""
        self.before_the_command, self.service_kind = words, kind
        self.restart_with(None, **environ)
        try:
            yield
        finally:
            self.before_the_command, self.service_kind = (), Service
            self.restart_with()

    def restart_with(self, log: Path | None = None, **environ: str) -> None:
        """Restart the service with these variables, logging to `log`."""
        self.service.stop()
        self.service = self.new_service(**environ)
        self.service.log = log or self.service.log
        self.hook_url = self.service.hook_url("acme")
        self.service.start()
