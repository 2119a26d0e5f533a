"""Versions of a configuration: listed, counted, and restored as they were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from router.configuration import apply, load
from router.configuration.change import change
from router.configuration.versions import NoSuchVersionError, count_calls, list_versions, restore_version
from router.db import models
from router.db.documents import Document, load_document
from router.db.session import Database
from router.db.types import use_encryption_keys
from tests.admin.test_undo import FILE, plain_file
from tests.configuration.test_exporting import projects


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    use_encryption_keys([Fernet.generate_key()])
    path: Path = tmp_path_factory.mktemp("versions") / "router.db"
    database = Database(f"sqlite+pysqlite:///{path}")
    models.Base.metadata.create_all(database.engine)
    yield database
    database.dispose()


def current(database: Database, name: str = "acme") -> tuple[int, int, Document]:
    """The id of a project, its version and document."""
    with database.reading() as session:
        project = session.scalars(select(models.Project).where(models.Project.name == name)).one()
        document = load_document(session, project.id, project.version)
    assert document is not None
    return project.id, project.version, document


def restore(database: Database, project_id: int, number: int) -> None:
    with change(database, project_id, "test") as draft:
        restore_version(draft, number)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(projects(), projects(), projects())
def test_a_restored_version_is_what_it_was(
    sqlite: Database, first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    apply(sqlite, load(plain_file(first), {}))
    project_id, number, wanted = current(sqlite)
    kept = {part: wanted["project"][part] for part in ("presence", "secrets")}
    for later in (second, third):
        apply(sqlite, load(plain_file({**later, "presence": first.get("presence", {})}), {}))
    restore(sqlite, project_id, number)
    _id, _version, restored = current(sqlite)
    assert {part: restored["project"][part] for part in kept} == kept
    assert restored == wanted


def test_where_credentials_are_sent_stays(database: Database) -> None:
    apply(database, load(FILE, {}))
    project_id, number, _document = current(database)
    with change(database, project_id, "olena") as draft:
        draft.put_project({"presence": {"api_url": "https://new.example"}, "country": "DE"})
    restore(database, project_id, number)
    project = current(database)[2]["project"]
    assert (project["presence"]["api_url"], project["country"]) == ("https://new.example", "UA")


def test_a_row_whose_id_another_project_has_now_is_made_anew(database: Database) -> None:
    apply(database, load(FILE, {}))
    apply(database, load("projects: [{name: zeta, overflow: '1', agents: [{name: Zoe}], groups: [{name: z}]}]", {}))
    project_id, number, before = current(database, "zeta")
    agent_id = before["agents"][0]["id"]
    with change(database, project_id, "test") as draft:
        draft.put(
            "groups",
            {"members": [{"agent": agent_id, "tier": 1, "weight": 1, "hours": None}]},
            before["groups"][0]["id"],
        )
    project_id, number, before = current(database, "zeta")
    with change(database, project_id, "test") as draft:
        draft.forget("agents", agent_id)
    with change(database, current(database)[0], "test") as draft:
        draft.put("agents", {"name": "Newcomer"}, agent_id)
    restore(database, project_id, number)
    document = current(database, "zeta")[2]
    (zoe,), (group,) = document["agents"], document["groups"]
    assert (zoe["name"], group["members"][0]["agent"]) == ("Zoe", zoe["id"])
    assert zoe["id"] != agent_id


def test_a_version_that_is_not_there_is_refused(database: Database) -> None:
    apply(database, load(FILE, {}))
    project_id, number, before = current(database)
    with pytest.raises(NoSuchVersionError):
        restore(database, project_id, number + 1)
    assert current(database)[2] == before


def test_lists_versions_from_the_newest_with_the_time_in_which_each_was_used(database: Database) -> None:
    apply(database, load(FILE, {}))
    project_id, _number, _document = current(database)
    with change(database, project_id, "olena") as draft:
        draft.put_project({"country": "PL"})
        draft.comment = "we move"
    with database.reading() as session:
        newest, earlier = list_versions(session, project_id, limit=2)
        assert list_versions(session, project_id, limit=1, before=newest.number) == [earlier]
        assert list_versions(session, project_id, limit=1, number=earlier.number) == [earlier]
    assert (newest.actor, newest.comment, newest.replaced_at) == ("olena", "we move", None)
    assert earlier.replaced_at == newest.published_at


def test_counts_the_calls_that_a_version_decided_each_once(database: Database) -> None:
    for overflow in ("1", "2"):
        apply(database, load(FILE.replace('"100"', overflow), {}))
    project_id, number, _document = current(database)
    now = datetime.now(UTC)

    def decision(
        call_id: str, step: str, version: int = number, at: datetime = now, *, is_test: bool = False
    ) -> models.Decision:
        given = {"caller": "1", "dialed": "2", "destination": "3", "result": "overflow", "latency_us": 1, "record": {}}
        of = {
            "project_id": project_id,
            "call_id": call_id,
            "step": step,
            "asked_at": at,
            "config_version": version,
            "is_test": is_test,
        }
        return models.Decision(**of, **given)

    with database.writing() as session:
        session.add_all(
            [
                decision("t", "1", is_test=True),
                *(decision("a", "1"), decision("a", "2"), decision("", "1"), decision("", "1")),
                *(decision("b", "1", at=now + timedelta(hours=1)), decision("c", "1", number - 1)),
            ]
        )
    with database.reading() as session:
        both = list_versions(session, project_id, limit=2)
        assert count_calls(session, project_id, both, most=100) == {
            one.number: 4 if one.number == number else 1 for one in both
        }
        assert max(count_calls(session, project_id, both, most=2).values()) <= 2
        assert count_calls(session, project_id, [], most=2) == {}


def test_a_project_that_was_renamed_keeps_its_name(database: Database) -> None:
    apply(database, load(FILE, {}))
    project_id, number, _document = current(database)
    with change(database, project_id, "test") as draft:
        draft.put_project({"name": "acme two", "country": "PL"})
    apply(database, load("projects: [{name: acme, overflow: '1'}]", {}))
    restore(database, project_id, number)
    assert current(database, "acme two")[2]["project"]["country"] == "UA"
