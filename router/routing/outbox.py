"""One small SQLite file for each installation, in which the processes of a host share what the database cannot keep:
the circuit breaker's state, what was promised and answered, who talks, and the decisions and events that wait.

Every failure of the file counts as knowing nothing; what cannot be kept in it is kept in this process alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import MemberClock, Project
from router.db.claim import Earlier, Lease
from router.db.claim_sql import DECISION_KEYS
from router.db.types import SecretError, seal, unseal
from router.log import log
from router.metrics import SPOOL_DROPPED, SPOOLED

MOST_WAITING = 10_000  # decisions, and as many events: at ten a second, a quarter of an hour without a database
KEPT_SECONDS = 24 * 3600  # a configuration of the day before sends nobody anywhere
_KEEP_EVERY_SECONDS = 4.0  # some process of the host keeps a project so often
_ANSWERS_KEPT = 600 * 1_000_000  # µs; who asks the same again later is answered anew
_TAKEN = 30 * 1_000_000  # µs; who took something to write it, and has not done so by then, never will
_LATER = 3 * 1_000_000  # µs; when what the database did not take is tried again
_MOST_PAGES = 16_384  # of 4 KB
_CHANGES = 4, 24  # bytes of the file, and from where: SQLite counts its commits there (sqlite.org/fileformat2.html)
_RESERVED_PAGES = 1024  # of the disk, taken at once: a disk that fills up later takes the first decisions all the same
_WAIT_SECONDS = 0.5  # for another process; each is done in less than a millisecond

# A process may be killed in the midst of a commit, and the others mend it then; a crash of the host may cost the file.
_SCHEMA = f"""
PRAGMA journal_mode=PERSIST;
PRAGMA synchronous=OFF;
PRAGMA max_page_count={_MOST_PAGES};
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY AUTOINCREMENT, project_id, call_id, answer, keys, until,
  at, waiting, taken_at DEFAULT 0);
CREATE INDEX IF NOT EXISTS answers_call ON answers (project_id, call_id);
CREATE INDEX IF NOT EXISTS answers_until ON answers (until);
CREATE INDEX IF NOT EXISTS answers_waiting ON answers (taken_at) WHERE waiting IS NOT NULL;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, project_id, call_id, is_over, event, at,
  taken_at DEFAULT 0);
CREATE INDEX IF NOT EXISTS events_call ON events (project_id, call_id);
CREATE TABLE IF NOT EXISTS talks (project_id, login, call_id, talks, at, wraps_up,
  PRIMARY KEY (project_id, login)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS known (project_id INTEGER PRIMARY KEY, at, known);
"""
# The file keeps the pages of the dropped table, and the journal the length that it once had.
_RESERVE = f"""
PRAGMA secure_delete=OFF;
BEGIN IMMEDIATE;
CREATE TABLE reserve (filler);
WITH RECURSIVE pages (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM pages WHERE n < {_RESERVED_PAGES})
INSERT INTO reserve SELECT zeroblob(4000) FROM pages;
COMMIT;
BEGIN IMMEDIATE;
UPDATE reserve SET filler = zeroblob(3900) WHERE rowid <= 64;
DROP TABLE reserve;
COMMIT;
PRAGMA secure_delete=FAST;
"""  # noqa: S608 - constants
_CONDITION = """
SELECT ifnull((SELECT value FROM facts WHERE name = 'open'), 0),
  EXISTS (SELECT * FROM answers WHERE waiting IS NOT NULL), EXISTS (SELECT * FROM events),
  ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'answers'), 0)
