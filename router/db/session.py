"""The one reader of DATABASE_URL: one engine and one pool for calls, pages, background work and migrations.

`reading` and `writing` give ORM sessions; `call_connection` lends a connection of the driver to the one place where
calls pass (claim.py). `time_limit` bounds all waiting inside it: for a lock, a connection, the server's answer.

On SQLite writers queue on a lock file, because SQLite's own busy handler sleeps and is unfair.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
from gevent.monkey import get_original
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.waiting import Ready, Wait
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    literal,
    literal_column,
    text,
    type_coerce,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from router.config import INSTANCE, keep_to_owner, read_conninfo
from router.db.types import Instant

T = TypeVar("T")

_poll = get_original("select", "poll")

# What is stored may be this far ahead of our idea of the database's clock. More means that the clock was set back, and
# that what it said before must not outlive everything said since.
CLOCK_STEP = timedelta(seconds=2)

# Connections of each process: so many at once for calls, and for all else. One of each stays open while nobody uses it,
# and the one for calls is never lent to anybody else. The others are opened when needed: a server may allow ten in all.
# Calls of one process take turns: each holds its group's lock for as short as it can, without others at work between.
_FOR_CALLS = 1
_FOR_OTHERS = 4
_KEPT_FOR_OTHERS = 1
CONNECTIONS = _FOR_CALLS + _FOR_OTHERS
_BLOCKING_MS = 2  # that a call's wait for the server may block its process: switching greenlets takes longer than most
_SERVER_FIRST_SECONDS = 0.25  # that a wait goes on after the server should have ended it
_CONNECT_PAUSE = 0.05  # s
_CONNECT_SECONDS = 3.0  # for which anybody but a call waits for a new connection
# That SQLite itself waits for a program which writes to our file past the lock file: it sleeps in C, and under gevent
# so does the whole process. Whoever has more time tries again.
_FOREIGN_LOCK_SECONDS = 0.1
# A server that vanishes without a word, as in a failover, is given up after some seconds: the kernel would send again
# for a quarter of an hour. Sockets of this machine take no notice.
_TCP_LIMITS = {"tcp_user_timeout": 5000, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_PAUSE = 0.0003  # between two tries for the lock file: a transaction holds it for about half of that
_LONGEST_PAUSE = 0.004  # where it is held for long, trying all the time would take the processor from who holds it

_CLOCK = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)  # of time.monotonic()


class DatabaseBusyError(Exception):
    """A lock or a connection was not to be had within the time given."""


class ConnectionsInUseError(DatabaseBusyError):
    """Others of this process were not done in time. That says nothing about the database."""


DATABASE_ERRORS = (DatabaseBusyError, TimeoutError, OSError, sqlite3.Error, psycopg.Error, SQLAlchemyError)
"""All that says: not the question is wrong, the database is."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Wait no longer than this in all for what is asked of a database inside; a limit around this one holds as well."""
    outer, own = _deadline.get(), time.monotonic() + seconds
    token = _deadline.set(own if outer is None else min(outer, own))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left(otherwise: float = 30.0) -> float:
    """Return what is left of the time_limit around this; without one, `otherwise`."""
    deadline = _deadline.get()
    return otherwise if deadline is None else max(0.0, deadline - time.monotonic())


# The planner would plan the statement that a call reads by anew for each call, which takes twice as long as running it,
# and read whole tables for as long as they are small. Every join is by a key. A server goes on with what nobody waits
# for any more, for so long at most.
_CALL_SETTINGS = {
    "statement_timeout": "2s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "DateStyle": "ISO",
}


def call_settings(*, is_local: bool) -> str:
    """Return the statement that makes the server's settings those of calls; `is_local`: for one transaction."""
    scope = str(is_local).lower()
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', {scope})" for name, value in _CALL_SETTINGS.items())


# ---- the queue of writers on SQLite


