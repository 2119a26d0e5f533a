"""Signing in and out."""

from __future__ import annotations

from tests.admin.conftest import PASSWORD, Admin, Browser


def test_signs_in_with_email_and_password(admin: Admin, nobody: Browser) -> None:
    answer = nobody.post("/sign-in", email="Olena@Example.org ", password=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/")
    assert nobody.get("/projects").status_code == 200
