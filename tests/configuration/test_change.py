"""The writer: what a draft says is what the rows, the document and the calls say afterwards, or nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, update

from router.configuration import apply, load
from router.configuration.change import ConfigurationError, Draft, NoSuchRowError, change
from router.configuration.rows import read_rows
from router.configuration.undo import undo_version
from router.db import models
from router.db.documents import Document, build_project, load_document, upgrade
from router.db.session import Database

FILE = """
projects:
  - name: acme
    overflow: "100"
    schedules: [{name: hours, open: {daily: ["08:00-18:00"]}}]
    agents: [{name: Ann, sip_logins: [ann, ann2], deputy: Bob}, {name: Bob, sip_logins: [bob], hours: hours}]
    groups: [{name: sales, members: [{agent: Ann, hours: hours}, {agent: Bob}]}, {name: support}]
    rules: [{name: vip, when: {free: {group: support, fewer_than: 2}}, groups: [sales]}, {name: all, groups: [sales]}]
"""


@pytest.fixture
def project_id(database: Database) -> int:
    apply(database, load(FILE, {}))
    with database.reading() as session:
        return session.scalars(select(models.Project.id)).one()


def published(database: Database, project_id: int) -> Document:
    """The newest document. The rows must say the same."""
    with database.reading() as session:
        project = session.get_one(models.Project, project_id)
        document = load_document(session, project_id, project.version)
        assert document == read_rows(session, project)
        return document


def id_of(draft: Draft, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in draft.document[kind] if row["name"] == name)


def names(document: Document, kind: str) -> list[str]:
    return [row["name"] for row in document[kind]]


def test_new_rows_may_refer_to_each_other(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        hours = draft.put("schedules", {"name": "nights", "time_zone": "UTC"})
        cid = draft.put("agents", {"name": "Cid", "sip_logins": ["cid"], "hours": hours})
        dee = draft.put("agents", {"name": "Dee", "deputy": cid})
        draft.put("agents", {"deputy": dee}, cid)
        member = {"agent": cid, "tier": 1, "weight": 1, "hours": hours}
        group = draft.put("groups", {"name": "nights", "members": [member]})
        draft.put("rules", {"name": "nights", "when": {"schedule": hours}, "groups": [group]})
        ids = draft.save()
    document = published(database, project_id)
    cid_row = next(row for row in document["agents"] if row["name"] == "Cid")
    assert (cid_row["id"], cid_row["hours"]) == (ids["agents", cid], ids["schedules", hours])
    assert document["groups"][-1]["members"][0]["agent"] == cid_row["id"]
    assert document["rules"][-1]["when"] == {"schedule": ids["schedules", hours]}


def test_names_and_logins_may_be_swapped(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        ann, bob = id_of(draft, "agents", "Ann"), id_of(draft, "agents", "Bob")
        draft.put("agents", {"name": "Bob", "sip_logins": ["bob", "ann2"]}, ann)
        draft.put("agents", {"name": "Ann", "sip_logins": ["ann"]}, bob)
    rows = {row["id"]: (row["name"], row["sip_logins"]) for row in published(database, project_id)["agents"]}
    assert rows == {ann: ("Bob", ["bob", "ann2"]), bob: ("Ann", ["ann"])}


def test_the_order_of_rules_counts_up_no_revision(database: Database, project_id: int) -> None:
    with database.reading() as session:
        before = session.scalars(select(models.Rule.revision)).all()
    with change(database, project_id, "test") as draft:
        draft.order("rules", [row["id"] for row in reversed(draft.document["rules"])])
    assert names(published(database, project_id), "rules") == ["all", "vip"]
    with database.reading() as session:
        assert session.scalars(select(models.Rule.revision)).all() == before


@pytest.mark.parametrize(
    ("kind", "name", "values", "said"),
    [
        ("agents", "Ann", {"name": "Bob"}, "'Bob' is the name of agents[1] already; rename one"),
        ("agents", "Bob", {"sip_logins": ["ann"]}, "'ann' belongs to 'Ann' already; a login has one owner"),
        ("agents", "Bob", {"sip_logins": ["x y"]}, "'x y' is not a valid SIP login"),
        ("agents", "Bob", {"deputy": 99}, "there is no agent '#99'"),
        ("agents", "Bob", {"wrap_up_seconds": -1}, "write a number of seconds from 0 to 86400"),
        ("groups", "sales", {"strategy": "fastest"}, "there is no strategy 'fastest'"),
        ("rules", "all", {"when": {"caller": ["*"]}}, "matches every number"),
        ("rules", "all", {"groups": [99]}, "there is no group '#99'"),
        ("schedules", "hours", {"open": {"daily": ["25:00-26:00"]}}, "no time of day"),
    ],
)
def test_what_the_file_would_refuse_is_refused_and_nothing_is_changed(
    database: Database, project_id: int, kind: str, name: str, values: dict[str, Any], said: str
) -> None:
    before = published(database, project_id)
    with pytest.raises(ConfigurationError) as caught, change(database, project_id, "test") as draft:  # noqa: PT012
        draft.put("agents", {"name": "Cid"})
        draft.put(kind, values, id_of(draft, kind, name))
    assert said in str(caught.value)
    assert {fault.path[0] for fault in caught.value.faults} == {kind}
    assert published(database, project_id) == before


@pytest.mark.parametrize(
    ("kind", "name", "user"), [("groups", "support", "vip"), ("schedules", "hours", "sales"), ("agents", "Bob", "Ann")]
)
def test_what_is_still_used_cannot_be_removed(
    database: Database, project_id: int, kind: str, name: str, user: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' is still used by") as caught:  # noqa: SIM117
        with change(database, project_id, "test") as draft:
            draft.remove(kind, id_of(draft, kind, name))
    assert f"{user!r}; take it out there first" in str(caught.value)


def test_a_refused_draft_can_be_shown_and_is_not_saved_by_its_end(database: Database, project_id: int) -> None:
    before = published(database, project_id)
    with change(database, project_id, "test") as draft:
        draft.put("agents", {"name": ""}, id_of(draft, "agents", "Ann"))
        draft.put_secret("presence", "auth_key", "new key")
        with pytest.raises(ConfigurationError):
            draft.save()
    assert published(database, project_id) == before
    with pytest.raises(NoSuchRowError), change(database, project_id, "test") as draft:
        draft.remove("agents", 99)


def test_values_are_stored_in_the_notation_of_the_file(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        draft.put("rules", {"when": {"caller": ["050 123 45 67"], "direction": ["IN"]}, "overflow": "0441112233"},
                  id_of(draft, "rules", "all"))  # fmt: skip
        draft.put("schedules", {"open": {"sat,sun,mon-fri": ["8:00-18:00"]}}, id_of(draft, "schedules", "hours"))
        draft.put_project({"hook": {"allow_addresses": ["10.0.0.5/8"]}})
    document = published(database, project_id)
    rule = document["rules"][1]
    assert (rule["when"], rule["overflow"]) == ({"caller": ["380501234567"], "direction": ["in"]}, "380441112233")
    assert document["schedules"][0]["open"] == {"daily": ["08:00-18:00"]}
    assert document["project"]["hook"]["allow_addresses"] == ["10.0.0.0/8"]


FIRST_FORM = {
    "schedules": [{"override": "", "override_until": None}],
    "agents": [{"external_id": "7"}],
    "groups": [{"members": [{"agent": 1, "tier": 1, "position": 3, "weight": 1, "hours": None}]}],
    "rules": [
        {"when": {"caller": ["38050*"]}, "inside": 1, "outside": None, "free_group": 1, "free_fewer_than": 2,
         "prefer": "param", "prefer_param": "manager", "prefer_days": 30},
    ],
}  # fmt: skip
PRESENT_FORM = {
    "schedules": [{"override": None, "override_until": None}],
    "agents": [{"staff_id": "7"}],
    "groups": [{"members": [{"agent": 1, "tier": 1, "weight": 1, "hours": None}]}],
    "rules": [
        {"when": {"caller": ["38050*"], "schedule": 1, "free": {"group": 1, "fewer_than": 2}},
         "prefer": {"param": "manager"}, "prefer_days": 30},
    ],
}  # fmt: skip


def test_a_document_of_an_earlier_release_is_read_in_the_present_form() -> None:
    written = {**FIRST_FORM, "project": {"name": "acme", "presence": {"source": "ringostat"}}}
    project = {"name": "acme", "presence": {"away_seconds": 30, "call_log_days": 0, "source": "ringostat"}}
    assert upgrade(written) == {"schema": 2, "project": project, **PRESENT_FORM, "tests": []}
    assert upgrade(upgrade(written)) == upgrade(written)


def test_a_document_says_which_form_it_has(database: Database, project_id: int) -> None:
    document = published(database, project_id)
    assert document["schema"] == 2
    assert build_project(upgrade(document), project_id, 1) == build_project(document, project_id, 1)


def test_a_row_that_goes_is_taken_out_of_all_that_names_it(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        draft.forget("agents", id_of(draft, "agents", "Bob"))
        draft.forget("schedules", id_of(draft, "schedules", "hours"))
        draft.forget("groups", id_of(draft, "groups", "support"))
    document = published(database, project_id)
    (ann,) = document["agents"]
    assert (ann["deputy"], names(document, "groups"), document["schedules"]) == (None, ["sales"], [])
    assert document["groups"][0]["members"] == [{"agent": ann["id"], "tier": 1, "weight": 1, "hours": None}]
    assert document["rules"][0]["when"] == {}


def test_an_agent_whom_a_rule_for_all_calls_excludes_can_go(database: Database, project_id: int) -> None:
    with change(database, project_id, "test") as draft:
        draft.put("rules", {"never": [id_of(draft, "agents", "Bob")]}, id_of(draft, "rules", "all"))
    with change(database, project_id, "test") as draft:
        draft.forget("agents", id_of(draft, "agents", "Bob"))
    assert [row["never"] for row in published(database, project_id)["rules"]] == [[], []]


def test_what_is_gone_from_the_rows_is_named_by_no_list(database: Database, project_id: int) -> None:
    """As a release before deletes an agent: it knows nothing of the list."""
    with change(database, project_id, "test") as draft:
        bob = id_of(draft, "agents", "Bob")
        draft.put("rules", {"never": [bob]}, id_of(draft, "rules", "all"))
    with database.writing() as session:
        session.execute(update(models.Agent).values(deputy_id=None))
        session.execute(delete(models.Member).where(models.Member.agent_id == bob))
        session.execute(delete(models.Agent).where(models.Agent.id == bob))
    with change(database, project_id, "test"):
        pass
    document = published(database, project_id)
    assert (names(document, "agents"), document["rules"][1]["never"]) == (["Ann"], [])


def test_a_key_that_a_version_did_not_have_is_no_change(database: Database, project_id: int) -> None:
    with database.writing() as session:
        project = session.get_one(models.Project, project_id)
        version = session.get_one(models.ConfigVersion, (project_id, project.version))
        agents = [{k: v for k, v in row.items() if k != "max_talk_per_day"} for row in version.document["agents"]]
        rules = [{k: v for k, v in row.items() if k != "never"} for row in version.document["rules"]]
        version.document = {**version.document, "agents": agents, "rules": rules}
        first = project.version
    with change(database, project_id, "test"):
        pass
    with change(database, project_id, "test") as draft:
        draft.put("agents", {"max_talk_per_day": 60}, id_of(draft, "agents", "Ann"))
    with database.reading() as session:
        entries = select(models.AuditEntry.subject_name).where(models.AuditEntry.version > first)
        assert session.scalars(entries).all() == ["Ann"]
    with change(database, project_id, "test") as draft:
        undo_version(draft, first + 1)
    assert [row["max_talk_per_day"] for row in published(database, project_id)["agents"]] == [None, None]


def test_a_leaked_address_can_be_replaced_whatever_else_is_wrong(database: Database, project_id: int) -> None:
    with database.writing() as session:
        project = session.get_one(models.Project, project_id)
        project.presence_online_from, project.presence_project_id = "either", "1"  # and no token
    with change(database, project_id, "test") as draft:
        draft.count_secret()
    assert published(database, project_id)["project"]["secrets"] == 1
