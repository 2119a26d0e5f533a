"""What a process knows of each project: its configuration, and what it read and answered last; a decision made by it.

A call validates the configuration by the version that it reads with everything else, so a change counts from the next
call on, in every process. The rest is for outage.py, which answers while the database is away.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import starmap
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy.orm import Session

from router.core.decision import decide, preferred_agent
from router.core.events import CallEvent
from router.core.model import Call, Decision, LastTalk, Offer, Overflow, Project
from router.core.notes import NOTES
from router.core.rules import Rule, counted_groups
from router.core.words import Message
from router.db import queries
from router.db.claim import AgentRow, Earlier, Lease, MemberRow, State, question
from router.db.documents import BuildError, UnknownProjectError, build_project
from router.db.queries import Published
from router.db.records import Inputs, row_of, snapshot_of
from router.db.session import (
    CLOCK_STEP,
    DATABASE_ERRORS,
    ConnectionsInUseError,
    Database,
    DatabaseBusyError,
    time_limit,
)
from router.db.types import MICROSECOND, from_micros, to_micros
from router.log import log
from router.routing.outbox import Answer, Outbox

READ_SHARE = 0.5  # of the time there is, for what is seldom read beside the one transaction: a changed configuration
REFUSED_SECONDS = 0.25  # between two reads of the same thing for those who were refused too often
UPKEEP_READ_SECONDS = 2.0  # for the same while no caller waits
ANSWERS_REMEMBERED = 2_000  # calls of a project: their copies and next steps are told from new calls

_EXPIRED = datetime.min.replace(tzinfo=UTC)

T = TypeVar("T")


def token_hash(token: str) -> str:
    """Return the token's SHA-256 in hex, which is stored and looked up instead. Random tokens need no salt."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def accepts(published: Published, token_hash: str) -> bool:
    """Return whether this is the hash of one of the project's hook tokens that works now."""
    until = published.tokens.get(token_hash, _EXPIRED)
    return until is None or until > datetime.now(UTC)


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
    events: Mapping[str, bool] = field(default_factory=dict)  # as in State
    members: dict[tuple[int, int], MemberRow] = field(default_factory=dict)  # by (group, agent)
    agents: dict[int, AgentRow | MemberRow] = field(default_factory=dict)  # whichever row was read last
    # By call, the oldest first; by "\n" and the time where calls have no id: those are all different.
    answers: OrderedDict[str, list[Answer]] = field(default_factory=OrderedDict)
    # What the other processes learn in an outage, see Outage.share: what was answered, and heard when (µs).
    unshared: deque[Answer] = field(default_factory=lambda: deque(maxlen=ANSWERS_REMEMBERED))
    heard: deque[tuple[CallEvent, int]] = field(default_factory=lambda: deque(maxlen=ANSWERS_REMEMBERED))
    refresh_at: float = 0.0  # time.monotonic(); see `refreshed`

    def dump(self) -> bytes:
        """Return what `load` reads, for a process that starts while the database is away."""
        published, seen = self.published, self.seen
        return orjson.dumps(
            {
                "version": published.project.version,
                "published": published.version,
                "fault": published.fault,
                "document": published.document,
                "tokens": {token: until and to_micros(until) for token, until in published.tokens.items()},
                "basic_auth": published.basic_auth if isinstance(published.basic_auth, str) else None,
                "seen": [seen.snapshot_id, sorted(seen.online), sorted(seen.speaking)],
                "began_at": self.began_at,
                "events": self.events,
                "members": list(self.members.values()),
                "agents": list(map(self.agent, list(self.agents))),
            },
            default=tuple,
        )

    @classmethod
    def load(cls, project_id: int, text: bytes) -> Known:
        """Return what another process of the host knew. Raises on what this release cannot read."""
        found = orjson.loads(text)
        published = Published(
            project=build_project(found["document"], project_id, found["version"]),
            document=found["document"],
            version=found["published"],
            tokens={token: until and from_micros(until) for token, until in found["tokens"].items()},
            basic_auth=found["basic_auth"],
            fault=found["fault"],
        )
        snapshot_id, online, speaking = found["seen"]
        return cls(
            published,
            ZoneInfo(published.project.time_zone),
            Seen(snapshot_id, frozenset(online), frozenset(speaking)),
            found["began_at"],
            found["events"],
            {(row.group_id, row.agent_id): row for row in starmap(MemberRow, found["members"])},
            {row.agent_id: row for row in starmap(AgentRow, found["agents"])},
        )

    def agent(self, agent_id: int) -> AgentRow:
        """Return the agent's state as it was read last."""
        row = self.agents.get(agent_id)
        return AgentRow(agent_id) if row is None else AgentRow._make(row[-len(AgentRow._fields) :])

    def may_refresh(self) -> bool:
        """May a call wait for its source now? While the source has no news, few calls should wait for it in vain."""
        return time.monotonic() >= self.refresh_at

    def refreshed(self, waited: float, *, news: bool) -> None:
        """A call waited for the source so many seconds. In vain: the next one does so after four times as long, so that
        most calls wait for nothing, and the first one after an outage that it is over is soon."""
        self.refresh_at = time.monotonic() + (0.0 if news else 4 * waited)

    def learn(self, state: State, seen: Seen) -> Seen:
        """Keep what was read; return the reading that it refers to. `seen`: the one that it was asked with."""
        self.began_at = state.began_at
        if state.presence is not None and state.snapshot_id is not None:
            online, speaking = state.presence
            self.seen = seen = Seen(state.snapshot_id, frozenset(online), frozenset(speaking))
        self.events = state.events
        for row in state.members:
            self.members[row.group_id, row.agent_id] = row
            self.agents[row.agent_id] = row
        for agent in state.agents:
            self.agents[agent.agent_id] = agent
        return seen

    def remember(self, decision: Mapping[str, Any], lease: Lease | None, decision_id: int = 0) -> Answer:
        """Keep what was answered, whether or not it could be written down."""
        earlier = Earlier(
            decision_id,
            decision["step"],
            decision["attempt"],
            decision["asked_at"],
            decision["destination"],
            decision["agent_id"],
            decision["sip_login"],
            outcome="",
            caller=decision["caller"],
        )
        keys: tuple[int | str, ...] = () if lease is None else (lease.agent_id, *lease.phones)
        until = 0 if lease is None else lease.expires_at
        answer = Answer(decision["project"], decision["call_id"], earlier, keys, until)
        self.answers.setdefault(answer.call_id or f"\n{earlier.asked_at}", []).append(answer)
        if decision_id:
            self.unshared.append(answer)
        if len(self.answers) > ANSWERS_REMEMBERED:
            self.answers.popitem(last=False)
        return answer

    def forget(self, answer: Answer) -> None:
        """This was not the answer after all."""
        self.answers[answer.call_id or f"\n{answer.earlier.asked_at}"].remove(answer)

    def answers_to(self, call_id: str) -> list[Earlier]:
        """Return what this process answered to a call."""
        return [answer.earlier for answer in self.answers.get(call_id, ())] if call_id else []

    def advance(self, offer: Offer, day: str) -> None:
        """Move the clocks of the group's members on, so that turns go on while nothing can be written."""
        if offer.group_id is None or offer.clock is None:
            return
        for agent_id, clock in [*offer.turns, (offer.agent_id, offer.clock)]:
            stood_at = [clock.virtual_time, clock.weight, clock.tier, clock.left_at, clock.head_start_seconds]
            row = MemberRow(offer.group_id, clock.last_offered, stood_at, clock.head_start, day, *self.agent(agent_id))
            self.members[offer.group_id, agent_id] = row


