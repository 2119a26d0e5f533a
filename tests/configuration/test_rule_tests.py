"""The rules' own tests: run as the rules decide, before each change is published."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete

from router.configuration import ConfigFileError, apply, export, load
from router.configuration.change import ConfigurationError, Draft, change
from router.configuration.rows import read_rows
from router.configuration.rule_tests import FailingTestsError, run_tests
from router.configuration.versions import restore_version
from router.db import models
from router.db.queries import project_named
from router.db.session import Database
from tests.configuration.test_change import published

FILE = """\
projects:
  - name: acme
    overflow: "100"
    schedules: [{name: office hours, open: {mon-fri: ["09:00-18:00"]}}]
    agents: [{name: Ann, sip_logins: [ann]}, {name: Bob, sip_logins: [bob]}]
    groups:
      - {name: vip, strategy: priority, members: [{agent: Ann}, {agent: Bob}]}
      - {name: sales, members: [{agent: Bob}]}
    rules:
      - {name: VIP, when: {caller: ["+38050*"]}, groups: [vip, sales]}
      - {name: night, when: {outside: office hours}, overflow: "380671234567"}
      - {name: everyone, groups: [sales]}
    tests:
      - name: VIP at noon
        call: {caller: 050 111 22 33, at: "2026-12-01T12:00"}
        expect: {rule: VIP, groups: [vip, sales], agent: Ann}
      - {name: at night, call: {at: "2026-12-01T23:00"}, expect: {overflow: "067 123 45 67"}}
      - name: Bob alone
        call: {caller: "+380501112233", params: {a: b}, at: "2026-12-01T12:00"}
        free: [Bob]
        expect: {agent: Bob}
