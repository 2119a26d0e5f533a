"""Everyday jobs in real Chromium, by mouse in English and by the keyboard alone in Ukrainian, with clicks counted."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from pytest_httpserver import HTTPServer
from sqlalchemy import select

from router.configuration import apply, load
from router.db import models
from router.explanation import studies
from tests.admin.conftest import PASSWORD, Admin, Chromium
from tests.admin.day import Day
from tests.admin.hands import Hands
from tests.admin.test_replays import run_at_once
from tests.rows import changing

HANDS = pytest.mark.parametrize(("language", "mouse"), [("en", True), ("uk", False)], ids=["mouse", "keyboard"])


# ---- calls


@HANDS
def test_who_missed_calls_takes_one_click_and_the_calls_another(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    day = Day(admin)
    missed = day.log(agent_id=day.agents["Bob"], outcome="no_answer")
    day.log(agent_id=day.agents["Alice"], outcome="answered", answered_agent_id=day.agents["Alice"])
    page = chromium.open("vira", "/p/acme/calls", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "Today"))
    rows = page.locator("#agents tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("Bob")
    hands.check_axe()
    hands.press(rows.first.get_by_role("link", name="1", exact=True))
    expect(page.locator(f"a[href$='/calls/{missed}']").first).to_be_visible()
    expect(page.locator("main tbody").last.locator("tr")).to_have_count(1)
    hands.check_axe()
    assert (hands.clicks, hands.pages) == (2, 2)


@HANDS
def test_a_nuisance_caller_is_blocked_with_two_clicks(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    decision = Day(admin).call("380671112233").decision_id
    page = chromium.open("emil", f"/p/acme/calls/{decision}", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("button", "Block this number"))
    dialog = page.get_by_role("dialog")
    hands.check_axe()
    hands.press(hands.find("button", "Block", within=dialog))
    expect(hands.find("button", "Undo")).to_be_visible()
    hands.check_axe()
    assert (hands.clicks, hands.pages) == (2, 1)


@HANDS
def test_a_change_is_undone_from_the_audit_with_two_clicks_in_the_projects_menu(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    day = Day(admin)
    with changing(admin.database, day.project_id, "emil@example.org") as session:
        session.get_one(models.Agent, day.agents["Alice"]).wrap_up_seconds = 30
    page = chromium.open("olena", "/p/acme/calls", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "Audit"))
    expect(hands.find("button", "Undo").first).to_be_visible()
    hands.check_axe()
    expect(hands.find("link", "Calls")).to_be_visible()
    hands.press(hands.find("button", "Undo").first)
    expect(page.get_by_text(hands.say("Undone. Applies from the next call."))).to_be_visible()
    assert (hands.clicks, hands.pages) == (2, 2)


@HANDS
def test_test_requests_are_out_of_sight_until_they_are_asked_for(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    day = Day(admin)
    real = day.log(agent_id=day.agents["Bob"], outcome="no_answer")
    trial = day.log(agent_id=day.agents["Alice"], is_test=True)
    page = chromium.open("vira", "/p/acme/calls?period=today", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    rows = page.locator("main tbody").last.locator("tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Bob")
    expect(page.locator("#agents tbody tr")).to_have_count(1)  # whose totals leave tests out
    hands.press(page.locator("summary", has_text=hands.say("More filters")))
    hands.choose(page.locator("#tests"), "only these")
    hands.press(hands.find("button", "Filter"))
    expect(page.locator(f"a[href$='/calls/{trial}']").first).to_be_visible()
    expect(page.locator(f"a[href$='/calls/{real}']")).to_have_count(0)
    expect(rows.locator(".chip", has_text=hands.say("Test"))).to_have_count(1)
    hands.check_axe()
    assert (hands.clicks, hands.pages) == (4, 1)


@HANDS
def test_users_and_audit_keep_the_menu_of_the_project_that_one_comes_from(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    for name in ("acme", "globex"):
        with changing(admin.database, admin.one(models.Project, name=name).id, "emil@example.org") as session:
            project = admin.one(models.Project, name=name)
            session.add(models.Schedule(project_id=project.id, name=f"hours of {name}", time_zone="UTC"))
    page = chromium.open("olena", "/p/acme/rules", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    for place in ("Users", "Audit"):
        hands.press(hands.find("link", place))
        expect(page.get_by_role("heading", level=1)).to_have_text(hands.say(place))
        expect(hands.find("link", "Rules")).to_be_visible()
        hands.check_axe()
    expect(page.get_by_text("hours of acme").first).to_be_visible()
    expect(page.get_by_text("hours of globex")).to_have_count(0)
    expect(page.locator("#f-project")).to_have_value("acme")
    hands.press(hands.find("link", "Rules"))
    expect(page).to_have_url(re.compile("/p/acme/rules$"))
    assert (hands.clicks, hands.pages) == (3, 3)


# ---- rules and schedules

HOURS = """
projects:
  - name: acme
    overflow: "380441234567"
    schedules: [{name: office, open: {daily: ["00:00-24:00"]}}]
    agents: [{name: Alice, sip_logins: [acme_alice]}]
    groups: [{name: sales, members: [{agent: Alice}]}]
    rules:
      - {name: closed, when: {outside: office}, groups: []}
      - {name: everyone, groups: [sales]}
