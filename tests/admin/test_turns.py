"""Calls go first: one page of a process works at a time, and a download holds nothing while it is taken."""

from __future__ import annotations

import threading

import pytest

from router.admin import entry
from router.admin.views import calls as views
from router.db import models, queries
from tests.admin.conftest import Admin, Browser


@pytest.fixture
def turn(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> threading.BoundedSemaphore:
    """The turn of the app's pages, for which nobody waits long."""
    monkeypatch.setattr(entry, "WAIT_FOR_TURN_SECONDS", 0.02)
    taken: threading.BoundedSemaphore = admin.app.extensions["admin"].turn
    return taken


def is_free(turn: threading.BoundedSemaphore) -> bool:
    if not turn.acquire(blocking=False):
        return False
    turn.release()
    return True


def test_pages_give_way_and_say_why(turn: threading.BoundedSemaphore, olena: Browser) -> None:
    with turn:
        answer = olena.get("/projects")
    assert answer.status_code == 503
    assert "Calls go first" in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert olena.get("/projects").status_code == 200


def test_the_hook_and_static_files_need_no_turn(
    admin: Admin, turn: threading.BoundedSemaphore, nobody: Browser
) -> None:
    with admin.database.reading() as session:
        token = queries.current_token(session, admin.one(models.Project, name="acme").id)
    with turn:
        assert nobody.client.post(f"/hook/{token}").status_code == 200
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/static/theme.css").status_code == 200


def test_a_page_that_fails_gives_its_turn_back(
    admin: Admin, turn: threading.BoundedSemaphore, olena: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise ValueError("broken")

    monkeypatch.setitem(admin.app.view_functions, "admin.projects", broken)
    with pytest.raises(ValueError, match="broken"):
        olena.get("/projects")
    assert is_free(turn)


def test_a_download_holds_nothing_while_it_is_taken(turn: threading.BoundedSemaphore, olena: Browser) -> None:
    answer = olena.client.get("/p/acme/calls.csv", buffered=False)
    assert answer.status_code == 200
    pieces = answer.iter_encoded()
    assert next(iter(pieces))
    assert is_free(turn), "the reader may be slow"
    assert olena.get("/projects").status_code == 200
    answer.close()


def test_one_user_has_two_downloads_at_a_time(olena: Browser) -> None:
    slow = [olena.client.get("/p/acme/calls.csv", buffered=False) for _ in range(views.DOWNLOADS)]
    for answer in slow:
        next(iter(answer.iter_encoded()))
    assert olena.get("/p/acme/calls.csv").status_code == 429
    for answer in slow:
        answer.close()
    assert olena.get("/p/acme/calls.csv").status_code == 200
