"""What the processes of one host tell each other while the database is away: whom they promised, what they answered,
who was heard to talk. In memory that they share, so that even then no agent is promised twice on the host.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b, sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from router.core.events import CallEvent, EventKind
from router.core.model import Project
from router.core.phones import phone_of
from router.db.reservations import LONGEST_TALK, Earlier, Lease, LostRaceError, phone_key, promised_keys
from router.db.session import CLOCK_STEP
from router.db.types import MICROSECOND
from router.host_store import OwnConnections, Spooled, file_packed, is_alive


class Shared(NamedTuple):
    """What the processes of this host promised, answered to the call at hand, and heard of who talks."""

    promised: Mapping[int, tuple[str, int]] = MappingProxyType({})  # by `promised_keys`: call id, expires_at
    answers: Sequence[Earlier] = ()
    heard: Mapping[str, tuple[bool, int]] = MappingProxyType({})  # by login: does it talk; else since when it wraps up


_PROMISE = struct.Struct("<qqq")  # agent or phone, expires_at, checksum: written without a lock, a torn one must show
_PROMISES = 8192  # by number, see `promised_keys`; of two in one slot the newer promise is kept
_NEWS = struct.Struct("<q")
_NEWS_AT = _PROMISES * _PROMISE.size
_ANSWER = struct.Struct("<16sIH")  # question, checksum and length of the answer, which follows as JSON
_ANSWERS = 4096  # questions by their digest; of two in one slot the newer is kept
_ANSWERS_AT = _NEWS_AT + _NEWS.size
_ANSWER_ROOM = 256 - _ANSWER.size  # for the JSON
_UNFILED = struct.Struct("<q")
_UNFILED_AT = _ANSWERS_AT + _ANSWERS * 256
_PROCESSES = 256  # by their id
_PUT_OFF_AT = _UNFILED_AT + _PROCESSES * _UNFILED.size  # as the news
_SIZE = _PUT_OFF_AT + _NEWS.size


class RecentClaims:
    """The newest promises and answers of all processes of a host, in memory that they share: a microsecond each.

    Noted before the database is asked to record them: it may go away meanwhile. `news` changes with each answer that
    is given without the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: mmap.mmap | None = None

    def note(self, key: int, until: int) -> None:
        if (memory := self._open()) is not None:
            _PROMISE.pack_into(memory, key % _PROMISES * _PROMISE.size, key, until, key ^ until)

    def until(self, key: int) -> int:
        """Until when the newest promise of this agent or phone holds; 0: none is known."""
        if (memory := self._open()) is None:
            return 0
        noted, until, check = _PROMISE.unpack_from(memory, key % _PROMISES * _PROMISE.size)
        return int(until) if noted == key and check == noted ^ until else 0

    def note_answer(self, question: bytes, answer: Earlier | None, filed_by: int = 0) -> None:
        """None: it is not given after all. `filed_by`: the process that files it; 0: the database gets it."""
        text = orjson.dumps(answer and [filed_by, *answer])
        if (memory := self._open()) is not None and len(text) <= _ANSWER_ROOM:
            noted = _ANSWER.pack(question, crc32(text), len(text)) + text
            at = _answer_at(question)
            memory[at : at + len(noted)] = noted

    def answer(self, question: bytes) -> tuple[Earlier | None, int]:
        """The newest answer to the question, and the process that files it."""
        if (memory := self._open()) is None:
            return None, 0
        at = _answer_at(question)
        noted, check, length = _ANSWER.unpack_from(memory, at)
        text = memory[at + _ANSWER.size : at + _ANSWER.size + min(length, _ANSWER_ROOM)]
        if noted != question or crc32(text) != check:
            return None, 0
        filed_by, *answer = orjson.loads(text) or (0,)
        return Earlier(*answer) if answer else None, filed_by

    @property
    def news(self) -> int:
        """When the newest answer was given without the database, in ns since the epoch; 0: never yet."""
        return self._told(_NEWS_AT)

    def tell_news(self) -> None:
        self._tell(_NEWS_AT)

    @property
    def put_off(self) -> int:
        """The same of the newest call event that could not be applied at once."""
        return self._told(_PUT_OFF_AT)

    def tell_put_off(self) -> None:
        self._tell(_PUT_OFF_AT)

    def _told(self, place: int) -> int:
        memory = self._open()
        return 0 if memory is None else int(_NEWS.unpack_from(memory, place)[0])

    def _tell(self, place: int) -> None:
        if (memory := self._open()) is not None:
            _NEWS.pack_into(memory, place, time.time_ns())

    def tell_unfiled(self, until: int) -> None:
        """Until when that holds which this process has answered and could not file yet; 0: all is filed."""
        if (memory := self._open()) is not None:
            _UNFILED.pack_into(memory, _UNFILED_AT + os.getpid() % _PROCESSES * _UNFILED.size, until)

    def unfiled(self, now: int) -> set[int]:
        """What the processes told of such answers, as far as they still hold."""
        memory = self._open()
        told = () if memory is None else _UNFILED.iter_unpack(memory[_UNFILED_AT:_PUT_OFF_AT])
        return {until for (until,) in told if until > now}

    def live(self, now: int) -> dict[int, int]:
        """Agent or phone → until when, of the promises that hold."""
        memory = self._open()
        if memory is None:
            return {}
        return {
            key: until
            for key, until, check in _PROMISE.iter_unpack(memory[:_NEWS_AT])
            if until > now and check == key ^ until
        }

    def _open(self) -> mmap.mmap | None:
        if self._memory is None:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    # Never shorter: another release may have mapped it. And no holes: to write where the memory has
                    # no room for them would be the end of the process.
                    os.posix_fallocate(fd, 0, _SIZE)
                    self._memory = mmap.mmap(fd, _SIZE)
                finally:
                    os.close(fd)
            except OSError:
                return None
        return self._memory