"""
NO_VIP = FILE.replace('caller: ["+38050*"]', 'caller: ["+38067*"]')


def results(database: Database) -> dict[str, str]:
    with database.reading() as session:
        return {result.name: result.why for result in run_tests(read_rows(session, project_named(session, "acme")))}


@pytest.fixture
def project_id(database: Database) -> int:
    apply(database, load(FILE, {}))
    with database.reading() as session:
        return project_named(session, "acme").id


def id_of(draft: Draft, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in draft.document[kind] if row["name"] == name)


def test_a_test_passes_where_the_rules_decide_so(database: Database, project_id: int) -> None:
    assert results(database) == {"VIP at noon": "", "at night": "", "Bob alone": ""}


def test_the_file_comes_back_as_it_was(database: Database, project_id: int) -> None:
    with database.reading() as session:
        exported = export(session, "acme")
    before, after = (load(text, {}).projects[0].tests for text in (FILE, exported))
    assert after == tuple(sorted(before, key=lambda test: test.name))
    assert "at: '2026-12-01T12:00:00+02:00'" in exported
    assert apply(database, load(exported, {})) == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("rule: VIP, groups", "rule: everyone, groups", "takes the call is VIP, not everyone"),
        ("[vip, sales], agent", "[sales], agent", "asked are vip, sales, not sales"),
        ("agent: Ann}\n", "agent: Bob}\n", "goes to Ann, not to Bob"),
        ('overflow: "067 123 45 67"', 'overflow: "100"', "goes to 380671234567, not to 100"),
        ('overflow: "067 123 45 67"', "rule: VIP", "takes the call is night, not VIP"),
        ("free: [Bob]", "free: [Ann]", "goes to Ann, not to Bob"),
    ],
)
def test_a_test_that_fails_says_why(database: Database, old: str, new: str, why: str) -> None:
    with pytest.raises(FailingTestsError, match=why):
        apply(database, load(FILE.replace(old, new), {}))
    apply(database, load(FILE.replace(old, new), {}), accept_failing=True)
    assert [found for found in results(database).values() if found] != []


def test_a_change_that_makes_a_test_fail_is_not_published(database: Database, project_id: int) -> None:
    before = published(database, project_id)
    with pytest.raises(FailingTestsError, match="'VIP at noon' fails"), change(database, project_id, "test") as draft:
        draft.put("rules", {"enabled": False}, id_of(draft, "rules", "VIP"))
    with pytest.raises(FailingTestsError):
        apply(database, load(NO_VIP, {}))
    assert published(database, project_id) == before


def test_who_accepts_it_is_in_the_audit_trail_and_is_not_asked_again(database: Database, project_id: int) -> None:
    apply(database, load(NO_VIP, {}), accept_failing=True, actor="olena")
    with database.reading() as session:
        (entry,) = session.query(models.AuditEntry).filter_by(action="accepted").all()
        assert (entry.actor, entry.subject, entry.subject_name) == ("olena", "tests", "VIP at noon")
    with change(database, project_id, "test") as draft:
        draft.put_project({"cool_down_seconds": 7})
    with pytest.raises(FailingTestsError, match="'at night' fails"), change(database, project_id, "test") as draft:
        draft.remove("rules", id_of(draft, "rules", "night"))


def test_a_test_follows_what_it_names(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        draft.put("rules", {"name": "very important"}, id_of(draft, "rules", "VIP"))
        draft.put("agents", {"name": "Anna"}, id_of(draft, "agents", "Ann"))
    assert results(database)["VIP at noon"] == ""
    used = "rule 'very important' is still used by test 'VIP at noon'"
    with pytest.raises(ConfigurationError, match=used), change(database, project_id, "test") as draft:
        draft.remove("rules", id_of(draft, "rules", "very important"))


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        ({"name": "x", "call": {"caller": "1"}, "expect": {"overflow": "1"}}, "call.at: a test needs the moment"),
        ({"name": "x", "call": {"at": "2026-12-01T12:00"}}, "expect.rule: nothing is expected"),
        ({"name": "x", "call": {"at": "soon"}, "expect": {"rule": "VIP"}}, "call.at: "),
        ({"name": "x", "call": {"at": "2026-12-01"}, "expect": {"rule": "V"}}, "expect.rule: there is no rule 'V'"),
        ({"name": "x", "free": ["Cid"]}, "free[0]: there is no agent 'Cid'"),
    ],
)
def test_what_is_wrong_with_a_test_is_said_with_its_place(test: dict[str, Any], fault: str) -> None:
    head, _tests, _ = FILE.partition("    tests:")
    with pytest.raises(ConfigFileError) as refused:
        load(f"{head}    tests: [{test}]\n", {})
    assert f"tests[0].{fault}" in str(refused.value)


def test_what_holds_for_a_while_makes_no_test_fail(database: Database, project_id: int) -> None:
    """Otherwise a test of a past call would keep an editor from closing early, or from sending somebody home."""
    with change(database, project_id, "test") as draft:
        until = {"override": "closed", "override_until": "2099-01-01T00:00:00+00:00"}
        draft.put("schedules", until, id_of(draft, "schedules", "office hours"))
        draft.put("agents", {"away_until": "2099-01-01T00:00:00+00:00"}, id_of(draft, "agents", "Ann"))
        draft.put("agents", {"paused": True}, id_of(draft, "agents", "Bob"))
    assert results(database) == {"VIP at noon": "", "at night": "", "Bob alone": ""}


def test_a_restored_version_keeps_the_tests_and_is_held_to_them(database: Database, project_id: int) -> None:
    apply(database, load(NO_VIP, {}), accept_failing=True)
    apply(database, load(NO_VIP.partition("    tests:")[0], {}))
    version = published_version(database, project_id)
    apply(database, load(FILE, {}))
    with pytest.raises(FailingTestsError), change(database, project_id, "test") as draft:
        restore_version(draft, version)
    assert len(results(database)) == 3


def test_a_test_whose_rule_is_gone_fails_and_stops_nothing_else(database: Database, project_id: int) -> None:
    """A process of the release before, which knows no tests, may delete a rule."""
    with database.writing() as session:
        session.execute(delete(models.RuleGroup))
        session.execute(delete(models.Rule).where(models.Rule.name == "VIP"))
    with change(database, project_id, "test") as draft:
        draft.put_project({"cool_down_seconds": 7})
        draft.accepts_failing = True
    assert "not #" in results(database)["VIP at noon"]


def published_version(database: Database, project_id: int) -> int:
    with database.reading() as session:
        return session.get_one(models.Project, project_id).version
