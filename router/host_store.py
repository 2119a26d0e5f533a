"""What the processes of one host leave to each other for when the database is away: what they knew of each project,
and the decisions and call events that wait to be written. One that is killed takes nothing with it, and one that starts
then knows where to send calls. It lies in the same SQLite file in memory as what host_memory.py tells, encrypted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from router.core.model import MemberClock
from router.db.reservations import DECISION_KEYS, Lease
from router.db.types import SecretError, seal, unseal
from router.log import log

KEPT_SECONDS = 24 * 3600  # a configuration of the day before sends nobody anywhere
KEEP_EVERY_SECONDS = 4.0  # one process of the host keeps a project so often
TAKEN_SECONDS = 30.0  # who took decisions to write them, and has not done so by then, never will
ROOM_BYTES = 32 * 1024 * 1024  # beyond it each process keeps its decisions to itself: promises need room as well
_PATIENCE = 0.25  # seconds for which a process waits for another one: a caller may wait too, for what was known

# The journal is a file: a process may be killed in the midst of a commit, and the others mend it then.
_SCHEMA = """
PRAGMA journal_mode=PERSIST;
PRAGMA synchronous=OFF;
CREATE TABLE IF NOT EXISTS promises (agent_id INTEGER PRIMARY KEY, project_id, group_id, call_id, sip_login, claimed_at,
  expires_at);
CREATE TABLE IF NOT EXISTS answers_to (project_id, call_id, step, attempt, asked_at, destination, agent_id, sip_login,
  caller);
CREATE INDEX IF NOT EXISTS answers_to_call ON answers_to (project_id, call_id);
CREATE TABLE IF NOT EXISTS heard (project_id, call_id, login, talks, at, wraps_up,
  PRIMARY KEY (project_id, call_id, login)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS heard_at ON heard (project_id, at);
CREATE INDEX IF NOT EXISTS heard_talking ON heard (project_id, login) WHERE talks;
CREATE TABLE IF NOT EXISTS known (project_id INTEGER PRIMARY KEY, at, known);
CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, decision, taken_at DEFAULT 0);
CREATE TABLE IF NOT EXISTS put_off (id INTEGER PRIMARY KEY AUTOINCREMENT, event, process);
"""


class OwnConnections:
    """The connections of this process to the file: each thread has its own, and so has a forked child.

    `patience`: seconds for which they wait for other processes.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience
        self._own = threading.local()

    def open(self) -> sqlite3.Connection | None:
        """This thread's; None: it cannot be had."""
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None or self._own.pid != os.getpid():
            try:
                old = os.umask(0o077)
                try:
                    connection = sqlite3.connect(self._path, isolation_level=None, timeout=self._patience)
                finally:
                    os.umask(old)
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                return None
            self._own.connection, self._own.pid = connection, os.getpid()
        return connection


@dataclass(slots=True)
class Spooled:
    """A decision that waits to be written."""

    decision: dict[str, Any]
    lease: Lease | None
    id: int = 0  # of its row, when it was taken from the file
    is_filed: bool = False  # the other processes have it too, or the database

    def pack(self) -> bytes | None:
        """As it lies in the file; None: it cannot."""
        lease = None
        if self.lease is not None:
            *columns, turns, phones = self.lease
            lease = [*columns, [[agent_id, list(clock)] for agent_id, clock in turns], phones]
        with suppress(SecretError, TypeError):  # what is no text is refused by the database as well
            return _packed(orjson.dumps([self.decision, lease], default=bytes.hex))
        return None

    @classmethod
    def unpack(cls, number: int, packed: bytes) -> Spooled | None:
        """None: it cannot be read, or is of another release."""
        if (text := _unpacked(packed)) is None:
            return None
        decision, lease = orjson.loads(text)
        packed_record = decision.setdefault("packed", None)  # the release before has none
        if packed_record is not None:
            decision["packed"] = bytes.fromhex(packed_record)
        if not decision.keys() >= DECISION_KEYS or (lease and len(lease) != len(Lease._fields)):
            return None
        if lease:
            *columns, turns, phones = lease
            turns = [(agent_id, MemberClock(*clock)) for agent_id, clock in turns]
            lease = Lease._make([*columns, turns, tuple(phones)])
        return cls(decision, lease, number, is_filed=True)


def file_packed(connection: sqlite3.Connection, packed: Sequence[bytes]) -> bool:
    """File decisions, in the transaction at hand. False: there is no room for them. Raises sqlite3.Error."""
    if not _has_room(connection, sum(map(len, packed))):
        return False
    connection.executemany("INSERT INTO spool (decision) VALUES (?)", [(each,) for each in packed])
    return True


