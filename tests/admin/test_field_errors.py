"""What is wrong is tied to the very input that it is about, for those who hear the page, on every form."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from router.db import models
from tests.admin.conftest import PASSWORD, Admin, Browser, Chromium
from tests.admin.day import Day

CONTROLS = {"input", "select", "textarea"}


class Page(HTMLParser):
    """The controls of a page, its errors, and where the list of them leads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.controls: list[dict[str, str]] = []
        self.errors: list[str] = []
        self.leads_to: list[str] = []
        self.feed(re.sub(r"<template.*?</template>", "", html.partition("<main")[2], flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        if tag in CONTROLS:
            self.controls.append(given)
        if {"field-error", "invalid-feedback"} & set(given.get("class", "").split()):
            self.errors.append(given.get("id", ""))
        if tag == "a" and given.get("href", "").startswith("#"):
            self.leads_to.append(given["href"][1:])


def check(html: str) -> Page:
    page = Page(html)
    assert page.errors, "nothing is said to be wrong"
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    invalid = [one for one in page.controls if one.get("aria-invalid") == "true"]
    for error in page.errors:
        assert error, "an error without an id"
        assert any(error in one.get("aria-describedby", "").split() for one in invalid), f"no input bears {error}"
    for control in page.controls:
        if "is-invalid" in control.get("class", ""):
            assert control in invalid, control
        for described in control.get("aria-describedby", "").split():
            assert described in page.ids, f"{control.get('name')} is described by {described}, which is not there"
    for target in page.leads_to:
        assert target in page.ids, f"the list of errors leads to #{target}, which is not there"
    return page


def condition(n: int, kind: str, op: str, name: str = "", value: str = "") -> dict[str, str]:
    return {f"conditions-{n}-{part}": text for part, text in
            (("kind", kind), ("op", op), ("name", name), ("value", value))}  # fmt: skip


def member(**inputs: str) -> dict[str, str]:
    return {f"members-0-{name}": text for name, text in {"agent": "1", **inputs}.items()}


MEMBER = {"name": "sales", "strategy": "weighted", "ring_seconds": "25", "overflow_kind": "unset"}
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "agent": ("agents/new", {"name": "", "sip_logins": "a b", "wrap_up_seconds": "x", "daily_cap": "-1",
                             "deputy": "99",
                             "hours": "99", "away_until": "soon", "staff_id": "x" * 300}),
    "group": ("groups/new", {"name": "", "strategy": "none", "ring_seconds": "0", "overflow_kind": "to"}),
    "a member": ("groups/new", MEMBER | member(tier="x", weight="0", hours="99")),
    "a weight that is not shown": ("groups/new", MEMBER | {"strategy": "priority"} | member(weight="0")),
    "rule": ("rules/new", {"name": "", "prefer": "param", "prefer_param": "", "prefer_days": "0",
                           "overflow_kind": "to"}),
    "conditions": ("rules/new", {"name": "x", "prefer_days": "30"} | condition(0, "caller", "is", value="+38050*0*")
                   | condition(1, "param", "equals", value="v") | condition(2, "param", "equals", "n")
                   | condition(3, "schedule", "inside", value="gone") | condition(4, "free", "fewer", "gone", "2")
                   | condition(5, "direction", "is") | condition(6, "dialed", "is")),
    "a condition twice": ("rules/new", {"name": "x", "prefer_days": "30"}
                          | condition(0, "schedule", "inside", value="office hours")
                          | condition(1, "schedule", "inside", value="office hours")),
    "schedule": ("schedules/new", {"name": "", "time_zone": "Mars", "mon": "9-8-7", "tue": "10:00-10:00"}),
    "settings": ("settings", {"name": "", "time_zone": "Mars", "country": "??", "overflow": "a b"}),
    "presence": ("settings/presence", {"presence_api_url": "x", "presence_poll_seconds": "x",
                                       "presence_when_unknown": "x", "presence_online_from": "x"}),
    "hook": ("settings/hook", {"hook_key": "", "hook_retry_seconds": "x", "hook_allow_addresses": "x",
                               "hook_fields": "x", "hook_basic_auth": "x"}),
    "calls not answered": ("settings/calls", {"cool_down_seconds": "x", "break_after_no_answers": "x"}),
    "privacy": ("settings/privacy", {"keep_days": "x"}),
    "trial": ("try", {"at": "soon", "caller": "x" * 200}),
}  # fmt: skip


@pytest.mark.parametrize("form", BAD)
def test_every_error_is_tied_to_its_input(admin: Admin, olena: Browser, form: str) -> None:
    Day(admin)
    path, fields = BAD[form]
    answer = olena.post(f"/p/acme/{path}", **fields)
    assert answer.status_code == 422
    check(answer.text)


def test_each_condition_says_which_of_its_inputs_is_wrong(admin: Admin, olena: Browser) -> None:
    Day(admin)
    page = check(olena.post("/p/acme/rules/new", **BAD["conditions"][1]).text)
    wrong = {one["name"] for one in page.controls if one.get("aria-invalid") == "true"}
    assert wrong == {"conditions-0-value", "conditions-1-name", "conditions-2-value", "conditions-3-value",
                     "conditions-4-name", "conditions-5-value", "conditions-6-value"}  # fmt: skip


def test_a_choice_that_is_gone_is_shown_as_it_was(admin: Admin, olena: Browser) -> None:
    Day(admin)
    answer = olena.post("/p/acme/rules/new", **BAD["conditions"][1])
    assert answer.text.count('<option value="gone" selected>gone</option>') == 2


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/projects/new", {"name": "", "time_zone": "Mars", "overflow": "a b"}),
        ("/users/new", {"email": "x", "role": "root", "name": "x" * 200}),
        ("/account", {"name": "x" * 200, "language": "xx"}),
        ("/account", {"current": "", "password": "short", "again": "other"}),
        ("/p/acme/delete", {"name": "globex"}),
    ],
)
def test_forms_outside_of_a_project_do_so_too(olena: Browser, path: str, fields: dict[str, str]) -> None:
    check(olena.post(path, **fields).text)


def test_the_call_log_and_the_trial_in_an_address_do_so_too(admin: Admin, olena: Browser) -> None:
    Day(admin)
    check(olena.get("/p/acme/calls?since=soon&until=later&caller=" + "x" * 200).text)
    check(olena.get("/p/acme/try?at=soon&caller=1").text)
    schedule = admin.one(models.Schedule, name="office hours").id
    check(olena.get(f"/p/acme/schedules/{schedule}?at=soon").text)
    check(olena.post(f"/p/acme/schedules/{schedule}/override", override="ajar", override_until="soon").text)


def test_a_refused_sign_in_is_tied_to_both_of_its_boxes(nobody: Browser) -> None:
    page = Page(nobody.post("/sign-in", email="vira@example.org", password=PASSWORD + "?").text)
    told = [one for one in page.controls if one.get("aria-describedby") == "problem"]
    assert {one["name"] for one in told if one["aria-invalid"] == "true"} == {"email", "password"}
    assert "problem" in page.ids


def test_errors_in_a_browser_have_no_fault_of_accessibility(admin: Admin, chromium: Chromium) -> None:
    Day(admin)
    page = chromium.open("emil", "/p/acme/rules/new")
    page.get_by_label("Name", exact=True).fill("")
    page.locator("button[value=param]").click()
    page.locator("button", has_text="Add rule").last.click()
    page.locator("[data-error-summary] a").first.wait_for()
    chromium.check_axe(page)
