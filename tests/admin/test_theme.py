"""The look and the behaviours of the admin pages, in a real Chromium, on the made-up data of gallery.py."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect
from werkzeug.serving import make_server

from tests.admin.gallery import ADMIN, ENDPOINTS, PAGES, STATES, create_gallery

TEMPLATES = sorted((ADMIN / "templates").rglob("*.html"))
VENDOR = ADMIN / "static" / "vendor"
expect.set_options(timeout=20_000)  # machines may be busy


@pytest.fixture(scope="module")
def gallery() -> Iterator[tuple[Flask, str]]:
    app = create_gallery()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield app, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def context(chromium_process: Browser, gallery: tuple[Flask, str]) -> Iterator[BrowserContext]:
    """One for all tests: its cache spares them the style sheets."""
    url = gallery[1]
    context = chromium_process.new_context(
        base_url=url, viewport={"width": 1280, "height": 800}, reduced_motion="reduce"
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may not complain: no console error (a CSP violation is one), no exception."""
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def posted(gallery: tuple[Flask, str]) -> list[dict[str, Any]]:
    """The forms that the gallery received in this test."""
    found: list[dict[str, Any]] = gallery[0].extensions["posted"]
    found.clear()
    return found


# ---- files


def test_vendored_files_are_the_ones_whose_checksums_are_kept() -> None:
    lines = [line.split("  ") for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    kept = {name: checksum for checksum, name in lines}
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in VENDOR.iterdir() if p.name != "SHA256SUMS"}
    assert found == kept
    for library in ("bootstrap", "htmx", "sortable", "popper"):
        assert any(name.startswith(library) and name.endswith(".LICENSE") for name in kept), library


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(ADMIN)))
def test_no_template_holds_what_the_csp_forbids_or_what_htmx_would_evaluate(template: Path) -> None:
    text = re.sub(r"{#.*?#}", "", template.read_text(), flags=re.DOTALL)
    for wrong, why in [
        (r"\son[a-z]+=", "an inline handler"),
        (r"\sstyle=", "an inline style"),
        (r"<style", "a style element"),
        (r"<script(?![^>]*(src=|application/json))", "an inline script"),
        (r"hx-on", "hx-on needs eval"),
        (r"""=["']js:|javascript:""", "js: needs eval"),
        (r'hx-trigger="[^"]*\[', "a trigger filter needs eval"),
        (r"\|\s*safe\b", "unescaped text"),
    ]:
        assert not re.search(wrong, text), why


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(ADMIN)))
def test_every_visible_string_is_translatable(template: Path) -> None:
    text = re.sub(r"{#.*?#}", "", template.read_text(), flags=re.DOTALL)
    text = re.sub(r"{% block (page_class|body_class|wide) %}.*?{% endblock %}", "", text)
    text = re.sub(r"{%.*?%}", "", text, flags=re.DOTALL)
    text = re.sub(r"{{.*?}}", "", text, flags=re.DOTALL)
    text = re.sub(r"<(meta|script|link)\b.*?>", "", text, flags=re.DOTALL)
    said = re.findall(r'\s(?:aria-label|title|placeholder|alt)="([^"]*)"', text)
    said += re.sub(r'<[^>]*>|&#?\w+;|[\w-]+="[^"]*"|-[a-z]+', " ", text, flags=re.DOTALL).split()
    words = {word for one in said for word in re.findall(r"[A-Za-z]{2,}", one)}
    assert words <= {"router", "utm_source", "utm", "source"}, words


def test_each_state_differs_from_the_others_by_its_word_and_its_kind_by_shape(gallery: tuple[Flask, str]) -> None:
    with gallery[0].test_client() as client:
        html = client.get("/see/pieces").text
    card = html.split("<h2>States</h2>")[1].split("</section>")[0]
    shown = re.findall(
        r'class="state (tone-\w+) [^"]*"><svg[^>]*><use href="[^"]*#([\w-]+)"></use></svg>([^<]+)</span>', card
    )
    assert len(shown) == len(STATES)
    assert len({word for _, _, word in shown}) == len(shown)
    shapes: dict[str, set[str]] = {}
    for tone, shape, word in shown[: STATES.index("at_cap")]:
        shapes.setdefault(shape, set()).add(tone)
        assert word.strip()
    assert all(len(tones) == 1 for tones in shapes.values()), "one shape in two colours"
    icons = (ADMIN / "static" / "icons.svg").read_text()
    assert {shape for _, shape, _ in shown} <= set(re.findall(r'symbol id="([\w-]+)"', icons))


