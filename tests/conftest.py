"""What many tests need: real databases, empty or migrated, and a guard that lets them talk to this machine only.

Fixtures give bare URLs. One PostgreSQL server serves all worker processes of a run; TEST_DATABASE_URL names another,
whose user may create databases.
"""

from __future__ import annotations

import fcntl
import gc
import ipaddress
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from simulator.postgres import server_in

_RUN_FOLDER = "ROUTER_TEST_RUN_FOLDER"
_POSTGRES_SETTINGS = """
max_connections = 300
# Nothing here has to survive a crash of the machine.
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
"""

_COMPILED: dict[tuple[object, ...], dict[str, Any]] = {}
_compile = Rule.compile


def _compile_once(rule: Rule) -> None:
    """Many tests make an app of their own: to compile the same addresses for each took most of that."""
    if rule.defaults:
        return _compile(rule)
    key = (rule.rule, rule.subdomain, rule.strict_slashes, rule.merge_slashes)
    if key not in _COMPILED:
        _compile(rule)
        _COMPILED[key] = {name: getattr(rule, name) for name in ("_parts", "_trace", "_converters", "arguments")}
        _COMPILED[key] |= {name: getattr(rule, name).__func__ for name in ("_build", "_build_unknown")}
        return None
    for name, value in _COMPILED[key].items():
        setattr(rule, name, value.__get__(rule) if name.startswith("_build") else value)
    return None


Rule.compile = _compile_once  # type: ignore[assignment,method-assign]

# Many tests have an engine of their own too: to compile the same statements for each took half of the processor's time.
# Dialects of one kind speak the same SQL, and the caches of statements (the ORM's too) have them in their keys.
_STATEMENTS: LRUCache[Any, Any] = LRUCache(2000)
DefaultDialect.__hash__ = lambda dialect: hash(type(dialect))  # type: ignore[assignment,method-assign]
DefaultDialect.__eq__ = lambda dialect, other: type(dialect) is type(other)  # type: ignore[method-assign]


@event.listens_for(Engine, "engine_connect")
def _compile_statements_once(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_STATEMENTS)
    if connection.dialect.name == "sqlite":
        # Nothing here has to survive a crash of the machine. In a transaction SQLite forbids it.
        connection.connection.cursor().execute("PRAGMA synchronous=OFF")


gc.set_threshold(20_000, 50, 100)  # thousands of tests leave little behind that lives long


def pytest_collection_finish() -> None:
    gc.freeze()  # what is loaded by now stays until the end, and is looked through no more


# A noisy machine makes no test fail by being slow once. In CI the examples are the same for the same code.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Before the worker processes start: a folder that they share."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="router-tests-")
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as a user of its own, who must get in
        os.environ[_RUN_FOLDER] = folder
        # Many processes are started: each module is compiled for all of them once, not for each anew.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.addaudithook(_loopback_only)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait, for a lease to run out or for something not to happen."""
    if sys.platform == "linux":
        processors = len(os.sched_getaffinity(0))  # a container may have a share of them
    else:
        processors = os.cpu_count() or 1
    return processors + 1


