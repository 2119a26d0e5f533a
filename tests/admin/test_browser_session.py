"""Sign-in in real Chromium."""

from __future__ import annotations

from tests.admin.conftest import PASSWORD, Chromium


def test_signs_in_and_out(chromium: Chromium) -> None:
    page = chromium.open()
    chromium.check_axe(page)
    page.get_by_label("Email").fill("olena@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Projects").wait_for()
    chromium.check_axe(page)
