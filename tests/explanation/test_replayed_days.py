"""Simulated days, replayed: the same rules give the same answers, and what is reconstructed is what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import make_transient

from router.config import Settings
from router.configuration import apply, load
from router.core.model import Project, Status
from router.db import migrate, models
from router.db.documents import configured
from router.db.models import Base
from router.db.queries import project_named
from router.db.records import record_of, store_record
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.explanation.replay import Answer, Unknown, decide_again, reconstruct_alone, replay
from router.routing.route import recompute
from simulator.settings import PbxSettings
from tests.explanation.simulated_day import SimulatedDay

SETTINGS = Settings.load({"DATABASE_URL": "sqlite:////unused.db", "SECRET_KEY": "s" * 40})
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
CONFIG = """
projects:
  - name: acme
    time_zone: Europe/Kyiv
    overflow: "380441234567"
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, fresh_seconds: 15, last_known_seconds: 60}
    agents:
      - {name: Alice, sip_logins: [demo_alice, demo_alice_mob], wrap_up_seconds: 20}
      - {name: Bob, sip_logins: [demo_bob], wrap_up_seconds: 20}
      - {name: Carol, sip_logins: [demo_carol, demo_carol_mob]}
      - {name: Dave, sip_logins: [demo_dave], daily_cap: 20}
      - {name: Eve, sip_logins: [demo_eve, demo_eve_web], wrap_up_seconds: 15}
      - {name: Frank, sip_logins: [demo_frank]}
      - {name: Grace, sip_logins: [demo_grace_web]}
      - {name: Heidi, sip_logins: [demo_heidi, demo_heidi_mob], wrap_up_seconds: 20}
    groups:
      - {name: sales, strategy: longest_idle, members: [{agent: Alice}, {agent: Bob}, {agent: Carol}, {agent: Heidi}]}
      - {name: support, strategy: round_robin, members: [{agent: Dave}, {agent: Eve}, {agent: Frank}, {agent: Grace}]}
    rules:
      - {name: regulars, when: {caller: ["+38067*"]}, prefer: last_agent, groups: [sales]}
      - {name: support line, when: {dialed: ["380443330002"]}, groups: [support, sales]}
      - {name: everyone else, groups: [sales, support]}
