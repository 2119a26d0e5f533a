"""Define what is measured. Each case is one server under one load."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench import apps, load, projects, servers
from bench.load import Latencies, Target
from bench.projects import AGENTS, DIALED, HOT, TEAMS
from router.config import processes_for
from simulator.processes import Server, gunicorn

STEADY = 20  # calls per second
WHOLE_CALLS = "questions, pickups and ends"
LOAD_SHARE = 0.7  # of the rate that the hook could answer to the same client just before
CAPACITY_CALLS = 600  # sent at once to find that rate
LOG_ROWS = 1_000_000
NAIVE_PROCESSES = 8  # at 160 ms a call enough for 50 calls/s: at 20 no call waits for a process
PROCESSES = {kind: processes_for(kind) for kind in ("sqlite", "postgres")}
TITLES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
WORKERS = ("gevent", "gthread", "sync")  # gunicorn's own


class Case(NamedTuple):
    """One line of a table. `server`: what start() runs; `shape`: the project, for the hook."""

    section: str
    name: str
    server: str
    shape: str = ""
    numbers: int = projects.TEAMS.numbers
    dialed: str = DIALED


Pace = Mapping[str, tuple[int, int]]
"""For each section the seconds of a run and how many rounds."""

FULL: Pace = {
    "throughput": (3, 7),
    "steady": (8, 2),
    "events": (4, 3),
    "load": (10, 3),
    "log": (2, 4),
    "agents": (1, 5),
    "rules": (1, 5),
    "workers": (2, 5),
}
QUICK: Pace = {**dict.fromkeys(FULL, (1, 1)), "steady": (2, 1), "load": (5, 1)}


class Run(NamedTuple):
    """One run of one case. CPU in µs per request: of the Python processes, and of these and the database together.
    Memory: of the largest process afterwards.
    """

    latencies: Latencies
    python_cpu: float
    cpu: float
    megabytes: float = 0.0


def cases(agents: Collection[int] = AGENTS) -> Iterator[Case]:
    """Yield all cases in order. `agents`: the numbers of agents with which the hook's cost is measured."""
    yield Case("throughput", "bare view, 2 processes", "bare 2")
    yield Case("throughput", "bare view, 4 processes", "bare 4")
    for kind, title in TITLES.items():
        yield Case("throughput", f"UPDATE + INSERT, {title}", f"writes {kind}")
        yield Case("throughput", f"hook, {title}", f"hook {kind}", TEAMS.name)
        yield Case("throughput", f"hook, {title}, one hot group", f"hook {kind}", TEAMS.name, 1, HOT)
    yield Case("throughput", "naive script", "naive")
    for kind, title in TITLES.items():
        yield Case("steady", f"hook, {title}", f"hook {kind}", TEAMS.name)
    yield Case("steady", "naive script", "naive")
    for kind, title in TITLES.items():
        yield Case("events", f"questions, {title}", f"hook {kind}", TEAMS.name)
        yield Case("events", f"{WHOLE_CALLS}, {title}", f"hook {kind}", TEAMS.name)
    for kind, title in TITLES.items():
        yield Case("load", f"hook, {title}", f"hook {kind}", TEAMS.name)
    for kind, title in TITLES.items():
        yield Case("log", f"hook, {title}, log nearly empty", f"hook {kind}", TEAMS.name)
        yield Case("log", f"hook, {title}, {LOG_ROWS:,} decisions in the log", f"hook {kind} full", TEAMS.name)
    for kind, title in TITLES.items():
        for shape in projects.shapes():
            if shape is not TEAMS and (shape.section == "rules" or shape.agents in agents):
                yield Case(shape.section, f"{shape.name}, {title}", f"hook {kind}", shape.name, shape.numbers)
    for kind, title in TITLES.items():
        for worker in WORKERS:
            yield Case("workers", f"{worker}, {title}", f"hook {kind} {worker}", TEAMS.name)


