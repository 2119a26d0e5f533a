"""The admin in real web processes: the first owner's link in the log, and calls before pages."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests

from tests.admin.conftest import Admin

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Running:
    """gunicorn as in the Procfile."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.log = folder / "log"
        self.port = free_port()
        self.environ = {"SECRET_KEY": "s" * 40, "PORT": str(self.port), "WEB_CONCURRENCY": "2"} | environ
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "router.app:create_app()"]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        inherited["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=inherited | self.environ, stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(f"{self.url}/healthz", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@contextmanager
def running(folder: Path, **environ: str) -> Iterator[Running]:
    server = Running(folder, environ)
    try:
        server.wait()
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(40)


def test_the_log_of_the_start_shows_the_first_owners_link_until_there_is_one(migrated_url: str, tmp_path: Path) -> None:
    with running(tmp_path, DATABASE_URL=migrated_url, PRESENCE_KEEPER="off") as server:
        links = re.findall(r"first owner's account.*: (http\S+)", server.log.read_text())
        assert len(links) == 1, "once, not in each process"
        assert requests.get(links[0], timeout=10).ok
    with closing(Admin(migrated_url)) as admin:
        admin.add_user("olena", "owner")
    with running(tmp_path, DATABASE_URL=migrated_url, PRESENCE_KEEPER="off") as server:
        assert "first owner" not in server.log.read_text()


def test_a_database_that_is_away_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    nowhere = f"postgresql://router@127.0.0.1:{free_port()}/router"
    with running(tmp_path, DATABASE_URL=nowhere, PRESENCE_KEEPER="off", WEB_CONCURRENCY="1") as server:
        assert "cannot be told now" in server.log.read_text()


def test_pages_and_files_are_served(migrated_sqlite_url: str, tmp_path: Path) -> None:
    with running(tmp_path, DATABASE_URL=migrated_sqlite_url, PRESENCE_KEEPER="off") as server:
        for path in ("/sign-in", "/static/theme.css"):
            answer = requests.get(server.url + path, timeout=10)
            assert answer.ok
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.content) > 1000
