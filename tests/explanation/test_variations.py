"""Variations of a configuration, and the command that simulates them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from router.cli import main
from router.configuration import load
from router.configuration.document import document_of, names_of
from router.db.documents import Document, build_project
from router.db.migrate import upgrade
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.explanation import logged_day
from router.explanation.variations import Hours, Variation, VariationError, read_hours, varied
from router.explanation.words import ENGLISH
from simulator.cast import make_staff
from simulator.settings import PbxSettings
from tests.explanation.simulated_day import RememberedDay

KEY = Fernet.generate_key().decode()
CONFIGURATION = """
projects:
  - name: acme
    time_zone: Europe/Kyiv
    overflow: "380441234567"
    presence: {auth_key: key}
    agents:
      - {name: Agent 0001, sip_logins: [demo_agent_0001], wrap_up_seconds: 10, staff_id: "7"}
      - {name: Agent 0002, sip_logins: [demo_agent_0002]}
    schedules:
      - {name: office, open: {mon-fri: ["09:00-13:00", "14:00-18:00"], sat: ["10:00-15:00"], sun: closed}}
    groups:
      - {name: sales, strategy: round_robin, members: [{agent: Agent 0001, weight: 2}, {agent: Agent 0002, tier: 2}]}
    rules:
      - {name: everyone, groups: [sales]}
"""


def a_document() -> Document:
    return document_of(load(CONFIGURATION, {}).projects[0])


def test_a_group_gets_another_strategy() -> None:
    assert varied(a_document(), Variation({1: "priority"})).document["groups"][0]["strategy"] == "priority"
    with pytest.raises(VariationError, match="no strategy 'best'"):
        varied(a_document(), Variation({1: "best"}))


def test_an_agent_who_is_left_out_is_paused() -> None:
    project = build_project(varied(a_document(), Variation(without=[2])).document, 1, 0)
    assert [agent.paused for agent in project.agents.values()] == [False, True]


def test_a_copy_has_its_own_phone_and_the_same_places() -> None:
    found = varied(a_document(), Variation(more=[1]))
    project = build_project(found.document, 1, 0)
    copy, original = project.agents[-1], project.agents[1]
    assert found.alike == {-1: 1}
    assert (copy.name, copy.wrap_up, copy.staff_id) == ("Agent 0001 2", original.wrap_up, "")
    assert not {*copy.sip_logins} & {*original.sip_logins}
    members = project.groups[1].members
    assert [(one.agent_id, one.tier, one.weight) for one in members] == [(1, 1, 2), (-1, 1, 2), (2, 2, 1)]


@pytest.mark.parametrize(
    ("begin", "end", "weekdays", "saturday"),
    [
        ("8", "20:30", ["08:00-13:00", "14:00-20:30"], ["08:00-20:30"]),
        ("9:00", "12", ["09:00-12:00"], ["09:00-12:00"]),
        ("15", "24:00", ["15:00-24:00"], ["15:00-24:00"]),
    ],
)
def test_hours_change_where_the_schedule_is_open(
    begin: str, end: str, weekdays: list[str], saturday: list[str]
) -> None:
    changed = varied(a_document(), Variation(hours=read_hours(1, begin, end))).document
    build_project(changed, 1, 0)
    days = changed["schedules"][0]["open"]
    assert {tuple(spans) for day, spans in days.items() if day not in ("sat", "sun")} == {tuple(weekdays)}
    assert days["sat"] == saturday
    assert "sun" not in days or days["sun"] in ("closed", [])


@pytest.mark.parametrize(("begin", "end"), [("18", "9"), ("", "9"), ("9", "25"), ("9:61", "10"), ("nine", "ten")])
def test_hours_that_make_no_sense_are_refused(begin: str, end: str) -> None:
    with pytest.raises(VariationError):
        read_hours(1, begin, end)


def test_the_document_stays_as_it_was() -> None:
    before, document = a_document(), a_document()
    varied(document, Variation({1: "random"}, [2], [1], Hours(1, "08:00", "10:00")))
    assert document == before


def test_a_variation_is_stored_and_told() -> None:
    variation = Variation({1: "random"}, (2,), (1,), Hours(1, "08:00", "10:00"))
    assert Variation.of_json(json.loads(json.dumps(variation.as_json()))) == variation
    told = ENGLISH.join(variation.words(names_of(a_document())), " · ")
    assert told == "sales: Random · without Agent 0002 · one more like Agent 0001 · office: 08:00–10:00"
    assert not Variation()


# ---- the command


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with a day in its log."""
    use_encryption_keys([KEY])
    url = f"sqlite:///{tmp_path_factory.mktemp('variations') / 'router.db'}"
    database = Database(url.replace("sqlite", "sqlite+pysqlite"))
    upgrade(database)
    settings = PbxSettings(staff=make_staff(2), calls_per_minute=4, talk_seconds=30)
    day = RememberedDay(settings, build_project(a_document(), 1, 0))
    day.run(60)
    day.write(database, CONFIGURATION)
    yield url
    database.dispose()


