"""A decision explained: as text on a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from router.core.conditions import read_conditions
from router.core.decision import decide
from router.core.model import Agent, AgentState, Call, Group, LastTalk, Member, Presence, Project, Snapshot
from router.core.rules import Preference, Rule
from router.db.documents import Configured
from router.explanation.decision import Decided, explain
from router.explanation.text import as_text
from tests.desk import SECRET, Desk

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ANN, BOB = Agent(1, "Ann", ("ann",), deputy_id=2), Agent(2, "Bob", ("bob",))
AWAY = replace(ANN, away_until=NOW + timedelta(days=1))
CALL = Call("c1", caller="380501112233", params={"manager": "ann", "typo": "anne"})
TALKED = LastTalk(1, NOW - timedelta(days=2), logged=True)


def decided(found: Configured, snapshot: Snapshot) -> Decided:
    decision = decide(found.project, CALL, snapshot)
    return Decided(snapshot.now, found.project.version, CALL, decision, found, snapshot)


@pytest.mark.parametrize(
    ("ann", "prefer", "talk", "told"),
    [
        (
            ANN,
            Preference(last_agent=True),
            TALKED,
            "Ann talked with this caller 2 days ago. Ringostat’s call log says so.\n    1. Ann (ann)",
        ),
        (
            ANN,
            Preference(last_agent=True),
            None,
            "None of the present agents talked with this caller within 30 days.\n    –  nobody",
        ),
        (AWAY, Preference(last_agent=True), TALKED, "says so. Ann is away; Bob stands in.\n    1. Bob (bob)"),
        (ANN, Preference(param="Manager"), None, "Manager names Ann.\n    1. Ann (ann)"),
        (ANN, Preference(param="typo"), None, "The parameter typo is “anne”, which names no agent.\n    –  nobody"),
        (ANN, Preference(param="crm"), None, "The parameter crm was not sent or is empty.\n    –  nobody"),
    ],
)
def test_says_whom_a_rule_prefers_and_why(ann: Agent, prefer: Preference, talk: LastTalk | None, told: str) -> None:
    rule = Rule(7, "regulars", prefer=prefer, overflow="380441234567")
    project = Project(1, "acme", 1, agents={1: ann, 2: BOB}, rules=(rule,))
    presence = Presence(frozenset({"ann", "bob"}), age=timedelta(0))
    snapshot = Snapshot(NOW, presence, last_talk=talk, seed="c1")
    found = Configured({"rules": [{"id": 7}], "schedules": [], "groups": []}, project)
    explained = explain(decided(found, snapshot))
    assert told in as_text(explained).partition("preferred agent: ")[2]
    assert explained.as_json()["trials"][0]["why"] in as_text(explained)


def test_json_tells_all_as_codes_with_parameters() -> None:
    ann = replace(ANN, daily_cap=3)
    group = Group(5, "sales", "priority", (Member(1), Member(2)))
    rules = (
        Rule(7, "adverts", (5,), read_conditions({"params": {"utm_source": ["google"]}})),
        Rule(8, "all", (5,)),
    )
    project = Project(1, "acme", 3, "Europe/Kyiv", agents={1: ann, 2: BOB}, groups={5: group}, rules=rules)
    presence = Presence(frozenset({"ann", "bob"}), age=timedelta(seconds=2))
    snapshot = Snapshot(NOW, presence, {1: AgentState(answered_today=3)})
    words = {"when": {"params": {"utm_source": ["google"]}}, "inside": None, "outside": None, "free_group": None}
    document = {"rules": [{"id": 7, **words}, {"id": 8}], "schedules": [], "groups": [{"id": 5, "name": "sales"}]}
    found = Configured(document, project)
    told = explain(decided(found, snapshot)).as_json()
    assert json.loads(json.dumps(told)) == {
        "destination": "bob", "result": "offer", "agent_id": 2, "agent": "Bob", "sip_login": "bob",
        "overflow_of": "", "cause": "",
        "rules": [
            {
                "rule_id": 7, "name": "adverts", "why_not": "params.utm_source",
                "details": [{"code": "no_param", "name": "utm_source", "sent": None, "values": ["google"]}],
            },
            {"rule_id": 8, "name": "all", "why_not": "", "details": [{"code": "unconditional"}]},
        ],
        "trials": [
            {
                "group_id": 5, "group": "sales", "strategy": "priority", "why": "", "details": [], "more": [],
                "candidates": [
                    {
                        "agent_id": 2, "agent": "Bob", "sip_login": "bob", "skip": "", "key": [1, 0, "bob"],
                        "result": "offered", "details": [{"code": "place", "n": 1}],
                    },
                    {
                        "agent_id": 1, "agent": "Ann", "sip_login": "ann", "skip": "at_cap", "key": [],
                        "result": "at_cap", "details": [{"code": "of_cap", "n": 3, "cap": 3}],
                    },
                ],
            }
        ],
        "presence": "fresh", "presence_age_seconds": 2.0, "config_version": 3,
        "at": "2026-11-28T14:00:00+02:00", "time_zone": "Europe/Kyiv",
    }  # fmt: skip


def test_text_tells_who_and_why_nobody_else() -> None:
    group = Group(5, "sales", "priority", (Member(1), Member(2)))
    project = Project(1, "acme", 3, agents={1: ANN, 2: BOB}, groups={5: group}, rules=(Rule(8, "all", (5,)),))
    found = Configured({"rules": [{"id": 8}], "schedules": [], "groups": [{"id": 5, "name": "sales"}]}, project)

    def text(*online: str) -> list[str]:
        snapshot = Snapshot(NOW, Presence(frozenset(online), age=timedelta(seconds=2)))
        return as_text(explain(decided(found, snapshot))).splitlines()

    assert text("bob") == [
        "→ bob (Bob)",
        "  Next in sales (Priority).",
        "  at 2026-11-28T12:00:00+00:00 (UTC)",
        "  presence: 2.0 s old",
        "  rule 'all': matches",
        "  group 'sales' (Priority)",
        "    1. Bob (bob): number 1 on the list",
        "    –  Ann: Offline",
    ]
    assert text()[:2] == [
        "→ an empty answer (the overflow of the project)",
        "  Nobody could be offered the call, so it went to the overflow.",
    ]


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
