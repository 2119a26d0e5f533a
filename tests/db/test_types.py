"""Instants as whole microseconds, secrets as ciphertext, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import StatementError

from router.db import types
from router.db.session import Database
from router.db.types import Instant, Secret, SecretError, from_micros, readable, rotate, to_micros, use_encryption_keys

OLD, NEW, OTHER = (Fernet.generate_key() for _ in range(3))
THINGS = Table(
    "things", MetaData(), Column("id", Integer, primary_key=True), Column("at", Instant), Column("word", Secret)
)
NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _keys() -> Iterator[None]:
    before = types._Keys.fernet
    use_encryption_keys([OLD])
    yield
    types._Keys.fernet = before


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    with database.writing() as session:
        THINGS.metadata.create_all(session.connection())
    yield database
    database.dispose()


def keep(database: Database, **values: object) -> None:
    with database.writing() as session:
        session.execute(insert(THINGS).values(**values))


# ---- instants


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=3)), timezone(timedelta(hours=-9.5))])))
def test_an_instant_is_kept_to_the_microsecond(at: datetime) -> None:
    again = from_micros(to_micros(at))
    assert again == at
    assert again.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_instants_are_ordered_as_their_numbers_are(one: datetime, other: datetime) -> None:
    assert (one < other) == (to_micros(one) < to_micros(other))


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        to_micros(datetime(2026, 11, 23))  # noqa: DTZ001 - the mistake that is refused


def test_both_databases_give_back_the_same_instant(database: Database) -> None:
    at = NOON.astimezone(timezone(timedelta(hours=2)))
    keep(database, id=1, at=at)
    keep(database, id=2, at=None)
    with database.reading() as session:
        assert session.execute(select(THINGS.c.at).order_by(THINGS.c.id)).scalars().all() == [NOON, None]
        assert session.execute(text("SELECT at FROM things WHERE id = 1")).scalar() == 1795435200123456
        assert session.scalar(select(THINGS.c.id).where(THINGS.c.at > NOON - timedelta(microseconds=1))) == 1
    with pytest.raises(StatementError, match="no time zone"):
        keep(database, id=3, at=NOON.replace(tzinfo=None))


# ---- secrets


def test_a_secret_is_kept_as_ciphertext(database: Database) -> None:
    keep(database, id=1, word="auth-key Київ")
    keep(database, id=2, word=None)
    with database.reading() as session:
        assert session.execute(select(THINGS.c.word).order_by(THINGS.c.id)).scalars().all() == ["auth-key Київ", None]
        stored = str(session.execute(text("SELECT word FROM things WHERE id = 1")).scalar())
    assert "auth-key" not in stored
    assert Fernet(OLD).decrypt(stored.encode()).decode() == "auth-key Київ"


def test_after_a_new_key_old_secrets_are_read_and_new_ones_are_under_it(database: Database) -> None:
    keep(database, id=1, word="before")
    use_encryption_keys([NEW, OLD])
    keep(database, id=2, word="after")
    with database.reading() as session:
        assert session.execute(select(THINGS.c.word).order_by(THINGS.c.id)).scalars().all() == ["before", "after"]
        before, after = session.execute(text("SELECT word FROM things ORDER BY id")).scalars()
    assert Fernet(NEW).decrypt(after) == b"after"
    rotated = rotate(before)
    assert Fernet(NEW).decrypt(rotated) == b"before"
    use_encryption_keys([NEW])
    assert types._fernet().decrypt(rotated) == b"before", "then the old key can go"


def test_a_secret_under_a_key_that_is_gone_says_what_to_do(database: Database) -> None:
    keep(database, id=1, word="before")
    use_encryption_keys([OTHER])
    with database.reading() as session:
        (word,) = session.execute(select(THINGS.c.word)).scalars()
    with pytest.raises(SecretError, match="add the old key behind the new one"):
        readable(word)


def test_without_any_key_nothing_is_kept_in_clear(database: Database) -> None:
    types._Keys.fernet = None
    with pytest.raises(StatementError, match="set SECRET_KEY or ENCRYPTION_KEYS") as caught:
        keep(database, id=1, word="secret")
    assert isinstance(caught.value.orig, SecretError)


def test_no_error_tells_the_secret(database: Database) -> None:
    keep(database, id=1, word="auth-key")
    with pytest.raises(Exception, match=r"(?i)unique") as caught:
        keep(database, id=1, word="auth-key")
    assert "auth-key" not in str(caught.value)
