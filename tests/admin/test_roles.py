"""Who may do what: every view says so, and is held to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from flask import Flask
from werkzeug.routing import Rule

from router.admin.page import ACCESS, Access, Role, check_access
from router.db import models
from tests.admin.conftest import Admin, Browser

OWNER, EDITOR, VIEWER, ANYBODY = Role.OWNER, Role.EDITOR, Role.VIEWER, Role.ANYBODY

# What these pages promise, so that loosening one by accident shows. Endpoint → who may see, who may act.
PROMISED = {
    "sign_in": (ANYBODY, ANYBODY),
    "session_now": (ANYBODY, None),
    "sign_out": (None, ANYBODY),
    "sign_out_everywhere": (None, VIEWER),
    "welcome": (ANYBODY, ANYBODY),
    "account": (VIEWER, VIEWER),
    "set_language": (None, ANYBODY),
    "static": (ANYBODY, None),
    "nothing": (ANYBODY, None),
    "home": (VIEWER, None),
    "projects": (VIEWER, None),
    "project_new": (OWNER, OWNER),
    "project_delete": (OWNER, OWNER),
    "project_restore": (None, OWNER),
    "caller_data": (OWNER, None),
    "caller_export": (None, OWNER),
    "caller_erase": (None, OWNER),
    "settings": (VIEWER, EDITOR),
    "settings_check": (None, EDITOR),
    "overflow_doubt": (VIEWER, None),
    "users": (OWNER, None),
    "user_new": (OWNER, OWNER),
    "user": (OWNER, OWNER),
    "user_link": (None, OWNER),
    "user_disable": (None, OWNER),
    "user_enable": (None, OWNER),
    "user_undo": (None, OWNER),
    "audit": (OWNER, None),
    "undo": (None, EDITOR),
    "calls": (VIEWER, None),
    "calls_csv": (VIEWER, None),
    "agents_csv": (VIEWER, None),
    "call_block": (None, EDITOR),
    "replay": (VIEWER, VIEWER),
    "replay_result": (VIEWER, None),
    "replay_stop": (None, VIEWER),
    "replay_call": (VIEWER, None),
    "what_if": (VIEWER, VIEWER),
    "what_if_result": (VIEWER, None),
    "what_if_stop": (None, VIEWER),
    "draft": (VIEWER, None),
    "draft_replay": (VIEWER, VIEWER),
    "draft_publish": (None, EDITOR),
    "draft_unplan": (None, EDITOR),
    "draft_discard": (None, EDITOR),
    "draft_settle": (None, EDITOR),
    "draft_take_back": (None, EDITOR),
}


def pages(admin: Admin) -> Iterator[tuple[Rule, Access]]:
    """Every address of the admin."""
    for rule in admin.app.url_map.iter_rules():
        if rule.endpoint.startswith("admin."):
            yield rule, ACCESS[rule.endpoint]


def address(admin: Admin, rule: Rule, *, number: int = 999_999) -> str:
    known = {"project": "acme", "part": "hook", "mode": "draft", "id": number, "number": number}
    values = {name: known.get(name, "x") for name in rule.arguments}
    with admin.app.test_request_context():
        built = admin.app.url_map.bind("localhost").build(rule.endpoint, values)
    return str(built)


@pytest.mark.parametrize("endpoint", PROMISED)
def test_a_page_is_open_to_whom_it_promises(admin: Admin, endpoint: str) -> None:
    assert tuple(ACCESS[f"admin.{endpoint}"]) == PROMISED[endpoint]


def test_pages_that_act_need_an_account_but_those_that_make_one(admin: Admin) -> None:
    open_to_all = {rule.endpoint for rule, access in pages(admin) if access.do == ANYBODY}
    assert open_to_all == {"admin.sign_in", "admin.sign_out", "admin.welcome", "admin.set_language"}


def test_a_viewer_changes_nothing_but_their_own_account(admin: Admin) -> None:
    theirs = {rule.endpoint for rule, access in pages(admin) if access.do == VIEWER}
    only_look = {"admin.try_call", "admin.draft_replay", "admin.replay", "admin.replay_stop"}
    only_look |= {"admin.what_if", "admin.what_if_stop"}
    assert theirs - only_look == {"admin.account", "admin.sign_out_everywhere"}


@pytest.mark.parametrize("name", ["", "vira", "emil", "olena"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_page_keeps_out_whom_it_says(admin: Admin, name: str, method: str) -> None:
    rank = {"": ANYBODY, "vira": VIEWER, "emil": EDITOR, "olena": OWNER}[name]
    strayed = []
    for rule, access in pages(admin):
        needed = access.see if method == "GET" else access.do
        url = address(admin, rule)
        browser = admin.browser(name)  # a new one each time: some pages sign out
        answer = browser.get(url) if method == "GET" else browser.post(url)
        if needed is None:
            right = answer.status_code in {404, 405}
        elif rank >= needed:
            is_sent_away = is_sign_in(answer.location) and "sign_out" not in rule.endpoint
            right = answer.status_code not in {401, 403, 405} and not is_sent_away
        elif not name:
            right = answer.status_code == 302 and is_sign_in(answer.location)
        else:
            right = answer.status_code == 403
        if not right:
            strayed.append(f"{method} {url} as {name or 'nobody'}: {answer.status}")
    assert strayed == []


def is_sign_in(location: str | None) -> bool:
    return location is not None and location.startswith("/sign-in")


def test_an_unknown_project_is_told_to_those_who_are_signed_in_only(nobody: Browser, vira: Browser) -> None:
    assert nobody.get("/p/unheard-of/settings").status_code == 302
    assert vira.get("/p/unheard-of/settings").status_code == 404


def test_a_role_taken_away_is_gone_with_the_next_request(admin: Admin, emil: Browser) -> None:
    assert emil.post("/p/acme/settings").status_code == 422
    with admin.database.writing() as session:
        session.get_one(models.User, admin.user("emil").id).role = "viewer"
    assert emil.post("/p/acme/settings").status_code == 403


def test_what_belongs_to_another_project_is_not_there(admin: Admin, olena: Browser) -> None:
    other = admin.one(models.Project, name="globex").id
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        session.add_all(
            [
                models.Agent(project_id=other, name="Ann"),
                models.Group(project_id=other, name="Sales"),
                models.Rule(project_id=other, name="All"),
                models.Schedule(project_id=other, name="Office", time_zone="UTC"),
                models.Decision(
                    project_id=other, call_id="1", step="", asked_at=now, caller="", dialed="", destination="",
                    result="overflow", config_version=1, latency_us=1, record={},
                ),
            ]
        )  # fmt: skip
    found = []
    for rule, access in pages(admin):
        if {"project", "id"} <= rule.arguments:
            url = address(admin, rule, number=1)
            statuses = []
            if access.see is not None:
                statuses.append(olena.get(url).status_code)
            if access.do is not None:
                statuses.append(olena.post(url).status_code)
            if set(statuses) != {404}:
                found.append(f"{url}: {statuses}")
    assert found == []


def test_a_view_without_a_declared_role_refuses_to_start() -> None:
    app = Flask("bare")
    app.add_url_rule("/back-door", "admin.back_door", lambda: "come in")
    with pytest.raises(RuntimeError, match=r"admin\.back_door"):
        check_access(app)


def test_a_page_that_may_not_be_acted_on_has_no_post() -> None:
    with pytest.raises(LookupError):
        Access(VIEWER, None).needed("POST")
