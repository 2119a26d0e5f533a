"""Bring the schema up or down, and tell whether it is the one that the models describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from router.db.models import Base
from router.db.session import Database

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_LOCK = 0x726F75746572  # "router": one release step at a time on PostgreSQL


@contextmanager
def _config(database: Database) -> Iterator[Config]:
    config = Config(attributes={})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    options = {"sqlite_begin": "BEGIN IMMEDIATE"}
    with database.write_lock(), database.engine.connect().execution_options(**options) as connection:
        if database.is_sqlite:
            # A table made anew is dropped in between, which would delete what refers to it.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.commit()
        with connection.begin():
            if not database.is_sqlite:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config.attributes["connection"] = connection
            yield config
        if database.is_sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            connection.commit()


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema up to this revision. Safe to run in several release steps at once."""
    with _config(database) as config:
        command.upgrade(config, revision)


def downgrade(database: Database, revision: str = "base") -> None:
    """Bring the schema down to this revision: tables and their rows are lost."""
    with _config(database) as config:
        command.downgrade(config, revision)


def new_revision(database: Database, message: str) -> None:
    """Write a migration from the schema of this database to the models, to be read and mended by hand."""
    with _config(database) as config:
        command.revision(config, message, autogenerate=True)


def is_at_head(database: Database) -> bool:
    """Is every migration applied?"""
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


def differences(database: Database) -> list[str]:
    """Where the schema is not what the models describe; [] when it is."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]
