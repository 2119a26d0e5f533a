"""Explain a decision in words, for the command line, the try-out page and the call log. Decides nothing."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from router.core.decision import free_count, preferred_agent
from router.core.model import Call, Cause, Decision, Offer, OverflowOf, Project, SkipReason, Snapshot, Trial
from router.core.rules import explain_rules


class ExplainedRule(NamedTuple):
    """One rule that was tested. `why_not`: the condition that failed, "" for the rule that matched."""

    rule_id: int
    name: str
    why_not: str


class ExplainedCandidate(NamedTuple):
    """One agent who was considered. `skip` is "" for the eligible, who come first, in the strategy's order."""

    agent_id: int
    agent: str
    sip_login: str
    skip: str
    key: tuple[int | str, ...]


class ExplainedTrial(NamedTuple):
    """One group of the chain. `group` "" is the preferred agent, and `why` says whom the rule prefers."""

    group_id: int | None
    group: str
    strategy: str
    candidates: tuple[ExplainedCandidate, ...]
    why: str = ""


class Explanation(NamedTuple):
    """A decision, with the names of its agents, groups and rules."""

    destination: str
    result: str  # "offer" or "overflow"
    agent: str
    sip_login: str
    overflow_of: str  # "rule", "group" or "project"; "" for an offer
    cause: str
    rules: tuple[ExplainedRule, ...]
    trials: tuple[ExplainedTrial, ...]
    presence_age_seconds: float | None
    config_version: int
    at: str  # ISO 8601 with the offset of the project's zone
    time_zone: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values, nested."""
        return self._asdict() | {
            "rules": [rule._asdict() for rule in self.rules],
            "trials": [
                trial._asdict() | {"candidates": [candidate._asdict() for candidate in trial.candidates]}
                for trial in self.trials
            ],
        }


def explain(project: Project, call: Call, snapshot: Snapshot, decision: Decision) -> Explanation:
    """Explain a decision. `decision` is what core.decide returned for the other arguments."""
    answer = decision.answer
    offer = answer if isinstance(answer, Offer) else None
    age, free = snapshot.presence.age, partial(free_count, project, snapshot)
    return Explanation(
        destination=answer.destination,
        result=decision.result,
        agent=project.agents[offer.agent_id].name if offer else "",
        sip_login=offer.sip_login if offer else "",
        overflow_of="" if isinstance(answer, Offer) else answer.of,
        cause="" if isinstance(answer, Offer) else answer.cause,
        rules=tuple(
            ExplainedRule(rule.id, rule.name, why_not)
            for rule, why_not in explain_rules(project.rules, call, snapshot.now, free)
        ),
        trials=tuple(_trial(project, call, snapshot, decision.rule_id, trial) for trial in decision.trials),
        presence_age_seconds=None if age is None else age.total_seconds(),
        config_version=project.version,
        at=snapshot.now.astimezone(ZoneInfo(project.time_zone)).isoformat(),
        time_zone=project.time_zone,
    )


def _trial(project: Project, call: Call, snapshot: Snapshot, rule_id: int | None, trial: Trial) -> ExplainedTrial:
    group = project.groups.get(trial.group_id or 0)
    return ExplainedTrial(
        trial.group_id,
        group.name if group else "",
        group.strategy if group else "",
        tuple(
            ExplainedCandidate(c.agent_id, project.agents[c.agent_id].name, c.sip_login, c.skip or "", c.key)
            for c in trial.candidates
        ),
        "" if group else _preference(project, call, snapshot, rule_id, trial),
    )


def _preference(project: Project, call: Call, snapshot: Snapshot, rule_id: int | None, trial: Trial) -> str:
    rule = next(rule for rule in project.rules if rule.id == rule_id)
    prefer, talk = rule.prefer, snapshot.last_talk
    if prefer is None:
        return ""
    agent = preferred_agent(project, rule, call, talk, snapshot.now)
    if not prefer.last_agent:
        sent = call.folded.get(prefer.param.casefold(), "")
        why = f"{prefer.param} is {sent!r}"
    elif talk is None or agent is None:
        why = f"no agent whom the project still has talked with this caller within {prefer.within.days} days"
    else:
        why = f"talked with this caller on {talk.at:%Y-%m-%d %H:%M} UTC"
    if agent is None:
        return why if prefer.last_agent else f"{why}, which names no agent"
    stands_in = bool(trial.candidates) and trial.candidates[0].agent_id != agent.id
    return f"{agent.name}, {why}{'; away, so the deputy' if stands_in else ''}"


def as_text(explained: Explanation) -> str:
    """Return the explanation as lines for a terminal."""
    lines = []
    if explained.result == "offer":
        lines.append(f"→ {explained.sip_login} ({explained.agent})")
    else:
        lines.append(
            f"→ {explained.destination or 'an empty answer'}: {OverflowOf(explained.overflow_of).words}."
            f" {Cause(explained.cause).words}"
        )
    lines.append(f"  at {explained.at} ({explained.time_zone})")
    age = explained.presence_age_seconds
    lines.append(f"  presence: {'never seen' if age is None else f'{age:.1f} s old'}")
    lines += [
        f"  rule {rule.name!r}: {'no match, ' + rule.why_not if rule.why_not else 'matches'}"
        for rule in explained.rules
    ]
    for trial in explained.trials:
        lines.append(
            f"  group {trial.group!r} ({trial.strategy})" if trial.group else f"  preferred agent: {trial.why}"
        )
        for place, candidate in enumerate(trial.candidates, start=1):
            login = f" ({candidate.sip_login})" if candidate.sip_login else ""
            if candidate.skip:
                lines.append(f"    –  {candidate.agent}{login}: {SkipReason(candidate.skip).words}")
            else:
                lines.append(f"    {place}. {candidate.agent}{login}")
        if not trial.candidates:
            lines.append("    –  nobody")
    return "\n".join(lines)
