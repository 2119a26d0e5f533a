"""Undo: offered after every change of the configuration, and what it takes back is as if it had never been."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from router.configuration import apply, load
from router.configuration.change import change
from router.configuration.undo import CannotUndoError, undo_version
from router.db import models
from router.db.documents import Document, load_document
from router.db.session import Database
from router.db.types import use_encryption_keys
from tests.admin.conftest import Admin, Browser
from tests.admin.test_forms_keep import posted
from tests.configuration.test_exporting import escaped, projects
from tests.rows import changing

FILE = """\
projects:
  - name: acme
    overflow: "100"
    schedules: [{name: hours, open: {daily: ["08:00-18:00"]}}, {name: unused}]
    agents: [{name: Ann, sip_logins: [ann, ann2], deputy: Bob}, {name: Bob, sip_logins: [bob]}, {name: Cid}]
    groups:
      - {name: first, members: [{agent: Ann}]}
      - {name: middle, overflow: "7", members: [{agent: Bob, tier: 2, weight: 3, hours: hours}, {agent: Ann}]}
      - {name: last, members: [{agent: Ann}]}
    rules:
      - {name: VIP, when: {free: {group: first, fewer_than: 2}, caller: ["050*"]}, groups: [last, first]}
      - {name: all, groups: [first]}
      - {name: rest}
"""


def documents(database: Database) -> tuple[int, int, Document]:
    """Of acme: its id, the version, the document."""
    with database.reading() as session:
        project = session.scalars(select(models.Project).where(models.Project.name == "acme")).one()
        found = load_document(session, project.id, project.version)
    assert found is not None
    return project.id, project.version, found


@pytest.fixture
def configured(admin: Admin) -> Admin:
    apply(admin.database, load(FILE, {}))
    return admin


def id_of(admin: Admin, kind: str, name: str) -> int:
    return next(int(row["id"]) for row in documents(admin.database)[2][kind] if row["name"] == name)


def undo(browser: Browser, page: str) -> str:
    """Press the button of the page's message; the page after."""
    form = next(form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if "/undo" in form)
    action = re.search(r'action="([^"]*/undo)"', form)
    fields = dict(re.findall(r'name="(version|next)" value="([^"]*)"', form))
    assert action is not None
    return browser.post(unescape(action[1]), **{k: unescape(v) for k, v in fields.items()}, follow=True).text


@pytest.mark.parametrize(
    ("page", "kind", "name", "fields"),
    [
        ("agents", "agents", "Ann", {"name": "Anna", "sip_logins": "ann2\r\nnew", "wrap_up_seconds": "7"}),
        ("groups", "groups", "middle", {"name": "centre", "strategy": "random", "overflow_kind": "empty"}),
        ("rules", "rules", "VIP", {"name": "vip", "enabled": [], "conditions-0-value": "+38067*"}),
        ("schedules", "schedules", "hours", {"name": "days", "mon": "10:00-11:00"}),
    ],
)
def test_an_edit_can_be_taken_back(
    configured: Admin, emil: Browser, page: str, kind: str, name: str, fields: dict[str, Any]
) -> None:
    before = documents(configured.database)[2]
    url = f"/p/acme/{page}/{id_of(configured, kind, name)}"
    after = emil.post(url, **posted(emil.get(url).text) | fields, follow=True).text
    assert "Saved." in after
    assert documents(configured.database)[2] != before
    assert "Undone." in undo(emil, after)
    assert documents(configured.database)[2] == before


def test_settings_can_be_taken_back_the_name_too(configured: Admin, olena: Browser) -> None:
    before = documents(configured.database)[2]
    fields = posted(olena.get("/p/acme/settings").text) | {"name": "acme two", "country": "DE"}
    after = olena.post("/p/acme/settings", **fields, follow=True).text
    assert "Undone." in undo(olena, after)
    assert documents(configured.database)[2] == before


@pytest.mark.parametrize("fields", [{}, {"presence_auth_key": "another"}, {"hook_basic_auth": "u:p"}])
def test_nothing_is_offered_where_nothing_was_changed_or_a_credential_was(
    configured: Admin, olena: Browser, fields: dict[str, str]
) -> None:
    for page in ("/p/acme/settings/presence", "/p/acme/settings/hook"):
        after = olena.post(page, **posted(olena.get(page).text) | fields, follow=True).text
        assert "Saved." in after
        assert "/undo" not in after


