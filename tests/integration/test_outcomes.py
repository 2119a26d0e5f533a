"""A working day in seconds: callers give up, agents miss calls, come, go, dial and hand over, events are lost, late,
doubled and overtaken. What the service wrote down is held against the ledger of the demo PBX.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from router.core.lifecycle import GRACE, LONGEST_TALK, OVERFLOW_WAIT, RANG_OUT, SLOW_SOURCE, UNSEEN
from router.core.model import Outcome
from router.db import models, queries
from router.db.documents import configured
from router.db.session import Database
from router.explanation.replay import replay
from router.presence.readings import Readings
from router.presence.settle import settle
from router.presence.source import Reading
from router.routing.route import recompute
from simulator.cast import make_staff
from simulator.ledger import CallRecord, Offer, Question, whole_seconds
from simulator.service import serving
from simulator.settings import PbxSettings

CALLS = 120
SPEED = 40.0  # simulated seconds in a real one
RING = timedelta(seconds=3.5)  # our reservations, in real time; the PBX stops a little earlier
OVERFLOW = "380441234567"
STAFF = make_staff(18, logins_each=2)
STRATEGIES = ("round_robin", "longest_idle", "fewest_calls", "weighted", "random", "priority")
NUMBERS = {f"38044333000{n}": strategy for n, strategy in enumerate(STRATEGIES)}


def group(n: int) -> str:
    """Eight people, the last two in the second tier; most are in two groups or three."""
    people = [STAFF[(3 * n + k) % len(STAFF)].name for k in range(8)]
    members = ", ".join(f"{{agent: {name}, tier: {1 + k // 6}, weight: {1 + k % 3}}}" for k, name in enumerate(people))
    ring = RING.total_seconds()
    return f"{{name: {STRATEGIES[n]}, strategy: {STRATEGIES[n]}, ring_seconds: {ring}, members: [{members}]}}"


def rule(n: int) -> str:
    chain = f"{STRATEGIES[n]}, {STRATEGIES[(n + 1) % len(STRATEGIES)]}"
    return f"{{name: rule {n}, when: {{dialed: '{list(NUMBERS)[n]}'}}, prefer: last_agent, groups: [{chain}]}}"


AGENTS = (
    f"{{name: {member.name}, wrap_up_seconds: 0.2, sip_logins: [{', '.join(member.logins)}]}}" for member in STAFF
)
CONFIG = f"""
projects:
  - name: acme
    overflow: "{OVERFLOW}"
    cool_down_seconds: 0.5
    break_after_no_answers: 0
    presence: {{api_url: "${{API_URL}}", auth_key: demo-key, poll_seconds: 0.25, fresh_seconds: 1.5}}
    agents: [{", ".join(AGENTS)}]
    groups: [{", ".join(group(n) for n in range(len(STRATEGIES)))}]
    rules: [{", ".join(rule(n) for n in range(len(STRATEGIES)))}]
