"""A day of the demo PBX without waiting: calls are routed, events heard and phones polled in simulated time.

The same seed brings the same callers, whatever the configuration, so that two configurations can be compared.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import time_machine
from sqlalchemy import select, update

from router.configuration import apply, load
from router.core.events import CallEvent, Disposition, EventKind, parse_disposition
from router.core.lifecycle import Step
from router.core.model import Call, Project, Status
from router.db import models, queries
from router.db.claim import AgentRow
from router.db.records import answer_as_json, trials_as_json
from router.db.session import Database
from router.db.types import from_micros, to_micros
from router.explanation.memory import Answered, Memory, Reading
from router.presence import source as presence
from router.presence.events import apply_event
from router.presence.readings import Readings
from router.presence.settle import settle, tidy
from router.routing.route import Routing
from simulator.clock import Scheduler
from simulator.exchange import Exchange, LiveCall
from simulator.ledger import CallRecord
from simulator.plan import answers_after
from simulator.settings import PbxSettings

MORNING = datetime(2026, 11, 24, 6, tzinfo=UTC)
POLL = 5.0
_SECONDS = {"billsec", "duration", "waittime"}


class SimulatedDay:
    """An exchange whose calls this database routes. `change`: what an admin does, by seconds after the beginning."""

    def __init__(self, database: Database, settings: PbxSettings, configuration: str, *, tells: bool = True) -> None:
        self.database, self.settings, self.configuration, self.tells = database, settings, configuration, tells
        self.luck = 0
        self.changes: list[tuple[float, Callable[[SimulatedDay], None]]] = []
        self.outages: list[tuple[float, float]] = []  # of the source of presence
        self.polls = 0

    def run(self, calls: int) -> Sequence[CallRecord]:
        """Let so many callers call, and return what became of their calls."""
        with time_machine.travel(MORNING, tick=False) as clock, _simulated_time(self.luck):
            self.clock, self.began = clock, time.time()
            self.prepare()
            self.scheduler = _Immediate(self)
            self.exchange = _Exchange(self, self.scheduler)
            self.poll()
            for seconds, job in self.changes:
                self.scheduler.after(seconds, partial(job, self))
            self.exchange.start()
            self.exchange.place_calls(calls)
            self.scheduler.run(lambda: not self.exchange.is_over)
        return list(self.exchange.ledger.calls)

    def prepare(self) -> None:
        """Make the project."""
        apply(self.database, load(self.configuration, {}))
        with self.database.writing() as session:
            self.project_id = queries.project_named(session, "acme").id
            session.add(models.Presence(project_id=self.project_id))
        self.routing, self.readings = Routing(self.database), Readings(self.database)

    @property
    def project(self) -> Project:
        return self.routing.projects.known(self.project_id).published.project

    def answer(self, record: CallRecord) -> str:
        """Route a call."""
        return self.routing.route_call(self.project_id, asked(record), deadline=time.monotonic() + 60).destination

    def hear(self, event: CallEvent) -> None:
        """Apply an event."""
        apply_event(self.database, self.project, event, datetime.now(UTC))

    def keep(self, online: frozenset[str], speaking: frozenset[str], now: datetime) -> None:
        """Store a reading of presence, and what follows from it."""
        reading, interval = presence.Reading(online, speaking), timedelta(seconds=POLL)
        self.readings.keep(
            self.project_id, reading, began_at=now, took=timedelta(0), next_poll_at=now + interval, now=now
        )
        self.polls += 1
        if not self.tells or self.polls % 6 == 0:
            settle(self.database, self.project, now)
            tidy(self.database, self.project, now)

    def configure(self, configuration: str) -> None:
        """Apply another file."""
        apply(self.database, load(configuration, {}))
        self.routing.projects.load(self.project_id)

    def take_a_break(self, name: str) -> None:
        """Set an agent's status as the board does."""
        now, status = datetime.now(UTC), Status.ON_BREAK.value
        with self.database.writing() as session:
            agent = session.scalars(select(models.Agent).where(models.Agent.name == name)).one()
            values = {"status": status, "status_since_at": now}
            session.execute(update(models.AgentState).where(models.AgentState.agent_id == agent.id).values(values))
            entry = {"actor": "Bob", "action": "changed", "subject": "agent", "project_id": self.project_id}
            before, after = {"status": Status.AVAILABLE.value}, {"status": status}
            session.add(models.AuditEntry(at=now, subject_id=agent.id, before=before, after=after, **entry))

    def poll(self) -> None:
        """Read presence, unless its source is out of order, and again after a while."""
        lines, passed = self.exchange.lines, time.time() - self.began
        if not any(begin <= passed < end for begin, end in self.outages):
            online = lines.online(smart_phone=False) + lines.online(smart_phone=True)
            self.keep(frozenset(online), frozenset(lines.speaking()), datetime.now(UTC))
        self.scheduler.after(POLL, self.poll)


def asked(record: CallRecord) -> Call:
    """Return the call as the hook reads it."""
    step = record.questions[-1].step_forward
    return Call(record.call_id, step, record.caller, record.dialed, "in", record.params)


