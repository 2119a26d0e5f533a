"""route_call(): load → decide → claim → record, the one use case. Knows no HTTP and no platform.

Configuration is kept in the process and validated by the version number read with everything else, so a change counts
from the next call on, in every process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy.orm import Session

from router.core.decision import decide, preferred_agent
from router.core.events import CallEvent
from router.core.lifecycle import ask_again
from router.core.model import (
    LAWS,
    AgentState,
    Call,
    Decision,
    LastTalk,
    MemberClock,
    Offer,
    Overflow,
    Presence,
    Project,
    Snapshot,
    own_call_id,
)
from router.core.rules import Rule, possible_matches
from router.db import models, queries
from router.db.configuration import BuildError, UnknownProjectError
from router.db.outcomes import written
from router.db.patience import in_time
from router.db.records import STUB, Record, pack, record_of
from router.db.reservations import (
    DATABASE_ERRORS,
    Earlier,
    Lease,
    LostRaceError,
    State,
    Transaction,
    is_refusal,
    peek,
    question,
    restore,
    restore_promises,
)
from router.db.session import CLOCK_STEP, Database, DatabaseBusyError
from router.db.types import MICROSECOND, from_micros, to_micros
from router.db.versions import configured
from router.fallback import Breaker, Known, Seen, Spool
from router.host_memory import HostMemory, Shared, host_memory_path
from router.host_store import HostStore, Spooled
from router.log import log

CALL_MEMORY = timedelta(hours=6)  # how long the logins tried for a call id are remembered: no call lasts longer

READ_SHARE = 0.5  # of the time there is, for what is seldom read beside the one transaction: a changed configuration
SUSPECT_SECONDS = 0.25  # between two reads of the same thing for those who were refused too often
SPOOL_BATCH = 100  # decisions written in one transaction, because on SQLite every call waits for it
SPOOL_PAUSE = 0.02  # seconds after each
UPKEEP_READ_SECONDS = 2.0  # for the same while no caller waits

_STUB = orjson.dumps(STUB).decode()

T = TypeVar("T")

Refresh = Callable[[int, float], object]
"""Ask a project's source for presence now, until the deadline (monotonic) at most, and keep what it says."""

Admit = Callable[[queries.Published], object]
"""Raises when whoever asks may not, by this configuration. Asked before a call is answered by it."""

Inputs = dict[str, Any]
"""What decides and changes from call to call, as plain JSON values: stored with the decision, read by the replay."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of a question. `decision` is None when an earlier answer was repeated."""

    destination: str
    decision_id: int
    decision: Decision | None = None
    presence_age: timedelta | None = None
    degraded: str = ""  # why the answer was made without the database


class RoutingError(Exception):
    """No decision could be made or recorded in time; the caller still needs an answer."""


class _ConfigurationChangedError(Exception):
    """The database has another version than this process."""


class _OtherCallerError(Exception):
    """The call's id was sent for another caller before."""


class _StalePresenceError(Exception):
    """Presence is too old to decide by, and asking was not tried yet."""


class _InDoubtError(DatabaseBusyError):
    """The database failed while it was recording: perhaps it did. The answer must be the one that it may have."""

    def __init__(self, made: _Made, why: str) -> None:
        super().__init__(why)
        self.made, self.why = made, why


class _NotLoadedError(Exception):
    """By the database's clock other rules may match than was prepared for: a schedule opened or closed in between."""

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.at = at


