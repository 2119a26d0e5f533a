"""Run a real PostgreSQL server that can be stopped, frozen and limited, and PgBouncer in front of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from simulator.postgres import server_in
from simulator.processes import children, free_port

PASSWORD = "two words: 100% @ /?#"  # noqa: S105 - of a server that runs for a minute


class Postgres:
    """The server. The service uses its maintenance database."""

    def __init__(self, folder: Path) -> None:
        self._server = server_in(folder)
        self._server.start()
        self.maintenance_url = str(self._server.get_uri())
        self.folder = self._server.pgdata

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, database: str | None = None, user: str | None = None, password: str | None = None) -> str:
        """Return the service's URL of another database, or of the same for another user."""
        url = make_url(self.maintenance_url).set(
            drivername="postgresql+psycopg", database=database, username=user, password=password
        )
        return url.render_as_string(hide_password=False)

    def execute(self, *statements: str) -> None:
        """Run these statements as the superuser."""
        with psycopg.connect(self.maintenance_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def stop(self) -> None:
        """Stop at once, like a crash."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        for left in self.folder.glob(".s.PGSQL.*"):
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
        main = int((self.folder / "postmaster.pid").read_text().split()[0])
        return [main, *children(main)]

    @contextmanager
    def connections_taken(self) -> Iterator[None]:
        """Take every connection that the server allows, and end those of the service."""
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

    @contextmanager
    def limited_to(self, connections: int) -> Iterator[None]:
        """Restart the server with this limit of connections."""
        for statement in (f"ALTER SYSTEM SET max_connections = {connections}", "ALTER SYSTEM RESET max_connections"):
            self.execute(statement)
            self.stop()
            self.start()
            if "SET" in statement.split():
                yield

    @contextmanager
    def a_user_with_a_password(self) -> Iterator[str]:
        """Yield the URL of a user with a password, which contains a space and other special characters."""
        rules = self.folder / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"local all careful scram-sha-256\n{before}")
        self.execute(f"CREATE ROLE careful LOGIN SUPERUSER PASSWORD '{PASSWORD}'", "SELECT pg_reload_conf()")
        try:
            yield self.url_of(user="careful", password=PASSWORD)
        finally:
            rules.write_text(before)
            self.execute("SELECT pg_reload_conf()", "DROP ROLE careful")

    @contextmanager
    def behind_pgbouncer(self, folder: Path) -> Iterator[str]:
        """Yield the URL of a pool in transaction mode, as small as people have it."""
        port, url = free_port(), make_url(self.maintenance_url)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={url.query['host']} user={url.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "pool_mode = transaction\nmax_client_conn = 100\ndefault_pool_size = 10\n"
        )
        with (folder / "pgbouncer.log").open("wb") as log:
            # PgBouncer refuses to run as root: then it runs under the server's account.
            own = ["setpriv", "--reuid", "pgserver", "--clear-groups"] if os.geteuid() == 0 else []
            command = [*own, shutil.which("pgbouncer") or "pgbouncer", str(settings)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}"
        finally:
            process.terminate()
            process.wait(10)
