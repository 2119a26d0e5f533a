"""Files to read, and a database to apply them to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from router.configuration import ConfigFile, load
from router.db.session import Database
from router.db.types import use_encryption_keys

SAMPLES = Path(__file__).parent / "samples"
ENVIRON = {"HOOK_BASIC": "ringostat:pa55word", "RINGOSTAT_AUTH_KEY": "k3y-of-acme"}


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def load_sample() -> ConfigFile:
    return load(sample("acme.yaml"), ENVIRON, filename="acme.yaml")


@pytest.fixture(autouse=True, scope="module")
def _keys() -> None:
    use_encryption_keys([Fernet.generate_key()])


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Empty, at the newest schema, on each kind in turn."""
    database = Database(migrated_url)
    yield database
    database.dispose()