"""
_WAITING = " AND waiting IS NOT NULL"
# Nobody talks on two calls, and of those on one call the last to pick up has it. A call that is over is picked up no
# more, and what was heard before changes nothing.
_IS_NEWS = """
NOT EXISTS (SELECT * FROM events WHERE project_id = :project AND call_id = :call_id AND is_over)
AND NOT EXISTS (SELECT * FROM talks WHERE project_id = :project AND call_id = :call_id AND login = :login)
AND :login <> ''
"""
_TALKING = (
    f"""
    UPDATE talks SET talks = false, at = :at, wraps_up = :wraps_up
    WHERE project_id = :project AND call_id = :call_id AND login <> :login AND talks AND {_IS_NEWS}
    """,  # noqa: S608 - constants
    f"INSERT OR REPLACE INTO talks SELECT :project, :login, :call_id, true, :at, false WHERE {_IS_NEWS}",
)
_OVER = (
    """
    UPDATE talks SET talks = false, at = :at, wraps_up = :wraps_up
    WHERE project_id = :project AND call_id = :call_id AND talks
    """,
    # Who had picked up before the database went away.
    """
    INSERT INTO talks SELECT :project, :login, :call_id, false, :at, :wraps_up WHERE :login <> '' AND :talked
    ON CONFLICT DO NOTHING
    """,
)
_WAITING_ANSWERS = (
    "UPDATE answers SET taken_at = :now WHERE id IN (SELECT id FROM answers WHERE waiting IS NOT NULL"
    " AND taken_at NOT BETWEEN :now - :taken AND :now ORDER BY id LIMIT :limit)"
    " RETURNING id, waiting"
)
# In order within a call, and after its decisions; one call waits for no other.
_WAITING_EVENTS = (
    "UPDATE events SET taken_at = :now WHERE (project_id, call_id) IN (SELECT project_id, call_id FROM events e"
    " WHERE NOT EXISTS (SELECT * FROM answers a WHERE a.project_id = e.project_id AND a.call_id = e.call_id"
    " AND a.waiting IS NOT NULL) GROUP BY 1, 2 HAVING max(taken_at) NOT BETWEEN :now - :taken AND :now"
    " ORDER BY max(taken_at), min(id) LIMIT :limit) RETURNING id, event"
)


class Answer(NamedTuple):
    """What a call was answered. `keys`: what is promised to it until `until`, the agent's id and the phones."""

    project_id: int
    call_id: str
    earlier: Earlier
    keys: tuple[int | str, ...] = ()
    until: int = 0


class Waiting(NamedTuple):
    """A decision that waits to be written."""

    id: int
    decision: dict[str, Any]
    lease: Lease | None


class WaitingEvent(NamedTuple):
    """A call event that waits to be applied. `arrived_at`: by time.monotonic()."""

    id: int
    project_id: int
    event: CallEvent
    arrived_at: float

    @property
    def call(self) -> tuple[int, str]:
        """The call that it is about."""
        return self.project_id, self.event.call_id


class Shared(NamedTuple):
    """What the processes of this host know of a project, in an outage."""

    promised: dict[int | str, tuple[str, int]]  # by key: call id, until
    answers: list[Earlier]  # to the call at hand
    talks: dict[str, tuple[bool, int]]  # by login: does it talk; else since when it wraps up, 0: it does not


class Condition(NamedTuple):
    """What a call needs to know of the outbox."""

    opened_at: int = 0  # when the circuit breaker opened, in µs since the epoch; 0: it is closed
    is_empty: bool = True  # nothing waits
    answered: tuple[int, ...] = ()  # it changes with every answer that any process adds: an agent may be promised by it


