"""Engines and transactions.

On SQLite writers queue on a lock file, because SQLite's own busy handler sleeps and is unfair.

`Database.reading` and `Database.writing` give ORM sessions for pages and background work; `Database.raw` gives the
driver's own connection to the one place where calls pass (reservations.py).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import PoolProxiedConnection

_PAUSE = 0.0003  # between two tries for the lock file: a transaction holds it for about half of that


class DatabaseBusyError(Exception):
    """The lock was not to be had within the time given."""


class FileLock:
    """A lock between processes and threads that the kernel frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def _descriptor(self) -> int:
        # One open file a thread: flock() lets through whoever shares an open file. Forked children open their own.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._local.pid = os.getpid()
        fd: int = self._local.fd
        return fd

    def acquire(self, deadline: float) -> None:
        """Wait until `deadline` (time.monotonic)."""
        fd = self._descriptor()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseBusyError("the database is locked by another process for too long") from None
                time.sleep(_PAUSE)
            else:
                return

    def release(self) -> None:
        fcntl.flock(self._descriptor(), fcntl.LOCK_UN)


class Database:
    """One engine with what the dialects need to behave alike."""

    def __init__(
        self, url: str, *, lock_seconds: float = 10, statement_seconds: float = 30, pool_size: int = 5
    ) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._lock_seconds = lock_seconds
        self.file_lock: FileLock | None = None
        if self.is_sqlite:
            path = Path(parsed.database or "")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file_lock = FileLock(path.with_name(path.name + ".lock"))
            self.engine = create_engine(parsed, connect_args={"timeout": lock_seconds})
            _prepare_sqlite(self.engine)
        else:
            options = f"-c statement_timeout={int(statement_seconds * 1000)} -c lock_timeout={int(lock_seconds * 1000)}"
            self.engine = create_engine(
                parsed,
                pool_size=pool_size,
                max_overflow=5,
                pool_timeout=lock_seconds,
                connect_args={"connect_timeout": 3, "options": options, "application_name": "router"},
            )
        self._session = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose changes are thrown away."""
        with self._session() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in one write transaction: committed at the end, rolled back on any error."""
        with self.write_lock(), self._session() as session:
            session.connection(execution_options={"sqlite_begin": "BEGIN IMMEDIATE"})
            yield session
            session.commit()

    @contextmanager
    def write_lock(self, deadline: float | None = None) -> Iterator[None]:
        """The queue of writers on SQLite; nothing on PostgreSQL."""
        if self.file_lock is None:
            yield
            return
        self.file_lock.acquire(time.monotonic() + self._lock_seconds if deadline is None else deadline)
        try:
            yield
        finally:
            self.file_lock.release()

    def raw(self) -> PoolProxiedConnection:
        """The driver's connection, from the pool; close() gives it back."""
        return self.engine.raw_connection()

    def dispose(self) -> None:
        """Close the pool's connections."""
        self.engine.dispose()


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
