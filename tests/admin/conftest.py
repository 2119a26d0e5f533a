"""The admin with people in it, browsers without a screen, and real Chromium.

Olena owns the place, Emil edits, Vira only looks, and nobody is signed in. Their project is acme; globex is another.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from html import unescape
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from itsdangerous import URLSafeTimedSerializer
from jinja2 import FileSystemBytecodeCache
from jinja2.bccache import Bucket
from playwright.sync_api import Browser as ChromiumBrowser
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from sqlalchemy import select
from sqlalchemy.engine import make_url
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.test import TestResponse

from router.admin import auth, entry
from router.app import create_app
from router.config import Settings
from router.configuration import apply, load
from router.db import models
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.hook.auth import new_token
from router.routing.known import token_hash
from tests.rows import publish

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PASSWORD = "correct horse battery"
PEOPLE = {"olena": "owner", "emil": "editor", "vira": "viewer"}

CHROMIUM = shutil.which("chromium") or "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 60_000.0  # milliseconds that a busy machine may need for what takes a moment
expect.set_options(timeout=PATIENCE)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


entry.WAIT_FOR_TURN_SECONDS = 60.0  # no page is shed because the machine stands still

REAL_HASHER = auth._HASHER
auth._HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # passwords are slow on purpose, tests are not


@cache
def password_hash() -> str:
    return auth.hash_password(PASSWORD)


class _Compiled(FileSystemBytecodeCache):
    """Templates that this worker process, or another, has compiled."""

    _loaded: ClassVar[dict[str, CodeType | None]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._loaded.get(bucket.key)
        if bucket.code is None:
            super().load_bytecode(bucket)
            self._loaded[bucket.key] = bucket.code


class Admin:
    """The app on a database of its own, with its people and projects in it."""

    def __init__(self, url: str, **environ: str) -> None:
        given = {"DATABASE_URL": url, "SECRET_KEY": "s" * 40, "PRESENCE_KEEPER": "off", "LOG_LEVEL": "WARNING"}
        given["OUTBOX_DIR"] = os.environ["ROUTER_TEST_RUN_FOLDER"]
        given["HOOK_BUDGET_MS"] = "15000"  # on a busy machine calls go through the database all the same
        self.settings = Settings.load(given | {"PRESENCE_ALLOW_PRIVATE": "1"} | environ)
        use_encryption_keys(self.settings.fernet_keys)
        self.database = Database(url)
        self.app: Flask = create_app(self.settings)
        self.app.testing = True  # a page that fails, fails the test
        # Each test has an app of its own: compiling the same templates again and again took half of the time.
        self.app.jinja_env.bytecode_cache = _Compiled(os.environ["ROUTER_TEST_RUN_FOLDER"])

    def configure(self, config: str) -> None:
        """Apply this configuration, or copy what it made of the same database a moment ago: that takes a tenth."""
        if not self.settings.is_sqlite:
            apply(self.database, load(config, {}), actor="test")
            return
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        with closing(sqlite3.connect(make_url(self.settings.database_url).database or "")) as connection:
            key = (config, now, *self.settings.fernet_keys, sha256(connection.serialize()).digest())
            if key not in _CONFIGURED:
                apply(self.database, load(config, {}), actor="test")
                made = bytearray(connection.serialize())
                made[18:20] = b"\1\1"  # not in WAL mode, in which SQLite reads no memory
                _CONFIGURED[key] = bytes(made)
                return
            with closing(sqlite3.connect(":memory:")) as source:
                source.deserialize(_CONFIGURED[key])
                source.backup(connection)

    def close(self) -> None:
        self.database.dispose()
        self.app.extensions["router"].stop()
        self.app.extensions["admin"].database.dispose()

    def add_user(self, name: str, role: str, /, **values: Any) -> models.User:
        user = models.User(
            **{"email": f"{name}@example.org", "name": name.capitalize(), "role": role, "created_at": datetime.now(UTC)}
            | {"password_hash": password_hash()}
            | values
        )
        with self.database.writing() as session:
            session.add(user)
        return user

    def add_project(self, name: str, /, **values: Any) -> int:
        """A project with a hook token, published."""
        token = new_token()
        now = datetime.now(UTC)
        with self.database.writing() as session:
            project = models.Project(name=name, created_at=now, **values)
            session.add(project)
            session.flush()
            session.add(
                models.HookToken(project_id=project.id, token_hash=token_hash(token), token=token, created_at=now)
            )
            publish(session, project.id, "test")
        return project.id

    def user(self, name: str) -> models.User:
        with self.database.reading() as session:
            return session.scalars(select(models.User).filter_by(email=f"{name}@example.org")).one()

    def one(self, model: Any, **where: Any) -> Any:
        """The one row like this."""
        with self.database.reading() as session:
            return session.scalars(select(model).filter_by(**where)).one()

    def all(self, model: Any, **where: Any) -> list[Any]:
        with self.database.reading() as session:
            return list(session.scalars(select(model).filter_by(**where).order_by(*model.__table__.primary_key)))

    def browser(self, name: str = "") -> Browser:
        """A browser without a screen, signed in as this person."""
        return Browser(self, name)

    def session_cookie(self, name: str) -> str:
        """The cookie of a browser in which this person is signed in."""
        client = self.browser(name).client
        root = quote(self.app.config["APPLICATION_ROOT"])
        cookie = client.get_cookie(self.app.config["SESSION_COOKIE_NAME"], path=root)
        assert cookie is not None
        return str(cookie.value)


class Browser:
    """Flask's test client, with a session and with the token against forged requests put into each POST."""

    def __init__(self, admin: Admin, name: str) -> None:
        self.admin = admin
        self.client = admin.app.test_client()
        if name:
            user = admin.user(name)
            with admin.app.test_request_context("/"), self.client.session_transaction() as session:
                now = int(datetime.now(UTC).timestamp())
                session.update(
                    user=user.id, epoch=user.session_epoch, since=now, seen=now, id=secrets.token_urlsafe(16)
                )

    @property
    def token(self) -> str:
        with self.client.session_transaction() as session:
            session.setdefault("csrf_token", secrets.token_hex(20))
            raw = session["csrf_token"]
        return str(URLSafeTimedSerializer(self.admin.app.secret_key or "", salt="wtf-csrf-token").dumps(raw))

    def get(self, url: str, **options: Any) -> TestResponse:
        return self.client.get(url, **options)

    def post(self, url: str, *, htmx: Any = False, follow: Any = False, **fields: Any) -> TestResponse:
        """Post these fields. `htmx`: as htmx does. `follow`: give the page that is redirected to."""
        headers = {"HX-Request": "true"} if htmx else {}
        return self.client.post(
            url, data={"csrf_token": self.token, **fields}, headers=headers, follow_redirects=follow
        )


