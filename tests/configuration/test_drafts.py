"""Drafts: calls go on as before until one is published; what is published meanwhile is merged; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from router.configuration import apply, load
from router.configuration.change import ConfigurationError, Draft, change, change_as
from router.configuration.drafts import (
    LATE,
    CannotPublishError,
    KeptDraft,
    SecretInDraftError,
    authors_of,
    check_publishable,
    faults_of,
    publish_due,
    publish_into,
    summary_of,
)
from router.configuration.merging import Conflict
from router.configuration.rows import read_rows
from router.configuration.rule_tests import FailingTestsError
from router.configuration.undo import CannotUndoError
from router.db import models
from router.db.documents import Document
from router.db.personal import erase_caller
from router.db.session import Database

FILE = """
projects:
  - name: acme
    overflow: "100"
    agents: [{name: Ann, sip_logins: [ann]}, {name: Bob, sip_logins: [bob]}]
    groups: [{name: sales, members: [{agent: Ann}, {agent: Bob}]}, {name: support}]
    rules: [{name: vip, groups: [sales], when: {caller: ["+380501112233"]}}, {name: all, groups: [sales]}]
    tests: [{name: vip first, call: {caller: "+380501112233", at: "2026-12-01T12:00"}, expect: {rule: vip}}]
"""
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def project_id(database: Database) -> int:
    apply(database, load(FILE, {}))
    with database.reading() as session:
        return session.scalars(select(models.Project.id)).one()


def live(database: Database, project_id: int) -> Document:
    with database.reading() as session:
        return read_rows(session, session.get_one(models.Project, project_id))


def kept(database: Database, project_id: int) -> tuple[Document, list[Conflict]]:
    """The draft as it is read."""
    with database.reading() as session:
        draft = KeptDraft(session, session.get_one(models.Project, project_id), "")
        return draft.document, draft.conflicts


def edit(database: Database, project_id: int, what: Callable[[KeptDraft], object], actor: str = "emil") -> None:
    with change_as(KeptDraft, database, project_id, actor) as draft:
        what(draft)


def publish(database: Database, project_id: int, *, is_owner: bool = True, accepts_failing: bool = False) -> int:
    with change(database, project_id, "olena") as draft:
        draft.comment, draft.accepts_failing = "together", accepts_failing
        publish_into(draft, "olena", is_owner=is_owner)
        return draft.project.version


def id_of(document: Document, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in document[kind] if row["name"] == name)


def row_of(document: Document, kind: str, name: str) -> dict[str, Any]:
    return next(row for row in document[kind] if row["name"] == name)


def put(kind: str, name: str, /, **values: Any) -> Callable[[Draft], object]:
    return lambda draft: draft.put(kind, values, id_of(draft.document, kind, name))


def version_of(database: Database, project_id: int) -> int:
    with database.reading() as session:
        return session.get_one(models.Project, project_id).version


def test_calls_go_on_as_before_until_it_is_published_as_one_version(database: Database, project_id: int) -> None:
    before, version = live(database, project_id), version_of(database, project_id)
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, put("rules", "all", name="everyone"), "olena")
    assert (live(database, project_id), version_of(database, project_id)) == (before, version)
    assert publish(database, project_id) == version + 1
    after = live(database, project_id)
    assert row_of(after, "agents", "Ann")["wrap_up_seconds"] == 7
    assert row_of(after, "rules", "everyone")
    with database.reading() as session:
        assert summary_of(session, project_id) is None
        stored = session.get_one(models.ConfigVersion, (project_id, version + 1))
        assert (stored.actor, stored.comment) == ("olena", "together")


def test_rows_that_are_new_in_it_may_be_changed_and_refer_to_each_other(database: Database, project_id: int) -> None:
    edit(database, project_id, lambda draft: draft.put("agents", {"name": "Cid", "sip_logins": ["cid"]}))
    cid = id_of(kept(database, project_id)[0], "agents", "Cid")
    edit(database, project_id, lambda draft: draft.put("agents", {"wrap_up_seconds": 9}, cid))
    member = {"agent": cid, "tier": 1, "weight": 1, "hours": None}
    edit(database, project_id, put("groups", "support", members=[member]))
    publish(database, project_id)
    after = live(database, project_id)
    stored = row_of(after, "agents", "Cid")
    assert stored["wrap_up_seconds"] == 9
    assert [one["agent"] for one in row_of(after, "groups", "support")["members"]] == [stored["id"]]
    assert stored["id"] < cid


def test_it_refuses_what_forms_refuse_and_keeps_nothing_of_it(database: Database, project_id: int) -> None:
    with pytest.raises(ConfigurationError):
        edit(database, project_id, put("agents", "Ann", sip_logins=["bob"]))
    with pytest.raises(SecretInDraftError):
        edit(database, project_id, lambda draft: draft.put_secret("presence", "auth_key", "new"))
    with database.reading() as session:
        assert summary_of(session, project_id) is None


def test_what_is_published_meanwhile_is_merged(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    with change(database, project_id, "live") as draft:
        put("agents", "Ann", daily_cap=5)(draft)
        draft.put("agents", {"name": "Dee", "sip_logins": ["dee"]})
    document, conflicts = kept(database, project_id)
    ann = row_of(document, "agents", "Ann")
    assert (ann["wrap_up_seconds"], ann["daily_cap"], conflicts) == (7, 5, [])
    assert row_of(document, "agents", "Dee")
    publish(database, project_id)
    ann = row_of(live(database, project_id), "agents", "Ann")
    assert (ann["wrap_up_seconds"], ann["daily_cap"]) == (7, 5)


@pytest.mark.parametrize(("takes_live", "wanted"), [(False, 7), (True, 9)])
def test_a_conflict_stays_until_it_is_settled(
    database: Database, project_id: int, takes_live: bool, wanted: int
) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    with change(database, project_id, "live") as draft:
        put("agents", "Ann", wrap_up_seconds=9)(draft)
    edit(database, project_id, put("agents", "Bob", wrap_up_seconds=1))  # another change does not settle it
    document, conflicts = kept(database, project_id)
    assert conflicts == [Conflict("agents", id_of(document, "agents", "Ann"), "wrap_up_seconds")]
    with pytest.raises(CannotPublishError, match="conflicts"):
        publish(database, project_id)
    edit(database, project_id, lambda draft: draft.settle(conflicts[0], takes_live=takes_live))
    publish(database, project_id)
    assert row_of(live(database, project_id), "agents", "Ann")["wrap_up_seconds"] == wanted


def test_a_conflict_ends_when_both_say_the_same(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    with change(database, project_id, "live") as draft:
        put("agents", "Ann", wrap_up_seconds=9)(draft)
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=9))
    assert kept(database, project_id)[1] == []


@pytest.mark.parametrize("takes_live", [False, True])
def test_a_row_that_was_deleted_meanwhile_comes_back_only_if_somebody_says_so(
    database: Database, project_id: int, takes_live: bool
) -> None:
    before = id_of(live(database, project_id), "rules", "vip")
    edit(database, project_id, put("rules", "vip", name="gold"))
    with change(database, project_id, "live") as draft:
        draft.forget("tests", id_of(draft.document, "tests", "vip first"))
        draft.remove("rules", before)
    (conflict,) = kept(database, project_id)[1]
    assert conflict == Conflict("rules", before, "")
    edit(database, project_id, lambda draft: draft.settle(conflict, takes_live=takes_live))
    if not takes_live:
        publish(database, project_id)
    found = [row["name"] for row in live(database, project_id)["rules"]]
    assert found == (["all"] if takes_live else ["gold", "all"])


def test_failing_tests_hold_up_publishing_and_not_the_draft(database: Database, project_id: int) -> None:
    edit(database, project_id, lambda draft: draft.order("rules", [row["id"] for row in draft.document["rules"]][::-1]))
    with pytest.raises(CannotPublishError, match="tests") as refused:
        publish(database, project_id)
    assert isinstance(refused.value.cause, FailingTestsError)
    publish(database, project_id, accepts_failing=True)
    assert [row["name"] for row in live(database, project_id)["rules"]] == ["all", "vip"]


def test_where_credentials_are_sent_is_published_by_an_owner_only(database: Database, project_id: int) -> None:
    edit(database, project_id, lambda draft: draft.put_project({"presence": {"api_url": "https://evil.example"}}))
    with pytest.raises(CannotPublishError, match="owner"):
        publish(database, project_id, is_owner=False)
    publish(database, project_id, is_owner=True)


def test_what_merging_made_impossible_is_told_before_it_is_published(database: Database, project_id: int) -> None:
    edit(database, project_id, lambda draft: draft.put("agents", {"name": "Cid", "sip_logins": ["cid"]}))
    with change(database, project_id, "live") as draft:
        draft.put("agents", {"name": "Cecil", "sip_logins": ["cid"]})
    with database.reading() as session:
        faults = faults_of(KeptDraft(session, session.get_one(models.Project, project_id), ""))
    assert [fault.kind for fault in faults] == ["taken"]
    with pytest.raises(CannotPublishError, match="invalid"):
        publish(database, project_id)


def test_who_changed_what_is_known_and_the_audit_trail_tells_it_from_what_applies(
    database: Database, project_id: int
) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7), "emil")
    edit(database, project_id, put("agents", "Ann", daily_cap=7), "olena")
    edit(database, project_id, put("rules", "all", name="everyone"), "olena")
    with database.reading() as session:
        row = session.scalars(select(models.Draft)).one()
        authors = {subject: sorted(names) for (subject, _id), names in authors_of(session, row).items()}
        assert authors == {"agent": ["emil", "olena"], "rule": ["olena"]}
        assert (row.changes, row.changed_by) == (2, "olena")
        entries = session.scalars(select(models.AuditEntry).where(models.AuditEntry.draft_id == row.id)).all()
        assert [entry.version for entry in entries] == [None] * 3


def test_a_change_in_it_is_undone_unless_it_was_changed_again(database: Database, project_id: int) -> None:
    saved: list[tuple[int, int]] = []

    def note(draft: KeptDraft) -> None:
        put("agents", "Ann", wrap_up_seconds=7)(draft)
        draft.put("groups", {"name": "new"})
        draft.save()
        assert draft.saved is not None
        saved.append(draft.saved)

    edit(database, project_id, note)
    edit(database, project_id, put("agents", "Bob", wrap_up_seconds=1))
    edit(database, project_id, lambda draft: draft.undo(*saved[0]))
    document, _conflicts = kept(database, project_id)
    assert row_of(document, "agents", "Ann")["wrap_up_seconds"] == 0
    assert row_of(document, "agents", "Bob")["wrap_up_seconds"] == 1
    assert [row["name"] for row in document["groups"]] == ["sales", "support"]
    with pytest.raises(CannotUndoError):
        edit(database, project_id, lambda draft: draft.undo(*saved[0]))


def test_one_change_is_taken_back_and_an_empty_draft_ends(database: Database, project_id: int) -> None:
    before = live(database, project_id)
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, lambda draft: draft.order("rules", [row["id"] for row in draft.document["rules"]][::-1]))
    edit(database, project_id, lambda draft: draft.put("groups", {"name": "new"}))
    edit(database, project_id, lambda draft: draft.forget("groups", id_of(draft.document, "groups", "support")))
    document, _conflicts = kept(database, project_id)
    edit(database, project_id, lambda draft: draft.take_back("agents", id_of(document, "agents", "Ann")))
    edit(database, project_id, lambda draft: draft.take_back("rules", 0))
    edit(database, project_id, lambda draft: draft.take_back("groups", id_of(document, "groups", "new")))
    edit(database, project_id, lambda draft: draft.take_back("groups", id_of(before, "groups", "support")))
    with database.reading() as session:
        assert summary_of(session, project_id) is None


def test_discarding_leaves_what_is_published(database: Database, project_id: int) -> None:
    before = live(database, project_id)
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, KeptDraft.discard)
    assert kept(database, project_id) == (before, [])
    with pytest.raises(CannotPublishError, match="nothing"):
        publish(database, project_id)


# ---- at a chosen time


def test_it_is_published_when_its_time_has_come_and_not_before(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, lambda draft: draft.plan(NOON, "at noon"))
    version = version_of(database, project_id)
    assert publish_due(database, NOON - timedelta(seconds=1)) == 0
    assert publish_due(database, NOON) == 1
    assert publish_due(database, NOON) == 0
    with database.reading() as session:
        stored = session.get_one(models.ConfigVersion, (project_id, version + 1))
        assert (stored.actor, stored.comment) == ("emil", "at noon")


def test_what_was_called_off_is_not_published(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, lambda draft: draft.plan(NOON))
    edit(database, project_id, lambda draft: draft.plan(None))
    assert publish_due(database, NOON) == 0


def test_what_could_not_be_published_as_planned_says_why(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, lambda draft: draft.plan(NOON))
    with change(database, project_id, "live") as draft:
        put("agents", "Ann", wrap_up_seconds=9)(draft)
    assert publish_due(database, NOON) == 0
    with database.reading() as session:
        found = summary_of(session, project_id)
        assert found is not None
        assert (found.trouble, found.publish_at) == ("conflicts", None)
        actions = session.scalars(select(models.AuditEntry.action).where(models.AuditEntry.subject == "draft")).all()
        assert [*actions] == ["planned", "not_published"]


def test_a_deleted_project_publishes_nothing(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, lambda draft: draft.plan(NOON))
    with database.writing() as session:
        session.execute(update(models.Project).values(deleted_at=NOON))
    assert publish_due(database, NOON) == 0


def test_asking_whether_it_could_be_published_publishes_nothing(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    before = live(database, project_id)
    check_publishable(database, project_id, "emil", is_owner=False, accepts_failing=False)
    assert live(database, project_id) == before
    with database.reading() as session:
        assert summary_of(session, project_id) is not None


def test_a_callers_number_in_the_draft_is_told_to_who_erases_it(database: Database, project_id: int) -> None:
    edit(database, project_id, lambda draft: draft.put("rules", {"name": "new", "when": {"caller": ["+380509998877"]}}))
    found = erase_caller(database, project_id, "0509998877", "test")
    assert (found.rules, found.tests) == (["new"], [])


# ---- rows that go and come back


def names(document: Document, kind: str) -> list[str]:
    return [row["name"] for row in document[kind]]


def add(kind: str, name: str, /, **values: Any) -> Callable[[Draft], object]:
    return lambda draft: draft.put(kind, {"name": name, **values})


def forget(kind: str, name: str) -> Callable[[Draft], object]:
    return lambda draft: draft.forget(kind, id_of(draft.document, kind, name))


def take_back(kind: str, row_id: int) -> Callable[[KeptDraft], object]:
    return lambda draft: draft.take_back(kind, row_id)


def reorder(*wanted: str) -> Callable[[Draft], object]:
    return lambda draft: draft.order("rules", [id_of(draft.document, "rules", name) for name in wanted])


def test_the_id_of_a_row_that_is_gone_is_not_given_to_another(database: Database, project_id: int) -> None:
    seen = set()
    for name in ("Cid", "Dan", "Eve"):
        edit(database, project_id, add("agents", name))
        row_id = id_of(kept(database, project_id)[0], "agents", name)
        seen.add(row_id)
        edit(database, project_id, forget("agents", name))
    assert len(seen) == 3


def test_an_agent_who_has_the_id_of_one_that_was_deleted_is_somebody_else(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Bob", wrap_up_seconds=55))
    with change(database, project_id, "live") as draft:
        draft.forget("agents", id_of(draft.document, "agents", "Bob"))
    with change(database, project_id, "live") as draft:  # on SQLite with the id of Bob
        draft.put("agents", {"name": "Zed", "sip_logins": ["zed"]})
    document, conflicts = kept(database, project_id)
    assert [row["wrap_up_seconds"] for row in document["agents"] if row["name"] == "Zed"] == [0]
    assert [(one.kind, one.key) for one in conflicts] == [("agents", "")]
    edit(database, project_id, lambda draft: draft.settle(draft.conflicts[0], takes_live=False))
    publish(database, project_id)
    found = {row["name"]: row["wrap_up_seconds"] for row in live(database, project_id)["agents"]}
    assert found == {"Ann": 0, "Bob": 55, "Zed": 0}


def test_a_deleted_rule_that_comes_back_has_its_place_again(database: Database, project_id: int) -> None:
    before = live(database, project_id)
    vip = id_of(before, "rules", "vip")

    def delete(draft: KeptDraft) -> None:
        draft.remove("tests", id_of(draft.document, "tests", "vip first"))
        draft.remove("rules", vip)

    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    edit(database, project_id, delete)
    edit(database, project_id, take_back("rules", vip))
    assert names(kept(database, project_id)[0], "rules") == ["vip", "all"]
    saved: list[tuple[int, int] | None] = []

    def delete_again(draft: KeptDraft) -> None:
        draft.remove("rules", vip)
        draft.save()
        saved.append(draft.saved)

    edit(database, project_id, delete_again)
    edit(database, project_id, lambda draft: draft.undo(*(saved[0] or (0, 0))))
    assert names(kept(database, project_id)[0], "rules") == ["vip", "all"]


def test_taking_the_order_back_keeps_new_rules_below_their_neighbours(database: Database, project_id: int) -> None:
    edit(database, project_id, add("rules", "top"))
    edit(database, project_id, add("rules", "middle"))
    edit(database, project_id, reorder("top", "all", "middle", "vip"))
    edit(database, project_id, take_back("rules", 0))
    found = names(kept(database, project_id)[0], "rules")
    assert found[0] == "top"
    assert found.index("middle") == found.index("all") + 1
    assert found.index("vip") < found.index("all")


def test_a_schedule_is_not_taken_out_of_a_rule_that_would_then_take_all_calls(
    database: Database, project_id: int
) -> None:
    edit(database, project_id, add("schedules", "hours", time_zone="UTC", open={"mon": ["09:00-18:00"]}))
    hours = id_of(kept(database, project_id)[0], "schedules", "hours")
    edit(database, project_id, put("rules", "vip", when={"schedule": hours}))
    with pytest.raises(ConfigurationError, match=r"'hours' is still used by rule 'vip'"):
        edit(database, project_id, take_back("schedules", hours))
    assert row_of(kept(database, project_id)[0], "rules", "vip")["when"] == {"schedule": hours}


def test_the_order_of_groups_alone_is_a_change(database: Database, project_id: int) -> None:
    edit(
        database, project_id, lambda draft: draft.order("groups", [row["id"] for row in draft.document["groups"]][::-1])
    )
    with database.reading() as session:
        found = summary_of(session, project_id)
        assert found is not None
        assert found.changes == 1
    publish(database, project_id)
    assert names(live(database, project_id), "groups") == ["support", "sales"]


def test_a_draft_of_what_was_published_meanwhile_ends_without_a_version(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    with change(database, project_id, "live") as draft:
        put("agents", "Ann", wrap_up_seconds=7)(draft)
    version = version_of(database, project_id)
    assert publish(database, project_id) == version
    with database.reading() as session:
        assert summary_of(session, project_id) is None


def test_an_old_undo_does_nothing_to_a_later_draft(database: Database, project_id: int) -> None:
    saved: list[tuple[int, int] | None] = []

    def add_cid(draft: KeptDraft) -> None:
        draft.put("agents", {"name": "Cid"})
        draft.save()
        saved.append(draft.saved)

    edit(database, project_id, add_cid)
    edit(database, project_id, KeptDraft.discard)
    with pytest.raises(CannotUndoError):
        edit(database, project_id, lambda draft: draft.undo(*(saved[0] or (0, 0))))
    edit(database, project_id, add("agents", "Cid"))
    with pytest.raises(CannotUndoError):
        edit(database, project_id, lambda draft: draft.undo(*(saved[0] or (0, 0))))


# ---- what was planned, and who may


def plan(database: Database, project_id: int, actor: str, *, accepts_failing: bool = False) -> None:
    edit(database, project_id, lambda draft: draft.plan(NOON, accepts_failing=accepts_failing), actor)


def trouble(database: Database, project_id: int) -> str:
    with database.reading() as session:
        found = summary_of(session, project_id)
        return "published" if found is None else found.trouble


def people(database: Database, **roles: str) -> None:
    with database.writing() as session:
        for name, role in roles.items():
            values = {"name": name, "role": role, "created_at": NOON, "password_hash": ""}
            session.add(models.User(email=f"{name}@example.org", **values))


def test_only_those_tests_may_fail_that_an_owner_accepted(database: Database, project_id: int) -> None:
    people(database, olena="owner", emil="editor")
    edit(database, project_id, reorder("all", "vip"))
    plan(database, project_id, "olena@example.org", accepts_failing=True)
    call = {"caller": "1", "dialed": "", "direction": "", "params": {}, "at": NOON.isoformat()}
    with change(database, project_id, "live") as draft:
        expect = {"rule": id_of(draft.document, "rules", "all"), "groups": [], "agent": None, "overflow": None}
        draft.put("tests", {"name": "others", "call": call, "expect": expect})
    edit(database, project_id, put("rules", "all", enabled=False), "emil@example.org")
    assert (publish_due(database, NOON), trouble(database, project_id)) == (0, "tests")
    edit(database, project_id, put("rules", "all", enabled=True), "emil@example.org")
    plan(database, project_id, "olena@example.org", accepts_failing=True)
    assert (publish_due(database, NOON), trouble(database, project_id)) == (1, "published")


@pytest.mark.parametrize(("role", "wanted"), [("owner", "published"), ("editor", "owner"), ("viewer", "planner")])
def test_a_plan_may_do_what_its_planner_may_when_it_is_published(
    database: Database, project_id: int, role: str, wanted: str
) -> None:
    people(database, emil="editor")
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    plan(database, project_id, "emil@example.org")
    edit(database, project_id, lambda draft: draft.put_project({"presence": {"api_url": "https://evil.example"}}))
    with database.writing() as session:
        session.execute(update(models.User).values(role=role))
    publish_due(database, NOON)
    assert trouble(database, project_id) == wanted


def test_a_draft_is_not_published_hours_after_its_time(database: Database, project_id: int) -> None:
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=7))
    plan(database, project_id, "cli")
    publish_due(database, NOON + LATE + timedelta(seconds=1))
    assert trouble(database, project_id) == "late"
    edit(database, project_id, put("agents", "Ann", wrap_up_seconds=8))
    assert trouble(database, project_id) == ""
