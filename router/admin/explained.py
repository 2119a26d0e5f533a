"""A decision explained to people: the question, the rules passed, everybody considered, the answer and its outcome.

The same for the call log, from what was stored, and for a call that is only tried. Decides nothing; what it says of
rules and members comes from the functions that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flask import url_for
from sqlalchemy.orm import Session

from router.admin.i18n import _, ngettext
from router.admin.note_words import note_words
from router.admin.page import CurrentProject
from router.admin.standing import observed_by
from router.admin.told import Answer, Mask, Names, answer_of, mask_of, mask_within, outcome_of, shown_pattern
from router.core.decision import free_counts, preferred_agent
from router.core.model import Call, Candidate, Decision, Offer, Project, SkipReason, Snapshot, Trial
from router.core.rules import UNSET, Preference, explain_rules, folded_params
from router.core.strategies import VIRTUAL_STEP
from router.db import models
from router.db.configuration import Configured, Document
from router.db.records import Record
from router.db.types import to_micros
from router.db.versions import configured
from router.routing import NotRecomputableError, recompute

MOST_CANDIDATES = 100  # of a group are listed; of the others there is a count
NEAREST_RULES = 6  # are listed at once; those above them unfold


class RuleTold(NamedTuple):
    """A rule that was looked at; `why` it did not match. `url` None: it is gone."""

    name: str
    matched: bool
    why: str
    url: str | None


class CandidateTold(NamedTuple):
    """Somebody considered. `result`: offered, eligible, or the skip reason; `key`: the place in the order, in words."""

    agent: str
    login: str
    tier: int | None
    result: str
    key: str


class TrialTold(NamedTuple):
    """A group of the chain; `group` None is the preferred agent, and `why` tells whom the rule prefers. `more`:
    (result, how many) of those not listed."""

    group: str | None
    url: str | None
    strategy: str
    candidates: list[CandidateTold]
    more: list[tuple[str, int]]
    why: str = ""


class PresenceTold(NamedTuple):
    """What was known of the phones. `state` fresh, old or unknown."""

    state: str
    source: str
    age_seconds: float | None
    policy: str


class OutcomeTold(NamedTuple):
    """What became of it. `agent`: who answered, or the number that did."""

    name: str
    agent: str
    waited_seconds: float | None
    talked_seconds: float | None
    disposition: str
    inferred: bool
    answered_at: datetime | None
    ended_at: datetime | None


class ReceivedTold(NamedTuple):
    """The question as it was sent. It comes from strangers. `understood`: [(field, where it was read)]."""

    method: str
    form: str
    remote: str
    user_agent: str
    raw: str
    understood: list[tuple[str, str]]
    problems: list[str]


class Told(NamedTuple):
    """All of a decision. `id` None: a trial, nothing happened. `check`: recomputed from what was stored, is it equal?
    None where that cannot be said."""

    id: int | None
    at: datetime
    latency_seconds: float | None
    version: int
    call: Call
    params: list[tuple[str, str]]  # but for those that say who calls whom
    received: ReceivedTold | None
    rules_above: list[RuleTold]
    rules: list[RuleTold]
    trials: list[TrialTold]
    presence: PresenceTold
    answer: Answer
    of: str
    cause: str
    degraded: str
    outcome: OutcomeTold | None
    check: bool | None
    is_config_kept: bool


class Considered(NamedTuple):
    """What a decision was made by, and what it said."""

    configured: Configured | None  # None: that version is no longer kept
    call: Call
    snapshot: Snapshot | None  # None: what it was made by cannot be read any more
    rule_id: int | None
    trials: Sequence[Trial]


# ---- from the log


def explain_stored(session: Session, project: CurrentProject, row: models.Decision, record: Record) -> Told:
    """A decision of the log, with its record."""
    mask = mask_of(project)
    names = Names(session, project)
    found = configured(session, project.id, row.config_version)
    try:
        again = recompute(session, row.id)
    except NotRecomputableError:
        again = None
    considered = Considered(
        found, call_of(row, record), again.snapshot if again else None, row.rule_id, _trials_of(record["trials"])
    )
    of, cause = record.get("answer") or ("", "")
    rules = _rules(considered, names, row.config_version)
    call = _masked_call(considered.call, mask)
    return Told(
        id=row.id,
        at=row.asked_at,
        latency_seconds=row.latency_us / 1_000_000,
        version=row.config_version,
        call=call,
        params=_params(call, record.get("received")),
        received=_received(record.get("received"), considered.call.caller, mask),
        rules_above=rules[:-NEAREST_RULES],
        rules=rules[-NEAREST_RULES:],
        trials=_trials_told(considered, names, row.config_version, row.agent_id),
        presence=_presence(considered),
        answer=answer_of(row, names),
        of=of,
        cause=cause,
        degraded=degraded_words(row.degraded),
        outcome=_outcome(row, names),
        check=again.is_same if again else None,
        is_config_kept=found is not None,
    )


def call_of(row: models.Decision, record: Record) -> Call:
    """The question as it was understood."""
    asked = record["call"]
    return Call(row.call_id, asked["step"], asked["caller"], asked["dialed"], asked["direction"], asked["params"])


def _masked_call(call: Call, mask: Mask) -> Call:
    if mask(call.caller) == call.caller:
        return call
    params = {name: mask_within(value, call.caller) for name, value in call.params.items()}
    return Call(call.call_id, call.step, mask(call.caller), call.dialed, call.direction, params)


def _params(call: Call, received: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    places = ((received or {}).get("understood") or {}).values()
    named = {str(place).partition(" ")[2] for place in places}  # "body userfield"
    return [(name, value) for name, value in call.params.items() if name not in named]


def _trials_of(stored: Sequence[Any]) -> list[Trial]:
    """See routing.trials_as_json."""
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


def _outcome(row: models.Decision, names: Names) -> OutcomeTold | None:
    name = outcome_of(row)
    if not name:
        return None
    answered = names.of("agents", row.answered_agent_id, row.config_version) or row.answered_login
    return OutcomeTold(
        name,
        answered,
        row.waited_seconds,
        row.talked_seconds,
        row.disposition,
        row.inferred,
        row.answered_at,
        row.ended_at,
    )


def _received(stored: Mapping[str, Any] | None, caller: str, mask: Mask) -> ReceivedTold | None:
    if not stored:
        return None
    lines = [
        f"{stored.get('method', '')} ?{stored.get('query', '')}" if stored.get("query") else stored.get("method", "")
    ]
    lines += [f"{name}: {value}" for name, value in (stored.get("headers") or {}).items()]
    if stored.get("content_type") and "headers" not in stored:
        lines.append(f"Content-Type: {stored['content_type']}")
    if stored.get("body"):
        lines += ["", stored["body"]]
    raw = "\n".join(str(line) for line in lines)
    understood = stored.get("understood") or {}
    return ReceivedTold(
        method=str(stored.get("method", "")),
        form=str(stored.get("form", "")),
        remote=str(stored.get("remote") or ""),
        user_agent=str(stored.get("user_agent", "")),
        raw=raw if mask(caller) == caller else mask_within(raw, caller),
        understood=sorted((str(name), str(place)) for name, place in understood.items()),
        problems=[note_words(str(problem)) for problem in stored.get("problems") or ()],
    )


_DEGRADED: Mapping[str, Callable[[], str]] = {
    "RoutingError": lambda: _("There was no decision in time."),
    "DatabaseBusyError": lambda: _("The database was locked for too long."),
    "TimeoutError": lambda: _("The database did not answer in time."),
    "OperationalError": lambda: _("The database could not be reached."),
}


def degraded_words(stored: str) -> str:
    """Why an answer was made without the database; "" where it was not."""
    if not stored:
        return ""
    found = _DEGRADED.get(stored)
    return found() if found else _("The database failed (%(error)s).", error=stored)


# ---- a trial


def explain_trial(
    session: Session,
    project: CurrentProject,
    found: Configured,
    call: Call,
    snapshot: Snapshot,
    decision: Decision,
) -> Told:
    """A call that is only tried."""
    names = Names(session, project)
    version = found.project.version
    considered = Considered(found, call, snapshot, decision.rule_id, decision.trials)
    answer = decision.answer
    offer = answer if isinstance(answer, Offer) else None
    rules = _rules(considered, names, version)
    return Told(
        id=None,
        at=snapshot.now,
        latency_seconds=None,
        version=version,
        call=call,
        params=list(call.params.items()),
        received=None,
        rules_above=rules[:-NEAREST_RULES],
        rules=rules[-NEAREST_RULES:],
        trials=_trials_told(considered, names, version, offer.agent_id if offer else None),
        presence=_presence(considered),
        answer=Answer(
            "agent" if offer else "overflow" if answer.destination else "empty",
            names.of("agents", offer.agent_id, version) if offer else "",
            offer.sip_login if offer else "",
            answer.destination,
        ),
        of="" if isinstance(answer, Offer) else answer.of.value,
        cause="" if isinstance(answer, Offer) else answer.cause.value,
        degraded="",
        outcome=None,
        check=None,
        is_config_kept=True,
    )


# ---- rules


def _rules(considered: Considered, names: Names, version: int) -> list[RuleTold]:
    """Each rule up to the one that matched; only that one where what they were asked about is not known any more."""

    def url(rule_id: int) -> str | None:
        return url_for("admin.rule", id=rule_id) if names.is_there("rules", rule_id) else None

    if considered.configured is None or considered.snapshot is None:
        rule_id = considered.rule_id
        if rule_id is None:
            return []
        return [RuleTold(names.of("rules", rule_id, version), True, "", url(rule_id))]
    document, project, _fault = considered.configured
    snapshot = considered.snapshot
    words = {row["id"]: row for row in document["rules"]}
    told = []
    for rule, kind in explain_rules(project.rules, considered.call, snapshot.now, free_counts(project, snapshot)):
        why = _Why(words[rule.id], considered, document) if kind else None
        told.append(
            RuleTold(rule.name, not kind, why.told(kind) if why else _match_words(words[rule.id]), url(rule.id))
        )
    return told


def _match_words(rule: Mapping[str, Any]) -> str:
    has_conditions = rule["when"] or rule["inside"] or rule["outside"] or rule["free_group"]
    return "" if has_conditions else _("It has no conditions: every call matches.")


class _Why:
    """Why one rule did not match this call."""

    def __init__(self, rule: Mapping[str, Any], considered: Considered, document: Document) -> None:
        self._rule, self._considered, self._document = rule, considered, document
        self._call = considered.call

    def told(self, kind: str) -> str:
        """`kind` as core.rules.mismatch names it."""
        kind, _dot, name = kind.partition(".")
        told: str = getattr(self, f"_{kind}")(name) if name else getattr(self, f"_{kind}")()
        return told

    def _values(self, kind: str) -> str:
        words = self._rule["when"].get(kind, ())
        return ", ".join(words if kind == "direction" else map(shown_pattern, words))

    def _name(self, kind: str, row_id: int) -> str:
        return next((row["name"] for row in self._document[kind] if row["id"] == row_id), f"#{row_id}")

    def _disabled(self) -> str:
        return _("it is turned off")

    def _caller(self) -> str:
        if not self._call.caller:
            return _("the caller hides the number; wanted: %(values)s", values=self._values("caller"))
        return _("the caller is not %(values)s", values=self._values("caller"))

    def _not_caller(self) -> str:
        return _("the caller is excluded: %(values)s", values=self._values("not_caller"))

    def _dialed(self) -> str:
        number = shown_pattern(self._call.dialed) or _("nothing")
        return _("dialed is %(number)s, not %(values)s", number=number, values=self._values("dialed"))

    def _not_dialed(self) -> str:
        return _("the dialed number is excluded: %(values)s", values=self._values("not_dialed"))

    def _direction(self) -> str:
        return _("the direction is %(direction)s, not %(values)s",
                 direction=self._call.direction or _("not given"), values=self._values("direction"))  # fmt: skip

    def _params(self, name: str) -> str:
        wanted = _by_folded(self._rule["when"].get("params", {}), name)
        sent = folded_params(self._call.params).get(name)
        values = ", ".join(wanted[1])
        if sent is None:
            return _("%(name)s was not sent; wanted: %(values)s", name=wanted[0], values=values)
        if not sent:
            return _("%(name)s is empty; wanted: %(values)s", name=wanted[0], values=values)
        return _("%(name)s is “%(sent)s”, not %(values)s", name=wanted[0], sent=sent[:80], values=values)

    def _not_params(self, name: str) -> str:
        sent = folded_params(self._call.params).get(name, "")
        return _("%(name)s “%(sent)s” is excluded", name=name, sent=sent[:80])

    def _schedule(self) -> str:
        return _("it is closed by “%(schedule)s”", schedule=self._name("schedules", self._rule["inside"]))

    def _outside(self) -> str:
        return _("it is open by “%(schedule)s”", schedule=self._name("schedules", self._rule["outside"]))

    def _free(self) -> str:
        snapshot, found = self._considered.snapshot, self._considered.configured
        group_id = self._rule["free_group"]
        free = free_counts(found.project, snapshot)(group_id) if found and snapshot else 0
        return ngettext(
            "%(num)s member of %(group)s is free, not fewer than %(limit)s",
            "%(num)s members of %(group)s are free, not fewer than %(limit)s",
            free,
            group=self._name("groups", group_id),
            limit=self._rule["free_fewer_than"],
        )


def _by_folded(params: Mapping[str, Sequence[str]], folded: str) -> tuple[str, Sequence[str]]:
    return next(((name, values) for name, values in params.items() if name.casefold() == folded), (folded, ()))


# ---- candidates


def _trials_told(considered: Considered, names: Names, version: int, offered: int | None) -> list[TrialTold]:
    told = []
    last = len(considered.trials) - 1
    for place, trial in enumerate(considered.trials):
        won = offered if place == last else None
        group_id = trial.group_id
        candidates = [
            _candidate(considered, trial, candidate, names, version, won)
            for candidate in trial.candidates[:MOST_CANDIDATES]
        ]
        rest = Counter(str(candidate.skip or "eligible") for candidate in trial.candidates[MOST_CANDIDATES:])
        told.append(
            TrialTold(
                group=None if group_id is None else names.of("groups", group_id, version),
                url=url_for("admin.group", id=group_id) if names.is_there("groups", group_id) else None,
                strategy=_strategy(considered, group_id),
                candidates=candidates,
                more=rest.most_common(),
                why="" if group_id is not None else _preference(considered, trial, names, version),
            )
        )
    return told


def _preference(considered: Considered, trial: Trial, names: Names, version: int) -> str:
    """Whom the rule prefers and how that is known; "" where it is not known any more."""
    snapshot, found = considered.snapshot, considered.configured
    rule = next((r for r in found.project.rules if r.id == considered.rule_id), None) if found else None
    if snapshot is None or found is None or rule is None or rule.prefer is None:
        return ""
    agent = preferred_agent(found.project, rule, considered.call, snapshot.last_talk, snapshot.now)
    if agent is None:
        return _no_preference(rule.prefer, considered.call, snapshot)
    if rule.prefer.last_agent and snapshot.last_talk is not None:
        ago = _span((snapshot.now - snapshot.last_talk.at).total_seconds())
        why = _("%(agent)s talked with this caller %(time)s ago.", agent=agent.name, time=ago)
        if snapshot.last_talk.logged:
            why += " " + _("So says the platform’s call log.")
    else:
        why = _("%(name)s names %(agent)s.", name=rule.prefer.param, agent=agent.name)
    if trial.candidates and trial.candidates[0].agent_id != agent.id:
        deputy = names.of("agents", trial.candidates[0].agent_id, version)
        why += " " + _("%(agent)s is away; %(deputy)s stands in.", agent=agent.name, deputy=deputy)
    return why


def _no_preference(prefer: Preference, call: Call, snapshot: Snapshot) -> str:
    if not prefer.last_agent:
        sent = folded_params(call.params).get(prefer.param.casefold(), "")
        if not sent.strip() or sent in UNSET:
            return _("%(name)s was not sent or is empty.", name=prefer.param)
        return _("%(name)s is “%(sent)s”, which names no agent.", name=prefer.param, sent=sent[:80])
    if not call.caller:
        return _("The caller hides the number.")
    return ngettext(
        "No agent whom the project still has talked with this caller within %(num)s day.",
        "No agent whom the project still has talked with this caller within %(num)s days.",
        prefer.within.days,
    )


def _strategy(considered: Considered, group_id: int | None) -> str:
    if considered.configured is None or group_id is None:
        return ""
    group = considered.configured.project.groups.get(group_id)
    return group.strategy if group else ""


def _candidate(
    considered: Considered, trial: Trial, candidate: Candidate, names: Names, version: int, won: int | None
) -> CandidateTold:
    agent = names.of("agents", candidate.agent_id, version)
    if candidate.skip is not None:
        return CandidateTold(
            agent, candidate.sip_login, None, candidate.skip.value, _skip_detail(considered, candidate)
        )
    result = "offered" if candidate.agent_id == won and candidate == trial.candidates[0] else "eligible"
    tier = int(candidate.key[0]) if candidate.key else None
    words = _key_words(considered, trial, candidate) if trial.group_id is not None else ""
    return CandidateTold(agent, candidate.sip_login, tier, result, words)


def _skip_detail(considered: Considered, candidate: Candidate) -> str:
    """What more there is to say about a skip reason."""
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
    """The sort key that the strategy gave, in words; "" where the group of then is not known."""
    words = _KEYS.get(_strategy(considered, trial.group_id))
    if words is None or considered.snapshot is None or considered.configured is None:
        return ""
    return words(_Key(considered.snapshot, considered.configured.project, trial, candidate))


class _Key(NamedTuple):
    """A candidate's key: (tier, what the strategy gave …, position, login)."""

    snapshot: Snapshot
    project: Project
    trial: Trial
    candidate: Candidate

    def number(self, place: int) -> int:
        value = self.candidate.key[place]
        return value if isinstance(value, int) else 0

    def offered(self, last_offered: int) -> str:
        if not last_offered:
            return _("never offered a call")
        clocks = self.snapshot.clocks.get(self.trial.group_id or 0, {})
        ago = 1 + max((clock.last_offered for clock in clocks.values()), default=last_offered) - last_offered
        return ngettext("last offered %(num)s call ago", "last offered %(num)s calls ago", max(1, ago))