# ---- a question, and what is made of it

CALL_MEMORY = timedelta(hours=6)  # how long the logins tried for a call id are remembered: no call lasts longer

Admit = Callable[[Published], object]
"""Raises when whoever asks may not, by this configuration. Asked before a call is answered by it."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of a question. `decision` is None when an earlier answer was repeated."""

    destination: str
    decision_id: int
    decision: Decision | None = None
    presence_age: timedelta | None = None
    degraded: str = ""  # why the answer was made without the database
    result: str = "repeated"  # else the decision's


class OtherCallerError(Exception):
    """The call's id was sent for another caller before."""


class Question(NamedTuple):
    """What is asked, with what is needed to record it."""

    call: Call
    seed: str
    received: Mapping[str, Any] | None
    began: float
    admit: Admit | None
    admitted: Published | None  # by which `admit` needs not be asked

    def with_own_id(self) -> Question:
        """The same by an id of its own: the one that was sent is another caller's, too."""
        sent, call = self.call.call_id, self.call.with_own_id()
        problem = Message(NOTES["shared_call_id"], {"sent": repr(sent[:80])})
        received = dict(self.received or {})
        received |= {"problems": [*received.get("problems", ()), problem.as_json()], "empty_id": sent}
        return self._replace(call=call, seed=call.call_id, received=received)


