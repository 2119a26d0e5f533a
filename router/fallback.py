"""What a process knows by itself, and what it answers from while the database is away.

It remembers each project's configuration, the newest presence and clocks that it read, whom it promised, and what it
answered. Such answers are marked as degraded, kept in a bounded spool and written down when the database is back. The
processes of one host share whom they promised meanwhile, so that even then no agent is promised twice on it.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

import orjson

from router.core.model import Offer
from router.db.queries import Published
from router.db.reservations import Earlier, Lease, LostRaceError, State
from router.metrics import SPOOL_DROPPED, SPOOLED

SPOOL_LIMIT = 10_000  # decisions; at ten a second, a quarter of an hour without a database
CALLS_REMEMBERED = 2_000  # per project: their copies and next steps are told from new calls
_PAUSE_SECONDS = 1.0  # after a failure the database is left alone for this long, so that callers do not wait for it


class Seen(NamedTuple):
    """One reading of a project's source. Replaced as a whole: another thread may learn of the next one meanwhile."""

    snapshot_id: int = 0
    online: frozenset[str] = frozenset()
    speaking: frozenset[str] = frozenset()


@dataclass(slots=True)
class Known:
    """What this process knows of a project."""

    published: Published
    zone: ZoneInfo
    seen: Seen = field(default_factory=Seen)
    began_at: int | None = None
    members: dict[tuple[int, int], Sequence[Any]] = field(default_factory=dict)  # by (group, agent): MEMBER_COLUMNS
    promised: dict[int, tuple[str, int]] = field(default_factory=dict)  # by agent: call id, expires_at
    calls: OrderedDict[str, list[Earlier]] = field(default_factory=OrderedDict)
    refresh_pause: float = 0.0  # seconds; see `refreshed`
    refresh_at: float = 0.0  # time.monotonic()

    def may_refresh(self) -> bool:
        """May a call wait for its source now? While the source has no news, few calls should wait for it in vain."""
        return time.monotonic() >= self.refresh_at

    def refreshed(self, *, news: bool) -> None:
        """A call waited for the source. In vain: the next one does so only after a pause, longer each time."""
        self.refresh_pause = 0.0 if news else min(30.0, 2 * self.refresh_pause or 2.0)
        self.refresh_at = time.monotonic() + self.refresh_pause

    def learn(self, state: State, seen: Seen) -> Seen:
        """Keep what was read; the reading that it refers to. `seen`: the one that it was asked with."""
        self.began_at = state.began_at
        if state.presence is not None and state.snapshot_id is not None:
            online, speaking = state.presence
            self.seen = seen = Seen(state.snapshot_id, frozenset(online), frozenset(speaking))
        for row in state.members:
            self.members[row[0], row[5]] = row
        return seen

    def remember(self, decision: dict[str, Any], lease: Lease | None, decision_id: int) -> None:
        """Keep what was answered, whether or not it could be written down."""
        if lease is not None:
            self.promised[lease.agent_id] = (decision["call_id"], lease.expires_at)
        if call_id := decision["call_id"]:
            self.calls.setdefault(call_id, []).append(_as_earlier(decision, decision_id))
            if len(self.calls) > CALLS_REMEMBERED:
                self.calls.popitem(last=False)

    def state(self, call_id: str, group_ids: Iterable[int], shared: Promises) -> State:
        """What would have been read, as far as this process and its host know it."""
        now = time.time_ns() // 1000
        wanted = set(group_ids)
        earlier = [*self.calls.get(call_id, ()), *shared.answers] if call_id else []
        return State(
            now=now,
            version=self.published.project.version,
            snapshot_id=self.seen.snapshot_id or None,
            began_at=self.began_at,
            presence=None,
            earlier=sorted(earlier, key=lambda one: one.asked_at),
            events=[],
            members=[
                self._as_promised(row, call_id, shared)
                for (group_id, _), row in self.members.items()
                if group_id in wanted
            ],
            agents=[],
        )

    def _as_promised(self, row: Sequence[Any], call_id: str, shared: Promises) -> list[Any]:
        """The row with the promises made since, here or in other processes of this host."""
        until = row[8] or 0
        for made in (self.promised.get(row[5]), shared.promised.get(row[5])):
            if made is not None and (not call_id or made[0] != call_id):
                until = max(until, made[1])
        return [*row[:8], until or None, *row[9:]]

    def advance(self, offer: Offer, day: str) -> None:
        """Move the member's clock on, so that turns go on while nothing can be written."""
        if offer.group_id is None or offer.clock is None:
            return
        key = (offer.group_id, offer.agent_id)
        row = self.members.get(key)
        agent = list(row[5:]) if row is not None else [offer.agent_id, "available", *[None] * 4, 0, None, None, None]
        clock = offer.clock
        self.members[key] = [offer.group_id, clock.last_offered, clock.virtual_time, clock.head_start, day, *agent]


