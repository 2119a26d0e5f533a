"""`python -m bench --against COMMIT`: compare the cost of a call with that at another commit.

Both are started as they are deployed, each on its own database, and configured by their own commands: this uses nothing
of their code but the command line and the hook. They are called in turn, at the same random instants, at several rates.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import load, projects, servers
from bench.load import Latencies, Target
from bench.plan import PROCESSES, TITLES
from bench.projects import DIALED, TEAMS
from bench.report import table
from simulator.processes import ROOT, Server, gunicorn

HERE = "here"
RATES = {20: 10, 60: 8, 200: 5}  # calls a second → seconds of one run
ROUNDS = 7
LIMITS = {"p50 ms": 1.15, "p99 ms": 1.5, "CPU µs": 1.2}


class Run(NamedTuple):
    """The figures of one side in one round, in the order of LIMITS."""

    p50: float
    p99: float
    cpu: float


class Side:
    """The service of one tree on one database."""

    def __init__(self, tree: Path, kind: str, folder: Path, url: str, status_url: str) -> None:
        folder.mkdir()
        environ = {"DATABASE_URL": url, "PRESENCE_ALLOW_PRIVATE": "1", "PYTHONPATH": str(tree)}
        command = gunicorn(root=tree)
        self.server = Server(folder, command, WEB_CONCURRENCY=str(PROCESSES[kind]), **environ)
        self._router("db", "upgrade")
        project = projects.words(TEAMS)
        project["presence"] |= {"api_url": status_url, "poll_seconds": 30}
        (folder / "project.yaml").write_text(json.dumps({"projects": [project]}))  # JSON is YAML too
        self._router("config", "apply", "project.yaml")
        self.path = f"/hook/{self._router('hook-url', TEAMS.name).strip().rpartition('/')[2]}"
        self.runs = 0

    def _router(self, *words: str) -> str:
        command = [sys.executable, "-m", "router", *words]
        done = subprocess.run(
            command, cwd=self.server.folder, env=self.server.environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def call(self, due: Sequence[float]) -> Latencies:
        """Ask at these instants. Raises LoadError unless every call is offered to somebody."""
        self.runs += 1
        target = Target(self.server.port, self.path, DIALED, TEAMS.numbers)
        try:
            return load.scheduled(target.port, load.questions(target, due, f"{os.getpid()}.{self.runs}"))
        except load.LoadError as error:
            raise load.LoadError(f"{error}\n{self.server.complaints()}") from None


def checked_out(commit: str, folder: Path) -> Path:
    """Put the files of a commit into `folder`. Raises RuntimeError."""
    made = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        raise RuntimeError(f"git archive {commit}: {made.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def compare(
    trees: Mapping[str, Path], rates: Mapping[int, int], rounds: int, kinds: Sequence[str] = tuple(TITLES)
) -> dict[tuple[str, int], dict[str, list[Run]]]:
    """Call the services of these trees in turn. Return the runs of each by database and rate."""
    found: dict[tuple[str, int], dict[str, list[Run]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-against-")))
        logins = [projects.login(agent) for agent in range(TEAMS.agents)]
        status_command = [sys.executable, "-m", "bench.status_api", *logins]
        status = stack.enter_context(Server(folder, status_command, name="status"))
        postgres = stack.enter_context(servers.postgres(folder)) if "postgres" in kinds else None
        for kind in kinds:
            sides = {}
            for number, (name, tree) in enumerate(trees.items()):
                url = postgres.new_database(f"side{number}") if postgres and kind == "postgres" else ""
                url = url or f"sqlite:///{folder}/side{number}.db"
                sides[name] = Side(tree, kind, folder / f"{kind}-{number}", url, status.url)
                stack.enter_context(sides[name].server)
                sides[name].call(load.steady(200, 200))  # loads the configuration, prepares the statements
            database = postgres.pid if postgres and kind == "postgres" else None
            for rate, seconds in rates.items():
                runs = found[kind, rate] = {name: list[Run]() for name in trees}
                for number in range(rounds):
                    due = load.by_chance(rate, seconds, seed=number)
                    for name in list(trees)[:: -1 if number % 2 else 1]:  # each is the first by turns
                        runs[name].append(_run(sides[name], due, database))
                print(f"{TITLES[kind]}, {rate} calls a second: {rounds} rounds", file=sys.stderr)
    return found


def _run(side: Side, due: Sequence[float], database: int | None) -> Run:
    def cpu() -> float:
        return servers.cpu_micros(side.server.pid) + (servers.cpu_micros(database) if database else 0.0)

    before = cpu()
    latencies = side.call(due)
    return Run(latencies.p50, latencies.p99, (cpu() - before) / latencies.requests)


def as_markdown(found: Mapping[tuple[str, int], Mapping[str, Sequence[Run]]]) -> tuple[str, bool]:
    """Return the table of medians and ratios, and whether all are within the limits. A ratio is the median of those of
    the rounds.
    """
    rows, good = [], True
    for (kind, rate), runs in found.items():
        (_, here), (_, there) = runs.items()
        for place, (figure, bound) in enumerate(LIMITS.items()):
            ratio = median(a[place] / b[place] for a, b in zip(here, there, strict=True) if b[place])
            good = good and ratio <= bound
            medians = [f"{median(run[place] for run in side):,.4g}" for side in (here, there)]
            verdict = "yes" if ratio <= bound else "**no**"
            rows.append([f"{TITLES[kind]}, {rate}/s: {figure}", *medians, f"{ratio:.2f}", f"≤ {bound}", verdict])
    (names,) = {tuple(runs) for runs in found.values()}
    return table(["calls by chance", *names, "ratio", "wanted", "met"], rows), good


def main(commit: str, *, quick: bool = False) -> int:
    """Return the exit code: 0 within the limits, else 1."""
    rates, rounds = ({20: 2}, 1) if quick else (RATES, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="router-commit-") as folder:
        trees = {HERE: ROOT, commit: checked_out(commit, Path(folder))}
        table, good = as_markdown(compare(trees, rates, rounds))
    print(table)
    return 0 if good else 1
