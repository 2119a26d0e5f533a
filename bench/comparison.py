"""`python -m bench.comparison`: how many callers reach nobody, with this router and with others, on the same calls.

The demo PBX plays the same calls to each: to an ideal router that knows every state at once, to this service with and
without call events, and to the script that asks the status API on each call. `--write` stores the tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bench import apps
from bench.published import publish
from router.db import migrate
from simulator.cast import StaffMember, make_staff
from simulator.ledger import CallRecord, Report
from simulator.pbx import DemoPbx
from simulator.processes import Server, free_port, gunicorn
from simulator.service import Service
from simulator.settings import PbxSettings

AGENTS = 20
ERLANGS = 17.0
TALK_SECONDS = 60.0
RINGS_SECONDS = (2.0, 8.0)  # until an agent picks up
POLL_SECONDS = 2.0  # in simulated time, a project's default; limited by what the service allows in real time
SHORTEST_POLL_SECONDS = 0.1
API_LATENCY_MS = 80.0  # in simulated time
CALLS, SPEED, IDEAL_SPEED = 500, 40.0, 150.0
TOLERANCE = 0.02  # the most by which this service may lose more calls than the ideal router
DOCUMENT = Path(__file__).parents[1] / "docs" / "routing-quality.md"

PLAIN = PbxSettings(
    staff=make_staff(AGENTS),
    auth_key="key",
    seed=7,
    calls_per_minute=ERLANGS * 60 / (TALK_SECONDS + sum(RINGS_SECONDS) / 2),
    talk_seconds=TALK_SECONDS,
    answer_after_seconds=RINGS_SECONDS,
    ring_seconds=20.0,
    hook_timeout_ms=10_000.0,
    budget_ms=3000.0,
)
LIVELY = replace(
    PLAIN,
    calls_per_minute=PLAIN.calls_per_minute * 0.8,  # the agents are busy with other things too
    answer_probability=0.93,
    patience_seconds=180.0,
    own_calls_per_hour=5.0,
    own_talk_seconds=40.0,
    shift_seconds=1800.0,
    away_seconds=180.0,
    transfer_probability=0.05,
    duplicate_probability=0.05,
    event_loss=0.02,
    event_duplicates=0.02,
)
DAYS = {"plain": PLAIN, "lively": LIVELY}


class Result(NamedTuple):
    """The outcome of a day's calls with one router."""

    router: str
    report: Report
    speed: float

    @property
    def lost(self) -> float:
        """Return the share of callers whom no agent answered."""
        return 1 - self.report.answered / self.report.calls


def erlang_b(servers: int, erlangs: float) -> float:
    """Return the share of calls that find all servers busy if no caller waits (Erlang, 1917)."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = erlangs * blocked / (n + erlangs * blocked)
    return blocked


# ---- the routers


def ideal(day: PbxSettings, calls: int, speed: float) -> Report:
    """Route by the true states, in the simulator itself. That takes no time, so that the day may pass faster."""
    found: list[DemoPbx] = []

    def answer(call: CallRecord) -> str:
        return found[0].ideal_answer(call)

    with DemoPbx(replace(day, speed=max(speed, IDEAL_SPEED)), answer_with=answer) as pbx:
        found.append(pbx)
        return pbx.run(calls)


def service_with_events(day: PbxSettings, calls: int, speed: float) -> Report:
    """Route by the service as it is deployed, on SQLite."""
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), day, speed) as settings:
        return _play(settings, calls)


def service_without_events(day: PbxSettings, calls: int, speed: float) -> Report:
    """Route by the service without call events: it only polls the status API."""
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), day, speed) as settings:
        return _play(replace(settings, event_url=""), calls)


def script(day: PbxSettings, calls: int, speed: float) -> Report:
    """Route by bench.apps.naive, under the same web server."""
    with tempfile.TemporaryDirectory() as folder:
        counter, api_port = Path(folder) / "counter.db", free_port()
        apps.prepare_naive(counter)
        environ = {"BENCH_STATUS_API": f"http://127.0.0.1:{api_port}", "BENCH_DATABASE": str(counter)}
        with Server(Path(folder), gunicorn("bench.apps:naive()"), WEB_CONCURRENCY="4", **environ) as server:
            return _play(_at_speed(replace(day, hook_url=f"{server.url}{apps.ASK}", port=api_port), speed), calls)


ROUTERS: dict[str, Callable[[PbxSettings, int, float], Report]] = {
    "ideal: knows every state at once": ideal,
    "this service, with events": service_with_events,
    "this service, without events": service_without_events,
    "script: asks on each call": script,
}


def _at_speed(day: PbxSettings, speed: float) -> PbxSettings:
    return replace(day, speed=speed, latency_ms=API_LATENCY_MS / speed, settle_ms=500.0)


def _play(settings: PbxSettings, calls: int) -> Report:
    with DemoPbx(settings) as pbx:
        time.sleep(1.0)  # until presence is known
        return pbx.run(calls)


@contextmanager
def _service(folder: Path, day: PbxSettings, speed: float) -> Iterator[PbxSettings]:
    """Start two processes on a database. Yield the settings of the PBX that calls them."""
    api_port = free_port()
    service = Service(folder, f"sqlite:///{folder}/router.db")
    migrate.upgrade(service.database)
    service.configure(_configuration(day.staff, api_port, day, speed))
    hook = service.hook_url("acme")
    with service:
        yield _at_speed(replace(day, hook_url=hook, event_url=f"{hook}/event", port=api_port), speed)


def _configuration(staff: Sequence[StaffMember], api_port: int, day: PbxSettings, speed: float) -> str:
    """Return a configuration with everybody in one group and without pauses, which the ideal router lacks too."""
    agents = ", ".join(f"{{name: {member.name}, sip_logins: [{', '.join(member.logins)}]}}" for member in staff)
    members = ", ".join(f"{{agent: {member.name}}}" for member in staff)
    poll = max(SHORTEST_POLL_SECONDS, POLL_SECONDS / speed)
    ring = day.ring_seconds / speed + 0.2
    return f"""