@contextmanager
def _simulated_time(luck: int) -> Iterator[None]:
    """Let the exchange's monotonic clock be the one that is moved."""

    def after(settings: PbxSettings, number: int, person: str, login: str) -> float | None:
        return answers_after(settings, number + 1_000_000 * luck, person, login)

    with ExitStack() as stack:
        for name in ("clock", "exchange", "ledger", "lines"):
            stack.enter_context(patch(f"simulator.{name}.time", SimpleNamespace(monotonic=time.time)))
        stack.enter_context(patch("simulator.exchange.answers_after", after))
        yield


class RememberedDay(SimulatedDay):
    """The same without a database: many times as fast. With other `luck`, agents do not pick up the same calls."""

    def __init__(self, settings: PbxSettings, project: Project, *, luck: int = 0) -> None:
        self.settings, self.tells, self.changes, self.outages = settings, True, [], []
        self.fixed, self.luck = project, luck
        self.answers: list[tuple[Call, int, Answered, int]] = []  # with the instant, and the number of the reading
        self.seen: list[Reading] = []

    @property
    def project(self) -> Project:
        return self.fixed

    def prepare(self) -> None:
        agents = [AgentRow(agent, available_since_at=to_micros(MORNING)) for agent in self.fixed.agents]
        self.memory = Memory(self.fixed.time_zone, agents, ())
        self.reading = Reading()

    def answer(self, record: CallRecord) -> str:
        call, now = asked(record), to_micros(datetime.now(UTC))
        answered = self.memory.ask(self.fixed, call, call.call_id, now, self.reading)
        self.answers.append((call, now, answered, len(self.seen)))
        return answered.decision.answer.destination

    def hear(self, event: CallEvent) -> None:
        self.memory.hear(self.fixed, event, to_micros(datetime.now(UTC)))

    def keep(self, online: frozenset[str], speaking: frozenset[str], now: datetime) -> None:
        self.reading = Reading(to_micros(now), online, speaking)
        if not self.seen or self.seen[-1][1:] != self.reading[1:]:
            self.seen.append(self.reading)

    def write(self, database: Database, configuration: str) -> None:
        """Write the day into the log of a new database."""
        apply(database, load(configuration, {}))
        with database.writing() as session:
            for number, reading in enumerate(self.seen, start=1):
                began_at = from_micros(reading.began_at or 0)
                names = {"online": sorted(reading.online), "speaking": sorted(reading.speaking)}
                session.add(models.PresenceSnapshot(id=number, project_id=1, began_at=began_at, **names))
            steps = {step.id: step for call, *_ in self.answers for step in self.memory.steps(call.call_id)}
            for number, (call, _, answered, snapshot) in enumerate(self.answers, start=1):
                session.add(_row(number, call, answered, snapshot, steps[number]))


def _row(number: int, call: Call, answered: Answered, snapshot: int, step: Step) -> models.Decision:
    decision, inputs = answered
    asked = {"step": call.step, "caller": call.caller, "dialed": call.dialed}
    record = {
        "call": {**asked, "direction": call.direction, "params": call.params},
        "inputs": inputs.as_json(),
        "trials": trials_as_json(decision),
        "answer": answer_as_json(decision),
    }
    names = {field.name for field in fields(Step)} - {"id", "login", "rings_until"}
    return models.Decision(
        **asked,
        **{name: getattr(step, name) for name in names},
        id=number,
        project_id=1,
        call_id=call.call_id,
        sip_login=step.login,
        rule_id=decision.rule_id,
        result=decision.result,
        config_version=1,
        snapshot_id=snapshot,
        latency_us=0,
        record=record,
    )


class _Immediate(Scheduler):
    """Runs jobs one after the other, and moves the clock to when each is due."""

    def __init__(self, day: SimulatedDay) -> None:
        super().__init__(1.0)
        self.day = day

    def start(self) -> None:
        """No thread."""

    def run(self, goes_on: Callable[[], bool]) -> None:
        while self._heap and goes_on():
            due, _, timer = heapq.heappop(self._heap)
            if timer.job is not None:
                ahead = due - time.time()
                if ahead > 0:
                    self.day.clock.shift(timedelta(seconds=ahead))
                with self.lock:
                    timer.job()


class _Exchange(Exchange):
    """Its events are heard at once."""

    def __init__(self, day: SimulatedDay, scheduler: Scheduler) -> None:
        super().__init__(day.settings, scheduler, day.answer)
        self.day = day

    @property
    def is_over(self) -> bool:
        return not self._to_come and not self._live

    def _emit(self, live: LiveCall, event: str, login: str = "", **fields: str) -> None:
        if not self.day.tells:
            return
        record, seconds = live.record, {name: int(value) for name, value in fields.items() if name in _SECONDS}
        heard = CallEvent(
            EventKind(event),
            record.call_id,
            sip_login=fields.get("sip_login", fields.get("connected_with", "")),
            caller=fields.get("caller", record.caller),
            dialed=record.dialed,
            direction=fields.get("call_type", "in"),
            disposition=parse_disposition(fields.get("disposition", "")) or Disposition.UNKNOWN,
            answered=True if event == "pickup" else None,
            billsec=seconds.get("billsec"),
            duration=seconds.get("duration"),
            waittime=seconds.get("waittime"),
        )
        self.day.hear(heard)
