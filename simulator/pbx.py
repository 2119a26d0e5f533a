"""Run the demo PBX: `with DemoPbx(PbxSettings(…)) as pbx:` in tests, `router demo-pbx` for people."""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal, Self

from simulator.cast import DEMO_NUMBERS, DEMO_STAFF, DEPARTMENTS, StaffMember, make_staff
from simulator.clock import Scheduler
from simulator.exchange import AnswerWith, Exchange
from simulator.faults import ENDPOINTS, KINDS, Fault, FaultError, Faults
from simulator.forms import ANSWERS, DEFAULT_NAMES, FORMS, Endpoint
from simulator.ledger import CallRecord, EventSent, Offer, Question, Report
from simulator.server import Api, Listener
from simulator.settings import PbxSettings, SettingsError

__all__ = [
    "DEMO_NUMBERS",
    "DEMO_STAFF",
    "DEPARTMENTS",
    "CallRecord",
    "DemoPbx",
    "EventSent",
    "Fault",
    "FaultError",
    "Offer",
    "PbxSettings",
    "Question",
    "Report",
    "SettingsError",
    "StaffMember",
    "main",
    "make_staff",
]

log = logging.getLogger("simulator")

PROJECT = Path(__file__).with_name("project.yaml")  # the configuration of the demo project

Until = Literal["destination", "outcome", "end"]
_UNTIL: dict[str, Callable[[CallRecord], bool]] = {
    "destination": lambda call: bool(call.offers or call.outcome),
    "outcome": lambda call: bool(call.outcome),
    "end": lambda call: call.ended,
}