class Routing:
    """Routes the calls of all projects for one process."""

    def __init__(
        self, database: Database, refresh: Refresh | None = None, host_memory: HostMemory | None = None
    ) -> None:
        self._database = database
        self._refresh = refresh
        self._known: dict[int, Known] = {}
        self._project_by_token: dict[str, int] = {}
        self._tokens_learned_at = -1.0  # time.monotonic(); below 0: never
        self._asked_at: dict[int, float] = {}  # by project: when its version was last asked for alone
        self._faults: dict[int, str] = {}  # by project: why its newest configuration is not the one that calls go by
        self._breaker = Breaker()
        self._host = host_memory or HostMemory(host_memory_path(str(database.engine.url)))
        self.store = HostStore(self._host.path)
        self._recalled_at = -1.0  # time.monotonic(); below 0: never
        self.spool = Spool(self.store)

    def close(self) -> None:
        """Close the connections, but those of other threads."""
        self._database.dispose()

    # ---- what this process knows

    def project_of_token(self, token_hash: str, *, is_suspect: bool = False) -> queries.Published | None:
        """The configuration of the project with this hook token, None when the token is not valid now.

        `is_suspect`: who asks was refused often. Their tokens are looked up all together, some times a second at most.

        Raises DatabaseBusyError or the driver's errors when no process of this host ever saw the token, and it cannot
        be looked up.
        """
        try:
            return self._project_of_token(token_hash, is_suspect=is_suspect)
        except DATABASE_ERRORS:
            self.recall()
            known = self._known.get(self._project_by_token.get(token_hash, 0))
            if known is None:
                raise
            return known.published if known.published.accepts(token_hash) else None

    def _project_of_token(self, token_hash: str, *, is_suspect: bool) -> queries.Published | None:
        known = self._known.get(self._project_by_token.get(token_hash, 0))
        if known is None or not known.published.accepts(token_hash):
            if is_suspect:
                is_news = self._learn_tokens()
                if token_hash not in self._project_by_token or (known is not None and not is_news):
                    return None
            if self._breaker.share(1) == 0:
                raise DatabaseBusyError("the database failed a moment ago")
            with self._watched():
                project_id = self._read(lambda session: queries.project_of_token(session, token_hash))
            if project_id is None:
                return None
            known = self._load(project_id)
        return known.published if known.published.accepts(token_hash) else None

    def recall(self) -> bool:
        """Know of the projects that this process never saw what another one of the host did. Are there any now?

        It looks once a second at most.
        """
        if 0 <= self._recalled_at > time.monotonic() - 1:
            return bool(self._known)
        self._recalled_at = time.monotonic()
        for project_id, kept in self.store.kept().items():
            if project_id not in self._known:
                try:
                    self._get_to_know(Known.load(project_id, kept))
                except Exception as error:  # noqa: BLE001 - of another release: it is as if it were not kept
                    log.warning("a project that was kept cannot be read", project_id=project_id, error=repr(error))
        return bool(self._known)

    def _get_to_know(self, new: Known) -> Known:
        """The project, as it was known before or else as it is known now; and its tokens as they are now."""
        project_id = new.published.project.id
        for token_hash in new.published.tokens:
            self._project_by_token[token_hash] = project_id
        return self._known.setdefault(project_id, new)

    def current(
        self, published: queries.Published, *, is_suspect: bool = False, seconds: float | None = None
    ) -> queries.Published:
        """The project's configuration as it is in the database now; as it is known while that is away.

        `is_suspect`: who asks was refused often. For all of them the database is asked some times a second at most.
        `seconds`: how long to wait for it, where that says nothing of its health. Raises UnknownProjectError when the
        project was deleted.
        """
        project_id = published.project.id
        known = self._known.get(project_id)
        asked_at = self._asked_at.get(project_id, -SUSPECT_SECONDS)
        if is_suspect and time.monotonic() - asked_at < SUSPECT_SECONDS:
            return known.published if known else published
        try:
            if self._breaker.share(1) == 0:
                raise DatabaseBusyError("the database failed a moment ago")
            self._asked_at[project_id] = time.monotonic()
            with self._watched() if seconds is None else nullcontext():
                version = self._read(lambda session: queries.version(session, project_id), seconds)
            if known is None or known.published.version != version:
                known = self._load(project_id)
        except DATABASE_ERRORS:
            return known.published if known else published
        return known.published

    def _learn_tokens(self) -> bool:
        """Know every token there is, as of a moment ago at most. Were they read just now?

        Raises what `project_of_token` does, as long as this process has never known them.
        """
        if 0 <= self._tokens_learned_at > time.monotonic() - SUSPECT_SECONDS:
            return False
        try:
            if self._breaker.share(1) == 0:
                raise DatabaseBusyError("the database failed a moment ago")
            with self._watched():
                self._project_by_token.update(self._read(queries.tokens))
        except DATABASE_ERRORS:
            if self._tokens_learned_at < 0:
                raise
        self._tokens_learned_at = time.monotonic()
        return True

    def _share_until(self, deadline: float) -> float:
        """How many seconds a call may spend on a read beside its transaction."""
        return READ_SHARE * max(0.0, min(deadline - time.monotonic(), self._database.statement_seconds))

    def _load(self, project_id: int, seconds: float | None = None) -> Known:
        before = self._known.get(project_id)
        of_before = before.published if before else None
        with self._watched():
            try:
                published = self._read(
                    lambda session: queries.load_published(session, project_id, known=of_before), seconds
                )
            except BuildError as error:
                self._note_fault(project_id, str(error), 0)
                raise
        self._note_fault(project_id, published.fault, published.project.version)
        zone = ZoneInfo(published.project.time_zone)
        known = self._get_to_know(Known(published, zone))
        known.published, known.zone = published, zone
        return known

    def _note_fault(self, project_id: int, fault: str, by_version: int) -> None:
        """Keep why the newest configuration cannot be built, and tell it once."""
        if fault == self._faults.get(project_id, ""):
            return
        if fault:
            self._faults[project_id] = fault
            log.error("a configuration cannot be built", project_id=project_id, error=fault, calls_go_by=by_version)
        else:
            del self._faults[project_id]
            log.info("the newest configuration can be built again", project_id=project_id, calls_go_by=by_version)

    @property
    def faults(self) -> Mapping[int, str]:
        """By project: why its newest configuration cannot be built, so that calls go by an earlier one, or by none."""
        return dict(self._faults)

    def _read(self, read: Callable[[Session], T], seconds: float | None = None) -> T:
        """Read through the ORM, in time: a caller waits unless `seconds` says otherwise.

        What SQLite waits for has an end of its own.
        """

        def work() -> T:
            with self._database.reading() as session:
                return read(session)

        if self._database.is_sqlite:
            return work()
        return in_time(work, READ_SHARE * self._database.statement_seconds if seconds is None else seconds)

    def keep_up(self) -> None:
        """Learn all projects as they are now, and write down what waits: called every few seconds beside the calls.

        So that a process knows enough to answer should the database go away, even for a project that is never called;
        and one that starts then.
        """
        self._host.file(time.monotonic() + UPKEEP_READ_SECONDS)
        self.spool.save()
        if self._breaker.share(1) == 0:
            return
        try:
            self._write_spool()
        finally:
            self._learn_all()

    def _learn_all(self) -> None:
        with self._watched():
            versions = self._read(queries.versions, UPKEEP_READ_SECONDS)
        for project_id, version in versions.items():
            known = self._known.get(project_id)
            if known is None or known.published.version != version or known.published.fault:
                try:
                    known = self._load(project_id, UPKEEP_READ_SECONDS)
                except (BuildError, UnknownProjectError):
                    continue  # one project that cannot be had keeps no other from being known
            seen = known.seen
            with self._watched():
                project = known.published.project
                state = self._peek(known, list(project.groups), list(project.agents))
                known.learn(state.as_promised_to(project), seen)
            if self.store.is_due(project_id):
                self.store.keep(project_id, known.dump())
        for project_id in self._known.keys() - versions.keys():
            del self._known[project_id]
        for project_id in self._faults.keys() - versions.keys():
            del self._faults[project_id]
        self.store.forget_others(versions)

    def _peek(self, known: Known, group_ids: Sequence[int], agent_ids: Sequence[int]) -> State:
        return peek(
            self._database,
            project=known.published.project.id,
            group_ids=group_ids,
            agent_ids=agent_ids,
            known_snapshot=known.seen.snapshot_id,
            deadline=time.monotonic() + 2,
        )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell the breaker how the database does."""
        try:
            yield
        except DATABASE_ERRORS:
            self._breaker.failed()
            raise
        self._breaker.worked()

    # ---- one call

    def route_call(
        self,
        project_id: int,
        call: Call,
        *,
        deadline: float,
        received: Mapping[str, Any] | None = None,
        admit: Admit | None = None,
    ) -> Routed:
        """Decide where this call goes, claim the agent and record it: once per question, however often it is asked.

        `received` is what the platform sent, kept with the decision for people to look at. `deadline` is of
        time.monotonic(). While the database is away the answer is degraded: from what this process knows, recorded
        afterwards. Raises only when this process never knew the project, when the project was deleted
        (UnknownProjectError), and what `admit` raises.
        """
        began = time.perf_counter()
        known = self._known.get(project_id) or self._load(project_id, self._share_until(deadline))
        asked = _Question(call, call.call_id or secrets.token_hex(8), received, began, admit)
        while True:
            try:
                return self._answer(known, asked, deadline)
            except _OtherCallerError:  # once: nobody else has the id that it has then
                asked = asked.with_own_id()

    def _answer(self, known: Known, asked: _Question, deadline: float) -> Routed:
        """With the database if it answers in time, else without it."""
        call = asked.call
        try:
            return self._route(known, asked, deadline)
        except _InDoubtError as doubt:
            log.warning("database: the answer is perhaps not recorded", call_id=call.call_id, kind=doubt.why)
            if kept := self._stand_by(known, call, doubt, deadline):
                return kept
            return self._route_degraded(known, asked, doubt.why, deadline)
        except (*DATABASE_ERRORS, RoutingError) as error:
            log.warning("database: answering without it", error=str(error), kind=type(error).__name__)
            return self._route_degraded(known, asked, type(error).__name__, deadline)

    def _route(self, known: Known, asked: _Question, deadline: float) -> Routed:
        at = datetime.now(UTC)
        refresh = self._refresh
        # Not so many times, but until the deadline: a race that is lost was won by another call, so all get on.
        while (left := deadline - time.monotonic()) > 0 and (share := self._breaker.share(left)) > 0:
            try:
                asked.let_in(known)
                with self._watched():
                    until = time.monotonic() + share
                    self._write_promises(until)
                    return self._route_once(known, asked, at, until, stale_allowed=refresh is None)
            except LostRaceError:
                continue
            except _ConfigurationChangedError:
                known = self._load(known.published.project.id, self._share_until(deadline))
            except _NotLoadedError as error:
                at = error.at
            except _StalePresenceError:
                if refresh is not None and not known.may_refresh():
                    refresh = None
                elif refresh is not None:
                    # Not all of what is left: the database needs its share after that.
                    began = time.monotonic()
                    until = began + 0.8 * (deadline - began)  # to read has taken its time too
                    news = bool(refresh(known.published.project.id, until))
                    known.refreshed(time.monotonic() - began, news=news)
                    refresh = None
        raise RoutingError("no decision in time")

    def _route_once(
        self, known: Known, asked: _Question, at: datetime, deadline: float, *, stale_allowed: bool
    ) -> Routed:
        project, call = known.published.project, asked.call
        rules = possible_matches(project.index, call, at)
        seconds = self._share_until(deadline)
        last_talk = self._last_talk(known.published, rules, call, at, seconds)
        group_ids, agent_ids = _groups_of(rules), _preferred_of(project, rules, call, last_talk)
        with question(self._database, deadline=deadline) as transaction:
            seen = known.seen
            state = transaction.read(
                project=project.id,
                call_id=call.call_id,
                group_ids=group_ids,
                agent_ids=agent_ids,
                known_snapshot=seen.snapshot_id,
            )
            if state.version != known.published.version:
                raise _ConfigurationChangedError
            state = state.as_promised_to(project)
            seen = known.learn(state, seen)
            state = _with_answers(state, self._host.answers(project.id, call.call_id))
            state = _with_heard(state, self._host.heard(project.id, state.began_at or 0))
            now = from_micros(state.now)
            if project.index.depends_on_time and possible_matches(project.index, call, now) != rules:
                raise _NotLoadedError(now)
            made = _make(known, asked, state, seen, last_talk)
            if isinstance(made, Routed):
                return made
            is_stale = made.age is None or made.age > project.fresh
            if is_stale and not stale_allowed and (group_ids or agent_ids):
                raise _StalePresenceError
            decision_id = self._claim(transaction, project, call, state, made)
        known.remember(made.row, made.lease, decision_id)
        return Routed(made.decision.answer.destination, decision_id, made.decision, made.age)

    def _claim(self, transaction: Transaction, project: Project, call: Call, state: State, made: _Made) -> int:
        """End the leases of the call's earlier answers, take the new one and record the decision; its id."""
        if state.earlier:
            history = transaction.history(project=project.id, call_id=call.call_id, now=state.now)
            changes = ask_again(project, history, from_micros(state.now))
            transaction.write(written(project.id, call.call_id, changes))
        with self._host.claiming(made.row, made.lease) as may_claim:
            if not may_claim:
                raise LostRaceError
            try:
                return transaction.record(made.row, made.lease)
            except DATABASE_ERRORS as error:
                raise _InDoubtError(made, type(error).__name__) from error

    def _route_degraded(self, known: Known, asked: _Question, why: str, deadline: float) -> Routed:
        """Answer from what this process and its host know, and keep the decision until it can be written."""
        asked.let_in(known)
        project, call = known.published.project, asked.call
        rules = possible_matches(project.index, call, datetime.now(UTC))
        group_ids, agent_ids = _groups_of(rules), _preferred_of(project, rules, call, None)
        with self._host.promising(deadline):
            while True:  # until nobody claims the same agent meanwhile: each time there is one less to choose from
                shared = self._host.look(project.id, call.call_id, call.step, known.began_at or 0)
                state = known.state(call.call_id, group_ids, agent_ids, shared)
                made = _make(known, asked, state, known.seen, None)
                if isinstance(made, Routed):
                    return made
                if kept := self._keep(known, made, why, shared):
                    return kept

    def _stand_by(self, known: Known, call: Call, doubt: _InDoubtError, deadline: float) -> Routed | None:
        """The answer that the database may have. None: this question was answered otherwise, or its agent claimed by
        another call meanwhile, so it has not.
        """
        with self._host.promising(deadline):
            answers = self._host.look(known.published.project.id, call.call_id, call.step).answers
            given = _given_before(known, call, answers, doubt.made.row["asked_at"])
            is_same = given is None or given.destination == doubt.made.row["destination"]
            # Nothing counts as promised before: whoever has the agent has it since.
            if is_same and (kept := self._keep(known, doubt.made, doubt.why, Shared(answers=answers))):
                return kept
            self._host.withdraw(doubt.made.row)
            return None

    def _keep(self, known: Known, made: _Made, why: str, shared: Shared) -> Routed | None:
        """Remember what is answered without the database, here and on this host, until it can be written. None: the
        agent was claimed through the database since `shared` was looked up, or the same question answered.
        """
        made.row["degraded"] = why
        spooled = Spooled(made.row, made.lease)
        if not self._host.note(spooled, shared):
            return None
        known.remember(made.row, made.lease, 0)
        if isinstance(made.decision.answer, Offer):
            known.advance(made.decision.answer, made.lease.day if made.lease else "")
        self.spool.add(spooled)
        return Routed(made.decision.answer.destination, 0, made.decision, made.age, degraded=why)

    def hear(self, project: Project, event: CallEvent, arrived_at: float, *, is_put_off: bool = False) -> None:
        """A call event, for those who answer without the database: it may be away with the next call.

        `is_put_off`: for those who answer with it as well.
        """
        self._host.hear(project, event, arrived_at, is_put_off=is_put_off)

    def by_own_id(self, project_id: int, event: CallEvent) -> CallEvent:
        """The event by the id of its own call, if that was answered without the database; who applies it asks that."""
        own = own_call_id(event.call_id, event.caller) if event.call_id and event.caller else ""
        return replace(event, call_id=own) if own and self._host.answers(project_id, own) else event

    def is_degraded(self, project_id: int, call_id: str) -> bool:
        """Was this call answered without the database lately, on this host?"""
        return bool(self._host.answers(project_id, call_id))

    def _write_promises(self, deadline: float) -> None:
        """The database is back: what this host promised meanwhile must be known before the next claim."""
        promises = self._host.unwritten(deadline)
        if promises is None:
            raise RoutingError("another process is still writing down whom it promised")
        if promises:
            try:
                restore_promises(self._database, promises, deadline=deadline)
            except BaseException:
                self._host.forget_seen()
                raise

    def _write_spool(self) -> None:
        """Write down what was answered while the database was away. A row that it will never take holds up no other."""
        limit = SPOOL_BATCH
        while rows := self.spool.take(limit):
            try:
                written = [(row.decision, row.lease) for row in rows]
                restore(self._database, written, deadline=time.monotonic() + 2)
            except BaseException as error:
                if not is_refusal(error):
                    self.spool.put_back(rows)
                    raise
                if len(rows) > 1:
                    self.spool.put_back(rows)
                    limit = len(rows) // 2  # until it is alone
                    continue
                self.spool.give_up(rows[0])
                log.error("database: a decision was refused", call_id=rows[0].decision["call_id"], error=str(error))
            else:
                self.spool.written(rows)
            limit = min(2 * limit, SPOOL_BATCH)
            time.sleep(SPOOL_PAUSE)

    def _last_talk(
        self,
        published: queries.Published,
        rules: Sequence[Rule],
        call: Call,
        at: datetime,
        seconds: float | None = None,
    ) -> LastTalk | None:
        """Who last talked with this caller, when a rule wants to know."""
        days = [rule.prefer.within for rule in rules if rule.prefer is not None and rule.prefer.last_agent]
        if not days or not call.caller:
            return None
        since = at - max(days)
        return self._read(lambda session: queries.last_talk(session, published, call.caller, since), seconds)

    def explain(self, project_id: int, call: Call, *, at: datetime | None = None) -> tuple[Project, Snapshot, Decision]:
        """What would be decided for this call now (or `at`): the live function on live state. Changes nothing."""
        known = self._load(project_id)
        project = known.published.project
        rules = possible_matches(project.index, call, at or datetime.now(UTC))
        last_talk = self._last_talk(known.published, rules, call, at or datetime.now(UTC))
        seen = known.seen
        state = self._peek(known, list(project.groups), _preferred_of(project, rules, call, last_talk))
        state = state.as_promised_to(project)
        seen = known.learn(state, seen)
        inputs = _inputs(project, state, call.call_id or "dry-run", last_talk)
        if at is not None:
            age = None if inputs["began_at"] is None else state.now - inputs["began_at"]
            inputs["now"] = (at - from_micros(0)) // MICROSECOND
            inputs["began_at"] = None if age is None else inputs["now"] - age  # as fresh as it is now
        snapshot = snapshot_of(inputs, seen.online, seen.speaking, known.zone)
        return project, snapshot, decide(project, call, snapshot)


