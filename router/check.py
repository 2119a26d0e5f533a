"""Check what the service needs to run: for `router check`, at each start, for `/readyz` and the board.

Each check in CHECKS returns findings, with a remedy where something is wrong. Anybody may read `found` and `error`:
they name no person and no address. `detail` and `command` are for operators. None of them holds a secret.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import errors as postgres
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from router.config import Settings
from router.db import migrate
from router.db.failures import describe_failure
from router.db.keys import check_secrets
from router.db.models import Base
from router.db.rehearsal import rehearse
from router.db.session import CONNECTIONS, DATABASE_ERRORS, ConnectionsInUseError, Database, time_limit
from router.db.types import use_encryption_keys
from router.db.vitals import Probe, read_vitals
from router.log import log
from router.metrics import degraded_since

START_SECONDS = 3.0  # how long all checks of a start together wait for the database
OLDEST_POSTGRES = 12  # the first version with plan_cache_mode
LOOK_AGAIN_SECONDS = 5.0  # between two runs in a running process, while somebody asks for the result
_LATELY_SECONDS = 60.0
_SECRETS_SECONDS = 300.0  # between two checks of the credentials: decrypting thousands takes a tenth of a second
_FULL, _NEARLY_FULL = 2_000_000, 200_000_000  # free bytes on a disk


class Finding(NamedTuple):
    """The result of a check, in sentences."""

    state: Literal["ok", "warning", "error"]
    found: str
    remedy: str = ""
    command: str = ""  # a shell or SQL command that applies the remedy
    error: str = ""  # the name of the error's class
    detail: str = ""  # the text of the server or library that refused
    lasts: bool = False  # every call is answered without the database until somebody fixes this: a start is refused
    check: str = ""

    @property
    def is_error(self) -> bool:
        return self.state == "error"

    @property
    def line(self) -> str:
        """The whole finding in one line, for a log."""
        found = f"{self.check}: {self.found}" + (f" ({self.detail})" if self.detail else "")
        parts = (f"{found.removesuffix('.')}.", self.remedy, self.command.replace("\n", " "))
        return " ".join(part for part in parts if part)


class Subject:
    """The installation that is checked, and what earlier checks have found out about it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.server: Any = None  # the row of _SERVER; None on SQLite
        self.is_pooled = False
        self.has_database = False
        self.schema: migrate.Standing | None = None

    @property
    def has_schema(self) -> bool:
        return self.schema in {"ok", "ahead"}


class Check(NamedTuple):
    """A check. `needs`: it runs only if earlier checks found a working database, or a schema that fits."""

    name: str
    look: Callable[[Subject], Iterator[Finding]]
    needs: Literal["", "database", "schema"] = ""


def look(settings: Settings, database: Database, *, seconds: float, without: Iterable[str] = ()) -> list[Finding]:
    """Run all checks except those named in `without`; together they wait `seconds` for the database at most."""
    subject, findings = Subject(settings, database), list[Finding]()
    with time_limit(seconds):
        for check in CHECKS:
            is_possible = {"": True, "database": subject.has_database, "schema": subject.has_schema}[check.needs]
            if is_possible and check.name not in without:
                try:
                    for finding in check.look(subject):
                        findings.append(finding._replace(check=check.name))
                except Exception as error:  # noqa: BLE001 - the other checks still run
                    findings.append(_failed(error)._replace(check=check.name))
    return findings


def look_at_start(settings: Settings, *, seconds: float = START_SECONDS, without: Iterable[str] = ()) -> list[Finding]:
    """Run the checks before a process starts. Leaves no connection open."""
    use_encryption_keys(settings.fernet_keys)
    database = Database(settings.database_url)
    try:
        return look(settings, database, seconds=seconds, without=without)
    finally:
        database.dispose()


def unreadable(problems: str) -> list[Finding]:
    """Return the lines of a ConfigError as findings."""
    remedy = "All settings, and what they take: docs/configuration.md."
    return [Finding("error", line, remedy, lasts=True, check="settings") for line in problems.splitlines()]