class Breaker:
    """After a failure the database is left alone for a moment; then one call tries it with little patience."""

    def __init__(self) -> None:
        self._closed_at = 0.0
        self._failed = False

    def share(self, budget_left: float) -> float:
        """How many seconds a call may spend on the database: 0 right after a failure, else a part of what is left."""
        if not self._failed:
            return budget_left / 2
        return 0.0 if time.monotonic() < self._closed_at else min(0.25, budget_left / 4)

    def failed(self) -> None:
        self._failed = True
        self._closed_at = time.monotonic() + _PAUSE_SECONDS

    def worked(self) -> None:
        self._failed = False


class Spool:
    """Degraded decisions that wait to be written, oldest first. The oldest is dropped when it is full."""

    def __init__(self) -> None:
        self._rows: deque[tuple[dict[str, Any], Lease | None]] = deque()
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decision: dict[str, Any], lease: Lease | None) -> None:
        with self._lock:
            self._drop(len(self._rows) + 1 - SPOOL_LIMIT)
            self._rows.append((decision, lease))
            SPOOLED.set(len(self._rows))

    def take(self, limit: int) -> list[tuple[dict[str, Any], Lease | None]]:
        """The oldest, out of the spool: who cannot write them puts them back."""
        with self._lock:
            taken = [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]
            SPOOLED.set(len(self._rows))
            return taken

    def put_back(self, rows: Sequence[tuple[dict[str, Any], Lease | None]]) -> None:
        with self._lock:
            self._rows.extendleft(reversed(rows))
            self._drop(len(self._rows) - SPOOL_LIMIT)
            SPOOLED.set(len(self._rows))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._rows.popleft()
            self.dropped += 1
            SPOOL_DROPPED.inc()


class Promises(NamedTuple):
    """What the processes of this host promised, and answered to the call at hand."""

    promised: Mapping[int, tuple[str, int]] = MappingProxyType({})  # by agent: call id, expires_at
    answers: Sequence[Earlier] = ()


_PROMISE = struct.Struct("<qqq")  # agent id, expires_at, checksum: written without a lock, so a torn one must show
_PROMISES = 8192  # agents by id; of two in one slot the newer promise is kept
_NEWS = struct.Struct("<q")
_NEWS_AT = _PROMISES * _PROMISE.size
_ANSWER = struct.Struct("<16sIH")  # question, checksum and length of the answer, which follows as JSON
_ANSWERS = 4096  # questions by their digest; of two in one slot the newer is kept
_ANSWERS_AT = _NEWS_AT + _NEWS.size
_ANSWER_ROOM = 256 - _ANSWER.size  # for the JSON
_SIZE = _ANSWERS_AT + _ANSWERS * 256


class RecentClaims:
    """The newest promises and answers of all processes of a host, in memory that they share: a microsecond each.

    Noted before the database is asked to record them: it may go away meanwhile. `news` changes with each answer that
    is given without the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: mmap.mmap | None = None

    def note(self, agent_id: int, until: int) -> None:
        if (memory := self._open()) is not None:
            _PROMISE.pack_into(memory, agent_id % _PROMISES * _PROMISE.size, agent_id, until, agent_id ^ until)

    def until(self, agent_id: int) -> int:
        """Until when the agent's newest promise holds; 0: none is known."""
        if (memory := self._open()) is None:
            return 0
        agent, until, check = _PROMISE.unpack_from(memory, agent_id % _PROMISES * _PROMISE.size)
        return int(until) if agent == agent_id and check == agent ^ until else 0

    def note_answer(self, question: bytes, answer: Earlier | None) -> None:
        """None: it is not given after all."""
        text = orjson.dumps(answer and list(answer))
        if (memory := self._open()) is not None and len(text) <= _ANSWER_ROOM:
            noted = _ANSWER.pack(question, crc32(text), len(text)) + text
            at = _answer_at(question)
            memory[at : at + len(noted)] = noted

    def answer(self, question: bytes) -> Earlier | None:
        """The newest answer that the database was asked to record."""
        if (memory := self._open()) is None:
            return None
        at = _answer_at(question)
        noted, check, length = _ANSWER.unpack_from(memory, at)
        text = memory[at + _ANSWER.size : at + _ANSWER.size + min(length, _ANSWER_ROOM)]
        if noted != question or crc32(text) != check:
            return None
        answer = orjson.loads(text)
        return answer and Earlier(*answer)

    @property
    def news(self) -> int:
        """When the newest answer was given without the database, in ns since the epoch; 0: never yet."""
        memory = self._open()
        return 0 if memory is None else int(_NEWS.unpack_from(memory, _NEWS_AT)[0])

    def tell_news(self) -> None:
        if (memory := self._open()) is not None:
            _NEWS.pack_into(memory, _NEWS_AT, time.time_ns())

    def live(self, now: int) -> dict[int, int]:
        """Agent → until when, of the promises that hold."""
        memory = self._open()
        if memory is None:
            return {}
        return {
            agent: until
            for agent, until, check in _PROMISE.iter_unpack(memory[:_NEWS_AT])
            if until > now and check == agent ^ until
        }

    def _open(self) -> mmap.mmap | None:
        if self._memory is None:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.ftruncate(fd, _SIZE)
                    self._memory = mmap.mmap(fd, _SIZE)
                finally:
                    os.close(fd)
            except OSError:
                return None
        return self._memory


