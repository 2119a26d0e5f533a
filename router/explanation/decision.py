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

from router.core.decision import free_count, preferred_agent
from router.core.eligibility import observe, skip_details
from router.core.model import (
    AgentState,
    Call,
    Candidate,
    Cause,
    Decision,
    Group,
    Member,
    Offer,
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


class Answer(NamedTuple):
    """Where a call went: `kind` agent, overflow or empty."""

    kind: str
    agent: str
    login: str
    destination: str

    @classmethod
    def of(cls, agent_id: int | None, agent: str, login: str, destination: str) -> Answer:
        if agent_id is not None:
            return cls("agent", agent, login, destination)
        return cls("overflow" if destination else "empty", "", "", destination)


def presence_state(basis: str) -> str:
    """Return the state of presence, from the basis of core.eligibility.Observed: fresh, old or unknown."""
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
    presence: str  # the basis of core.eligibility.Observed, "chosen" on a trial, "" if not known any more
    presence_age_seconds: float | None
    config_version: int
    at: datetime  # in the project's zone
    time_zone: str

    @property
    def answer(self) -> Answer:
        return Answer.of(self.agent_id, self.agent, self.sip_login, self.destination)

    @property
    def summary(self) -> Message | None:
        """Return in a sentence why the call went there, None if nothing is known of it."""
        if self.agent_id is None:
            return Message(Cause(self.cause or Cause.NOBODY_FREE))
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
        return Message(_PRESENCE[self.presence]) if self.presence in _PRESENCE else None

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


_FIRST = Text("first_in_line", N_("First in line of %(group)s (%(strategy)s)."))
_FIRST_THEN = Text("first_in_line_then", N_("First in line of %(group)s."))  # whose strategy is not known any more
_PREFERRED = Text("preferred", N_("The preferred agent was free."))

_PRESENCE: Mapping[str, Text] = {
    "last_known": Text("last_known", N_("too old, so the last known counted")),
    "assume_online": Text("assume_online", N_("too old, so every login was taken to be online")),
    "unknown": Text("unknown", N_("too old to offer anybody a call")),
    "chosen": Text("chosen", N_("as you chose")),
}


class Decided(NamedTuple):
    """A decision with what it was made by. Of an old one `configured` and `snapshot` may not be known any more."""

    at: datetime
    version: int
    call: Call
    rule_id: int | None
    trials: Sequence[Trial]
    agent_id: int | None
    sip_login: str
    destination: str
    overflow: tuple[str, str]  # whose, and why; "" for an offer
    configured: Configured | None
    snapshot: Snapshot | None

    @classmethod
    def now(cls, configured: Configured, call: Call, snapshot: Snapshot, decision: Decision) -> Decided:
        """Return what core.decide decided about these."""
        answer = decision.answer
        agent_id, login, overflow = (
            (answer.agent_id, answer.sip_login, ("", ""))
            if isinstance(answer, Offer)
            else (None, "", (answer.of.value, answer.cause.value))
        )
        made = (decision.rule_id, decision.trials, agent_id, login, answer.destination, overflow)
        return cls(snapshot.now, configured.project.version, call, *made, configured, snapshot)

    def name(self, kind: str, row_id: int | None) -> str:
        """Return a name of the configuration by which it was decided, "" for None."""
        known: Mapping[int, Any] = getattr(self.configured.project, kind) if self.configured else {}
        return "" if row_id is None else known[row_id].name if row_id in known else f"#{row_id}"


def explain(
    decided: Decided, name: NameOf | None = None, *, hide: Callable[[str], str] = str, most: int | None = None
) -> Explanation:
    """Explain a decision. `hide`: masks what the caller sent. `most`: how many candidates of a group are listed.

    `name`: names of today instead of then.
    """
    name = name or decided.name
    snapshot, found = decided.snapshot, decided.configured
    age = snapshot.presence.age if snapshot else None
    time_zone = found.project.time_zone if found else "UTC"
    return Explanation(
        destination=decided.destination,
        result="overflow" if decided.agent_id is None else "offer",
        agent_id=decided.agent_id,
        agent=name("agents", decided.agent_id),
        sip_login=decided.sip_login,
        overflow_of=decided.overflow[0],
        cause=decided.overflow[1],
        rules=tuple(_explain_rules(decided, name, hide)),
        trials=tuple(_explain_trial(decided, trial, name, hide, most) for trial in decided.trials),
        presence=observe(found.project, snapshot.presence).basis if snapshot and found else "",
        presence_age_seconds=None if age is None else age.total_seconds(),
        config_version=decided.version,
        at=decided.at.astimezone(ZoneInfo(time_zone)),
        time_zone=time_zone,
    )


def explain_call(session: Session, project: Project, call: Call, snapshot: Snapshot, decision: Decision) -> Explanation:
    """Explain what core.decide returned for the other arguments."""
    found = configured(session, project.id, project.version)
    if found is None:
        raise LookupError(f"version {project.version} of project {project.id} is not published")
    return explain(Decided.now(found, call, snapshot, decision))


# ---- rules

_DISABLED = Text("disabled", N_("it is turned off"))
_UNCONDITIONAL = Text("unconditional", N_("It has no conditions: every call matches."))


def _explain_rules(decided: Decided, name: NameOf, hide: Callable[[str], str]) -> list[ExplainedRule]:
    if decided.configured is None or decided.snapshot is None:
        rule_id = decided.rule_id
        return [] if rule_id is None else [ExplainedRule(rule_id, name("rules", rule_id), "", ())]
    document, project, _fault = decided.configured
    rows = {row["id"]: row for row in document["rules"]}
    names = {kind: {row["id"]: row["name"] for row in document[kind]} for kind in ("schedules", "groups")}
    free = partial(free_count, project, decided.snapshot)
    explained = []
    for rule, why_not in explain_rules(project.rules, decided.call, decided.snapshot.now, free):
        failed = next((one for one in rule.conditions if one.key == why_not), None)
        if failed is not None:
            why = [_hidden(failed.why_not(decided.call, named_when(rows[rule.id]["when"], names), free), hide)]
        else:
            why = [Message(_DISABLED)] if why_not else [] if rule.conditions else [Message(_UNCONDITIONAL)]
        explained.append(ExplainedRule(rule.id, rule.name, why_not, tuple(why)))
    return explained


def _hidden(message: Message, hide: Callable[[str], str]) -> Message:
    """Return the message with what the caller sent masked."""
    code, values = message
    shown = {name: hide(value)[:80] for name, value in values.items() if name in ("sent", "number") and value}
    return Message(code, {**values, **shown})


# ---- candidates


def _explain_trial(
    decided: Decided, trial: Trial, name: NameOf, hide: Callable[[str], str], most: int | None
) -> ExplainedTrial:
    group = decided.configured.project.groups.get(trial.group_id or 0) if decided.configured else None
    won = decided.agent_id if trial is decided.trials[-1] else None
    details = _details_of(decided, trial, group)
    candidates = [
        ExplainedCandidate(
            one.agent_id,
            name("agents", one.agent_id),
            one.sip_login,
            one.skip.value if one.skip else "",
            one.key,
            _result(one, won if one is trial.candidates[0] else None),
            tuple(details(one)),
        )
        for one in trial.candidates[:most]
    ]
    rest = Counter(_result(one, None) for one in trial.candidates[len(candidates) :])
    return ExplainedTrial(
        trial.group_id,
        name("groups", trial.group_id),
        group.strategy if group else "",
        tuple(candidates),
        tuple(_explain_preference(decided, trial, name, hide)) if trial.group_id is None else (),
        tuple(rest.most_common()),
    )


def _result(candidate: Candidate, won: int | None) -> str:
    if candidate.skip is not None:
        return candidate.skip.value
    return "offered" if candidate.agent_id == won else "eligible"


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
_LOGGED = Text("logged", N_("The platform’s call log says so."))
_NAMED = Text("named", N_("%(name)s names %(agent)s."))
_STANDS_IN = Text("stands_in", N_("%(agent)s is away; %(deputy)s stands in."))
_NOT_NAMED = Text("not_named", N_("%(name)s was not sent or is empty."))
_NO_AGENT = Text("no_agent", N_("%(name)s is “%(sent)s”, which names no agent."))
_HIDDEN = Text("number_hidden", N_("The caller hides the number."))
_NO_TALK = Text(
    "no_talk_within",
    *NN_(
        "None of the present agents talked with this caller within %(num)s day.",
        "None of the present agents talked with this caller within %(num)s days.",
    ),
)


def _explain_preference(decided: Decided, trial: Trial, name: NameOf, hide: Callable[[str], str]) -> list[Message]:
    """Return which agent the rule prefers and why, [] where that is not known any more."""
    snapshot, found, call = decided.snapshot, decided.configured, decided.call
    rule = next((rule for rule in found.project.rules if rule.id == decided.rule_id), None) if found else None
    if snapshot is None or found is None or rule is None or rule.prefer is None:
        return []
    talk = snapshot.last_talk
    agent = preferred_agent(found.project, rule, call, talk, snapshot.now)
    if agent is None:
        return [_hidden(_no_preference(rule.prefer, call), hide)]
    if rule.prefer.last_agent and talk is not None:
        seconds = (snapshot.now - talk.at).total_seconds()
        why = [Message(_TALKED, {"agent": agent.name, "seconds": seconds}), *[Message(_LOGGED)] * talk.logged]
    else:
        why = [Message(_NAMED, {"name": rule.prefer.param, "agent": agent.name})]
    if trial.candidates and trial.candidates[0].agent_id != agent.id:
        deputy = name("agents", trial.candidates[0].agent_id)
        why.append(Message(_STANDS_IN, {"agent": agent.name, "deputy": deputy}))
    return why


def _no_preference(prefer: Preference, call: Call) -> Message:
    if not prefer.last_agent:
        sent = call.folded.get(prefer.param.casefold(), "")
        unset = not sent.strip() or sent in UNSET
        return Message(_NOT_NAMED if unset else _NO_AGENT, {"name": prefer.param, "sent": sent})
    return Message(_NO_TALK, {"num": prefer.within.days}) if call.caller else Message(_HIDDEN)