"""
LIVELY: dict[str, Any] = {
    "calls_per_minute": 3.0, "talk_seconds": 120.0, "answer_probability": 0.8, "own_calls_per_hour": 1.0,
    "shift_seconds": 4000.0, "transfer_probability": 0.05, "event_loss": 0.05, "patience_seconds": 60.0,
}  # fmt: skip


def at_work(
    folder: Path, calls: int, config: str = CONFIG, *changes: tuple[float, Callable[[SimulatedDay], None]], **more: Any
) -> Database:
    """The database of a simulated day, with an outage of presence in it."""
    use_encryption_keys(SETTINGS.fernet_keys)
    database = Database(f"sqlite:///{folder / 'day.db'}")
    migrate.upgrade(database)
    day = SimulatedDay(database, PbxSettings(**{**LIVELY, **more}), config)
    day.outages, day.changes = [(600.0, 700.0)], list(changes)
    day.run(calls)
    return database


@contextmanager
def copied(database: Database, url: str) -> Iterator[Database]:
    """The same rows in another database."""
    with closing_database(Database(url)) as other:
        with database.engine.connect() as source, other.engine.begin() as target:
            for table in Base.metadata.sorted_tables:
                if table.name != "installation" and (rows := source.execute(select(table)).mappings().all()):
                    target.execute(insert(table), [dict(row) for row in rows])
        yield other


@contextmanager
def closing_database(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.dispose()


def project_of(database: Database, version: int | None = None) -> Project:
    with database.reading() as session:
        row = project_named(session, "acme")
        found = configured(session, row.id, version or row.version)
    assert found is not None
    return found.project


def decisions(database: Database) -> list[models.Decision]:
    with database.reading() as session:
        return list(session.scalars(select(models.Decision).order_by(models.Decision.id)))


# ---- the law


def test_a_day_without_changes_is_answered_as_before(tmp_path: Path, migrated_postgres_url: str) -> None:
    with closing_database(at_work(tmp_path, 110)) as sqlite, copied(sqlite, migrated_postgres_url) as postgres:
        rows = decisions(sqlite)
        assert {"answered", "no_answer", "abandoned"} <= {row.outcome for row in rows}
        assert {row.result for row in rows} == {"offer", "overflow"}
        for database in (sqlite, postgres):
            found = replay(database, project_of(database), since=LONG_AGO, most=10_000, listed=9)
            assert (found.total, found.differing, found.unknown, found.reconstructed) == (len(rows), 0, {}, 0)


def test_each_call_is_answered_as_before_by_the_rules_of_its_moment(tmp_path: Path, migrated_postgres_url: str) -> None:
    """Rules, strategies and members change, agents take breaks, presence and the database go away."""

    def configure(text: str) -> Callable[[SimulatedDay], None]:
        def change(day: SimulatedDay) -> None:
            apply(day.database, load(text, {}))

        return change

    def take_a_break(day: SimulatedDay) -> None:
        with day.database.writing() as session:
            session.execute(
                update(models.AgentState).where(models.AgentState.agent_id < 3).values(status=Status.ON_BREAK)
            )

    changed = CONFIG.replace("strategy: longest_idle", "strategy: weighted").replace(", daily_cap: 20", "")
    again = changed.replace("strategy: round_robin", "strategy: fewest_calls").replace("{agent: Grace}", "{agent: Bob}")
    changes = [
        (600.0, configure(changed)),
        (1100.0, take_a_break),
        (1300.0, lambda day: day.routing.outbox.open_breaker()),
        (1360.0, lambda day: day.routing.keep_up()),
        (1700.0, configure(again)),
    ]
    with (
        closing_database(at_work(tmp_path, 130, CONFIG, *changes)) as sqlite,
        copied(sqlite, migrated_postgres_url) as postgres,
    ):
        rows = decisions(sqlite)
        assert len({row.config_version for row in rows}) >= 3
        assert any(row.degraded for row in rows)
        for database in (sqlite, postgres):
            with database.reading() as session:
                for row in session.scalars(select(models.Decision)):
                    assert recompute(session, row.id).is_same, row.id
                    replayed = decide_again(session, project_of(database, row.config_version), row)
                    assert replayed is not None
                    assert replayed.answer == Answer(row.rule_id, row.agent_id, row.destination), row.id


# ---- reconstruction


def test_what_is_reconstructed_is_what_was_there(tmp_path: Path) -> None:
    """Calls look at the second group of their chain too. That is taken out of their record where it was not needed, and
    the rules that are replayed ask for just that group.
    """
    with closing_database(at_work(tmp_path, 140, seed=3)) as database:
        view = project_of(database)
        swapped = replace(view, rules=tuple(replace(one, group_ids=one.group_ids[::-1][:1]) for one in view.rules))
        truth: dict[int, Answer | Unknown | None] = {}
        with database.writing() as session:
            for row in session.scalars(select(models.Decision)).all():
                replayed = decide_again(session, swapped, row)
                truth[row.id] = replayed and replayed.answer
                record = record_of(session, row)
                first = next((trial[0] for trial in record["trials"] if trial[0]), None)
                if len(record["trials"]) == 1 and first == row.group_id:
                    members = record["inputs"]["members"]
                    record["inputs"]["members"] = [one for one in members if one[0] == first]
                    store_record(session, row, record)
        found = replay(database, swapped, since=LONG_AGO, most=10_000, listed=10_000)
        assert found.reconstructed > 40
        assert found.unknown.total() < 0.35 * found.total
        assert {one.decision_id: one.now for one in found.differences}.items() <= truth.items()
        with database.reading() as session:
            rows = {row.id: row for row in session.scalars(select(models.Decision))}
            reconstructed = [one for one in found.differences if one.is_reconstructed]
            for one in reconstructed[::8]:  # and alone, as the page of a call does it
                replayed = decide_again(session, swapped, rows[one.decision_id])
                assert replayed is not None
                assert reconstruct_alone(database, session, swapped, replayed).answer == one.now


def test_what_is_found_out_of_callers_is_what_was_known(tmp_path: Path) -> None:
    """The rules asked for earlier calls and talks. That is taken out of them, and of what was stored with the calls."""
    rules = CONFIG.partition("    rules:")[0] + (
        "    rules:\n"
        "      - {name: again, groups: [support],\n"
        "         when: {called_before: {within: 60, unit: minutes, unanswered: true}}}\n"
        "      - {name: everyone, prefer: last_agent, groups: [sales]}\n"
    )
    with closing_database(at_work(tmp_path, 130, rules, callers=25, seed=5)) as database:
        asking = project_of(database)
        with database.writing() as session:
            for row in session.scalars(select(models.Decision)).all():
                record = record_of(session, row)
                record["inputs"].pop("previous_call", None)
                record["inputs"]["last_talk"] = None
                store_record(session, row, record)
            for version in session.scalars(select(models.ConfigVersion)).all():
                plain = [{**rule, "prefer": None, "when": {}} for rule in version.document["rules"]]
                version.document = {**version.document, "rules": plain}
            first = session.scalars(select(models.Decision).order_by(models.Decision.asked_at)).first()
            assert first is not None
            since = first.asked_at
            make_transient(first)
            first.id, first.call_id, first.caller, first.asked_at = 1_000_000, "before", "", since - timedelta(hours=2)
            session.add(first)  # so that the log reaches back
        with closing_database(Database(database.url)) as fresh:  # which knows no version yet
            found = replay(fresh, asking, since=since, most=10_000, listed=10_000)
        assert found.reconstructed > 80
        assert found.unknown.total() < 0.15 * found.total
        assert found.differences == []
        assert {rule.name for rule in asking.rules if found.rules[1][rule.id] > 4} == {"again", "everyone"}
        assert found.rules[0] == found.rules[1]
