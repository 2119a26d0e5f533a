"""Agents, groups, rules, schedules and the hook in real Chromium: by hand, by keyboard alone, and accessible."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from router.configuration import apply, load
from router.db import models
from tests.admin.conftest import Admin, Chromium

CONFIG = """
projects:
  - name: acme
    country: PL
    overflow: "380441234567"
    presence: {fresh_seconds: 3600}
    schedules:
      - name: office hours
        open: {mon-fri: ["09:00-13:00", "14:00-18:00"]}
        exceptions: {2026-12-24: closed}
    agents:
      - {name: Alice, sip_logins: [acme_alice, acme_alice_mob], daily_cap: 80}
      - {name: Bob, sip_logins: [acme_bob], paused: true}
      - {name: Carol, sip_logins: []}
    groups:
      - {name: sales, strategy: weighted, members: [{agent: Alice}, {agent: Bob, tier: 2}]}
      - {name: empty}
    rules:
      - name: VIP
        when: {caller: ["+38050*"], params: {utm_source: [google]}}
        prefer: last_agent
        groups: [sales, empty]
      - {name: night, when: {outside: office hours}, groups: [], overflow: ""}
      - {name: everyone, groups: [sales]}
"""


@pytest.fixture(autouse=True)
def configured(admin: Admin) -> None:
    admin.configure(CONFIG)
    see(admin, "acme_alice", "acme_bob", "acme_petro")


def see(admin: Admin, *online: str) -> None:
    now = datetime.now(UTC)
    project_id = admin.one(models.Project, name="acme").id
    with admin.database.writing() as session:
        snapshot = models.PresenceSnapshot(project_id=project_id, began_at=now, online=[*online], speaking=[])
        session.add(snapshot)
        session.flush()
        session.merge(models.Presence(project_id=project_id, snapshot_id=snapshot.id, began_at=now, failures=0))
        for login in online:
            session.merge(
                models.LoginState(project_id=project_id, login=login, online=True, speaking=False, since_at=now)
            )


def order(admin: Admin) -> list[str]:
    project_id = admin.one(models.Project, name="acme").id
    rows = admin.all(models.Rule, project_id=project_id)
    return [row.name for row in sorted(rows, key=lambda row: row.position)]


def id_of(admin: Admin, model: Any, name: str) -> int:
    return int(admin.one(model, name=name).id)


def test_refused_forms_are_accessible_and_take_the_focus(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules/new")
    page.get_by_role("button", name="Caller").click()
    page.locator("#conditions-0-value").fill("*")
    page.get_by_role("button", name="Add rule").click()
    expect(page.locator("[data-error-summary]")).to_be_focused()
    value = page.locator("#conditions-0-value")
    expect(value).to_have_value("*")
    expect(value).to_have_attribute("aria-invalid", "true")
    described = (value.get_attribute("aria-describedby") or "").split()
    assert any(page.locator(f"#{part}").inner_text() for part in described), "what is wrong is read with the field"
    chromium.check_axe(page)
    page.goto(f"/p/acme/schedules/{id_of(admin, models.Schedule, 'office hours')}")
    page.get_by_label("Monday", exact=True).fill("9 to 5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Monday", exact=True)).to_have_attribute("aria-invalid", "true")
    chromium.check_axe(page)


def test_a_rule_goes_to_the_top_by_keyboard_alone(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules")
    up = page.get_by_role("button", name="Move everyone up")
    for button, place in ((up, 2), (page.get_by_role("button", name="Move everyone to the top"), 1)):
        button.focus()
        with page.expect_response("**/rules/order") as answer:
            page.keyboard.press("Enter")
        assert answer.value.status == 200
        expect(page.locator("#live")).to_have_text(f"everyone is now number {place} of 3.")
    assert order(admin) == ["everyone", "VIP", "night"]
    expect(up).to_be_disabled()
    expect(page.get_by_role("button", name="Move everyone down")).to_be_focused()
    expect(page.locator(".toasts")).to_contain_text("Saved. Applies from the next call.")
    page.locator(".toasts").get_by_role("button", name="Undo").last.click()
    expect(page.get_by_text("Undone. Applies from the next call.")).to_be_visible()
    assert page.locator("[data-item] h2").all_inner_texts() == ["VIP", "everyone", "night"]


def test_a_rule_is_dragged_to_its_place(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules")
    with page.expect_response("**/rules/order"):
        page.locator(".grip").nth(0).drag_to(page.locator(".grip").nth(2), target_position={"x": 4, "y": 30})
    assert order(admin)[-1] == "VIP"


def test_an_order_that_would_fail_a_test_is_asked_about_in_place_of_the_page(admin: Admin, chromium: Chromium) -> None:
    test = """
    tests:
      - {name: at night, call: {caller: "+380671112233", at: 2026-12-05T03:00}, expect: {rule: night}}
