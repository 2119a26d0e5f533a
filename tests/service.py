"""The whole service as it is deployed, for tests: real gunicorn processes on a database of their own, a configured
project, and the demo PBX around it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import requests

from router.config import Settings
from router.config_file import apply, load
from router.db import queries
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.demo.pbx import DemoPbx
from router.demo.settings import PbxSettings
from tests.test_gunicorn_conf import free_port

ROOT = Path(__file__).parents[1]
SECRET = "s" * 40


class Service:
    """Web processes on a migrated database. `environ` adds to their environment."""

    def __init__(self, folder: Path, database_url: str, *, processes: int, **environ: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        self.environ = {
            "DATABASE_URL": database_url,
            "SECRET_KEY": SECRET,
            "ENVIRONMENT": "development",
            "LOG_FORMAT": "json",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(processes),
            "PRESENCE_ALLOW_PRIVATE": "1",
            **environ,
        }
        use_encryption_keys(Settings.load(self.environ).fernet_keys)
        self.database = Database(database_url)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, text: str, **values: str) -> None:
        """Apply a configuration file; `values` fill its ${NAME}s."""
        apply(self.database, load(text, values, filename="test.yaml"), actor="test")

    def hook_url(self, project: str) -> str:
        with self.database.reading() as session:
            token = queries.current_token(session, queries.project_named(session, project).id)
        return f"{self.url}/hook/{token}"

    def start(self) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "router.app:create_app()"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=inherited | self.environ, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{self.url}/healthz", timeout=5).ok:
                    return
            except requests.RequestException:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def run(self, *command: str) -> str:
        """One command of `router` beside the web processes; what it prints."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "router.cli", *command],
            cwd=ROOT,
            env=inherited | self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def workers(self) -> list[int]:
        """The web processes' ids."""
        assert self.process is not None
        return [int(n) for n in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=40)
            self.process = None
        self.database.dispose()


@contextmanager
def serving(
    folder: Path, database_url: str, config: str, pbx_settings: PbxSettings, *, processes: int, **environ: str
) -> Iterator[tuple[Service, DemoPbx]]:
    """The service and a PBX that calls it. The file's project `acme` gets the calls; ${API_URL} is the PBX."""
    service = Service(folder, database_url, processes=processes, **environ)
    api_port = free_port()
    service.configure(config, API_URL=f"http://127.0.0.1:{api_port}")
    hook = service.hook_url("acme")
    settings = replace(pbx_settings, port=api_port, hook_url=hook, event_url=f"{hook}/event")
    try:
        with DemoPbx(settings) as pbx:
            service.start()
            yield service, pbx
    finally:
        service.stop()