def test_every_icon_that_a_template_names_is_in_the_sprite(gallery: tuple[Flask, str]) -> None:
    drawn = set(re.findall(r'symbol id="([\w-]+)"', (ADMIN / "static" / "icons.svg").read_text()))
    with gallery[0].test_client() as client:
        for name in PAGES:
            used = set(re.findall(r'icons\.svg[^"#]*#([\w-]+)', client.get(f"/see/{name}").text))
            assert used <= drawn, name


def test_the_docs_name_every_piece_and_every_endpoint_that_templates_link_to() -> None:
    docs = (ADMIN.parents[1] / "docs" / "frontend.md").read_text()
    pieces = set(re.findall(r"{% macro (\w+)\(", (ADMIN / "templates" / "_macros.html").read_text()))
    inner = {"static", "asks", "note_box", "place", "language_menu", "theme_menu", "errors_of", "described"}
    assert {piece for piece in pieces - inner if f"`{piece}(" not in docs and f" {piece}(" not in docs} == set()
    endpoints = docs.split("Endpoints that")[1].split("##")[0]
    assert {name for name in ENDPOINTS if not re.search(rf"\b{name}\b", endpoints)} == set()


# ---- every page: axe, console, width, in both themes


@pytest.mark.parametrize("name", [*(name for name in PAGES if name not in ("pieces", "try")), "pieces?bad=1&flash=1"])
def test_page_is_accessible_in_both_themes_and_fits_a_phone(page: Page, name: str) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(f"/see/{name}")
    check(page)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    check(page, runOnly=["color-contrast"])
    for width in (768, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    check(
        page, runOnly=["scrollable-region-focusable", "target-size", "aria-required-children", "aria-required-parent"]
    )


def check(page: Page, **options: Any) -> None:
    if not page.evaluate("'axe' in window"):  # half a megabyte: once a page
        page.evaluate(Axe().axe_script)
    results = AxeResults(page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options}))
    assert results.violations_count == 0, results.generate_report()


# ---- behaviours


