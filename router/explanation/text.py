"""Renders an explanation as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo

from router.core.model import SkipReason
from router.explanation.decision import ExplainedCandidate, ExplainedTrial, Explanation
from router.explanation.replay import Answer, Report
from router.explanation.words import ENGLISH
from router.numbers import mask_number


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


# ---- a replay

_Names = Mapping[str, Mapping[int, str]]


def replay_lines(report: Report, names: _Names, zone: ZoneInfo, *, masks: bool) -> Iterator[str]:
    """Yield the lines of a replay. `names`: of rules and agents, by kind and id. `masks`: hides callers' numbers."""
    unknown = report.unknown.total()
    same = report.total - report.differing - unknown
    yield f"{report.total:,} answers: {same:,} as before, {report.differing:,} otherwise, {unknown:,} unknown"
    yield from (f"  unknown: {count:,}, {why.words}" for why, count in report.unknown.most_common())
    for title, kind, (then, now) in (("rule", "rules", report.rules), ("agent", "agents", report.agents)):
        yield from _changed_counts(title, then, now, names[kind])
    for found in report.differences:
        caller = mask_number(found.caller) if masks else found.caller
        at = found.asked_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        yield f"{at}  {caller or 'anonymous'}: {_answer(found.then, names)} → {_answer(found.now, names)}"


def _changed_counts(
    title: str, then: Counter[int | None], now: Counter[int | None], names: Mapping[int, str]
) -> Iterator[str]:
    nothing = "no rule" if title == "rule" else "overflow"
    for row_id in sorted(then.keys() | now.keys(), key=lambda one: (one is None, one or 0)):
        if then[row_id] != now[row_id]:
            name = nothing if row_id is None else f"{title} {names.get(row_id, f'#{row_id}')}"
            yield f"  {name}: {then[row_id]:,} → {now[row_id]:,}"


def _answer(answer: Answer, names: _Names) -> str:
    agent_id, rule_id = answer.agent_id, answer.rule_id
    to = answer.destination or "an empty answer"
    who = to if agent_id is None else names["agents"].get(agent_id, f"#{agent_id}")
    rule = "no rule" if rule_id is None else names["rules"].get(rule_id, f"#{rule_id}")
    return f"{who} ({rule})"