class _Question(NamedTuple):
    """What is asked, with what is needed to record it."""

    call: Call
    seed: str
    received: Mapping[str, Any] | None
    began: float
    admit: Admit | None

    def let_in(self, known: Known) -> None:
        """May this be answered by what is known of the project now? Raises what `admit` does if not."""
        if self.admit is not None:
            self.admit(known.published)

    def with_own_id(self) -> _Question:
        """The same by an id of its own: the one that was sent is another caller's, too."""
        sent, call = self.call.call_id, self.call.with_own_id()
        problem = (
            f"The call id {sent[:80]!r} was sent for another caller too, so it says nothing, and this is a call of its "
            "own. Fill the parameter with the call's id in the platform's settings."
        )
        received = dict(self.received or {})
        received |= {"problems": [*received.get("problems", ()), problem], "empty_id": sent}
        return self._replace(call=call, seed=call.call_id, received=received)


class _Made(NamedTuple):
    """A decision that is still to be recorded."""

    decision: Decision
    row: dict[str, Any]
    lease: Lease | None
    age: timedelta | None


def _make(known: Known, asked: _Question, state: State, seen: Seen, last_talk: LastTalk | None) -> Routed | _Made:
    """The answer given before to the same question, or a new decision."""
    project, call = known.published.project, asked.call
    if not all(call.may_be_of(earlier.caller) for earlier in state.earlier):
        raise _OtherCallerError
    if given := _given_before(known, call, state.earlier, state.now):
        return Routed(given.destination, given.id)
    inputs = _inputs(project, state, asked.seed, last_talk)
    snapshot = snapshot_of(inputs, seen.online, seen.speaking, known.zone)
    decision = decide(project, call, snapshot)
    attempts = [earlier.attempt for earlier in state.earlier if earlier.step == call.step]
    row = _row(project, call, state, inputs, decision, asked.received, 1 + attempts[-1] if attempts else 0)
    row["snapshot_id"] = seen.snapshot_id or None
    row["latency_us"] = round((time.perf_counter() - asked.began) * 1_000_000)
    lease = _lease(project, decision.answer, state.now, snapshot.now, known.zone)
    return _Made(decision, row, lease, snapshot.presence.age)


