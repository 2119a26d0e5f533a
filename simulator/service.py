"""Run the service as it is deployed: configured, started, called by a PBX. The only module here that imports router."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from router.config import Settings
from router.configuration import apply, load
from router.db import queries
from router.db.session import Database
from router.db.types import use_encryption_keys
from simulator.pbx import DemoPbx
from simulator.processes import GRACE_SECONDS, Server, free_port, gunicorn
from simulator.settings import PbxSettings


class Service(Server):
    """The service on a migrated database."""

    def __init__(self, folder: Path, database_url: str, *, processes: int = 2, **environ: str) -> None:
        given = {"DATABASE_URL": database_url, "PRESENCE_ALLOW_PRIVATE": "1", **environ}
        super().__init__(folder, gunicorn(), WEB_CONCURRENCY=str(processes), **given)
        # The direct address of the database, even if the processes use another one.
        settings = Settings.load(self.environ | {"DATABASE_URL": database_url})
        use_encryption_keys(settings.fernet_keys)
        self.database = Database(settings.database_url)

    def configure(self, text: str, **values: str) -> None:
        """Apply a configuration file; `values` fill its ${NAME}s."""
        apply(self.database, load(text, values, filename="test.yaml"), actor="test")

    def hook_url(self, project: str) -> str:
        with self.database.reading() as session:
            token = queries.current_token(session, queries.project_named(session, project).id)
        return f"{self.url}/hook/{token}"

    def run(self, *command: str, given: str = "") -> str:
        """Run a command of `router` while the web processes run. Return its output. Raises RuntimeError."""
        words, environ = [sys.executable, "-m", "router", *command], self.environ
        done = subprocess.run(
            words, cwd=self.works_in, env=environ, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"router {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        super().stop(grace_seconds)
        self.database.dispose()


@contextmanager
def serving(
    folder: Path, database_url: str, config: str, pbx_settings: PbxSettings, *, processes: int, **environ: str
) -> Iterator[tuple[Service, DemoPbx]]:
    """Run the service and a PBX that calls it. The file's project `acme` gets the calls; ${API_URL} is the PBX."""
    service = Service(folder, database_url, processes=processes, **environ)
    api_port = free_port()
    service.configure(config, API_URL=f"http://127.0.0.1:{api_port}")
    hook = service.hook_url("acme")
    settings = replace(pbx_settings, port=api_port, hook_url=hook, event_url=f"{hook}/event")
    with DemoPbx(settings) as pbx, service:
        yield service, pbx