"""
DAY = PbxSettings(
    staff=STAFF,
    numbers=NUMBERS,
    form="mixed",
    event_form="mixed",
    speed=SPEED,
    calls_per_minute=13.0,
    callers=60,  # so that many call again
    talk_seconds=40.0,
    patience_seconds=150.0,
    ring_seconds=SPEED * (RING.total_seconds() - 0.34),
    answer_after_seconds=(4.0, 16.0),
    answer_probability=0.85,
    own_calls_per_hour=6.0,
    own_talk_seconds=30.0,
    shift_seconds=500.0,
    away_seconds=100.0,
    transfer_probability=0.1,
    duplicate_probability=0.05,
    hook_timeout_ms=60_000.0,  # a busy machine may be slow
    budget_ms=60_000.0,
    settle_ms=500.0,
)
LOSSY = {
    "event_loss": 0.1,
    "event_delay_ms": 60.0,
    "event_duplicates": 0.1,
    "event_reorder": 0.1,
    "event_reorder_ms": 300.0,
}


@pytest.mark.parametrize(
    ("kind", "processes", "events"),
    [("sqlite", 2, {"event_duplicates": 0.1}), ("postgres", 3, LOSSY)],
    ids=["sqlite, events arrive", "postgres, events get lost, late, doubled and overtaken"],
)
def test_every_call_comes_to_its_end_and_is_told_truly(
    kind: str, processes: int, events: Mapping[str, float], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"migrated_{kind}_url")
    settings = replace(DAY, **events)  # type: ignore[arg-type]  # all of them are floats
    with serving(tmp_path, url, CONFIG, settings, processes=processes, HOOK_BUDGET_MS="30000") as (service, pbx):
        report = pbx.run(CALLS, timeout=240)
        calls, decisions = pbx.calls, decisions_by_call(service.database)
        give_up_at = time.monotonic() + 10 * RING.total_seconds()  # the last question may have been late
        while (left := live_reservations(service.database)) and time.monotonic() < give_up_at:
            time.sleep(0.1)
    settle_all(service.database)
    settled = decisions_by_call(service.database)
    told = report.summary() + service.log.read_text()[-2000:]

    # It was a day of all sorts, and every question was answered.
    assert (report.calls, report.in_progress, report.failures) == (CALLS, 0, 0), told
    assert report.answered > CALLS / 5, told
    assert min(report.lost_because["abandoned"], report.transfers, report.own_calls, report.outside) > 0, told

    # Nobody known to be busy was called, nobody twice for one call, and nobody is held for a call that is over. (Where
    # the machine was too slow for the database, the service answered without it, as well as it could.)
    degraded = degraded_calls(service.log)
    good_calls = [call for call in calls if call.call_id not in degraded]
    assert len(good_calls) > CALLS / 2, told
    wrong = [
        offer
        for call in good_calls
        for offer in call.offers
        if offer.repeated or (offer.knowable and not was_free_again(call, offer, settled))
    ]
    assert not wrong, f"{wrong}\n{told}"
    torn = []
    for call in good_calls:  # a copy whose caller has hung up meanwhile was not heard
        heard = [question for question in call.questions if question.answered]
        if len({(question.step, question.destination) for question in heard}) > len({one.step for one in heard}):
            torn.append(heard)
    assert not torn, f"{torn}\n{told}"
    assert left == 0

    # What became of each call is what happened, once its events are in; nothing that is concluded later spoils it.
    told_calls = [call for call in good_calls if all(event.result == "200" for event in call.events)]
    assert len(told_calls) > CALLS / 4, told
    for known in (decisions, settled):
        problems = [text for call in told_calls for text in compare(call, known.get(call.call_id, ()))]
        assert not problems, "\n".join(problems)

    # Whatever was not told is concluded, and said to be so; the end of a talk where nobody sees it, after hours.
    rows = [row for found in settled.values() for row in found]
    assert not [(row.call_id, row.sip_login) for row in rows if not row.outcome]
    lost = [call for call in good_calls if call.call_id not in settled]  # hung up before the answer came
    assert not [call for call in lost if any(question.answered for question in call.questions)], told
    untold = [row for call in good_calls if call not in told_calls for row in settled.get(call.call_id, ())]
    assert kind == "sqlite" or any(row.inferred for row in untold)

    settle_all(service.database, after=LONGEST_TALK)
    at_last = [row for found in decisions_by_call(service.database).values() for row in found]
    assert not [(row.call_id, row.sip_login) for row in at_last if row.ended_at is None]

    # The rules say the same again of what was stored.
    with service.database.reading() as session:
        assert not [row.id for row in rows if not recompute(session, row.id).is_same]
        project = queries.project_named(session, "acme")
        found = configured(session, project.id, project.version)
    assert found is not None
    began = min(row.asked_at for row in rows)
    replayed = replay(service.database, found.project, since=began, most=2 * len(rows), listed=5)
    assert (replayed.total, replayed.differing, replayed.unknown.total()) == (len(rows), 0, 0), replayed.differences


BOUND = max(OVERFLOW_WAIT, UNSEEN + GRACE + RING, SLOW_SOURCE)


# ---- the PBX's truth against what was written down


def degraded_calls(log: Path) -> set[str]:
    """The calls that were answered without the database."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {line["call_id"] for line in lines if line.get("result") == "degraded"}