def refusal(settings: Settings, findings: Iterable[Finding]) -> str:
    """Return why the start is refused, with the remedies; "" if it is not. In development no start is refused."""
    faults = [finding for finding in findings if finding.lasts]
    if settings.environment != "production" or not faults:
        return ""
    return f"Refusing to start: calls could not be answered by the database until this is fixed.\n{as_text(faults)}"


def as_text(findings: Iterable[Finding]) -> str:
    """Return the findings and remedies as lines for a terminal."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.check:<12} {finding.found}")
        more = (finding.detail, finding.remedy, *finding.command.splitlines())
        lines += [f"{'':<21} {line}" for line in more if line]
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the findings as JSON, with the worst state as `status`."""
    checks = [finding._asdict() for finding in findings]
    states = {check["state"] for check in checks}
    return {"status": next((state for state in ("error", "warning") if state in states), "ok"), "checks": checks}


# ---- in a running process


class Watch:
    """Run the checks in a running process: in a thread, and only while somebody asks for the result.

    It rehearses a call only if the last rehearsal failed or if calls were answered without the database since.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._made_at = time.time()
        self._has_rehearsed = False  # a rehearsal has succeeded
        self._logged: set[str] = set()
        self._secrets: list[Finding] = []
        self._secrets_at = -_SECRETS_SECONDS
        self._probe = Probe(self._read, every=LOOK_AGAIN_SECONDS)

    def errors(self, seconds: float = 0) -> list[Finding] | None:
        """Return the errors: those of the last run where a new one takes longer than `seconds`. None: not known yet."""
        return self._probe.latest(seconds)

    def _read(self) -> list[Finding]:
        lately, now = degraded_since(max(self._made_at, time.time() - _LATELY_SECONDS)), time.monotonic()
        without = {"presence"}
        if self._has_rehearsed and not lately:
            without.add("calls")
        if now < self._secrets_at + _SECRETS_SECONDS:
            without.add("secrets")
        findings = look(self._settings, self._database, seconds=START_SECONDS, without=without)
        by_check = {finding.check: finding for finding in findings}
        if "calls" in by_check:
            self._has_rehearsed = not by_check["calls"].is_error
        if "secrets" in by_check:
            self._secrets_at = now
            self._secrets = [finding for finding in (by_check["secrets"],) if finding.is_error]
        errors = [finding for finding in findings if finding.is_error and finding.check != "secrets"]
        for finding in errors:
            if finding.line not in self._logged:
                log.error("a check found an error", check=finding.check, error=finding.error, found=finding.line)
        self._logged = {finding.line for finding in errors}
        if lately and not errors:
            errors.append(_degraded(lately))
        return errors + self._secrets


def _degraded(reasons: Iterable[str]) -> Finding:
    return Finding(
        "error",
        "calls were answered without the database within the last minute, though it answers now",
        "Nothing to do if it passes. If it lasts, the log says at each such call what failed.",
        error=", ".join(sorted(reasons)),
        check="calls",
    )


# ---- errors as findings


def _root(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _failed(error: BaseException) -> Finding:
    """Return the finding for a failed statement."""
    root = _root(error)
    kind, said = type(root).__name__, str(root).strip().partition("\n")[0]
    if isinstance(root, ConnectionsInUseError):
        return Finding("warning", "not checked: all connections of this process are in use", error=kind)
    state = (root.sqlstate or "") if isinstance(root, psycopg.Error) else ""
    # An unknown table, column or feature: trying again does not help.
    lasts = state[:2] in {"42", "0A"} or bool(_SQLITE_LASTS.search(said))
    if isinstance(root, postgres.InsufficientPrivilege):
        remedy = "As the owner of the tables, give the user of DATABASE_URL its rights."
        return Finding(
            "error",
            "the user of DATABASE_URL lacks rights in the database",
            remedy,
            error=kind,
            detail=said,
            lasts=True,
        )
    described = describe_failure(error) or ""
    found, _colon, remedy = described.partition(": ") if described and said not in described else ("", "", "")
    return Finding(
        "error",
        found or "the database does not do what is asked of it",
        f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "If it is a mistake of `router`, report it.",
        error=kind,
        detail=said,
        lasts=lasts,
    )


_SQLITE_LASTS = re.compile("no such (table|column)|has no column|not a database|malformed")


class _Refusal(NamedTuple):
    """An error of a server or pooler, in English, that lasts until somebody fixes it. All other errors may pass."""

    words: str
    found: str
    remedy: str
    command: str = ""


_REFUSALS = (
    _Refusal(
        r"password authentication failed|no password supplied|SASL authentication failed|no such user"
        r'|role "[^"]*" does not exist|not permitted to log in|no pg_hba\.conf entry|pg_hba\.conf rejects',
        "the server does not let the user of DATABASE_URL in",
        "Correct user and password in DATABASE_URL, or let the user in on the server.",
    ),
    _Refusal(
        r'database "[^"]*" does not exist|no such database',
        "the server has no database of the name in DATABASE_URL",
        "Correct the name in DATABASE_URL, or create the database.",
        "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0;",
    ),
    _Refusal(
        r"does not support SSL|root certificate file|certificate verify failed|certificate .*(not|expired|invalid)",
        "no secure connection can be made as DATABASE_URL asks for it",
        "Correct sslmode and sslrootcert in DATABASE_URL, or the server's certificate.",
    ),
    _Refusal(
        r"unrecognized configuration parameter|unsupported startup parameter|invalid \w+ value"
        r"|invalid value for parameter|invalid connection option",
        "the server, or the pooler before it, does not take an option of DATABASE_URL",
        "Take the option out of DATABASE_URL.",
    ),
    _Refusal(
        r"statement pooling mode",
        "the pooler before the database takes no transactions",
        "Set its pool_mode to transaction.",
        "pool_mode = transaction",
    ),
)


def _unreachable(error: BaseException) -> Finding:
    """Return the finding for a connection that could not be made."""
    root = _root(error)
    said, kind = str(root).strip(), type(root).__name__
    if isinstance(root, ConnectionsInUseError):
        return _failed(root)
    tries = [line for line in said.splitlines() if line.startswith("- host")] or [said]
    for refused in _REFUSALS:
        if all(re.search(refused.words, one) for one in tries):
            detail = tries[0].removeprefix("connection failed: ").partition("\n")[0]
            return Finding("error", refused.found, refused.remedy, refused.command, kind, detail, lasts=True)
    detail = "it did not answer in time" if isinstance(root, TimeoutError) else said.partition("\n")[0]
    remedy = (
        "Meanwhile calls are answered from what is known. Check that the server runs, and that DATABASE_URL is right."
    )
    return Finding("error", "the database cannot be reached", remedy, error=kind, detail=detail)


# ---- the checks


def _look_at_settings(subject: Subject) -> Iterator[Finding]:
    warnings = subject.settings.warnings()
    for warning in warnings:
        yield Finding("warning", warning)
    if not warnings:
        yield Finding("ok", "every setting can be read")


def _look_at_database(subject: Subject) -> Iterator[Finding]:
    if subject.database.is_sqlite:
        yield from _look_at_file(subject)
        return
    try:
        with subject.database.reading() as session:
            subject.server = session.execute(text(_SERVER)).one()
            connection: Any = session.connection().connection.driver_connection
            subject.is_pooled = connection.is_pooled
    except DATABASE_ERRORS as error:
        yield _unreachable(error)
        return
    subject.has_database = True
    server = subject.server
    version = f"{server.version // 10000}.{server.version % 10000}"
    if server.version // 10000 < OLDEST_POSTGRES:
        subject.has_database = False
        yield Finding(
            "error",
            f"the server is PostgreSQL {version}, which is too old for the statements of a call",
            f"Move the database to PostgreSQL {OLDEST_POSTGRES} or newer.",
            lasts=True,
        )
        return
    yield Finding("ok", f"PostgreSQL {version} answers")


_SERVER = """
SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding,
  pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
  (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only') AS read_only_by,
  current_user AS role, current_database() AS database, current_schema() AS schema,
  has_schema_privilege(current_schema(), 'CREATE') AS may_create,
  r.rolsuper AS is_superuser, r.rolconnlimit AS role_limit, d.datconnlimit AS database_limit,
  current_setting('max_connections')::int AS most,
  current_setting('superuser_reserved_connections')::int
    + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int AS reserved
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""


def _look_at_pooler(subject: Subject) -> Iterator[Finding]:
    if subject.is_pooled:
        yield Finding(
            "ok", "a pooler such as PgBouncer stands before the server; by transaction or by session, both work"
        )


def _count_connections(subject: Subject) -> Iterator[Finding]:
    if subject.database.is_sqlite or subject.is_pooled:  # the server's limit is then the pooler's, not ours
        return
    server = subject.server
    processes = subject.settings.web_concurrency + (subject.settings.presence_keeper == "worker")
    limits = [server.role_limit, server.database_limit, server.most - server.reserved]
    allowed = server.most if server.is_superuser else min(limit for limit in limits if limit >= 0)
    needed = processes * CONNECTIONS
    if allowed >= needed:
        yield Finding("ok", f"the server allows {allowed} connections, and {processes} processes take up to {needed}")
        return
    found = f"the server allows {allowed} connections, and {processes} processes take up to {needed}"
    remedy = "Raise the limit, lower WEB_CONCURRENCY, or put a pooler such as PgBouncer before the server."
    if allowed < processes:
        yield Finding("error", f"{found}: not all get one for their calls", remedy)
    else:
        yield Finding("warning", f"{found}: at a peak pages and background work wait, calls do not", remedy)


def _file_of(database: Database) -> Path:
    return Path(database.engine.url.database or "").resolve()


def _look_at_file(subject: Subject) -> Iterator[Finding]:
    path = _file_of(subject.database)
    # Never opened here: closing any descriptor of the file releases SQLite's locks on it.
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", ".lock")]
    if problem := try_folder(path.parent):
        yield problem
        return
    for file in files:
        if file.is_dir() or (file.exists() and not os.access(file, os.R_OK | os.W_OK)):
            remedy = "Let the account that runs the service read and write it, and what lies beside it."
            yield Finding("error", "a file of the database cannot be written", remedy, detail=str(file), lasts=True)
            return
    for exposed in subject.database.exposed:
        remedy = "Take away the rights of other accounts."
        command = f"chmod go= {exposed}"
        yield Finding("warning", "other accounts of this host may read the database", remedy, command)
    if path.exists():
        try:
            with subject.database.reading() as session:
                mode = session.execute(text("PRAGMA journal_mode")).scalar_one()
        except DATABASE_ERRORS as error:
            yield _failed(error)
            return
        if mode != "wal":
            yield Finding(
                "warning",
                "the database's folder does not support SQLite's log (WAL): calls wait for each reader",
                "Put the database on a disk of this host.",
            )
        yield Finding("ok", "the file of the database can be read and written")
    else:
        yield Finding("ok", "there is no file of the database yet, and it can be made")
    subject.has_database = True


def _look_at_disk(subject: Subject) -> Iterator[Finding]:
    if subject.database.is_sqlite:
        yield from look_at_room(_file_of(subject.database).parent)


def try_folder(folder: Path) -> Finding | None:
    """Return why files in this folder cannot be written; None if they can. A missing folder is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        kind, detail = errno.errorcode.get(error.errno or 0, type(error).__name__), str(folder)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Finding("error", "the disk is full", "Free some space.", error=kind, detail=detail)
        remedy = "Let the account that runs the service write to the folder."
        lasts = error.errno in {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
        return Finding("error", "the folder cannot be written to", remedy, error=kind, detail=detail, lasts=lasts)
    return None


def look_at_room(folder: Path) -> Iterator[Finding]:
    """Yield how much room is left on the disk of this folder."""
    left = disk_usage(folder).free
    found = f"{left / 1e6:,.0f} MB are left on the disk"
    if left < _NEARLY_FULL:
        yield Finding("error" if left < _FULL else "warning", found, "Free some space.", detail=str(folder))
    else:
        yield Finding("ok", found)


def _look_at_encoding(subject: Subject) -> Iterator[Finding]:
    if subject.database.is_sqlite:
        return
    encoding = subject.server.encoding
    if encoding == "UTF8":
        yield Finding("ok", "the database stores every character (UTF8)")
    else:
        subject.has_database = False
        yield Finding(
            "error",
            f"the encoding of the database is {encoding}: a call that brings a name in another script fails",
            "Create another one, name it in DATABASE_URL, and run `router db upgrade` or restore a dump of this one.",
            "CREATE DATABASE router ENCODING 'UTF8' TEMPLATE template0;",
            lasts=True,
        )


def _look_at_rights(subject: Subject) -> Iterator[Finding]:
    if not subject.database.is_sqlite:
        finding = _unwritable(subject.server) or _rights(subject)
        subject.has_database = not finding.is_error
        yield finding


def _unwritable(server: Any) -> Finding | None:
    """Return why nobody can write to this server's database; None if one can."""
    if server.is_standby:
        return Finding(
            "error",
            "the server is a standby: it can be read and not written",
            "Name the primary in DATABASE_URL, or all hosts and ?target_session_attrs=read-write.",
        )
    if server.is_read_only:
        # A whole server may be read-only only while its disk is full; a role or database was set so by somebody.
        return Finding(
            "error",
            "the database can be read and not written (default_transaction_read_only)",
            "Let the user of DATABASE_URL write.",
            f"ALTER ROLE {_quoted(server.role)} SET default_transaction_read_only = off;\n"
            f"ALTER DATABASE {_quoted(server.database)} SET default_transaction_read_only = off;",
            lasts=server.read_only_by not in {"configuration file", "command line"},
        )
    return None


def _rights(subject: Subject) -> Finding:
    """Return whether the user of the database may create, read and write the tables."""
    server = subject.server
    role, schema = _quoted(server.role), _quoted(server.schema or "public")
    with subject.database.reading() as session:
        tables = [*Base.metadata.tables, "alembic_version"]
        denied = {row.name for row in session.execute(text(_DENIED), {"tables": tables})} if server.schema else set()
        is_there = server.schema and session.execute(text("SELECT to_regclass('alembic_version')")).scalar()
    if not server.schema or (not is_there and not server.may_create):
        return Finding(
            "error",
            "the user of the database may not create tables",
            "Grant it, as the owner of the schema: since PostgreSQL 15 nobody else may by default.",
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};",
            error="InsufficientPrivilege",
            lasts=True,
        )
    if denied:
        grants = ("SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "USAGE ON ALL SEQUENCES")
        return Finding(
            "error",
            f"the user of the database may not read or write {len(denied)} of its tables and sequences",
            "Grant them, as the owner of the tables.",
            "\n".join(f"GRANT {grant} IN SCHEMA {schema} TO {role};" for grant in grants),
            error="InsufficientPrivilege",
            detail=_some(sorted(denied)),
            lasts=True,
        )
    if server.may_create:
        return Finding("ok", "tables can be created, read and written")
    return Finding("ok", "the tables can be read and written; to create some, `router db upgrade` needs another user")


_DENIED = """
SELECT t.name FROM unnest(CAST(:tables AS text[])) t(name), unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p(may)
WHERE to_regclass(t.name) IS NOT NULL AND NOT has_table_privilege(to_regclass(t.name), p.may)
  AND (t.name <> 'alembic_version' OR p.may = 'SELECT')
UNION SELECT s.name FROM (SELECT pg_get_serial_sequence(t.name, a.attname) AS name
  FROM unnest(CAST(:tables AS text[])) t(name) JOIN pg_attribute a ON a.attrelid = to_regclass(t.name)
  WHERE a.atthasdef AND NOT a.attisdropped) s WHERE NOT has_sequence_privilege(s.name, 'USAGE')
"""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _look_at_schema(subject: Subject) -> Iterator[Finding]:
    database = subject.database
    # Opening a missing file would create it.
    is_new = database.is_sqlite and not _file_of(database).exists()
    subject.schema = "none" if is_new else migrate.standing(database)
    if subject.has_schema:
        newer = "" if subject.schema == "ok" else " (it is of a newer release, which this one works with)"
        yield Finding("ok", f"the tables are those of this release{newer}")
        return
    found = "there are no tables yet" if subject.schema == "none" else "the tables are those of an older release"
    yield Finding("error", found, "Run the release step.", "router db upgrade", lasts=True)


def _rehearse_call(subject: Subject) -> Iterator[Finding]:
    rehearse(subject.database)
    yield Finding("ok", "a test call was routed, and nothing of it was kept")


def _look_at_secrets(subject: Subject) -> Iterator[Finding]:
    with subject.database.reading() as session:
        count, unreadable = check_secrets(session)
    if not unreadable:
        yield Finding("ok", f"{count} stored credentials can be read")
        return
    yield Finding(
        "error",
        f"{len(unreadable)} of {count} stored credentials cannot be read with the keys at hand",
        "Presence is not asked for with them. Set SECRET_KEY and ENCRYPTION_KEYS as they were; if they are lost, enter "
        "the credentials again in Settings.",
        error="SecretError",
        detail=_some(unreadable),
    )


def look_at_outbox(folder: Path) -> Iterator[Finding]:
    """Yield whether the outbox can store decisions and events in this folder."""
    problem = try_folder(folder)
    if problem is None:
        yield Finding("ok", "calls that wait to be recorded can be kept on disk")
        yield from look_at_room(folder)
        return
    found = f"{problem.found}: calls that wait to be recorded are kept in memory, and lost if the process ends"
    remedy = f"{problem.remedy} Or name another folder in OUTBOX_DIR."
    yield problem._replace(found=found, remedy=remedy, lasts=False)


def _look_at_outbox(subject: Subject) -> Iterator[Finding]:
    folder = subject.settings.outbox_folder
    # The folder of the SQLite file has been checked before.
    if not subject.database.is_sqlite or folder != _file_of(subject.database).parent:
        yield from look_at_outbox(folder)


def _look_at_keeper(subject: Subject) -> Iterator[Finding]:
    keeper = subject.settings.presence_keeper
    idle = [project for project in read_vitals(subject.database).projects if not project.is_polled]
    if keeper == "off":
        yield Finding("ok", "nobody polls presence (PRESENCE_KEEPER is off): calls ask for it themselves")
    elif idle:
        remedy = "Start `router poll`." if keeper == "worker" else "Start the web processes, if they do not run yet."
        yield Finding("warning", f"no process polls the presence of {len(idle)} projects", remedy)
    else:
        yield Finding("ok", "presence is polled")


CHECKS = (
    Check("settings", _look_at_settings),
    Check("database", _look_at_database),
    Check("disk", _look_at_disk, needs="database"),
    Check("pooler", _look_at_pooler, needs="database"),
    Check("connections", _count_connections, needs="database"),
    Check("encoding", _look_at_encoding, needs="database"),
    Check("rights", _look_at_rights, needs="database"),
    Check("schema", _look_at_schema, needs="database"),
    Check("calls", _rehearse_call, needs="schema"),
    Check("secrets", _look_at_secrets, needs="schema"),
    Check("outbox", _look_at_outbox),
    Check("presence", _look_at_keeper, needs="schema"),
)
