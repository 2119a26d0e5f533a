"""The pages of the rules' own tests: kept from a call or a trial, or written; they hold up a change that fails one."""

from __future__ import annotations

import re
from html import unescape

import pytest
from sqlalchemy import select, update

from router.configuration import apply, load
from router.db import models
from router.db.documents import Document, load_document
from router.db.personal import erase_caller
from tests.admin.conftest import Admin, Browser, shown_fields
from tests.admin.test_undo import undo
from tests.admin.test_versions import text_of
from tests.rows import changing

FILE = """\
projects:
  - name: acme
    overflow: "100"
    agents: [{name: Ann, sip_logins: [ann]}, {name: Bob, sip_logins: [bob]}]
    groups: [{name: vip, members: [{agent: Ann}]}, {name: sales, members: [{agent: Bob}]}]
    rules:
      - {name: VIP, when: {caller: ["+38050*"], params: {utm: google}}, groups: [vip, sales]}
      - {name: shut, when: {dialed: ["+380441112233"]}, overflow: "7"}
      - {name: everyone, groups: [sales]}
"""


@pytest.fixture
def acme(admin: Admin) -> Admin:
    apply(admin.database, load(FILE, {}))
    return admin


def document(admin: Admin) -> Document:
    with admin.database.reading() as session:
        project = session.scalars(select(models.Project).where(models.Project.name == "acme")).one()
        found = load_document(session, project.id, project.version)
    assert found is not None
    return found


def id_of(admin: Admin, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in document(admin)[kind] if row["name"] == name)


def called(admin: Admin, **params: str) -> int:
    """The id of the decision about a call."""
    token = admin.one(models.HookToken, project_id=admin.one(models.Project, name="acme").id).token
    question = {"uniqueid": "1.1", "userfield": "0501112233", "dst": "0441110000", **params}
    assert admin.app.test_client().post(f"/hook/{token}", json=question).status_code == 200
    return int(admin.all(models.Decision)[-1].id)


def test_a_call_of_the_log_is_kept_as_a_test_with_one_click(acme: Admin, emil: Browser) -> None:
    decision_id = called(acme, utm="google")
    page = emil.get(f"/p/acme/calls/{decision_id}").text
    assert "Keep as a test" in page
    after = emil.post("/p/acme/tests/keep", call=str(decision_id), follow=True).text
    assert "is a test now" in after
    assert "This test passes" in after
    (test,) = document(acme)["tests"]
    assert test["name"].startswith("VIP, ")
    assert test["call"]["caller"] == "380501112233"
    assert test["call"]["params"] == {"utm": "google"}, "what is a field of the call is not kept twice"
    assert test["expect"] == {
        "rule": id_of(acme, "rules", "VIP"),
        "groups": [id_of(acme, "groups", "vip"), id_of(acme, "groups", "sales")],
        "agent": None,
        "overflow": None,
    }
    undo(emil, after)
    assert document(acme)["tests"] == []


def test_a_trial_is_kept_as_a_test_with_its_moment(acme: Admin, emil: Browser) -> None:
    trial = {"caller": "067 111 22 33", "dialed": "044 111 22 33", "at": "2026-12-01T12:00"}
    page = emil.get("/p/acme/try", query_string=trial).text
    form = next(form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if "/tests/keep" in form)
    fields = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
    del fields["csrf_token"]
    assert fields == trial
    emil.post("/p/acme/tests/keep", **fields)
    (test,) = document(acme)["tests"]
    assert test["call"]["at"] == "2026-12-01T10:00:00+00:00"
    assert (test["expect"]["rule"], test["expect"]["overflow"]) == (id_of(acme, "rules", "shut"), "7")


def test_a_test_is_written_shown_and_changed(acme: Admin, emil: Browser, vira: Browser) -> None:
    typed = {
        "name": "VIP at noon", "call_caller": "050 111 22 33", "call_at": "2026-12-01T12:00",
        "call_params-0-name": "utm", "call_params-0-value": "google", "expect_rule": str(id_of(acme, "rules", "VIP")),
        "expect_groups-0-group": str(id_of(acme, "groups", "vip")),
        "expect_groups-1-group": str(id_of(acme, "groups", "sales")), "overflow_kind": "unset",
    }  # fmt: skip
    assert "is added" in emil.post("/p/acme/tests/new", **typed, follow=True).text
    before = document(acme)
    (test,) = before["tests"]
    listed = text_of(vira.get("/p/acme/tests").text)
    assert "rule “VIP” vip → sales" in listed
    assert "passes" in listed
    url = f"/p/acme/tests/{test['id']}"
    shown = emil.get(url).text
    assert "data-dirty" not in shown
    emil.post(url, **shown_fields(shown))
    assert document(acme) == before, "saved as it is shown, nothing changes"
    emil.post(
        url, **shown_fields(shown) | {"free": [str(id_of(acme, "agents", "Bob"))], "expect_agent": "", "name": "Bob"}
    )
    assert document(acme)["tests"][0]["free"] == [id_of(acme, "agents", "Bob")]
    assert "disabled" in vira.get(url).text.partition("<fieldset")[2][:100]
    emil.post(f"{url}/delete")
    assert document(acme)["tests"] == []


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"call_at": ""}, "Write when the call comes."),
        ({"expect_rule": ""}, "Say what must be decided"),
        ({"call_at": "soon"}, "Write it like 2026-12-24 14:00."),
        ({"name": ""}, "Give the test a name."),
        ({"call_params-0-value": "x", "call_params-0-name": ""}, "Write the parameter’s name"),
        ({"overflow_kind": "to", "overflow_to": "two words"}, "Not a valid destination"),
    ],
)
def test_what_is_wrong_with_a_test_is_said_at_its_field(
    acme: Admin, emil: Browser, fields: dict[str, str], error: str
) -> None:
    typed = {"name": "x", "call_at": "2026-12-01T12:00", "expect_rule": str(id_of(acme, "rules", "everyone"))}
    answer = emil.post("/p/acme/tests/new", **{**typed, "overflow_kind": "unset", **fields})
    assert answer.status_code == 422
    assert error in unescape(answer.text)
    assert document(acme)["tests"] == []


