"""`python -m chaos`: every fault on both databases, and the table in docs/reliability.md."""

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
CALM_SECONDS = 2.0  # before and after


class Outcome(NamedTuple):
    """One scenario on one database."""

    name: str
    kind: str
    calls: int
    lost: int
    worst_ms: int
    degraded: int
    missing: int  # answers that are not on record
    doubles: int
    torn: int  # questions that got two answers
    deaf: int  # events that were not answered in time, or are not on record
    wrong: tuple[str, ...]  # what else is not as it should be
    examples: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubles or self.torn or self.missing or self.deaf or self.wrong)


def play(stage: Stage, name: str, scenario: Scenario) -> Outcome:
    """Calls before, during and after the fault, and what is on record of them."""
    stage.complaints.clear()
    stage.told_before = len(stage.service.told())
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
        told = {call.call_id for call in callers.asked if call.ended_at and not call.unheard}
        recorded: dict[str, tuple[float, bool]] = {}
        over: set[str] = set()
        deadline = time.monotonic() + WRITTEN_SECONDS
        while True:
            with suppress(OperationalError):  # it may just be coming back
                recorded, over = decisions(stage.service, prefix), stage.over(prefix)
            missing, unheard = len({call.call_id for call in answered} - recorded.keys()), len(told - over)
            if not (missing or unheard) or time.monotonic() > deadline:
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
        sum(call.is_torn for call in callers.asked),
        unheard + sum(len(call.unheard) for call in callers.asked),
        tuple(stage.complaints),
        (
            *stage.complaints,
            *(
                f"lost: {call.status} {call.destination!r} {call.problem} after {call.seconds:.2f} s"
                for call in lost[:3]
            ),
            *(f"promised twice: {double}" for double in doubles[:3]),
            *(f"unheard: {call.call_id}: {', '.join(call.unheard)}" for call in callers.asked if call.unheard),
            *(f"not on record as over: {call_id}" for call_id in sorted(told - over)),
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
                        told = stage.service.told()[stage.told_before :].splitlines()
                        print("\n".join([line for line in told if '"level":"info"' not in line][:20]), file=sys.stderr)
            finally:
                stage.stop()
    if arguments.write:
        rows = "".join(f"{render_row(outcome)}\n" for outcome in outcomes)
        publish(Path("docs/reliability.md"), "faults", f"{HEAD}\n{rows}")
    good = sum(outcome.is_good for outcome in outcomes)
    print(f"{good} of {len(outcomes)} scenarios without anything lost, promised or answered twice, missing or unheard")
    return 0 if good == len(outcomes) else 1


HEAD = (
    "| fault | database | calls | lost | worst answer | degraded | promised twice | two answers | not on record |"
    " events unheard |\n|---|---|---|---|---|---|---|---|---|---|"
)


def render_row(outcome: Outcome) -> str:
    database = "SQLite" if outcome.kind == "sqlite" else "PostgreSQL"
    counts = [outcome.degraded, outcome.doubles, outcome.torn, outcome.missing, outcome.deaf]
    cells = [outcome.name, database, outcome.calls, outcome.lost, f"{outcome.worst_ms} ms", *counts]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
