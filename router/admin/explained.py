"""Explain a decision to people: the request, the rules, all candidates, the answer and its outcome.

For decisions of the call log, and for a call that is only tried. Decides nothing: the explanation of rules and members
comes from the functions that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from flask import url_for
from sqlalchemy.orm import Session

from router.admin.conditions import BY_KEY
from router.admin.decision_lines import (
    Answer,
    Mask,
    Names,
    answer_of,
    mask_of,
    mask_raw,
    mask_within,
    outcome_of,
    render_request,
)
from router.admin.i18n import READER, _, lazy, ngettext
from router.admin.note_words import note_words
from router.admin.page import CurrentProject
from router.admin.standing import presence_state
from router.core.decision import free_count, preferred_agent
from router.core.eligibility import observe
from router.core.model import AgentState, Call, Candidate, Decision, Member, Offer, SkipReason, Snapshot, Trial
from router.core.patterns import UNSET
from router.core.rules import Preference, explain_rules
from router.core.strategies import STRATEGIES, Turn
from router.db import models
from router.db.configuration import Configured, when_words
from router.db.records import Record
from router.db.types import to_micros
from router.db.versions import configured
from router.routing.record import NotRecomputableError, recompute

MOST_CANDIDATES = 100  # of a group are listed; the others are counted
NEAREST_RULES = 6  # are listed at once; those above them are folded


class ExplainedRule(NamedTuple):
    """A rule that was evaluated; `why` it did not match. `url` None: it was deleted."""

    name: str
    matched: bool
    why: str
    url: str | None


class ExplainedCandidate(NamedTuple):
    """A candidate. `result`: offered, eligible, or the skip reason; `key`: the sort key or skip detail, in words."""

    agent: str
    login: str
    tier: int | None
    result: str
    key: str


class ExplainedTrial(NamedTuple):
    """A group of the chain, or with `group` None the preferred agent and `why` it is preferred.

    `more`: (result, count) of candidates not listed.
    """

    group: str | None
    url: str | None
    strategy: str
    candidates: list[ExplainedCandidate]
    more: list[tuple[str, int]]
    why: str = ""


class ExplainedPresence(NamedTuple):
    """Presence as known to a decision. `state`: fresh, old or unknown."""

    state: str
    source: str
    age_seconds: float | None
    policy: str


class Explanation(NamedTuple):
    """A decision. `id` None: it was only tried. `check`: whether recomputing it gives the same; None: not possible."""

    id: int | None
    at: datetime
    latency_seconds: float | None
    version: int
    call: Call
    params: list[tuple[str, str]]  # except those read as fields of the call
    received: Mapping[str, Any] | None
    rules_above: list[ExplainedRule]
    rules: list[ExplainedRule]
    trials: list[ExplainedTrial]
    presence: ExplainedPresence
    answer: Answer
    of: str
    cause: str
    degraded: str
    outcome: Mapping[str, Any] | None
    check: bool | None
    is_config_kept: bool


class Considered(NamedTuple):
    """The inputs of a decision and its result."""

    configured: Configured | None  # None: this version is no longer stored
    call: Call
    snapshot: Snapshot | None  # None: the inputs can no longer be read
    rule_id: int | None
    trials: Sequence[Trial]
    names: Names
    version: int

    def name(self, kind: str, row_id: int | None) -> str:
        """Return the name of an agent, group or rule."""
        return self.names.of(kind, row_id, self.version)

    def explain(self, offered: int | None) -> dict[str, Any]:
        """Return the fields of Explanation that follow from the inputs. `offered`: the agent who got the call."""
        rules = _explain_rules(self)
        return {
            "version": self.version,
            "rules_above": rules[:-NEAREST_RULES],
            "rules": rules[-NEAREST_RULES:],
            "trials": _explain_trials(self, offered),
            "presence": _explain_presence(self),
        }


# ---- from the log


def explain_stored(session: Session, project: CurrentProject, row: models.Decision, record: Record) -> Explanation:
    """Explain a decision of the log, given its record."""
    mask = mask_of(project)
    found = configured(session, project.id, row.config_version)
    try:
        again = recompute(session, row.id)
    except NotRecomputableError:
        again = None
    considered = Considered(
        found,
        call_of(row, record),
        again.snapshot if again else None,
        row.rule_id,
        _parse_trials(record["trials"]),
        Names(session, project),
        row.config_version,
    )
    of, cause = record.get("answer") or ("", "")
    call = _mask_call(considered.call, mask)
    return Explanation(
        id=row.id,
        at=row.asked_at,
        latency_seconds=row.latency_us / 1_000_000,
        call=call,
        params=_other_params(call, record.get("received")),
        received=_explain_request(record.get("received"), considered.call.caller, mask),
        answer=answer_of(row, considered.names),
        of=of,
        cause=cause,
        degraded=degraded_words(row.degraded),
        outcome=_explain_outcome(row, considered.names),
        check=again.is_same if again else None,
        is_config_kept=found is not None,
        **considered.explain(row.agent_id),
    )


def call_of(row: models.Decision, record: Record) -> Call:
    """Return the call as it was read."""
    asked = record["call"]
    return Call(row.call_id, asked["step"], asked["caller"], asked["dialed"], asked["direction"], asked["params"])


def _mask_call(call: Call, mask: Mask) -> Call:
    if mask(call.caller) == call.caller:
        return call
    params = {name: mask_within(value, call.caller) for name, value in call.params.items()}
    return Call(call.call_id, call.step, mask(call.caller), call.dialed, call.direction, params)


def _other_params(call: Call, received: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the parameters that were not read as a field of the call."""
    places = ((received or {}).get("understood") or {}).values()
    named = {str(place).partition(" ")[2] for place in places}  # "body userfield"
    return [(name, value) for name, value in call.params.items() if name not in named]


