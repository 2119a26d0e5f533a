"""A decision in words, for the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from router.core.decision import decide
from router.core.model import Agent, Call, LastTalk, Presence, Project, Snapshot
from router.core.rules import Preference, Rule
from router.explain import as_text, explain
from tests.desk import SECRET, Desk

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ANN, BOB = Agent(1, "Ann", ("ann",), deputy_id=2), Agent(2, "Bob", ("bob",))
AWAY = replace(ANN, away_until=NOW + timedelta(days=1))
CALL = Call("c1", caller="380501112233", params={"manager": "ann", "typo": "anne"})
TALKED = LastTalk(1, NOW - timedelta(days=2))


@pytest.mark.parametrize(
    ("ann", "prefer", "talk", "told"),
    [
        (
            ANN,
            Preference(last_agent=True),
            TALKED,
            "Ann, talked with this caller on 2026-11-26 12:00 UTC\n    1. Ann (ann)",
        ),
        (
            ANN,
            Preference(last_agent=True),
            None,
            "no agent whom the project still has talked with this caller within 30 days\n    –  nobody",
        ),
        (AWAY, Preference(last_agent=True), TALKED, "2026-11-26 12:00 UTC; away, so the deputy\n    1. Bob (bob)"),
        (ANN, Preference(param="Manager"), None, "Ann, Manager is 'ann'\n    1. Ann (ann)"),
        (ANN, Preference(param="typo"), None, "typo is 'anne', which names no agent\n    –  nobody"),
        (ANN, Preference(param="crm"), None, "crm is '', which names no agent\n    –  nobody"),
    ],
)
def test_says_whom_a_rule_prefers_and_why(ann: Agent, prefer: Preference, talk: LastTalk | None, told: str) -> None:
    rule = Rule(7, "regulars", prefer=prefer, overflow="380441234567")
    project = Project(1, "acme", 1, agents={1: ann, 2: BOB}, rules=(rule,))
    presence = Presence(frozenset({"ann", "bob"}), age=timedelta(0))
    snapshot = Snapshot(NOW, presence, last_talk=talk, seed="c1")
    text = as_text(explain(project, CALL, snapshot, decide(project, CALL, snapshot)))
    assert told in text.partition("preferred agent: ")[2]


# ---- the command


CLOCKS = """
projects:
  - name: acme
    time_zone: Europe/Kyiv
    overflow: "380441234567"
    schedules: [{name: office, time_zone: Europe/Kyiv, open: {daily: ["08:00-18:00"]}}]
    rules: [{name: day, when: {schedule: office}, groups: []}, {name: night, groups: []}]
"""


@pytest.fixture
def asked(migrated_sqlite_url: str) -> Iterator[Callable[..., Result]]:
    desk = Desk(migrated_sqlite_url, CLOCKS)

    def ask(*arguments: str) -> Result:
        environ = {"DATABASE_URL": migrated_sqlite_url, "SECRET_KEY": SECRET}
        return CliRunner().invoke(main, ["explain", "acme", *arguments], env=environ)

    yield ask
    desk.close()


@pytest.mark.parametrize(
    ("at", "meant", "rule"),
    [
        ("2026-11-30T08:30", "2026-11-30T08:30:00+02:00", "day"),
        ("2026-11-30 07:59:59", "2026-11-30T07:59:59+02:00", "night"),
        ("2026-07-30T08:30", "2026-07-30T08:30:00+03:00", "day"),
        ("2026-11-30T08:30Z", "2026-11-30T10:30:00+02:00", "day"),
        ("2026-11-30T16:30Z", "2026-11-30T18:30:00+02:00", "night"),
        ("2026-11-30T08:30+09:00", "2026-11-30T01:30:00+02:00", "night"),
        ("2026-11-30", "2026-11-30T00:00:00+02:00", "night"),
        ("2026-10-25T03:30", "2026-10-25T03:30:00+03:00", "night"),
        ("2026-10-25T03:30+02:00", "2026-10-25T03:30:00+02:00", "night"),
    ],
)
def test_a_time_without_a_zone_is_the_projects_and_is_told(
    asked: Callable[..., Result], at: str, meant: str, rule: str
) -> None:
    told = json.loads(asked("--at", at, "--json").stdout)
    assert (told["at"], told["time_zone"]) == (meant, "Europe/Kyiv")
    assert [one["name"] for one in told["rules"] if not one["why_not"]] == [rule]
    assert f"at {meant} (Europe/Kyiv)" in asked("--at", at).stdout


def test_without_a_time_it_tells_the_present_one(asked: Callable[..., Result]) -> None:
    before = datetime.now(UTC)
    told = json.loads(asked("--json").stdout)
    assert abs(datetime.fromisoformat(told["at"]) - before) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("soon", "'soon' is not a valid date or time; write it as 2026-12-25 or 2026-12-24T14:00"),
        ("", "is not a valid date or time"),
        ("08:30", "is not a valid date or time"),
        ("30.11.2026 08:30", "is not a valid date or time"),
        ("2026-02-30T08:30", "is not a valid date or time"),
        ("0001-01-01T00:00", "is out of range; check the year"),
        ("2026-03-29T03:30", "does not exist in Europe/Kyiv: the clocks go forward then; write 02:30 or 04:30"),
    ],
)
def test_a_time_that_cannot_be_used_is_bad_usage(asked: Callable[..., Result], at: str, said: str) -> None:
    result = asked("--at", at)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "--at" in result.stderr