@pytest.fixture
def admin(migrated_sqlite_url: str, tmp_path: Path) -> Iterator[Admin]:
    """The admin on SQLite: on a copy of a database that was inhabited once."""
    if _INHABITED:
        (tmp_path / "router.db").write_bytes(_INHABITED[0])
        with closing(Admin(migrated_sqlite_url)) as made:
            yield made
        return
    for made in _inhabited(migrated_sqlite_url):
        with closing(sqlite3.connect(tmp_path / "router.db")) as connection:
            _INHABITED.append(connection.serialize())
        yield made


@pytest.fixture
def admin_everywhere(migrated_url: str) -> Iterator[Admin]:
    """The admin on SQLite and on PostgreSQL in turn: for what locks or speaks SQL of its own."""
    yield from _inhabited(migrated_url)


_INHABITED: list[bytes] = []  # the file of that database
_CONFIGURED: dict[tuple[object, ...], bytes] = {}  # files of databases, by what was done to which


def _inhabited(url: str) -> Iterator[Admin]:
    with closing(Admin(url)) as made:
        for name, role in PEOPLE.items():
            made.add_user(name, role)
        made.add_project("acme", presence_auth_key="acme-secret-key")
        made.add_project("globex")
        yield made


@pytest.fixture
def olena(admin: Admin) -> Browser:
    return admin.browser("olena")


@pytest.fixture
def emil(admin: Admin) -> Browser:
    return admin.browser("emil")


@pytest.fixture
def vira(admin: Admin) -> Browser:
    return admin.browser("vira")


@pytest.fixture
def nobody(admin: Admin) -> Browser:
    return admin.browser()


