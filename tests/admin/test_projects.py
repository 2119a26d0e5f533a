"""Projects."""

from __future__ import annotations

from tests.admin.conftest import Browser


def test_shows_settings(olena: Browser, emil: Browser, vira: Browser) -> None:
    for who in (olena, emil, vira):
        answer = who.get("/p/acme/settings")
        assert answer.status_code == 200, answer.text
    assert olena.get("/projects").status_code == 200
    assert olena.get("/projects/new").status_code == 200
    assert olena.get("/p/acme/delete").status_code == 200
    for url in ("/users", "/users/new", "/users/1", "/audit", "/account"):
        assert olena.get(url).status_code == 200