class Outbox:
    """The outbox as this process sees it; without a folder it is this process's alone.

    `database_name` tells this installation's database from others.
    """

    def __init__(self, folder: Path | None = None, database_name: str = "") -> None:
        name = f"outbox-{sha256(database_name.encode()).hexdigest()[:16]}.sqlite"
        self.path = None if folder is None else folder / name
        self.dropped = 0
        self.worked_at = -1.0  # time.monotonic(): when the database answered this process last
        self._lock = threading.RLock()
        self._pid = 0
        self._file: sqlite3.Connection | None = None
        self._header: int | None = None  # descriptor of the file, to read its header
        self._own: sqlite3.Connection  # for what the file does not take, in this process alone
        # time.monotonic(): to open the file, to write to it, and to wait for whoever locks it
        self._tried_at = self._failed_at = self._locked_at = -1.0
        self._added: list[tuple[str, Any]] | None = None  # since `exclusive` began
        # What was read last, and at which version of the file; None: it could not be read and is tried again.
        self._seen: tuple[object, Condition] = (None, Condition())
        self._writes = 0

    # ---- the file

    def _close_header(self, close: Callable[[int], None] = os.close) -> None:
        # That frees this process's locks on the file, whoever took them: so never while it is open, or in a fork.
        if self._header is not None:
            close(self._header)
            self._header = None

    __del__ = _close_header

    def _connections(self) -> list[sqlite3.Connection]:
        """Return the file, if it can be had, and this process's own memory."""
        if self._pid != os.getpid():  # a forked child must not touch its parent's
            self._file, self._header, self._pid, self._tried_at = None, None, os.getpid(), -1.0
            self._own = _opened(":memory:")
            # Its rows have numbers that no row of the file has: both are taken and done by number.
            self._own.execute("INSERT INTO sqlite_sequence VALUES ('answers', ?1), ('events', ?1)", (1 << 48,))
        for _ in range(2):  # a damaged one is set aside
            if self._file is None and self.path is not None and not 0 <= self._tried_at > time.monotonic() - 1:
                self._tried_at = time.monotonic()
                with suppress(OSError), self._tolerated():
                    _make_private(self.path)
                    self._close_header()
                    self._header = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                    self._file = _opened(str(self.path))
        is_locked = 0 <= self._locked_at > time.monotonic() - 1  # nobody waits for it again and again
        return [self._own] if self._file is None or is_locked else [self._file, self._own]

    def _writable(self) -> list[sqlite3.Connection]:
        """The same, without a file that is full."""
        connections = self._connections()
        has_failed = 0 <= self._failed_at > time.monotonic() - 1
        return connections[-1:] if has_failed else connections

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Count a failure of the file as if it knew nothing."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._failed_at = time.monotonic()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                self._locked_at = self._failed_at
            with suppress(sqlite3.Error):
                if self._file is not None and self._file.in_transaction:
                    self._file.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError):
                log.error("the outbox is damaged and begins anew", path=str(self.path), error=str(error))
                self._set_aside("damaged")

    def _set_aside(self, suffix: str) -> None:
        if self._file is not None:
            self._file.close()
            self._close_header()
        self._file, self._tried_at, self._failed_at = None, -1.0, -1.0
        self._writes += 1
        if self.path is not None:
            with suppress(OSError):
                self.path.rename(self.path.with_suffix(f".{suffix}"))

    def _read(self, statement: str, *values: Any) -> list[Any]:
        return self._run(self._connections, statement, values)

    def _write(self, statement: str, values: Any = ()) -> list[Any]:
        """Write wherever there is something to write; return the rows that the statement returns."""
        self._writes += 1
        return self._run(self._writable, statement, values)

    def _run(self, connections: Callable[[], list[sqlite3.Connection]], statement: str, values: Any) -> list[Any]:
        rows: list[Any] = []
        with self._lock:
            for connection in connections():
                with self._tolerated():
                    rows += connection.execute(statement, values).fetchall()
        return rows

    def _add(self, statement: str, values: Any) -> None:
        """Write to the file, else to this process's own memory."""
        with self._lock:
            self._writes += 1
            for connection in self._writable():
                with self._tolerated():
                    connection.execute(statement, values)
                    if self._added is not None and connection is self._file:
                        self._added.append((statement, values))
                    return

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other process of the host answer without the database meanwhile, if that can be had in time."""
        with self._lock:
            for file in self._writable()[:-1]:
                with self._tolerated():
                    file.execute("BEGIN IMMEDIATE")
            self._added, failed_at = [], self._failed_at
            try:
                yield
            finally:
                added, self._added = self._added, None
                with self._tolerated():
                    if self._file is not None and self._file.in_transaction:
                        self._file.execute("COMMIT")
                if self._failed_at != failed_at:  # as when the disk is full
                    for statement, values in added:
                        self._own.execute(statement, values)

    def belongs_to(self, installation: str) -> None:
        """Never write into one database what another one's processes left here: the address may lead elsewhere now."""
        ids = [value for (value,) in self._read("SELECT value FROM facts WHERE name = 'installation'")]
        if ids and installation not in ids and self._file is not None:
            log.error("the outbox is another database's and is set aside", path=str(self.path))
            self._set_aside(str(ids[0]))
        if installation not in ids:
            self._write("INSERT OR REPLACE INTO facts VALUES ('installation', ?)", (installation,))

    # ---- in good times

    @property
    def is_open(self) -> bool:
        """Is the circuit breaker open? Nobody asks the database then but the upkeep."""
        return self.condition.opened_at > 0

    @property
    def is_empty(self) -> bool:
        """Does nothing wait?"""
        return self.condition.is_empty

    @property
    def condition(self) -> Condition:
        """What holds now. It costs microseconds while nobody writes."""
        if self._file is None or self._pid != os.getpid():
            with self._lock:
                self._connections()
        header, changes = self._header, b""
        if header is not None:
            with suppress(OSError):
                changes = os.pread(header, *_CHANGES)
        version = changes, self._writes
        seen_version, condition = self._seen
        if version != seen_version:
            since = time.monotonic() - 1
            opened_at, answers, events, answered = zip(*self._read(_CONDITION), strict=True)
            condition = Condition(max(opened_at), not any((*answers, *events)), answered)
            self._seen = None if 0 <= self._failed_at > since else version, condition
        return condition

    # ---- the circuit breaker

    def open_breaker(self) -> None:
        """The database failed: leave it alone until the upkeep finds that it works."""
        if not self.is_open:
            self._add("INSERT OR REPLACE INTO facts VALUES ('open', ?)", (_now(),))

    def close_breaker(self) -> None:
        """The database works."""
        if self.is_open:
            self._write("DELETE FROM facts WHERE name = 'open'")

    # ---- what is answered in an outage

    def withdraw(self, answer: Answer) -> None:
        """This is not the answer after all."""
        values = (answer.project_id, answer.call_id, answer.earlier.asked_at)
        self._write("DELETE FROM answers WHERE project_id = ? AND call_id = ? AND at = ?", values)

    def add(self, answers: Sequence[tuple[Answer, Waiting | None]]) -> None:
        """Keep answers for the other processes, with their decisions if those wait to be written."""
        for answer, waiting in answers:
            sealed = None if waiting is None else _sealed([waiting.decision, _lease_as_json(waiting)])
            self._lose(waiting is not None and sealed is None)
            self._add(
                "INSERT INTO answers (project_id, call_id, answer, keys, until, at, waiting)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(answer.project_id, answer.call_id, orjson.dumps(list(answer.earlier)), orjson.dumps(answer.keys)),
                    *(answer.until, answer.earlier.asked_at, sealed),
                ),
            )
        self._drop("answers", "waiting IS NOT NULL")
        self._count()

    def _drop(self, table: str, condition: str) -> None:
        oldest = f"SELECT id FROM {table} WHERE {condition} ORDER BY id DESC LIMIT -1 OFFSET {MOST_WAITING}"  # noqa: S608 - constants
        self._lose(len(self._write(f"DELETE FROM {table} WHERE id IN ({oldest}) RETURNING id")))  # noqa: S608 - constants

    def _lose(self, count: int) -> None:
        self.dropped += count
        SPOOL_DROPPED.inc(count)

    def look(self, project_id: int, call_id: str, since: int = 0, *, is_waiting: bool = False) -> Shared:
        """Return what was promised, answered to this call, and heard since an instant. `is_waiting`: only what is not
        in the database yet."""
        promised: dict[int | str, tuple[str, int]] = {}
        live = "SELECT call_id, keys, until FROM answers WHERE project_id = ? AND until > ?"
        for call, keys, until in self._read(live + _WAITING * is_waiting, project_id, _now()):
            for key in orjson.loads(keys):
                if until >= promised.get(key, ("", 0))[1]:
                    promised[key] = (call, until)
        answers = self.answers(project_id, call_id, is_waiting=is_waiting)
        return Shared(promised, answers, self.talks(project_id, since))

    def answers(self, project_id: int, call_id: str, *, is_waiting: bool = False) -> list[Earlier]:
        """Return what was answered to a call without the database, or just before."""
        found = f"SELECT answer FROM answers WHERE project_id = ? AND call_id = ? AND at > ?{_WAITING * is_waiting}"  # noqa: S608 - constants
        rows = self._read(found, project_id, call_id, _now() - _ANSWERS_KEPT) if call_id else []
        return [Earlier(*orjson.loads(answer)) for (answer,) in rows]

    def talks(self, project_id: int, since: int) -> dict[str, tuple[bool, int]]:
        """Return who talks, or not any more, by the events that wait."""
        found = "SELECT login, talks, at, wraps_up FROM talks WHERE project_id = ? AND at > ?"
        return {
            login: (bool(talks), at if wraps_up and not talks else 0)
            for login, talks, at, wraps_up in self._read(found, project_id, since if since <= _now() else 0)
        }

    # ---- events that wait

    def waits(self, project_id: int, call_id: str) -> bool:
        """Does anything of this call wait? What comes after it must wait too."""
        if self.is_empty or not call_id:
            return False
        of_call = "WHERE project_id = ?1 AND call_id = ?2"
        return any(
            any(row)
            for row in self._read(
                f"SELECT EXISTS (SELECT * FROM events {of_call}),"  # noqa: S608 - constants
                f" EXISTS (SELECT * FROM answers {of_call} AND waiting IS NOT NULL)",
                *(project_id, call_id),
            )
        )

    def add_event(self, project: Project, event: CallEvent, arrived_at: float) -> None:
        """Keep an event until it can be applied. `arrived_at`: by time.monotonic()."""
        if event.talks is not None and event.call_id:
            self.hear(project, event, _now() - round((time.monotonic() - arrived_at) * 1_000_000))
        sealed = _sealed([project.id, arrived_at, {name: getattr(event, name) for name in _FIELDS}])
        if sealed is None:
            self._lose(1)
            return
        self._add(
            "INSERT INTO events (project_id, call_id, is_over, event, at) VALUES (?, ?, ?, ?, ?)",
            (project.id, event.call_id, event.talks is False, sealed, _now()),
        )
        self._drop("events", "true")

    def hear(self, project: Project, event: CallEvent, at: int) -> None:
        """Note who talks since this event, or does not any more."""
        offered = [answer.sip_login for answer in reversed(self.answers(project.id, event.call_id))]
        named = event.sip_login or (event.caller if event.kind is EventKind.BEFORE_CALL else "")
        login, agent = project.login_named(named or next(iter(offered), ""), offered)
        if agent is None and event.talks and any(offered):  # perhaps the agent's phone under another name
            login = next(filter(None, offered))
        said = {
            "project": project.id,
            "call_id": event.call_id,
            "login": login,
            "at": at,
            "talked": event.disposition.is_answered,
            "wraps_up": event.direction != "out",
        }
        change, insert = _TALKING if event.talks else _OVER
        self._write(change, said)
        self._add(insert, said)
        if not event.talks:  # nobody is promised to it any more
            self._write("UPDATE answers SET until = 0 WHERE project_id = :project AND call_id = :call_id", said)

    # ---- writing what waits

    def take(self, limit: int) -> list[Waiting]:
        """Take the oldest decisions: until they are `done` or `put_back` nobody else does."""
        values = {"now": _now(), "taken": _TAKEN, "limit": limit}
        return self._unsealed(self._write(_WAITING_ANSWERS, values), "answers", _waiting)

    def take_events(self, limit: int) -> list[WaitingEvent]:
        """Take the events of so many calls, in order, in the same way."""
        values = {"now": _now(), "taken": _TAKEN, "limit": limit}
        return self._unsealed(self._write(_WAITING_EVENTS, values), "events", _waiting_event)

    def _unsealed(self, rows: list[Any], table: str, read: Callable[[int, Any], Any]) -> list[Any]:
        found = []
        for number, packed in sorted(rows):
            try:
                found.append(read(number, orjson.loads(zlib.decompress(unseal(packed)))))
            except (SecretError, ValueError, TypeError, KeyError) as error:
                log.error("the outbox holds what cannot be read: another key, or another release", error=repr(error))
                self.done(table, [number])
                self._lose(1)
        return found

    def done(self, table: str, ids: Sequence[int], *, lost: bool = False) -> None:
        """These `answers` or `events` wait no more. `lost`: they could not be written."""
        change = "UPDATE answers SET waiting = NULL" if table == "answers" else "DELETE FROM events"
        self._write(f"{change} WHERE id IN (SELECT value FROM json_each(?))", (orjson.dumps(list(ids)).decode(),))  # noqa: S608 - constants
        self._lose(len(ids) if lost else 0)
        self._count()

    def put_back(self, table: str, ids: Sequence[int], *, is_later: bool = False) -> None:
        """Let these be taken again, by whoever can write them. `is_later`: in some seconds, when others were tried."""
        change = f"UPDATE {table} SET taken_at = ? WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
        self._write(change, (_now() - _TAKEN + _LATER if is_later else 0, orjson.dumps(list(ids)).decode()))

    def tidy(self) -> None:
        """Forget what nobody needs any more."""
        now = _now()
        self._write("DELETE FROM answers WHERE waiting IS NULL AND max(until, at + ?) < ?", (_ANSWERS_KEPT, now))
        if not self._read("SELECT * FROM events LIMIT 1"):
            self._write("DELETE FROM talks WHERE at < ?", (now - _ANSWERS_KEPT,))
        self._lose(len(self._write("DELETE FROM events WHERE at < ? RETURNING id", (now - KEPT_SECONDS * 1_000_000,))))

    def waiting(self) -> tuple[int, int]:
        """Return how many decisions and events wait, on this host."""
        counts = self._read(
            "SELECT (SELECT count(*) FROM answers WHERE waiting IS NOT NULL), (SELECT count(*) FROM events)"
        )
        return sum(row[0] for row in counts), sum(row[1] for row in counts)

    def _count(self) -> None:
        SPOOLED.set(self.waiting()[0])

    # ---- what is known of each project, for a process that starts in an outage

    def keep_known(self, project_id: int, dump: Callable[[], bytes]) -> None:
        """Keep what is known of a project, if no other process did so a moment ago."""
        now, kept_at = time.time(), self._read("SELECT at FROM known WHERE project_id = ?", project_id)
        if not any(0 <= now - at < _KEEP_EVERY_SECONDS for (at,) in kept_at):
            with suppress(SecretError):
                known = seal(zlib.compress(dump(), 1))
                self._add("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (project_id, now, known))

    def known(self) -> dict[int, bytes]:
        """Return what was kept, by project."""
        found = {}
        for project_id, packed in self._read(
            "SELECT project_id, known FROM known WHERE at > ?", time.time() - KEPT_SECONDS
        ):
            with suppress(SecretError):
                found[project_id] = zlib.decompress(unseal(packed))
        return found

    def forget_known(self, but: Container[int]) -> None:
        """Forget projects that are there no more."""
        for (project_id,) in self._read("SELECT project_id FROM known"):
            if project_id not in but:
                self._write("DELETE FROM known WHERE project_id = ?", (project_id,))


def _opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_WAIT_SECONDS, check_same_thread=False)
    connection.executescript(_SCHEMA)
    if path != ":memory:" and connection.execute("PRAGMA page_count").fetchone()[0] < _RESERVED_PAGES:
        with suppress(sqlite3.OperationalError):  # the disk has less
            connection.executescript(_RESERVE)
    return connection


