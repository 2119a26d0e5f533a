"""What the service needs: each fault is found with its remedy, told by the command, the log, /readyz and the board, and
refuses a start in production where no waiting mends it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import requests
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.engine import make_url

from router import check
from router.check import Finding
from router.cli import main
from router.config import Settings
from router.db import migrate
from router.db.models import Base
from router.db.session import Database
from router.metrics import count_degraded
from simulator.processes import CLOSE, Server, free_port, gunicorn
from tests.admin.conftest import Admin
from tests.db.slow_wire import wire_to
from tests.desk import SECRET, Desk

PASSWORD = "hunter2 w/o:rd?#"  # of a role that these tests make, with every sign that an address may not have


def settings_of(url: str, **environ: str) -> Settings:
    return Settings.load({"DATABASE_URL": url, "SECRET_KEY": SECRET, **environ})


def found(url: str, *, seconds: float = 30, **environ: str) -> list[Finding]:
    return check.look_at_start(settings_of(url, **environ), seconds=seconds, without=["presence"])


def errors(url: str, *, seconds: float = 30, **environ: str) -> list[Finding]:
    return [finding for finding in found(url, seconds=seconds, **environ) if finding.is_error]


def only_error(url: str, *, seconds: float = 30, **environ: str) -> Finding:
    (finding,) = errors(url, seconds=seconds, **environ)
    assert finding.remedy, finding
    return finding


def refuses(url: str, **environ: str) -> bool:
    """Would a start in production be refused?"""
    settings = settings_of(url, ENVIRONMENT="production", **environ)
    return bool(check.refusal(settings, check.look_at_start(settings, without=["presence"])))


def run(*command: str, url: str, **environ: str) -> Result:
    environment: dict[str, str | None] = {"DATABASE_URL": url, "SECRET_KEY": SECRET, **environ}
    return CliRunner().invoke(main, command, env=environment)


def driver_address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def execute(url: str, *statements: str) -> None:
    with closing(psycopg.connect(driver_address(url), autocommit=True)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)


def path_of(url: str) -> Path:
    return Path(url.partition("///")[2])


@pytest.fixture
def role(postgres_server: str) -> Iterator[str]:
    """A role of this test's own, which may do what anybody may."""
    name = f"router_role_{secrets.token_hex(4)}"
    execute(postgres_server, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    execute(postgres_server, f"DROP ROLE {name}")


@pytest.fixture
def served(migrated_postgres_url: str, role: str) -> Iterator[str]:
    """A database at the newest schema whose tables the role may read and write, as that role."""
    execute(
        migrated_postgres_url,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    yield as_role(migrated_postgres_url, role)
    execute(migrated_postgres_url, "GRANT USAGE ON SCHEMA public TO public", f"DROP OWNED BY {role}")


@contextmanager
def database_in(encoding: str, server: str) -> Iterator[str]:
    """An empty database in this encoding."""
    name = f"router_test_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


# ---- all in order


def test_where_all_is_in_order_nothing_is_wrong_and_a_call_was_rehearsed(migrated_url: str) -> None:
    findings = found(migrated_url)
    assert [finding for finding in findings if finding.is_error] == []
    assert {"settings", "database", "schema", "calls", "secrets"} <= {finding.check for finding in findings}
    assert not refuses(migrated_url)


def test_of_a_rehearsed_call_nothing_stays(migrated_url: str) -> None:
    with closing(Desk(migrated_url)) as desk:

        def rows() -> dict[str, Any]:
            with desk.database.reading() as session:
                counts = {name: f"SELECT count(*) FROM {name}" for name in Base.metadata.tables}  # noqa: S608
                return {name: session.execute(text(query)).scalar_one() for name, query in counts.items()}

        desk.ask(call_id="1", caller="0501112233")
        before = rows()
        assert errors(migrated_url) == []
        assert errors(migrated_url) == []
        assert rows() == before


def test_a_call_waits_for_no_rehearsal(migrated_postgres_url: str) -> None:
    with closing(Desk(migrated_postgres_url)) as desk, desk.database.spare_connection():
        desk.database.reserve()


@pytest.mark.parametrize(
    "setting",
    [
        "DateStyle = 'German'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "TimeZone = 'Asia/Kathmandu'",
        "extra_float_digits = -15",
        "plan_cache_mode = 'force_custom_plan'",
        "statement_timeout = '1d'",
    ],
)
def test_what_is_set_for_the_role_disturbs_no_call(served: str, role: str, setting: str, postgres_server: str) -> None:
    execute(postgres_server, f"ALTER ROLE {role} SET {setting}")
    assert errors(served) == []


def test_whoever_may_not_make_tables_may_answer_calls(served: str) -> None:
    (rights,) = [finding for finding in found(served) if finding.check == "rights"]
    assert rights.state == "ok"
    assert "router db upgrade" in rights.found


# ---- the schema


@pytest.mark.parametrize("revision", ["base", "-1"])
def test_an_older_schema_names_the_release_step_and_refuses_the_start(migrated_url: str, revision: str) -> None:
    database = Database(migrated_url)
    migrate.downgrade(database, revision)
    finding = only_error(migrated_url)
    assert (finding.check, finding.command, finding.lasts) == ("schema", "router db upgrade", True)
    assert refuses(migrated_url)
    migrate.upgrade(database)
    database.dispose()
    assert errors(migrated_url) == []


def test_a_schema_of_the_next_release_is_told_and_does_not_stop_the_start(migrated_url: str) -> None:
    database = Database(migrated_url)
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))
    database.dispose()
    (schema,) = [finding for finding in found(migrated_url) if finding.check == "schema"]
    assert schema.state == "ok"
    assert "newer release" in schema.found
    assert not refuses(migrated_url)