def pytest_unconfigure(config: pytest.Config) -> None:
    """After the last worker process: stop PostgreSQL, whoever started it and however that one ended."""
    if hasattr(config, "workerinput"):
        return
    folder = Path(os.environ.pop(_RUN_FOLDER))
    if (folder / "postgres" / "postmaster.pid").exists():
        server = server_in(folder)
        server.start()  # finds the running one, if it still runs
        server.stop()
    elif (given := _given_server()) and (folder / "template.done").exists():
        _drop_database(given, _template_name(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _given_server() -> str | None:
    given = os.environ.get("TEST_DATABASE_URL")
    if not given:
        return None
    url = make_url(given.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def _loopback_only(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0])
    if host != "localhost" and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise AssertionError(f"A test connected to {host}: tests talk to this machine only.")


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """One worker process of the run at a time. Gives the run's folder."""
    folder = Path(os.environ[_RUN_FOLDER])
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a real PostgreSQL server's maintenance database, as its superuser."""
    if given := _given_server():
        return given
    with _alone("postgres") as folder:
        server = server_in(folder)
        if not (server.pgdata / "PG_VERSION").exists():
            server.ensure_pgdata_inited()
            with (server.pgdata / "postgresql.conf").open("a") as settings:
                settings.write(_POSTGRES_SETTINGS)
        server.start()
    return str(server.get_uri())


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A PostgreSQL database of this test's own, empty."""
    name = _create_database(postgres_server, template="template0")
    yield _url_of(postgres_server, name)
    _drop_database(postgres_server, name)


@pytest.fixture(scope="session")
def emptied(postgres_server: str) -> Iterator[list[str]]:
    """The names of migrated databases that are empty again: a new one takes a quarter of a second."""
    names: list[str] = []
    yield names
    for name in names:
        _drop_database(postgres_server, name)


@pytest.fixture
def migrated_postgres_url(postgres_server: str, emptied: list[str]) -> Iterator[str]:
    """A PostgreSQL database of this test's own, empty, at the newest schema."""
    name = emptied.pop() if emptied else _new_migrated_database(postgres_server)
    yield _url_of(postgres_server, name)
    try:
        _empty(_url_of(postgres_server, name))
    except (psycopg.Error, _ChangedSchemaError):
        _drop_database(postgres_server, name)
    else:
        emptied.append(name)


def _new_migrated_database(postgres_server: str) -> str:
    """Its name: a copy of one that was migrated once per run."""
    with _alone("template") as folder:
        name = _template_name(folder)
        done = folder / "template.done"
        if not done.exists():
            _drop_database(postgres_server, name)  # half made, when a migration failed for the test before
            _run(postgres_server, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            _upgrade(_url_of(postgres_server, name))
            done.touch()
    fresh = _create_database(postgres_server, template=name)
    if not _schemas:
        with closing(psycopg.connect(_address(_url_of(postgres_server, fresh)), autocommit=True)) as connection:
            _schemas.add(_schema(connection))
    return fresh


class _ChangedSchemaError(Exception):
    """The test did more to the database than fill it."""


# Copies of one database have the same object ids. Views of the catalog would say it in words, in three times as long.
_SCHEMA = """
SELECT sum(hashtextextended(line, 0)) FROM (
  SELECT concat_ws(' ', attrelid, attname, atttypid, attnotnull, atthasdef) line
    FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0
  UNION ALL SELECT 'default ' || oid FROM pg_attrdef
  UNION ALL SELECT concat_ws(' ', 'index', indexrelid, indkey) FROM pg_index WHERE indrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'constraint', oid, conrelid, contype) FROM pg_constraint WHERE conrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'trigger', oid, tgname) FROM pg_trigger
  UNION ALL SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE d.datname = current_database()
  UNION ALL SELECT version_num FROM alembic_version) all_there_is
"""


_schemas: set[str] = set()  # the one that migrated databases have


def _schema(connection: psycopg.Connection) -> str:
    ((digest,),) = connection.execute(_SCHEMA).fetchall()
    return str(digest)


def _empty(url: str) -> None:
    """Delete every row and begin every sequence anew. Raises _ChangedSchemaError."""
    with closing(psycopg.connect(_address(url), autocommit=True)) as connection:
        connection.execute("SET lock_timeout = '5s'; SET session_replication_role = replica")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        if _schema(connection) not in _schemas:
            raise _ChangedSchemaError
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchall()
        connection.execute(sql.SQL("; ").join(sql.SQL("DELETE FROM {}").format(sql.Identifier(*row)) for row in tables))
        connection.execute(
            "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences"
        )


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database of this test's own; there is no file yet."""
    return f"sqlite+pysqlite:///{tmp_path / 'router.db'}"


@pytest.fixture
def migrated_sqlite_url(tmp_path: Path, sqlite_url: str) -> str:
    """A SQLite database of this test's own, at the newest schema: a copy of one that was migrated once per run."""
    with _alone("sqlite") as folder:
        template = folder / "template.db"
        if not template.exists():
            _upgrade(f"sqlite+pysqlite:///{folder / 'migrating.db'}")
            (folder / "migrating.db").rename(template)
    shutil.copyfile(template, tmp_path / "router.db")
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of this test's own, on each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["sqlite", "postgres"])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """A database of this test's own, at the newest schema, on each kind in turn."""
    return str(request.getfixturevalue(f"migrated_{request.param}_url"))


def _create_database(server: str, *, template: str) -> str:
    name = f"router_test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    _run(server, create.format(sql.Identifier(name), sql.Identifier(template)))
    return name


def _drop_database(server: str, name: str) -> None:
    _run(server, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _template_name(folder: Path) -> str:
    return f"router_template_{folder.name.rpartition('-')[2].lower()}"


def _url_of(server: str, database: str) -> str:
    url = make_url(server).set(drivername="postgresql+psycopg", database=database)
    return url.render_as_string(hide_password=False)


def _address(url: str) -> str:
    """For the driver itself."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _run(server: str, statement: sql.Composed) -> None:
    with closing(psycopg.connect(server, autocommit=True)) as connection:
        connection.execute(statement)


def _upgrade(url: str) -> None:
    # Late: the rules' own tests need no database.
    database = import_module("router.db.session").Database(url)
    import_module("router.db.migrate").upgrade(database)
    database.dispose()
