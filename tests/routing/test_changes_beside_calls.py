"""Whoever changes the configuration holds up no call, however long that takes: on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from router.configuration import apply, load
from router.db import models
from router.db.keys import rotate_secrets
from tests.rows import changing
from tests.world import World, world_at

FILE = """\
projects:
  - name: acme
    time_zone: UTC
    overflow: "380449999999"
    presence: {auth_key: another}
    agents: [{name: ann, sip_logins: [ann, ann_mob], wrap_up_seconds: 7}, {name: cat, sip_logins: [cat]}]
    groups: [{name: sales, ring_seconds: 9, members: [{agent: ann, tier: 2}, {agent: cat}]}]
    rules: [{name: everyone, groups: [sales], overflow: ""}]
"""


@pytest.fixture
def world(migrated_postgres_url: str, tmp_path: Path) -> Iterator[World]:
    with world_at(migrated_postgres_url, tmp_path) as world:
        world.configure(agents=["ann", "ben"], groups={"sales": ["ann"]}, presence_auth_key="secret")
        world.see(["ann"])
        with world.change() as session:
            session.add(
                models.HookToken(
                    project_id=world.project_id, token_hash="hash", token="token", created_at=datetime.now(UTC)
                )
            )
        yield world


@contextmanager
def held_open(engine: Engine, change: Callable[[], object], table: str) -> Iterator[None]:
    """Begin the change, and keep it waiting for this table until the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        with engine.connect() as other:
            other.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
            changed = pool.submit(change)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST(:table AS regclass)")
            while not other.execute(waiting, {"table": table}).scalar_one():
                assert not changed.done(), changed.result()
            yield
        changed.result()


def _apply(world: World) -> None:
    assert apply(world.database, load(FILE, {}))


def _change(world: World) -> None:
    with changing(world.database, world.project_id, "test") as session:
        project = session.get_one(models.Project, world.project_id)
        project.overflow, project.deleted_at = "1", None
        session.scalars(select(models.Agent).where(models.Agent.name == "ann")).one().paused = False
        session.scalars(select(models.Group)).one().members[0].weight = 5


def _rotate(world: World) -> None:
    assert rotate_secrets(world.database)


@pytest.mark.parametrize(
    ("change", "waits_for"),
    [(_apply, "audit_entries"), (_apply, "config_versions"), (_change, "audit_entries"), (_rotate, "hook_tokens")],
)
def test_a_call_is_answered_while_a_change_is_not_committed(
    world: World, change: Callable[[World], None], waits_for: str
) -> None:
    routing = world.routing()
    routing.keep_up()
    with held_open(world.database.engine, lambda: change(world), waits_for):
        answer = world.ask("call", routing=routing)
    assert (answer.destination, answer.degraded) == ("ann", "")
