"""A project with three agents, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from router.db.types import use_encryption_keys
from tests.world import FREE, World, world_at


@pytest.fixture(autouse=True)
def keys() -> None:
    use_encryption_keys([Fernet.generate_key()])


@pytest.fixture
def world(migrated_url: str, tmp_path: Path) -> Iterator[World]:
    with world_at(migrated_url, tmp_path) as world:
        yield world


@pytest.fixture
def sales(world: World) -> World:
    """Three agents, free, in one group that goes round."""
    world.configure(agents=FREE, groups={"sales": FREE})
    world.see(FREE)
    return world
