"""One caller's data in real Chromium."""

from __future__ import annotations

import pytest

from tests.admin.conftest import NARROW, WIDE, Chromium


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_the_forms_can_be_used_by_everybody(chromium: Chromium, size: dict[str, int], theme: str) -> None:
    page = chromium.open("olena", "/p/acme/caller", size=size, theme=theme)
    chromium.check_axe(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Erase the caller’s data").click()
    page.get_by_text("Write the caller’s number.").first.wait_for()
    chromium.check_axe(page)


def test_downloads_a_file(chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/settings/privacy")
    page.get_by_role("link", name="Export or erase").click()
    page.get_by_label("Caller’s number").first.fill("050 111 22 33")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "caller.json"
    assert download.value.path().read_text() == "[]\n"