def _parse_trials(stored: Sequence[Any]) -> list[Trial]:
    """Read trials as routing.trials_as_json writes them."""
    return [
        Trial(
            group_id,
            tuple(
                Candidate(agent_id, login, SkipReason(skip) if skip else None, tuple(key))
                for agent_id, login, skip, *key in candidates
            ),
        )
        for group_id, candidates in stored
    ]


def _explain_outcome(row: models.Decision, names: Names) -> dict[str, Any] | None:
    """Return the outcome; `agent`: who answered, or the number that did."""
    name = outcome_of(row)
    if not name:
        return None
    columns = ("waited_seconds", "talked_seconds", "disposition", "inferred", "answered_at", "ended_at")
    agent = names.of("agents", row.answered_agent_id, row.config_version) or row.answered_login
    return {"name": name, "agent": agent, **{column: getattr(row, column) for column in columns}}


def _explain_request(stored: Mapping[str, Any] | None, caller: str, mask: Mask) -> dict[str, Any] | None:
    """Return the request as it was sent, by anybody. `understood`: [(field, where it was read)]."""
    if not stored:
        return None
    texts = {name: str(stored.get(name) or "") for name in ("method", "form", "remote", "user_agent")}
    return {
        **texts,
        "raw": mask_raw(render_request(stored), caller, mask),
        "understood": sorted((str(name), str(place)) for name, place in (stored.get("understood") or {}).items()),
        "problems": [note_words(str(problem)) for problem in stored.get("problems") or ()],
    }


_DEGRADED: Mapping[str, Any] = {
    "RoutingError": lazy("There was no decision in time."),
    "DatabaseBusyError": lazy("The database was locked for too long."),
    "TimeoutError": lazy("The database did not answer in time."),
    "OperationalError": lazy("The database could not be reached."),
}


def degraded_words(stored: str) -> str:
    """Return why a call was answered without the database; "" if it was answered with it."""
    if not stored:
        return ""
    return str(_DEGRADED.get(stored) or _("The database failed (%(error)s).", error=stored))


# ---- a trial


def explain_trial(
    session: Session, project: CurrentProject, found: Configured, call: Call, snapshot: Snapshot, decision: Decision
) -> Explanation:
    """Explain what would be decided for a call."""
    considered = Considered(
        found, call, snapshot, decision.rule_id, decision.trials, Names(session, project), found.project.version
    )
    answer = decision.answer
    if isinstance(answer, Offer):
        agent = considered.name("agents", answer.agent_id)
        shown = Answer("agent", agent, answer.sip_login, answer.destination)
    else:
        shown = Answer("overflow" if answer.destination else "empty", "", "", answer.destination)
    return Explanation(
        id=None,
        at=snapshot.now,
        latency_seconds=None,
        call=call,
        params=list(call.params.items()),
        received=None,
        answer=shown,
        of="" if isinstance(answer, Offer) else answer.of.value,
        cause="" if isinstance(answer, Offer) else answer.cause.value,
        degraded="",
        outcome=None,
        check=None,
        is_config_kept=True,
        **considered.explain(answer.agent_id if isinstance(answer, Offer) else None),
    )