projects:
  - name: acme
    overflow: "{apps.OVERFLOW}"
    cool_down_seconds: 0
    break_after_no_answers: 0
    presence: {{api_url: "http://127.0.0.1:{api_port}", auth_key: key, poll_seconds: {poll}, fresh_seconds: {5 * poll}}}
    agents: [{agents}]
    groups: [{{name: everybody, strategy: longest_idle, ring_seconds: {ring}, members: [{members}]}}]
    rules: [{{name: all, groups: [everybody]}}]
"""


# ---- the tables


def table(name: str, results: Sequence[Result]) -> str:
    """Return one day's results as Markdown. The first is the ideal router."""
    calls = results[0].report.calls
    lines = [f"**{_TITLES[name]}** {calls} calls.\n", "| router | lost | more than ideal | to a busy phone | waited |"]
    lines.append("|---|---|---|---|---|")
    if name == "plain":
        lines.append(f"| Erlang B: all that {AGENTS} agents can do | {erlang_b(AGENTS, ERLANGS):.1%} | | | |")
    for result in results:
        report = result.report
        more = f"{100 * (result.lost - results[0].lost):+.1f} points" if result is not results[0] else ""
        wrong = f"{report.wrong} of {report.offers}"
        lines.append(f"| {result.router} | {result.lost:.1%} | {more} | {wrong} | {report.mean_wait_seconds:.1f} s |")
    return "\n".join(lines) + "\n"


_TITLES = {
    "plain": f"A plain day: {AGENTS} agents, {ERLANGS:g} erlangs, everybody answers, nobody else calls.",
    "lively": "A lively day: one call in 14 is not answered, agents dial, come, go and hand calls over, callers lose "
    "patience, one event in 50 is lost.",
}


def footnote(results: Sequence[Result]) -> str:
    """Return how far the figures can be trusted, and whom their errors disadvantage."""
    slowest = max(
        (r for r in results if r.report.hook_latency_ms["max"]), key=lambda r: r.report.hook_latency_ms["p99"]
    )
    p99 = slowest.report.hook_latency_ms["p99"]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}. Run {slowest.speed:g} times as fast as life, so that the slowest answers took "
        f"{p99:.0f} ms of this machine, or {p99 * slowest.speed / 1000:.1f} s of the simulated day (p99).\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 within the tolerance, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.comparison", description="Lost calls, router by router.")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"of each run (default {CALLS})")
    parser.add_argument(
        "--speed", type=float, default=SPEED, help=f"simulated seconds in a real one (default {SPEED:g})"
    )
    parser.add_argument("--day", choices=DAYS, action="append", help="only this day; may be repeated")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    given = parser.parse_args(arguments)
    text, everything, good = "", [], True
    for name in given.day or DAYS:
        results = []
        for router, run in ROUTERS.items():
            print(f"{name}: {router}", file=sys.stderr)
            report = run(DAYS[name], given.calls, given.speed)
            print("\n".join(line for line in report.summary().splitlines() if "_agent_" not in line), file=sys.stderr)
            results.append(Result(router, report, given.speed))
        text += table(name, results) + "\n"
        everything += results
        good = good and results[1].lost - results[0].lost <= TOLERANCE
    text += footnote(everything)
    print(text)
    if given.write:
        publish(DOCUMENT, "comparison", f"\n{text}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