def _with_answers(state: State, answers: Sequence[Earlier]) -> State:
    """The state with what was answered to the call without the database and is not written there yet."""
    written = {(earlier.step, earlier.attempt) for earlier in state.earlier}
    unwritten = [answer for answer in answers if (answer.step, answer.attempt) not in written]
    if not unwritten:
        return state
    return state._replace(earlier=sorted([*state.earlier, *unwritten], key=lambda earlier: earlier.asked_at))


def _with_heard(state: State, heard: dict[str, bool]) -> State:
    """The state with who was heard on this host to talk, which is perhaps not applied to the database yet.

    Who was heard not to talk any more is not freed: that is applied soon, or was late, and they talk to somebody else.
    """
    talking = {login: True for login, talks in heard.items() if talks}
    if not talking:
        return state
    said: dict[str, bool] = {login: bool(talks) for login, talks in state.events}
    return state._replace(events=[[login, talks] for login, talks in (said | talking).items()])


def _given_before(known: Known, call: Call, earlier: Sequence[Earlier], now: int) -> Earlier | None:
    """The answer to the same question, if that was asked not long ago. `earlier`: oldest first.

    None as well when the agent named last did not take the call: the question is asked for the next one then.
    """
    same = [one for one in earlier if one.step == call.step]
    if same and same[-1] is earlier[-1] and same[-1].is_refused:
        return None
    window = known.published.project.retry_window // MICROSECOND
    return same[-1] if same and now - same[-1].asked_at <= window else None