# ---- rules


def _explain_rules(considered: Considered) -> list[ExplainedRule]:
    """Explain each rule up to the one that matched; only that one if the inputs are not known any more."""

    def url(rule_id: int) -> str | None:
        return url_for("admin.rule", id=rule_id) if considered.names.is_there("rules", rule_id) else None

    if considered.configured is None or considered.snapshot is None:
        rule_id = considered.rule_id
        return [] if rule_id is None else [ExplainedRule(considered.name("rules", rule_id), True, "", url(rule_id))]
    document, project, _fault = considered.configured
    snapshot = considered.snapshot
    rows = {row["id"]: row for row in document["rules"]}
    names = {kind: {row["id"]: row["name"] for row in document[kind]} for kind in ("schedules", "groups")}
    group_ids = {name: group_id for group_id, name in names["groups"].items()}
    free = partial(free_count, project, snapshot)
    explained = []
    for rule, reason in explain_rules(project.rules, considered.call, snapshot.now, free):
        when, why = when_words(rows[rule.id], names), ""
        if reason == "disabled":
            why = _("it is turned off")
        elif reason:
            kind = BY_KEY[reason.partition(".")[0]]
            why = kind.why_not(reason, when, considered.call, lambda name: free(group_ids[name]))
        elif not when:
            why = _("It has no conditions: every call matches.")
        explained.append(ExplainedRule(rule.name, not reason, why, url(rule.id)))
    return explained


# ---- candidates


def _explain_trials(considered: Considered, offered: int | None) -> list[ExplainedTrial]:
    explained = []
    for trial in considered.trials:
        group_id = trial.group_id
        won = offered if trial is considered.trials[-1] else None
        rest = Counter(str(candidate.skip or "eligible") for candidate in trial.candidates[MOST_CANDIDATES:])
        explained.append(
            ExplainedTrial(
                group=None if group_id is None else considered.name("groups", group_id),
                url=url_for("admin.group", id=group_id) if considered.names.is_there("groups", group_id) else None,
                strategy=_strategy(considered, group_id),
                candidates=[
                    _explain_candidate(considered, trial, candidate, won)
                    for candidate in trial.candidates[:MOST_CANDIDATES]
                ],
                more=rest.most_common(),
                why=_preference(considered, trial) if group_id is None else "",
            )
        )
    return explained


def _preference(considered: Considered, trial: Trial) -> str:
    """Return which agent the rule prefers and why; "" where that is not known any more."""
    snapshot, found = considered.snapshot, considered.configured
    rule = next((r for r in found.project.rules if r.id == considered.rule_id), None) if found else None
    if snapshot is None or found is None or rule is None or rule.prefer is None:
        return ""
    agent = preferred_agent(found.project, rule, considered.call, snapshot.last_talk, snapshot.now)
    if agent is None:
        return _no_preference(rule.prefer, considered.call)
    if rule.prefer.last_agent and snapshot.last_talk is not None:
        ago = _span((snapshot.now - snapshot.last_talk.at).total_seconds())
        why = _("%(agent)s talked with this caller %(time)s ago.", agent=agent.name, time=ago)
        if snapshot.last_talk.logged:
            why += " " + _("The platform’s call log says so.")
    else:
        why = _("%(name)s names %(agent)s.", name=rule.prefer.param, agent=agent.name)
    if trial.candidates and trial.candidates[0].agent_id != agent.id:
        deputy = considered.name("agents", trial.candidates[0].agent_id)
        why += " " + _("%(agent)s is away; %(deputy)s stands in.", agent=agent.name, deputy=deputy)
    return why


def _no_preference(prefer: Preference, call: Call) -> str:
    if not prefer.last_agent:
        sent = call.folded.get(prefer.param.casefold(), "")
        if not sent.strip() or sent in UNSET:
            return _("%(name)s was not sent or is empty.", name=prefer.param)
        return _("%(name)s is “%(sent)s”, which names no agent.", name=prefer.param, sent=sent[:80])
    if not call.caller:
        return _("The caller hides the number.")
    return ngettext(
        "None of the present agents talked with this caller within %(num)s day.",
        "None of the present agents talked with this caller within %(num)s days.",
        prefer.within.days,
    )


