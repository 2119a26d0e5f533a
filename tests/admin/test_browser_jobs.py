"""Everyday jobs in real Chromium, by mouse in English and by the keyboard alone in Ukrainian, with clicks counted."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.admin.conftest import Chromium, check_axe
from tests.admin.hands import Hands

HANDS = pytest.mark.parametrize(("language", "mouse"), [("en", True), ("uk", False)], ids=["mouse", "keyboard"])


@HANDS
def test_a_new_group_takes_three_clicks(chromium: Chromium, language: str, mouse: bool) -> None:
    page = chromium.open("olena", "/p/acme/groups", language=language)
    hands = Hands(page, language=language, mouse=mouse)
    hands.press(hands.find("link", "Add group").first)
    hands.type(page.locator("#name"), "sales")
    check_axe(page)
    hands.press(hands.find("button", "Add group"))
    expect(page.get_by_role("link", name="sales", exact=True)).to_be_visible()
    assert (hands.clicks, hands.pages) <= (3, 2)