def _answer_at(question: bytes) -> int:
    return _ANSWERS_AT + int.from_bytes(question[:4]) % _ANSWERS * 256


def _question(project: int, call_id: str, step: str) -> bytes:
    """A digest; empty for a call without an id, whose questions are all different."""
    name = f"{project}:{len(step)}:{step}:{call_id}"
    return blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest() if call_id else b""


def _as_earlier(decision: Mapping[str, Any], decision_id: int) -> Earlier:
    return Earlier(
        decision_id,
        decision["step"],
        decision["attempt"],
        decision["asked_at"],
        decision["destination"],
        decision["agent_id"],
        decision["sip_login"],
        "",
    )


class HostMemory:
    """A small SQLite file in memory that the processes of one host share while the database is away.

    Some may be without it while others still have it, and neither can wait for the other. So who claims an agent
    through the database notes promise and answer first and then looks for news; who answers without it tells news first
    and then looks for such notes. Of two at the same time at least one sees the other. Whatever fails here counts as
    knowing nothing: it is the last resort but one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.recent = RecentClaims(path.with_suffix(".recent"))
        self._own = threading.local()  # connection, pid: each thread has its own, and so has a forked child
        self._seen = 0
        self._has_news = False

    @contextmanager
    def claiming(self, decision: Mapping[str, Any], lease: Lease | None) -> Iterator[bool]:
        """While both are written to the database. False: something was answered without it that is not yet known."""
        recent, question = self.recent, _question(decision["project"], decision["call_id"], decision["step"])
        before = 0
        if lease is not None:
            before = recent.until(lease.agent_id)
            recent.note(lease.agent_id, lease.expires_at)
        if question:
            recent.note_answer(question, _as_earlier(decision, 0))
        try:
            yield recent.news in (0, self._seen)
        except LostRaceError:
            self.withdraw(decision)
            if lease is not None and recent.until(lease.agent_id) == lease.expires_at:
                recent.note(lease.agent_id, before)
            raise

    def withdraw(self, decision: Mapping[str, Any]) -> None:
        """This is not the answer after all."""
        if question := _question(decision["project"], decision["call_id"], decision["step"]):
            self.recent.note_answer(question, None)

    @contextmanager
    def promising(self, deadline: float) -> Iterator[None]:
        """No other process answers without the database until the end of the block, if that can be had in time."""
        try:
            with self._alone(deadline):
                yield
        finally:
            if self._has_news:  # again: who was told before could not read it yet
                self.recent.tell_news()
                self._has_news = False

    def look(self, project: int, call_id: str, step: str) -> Promises:
        """What was promised, and answered to this call. With the database or without it."""
        connection, now = self._open(), time.time_ns() // 1000
        # Of a promise in the shared memory the call is not known: it counts as another's.
        promised = {agent: ("", until) for agent, until in self.recent.live(now).items()}
        answers = self._answers(project, call_id)
        if (question := _question(project, call_id, step)) and (claimed := self.recent.answer(question)):
            answers.append(claimed)
        if connection is None:
            return Promises(promised, answers)
        with suppress(sqlite3.Error):
            for agent, call, until in connection.execute(
                "SELECT agent_id, call_id, expires_at FROM promises WHERE project_id = ? AND expires_at > ?",
                (project, now),
            ).fetchall():
                if until >= promised.get(agent, ("", 0))[1]:
                    promised[agent] = (call, until)
        return Promises(promised, answers)

    def answers(self, project: int, call_id: str) -> list[Earlier]:
        """What was answered to this call without the database. Costs a look into the shared memory in good times."""
        happened = self.recent.news
        if not happened or time.time_ns() - happened > ANSWERS_KEPT_SECONDS * 1_000_000_000:
            return []
        return self._answers(project, call_id)

    def _answers(self, project: int, call_id: str) -> list[Earlier]:
        connection, since = self._open(), time.time_ns() // 1000 - ANSWERS_KEPT_SECONDS * 1_000_000
        if connection is None or not call_id:
            return []
        try:
            rows = connection.execute(
                "SELECT 0, step, attempt, asked_at, destination, agent_id, sip_login, '' FROM answers"
                " WHERE project_id = ? AND call_id = ? AND asked_at > ?",
                (project, call_id, since),
            ).fetchall()
        except sqlite3.Error:
            return []
        return [Earlier(*row) for row in rows]

    def note(self, decision: dict[str, Any], lease: Lease | None, known: Promises) -> bool:
        """Tell the other processes, while `promising`. False: since what is `known` was looked up, the agent was
        claimed through the database, or the same question answered.
        """
        self._has_news = True
        self.recent.tell_news()
        question = _question(decision["project"], decision["call_id"], decision["step"])
        if question and (claimed := self.recent.answer(question)) and claimed not in known.answers:
            return False
        if lease is not None:
            until, before = self.recent.until(lease.agent_id), known.promised.get(lease.agent_id, ("", 0))[1]
            if until not in (before, lease.expires_at) and until > time.time_ns() // 1000:
                return False
            self.recent.note(lease.agent_id, lease.expires_at)
        if (connection := self._open()) is None:
            return True
        with suppress(sqlite3.Error):
            connection.execute(
                "INSERT INTO answers VALUES (:project, :call_id, :step, :attempt, :asked_at, :destination, :agent_id,"
                " :sip_login)",
                decision,
            )
            if lease is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO promises VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        lease.agent_id,
                        decision["project"],
                        lease.group_id,
                        decision["call_id"],
                        lease.sip_login,
                        decision["asked_at"],
                        lease.expires_at,
                    ),
                )
        return True

    def unwritten(self, deadline: float) -> list[tuple[int, int, int | None, str, str, int, int]] | None:
        """Promises of this host that still hold and that this process has not yet seen written: rows of `promises`.
        None: they cannot be read by the deadline, so that nobody can be claimed.

        Costs a look into the shared memory while nothing happened.
        """
        news = self.recent.news
        if news in (0, self._seen):
            return []
        rows: list[tuple[int, int, int | None, str, str, int, int]] = []
        with self._alone(deadline) as connection:  # after whoever has told the news and is still writing it down
            if connection is not None:
                if not connection.in_transaction:
                    return None
                now = time.time_ns() // 1000
                rows = connection.execute("SELECT * FROM promises WHERE expires_at > ?", (now,)).fetchall()
        self._seen = news
        return rows

    def forget_seen(self) -> None:
        """What `unwritten` gave could not be written after all."""
        self._seen = 0

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[sqlite3.Connection | None]:
        """The connection, in a transaction unless another process is in one for too long. None: it is of no use."""
        connection = self._open()
        patience = max(_LEAST_PATIENCE, deadline - time.monotonic())
        if connection is not None:
            try:
                connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                    connection = None
        try:
            yield connection
        finally:
            if connection is not None and connection.in_transaction:
                connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection | None:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None or self._own.pid != os.getpid():
            try:
                old = os.umask(0o077)
                try:
                    connection = sqlite3.connect(self._path, isolation_level=None, timeout=_LEAST_PATIENCE)
                finally:
                    os.umask(old)
                connection.executescript(_HOST_SCHEMA)
                oldest = time.time_ns() // 1000 - ANSWERS_KEPT_SECONDS * 1_000_000
                with suppress(sqlite3.OperationalError):  # another process is writing
                    connection.execute("DELETE FROM answers WHERE asked_at < ?", (oldest,))
            except sqlite3.Error:
                return None
            self._own.connection, self._own.pid = connection, os.getpid()
        return connection


_LEAST_PATIENCE = 0.2  # seconds; the others are done in milliseconds
ANSWERS_KEPT_SECONDS = 600
_HOST_SCHEMA = """
PRAGMA journal_mode=MEMORY;
PRAGMA synchronous=OFF;
CREATE TABLE IF NOT EXISTS promises (agent_id INTEGER PRIMARY KEY, project_id, group_id, call_id, sip_login, claimed_at,
  expires_at);
CREATE TABLE IF NOT EXISTS answers (project_id, call_id, step, attempt, asked_at, destination, agent_id, sip_login);
CREATE INDEX IF NOT EXISTS answers_of_call ON answers (project_id, call_id);
"""


def host_memory_path(database_url: str) -> Path:
    """Where the processes of this host that serve this database meet: a folder in memory, of this user alone."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108 - below
    own = folder / f"router-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise PermissionError(f"{own} belongs to another user")
    return own / f"{sha256(database_url.encode()).hexdigest()[:16]}.sqlite"
