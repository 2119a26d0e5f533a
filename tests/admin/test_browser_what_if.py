"""A what-if in a real browser, by a real process: chosen by the keyboard, watched, read on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from router.explanation import studies
from tests.admin.conftest import NARROW, Admin, Chromium, check_axe
from tests.admin.day import Day
from tests.admin.test_replays import run_at_once
from tests.admin.test_what_if import TODAY


@pytest.fixture
def day(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Day:
    monkeypatch.setenv("DATABASE_URL", admin.settings.database_url)
    monkeypatch.setenv("SECRET_KEY", admin.settings.secret_key.get_secret_value())
    day = Day(admin)
    day.call("380501110000", call_id="first")
    day.hear("pickup", "first", "acme_alice")
    for number in range(1, 4):
        day.call(f"38050111{number:04}")
    return day


def test_a_day_is_simulated_without_an_agent(day: Day, chromium: Chromium) -> None:
    page = chromium.open("vira", "/p/acme/what-if")
    page.get_by_label("First day").fill(TODAY)
    page.get_by_label("Last day").fill(TODAY)
    page.get_by_label("Leave out").select_option(label="Alice")
    page.get_by_label("Leave out").press("Enter")
    page.get_by_role("button", name="Simulate").press("Enter")
    expect(page.get_by_text("calls would have gone to the overflow: 100.0 % instead of 75.0 %.")).to_be_visible()
    expect(page.get_by_role("row", name="Alice 100.0 % 100.0 % 0.0 %")).to_be_visible()
    expect(page.get_by_role("heading", name="What is taken for granted")).to_be_visible()
    check_axe(page)
    page.get_by_role("link", name="Change it").click()
    expect(page.get_by_label("Leave out")).to_have_value(str(day.agents["Alice"]))
    expect(page.get_by_role("row", name="without Alice")).to_be_visible()


def test_it_is_read_on_a_phone(day: Day, chromium: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "launch", run_at_once)
    page = chromium.open("vira", f"/p/acme/what-if?first={TODAY}", size=NARROW, theme="dark", language="uk")
    page.get_by_role("button", name="Змоделювати").click()
    expect(page.get_by_text("Що взято за даність")).to_be_visible()
    check_axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
