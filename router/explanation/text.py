"""Renders an explanation as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from router.core.model import SkipReason
from router.explanation.decision import ExplainedCandidate, ExplainedTrial, Explanation
from router.explanation.words import ENGLISH


def as_text(explained: Explanation) -> str:
    """Return the explanation in English."""
    return "\n".join(_lines(explained))


def _lines(explained: Explanation) -> Iterator[str]:
    if explained.agent_id is not None:
        yield f"→ {explained.sip_login} ({explained.agent})"
    else:
        whose = f" ({ENGLISH.say(explained.overflow)})" if explained.overflow else ""
        yield f"→ {explained.destination or 'an empty answer'}{whose}"
    if explained.summary:
        yield f"  {ENGLISH.say(explained.summary)}"
    yield f"  at {explained.at.isoformat()} ({explained.time_zone})"
    age, policy = explained.presence_age_seconds, explained.presence_policy
    seen = "never seen" if age is None else f"{age:.1f} s old"
    yield f"  presence: {seen}{f', {ENGLISH.say(policy)}' if policy else ''}"
    for rule in explained.rules:
        yield f"  rule {rule.name!r}: {f'no match, {ENGLISH.join(rule.details)}' if rule.why_not else 'matches'}"
    for trial in explained.trials:
        yield from _trial_lines(trial)


def _trial_lines(trial: ExplainedTrial) -> Iterator[str]:
    if trial.group_id is None:
        yield f"  preferred agent: {ENGLISH.join(trial.details, ' ')}"
    else:
        yield f"  group {trial.group!r} ({ENGLISH.strategy(trial.strategy)})"
    for place, candidate in enumerate(trial.candidates, start=1):
        yield f"    {'– ' if candidate.skip else f'{place}.'} {_told(candidate)}"
    if not trial.candidates:
        yield "    –  nobody"


def _told(candidate: ExplainedCandidate) -> str:
    who = f"{candidate.agent} ({candidate.sip_login})" if candidate.sip_login else candidate.agent
    reason = [SkipReason(candidate.skip).words] if candidate.skip else []
    why = ", ".join([*reason, *map(ENGLISH.say, candidate.details)])
    return f"{who}: {why}" if why else who
