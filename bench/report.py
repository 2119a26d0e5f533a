"""Compute figures from runs: medians and ratios, as a table for people, results.json and a part of README.md."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.load import CONNECTIONS
from bench.plan import LOG_ROWS, WHOLE_CALLS, WORKERS, Case, Pace, Run
from bench.projects import AGENTS, ANYBODY, LAST_AGENT, RULES
from bench.published import publish

FOLDER = Path(__file__).parent
RELIABILITY = FOLDER.parent / "docs" / "reliability.md"
BUSY_SECTIONS = ("load", "log")  # shown in docs/reliability.md
RESULTS = "results.json"

Measured = Mapping[Case, Sequence[Run]]

FIGURES: dict[str, Callable[[Run], float]] = {
    "requests/s": lambda run: run.latencies.requests / run.latencies.seconds,
    "CPU µs": lambda run: run.cpu,
    "of it Python": lambda run: run.python_cpu,
    "p50 ms": lambda run: run.latencies.p50,
    "p95 ms": lambda run: run.latencies.p95,
    "p99 ms": lambda run: run.latencies.p99,
    "MB": lambda run: run.megabytes,
}


FIRST_ROUND = "the same in its first round"
BUDGET, BUDGET_MS = "the hook's budget", 1500  # the default of HOOK_BUDGET_MS


class Wanted(NamedTuple):
    """A ratio and its limit, ≥ or ≤: a figure of one case divided by that of another, by its own in the first round, or
    by the time that a call may take.
    """

    section: str
    over: str
    under: str
    figure: str
    sign: str
    bound: float

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.sign == "≥" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.figure}: {self.over} ÷ {self.under}"


def wanted() -> Iterator[Wanted]:
    """Yield the limits of the hook, compared with its floors."""
    for title, times in (("SQLite", 4.2), ("PostgreSQL", 3.7)):
        for hook in (f"hook, {title}", f"hook, {title}, one hot group"):
            yield Wanted("throughput", hook, f"UPDATE + INSERT, {title}", "CPU µs", "≤", times)
            yield Wanted("throughput", hook, BUDGET, "p99 ms", "≤", 0.1)
        yield Wanted("steady", f"hook, {title}", BUDGET, "p99 ms", "≤", 0.05)
        yield Wanted("steady", "naive script", f"hook, {title}", "p50 ms", "≥", 20)
        yield Wanted("events", f"{WHOLE_CALLS}, {title}", f"questions, {title}", "CPU µs", "≤", 1.5)
        yield Wanted("load", f"hook, {title}", BUDGET, "p99 ms", "≤", 0.1)
        yield Wanted("load", f"hook, {title}", FIRST_ROUND, "MB", "≤", 1.1)
        full, empty = f"{LOG_ROWS:,} decisions in the log", "log nearly empty"
        yield Wanted("log", f"hook, {title}, {full}", f"hook, {title}, {empty}", "CPU µs", "≤", 1.2)
        # Each member is examined and gets a reason: a hundred times as many agents in one group cost more than ten.
        for shape, bound in (("agents in 20 groups", 2), ("agents in groups of 10", 1.5), ("agents in one group", 15)):
            over, under = (f"{count} {shape}, {title}" for count in (AGENTS[-1], AGENTS[0]))
            yield Wanted("agents", over, under, "CPU µs", "≤", bound)
        for shape in ("rules by dialed", "rules by caller"):
            over, under = (f"{count} {shape}, {title}" for count in (RULES[-1], RULES[0]))
            yield Wanted("rules", over, under, "CPU µs", "≤", 1.5)
        yield Wanted("rules", f"{LAST_AGENT}, {title}", f"{ANYBODY}, {title}", "CPU µs", "≤", 1.3)
        for worker in WORKERS[1:]:
            yield Wanted("workers", f"{WORKERS[0]}, {title}", f"{worker}, {title}", "CPU µs", "≤", 1.2)


def ratios(measured: Measured) -> Iterator[tuple[Wanted, float]]:
    """Yield the measured ratios: the median of those of each round."""
    runs = {(case.section, case.name): found for case, found in measured.items()}
    for want in wanted():
        over, under = runs.get((want.section, want.over)), runs.get((want.section, want.under))
        get = FIGURES[want.figure]
        if over and want.under == FIRST_ROUND:
            yield want, get(over[-1]) / get(over[0])
        elif over and want.under == BUDGET:
            yield want, median(map(get, over)) / BUDGET_MS
        elif over and under:
            yield want, median(get(a) / get(b) for a, b in zip(over, under, strict=True))


def summary(measured: Measured) -> dict[str, dict[str, dict[str, Any]]]:
    """Return medians and single runs by section and case."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for case, runs in measured.items():
        figures: dict[str, Any] = {name: _rounded(median(map(get, runs))) for name, get in FIGURES.items()}
        figures["runs"] = {name: [_rounded(get(run)) for run in runs] for name, get in FIGURES.items()}
        found.setdefault(case.section, {})[case.name] = figures
    return found


def _rounded(value: float) -> float:
    return round(value, 1) if value >= 10 else round(value, 2)


def as_markdown(measured: Measured, sections: Collection[str] | None = None) -> str:
    """Return a table for each of the sections (None: all), then the ratios."""
    parts = []
    measured = {case: runs for case, runs in measured.items() if sections is None or case.section in sections}
    for section, named in summary(measured).items():
        rows = [[name, *(f"{figures[column]:,.6g}" for column in FIGURES)] for name, figures in named.items()]
        parts.append(table([section, *FIGURES], rows))
    compared = [
        [str(want), f"{value:.2f}", f"{want.sign} {want.bound:g}", "yes" if want.is_met(value) else "**no**"]
        for want, value in ratios(measured)
    ]
    if compared:
        parts.append(table(["ratio", "is", "wanted", "met"], compared))
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(padded)} |\n"

    rule = f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|\n"
    return line(head) + rule + "".join(map(line, rows))


def save(
    measured: Measured, pace: Pace, load_before: float, folder: Path = FOLDER, reliability: Path = RELIABILITY
) -> Path:
    """Store the figures of this run instead of the last one's, in README.md and, of a busy hook, in `reliability`."""
    now = datetime.now(UTC)
    kept = {
        "at": now.isoformat(timespec="seconds"),
        "revision": _revision(),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load before": round(load_before, 2),
        },
        "seconds and rounds": pace,
        "connections": CONNECTIONS,
        "sections": summary(measured),
        "ratios": [
            {
                "what": str(want),
                "section": want.section,
                "is": round(value, 3),
                "wanted": f"{want.sign} {want.bound}",
                "met": want.is_met(value),
            }
            for want, value in ratios(measured)
        ],
    }
    path = folder / RESULTS
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    numbers_in_a_line = re.sub(r"(?<=[\[\d,])\s+(?=[\d\]])", " ", text)
    path.write_text(f"{numbers_in_a_line}\n", encoding="utf-8")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, load before the run {load_before:.1f}"
    head = f"{now.date()}, {machine}. Each figure is the median of its rounds."
    publish(folder / "README.md", "results", f"{head}\n\n{as_markdown(measured)}")
    publish(reliability, "load", f"{head}\n\n{as_markdown(measured, BUSY_SECTIONS)}")
    return path


def _revision() -> str:
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=FOLDER, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return git.stdout.strip()
