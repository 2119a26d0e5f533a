"""Upgrade or downgrade the schema, and compare it with the models."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text

from router.db.models import Base
from router.db.session import Database

_BESIDE_THE_PACKAGE = Path(__file__).resolve().parents[2] / "migrations"
# If the package was copied into site-packages (bin/post_compile), the working directory is the checkout.
MIGRATIONS = _BESIDE_THE_PACKAGE if _BESIDE_THE_PACKAGE.is_dir() else Path.cwd() / "migrations"
_MADE = re.compile(r'op\.create_table\(\s*"(\w+)"')  # the tables that a migration creates, and its downgrade drops
_LOCK = 0x726F75746572  # "router": an advisory lock, for one release step at a time on PostgreSQL


@contextmanager
def _config(database: Database) -> Iterator[Config]:
    config = Config(attributes={})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    options = {"sqlite_begin": "BEGIN IMMEDIATE"}
    with (
        database.write_lock(),
        database.engine.connect().execution_options(**options) as connection,
        _without_foreign_keys(connection) if database.is_sqlite else nullcontext(),
        connection.begin(),
    ):
        if not database.is_sqlite:
            driver: Any = connection.connection.driver_connection
            driver.statement_seconds = math.inf  # for large tables
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            # The wait for a table's lock must be short, because it blocks all later users of the table.
            connection.execute(text(f"SET LOCAL lock_timeout = {int(1000 * database.lock_seconds)}"))
        config.attributes["connection"] = connection
        yield config


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Turn foreign keys off: SQLite drops and recreates a changed table, which would delete rows that refer to it."""
    execute = connection.connection.cursor().execute  # not by SQLAlchemy: in its transaction the pragma has no effect
    execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        execute("PRAGMA foreign_keys=ON")


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade the schema to this revision. Several release steps may run it at the same time."""
    with _config(database) as config:
        command.upgrade(config, revision)


class Losses(NamedTuple):
    """What a downgrade deletes: a line for each migration that it undoes, and for each table with its rows."""

    is_all: bool  # no migration is left
    lines: list[str]


def losses(database: Database, revision: str) -> Losses | None:
    """Return what `downgrade` to this revision would delete; None if it would do nothing. Raises RevisionError."""
    with _config(database) as config:
        connection: Connection = config.attributes["connection"]
        current = MigrationContext.configure(connection).get_current_revision()
        script = ScriptDirectory.from_config(config)
        undone = [] if current is None else list(script.iterate_revisions(current, revision, select_for_downgrade=True))
        if not undone:
            return None
        made = [table for one in undone for table in _MADE.findall(Path(one.path).read_text(encoding="utf-8"))]
        there = set(inspect(connection).get_table_names())
        lines = [f"{one.revision}: {one.doc}" for one in undone]
        for table in sorted(set(made) & there):
            count = connection.execute(select(func.count()).select_from(Table(table, MetaData()))).scalar()
            lines.append(f"table {table} with {count:,} rows")
        return Losses(undone[-1].down_revision is None, lines)


def downgrade(database: Database, revision: str = "base") -> None:
    """Downgrade the schema to this revision: tables and their rows are lost."""
    with _config(database) as config:
        command.downgrade(config, revision)


Standing = Literal["ok", "none", "behind", "ahead"]
"""How a schema stands to this release: as expected, not there, older, or unknown: of a later release, whose migrations
are safe for this one."""


def standing(database: Database) -> Standing:
    """Return whether the schema is that of this release, older, newer or missing, by one statement."""
    head, known = revisions()
    with database.engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return "none"
    if revision == head:
        return "ok"
    return "behind" if revision in known else "ahead"


@cache
def revisions() -> tuple[str | None, frozenset[str]]:
    """Return the newest revision of this release, and all of them. They are read from files once."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def is_at_head(database: Database) -> bool:
    """Return whether every migration is applied."""
    return standing(database) == "ok"


def differences(database: Database) -> list[str]:
    """Return where the schema differs from the models; [] when it does not."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]