def test_a_change_that_fails_a_test_is_saved_only_if_an_owner_says_so(
    acme: Admin, emil: Browser, olena: Browser
) -> None:
    emil.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    before, rule = document(acme), f"/p/acme/rules/{id_of(acme, 'rules', 'VIP')}"
    refused = emil.post(f"{rule}/switch")
    assert refused.status_code == 422
    assert "1 test would fail." in refused.text
    assert "The rule that takes the call is everyone, not VIP." in refused.text
    assert "Save all the same" not in refused.text
    assert emil.post(f"{rule}/switch", accept_failing="1").status_code == 422, "an editor cannot"
    assert document(acme) == before
    asked = olena.post(f"{rule}/switch").text
    assert "Save all the same" in asked
    assert olena.post(f"{rule}/switch", accept_failing="1").status_code == 303
    assert "saved although these tests fail: VIP" in text_of(olena.get("/audit").text)
    assert "1 test fails with the rules as they are now." in text_of(emil.get("/p/acme/tests").text)
    assert emil.post("/p/acme/settings/calls", cool_down_seconds="7").status_code != 500


def test_what_was_typed_is_posted_again_when_an_owner_saves_it_all_the_same(acme: Admin, olena: Browser) -> None:
    olena.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    url = f"/p/acme/rules/{id_of(acme, 'rules', 'VIP')}"
    typed = shown_fields(olena.get(url).text) | {"name": ["Very important"], "enabled": []}
    refused = olena.post(url, **typed)
    assert refused.status_code == 422
    form = refused.text.partition("<main")[2]
    again = [(n, unescape(v)) for n, v in re.findall(r'name="([^"]+)" value="([^"]*)"', form) if n != "csrf_token"]
    fields: dict[str, list[str]] = {}
    for name, value in again:
        fields.setdefault(name, []).append(value)
    assert olena.post(url, **fields).status_code == 303
    rule = document(acme)["rules"][0]
    assert (rule["name"], rule["enabled"]) == ("Very important", False)


def test_tests_are_not_said_to_pass_where_calls_cannot_be_routed(acme: Admin, emil: Browser) -> None:
    emil.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    with acme.database.writing() as session:
        session.execute(update(models.Group).values(strategy="nonsense"))
    page = text_of(emil.get("/p/acme/tests").text)
    assert "not run" in page
    assert "passes" not in page
    assert emil.get(f"/p/acme/tests/{document(acme)['tests'][0]['id']}").status_code == 200


def test_who_drags_rules_is_asked_on_a_page_as_any_other(acme: Admin, olena: Browser) -> None:
    olena.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    order = [str(id_of(acme, "rules", name)) for name in ("everyone", "VIP", "shut")]
    answer = olena.post("/p/acme/rules/order", order=order, htmx=True)
    assert answer.status_code == 422
    assert answer.headers["HX-Retarget"] == answer.headers["HX-Reselect"] == "body"
    assert '<form method="post" action="/p/acme/rules/order">' in answer.text
    assert olena.post("/p/acme/rules/order", order=order, accept_failing="1").status_code == 303
    assert [rule["name"] for rule in document(acme)["rules"]] == ["everyone", "VIP", "shut"]


def test_what_a_test_needs_is_not_deleted_before_the_test_is_changed(acme: Admin, emil: Browser) -> None:
    emil.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    before = document(acme)
    assert emil.post(f"/p/acme/rules/{id_of(acme, 'rules', 'VIP')}/delete").status_code == 422
    page = emil.get(f"/p/acme/groups/{id_of(acme, 'groups', 'vip')}/delete").text
    assert "Change or delete the test first." in page
    assert emil.post(f"/p/acme/groups/{id_of(acme, 'groups', 'vip')}/delete").status_code == 409
    assert document(acme) == before


def test_a_call_that_no_rule_took_is_kept_with_its_destination(acme: Admin, emil: Browser) -> None:
    with changing(acme.database, acme.one(models.Project, name="acme").id, "test") as session:
        for rule in session.scalars(select(models.Rule)):
            rule.enabled = False
    decision_id = called(acme)
    emil.post("/p/acme/tests/keep", call=str(decision_id))
    (test,) = document(acme)["tests"]
    assert test["expect"] == {"rule": None, "groups": [], "agent": None, "overflow": "100"}
    erase_caller(acme.database, acme.one(models.Project, name="acme").id, "0501112233", "test")
    assert "was erased" in emil.post("/p/acme/tests/keep", call=str(decision_id), follow=True).text


def test_what_was_saved_although_a_test_fails_is_undone_from_the_audit(acme: Admin, olena: Browser) -> None:
    olena.post("/p/acme/tests/keep", call=str(called(acme, utm="google")))
    before = document(acme)
    olena.post(f"/p/acme/rules/{id_of(acme, 'rules', 'VIP')}/switch", accept_failing="1")
    page = olena.get("/audit?project=acme").text
    entry = next(part for part in page.split("<li") if "saved although these tests fail" in part)
    assert "Undo" in entry
    undo(olena, entry)
    assert document(acme) == before
