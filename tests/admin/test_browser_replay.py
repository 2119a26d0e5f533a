"""A replay in a real browser, by a real process: started, watched, looked through, stopped."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import expect

from router.configuration import apply, load
from router.explanation import studies
from tests.admin.conftest import Admin, Chromium, check_axe
from tests.admin.day import Day
from tests.admin.test_replays import OTHER


@pytest.fixture
def day(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Day:
    monkeypatch.setenv("DATABASE_URL", admin.settings.database_url)
    monkeypatch.setenv("SECRET_KEY", admin.settings.secret_key.get_secret_value())
    day = Day(admin)
    for number in range(3):
        day.call(f"38050111{number:04}")
    apply(admin.database, load(OTHER, {}))
    return day


def test_a_replay_is_watched_until_it_says_what_would_have_been(day: Day, chromium: Chromium) -> None:
    page = chromium.open("vira", "/p/acme/replay")
    page.get_by_label("Calls").select_option(label="Today")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("3 of 3 answers would have been different.")).to_be_visible()
    expect(page.get_by_role("row", name="Alice 1 0")).to_contain_text("-1")
    page.get_by_role("link", name="Compare").last.click()
    expect(page.get_by_role("heading", name="What would have happened")).to_be_visible()
    check_axe(page)


def test_a_running_replay_is_stopped(day: Day, chromium: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'while echo \'{"done": 1, "total": 3}\'; do sleep 0.1; done'
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    monkeypatch.setattr(studies, "COMMAND", ["-c", script])
    page = chromium.open("vira", "/p/acme/replay")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("1 of 3 answers")).to_be_visible()
    check_axe(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("The replay is stopped.")).to_be_visible()
    expect(page.get_by_role("row", name="version").first).to_contain_text("stopped")