"""
    apply(admin.database, load(CONFIG + test, {}), actor="test")
    page = chromium.open("olena", "/p/acme/rules")
    page.get_by_role("button", name="Move everyone to the top").click()
    expect(page.get_by_role("heading", name="Not saved")).to_be_visible()
    chromium.check_axe(page)
    assert order(admin) == ["VIP", "night", "everyone"]
    page.go_back()
    expect(page.locator("[data-item] h2").first).to_have_text("VIP")
    page.get_by_role("button", name="Move everyone to the top").click()
    page.get_by_role("button", name="Save all the same").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    assert order(admin)[0] == "everyone"


def test_a_rule_is_written_with_conditions_one_by_one(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules/new")
    page.get_by_label("Name", exact=True).fill("Evening")
    page.get_by_role("button", name="Caller").click()
    page.locator("#conditions-0-value").fill("050*, anonymous")
    page.get_by_role("button", name="Parameter").click()
    page.locator("#conditions-1-name").fill("utm_source")
    page.locator("#conditions-1-op").select_option(label="begins with")
    page.locator("#conditions-1-value").fill("goo")
    page.get_by_role("button", name="Time").click()
    page.locator("#conditions-2-op").select_option(label="outside")
    for n, group in enumerate(("empty", "sales")):
        page.get_by_role("button", name="Add group").click()
        page.locator(f"#groups-{n}-group").select_option(label=group)
    page.get_by_role("button", name="Move Group up").last.click()
    page.get_by_label("A number, SIP login or scheme").check()
    page.get_by_label("Number, SIP login or scheme", exact=True).fill("067 123 45 67")
    page.get_by_role("button", name="Add rule").click()
    expect(page.locator("[role=status]").first).to_contain_text("Evening is added.")
    expect(page.locator("[data-item='Evening'] .sentence")).to_contain_text("Calls from")
    made = admin.one(models.Rule, name="Evening")
    assert made.conditions == {
        "caller": ["050*", "anonymous"],
        "params": {"utm_source": ["goo*"]},
    }  # 050 is no trunk in PL
    assert made.outside_id == id_of(admin, models.Schedule, "office hours")
    chain = [id_of(admin, models.Group, name) for name in ("sales", "empty")]
    assert [link.group_id for link in made.groups] == chain
    assert made.overflow == "48671234567"


def test_a_choice_shows_only_what_belongs_to_it(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules/new")
    expect(page.get_by_label("Looks back")).to_be_hidden()
    page.get_by_label("Whoever last talked with the caller").check()
    expect(page.get_by_label("Looks back")).to_be_visible()
    page.get_by_label("The agent named in a call parameter").check()
    expect(page.get_by_label("Looks back")).to_be_hidden()
    expect(page.get_by_label("Parameter that names the agent")).to_be_visible()


def test_a_login_becomes_an_agent_with_one_click_and_undo_takes_it_back(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/agents")
    page.get_by_role("button", name="Add Petro").click()
    expect(page.get_by_role("link", name="Petro", exact=True)).to_be_visible()
    assert [login.login for login in admin.one(models.Agent, name="Petro").sip_logins] == ["acme_petro"]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone. Applies from the next call.")).to_be_visible()
    assert admin.all(models.Agent, name="Petro") == []


def test_search_filters_as_one_types(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("vira", "/p/acme/agents")
    page.get_by_role("searchbox").fill("bob")
    expect(page.get_by_role("rowheader")).to_have_count(1)
    expect(page.get_by_role("rowheader")).to_have_text("Bob")
    expect(page).to_have_url(re.compile(r"q=bob"))


def test_members_are_added_and_ordered_and_the_queue_follows(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", f"/p/acme/groups/{id_of(admin, models.Group, 'sales')}")
    expect(page.locator("#queue")).to_contain_text("If a call came now, it would go to the first.")
    page.get_by_text("Add members").click()
    page.get_by_role("checkbox", name="Carol").check()
    page.get_by_role("button", name="Add those ticked").click()
    page.get_by_role("button", name="Move Carol up").click()
    page.get_by_role("button", name="Move Carol up").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    names = {agent.id: agent.name for agent in admin.all(models.Agent)}
    members = [(names[m.agent_id], m.tier) for m in admin.one(models.Group, name="sales").members]
    assert members == [("Carol", 1), ("Alice", 1), ("Bob", 2)]
    expect(page.locator("#queue li").first).to_contain_text("Alice")
    see(admin)  # everybody leaves
    with page.expect_response("**/queue"):
        pass
    expect(page.locator("#queue")).to_contain_text("nobody could take it")


def test_somebody_who_saved_first_is_shown_beside_what_was_typed(admin: Admin, chromium: Chromium) -> None:
    address = f"/p/acme/agents/{id_of(admin, models.Agent, 'Alice')}"
    mine, theirs = chromium.open("emil", address), chromium.open("olena", address)
    theirs.get_by_label("Daily cap").fill("40")
    theirs.get_by_role("button", name="Save").click()
    expect(theirs.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    mine.get_by_label("Daily cap").fill("60")
    mine.get_by_role("button", name="Save").click()
    expect(mine.get_by_role("alert")).to_contain_text("olena@example.org saved this while you were editing.")
    expect(mine.get_by_role("row", name="Daily cap")).to_contain_text("40")
    expect(mine.get_by_label("Daily cap", exact=True)).to_have_value("60")
    chromium.check_axe(mine)
    mine.get_by_role("button", name="Save what is chosen").click()
    expect(mine.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    assert admin.one(models.Agent, name="Alice").daily_cap == 60


def test_dates_are_added_and_the_week_is_drawn(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", f"/p/acme/schedules/{id_of(admin, models.Schedule, 'office hours')}")
    page.get_by_role("button", name="Add date").click()
    page.locator("#exceptions-1-date").fill("2026-12-31")
    page.locator("#exceptions-1-hours").fill("10:00-14:00")
    expect(page.get_by_role("heading", name="The week as typed, not saved yet")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    kept = admin.one(models.Schedule, name="office hours").exceptions
    assert kept == {"2026-12-24": "closed", "2026-12-31": ["10:00-14:00"]}


def test_exceptions_of_every_kind_are_entered_with_the_keyboard(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", f"/p/acme/schedules/{id_of(admin, models.Schedule, 'office hours')}")

    def add(kind: str) -> None:
        page.get_by_role("button", name=kind, exact=True).focus()
        page.keyboard.press("Enter")  # the first field of the new row has the focus

    add("Add a range")
    page.keyboard.type("01012027")
    page.locator("#exceptions-1-last").fill("2027-01-08")
    add("Add a day of every year")
    page.keyboard.type("24")
    page.keyboard.press("Tab")
    page.keyboard.type("Aug")
    add("Add days of every year")
    for typed in ("31", "Dec", "2", "Jan"):
        page.keyboard.type(typed)
        page.keyboard.press("Tab")
    page.keyboard.type("New Year")
    page.keyboard.press("Tab")
    page.keyboard.type("10-12")
    add("Add a weekday of a month")
    for typed in ("last", "Mon", "May"):
        page.keyboard.type(typed)
        page.keyboard.press("Tab")
    chromium.check_axe(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()
    kept = admin.one(models.Schedule, name="office hours").exceptions
    assert kept == {
        "2026-12-24": "closed",
        "2027-01-01..2027-01-08": "closed",
        "last mon of may": "closed",
        "08-24": "closed",
        "12-31..01-02": ["10:00-12:00"],
    }
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("group", name="A weekday of every year").get_by_role("button", name="Remove this row").focus()
    page.keyboard.press("Enter")
    with page.expect_response(lambda answer: answer.status == 303):
        page.get_by_role("button", name="Save").click()
    assert "last mon of may" not in admin.one(models.Schedule, name="office hours").exceptions


def test_the_hook_turns_green_by_itself_and_shows_the_request(admin: Admin, chromium: Chromium, live: str) -> None:
    page = chromium.open("olena", "/p/acme/hook")
    expect(page.get_by_text("Waiting for the first call…")).to_be_visible()
    token = admin.one(models.HookToken, project_id=id_of(admin, models.Project, "acme")).token
    admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": "1", "userfield": "+380501234567"})
    expect(page.get_by_text("Calls are arriving")).to_be_visible()
    assert page.locator("#hook-live[hx-get]").count() == 0, "and then it rests"
    expect(page.locator("#hook-requests li")).to_have_count(1)
    page.locator("#hook-requests summary").click()
    admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": "2", "userfield": "+380501234567"})
    page.evaluate("htmx.trigger('#hook-requests', 'every', {}, false)")
    expect(page.locator("#hook-requests li")).to_have_count(2)
    expect(page.locator("#hook-requests li").last.locator("details")).to_have_attribute("open", "")
    page.locator("#hook-requests li").first.locator("summary").click()
    expect(page.locator("#hook-requests pre").first).to_contain_text('"uniqueid":')
    chromium.check_axe(page)


def test_a_test_request_is_sent_and_marked_as_one(admin: Admin, chromium: Chromium) -> None:
    context = admin.app.extensions["admin"]
    admin.app.extensions["admin"] = context._replace(
        settings=context.settings.model_copy(update={"web_concurrency": 1})
    )
    page = chromium.open("olena", "/p/acme/hook")
    page.get_by_label("Caller", exact=True).fill("+380501234567")
    page.get_by_role("button", name="Send a test request").click()
    expect(page.locator("[role=status]").first).to_contain_text("The hook answered in")
    expect(page.locator("#hook-requests li")).to_contain_text("Test")
    expect(page.get_by_text("Waiting for the first call…")).to_be_visible()  # a test is no call
    assert admin.all(models.Reservation) == []


def test_a_new_address_is_asked_about_first(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/hook")
    before = page.locator("#hook-url").input_value()
    page.get_by_role("button", name="Create a new address").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Create a new address").click()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    assert page.locator("#hook-url").input_value() == before
    page.get_by_role("button", name="Create a new address").click()
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("The new address is ready")).to_be_visible()
    assert page.locator("#hook-url").input_value() != before
    expect(page.get_by_role("button", name="End it now")).to_be_visible()


def test_the_pages_work_without_javascript(admin: Admin, chromium_process: Any, live: str) -> None:
    context = chromium_process.new_context(base_url=live, java_script_enabled=False)
    context.add_cookies([{"name": "session", "value": admin.session_cookie("emil"), "url": live}])
    page: Page = context.new_page()
    page.goto("/p/acme/rules")
    page.get_by_role("button", name="Move night up").click()
    assert order(admin) == ["night", "VIP", "everyone"]
    page.get_by_role("switch", name="VIP").click()
    assert not admin.one(models.Rule, name="VIP").enabled
    page.goto("/p/acme/rules/new")
    page.get_by_label("Name", exact=True).fill("plain")
    page.get_by_role("button", name="Caller").click()
    page.get_by_role("button", name="Direction").click()
    page.get_by_role("button", name="Remove this row").first.click()
    page.locator("#conditions-0-value").fill("in")
    page.get_by_role("button", name="Add rule").click()
    assert admin.one(models.Rule, name="plain").conditions == {"direction": ["in"]}
    context.close()