def test_what_is_added_turned_off_and_taken_back_can_be_taken_back(configured: Admin, emil: Browser) -> None:
    before = documents(configured.database)[2]
    added = emil.post("/p/acme/agents/new", name="Zoe", sip_logins="zoe", wrap_up_seconds="0", follow=True).text
    after = documents(configured.database)[2]
    taken_back = undo(emil, added)
    assert documents(configured.database)[2] == before
    undo(emil, taken_back)
    assert documents(configured.database)[2] == after
    off = emil.post(f"/p/acme/rules/{id_of(configured, 'rules', 'all')}/switch", follow=True).text
    undo(emil, off)
    assert documents(configured.database)[2] == after


@pytest.mark.parametrize(
    ("page", "kind", "name"),
    [
        ("groups", "groups", "middle"),
        ("agents", "agents", "Ann"),
        ("agents", "agents", "Bob"),
        ("rules", "rules", "VIP"),
        ("rules", "rules", "all"),
        ("schedules", "schedules", "unused"),
    ],
)
def test_what_was_deleted_comes_back_to_its_place(
    configured: Admin, emil: Browser, page: str, kind: str, name: str
) -> None:
    before = documents(configured.database)[2]
    after = emil.post(f"/p/acme/{page}/{id_of(configured, kind, name)}/delete", follow=True).text
    assert documents(configured.database)[2] != before
    undo(emil, after)
    assert documents(configured.database)[2] == before


def test_what_comes_back_leaves_others_where_they_were_moved_since(configured: Admin, emil: Browser) -> None:
    rules = {row["name"]: row["id"] for row in documents(configured.database)[2]["rules"]}
    after = emil.post(f"/p/acme/rules/{rules['all']}/delete", follow=True).text
    emil.post("/p/acme/rules/order", order=[str(rules["rest"]), str(rules["VIP"])])
    undo(emil, after)
    assert [row["name"] for row in documents(configured.database)[2]["rules"]] == ["rest", "VIP", "all"]


def test_an_edit_taken_back_leaves_an_order_alone_that_was_changed_since(configured: Admin, emil: Browser) -> None:
    rules = {row["name"]: row["id"] for row in documents(configured.database)[2]["rules"]}
    url = f"/p/acme/rules/{rules['rest']}"
    after = emil.post(url, **posted(emil.get(url).text) | {"name": "others"}, follow=True).text
    emil.post("/p/acme/rules/order", order=[str(rules[name]) for name in ("rest", "all", "VIP")])
    undo(emil, after)
    assert [row["name"] for row in documents(configured.database)[2]["rules"]] == ["rest", "all", "VIP"]


