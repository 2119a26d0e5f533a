"""Questions, copies, next steps, events and time in any order, on a real database with a clock of ours.

The machine keeps its own book of whom it was told to expect a call, and judges each answer by that and by what stands
in the tables, read without the code under test.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.engine import make_url

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Offer, Status
from router.db import models, queries
from router.presence.events import apply_event
from router.routing.route import recompute
from tests.world import OVERFLOW, World

BEGINNING = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
AGENTS = ["ann", "ben", "cat", "dan"]
GROUPS = {"1": ["ann", "ben", "cat"], "2": ["cat", "dan"]}
CHAINS = {"1": ["1"], "2": ["2", "1"]}  # by the number dialed
RING = {"1": timedelta(seconds=25), "2": timedelta(seconds=8)}
RETRY = timedelta(seconds=5)
CALLS = ["", "a", "b", "c", "d"]
STEPS = ["1", "2", "3"]


@dataclass
class Told:
    """What a question was answered, and when."""

    destination: str
    decision_id: int
    at: datetime


class Telephony(RuleBasedStateMachine):
    """`template`: a migrated database file with the project configured."""

    template: Path
    folder: Path
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        path = self.folder / f"run{self.runs}.db"
        shutil.copyfile(self.template, path)
        self.clock = time_machine.travel(BEGINNING, tick=False)
        self.traveller = self.clock.start()
        self.world = World(f"sqlite+pysqlite:///{path}", self.folder)
        self.world.project_id = 1
        self.routings = [self.world.routing(), self.world.routing()]  # two processes
        with self.world.database.reading() as session:
            self.project = queries.load_published(session, 1).project
        self.answers: dict[tuple[str, str], Told] = {}
        self.named: dict[str, set[str]] = {}  # by call: the logins it was ever offered
        self.promised: dict[str, tuple[str, int, datetime]] = {}  # by login: call, decision, until
        self.online, self.speaking = set(AGENTS), set[str]()

    def teardown(self) -> None:
        with self.world.database.reading() as session:
            for row in session.scalars(select(models.Decision)):
                assert recompute(session, row.id).is_same
        self.world.database.dispose()
        self.clock.stop()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    # ---- what stands in the tables

    def leases(self) -> dict[str, models.Reservation]:
        return {login: row for login, row in self.world.reservations().items() if row.expires_at > self.now}

    def is_free(self, agent: str, call: str) -> bool:
        """May this agent be offered this call now, as far as the tables say?"""
        with self.world.database.reading() as session:
            state = session.get_one(models.AgentState, self.world.agent_id(session, agent))
            said = session.get(models.LoginState, (1, agent))
        talks = agent in self.speaking if said is None or said.event_speaking is None else said.event_speaking
        lease = self.leases().get(agent)
        return (
            agent in self.online
            and not talks
            and (lease is None or (call != "" and lease.call_id == call))
            and state.status == Status.AVAILABLE
            and not any(until and until > self.now for until in (state.cooling_until, state.wrap_up_until))
            and agent not in self.named.get(call, ())
        )

    def everything(self) -> list[list[object]]:
        kinds = (models.Decision, models.Reservation, models.AgentState, models.MemberClock)
        with self.world.database.reading() as session:
            return [list(session.execute(select(*kind.__table__.columns)).all()) for kind in kinds]

    # ---- what happens

    @initialize()
    def everybody_comes(self) -> None:
        self.world.see(AGENTS)

    @rule(
        call=st.sampled_from(CALLS),
        step=st.sampled_from(STEPS),
        dialed=st.sampled_from(["1", "2"]),
        process=st.integers(0, 1),
    )
    def a_question_comes(self, call: str, step: str, dialed: str, process: int) -> None:
        known = self.answers.get((call, step)) if call else None
        if known is not None and self.now - known.at <= RETRY:
            before = self.everything()
            told = self.world.ask(call, step, routing=self.routings[process], dialed=dialed)
            assert (told.destination, told.decision_id) == (known.destination, known.decision_id)
            assert self.everything() == before
            return
        free = {agent for agent in AGENTS if self.is_free(agent, call)}
        told = self.world.ask(call, step, routing=self.routings[process], dialed=dialed)
        assert told.degraded == ""
        assert told.decision is not None
        if call:
            self.answers[call, step] = Told(told.destination, told.decision_id, self.now)
        asked = [free & set(GROUPS[group]) for group in CHAINS[dialed]]
        first = next((members for members in asked if members), set[str]())
        assert told.destination in (first or {OVERFLOW}), f"free: {asked}"
        for login, (holder, _, _) in list(self.promised.items()):
            if call and holder == call:
                del self.promised[login]  # who was named before did not answer
        if isinstance(told.decision.answer, Offer):
            login = told.destination
            holder, _, until = self.promised.get(login, ("", 0, self.now))
            assert until <= self.now, f"{login} is promised to {holder or 'a call without id'}"
            assert login not in self.named.get(call, ())
            if call:
                self.named.setdefault(call, set()).add(login)
            group = next(group for group in CHAINS[dialed] if free & set(GROUPS[group]))
            self.promised[login] = (call, told.decision_id, self.now + RING[group])

    @rule(seconds=st.sampled_from([1, 4, 6, 9, 26, 31, 600]))
    def time_passes(self, seconds: int) -> None:
        self.traveller.shift(timedelta(seconds=seconds))

    @rule(call=st.sampled_from(CALLS[1:]), agent=st.sampled_from(AGENTS))
    def somebody_picks_up(self, call: str, agent: str) -> None:
        """Whether offered the call or not, first or late or again: what is told of a call ends its promises."""
        self.tell(CallEvent(EventKind.PICKUP, call, sip_login=agent))

    @rule(call=st.sampled_from(CALLS[1:]), answered=st.booleans())
    def a_call_ends(self, call: str, answered: bool) -> None:
        disposition = Disposition.ANSWERED if answered else Disposition.NO_ANSWER
        self.tell(CallEvent(EventKind.AFTER_CALL, call, disposition=disposition, answered=answered))

    def tell(self, event: CallEvent) -> None:
        self.traveller.shift(timedelta(milliseconds=1))  # an event of a reading's very instant would be no newer
        apply_event(self.world.database, self.project, event)
        held = {row.sip_login for row in self.world.reservations().values() if row.call_id == event.call_id}
        for login, (holder, _, _) in list(self.promised.items()):
            if holder == event.call_id and login not in held:
                del self.promised[login]

    @rule(online=st.sets(st.sampled_from(AGENTS), min_size=1), speaking=st.sets(st.sampled_from(AGENTS), max_size=1))
    def the_source_is_read(self, online: set[str], speaking: set[str]) -> None:
        """A reading that begins now is newer than all that events said."""
        self.online, self.speaking = online, speaking
        self.world.see(sorted(online), sorted(speaking))
        with self.world.database.writing() as session:
            for said in session.scalars(select(models.LoginState)):
                said.event_speaking, said.event_at = None, None

    @rule()
    def who_is_on_break_comes_back(self) -> None:
        for agent in AGENTS:
            self.world.declare(agent, status=Status.AVAILABLE, no_answers=0)

    # ---- what always holds

    @invariant()
    def every_promise_is_a_lease_and_every_lease_a_promise(self) -> None:
        kept = {login: (row.call_id, row.decision_id, row.expires_at) for login, row in self.leases().items()}
        assert kept == {login: promise for login, promise in self.promised.items() if promise[2] > self.now}

    @invariant()
    def no_lease_outlives_its_time(self) -> None:
        for row in self.leases().values():
            assert row.claimed_at <= self.now
            assert row.expires_at - row.claimed_at in RING.values()

    @invariant()
    def a_call_holds_one_agent_at_most(self) -> None:
        holders = [row.call_id for row in self.leases().values() if row.call_id]
        assert len(holders) == len(set(holders))

    @invariant()
    def each_question_has_one_row(self) -> None:
        rows = [(row.call_id, row.step, row.attempt) for row in self.world.decisions() if row.call_id]
        assert len(rows) == len(set(rows))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from router.db import migrate

    folder = tmp_path_factory.mktemp("model")
    world = World(f"sqlite+pysqlite:///{folder / 'template.db'}", folder)
    migrate.upgrade(world.database)
    with time_machine.travel(BEGINNING, tick=False):
        world.configure(
            agents=AGENTS,
            groups={
                "1": {"members": GROUPS["1"], "ring_seconds": RING["1"].total_seconds()},
                "2": {
                    "members": GROUPS["2"],
                    "ring_seconds": RING["2"].total_seconds(),
                    "strategy": "weighted",
                },
            },
            rules=[
                {"name": dialed, "groups": chain, "conditions": {"dialed": [dialed]}}
                for dialed, chain in CHAINS.items()
            ],
            hook_retry_seconds=RETRY.total_seconds(),
            presence_fresh_seconds=10**7,
        )
    world.database.dispose()
    return Path(make_url(world.database.url).database or "")


def test_leases_hold_whatever_happens_in_whatever_order(template: Path, tmp_path: Path) -> None:
    machine = type("Machine", (Telephony,), {"template": template, "folder": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=30, deadline=None))
