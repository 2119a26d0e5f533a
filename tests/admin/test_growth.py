"""What a page asks for does not grow with what there is: no statement, and no text looked up, for each row."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

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


class Both(NamedTuple):
    """What each page asks for: of the database, and of the catalog of texts."""

    statements: Asked
    texts: Asked


def asked_of(app: Flask, client: FlaskClient, project: str) -> Both:
    """What lands there while each page of the project is looked at for the second time."""
    statements: list[str] = []
    texts: list[str] = []
    counted = Both({}, {})
    engine, this_thread = app.extensions["admin"].database.engine, threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if threading.get_ident() == this_thread:  # not those of the checks, which run now and then beside the pages
            values = re.sub(r"\(\?(, \?)*\)", "(…)", statement)  # however many values
            statements.append(re.sub(r"\(…\)(, \(…\))*", "(…)", values))

    class Catalog(NullTranslations):
        def ugettext(self, message: str) -> str:
            texts.append(message)
            return message

    event.listen(engine, "before_cursor_execute", note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(i18n, "get_translations", Catalog)
        for name, path in pages.addresses(app, client, app.extensions["admin"].database, project):
            for _ in range(2):
                statements.clear()
                texts.clear()
                assert client.get(path, buffered=True).status_code in {200, 204}, path
            counted.statements[name], counted.texts[name] = [*statements], [*texts]
    event.remove(engine, "before_cursor_execute", note)
    return counted


def more(small: Asked, large: Asked) -> dict[str, Counter[str]]:
    """What was asked more often for the large project's pages."""
    found = {name: Counter(asked) - Counter(small[name]) for name, asked in large.items()}
    return {name: counter for name, counter in found.items() if counter}


def test_no_page_sends_a_statement_for_each_row_or_looks_up_the_texts_of_all_rows_again(
    app: Flask, client: FlaskClient
) -> None:
    small, large = (asked_of(app, client, project) for project in ("small", "large"))
    assert len(large.statements) > 40
    assert more(small.statements, large.statements) == {}
    assert len(large.texts["group of everybody"]) > 50
    for name, counter in more(small.texts, large.texts).items():
        if name in LONG:
            assert all("%(" in text for text in counter), f"{name}: only what names the row may be looked up for it"