def _groups_of(rules: Sequence[Rule]) -> list[int]:
    """Every group that a decision among these rules may look into."""
    found = {group_id for rule in rules for group_id in rule.group_ids}
    found.update(rule.conditions.free_group_id for rule in rules if rule.conditions.free_group_id is not None)
    return sorted(found)


def _preferred_of(project: Project, rules: Sequence[Rule], call: Call, last_talk: LastTalk | None) -> list[int]:
    """The agents (and their deputies) whom a decision among these rules may prefer, members or not."""
    found: set[int] = set()
    for rule in rules:
        agent = preferred_agent(project, rule, call, last_talk)
        if agent is not None:
            found.add(agent.id)
            if agent.deputy_id is not None:
                found.add(agent.deputy_id)
    return sorted(found)


def _inputs(project: Project, state: State, seed: str, last_talk: LastTalk | None) -> Inputs:
    began_at, since = state.began_at, state.now - CALL_MEMORY // MICROSECOND
    if began_at is not None and began_at > state.now + CLOCK_STEP // MICROSECOND:
        began_at = state.now - project.fresh // MICROSECOND - 1  # of before the clock was set back: not fresh, at least
    return {
        "laws": LAWS,
        "now": state.now,
        "seed": seed,
        "began_at": began_at,
        "events": state.events,
        "members": state.members,
        "agents": state.agents,
        "tried": [earlier.sip_login for earlier in state.earlier if earlier.sip_login and earlier.asked_at > since],
        "last_talk": None if last_talk is None else [last_talk.agent_id, to_micros(last_talk.at), last_talk.logged],
    }


