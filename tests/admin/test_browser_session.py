"""Sign-in, accounts and users in real Chromium."""

from __future__ import annotations

import re

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


def test_the_language_switch_keeps_the_page(chromium: Chromium) -> None:
    page = chromium.open("vira", "/account")
    page.get_by_role("button", name="Language").click()
    page.get_by_role("button", name="Українська").click()
    page.wait_for_function("document.documentElement.lang === 'uk'")
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