class DemoPbx:
    """A PBX on a loopback port (a free one unless set). Raises OSError when the port is taken.

    `url` serves the status API; `control_url` only the control endpoint, also while the status API is dead. `faults`
    maps endpoints to faults: `pbx.faults["speaking"] = "slow:ms=300"`. `answer_with` replaces the hook by a function,
    such as `lambda call: pbx.ideal_answer(call)` for an ideal router.
    """

    def __init__(self, settings: PbxSettings | None = None, *, answer_with: AnswerWith | None = None) -> None:
        settings = settings or PbxSettings()
        self.settings = settings
        self.faults = Faults()
        self._scheduler = Scheduler(settings.speed)
        self._exchange = Exchange(settings, self._scheduler, answer_with)
        self._api = Api(self, self._exchange, self.faults, settings)
        self._public = Listener(settings.host, settings.port, self._api.handler)
        try:
            self._control = Listener(settings.host, settings.control_port, self._api.handler)
        except OSError:
            self._public.shut(for_good=True)
            raise
        self._watcher = threading.Thread(target=self._watch, name="demo-pbx-listener", daemon=True)

    @property
    def url(self) -> str:
        return f"http://{_shown(self._public.host)}:{self._public.port}"

    @property
    def control_url(self) -> str:
        return f"http://{_shown(self._control.host)}:{self._control.port}"

    def __enter__(self) -> Self:
        self._control.open()
        self._sync()
        self.faults.changed = self._sync
        self._watcher.start()
        self._exchange.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.changed = lambda: None
        self._api.closing.set()
        self._watcher.join()
        self._exchange.stop()
        self._public.shut(for_good=True)
        self._control.shut(for_good=True)

    # ---- states and calls by hand

    def set_state(self, login: str, state: str) -> None:
        """Set a login's state for good: `idle`, `speaking`, `offline`, `dnd`; with `auto` the simulation sets it again.

        Raises KeyError for an unknown login, ValueError for an unknown state.
        """
        self._exchange.set_state(login, state)

    def call(
        self,
        *,
        caller: str | None = None,
        dialed: str | None = None,
        params: Mapping[str, str] | None = None,
        form: str | None = None,
        answers: bool | None = None,
        talk_seconds: float | None = None,
        patience_seconds: float | None = None,
        until: Until = "outcome",
        timeout: float = 30.0,
    ) -> CallRecord:
        """Place one call now, and return its record when it has reached `until`: its first destination, its outcome
        (somebody answered, or the caller was lost), or its end.

        Arguments that are not given come from the seed. `answers` forces what agents do; an empty caller is anonymous.
        Raises ValueError, and TimeoutError after `timeout` real seconds.
        """
        if until not in _UNTIL:
            raise ValueError(f"until must be one of {', '.join(_UNTIL)}, not {until!r}")
        if form is not None and form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
        record = self._exchange.place_call(
            caller=caller,
            dialed=dialed,
            params=params,
            form=form,
            answers=answers,
            talk_seconds=talk_seconds,
            patience_seconds=patience_seconds,
        )
        with self._scheduler.lock:
            if not self._exchange.changed.wait_for(lambda: _UNTIL[until](record), timeout):
                raise TimeoutError(f"call {record.number} has not come to its {until} within {timeout:g} s")
        return record

    # ---- calls by the plan

    def start_calls(self, total: int | None = None) -> None:
        """Let callers arrive from now on: `total` of them, or for ever."""
        self._exchange.place_calls(total)

    def stop_calls(self) -> None:
        self._exchange.stop_calls()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all calls have ended and all events are sent. Return False after the timeout."""
        return self._exchange.wait_idle(timeout)

    def run(self, calls: int, *, timeout: float | None = None) -> Report:
        """Let `calls` callers arrive, wait until all calls have ended, return the report. After `timeout` real seconds
        it stops waiting; `in_progress` is then the number of calls that are left.
        """
        self.start_calls(calls)
        if not self.wait(timeout):
            self.stop_calls()
        return self.report()

    def wait_for_hook(self, stop: threading.Event, *, every: float = 0.5) -> bool:
        """Wait until a server listens at the hook's URL. Return False if `stop` is set before."""
        if not self.settings.hook_url:
            return not stop.is_set()
        address = Endpoint.parse(self.settings.hook_url).address
        is_announced = False
        while not stop.is_set():
            try:
                with socket.create_connection(address, timeout=2.0):
                    return True
            except OSError:
                if not is_announced:
                    log.info("waiting for the hook at %s:%d to listen", *address)
                    is_announced = True
            stop.wait(every)
        return False

    # ---- records

    @property
    def calls(self) -> list[CallRecord]:
        """The calls so far, oldest first; at most the last `keep_calls`."""
        with self._scheduler.lock:
            return list(self._exchange.ledger.calls)

    def report(self) -> Report:
        with self._scheduler.lock:
            return self._exchange.ledger.report(self._scheduler.worst_lag)

    def ideal_answer(self, call: CallRecord) -> str:
        """Return the answer of an ideal router, which knows every state at once: see `answer_with`."""
        return self._exchange.ideal_answer(call)

    # ---- the listener, by the faults

    def _watch(self) -> None:
        while not self._api.closing.wait(0.05):  # faults may end, and come and go
            self._sync()

    def _sync(self) -> None:
        if self._api.closing.is_set():
            return
        if self.faults.is_dead():
            self._public.shut()
        else:
            self._public.open()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# ---- the command

# Settings of a lively demo; PbxSettings' defaults are calm. With eight people at this load some callers find nobody.
LIVELY: dict[str, object] = {
    "talk_seconds": 20.0,
    "patience_seconds": 120.0,
    "answer_probability": 0.92,
    "answer_probabilities": {"Dave": 0.6},
    "own_calls_per_hour": 6.0,
    "own_talk_seconds": 30.0,
    "shift_seconds": 1800.0,
    "away_seconds": 180.0,
    "transfer_probability": 0.05,
    "duplicate_probability": 0.02,
}