class Servers:
    """The servers that some cases need, all started together: idle ones cost nothing."""

    def __init__(self, wanted: Sequence[Case], stack: ExitStack) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-bench-")))
        self._stack = stack
        self._wanted = wanted
        self._postgres: servers.Postgres | None = None
        self._databases: list[str] = []
        self._full: list[str] = []
        self._servers: dict[str, Server] = {}
        self._paths: dict[str, dict[str, str]] = {}
        start = {"bare": self._bare, "writes": self._writes, "hook": self._hook, "naive": self._naive}
        for name in dict.fromkeys(case.server for case in wanted):
            self._servers[name] = start[name.split()[0]](name)

    def warm_up(self, case: Case, run: str) -> None:
        """Make every process load the configuration, open its connection and prepare its statements."""
        with self._with_complaints(case):
            target = self._target(case)
            load.scheduled(target.port, load.questions(target, load.steady(5000, 64), run))

    def settle(self) -> None:
        """Fill the logs of cases with a long log, and update the tables' statistics, as after some hours of work."""
        for url in self._full:
            projects.fill_log(url, TEAMS.name, LOG_ROWS)
        for url in self._databases:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")

    def run(self, case: Case, seconds: int, run: str) -> Run:
        """Run the case under its load, and measure its CPU time."""
        python, database = self._cpu(case)
        target = self._target(case)
        with self._with_complaints(case):
            if case.section in {"steady", "events"}:
                plan = load.whole_calls if case.name.startswith(WHOLE_CALLS) else load.questions
                latencies = load.scheduled(target.port, plan(target, load.steady(STEADY, seconds * STEADY), run))
            elif case.section == "load":
                rate = LOAD_SHARE * self._capacity(case, run)
                python, database = self._cpu(case)
                latencies = load.scheduled(
                    target.port, load.questions(target, load.by_chance(rate, seconds, bursts=True), run)
                )
            else:
                latencies = load.closed_loop(target, seconds, run=run)
        python_after, database_after = self._cpu(case)
        python_cpu = (python_after - python) / latencies.requests
        return Run(
            latencies,
            python_cpu,
            python_cpu + (database_after - database) / latencies.requests,
            servers.largest_megabytes(self._servers[case.server].pid),
        )

    def _capacity(self, case: Case, run: str) -> float:
        """Return how many calls a second the case can answer now."""
        target = self._target(case)
        at_once = load.questions(target, [0.0] * CAPACITY_CALLS, f"{run}-capacity")
        found = load.scheduled(target.port, at_once, load.CONNECTIONS)
        return found.requests / found.seconds

    def _target(self, case: Case) -> Target:
        path = self._paths[case.server][case.shape] if case.shape else apps.ASK
        return Target(self._servers[case.server].port, path, case.dialed, case.numbers)

    @contextmanager
    def _with_complaints(self, case: Case) -> Iterator[None]:
        try:
            yield
        except load.LoadError as error:
            log = self._servers[case.server].complaints()
            raise load.LoadError(f"{case.section}: {case.name}: {error}\n{log}") from None

    def _cpu(self, case: Case) -> tuple[float, float]:
        on_postgres = self._postgres is not None and "postgres" in case.server
        database = servers.cpu_micros(self._postgres.pid) if self._postgres and on_postgres else 0.0
        return servers.cpu_micros(self._servers[case.server].pid), database

    def _gunicorn(self, name: str, command: Sequence[str], processes: int, **environ: str) -> Server:
        return self._started(name, command, WEB_CONCURRENCY=str(processes), **environ)

    def _started(self, name: str, command: Sequence[str], **environ: str) -> Server:
        folder = self._folder / name.replace(" ", "-")
        folder.mkdir()
        return self._stack.enter_context(Server(folder, command, PRESENCE_KEEPER="off", **environ))

    def _bare(self, name: str) -> Server:
        return self._gunicorn(name, gunicorn("bench.apps:bare()"), int(name.split()[1]))

    def _writes(self, name: str) -> Server:
        kind = name.split()[1]
        if kind == "sqlite":
            where = str(self._folder / "writes.db")
            apps.prepare_sqlite(Path(where))
        else:
            where = self._new_database("writes")
            apps.prepare_postgres(where)
        return self._gunicorn(name, gunicorn(f"bench.apps:{kind}_writes()"), PROCESSES[kind], BENCH_DATABASE=where)

    def _hook(self, name: str) -> Server:
        _, kind, *more = name.split()
        database = "_".join(["hook", *more])
        url = f"sqlite:///{self._folder}/{database}.db" if kind == "sqlite" else self._new_database(database)
        self._paths[name] = projects.seed(url, {case.shape for case in self._wanted if case.server == name})
        if more == ["full"]:
            self._full.append(url)
        worker = [] if set(more) <= {"full"} else ["-k", *more]
        return self._gunicorn(name, [*gunicorn(), *worker], PROCESSES[kind], DATABASE_URL=url)

    def _naive(self, name: str) -> Server:
        path = self._folder / "naive.db"
        apps.prepare_naive(path)
        logins = [projects.login(agent) for agent in range(TEAMS.agents)]
        status = self._started("status", [sys.executable, "-m", "bench.status_api", *logins])
        environ = {"BENCH_DATABASE": str(path), "BENCH_STATUS_API": status.url}
        return self._gunicorn(name, gunicorn("bench.apps:naive()"), NAIVE_PROCESSES, **environ)

    def _new_database(self, name: str) -> str:
        if self._postgres is None:
            self._postgres = self._stack.enter_context(servers.postgres(self._folder))
        self._databases.append(self._postgres.new_database(name))
        return self._databases[-1]
