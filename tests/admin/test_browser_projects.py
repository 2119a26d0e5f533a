"""Projects in real Chromium: from nothing to credentials that work, and two people at one form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect
from pytest_httpserver import HTTPServer
from sqlalchemy import update

from router.db import models
from tests.admin.conftest import NARROW, Admin, Chromium


@pytest.fixture
def api(httpserver: HTTPServer) -> Iterator[HTTPServer]:
    """A status API at which Alice and Bob are online, and Bob is on a call."""
    httpserver.expect_request("/sipstatus/online").respond_with_json(["acme_alice", "acme_bob"])
    httpserver.expect_request("/sipstatus/speaking").respond_with_json(["acme_bob"])
    yield httpserver
    httpserver.clear()


def test_makes_a_project_and_checks_its_connection(admin: Admin, chromium: Chromium, api: HTTPServer) -> None:
    page = chromium.open("olena", "/projects")
    page.get_by_role("link", name="New project").click()
    chromium.check_axe(page)
    page.get_by_label("Name").fill("initech")
    page.get_by_label("Overflow").fill("044 123 45 67")
    page.get_by_role("button", name="Create project").click()
    expect(page.locator("#board-start [aria-current=step]")).to_contain_text("Connect to Ringostat")
    expect(page.locator(".tone-bad")).to_have_count(0)
    page.get_by_role("link", name="Enter the Auth-key").click()
    chromium.check_axe(page)
    page.get_by_label("API address").fill(api.url_for(""))
    page.get_by_role("button", name="Check connection").click()
    page.get_by_text("The Auth-key is not entered yet.").wait_for()
    chromium.check_axe(page)
    page.get_by_label("Auth-key", exact=True).fill("right-key")
    page.get_by_role("button", name="Check connection").click()
    expect(page.locator("#connection")).to_contain_text("2 logins are online, 1 of them speaking")
    chromium.check_axe(page)
    assert page.get_by_label("Auth-key", exact=True).input_value() == "right-key", "checking keeps what was typed"
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Applies from the next call").wait_for()
    expect(page.get_by_role("status").get_by_role("link", name="Add agents")).to_be_visible()
    assert admin.one(models.Project, name="initech").presence_auth_key == "right-key"
    assert page.get_by_label("Auth-key", exact=True).input_value() == ""


def test_a_call_log_that_cannot_be_read_is_told_at_its_setting(admin: Admin, chromium: Chromium) -> None:
    wrong = {"failures": 3, "error_code": "forbidden", "error_message": "No.", "error_remedy": "Check the key."}
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        session.execute(update(models.Project).values(presence_call_log_days=14))
        session.add(models.CallLog(project_id=1, next_at=now, known_since=now, known_until=now, **wrong))
    page = chromium.open("olena", "/p/acme/settings/calls")
    expect(page.locator("#call-log")).to_contain_text("The call log cannot be read. Ringostat denies access.")
    expect(page.get_by_label("Read Ringostat’s call log")).to_have_value("14")
    chromium.check_axe(page)


def test_a_refused_form_leads_to_its_mistakes(chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/settings")
    page.get_by_label("Time zone").fill("Kyiv")
    page.get_by_role("button", name="Save", exact=True).click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    chromium.check_axe(page)
    summary.get_by_role("link", name="Time zone").click()
    assert page.get_by_label("Time zone").input_value() == "Kyiv"
    expect(page.get_by_label("Time zone")).to_have_attribute("aria-invalid", "true")


def late(chromium: Chromium) -> Page:
    """Emil's form, after Olena has saved hers in between."""
    emil, olena = (chromium.open(name, "/p/acme/settings/privacy") for name in ("emil", "olena"))
    olena.get_by_role("textbox", name="Keep the call log for").fill("30")
    olena.get_by_role("button", name="Save", exact=True).click()
    olena.get_by_text("Applies from the next call").wait_for()
    emil.get_by_role("textbox", name="Keep the call log for").fill("60")
    emil.keyboard.press("Enter")
    emil.get_by_text("olena@example.org saved this while you were editing.").wait_for()
    return emil


@pytest.mark.parametrize(("whose", "kept"), [("60", 60), ("30", 30)])
def test_a_conflict_is_shown_and_settled_field_by_field(
    admin: Admin, chromium: Chromium, whose: str, kept: int
) -> None:
    page = late(chromium)
    page.get_by_label("Mask callers’ numbers").check()
    chromium.check_axe(page)
    expect(page.get_by_role("row", name=re.compile("Keep the call log for"))).to_contain_text("30")
    page.get_by_role("textbox", name="Keep the call log for").press("Enter")
    page.get_by_text("saved this while you were editing.").wait_for()
    assert admin.one(models.Project, id=1).keep_days == 30, "Enter does not overwrite"
    page.get_by_role("radio", name=whose).check()
    page.get_by_role("button", name="Save what is chosen").click()
    page.get_by_text("Applies from the next call").wait_for()
    project = admin.one(models.Project, id=1)
    assert (project.keep_days, project.mask_numbers) == (kept, True), "what else was typed is never lost"


def test_deletes_by_name_and_undoes(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/settings")
    page.get_by_role("link", name="Delete the project").click()
    chromium.check_axe(page)
    page.get_by_label("The project’s name").fill("acme")
    page.get_by_role("button", name="Delete the project").click()
    page.get_by_text("Project acme is deleted.").wait_for()
    chromium.check_axe(page)
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("The project is back.").wait_for()
    assert admin.one(models.Project, id=1).deleted_at is None


def test_settings_work_on_a_phone(chromium: Chromium) -> None:
    for name in ("olena", "vira"):
        page = chromium.open(name, "/p/acme/settings", size=NARROW, theme="dark")
        for part in ("Presence", "Hook", "Calls", "Privacy", "General"):
            page.get_by_role("navigation", name="Parts of the settings").get_by_role("link", name=part).click()
            expect(page.get_by_role("heading", name=part, exact=True)).to_be_visible()
            chromium.check_axe(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
