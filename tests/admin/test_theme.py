"""What the pages are made of: templates, icons and vendored files; and what their script does, in real Chromium."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import render_template_string
from playwright.sync_api import Dialog, Page, expect

from router import admin as package
from router.core.model import DeviceState, Outcome, SkipReason, Status
from router.db import models
from tests.admin.conftest import NARROW, Admin, Chromium, check_axe
from tests.admin.day import Day

ADMIN = Path(package.__file__).parent
TEMPLATES = {str(path.relative_to(ADMIN)): path.read_text() for path in sorted((ADMIN / "templates").rglob("*.html"))}
VENDOR = ADMIN / "static" / "vendor"
DRAWN = set(re.findall(r'symbol id="([\w-]+)"', (ADMIN / "static" / "icons.svg").read_text()))
DOCS = (ADMIN.parents[1] / "docs" / "frontend.md").read_text()


@pytest.fixture
def day(admin: Admin) -> Day:
    return Day(admin)


# ---- files


def test_vendored_files_are_the_ones_whose_checksums_are_kept() -> None:
    lines = [line.split("  ") for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    kept = {name: checksum for checksum, name in lines}
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in VENDOR.iterdir() if p.name != "SHA256SUMS"}
    assert found == kept
    for library in ("bootstrap", "htmx", "sortable", "popper"):
        assert any(name.startswith(library) and name.endswith(".LICENSE") for name in kept), library


def uncommented(templates: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in templates.items():
        yield name, re.sub(r"{#.*?#}", "", text, flags=re.DOTALL)


def test_no_template_holds_what_the_csp_forbids_or_what_htmx_would_evaluate() -> None:
    forbidden = {
        r"\son[a-z]+=": "an inline handler",
        r"\sstyle=": "an inline style",
        r"<style": "a style element",
        r"<script(?![^>]*(src=|application/json))": "an inline script",
        r"hx-on": "hx-on needs eval",
        r"""=["']js:|javascript:""": "js: needs eval",
        r'hx-trigger="[^"]*\[': "a trigger filter needs eval",
        r"\|\s*safe\b": "unescaped text",
    }
    found = [
        (name, why) for name, text in uncommented(TEMPLATES) for it, why in forbidden.items() if re.search(it, text)
    ]
    assert not found


def test_every_visible_string_is_translatable() -> None:
    bare = {}
    for name, source in uncommented(TEMPLATES):
        text = re.sub(r"{% block (page_class|body_class|wide) %}.*?{% endblock %}", "", source)
        text = re.sub(r"{%.*?%}", "", text, flags=re.DOTALL)
        text = re.sub(r"{{.*?}}", "", text, flags=re.DOTALL)
        text = re.sub(r"<(meta|script|link)\b.*?>", "", text, flags=re.DOTALL)
        said = re.findall(r'\s(?:aria-label|title|placeholder|alt)="([^"]*)"', text)
        said += re.sub(r'<[^>]*>|&#?\w+;|[\w-]+="[^"]*"|-[a-z]+', " ", text, flags=re.DOTALL).split()
        words = {word for one in said for word in re.findall(r"[A-Za-z]{2,}", one)}
        if words - {"router", "utm", "source", "google"}:
            bare[name] = words
    assert not bare


def test_each_state_differs_from_the_others_by_its_word_and_its_kind_by_shape(admin: Admin) -> None:
    observed = dict.fromkeys([*DeviceState, *Status, *SkipReason])
    results = ["offered", "eligible", "lost", "", "overflow", "empty", "refused", "degraded", "fresh", "old"]
    names = list(dict.fromkeys([*observed, *(set(Outcome) - {Outcome.UNKNOWN}), *results]))
    with admin.app.test_request_context("/"):
        html = render_template_string(
            "{% import '_macros.html' as ui %}{% for name in names %}{{ ui.state(name) }}{% endfor %}", names=names
        )
    shown = re.findall(
        r'class="state (tone-\w+) [^"]*"><svg[^>]*><use href="[^"]*#([\w-]+)"></use></svg>([^<]+)</span>', html
    )
    assert len(shown) == len(names)
    assert len({word for _, _, word in shown}) == len(shown)
    shapes: dict[str, set[str]] = {}
    for tone, shape, _ in shown[: len(observed)]:
        shapes.setdefault(shape, set()).add(tone)
    assert all(len(tones) == 1 for tones in shapes.values()), "one shape in two colours"
    assert {shape for _, shape, _ in shown} <= DRAWN