def test_theme_is_kept_and_follows_the_system_until_chosen(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/see/rules")
    html = page.locator("html")
    assert html.get_attribute("data-bs-theme") == "dark"
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Light").click()
    assert html.get_attribute("data-bs-theme") == "light"
    page.reload()
    assert html.get_attribute("data-bs-theme") == "light"
    page.get_by_role("button", name="Theme").click()
    expect(page.get_by_role("button", name="Light")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Like the system").click()
    expect(html).to_have_attribute("data-bs-theme", "dark")
    page.evaluate("localStorage.clear()")


def test_menu_opens_from_the_button_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto("/see/rules")
    expect(page.get_by_role("link", name="Schedules")).not_to_be_in_viewport()
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("link", name="Schedules")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Schedules")).not_to_be_in_viewport()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_menus_of_the_top_bar_open_whole_and_are_accessible(page: Page, theme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto("/see/rules")
    for button, item in [
        ("Project: acme", "globex international"),
        ("Language: English", "Українська"),
        ("Theme", "Like the system"),
        ("Account", "Sign out"),
    ]:
        page.get_by_role("button", name=button, exact=True).click()
        entry = page.locator(".dropdown-menu.show").get_by_text(item)
        expect(entry).to_be_in_viewport(ratio=1)  # not cut off by what is around it
        check(page, runOnly=["color-contrast", "aria-allowed-attr", "list", "listitem"])
        page.keyboard.press("Escape")
        expect(entry).to_be_hidden()
    page.get_by_role("button", name="Project: acme").click()
    with page.expect_navigation():
        page.get_by_text("globex international").click()


def test_rules_are_reordered_by_keyboard_announced_and_saved_at_once(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/rules")
    down = page.get_by_role("button", name="Move VIP down")
    down.focus()
    with page.expect_response("**/rules/order") as answer:
        page.keyboard.press("Enter")
    assert answer.value.status == 204
    expect(page.locator("#live")).to_have_text("VIP is now number 2 of 5.")
    expect(down).to_be_focused()
    assert posted[-1]["order"] == ["2", "1", "3", "4", "5"]
    expect(page.locator(".toasts .note")).to_contain_text("Saved.")
    for place in (3, 4, 5):
        with page.expect_response("**/rules/order"):
            page.keyboard.press("Enter")
        expect(page.locator("#live")).to_have_text(f"VIP is now number {place} of 5.")
    assert posted[-1]["order"] == ["2", "3", "4", "5", "1"]
    expect(page.get_by_role("button", name="Move VIP up")).to_be_focused()
    expect(down).to_be_disabled()


def test_rules_are_reordered_by_dragging(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/rules")
    with page.expect_response("**/rules/order"):
        page.locator(".grip").nth(0).drag_to(page.locator(".grip").nth(2), target_position={"x": 4, "y": 30})
    assert posted[-1]["order"][:3] == ["2", "3", "1"]


def test_members_are_posted_in_the_order_shown(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/pieces")
    page.get_by_role("button", name="Move Bob Kovalenko up").click()
    form = page.locator("#members-form")
    assert form.get_attribute("data-dirty") == ""
    with page.expect_navigation():
        form.evaluate("form => form.requestSubmit(form.querySelector('[name=add]'))")
    assert posted[-1]["order"] == ["2", "1", "9", "10"]


def test_a_destructive_button_asks_first_and_escape_means_no(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/pieces")
    delete = page.get_by_role("button", name="Delete", exact=True)
    delete.click()
    dialog = page.get_by_role("dialog", name="Delete it?")
    expect(dialog).to_contain_text("with all that it holds")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    assert posted == []
    delete.click()
    with page.expect_navigation():
        dialog.get_by_role("button", name="Delete").click()
    assert posted[-1]["really"] == ["yes"]


def test_htmx_asks_by_the_same_dialog_and_sends_the_token(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/pieces")
    page.locator("#hx-ask").click()
    page.get_by_role("button", name="Cancel").click()
    assert posted == []
    page.locator("#hx-ask").click()
    with page.expect_request("**/rules/1/delete") as request:
        page.get_by_role("button", name="Yes, go on").click()
    assert request.value.headers["x-csrftoken"]
    expect(page.locator(".toasts")).to_contain_text("Saved.")
    assert len(posted) == 1


def test_an_answer_422_is_swapped_and_a_500_is_told(context: BrowserContext) -> None:
    page = context.new_page()  # not the fixture: the browser itself complains of requests that fail
    page.goto("/see/pieces")
    page.locator("#hx-broken").click()
    expect(page.locator(".toasts")).to_contain_text("Nothing was changed")
    expect(page.locator("#broken")).to_be_empty()
    page.locator("#hx-422").click()
    expect(page.locator("#broken")).to_have_text("swapped")
    page.close()


def test_copying_takes_the_whole_value_and_says_so(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/see/hook")
    page.get_by_role("button", name="Copy URL", exact=True).click()
    expect(page.locator("#live")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#hook-url").input_value()
    page.get_by_role("button", name="Copy Name in response for destination").click()
    assert page.evaluate("navigator.clipboard.readText()") == "destination"


def test_leaving_with_unsaved_changes_is_questioned_and_saving_is_not(page: Page) -> None:
    questions: list[str] = []

    def answer(dialog: Any) -> None:
        questions.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.goto("/see/rule")
    page.goto("/see/rules")
    assert questions == []
    page.goto("/see/rule")
    page.locator("#conditions-0-value").fill("+38067*")
    expect(page.get_by_text("Unsaved changes")).to_be_visible()
    page.goto("/see/rules")
    assert questions == ["beforeunload"]
    page.goto("/see/rule")
    page.locator("#conditions-0-value").fill("+38067*")
    with page.expect_navigation():
        page.get_by_role("button", name="Save").click()
    assert questions == ["beforeunload"]


def test_conditions_are_added_and_removed_with_the_focus_in_place(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/rule")
    page.get_by_role("button", name="Parameter").click()
    name = page.locator("#conditions-4-name")
    expect(name).to_be_focused()
    name.fill("utm_medium")
    page.locator("#conditions-4-value").fill("cpc")
    page.get_by_role("button", name="Remove this condition").nth(1).click()
    expect(page.locator("[data-row]")).to_have_count(4)
    expect(page.get_by_role("button", name="Remove this condition").nth(1)).to_be_focused()
    with page.expect_navigation():
        page.get_by_role("button", name="Save").click()
    assert posted[-1]["conditions-4-kind"] == ["param"]
    assert posted[-1]["conditions-4-value"] == ["cpc"]
    assert "conditions-1-value" not in posted[-1]


def test_enter_in_a_field_saves_and_presses_no_button_of_a_row(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/rule")
    with page.expect_navigation():
        page.locator("#conditions-1-value").press("Enter")
    assert posted[-1]["conditions-0-value"] == ["+38050*, anonymous"]
    page.goto("/see/pieces")
    with page.expect_navigation():
        page.locator("#tier-1").press("Enter")
    assert posted[-1]["order"] == ["1", "2", "9", "10"]
    assert "move" not in posted[-1]


def test_the_board_renews_itself_rests_when_hidden_and_keeps_the_focus(page: Page) -> None:
    page.add_init_script("window.away = false; Object.defineProperty(document, 'hidden', {get: () => window.away})")
    page.goto("/see/board")
    page.get_by_role("button", name="Set on break: Bob Kovalenko").focus()
    with page.expect_response("**/board/live?*"):
        pass
    expect(page.get_by_role("button", name="Set on break: Bob Kovalenko")).to_be_focused()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("window.away = true")
    page.wait_for_timeout(2300)
    assert asked == []
    shown = """async () => {
        let asked = false;
        addEventListener("htmx:before:request", () => { asked = true; });
        window.away = false;
        document.dispatchEvent(new Event("visibilitychange"));
        await new Promise((done) => setTimeout(done));
        return asked;
    }"""
    assert page.evaluate(shown), "it should ask at once, not after the next two seconds"


def test_a_failing_poll_dims_what_it_could_not_renew_until_it_works_again(
    gallery: tuple[Flask, str], context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto("/see/board")
    poll = "htmx.trigger('#board', 'every', {}, false)"
    gallery[0].extensions["down"] = True
    try:
        page.evaluate(poll)
        expect(page.locator("#lost")).to_be_visible()
        expect(page.locator("#board.stale")).to_be_visible()
        expect(page.get_by_role("link", name="Alice Shevchenko")).to_be_visible()
    finally:
        gallery[0].extensions["down"] = False
    page.evaluate(poll)
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator("#board.stale")).to_have_count(0)
    page.close()


def test_an_agent_is_set_on_break_with_one_click(page: Page, posted: list[dict[str, Any]]) -> None:
    page.goto("/see/board")
    with page.expect_response("**/board/deed"):
        page.get_by_role("button", name="Set on break: Alice Shevchenko").click()
    assert posted[-1]["do"] == ["on_break:1"]
    with page.expect_response("**/board/deed"):
        page.get_by_role("button", name="Resume: Ivan Moroz").click()
    assert posted[-1]["do"] == ["resume:13"]


def test_waiting_for_the_first_call_turns_green_by_itself_and_then_rests(
    gallery: tuple[Flask, str], page: Page
) -> None:
    page.goto("/see/waiting")
    expect(page.get_by_text("Waiting for the first call…")).to_be_visible()
    gallery[0].extensions["called"] = True
    try:
        expect(page.get_by_text("Calls are arriving")).to_be_visible()
        assert page.locator("#hook-live[hx-get]").count() == 0
    finally:
        gallery[0].extensions["called"] = False


def test_an_opened_request_stays_open_when_the_list_is_renewed(page: Page) -> None:
    page.goto("/see/hook")
    page.locator("#request-3 summary").click()
    with page.expect_response("**/hook/requests"):
        page.evaluate("htmx.trigger('#hook-requests', 'every', {}, false)")
    page.wait_for_timeout(100)
    expect(page.locator("#request-3 details")).to_have_attribute("open", "")


def test_times_are_told_from_now_by_the_clock_of_the_server(page: Page) -> None:
    page.clock.install(time="2020-01-01T00:00:00Z")  # a desk whose clock is years behind
    page.goto("/see/pieces")
    facts = page.locator(".facts", has_text="relative")
    assert re.fullmatch(r"3\ds ago", facts.locator("[data-relative]").inner_text())
    page.clock.run_for(40_000)
    assert facts.locator("[data-relative]").inner_text() == "1m ago"
    assert re.fullmatch(r"1:1\d", facts.locator("[data-clock]").inner_text())


def test_a_viewer_finds_no_control_that_changes_anything(page: Page) -> None:
    for name in ("board", "rules", "agents", "hook"):
        page.goto(f"/see/{name}?viewer=1")
        assert page.locator("main form[method=post]").count() == 0, name
        assert page.locator("main [data-move], main .grip").count() == 0, name


def test_pages_work_without_javascript(
    chromium_process: Browser, gallery: tuple[Flask, str], posted: list[dict[str, Any]]
) -> None:
    context = chromium_process.new_context(
        base_url=gallery[1], java_script_enabled=False, viewport={"width": 390, "height": 800}
    )
    page = context.new_page()
    page.goto("/see/rules")
    expect(page.get_by_role("link", name="Schedules")).to_be_visible()  # the menu is simply there
    page.get_by_role("button", name="Move Night up").click()
    assert posted[-1]["move"] == ["up:3"]
    page.goto("/see/rule")
    page.get_by_role("button", name="Remove this condition").first.click()
    assert posted[-1]["remove_condition"] == ["0"]
    page.goto("/see/rules")
    page.get_by_role("switch", name="Rule VIP").click()
    assert posted[-1]["on"] == [""]
    context.close()


def test_a_refused_form_takes_the_focus_to_what_is_wrong(page: Page) -> None:
    page.goto("/see/pieces?bad=1")
    expect(page.locator("[data-error-summary]")).to_be_focused()
    name = page.get_by_label("Name", exact=True)
    expect(name).to_have_attribute("aria-invalid", "true")
    ids = (name.get_attribute("aria-describedby") or "").split()
    assert [page.locator(f"#{i}").inner_text() for i in ids] == ["Give the agent a name.", "As colleagues call them."]