"""


@HANDS
def test_closed_early_today_takes_two_clicks(admin: Admin, chromium: Chromium, language: str, mouse: bool) -> None:
    apply(admin.database, load(HOURS, {}), actor="test")
    page = chromium.open("emil", "/p/acme/board", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "Close now…"))
    expect(page.locator("#override_until")).not_to_have_value("")
    hands.check_axe()
    hands.press(hands.find("button", "Close now"))
    expect(page.locator("#board-closed")).to_contain_text(hands.say("the end of the day"))
    hands.check_axe()
    assert (hands.clicks, hands.pages) <= (2, 2)
    page.goto("/p/acme/rules")
    expect(page.locator("[data-item=closed]")).to_contain_text(hands.say("Applies now"))
    hands.check_axe()
    page.get_by_role("button", name=hands.say("Open again")).click()
    expect(page.get_by_text(hands.say("Applies now"))).to_have_count(0)


@HANDS
def test_a_new_rule_says_where_it_stands_and_that_it_can_never_match(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    apply(admin.database, load(HOURS, {}), actor="test")
    page = chromium.open("emil", "/p/acme/rules/new", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    never = page.locator("#never-matches .note")
    hands.type(page.locator("#name"), "VIP")
    hands.pick(page.locator("#place"), "At the bottom")
    expect(never).to_contain_text("everyone")
    hands.check_axe()
    hands.pick(page.locator("#place"), "At the top")
    expect(never).to_have_count(0)
    hands.press(hands.find("button", "Add rule"))
    expect(page.locator("[data-item]").first).to_contain_text("VIP")
    page.locator("[data-item=VIP] [data-move=bottom]").click()
    expect(page.locator("[data-item]").last).to_contain_text("VIP")


def test_what_is_typed_while_the_week_is_being_drawn_is_drawn_too(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/schedules/new")
    page.evaluate(
        """document.addEventListener("htmx:before:swap", () => {
            const hours = document.querySelector("#mon");
            hours.value = "8 – 17.30";
            hours.dispatchEvent(new Event("input", {bubbles: true}));
        }, {once: true})"""
    )
    page.locator("#mon").fill("8 – 17")
    expect(page.locator("#drawn svg").first.locator("rect")).to_have_attribute("width", "570")


@HANDS
def test_office_hours_with_lunch_are_drawn_while_they_are_typed(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("emil", "/p/acme/schedules/new", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.type(page.locator("#name"), "office")
    hands.type(page.locator("#mon"), "8 – 17.30")
    expect(page.get_by_role("heading", name=hands.say("The week as typed, not saved yet"))).to_be_visible()
    expect(page.locator("#drawn svg").first.locator("rect")).to_have_attribute("width", "570")
    hands.press(hands.find("button", "Copy to Tue–Fri"))
    expect(page.locator("#fri")).to_have_value("8 – 17.30")
    hands.press(hands.find("button", "Lunch on all days"))
    expect(page.locator("#fri")).to_have_value("08:00-13:00, 14:00-17:30")
    expect(page.locator("#drawn svg").first.locator("rect")).to_have_count(2)
    hands.check_axe()
    hands.press(hands.find("button", "Add schedule"))
    expect(page.get_by_role("heading", name="office", exact=True)).to_be_visible()
    assert admin.one(models.Schedule, name="office").open == {"mon-fri": ["08:00-13:00", "14:00-17:30"]}
    assert (hands.clicks, hands.pages) <= (5, 1)


# ---- people


@HANDS
def test_an_agent_is_away_tomorrow_with_a_deputy_in_four_clicks_from_the_board(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    day = Day(admin)
    page = chromium.open("emil", "/p/acme/board", language=language)
    hands, row = Hands(page, language=language, mouse=mouse), page.locator(f"#agent-{day.agents['Alice']}")
    panel = page.locator("#agent-panel")

    def open_panel() -> None:
        hands.press(row.get_by_role("button", name=f"{hands.say('More')}: Alice"))
        expect(panel.get_by_role("heading", name="Alice")).to_be_visible()

    open_panel()
    hands.check_axe()
    hands.choose(panel.locator("#deputy"), "Dave")
    hands.press(hands.find("button", "Tomorrow", panel))
    expect(row).to_contain_text(hands.say("deputy %(name)s", name="Dave"))
    expect(panel).to_be_hidden()
    assert (hands.clicks, hands.pages) <= (4, 0)

    # It is taken back, and a leave that has begun ends, from the row.
    open_panel()
    hands.press(hands.find("button", "Cancel leave", panel))
    expect(row).not_to_contain_text("Dave")
    open_panel()
    hands.press(hands.find("button", "Rest of today", panel))
    expect(row).to_contain_text("24:00")
    hands.check_axe()
    hands.press(row.get_by_role("button", name=f"{hands.say('End leave')}: Alice"))
    expect(row).not_to_contain_text("24:00")


@HANDS
def test_a_group_is_deleted_in_three_clicks_after_its_uses_were_told(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    Day(admin)
    page = chromium.open("emil", "/p/acme/groups", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(page.get_by_role("heading", name="vip").get_by_role("link"))
    hands.press(hands.find("link", "Delete"))
    expect(page.locator("main li")).to_contain_text(f"{hands.say('in the rule')} VIP")
    hands.check_axe()
    hands.press(hands.find("button", "Delete"))
    expect(hands.find("button", "Undo")).to_be_visible()
    assert (hands.clicks, hands.pages) <= (3, 3)


@HANDS
def test_departments_become_groups_whose_cards_show_their_tiers(
    admin: Admin, chromium: Chromium, httpserver: HTTPServer, language: str, mouse: bool
) -> None:
    people = {"101": ("Alice", "acme_alice"), "102": ("Bob", "acme_bob")}
    staff = {
        key: {
            "staffId": key, "fio": name, "departments": [{"id": "7", "name": "Sales"}],
            "directions": {"main": [{"direction": login, "type": "sip"}], "additional": []},
        }
        for key, (name, login) in people.items()
    }  # fmt: skip
    httpserver.expect_request("/api/json-rpc").respond_with_json({"jsonrpc": "2.0", "id": 1, "result": staff})
    with changing(admin.database, 1, "olena@example.org") as session:
        project = session.get_one(models.Project, 1)
        project.presence_api_url, project.presence_project_id = httpserver.url_for("").rstrip("/"), "12345"
    page = chromium.open("emil", "/p/acme/agents", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "Import from Ringostat").first)
    expect(page.locator("#departments")).to_contain_text("Alice, Bob")
    hands.check_axe()
    hands.press(hands.find("button", "Import those ticked"))
    expect(hands.find("button", "Undo")).to_be_visible()
    assert (hands.clicks, hands.pages) == (2, 2)
    with changing(admin.database, 1, "emil@example.org") as session:
        session.scalars(select(models.Member).order_by(models.Member.position.desc())).first().tier = 2  # type: ignore[union-attr]
    page.goto("/p/acme/groups")
    expect(page.locator("#groups .card")).to_contain_text(hands.say("tier %(tier)s: %(n)s", tier=2, n=1))
    hands.check_axe()


# ---- set-up


@HANDS
def test_a_new_project_greets_with_the_steps_and_shows_the_next_after_each(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("olena", "/projects", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "New project"))
    hands.type(page.locator("#name"), "initech")
    hands.type(page.locator("#overflow"), "044 123 45 67")
    hands.press(hands.find("button", "Create project"))
    expect(page.locator("#board-start [aria-current=step]")).to_contain_text(hands.say("Connect to Ringostat"))
    expect(page.locator(".tone-bad")).to_have_count(0)
    hands.check_axe()
    hands.press(hands.find("link", "Enter the Auth-key"))
    hands.type(page.locator("#presence_auth_key"), "right-key")
    hands.press(hands.find("button", "Save"))
    next_step = hands.find("link", "Add agents", page.get_by_role("status"))
    expect(next_step).to_be_in_viewport()
    hands.check_axe()
    hands.press(next_step)
    expect(page).to_have_url(re.compile("/p/initech/agents$"))
    assert hands.pages == 5


@HANDS
def test_each_parameter_of_the_hook_is_copied_with_one_click(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("olena", "/p/acme/hook", language=language)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    hands = Hands(page, language=language, mouse=mouse)
    parameters = page.locator("[id^=parameter-]")
    expect(parameters).to_have_count(5)
    for parameter in parameters.all():
        hands.press(parameter.get_by_role("button"))
        expect(page.locator("#live")).to_have_text(hands.say("Copied."))
        assert page.evaluate("navigator.clipboard.readText()") == parameter.inner_text().strip()
    assert (hands.clicks, hands.pages) == (5, 0)


@HANDS
def test_a_part_of_the_settings_is_saved_by_itself(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("olena", "/p/acme/settings", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    parts = page.get_by_role("navigation", name=hands.say("Parts of the settings")).get_by_role("link")
    expect(parts).to_have_text([hands.say(name) for name in ("General", "Presence", "Hook", "Calls", "Privacy")])
    hands.press(parts.last)
    with changing(admin.database, 1, "emil@example.org") as session:  # another part, meanwhile
        session.get_one(models.Project, 1).cool_down_seconds = 7
    hands.press(page.get_by_label(hands.say("Mask callers’ numbers")))
    hands.press(hands.find("button", "Save"))
    expect(page.get_by_text(hands.say("Saved. Applies from the next call."))).to_be_visible()
    hands.check_axe()
    project = admin.one(models.Project, id=1)
    assert (project.mask_numbers, project.cool_down_seconds) == (True, 7)
    assert (hands.clicks, hands.pages) == (3, 2)


@HANDS
def test_a_session_that_ended_costs_a_password_and_nothing_that_was_typed(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("olena", "/p/acme/settings/privacy", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.type(page.locator("#keep_days"), "33")
    admin.browser("olena").post("/account/sign-out-everywhere")
    hands.press(hands.find("button", "Save"))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    hands.check_axe()
    hands.type(dialog.locator("[name=password]"), PASSWORD)
    hands.press(hands.find("button", "Sign in", dialog))
    expect(page.get_by_text(hands.say("Saved. Applies from the next call."))).to_be_visible()
    assert admin.one(models.Project, id=1).keep_days == 33
    assert (hands.clicks, hands.pages) == (3 if mouse else 2, 1)


@HANDS
def test_an_overflow_is_checked_and_asked_about_in_the_form_itself(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    page = chromium.open("olena", "/p/acme/settings", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    field, doubt = page.locator("#overflow"), page.locator("#overflow-doubt")
    expect(page.locator("#overflow_none")).to_be_visible()
    hands.type(field, "044 123 45")
    incomplete = "Not a complete Ukrainian number. Write it with all digits, like 044 123 45 67."
    expect(doubt).to_contain_text(hands.say(incomplete))
    expect(page.locator("#overflow_none")).to_be_hidden()
    hands.check_axe()
    hands.type(field, "nobody_has_this")
    unknown = "No such SIP login is known. Check the spelling, unless it is the id of a scheme in Ringostat."
    expect(doubt).to_contain_text(hands.say(unknown))
    hands.type(field, "044 123 45 67")
    expect(doubt).to_have_text("")
    hands.press(hands.find("button", "Save"))
    expect(page.get_by_text(hands.say("Saved. Applies from the next call."))).to_be_visible()
    assert admin.one(models.Project, id=1).overflow == "380441234567"
    assert hands.pages == 1


# ---- tests and versions


@HANDS
def test_a_call_is_kept_as_a_test_which_holds_up_a_change_until_it_is_accepted_and_restored(
    admin: Admin, chromium: Chromium, language: str, mouse: bool
) -> None:
    decision_id = Day(admin).call("380671110000").decision_id
    page = chromium.open("olena", f"/p/acme/calls/{decision_id}", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("button", "Keep as a test"))
    expect(page.get_by_text(hands.say("This test passes with the rules as they are now."))).to_be_visible()
    assert (hands.clicks, hands.pages) == (1, 1)
    hands.check_axe()

    page.goto("/p/acme/rules")
    hands.press(page.locator("[data-item=VIP]").get_by_role("switch"))
    expect(hands.find("button", "Save all the same")).to_be_visible()
    hands.check_axe()
    hands.press(hands.find("button", "Save all the same"))
    expect(page.locator("[data-item=VIP]")).to_be_visible()
    assert not admin.one(models.Rule, name="VIP").enabled

    page.goto("/p/acme/versions")
    version = admin.one(models.Project, name="acme").version - 1
    hands.press(hands.find("link", "Version %(n)s", n=version))
    expect(hands.find("button", "Restore this version")).to_be_visible()
    hands.check_axe()
    hands.press(hands.find("button", "Restore this version"))
    hands.press(page.get_by_role("dialog").get_by_role("button", name=hands.say("Restore"), exact=True))
    restored = hands.say("Version %(n)s is restored. Applies from the next call.", n=version)
    expect(page.get_by_text(restored)).to_be_visible()
    assert admin.one(models.Rule, name="VIP").enabled


@HANDS
def test_rules_are_changed_without_fear(
    admin: Admin, chromium: Chromium, monkeypatch: pytest.MonkeyPatch, language: str, mouse: bool
) -> None:
    """Keep a call as a test, change the rules as a draft, see what it would do, mend it, publish it, take it back."""
    monkeypatch.setattr(studies, "launch", run_at_once)
    day = Day(admin)
    calls = [day.call(f"38067111000{n}").decision_id for n in range(2)]
    with admin.database.writing() as session:
        for decision in session.scalars(select(models.Decision)):
            decision.asked_at -= timedelta(days=1)
    page = chromium.open("emil", f"/p/acme/calls/{calls[0]}", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("button", "Keep as a test"))
    expect(page.get_by_text(hands.say("This test passes with the rules as they are now."))).to_be_visible()

    page.goto("/p/acme/rules")
    hands.press(hands.find("link", "Edit as a draft"))
    expect(page.get_by_text(hands.say("You see the draft"))).to_be_visible()
    page.locator("[data-item=VIP] [data-move=bottom]").click()
    expect(page.locator("[data-item]").last).to_contain_text("VIP")
    hands.check_axe()
    hands.press(hands.find("link", "Review", page.locator("#draft-bar")))

    expect(page.locator("#tests").get_by_text(hands.say("fails"), exact=True)).to_be_visible()
    expect(page.locator("#changes")).to_contain_text("emil@example.org")
    hands.check_axe()
    hands.press(hands.find("button", "Replay yesterday’s calls"))
    expect(page.locator("#replay table")).to_contain_text("VIP")
    expect(page.locator("#replay")).to_contain_text("-2")
    hands.check_axe()

    page.goto("/p/acme/draft/rules")
    page.locator("[data-item=VIP] [data-move=top]").click()
    expect(page.locator("[data-item]").first).to_contain_text("VIP")
    hands.press(page.locator('[data-item="from adverts"]').get_by_role("switch"))
    expect(page.get_by_role("status").get_by_text(hands.say("Undo"))).to_be_visible()
    hands.press(hands.find("link", "Review", page.locator("#draft-bar")))
    expect(page.locator("#tests .tone-ok")).to_be_visible()
    hands.type(page.locator("#comment"), "No more adverts")
    hands.press(hands.find("button", "Publish"))
    expect(page.get_by_text("No more adverts").first).to_be_visible()
    hands.check_axe()
    assert not admin.one(models.Rule, name="from adverts").enabled

    hands.press(hands.find("button", "Undo this change"))
    expect(page.get_by_text(hands.say("Undone. Applies from the next call."))).to_be_visible()
    assert admin.one(models.Rule, name="from adverts").enabled