def test_a_pause_of_either_kind_ends_in_one_transaction(
    configured: Admin, emil: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = id_of(configured, "agents", "Ann")
    with changing(configured.database, documents(configured.database)[0], "test") as session:
        session.get_one(models.Agent, agent_id).paused = True
    emil.post("/p/acme/board/deed", do=f"pause:{agent_id}:30")
    before = documents(configured.database)[1]

    def failing(*_: Any) -> int:
        raise RuntimeError("no room left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr("router.configuration.change.publish", failing)
        with pytest.raises(RuntimeError, match="no room"):
            emil.post("/p/acme/board/deed", do=f"resume:{agent_id}")
    assert configured.one(models.AgentState, agent_id=agent_id).paused_until is not None
    assert documents(configured.database)[1] == before
    emil.post("/p/acme/board/deed", do=f"resume:{agent_id}")
    assert configured.one(models.AgentState, agent_id=agent_id).paused_until is None
    assert not configured.one(models.Agent, id=agent_id).paused
    assert documents(configured.database)[1] == before + 1


# ---- the law, for whatever two versions there are


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    use_encryption_keys([Fernet.generate_key()])
    path: Path = tmp_path_factory.mktemp("undo") / "router.db"
    database = Database(f"sqlite+pysqlite:///{path}")
    models.Base.metadata.create_all(database.engine)
    yield database
    database.dispose()


def plain_file(words: dict[str, Any]) -> str:
    """Without credentials: those cannot be taken back."""
    hook = {key: value for key, value in words.get("hook", {}).items() if key != "basic_auth"}
    presence = {key: value for key, value in words.get("presence", {}).items() if key != "token"}
    return yaml.safe_dump(escaped({"projects": [words | {"hook": hook, "presence": presence}]}), allow_unicode=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(first=projects(), second=projects())
def test_whatever_a_version_changed_is_taken_back_exactly(
    sqlite: Database, first: dict[str, Any], second: dict[str, Any]
) -> None:
    apply(sqlite, load(plain_file(first), {}))
    project_id, version, before = documents(sqlite)
    if not apply(sqlite, load(plain_file(second), {})):
        return
    with change(sqlite, project_id, "test") as draft:
        undo_version(draft, version + 1)
    assert documents(sqlite)[2] == before


def test_what_was_changed_since_is_nobodys_to_take_back(sqlite: Database) -> None:
    apply(sqlite, load(FILE, {}))
    apply(sqlite, load(FILE.replace('"100"', '"101"'), {}))
    project_id, version, _before = documents(sqlite)
    apply(sqlite, load(FILE.replace('"100"', '"102"'), {}))
    with pytest.raises(CannotUndoError), change(sqlite, project_id, "test") as draft:
        undo_version(draft, version)


def test_what_was_deleted_comes_back_beside_what_was_deleted_since(configured: Admin, emil: Browser) -> None:
    def delete(name: str) -> str:
        return emil.post(f"/p/acme/rules/{id_of(configured, 'rules', name)}/delete", follow=True).text

    first = delete("all")
    delete("VIP")
    assert "Undone." in undo(emil, first)
    assert [row["name"] for row in documents(configured.database)[2]["rules"]] == ["all", "rest"]


def test_what_is_used_since_is_not_undone_and_the_message_says_by_what(configured: Admin, emil: Browser) -> None:
    fields = posted(emil.get("/p/acme/rules/new").text) | {"name": "Extra"}
    added = emil.post("/p/acme/rules/new", **fields, follow=True).text
    rule = id_of(configured, "rules", "Extra")
    with change(configured.database, documents(configured.database)[0], "test") as draft:
        asked = {"caller": "", "dialed": "", "direction": "", "params": {}, "at": "2026-12-01T12:00:00+00:00"}
        expect = {"rule": rule, "groups": [], "agent": None, "overflow": None}
        draft.put("tests", {"name": "noon", "call": asked, "expect": expect})
        draft.accepts_failing = True
    answer = unescape(undo(emil, added))
    assert "Nothing was undone: “Extra” is still used by “noon”: take it out there first." in answer
    assert "changed again since" not in answer


def test_where_a_credential_is_sent_is_not_taken_back(configured: Admin, olena: Browser, emil: Browser) -> None:
    """An editor could have the stored key sent to an address that an owner gave up."""
    page = "/p/acme/settings/presence"
    fields = posted(olena.get(page).text) | {"presence_api_url": "https://new.example"}
    after = olena.post(page, **fields, follow=True).text
    assert "Saved." in after
    assert "/undo" not in after
    project_id, version, _document = documents(configured.database)
    emil.post("/p/acme/undo", version=str(version), next="/p/acme/board")
    assert configured.one(models.Project, id=project_id).presence_api_url == "https://new.example"


def test_a_name_that_another_project_has_now_is_not_taken_back(configured: Admin, olena: Browser) -> None:
    fields = posted(olena.get("/p/acme/settings").text) | {"name": "beta"}
    after = olena.post("/p/acme/settings", **fields, follow=True).text
    olena.post("/projects/new", name="acme", time_zone="UTC", country="UA", overflow="", overflow_none="y")
    assert "was changed again since" in undo(olena, after)


def offered(answer: Any) -> tuple[str, dict[str, Any]]:
    """Where the button of a message that htmx shows posts, and what."""
    undo = json.loads(answer.headers["HX-Trigger"])["toast"]["undo"]
    assert undo["label"] == "Undo"
    return undo["url"], undo["fields"]


def test_messages_of_the_background_offer_to_undo_too(configured: Admin, emil: Browser) -> None:
    before = documents(configured.database)[2]
    rules = [str(row["id"]) for row in before["rules"]]
    url, fields = offered(emil.post("/p/acme/rules/order", order=rules[::-1], htmx=True))
    assert documents(configured.database)[2] != before
    emil.post(url, **fields)
    assert documents(configured.database)[2] == before
    ann = id_of(configured, "agents", "Ann")
    for do, state in ((f"on_break:{ann}", "status"), (f"pause:{ann}:30", "paused_until")):
        stood = getattr(configured.one(models.AgentState, agent_id=ann), state)
        url, fields = offered(emil.post("/p/acme/board/deed", do=do, htmx=True))
        assert getattr(configured.one(models.AgentState, agent_id=ann), state) != stood
        emil.post(url, **fields)
        assert getattr(configured.one(models.AgentState, agent_id=ann), state) == stood
    # A pause that was ended, or replaced by another, lasts as long as it would have.
    emil.post("/p/acme/board/deed", do=f"pause:{ann}:30")
    stood = configured.one(models.AgentState, agent_id=ann).paused_until
    for do in (f"resume:{ann}", f"pause:{ann}:90"):
        url, fields = offered(emil.post("/p/acme/board/deed", do=do, htmx=True))
        assert configured.one(models.AgentState, agent_id=ann).paused_until != stood
        emil.post(url, **fields)
        assert configured.one(models.AgentState, agent_id=ann).paused_until == stood
