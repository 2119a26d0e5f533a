"""A published version that this process cannot build: calls go by the newest one that it can, and it says so once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select
from structlog.testing import capture_logs

from router.db import models
from router.db.documents import BuildError
from router.routing.route import Routing
from tests.world import World

GARBAGE: list[Any] = [{}, {"project": {}}, [], "text", {"project": None, "rules": 7}]


def publish_unbuilt(world: World, document: Any = None) -> int:
    """Publish what no release understands, as a newer one may have; its version."""
    with world.database.writing() as session:
        project = session.get_one(models.Project, world.project_id)
        newest = session.get_one(models.ConfigVersion, (project.id, project.version))
        groups = [group | {"strategy": "of tomorrow"} for group in newest.document["groups"]]
        project.version += 1
        session.add(
            models.ConfigVersion(
                project_id=project.id,
                version=project.version,
                published_at=newest.published_at,
                actor="test",
                document=newest.document | {"groups": groups} if document is None else document,
            )
        )
        return project.version


def mend(world: World, version: int) -> None:
    with world.database.writing() as session:
        kept = models.ConfigVersion
        good = session.scalars(select(kept).order_by(kept.version)).first()
        assert good is not None
        session.get_one(kept, (world.project_id, version)).document = good.document


def errors(logs: Any) -> list[Any]:
    return [line for line in logs if line["log_level"] == "error"]


def answers(world: World, routing: Routing, count: int = 3) -> list[str]:
    return [world.ask(f"call {world.project_id} {n}", routing=routing).destination for n in range(count)]


@pytest.mark.parametrize("document", [None, *GARBAGE], ids=str)
def test_a_process_keeps_the_last_good_version(sales: World, document: Any) -> None:
    routing = sales.routing()
    sales.ask(routing=routing)
    sales.free_everybody()
    publish_unbuilt(sales, document)
    with capture_logs() as logs:
        assert len(set(answers(sales, routing))) == 3
        routing.keep_up()
        routing.keep_up()
    assert len(errors(logs)) == 1
    assert routing.projects.faults.keys() == {sales.project_id}
    assert {row.config_version for row in sales.decisions()} == {sales.decisions()[0].config_version}
    assert {row.degraded for row in sales.decisions()} == {""}


def test_a_process_that_starts_goes_by_the_newest_version_that_can_be_built(sales: World) -> None:
    with sales.change() as session:
        session.get_one(models.Project, sales.project_id).overflow = "380447777777"
    publish_unbuilt(sales)
    publish_unbuilt(sales)
    routing = sales.routing()
    assert set(answers(sales, routing)) == {"ann", "ben", "cat"}
    assert sales.ask("one more", routing=routing).destination == "380447777777"


def test_a_version_that_is_gone_counts_as_one_that_cannot_be_built(sales: World) -> None:
    version = publish_unbuilt(sales)
    with sales.database.writing() as session:
        session.execute(delete(models.ConfigVersion).where(models.ConfigVersion.version == version))
    assert set(answers(sales, sales.routing())) == {"ann", "ben", "cat"}


def test_a_process_that_knows_a_version_keeps_it_though_none_can_be_built_any_more(sales: World) -> None:
    routing = sales.routing()
    sales.ask(routing=routing)
    sales.free_everybody()
    publish_unbuilt(sales)
    with sales.database.writing() as session:
        for row in session.scalars(select(models.ConfigVersion)):
            row.document = {}
    assert len(set(answers(sales, routing))) == 3
    with pytest.raises(BuildError):
        sales.ask()


def test_once_it_can_be_built_calls_go_by_it(sales: World) -> None:
    routing = sales.routing()
    version = publish_unbuilt(sales)
    sales.ask(routing=routing)
    assert routing.projects.faults
    mend(sales, version)
    routing.keep_up()
    assert routing.projects.faults == {}
    sales.ask("after", routing=routing)
    assert sales.decisions()[-1].config_version == version


def test_another_project_is_known_all_the_same(sales: World) -> None:
    first = sales.project_id
    with sales.database.writing() as session:
        session.get_one(models.Project, first).name = "broken"
    publish_unbuilt(sales, {})
    with sales.database.writing() as session:
        for row in session.scalars(select(models.ConfigVersion)):
            row.document = {}
    sales.configure(agents=["zoe"], groups={"support": ["zoe"]})
    routing = sales.routing()
    routing.keep_up()
    sales.see(["zoe"])
    assert sales.ask(routing=routing).destination == "zoe"
    assert routing.projects.faults.keys() == {first}
