"""The calls of a day by other rules: what is simulated from the log is what the simulated PBX really gives then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event, select, update

from router.configuration import load
from router.configuration.document import document_of, ids_of
from router.core.model import Project
from router.db import models
from router.db.documents import build_project
from router.db.migrate import upgrade
from router.db.records import Inputs
from router.db.session import Database
from router.db.types import from_micros, use_encryption_keys
from router.explanation.logged_day import Nothing, NothingLoggedError, read_day
from router.explanation.variations import Variation, assumptions
from router.explanation.what_if import Day, Spans, Tally, distance, presence_by, what_if
from router.explanation.words import ENGLISH
from simulator.cast import make_staff
from simulator.ledger import CallRecord
from simulator.settings import PbxSettings
from tests.explanation.simulated_day import MORNING, RememberedDay, SimulatedDay

CALLS = 800
STAFF = make_staff(8)
NAMES = [member.name for member in STAFF]
SPARE = NAMES[7]  # only of the groups where an agent more is tried
TOMORROW = MORNING + timedelta(days=1)
BUSY = PbxSettings(
    staff=STAFF,
    calls_per_minute=6,
    talk_seconds=45,
    answer_probability=0.92,
    patience_seconds=100,
    own_calls_per_hour=1.5,
)


def configuration(
    *,
    strategies: Sequence[str] = ("round_robin", "longest_idle"),
    without: str = "",
    spare: bool = False,
    wrap_up: int = 10,
    until: str = "24:00",
    cap: int | None = None,
    prefer: str = "",
) -> str:
    """Return the office's configuration, with one thing or the other changed."""
    agents, groups = [], [[], []]  # type: ignore[var-annotated]
    for member in STAFF:
        most = f", daily_cap: {cap}" if cap else ""
        agents.append(f"{{name: {member.name}, sip_logins: [{member.logins[0]}], wrap_up_seconds: {wrap_up}{most}}}")
        if member.name != without and (spare or member.name != SPARE):
            groups[member.departments[0] - 1].append(f"{{agent: {member.name}}}")
    chosen = f", prefer: {prefer}" if prefer else ""
    return f"""
projects:
  - name: acme
    time_zone: Europe/Kyiv
    overflow: "380441234567"
    break_after_no_answers: 0 # a break of hours because of one agent says nothing of the rules
    presence: {{poll_seconds: 5, fresh_seconds: 10, auth_key: key}}
    agents: [{", ".join(agents)}]
    schedules:
      - {{name: office, open: {{mon-sun: ["00:00-{until}"]}}}}
    groups:
      - {{name: sales, strategy: {strategies[0]}, members: [{", ".join(groups[0])}]}}
      - {{name: support, strategy: {strategies[1]}, members: [{", ".join(groups[1])}]}}
    rules:
      - {{name: support, when: {{dialed: ["380443330002"], schedule: office}}, groups: [support, sales]{chosen}}}
      - {{name: everyone, when: {{schedule: office}}, groups: [sales, support]{chosen}}}
"""


def built(text: str) -> Project:
    """Return the rules' view. Rows have the ids that they get in a new database."""
    return build_project(document_of(load(text, {}).projects[0]), 1, 0)


def in_truth(records: Sequence[CallRecord], project: Project) -> Tally:
    """Return what the PBX itself counted."""
    outcomes = Counter(record.outcome for record in records)
    tally = Tally(calls=len(records), answered=outcomes["answered"], overflow=outcomes["outside"])
    for record in records:
        if record.outcome == "answered":
            tally.agent(project.login_named(record.answered_by)[1].id).answered += 1  # type: ignore[union-attr]
    return tally


def opened(path: Path) -> Database:
    use_encryption_keys([Fernet.generate_key()])
    database = Database(f"sqlite+pysqlite:///{path}")
    upgrade(database)
    return database


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The log of a day."""
    database = opened(tmp_path_factory.mktemp("what-if") / "router.db")
    day = RememberedDay(BUSY, built(configuration()))
    day.run(CALLS)
    day.write(database, configuration())
    yield database
    database.dispose()


def read(database: Database, *others: Project) -> Day:
    return read_day(database, 1, MORNING, TOMORROW, *others)


@pytest.mark.parametrize(("tells", "overflow", "share"), [(True, 1, 1.5), (False, 2.5, 5)], ids=["events", "no events"])
def test_a_day_of_the_database_is_reproduced(tmp_path: Path, *, tells: bool, overflow: float, share: float) -> None:
    """With shifts, transfers, agents' own calls, and a configuration and a status that are changed meanwhile."""
    database, few = opened(tmp_path / "router.db"), 150
    settings = replace(BUSY, shift_seconds=1800, away_seconds=300, transfer_probability=0.05)
    day = SimulatedDay(database, settings, configuration(), tells=tells)
    changed = configuration(strategies=("priority", "round_robin"))
    day.changes = [(600, lambda one: one.configure(changed)), (900, lambda one: one.take_a_break(NAMES[4]))]
    records = day.run(few)
    study = what_if(read(database), built(changed), runs=1)
    assert study.real.calls == few
    assert distance(study.real, in_truth(records, built(changed))).overflow == 0
    assert study.error.overflow <= overflow
    assert study.error.share <= share
    database.dispose()


