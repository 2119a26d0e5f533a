"""Everything under /hook is the hook's: it routes, tells, or is plainly refused, and no log line holds the token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import unquote

import pytest
from werkzeug.test import TestResponse

from router.db import models
from router.hook.auth import new_token
from router.hook.throttle import FREE
from router.log import without_tokens
from tests.desk import Desk

METHODS = ["GET", "POST", "PUT", "DELETE"]
SLASHES = ["/hook/{}", "/hook/{}/", "/hook//{}", "//hook/{}", "/hook/{}//", "///hook///{}///", "/HOOK/{}"]
EVENT_SLASHES = ["/hook/{}/event/", "/hook/{}//event", "//hook//{}//event//"]
NOWHERE = [
    *("/hook", "/hook/", "//hook//", "/hook/{}/x", "/hook/{}/event/x", "/hook/{}/x/event", "/hook/a/b/c/d"),
    *("/hook/{}/Event", "/hook/{}/./event"),
]


@pytest.fixture
def desk(migrated_sqlite_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_sqlite_url, LOG_FORMAT="json")) as made:
        made.see("acme_alice", "acme_bob")
        yield made


def send(desk: Desk, method: str, path: str, **fields: str) -> TestResponse:
    """With the path as a web server gives it: no client of ours makes sense of its slashes before."""
    given = {"PATH_INFO": path.format(desk.token()), "SCRIPT_NAME": ""}
    return desk.client.open("/", method=method, query_string=fields, environ_overrides=given)


def test_a_slash_too_many_still_routes_the_call(desk: Desk) -> None:
    for path, method in itertools.product(SLASHES, METHODS):
        answer = send(desk, method, path, uniqueid=f"{method} {path}")
        assert answer.status_code == 200, (path, method)
        assert answer.text == desk.all(models.Decision)[-1].destination, (path, method)
    assert len(desk.all(models.Decision)) == len(SLASHES) * len(METHODS)


def test_a_slash_too_many_still_tells_the_event(desk: Desk) -> None:
    for path, method in itertools.product(EVENT_SLASHES, METHODS):
        offered = desk.ask(uniqueid=f"{method} {path}").text
        answer = send(desk, method, path, event="pickup", uniqueid=f"{method} {path}", connected_with=offered)
        assert (answer.status_code, answer.text) == (200, "OK\n"), (path, method)
        assert desk.all(models.Decision)[-1].outcome == "answered", (path, method)


@pytest.mark.parametrize("where", ["/our/router", "/hook", "/our%20own/маршрут"])
def test_it_holds_where_the_service_lives_under_a_path(migrated_sqlite_url: str, where: str) -> None:
    in_front = unquote(where).encode().decode("latin-1")  # as WSGI has it
    with closing(Desk(migrated_sqlite_url, PUBLIC_URL=f"https://host{where}")) as desk:
        for path in (*SLASHES, *EVENT_SLASHES):
            for way in (path, f"{in_front}{path}", f"/{in_front}/{path}"):
                answer = send(desk, "GET", way)
                assert (answer.status_code, answer.mimetype) == (200, "text/plain"), way
        assert send(desk, "GET", f"{in_front}/hook/{{}}/x").text == "Not found\n"


@pytest.mark.parametrize("path", NOWHERE)
def test_what_leads_nowhere_is_a_plain_404_without_session_or_page(
    desk: Desk, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    token = desk.token()
    for method in (*METHODS, "HEAD", "PATCH", "OPTIONS"):
        capsys.readouterr()
        answer = send(desk, method, path)
        assert (answer.status_code, answer.mimetype) == (404, "text/plain"), method
        assert answer.text == ("" if method == "HEAD" else "Not found\n")
        assert "Set-Cookie" not in answer.headers
        assert "Location" not in answer.headers
        told = capsys.readouterr().out
        assert "no such path" in told
        assert token not in told
    assert desk.all(models.Decision) == []


def test_what_begins_like_the_hooks_path_is_still_a_pages(desk: Desk) -> None:
    assert desk.client.get("/hooks").mimetype == "text/html"


def test_paths_that_lead_nowhere_fill_no_log(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.ask(uniqueid="1").status_code == 200
    capsys.readouterr()
    for place in range(10 * FREE):
        desk.client.get(f"/hook/a/b/{place}")
    assert len(capsys.readouterr().out.splitlines()) <= FREE + 2
    assert desk.ask(uniqueid="2").text == "acme_bob", "who has the token is not refused for it"


@pytest.mark.parametrize("path", ["/hook/{}", "/hook/{}/", "/hook/{}/event"])
def test_head_looks_and_decides_nothing(desk: Desk, path: str) -> None:
    answer = desk.client.head(path.format(desk.token()), query_string={"uniqueid": "1", "event": "pickup"})
    assert (answer.status_code, answer.data) == (200, b"")
    assert desk.client.head(path.format(new_token())).status_code == 404
    assert desk.all(models.Decision) == []
    assert desk.all(models.Reservation) == []
    assert desk.ask(uniqueid="1").text == "acme_alice"


@pytest.mark.parametrize("path", ["/hook/{}", "/hook/{}//event/"])
def test_options_tells_the_methods_and_decides_nothing(desk: Desk, path: str) -> None:
    answer = desk.client.options(path.format(desk.token()))
    assert (answer.status_code, answer.data) == (200, b"")
    assert set(METHODS) <= {method.strip() for method in answer.headers["Allow"].split(",")}
    assert desk.all(models.Decision) == []


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "PROPFIND", "get"])
def test_another_method_is_plainly_refused(desk: Desk, method: str) -> None:
    answer = desk.client.open(f"/hook/{desk.token()}", environ_overrides={"REQUEST_METHOD": method})
    assert (answer.status_code, answer.mimetype) == (405, "text/plain")
    assert desk.all(models.Decision) == []


# ---- the token in the log

WAYS = ["/hook/{}", "//hook//{}//", "/hook/{}/deeper", "/hook%2F{}%2fx", "/HOOK/{}", "/else/hook/{}?a=1", "/welcome/{}"]


@pytest.mark.parametrize("path", WAYS)
def test_whatever_fails_the_log_holds_no_token(
    desk: Desk, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = desk.token()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"it broke at http://host{path.format(token)}")

    monkeypatch.setattr("router.hook.views.Hook._refuse", fail)
    monkeypatch.setattr("router.hook.views._raw_request", fail)
    monkeypatch.setattr("router.admin.auth.user_of_session", fail)
    desk.app.config["PROPAGATE_EXCEPTIONS"] = False
    send(desk, "GET", path)
    assert token not in capsys.readouterr().out


@pytest.mark.parametrize("path", WAYS)
def test_the_web_servers_log_holds_no_token(path: str) -> None:
    token = new_token()
    given = without_tokens(f'"GET {path.format(token)} HTTP/1.1" 200')
    assert token not in given
    assert given.startswith('"GET ')
    assert given.endswith(' HTTP/1.1" 200')


def test_our_modules_keep_their_names_in_a_traceback() -> None:
    line = 'File "/app/router/hook/views.py", line 7'
    assert without_tokens(line) == line
