"""The admin in real web processes: the first owner's link in the log, and calls before pages."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import requests

from simulator.processes import CLOSE, Server, free_port, gunicorn
from tests.admin.conftest import Admin


def web(folder: Path, url: str, **environ: str) -> Server:
    """The web processes on this database, in production: where a start logs who may make the first account."""
    given = {"ENVIRONMENT": "production", "PRESENCE_KEEPER": "off", **environ}
    return Server(folder, gunicorn(), DATABASE_URL=url, **given)


def test_the_log_of_the_start_shows_the_first_owners_link_until_there_is_one(
    migrated_postgres_url: str, tmp_path: Path
) -> None:
    with web(tmp_path, migrated_postgres_url) as server:
        links = re.findall(r"first owner's account.*: (http\S+)", server.log_text())
        assert len(links) == 1, "once, not in each process"
        assert requests.get(links[0], timeout=10).ok
        for path in ("/sign-in", "/static/theme.css"):
            answer = requests.get(server.url + path, timeout=10, headers=CLOSE)
            assert answer.ok
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.content) > 1000
    with closing(Admin(migrated_postgres_url)) as admin:
        admin.add_user("olena", "owner")
    server.log.unlink()
    with web(tmp_path, migrated_postgres_url) as server:
        assert "first owner" not in server.log_text()


def test_a_database_that_is_away_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    nowhere = f"postgresql://router@127.0.0.1:{free_port()}/router"
    with web(tmp_path, nowhere, WEB_CONCURRENCY="1") as server:
        assert "is not known" in server.log_text()
