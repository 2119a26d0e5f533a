"""Replay calls of the log by another configuration: the same instant, presence and states, other rules.

What the stored inputs cannot answer is counted as unknown, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from router.core.decision import decide
from router.core.model import Decision, Offer, Project, Snapshot, Trial
from router.core.rules import Rule, asks_previous_call, counted_groups, possible_matches
from router.core.words import N_, Worded
from router.db import models
from router.db.documents import Document, build_project
from router.db.session import Database
from router.routing.route import NotRecomputableError, Then, restore

LISTED = 500  # differences that a study lists
_BATCH = 200  # decisions read in one transaction
_ORDER_WITHOUT_CLOCKS = {"priority", "random"}


class Unknown(Worded):
    """Why it cannot be said what another configuration would have answered."""

    GONE = "gone", N_("what the decision was made by is no longer kept")
    GROUP = "group", N_("the calls of a group were not looked at then")
    AGENT = "agent", N_("the state of an agent was not looked at then")
    LAST_TALK = "last_talk", N_("who last talked with the caller was not looked at then")
    PREVIOUS_CALL = "previous_call", N_("the caller’s previous call was not looked at then")


class Answer(NamedTuple):
    """An answer: the rule that matched (None: none), and the agent who got the call (None: the destination)."""

    rule_id: int | None
    agent_id: int | None
    destination: str


class Difference(NamedTuple):
    """A call that would have been answered otherwise."""

    decision_id: int
    asked_at: datetime
    caller: str
    then: Answer
    now: Answer


@dataclass
class Report:
    """The sums of a replay. `rules` and `agents`: calls then and now, by id; None: no rule, or the overflow.

    `to_overflow`, `from_overflow`: calls that would go there now, and that went there then. `differences`: the first
    that were found, at most as many as asked for.
    """

    total: int = 0
    differing: int = 0
    to_overflow: int = 0
    from_overflow: int = 0
    unknown: Counter[Unknown] = field(default_factory=Counter)
    rules: tuple[Counter[int | None], Counter[int | None]] = field(default_factory=lambda: (Counter(), Counter()))
    agents: tuple[Counter[int | None], Counter[int | None]] = field(default_factory=lambda: (Counter(), Counter()))
    differences: list[Difference] = field(default_factory=list)

    def add(self, row: models.Decision, now: Answer | Unknown, most: int) -> None:
        """Count a decision."""
        self.total += 1
        if isinstance(now, Unknown):
            self.unknown[now] += 1
            return
        then = Answer(row.rule_id, row.agent_id, row.destination)
        for place, answer in enumerate((then, now)):
            self.rules[place][answer.rule_id] += 1
            self.agents[place][answer.agent_id] += 1
        if then != now:
            self.differing += 1
            self.to_overflow += then.agent_id is not None and now.agent_id is None
            self.from_overflow += then.agent_id is None and now.agent_id is not None
            if len(self.differences) < most:
                self.differences.append(Difference(row.id, row.asked_at, row.caller, then, now))

    def as_json(self) -> dict[str, Any]:
        """Return the sums, and the differences without instants and callers: those are in the log, if anywhere."""
        return {
            "total": self.total,
            "differing": self.differing,
            "to_overflow": self.to_overflow,
            "from_overflow": self.from_overflow,
            "unknown": {why.value: count for why, count in self.unknown.most_common()},
            "rules": _side_by_side(*self.rules),
            "agents": _side_by_side(*self.agents),
            "differences": [[one.decision_id, list(one.then), list(one.now)] for one in self.differences],
        }


def _side_by_side(then: Counter[int | None], now: Counter[int | None]) -> list[list[int | None]]:
    """Return id, calls then and calls now, of whom has most first."""
    ids = sorted(then.keys() | now.keys(), key=lambda one: (-max(then[one], now[one]), one or 0))
    return [[one, then[one], now[one]] for one in ids]


def replay(
    database: Database,
    project: Project,
    *,
    since: datetime,
    until: datetime | None = None,
    most: int,
    listed: int,
    progress: Callable[[int], object] = lambda _count: None,
) -> Report:
    """Replay the newest calls of that time, at most `most`, by this view of the project's rules. Test requests are left
    out. `listed`: how many differences the report lists. `progress`: is told how many were replayed.
    """
    report = Report()
    for rows in _batches(database, _wanted(project.id, since, until), most):
        for session, row in rows:
            report.add(row, answer_by(session, project, row), listed)
        progress(report.total)
    return report


def replay_study(
    database: Database,
    project_id: int,
    document: Document,
    parameters: Mapping[str, Any],
    progress: Callable[[int, int], object],
) -> dict[str, Any]:
    """Replay as a study: see studies.py. `parameters`: `since` and `until`, instants in ISO 8601, and `most`."""
    since, until = (datetime.fromisoformat(parameters[name]) for name in ("since", "until"))
    most = int(parameters["most"])
    with database.reading() as session:
        newest = select(models.Decision.id).where(*_wanted(project_id, since, until)).limit(most).subquery()
        total = session.scalar(select(func.count()).select_from(newest)) or 0
    progress(0, total)
    view = build_project(document, project_id, 0)
    report = replay(
        database,
        view,
        since=since,
        until=until,
        most=most,
        listed=LISTED,
        progress=lambda done: progress(done, max(done, total)),
    )
    return report.as_json()


def _wanted(project_id: int, since: datetime, until: datetime | None) -> list[ColumnElement[bool]]:
    decision = models.Decision
    ends = [] if until is None else [decision.asked_at < until]
    return [decision.project_id == project_id, decision.asked_at >= since, *ends, ~decision.is_test]


def _batches(
    database: Database, wanted: list[ColumnElement[bool]], most: int
) -> Iterator[Iterable[tuple[Session, models.Decision]]]:
    """Yield decisions with the session that read them, newest first, each batch in a transaction of its own."""
    decision = models.Decision
    query = select(decision).where(*wanted).order_by(decision.asked_at.desc(), decision.id.desc())
    page = query
    for place in range(0, most, _BATCH):
        with database.reading() as session:
            rows = session.scalars(page.limit(min(_BATCH, most - place))).all()
            yield ((session, row) for row in rows)
            if len(rows) < _BATCH:
                return
            at, last_id = rows[-1].asked_at, rows[-1].id
        page = query.where(or_(decision.asked_at < at, and_(decision.asked_at == at, decision.id < last_id)))


class Replayed(NamedTuple):
    """A stored question decided by other rules. `unknown`: the input that was not stored: the decision may be wrong."""

    then: Then
    decision: Decision
    unknown: Unknown | None

    @property
    def answer(self) -> Answer | Unknown:
        if self.unknown is not None:
            return self.unknown
        answer = self.decision.answer
        return Answer(self.decision.rule_id, answer.agent_id if isinstance(answer, Offer) else None, answer.destination)


def decide_again(session: Session, project: Project, row: models.Decision) -> Replayed | None:
    """Decide a stored question by these rules; None if what it was decided by then is no longer stored."""
    try:
        then = restore(session, row)
    except NotRecomputableError:
        return None
    rules = possible_matches(project.index, then.call, then.snapshot.now)
    decision = decide(project, then.call, then.snapshot)
    return Replayed(then, decision, _unknown(project, then, rules, decision))


def answer_by(session: Session, project: Project, row: models.Decision) -> Answer | Unknown:
    """Return what these rules would have answered to the question of a stored decision."""
    replayed = decide_again(session, project, row)
    return Unknown.GONE if replayed is None else replayed.answer


def _unknown(project: Project, then: Then, rules: list[Rule], decision: Decision) -> Unknown | None:
    """Return which input of the decision was not stored, None if all were."""
    snapshot = then.snapshot
    asked = possible_matches(then.project.index, then.call, snapshot.now)
    looked_at: list[Rule] = []
    for rule in rules:
        looked_at.append(rule)
        if rule.id == decision.rule_id:
            break
    if then.call.caller and asks_previous_call(looked_at) and snapshot.previous_call is None:
        return Unknown.PREVIOUS_CALL
    if any(not _is_read(project, group_id, snapshot) for rule in looked_at for group_id in counted_groups(rule)):
        return Unknown.GROUP
    matched = next((rule for rule in looked_at if rule.id == decision.rule_id), None)
    if matched is not None and matched.prefer is not None and matched.prefer.last_agent:
        was_read = snapshot.last_talk or any(rule.prefer and rule.prefer.last_agent for rule in asked)
        if not was_read:
            return Unknown.LAST_TALK
    return next(filter(None, (_unknown_of(project, trial, snapshot) for trial in decision.trials)), None)


def _is_read(project: Project, group_id: int, snapshot: Snapshot) -> bool:
    """Return whether the states of all members of a group were stored."""
    return all(member.agent_id in snapshot.agents for member in project.groups[group_id].members)


def _unknown_of(project: Project, trial: Trial, snapshot: Snapshot) -> Unknown | None:
    """Return which input of a trial was not stored. Whoever is skipped without a state would be with any state."""
    eligible = [candidate for candidate in trial.candidates if candidate.skip is None]
    if any(candidate.agent_id not in snapshot.agents for candidate in eligible):
        return Unknown.AGENT
    if trial.group_id is None or len(eligible) < 2:
        return None
    needs_clocks = project.groups[trial.group_id].strategy not in _ORDER_WITHOUT_CLOCKS
    clocks = snapshot.clocks.get(trial.group_id, {})
    return Unknown.GROUP if needs_clocks and any(one.agent_id not in clocks for one in eligible) else None
