"""Sign-in, accounts and users in real Chromium."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from tests.admin.conftest import NARROW, PASSWORD, Admin, Chromium


def test_signs_in_and_out(chromium: Chromium) -> None:
    page = chromium.open("", "/p/acme/settings")
    chromium.check_axe(page)
    page.get_by_label("Email").fill("olena@example.org")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("Wrong email or password.").wait_for()
    chromium.check_axe(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Settings").wait_for()
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()


def test_invites_somebody_who_comes_in_on_a_phone(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/users/new")
    chromium.check_axe(page)
    page.get_by_label("Email").fill("ivan")
    page.get_by_role("button", name="Create link").click()
    page.get_by_role("alert").wait_for()
    chromium.check_axe(page)
    page.get_by_label("Email").fill("ivan@example.org")
    page.get_by_role("radio", name="Viewer").check()
    page.get_by_role("button", name="Create link").click()
    link = page.get_by_label("Link", exact=True).input_value()
    chromium.check_axe(page)
    phone = chromium.open("", link[link.index("/welcome/") :], size=NARROW, theme="dark", language="uk")
    chromium.check_axe(phone)
    for box in phone.locator("input[type=password]").all():
        box.fill("a long sentence")
    phone.locator("main button").click()
    phone.wait_for_url(re.compile("/projects$"))
    assert phone.locator("html").get_attribute("lang") == "uk"
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    chromium.check_axe(phone)


def test_who_signed_in_in_another_tab_goes_on(admin: Admin, chromium: Chromium, live: str) -> None:
    page = chromium.open("olena", "/p/acme/settings/privacy")
    page.locator("#keep_days").fill("33")
    admin.browser("olena").post("/account/sign-out-everywhere")
    page.get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    cookie = {"name": "session", "value": admin.session_cookie("olena"), "url": live}
    page.context.add_cookies([cookie])  # type: ignore[list-item]
    dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()


def test_what_needs_no_session_asks_for_none(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/account")
    admin.browser("olena").post("/account/sign-out-everywhere")
    page.get_by_role("button", name="Language").click()
    page.get_by_role("button", name="Українська").click()
    expect(page.locator("html")).to_have_attribute("lang", "uk")  # a script of the test's would break the page's policy


def test_a_refused_post_is_not_sent_again_within_a_session(chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/board")
    posts: list[str] = []

    def refuse(route: Route) -> None:
        posts.append(route.request.url)
        route.fulfill(status=400)

    page.route("**/refused", refuse)
    page.evaluate(
        """() => {
            const meta = document.querySelector("meta[name=csrf-token]");
            meta.content = meta.content.split(".")[0] + ".earlier.signature";
            htmx.ajax("POST", "/refused", { source: document.body, swap: "none" });
        }"""
    )
    expect(page.locator(".toasts")).to_contain_text("The page is out of date.")
    assert len(posts) == 1


def test_a_form_is_sent_when_the_server_is_slow_to_say_who_is_signed_in(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/settings/privacy")
    page.route("**/session", lambda _route: None)
    page.evaluate("window.timeLimit = AbortSignal.timeout; AbortSignal.timeout = () => timeLimit.call(AbortSignal, 10)")
    page.locator("#keep_days").fill("33")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Applies from the next call.")).to_be_visible()


def test_a_message_stays_while_its_undo_has_the_focus(chromium: Chromium) -> None:
    page = chromium.open("emil", "/account")
    page.clock.install()
    undo = {"url": "/", "fields": {}, "label": "Undo"}
    page.evaluate(
        "detail => document.dispatchEvent(new CustomEvent('toast', { detail }))", {"message": "Done.", "undo": undo}
    )
    button = page.locator(".toasts").get_by_role("button", name="Undo")
    button.focus()
    page.clock.fast_forward(60_000)
    expect(button).to_be_visible()
    button.blur()
    page.clock.fast_forward(3_000)
    expect(button).to_have_count(0)


def test_the_language_switch_keeps_the_page(chromium: Chromium) -> None:
    page = chromium.open("vira", "/account")
    page.get_by_role("button", name="Language").click()
    page.get_by_role("button", name="Українська").click()
    expect(page.locator("html")).to_have_attribute("lang", "uk")  # a script of the test's would break the page's policy
    assert page.url.endswith("/account")
    chromium.check_axe(page)


def test_disabling_asks_first(admin: Admin, chromium: Chromium) -> None:
    page = chromium.open("olena", f"/users/{admin.user('emil').id}")
    chromium.check_axe(page)
    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert admin.user("emil").disabled_at is None
    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    page.get_by_text("can no longer sign in").wait_for()
    assert admin.user("emil").disabled_at is not None