def _has_room(connection: sqlite3.Connection, size: int) -> bool:
    ((pages, free, page_size),) = connection.execute(
        "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    ).fetchall()
    return bool((pages - free) * page_size + size <= ROOM_BYTES)


def is_alive(process: int) -> bool:
    """Does a process of this host have this id?"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class HostStore:
    """Whatever fails here counts as keeping nothing: then each process has what it knows by itself."""

    def __init__(self, path: Path) -> None:
        self._connections = OwnConnections(path, _PATIENCE)

    # ---- what is known of the projects

    def is_due(self, project_id: int) -> bool:
        """Has no process of the host kept this project just now?"""
        now, every = _now(), round(KEEP_EVERY_SECONDS * 1_000_000)
        return not self._fetch(
            "SELECT 1 FROM known WHERE project_id = ? AND at BETWEEN ? AND ?", project_id, now - every, now
        )

    def keep(self, project_id: int, known: bytes) -> None:
        """Keep what is known of a project."""
        with suppress(SecretError):
            self._fetch("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", project_id, _now(), _packed(known))

    def kept(self) -> dict[int, bytes]:
        """What was kept last of each project, not long ago."""
        found = self._fetch("SELECT project_id, known FROM known WHERE at > ?", _now() - KEPT_SECONDS * 1_000_000)
        return {project_id: known for project_id, packed in found if (known := _unpacked(packed)) is not None}

    def forget_others(self, project_ids: Iterable[int]) -> None:
        """Projects other than these are gone."""
        for project_id in {row[0] for row in self._fetch("SELECT project_id FROM known")} - set(project_ids):
            self._fetch("DELETE FROM known WHERE project_id = ?", project_id)

    # ---- decisions that wait

    def count(self) -> int:
        """How many wait; a few more where some in the midst of them are written already."""
        ends = self._fetch("SELECT (SELECT min(id) FROM spool), (SELECT max(id) FROM spool)")
        return 1 + ends[0][1] - ends[0][0] if ends and ends[0][0] is not None else 0

    def add(self, rows: Sequence[Spooled]) -> None:
        """File those that can be filed now."""
        packed = [(row, text) for row in rows if (text := row.pack()) is not None]
        connection = self._connections.open()
        if connection is None:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            is_filed = file_packed(connection, [text for _, text in packed])
            connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return
        for row, _ in packed:
            row.is_filed = is_filed

    def take(self, limit: int) -> tuple[list[Spooled], int]:
        """The oldest that nobody is about to write: until they are `written` or `put_back` nobody else takes them.
        And how many more were dropped, because they cannot be read.
        """
        now, long = _now(), round(TAKEN_SECONDS * 1_000_000)
        found = self._fetch(
            "UPDATE spool SET taken_at = ?1 WHERE id IN (SELECT id FROM spool"
            " WHERE taken_at NOT BETWEEN ?1 - ?2 AND ?1 ORDER BY id LIMIT ?3) RETURNING id, decision",
            *(now, long, limit),
        )
        taken = {number: Spooled.unpack(number, packed) for number, packed in sorted(found)}
        unreadable = [number for number, row in taken.items() if row is None]
        self.written(unreadable)
        return [row for row in taken.values() if row is not None], len(unreadable)

    def written(self, ids: Iterable[int]) -> None:
        """These need not be written any more."""
        self._fetch("DELETE FROM spool WHERE id IN (SELECT value FROM json_each(?))", _list(ids))

    def put_back(self, ids: Iterable[int]) -> None:
        """Somebody else may take these."""
        self._fetch("UPDATE spool SET taken_at = 0 WHERE id IN (SELECT value FROM json_each(?))", _list(ids))

    # ---- call events that wait

    def keep_event(self, event: bytes) -> int:
        """Keep an event that this process has put off; its number. 0: it cannot be kept."""
        connection = self._connections.open()
        with suppress(SecretError, sqlite3.Error):
            packed = _packed(event)
            if connection is not None and _has_room(connection, len(packed)):
                keep = "INSERT INTO put_off (event, process) VALUES (?, ?) RETURNING id"
                for (number,) in self._fetch(keep, packed, os.getpid()):
                    return int(number)
        return 0

    def forget_event(self, number: int) -> None:
        """It is applied, or given up."""
        self._fetch("DELETE FROM put_off WHERE id = ?", number)

    def events_left(self) -> list[tuple[int, bytes]]:
        """What processes had put off that are gone, by number: this one has to apply it now."""
        found: dict[int, bytes | None] = {}
        for (process,) in self._fetch("SELECT DISTINCT process FROM put_off"):
            if not is_alive(process):
                rows = self._fetch(
                    "UPDATE put_off SET process = ? WHERE process = ? RETURNING id, event", os.getpid(), process
                )
                found |= {number: _unpacked(packed) for number, packed in rows}
        if unreadable := [number for number, event in found.items() if event is None]:
            log.error("call events that were put off cannot be read: the key was changed", count=len(unreadable))
            for number in unreadable:
                self.forget_event(number)
        return sorted((number, event) for number, event in found.items() if event is not None)

    def _fetch(self, statement: str, *values: Any) -> list[Any]:
        if (connection := self._connections.open()) is not None:
            with suppress(sqlite3.Error):
                return connection.execute(statement, values).fetchall()
        return []


def _list(ids: Iterable[int]) -> str:
    return orjson.dumps(list(ids)).decode()


def _now() -> int:
    return time.time_ns() // 1000


def _packed(text: bytes) -> bytes:
    return seal(zlib.compress(text, 1))


def _unpacked(packed: bytes) -> bytes | None:
    try:
        return zlib.decompress(unseal(packed))
    except SecretError:  # of before the key was changed
        return None