def was_free_again(call: CallRecord, offer: Offer, decisions: Mapping[str, Sequence[models.Decision]]) -> bool:
    """Was the promise over, of which the PBX says that it still held? There a phone begins to ring when it gets round
    to the answer, on a busy machine so late that it rings for longer than was promised."""
    made = next((row for row in decisions[call.call_id] if row.sip_login == offer.login), None)
    if offer.knowable != "promised" or made is None:
        return False
    others = (row for found in decisions.values() for row in found if row.agent_id == made.agent_id and row is not made)
    return not any(row.asked_at <= made.asked_at < row.asked_at + RING for row in others)


def compare(call: CallRecord, decisions: Sequence[models.Decision]) -> list[str]:
    """In words, where the decisions of a call do not say what became of it."""
    steps = [question for question in call.questions if question.answered and not question.duplicate]
    if call.lost_because == "abandoned" and len(call.offers) < len({question.step for question in call.questions}):
        return []  # gave up while the question was out: which of the two was first is a matter of luck
    if len(steps) != len(decisions):
        return [f"{call.call_id}: {len(steps)} questions, {len(decisions)} decisions"]
    problems = []
    for step, row in zip(steps, decisions, strict=True):
        outcomes, *facts = truth(call, step)
        said = [row.answered_login, row.talked_seconds, row.disposition]
        if row.outcome not in outcomes or said != facts:
            shown = f"{row.outcome} {said} and not {[*outcomes]} {facts}"
            problems.append(f"{call.call_id}, step {step.step}, {call.outcome} {call.lost_because}: {shown}")
    return problems


def truth(call: CallRecord, step: Question) -> tuple[set[str], str, float | None, str]:
    """What became of one step: the outcome, who answered, the seconds talked, and how the platform calls the end."""
    disposition = "_".join(call.disposition.casefold().split())
    if step.step < call.questions[-1].step:
        return {Outcome.NO_ANSWER}, "", None, ""
    if call.outcome != "lost":
        who = call.transferred_to or call.answered_by or call.destination
        return {Outcome.ANSWERED}, who, whole_seconds(call.talked_seconds), disposition
    last_words = {"no_answer": Outcome.NO_ANSWER, "busy": Outcome.BUSY}
    if call.lost_because != "abandoned":
        return {last_words.get(call.lost_because, Outcome.FAILED)}, "", None, disposition
    told_at = max(event.acknowledged_at or 0 for event in call.events)
    if told_at - step.asked_at < RANG_OUT * RING.total_seconds():
        return {Outcome.ABANDONED}, "", None, disposition
    return {Outcome.ABANDONED, Outcome.NO_ANSWER}, "", None, disposition  # gave up when it had nearly rung out


def decisions_by_call(database: Database) -> dict[str, list[models.Decision]]:
    found: dict[str, list[models.Decision]] = {}
    with database.reading() as session:
        for decision in session.scalars(select(models.Decision).order_by(models.Decision.id)):
            found.setdefault(decision.call_id, []).append(decision)
    return found


def live_reservations(database: Database) -> int:
    with database.reading() as session:
        live = select(func.count()).where(models.Reservation.expires_at > database.now(session))
        return session.scalar(live) or 0


def settle_all(database: Database, after: timedelta = BOUND) -> None:
    """What the keeper does once so much time has passed as it waits for events at most: it polls, it settles."""
    with database.reading() as session:
        project = queries.load_published(session, queries.project_named(session, "acme").id).project
        later = database.now(session) + after
        newest = select(models.PresenceSnapshot).order_by(models.PresenceSnapshot.id.desc()).limit(1)
        nobody_talks = Reading(frozenset(session.scalars(newest).one().online), frozenset())
    took = timedelta(milliseconds=1)
    Readings(database).keep(project.id, nobody_talks, began_at=later, now=later, took=took, next_poll_at=later)
    settle(database, project, later)
