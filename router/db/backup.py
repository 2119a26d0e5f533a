"""Copy the SQLite database while calls go on, and check such a copy. PostgreSQL has tools of its own."""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from psycopg.conninfo import make_conninfo
from sqlalchemy import func, select

from router.config import read_conninfo
from router.db import migrate
from router.db.failures import OperatorError
from router.db.keys import check_secrets
from router.db.models import Decision, Project
from router.db.session import Database


class BackupError(OperatorError):
    """The copy cannot be made or used. The message holds the fault and the remedy."""


class Checked(NamedTuple):
    """The contents of a copy. `unreadable`: the places of secrets that the present keys do not decrypt."""

    schema: migrate.Standing
    projects: int
    calls: int
    secrets: int
    unreadable: list[str]


def back_up(database: Database, target: Path) -> int:
    """Copy the database as it is at one instant to a new file with mode 0600; return the file's size in bytes.

    SQLite's backup runs in one step: like any reader, it neither delays calls nor is restarted by their writes.
    https://www.sqlite.org/backup.html
    """
    if not database.is_sqlite:
        raise BackupError(f"the database is PostgreSQL, which has a tool for it: {_pg_dump(database, target)}")
    source = Path(database.engine.url.database or "")
    if not source.exists():
        raise BackupError(f"there is no database at {source}: run `router db upgrade`")
    if target.exists():
        raise BackupError(f"{target} exists: choose another name, or remove it")
    if not target.parent.is_dir():
        raise BackupError(f"there is no folder {target.parent}: make it, or choose another")
    # In the target's folder, so that an unfinished copy never has its name.
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as part:
        fresh = Path(part.name)
    try:
        with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(fresh)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without those of WAL
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)
    return target.stat().st_size


def _pg_dump(database: Database, target: Path) -> str:
    # Without the password: pg_dump asks for it, or reads it from PGPASSWORD.
    address = {name: said for name, said in read_conninfo(database.url).items() if name != "password"}
    return shlex.join(["pg_dump", "--format=custom", f"--file={target}", f"--dbname={make_conninfo(**address)}"])


def check_backup(path: Path, *, was_stopped: bool = False) -> Checked:
    """Check that a copy is whole, consistent, of a known release, and its secrets readable with the present keys.

    `was_stopped`: no process had the database open when it was copied. Changes nothing. Raises BackupError.
    """
    if not path.is_file():
        raise BackupError(f"there is no file {path}")
    beside = path.with_name(f"{path.name}-wal")
    if beside.exists() and beside.stat().st_size:
        raise BackupError(
            f"{path} is a bare copy of a database that was in use, and what was written last lies in {beside.name}: "
            "make a whole one with `router backup`"
        )
    if _is_live(path) and not was_stopped:
        raise BackupError(
            f"{path} is a bare copy of a database that may have been in use: then what was written last is missing. "
            "Make a whole one with `router backup`; if the service was stopped when it was copied, add --was-stopped"
        )
    try:
        with closing(_open_read_only(path)) as copy:
            faults = [row[0] for row in copy.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            faults += [
                f"{table} refers to rows that are not there" for table, *_ in copy.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.Error as error:
        raise BackupError(f"{path} is no SQLite database, or it is damaged ({error}): take another one") from None
    if faults:
        raise BackupError(f"{path} is damaged ({'; '.join(faults[:3])}): take another one")
    return _check_contents(path)


def _is_live(path: Path) -> bool:
    """Return whether the file's header says that a log (WAL) belongs to it. Our backups need none.

    https://www.sqlite.org/fileformat2.html#file_format_version_numbers
    """
    with path.open("rb") as opened:
        header = opened.read(20)
    return header.startswith(b"SQLite format 3\x00") and 2 in header[18:20]


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)


def _check_contents(path: Path) -> Checked:
    # A copy of the copy, because opening a database creates files beside it.
    with tempfile.TemporaryDirectory(prefix="router-check-") as folder:
        looked_at = Path(folder) / "copy.db"
        with closing(_open_read_only(path)) as source, closing(sqlite3.connect(looked_at)) as copy:
            source.backup(copy)
        database = Database(f"sqlite+pysqlite:///{looked_at}")
        try:
            schema = migrate.standing(database)
            if schema != "ok":
                return Checked(schema, 0, 0, 0, [])
            with database.reading() as session:
                projects = session.scalar(select(func.count()).select_from(Project)) or 0
                calls = session.scalar(select(func.count()).select_from(Decision)) or 0
                return Checked(schema, projects, calls, *check_secrets(session))
        finally:
            database.dispose()
