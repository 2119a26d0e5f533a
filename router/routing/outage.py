"""While the database is away: answers from what this process and its host know, and what is written when it is back.

No agent is promised twice on the host meanwhile, because its processes decide one after the other under the outbox's
lock. What is lost by this is in docs/reliability.md, *Limits*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from router.core.events import CallEvent
from router.core.lifecycle import Result
from router.core.model import Offer, Project, own_call_id
from router.core.rules import possible_matches
from router.db.claim import AgentRow, Earlier, State
from router.db.restore import is_refusal, restore
from router.db.session import DATABASE_ERRORS, Database, time_limit
from router.db.types import MICROSECOND
from router.log import log
from router.routing.known import Known, Made, Projects, Question, Routed, ids_needed, make
from router.routing.outbox import Answer, Outbox, Shared, Waiting, WaitingEvent

EVENT_SECONDS = 0.75  # that the PBX waits for an event to be applied; one that is applied later does no harm
_BATCH = 100  # decisions written in one transaction, because on SQLite every call waits for it
_PAUSE_SECONDS = 0.02  # after each
_WRITE_SECONDS = 2.0
_LOOK_SECONDS = 0.25  # that a call waits to know what others claim, when it could not
_ONSET_SECONDS = 0.3  # after the database failed, in which the processes share what they promised: see background.py
_SHARED_SECONDS = 60  # what was answered with the database so lately is told to the other processes

Apply = Callable[[Project, CallEvent, float], Result]
"""Apply a call event that arrived at an instant of time.monotonic()."""


class Outage:
    """What one process does without the database, and when it is back."""

    def __init__(self, database: Database, outbox: Outbox, projects: Projects) -> None:
        self._database, self._outbox, self._projects = database, outbox, projects

    def answer(self, known: Known, asked: Question, why: str, deadline: float) -> Routed:
        """Answer from what this process and its host know, and keep the decision until it can be written."""
        if asked.admit is not None and known.published is not asked.admitted:
            asked.admit(known.published)
        project, call = known.published.project, asked.call
        rules = possible_matches(project.index, call, datetime.now(UTC))
        group_ids, agent_ids = ids_needed(project, rules, call, None)
        recorded = self._recorded(known, call.call_id, group_ids, agent_ids, deadline)
        if recorded is None and (left := deadline - time.monotonic()) > 0:
            self._outbox.open_breaker()
            onset = self._outbox.condition.opened_at / 1_000_000 + _ONSET_SECONDS - time.time()
            time.sleep(max(0.0, min(onset, _ONSET_SECONDS, left / 2)))
        while True:
            with self._outbox.exclusive():
                self._share(known)
                shared = self._outbox.look(project.id, call.call_id, known.began_at or 0)
                if recorded is not None:
                    shared.answers.extend(recorded.earlier)
                state = _state(known, call.call_id, group_ids, agent_ids, shared)
                made = make(known, asked, state, known.seen, None)
                if isinstance(made, Routed):
                    return made
                answer = self._keep(known, made, why)
            # Who claims the same agent, or answers the same question, either sees this answer or is seen here: the
            # database may have come back meanwhile.
            recorded = self._recorded(known, call.call_id, group_ids, agent_ids, deadline, waits_for_others=True)
            if recorded is None or not _is_overtaken(made, recorded):
                return Routed(made.row["destination"], 0, made.decision, made.age, why, made.row["result"])
            known.forget(answer)
            self._outbox.withdraw(answer)

    def _recorded(
        self,
        known: Known,
        call_id: str,
        group_ids: Sequence[int],
        agent_ids: Sequence[int],
        deadline: float,
        *,
        waits_for_others: bool = False,
    ) -> State | None:
        """Learn and return the state as it stands in the database. None: the database does not say.

        It is asked where the circuit breaker is closed: this call failed and others do not, as when too many of them
        wait for a lock, which a reader needs not. `waits_for_others`: see what those who hold the locks record, if they
        are done in time.
        """
        for is_locked in (True, False) if waits_for_others else (False,):
            seconds = min(_LOOK_SECONDS, (deadline - time.monotonic()) / 2)
            if self._outbox.is_open or seconds <= 0:
                return None
            with suppress(*DATABASE_ERRORS):
                return self._projects.look(
                    *(known, group_ids, agent_ids), call_id=call_id, seconds=seconds, is_locked=is_locked, is_apart=True
                )[0]
        return None

    def stand_by(self, known: Known, made: Made, why: str) -> Routed | None:
        """Give the answer that the database failed to record: perhaps it did. None: another process of the host has
        answered the same question since, or promised the agent to another call."""
        project_id, call_id = known.published.project.id, made.row["call_id"]
        with self._outbox.exclusive():
            shared = self._outbox.look(project_id, call_id)
            keys = () if made.lease is None else (made.lease.agent_id, *made.lease.phones)
            taken = [shared.promised[key][0] for key in keys if key in shared.promised]
            same = [one for one in shared.answers if one.step == made.row["step"]]
            if same or any(not call_id or call != call_id for call in taken):
                return None
            self._keep(known, made, why)
        return Routed(made.row["destination"], 0, made.decision, made.age, why, made.row["result"])

    def _keep(self, known: Known, made: Made, why: str) -> Answer:
        made.row["degraded"] = why
        answer = known.remember(made.row, made.lease)
        self._outbox.add([(answer, Waiting(0, made.row, made.lease))])
        if isinstance(made.decision.answer, Offer) and made.lease is not None:
            known.advance(made.decision.answer, made.lease.day)
        return answer

    def share(self) -> None:
        """Let the other processes know what this one answered and heard just before the database went away.

        Called all the time: they wait a moment for it before they answer without the database.
        """
        known = [one for one in list(self._projects.by_id.values()) if one.unshared or one.heard]
        if known and self._outbox.is_open:
            with self._outbox.exclusive():
                for one in known:
                    self._share(one)

    def _share(self, known: Known) -> None:
        now = time.time_ns() // 1000
        unshared = [known.unshared.popleft() for _ in range(len(known.unshared))]
        since = now - _SHARED_SECONDS * 1_000_000
        self._outbox.add([(one, None) for one in unshared if one.until > now or one.earlier.asked_at > since])
        for event, at in [known.heard.popleft() for _ in range(len(known.heard))]:
            if event.talks is not None and at > since:
                self._outbox.hear(known.published.project, event, at)

    def complete(self, state: State, known: Known, call_id: str) -> State:
        """Return the state with what waits to be written, which counts as if it were in the database."""
        shared = self._outbox.look(known.published.project.id, call_id, state.began_at or 0, is_waiting=True)
        written = {(earlier.step, earlier.attempt) for earlier in state.earlier}
        unwritten = [answer for answer in shared.answers if (answer.step, answer.attempt) not in written]
        # Who was heard not to talk any more is not freed: that is applied soon, or was late, and they talk again.
        events = state.events | {login: True for login, (talks, _) in shared.talks.items() if talks}
        state = state._replace(earlier=sorted([*state.earlier, *unwritten], key=_asked_at), events=events)
        return state.promised(_owners_promised(known, shared, call_id, state.now))

    # ---- call events

    def hear(self, project: Project, event: CallEvent, arrived_at: float, apply: Apply) -> Result | None:
        """Apply an event, or keep it until the database allows: None. `arrived_at`: by time.monotonic()."""
        own = own_call_id(event.call_id, event.caller) if event.call_id and event.caller else ""
        if own and not self._outbox.is_empty and self._outbox.answers(project.id, own):
            event = replace(event, call_id=own)
        if not self._outbox.is_open and not self._outbox.waits(project.id, event.call_id):
            try:
                with time_limit(EVENT_SECONDS):
                    result = apply(project, event, arrived_at)
            except DATABASE_ERRORS as error:
                log.warning("a call event waits for the database", call_id=event.call_id, kind=type(error).__name__)
            else:
                if known := self._projects.by_id.get(project.id):
                    known.heard.append((event, time.time_ns() // 1000))
                return result
        self._outbox.add_event(project, event, arrived_at)
        return None

    # ---- when the database is back

    def write_what_waits(self, apply: Apply | None) -> None:
        """Write decisions, then events. What the database refuses is dropped, and holds up nothing else."""
        self._write_decisions()
        while apply is not None and (events := self._outbox.take_events(_BATCH)):
            for place, waiting in enumerate(events):
                try:
                    self._apply(waiting, apply)
                except DATABASE_ERRORS:
                    for is_later in (False, True):  # this call's events are tried again after the others
                        left = [one.id for one in events[place:] if (one.call == waiting.call) == is_later]
                        self._outbox.put_back("events", left, is_later=is_later)
                    raise

    def _write_decisions(self) -> None:
        limit = _BATCH
        while rows := self._outbox.take(limit):
            ids = [row.id for row in rows]
            try:
                deadline = time.monotonic() + _WRITE_SECONDS
                restore(self._database, [(row.decision, row.lease) for row in rows], deadline=deadline)
            except BaseException as error:
                if is_refusal(error) and len(rows) == 1:
                    log.error("database: a decision was refused", call_id=rows[0].decision["call_id"], error=str(error))
                    self._outbox.done("answers", ids, lost=True)
                    continue
                self._outbox.put_back("answers", ids)
                if not is_refusal(error):
                    raise
                limit = len(rows) // 2  # until it is alone
            else:
                self._outbox.done("answers", ids)
                limit = min(2 * limit, _BATCH)
                time.sleep(_PAUSE_SECONDS)

    def _apply(self, waiting: WaitingEvent, apply: Apply) -> None:
        error: Exception | None = None
        try:
            with time_limit(_WRITE_SECONDS):
                apply(self._projects.known(waiting.project_id).published.project, waiting.event, waiting.arrived_at)
        except Exception as raised:
            if isinstance(raised, DATABASE_ERRORS) and not is_refusal(getattr(raised, "orig", None) or raised):
                raise
            error = raised
            log.error("a call event that waited is lost", call_id=waiting.event.call_id, exc_info=error)
        self._outbox.done("events", [waiting.id], lost=error is not None)


def _is_overtaken(made: Made, recorded: State) -> bool:
    """Has somebody answered the same question, or claimed the agent, in the database?"""
    question = (made.row["step"], made.row["attempt"])
    is_answered = any((one.step, one.attempt) == question for one in recorded.earlier)
    return is_answered or (made.lease is not None and made.lease.agent_id in recorded.reserved())


def _asked_at(earlier: Earlier) -> int:
    return earlier.asked_at


def _owners_promised(known: Known, shared: Shared, call_id: str, now: int) -> dict[int, int]:
    """Agent → until when, of the promises to other calls: to the agent, or to anybody at a phone that is theirs now."""
    if not shared.promised:
        return {}
    owners = known.published.project.phone_owners
    found: dict[int, int] = {}
    for key, (call, until) in shared.promised.items():
        if until > now and (not call_id or call != call_id):
            for agent_id in (key,) if isinstance(key, int) else owners.get(key, ()):
                found[agent_id] = max(until, found.get(agent_id, 0))
    return found


def _state(known: Known, call_id: str, group_ids: Iterable[int], agent_ids: Sequence[int], shared: Shared) -> State:
    """Return what would have been read, as far as this process and its host know it."""
    now, project = time.time_ns() // 1000, known.published.project
    until = _owners_promised(known, shared, call_id, now)
    wanted = set(group_ids)
    members = [row for row in list(known.members.values()) if row.group_id in wanted]
    # Whoever is promised has a row, though nothing else be known of them: who has none is taken to be free.
    others = (until.keys() | agent_ids) & project.agents.keys() - {row.agent_id for row in members}
    earlier = [*known.answers_to(call_id), *shared.answers]
    # Who talks by either talks: neither says which is newer.
    said = {login: talks for login, (talks, _) in shared.talks.items()}
    said |= {login: talks for login, talks in known.events.items() if talks or login not in said}
    state = State(
        now=now,
        version=project.version,
        snapshot_id=known.seen.snapshot_id or None,
        began_at=known.began_at,
        presence=None,
        earlier=sorted({(one.step, one.attempt): one for one in earlier}.values(), key=_asked_at),
        events=said,
        members=[row.with_agent(_agent(known, row.agent_id, shared.talks)) for row in members],
        agents=[_agent(known, agent_id, shared.talks) for agent_id in sorted(others)],
    )
    return state.promised(until)


def _agent(known: Known, agent_id: int, talks: Mapping[str, tuple[bool, int]]) -> AgentRow:
    """The agent's row, with the wrap-up after talks that ended since it was read."""
    row = known.agent(agent_id)
    agent = known.published.project.agents.get(agent_id)
    wrap_up = row.wrap_up_until or 0
    if agent is not None and agent.wrap_up:
        since = max((talks.get(login, (True, 0))[1] for login in agent.sip_logins), default=0)
        wrap_up = max(wrap_up, since and since + agent.wrap_up // MICROSECOND)
    return row._replace(wrap_up_until=wrap_up or None)
