"""A session that ended loses nothing that was typed: it is there again after signing in, and stored only then."""

from __future__ import annotations

import re
import secrets
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from werkzeug.test import TestResponse

from router.admin.page import ACCESS, FORMS
from router.admin.unsaved_form import LIFETIME_SECONDS
from router.db import models
from tests.admin.conftest import PASSWORD, Admin, Browser, Chromium, shown_fields
from tests.admin.day import Day

SECRET = "a-key-that-nobody-may-read"


def end_session(admin: Admin, name: str) -> None:
    """Sign this person out everywhere, as another browser would."""
    with admin.database.writing() as session:
        session.get_one(models.User, admin.user(name).id).session_epoch += 1


def kept_of(page: str) -> str:
    found = re.search(r'name="kept" value="([^"]+)"', page)
    assert found is not None, "nothing is kept"
    return unescape(found[1])


def sign_in_again(browser: Browser, answer: TestResponse, name: str = "emil", password: str = PASSWORD) -> TestResponse:
    """What the form of the sign-in page posts, to where it posts it."""
    assert 'name="password"' in answer.text
    return browser.post(address_of(answer), kept=kept_of(answer.text), email=f"{name}@example.org", password=password)


def address_of(answer: TestResponse) -> str:
    parts = urlsplit(answer.request.url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


PAGES = {
    "agents/new": {"name": "Zoë Ünal", "sip_logins": "zoe\nzoe_mob", "staff_id": "77"},
    "groups/new": {"name": "Night & day", "strategy": "priority", "ring_seconds": "33"},
    "rules/new": {"name": "Ads", "conditions-0-kind": "param", "conditions-0-op": "prefix",
                  "conditions-0-name": "utm_source", "conditions-0-value": "google, bing"},
    "schedules/new": {"name": "Long week", "time_zone": "Europe/Paris", "mon": "07:11-19:22"},
    "settings": {"name": "acme", "time_zone": "Europe/Paris"},
    "settings/hook": {"hook_key": "where_to", "hook_allow_addresses": "203.0.113.0/24"},
}  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_what_was_typed_is_there_again_after_signing_in(admin: Admin, emil: Browser, path: str) -> None:
    Day(admin)
    typed = PAGES[path]
    _ = emil.token
    end_session(admin, "emil")
    before = admin.one(models.Project, name="acme").version
    answer = emil.post(f"/p/acme/{path}", **typed)
    assert answer.status_code == 401
    assert "You are signed out. Nothing was saved yet." in unescape(answer.text)
    again = sign_in_again(emil, answer)
    assert again.status_code == 200
    assert again.request.path == f"/p/acme/{path}"
    assert "not saved yet" in again.text
    shown = shown_fields(again.text)
    for name, text in typed.items():
        assert text in shown.get(name, []) or text in unescape(again.text), name
    assert admin.one(models.Project, name="acme").version == before, "nothing is stored by signing in"
    saved = emil.post(f"/p/acme/{path}", **typed)
    assert saved.status_code in {303, 409, 422}
    assert "sign-in" not in (saved.location or "")


def test_a_wrong_password_in_between_loses_nothing(admin: Admin, emil: Browser) -> None:
    end_session(admin, "emil")
    answer = emil.post("/p/acme/agents/new", name="Zoë")
    refused = sign_in_again(emil, answer, password="wrong")
    assert refused.status_code == 422
    again = sign_in_again(emil, refused)
    assert 'value="Zoë"' in again.text


def test_what_is_kept_can_be_read_by_nobody_and_by_no_other_user(admin: Admin, olena: Browser) -> None:
    end_session(admin, "olena")
    answer = olena.post("/p/acme/settings/presence", presence_project_id="acme", presence_auth_key=SECRET)
    assert SECRET not in answer.text
    assert "acme" not in kept_of(answer.text)
    assert answer.headers["Cache-Control"] == "no-store"
    as_emil = sign_in_again(olena, answer, name="emil")
    assert as_emil.status_code == 303
    assert "another user’s" in unescape(olena.get("/projects").text)


def test_who_may_not_save_a_form_is_not_told_to_save_it(nobody: Browser) -> None:
    answer = nobody.post("/p/acme/settings", name="Mine")
    assert answer.status_code == 401
    as_vira = sign_in_again(nobody, answer, name="vira")
    assert (as_vira.status_code, as_vira.location) == (303, "/p/acme/settings")
    page = unescape(nobody.get("/p/acme/settings").text)
    assert "your role does not allow you to save it" in page
    assert "look it through, and save" not in page


def test_credentials_are_to_be_typed_once_more(admin: Admin, olena: Browser) -> None:
    end_session(admin, "olena")
    answer = olena.post("/p/acme/settings/presence", presence_project_id="4711", presence_auth_key=SECRET)
    again = sign_in_again(olena, answer, name="olena")
    assert 'value="4711"' in again.text
    assert SECRET not in again.text
    assert admin.one(models.Project, id=1).presence_project_id == ""


def test_another_page_takes_nothing_that_was_kept_for_this_one(admin: Admin, emil: Browser) -> None:
    end_session(admin, "emil")
    kept = kept_of(emil.post("/p/acme/agents/new", name="Zoë").text)
    answer = emil.post("/p/globex/agents/new", kept=kept, email="emil@example.org", password=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/p/globex/agents/new")


@pytest.mark.parametrize("made_up", ["", "x", "gAAAAAB", "ü" * 10])
def test_what_we_did_not_seal_is_not_shown(admin: Admin, emil: Browser, made_up: str) -> None:
    end_session(admin, "emil")
    answer = emil.post("/p/acme/agents/new", kept=made_up, email="emil@example.org", password=PASSWORD)
    assert answer.status_code == 303


def test_what_was_kept_for_more_than_a_day_is_gone(
    admin: Admin, emil: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_session(admin, "emil")
    answer = emil.post("/p/acme/agents/new", name="Zoë")
    monkeypatch.setattr("router.admin.unsaved_form.LIFETIME_SECONDS", -LIFETIME_SECONDS)
    assert sign_in_again(emil, answer).status_code == 303


def test_a_button_that_acts_is_pressed_anew_by_hand(admin: Admin, emil: Browser) -> None:
    day = Day(admin)
    url = f"/p/acme/agents/{day.agents['Alice']}/delete"
    _ = emil.token
    with emil.client.session_transaction() as session:
        session["since"] = 0  # a session of long ago
    answer = emil.post(url, sure="yes")
    again = sign_in_again(emil, answer)
    assert "You are signed in again" in again.text
    assert day.agents["Alice"] in {row.id for row in admin.all(models.Agent)}
    done = emil.post(url, kept=kept_of(again.text))
    assert done.status_code == 303
    assert day.agents["Alice"] not in {row.id for row in admin.all(models.Agent)}


def test_a_deed_that_no_page_of_the_session_asked_for_is_not_kept(admin: Admin, emil: Browser) -> None:
    end_session(admin, "emil")
    answer = emil.client.post(
        "/p/acme/agents/add-login", data={"login": "x", "csrf_token": admin.browser("vira").token}
    )
    assert (answer.status_code, answer.location) == (302, "/sign-in")


def test_other_sites_cannot_fill_a_form_in(admin: Admin, emil: Browser, olena: Browser) -> None:
    url, fields = "/p/acme/agents/new", {"name": "Eve", "csrf_token": admin.browser("vira").token}
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert emil.client.post(url, data=fields, headers=headers).status_code == 400
    end_session(admin, "olena")
    assert olena.client.post(url, data=fields, headers=headers).location == "/sign-in"
    assert emil.client.post(url, data=fields | {"csrf_token": "made-up"}).status_code == 400


def test_a_form_of_an_earlier_session_is_shown_as_typed_and_not_stored(admin: Admin, emil: Browser) -> None:
    """Somebody signed out and in again in another tab: the token of this one grew old."""
    old = emil.token
    with emil.client.session_transaction() as session:
        session["csrf_token"] = secrets.token_hex(20)
    answer = emil.client.post("/p/acme/agents/new", data={"csrf_token": old, "name": "Zoë"})
    assert answer.status_code == 200
    assert 'value="Zoë"' in answer.text
    assert "The page was out of date" in answer.text
    assert admin.all(models.Agent) == []
    assert emil.post("/p/acme/agents/new", name="Zoë", wrap_up_seconds="0").status_code == 303


def test_who_signed_in_elsewhere_meanwhile_finds_it_as_well(admin: Admin, emil: Browser) -> None:
    end_session(admin, "emil")
    answer = emil.post("/p/acme/agents/new", name="Zoë")
    old = emil.token
    assert emil.post("/sign-in", email="emil@example.org", password=PASSWORD).status_code == 303
    fields = {"csrf_token": old, "kept": kept_of(answer.text), "email": "emil@example.org", "password": PASSWORD}
    again = emil.client.post("/p/acme/agents/new", data=fields)
    assert 'value="Zoë"' in again.text


def test_nobody_can_send_something_kept_to_a_page_that_keeps_nothing(nobody: Browser) -> None:
    assert nobody.post("/sign-in", kept="x", email="a@example.org", password="x").status_code == 400


def test_a_sign_in_page_that_grew_old_keeps_the_address(nobody: Browser, vira: Browser) -> None:
    nobody.get("/sign-in")
    fields = {"csrf_token": vira.token, "email": "vira@example.org", "password": PASSWORD}
    answer = nobody.client.post("/sign-in", data=fields)
    assert answer.status_code == 200
    assert 'value="vira@example.org"' in answer.text
    assert PASSWORD not in answer.text


def test_every_form_that_people_type_into_is_shown_again(admin: Admin) -> None:
    """A page with a form of its own is one of FORMS, but for those that act on what is ticked, or start a study."""
    forms = {name for name, access in ACCESS.items() if access.see is not None and access.do is not None}
    acting = {"admin.agent_delete", "admin.group_delete", "admin.agents_import"}
    assert forms - FORMS == acting | {"admin.replay", "admin.draft_replay", "admin.what_if"}


@pytest.mark.parametrize("method", ["get", "post"])
def test_htmx_is_only_told_that_the_session_ended(nobody: Browser, method: str) -> None:
    url = "/p/acme/groups" if method == "get" else "/p/acme/settings/check"
    fields = {"data": {"csrf_token": nobody.token}} if method == "post" else {}
    answer = getattr(nobody.client, method)(url, headers={"HX-Request": "true"}, **fields)
    assert (answer.status_code, answer.text) == (401, "")


def test_a_page_can_ask_who_is_signed_in(admin: Admin, emil: Browser) -> None:
    now = emil.get("/session").get_json()
    assert now["user"] == admin.user("emil").id
    assert emil.client.post("/p/acme/agents/new", data={"csrf_token": now["token"], "name": "Zoë"}).status_code == 422
    end_session(admin, "emil")
    now = emil.get("/session").get_json()
    assert now["user"] is None
    fields = {"csrf_token": now["token"], "email": "emil@example.org", "password": PASSWORD}
    assert emil.client.post("/sign-in", data=fields).status_code == 303
    assert emil.get("/session").get_json()["user"] == admin.user("emil").id


# ---- with script: a dialog over the page


def typed_form(chromium: Chromium, name: str = "emil") -> Page:
    page = chromium.open(name, "/p/acme/agents/new")
    page.get_by_label("Agent’s name", exact=True).fill("Zoë Ünal")
    page.get_by_label("SIP logins").fill("zoe\nzoe_mob")
    return page


def test_without_script_the_form_is_as_it_was_typed_after_signing_in(admin: Admin, chromium: Chromium) -> None:
    page = typed_form(chromium)
    page.evaluate("document.getElementById('sign-in').remove()")
    end_session(admin, "emil")
    page.get_by_role("button", name="Add agent").click()
    expect(page.get_by_text("You are signed out. Nothing was saved yet.")).to_be_visible()
    chromium.check_axe(page)
    page.get_by_label("Email").fill("emil@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("SIP logins")).to_have_value("zoe\nzoe_mob")
    page.get_by_role("button", name="Add agent").click()
    expect(page.get_by_text("Zoë Ünal is added.")).to_be_visible()


def test_the_dialog_can_be_left_and_comes_again_with_all_that_was_typed(admin: Admin, chromium: Chromium) -> None:
    page = typed_form(chromium)
    end_session(admin, "emil")
    page.get_by_role("button", name="Add agent").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Agent’s name", exact=True)).to_have_value("Zoë Ünal")
    page.get_by_role("button", name="Add agent").click()
    dialog.get_by_label("Password").fill("wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Wrong email or password.")
    chromium.check_axe(page)
    assert admin.all(models.Agent) == []
    dialog.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Zoë Ünal is added.")).to_be_visible()
    assert admin.one(models.AuditEntry, subject="agent").actor == "emil@example.org"


def test_who_signed_in_as_another_meanwhile_does_not_send_the_form_of_the_first(
    admin: Admin, chromium: Chromium
) -> None:
    page = typed_form(chromium)
    other = {"name": "session", "value": admin.session_cookie("olena"), "url": page.evaluate("location.origin")}
    page.context.add_cookies([other])  # type: ignore[list-item]
    page.get_by_role("button", name="Add agent").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Email")).to_have_value("emil@example.org")
    assert admin.all(models.Agent) == []
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Zoë Ünal is added.")).to_be_visible()
    assert admin.one(models.AuditEntry, subject="agent").actor == "emil@example.org"


def test_what_asks_in_the_background_asks_again_after_signing_in(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/settings/presence")
    page.get_by_label("API address").fill("https://127.0.0.1:1")
    end_session(admin, "olena")
    page.get_by_role("button", name="Check connection").click()
    page.get_by_role("dialog").get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#connection")).to_contain_text("Ringostat cannot be reached.")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Applies from the next call")).to_be_visible()
    assert admin.one(models.Project, id=1).presence_api_url == "https://127.0.0.1:1"


def test_a_board_asks_once_to_sign_in_and_goes_on_by_itself(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("vira", "/p/acme/board")
    end_session(admin, "vira")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    with page.expect_response(lambda response: "/board/live" in response.url) as renewed:
        pass
    assert renewed.value.ok


# ---- over http, while the address is https


@pytest.mark.parametrize(
    ("scheme", "headers", "title"),
    [("http", {}, "This page was opened over http"), ("https", {}, "Your browser sent no cookie"),
     ("http", {"X-Forwarded-Proto": "https"}, "Your browser sent no cookie")],
)  # fmt: skip
@pytest.mark.parametrize("root", ["https://router.example.org", "https://example.org/our/router"])
def test_without_a_cookie_it_says_why_and_leads_to_where_it_works(
    migrated_sqlite_url: str, scheme: str, headers: dict[str, str], title: str, root: str
) -> None:
    secure = Admin(migrated_sqlite_url, PUBLIC_URL=root)
    client = secure.app.test_client(use_cookies=False)
    host = f"{scheme}://10.0.0.5:8000"
    page = client.get("/sign-in?next=/p/a%2520b/board", base_url=host).text
    fields = {"email": "vira@example.org", "password": PASSWORD, "csrf_token": token_of(page)}
    answer = client.post("/sign-in?next=/p/a%2520b/board", data=fields, base_url=host, headers=headers)
    assert answer.status_code == 400
    text = unescape(answer.text.partition("<main")[2])
    assert title in text
    assert "out of date" not in text
    assert f'href="{root}/sign-in?next=/p/a%2520b/board"' in text
    secure.close()


def token_of(page: str) -> str:
    found: Any = re.search(r'name="csrf_token" value="([^"]+)"', page)
    return str(found[1])
