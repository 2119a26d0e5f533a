"""The schema: up, down and up again, just what the models describe, and safe to migrate from several places at once."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, inspect, text

from router.db import migrate, models
from router.db.models import Base
from router.db.session import Database

UPGRADE = """
import sys
from router.db import migrate
from router.db.session import Database
database = Database(sys.argv[1])
sys.stdin.readline()
migrate.upgrade(database)
database.dispose()
"""


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_goes_up_down_and_up_again(database_url: str) -> None:
    database = Database(database_url)
    assert not migrate.is_at_head(database)
    migrate.upgrade(database)
    assert migrate.is_at_head(database)
    assert tables(database) == set(Base.metadata.tables)
    migrate.downgrade(database, "-1")
    assert not migrate.is_at_head(database)
    migrate.downgrade(database)
    assert tables(database) == set()
    migrate.upgrade(database)
    assert migrate.is_at_head(database)
    assert migrate.differences(database) == []
    database.dispose()


def test_models_match_head(migrated_url: str) -> None:
    database = Database(migrated_url)
    assert migrate.differences(database) == []
    migrate.upgrade(database)  # with nothing to do
    with database.writing() as session:
        session.execute(text("ALTER TABLE agents ADD COLUMN forgotten INTEGER"))
    (difference,) = migrate.differences(database)
    assert "forgotten" in difference
    database.dispose()


def test_two_release_steps_at_once_do_not_meet(database_url: str) -> None:
    steps = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=migrate.MIGRATIONS.parent,
        )
        for _ in range(2)
    ]
    for step in steps:
        assert step.stdin is not None
        step.stdin.write("\n")
        step.stdin.flush()
    assert [(step.communicate()[1], step.returncode) for step in steps] == [("", 0)] * 2
    database = Database(database_url)
    assert migrate.differences(database) == []
    database.dispose()


def test_waits_for_a_release_step_that_takes_longer_than_a_call_may_wait(postgres_url: str) -> None:
    first, second = Database(postgres_url), Database(postgres_url, lock_seconds=0.1, statement_seconds=0.1)
    with ThreadPoolExecutor() as pool:
        with migrate._config(first):
            waiting = pool.submit(migrate.upgrade, second)
            with suppress(TimeoutError):
                waiting.result(timeout=0.5)
            assert not waiting.done()
        waiting.result(timeout=60)
    assert migrate.is_at_head(first)
    with second.reading() as session:
        assert session.scalar(text("SHOW lock_timeout")) == "100ms", "who reads is not that patient"
    first.dispose()
    second.dispose()


def test_a_migration_that_fails_leaves_nothing_half_done(database_url: str) -> None:
    database = Database(database_url)
    with suppress(RuntimeError), migrate._config(database) as config:
        command.upgrade(config, "head")
        raise RuntimeError("the power went off")
    assert tables(database) == set()
    migrate.upgrade(database)
    assert migrate.differences(database) == []
    database.dispose()


def test_a_table_made_anew_on_sqlite_keeps_what_refers_to_it(migrated_sqlite_url: str) -> None:
    """SQLite drops the old table, which deletes what refers to its rows, where foreign keys hold just then."""
    database = Database(migrated_sqlite_url)
    with database.writing() as session:
        session.add(models.Project(name="acme", created_at=datetime.now(UTC)))
        session.flush()
        session.add(models.Agent(project_id=1, name="Alice"))
    with migrate._config(database) as config:
        operations = Operations(MigrationContext.configure(config.attributes["connection"]))
        with operations.batch_alter_table("projects", recreate="always") as table:
            table.add_column(Column("colour", Integer))
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM agents").scalars().all() == ["Alice"]
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1, "and they hold again"
    with suppress(RuntimeError), migrate._config(database):
        raise RuntimeError("the power went off")
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1, "whatever happened"
    database.dispose()


def test_migrations_stand_in_one_line_and_sort_by_their_date() -> None:
    scripts = ScriptDirectory(str(migrate.MIGRATIONS))
    assert len(scripts.get_heads()) == 1
    line = [Path(script.path).stem for script in scripts.walk_revisions()]
    assert line == sorted(line, reverse=True)
    assert all(re.fullmatch(r"\d{4}_\d\d_\d\d_\w+", name) for name in line)