def snapshot_of(inputs: Inputs, online: frozenset[str], speaking: frozenset[str], zone: ZoneInfo) -> Snapshot:
    """The rules' view of what was read: live, or stored with a decision."""
    now = from_micros(inputs["now"])
    today = now.astimezone(zone).date().isoformat()
    agents: dict[int, AgentState] = {}
    clocks: dict[int, dict[int, MemberClock]] = {}
    laws = inputs.get("laws", 1)
    for group_id, last_offered, stood_at, head_start, day, *agent in inputs["members"]:
        agent_id = agent[0]
        if agent_id not in agents:
            agents[agent_id] = _agent_state(agent, inputs["now"], today, laws)
        # A number alone: stored by a release that kept neither weight nor tier with it.
        virtual_time, *written = stood_at if isinstance(stood_at, list) else [stood_at]
        clock = MemberClock(last_offered, virtual_time, head_start if day == today else None, *written)
        clocks.setdefault(group_id, {})[agent_id] = clock
    for agent in inputs["agents"]:
        agents[agent[0]] = _agent_state(agent, inputs["now"], today, laws)
    began_at = inputs["began_at"]
    presence = Presence(
        online=online,
        speaking=speaking,
        age=None if began_at is None else max(timedelta(0), (inputs["now"] - began_at) * MICROSECOND),
        events={login: bool(talks) for login, talks in inputs["events"]},
    )
    talk = inputs["last_talk"]
    last_talk = None if talk is None else LastTalk(talk[0], from_micros(talk[1]), any(talk[2:]))
    return Snapshot(now, presence, agents, clocks, frozenset(inputs["tried"]), last_talk, inputs["seed"], laws)