def _strategy(considered: Considered, group_id: int | None) -> str:
    if considered.configured is None or group_id is None:
        return ""
    group = considered.configured.project.groups.get(group_id)
    return group.strategy if group else ""


def _explain_candidate(
    considered: Considered, trial: Trial, candidate: Candidate, won: int | None
) -> ExplainedCandidate:
    agent, login = considered.name("agents", candidate.agent_id), candidate.sip_login
    if candidate.skip is not None:
        return ExplainedCandidate(agent, login, None, candidate.skip.value, _skip_detail(considered, candidate))
    result = "offered" if candidate.agent_id == won and candidate == trial.candidates[0] else "eligible"
    tier = int(candidate.key[0]) if candidate.key else None
    return ExplainedCandidate(agent, login, tier, result, _key_words(considered, trial, candidate))


def _skip_detail(considered: Considered, candidate: Candidate) -> str:
    """Return details of a skip reason: until when, of how many."""
    snapshot, found = considered.snapshot, considered.configured
    if snapshot is None or found is None:
        return ""
    state = snapshot.agents.get(candidate.agent_id)
    agent = found.project.agents.get(candidate.agent_id)
    if state is None or agent is None:
        return ""
    until = {
        SkipReason.RESERVED: state.reserved_until,
        SkipReason.WRAP_UP: state.wrap_up_until,
        SkipReason.COOLING_DOWN: state.cooling_until,
        SkipReason.PAUSED: None if agent.paused else state.paused_until,
    }.get(candidate.skip) if candidate.skip else None  # fmt: skip
    if until is not None:
        return _("for another %(time)s", time=_duration((until - snapshot.now).total_seconds()))
    if candidate.skip is SkipReason.AT_CAP:
        return _("%(n)s of %(cap)s answered today", n=state.answered_today, cap=agent.daily_cap)
    if candidate.skip is SkipReason.OFF_HOURS and agent.hours is not None:
        return f"“{agent.hours.name}”"
    return ""


def _key_words(considered: Considered, trial: Trial, candidate: Candidate) -> str:
    """Return the strategy's sort key in words; "" for a preferred agent, or where the group is not known any more."""
    strategy = STRATEGIES.get(_strategy(considered, trial.group_id))
    snapshot, found = considered.snapshot, considered.configured
    if strategy is None or snapshot is None or found is None or not candidate.key:
        return ""
    group_id = trial.group_id or 0
    members = {member.agent_id: member for member in found.project.groups[group_id].members}
    clocks = snapshot.clocks.get(group_id, {})
    turn = Turn(
        key=candidate.key,
        best=next(one.key for one in trial.candidates if one.key and one.key[0] == candidate.key[0]),
        member=members.get(candidate.agent_id, Member(candidate.agent_id)),
        state=snapshot.agents.get(candidate.agent_id, AgentState()),
        offers=max((clock.last_offered for clock in clocks.values()), default=0),
        now=to_micros(snapshot.now),
    )
    return READER.join(strategy.explain(turn))


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 60:
        return _("%(n)s s", n=seconds)
    if seconds < 3600:
        return _("%(m)s min %(s)s s", m=seconds // 60, s=seconds % 60)
    return _("%(h)s h %(m)s min", h=seconds // 3600, m=seconds % 3600 // 60)


def _span(seconds: float) -> str:
    days = int(seconds // 86_400)
    return ngettext("%(num)s day", "%(num)s days", days) if days else _duration(seconds)


# ---- presence


def _explain_presence(considered: Considered) -> ExplainedPresence:
    snapshot, found = considered.snapshot, considered.configured
    if snapshot is None or found is None:
        return ExplainedPresence("unknown", "Ringostat", None, "")
    age = snapshot.presence.age
    basis = observe(found.project, snapshot.presence).basis
    policy = {
        "last_known": _("too old, so the last known counted"),
        "assume_online": _("too old, so every login was taken to be online"),
        "unknown": _("too old to offer anybody a call"),
    }.get(basis, "")
    seconds = None if age is None else age.total_seconds()
    return ExplainedPresence(presence_state(basis), "Ringostat", seconds, policy)
