"""From an empty database to a routed call, in real Chromium, on the service as it is deployed, beside the demo PBX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser as ChromiumBrowser
from playwright.sync_api import Page, expect

from router.admin.auth import first_owner_link
from simulator.pbx import DemoPbx
from simulator.service import Service
from simulator.settings import PbxSettings
from tests.admin.conftest import check_axe, listen


@pytest.fixture
def pbx() -> Iterator[DemoPbx]:
    """A PBX with its own eight people, some of whom have two logins; nobody calls by themselves."""
    with DemoPbx(PbxSettings(answer_after_seconds=(0.1, 0.2))) as pbx:
        yield pbx


@pytest.fixture
def service(tmp_path: Path, migrated_sqlite_url: str) -> Iterator[Service]:
    """The service with nobody and nothing in it."""
    with Service(tmp_path, migrated_sqlite_url) as service:
        yield service


@pytest.fixture
def page(chromium_process: ChromiumBrowser, service: Service) -> Iterator[Page]:
    context = chromium_process.new_context(base_url=service.url, locale="en", reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    listen(page, complaints)
    yield page
    context.close()
    assert complaints == []


def next_step(page: Page, title: str) -> None:
    """The board's list of steps says that this is next, and leads there."""
    page.get_by_role("link", name="Board").click()
    step = page.locator("#board-start [aria-current=step]")
    expect(step).to_contain_text(title)
    check_axe(page)
    step.get_by_role("link").click()


def test_from_an_empty_database_to_a_routed_call(page: Page, service: Service, pbx: DemoPbx) -> None:
    # The first owner, by the one-time link that a start shows.
    page.goto(first_owner_link(service.database, service.url) or "")
    check_axe(page)
    page.get_by_label("Email").fill("olena@example.org")
    page.get_by_label("Password", exact=True).fill("a long sentence")
    page.get_by_label("Password again").fill("a long sentence")
    page.get_by_role("button", name="Create account").click()

    # A project.
    check_axe(page)
    page.get_by_role("link", name="Create the first project").click()
    page.get_by_label("Name").fill("acme")
    page.get_by_label("Overflow").fill("044 123 45 67")
    page.get_by_role("button", name="Create project").click()

    # The connection, first with a wrong key.
    next_step(page, "Connect to Ringostat")
    page.get_by_label("API address").fill(pbx.url)
    key = page.get_by_label("Auth-key", exact=True)
    key.fill("wrong")
    page.get_by_role("button", name="Check connection").click()
    expect(page.locator("#connection")).to_contain_text("401")
    key.fill("demo-key")
    page.get_by_role("button", name="Check connection").click()
    expect(page.locator("#connection")).to_contain_text("demo_alice")
    check_axe(page)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Applies from the next call")).to_be_visible()

    # Agents, by one click each.
    next_step(page, "Add the agents")
    for name in ("Alice", "Bob"):
        page.get_by_role("button", name=f"Add {name}", exact=True).click()
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    check_axe(page)

    # A group of both.
    next_step(page, "Create a group")
    page.get_by_role("link", name="Add group").first.click()
    page.get_by_label("Name").fill("sales")
    page.get_by_role("checkbox", name="Alice").check()
    page.get_by_role("checkbox", name="Bob").check()
    page.get_by_role("button", name="Add group").click()

    # A rule for every call.
    next_step(page, "Create a rule")
    page.get_by_role("link", name="Add rule").first.click()
    page.get_by_label("Name", exact=True).fill("everyone")
    page.get_by_role("button", name="Add group").click()
    page.locator("#groups-0-group").select_option(label="sales")
    page.get_by_role("button", name="Add rule").click()
    expect(page.locator("[data-item='everyone'] .sentence")).to_contain_text("All calls go to sales")

    # The hook: tested from here, through the whole path; then the first real call turns the page green.
    next_step(page, "Enter the hook")
    expect(page.get_by_text("Waiting for the first call…")).to_be_visible()
    page.get_by_role("button", name="Send a test request").click()
    expect(page.locator("[role=status]").first).to_contain_text("The hook answered in")
    expect(page.locator("#hook-requests li").first).to_contain_text("Test")
    expect(page.get_by_text("Waiting for the first call…")).to_be_visible()
    check_axe(page)
    hook = page.locator("#hook-url").input_value()
    with DemoPbx(PbxSettings(hook_url=hook, event_url=f"{hook}/event", answer_after_seconds=(0.1, 0.2))) as caller:
        call = caller.call(caller="380501112233", dialed="380443330001", until="outcome")
        expect(page.get_by_text("Calls are arriving")).to_be_visible()

        # On the board: the call, and who got it.
        page.get_by_role("link", name="Board").click()
        expect(page.locator("#board-start .steps")).to_have_count(0)
        line = page.locator("#board-decisions li").filter(has_text="+380 50 111 22 33")
        agent = call.answered_by.removeprefix("demo_").capitalize()
        assert agent in {"Alice", "Bob"}
        expect(line).to_contain_text(f"{agent} {call.answered_by}")
        expect(line).to_contain_text("everyone")
        expect(line).to_contain_text("Answered")
        check_axe(page)

    # On its page: why.
    line.get_by_role("link").first.click()
    main = page.locator("main")
    expect(main).to_contain_text("It has no conditions: every call matches.")
    expect(main.get_by_role("row").filter(has_text=agent)).to_contain_text("Offered")
    other = "Bob" if agent == "Alice" else "Alice"
    expect(main.get_by_role("row").filter(has_text=other)).to_contain_text("Eligible")
    expect(main).to_contain_text("The same inputs give the same result.")
    check_axe(page)