def test_to_look_at_a_file_that_is_not_there_does_not_make_it(sqlite_url: str) -> None:
    assert only_error(sqlite_url).check == "schema"
    assert not path_of(sqlite_url).exists()


def test_a_statement_that_fails_is_found_though_the_schema_looks_right(migrated_url: str) -> None:
    database = Database(migrated_url)
    with database.writing() as session:
        session.execute(text("ALTER TABLE decisions RENAME COLUMN destination TO elsewhere"))
    database.dispose()
    finding = only_error(migrated_url)
    assert (finding.check, finding.lasts) == ("calls", True)
    assert finding.error in {"UndefinedColumn", "OperationalError"}


# ---- a server as people have it


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_foreign_encoding_refuses_the_start_and_the_release_step(encoding: str, postgres_server: str) -> None:
    with database_in(encoding, postgres_server) as url:
        finding = only_error(url)
        assert (finding.check, finding.lasts) == ("encoding", True)
        assert encoding in finding.found
        assert "ENCODING 'UTF8' TEMPLATE template0" in finding.command
        assert refuses(url)
        upgraded = run("db", "upgrade", url=url)
        assert upgraded.exit_code == 1
        (line,) = upgraded.stderr.splitlines()
        assert "ENCODING 'UTF8' TEMPLATE template0" in line
        with closing(psycopg.connect(url)) as connection:
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_an_old_server_is_refused(migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.check.OLDEST_POSTGRES", 99)
    finding = only_error(migrated_postgres_url)
    assert (finding.check, finding.lasts) == ("database", True)
    assert "99 or newer" in finding.remedy


def test_a_role_that_may_make_no_tables_is_refused_before_there_are_any(postgres_url: str, role: str) -> None:
    url = as_role(postgres_url, role)
    finding = only_error(url)
    assert (finding.check, finding.lasts, finding.error) == ("rights", True, "InsufficientPrivilege")
    assert run("db", "upgrade", url=url).exit_code == 1
    execute(postgres_url, *finding.command.splitlines())
    assert only_error(url).check == "schema"
    assert run("db", "upgrade", url=url).exit_code == 0
    assert errors(url) == []
    execute(postgres_url, f"DROP OWNED BY {role}")


@pytest.mark.parametrize(
    "revoked",
    [
        "INSERT ON decisions",
        "UPDATE ON reservations",
        "DELETE ON reserved_phones",
        "SELECT ON presence_snapshots",
        "ALL ON ALL TABLES IN SCHEMA public",
        "SELECT ON alembic_version",
        "USAGE ON SEQUENCE decisions_id_seq",
    ],
)
def test_a_right_that_is_missing_is_found_and_the_remedy_gives_it(
    served: str, migrated_postgres_url: str, role: str, revoked: str
) -> None:
    execute(migrated_postgres_url, f"REVOKE {revoked} FROM {role}")
    finding = only_error(served)
    assert (finding.check, finding.lasts, finding.error) == ("rights", True, "InsufficientPrivilege")
    assert role not in finding.found
    assert refuses(served)
    execute(migrated_postgres_url, *finding.command.splitlines())
    assert errors(served) == []


def test_a_schema_that_may_not_be_used_is_a_right_that_is_missing(served: str, migrated_postgres_url: str) -> None:
    execute(migrated_postgres_url, "REVOKE USAGE ON SCHEMA public FROM public")
    finding = only_error(served)
    assert (finding.check, finding.lasts) == ("rights", True)
    execute(migrated_postgres_url, *finding.command.splitlines())
    assert errors(served) == []


def test_a_row_policy_that_hides_what_a_call_wrote_is_found(served: str, migrated_postgres_url: str) -> None:
    execute(migrated_postgres_url, "ALTER TABLE decisions ENABLE ROW LEVEL SECURITY")
    try:
        finding = only_error(served)
        assert (finding.check, finding.error, finding.lasts) == ("calls", "InsufficientPrivilege", True)
    finally:
        execute(migrated_postgres_url, "ALTER TABLE decisions DISABLE ROW LEVEL SECURITY")


def test_a_role_that_may_only_read_is_refused_and_the_remedy_lets_it_write(
    served: str, role: str, postgres_server: str
) -> None:
    execute(postgres_server, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    finding = only_error(served)
    assert (finding.check, finding.lasts) == ("rights", True)
    execute(postgres_server, finding.command.splitlines()[0])
    assert errors(served) == []


@pytest.mark.parametrize(("limit", "state"), [(19, "warning"), (3, "error")])
def test_connections_that_do_not_suffice_are_told_and_stop_no_start(
    served: str, role: str, postgres_server: str, limit: int, state: str
) -> None:
    execute(postgres_server, f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
    (finding,) = [finding for finding in found(served, WEB_CONCURRENCY="4") if finding.check == "connections"]
    assert (finding.state, finding.lasts) == (state, False)
    assert f"allows {limit} connections" in finding.found
    assert "WEB_CONCURRENCY" in finding.remedy
    assert not refuses(served)


# ---- a server that lets nobody in


@contextmanager
def refusing_server(message: str) -> Iterator[str]:
    """A PostgreSQL server that answers everybody with this error; its address."""
    fields = b"SFATAL\0VFATAL\0C28P01\0M" + message.encode() + b"\0\0"
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with closing(client):
                client.recv(4096)
                client.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"postgresql://router:hunter2@127.0.0.1:{listener.getsockname()[1]}/router?sslmode=disable&gssencmode=disable"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("message", "lasts"),
    [
        ('password authentication failed for user "router"', True),
        ('role "router" does not exist', True),
        ('role "router" is not permitted to log in', True),
        ('database "router" does not exist', True),
        ('no pg_hba.conf entry for host "10.0.0.1", user "router", database "router", no encryption', True),
        ('unrecognized configuration parameter "nonsense"', True),
        ("unsupported startup parameter: options", True),
        ("no such user: router", True),
        ("the database system is starting up", False),
        ("the database system is shutting down", False),
        ("the database system is in recovery mode", False),
        ("sorry, too many clients already", False),
        ('too many connections for role "router"', False),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", False),
        ("server login has been failing, try again later (server_login_retry)", False),
        ("Passwort-Authentifizierung fehlgeschlagen", False),
    ],
)
def test_a_start_is_refused_only_where_waiting_would_not_help(message: str, lasts: bool) -> None:
    with refusing_server(message) as url:
        finding = only_error(url)
        assert (finding.check, finding.lasts) == ("database", lasts)
        assert message in finding.detail
        assert refuses(url) is lasts
        assert "hunter2" not in str(finding)
        assert "router" not in finding.found, "anybody may read that"


@pytest.mark.parametrize(
    "url", ["postgresql://router:hunter2@127.0.0.1:9/router", "postgresql://router:hunter2@no-such-host.invalid/router"]
)
def test_a_server_that_is_away_stops_no_start(url: str) -> None:
    finding = only_error(url)
    assert (finding.check, finding.lasts) == ("database", False)
    assert "hunter2" not in str(finding)
    assert not refuses(url)


def test_a_silent_server_holds_up_a_start_for_the_given_time_and_stops_none(migrated_postgres_url: str) -> None:
    with wire_to(driver_address(migrated_postgres_url)) as wire:
        wire.fall_silent()
        finding = only_error(wire.url, seconds=0.5)
        assert (finding.check, finding.lasts) == ("database", False)
        assert "did not answer in time" in finding.detail


# ---- behind a pooler


@pytest.fixture
def pooler(migrated_postgres_url: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts PgBouncer before the database, in this pool_mode; the address."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian's package pgbouncer)")
    server = {name: str(said) for name, said in conninfo_to_dict(driver_address(migrated_postgres_url)).items()}
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> str:
        port, file = free_port(), tmp_path / "pgbouncer.ini"
        target = " ".join(f"{name}={server[name]}" for name in ("host", "port", "user", "password") if server.get(name))
        file.write_text(
            f"[databases]\n{server['dbname']} = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"auth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
        )
        command = [program, str(file)]
        if os.getuid() == 0:  # which it refuses to run as; the server's socket is its owner's alone
            command[1:1] = ["-u", Path(server["host"]).owner() if server["host"].startswith("/") else "nobody"]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError:
                assert time.monotonic() < deadline
                assert started[0].poll() is None
                time.sleep(0.02)
            else:
                return f"postgresql://anybody@127.0.0.1:{port}/{server['dbname']}"

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=30)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_by_transaction_or_session_is_told_and_calls_go_through_it(
    pooler: Callable[[str], str], mode: str
) -> None:
    findings = found(pooler(mode))
    assert [finding for finding in findings if finding.is_error] == []
    assert {"pooler", "calls"} <= {finding.check for finding in findings}


def test_a_pooler_by_statement_is_refused(pooler: Callable[[str], str]) -> None:
    finding = only_error(pooler("statement"))
    assert (finding.command, finding.lasts) == ("pool_mode = transaction", True)


# ---- files


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/router.db"
    finding = only_error(url)
    assert (finding.check, finding.lasts) == ("database", True)
    assert refuses(url)


def test_a_database_that_is_a_folder_or_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "program").write_bytes(b"MZ" + bytes(4096))
    for name in ("folder", "program"):
        finding = only_error(f"sqlite:///{tmp_path}/{name}")
        assert (finding.check, finding.lasts) == ("database", True)


