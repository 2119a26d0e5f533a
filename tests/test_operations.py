"""Commands of those who run the service: backup, keys, one caller's data, and what each says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from sqlalchemy import inspect, text, update

from router.cli import main
from router.config import Settings
from router.db import models
from router.db.failures import describe_failure
from router.db.keys import check_secrets, rotate_secrets
from router.db.personal import rules_naming
from router.db.records import record_of
from router.db.session import Database
from router.db.types import SecretError, use_encryption_keys
from router.routing.route import NotRecomputableError, recompute
from router.starter import prepare_demo, welcome
from simulator.pbx import PROJECT
from tests.desk import SECRET, Desk

CALLER = "380501112233"
DATABASE_COMMANDS = [
    ["db", "check"],
    ["config", "export"],
    ["user", "list"],
    ["user", "add", "olena@example.org", "--role", "owner"],
    ["hook-url", "acme"],
    ["explain", "acme", "--caller", CALLER],
    ["prune"],
    ["keys", "rotate"],
    ["caller", "export", CALLER, "--project", "acme"],
    ["caller", "erase", CALLER, "--project", "acme", "--yes"],
]


def run(*command: str, url: str, **environ: str) -> Result:
    environment: dict[str, str | None] = {"DATABASE_URL": url, "SECRET_KEY": SECRET, **environ}
    return CliRunner().invoke(main, command, env=environment)


def fails(result: Result) -> str:
    """The one line with which it failed."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("router: ")
    return line


@pytest.fixture
def desk(migrated_sqlite_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_sqlite_url)) as made:
        yield made


@pytest.fixture
def desk_everywhere(migrated_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_url)) as made:
        yield made


def path_of(url: str) -> Path:
    return Path(url.partition("///")[2])


# ---- one clear line


@pytest.mark.parametrize("command", DATABASE_COMMANDS, ids=" ".join)
def test_without_a_schema_says_how_to_make_it(command: Sequence[str], sqlite_url: str) -> None:
    assert "run `router db upgrade`" in fails(run(*command, url=sqlite_url)) or command == ["db", "check"]


def test_without_a_schema_on_postgresql_says_the_same(postgres_url: str) -> None:
    assert "run `router db upgrade`" in fails(run("hook-url", "acme", url=postgres_url))


@pytest.mark.parametrize("command", [["db", "upgrade"], *DATABASE_COMMANDS], ids=" ".join)
def test_a_server_that_is_not_there_is_named_without_its_password(command: Sequence[str]) -> None:
    line = fails(run(*command, url="postgresql://router:hunter2@127.0.0.1:9/router"))
    assert "cannot be reached" in line
    assert "check DATABASE_URL" in line
    assert "127.0.0.1" in line
    assert "hunter2" not in line


def test_a_database_that_does_not_exist_is_named(postgres_server: str) -> None:
    line = fails(run("hook-url", "acme", url=postgres_server.replace("/postgres", "/of_no_such_name")))
    assert "of_no_such_name" in line
    assert "check DATABASE_URL" in line


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "router.db").write_bytes(b"MZ" + b"\0" * 4096)
    line = fails(run("hook-url", "acme", url=f"sqlite:///{tmp_path}/router.db"))
    assert "restore a backup" in line


def test_a_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    assert "cannot be opened" in fails(run("hook-url", "acme", url=f"sqlite:///{tmp_path}"))


