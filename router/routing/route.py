"""Route a call: load → decide → claim → record. Knows no HTTP and no platform."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy.orm import Session

from router.core.decision import decide
from router.core.events import CallEvent
from router.core.lifecycle import Result, ask_again
from router.core.model import Call, Decision, LastTalk, Project, Snapshot
from router.core.rules import Rule, asks_previous_call, possible_matches
from router.db import models
from router.db.claim import LostRaceError, State, question
from router.db.documents import configured
from router.db.outcomes import written
from router.db.queries import Published
from router.db.records import Inputs, Record, answer_as_json, record_of, row_of, snapshot_of, trials_as_json
from router.db.session import DATABASE_ERRORS, Database, DatabaseBusyError, time_limit
from router.db.types import from_micros, to_micros
from router.log import log
from router.routing.known import (
    READ_SHARE,
    Admit,
    Known,
    Made,
    OtherCallerError,
    Projects,
    Question,
    Routed,
    Seen,
    ids_needed,
    inputs_of,
    make,
    watched,
)
from router.routing.outage import Apply, Outage
from router.routing.outbox import Condition, Outbox

DATABASE_SHARE = 0.5  # of a call's time may be spent on the database; the rest is for an answer without it

Refresh = Callable[[int, float], object]
"""Ask a project's source for presence and store it, until the deadline (time.monotonic()) at most."""


class RoutingError(Exception):
    """No decision could be made or recorded in time."""


class _ConfigurationChangedError(Exception):
    """The database has another version of the configuration than this process."""


class _StalePresenceError(Exception):
    """Presence is too old to decide by, and the source has not been asked yet."""


class _InDoubtError(DatabaseBusyError):
    """The database failed while it recorded `made`, and may have stored it: so the answer must not change."""

    def __init__(self, made: Made, why: str) -> None:
        super().__init__(why)
        self.made, self.why = made, why


class _NotLoadedError(Exception):
    """By the database's clock other rules may match than expected: a schedule has opened or closed in between."""

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.at = at


class _DryRun(NamedTuple):
    """A decision that reserves nobody, with all that it was made by."""

    known: Known
    state: State
    seen: Seen
    inputs: Inputs
    snapshot: Snapshot
    decision: Decision


