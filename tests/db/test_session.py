"""Locks and connections: between processes and threads, after a fork, and when whoever holds them dies."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from router.db.pipeline import Pipeline, prepare_statements
from router.db.session import Database, DatabaseBusyError, FileLock
from tests.db.slow_wire import wire_to

STATEMENTS = prepare_statements({"ONE": "SELECT 1", "WHO": "SELECT pg_backend_pid()"})


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def is_taken(lock: FileLock) -> bool:
    try:
        lock.acquire(time.monotonic())
    except DatabaseBusyError:
        return True
    lock.release()
    return False


HOLDER = """
import sys, time
from pathlib import Path
from router.db.session import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire(time.monotonic() + 5)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


def run_script(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# ---- the lock file


def test_another_process_waits_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with run_script(HOLDER, path) as holder:
        assert hear(holder) == "held"
        lock = FileLock(path)
        began = time.monotonic()
        with pytest.raises(DatabaseBusyError, match="locked by another process"):
            lock.acquire(began + 0.1)
        assert 0.1 <= time.monotonic() - began < 5
        threading.Timer(0.05, tell, [holder]).start()
        lock.acquire(soon())
        lock.release()
        tell(holder)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with run_script(HOLDER, path) as holder:
        assert hear(holder) == "held"
        assert is_taken(FileLock(path))
        holder.send_signal(signal.SIGKILL)
        FileLock(path).acquire(soon())


def test_another_thread_waits_for_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    order: list[str] = []

    def other() -> None:
        assert is_taken(lock)
        lock.acquire(soon())
        order.append("other")
        lock.release()

    lock.acquire(soon())
    thread = threading.Thread(target=other)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    lock.release()
    thread.join()
    assert order == ["first", "other"]


def test_threads_take_turns(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    inside: list[int] = []
    overlaps: list[list[int]] = []

    def work(number: int) -> None:
        for _ in range(20):
            lock.acquire(soon(30))
            inside.append(number)
            if len(inside) > 1:
                overlaps.append(list(inside))
            inside.remove(number)
            lock.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []


def test_a_forked_child_has_a_lock_of_its_own(tmp_path: Path) -> None:
    """flock() lets through whoever shares the open file, so a child must open its own."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire(soon())
    assert _in_fork(lambda: is_taken(lock)) is True
    lock.release()
    assert _in_fork(lambda: is_taken(lock)) is False


def test_a_killed_process_frees_the_lock_though_its_child_lives_on(tmp_path: Path) -> None:
    script = """
import os, sys, threading, time
from pathlib import Path
from router.db.session import FileLock
lock = FileLock(Path(sys.argv[1]))
held, forked = threading.Event(), threading.Event()
def hold():
    lock.acquire(time.monotonic() + 5)
    held.set()
    time.sleep(60)
threading.Thread(target=hold, daemon=True).start()
held.wait(5)
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
    path = tmp_path / "lock"
    with run_script(script, path) as parent:
        child = int(hear(parent))
        try:
            assert is_taken(FileLock(path))
            parent.send_signal(signal.SIGKILL)
            FileLock(path).acquire(soon(2))
        finally:
            os.kill(child, signal.SIGKILL)


def test_threads_that_come_and_go_leave_no_open_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")

    def use() -> None:
        lock.acquire(soon())
        lock.release()

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert open_files() <= before + 1


# ---- a thread's own connection


def test_a_thread_keeps_its_own_connection(migrated_sqlite_url: str) -> None:
    database = Database(migrated_sqlite_url)
    made: list[object] = []

    def connect() -> sqlite3.Connection:
        made.append(threading.get_ident())
        return database.connect_sqlite()

    first = database.own_connection(connect)
    assert database.own_connection(connect) is first
    thread = threading.Thread(target=lambda: database.own_connection(connect).close())
    thread.start()
    thread.join()
    assert len(made) == 2
    database.forget_connection()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")
    assert database.own_connection(connect) is not first
    database.dispose()


def test_a_forked_child_neither_uses_nor_closes_its_parents_connection(migrated_postgres_url: str) -> None:
    database = Database(migrated_postgres_url)

    def connect() -> Pipeline:
        return Pipeline(database.conninfo, STATEMENTS, soon())

    def who() -> object:
        return database.own_connection(connect).run([("WHO", {})], soon())

    def who_of_the_pool() -> object:
        with database.reading() as session:
            return session.scalar(text("SELECT pg_backend_pid()"))

    parents, of_the_pool = who(), who_of_the_pool()
    assert _in_fork(lambda: who() != parents), "a child speaks on a connection of its own"
    assert who() == parents

    def forget() -> bool:
        database.dispose()
        return True

    assert _in_fork(forget)
    assert (who(), who_of_the_pool()) == (parents, of_the_pool), "what a child forgets goes on for its parent"
    database.dispose()


def _in_fork(question: object) -> bool | None:
    """What a forked child answers; None when it failed."""
    assert callable(question)
    child = os.fork()
    if child == 0:
        status = 2
        with suppress(BaseException):
            status = int(bool(question()))
        os._exit(status)
    _, status = os.waitpid(child, 0)
    return {0: False, 1: True}.get(os.waitstatus_to_exitcode(status))


# ---- transactions


def test_what_is_read_is_not_kept_and_what_is_written_is(migrated_url: str) -> None:
    database = Database(migrated_url)
    insert = text("INSERT INTO sign_in_failures (key, failures, last_at) VALUES (:key, 1, 0)")
    count = text("SELECT count(*) FROM sign_in_failures")
    with database.reading() as session:
        session.execute(insert, {"key": "read"})
    with suppress(ZeroDivisionError), database.writing() as session:
        session.execute(insert, {"key": "failed"})
        raise ZeroDivisionError
    with database.writing() as session:
        session.execute(insert, {"key": "written"})
    with database.reading() as session:
        assert session.scalar(count) == 1
    database.dispose()


def test_writers_queue_on_sqlite_within_their_patience(migrated_sqlite_url: str) -> None:
    database, impatient = Database(migrated_sqlite_url), Database(migrated_sqlite_url, lock_seconds=0.1)
    insert = text("INSERT INTO sign_in_failures (key, failures, last_at) VALUES ('held', 1, 0)")
    with database.writing() as session:
        session.execute(insert)
        failed: list[type[BaseException]] = []

        def try_to_write() -> None:
            try:
                with impatient.writing():
                    pass
            except DatabaseBusyError as error:
                failed.append(type(error))

        thread = threading.Thread(target=try_to_write)
        thread.start()
        thread.join()
        assert failed == [DatabaseBusyError]
        with impatient.reading() as reader:
            assert reader.scalar(text("SELECT count(*) FROM sign_in_failures")) == 0, "who reads need not wait"
    with impatient.writing() as session:
        assert session.scalar(text("SELECT count(*) FROM sign_in_failures")) == 1
    database.dispose()
    impatient.dispose()


def test_a_statement_that_takes_too_long_is_ended_by_postgresql(migrated_postgres_url: str) -> None:
    database = Database(migrated_postgres_url, statement_seconds=0.1)
    began = time.monotonic()
    with pytest.raises(DBAPIError, match="statement timeout"), database.reading() as session:
        session.execute(text("SELECT pg_sleep(10)"))
    assert time.monotonic() - began < 5
    database.dispose()


def test_the_clock_is_the_databases(migrated_url: str) -> None:
    database = Database(migrated_url)
    before = time.time()
    with database.reading() as session:
        now = database.now(session)
        assert now.tzinfo is not None
        # In a transaction too it is the time now, not when that began.
        time.sleep(0.01)
        assert database.now(session) > now
    assert before - 1 < now.timestamp() < time.time() + 1
    database.dispose()


def test_text_is_utf8_whatever_the_database_prefers(migrated_postgres_url: str) -> None:
    database = Database(migrated_postgres_url)
    name = database.engine.url.database
    with database.writing() as session:
        session.execute(text(f'ALTER DATABASE "{name}" SET client_encoding TO latin1'))
    statements = prepare_statements({"LENGTH": "SELECT length(:text::text)"})
    pipeline = Pipeline(database.conninfo, statements, soon())
    assert pipeline.run([("LENGTH", {"text": "Київ"})], soon()) == [[(b"4",)]]
    pipeline.close()
    database.dispose()
    with database.reading() as session:  # on a connection made since
        assert session.scalar(text("SELECT 'Київ'")) == "Київ"
    database.dispose()


def test_what_another_thread_uses_is_closed_when_it_gives_it_back(migrated_url: str) -> None:
    database = Database(migrated_url)
    with database.reading() as session:
        driver: Any = session.connection().connection.dbapi_connection
        thread = threading.Thread(target=database.dispose)
        thread.start()
        thread.join()
        assert session.scalar(text("SELECT 1")) == 1, "who is still reading reads on"
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        driver.execute("SELECT 1")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_server_that_vanished_is_waited_for_seconds_not_minutes(migrated_postgres_url: str) -> None:
    """By the kernel: without limits of ours it sends again for a quarter of an hour, and asks the idle after hours."""
    url = make_url(migrated_postgres_url)
    name = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with wire_to(make_conninfo(name)) as wire:
        port = str(conninfo_to_dict(wire.conninfo)["port"])
        database = Database(
            url.set(host="127.0.0.1", port=int(port), query={"sslmode": "disable"}).render_as_string(
                hide_password=False
            )
        )
        with database.reading() as session:
            driver: Any = session.connection().connection.dbapi_connection
            pipeline = Pipeline(database.conninfo, STATEMENTS, soon())
            for fd in (driver.fileno(), pipeline._pq.socket):
                with socket.socket(fileno=os.dup(fd)) as end:
                    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    limits = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                    assert [end.getsockopt(socket.IPPROTO_TCP, limit) for limit in limits] == [5000, 5, 2, 3]
            pipeline.close()
        database.dispose()


def test_a_connection_that_the_server_has_ended_fails_nobody(migrated_postgres_url: str) -> None:
    database, other = Database(migrated_postgres_url), Database(migrated_postgres_url)
    with database.reading() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    with other.reading() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with database.reading() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid
    database.dispose()
    other.dispose()
