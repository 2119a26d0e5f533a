"""Explains a decision as a value: codes and parameters, which pages, the command line and JSON show.

Decides nothing: why rules and agents were passed over is told by the functions that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from router.core.conditions import Facts
from router.core.decision import Basis, free_count, observe, preferred_agent, skip_details
from router.core.model import (
    AgentState,
    Call,
    Candidate,
    Cause,
    Decision,
    Group,
    Member,
    Offer,
    Overflow,
    OverflowOf,
    Project,
    Snapshot,
    Trial,
)
from router.core.patterns import UNSET
from router.core.rules import Preference, explain_rules
from router.core.strategies import STRATEGIES, Turn
from router.core.words import N_, NN_, Message, Text
from router.db.documents import Configured, configured, named_when
from router.db.types import to_micros
from router.explanation.words import ENGLISH

NameOf = Callable[[str, int | None], str]
"""Returns the name of an agent, group or rule, given "agents", "groups" or "rules" and an id."""


def presence_state(basis: str) -> str:
    """Return the state of presence, given a value of Basis: fresh, old or unknown."""
    return {"fresh": "fresh", "chosen": "fresh", "last_known": "old", "assume_online": "old"}.get(basis, "unknown")


class ExplainedRule(NamedTuple):
    """A rule that was tested. `why_not`: the key of the condition that failed, or "disabled"; "" if it matched."""

    rule_id: int
    name: str
    why_not: str
    details: tuple[Message, ...]


class ExplainedCandidate(NamedTuple):
    """An agent who was considered. `result`: offered, eligible, or the skip reason. The eligible come first."""

    agent_id: int
    agent: str
    sip_login: str
    skip: str
    key: tuple[int | str, ...]
    result: str
    details: tuple[Message, ...]  # what the key says, or more about the skip reason

    @property
    def tier(self) -> int | None:
        return int(self.key[0]) if self.key else None


class ExplainedTrial(NamedTuple):
    """A group of the chain. `group_id` None: the preferred agent, and `details` say whom the rule prefers.

    `more`: (result, count) of the candidates that are not listed.
    """

    group_id: int | None
    group: str
    strategy: str
    candidates: tuple[ExplainedCandidate, ...]
    details: tuple[Message, ...]
    more: tuple[tuple[str, int], ...] = ()


class Explanation(NamedTuple):
    """A decision. `rules`: those tested, to the one that matched; only that one if it is not known any more why."""

    destination: str
    result: str  # "offer" or "overflow"
    agent_id: int | None
    agent: str
    sip_login: str
    overflow_of: str  # a value of OverflowOf, "" for an offer
    cause: str  # a value of Cause, "" for an offer
    rules: tuple[ExplainedRule, ...]
    trials: tuple[ExplainedTrial, ...]
    presence: str  # a value of Basis, "" if not known any more
    presence_age_seconds: float | None
    config_version: int
    at: datetime  # in the project's zone
    time_zone: str

    @property
    def summary(self) -> Message | None:
        """Return in a sentence why the call went there, None if nothing is known of it."""
        if self.cause:
            return Message(Cause(self.cause))
        won = next((trial for trial in self.trials for one in trial.candidates if one.result == "offered"), None)
        if won is None or won.group_id is None:
            return won and Message(_PREFERRED)
        if not won.strategy:
            return Message(_FIRST_THEN, {"group": won.group})
        return Message(_FIRST, {"group": won.group, "strategy": won.strategy})

    @property
    def overflow(self) -> Message | None:
        """Return whose overflow it is, None for an offer."""
        return Message(OverflowOf(self.overflow_of)) if self.overflow_of else None

    @property
    def presence_state(self) -> str:
        """Return "fresh", "old" or "unknown"."""
        return presence_state(self.presence)

    @property
    def presence_policy(self) -> Message | None:
        """Return what presence counted for, None if there is nothing to say."""
        return Message(Basis(self.presence)) if self.presence not in ("", Basis.FRESH) else None

    def as_json(self) -> dict[str, Any]:
        """Return plain values, nested. `why` of a trial: its details in English."""
        told: dict[str, Any] = _plain(self)
        for trial, plain in zip(self.trials, told["trials"], strict=True):
            plain["why"] = ENGLISH.join(trial.details, " ")
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.as_json()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


_FIRST = Text("first_in_line", N_("Next in %(group)s (%(strategy)s)."))
_FIRST_THEN = Text("first_in_line_then", N_("Next in %(group)s."))  # whose strategy is not known any more
_PREFERRED = Text("preferred", N_("The preferred agent was free."))


class Decided(NamedTuple):
    """A decision with what it was made by. Of an old one `configured` and `snapshot` may not be known any more.

    `named`: names of today instead of then. `hide`: masks what the caller sent. `most`: how many candidates of a group
    are listed.
    """

    at: datetime
    version: int
    call: Call
    decision: Decision
    configured: Configured | None
    snapshot: Snapshot | None
    named: NameOf | None = None
    hide: Callable[[str], str] = str
    most: int | None = None

    @property
    def offer(self) -> Offer | None:
        answer = self.decision.answer
        return answer if isinstance(answer, Offer) else None

    def name(self, kind: str, row_id: int | None) -> str:
        """Return the name of an agent or group, "" for None."""
        if row_id is None or self.named is not None:
            return self.named(kind, row_id) if self.named else ""
        known: Mapping[int, Any] = getattr(self.configured.project, kind) if self.configured else {}
        return known[row_id].name if row_id in known else f"#{row_id}"

    def hidden(self, message: Message) -> Message:
        """Return the message with what the caller sent masked."""
        text, values = message
        shown = {name: self.hide(value)[:80] for name, value in values.items() if name in ("sent", "number") and value}
        return Message(text, {**values, **shown})


def explain(decided: Decided) -> Explanation:
    """Explain a decision."""
    snapshot, found, answer, offer = decided.snapshot, decided.configured, decided.decision.answer, decided.offer
    agent_id = offer.agent_id if offer else None
    age = snapshot.presence.age if snapshot else None
    time_zone = found.project.time_zone if found else "UTC"
    return Explanation(
        destination=answer.destination,
        result=decided.decision.result,
        agent_id=agent_id,
        agent=decided.name("agents", agent_id),
        sip_login=offer.sip_login if offer else "",
        overflow_of=answer.of.value if isinstance(answer, Overflow) else "",
        cause=answer.cause.value if isinstance(answer, Overflow) else "",
        rules=tuple(_explain_rules(decided)),
        trials=tuple(_explain_trial(decided, trial) for trial in decided.decision.trials),
        presence=observe(found.project, snapshot.presence).basis.value if snapshot and found else "",
        presence_age_seconds=None if age is None else age.total_seconds(),
        config_version=decided.version,
        at=decided.at.astimezone(ZoneInfo(time_zone)),
        time_zone=time_zone,
    )


def explain_call(
    session: Session,
    project: Project,
    call: Call,
    snapshot: Snapshot,
    decision: Decision,
    draft: Configured | None = None,
) -> Explanation:
    """Explain what core.decide returned for the other arguments. `draft`: the configuration, if it is not published."""
    found = draft or configured(session, project.id, project.version)
    if found is None:
        raise LookupError(f"version {project.version} of project {project.id} is not published")
    return explain(Decided(snapshot.now, project.version, call, decision, found, snapshot))


# ---- rules

_DISABLED = Text("disabled", N_("it is turned off"))
_UNCONDITIONAL = Text("unconditional", N_("It has no conditions: every call matches."))


def _explain_rules(decided: Decided) -> list[ExplainedRule]:
    if decided.configured is None or decided.snapshot is None:
        rule_id = decided.decision.rule_id
        return [] if rule_id is None else [ExplainedRule(rule_id, decided.name("rules", rule_id), "", ())]
    document, project, _fault = decided.configured
    rows = {row["id"]: row for row in document["rules"]}
    names = {kind: {row["id"]: row["name"] for row in document[kind]} for kind in ("schedules", "groups")}
    facts = Facts(partial(free_count, project, decided.snapshot), decided.snapshot.previous_call)
    explained = []
    for rule, why_not in explain_rules(project.rules, decided.call, decided.snapshot.now, facts):
        failed = next((one for one in rule.conditions if one.key == why_not), None)
        if failed is not None:
            why = [decided.hidden(failed.why_not(decided.call, named_when(rows[rule.id]["when"], names), facts))]
        else:
            why = [Message(_DISABLED)] if why_not else [] if rule.conditions else [Message(_UNCONDITIONAL)]
        explained.append(ExplainedRule(rule.id, rule.name, why_not, tuple(why)))
    return explained


# ---- candidates


def _explain_trial(decided: Decided, trial: Trial) -> ExplainedTrial:
    group = decided.configured.project.groups.get(trial.group_id or 0) if decided.configured else None
    offer = decided.offer if trial is decided.decision.trials[-1] else None
    details = _details_of(decided, trial, group)
    candidates = [
        ExplainedCandidate(
            one.agent_id,
            decided.name("agents", one.agent_id),
            one.sip_login,
            one.skip.value if one.skip else "",
            one.key,
            _result(one, offer if one is trial.candidates[0] else None),
            tuple(details(one)),
        )
        for one in trial.candidates[: decided.most]
    ]
    rest = Counter(_result(one, None) for one in trial.candidates[len(candidates) :])
    return ExplainedTrial(
        trial.group_id,
        decided.name("groups", trial.group_id),
        group.strategy if group else "",
        tuple(candidates),
        tuple(_explain_preference(decided, trial)) if trial.group_id is None else (),
        tuple(rest.most_common()),
    )


def _result(candidate: Candidate, offer: Offer | None) -> str:
    if candidate.skip is not None:
        return candidate.skip.value
    return "offered" if offer and offer.agent_id == candidate.agent_id else "eligible"


def _details_of(decided: Decided, trial: Trial, group: Group | None) -> Callable[[Candidate], Sequence[Message]]:
    """Return the function that tells more of a candidate: what the sort key says, or of the skip reason."""
    snapshot, found = decided.snapshot, decided.configured
    if snapshot is None or found is None:
        return lambda _candidate: ()
    members = {member.agent_id: member for member in group.members} if group else {}
    clocks = snapshot.clocks.get(trial.group_id or 0, {})
    offers = max((clock.last_offered for clock in clocks.values()), default=0)
    best = {one.key[0]: one.key for one in reversed(trial.candidates) if one.key}

    def details(candidate: Candidate) -> Sequence[Message]:
        agent_id, _login, skip, key = candidate
        member, state = members.get(agent_id, Member(agent_id)), snapshot.agents.get(agent_id, AgentState())
        if skip is not None:
            agent = found.project.agents.get(agent_id)
            return skip_details(skip, agent, member, state, snapshot.now) if agent else ()
        if not key or group is None:
            return ()
        turn = Turn(key, best[key[0]], member, state, offers, to_micros(snapshot.now))
        return STRATEGIES[group.strategy].explain(turn)

    return details


# ---- the preferred agent

_TALKED = Text("talked", N_("%(agent)s talked with this caller %(seconds)s ago."))
_LOGGED = Text("logged", N_("Ringostat’s call log says so."))
_NAMED = Text("named", N_("The parameter %(name)s names %(agent)s."))
_STANDS_IN = Text("stands_in", N_("%(agent)s is away; %(deputy)s stands in."))
_NOT_NAMED = Text("not_named", N_("The parameter %(name)s was not sent or is empty."))
_NO_AGENT = Text("no_agent", N_("The parameter %(name)s is “%(sent)s”, which names no agent."))
_HIDDEN = Text("number_hidden", N_("The caller withholds the number."))
_NO_TALK = Text(
    "no_talk_within",
    *NN_(
        "None of the present agents talked with this caller within %(num)s day.",
        "None of the present agents talked with this caller within %(num)s days.",
    ),
)


def _explain_preference(decided: Decided, trial: Trial) -> list[Message]:
    """Return which agent the rule prefers and why, [] where that is not known any more."""
    snapshot, found, call = decided.snapshot, decided.configured, decided.call
    rule = next((rule for rule in found.project.rules if rule.id == decided.decision.rule_id), None) if found else None
    if snapshot is None or found is None or rule is None or rule.prefer is None:
        return []
    talk = snapshot.last_talk
    agent = preferred_agent(found.project, rule, call, talk, snapshot.now)
    if agent is None:
        return [decided.hidden(_no_preference(rule.prefer, call))]
    if rule.prefer.last_agent and talk is not None:
        seconds = (snapshot.now - talk.at).total_seconds()
        why = [Message(_TALKED, {"agent": agent.name, "seconds": seconds}), *[Message(_LOGGED)] * talk.logged]
    else:
        why = [Message(_NAMED, {"name": rule.prefer.param, "agent": agent.name})]
    if trial.candidates and trial.candidates[0].agent_id != agent.id:
        deputy = decided.name("agents", trial.candidates[0].agent_id)
        why.append(Message(_STANDS_IN, {"agent": agent.name, "deputy": deputy}))
    return why


def _no_preference(prefer: Preference, call: Call) -> Message:
    if not prefer.last_agent:
        sent = call.folded.get(prefer.param.casefold(), "")
        unset = not sent.strip() or sent in UNSET
        return Message(_NOT_NAMED if unset else _NO_AGENT, {"name": prefer.param, "sent": sent})
    return Message(_NO_TALK, {"num": prefer.within.days}) if call.caller else Message(_HIDDEN)
