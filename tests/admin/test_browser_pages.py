"""Every page there is, found in the map of addresses, so that none is forgotten: in real Chromium, in both themes, on a
wide screen and on a phone, in both languages, for owners and viewers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, expect

from router.admin.page import ACCESS, Role
from router.db import models
from router.db.documents import load_document
from router.explanation.replay import replay_study
from router.explanation.variations import Variation, what_if_study
from tests.admin.conftest import NARROW, WIDE, Admin, Chromium, check_axe
from tests.admin.test_browser_setup import CONFIG, see

NO_PAGES = {
    "static": "files",
    "calls_csv": "a file",
    "agents_csv": "a file",
    "home": "leads on",
    "board_live": "a part of the board",
    "board_agent": "a part of the board",
    "calls_news": "a part of the calls",
    "group_queue": "a part of the group",
    "hook_live": "a part of the hook",
    "hook_requests": "a part of the hook",
    "session_now": "data for app.js",
    "overflow_doubt": "a part of forms",
    "draft_replay": "a part of the draft",
}
SIGNED_OUT = {"sign_in", "welcome"}


class Address(NamedTuple):
    endpoint: str
    path: str
    see: Role


@pytest.fixture(autouse=True)
def inhabited(admin: Admin) -> None:
    """A project with everything in it: calls, refused requests, a trail."""
    admin.configure(CONFIG)
    see(admin, "acme_alice", "acme_bob", "acme_petro")
    project_id = admin.one(models.Project, name="acme").id
    token = admin.one(models.HookToken, project_id=project_id).token
    for caller in ("+380501234567", ""):
        admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": caller, "userfield": caller, "dst": "101"})
    with admin.database.reading() as session:
        document = load_document(session, project_id, session.get_one(models.Project, project_id).version) or {}
    told = {"through": "version", "version": 1, "period": "all", "most": 9, "digest": ""}
    told |= {"since": "2026-01-01T00:00:00+00:00", "until": "2999-01-01T00:00:00+00:00"}
    closed = {**document, "rules": []}
    result = replay_study(admin.database, project_id, closed, told, lambda *_: None)
    with admin.database.writing() as session:
        now = datetime.now(UTC)
        study = {"project_id": project_id, "kind": "replay", "state": "done", "done": 2, "total": 2}
        study |= {"started_at": now, "started_by": "emil", "heartbeat_at": now}
        session.add(models.Study(**study, document=closed, parameters=told, result=result))
        told |= {"variation": Variation().as_json()}
        simulated = what_if_study(admin.database, project_id, document, told, lambda *_: None)
        session.add(models.Study(**study | {"kind": "what_if"}, document=document, parameters=told, result=simulated))
        session.add(
            models.RefusedRequest(
                project_id=project_id, at=datetime.now(UTC), reason="address", remote="203.0.113.9",
                request={"method": "GET", "query": "a=1", "content_type": "", "body": "", "user_agent": ""},
            )
        )  # fmt: skip


def pages(admin: Admin) -> Iterator[Address]:
    """All of them; where an address takes an id, that of the first of its kind."""
    acme = admin.one(models.Project, name="acme").id
    kinds: dict[str, Any] = {
        "agent": models.Agent, "agent_delete": models.Agent, "group": models.Group, "group_delete": models.Group,
        "rule": models.Rule,
        "schedule": models.Schedule, "call": models.Decision, "replay_call": models.Decision,
    }  # fmt: skip
    urls = admin.app.url_map.bind("localhost")
    for rule in admin.app.url_map.iter_rules():
        blueprint, _, endpoint = rule.endpoint.partition(".")
        if blueprint != "admin" or endpoint in NO_PAGES or (access := ACCESS[rule.endpoint]).see is None:
            continue
        if "mode" in rule.arguments:
            continue  # the same page, in a draft
        values: dict[str, str | int] = {"project": "acme", "token": "worn-out", "_anything": "nowhere"}
        values["part"] = "hook"
        values["number"] = 2 if endpoint == "what_if_result" else 1
        if endpoint in kinds:
            values["id"] = admin.all(kinds[endpoint], project_id=acme)[0].id
        elif "id" in rule.arguments:
            values["id"] = admin.user("emil").id
        yield Address(endpoint, urls.build(rule.endpoint, {n: values[n] for n in rule.arguments}), access.see)


def check(page: Page, path: str) -> None:
    """In the present theme and size: nothing inaccessible, nothing sticks out."""
    page.goto(path)
    check_axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], path  # type: ignore[index]


@pytest.mark.parametrize(
    ("size", "theme", "language"),
    [(WIDE, "light", "en"), (NARROW, "dark", "uk")],
    ids=["wide, light, English", "narrow, dark, Ukrainian"],
)
def test_every_page_is_accessible_and_fits(
    admin: Admin, chromium: Chromium, size: dict[str, int], theme: str, language: str
) -> None:
    found = list(pages(admin))
    assert len(found) > 25
    owner = chromium.open("olena", "/projects", size=size, theme=theme, language=language)
    stranger = chromium.open("", "/sign-in", size=size, theme=theme, language=language)
    for address in found:
        check(stranger if address.endpoint in SIGNED_OUT else owner, address.path)
        expect(owner.locator("html")).to_have_attribute("lang", language)


def test_a_viewer_sees_no_control_that_changes_anything_and_is_refused_by_hand(
    admin: Admin, chromium: Chromium
) -> None:
    page = chromium.open("vira", "/p/acme/board")
    for address in pages(admin):
        if address.see > Role.VIEWER or address.endpoint in SIGNED_OUT | {"account", "try_call", "replay", "what_if"}:
            continue  # their own account, and what changes nothing
        page.goto(address.path)
        changing = page.locator(
            "main form[method=post] :is(button, input:not([type=hidden]), select, textarea):enabled,"
            " main [data-move], main [data-add-row], main [form=agent-actions]"
        )
        assert changing.count() == 0, address.path
    post = """async (url) => {
        const token = document.querySelector("[name=csrf_token]").value;
        return (await fetch(url, {method: "POST", headers: {"X-CSRFToken": token}})).status;
    }"""
    page.goto("/p/acme/board")
    for rule in admin.app.url_map.iter_rules():
        access = ACCESS.get(rule.endpoint)
        if access is not None and access.do is not None and access.do > Role.VIEWER:
            known: dict[str, str | int] = {"project": "acme", "part": "hook", "mode": "draft"}
            values = {name: known.get(name, 1) for name in rule.arguments}
            url = admin.app.url_map.bind("localhost").build(rule.endpoint, values, method="POST")
            assert page.evaluate(post, url) == 403, url