def test_a_file_that_may_not_be_written_is_refused(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path) != path_of(migrated_sqlite_url))
    finding = only_error(migrated_sqlite_url)
    assert (finding.check, finding.lasts) == ("database", True)
    assert finding.detail == str(path_of(migrated_sqlite_url))


@pytest.mark.parametrize(("number", "lasts"), [(errno.ENOSPC, False), (errno.EACCES, True), (errno.EROFS, False)])
def test_a_full_disk_stops_no_start_and_a_closed_folder_does(
    migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, number: int, lasts: bool
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    finding = only_error(migrated_sqlite_url)
    assert (finding.check, finding.error) == ("database", errno.errorcode[number])
    assert refuses(migrated_sqlite_url) is lasts


@pytest.mark.parametrize(("left", "state"), [(10**6, "error"), (10**8, "warning"), (10**10, "ok")])
def test_room_that_runs_out_is_told(
    migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, left: int, state: str
) -> None:
    monkeypatch.setattr("router.check.disk_usage", lambda _folder: SimpleNamespace(free=left))
    (finding,) = [finding for finding in found(migrated_sqlite_url) if finding.check == "disk"]
    assert (finding.state, finding.lasts) == (state, False)


def test_a_database_that_others_may_read_is_told(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_ours(_path: Path, _mode: int) -> None:
        raise PermissionError

    path_of(migrated_sqlite_url).chmod(0o644)
    monkeypatch.setattr(Path, "chmod", not_ours)
    (warning,) = [finding for finding in found(migrated_sqlite_url) if finding.state == "warning"]
    assert (warning.check, warning.command) == ("database", f"chmod go= {path_of(migrated_sqlite_url)}")


def test_a_database_that_another_program_holds_stops_no_start(migrated_sqlite_url: str) -> None:
    with closing(sqlite3.connect(path_of(migrated_sqlite_url), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        finding = only_error(migrated_sqlite_url, seconds=0.3)
        assert (finding.check, finding.lasts) == ("calls", False)


def test_an_outbox_that_cannot_be_written_is_told_and_stops_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = check.look_at_outbox(tmp_path / "file" / "outbox")
    assert (finding.state, finding.lasts) == ("error", False)
    assert "OUTBOX_DIR" in finding.remedy
    assert {finding.state for finding in check.look_at_outbox(tmp_path / "made" / "here")} == {"ok"}


# ---- secrets


def test_credentials_of_another_key_are_counted_and_stop_no_start(migrated_sqlite_url: str) -> None:
    with closing(Desk(migrated_sqlite_url)):
        finding = only_error(migrated_sqlite_url, SECRET_KEY="t" * 40)
        assert (finding.check, finding.lasts) == ("secrets", False)
        assert "2 of 2" in finding.found
        assert "ENCRYPTION_KEYS" in finding.remedy
        assert errors(migrated_sqlite_url, ENCRYPTION_KEYS=Fernet.generate_key().decode()) == []


# ---- the command


def test_the_command_lists_each_check_and_fails_with_an_error(migrated_sqlite_url: str, sqlite_url: str) -> None:
    good = run("check", url=migrated_sqlite_url)
    assert good.exit_code == 0, good.output
    assert [line.split()[1] for line in good.stdout.splitlines() if line[0] != " "] == [
        "settings", "database", "disk", "schema", "calls", "secrets", "presence",
    ]  # fmt: skip
    path_of(sqlite_url).unlink()
    bad = run("check", url=sqlite_url)
    assert bad.exit_code == 1
    assert "router db upgrade" in bad.stdout
    (line,) = bad.stderr.splitlines()
    assert line.startswith("router: ")


def test_the_command_tells_programs_the_same(migrated_url: str, postgres_url: str) -> None:
    good = json.loads(run("check", "--json", url=migrated_url).stdout)
    assert good["status"] in {"ok", "warning"}
    assert {finding["check"] for finding in good["checks"]} >= {"database", "schema", "calls"}
    bad = run("check", "--json", url=postgres_url)
    assert bad.exit_code == 1
    told = json.loads(bad.stdout)
    (schema,) = [finding for finding in told["checks"] if finding["check"] == "schema"]
    assert told["status"] == schema["state"] == "error"
    assert schema["command"] == "router db upgrade"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://router:hunter2@:bad:port/x",
        "postgresql://router:hunter2@host",
        "postgresql://router:hun ter2@host/x?sslmode=never",
        "mysql://router:hunter2@host/x",
        "postgresql+asyncpg://router:hun/ter2@host/x",
        "postgres//router:hunter2@host/x",
        "'postgresql://router:hunter2@host/x'",
        "postgresql+asyncpg://router:a@hunter2/b@host/x",
        "sqlite://router:hunter2@host/x",
        "hunter2",
    ],
)
def test_an_address_that_cannot_be_used_is_named_and_not_shown(url: str) -> None:
    for options in ((), ("--json",)):
        told = run("check", *options, url=url)
        assert told.exit_code == 1
        assert "DATABASE_URL" in told.stdout
        for part in ("hunter2", "ter2", "hun"):
            assert part not in told.output


def test_no_secret_is_in_what_the_command_says(served: str) -> None:
    with closing(Desk(served)):
        for environ in ({}, {"SECRET_KEY": "other-secret-" * 4}):
            told = run("check", url=served, **environ)
            assert PASSWORD not in told.output
            assert "hunter2" not in told.output
            assert "other-secret" not in told.output
            assert "acme-auth-key" not in told.output


def test_a_project_that_nobody_polls_is_told(migrated_sqlite_url: str) -> None:
    with closing(Desk(migrated_sqlite_url)) as desk:
        desk.see("acme_alice")
        worker = run("check", url=migrated_sqlite_url, PRESENCE_KEEPER="worker")
        assert worker.exit_code == 0
        assert "router poll" in worker.stdout
        assert "router poll" not in run("check", url=migrated_sqlite_url, PRESENCE_KEEPER="off").stdout


def test_a_mistake_in_one_check_silences_no_other(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_database: Database) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("router.check.rehearse", bug)
    findings = found(migrated_sqlite_url)
    assert [finding.check for finding in findings if finding.is_error] == ["calls"]
    assert findings[-1].check == "secrets"
    assert not refuses(migrated_sqlite_url)


# ---- a running process


def setup_of(desk: Desk) -> tuple[int, dict[str, Any]]:
    answer = desk.client.get("/readyz")
    assert answer.json is not None
    return answer.status_code, answer.json["checks"]["setup"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.check.LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("router.health._LOOK_SECONDS", 60)


@pytest.mark.usefixtures("_looks_at_once")
def test_rights_that_are_taken_away_later_are_told_at_readyz_until_they_are_back(
    served: str, migrated_postgres_url: str, role: str
) -> None:
    with closing(Desk(served)) as desk:
        desk.see("acme_alice")
        assert setup_of(desk) == (200, {"state": "ok"})
        execute(migrated_postgres_url, f"REVOKE INSERT ON decisions FROM {role}")
        assert desk.ask(call_id="1", caller="0501112233").status_code == 200
        wait_for(lambda: setup_of(desk)[0] == 503)
        _, said = setup_of(desk)
        (error,) = said["errors"]
        assert (error["check"], error["error"]) == ("rights", "InsufficientPrivilege")
        assert said["remedy"] == "run: router check"
        assert role not in json.dumps(said), "anybody may read that"
        execute(migrated_postgres_url, f"GRANT INSERT ON decisions TO {role}")
        wait_for(lambda: setup_of(desk)[0] == 200)


@pytest.mark.usefixtures("_looks_at_once")
def test_a_statement_that_begins_to_fail_is_told_once_a_call_has_met_it(migrated_url: str) -> None:
    with closing(Desk(migrated_url)) as desk:
        desk.see("acme_alice")
        assert setup_of(desk) == (200, {"state": "ok"})
        with desk.database.writing() as session:
            session.execute(text("ALTER TABLE decisions RENAME COLUMN latency_us TO latency"))
        assert desk.ask(call_id="1", caller="0501112233").status_code == 200
        wait_for(lambda: setup_of(desk)[0] == 503)
        (error,) = setup_of(desk)[1]["errors"]
        assert error["check"] == "calls"
        assert error["error"] in {"UndefinedColumn", "OperationalError"}


@pytest.mark.usefixtures("_looks_at_once")
def test_calls_that_went_without_the_database_though_it_answers_are_told_with_the_errors_name(
    migrated_sqlite_url: str,
) -> None:
    with closing(Desk(migrated_sqlite_url)) as desk:
        desk.see("acme_alice")
        assert setup_of(desk) == (200, {"state": "ok"})
        count_degraded("SomethingNewError")
        wait_for(lambda: setup_of(desk)[1]["state"] == "error")
        status, said = setup_of(desk)
        assert (status, said["errors"][0]["check"], said["errors"][0]["error"]) == (200, "calls", "SomethingNewError")


@pytest.mark.usefixtures("_looks_at_once")
def test_the_board_tells_owners_what_to_do_and_others_whom_to_tell(
    migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Admin(migrated_sqlite_url)) as admin:
        admin.add_user("olena", "owner")
        admin.add_user("vira", "viewer")
        admin.add_project("acme")
        olena, vira = admin.browser("olena"), admin.browser("vira")
        assert "not in order" not in olena.get("/p/acme/board").text
        monkeypatch.setattr("router.check.disk_usage", lambda _folder: SimpleNamespace(free=0))
        wait_for(lambda: "The disk of the database is full" in olena.get("/p/acme/board").text)
        assert "Free some space on it." in olena.get("/p/acme/board").text
        told = vira.get("/p/acme/board").text
        assert "The disk of the database is full" in told
        assert "Tell the operator of this service." in told
        assert "Make room" not in told


# ---- a start


def web_process(folder: Path, url: str, **environ: str) -> Server:
    """gunicorn as the Procfile starts it."""
    given = {"ENVIRONMENT": "production", "WEB_CONCURRENCY": "1", "PRESENCE_KEEPER": "off", **environ}
    return Server(folder, gunicorn(), DATABASE_URL=url, **given)


def test_a_start_in_production_is_refused_and_the_remedy_ends_the_output(
    postgres_server: str, sqlite_url: str, tmp_path: Path
) -> None:
    with database_in("LATIN1", postgres_server) as latin1:
        for url, remedy in ((sqlite_url, "router db upgrade"), (latin1, "ENCODING 'UTF8' TEMPLATE template0")):
            server = web_process(tmp_path, url)
            server.launch()
            assert server.process is not None
            assert server.process.wait(timeout=60) == 1
            assert remedy in server.log_text().splitlines()[-1], server.log_text()
            assert "Refusing to start" in server.log_text()
            assert "Traceback" not in server.log_text()


def test_a_start_without_the_database_tells_it_first_and_answers_calls(tmp_path: Path) -> None:
    away = "postgresql://router:hunter2@127.0.0.1:9/router"
    with web_process(tmp_path, away, OVERFLOW_DESTINATION="380440000000") as server:
        answer = requests.get(f"{server.url}/hook/{'x' * 43}?caller=1", timeout=30, headers=CLOSE)
        assert (answer.status_code, answer.text) == (200, "380440000000")
        ready = requests.get(f"{server.url}/readyz", timeout=30, headers=CLOSE)
        assert (ready.status_code, ready.json()["checks"]["database"]["state"]) == (503, "unreachable")
    first = next(line for line in server.log_text().splitlines() if "error" in line.casefold())
    assert "the database cannot be reached" in first
    assert "DATABASE_URL" in first
    assert "hunter2" not in server.log_text()


def test_in_development_what_is_wrong_is_told_and_the_start_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    with web_process(tmp_path, sqlite_url, ENVIRONMENT="development") as server:
        assert "schema: there are no tables yet. Run the release step. router db upgrade" in server.log_text()


def test_the_keeper_as_a_process_of_its_own_is_refused_too(sqlite_url: str) -> None:
    refused = run("poll", url=sqlite_url, ENVIRONMENT="production")
    assert refused.exit_code == 1
    assert refused.stderr.rstrip().endswith("router db upgrade")
