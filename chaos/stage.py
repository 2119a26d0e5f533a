"""The service, its database and the demo PBX, with what can be done to them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import psycopg
from sqlalchemy import insert, select, text

from router.config import Settings
from router.db import migrate, models
from router.db.session import Database
from router.db.types import use_encryption_keys
from simulator.cast import make_staff
from simulator.pbx import DemoPbx
from simulator.postgres import server_in
from simulator.processes import SECRET, children, free_port
from simulator.service import Service
from simulator.settings import PbxSettings

AGENTS = 100  # of whom sixty are promised or talk at any time
RING_SECONDS = 2.0
POLL_SECONDS = 1.0  # between two readings
OVERFLOW = "380441234567"
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


class Postgres:
    """A real server of our own, which can be stopped, frozen and starved."""

    def __init__(self, folder: Path) -> None:
        self._server = server_in(folder)
        self._server.start()
        self.maintenance_url = str(self._server.get_uri())
        self._folder = folder / "postgres"

    @property
    def url(self) -> str:
        return self.maintenance_url.replace("postgresql://", "postgresql+psycopg://", 1)

    def stop(self) -> None:
        """At once, as a crash."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pid_file = self._folder / "postmaster.pid"
        time.sleep(0.3)
        pid_file.unlink(missing_ok=True)
        for left in self._folder.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)

    def start(self) -> None:
        for _ in range(20):
            with suppress(Exception):
                self._server.start()
                with psycopg.connect(self.maintenance_url, connect_timeout=2):
                    return
            time.sleep(0.3)
        raise RuntimeError("PostgreSQL did not start again")

    def freeze(self, *, frozen: bool) -> None:
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def backends(self) -> list[int]:
        return self._processes()[1:]

    def _processes(self) -> list[int]:
        main = int((self._folder / "postmaster.pid").read_text().split()[0])
        return [main, *children(main)]

    @contextmanager
    def connections_taken(self) -> Iterator[None]:
        """Every connection that the server allows is somebody else's, and those that were ours are ended."""
        taken = []
        with psycopg.connect(self.maintenance_url, autocommit=True) as ender:
            try:
                for _ in range(2):
                    while True:
                        try:
                            taken.append(psycopg.connect(self.maintenance_url, connect_timeout=2))
                        except psycopg.OperationalError:
                            break
                    ender.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'router'"
                    )
                yield
            finally:
                for connection in taken:
                    connection.close()


class Stage:
    """One service on one kind of database, with the PBX that it asks for presence."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.postgres = Postgres(folder) if kind == "postgres" else None
        self.sqlite_path = folder / "data" / "router.db"
        self.sqlite_path.parent.mkdir(exist_ok=True)
        self.database_url = self.postgres.url if self.postgres else f"sqlite+pysqlite:///{self.sqlite_path}"
        self.environ: dict[str, str] = {}
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
        return Service(
            self.folder,
            self.database_url,
            processes=4 if self.postgres else 2,
            **{"OVERFLOW_DESTINATION": OVERFLOW, **self.environ, **environ},
        )

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

    def decisions(self, prefix: str) -> dict[str, tuple[float, bool]]:
        """What is on record of the calls whose id begins so: when it was decided (time.time()), and was it degraded?"""
        table = models.Decision
        with self.service.database.reading() as session:
            found = session.execute(
                select(table.call_id, table.asked_at, table.degraded).where(table.call_id.startswith(prefix))
            ).all()
        return {call_id: (asked_at.timestamp(), degraded != "") for call_id, asked_at, degraded in found}

    def over(self, prefix: str) -> set[str]:
        """The calls whose id begins so of which it is on record that somebody picked up, and that they are over."""
        table = models.HeardCall
        with self.service.database.reading() as session:
            found = session.scalars(
                select(table).where(table.call_id.startswith(prefix), table.ended_at.is_not(None))
            ).all()
        return {call.call_id for call in found if call.talked}

    def add_old_calls(self, count: int) -> None:
        """Decisions past their time, as many copies of one."""
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
        """Stop this process or that for up to 0.2 s, a few at a time, wherever it happens to be."""
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
        """The web process that holds the lease to poll."""
        with self.service.database.reading() as session:
            holder = session.scalar(select(models.Presence.lease_holder)) or ""
        pid = int([*holder.split(":"), "0", "0"][1])
        if pid:
            os.kill(pid, signal.SIGKILL)

    def reload(self) -> None:
        """New workers for old, as a release on one host does."""
        os.kill(self.service.pid, signal.SIGHUP)

    def replace_service(self) -> None:
        """A release on a platform: the new instance takes the calls, then the old one is told to end."""
        old = self.service
        fresh = self.new_service()
        fresh.start()
        self.service = fresh
        self.hook_url = fresh.hook_url("acme")
        time.sleep(0.5)
        old.stop()

    @property
    def data_folder(self) -> Path:
        """Where the database keeps its files."""
        return self.folder / "postgres" if self.postgres else self.sqlite_path.parent

    @contextmanager
    def database_held(self) -> Iterator[None]:
        """PostgreSQL's processes stand still; SQLite's file is locked by a program that knows nothing of our lock."""
        if self.postgres is not None:
            self.postgres.freeze(frozen=True)
            yield
            self.postgres.freeze(frozen=False)
            return
        with closing(sqlite3.connect(self.sqlite_path, isolation_level=None, timeout=10)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
            holder.execute("ROLLBACK")

    @contextmanager
    def schema_of_the_next_release(self) -> Iterator[None]:
        """A migration to something that this release does not know, as every migration must be: safe for it."""
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
        """The database on a copy of its files, on a disk that can be filled."""
        folder, kept = self.data_folder, self.folder / "kept"
        self.service.stop()
        if self.postgres:
            self.postgres.stop()
        subprocess.run(["cp", "--archive", folder, kept], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=True)
        try:
            subprocess.run(["cp", "--archive", "--no-target-directory", kept, folder], check=True)
            if self.postgres:
                self.postgres.start()
            self.restart_with()
            yield
            self.service.stop()
            if self.postgres:
                self.postgres.stop()
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
        if self.postgres:
            self.postgres.start()
        self.restart_with()

    def restart_with(self, log: Path | None = None, **environ: str) -> None:
        """The service anew, with these variables too, telling its story to `log`."""
        self.service.stop()
        self.service = self.new_service(**environ)
        self.service.log = log or self.service.log
        self.hook_url = self.service.hook_url("acme")
        self.service.start()