class Routing:
    """Routes the calls of all projects for one process."""

    def __init__(
        self,
        database: Database,
        refresh: Refresh | None = None,
        outbox: Outbox | None = None,
        *,
        budget_seconds: float | None = None,
    ) -> None:
        seconds = database.statement_seconds if budget_seconds is None else budget_seconds
        self._database, self._refresh, self.outbox = database, refresh, outbox or Outbox()
        self.projects = Projects(database, self.outbox, seconds)
        self.outage = Outage(database, self.outbox, self.projects)

    def route_call(
        self,
        project_id: int,
        call: Call,
        *,
        deadline: float,
        received: Mapping[str, Any] | None = None,
        admit: Admit | None = None,
        admitted: Published | None = None,
    ) -> Routed:
        """Decide where this call goes, claim the agent and record the decision. A question asked again gets its answer.

        `received`: the request, stored with the decision for people to look at. `deadline`: by time.monotonic().
        `admitted`: the configuration by which `admit` needs not be asked, because it was before. While
        the database is away the answer is degraded: made from what this process knows, and recorded afterwards. Raises
        only when this process never knew the project, UnknownProjectError when it was deleted, and what `admit` raises.
        """
        began = time.perf_counter()
        known = self.projects.known(project_id)
        asked = Question(call, call.call_id or secrets.token_hex(8), received, began, admit, admitted)
        why = ""  # this is answered without the database
        while True:
            try:
                if why:
                    return self.outage.answer(known, asked, why, deadline)
                return self._route(known, asked, deadline)
            except OtherCallerError:  # at most once: its new id is unique
                asked = asked.with_own_id()
            except _InDoubtError as doubt:
                log.warning("database: the answer is perhaps not recorded", call_id=asked.call.call_id, kind=doubt.why)
                if kept := self.outage.stand_by(known, doubt.made, doubt.why):
                    return kept
                why = doubt.why
            except (*DATABASE_ERRORS, RoutingError) as error:
                if why:
                    raise
                why = type(error).__name__
                log.warning("database: answering without it", error=str(error), kind=why)

    def _route(self, known: Known, asked: Question, deadline: float) -> Routed:
        at, refresh = datetime.now(UTC), self._refresh
        # Until the deadline, not a number of times: each lost race means that another call has been answered.
        while (left := deadline - time.monotonic()) > 0:
            before = self.outbox.condition
            if before.opened_at:
                raise DatabaseBusyError("the database failed a moment ago")
            if asked.admit is not None and known.published is not asked.admitted:
                asked.admit(known.published)
            try:
                with watched(self.outbox):
                    until = time.monotonic() + DATABASE_SHARE * left
                    return self._route_once(known, asked, before, at, until, stale_allowed=refresh is None)
            except LostRaceError:
                continue
            except _ConfigurationChangedError:
                with time_limit(READ_SHARE * left):
                    known = self.projects.load(known.published.project.id)
            except _NotLoadedError as error:
                at = error.at
            except _StalePresenceError:
                if refresh is not None and not known.may_refresh():
                    refresh = None
                elif refresh is not None:
                    # Leaves time for the database.
                    began = time.monotonic()
                    until = began + 0.8 * (deadline - began)
                    news = bool(refresh(known.published.project.id, until))
                    known.refreshed(time.monotonic() - began, news=news)
                    refresh = None
        raise RoutingError("no decision in time")

    def _route_once(
        self, known: Known, asked: Question, before: Condition, at: datetime, deadline: float, *, stale_allowed: bool
    ) -> Routed:
        project, call = known.published.project, asked.call
        rules = possible_matches(project.index, call, at)
        last_talk = None
        if any(rule.prefer is not None for rule in rules):
            with time_limit(READ_SHARE * (deadline - time.monotonic())):
                last_talk = self._last_talk(known, rules, call, at)
        group_ids, agent_ids = ids_needed(project, rules, call, last_talk)
        with question(self._database, deadline=deadline) as transaction:
            seen = known.seen
            state = transaction.read(
                project=project,
                call_id=call.call_id,
                group_ids=group_ids,
                agent_ids=agent_ids,
                known_snapshot=seen.snapshot_id,
                caller=call.caller if project.index.asks_previous_call and asks_previous_call(rules) else "",
            )
            if state.version != known.published.version:
                raise _ConfigurationChangedError
            seen = known.learn(state, seen)
            if not before.is_empty:
                state = self.outage.complete(state, known, call.call_id)
            if project.index.depends_on_time:
                now = from_micros(state.now)
                if possible_matches(project.index, call, now) != rules:
                    raise _NotLoadedError(now)
            made = make(known, asked, state, seen, last_talk)
            if isinstance(made, Routed):
                return made
            is_stale = made.age is None or made.age > project.fresh
            if is_stale and not stale_allowed and (group_ids or agent_ids):
                raise _StalePresenceError
            if self.outbox.condition != before:  # others answer without the database, or an event waits now
                raise LostRaceError
            if state.earlier:  # whose leases end now
                history = transaction.history(project=project.id, call_id=call.call_id, now=state.now)
                transaction.write(
                    written(project.id, call.call_id, ask_again(project, history, from_micros(state.now)))
                )
            try:
                decision_id = transaction.record(made.row, made.lease)
            except DATABASE_ERRORS as error:
                raise _InDoubtError(made, type(error).__name__) from error
        known.remember(made.row, made.lease, decision_id)
        destination, result = made.row["destination"], made.row["result"]
        return Routed(destination, decision_id, made.decision, made.age, result=result)

    def _last_talk(self, known: Known, rules: Sequence[Rule], call: Call, at: datetime) -> LastTalk | None:
        """Return who last talked with this caller, if one of the rules prefers that agent."""
        days = [rule.prefer.within for rule in rules if rule.prefer is not None and rule.prefer.last_agent]
        return self.projects.last_talk(known, call.caller, at - max(days)) if days and call.caller else None

    def hear(self, published: Published, event: CallEvent, arrived_at: float, apply: Apply) -> Result | None:
        """Apply a call event. Return None if it was put into the outbox instead. `arrived_at`: by time.monotonic()."""
        return self.outage.hear(published.project, event, arrived_at, apply)

    def keep_up(self, apply: Apply | None = None) -> None:
        """Read all projects, and write what waits in the outbox. Called every few seconds in the background.

        In an outage only this tries the database, so that no caller waits for it in vain.
        """
        with watched(self.outbox):
            self.projects.learn_all()
        self.outbox.close_breaker()
        self.outbox.tidy()
        if not self.outbox.is_empty:
            self.outage.write_what_waits(apply)

    @property
    def is_behind(self) -> bool:
        """Whether there is an outage, or something waits in the outbox."""
        return self.outbox.is_open or not self.outbox.is_empty

    def explain(
        self, project_id: int, call: Call, *, at: datetime | None = None, instead: Project | None = None
    ) -> tuple[Project, Snapshot, Decision]:
        """Return what would be decided for this call now (or `at`), by the functions that route calls. No writes.

        `instead`: by these rules in place of the published ones.
        """
        run = self._dry_run(project_id, call, at, instead)
        return run.known.published.project, run.snapshot, run.decision

    def answer_test(self, project_id: int, call: Call, received: Mapping[str, Any]) -> str:
        """Return where such a call would go now, and store the decision, marked as a test.

        Nobody is reserved and no turn passes. It has no outcome, and is_of_call leaves it out of all counts.
        """
        began = time.perf_counter()
        run = self._dry_run(project_id, call)
        row = row_of(run.known.published.project, call, run.state, run.inputs, run.decision, received, 0)
        stored = {name: value for name, value in row.items() if name not in {"project", "asked_at", "record"}}
        asked_at = from_micros(row["asked_at"])
        made = models.Decision(
            **stored,
            project_id=row["project"],
            asked_at=asked_at,
            ended_at=asked_at,  # so that nobody waits for what becomes of it
            record=orjson.loads(row["record"]),
            snapshot_id=run.seen.snapshot_id or None,
            latency_us=round((time.perf_counter() - began) * 1_000_000),
            is_test=True,
        )
        try:
            with self._database.writing() as session:
                session.add(made)
        except DATABASE_ERRORS as error:
            log.warning("database: a test is not stored", error=repr(error))
        return run.decision.answer.destination

    def _dry_run(
        self, project_id: int, call: Call, at: datetime | None = None, instead: Project | None = None
    ) -> _DryRun:
        seconds = self._database.statement_seconds  # longer than for a call: a person waits
        known = self.projects.load(project_id, seconds)
        if instead is not None:
            known = replace(known, published=replace(known.published, project=instead))
        project = known.published.project
        rules = possible_matches(project.index, call, at or datetime.now(UTC))
        last_talk = self._last_talk(known, rules, call, at or datetime.now(UTC))
        _, preferred = ids_needed(project, rules, call, last_talk)
        caller = call.caller if asks_previous_call(rules) else ""
        state, seen = self.projects.look(known, list(project.groups), preferred, seconds=seconds, caller=caller)
        inputs = inputs_of(project, state, call.call_id or "dry-run", last_talk)
        if at is not None:
            then = to_micros(at)
            began_at = inputs.began_at and then - (state.now - inputs.began_at)  # as fresh as it is now
            inputs = inputs._replace(now=then, began_at=began_at)
        snapshot = snapshot_of(inputs, seen.online, seen.speaking, known.zone)
        return _DryRun(known, state, seen, inputs, snapshot, decide(project, call, snapshot))