def _make_private(path: Path) -> None:
    """Make the file and its folder, for this account alone. Raises OSError where another account could change it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another account")


def _now() -> int:
    return time.time_ns() // 1000


# What an event is applied by. What else the platform sent with it is for people to look at.
_FIELDS = (
    *("kind", "call_id", "step", "sip_login", "caller", "dialed", "direction", "disposition"),
    *("answered", "billsec", "duration", "waittime"),
)


def _sealed(value: Any) -> bytes | None:
    try:
        return seal(zlib.compress(orjson.dumps(value, default=bytes.hex), 1))
    except (SecretError, TypeError) as error:  # no text, which the database would refuse as well; no key
        log.error("what waits for the database cannot be kept", error=repr(error))
        return None


def _lease_as_json(waiting: Waiting) -> list[Any] | None:
    if waiting.lease is None:
        return None
    *columns, turns, phones, _head_start = waiting.lease  # of the clocks only the last offer is written later
    return [*columns, [[agent_id, list(clock)] for agent_id, clock in turns], phones]


def _waiting(number: int, found: list[Any]) -> Waiting:
    decision, lease = found
    if decision.keys() < DECISION_KEYS:
        raise KeyError("a column is missing")
    if decision["packed"] is not None:
        decision["packed"] = bytes.fromhex(decision["packed"])
    if lease is not None:
        *columns, turns, phones = lease
        turns = [(agent_id, MemberClock(*clock)) for agent_id, clock in turns]
        lease = Lease._make([*columns, turns, tuple(phones), 0])
    return Waiting(number, decision, lease)


def _waiting_event(number: int, found: list[Any]) -> WaitingEvent:
    project_id, arrived_at, said = found
    said |= {"kind": EventKind(said["kind"]), "disposition": Disposition(said["disposition"])}
    # The machine may have been started anew since.
    return WaitingEvent(number, project_id, CallEvent(**said), min(arrived_at, time.monotonic()))