Command = Callable[..., Result]


@pytest.fixture
def run(url: str, tmp_path: Path) -> Command:
    def run(*arguments: str, given: str | None = None) -> Result:
        environ = {"DATABASE_URL": url, "SECRET_KEY": "key" * 12, "ENCRYPTION_KEYS": KEY, "OUTBOX_DIR": str(tmp_path)}
        return CliRunner().invoke(main, ["config", "what-if", "acme", *arguments], input=given, env=environ)

    return run


DAY = ("--since", "2026-11-24")


def as_json(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_command_says_what_a_sales_manager_reads(run: Command) -> None:
    done = run(*DAY, "--without", "Agent 0002", "--strategy", "sales=priority")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "60 calls from 2026-11-24 00:00 to 2026-11-25 00:00"
    assert lines[1] == "What if: sales: Priority, without Agent 0002"
    overflow = next(line for line in lines if line.startswith("calls to the overflow"))
    really, reproduced, otherwise = (float(part) for part in overflow.replace("%", "").split()[4:])
    assert abs(really - reproduced) <= 5
    assert otherwise > really + 10
    assert any(line.startswith("  Agent 0002") and line.endswith(" 0.0 %") for line in lines)
    assert any("points off for the overflow" in line for line in lines)
    assert "What is taken for granted:" in lines


def test_the_command_says_it_to_programs(run: Command) -> None:
    found = as_json(run(*DAY, "--more", "Agent 0001", "--hours", "office=9-18", "--json"))
    assert found["real"]["calls"] == found["changed"]["calls"] == 60
    assert found["changed"]["overflow_rate"] < found["real"]["overflow_rate"]
    assert found["variation"] == {"strategies": {}, "without": [], "more": [1], "hours": [1, "09:00", "18:00"]}
    assert found["names"]["-1"] == "Agent 0001 2"
    assert found["changed"]["agents"]["-1"]["answered"] > 0
    codes = {one["code"] for one in found["assumptions"]}
    assert {"same_calls", "rings", "presence", "copies", "other_hours"} <= codes


def test_the_command_takes_a_file_and_a_version(run: Command) -> None:
    nobody = CONFIGURATION.replace("groups: [sales]", "groups: []")
    assert as_json(run(*DAY, "--json", "--file", "-", given=nobody))["changed"]["overflow_rate"] == 100
    unchanged = as_json(run(*DAY, "--json", "--version", "1"))
    assert abs(unchanged["changed"]["overflow"] - unchanged["real"]["overflow"]) <= 3
    part = as_json(run("--since", "2026-11-24T08:00", "--until", "2026-11-24T08:05", "--json"))
    assert 0 < part["real"]["calls"] < 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--strategy", "sales=best"), "no strategy"),
        (("--strategy", "sales"), "NAME=VALUE"),
        (("--strategy", "support=random"), "no group 'support'"),
        (("--without", "Zed"), "no agent 'Zed'"),
        (("--hours", "office=18-9"), "the earlier one first"),
        (("--since", "2026-11-24", "--until", "2026-11-23"), "not later"),
    ],
    ids=str,
)
def test_the_command_refuses_what_makes_no_sense(run: Command, arguments: tuple[str, ...], words: str) -> None:
    done = run(*DAY, *arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_the_command_fails_where_there_were_no_calls(run: Command) -> None:
    done = run("--since", "2026-10-01")
    assert done.exit_code == 1
    assert "There are no calls of this time" in done.output


def test_the_command_refuses_more_calls_than_are_simulated(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_day, "MOST_CALLS", 50)
    done = run("--since", "2000-01-01", "--until", "2027-01-01")
    assert done.exit_code == 1
    assert "these are 60 calls: choose a shorter time, for 50 at most" in done.output