def test_the_log_of_either_database_is_read(migrated_url: str) -> None:
    use_encryption_keys([Fernet.generate_key()])
    database, project = Database(migrated_url), built(configuration(prefer="last_agent"))
    day = RememberedDay(BUSY, project)
    records = day.run(60)
    day.write(database, configuration(prefer="last_agent"))
    study = what_if(read(database), project, runs=1)
    assert distance(study.real, in_truth(records, project)) == (0, 0)
    assert study.error.overflow <= 3
    database.dispose()


def test_an_erased_call_and_a_test_request_are_no_obstacle(tmp_path: Path) -> None:
    database, project = opened(tmp_path / "router.db"), built(configuration())
    day = RememberedDay(BUSY, project)
    day.run(30)
    day.write(database, configuration())
    with database.writing() as session:
        erased, tested = session.scalars(
            select(models.Decision).where(models.Decision.step == "webhookNumber:120").limit(2)
        )
        erased.record, erased.caller = {"trials": [], "erased_at": "2026-11-25T00:00:00+00:00"}, ""
        session.execute(update(models.Decision).where(models.Decision.call_id == tested.call_id).values(is_test=True))
    found = read(database)
    study = what_if(found, project, runs=1)
    assert study.real.calls == study.changed.calls == 28
    assert found.erased == 1
    told = assumptions(found, Variation(), presence_by(found, [project], {}))
    assert "1 call is left out, because its caller was erased." in map(ENGLISH.say, told)
    database.dispose()


def test_simulated_calls_are_answered_as_the_database_answers_them(tmp_path: Path) -> None:
    database = opened(tmp_path / "router.db")
    real = SimulatedDay(database, BUSY, configuration()).run(120)
    simulated = RememberedDay(BUSY, built(configuration())).run(120)
    assert [record.destination for record in simulated] == [record.destination for record in real]
    database.dispose()


def test_with_nothing_changed_the_real_day_is_reproduced(log: Database) -> None:
    study = what_if(read(log), built(configuration()), runs=1)
    assert study.real.calls == CALLS
    assert study.error.overflow <= 0.5
    assert study.error.share <= 1
    assert study.error == distance(study.real, study.reproduced)


@pytest.mark.parametrize(
    "changed",
    [
        {"strategies": ("priority", "priority")},
        {"strategies": ("fewest_calls", "random")},
        {"without": NAMES[2]},
        {"spare": True},
        {"wrap_up": 60},
        {"until": "09:00"},
        {"prefer": "last_agent"},
    ],
    ids=str,
)
def test_says_what_another_configuration_really_gives(log: Database, changed: dict[str, Any]) -> None:
    project = built(configuration(**changed))
    study = what_if(read(log, project), project, runs=2)
    days = [RememberedDay(BUSY, project, luck=luck).run(CALLS) for luck in range(3)]
    found = distance(study.changed, in_truth(list(chain(*days)), project))
    assert found.overflow <= 1.5
    assert found.share <= 3


def test_the_same_study_gives_the_same_numbers(log: Database) -> None:
    day, project = read(log), built(configuration(without=NAMES[1]))
    assert what_if(day, project, runs=1) == what_if(read(log), project, runs=1)


def test_chance_is_no_less_than_that_of_so_few_calls(log: Database) -> None:
    few = replace(read(log), callers=read(log).callers[:40])
    study = what_if(few, built(configuration(strategies=("random", "random"))), runs=1)
    assert study.by_chance.overflow == 0
    assert study.margin >= study.error.overflow + 100 / 40