class OpenFile:
    """A descriptor that is closed when its user ends, and in a forked child, which would else keep a lock on it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.pid = os.getpid()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class FileLock:
    """A lock between processes and threads that the kernel frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def acquire(self, deadline: float) -> None:
        """Wait until `deadline` (time.monotonic)."""
        # One open file a thread: flock() lets through whoever shares an open file. Forked children open their own.
        file: OpenFile | None = getattr(self._local, "file", None)
        if file is None or file.pid != os.getpid():
            self._local.file = file = OpenFile(self._path)
        pause = _PAUSE
        while True:
            try:
                return fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseBusyError("the database is locked by another process for too long") from None
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_PAUSE)

    def release(self) -> None:
        fcntl.flock(self._local.file.fd, fcntl.LOCK_UN)


# ---- connections to PostgreSQL


class WaitedTooLongError(psycopg.OperationalError, TimeoutError):
    """The server did not answer in time. The connection is closed: what it would say next belongs to nobody."""


class PostgresConnection(psycopg.Connection[Any]):
    """A connection that waits for the server no longer than there is time.

    The server's own statement_timeout cannot end a wait for a server that has stopped.
    """

    statement_seconds = 30.0  # of a wait, where no time_limit says less; math.inf: for as long as it takes
    is_queueing = False  # nothing is sent: it goes with the next thing that is waited for
    is_pooled = False  # a pooler between us and the server gives each transaction another process of the server
    queued: deque[Callable[[], None]]  # what a pipeline sends at its end
    cursors: dict[bytes, psycopg.RawCursor[Any]]  # of the statements of calls: new ones would adapt values anew
    blocking_ms = 0  # for which the whole process waits for an answer, before other greenlets run meanwhile

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.queued, self.cursors = deque(), {}

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Run psycopg's generator until it is done. Raises TimeoutError, and closes the connection."""
        # The server's own timeout comes first, if the server still works: after that the connection is of use.
        left = seconds_left(self.statement_seconds) + _SERVER_FIRST_SECONDS if timeout is None else timeout
        give_up_at = time.monotonic() + left
        try:
            if self.is_queueing:
                next(gen)  # to where it would send what it has queued
                return gen.close()
            soon = _soon(gen, self.pgconn.socket, min(self.blocking_ms, 1000 * left), self.queued)
            return super().wait(soon, interval, None if left == math.inf else left)
        except psycopg.OperationalError as error:
            if time.monotonic() < give_up_at:
                raise
            self.pgconn.finish()
            raise WaitedTooLongError("the database did not answer in time") from error