def _agent_state(row: Sequence[Any], now: int, today: str, laws: int) -> AgentState:
    _, status, paused, reserved, wrap_up, cooling, answered, day, talk_end, available = row
    return AgentState(
        status,
        from_micros(paused) if paused and paused > now else None,  # what is over says nothing
        from_micros(reserved) if reserved and reserved > now else None,
        from_micros(wrap_up) if wrap_up and wrap_up > now else None,
        from_micros(cooling) if cooling and cooling > now else None,
        answered if day == today else 0,
        max(talk_end or 0, available or 0, paused if laws > 1 and paused and paused <= now else 0),
    )


def _lease(project: Project, answer: Offer | Overflow, now: int, now_at: datetime, zone: ZoneInfo) -> Lease | None:
    if isinstance(answer, Overflow):
        return None
    expires_at = now + answer.ring // MICROSECOND
    phones = tuple(sorted(project.agents[answer.agent_id].phones))
    if answer.clock is None:
        return Lease(answer.agent_id, answer.sip_login, expires_at, None, phones=phones)
    return Lease(
        answer.agent_id,
        answer.sip_login,
        expires_at,
        answer.group_id,
        answer.clock.last_offered,
        answer.clock.virtual_time,
        answer.clock.head_start or 0,
        answer.clock.weight,
        answer.clock.tier,
        now_at.astimezone(zone).date().isoformat(),
        answer.turns,
        phones,
    )