def test_a_database_that_is_held_by_somebody_is_busy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.cli.Database", lambda url: Database(url, lock_seconds=0.1))
    with closing(sqlite3.connect(desk.database.engine.url.database or "", isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        assert "is busy" in fails(run("keys", "rotate", url=desk.settings.database_url))


def test_a_wrong_secret_key_says_what_to_do(desk: Desk) -> None:
    line = fails(run("hook-url", "acme", url=desk.settings.database_url, SECRET_KEY="t" * 40))
    assert "ENCRYPTION_KEYS" in line


def test_an_unknown_project_is_told_with_those_there_are(desk: Desk) -> None:
    for command in (["hook-url", "nope"], ["config", "export", "--project", "nope"], ["explain", "nope"]):
        assert "there are: acme" in fails(run(*command, url=desk.settings.database_url))


def test_an_unknown_revision_is_told(desk: Desk) -> None:
    assert "migrations/versions" in fails(run("db", "downgrade", "nope", url=desk.settings.database_url))


def test_a_mistake_of_ours_keeps_its_traceback(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("router.db.queries.current_token", bug)
    assert isinstance(run("hook-url", "acme", url=desk.settings.database_url).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("database or disk is full"), "make room"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written to"),
        (sqlite3.DatabaseError("something new\nwith details"), "the database failed: something new"),
        (TimeoutError(), "did not answer in time"),
    ],
)
def test_other_failures_are_told_with_their_remedy(error: Exception, words: str) -> None:
    said = describe_failure(error)
    assert said is not None
    assert words in said
    assert "\n" not in said


def test_what_is_no_failure_of_the_database_is_not_explained_away() -> None:
    assert describe_failure(ValueError("bug")) is None


# ---- backup


def test_a_backup_made_during_calls_is_whole_and_can_be_restored(desk: Desk, tmp_path: Path) -> None:
    desk.see("acme_alice")
    desk.ask(call_id="before", caller=CALLER)
    stop = threading.Event()

    def keep_asking() -> None:
        number = 0
        while not stop.is_set():
            desk.ask(call_id=f"meanwhile-{number}", caller=CALLER)
            number += 1

    thread = threading.Thread(target=keep_asking)
    thread.start()
    target = tmp_path / "copies" / "router.db"
    target.parent.mkdir()
    try:
        made = run("backup", str(target), url=desk.settings.database_url)
    finally:
        stop.set()
        thread.join()
    assert made.exit_code == 0, made.output
    assert "SECRET_KEY" in made.output
    assert [path.name for path in target.parent.iterdir()] == ["router.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert not any(row.degraded for row in desk.all(models.Decision))

    checked = run("restore-check", str(target), url=desk.settings.database_url)
    assert checked.exit_code == 0, checked.output
    assert "1 projects" in checked.output
    assert [path.name for path in target.parent.iterdir()] == ["router.db"]
    with closing(Desk(f"sqlite+pysqlite:///{target}", "projects: []")) as restored:
        assert restored.token() == desk.token()
        assert "before" in {row.call_id for row in restored.all(models.Decision)}
        assert restored.ask(call_id="after", caller=CALLER).status_code == 200


def test_a_backup_overwrites_nothing_and_needs_a_folder(desk: Desk, tmp_path: Path) -> None:
    url = desk.settings.database_url
    (tmp_path / "there").write_text("precious")
    assert "exists" in fails(run("backup", str(tmp_path / "there"), url=url))
    assert (tmp_path / "there").read_text() == "precious"
    assert "there is no folder" in fails(run("backup", str(tmp_path / "none" / "copy"), url=url))
    missing = f"sqlite:///{tmp_path}/empty/router.db"
    assert "run `router db upgrade`" in fails(run("backup", str(tmp_path / "copy"), url=missing))


def test_postgresql_is_backed_up_by_its_own_tool(tmp_path: Path) -> None:
    url = "postgresql://router:hunter2@127.0.0.1:9/calls"
    line = fails(run("backup", str(tmp_path / "copy"), url=url))
    assert f"pg_dump --format=custom --file={tmp_path}/copy '--dbname=user=router dbname=calls" in line
    assert "hunter2" not in line


def test_a_damaged_backup_is_found_out(desk: Desk, tmp_path: Path) -> None:
    url = desk.settings.database_url
    desk.ask(call_id="1", caller=CALLER)
    good = tmp_path / "good.db"
    assert run("backup", str(good), url=url).exit_code == 0
    half = tmp_path / "half.db"
    half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    text_file = tmp_path / "text.db"
    text_file.write_text("not a database at all, but a text of some length\n" * 100)
    for bad in (half, text_file):
        assert "take another one" in fails(run("restore-check", str(bad), url=url))
    assert "there is no file" in fails(run("restore-check", str(tmp_path / "none.db"), url=url))
    empty = tmp_path / "empty.db"
    with closing(sqlite3.connect(empty)) as connection:
        connection.execute("CREATE TABLE other (id)")
    assert "not of this service" in fails(run("restore-check", str(empty), url=url))


def test_a_backup_of_another_key_or_release_is_found_out(desk: Desk, tmp_path: Path) -> None:
    url = desk.settings.database_url
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), url=url).exit_code == 0
    line = fails(run("restore-check", str(copy), url=url, SECRET_KEY="t" * 40))
    assert "ENCRYPTION_KEYS as they were" in line
    assert "hook_tokens.token, row 1" in line
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")
    assert "of a newer release" in fails(run("restore-check", str(copy), url=url))


def test_a_bare_copy_of_a_file_in_use_is_no_backup(desk: Desk, tmp_path: Path) -> None:
    url = desk.settings.database_url
    desk.ask(call_id="1", caller=CALLER)
    live, copy = tmp_path / "router.db", tmp_path / "copy.db"
    assert Path(f"{live}-wal").stat().st_size > 0, "what was written last lies beside it"
    shutil.copyfile(live, copy)
    line = fails(run("restore-check", str(copy), url=url))
    assert "bare copy" in line
    assert "`router backup`" in line
    assert "bare copy" in fails(run("restore-check", str(live), url=url))
    assert "router.db-wal" in fails(run("restore-check", str(live), "--was-stopped", url=url))


def test_a_copy_of_a_service_that_was_stopped_is_one_if_that_is_said(desk: Desk, tmp_path: Path) -> None:
    url = desk.settings.database_url
    backup, cold = tmp_path / "backup.db", tmp_path / "cold.db"
    assert run("backup", str(backup), url=url).exit_code == 0
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE written_to (id)")
    shutil.copyfile(backup, cold)
    assert "--was-stopped" in fails(run("restore-check", str(cold), url=url))
    assert run("restore-check", str(cold), "--was-stopped", url=url).exit_code == 0


# ---- down again


def tables(desk: Desk) -> set[str]:
    return set(inspect(desk.database.engine).get_table_names())


def test_a_downgrade_asks_and_names_what_is_lost(desk_everywhere: Desk) -> None:
    url, before = desk_everywhere.settings.database_url, tables(desk_everywhere)
    refused = run("db", "downgrade", "base", url=url)
    assert "--yes" in fails(refused)
    assert "every project" in refused.stdout
    assert "table projects with 1 rows" in refused.stdout
    assert tables(desk_everywhere) == before
    environ = {"DATABASE_URL": url, "SECRET_KEY": SECRET}
    assert CliRunner().invoke(main, ["db", "downgrade"], input="n\n", env=environ).exit_code == 1
    assert tables(desk_everywhere) == before
    desk_everywhere.database.engine.dispose()
    assert run("db", "downgrade", "--yes", url=url).exit_code == 0
    assert "projects" in tables(desk_everywhere)
    assert run("db", "upgrade", url=url).exit_code == 0


def test_nothing_is_emptied_by_accident(desk_everywhere: Desk) -> None:
    """Down to the first migration, and then once more."""
    url = desk_everywhere.settings.database_url
    desk_everywhere.database.engine.dispose()
    assert run("db", "downgrade", "e7bb77a9038a", "--yes", url=url).exit_code == 0
    assert "db downgrade base" in fails(run("db", "downgrade", "--yes", url=url))
    assert "db downgrade base" in fails(run("db", "downgrade", "--yes", "--", "-1", url=url))
    assert "projects" in tables(desk_everywhere)
    assert run("db", "downgrade", "base", "--yes", url=url).exit_code == 0
    assert "projects" not in tables(desk_everywhere)
    assert "there already" in fails(run("db", "downgrade", "base", "--yes", url=url))


# ---- other accounts of the host


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_what_is_kept_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = "sqlite+pysqlite:///instance/router.db"
    before = os.umask(0o022)
    try:
        assert run("db", "upgrade", url=url).exit_code == 0
        with closing(Desk(url)) as desk:
            desk.ask(call_id="1", caller=CALLER)
            kept = sorted((tmp_path / "instance").iterdir())
            assert {"router.db", "router.db-wal", "router.db-shm", "router.db.lock"} <= {path.name for path in kept}
            assert {mode(path) for path in kept} == {"0o600"}
            assert run("backup", "copy.db", url=url).exit_code == 0
        assert mode(tmp_path / "instance") == "0o700"
        assert mode(tmp_path / "copy.db") == "0o600"
    finally:
        os.umask(before)


def test_what_an_earlier_release_left_open_is_closed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "sqlite+pysqlite:///instance/router.db"
    assert run("db", "upgrade", url=url).exit_code == 0
    folder = tmp_path / "instance"
    (folder / "secret.key").write_text("s" * 40)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with closing(Desk(url, "projects: []")) as desk:
        assert desk.client.get("/healthz").status_code == 200
        Settings.load({"ENVIRONMENT": "development"})
        assert {mode(path) for path in folder.iterdir()} == {"0o600"}
        assert mode(folder) == "0o700"


def test_a_folder_that_is_not_ours_alone_stays_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "var"
    shared.mkdir()
    shared.chmod(0o755)
    assert run("db", "upgrade", url=f"sqlite:///{shared}/router.db").exit_code == 0
    assert (mode(shared), mode(shared / "router.db")) == ("0o755", "0o600")


def test_what_cannot_be_closed_is_told(
    migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_ours(_path: Path, _mode: int) -> None:
        raise PermissionError

    with closing(Desk(migrated_sqlite_url)) as desk:
        path = Path(desk.database.engine.url.database or "")
        path.chmod(0o644)
        monkeypatch.setattr(Path, "chmod", not_ours)
        assert desk.client.get("/healthz").status_code == 200
        said = capsys.readouterr().out
    assert "other accounts" in said
    assert str(path) in said


# ---- keys


def secrets_of(desk: Desk) -> list[str]:
    """What is stored, as it is stored."""
    with desk.database.reading() as session:
        return [
            *session.scalars(text("SELECT token FROM hook_tokens")),
            *session.scalars(text("SELECT presence_auth_key FROM projects")),
        ]


def test_rotates_every_secret_to_the_first_key_and_the_old_one_can_go(desk_everywhere: Desk) -> None:
    desk = desk_everywhere
    url, token, before = desk.settings.database_url, desk.token(), secrets_of(desk)
    fresh = Fernet.generate_key().decode()
    rotated = run("keys", "rotate", url=url, ENCRYPTION_KEYS=fresh)
    assert rotated.exit_code == 0, rotated.output
    assert rotated.output.startswith("2 credentials")
    after = secrets_of(desk)
    assert not set(before) & set(after)
    assert {Fernet(fresh).decrypt(one).decode() for one in after} == {token, "acme-auth-key-5c2f"}
    # SECRET_KEY, from which the first key came, can be changed now.
    shown = run("hook-url", "acme", url=url, ENCRYPTION_KEYS=fresh, SECRET_KEY="t" * 40)
    assert shown.output.strip().endswith(token)


def test_rotates_all_or_none(desk_everywhere: Desk) -> None:
    desk = desk_everywhere
    with desk.database.writing() as session:
        session.execute(text("UPDATE projects SET presence_auth_key = 'no ciphertext'"))
    before = secrets_of(desk)
    line = fails(run("keys", "rotate", url=desk.settings.database_url, ENCRYPTION_KEYS=Fernet.generate_key().decode()))
    assert "projects.presence_auth_key, row 1" in line
    assert secrets_of(desk) == before
    with desk.database.reading() as session:
        assert check_secrets(session) == (2, ["projects.presence_auth_key, row 1"])
    with pytest.raises(SecretError):
        rotate_secrets(desk.database)


def test_every_column_of_secrets_is_rotated(desk: Desk) -> None:
    with desk.database.writing() as session:
        session.execute(update(models.Project).values(hook_basic_auth="u:p", presence_token="t"))
    use_encryption_keys([Fernet.generate_key(), *desk.settings.fernet_keys])
    assert rotate_secrets(desk.database) == 4


def test_a_trial_starts_under_another_key_too_and_says_what_it_cannot_show(migrated_sqlite_url: str) -> None:
    settings = Settings.load({"DATABASE_URL": migrated_sqlite_url, "SECRET_KEY": SECRET})
    use_encryption_keys(settings.fernet_keys)
    database = Database(migrated_sqlite_url)
    arguments = prepare_demo(database, settings, PROJECT)
    assert arguments is not None
    (shown,) = [line for line in welcome(database, settings) if "hook of demo" in line]
    assert shown.rpartition("/")[2] in " ".join(arguments)
    use_encryption_keys([Fernet.generate_key()])
    assert prepare_demo(database, settings, PROJECT) is None, "nobody can call an address that is not known"
    assert "works, and cannot be shown" in "".join(welcome(database, settings))
    database.dispose()


# ---- one caller


def ask_as(desk: Desk, caller: str, call_id: str) -> None:
    assert desk.ask(call_id=call_id, caller=caller, name="Ivan the caller", utm_source="google").status_code == 200


@pytest.mark.parametrize("notation", ["050 111 22 33", "+380501112233", "380501112233", "sip:+380501112233@pbx"])
def test_exports_all_that_is_kept_of_a_caller(desk: Desk, notation: str) -> None:
    for number in range(60):
        ask_as(desk, "+380501112233", f"mine-{number}")
    ask_as(desk, "0671112233", "other")
    with desk.database.writing() as session:
        talk = {"caller": "380501112233", "login": "acme_alice", "talked_at": datetime(2026, 11, 20, tzinfo=UTC)}
        session.add(models.LoggedTalk(project_id=desk.project_id(), **talk))
    exported = run("caller", "export", notation, "--project", "acme", url=desk.settings.database_url)
    assert exported.exit_code == 0, exported.output
    *rows, talk = json.loads(exported.output)
    assert (talk["sip_login"], talk["last_talked_at"]) == ("acme_alice", "2026-11-20T00:00:00+00:00")
    assert [row["call_id"] for row in rows] == [f"mine-{number}" for number in range(60)]
    assert rows[0]["params"]["name"] == "Ivan the caller"
    assert "Ivan the caller" in rows[0]["received"]["body"]
    (entry,) = desk.all(models.AuditEntry, action="exported")
    assert (entry.actor, entry.subject, entry.subject_name) == ("cli", "caller", "38050***33")


def test_an_export_marks_test_requests(desk: Desk) -> None:
    for call_id in ("mine-1", "mine-2"):
        ask_as(desk, CALLER, call_id)
    with desk.database.writing() as session:
        session.execute(update(models.Decision).where(models.Decision.call_id == "mine-2").values(is_test=True))
    exported = run("caller", "export", CALLER, "--project", "acme", url=desk.settings.database_url)
    marked = [(row["call_id"], row["is_test"]) for row in json.loads(exported.output)]
    assert marked == [("mine-1", False), ("mine-2", True)]


def test_erases_the_person_and_keeps_the_call(desk_everywhere: Desk) -> None:
    desk = desk_everywhere
    for number in range(60):
        ask_as(desk, "+380501112233", f"mine-{number}")
    ask_as(desk, "0671112233", "other")
    with desk.database.writing() as session:
        for query in ("caller=%2B380501112233", "caller=050-111-22-33", "caller=0671112233"):
            session.add(
                models.RefusedRequest(
                    project_id=desk.project_id(), at=datetime.now(UTC), reason="x", remote="", request={"query": query}
                )
            )
        for caller in ("380501112233", "380671112233"):
            talk = {"caller": caller, "login": "acme_alice", "talked_at": datetime.now(UTC)}
            session.add(models.LoggedTalk(project_id=desk.project_id(), **talk))
    url = desk.settings.database_url
    erased = run("caller", "erase", "0501112233", "--project", "acme", "--yes", url=url)
    assert erased.exit_code == 0, erased.output
    assert "60 calls and 2 refused requests; 1 talks" in erased.output
    kept = desk.all(models.Decision)
    assert len(kept) == 61
    with desk.database.reading() as session:
        records = [record_of(session, row) for row in kept]
    for row, record in zip(kept[:60], records, strict=False):
        assert row.caller == ""
        told = json.dumps([row.record, record])
        assert "Ivan" not in told
        assert "501112233" not in told
        assert record["trials"]
        assert record["inputs"]
    assert (kept[60].caller, records[60]["call"]["params"]["name"]) == ("380671112233", "Ivan the caller")
    assert [row.request["query"] for row in desk.all(models.RefusedRequest)] == ["caller=0671112233"]
    (entry,) = desk.all(models.AuditEntry, action="erased")
    assert entry.after == {"calls": 60, "refused_requests": 2, "logged_talks": 1}
    assert [talk.caller for talk in desk.all(models.LoggedTalk)] == ["380671112233"]
    assert CALLER not in json.dumps([entry.subject_name, entry.after])
    with desk.database.reading() as session, pytest.raises(NotRecomputableError, match="erased"):
        recompute(session, kept[0].id)
    again = run("caller", "export", CALLER, "--project", "acme", url=url)
    assert json.loads(again.output) == []


def test_asks_before_it_erases(desk: Desk) -> None:
    ask_as(desk, CALLER, "1")
    asked = run("caller", "erase", CALLER, "--project", "acme", url=desk.settings.database_url)
    assert asked.exit_code == 1
    assert desk.all(models.Decision)[0].caller == CALLER


def test_a_hidden_number_is_nobodys(desk: Desk) -> None:
    url = desk.settings.database_url
    for verb in ("export", "erase"):
        assert "nobody's number" in fails(run("caller", verb, "anonymous", "--project", "acme", url=url))
    assert desk.all(models.AuditEntry, subject="caller") == []


def test_a_short_number_is_not_looked_for_in_what_was_refused(desk: Desk) -> None:
    with desk.database.writing() as session:
        row = models.RefusedRequest(
            project_id=desk.project_id(), at=datetime.now(UTC), reason="x", remote="", request={"query": "caller=10100"}
        )
        session.add(row)
    run("caller", "erase", "101", "--project", "acme", "--yes", url=desk.settings.database_url)
    assert len(desk.all(models.RefusedRequest)) == 1


def test_names_the_rules_that_still_name_the_caller(desk: Desk) -> None:
    desk.configure(
        """
projects:
  - name: acme
    overflow: "1"
    presence: {api_url: "http://127.0.0.1:9", auth_key: x}
    agents: [{name: Alice, sip_logins: [acme_alice]}]
    groups: [{name: sales, members: [{agent: Alice}]}]
    rules:
      - {name: VIP, when: {caller: ["+380501112233"]}, groups: [sales]}
      - {name: all of them, when: {caller: ["+38050*"]}, groups: [sales]}
      - {name: others, when: {not_caller: ["0501112233"]}, groups: [sales]}
"""
    )
    erased = run("caller", "erase", CALLER, "--project", "acme", "--yes", url=desk.settings.database_url)
    assert [
        line for line in erased.stderr.splitlines() if "VIP" in line or "others" in line
    ] == erased.stderr.splitlines()
    assert len(erased.stderr.splitlines()) == 2
    assert rules_naming({}, CALLER) == []


def test_names_the_tests_that_still_hold_the_number_wherever_it_stands(desk: Desk) -> None:
    desk.configure(
        """
projects:
  - name: acme
    overflow: "1"
    presence: {api_url: "http://127.0.0.1:9", auth_key: x}
    rules: [{name: all}]
    tests:
      - {name: by caller, call: {caller: "+380501112233", at: "2026-12-01T12:00"}, expect: {rule: all}}
      - {name: by parameter, call: {params: {note: "call 050 111-22-33"}, at: "2026-12-01T12:00"}, expect: {rule: all}}
      - {name: "38050 111 22 33 at noon", call: {at: "2026-12-01T12:00"}, expect: {rule: all}}
      - {name: of others, call: {caller: "0671112233", at: "2026-12-01T12:00"}, expect: {rule: all}}
"""
    )
    erased = run("caller", "erase", CALLER, "--project", "acme", "--yes", url=desk.settings.database_url)
    named = {line.split("'")[1] for line in erased.stderr.splitlines()}
    assert named == {"by caller", "by parameter", "38050 111 22 33 at noon"}


# ---- prune


def test_prune_tells_what_it_deleted(desk: Desk) -> None:
    url = desk.settings.database_url
    assert run("prune", url=url).output == "Nothing is kept too long.\n"
    with desk.database.writing() as session:
        session.add(models.SignInFailure(key="x", failures=1, last_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert run("prune", url=url).output == "sign in failures: 1 deleted\n"


def test_every_command_has_help() -> None:
    def commands(group: Any, path: list[str]) -> Iterator[list[str]]:
        for name, command in group.commands.items():
            yield [*path, name]
            if hasattr(command, "commands"):
                yield from commands(command, [*path, name])

    for command in commands(main, []):
        shown = CliRunner().invoke(main, [*command, "--help"], env={"PATH": os.environ["PATH"]})
        assert shown.exit_code == 0, command
        assert shown.output.startswith("Usage: ") or "usage:" in shown.output.lower()