# (flag = field of PbxSettings, type, help)
_FLAGS: dict[str, tuple[tuple[str, type, str], ...]] = {
    "the project": (
        ("host", str, "address to listen on"),
        ("port", int, "of the status API; 0: a free one"),
        ("control-port", int, "of the control endpoint that stays up; 0: a free one"),
        ("auth-key", str, "the Auth-key that the status API wants"),
        ("project-id", str, "of the Smart Phone variant"),
        ("token", str, "of the Smart Phone variant"),
        ("time-zone", str, "of the dates in the call log"),
        ("latency-ms", float, "of the status API"),
    ),
    "the hook": (
        ("hook-url", str, "whom to ask; without it calls are lost"),
        ("event-url", str, "whom to tell about events; without it nobody"),
        ("form", str, f"how to ask: {', '.join(FORMS)}, mixed"),
        ("answer", str, f"how to read: auto (as asked), {', '.join(ANSWERS)}"),
        ("answer-key", str, "name of the destination in a JSON answer"),
        ("rpc-method", str, "method name in JSON-RPC"),
        ("percent-encoded", str, "values percent-encoded inside JSON: none, step, all"),
        ("query-encoding", str, "percent, raw-utf-8, raw-cp1251"),
        ("content-type", str, "sent instead of the right one; empty: none"),
        ("hook-timeout-ms", float, "how long to wait for an answer"),
        ("budget-ms", float, "an answer after this counts as late"),
        ("steps", int, "how often one call may ask"),
        ("on-failure", str, "after a useless answer: next_step, lost"),
        ("duplicate-probability", float, "ask the same question twice"),
    ),
    "callers": (
        ("seed", int, "of everything random"),
        ("calls-per-minute", float, "how many arrive, on average"),
        ("callers", int, "how many different people call"),
        ("anonymous-probability", float, "that a caller hides the number"),
        ("talk-seconds", float, "mean talk"),
        ("patience-seconds", float, "mean time until a caller hangs up; 0: never"),
    ),
    "agents": (
        ("ring-seconds", float, "how long one login rings"),
        ("answer-probability", float, "that an agent picks up"),
        ("own-calls-per-hour", float, "outgoing calls of each person"),
        ("own-talk-seconds", float, "mean talk of those"),
        ("shift-seconds", float, "mean time at work; 0: always"),
        ("away-seconds", float, "mean time away"),
        ("transfer-probability", float, "that a talk is handed to a colleague"),
    ),
    "events": (
        ("event-form", str, "as --form"),
        ("event-loss", float, "probability"),
        ("event-delay-ms", float, "mean"),
        ("event-duplicates", float, "probability"),
        ("event-reorder", float, "probability to be overtaken"),
        ("event-reorder-ms", float, "by how much"),
    ),
    "the machine": (
        ("speed", float, "simulated seconds in a real one"),
        ("hook-workers", int, "questions asked at the same time, at most"),
        ("event-workers", int, "events sent at the same time, at most"),
        ("settle-ms", float, "how long the router may take to store what it was told"),
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="router demo-pbx",
        description="A simulated cloud PBX: serves the status API, lets calls arrive at the hook, sends call events.",
        epilog="Control over HTTP, from this machine only: GET /control/report, GET and POST /control/agents, "
        "GET and POST /control/faults, POST /control/calls.",
    )
    calm = PbxSettings()
    for title, flags in _FLAGS.items():
        group = parser.add_argument_group(title)
        for flag, kind, text in flags:
            name = flag.replace("-", "_")
            default = LIVELY.get(name, getattr(calm, name))
            shown = "" if default in {"", None} else f" (default {default})"
            group.add_argument(f"--{flag}", type=kind, default=argparse.SUPPRESS, metavar="X", help=f"{text}{shown}")
    life = parser.add_argument_group("the run")
    life.add_argument("--erlangs", type=float, metavar="X", help="offered load, instead of --calls-per-minute")
    life.add_argument("--agents", type=int, metavar="N", help="a staff of N people instead of the demo cast")
    text = f"name of a hook parameter, empty to leave it out; roles: {', '.join(DEFAULT_NAMES)}"
    life.add_argument("--name", action="append", default=[], metavar="ROLE=NAME", help=text)
    text = f"endpoints: {', '.join(ENDPOINTS)}, * for all; kinds: {', '.join(KINDS)}"
    life.add_argument("--fault", action="append", default=[], metavar="ENDPOINT=KIND[:FIELD=VALUE,…]", help=text)
    life.add_argument("--calm", action="store_true", help="nobody comes or goes, everybody answers")
    life.add_argument("--calls", type=int, metavar="N", help="end after so many calls; 0: serve the status API alone")
    life.add_argument(
        "--progress", type=float, default=60.0, metavar="S", help="seconds between progress lines; 0: none"
    )
    life.add_argument("--report", type=Path, metavar="FILE", help="write the report there as JSON at the end")
    return parser


def _settings(arguments: argparse.Namespace) -> PbxSettings:
    given = vars(arguments)
    names = {flag.replace("-", "_") for flags in _FLAGS.values() for flag, _, _ in flags}
    values: dict[str, object] = {} if arguments.calm else dict(LIVELY)
    values |= {name: given[name] for name in names if name in given}
    if "answer_probability" in given:
        values.pop("answer_probabilities", None)
    if arguments.erlangs is not None:
        if "calls_per_minute" in given:
            raise SettingsError("erlangs: give either --erlangs or --calls-per-minute")
        talk = values.get("talk_seconds", PbxSettings().talk_seconds)
        values["calls_per_minute"] = arguments.erlangs * 60 / float(str(talk))
    if arguments.agents is not None:
        values["staff"] = make_staff(arguments.agents)
    if arguments.name:
        values["names"] = DEFAULT_NAMES | dict(_split(pair, "--name", "ROLE=NAME") for pair in arguments.name)
    settings = PbxSettings(**values)  # type: ignore[arg-type]  # argparse converts each; PbxSettings checks the values
    for url in filter(None, (settings.hook_url, settings.event_url)):
        Endpoint.parse(url)
    return settings


def _split(text: str, flag: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"{flag}: must be {form}, not {text!r}")
    return name, value


def main(argv: Sequence[str] | None = None) -> int:
    """Run `router demo-pbx`. Return 0 at the end of the run, or on TERM and INT; 1 if it cannot listen; exit 2 on bad
    usage.

    Prints a line of progress now and then, and a summary at the end.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    faults = Faults()
    try:
        settings = _settings(arguments)
        for text in arguments.fault:
            endpoint, kind = _split(text, "--fault", "ENDPOINT=KIND")
            faults[endpoint] = Fault.parse(kind)
    except ValueError as error:
        parser.error(str(error))
    try:
        pbx = DemoPbx(settings)
    except OSError as error:
        ports = f"ports {settings.port} and {settings.control_port}"
        sys.stderr.write(f"router demo-pbx: cannot listen on {settings.host}, {ports}: {error.strerror}\n")
        return 1
    pbx.faults.update(faults)
    return _run(pbx, arguments)


def _run(pbx: DemoPbx, arguments: argparse.Namespace) -> int:
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    speaker = logging.StreamHandler()
    speaker.setFormatter(logging.Formatter("demo-pbx: %(message)s"))
    log.addHandler(speaker)
    log.setLevel(logging.INFO)
    propagated, log.propagate = log.propagate, False
    try:
        with pbx:
            log.info("status API at %s, control at %s", pbx.url, pbx.control_url)
            if arguments.calls != 0 and pbx.wait_for_hook(stop):
                pbx.start_calls(arguments.calls)
            _follow(pbx, stop, arguments.progress, ends=bool(arguments.calls))
            pbx.stop_calls()
            report = pbx.report()
    finally:
        log.removeHandler(speaker)
        log.propagate = propagated
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.stdout.write(report.summary() + "\n")
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 0


def _follow(pbx: DemoPbx, stop: threading.Event, every: float, *, ends: bool) -> None:
    """Print the progress until `stop` is set or the last call has ended: a line that is rewritten on a terminal, else a
    new one now and then.
    """
    terminal = sys.stderr.isatty()
    next_line = time.monotonic() + (1.0 if terminal else every) if every else math.inf
    while not stop.is_set():
        if ends:
            if pbx.wait(0.2):
                break
        else:
            stop.wait(0.2)
        if time.monotonic() < next_line:
            continue
        if terminal:
            sys.stderr.write(f"\r\x1b[K{pbx.report().line()}")
            sys.stderr.flush()
            next_line += 1.0
        else:
            log.info("%s", pbx.report().line())
            next_line += every
    if terminal and every:
        sys.stderr.write("\n")
