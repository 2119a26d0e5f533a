"""Replay calls of the log by another configuration: the same instant, presence and states, other rules.

What a decision did not look at is taken from the decisions around it, where the log leaves no doubt, and that is told:
see reconstruction.py. The rest is counted as unknown, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from router.core.decision import LIMITS, candidates, counted_for, decide, observe, preferred_agent
from router.core.model import Candidate, Decision, Offer, Project, SkipReason, Snapshot, Trial
from router.core.rules import Rule, asks_previous_call, counted_groups, looks_back, possible_matches
from router.core.strategies import STRATEGIES
from router.core.words import N_, Worded
from router.db import models
from router.db.documents import Document, build_project
from router.db.session import Database
from router.explanation.reconstruction import (
    FAR,
    Case,
    Log,
    Looks,
    Missing,
    Waiting,
    complete,
    now_known,
    with_last_talk,
    with_previous_call,
)
from router.routing.route import NotRecomputableError, restore

LISTED = 500  # differences that a study lists
_BATCH = 200  # decisions read in one transaction
MOST_LOOKS = 5000  # decisions looked at before and after those that are replayed
_FEW = 20  # decisions read together, where few will do
_WITHOUT_TURNS = {"priority", "random"}
_SHARING = {"weighted", "fewest_calls", "least_talk_time"}  # whose order depends on all who are present
_LIMITED = {None, SkipReason.ALREADY_TRIED, *(limit.reason for limit in LIMITS)}


class Unknown(Worded):
    """Why it cannot be said what another configuration would have answered."""

    GONE = "gone", N_("what the decision was made by is no longer kept")
    GROUP = "group", N_("the state of a group’s agents at that moment is not known for sure")
    LOGIN = "login", N_("whether an agent was online is not known, because the SIP login was not configured then")
    AGENT = "agent", N_("the state of an agent at that moment is not known for sure")
    TURN = "turn", N_("an agent would be new in a group, and had no turn in it yet")
    COUNTS = "counts", N_("idle times or counts of the day were not stored then, because nothing asked for them")
    LAST_TALK = "last_talk", N_("who had last talked with the caller is not known for sure")
    PREVIOUS_CALL = "previous_call", N_("the caller’s previous call is not known")


class Answer(NamedTuple):
    """An answer: the rule that matched (None: none), and the agent who got the call (None: the destination)."""

    rule_id: int | None
    agent_id: int | None
    destination: str

    def is_as(self, other: Answer) -> bool:
        """Return whether the caller got the same answer, by whichever rule."""
        return (self.agent_id, self.destination) == (other.agent_id, other.destination)


class Difference(NamedTuple):
    """A call that would have been answered otherwise. `is_reconstructed`: by inputs that were not stored with it."""

    decision_id: int
    asked_at: datetime
    caller: str
    then: Answer
    now: Answer
    is_reconstructed: bool = False


@dataclass
class Report:
    """The sums of a replay. `rules` and `agents`: calls then and now, by id; None: no rule, or the overflow.

    `other_rule`: the same answers by another rule. `to_overflow`, `from_overflow`: calls that would go there now, and
    that went there then. `reconstructed`: those for which inputs were found out from the log. `differences`: the
    newest, at most as many as asked for.
    """

    total: int = 0
    differing: int = 0
    other_rule: int = 0
    to_overflow: int = 0
    from_overflow: int = 0
    reconstructed: int = 0
    unknown: Counter[Unknown] = field(default_factory=Counter)
    rules: tuple[Counter[int | None], Counter[int | None]] = field(default_factory=lambda: (Counter(), Counter()))
    agents: tuple[Counter[int | None], Counter[int | None]] = field(default_factory=lambda: (Counter(), Counter()))
    differences: list[Difference] = field(default_factory=list)

    def add_unknown(self, why: Unknown) -> None:
        """Count a decision of which it cannot be said."""
        self.total += 1
        self.unknown[why] += 1

    def add(self, row: models.Decision, then: Answer, now: Answer, most: int, *, is_reconstructed: bool) -> None:
        """Count a decision. `then`: with the rule of now that is the one of then."""
        self.total += 1
        self.reconstructed += is_reconstructed
        for place, answer in enumerate((then, now)):
            self.rules[place][answer.rule_id] += 1
            self.agents[place][answer.agent_id] += 1
        if then.is_as(now):
            self.other_rule += then != now
        else:
            self.differing += 1
            self.to_overflow += then.agent_id is not None and now.agent_id is None
            self.from_overflow += then.agent_id is None and now.agent_id is not None
            if len(self.differences) < most:
                found = Difference(row.id, row.asked_at, row.caller, then, now, is_reconstructed)
                self.differences.append(found)

    def as_json(self) -> dict[str, Any]:
        """Return the sums, and the differences without instants and callers: those are in the log, if anywhere."""
        return {
            "total": self.total,
            "differing": self.differing,
            "other_rule": self.other_rule,
            "to_overflow": self.to_overflow,
            "from_overflow": self.from_overflow,
            "reconstructed": self.reconstructed,
            "cannot_be_said": self.unknown.total(),
            "unknown": {why.value: count for why, count in self.unknown.most_common()},
            "rules": _side_by_side(*self.rules),
            "agents": _side_by_side(*self.agents),
            "differences": [
                [one.decision_id, list(one.then), list(one.now), one.is_reconstructed] for one in self.differences
            ],
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
    run = _Run(database, project, most, listed)
    wanted = _wanted(project.id, since, until)
    run.begin(until)
    for rows in _batches(database, wanted, most):
        for session, row in rows:
            run.replay(session, row)
        progress(run.report.total + len(run.looks.waiting))
    return run.finish()


class _Run:
    """A replay under way, from the newest call to the oldest."""

    def __init__(self, database: Database, project: Project, most: int, listed: int) -> None:
        self._database, self._project, self._listed = database, project, listed
        self.report, self.looks = Report(), Looks()
        self._log: tuple[datetime, Log] | None = None
        self._oldest: models.Decision | None = None

    def begin(self, until: datetime | None) -> None:
        """Look at what came after the calls that are replayed."""
        with self._database.reading() as session:
            now = self._database.now(session)
            if until is None or until + FAR >= now:
                self.looks.know(now, list(now_known(session, list(self._project.groups))))
        if until is not None and until < now:
            self._look(until, until + FAR, newest_first=True)

    def replay(self, session: Session, row: models.Decision) -> None:
        """Decide a call again; one that misses something waits for the calls before it."""
        self._oldest = row
        replayed = decide_again(session, self._project, row)
        if replayed is None:
            return self.report.add_unknown(Unknown.GONE)
        if replayed.missing is None or not self.looks.wait(replayed.case, replayed.missing):
            self._add(replayed)
        self._see(session, replayed.case)
        return None

    def finish(self) -> Report:
        """Return the sums, once nothing waits any more."""
        if self.looks.waiting and self._oldest is not None:
            self._look(self._oldest.asked_at - FAR, self._oldest.asked_at)
        with self._database.reading() as session:
            for one in self.looks.waiting:
                self._complete(session, one)
        self.report.differences.sort(key=lambda one: (one.asked_at, one.decision_id), reverse=True)
        return self.report

    def _look(self, since: datetime, until: datetime, *, newest_first: bool = False) -> None:
        wanted = _wanted(self._project.id, since, until)
        for rows in _batches(self._database, wanted, MOST_LOOKS):
            for session, row in rows:
                with suppress(NotRecomputableError):
                    self._see(session, Case.of(row, restore(session, row)))
            if not newest_first and not self.looks.waiting:
                return

    def _see(self, session: Session, older: Case) -> None:
        for one in self.looks.see(older):
            self._complete(session, one)

    def _complete(self, session: Session, waiting: Waiting) -> None:
        at = waiting.case.row.asked_at
        if self._log is None or at - FAR < self._log[0]:
            since = at - 4 * FAR
            self._log = since, Log(session, self._project, since, at + 2 * FAR)
        self._add(_decide(self._project, complete(waiting, self._log[1])))

    def _add(self, replayed: Replayed) -> None:
        case, now = replayed.case, replayed.answer
        if isinstance(now, Unknown):
            return self.report.add_unknown(now)
        then = Answer(_rule_now(self._project, case), case.row.agent_id, case.row.destination)
        return self.report.add(case.row, then, now, self._listed, is_reconstructed=case.is_reconstructed)


def _rule_now(project: Project, case: Case) -> int | None:
    """Return the rule that answered then: if it is gone, the one with its name, which was made again."""
    rule_id = case.row.rule_id
    if any(rule.id == rule_id for rule in project.rules):
        return rule_id
    name = next((rule.name for rule in case.then.project.rules if rule.id == rule_id), None)
    return next((rule.id for rule in project.rules if rule.name == name), rule_id)


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
    """Yield decisions with the session that read them, newest first.

    Nobody decides inside a transaction: while one reads, SQLite cannot begin its log anew, which calls write to.
    """
    decision = models.Decision
    query = select(decision).where(*wanted).order_by(decision.asked_at.desc(), decision.id.desc())
    page = query
    for place in range(0, most, _BATCH):
        with database.reading() as session:
            rows = session.scalars(page.limit(min(_BATCH, most - place))).all()
            seen = models.PresenceSnapshot.id.in_({row.snapshot_id for row in rows})
            held = session.scalars(select(models.PresenceSnapshot).where(seen)).all()  # while the session is asked
            yield _outside_of_transactions(session, rows)
            del held
            if len(rows) < _BATCH:
                return
            at, last_id = rows[-1].asked_at, rows[-1].id
        page = query.where(or_(decision.asked_at < at, and_(decision.asked_at == at, decision.id < last_id)))


def _outside_of_transactions(
    session: Session, rows: Iterable[models.Decision]
) -> Iterator[tuple[Session, models.Decision]]:
    session.commit()
    for row in rows:
        yield session, row
        session.commit()  # what deciding has read more


class Replayed(NamedTuple):
    """A stored question decided by other rules. `unknown`: the input that was not stored: the decision may be wrong.
    `missing`: what to look for in the decisions around it.
    """

    case: Case
    decision: Decision
    unknown: Unknown | None
    missing: Missing | None

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
    replayed = _decide(project, Case.of(row, then))
    if replayed.unknown is Unknown.PREVIOUS_CALL:
        with_call = with_previous_call(session, replayed.case, looks_back(project.rules))
        replayed = replayed if with_call is None else _decide(project, with_call)
    if replayed.unknown is Unknown.LAST_TALK:
        found = with_last_talk(session, project, replayed.case)
        replayed = replayed if found is None else _decide(project, found)
    return replayed


def _decide(project: Project, case: Case) -> Replayed:
    rules = possible_matches(project.index, case.then.call, case.snapshot.now)
    decision = decide(project, case.then.call, case.snapshot)
    looked_at = _looked_at(rules, decision)
    unknown = _unknown(project, case, looked_at, decision)
    missing = _missing(project, case, looked_at) if unknown is not None else None
    return Replayed(case, decision, unknown, missing)


def _looked_at(rules: list[Rule], decision: Decision) -> list[Rule]:
    """Return the rules down to the one that matched."""
    end = next((n for n, rule in enumerate(rules, start=1) if rule.id == decision.rule_id), len(rules))
    return rules[:end]


def _missing(project: Project, case: Case, looked_at: list[Rule]) -> Missing | None:
    """Return what these rules look at and was not stored, None if nothing."""
    counted = {group_id for rule in looked_at for group_id in counted_groups(rule)}
    tried = {group_id for rule in looked_at for group_id in rule.group_ids}
    agents = {member.agent_id for group_id in counted | tried for member in project.groups[group_id].members}
    for rule in looked_at:
        preferred = preferred_agent(project, rule, case.then.call, case.snapshot.last_talk, case.snapshot.now)
        agents |= {preferred.id} if preferred else set()
    agents |= {deputy for agent in agents if (deputy := project.agents[agent].deputy_id) is not None}
    missing = Missing(frozenset(agents - case.snapshot.agents.keys()), frozenset(tried - case.snapshot.clocks.keys()))
    return missing if missing.agents or missing.groups else None


def _unknown(project: Project, case: Case, looked_at: list[Rule], decision: Decision) -> Unknown | None:
    """Return which input of the decision was not stored, None if all were."""
    snapshot, call = case.snapshot, case.then.call
    asked = possible_matches(case.then.project.index, call, snapshot.now)
    was_unknown = case.row.degraded and asks_previous_call(asked)  # asked for, and not known then either
    if call.caller and asks_previous_call(looked_at) and snapshot.previous_call is None and not was_unknown:
        return Unknown.PREVIOUS_CALL
    counted = [group_id for rule in looked_at for group_id in counted_groups(rule)]
    if any(not _is_read(project, group_id, snapshot) for group_id in counted):
        return Unknown.GROUP
    seen = observe(project, snapshot.presence)
    free = [one for group_id in counted for one in candidates(project, project.groups[group_id], snapshot, seen)]
    if any(_has_new_login(project, case, one) for one in free):
        return Unknown.LOGIN
    if any(_counts_of(project, case, member.agent_id) for one in counted for member in project.groups[one].members):
        return Unknown.COUNTS
    matched = next((rule for rule in looked_at if rule.id == decision.rule_id), None)
    if matched is not None and matched.prefer is not None and matched.prefer.last_agent and call.caller:
        was_read = (
            snapshot.last_talk or case.knows_last_talk or any(one.prefer and one.prefer.last_agent for one in asked)
        )
        if not was_read:
            return Unknown.LAST_TALK
    return next(filter(None, (_unknown_of(project, trial, case) for trial in decision.trials)), None)


def _is_read(project: Project, group_id: int, snapshot: Snapshot) -> bool:
    """Return whether the states of all members of a group are known."""
    return all(member.agent_id in snapshot.agents for member in project.groups[group_id].members)


def _counts_of(project: Project, case: Case, agent_id: int) -> bool:
    """Return whether a limit of the agent asks for a count that is not told."""
    return not counted_for(project.agents[agent_id]) <= case.tells(agent_id)


def _unknown_of(project: Project, trial: Trial, case: Case) -> Unknown | None:
    """Return which input of a trial is not known. Whoever is skipped without a state would be with any state."""
    states = case.snapshot.agents
    eligible = [candidate for candidate in trial.candidates if candidate.skip is None]
    if any(_has_new_login(project, case, one) for one in _first_of(project, trial)):
        return Unknown.LOGIN
    if any(candidate.agent_id not in states for candidate in eligible):
        return Unknown.AGENT if trial.group_id is None else Unknown.GROUP
    if any(_counts_of(project, case, one.agent_id) for one in trial.candidates if one.skip in _LIMITED):
        return Unknown.COUNTS
    if trial.group_id is None or len(eligible) < 2:
        return None
    strategy = project.groups[trial.group_id].strategy
    reads = {STRATEGIES[strategy].reads} - {""}
    if strategy in _SHARING and any(one.agent_id not in states for one in trial.candidates):
        return Unknown.GROUP
    if any(not reads <= case.tells(one.agent_id) for one in trial.candidates if one.agent_id in states):
        return Unknown.COUNTS
    clocks = case.snapshot.clocks.get(trial.group_id, {})
    if strategy in _WITHOUT_TURNS or all(one.agent_id in clocks for one in eligible):
        return None
    is_new = trial.group_id not in case.then.project.groups
    return Unknown.TURN if clocks or is_new else Unknown.GROUP


def _first_of(project: Project, trial: Trial) -> Iterator[Candidate]:
    """Yield whom a trial would have offered the call, and who may go before by the order of the group."""
    first, group = trial.candidates[:1], project.groups.get(trial.group_id or 0)
    if group is None or not first or first[0].skip is not None:
        yield from trial.candidates
        return
    has_places = group.strategy == "priority"
    places = {one.agent_id: (one.tier, one.position * has_places) for one in group.members}
    last = places.get(first[0].agent_id)
    yield from (one for one in trial.candidates if not last or places.get(one.agent_id, last) <= last)


def _has_new_login(project: Project, case: Case, candidate: Candidate) -> bool:
    """Return whether the agent may have been online with a login that no configuration of then had, so that nobody can
    know. A reading shows it if it was online and called the same then.
    """
    if candidate.skip not in (None, SkipReason.OFFLINE):
        return False
    agent, then = project.agents[candidate.agent_id], case.then.project.agents
    unseen = set(takewhile(lambda login: login != candidate.sip_login, agent.sip_logins))
    unseen -= set(then[agent.id].sip_logins) if agent.id in then else set()
    return bool(unseen and unseen.difference(*(one.sip_logins for one in then.values())))


def reconstruct_alone(database: Database, session: Session, project: Project, replayed: Replayed) -> Replayed:
    """Decide one call again with what the decisions around it found, read one after the other until they suffice."""
    row, missing, decision = replayed.case.row, replayed.missing, models.Decision
    if missing is None:
        return replayed
    looks, agents, groups = Looks(), set(missing.agents), set(missing.groups)
    later: list[Case] = []
    for other in _around(session, row, decision.asked_at.between(row.asked_at, row.asked_at + FAR), 1):
        later.append(other)
        agents -= set(other.found.ids)
        groups -= other.snapshot.clocks.keys()
        if not agents and not groups:
            break
    else:
        now = database.now(session)
        if len(later) < MOST_LOOKS and row.asked_at + FAR >= now:
            looks.know(now, list(now_known(session, list(project.groups))))
    for other in reversed(later):
        looks.see(other)
    if not looks.wait(replayed.case, missing):
        return replayed
    done: list[Waiting] = []
    for other in _around(session, row, decision.asked_at.between(row.asked_at - FAR, row.asked_at), -1):
        if done := looks.see(other):
            break
    (waiting,) = done or looks.waiting
    return _decide(project, complete(waiting, Log(session, project, row.asked_at - FAR, row.asked_at + FAR)))


def _around(session: Session, row: models.Decision, when: ColumnElement[bool], way: int) -> Iterator[Case]:
    """Yield the decisions before (`way` -1) or after another one, the nearest first."""
    decision = models.Decision
    order = [column if way > 0 else column.desc() for column in (decision.asked_at, decision.id)]
    query = select(decision).where(decision.project_id == row.project_id, when, decision.id != row.id)
    for other in session.scalars(query.order_by(*order).limit(MOST_LOOKS).execution_options(yield_per=_FEW)):
        with suppress(NotRecomputableError):
            yield Case.of(other, restore(session, other))