def _priority(key: _Key) -> str:
    return _("number %(n)s on the list", n=key.number(-2) + 1)


def _round_robin(key: _Key) -> str:
    return key.offered(key.number(1))


def _longest_idle(key: _Key) -> str:
    since = key.number(1)
    if not since:
        return _("no talk yet")
    return _("free for %(time)s", time=_duration((to_micros(key.snapshot.now) - since) / 1_000_000))


def _fewest_calls(key: _Key) -> str:
    counted = key.number(1)
    state = key.snapshot.agents.get(key.candidate.agent_id)
    answered = state.answered_today if state else 0
    told = ngettext("%(num)s call answered today", "%(num)s calls answered today", answered)
    if counted != answered:
        told += ", " + _("counted as %(n)s, lest a newcomer gets a streak", n=counted)
    return told


def _weighted(key: _Key) -> str:
    first = next(c for c in key.trial.candidates if c.key and c.key[0] == key.candidate.key[0])
    members = key.project.groups[key.trial.group_id or 0].members
    weight = next((m.weight for m in members if m.agent_id == key.candidate.agent_id), 1)
    ahead = (key.number(1) - int(first.key[1])) * weight / VIRTUAL_STEP
    if ahead < 0.05:
        return _("furthest behind its share (weight %(weight)s)", weight=weight)
    return _("%(n)s calls ahead of that (weight %(weight)s)", n=f"{ahead:.1f}", weight=weight)


def _random(_key: _Key) -> str:
    return _("by a draw from the call id")


_KEYS: Mapping[str, Callable[[_Key], str]] = {
    "round_robin": _round_robin,
    "priority": _priority,
    "longest_idle": _longest_idle,
    "fewest_calls": _fewest_calls,
    "weighted": _weighted,
    "random": _random,
}


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


def _presence(considered: Considered) -> PresenceTold:
    snapshot, found = considered.snapshot, considered.configured
    if snapshot is None or found is None:
        return PresenceTold("unknown", "Ringostat", None, "")
    age = snapshot.presence.age
    basis = observed_by(found.project, snapshot).basis
    policy = {
        "last_known": _("too old, so the last known counted"),
        "assume_online": _("too old, so every login was taken to be online"),
        "unknown": _("too old to offer anybody a call"),
    }.get(basis, "")
    state = {"fresh": "fresh", "unknown": "unknown"}.get(basis, "old")
    return PresenceTold(state, "Ringostat", None if age is None else age.total_seconds(), policy)