def _row(
    project: Project,
    call: Call,
    state: State,
    inputs: Inputs,
    decision: Decision,
    received: Mapping[str, Any] | None,
    attempt: int,
) -> dict[str, Any]:
    answer = decision.answer
    offer = answer if isinstance(answer, Offer) else None
    record: Record = {
        "call": {
            "step": call.step,
            "caller": call.caller,
            "dialed": call.dialed,
            "direction": call.direction,
            "params": call.params,
        },
        "received": received,
        "inputs": inputs,
        "trials": trials_as_json(decision),
        "answer": _answer_as_json(decision),
    }
    return {
        "project": project.id,
        "call_id": call.call_id,
        "step": call.step,
        "attempt": attempt,
        "asked_at": state.now,
        "caller": call.caller,
        "dialed": call.dialed,
        "rule_id": decision.rule_id,
        "group_id": offer and offer.group_id,
        "agent_id": offer and offer.agent_id,
        "sip_login": offer.sip_login if offer else "",
        "destination": answer.destination,
        "result": "offer" if offer else "overflow",
        "degraded": "",
        "config_version": project.version,
        **_stored(record, project),
    }


def _stored(record: Record, project: Project) -> dict[str, Any]:
    """The record's columns. What cannot be packed is stored plain: no call is lost for it."""
    try:
        return {"record": _STUB, "packed": pack(record, project)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits
        log.error("a decision's record cannot be packed", error=repr(error))
        return {"record": orjson.dumps(record).decode(), "packed": None}


class NotRecomputableError(LookupError):
    """What a decision was made by is no longer kept."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A decision made again by what was stored with it. `is_same`: does it equal what was answered then?"""

    project: Project
    call: Call
    snapshot: Snapshot
    decision: Decision
    is_same: bool


def recompute(session: Session, decision_id: int) -> Recomputed:
    """Decide again by the configuration, the presence and the inputs of then. Raises NotRecomputableError."""
    row = session.get(models.Decision, decision_id)
    if row is None:
        raise NotRecomputableError(f"decision {decision_id} is no longer kept")
    record = record_of(session, row)
    if "erased_at" in record:
        raise NotRecomputableError(f"the caller of decision {decision_id} was erased")
    found = configured(session, row.project_id, row.config_version)
    if found is None:
        raise NotRecomputableError(f"version {row.config_version} of the configuration is no longer kept")
    seen = None if row.snapshot_id is None else session.get(models.PresenceSnapshot, row.snapshot_id)
    if row.snapshot_id is not None and seen is None:
        raise NotRecomputableError(f"presence reading {row.snapshot_id} is no longer kept")
    online, speaking = (frozenset(seen.online), frozenset(seen.speaking)) if seen else (frozenset(), frozenset())
    project = found.project
    call = Call(call_id=row.call_id, **record["call"])
    snapshot = snapshot_of(record["inputs"], online, speaking, ZoneInfo(project.time_zone))
    decision = decide(project, call, snapshot)
    then = (row.rule_id, row.destination, record["trials"], record["answer"])
    now = (decision.rule_id, decision.answer.destination, trials_as_json(decision), _answer_as_json(decision))
    return Recomputed(project, call, snapshot, decision, then == now and row.result == decision.result)


def _answer_as_json(decision: Decision) -> list[str] | None:
    """[whose overflow, cause], None for an offer."""
    answer = decision.answer
    return None if isinstance(answer, Offer) else [answer.of, answer.cause]


def trials_as_json(decision: Decision) -> list[Any]:
    """[[group id, [[agent id, login, skip reason or None, *sort key], …]], …]"""
    return [
        [trial.group_id, [[c.agent_id, c.sip_login, c.skip, *c.key] for c in trial.candidates]]
        for trial in decision.trials
    ]