class Made(NamedTuple):
    """A decision that is still to be recorded."""

    decision: Decision
    row: dict[str, Any]
    lease: Lease | None
    age: timedelta | None


def make(known: Known, asked: Question, state: State, seen: Seen, last_talk: LastTalk | None) -> Routed | Made:
    """The answer given before to the same question, if that was asked not long ago, or a new decision.

    When the agent named last did not take the call, the question is asked for the next one.
    """
    project, call = known.published.project, asked.call
    if not all(call.may_be_of(earlier.caller) for earlier in state.earlier):
        raise OtherCallerError
    same = [earlier for earlier in state.earlier if earlier.step == call.step]
    if same and not (same[-1] is state.earlier[-1] and same[-1].is_refused):
        given = same[-1]
        if state.now - given.asked_at <= project.retry_window // MICROSECOND:
            return Routed(given.destination, given.id)
    inputs = inputs_of(project, state, asked.seed, last_talk)
    snapshot = snapshot_of(inputs, seen.online, seen.speaking, known.zone)
    decision = decide(project, call, snapshot)
    row = row_of(project, call, state, inputs, decision, asked.received, 1 + same[-1].attempt if same else 0)
    row["snapshot_id"] = seen.snapshot_id or None
    row["latency_us"] = round((time.perf_counter() - asked.began) * 1_000_000)
    lease = _lease(project, decision.answer, state.now, snapshot.now, known.zone)
    return Made(decision, row, lease, snapshot.presence.age)


def ids_needed(
    project: Project, rules: Sequence[Rule], call: Call, last_talk: LastTalk | None
) -> tuple[list[int], list[int]]:
    """Return the groups that a decision among these rules may look into, and the agents (and their deputies) whom it
    may prefer, members or not."""
    groups = {group_id for rule in rules for group_id in (*rule.group_ids, *counted_groups(rule))}
    agents: set[int] = set()
    for rule in rules:
        agent = preferred_agent(project, rule, call, last_talk) if rule.prefer is not None else None
        if agent is not None:
            agents.add(agent.id)
            if agent.deputy_id is not None:
                agents.add(agent.deputy_id)
    return sorted(groups), sorted(agents)


def inputs_of(project: Project, state: State, seed: str, last_talk: LastTalk | None) -> Inputs:
    """Return what a decision on this state is made by."""
    began_at, since = state.began_at, state.now - CALL_MEMORY // MICROSECOND
    if began_at is not None and began_at > state.now + CLOCK_STEP // MICROSECOND:
        began_at = state.now - project.fresh // MICROSECOND - 1  # of before the clock was set back: not fresh, at least
    tried = [earlier.sip_login for earlier in state.earlier if earlier.sip_login and earlier.asked_at > since]
    inputs = Inputs(state.now, began_at, state.events, state.agents, state.members, seed, tried, last_talk)
    return inputs._replace(previous_call=state.previous_call)


def _lease(project: Project, answer: Offer | Overflow, now: int, now_at: datetime, zone: ZoneInfo) -> Lease | None:
    if isinstance(answer, Overflow):
        return None
    expires_at = now + answer.ring // MICROSECOND
    phones = project.agents[answer.agent_id].phones
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
        answer.clock.head_start_seconds,
    )


# ---- all projects


