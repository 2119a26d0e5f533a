"""`router user …`: accounts from the command line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router import cli
from router.db import models
from tests.admin.conftest import Admin


@pytest.fixture
def run(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cli, "_settings", lambda: admin.settings)

    def run(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(cli.main, ["user", *arguments], input=typed)

    return run


def test_adds_somebody_and_prints_a_link(admin: Admin, run: Any) -> None:
    result = run("add", "Ivan@Example.org", "--role", "viewer", "--name", "Ivan")
    assert result.exit_code == 0
    link = result.stdout.strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/welcome/[\w-]{40,}", link)
    assert (admin.user("ivan").role, admin.user("ivan").password_hash) == ("viewer", "")
    answer = admin.browser().post(
        link.removeprefix("http://127.0.0.1:8000"), name="Ivan", password="a long sentence", again="a long sentence"
    )
    assert answer.status_code == 303
    assert admin.one(models.AuditEntry, action="invited").actor == "cli"


def test_takes_the_password_from_standard_input(admin: Admin, run: Any) -> None:
    result = run("add", "ivan@example.org", "--role", "owner", "--password-stdin", typed="a long sentence\n")
    assert (result.exit_code, result.stdout) == (0, "ivan@example.org can sign in at http://127.0.0.1:8000/\n")
    assert admin.browser().post("/sign-in", email="ivan@example.org", password="a long sentence").status_code == 303


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "says"),
    [
        (("add", "ivan", "--role", "owner"), "", 2, "'ivan' is not a valid email address"),
        (("add", "ivan@example.org"), "", 2, "Missing option '--role'"),
        (("add", "ivan@example.org", "--role", "root"), "", 2, "'root' is not one of"),
        (("add", "emil@example.org", "--role", "owner"), "", 1, "there is a user emil@example.org already"),
        (("add", "ivan@example.org", "--role", "owner", "--password-stdin"), "short\n", 1, "Too short"),
        (("add", "ivan@example.org", "--role", "owner", "--password-stdin"), "", 1, "Too short"),
        (("link", "who@example.org"), "", 1, "there is no user who@example.org"),
        (("disable", "who@example.org"), "", 1, "there is no user who@example.org"),
        (("disable", "olena@example.org"), "", 1, "the last owner"),
    ],
)
def test_refuses_with_one_clear_line(
    admin: Admin, run: Any, arguments: tuple[str, ...], typed: str, code: int, says: str
) -> None:
    result = run(*arguments, typed=typed)
    assert result.exit_code == code
    assert says in result.stderr
    if code == 1:
        assert result.stderr.startswith("router: ")
        assert result.stderr.count("\n") == 1
    assert [user.disabled_at for user in admin.all(models.User)] == [None] * 3


def test_lists_everybody_with_role_and_state(admin: Admin, run: Any) -> None:
    admin.add_user("ivan", "viewer", password_hash="")
    assert [line.split() for line in run("list").stdout.splitlines()] == [
        ["emil@example.org", "editor", "active"],
        ["ivan@example.org", "viewer", "invited"],
        ["olena@example.org", "owner", "active"],
        ["vira@example.org", "viewer", "active"],
    ]


def test_disables_at_once_and_gives_no_link_then(admin: Admin, run: Any) -> None:
    emil = admin.browser("emil")
    assert run("disable", "emil@example.org").exit_code == 0
    assert emil.get("/projects").status_code == 302
    result = run("link", "emil@example.org")
    assert (result.exit_code, "emil@example.org is disabled" in result.stderr) == (1, True)


def test_a_link_lets_in_who_forgot_the_password(admin: Admin, run: Any) -> None:
    link = run("link", " EMIL@example.org").stdout.strip().removeprefix("http://127.0.0.1:8000")
    assert admin.browser().get(link).status_code == 200
