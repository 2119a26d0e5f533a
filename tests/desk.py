"""The whole application in this process, on a database of its own, with a configured project: for tests that need no
real web server.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from router.app import create_app
from router.config import Settings
from router.configuration import apply, load
from router.db import models, queries
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.presence.readings import Readings
from router.presence.source import Reading

SECRET = "s" * 40
ACME = """
projects:
  - name: acme
    overflow: "380440000000"
    # Nobody is asked: the address is refused.
    presence: {api_url: "http://127.0.0.1:9", auth_key: "acme-auth-key-5c2f", fresh_seconds: 3600}
    agents:
      - {name: Alice, sip_logins: [acme_alice]}
      - {name: Bob, sip_logins: [acme_bob]}
    groups: [{name: sales, ring_seconds: 20, members: [{agent: Alice}, {agent: Bob}]}]
    rules: [{name: everyone, groups: [sales]}]
"""


class Desk:
    """Settings and database; app and client when they are asked for. `environ` adds to the environment."""

    def __init__(self, url: str, config: str = ACME, **environ: str) -> None:
        # A noisy machine is given time: nothing here is about the budget.
        self._folder = tempfile.mkdtemp(prefix="router-desk-")
        given = {
            "DATABASE_URL": url,
            "OUTBOX_DIR": self._folder,
            "SECRET_KEY": SECRET,
            "PRESENCE_KEEPER": "off",
            "HOOK_BUDGET_MS": "30000",
        }
        self.settings = Settings.load(given | environ)
        use_encryption_keys(self.settings.fernet_keys)
        self.database = Database(url)
        self.configure(config)

    @cached_property
    def app(self) -> Flask:
        return create_app(self.settings)

    @cached_property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def configure(self, config: str) -> None:
        apply(self.database, load(config, {}, filename="test.yaml"), actor="test")

    def close(self) -> None:
        self.database.dispose()
        shutil.rmtree(self._folder)
        if "app" not in vars(self):
            return
        for thread in threading.enumerate():
            if thread.name == "in time":  # on whom nobody waits any more; what it used is closed after it
                thread.join()
        self.app.extensions["router"].stop()
        self.app.extensions["admin"].database.dispose()

    def project_id(self, name: str = "acme") -> int:
        with self.database.reading() as session:
            return queries.project_named(session, name).id

    def token(self, project: str = "acme") -> str:
        with self.database.reading() as session:
            return queries.current_token(session, queries.project_named(session, project).id)

    def ask(self, project: str = "acme", **fields: str) -> TestResponse:
        """One question of the PBX, as JSON."""
        return self.client.post(f"/hook/{self.token(project)}?answer=http", json=fields)

    def see(self, *online: str, speaking: tuple[str, ...] = (), project: str = "acme") -> None:
        """The source says that these logins are online."""
        now = datetime.now(UTC)
        with self.database.writing() as session:
            if session.get(models.Presence, self.project_id(project)) is None:
                session.add(models.Presence(project_id=self.project_id(project)))
        Readings(self.database).keep(
            self.project_id(project),
            Reading(frozenset(online), frozenset(speaking)),
            began_at=now,
            now=now,
            took=timedelta(milliseconds=40),
            next_poll_at=now + timedelta(seconds=2),
        )

    def all(self, model: Any, **where: Any) -> list[Any]:
        with self.database.reading() as session:
            return list(session.scalars(select(model).filter_by(**where).order_by(*model.__table__.primary_key)))