# ---- real Chromium


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Not a line per request."""


@pytest.fixture(scope="session")
def web_server() -> Iterator[BaseWSGIServer]:
    """The one HTTP server of this worker process: kept browsers find each test's app at the same address."""
    server = make_server("127.0.0.1", 0, _closed, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _closed(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer what a page still asks when its test is over."""
    start_response("503 Service Unavailable", [])
    return []


@pytest.fixture
def live(admin: Admin, web_server: BaseWSGIServer) -> Iterator[str]:
    """The admin over real HTTP; its address."""
    web_server.app = admin.app
    yield f"http://127.0.0.1:{web_server.server_port}"
    web_server.app = _closed


@pytest.fixture(scope="session")
def chromium_process() -> Iterator[ChromiumBrowser]:
    """The one browser of this worker process: Playwright starts no second while the first runs."""
    if sys.platform == "darwin" and not Path(CHROMIUM).exists():
        pytest.skip("there is neither Chromium nor Google Chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class Contexts:
    """Chromium's contexts, kept from test to test and emptied between them: a new one costs half a second."""

    def __init__(self, process: ChromiumBrowser, address: str) -> None:
        self._process, self._address = process, address
        self._kept: dict[tuple[str, str, str], list[BrowserContext]] = {}
        self._lent: list[BrowserContext] = []

    def lend(self, size: dict[str, int], theme: str, language: str) -> BrowserContext:
        """Return one that nobody else has in this test."""
        kept = self._kept.setdefault((str(size), theme, language), [])
        for context in kept:
            if context not in self._lent:
                break
        else:
            context = self._process.new_context(
                base_url=self._address,
                viewport=size,  # type: ignore[arg-type]
                color_scheme=theme,  # type: ignore[arg-type]
                locale=language,
                reduced_motion="reduce",
            )
            context.new_page()  # the window, in which each test opens tabs
            kept.append(context)
        self._lent.append(context)
        return context

    def take_back(self) -> None:
        """Close the tabs that a test opened; forget its cookies, permissions and stored data."""
        for context in self._lent:
            window, *tabs = context.pages
            for tab in tabs:
                tab.close()
            context.clear_cookies()
            context.clear_permissions()
            tools = context.new_cdp_session(window)
            tools.send("Storage.clearDataForOrigin", {"origin": self._address, "storageTypes": "all"})
            tools.detach()
        self._lent.clear()


@pytest.fixture(scope="session")
def contexts(chromium_process: ChromiumBrowser, web_server: BaseWSGIServer) -> Contexts:
    return Contexts(chromium_process, f"http://127.0.0.1:{web_server.server_port}")


class Chromium:
    """Pages in real Chromium. Whatever a page complains about fails the test."""

    def __init__(self, contexts: Contexts, admin: Admin, address: str) -> None:
        self._contexts, self._admin, self._address = contexts, admin, address
        self.complaints: list[str] = []

    def open(
        self,
        name: str = "",
        path: str = "/",
        *,
        size: dict[str, int] = WIDE,
        theme: str = "light",
        language: str = "en",
    ) -> Page:
        """A page of another browser, signed in as this person."""
        context = self._contexts.lend(size, theme, language)
        if name:
            cookie = {"name": "session", "value": self._admin.session_cookie(name), "url": self._address}
            context.add_cookies([cookie])  # type: ignore[list-item]
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        listen(page, self.complaints)
        page.goto(path)
        return page

    def check_axe(self, page: Page) -> None:
        check_axe(page)


def listen(page: Page, complaints: list[str]) -> None:
    """Keep whatever the page complains about: exceptions, console errors, violations of the CSP among them."""

    def keep(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _is_expected(message.text):
            complaints.append(f"{page.url}: {message.text}")

    page.on("console", keep)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))


def check_axe(page: Page, **options: Any) -> None:
    """No fault of accessibility on the page as it is. `options`: those of axe.run."""
    if not page.evaluate("'axe' in window"):  # half a megabyte: once a page
        page.evaluate(Axe().axe_script)
    results = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})
    faults = [
        f"{page.url}: {violation['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for violation in results["violations"]
        for node in violation["nodes"]
    ]
    assert faults == []


def _is_expected(text: str) -> bool:
    # Chromium notes every answer from 400 up as an error, also those that the page deals with.
    return text.startswith("Failed to load resource: the server responded with a status of 4")


@pytest.fixture
def chromium(contexts: Contexts, admin: Admin, live: str) -> Iterator[Chromium]:
    """Opens pages; at the end the test fails on any console error, script error or CSP violation."""
    opened = Chromium(contexts, admin, live)
    yield opened
    contexts.take_back()
    assert opened.complaints == []


def shown_fields(page: str) -> dict[str, Any]:
    """What a browser would post of the form as it is shown."""
    form = page.partition("data-guard")[2].partition("</form>")[0]
    form = re.sub(r"<template.*?</template>", "", form, flags=re.DOTALL)
    found: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        ticked = re.search(r"\schecked", tag)
        if attributes.get("type") in ("radio", "checkbox") and not ticked:
            continue
        if "name" in attributes:
            found.setdefault(attributes["name"], []).append(unescape(attributes.get("value", "")))
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        every = re.findall(r"<option([^>]*)>([^<]*)<", options)
        for attributes, label in [one for one in every if re.search(r"\bselected\b", one[0])][:1] or every[:1]:
            value = re.search(r'value="([^"]*)"', attributes)
            found.setdefault(name, []).append(unescape(value[1] if value else label))
    for name, text in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found.setdefault(name, []).append(unescape(text.removeprefix("\r\n").removeprefix("\n")))
    del found["csrf_token"]
    return found
