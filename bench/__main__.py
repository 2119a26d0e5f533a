"""`python -m bench`: measure and print; store the figures of a full run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench import against, plan, report
from bench.plan import FULL, QUICK, Case, Pace, Run, Servers
from bench.projects import AGENTS


def measure(wanted: list[Case], pace: Pace) -> dict[Case, list[Run]]:
    """Run the cases in interleaved rounds, A B C A B C, so that a slow minute of the machine affects all of them."""
    measured: dict[Case, list[Run]] = {case: [] for case in wanted}
    with ExitStack() as stack:
        servers = Servers(wanted, stack)
        unique = f"{os.getpid()}-{time.time_ns()}"
        for case in wanted:
            servers.warm_up(case, f"{unique}-{case.name}-warm")
        servers.settle()
        for section in dict.fromkeys(case.section for case in wanted):
            seconds, rounds = pace[section]
            for number in range(rounds):
                for case in wanted:
                    if case.section == section:
                        measured[case].append(servers.run(case, seconds, f"{unique}-{section}-{case.name}-{number}"))
                print(f"{section}: round {number + 1} of {rounds}", file=sys.stderr)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 measured, 1 beyond a limit, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="See bench/README.md.")
    parser.add_argument("--quick", action="store_true", help="one short round: for a look, not for figures")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only cases with NAME in 'section: case'; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--against", metavar="COMMIT", help="what a call costs, beside what it cost at that commit")
    given = parser.parse_args(arguments)
    if given.against:
        return against.main(given.against, quick=given.quick)
    pace, agents = (QUICK, AGENTS[:1] + AGENTS[-1:]) if given.quick else (FULL, AGENTS)
    wanted = [
        case
        for case in plan.cases(agents)
        if not given.only or any(name in f"{case.section}: {case.name}" for name in given.only)
    ]
    if not wanted:
        parser.error(f"no case has {' or '.join(map(repr, given.only))} in its name; --list shows them")
    if given.list:
        print("\n".join(f"{case.section}: {case.name}" for case in wanted))
        return 0
    load_before = os.getloadavg()[0]
    measured = measure(wanted, pace)
    print(report.as_markdown(measured))
    if not given.quick and not given.only:
        print(f"Kept in {os.path.relpath(report.save(measured, pace, load_before))} and bench/README.md")
    return 0 if given.quick or all(want.is_met(value) for want, value in report.ratios(measured)) else 1


if __name__ == "__main__":
    sys.exit(main())
