"""Renders an explanation as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from router.core.model import SkipReason
from router.core.words import Message
from router.explanation.decision import ExplainedCandidate, ExplainedTrial, Explanation
from router.explanation.replay import Answer, Report
from router.explanation.variations import Studied
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
    if report.other_rule:
        yield f"  {report.other_rule:,} as before, but by another rule"
    if report.reconstructed:
        yield f"  {report.reconstructed:,} of them with inputs that were found out from the calls around them"
    yield from (f"  unknown: {count:,}, {why.words}" for why, count in report.unknown.most_common())
    for title, kind, (then, now) in (("rule", "rules", report.rules), ("agent", "agents", report.agents)):
        yield from _changed_counts(title, then, now, names[kind])
    for found in report.differences:
        caller = mask_number(found.caller) if masks else found.caller
        at = found.asked_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        yield f"{at}  {caller or 'anonymous'}: {_answer(found.then, names)} → {_answer(found.now, names)}"


def replay_as_json(report: Report, names: _Names, zone: ZoneInfo, *, masks: bool) -> dict[str, Any]:
    """Return a replay as plain values, with names beside the ids."""

    def named(kind: str, row_id: int | None) -> str | None:
        return None if row_id is None else names[kind].get(row_id, f"#{row_id}")

    def answer(given: Answer) -> dict[str, Any]:
        rule, agent = named("rules", given.rule_id), named("agents", given.agent_id)
        return {**given._asdict(), "rule": rule, "agent": agent}

    told = report.as_json()
    for kind in ("rules", "agents"):
        told[kind] = [{"id": one, "name": named(kind, one), "then": n, "now": m} for one, n, m in told[kind]]
    told["differences"] = [
        {
            "decision": one.decision_id,
            "at": one.asked_at.astimezone(zone).isoformat(),
            "caller": mask_number(one.caller) if masks else one.caller,
            "then": answer(one.then),
            "now": answer(one.now),
            "is_reconstructed": one.is_reconstructed,
        }
        for one in report.differences
    ]
    return told


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


# ---- a what-if


def what_if_lines(
    studied: Studied,
    changes: Sequence[Message],
    agents: Mapping[int, str],
    span: tuple[datetime, datetime],
    zone: ZoneInfo,
) -> Iterator[str]:
    """Yield the lines of a what-if. `agents`: names by id. `span`: the first instant, and that after it."""
    found, (begin, end) = studied.found, (at.astimezone(zone).strftime("%Y-%m-%d %H:%M") for at in span)
    tallies = (found.real, found.reproduced, found.changed)
    yield f"{found.real.calls:,.0f} calls from {begin} to {end}"
    yield f"What if: {ENGLISH.join(changes) or 'the configuration that was chosen'}"
    yield ""
    yield _row("", "really", "reproduced", "what if")
    for label, name in (
        ("calls that agents answered", "answered"),
        ("calls to the overflow", "overflow"),
        ("found nobody free at first", "found_nobody"),
        ("neither agent nor overflow", "unanswered"),
    ):
        yield _row(label, *(f"{one.rate(getattr(one, name)):.1f} %" for one in tallies))
    waits = ("–" if one.mean_wait is None else f"{one.mean_wait:.1f} s" for one in tallies)
    yield _row("wait until an agent answers", *waits)
    yield ""
    yield "Answered by, of all that agents answered:"
    known = {agent_id for one in tallies for agent_id in one.agents}
    for agent_id in sorted(known, key=lambda one: (-found.real.share(one), agents.get(one, ""))):
        yield _row(f"  {agents.get(agent_id, f'#{agent_id}')}", *(f"{one.share(agent_id):.1f} %" for one in tallies))
    yield ""
    yield (
        f"With nothing changed, the simulation is {found.error.overflow:.1f} points off for the overflow and"
        f" {found.error.share:.1f} for the share of an agent."
    )
    yield (
        f"The what-if is the mean of {found.runs} runs, which by chance are up to {found.by_chance.overflow:.1f}"
        f" and {found.by_chance.share:.1f} points off it."
    )
    if found.is_known:
        yield f"A difference of up to {found.margin:.1f} points for the overflow says nothing."
    else:
        yield "The log does not tell of most offers whether agents answered, so a difference says nothing."
    yield "What is taken for granted:"
    yield from (f"- {ENGLISH.say(message)}" for message in studied.assumptions)


def _row(label: str, *values: str) -> str:
    return f"{label:<30}" + "".join(f"{value:>12}" for value in values)
