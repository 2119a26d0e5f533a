"""`python -m chaos`: cause every fault on both databases, and write the table in docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.exc import OperationalError

from bench.published import publish
from chaos.caller import Callers, double_promises
from chaos.scenarios import SCENARIOS, WRITTEN_SECONDS, Scenario
from chaos.stage import OVERFLOW, POLL_SECONDS, RING_SECONDS, Stage, decisions

RATE = 20.0  # calls a second
CALM_SECONDS = 2.0  # with calls, before and after a fault


class Outcome(NamedTuple):
    """The result of one scenario on one database."""

    name: str
    kind: str
    calls: int
    lost: int
    worst_ms: int
    degraded: int
    missing: int  # answers that were not recorded
    doubles: int
    two_answers: int  # questions that got two answers
    failed_events: int  # events that were not answered in time, or not applied
    wrong: tuple[str, ...]  # other complaints
    examples: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubles or self.two_answers or self.missing or self.failed_events or self.wrong)


def play(stage: Stage, name: str, scenario: Scenario) -> Outcome:
    """Send calls before, during and after the fault, and compare them with what was recorded."""
    stage.complaints.clear()
    stage.log_start = len(stage.service.log_text())
    with scenario.prepare(stage) if scenario.prepare else nullcontext():
        callers = Callers(lambda: stage.hook_url, stage.pbx.set_state, RATE)
        callers.start()
        time.sleep(CALM_SECONDS)
        try:
            scenario.run(stage)
            time.sleep(CALM_SECONDS)
        finally:
            callers.stop()
        prefix = callers.asked[0].call_id.rpartition("-")[0]
        answered = [call for call in callers.asked if not call.is_lost]
        ended = {call.call_id for call in callers.asked if call.ended_at and not call.failed_events}
        recorded: dict[str, tuple[float, bool]] = {}
        over: set[str] = set()
        deadline = time.monotonic() + WRITTEN_SECONDS
        while True:
            with suppress(OperationalError):  # the database may not be ready again
                recorded, over = decisions(stage.service, prefix), stage.over(prefix)
            missing, unseen_ends = len({call.call_id for call in answered} - recorded.keys()), len(ended - over)
            if not (missing or unseen_ends) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
    lost = [call for call in callers.asked if call.is_lost]
    doubles = double_promises(
        callers.asked,
        POLL_SECONDS if scenario.lies else RING_SECONDS,
        OVERFLOW,
        {call: at for call, (at, _) in recorded.items()},
        {call for call, (_, is_degraded) in recorded.items() if is_degraded},
        talks_show=not scenario.lies,
    )
    worst_ms = round(1000 * max(call.seconds for call in callers.asked))
    degraded = sum(is_degraded for _, is_degraded in recorded.values())
    if scenario.worst_ms is not None and worst_ms > scenario.worst_ms:
        stage.complaints.append(f"a call took {worst_ms} ms, and may take {scenario.worst_ms}")
    if scenario.degraded is not None and degraded > scenario.degraded:
        stage.complaints.append(f"{degraded} calls were answered without the database, which was there")
    return Outcome(
        name,
        stage.kind,
        len(callers.asked),
        len(lost),
        worst_ms,
        degraded,
        missing,
        len(doubles),
        sum(call.has_two_answers for call in callers.asked),
        unseen_ends + sum(len(call.failed_events) for call in callers.asked),
        tuple(stage.complaints),
        (
            *stage.complaints,
            *(
                f"lost: {call.status} {call.destination!r} {call.problem} after {call.seconds:.2f} s"
                for call in lost[:3]
            ),
            *(f"promised twice: {double}" for double in doubles[:3]),
            *(f"{call.call_id}: {event}" for call in callers.asked for event in call.failed_events),
            *(f"not recorded as ended: {call_id}" for call_id in sorted(ended - over)),
        ),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--only", action="append", metavar="NAME", help="a part of a scenario's name; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    arguments = parser.parse_args()
    outcomes = []
    for kind in arguments.database or ("sqlite", "postgres"):
        chosen = {
            name: scenario
            for name, scenario in SCENARIOS.items()
            if kind in scenario.kinds and (not arguments.only or any(part in name for part in arguments.only))
        }
        with tempfile.TemporaryDirectory(prefix="router-chaos-", ignore_cleanup_errors=True) as folder:
            stage = Stage(kind, Path(folder))
            stage.start()
            try:
                for name, scenario in chosen.items():
                    if reason := scenario.needs() if scenario.needs else "":
                        print(f"{name} is left out: {reason}", file=sys.stderr)
                        continue
                    outcome = play(stage, name, scenario)
                    outcomes.append(outcome)
                    print(render_row(outcome), flush=True)
                    for example in outcome.examples:
                        print(f"      {example}", flush=True)
                    if not outcome.is_good:
                        lines = stage.service.log_text()[stage.log_start :].splitlines()
                        print("\n".join([line for line in lines if '"level":"info"' not in line][:20]), file=sys.stderr)
            finally:
                stage.stop()
    if arguments.write:
        rows = "".join(f"{render_row(outcome)}\n" for outcome in outcomes)
        publish(Path("docs/reliability.md"), "faults", f"{HEAD}\n{rows}")
    good = sum(outcome.is_good for outcome in outcomes)
    print(f"{good} of {len(outcomes)} scenarios without lost calls, double promises, missing records or lost events")
    return 0 if good == len(outcomes) else 1


HEAD = (
    "| fault | database | calls | lost | worst answer | degraded | promised twice | two answers | not recorded |"
    " events lost |\n|---|---|---|---|---|---|---|---|---|---|"
)


def render_row(outcome: Outcome) -> str:
    database = "SQLite" if outcome.kind == "sqlite" else "PostgreSQL"
    counts = [outcome.degraded, outcome.doubles, outcome.two_answers, outcome.missing, outcome.failed_events]
    cells = [outcome.name, database, outcome.calls, outcome.lost, f"{outcome.worst_ms} ms", *counts]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