def _soon(gen: PQGen[T], fd: int, milliseconds: float, queued: deque[Callable[[], None]]) -> PQGen[T]:
    """Wait only for what is not ready soon: under gevent each wait hands over to other requests, which takes longer."""
    poll = _poll()
    try:
        wanted = next(gen)
        while queued:  # into libpq's buffer, which is sent as one: the pipeline would send each of them alone
            queued.popleft()()
        while True:
            poll.register(fd, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
            events = sum(event for _, event in poll.poll(milliseconds))
            ready = (Ready.R if events & ~select.POLLOUT else 0) | (Ready.W if events & ~select.POLLIN else 0)
            wanted = gen.send(ready or (yield wanted))
    except StopIteration as end:
        return cast("T", end.value)


def in_time(work: Callable[[], T], seconds: float, abandoned: Callable[[T], object]) -> T:
    """Return what `work` gives, or raise TimeoutError after so many seconds; what it gives then goes to `abandoned`."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="connect", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        future.add_done_callback(lambda late: None if late.exception() else abandoned(late.result()))
        raise


class Database:
    """One engine with what the dialects need to behave alike."""

    def __init__(self, url: str, *, lock_seconds: float = 10, statement_seconds: float = 30) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self.url = url
        self.name: str  # which database this is, without its password
        self.statement_seconds = statement_seconds
        self.lock_seconds = lock_seconds
        self.file_lock: FileLock | None = None
        self.exposed: list[Path] = []  # what other accounts of this host may read of it, and we could not change
        self._pid = os.getpid()
        self._is_disposed = False
        self._reserved: deque[PoolProxiedConnection] = deque()
        self._has_one_for_calls = False
        self._calls = threading.BoundedSemaphore(_FOR_CALLS)
        self._others = threading.BoundedSemaphore(_FOR_OTHERS)
        # Nobody waits in the pool, where no time_limit counts: these two let in as many as it has connections.
        size = {"pool_size": _KEPT_FOR_OTHERS, "max_overflow": CONNECTIONS - _KEPT_FOR_OTHERS}
        if self.is_sqlite:
            parsed = make_url(url)
            path = Path(parsed.database or "")
            self.name = f"sqlite {path.resolve()}"
            with suppress(OSError):  # told by whoever connects: an application must load without its database
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.exposed = _keep_private(path)
            self.file_lock = FileLock(path.with_name(path.name + ".lock"))
            arguments = {"timeout": lock_seconds, "check_same_thread": False}
            self.engine = create_engine(parsed, connect_args=arguments, hide_parameters=True, **size)
            _prepare_sqlite(self.engine, lock_seconds)
        else:
            self.conninfo = make_conninfo(
                **{"application_name": "router"} | read_conninfo(url) | {"client_encoding": "UTF8", **_TCP_LIMITS}
            )
            parts = conninfo_to_dict(self.conninfo)
            self.name = " ".join(str(parts.get(part, "")) for part in ("host", "hostaddr", "port", "dbname", "user"))
            self.engine = create_engine(
                URL.create("postgresql+psycopg"),
                creator=self._connect,
                **size,
                pool_pre_ping=True,  # after a restart of the server the first pages would fail else
                hide_parameters=True,  # in messages of errors, which are logged: they are callers' numbers and the like
            )
            event.listen(self.engine, "begin", self._set_limits)
            event.listen(self.engine, "handle_error", _keep_the_pool)
        event.listen(self.engine, "checkin", self._returned)
        self._session = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose changes are thrown away."""
        with self._turn(self._others), self._session() as session:
            self._connect_in_time(session)
            yield session

    def _connect_in_time(self, session: Session, **options: Any) -> None:
        """Begin. Where the server has no connection left, others of this process give theirs back in a moment."""
        give_up_at = time.monotonic() + seconds_left(self.lock_seconds)
        while True:
            try:
                session.connection(execution_options=options)
            except ConnectionsInUseError:
                if time.monotonic() + 2 * _CONNECT_PAUSE >= give_up_at:
                    raise
                time.sleep(_CONNECT_PAUSE)
            else:
                return

    @contextmanager
    def _turn(self, users: threading.BoundedSemaphore) -> Iterator[None]:
        if not users.acquire(timeout=seconds_left(self.lock_seconds)):
            raise ConnectionsInUseError("all connections of this process are in use")
        try:
            yield
        finally:
            users.release()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in one write transaction: committed at the end, rolled back on any error."""
        with self._turn(self._others), self.write_lock(), self._session() as session:
            self._connect_in_time(session, sqlite_begin="BEGIN IMMEDIATE")
            yield session
            session.commit()

    def now(self, session: Session) -> datetime:
        """The database's clock, which all that is stored goes by. SQLite has that of this host."""
        if self.is_sqlite:
            return datetime.now(UTC)
        now: int = session.execute(
            text("SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint")
        ).scalar_one()
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=now)

    def clock(self, ahead: timedelta = timedelta(0)) -> ColumnElement[datetime]:
        """The same clock, so far ahead, for a statement: read when its rows are to be had, however long it waits."""
        if self.is_sqlite:  # where nobody waits but for the write lock, before
            return literal(datetime.now(UTC) + ahead, Instant)
        micros: ColumnElement[int] = literal_column(_CLOCK)
        return type_coerce(micros + ahead // timedelta(microseconds=1), Instant)

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """The queue of writers on SQLite; nothing on PostgreSQL."""
        if self.file_lock is None:
            yield
            return
        self.file_lock.acquire(time.monotonic() + seconds_left(self.lock_seconds))
        try:
            yield
        finally:
            self.file_lock.release()

    # ---- the connections of calls

    def reserve(self) -> None:
        """Open a connection for calls now, before anything else takes what the server allows."""
        with self.call_connection():
            pass

    @contextmanager
    def call_connection(self) -> Iterator[Any]:
        """Lend a connection of the driver outside any transaction: `sqlite3.Connection` or `PostgresConnection`.

        It stays reserved for calls. After an error of the database's it is closed, whatever state it is in; on any
        other way out the transaction must have ended.
        """
        with self._turn(self._calls):
            try:
                proxied = self._reserved.pop()
            except IndexError:
                proxied = self._open_for_calls()
            self._has_one_for_calls, is_sound = True, False
            try:
                yield proxied.driver_connection
                is_sound = True
            except Exception as error:
                is_sound = not isinstance(error, DATABASE_ERRORS)
                raise
            finally:
                if is_sound and not self._is_disposed and not self._reserved:
                    self._reserved.append(proxied)
                else:
                    self._has_one_for_calls = bool(self._reserved)
                    proxied.invalidate()  # nor does the pool get one that is set up for calls

    @contextmanager
    def spare_connection(self) -> Iterator[Any]:
        """Lend a connection like `call_connection` that no call waits for. It is closed afterwards."""
        with self._turn(self._others):
            proxied = self._open_for_calls()
            try:
                yield proxied.driver_connection
            finally:
                proxied.invalidate()

    def _open_for_calls(self) -> PoolProxiedConnection:
        proxied = self.engine.raw_connection()
        driver: Any = proxied.driver_connection
        if not self.is_sqlite:
            driver.blocking_ms = _BLOCKING_MS
            driver.autocommit = True  # transactions begin and end with statements of our own, in the same round trip
            # What is prepared or set must outlive a transaction, which it does not through a pooler.
            driver.prepare_threshold = None if driver.is_pooled else 0
            if not driver.is_pooled:
                driver.execute(call_settings(is_local=False))
        return proxied

    # ---- connecting

    def _connect(self) -> PostgresConnection:
        seconds = seconds_left(_CONNECT_SECONDS)
        connect_timeout = max(2, math.ceil(seconds))  # libpq knows whole seconds, and none for the look-up of a name
        try:
            return in_time(lambda: self._opened(connect_timeout), seconds, abandoned=lambda opened: opened.close())
        except psycopg.OperationalError as error:
            # The server itself refused, as where it allows no more. The connection of calls says whether it works.
            if self._has_one_for_calls and "FATAL" in str(error):
                raise ConnectionsInUseError(f"no more connections: {error}") from error
            raise

    def _opened(self, connect_timeout: int) -> PostgresConnection:
        connection = PostgresConnection.connect(
            self.conninfo,
            connect_timeout=connect_timeout,
            autocommit=True,
            prepare_threshold=None,  # psycopg forgets what it prepared with every rollback, and so with every page
        )
        connection.statement_seconds = self.statement_seconds
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        connection.is_pooled = row is None or row[0] != connection.pgconn.backend_pid
        connection.autocommit = False
        return connection

    def _set_limits(self, connection: Connection) -> None:
        """Set the limits of a transaction. A pooler takes none at the connection's start, nor for longer."""
        seconds = seconds_left(self.statement_seconds)
        limits = {"statement_timeout": seconds, "lock_timeout": min(seconds, seconds_left(self.lock_seconds))}
        settings = [f"set_config('{name}', '{max(1, int(value * 1000))}', true)" for name, value in limits.items()]
        connection.exec_driver_sql(f"SELECT {', '.join(settings)}, set_config('DateStyle', 'ISO', true)")

    def dispose(self) -> None:
        """Close all connections; those that other threads are using as soon as they give them back."""
        self._is_disposed = True
        while self._reserved:
            self._reserved.pop().invalidate()
        self.engine.dispose(close=os.getpid() == self._pid)  # those in the pool of a forked child are its parent's

    def _returned(self, connection: Any, record: ConnectionPoolEntry) -> None:
        if connection is None:
            return
        if self._is_disposed:
            record.invalidate()
        elif not self.is_sqlite:
            connection.statement_seconds = self.statement_seconds


def _keep_the_pool(context: ExceptionContext) -> None:
    """One connection that was given up says nothing about the others."""
    if isinstance(context.original_exception, TimeoutError):
        context.invalidate_pool_on_disconnect = False


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


def _prepare_sqlite(engine: Engine, lock_seconds: float) -> None:
    @event.listens_for(engine, "do_connect")
    def connecting(*_: Any) -> None:
        _make_private(Path(engine.url.database or ""))

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA busy_timeout={round(1000 * _FOREIGN_LOCK_SECONDS)}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        give_up_at = time.monotonic() + seconds_left(lock_seconds)
        while True:
            try:
                connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
            except OperationalError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(_FOREIGN_LOCK_SECONDS)
            else:
                return