def _answer_at(question: bytes) -> int:
    return _ANSWERS_AT + int.from_bytes(question[:4]) % _ANSWERS * 256


def _since_boot() -> int:
    """µs, the same for all processes of the host, and never set back: for what is compared with nobody else's clock."""
    return time.monotonic_ns() // 1000


def _is_recent(happened: int) -> bool:
    """ns since the epoch; 0: it never happened."""
    return bool(happened) and time.time_ns() - happened <= ANSWERS_KEPT_SECONDS * 1_000_000_000


def _question(project: int, call_id: str, step: str) -> bytes:
    """A digest; empty for a call without an id, whose questions are all different."""
    name = f"{project}:{len(step)}:{step}:{call_id}"
    return blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest() if call_id else b""


Promise = tuple[int, int, int | None, str, str, int, int]
"""A row of `promises`: agent, project, group, call id, login, since, until."""


class _Answered(NamedTuple):
    """An answer given without the database, as it is filed."""

    answer: tuple[Any, ...]  # a row of `answers_to`
    promise: Promise | None
    until: int  # it holds, for those who ask meanwhile
    decision: Spooled
    packed: bytes | None


class HostMemory:
    """A small SQLite file in memory that the processes of one host share while the database is away.

    Some may be without it while others still have it, and neither can wait for the other. So who claims an agent
    through the database notes promise and answer first and then looks for news; who answers without it tells news first
    and then looks for such notes. Of two at the same time at least one sees the other. Whatever fails here counts as
    knowing nothing: it is the last resort but one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recent = RecentClaims(path.with_suffix(".recent"))
        self._connections = OwnConnections(path, _LEAST_PATIENCE)
        self._seen = 0
        self._has_news = False
        self._unfiled: deque[_Answered] = deque(maxlen=_UNFILED_LIMIT)
        self._told_unfiled = 0  # as the others were told
        self._noting = threading.Lock()  # the upkeep's thread must not tell that all is filed in the midst of it
        self._commits = 0
        self._heard_events = 0

    @contextmanager
    def claiming(self, decision: Mapping[str, Any], lease: Lease | None) -> Iterator[bool]:
        """While both are written to the database. False: something was answered without it that is not yet known."""
        recent, question = self.recent, _question(decision["project"], decision["call_id"], decision["step"])
        before: dict[int, int] = {}
        if lease is not None:
            before = {key: recent.until(key) for key in promised_keys(decision["project"], lease)}
            for key in before:
                recent.note(key, lease.expires_at)
        if question:
            recent.note_answer(question, Earlier.of(decision))
        try:
            yield recent.news in (0, self._seen)
        except LostRaceError:
            self.withdraw(decision)
            for key, until in before.items():
                if lease is not None and recent.until(key) == lease.expires_at:
                    recent.note(key, until)
            raise

    def withdraw(self, decision: Mapping[str, Any]) -> None:
        """This is not the answer after all. What another process noted of the question since stays."""
        question = _question(decision["project"], decision["call_id"], decision["step"])
        if question and self.recent.answer(question)[0] == Earlier.of(decision):
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

    def look(self, project: int, call_id: str, step: str, since: int = 0) -> Shared:
        """What was promised, and answered to this call, with the database or without it; and what was heard since."""
        connection, now = self._open(), time.time_ns() // 1000
        # Of a promise in the shared memory the call is not known: it counts as another's.
        promised = {key: ("", until) for key, until in self.recent.live(now).items()}
        answers = self._answered(project, call_id, step)
        if connection is None:
            return Shared(promised, answers)
        with suppress(sqlite3.Error):
            for agent, login, call, until in connection.execute(
                "SELECT agent_id, sip_login, call_id, expires_at FROM promises WHERE project_id = ? AND expires_at > ?",
                (project, now),
            ).fetchall():
                for key in (agent, phone_key(project, phone_of(login))):
                    if until >= promised.get(key, ("", 0))[1]:
                        promised[key] = (call, until)
        return Shared(promised, answers, self._heard(connection, project, since))

    def heard(self, project: int, since: int) -> dict[str, bool]:
        """Which logins were heard to talk, or not any more, since then. As cheap as `answers` in good times."""
        is_behind = self._has_recent_news() or _is_recent(self.recent.put_off)
        if not is_behind or (connection := self._open()) is None:
            return {}
        return {login: talks for login, (talks, _) in self._heard(connection, project, since).items()}

    def _heard(self, connection: sqlite3.Connection, project: int, since: int) -> dict[str, tuple[bool, int]]:
        now, since_boot = time.time_ns() // 1000, _since_boot()
        if since > now + CLOCK_STEP // MICROSECOND:  # of before the clock was set back
            since = 0
        since = since_boot - min(now - since, LONGEST_TALK)
        with suppress(sqlite3.Error):
            found = connection.execute(_HEARD, (project, since, since_boot)).fetchall()
            return {login: (bool(talks), ended and now - since_boot + ended) for login, talks, ended in found}
        return {}

    def hear(self, project: Project, event: CallEvent, arrived_at: float, *, is_put_off: bool) -> None:
        """Tell who talks and who does not any more: the next answer may have to do without the database.

        As of when it arrived (time.monotonic()): what was seen since is newer. `is_put_off`: the database does not
        know it yet, though it may well answer to calls.
        """
        if is_put_off:
            self.recent.tell_put_off()
        talks = event.talks
        if talks is None or not event.call_id:
            return
        offered = [answer.sip_login for answer in reversed(self._answered(project.id, event.call_id, event.step))]
        named = event.sip_login or (event.caller if event.kind is EventKind.BEFORE_CALL else "")
        login, agent = project.login_named(named or next(iter(offered), ""), offered)
        if agent is None and talks and any(offered):  # perhaps the agent's phone under another name
            login = next(filter(None, offered))
        said = {
            "project": project.id,
            "call_id": event.call_id,
            "login": login,
            "now": int(arrived_at * 1_000_000),
            "talked": event.disposition.is_answered,
            "wraps_up": event.direction != "out",
        }
        connection = self._open()
        if connection is None:
            return
        first, *others = _HEAR_TALKING if talks else _HEAR_OVER
        with suppress(sqlite3.Error), connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(first, said).rowcount:  # else it was heard before
                for statement in others:
                    connection.execute(statement, said)
            self._heard_events += 1
            if self._heard_events % _PRUNE_EVERY == 0:
                connection.execute(_FORGET_HEARD, (project.id, _since_boot() - LONGEST_TALK))

    def answers(self, project: int, call_id: str) -> list[Earlier]:
        """What was answered to this call without the database. Costs a look into the shared memory in good times."""
        return self._answers(project, call_id) if self._has_recent_news() else []

    def _has_recent_news(self) -> bool:
        return _is_recent(self.recent.news)

    def _answered(self, project: int, call_id: str, step: str) -> list[Earlier]:
        """The call's answers without the database, and the newest one to this question, with it or without it."""
        answers = self._answers(project, call_id)
        if (noted := self._noted(_question(project, call_id, step), answers)) is not None:
            answers.append(noted)
        return answers

    def _noted(self, question: bytes, filed: Sequence[Earlier]) -> Earlier | None:
        """The newest answer to the question. None of a process that died before it could file it: nobody heard that."""
        answer, filed_by = self.recent.answer(question) if question else (None, 0)
        return None if answer is None or (filed_by and answer not in filed and not is_alive(filed_by)) else answer

    def _answers(self, project: int, call_id: str) -> list[Earlier]:
        connection, since = self._open(), time.time_ns() // 1000 - ANSWERS_KEPT_SECONDS * 1_000_000
        if connection is None or not call_id:
            return []
        try:
            rows = connection.execute(
                "SELECT 0, step, attempt, asked_at, destination, agent_id, sip_login, '', false, caller FROM answers_to"
                " WHERE project_id = ? AND call_id = ? AND asked_at > ?",
                (project, call_id, since),
            ).fetchall()
        except sqlite3.Error:
            return []
        return [Earlier(*row) for row in rows]

    def note(self, spooled: Spooled, known: Shared) -> bool:
        """Tell the other processes, while `promising`. False: the agent is promised to another call, or since what is
        `known` was looked up the same question was answered.
        """
        with self._noting:
            return self._note(spooled, known)

    def _note(self, spooled: Spooled, known: Shared) -> bool:
        decision, lease = spooled.decision, spooled.lease
        call_id, now = decision["call_id"], time.time_ns() // 1000
        connection = self._open()
        answered = _answered(spooled)
        if connection is not None and not connection.in_transaction:
            # Before the news: who reads them must not take what is filed for all there is.
            self._tell_unfiled(max(each.until for each in (*self._unfiled, answered)))
        self._has_news = True
        self.recent.tell_news()
        question = _question(decision["project"], call_id, decision["step"])
        if (noted := self._noted(question, known.answers)) is not None and noted not in known.answers:
            return False
        if lease is not None:
            keys = promised_keys(decision["project"], lease)
            for key in keys:
                until = self.recent.until(key)
                holder, held_until = known.promised.get(key, ("", 0))
                is_own = until == lease.expires_at or (question and holder == call_id and until <= held_until)
                if until > now and not is_own:
                    return False
            for key in keys:
                self.recent.note(key, lease.expires_at)
        if question:
            self.recent.note_answer(question, Earlier.of(decision), os.getpid())
        self._unfiled.append(answered)
        return True

    def unwritten(self, deadline: float) -> list[Promise] | None:
        """Promises of this host that still hold and that this process has not yet seen written.
        None: they cannot be read by the deadline, or are not all filed, so that nobody can be claimed.

        Costs a look into the shared memory while nothing happened.
        """
        news = self.recent.news
        if news in (0, self._seen):
            return []
        rows: list[Promise] = []
        with self._alone(deadline) as connection:  # after whoever has told the news and is still writing it down
            if connection is not None:
                now = time.time_ns() // 1000
                if not connection.in_transaction or self.recent.unfiled(now) - {self._told_unfiled}:
                    return None
                rows = connection.execute("SELECT * FROM promises WHERE expires_at > ?", (now,)).fetchall()
                rows += [each.promise for each in self._unfiled if each.promise is not None and each.until > now]
        self._seen = news
        return rows

    def file(self, deadline: float) -> None:
        """Write down for the other processes what could not be written when it was answered."""
        if self._unfiled:
            with self._alone(deadline):
                pass

    def _tell_unfiled(self, until: int) -> None:
        self._told_unfiled = until
        self.recent.tell_unfiled(until)

    def forget_seen(self) -> None:
        """What `unwritten` gave could not be written after all."""
        self._seen = 0

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[sqlite3.Connection | None]:
        """The connection, in a transaction unless another process is in one for too long. None: it is of no use."""
        connection = self._open()
        is_of_use = connection is not None and self._begin(connection, deadline)
        try:
            yield connection if is_of_use else None
        finally:
            if connection is not None:
                if connection.in_transaction:
                    self._commit(connection)
                _be_patient(connection, _LEAST_PATIENCE)
            with self._noting:
                if self._told_unfiled and not self._unfiled:
                    self._tell_unfiled(0)

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> bool:
        """Begin a transaction, in time if that can be. Is the connection of use, begun or not?"""
        try:
            _be_patient(connection, max(_LEAST_PATIENCE, deadline - time.monotonic() - _RESERVE))
            connection.execute("BEGIN IMMEDIATE")
            _be_patient(connection, _LEAST_PATIENCE)
        except sqlite3.Error as error:
            _be_patient(connection, 0)  # that was all the time for waiting
            return _is_busy(error)
        return True

    def _commit(self, connection: sqlite3.Connection) -> None:
        """File what was answered. Tried again the next time where a reader was stopped or the memory is full."""
        answered = list(self._unfiled)
        try:
            if self._commits % _PRUNE_EVERY == 0:
                oldest = time.time_ns() // 1000 - ANSWERS_KEPT_SECONDS * 1_000_000
                connection.execute("DELETE FROM answers_to WHERE asked_at < ?", (oldest,))
            self._commits += 1
            connection.executemany(_FILE_ANSWER, [each.answer for each in answered])
            connection.executemany(_FILE_PROMISE, [each.promise for each in answered if each.promise is not None])
            unfiled = [each for each in answered if each.packed is not None and not each.decision.is_filed]
            are_filed = file_packed(connection, [each.packed for each in unfiled if each.packed is not None])
            connection.execute("COMMIT")
            for each in unfiled:
                each.decision.is_filed = are_filed
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if isinstance(error, sqlite3.OperationalError):
                if answered and _is_busy(error):  # not where it is full: nobody could use the database until it is not
                    self._tell_unfiled(max(each.until for each in answered))
                answered = []
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        for each in answered:
            with suppress(ValueError):
                self._unfiled.remove(each)

    def _open(self) -> sqlite3.Connection | None:
        return self._connections.open()


