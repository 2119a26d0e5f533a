"""Define column types: instants as whole microseconds, secrets as ciphertext."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import BigInteger, Dialect, Text
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Return the whole microseconds from the epoch to an aware instant. Raises for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone")
    return (at - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC instant, the inverse of `to_micros`."""
    return EPOCH + timedelta(microseconds=micros)


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant, stored as BIGINT microseconds: exact, ordered and the same on SQLite and PostgreSQL."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


class SecretError(Exception):
    """A stored secret that the present keys do not decrypt."""


class _Keys:
    """The encryption keys of this process, set at start. Global, because a column type gets no arguments."""

    fernet: MultiFernet | None = None


def use_encryption_keys(keys: Sequence[bytes | str]) -> None:
    """Set the Fernet keys (url-safe base64, 32 bytes each). The first encrypts, all decrypt."""
    _Keys.fernet = MultiFernet([Fernet(key) for key in keys])


def _fernet() -> MultiFernet:
    if _Keys.fernet is None:
        raise SecretError("no encryption key is set: set SECRET_KEY or ENCRYPTION_KEYS")
    return _Keys.fernet


def rotate(ciphertext: str) -> str:
    """Return the secret encrypted with the first of the keys. Raises SecretError when none of them decrypts it."""
    with _readable():
        return _fernet().rotate(ciphertext.encode()).decode()


def seal(text: bytes) -> bytes:
    """Encrypt a text that is stored outside the database. Raises SecretError without a key."""
    return _fernet().encrypt(text)


def unseal(sealed: bytes) -> bytes:
    """Return the text of `seal`. Raises SecretError when none of the keys decrypts it."""
    with _readable():
        return _fernet().decrypt(sealed)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except InvalidToken as error:
        raise SecretError(
            "a stored secret cannot be decrypted: SECRET_KEY or ENCRYPTION_KEYS changed; "
            "add the old key behind the new one in ENCRYPTION_KEYS"
        ) from error


class Unreadable:
    """A stored secret that the present keys do not decrypt; the rest of its row can be used."""

    def __init__(self, error: SecretError) -> None:
        self.error = error


def readable(secret: str | Unreadable | None) -> str:
    """Return the secret; "" when there is none. Raises SecretError when it cannot be decrypted."""
    if isinstance(secret, Unreadable):
        raise secret.error
    return secret or ""


class Secret(TypeDecorator[str | Unreadable]):
    """A text that is encrypted at rest (Fernet: AES-128-CBC with HMAC-SHA256)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | Unreadable | None, dialect: Dialect) -> str | None:
        return None if value is None else _fernet().encrypt(readable(value).encode()).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | Unreadable | None:
        if value is None:
            return None
        try:
            with _readable():
                return _fernet().decrypt(value.encode()).decode()
        except SecretError as error:
            return Unreadable(error)
