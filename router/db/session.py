"""Engines and transactions.

On SQLite writers queue on a lock file, because SQLite's own busy handler sleeps and is unfair.

`Database.reading` and `Database.writing` give ORM sessions for pages and background work; `own_connection` serves
the one place where calls pass (reservations.py).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from psycopg.conninfo import make_conninfo
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    create_engine,
    event,
    literal,
    literal_column,
    text,
    type_coerce,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from router.config import INSTANCE, keep_to_owner
from router.db.types import Instant

C = TypeVar("C")

# What is stored may be this far ahead of our idea of the database's clock. More means that the clock was set back, and
# that what it said before must not outlive everything said since.
CLOCK_STEP = timedelta(seconds=2)

_STRANGER_SECONDS = 0.2  # how long a call waits for a program that writes to our SQLite file unasked
# Where calls pass, on PostgreSQL. Its planner would plan the reading statement anew for each call, which takes twice as
# long as running it, and read whole tables for as long as they are small. Every join there is by a key.
_BY_KEYS_ALONE = (
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
)
# A server that vanishes without a word, as in a failover, is given up after some seconds: the kernel would send again
# for a quarter of an hour, and statement_timeout went with the server. Sockets of this machine take no notice.
_TCP_LIMITS = {"tcp_user_timeout": 5000, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_PAUSE = 0.0003  # between two tries for the lock file: a transaction holds it for about half of that
_LONGEST_PAUSE = 0.004  # where it is held for long, trying all the time would take the processor from who holds it


class DatabaseBusyError(Exception):
    """The lock was not to be had within the time given."""


class _OpenFile:
    """A descriptor that is closed when its thread ends, and in a forked child, which would else hold the lock on."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.pid = os.getpid()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


def lock_in_time(fd: int, kind: int, deadline: float) -> bool:
    """Take the kernel's lock (fcntl.LOCK_EX or LOCK_SH) on this open file by `deadline` (time.monotonic)."""
    pause = _PAUSE
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_PAUSE)
        else:
            return True


class FileLock:
    """A lock between processes and threads that the kernel frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def _descriptor(self) -> int:
        # One open file a thread: flock() lets through whoever shares an open file. Forked children open their own.
        file: _OpenFile | None = getattr(self._local, "file", None)
        if file is None or file.pid != os.getpid():
            self._local.file = file = _OpenFile(self._path)
        return file.fd

    def acquire(self, deadline: float) -> None:
        """Wait until `deadline` (time.monotonic)."""
        if not lock_in_time(self._descriptor(), fcntl.LOCK_EX, deadline):
            raise DatabaseBusyError("the database is locked by another process for too long")

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
        self.statement_seconds = statement_seconds
        self.file_lock: FileLock | None = None
        self.exposed: list[Path] = []  # what other accounts of this host may read of it, and we could not change
        self._own = threading.local()
        self._pid = os.getpid()
        self._is_disposed = False
        if self.is_sqlite:
            path = Path(parsed.database or "")
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.exposed = _keep_private(path)
            self.file_lock = FileLock(path.with_name(path.name + ".lock"))
            self.engine = create_engine(parsed, connect_args={"timeout": lock_seconds}, hide_parameters=True)
            _prepare_sqlite(self.engine)
        else:
            self._options = (
                f"-c statement_timeout={int(statement_seconds * 1000)} -c lock_timeout={int(lock_seconds * 1000)}"
            )
            self.engine = create_engine(
                parsed,
                pool_size=pool_size,
                max_overflow=5,
                pool_timeout=lock_seconds,
                pool_pre_ping=True,  # after a restart of the server the first pages would fail else
                hide_parameters=True,  # in messages of errors, which are logged: they are callers' numbers and the like
                connect_args={
                    "connect_timeout": 3,
                    "options": self._options,
                    "application_name": "router",
                    "client_encoding": "UTF8",
                    **_TCP_LIMITS,
                },
            )
        event.listen(self.engine, "checkin", self._returned)
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

    def now(self, session: Session) -> datetime:
        """The database's clock, which all that is stored goes by. SQLite has that of this host."""
        if self.is_sqlite:
            return datetime.now(UTC)
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)

    def clock(self, ahead: timedelta = timedelta(0)) -> ColumnElement[datetime]:
        """The same clock, so far ahead, for a statement: read when its rows are to be had, however long it waits."""
        if self.is_sqlite:  # where nobody waits but for the write lock, before
            return literal(datetime.now(UTC) + ahead, Instant)
        micros: ColumnElement[int] = literal_column("(extract(epoch from clock_timestamp()) * 1000000)::bigint")
        return type_coerce(micros + ahead // timedelta(microseconds=1), Instant)

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

    def own_connection(self, connect: Callable[[], C]) -> C:
        """This thread's own connection, made when missing: the pool's bookkeeping costs as much as a statement."""
        connection: C | None = self._connection_of_this_process()
        if connection is None:
            connection = self._own.connection = connect()
        return connection

    def _connection_of_this_process(self) -> Any:
        if getattr(self._own, "pid", None) != os.getpid():
            # A forked child must neither speak on its parent's connection nor close it.
            self._own.parents = getattr(self._own, "connection", None)
            self._own.pid, self._own.connection = os.getpid(), None
        return self._own.connection

    def forget_connection(self) -> None:
        """Close this thread's own connection: it may be broken."""
        connection, self._own.connection = self._connection_of_this_process(), None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def connect_sqlite(self) -> sqlite3.Connection:
        """A connection of the driver's own, outside the pool."""
        # Writers queue on the lock file, each until its deadline: what is locked all the same is so by a stranger.
        path = self.engine.url.database or ""
        _make_private(Path(path))
        connection = sqlite3.connect(path, isolation_level=None, timeout=_STRANGER_SECONDS)
        _set_pragmas(connection)
        return connection

    @property
    def conninfo(self) -> str:
        """The address of the PostgreSQL server, for libpq, where calls pass."""
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        options = f"{self._options} {_BY_KEYS_ALONE}"
        return make_conninfo(url, options=options, application_name="router", client_encoding="UTF8", **_TCP_LIMITS)

    def dispose(self) -> None:
        """Close all connections; those that other threads are using as soon as they give them back."""
        self.forget_connection()
        self._is_disposed = True
        self.engine.dispose(close=os.getpid() == self._pid)  # those in the pool of a forked child are its parent's

    def _returned(self, connection: Any, record: ConnectionPoolEntry) -> None:
        if self._is_disposed and connection is not None:
            record.invalidate()


def _make_private(path: Path) -> None:
    """Make the database's file, for SQLite would let everybody read it. What SQLite makes beside it takes its mode."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _keep_private(path: Path) -> list[Path]:
    """Keep to their owner what an earlier release, or a restored backup, left open: it holds callers and the hashes of
    passwords. Gives what could not be changed."""
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", ".lock")]
    # Only the folder that is ours by its name: another may hold the files of others too.
    folders = [path.parent] if path.parent.name == INSTANCE.name else []
    return [place for place in (*folders, *files) if not keep_to_owner(place)]


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def connecting(*_: Any) -> None:
        _make_private(Path(engine.url.database or ""))

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        _set_pragmas(connection)

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _set_pragmas(connection: sqlite3.Connection) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")