def _answered(spooled: Spooled) -> _Answered:
    decision, lease = spooled.decision, spooled.lease
    answer = tuple(decision[name] for name in _ANSWER_COLUMNS)
    if lease is None:
        return _Answered(answer, None, decision["asked_at"] + _OVERFLOW_HOLDS, spooled, spooled.pack())
    who = (lease.agent_id, decision["project"], lease.group_id, decision["call_id"], lease.sip_login)
    promise = (*who, decision["asked_at"], lease.expires_at)
    return _Answered(answer, promise, lease.expires_at, spooled, spooled.pack())


def _be_patient(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


_LEAST_PATIENCE = 0.2  # seconds; the others are done in milliseconds
_RESERVE = 0.1  # seconds of a call's time that are left when it has waited for the others in vain
_UNFILED_LIMIT = 1_000  # answers
_OVERFLOW_HOLDS = 10_000_000  # µs; who asks again later is answered anew in any case
ANSWERS_KEPT_SECONDS = 600
_PRUNE_EVERY = 100  # commits, or events
# A call that was heard to be over has a row without a login: nobody picks it up any more. Nobody talks on two calls,
# and of those on one call the last to pick up has it.
_HEAR_TALKING = (
    """
    INSERT INTO heard SELECT :project, :call_id, :login, true, :now, false WHERE :login <> '' AND NOT EXISTS
      (SELECT * FROM heard WHERE project_id = :project AND call_id = :call_id AND login = '') ON CONFLICT DO NOTHING
    """,
    """
    UPDATE heard SET talks = false, at = :now, wraps_up = :wraps_up
    WHERE project_id = :project AND call_id = :call_id AND login <> :login AND talks
    """,
    """
    UPDATE heard INDEXED BY heard_talking SET talks = false
    WHERE project_id = :project AND call_id <> :call_id AND login = :login AND talks
    """,
)
_HEAR_OVER = (
    """
    INSERT INTO heard VALUES (:project, :call_id, '', false, :now, false) ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO heard SELECT :project, :call_id, :login, true, :now, false WHERE :login <> '' AND :talked
    ON CONFLICT DO NOTHING
    """,  # who had picked up before the database went away
    """
    UPDATE heard SET talks = false, at = :now, wraps_up = :wraps_up
    WHERE project_id = :project AND call_id = :call_id AND talks
    """,
)
_FORGET_HEARD = "DELETE FROM heard WHERE project_id = ? AND at < ?"
_HEARD = (
    "SELECT login, max(talks), max(CASE WHEN wraps_up THEN at ELSE 0 END) FROM heard"
    " WHERE project_id = ? AND at > ? AND at <= ? AND login <> '' GROUP BY login"
)
_ANSWER_COLUMNS = (
    *("project", "call_id", "step", "attempt", "asked_at", "destination", "agent_id", "sip_login", "caller"),
)
_FILE_ANSWER = "INSERT INTO answers_to VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FILE_PROMISE = (
    "INSERT OR REPLACE INTO promises SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7"
    " WHERE NOT EXISTS (SELECT * FROM promises WHERE agent_id = ?1 AND expires_at > ?7)"  # it may be filed late
)


def host_memory_path(database_url: str) -> Path:
    """Where the processes of this host that serve this database meet: a folder in memory, of this user alone."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108 - below
    own = folder / f"router-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise PermissionError(f"{own} belongs to another user")
    return own / f"{sha256(database_url.encode()).hexdigest()[:16]}.sqlite"
