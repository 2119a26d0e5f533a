"""The pages of a draft: the set-up works on it under an address of its own, and Review says what it would do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router.configuration import apply, load
from router.configuration.change import change
from router.db import models
from router.db.documents import load_document
from tests.admin.conftest import Admin, Browser, shown_fields

FILE = """\
projects:
  - name: acme
    overflow: "100"
    agents: [{name: Ann, sip_logins: [ann]}, {name: Bob, sip_logins: [bob]}]
    groups: [{name: sales, members: [{agent: Ann}]}, {name: support, members: [{agent: Bob}]}]
    schedules: [{name: hours, open: {mon-fri: ["09:00-18:00"]}}]
    rules: [{name: vip, groups: [support], when: {caller: ["+380501112233"]}}, {name: everyone, groups: [sales]}]
    tests: [{name: vip first, call: {caller: "+380501112233", at: "2026-12-01T12:00"}, expect: {rule: vip}}]
"""


@pytest.fixture
def acme(admin: Admin) -> Admin:
    apply(admin.database, load(FILE, {}))
    return admin


def document(admin: Admin) -> dict[str, Any]:
    project = admin.one(models.Project, name="acme")
    with admin.database.reading() as session:
        return load_document(session, project.id, project.version) or {}


def id_of(admin: Admin, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in document(admin)[kind] if row["name"] == name)


def text_of(page: str) -> str:
    main = page.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", main).split())


def save(browser: Browser, url: str, **values: Any) -> str:
    """Change fields of the form at this address, and return the page that follows."""
    fields = shown_fields(browser.get(url).text) | values
    answer = browser.post(url, follow=True, **fields)
    assert answer.status_code == 200, text_of(answer.text)
    return answer.text


def test_forms_work_on_the_draft_and_calls_go_on_as_before(acme: Admin, emil: Browser, olena: Browser) -> None:
    before, ann = document(acme), id_of(acme, "agents", "Ann")
    page = save(emil, f"/p/acme/draft/agents/{ann}", wrap_up_seconds="7")
    assert "Saved in the draft" in page
    assert 'value="7"' in olena.get(f"/p/acme/draft/agents/{ann}").text
    assert 'value="7"' not in olena.get(f"/p/acme/agents/{ann}").text
    assert document(acme) == before


SET_UP = ("agents", "groups", "rules", "tests", "schedules", "settings", "settings/presence", "settings/hook", "try")


@pytest.mark.parametrize("name", ["vira", "emil", "olena"])
def test_every_page_of_the_set_up_works_in_the_draft_and_its_links_stay_there(acme: Admin, name: str) -> None:
    browser, seen = acme.browser(name), set()
    waiting = [f"/p/acme/draft/{page}" for page in SET_UP]
    while waiting:
        url = waiting.pop()
        page = browser.get(url)
        assert page.status_code == 200, url
        assert "You see the draft" in page.text
        main = page.text.partition("<main")[2]
        assert "/p/acme/draft/" in main
        for link in re.findall(r'href="(/p/acme/[^"#?]*)', page.text):
            if link.startswith("/p/acme/draft/") and link not in seen:
                seen.add(link)
                waiting.append(link)
    is_editor = name != "vira"
    assert {f"/p/acme/draft/rules/{row['id']}" for row in document(acme)["rules"]} <= seen
    assert (f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}/delete" in seen) is is_editor


def test_a_page_of_the_set_up_leads_into_the_draft_and_back(acme: Admin, emil: Browser, vira: Browser) -> None:
    url = f"/p/acme/rules/{id_of(acme, 'rules', 'vip')}"
    assert f'href="{url.replace("/acme/", "/acme/draft/")}">Edit as a draft' in emil.get(url).text
    assert "draft-bar" not in vira.get(url).text
    save(emil, url.replace("/acme/", "/acme/draft/"), name="gold")
    assert "There is a draft" in vira.get("/p/acme/rules").text
    bar = vira.get(url.replace("/acme/", "/acme/draft/")).text
    assert f'href="{url}"' in bar
    assert "1 change, the last by emil@example.org" in text_of(bar)
    assert "draft-bar" not in vira.get("/p/acme/board").text


def test_a_row_that_is_new_in_the_draft_has_its_pages_there_only(acme: Admin, emil: Browser) -> None:
    fields = shown_fields(emil.get("/p/acme/draft/agents/new").text) | {"name": "Cid", "sip_logins": "cid"}
    listed = emil.post("/p/acme/draft/agents/new", follow=True, **fields).text
    (url,) = re.findall(r'href="(/p/acme/draft/agents/\d+)"[^>]*>\s*Cid', listed)
    assert emil.get(url).status_code == 200
    assert emil.get(url.replace("/draft/", "/")).status_code == 404
    assert "Cid" not in emil.get("/p/acme/agents").text
    group = f"/p/acme/draft/groups/{id_of(acme, 'groups', 'sales')}"
    save(emil, group, join=url.rpartition("/")[2])
    assert "Cid" in text_of(emil.get(group).text)
    assert "Cid" in text_of(emil.get("/p/acme/draft/try?caller=1&presence=chosen").text)
    publish(emil)
    cid = id_of(acme, "agents", "Cid")
    sales = next(row for row in document(acme)["groups"] if row["name"] == "sales")
    assert cid in [member["agent"] for member in sales["members"]]


def publish(browser: Browser, **fields: Any) -> str:
    return text_of(browser.post("/p/acme/draft/publish", follow=True, **fields).text)


def swap(browser: Browser, admin: Admin) -> None:
    """Put the rule for everyone above that for VIPs, in the draft."""
    order = [id_of(admin, "rules", name) for name in ("everyone", "vip")]
    answer = browser.post("/p/acme/draft/rules/order", htmx=True, order=order)
    assert answer.status_code == 200
    assert text_of(f"<main {answer.text}</main>").index("everyone") < text_of(f"<main {answer.text}</main>").index(
        "vip"
    )


def test_review_says_what_changes_what_is_warned_of_and_which_test_fails(
    acme: Admin, emil: Browser, olena: Browser
) -> None:
    swap(emil, acme)
    save(olena, f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}", wrap_up_seconds="7")
    review = text_of(olena.get("/p/acme/draft").text)
    assert "changed the order of the rules emil@example.org" in review
    assert "changed the agent Ann olena@example.org" in review
    assert "Wrap-up: was 0 → now 7" in review
    assert "new vip : This rule can never match" in review
    assert "1 test fails. 0 pass. fails vip first The rule that takes the call is everyone, not vip." in review


def test_a_failing_test_is_published_by_an_owner_who_says_so(acme: Admin, emil: Browser, olena: Browser) -> None:
    before = document(acme)
    swap(emil, acme)
    assert "accept_failing" not in emil.get("/p/acme/draft").text
    assert "Not published. A test fails" in publish(emil, accept_failing="1")
    assert "Not published. A test fails" in publish(olena)
    assert document(acme) == before
    assert "Published as version" in publish(olena, accept_failing="1", comment="everyone first")
    assert [row["name"] for row in document(acme)["rules"]] == ["everyone", "vip"]
    assert acme.all(models.Draft) == []
    (accepted,) = acme.all(models.AuditEntry, action="accepted")
    assert accepted.subject_name == "vip first"


def test_what_was_published_can_be_undone_at_once(acme: Admin, emil: Browser) -> None:
    before = document(acme)
    save(emil, f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}", wrap_up_seconds="7")
    page = emil.post("/p/acme/draft/publish", follow=True).text
    (version,) = re.findall(r'name="version" value="(\d+)"', page.partition('role="status"')[2].partition("</form>")[0])
    emil.post("/p/acme/undo", version=version, next="/p/acme/rules")
    assert document(acme) == before


def test_undo_takes_one_step_back_in_the_draft(acme: Admin, emil: Browser) -> None:
    ann = f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}"
    page = save(emil, ann, wrap_up_seconds="7")
    first, last = (re.findall(rf'name="{name}" value="(\d+)"', page)[0] for name in ("first", "last"))
    answer = emil.post("/p/acme/draft/undo", follow=True, first=first, last=last, next="/p/acme/draft/agents")
    assert "Undone in the draft" in answer.text
    assert acme.all(models.Draft) == []
    again = emil.post("/p/acme/draft/undo", follow=True, first=first, last=last, next="/p/acme/draft/agents")
    assert "Nothing was undone" in again.text
    assert emil.post("/p/acme/draft/undo", version="1").status_code == 400


def test_two_people_in_the_draft_do_not_overwrite_each_other(acme: Admin, emil: Browser, olena: Browser) -> None:
    url = f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}"
    both = shown_fields(emil.get(url).text)
    assert olena.post(url, **both | {"daily_cap": "5"}).status_code == 303
    assert emil.post(url, **both | {"wrap_up_seconds": "7"}).status_code == 303  # another field: both stay
    shown = shown_fields(emil.get(url).text)
    assert (shown["daily_cap"], shown["wrap_up_seconds"]) == (["5"], ["7"])
    late = emil.post(url, **both | {"daily_cap": "6"})
    assert late.status_code == 409
    assert "olena@example.org" in late.text or "emil@example.org" in late.text


def test_a_conflict_with_what_was_changed_meanwhile_is_asked_about(acme: Admin, emil: Browser) -> None:
    ann = id_of(acme, "agents", "Ann")
    save(emil, f"/p/acme/draft/agents/{ann}", wrap_up_seconds="7")
    save(emil, f"/p/acme/agents/{ann}", wrap_up_seconds="9")
    review = text_of(emil.get("/p/acme/draft").text)
    assert "Ann Wrap-up: published 9 , in the draft 7" in review
    assert "Not published. Something was changed outside of the draft meanwhile" in publish(emil)
    emil.post("/p/acme/draft/settle", kind="agents", id=ann, key="wrap_up_seconds", keep="draft")
    assert "Published as version" in publish(emil)
    assert next(row for row in document(acme)["agents"] if row["id"] == ann)["wrap_up_seconds"] == 7


def test_changes_are_taken_back_one_by_one_or_all_together(acme: Admin, emil: Browser) -> None:
    swap(emil, acme)
    ann = id_of(acme, "agents", "Ann")
    save(emil, f"/p/acme/draft/agents/{ann}", wrap_up_seconds="7")
    page = emil.post("/p/acme/draft/take-back", follow=True, kind="rules", id="0").text
    assert "order of the rules" not in text_of(page)
    assert "changed the agent Ann" in text_of(page)
    assert emil.post("/p/acme/draft/take-back", kind="nonsense", id="0").status_code == 400
    emil.post("/p/acme/draft/discard")
    assert "No draft" in emil.get("/p/acme/draft").text
    assert "Nothing differs" not in emil.get("/p/acme/draft").text


def test_a_moment_to_publish_at_is_planned_shown_and_called_off(acme: Admin, emil: Browser) -> None:
    save(emil, f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}", wrap_up_seconds="7")
    over = emil.post("/p/acme/draft/publish", publish_at="2020-01-01T10:00", comment="late")
    assert over.status_code == 422
    assert "This moment is over" in over.text
    assert 'value="late"' in over.text
    planned = publish(emil, publish_at="2090-01-01T10:00", comment="new year")
    assert "Planned. You can call it off until then." in planned
    assert "planned by emil@example.org" in planned
    (stored,) = acme.all(models.Draft)
    assert stored.publish_at.isoformat() == "2090-01-01T08:00:00+00:00"
    assert "to be published" in text_of(emil.get("/p/acme/rules").text)
    assert "Called off" in text_of(emil.post("/p/acme/draft/unplan", follow=True).text)
    (stored,) = acme.all(models.Draft)
    assert stored.publish_at is None


def test_a_draft_that_cannot_be_published_is_not_planned(acme: Admin, emil: Browser) -> None:
    swap(emil, acme)
    assert "Not published. A test fails" in publish(emil, publish_at="2090-01-01T10:00")
    (stored,) = acme.all(models.Draft)
    assert stored.publish_at is None


def test_a_call_is_tried_by_the_draft_and_kept_as_a_test_in_it(acme: Admin, emil: Browser) -> None:
    swap(emil, acme)
    trial = "try?caller=%2B380501112233&presence=chosen"
    assert "everyone" in text_of(emil.get(f"/p/acme/draft/{trial}").text).partition("Rules")[0]
    emil.post("/p/acme/draft/tests/keep", caller="+380501112233", presence="chosen")
    assert len(document(acme)["tests"]) == 1
    assert "everyone," in text_of(emil.get("/p/acme/draft/tests").text)


def test_credentials_are_not_in_the_draft(acme: Admin, olena: Browser) -> None:
    page = olena.get("/p/acme/draft/settings/presence").text
    assert 'name="presence_auth_key"' not in page
    assert "cannot be changed in a draft" in page
    save(olena, "/p/acme/draft/settings/presence", presence_poll_seconds="9", presence_auth_key="stolen")
    publish(olena)
    project = acme.one(models.Project, name="acme")
    assert (project.presence_auth_key, project.presence_poll_seconds) == ("acme-secret-key", 9)


def test_a_project_renamed_by_its_draft_has_its_pages_under_the_new_name(acme: Admin, olena: Browser) -> None:
    save(olena, "/p/acme/draft/settings", name="beta")
    assert olena.get("/p/beta/rules").status_code == 404
    answer = olena.post("/p/acme/draft/publish", comment="renamed")
    assert answer.location.startswith("/p/beta/versions/")


def test_the_audit_trail_tells_what_was_only_drafted(acme: Admin, emil: Browser, olena: Browser) -> None:
    save(emil, f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}", wrap_up_seconds="7")
    assert "changed the agent Ann in the draft" in text_of(olena.get("/audit?project=acme").text)
    emil.post("/p/acme/draft/discard")
    assert "discarded the draft" in text_of(olena.get("/audit?project=acme").text)


def test_what_was_drafted_does_not_pass_for_a_change_of_what_applies(acme: Admin, emil: Browser) -> None:
    url = f"/p/acme/agents/{id_of(acme, 'agents', 'Ann')}"
    both = shown_fields(emil.get(url).text)
    with change(acme.database, acme.one(models.Project, name="acme").id, "live@example.org") as draft:
        draft.put("agents", {"daily_cap": 4}, id_of(acme, "agents", "Ann"))
    save(emil, url.replace("/acme/", "/acme/draft/"), wrap_up_seconds="7")
    late = emil.post(url, **both | {"daily_cap": "6"})
    assert late.status_code == 409
    assert "live@example.org" in late.text


def test_a_version_is_restored_into_the_draft(acme: Admin, emil: Browser) -> None:
    version, before = acme.one(models.Project, name="acme").version, document(acme)
    ann = id_of(acme, "agents", "Ann")
    save(emil, f"/p/acme/agents/{ann}", wrap_up_seconds="9")
    assert f"/p/acme/draft/versions/{version}/restore" in emil.get(f"/p/acme/versions/{version}").text
    page = emil.post(f"/p/acme/draft/versions/{version}/restore", follow=True).text
    assert f"The draft is as version {version} was." in page
    assert "Wrap-up: was 9 → now 0" in text_of(page)
    assert document(acme) != before
    publish(emil)
    assert document(acme) == before


@pytest.mark.parametrize(
    "url",
    ["rules?_scheme=x", "rules?_anchor=zz&project=globex&_method=POST", "agents/%d?id=5", "settings?part=hook&q=%%C3"],
)
def test_no_argument_of_an_address_breaks_a_page_of_the_set_up(acme: Admin, vira: Browser, url: str) -> None:
    url = url % id_of(acme, "agents", "Ann") if "%d" in url else url.replace("%%", "%")
    path, _mark, query = url.partition("?")
    save(acme.browser("emil"), f"/p/acme/draft/agents/{id_of(acme, 'agents', 'Ann')}", wrap_up_seconds="7")
    page = vira.get(f"/p/acme/{url}")
    assert page.status_code == 200
    assert f'href="/p/acme/draft/{path}?{query.replace("&", "&amp;")}"' in page.text


def test_nothing_is_published_or_settled_that_was_not_seen(acme: Admin, emil: Browser, olena: Browser) -> None:
    ann = id_of(acme, "agents", "Ann")
    save(emil, f"/p/acme/draft/agents/{ann}", wrap_up_seconds="7")
    page = olena.get("/p/acme/draft").text
    (seen,) = set(re.findall(r'name="seen" value="([^"]*)"', page))
    save(emil, f"/p/acme/draft/agents/{ann}", wrap_up_seconds="99")
    before = document(acme)
    for what, fields in (
        ("publish", {}),
        ("publish", {"publish_at": "2090-01-01T10:00"}),
        ("discard", {}),
        ("settle", {"kind": "agents", "id": ann, "key": "wrap_up_seconds", "keep": "draft"}),
        ("take-back", {"kind": "agents", "id": ann}),
    ):
        answer = olena.post(f"/p/acme/draft/{what}", follow=True, seen=seen, **fields)
        assert "the draft or what is published was changed meanwhile" in text_of(answer.text)
    assert document(acme) == before
    (seen,) = set(re.findall(r'name="seen" value="([^"]*)"', olena.get("/p/acme/draft").text))
    assert "Published as version" in publish(olena, seen=seen)


def test_what_takes_effect_at_once_has_no_button_in_the_draft(acme: Admin, olena: Browser) -> None:
    hours = id_of(acme, "schedules", "hours")
    save(olena, f"/p/acme/draft/rules/{id_of(acme, 'rules', 'vip')}", name="gold")
    with change(acme.database, acme.one(models.Project, name="acme").id, "test") as draft:
        draft.put("schedules", {"override": "closed"}, hours)
        draft.put("rules", {"when": {"schedule": hours}}, id_of(acme, "rules", "everyone"))
    assert "Open again" in olena.get("/p/acme/rules").text
    page = olena.get("/p/acme/draft/rules").text
    assert "hours" in text_of(page)
    assert "Open again" not in page
    assert "Open again" not in olena.get(f"/p/acme/draft/schedules/{hours}").text
    assert "Check connection" not in olena.get("/p/acme/draft/settings/presence").text


def test_the_audit_trail_names_rows_of_each_draft(acme: Admin, emil: Browser, olena: Browser) -> None:
    for name in ("Cid", "Zoe"):
        fields = shown_fields(emil.get("/p/acme/draft/agents/new").text) | {"name": name}
        listed = emil.post("/p/acme/draft/agents/new", follow=True, **fields).text
        (url,) = re.findall(rf'href="(/p/acme/draft/agents/\d+)"[^>]*>\s*{name}', listed)
        save(emil, f"/p/acme/draft/groups/{id_of(acme, 'groups', 'sales')}", join=url.rpartition("/")[2])
        emil.post("/p/acme/draft/discard")
    told = text_of(olena.get("/audit?project=acme").text)
    assert told.count("Member Cid") == 1
    assert told.count("Member Zoe") == 1