def test_every_icon_that_a_template_names_is_in_the_sprite() -> None:
    named = {icon for text in TEMPLATES.values() for icon in re.findall(r"icon\('([\w-]+)'", text)}
    assert len(named) > 10
    assert named <= DRAWN


def test_the_docs_name_every_piece() -> None:
    pieces = set(re.findall(r"{% macro (\w+)\(", TEMPLATES["templates/_macros.html"]))
    inner = {"static", "asks", "note_box", "place", "language_menu", "theme_menu", "errors_of", "described", "one_row"}
    assert {piece for piece in pieces - inner if f"`{piece}(" not in DOCS and f" {piece}(" not in DOCS} == set()


# ---- what the script does


def test_the_theme_is_kept_and_follows_the_system_until_chosen(day: Day, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules", theme="dark")
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


def test_menus_open_whole_on_a_phone_and_are_accessible(day: Day, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/rules", size=NARROW)
    schedules = page.get_by_role("link", name="Schedules")
    expect(schedules).not_to_be_in_viewport()
    page.get_by_role("button", name="Menu").click()
    expect(schedules).to_be_in_viewport()
    expect(page.locator("#side.show")).to_be_visible()  # it is open, and has the focus: until then it hears no key
    page.keyboard.press("Escape")
    expect(schedules).not_to_be_in_viewport()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for button, item in (
            ("Project: acme", "globex"),
            ("Language: English", "Українська"),
            ("Theme", "Like the system"),
            ("Account", "Sign out"),
        ):
            page.get_by_role("button", name=button, exact=True).click()
            entry = page.locator(".dropdown-menu.show").get_by_text(item)
            expect(entry).to_be_in_viewport(ratio=1)  # not cut off by what is around it
            check_axe(page, runOnly=["color-contrast", "aria-allowed-attr", "list", "listitem"])
            page.keyboard.press("Escape")
            expect(entry).to_be_hidden()
    page.get_by_role("button", name="Project: acme").click()
    with page.expect_navigation():
        page.get_by_text("globex").click()


def test_copying_takes_the_whole_value_and_says_so(day: Day, chromium: Chromium) -> None:
    page = chromium.open("olena", "/p/acme/hook")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy URL", exact=True).click()
    expect(page.locator("#live")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#hook-url").input_value()


def rule_page(day: Day, chromium: Chromium) -> Page:
    """That of a rule with two conditions."""
    rule = day.admin.one(models.Rule, name="from adverts")
    with day.database.writing() as session:
        session.merge(rule).conditions = {"caller": ["38050*", "anonymous"], "params": {"utm_source": ["google"]}}
    return chromium.open("emil", f"/p/acme/rules/{rule.id}")


def test_leaving_with_unsaved_changes_is_questioned_and_saving_is_not(day: Day, chromium: Chromium) -> None:
    page = rule_page(day, chromium)
    questions: list[str] = []

    def answer(dialog: Dialog) -> None:
        questions.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    rule = page.url
    page.goto("/p/acme/rules")
    assert questions == []
    page.goto(rule)
    page.locator("#conditions-0-value").fill("+38067*")
    expect(page.get_by_text("Unsaved changes")).to_be_visible()
    page.goto("/p/acme/rules")
    assert questions == ["beforeunload"]
    page.goto(rule)
    page.locator("#conditions-0-value").fill("+38067*")
    with page.expect_navigation():
        page.get_by_role("button", name="Save").click()
    assert questions == ["beforeunload"]


def test_conditions_are_added_and_removed_with_the_focus_in_place(day: Day, chromium: Chromium) -> None:
    page = rule_page(day, chromium)
    page.get_by_role("button", name="Parameter").click()
    expect(page.locator("#conditions-2-name")).to_be_focused()
    page.locator("#conditions-2-name").fill("utm_medium")
    page.locator("#conditions-2-value").fill("cpc")
    page.get_by_role("button", name="Remove this row").nth(1).click()
    expect(page.locator("#conditions [data-row]")).to_have_count(2)
    expect(page.get_by_role("button", name="Remove this row").nth(1)).to_be_focused()
    with page.expect_navigation():  # Enter saves, and presses no button of a row
        page.locator("#conditions-0-value").press("Enter")
    saved = day.admin.one(models.Rule, name="from adverts").conditions
    assert saved == {"caller": ["38050*", "anonymous"], "params": {"utm_medium": ["cpc"]}}


def test_the_board_renews_itself_rests_when_hidden_and_keeps_the_focus(day: Day, chromium: Chromium) -> None:
    page = chromium.open("emil")
    page.add_init_script("window.away = false; Object.defineProperty(document, 'hidden', {get: () => window.away})")
    page.goto("/p/acme/board")
    button = page.get_by_role("button", name="Set on break: Alice")
    button.focus()
    with page.expect_response("**/board/live?*"):
        pass
    expect(button).to_be_focused()
    with page.expect_response("**/board/deed"):
        button.click()
    expect(page.get_by_role("button", name="Back: Alice")).to_be_visible()
    assert day.state("Alice").status == "on_break"
    would_ask = """async (away) => {
        let asked = false;
        addEventListener("htmx:before:request", () => { asked = true; }, {once: true});
        window.away = away;
        document.dispatchEvent(new Event("visibilitychange"));
        if (away) htmx.trigger("#board", "every", {}, false);
        await new Promise((done) => setTimeout(done));
        return asked;
    }"""
    assert not page.evaluate(would_ask, True)
    assert page.evaluate(would_ask, False), "it should ask at once, not after the next two seconds"


def test_a_failing_poll_dims_what_it_could_not_renew_until_it_works_again(day: Day, chromium: Chromium) -> None:
    page = chromium.open("emil", "/p/acme/board")
    poll = "htmx.trigger('#board', 'every', {}, false)"
    page.route("**/board/live?*", lambda route: route.fulfill(status=500))
    page.evaluate(poll)
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#board.stale")).to_be_visible()
    expect(page.get_by_role("link", name="Alice")).to_be_visible()
    page.unroute("**/board/live?*")
    page.evaluate(poll)
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator("#board.stale")).to_have_count(0)
    page.route("**/board/deed", lambda route: route.fulfill(status=500))
    page.get_by_role("button", name="Set on break: Alice").click()
    expect(page.locator(".toasts")).to_contain_text("Nothing was changed")
    chromium.complaints.clear()  # the browser itself complains of requests that fail


def test_times_are_told_from_now_by_the_clock_of_the_server(day: Day, chromium: Chromium) -> None:
    page = chromium.open("emil")
    page.clock.install(time="2020-01-01T00:00:00Z")  # a desk whose clock is years behind
    day.log(asked_at=datetime.now(UTC) - timedelta(seconds=30))
    page.goto("/p/acme/board")
    since = page.get_by_role("row", name="Carol").locator("[data-clock]")  # on a break for five minutes
    assert re.fullmatch(r"5:\d\d", since.inner_text())
    asked = page.locator("main [data-relative]", has_text="s ago").last
    before = int(asked.inner_text().removesuffix("s ago"))
    assert before >= 30
    page.clock.run_for(60_000 - 1000 * before + 2000)
    assert page.locator("main [data-relative]", has_text="1m ago").count() == 1
    chromium.complaints.clear()  # by such a clock the board's polls take too long
