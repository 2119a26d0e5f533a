"""Encrypt stored secrets with new keys, and check them: in every column of type Secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Text, select, type_coerce, update
from sqlalchemy.orm import Session

from router.db.models import Base
from router.db.session import Database
from router.db.types import Secret, SecretError, rotate


def rotate_secrets(database: Database) -> int:
    """Encrypt all stored secrets with the first of the keys, in one transaction. Return how many.

    Raises SecretError, which names the place, when one cannot be read with any of the keys.
    """
    count = 0
    with database.writing() as session:
        for column, key, ciphertext in _stored(session, is_locked=True):
            try:
                fresh = rotate(ciphertext)
            except SecretError as error:
                raise SecretError(f"{column.table.name}.{column.name}, row {key}: {error}") from None
            (id_column,) = column.table.primary_key
            encrypted = type_coerce(fresh, Text)  # as Secret it would be encrypted twice
            session.execute(update(column.table).where(id_column == key).values({column: encrypted}))
            count += 1
    return count


def check_secrets(session: Session) -> tuple[int, list[str]]:
    """Return how many secrets are stored, and the places of those that the present keys do not decrypt."""
    count, unreadable = 0, []
    for column, key, ciphertext in _stored(session):
        count += 1
        try:
            rotate(ciphertext)
        except SecretError:
            unreadable.append(f"{column.table.name}.{column.name}, row {key}")
    return count, unreadable


def _stored(session: Session, *, is_locked: bool = False) -> Iterator[tuple[Any, int, str]]:
    """Yield each secret's column, its row's key, and its ciphertext."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if not isinstance(column.type, Secret):
                continue
            (key,) = table.primary_key
            raw = type_coerce(column, Text)
            query = select(key, raw).where(raw.is_not(None)).order_by(key)
            # Not FOR UPDATE: every decision refers to its project's row, and calls need not wait for new keys.
            rows = session.execute(query.with_for_update(key_share=True) if is_locked else query).all()
            yield from ((column, row[0], row[1]) for row in rows)