def test_answers_that_are_only_assumed_have_no_wait_and_allow_no_verdict(log: Database) -> None:
    day, assumed = read(log), []
    for caller in day.callers[:40]:
        rings = [one.ring and one.ring._replace(is_answered=True, is_assumed=True) for one in caller.asked]
        asked = tuple(one._replace(ring=ring) for one, ring in zip(caller.asked, rings, strict=True))
        assumed.append(replace(caller, asked=asked, gave_up=None))
    project = built(configuration(without=NAMES[0]))
    study = what_if(replace(day, callers=tuple(assumed)), project, runs=1)
    assert study.real.answered
    assert [one.mean_wait for one in (study.real, study.reproduced, study.changed)] == [None] * 3
    assert not study.is_known
    assert what_if(replace(day, callers=day.callers[:40]), project, runs=1).is_known


def test_nobody_offers_a_call_to_an_agent_who_was_left_out(log: Database) -> None:
    project = built(configuration(without=NAMES[0]))
    absent = project.agent_named(NAMES[0])
    study = what_if(read(log), project, runs=1)
    assert absent is not None
    assert study.real.share(absent.id) > 5
    assert absent.id not in study.changed.agents


def test_a_copy_of_an_agent_is_there_when_that_one_is(log: Database) -> None:
    alice = built(configuration()).agents[1]
    with_copy = built(configuration(spare=True))
    copy = with_copy.agent_named(SPARE)
    assert copy is not None
    day = read(log, with_copy)
    online: dict[str, Spans] = {login: spans for login, spans in day.online.items() if login not in copy.sip_logins}
    absent = replace(day, online=online | dict.fromkeys(alice.sip_logins, ()))
    study = what_if(absent, with_copy, {copy.id: alice.id}, runs=1)
    assert not study.changed.agents.get(copy.id)


def test_presence_that_no_reading_could_know_is_taken_for_granted_and_told(log: Database) -> None:
    day, alice = read(log), built(configuration()).agents[1]
    (login,) = alice.sip_logins
    text = configuration().replace(f"[{login}]", "[alice_at_home]")
    text = text.replace("agents: [", "agents: [{name: Newcomer, sip_logins: [newcomer]}, ", 1)
    described = load(text, {}).projects[0]
    ids = ids_of(document_of(load(configuration(), {}).projects[0]))
    ids["agents"]["Newcomer"] = -1
    project = build_project(document_of(described, ids), 1, 0)
    presence = presence_by(replace(day, online={login: [(1, 5)], "another": [(4, 9)]}), [project], {})
    assert presence.online["alice_at_home"] == [(1, 5)]
    assert presence.online["newcomer"] == [(1, 9)]
    assert (presence.unseen, presence.renamed) == (["Newcomer"], [alice.name])
    told = {one.text.code: one.values for one in assumptions(day, Variation(), presence)}
    assert told["unseen"] == {"values": ["Newcomer"]}
    assert told["renamed"] == {"values": [alice.name]}


def test_a_time_without_calls_cannot_be_simulated(log: Database) -> None:
    def why(since: datetime, until: datetime) -> Nothing:
        with pytest.raises(NothingLoggedError) as raised:
            read_day(log, 1, since, until)
        return raised.value.why

    assert why(TOMORROW, TOMORROW + timedelta(days=1)) is Nothing.CALLS
    asked = next(caller.asked for caller in read(log).callers if len(caller.asked) > 1)
    later = from_micros(asked[1].at)
    assert why(later, later + timedelta(microseconds=1)) is Nothing.BEGINNING


def test_a_time_whose_configurations_are_gone_cannot_be_simulated(tmp_path: Path) -> None:
    database, day = opened(tmp_path / "router.db"), RememberedDay(BUSY, built(configuration()))
    day.run(5)
    day.write(database, configuration())
    with database.writing() as session:
        session.execute(update(models.Decision).values(config_version=7))
    with pytest.raises(NothingLoggedError, match="no longer kept"):
        read(database)
    database.dispose()


def test_a_day_is_read_in_short_transactions(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else SQLite cannot begin its log anew, which calls write to."""
    begun: list[object] = []
    working: list[int] = []
    read_inputs = Inputs.of_json

    def of_json(stored: Any) -> Inputs:
        working.append(len(begun))
        return read_inputs(stored)

    listeners = {"begin": begun.append, "commit": begun.remove, "rollback": begun.remove}
    for name, listener in listeners.items():
        event.listen(log.engine, name, listener)
    monkeypatch.setattr(Inputs, "of_json", of_json)
    read(log)
    for name, listener in listeners.items():
        event.remove(log.engine, name, listener)
    assert len(working) >= CALLS
    assert not any(working)