class Projects:
    """The projects as this process knows them."""

    def __init__(self, database: Database, outbox: Outbox, budget_seconds: float) -> None:
        self._database, self._outbox = database, outbox
        self._seconds = READ_SHARE * budget_seconds
        self._known: dict[int, Known] = {}
        self._project_by_token: dict[str, int] = {}
        self._tokens_learned_at = -1.0  # time.monotonic(); below 0: never
        self._recalled_at = -1.0  # the same
        self._asked_at: dict[int, float] = {}  # by project: when its version was last asked for alone
        self._faults: dict[int, str] = {}  # by project: why its newest configuration is not the one that calls go by
        self._named = ""

    def known(self, project_id: int, seconds: float | None = None) -> Known:
        """Return the project as it is known, or read it within so many seconds. Raises UnknownProjectError."""
        return self._known.get(project_id) or self.load(project_id, seconds)

    @property
    def by_id(self) -> Mapping[int, Known]:
        """Return the projects that this process knows, by id."""
        return self._known

    def known_by(self, token_hash: str) -> Published | None:
        """Return the configuration of the project with this hook token, if this process knows that it is valid."""
        known = self._known.get(self._project_by_token.get(token_hash, 0))
        return known.published if known is not None and accepts(known.published, token_hash) else None

    def of_token(self, token_hash: str, *, is_suspect: bool = False) -> Published | None:
        """Return the configuration of the project with this hook token, None when the token is not valid now.

        `is_suspect`: who asks was refused often. Their tokens are looked up all together, some times a second at most.

        Raises DatabaseBusyError or the driver's errors when no process of this host ever saw the token, and it cannot
        be looked up.
        """
        try:
            return self._of_token(token_hash, is_suspect=is_suspect)
        except DATABASE_ERRORS:
            self.recall()
            if self._project_by_token.get(token_hash, 0) not in self._known:
                raise
            return self.known_by(token_hash)

    def _of_token(self, token_hash: str, *, is_suspect: bool) -> Published | None:
        if published := self.known_by(token_hash):
            return published
        if is_suspect:
            is_known = self._project_by_token.get(token_hash, 0) in self._known
            is_news = self._learn_tokens()
            if token_hash not in self._project_by_token or (is_known and not is_news):
                return None
        project_id = self._read(lambda session: queries.project_of_token(session, token_hash))
        if project_id is None:
            return None
        published = self.load(project_id).published
        return published if accepts(published, token_hash) else None

    def _learn_tokens(self) -> bool:
        """Know every token there is, as of a moment ago at most. Were they read just now?

        Raises what `of_token` does, as long as this process has never known them.
        """
        if 0 <= self._tokens_learned_at > time.monotonic() - REFUSED_SECONDS:
            return False
        try:
            self._project_by_token.update(self._read(queries.tokens))
        except DATABASE_ERRORS:
            if self._tokens_learned_at < 0:
                raise
        self._tokens_learned_at = time.monotonic()
        return True

    def recall(self) -> bool:
        """Know of the projects that this process never saw what another one of the host did. Are there any now?

        It looks once a second at most.
        """
        if 0 <= self._recalled_at > time.monotonic() - 1:
            return bool(self._known)
        self._recalled_at = time.monotonic()
        for project_id, kept in self._outbox.known().items():
            if project_id not in self._known:
                try:
                    self._get_to_know(Known.load(project_id, kept))
                except Exception as error:  # noqa: BLE001 - of another release: it is as if it were not kept
                    log.warning("a project that was kept cannot be read", project_id=project_id, error=repr(error))
        return bool(self._known)

    def _get_to_know(self, new: Known) -> Known:
        """Return the project as it was known before or else as it is known now; its tokens are those of now."""
        project_id = new.published.project.id
        for token_hash in new.published.tokens:
            self._project_by_token[token_hash] = project_id
        return self._known.setdefault(project_id, new)

    def current(self, published: Published, *, is_suspect: bool = False, seconds: float | None = None) -> Published:
        """Return the project's configuration as it is in the database now; as it is known while that is away.

        `is_suspect`: who asks was refused often. For all of them the database is asked some times a second at most.
        `seconds`: how long to wait for it, where that says nothing of its health. Raises UnknownProjectError when the
        project was deleted.
        """
        project_id = published.project.id
        known = self._known.get(project_id)
        asked_at = self._asked_at.get(project_id, -REFUSED_SECONDS)
        if is_suspect and time.monotonic() - asked_at < REFUSED_SECONDS:
            return known.published if known else published
        try:
            if self._outbox.is_open:
                raise DatabaseBusyError("the database failed a moment ago")
            self._asked_at[project_id] = time.monotonic()
            version = self._read(lambda session: queries.version(session, project_id), seconds)
            if known is None or known.published.version != version:
                known = self.load(project_id)
        except DATABASE_ERRORS:
            return known.published if known else published
        return known.published

    def load(self, project_id: int, seconds: float | None = None) -> Known:
        """Read the project's configuration. Raises UnknownProjectError, or BuildError where no version can be built."""
        before = self._known.get(project_id)
        of_before = before.published if before else None
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
        """Keep why the newest configuration cannot be built, and log it once."""
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

    def last_talk(self, known: Known, caller: str, since: datetime) -> LastTalk | None:
        """Return who last talked with this caller, if that was after `since`."""
        return self._read(lambda session: queries.last_talk(session, known.published, caller, since))

    def _read(self, read: Callable[[Session], T], seconds: float | None = None) -> T:
        """Read while a caller waits. `seconds`: for so long, and whatever the circuit breaker says."""
        if seconds is not None:
            with time_limit(seconds), self._database.reading() as session:
                return read(session)
        if self._outbox.is_open:
            raise DatabaseBusyError("the database failed a moment ago")
        with watched(self._outbox), time_limit(self._seconds), self._database.reading() as session:
            return read(session)

    def learn_all(self) -> None:
        """Learn all projects as they are now: so that a process knows enough to answer should the database go away,
        even for a project that is never called, and one that starts then."""
        self._outbox.belongs_to(self._installation())
        versions = self._read(queries.versions, UPKEEP_READ_SECONDS)
        for project_id, version in versions.items():
            known = self._known.get(project_id)
            if known is None or known.published.version != version or known.published.fault:
                try:
                    known = self.load(project_id, UPKEEP_READ_SECONDS)
                except (BuildError, UnknownProjectError):
                    continue  # one project that cannot be had keeps no other from being known
            project = known.published.project
            self.look(known, list(project.groups), list(project.agents))
            self._outbox.keep_known(project_id, known.dump)
        for project_id in self._known.keys() - versions.keys():
            del self._known[project_id]
        for project_id in self._faults.keys() - versions.keys():
            del self._faults[project_id]
        self._outbox.forget_known(versions)

    def _installation(self) -> str:
        if not self._named:
            self._named = self._read(queries.installation, UPKEEP_READ_SECONDS)
        if not self._named:
            with self._database.writing() as session:
                queries.name_installation(session)
            self._named = self._read(queries.installation, UPKEEP_READ_SECONDS)
        return self._named

    def look(
        self,
        known: Known,
        group_ids: Sequence[int],
        agent_ids: Sequence[int],
        *,
        call_id: str = "",
        caller: str = "",
        seconds: float = UPKEEP_READ_SECONDS,
        is_locked: bool = False,
        is_apart: bool = False,
    ) -> tuple[State, Seen]:
        """Read and learn the state as it stands. What is promised to this call is free for it.

        `is_locked`: under the locks of a call, when all who hold them are done. `is_apart`: see `question`.
        """
        seen, deadline = known.seen, time.monotonic() + seconds
        with question(self._database, deadline=deadline, is_locked=is_locked, is_apart=is_apart) as transaction:
            state = transaction.read(
                project=known.published.project,
                call_id=call_id,
                group_ids=group_ids,
                agent_ids=agent_ids,
                known_snapshot=seen.snapshot_id,
                caller=caller,
            )
        return state, known.learn(state, seen)


@contextmanager
def watched(outbox: Outbox) -> Iterator[None]:
    """Open the circuit breaker when the database fails inside, unless it worked for others meanwhile."""
    began = time.monotonic()
    try:
        yield
    except ConnectionsInUseError:
        raise
    except DATABASE_ERRORS:
        if outbox.worked_at < began:
            outbox.open_breaker()
        raise
    except Exception:
        outbox.worked_at = time.monotonic()
        raise
    outbox.worked_at = time.monotonic()