# ---- once more


class NotRecomputableError(LookupError):
    """What a decision was made by is no longer kept."""


class Then(NamedTuple):
    """What a decision was made by."""

    project: Project
    call: Call
    snapshot: Snapshot
    record: Record


def restore(session: Session, row: models.Decision) -> Then:
    """Return what a decision was made by, as stored. Raises NotRecomputableError."""
    record = record_of(session, row)
    if "erased_at" in record:
        raise NotRecomputableError(f"the caller of decision {row.id} was erased")
    found = configured(session, row.project_id, row.config_version)
    if found is None:
        raise NotRecomputableError(f"version {row.config_version} of the configuration is no longer kept")
    seen = None if row.snapshot_id is None else session.get(models.PresenceSnapshot, row.snapshot_id)
    if row.snapshot_id is not None and seen is None:
        raise NotRecomputableError(f"presence reading {row.snapshot_id} is no longer kept")
    online, speaking = (frozenset(seen.online), frozenset(seen.speaking)) if seen else (frozenset(), frozenset())
    project = found.project
    snapshot = snapshot_of(Inputs.of_json(record["inputs"]), online, speaking, ZoneInfo(project.time_zone))
    return Then(project, Call(call_id=row.call_id, **record["call"]), snapshot, record)


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
    project, call, snapshot, record = restore(session, row)
    decision = decide(project, call, snapshot)
    then = (row.rule_id, row.destination, record["trials"], record["answer"])
    now = (decision.rule_id, decision.answer.destination, trials_as_json(decision), answer_as_json(decision))
    return Recomputed(project, call, snapshot, decision, then == now and row.result == decision.result)
