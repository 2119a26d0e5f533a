"""What a page asks for does not grow with what there is: no statement, and no text looked up, for each row."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from typing import Any

import pytest
from babel.support import NullTranslations
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, select

from bench import pages
from router.admin import i18n
from router.app import create_app
from router.config import Settings
from router.db import models
from router.db.types import use_encryption_keys

Asked = dict[str, list[str]]
"""By page: what was asked for it, each thing as often as it was."""


# Pages that may have hundreds of rows; all others have a page's worth.
LONG = {
    *("group of everybody", "group_queue of everybody", "groups", "rules", "agents", "board", "board, all agents"),
    "tests",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """Two projects: small, and large with four times as many agents, groups and rules."""
    url = f"sqlite:///{tmp_path_factory.mktemp('growth')}/router.db"
    settings = Settings.load(pages.environ(url))
    use_encryption_keys(settings.fernet_keys)
    pages.fill(url, 200, agents=40)
    return create_app(settings)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    with app.extensions["admin"].database.reading() as session:
        user = session.scalars(select(models.User).limit(1)).one()
    with app.test_request_context("/"), client.session_transaction() as cookie:
        now = int(time.time())
        cookie.update(user=user.id, epoch=user.session_epoch, since=now, seen=now, csrf_token=secrets.token_hex(20))
    return client


def asked_of(app: Flask, client: FlaskClient, project: str, asked: list[str]) -> Asked:
    """What lands in `asked` while each page of the project is looked at for the second time."""
    counted = {}
    for name, path in pages.addresses(app, client, app.extensions["admin"].database, project):
        for _ in range(2):
            asked.clear()
            assert client.get(path, buffered=True).status_code in {200, 204}, path
        counted[name] = [*asked]
    return counted


def more(small: Asked, large: Asked) -> dict[str, Counter[str]]:
    """What was asked more often for the large project's pages."""
    found = {name: Counter(asked) - Counter(small[name]) for name, asked in large.items()}
    return {name: counter for name, counter in found.items() if counter}


def test_no_page_sends_a_statement_for_each_row(app: Flask, client: FlaskClient) -> None:
    statements: list[str] = []
    engine, this_thread = app.extensions["admin"].database.engine, threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if threading.get_ident() == this_thread:  # not those of the checks, which run now and then beside the pages
            values = re.sub(r"\(\?(, \?)*\)", "(…)", statement)  # however many values
            statements.append(re.sub(r"\(…\)(, \(…\))*", "(…)", values))

    event.listen(engine, "before_cursor_execute", note)
    small, large = (asked_of(app, client, project, statements) for project in ("small", "large"))
    event.remove(engine, "before_cursor_execute", note)
    assert len(large) > 40
    assert more(small, large) == {}


def test_texts_that_rows_share_are_looked_up_once(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    class Catalog(NullTranslations):
        def ugettext(self, message: str) -> str:
            texts.append(message)
            return message

    monkeypatch.setattr(i18n, "get_translations", Catalog)
    small, large = (asked_of(app, client, project, texts) for project in ("small", "large"))
    assert len(large["group of everybody"]) > 50
    for name, counter in more(small, large).items():
        if name in LONG:
            assert all("%(" in text for text in counter), f"{name}: only what names the row may be looked up for it"
