"""Replay: the same rules answer as before, other rules are compared, and what was not stored is not guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from router.cli import main
from router.configuration import apply, load
from router.core.conditions import read_conditions
from router.core.model import Agent, Project
from router.db import models
from router.db.documents import build_project, load_document
from router.db.queries import project_named
from router.explanation.replay import Answer, Report, Unknown, decide_again, replay
from tests.admin.conftest import Admin
from tests.admin.day import CONFIG, Day

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def day(admin_everywhere: Admin) -> Day:
    """Calls of every kind: taken, to the overflow, of a test, and again with another rule."""
    day = Day(admin_everywhere)
    for number in range(12):
        day.call(f"38050111{number:04}", dialed=f"38044111223{number % 4}")
    return day


def project(day: Day, version: int | None = None) -> Project:
    with day.database.reading() as session:
        row = project_named(session, "acme")
        document = load_document(session, row.id, version or row.version)
        assert document is not None
        return build_project(document, row.id, row.version)


def report(day: Day, view: Project, most: int = 1000) -> Report:
    return replay(day.database, view, since=LONG_AGO, most=most, listed=100)


def test_the_same_rules_answer_as_before(day: Day) -> None:
    found = report(day, project(day))
    assert found.total >= 12
    assert (found.differing, found.unknown.total(), found.differences) == (0, 0, [])
    assert found.rules[0] == found.rules[1]


def test_other_rules_are_compared_call_by_call(day: Day) -> None:
    view = project(day)
    closed = replace(view, rules=tuple(replace(rule, group_ids=(), overflow="7") for rule in view.rules))
    found = report(day, closed)
    assert found.differing == found.total
    assert found.agents[1] == {None: found.total}
    assert {one.now.destination for one in found.differences} == {"7"}
    assert {one.now.rule_id for one in found.differences} <= {rule.id for rule in view.rules}


def test_a_rule_that_was_made_again_is_the_same_and_another_one_makes_no_difference_to_the_caller(day: Day) -> None:
    view = project(day)
    again = replace(view, rules=tuple(replace(rule, id=rule.id + 1000) for rule in view.rules))
    found = report(day, again)
    assert (found.differing, found.other_rule) == (0, 0)
    assert found.rules[0] == found.rules[1]
    renamed = replace(again, rules=tuple(replace(rule, name=f"new {rule.name}") for rule in again.rules))
    found = report(day, renamed)
    assert (found.differing, found.other_rule) == (0, found.total)
    assert not found.rules[0].keys() & found.rules[1].keys()


def test_as_many_of_the_newest_are_replayed_as_asked_for(day: Day) -> None:
    assert report(day, project(day), most=5).total == 5
    later = replay(day.database, project(day), since=datetime.now(UTC) + timedelta(days=1), most=9, listed=9)
    assert later.total == 0


def test_a_group_that_was_not_looked_at_then_is_not_guessed(day: Day) -> None:
    view = project(day)
    newcomer = max(view.agents) + 1
    agents = {**view.agents, newcomer: replace(next(iter(view.agents.values())), id=newcomer, name="Newcomer")}
    groups = {
        group.id: replace(group, members=tuple(replace(one, agent_id=newcomer) for one in group.members[:1]))
        for group in view.groups.values()
    }
    found = report(day, replace(view, agents=agents, groups=groups))
    assert found.unknown[Unknown.GROUP] > 0
    assert found.unknown.total() + found.rules[1].total() == found.total


def test_nobody_knows_whether_a_login_was_online_that_was_not_configured(day: Day) -> None:
    """Alice got the first call. Dave was offline."""
    view, first = project(day), day.admin.all(models.Decision, project_id=day.project_id)[0]
    alice, dave = (view.agents[day.agents[name]] for name in ("Alice", "Dave"))

    def with_logins(view: Project, agent: Agent, *logins: str) -> Project:
        return replace(view, agents={**view.agents, agent.id: replace(agent, sip_logins=logins)})

    assert again(day, with_logins(view, alice, "renamed"), first.id) is Unknown.LOGIN
    assert again(day, with_logins(view, alice, "new", "acme_alice"), first.id) is Unknown.LOGIN
    assert isinstance(again(day, with_logins(view, alice, "acme_alice", "new"), first.id), Answer)
    moved = with_logins(with_logins(view, dave), alice, "acme_dave")
    assert isinstance(again(day, moved, first.id), Answer), "it was Dave's, and offline"
    renamed = with_logins(view, dave, "renamed")
    assert again(day, renamed, first.id) is Unknown.LOGIN
    groups = {each.id: replace(each, strategy="priority") for each in view.groups.values()}
    assert isinstance(again(day, replace(renamed, groups=groups), first.id), Answer), "Alice goes before anyway"


def asking(view: Project, hours: int) -> Project:
    """These rules, for callers alone who called so lately."""
    words = {"called_before": {"within": hours, "unit": "hours", "unanswered": False}}
    return replace(view, rules=tuple(replace(rule, conditions=read_conditions(words)) for rule in view.rules[-1:]))


def put(day: Day, decision_id: int, **values: Any) -> None:
    with day.database.writing() as session:
        session.execute(update(models.Decision).where(models.Decision.id == decision_id).values(values))


def again(day: Day, view: Project, decision_id: int) -> Answer | Unknown:
    with day.database.reading() as session:
        replayed = decide_again(session, view, session.get_one(models.Decision, decision_id))
    assert replayed is not None
    return replayed.answer


def test_that_nobody_called_before_is_known_only_as_far_as_the_log_reaches_back(day: Day) -> None:
    first = day.admin.all(models.Decision, project_id=day.project_id)[0]
    assert again(day, asking(project(day), 2), first.id) is Unknown.PREVIOUS_CALL
    day.log(caller="380990000000", asked_at=first.asked_at - timedelta(hours=3))
    found = again(day, asking(project(day), 2), first.id)
    assert isinstance(found, Answer)
    assert found.rule_id is None
    assert again(day, asking(project(day), 4), first.id) is Unknown.PREVIOUS_CALL


def test_a_call_of_an_outage_that_is_stored_later_is_not_taken_for_one_before(day: Day) -> None:
    earlier, _, later = (row.id for row in day.admin.all(models.Decision, project_id=day.project_id)[:3])
    now = day.decision(earlier).asked_at
    day.log(caller="380990000000", asked_at=now - timedelta(hours=3))
    put(
        day,
        later,
        caller=day.decision(earlier).caller,
        asked_at=now - timedelta(minutes=5),
        degraded="OperationalError",
    )
    view = asking(project(day), 2)
    assert again(day, view, later) is Unknown.PREVIOUS_CALL, "without the database nobody knew"
    assert again(day, view, earlier) is Unknown.PREVIOUS_CALL, "it was not stored yet"
    put(day, later, asked_at=now + timedelta(minutes=5))
    found = again(day, view, earlier)
    assert isinstance(found, Answer)
    assert found.rule_id is None, "that was afterwards"


def test_what_was_pruned_is_unknown(day: Day) -> None:
    with day.database.writing() as session:
        session.query(models.PresenceSnapshot).delete()
    found = report(day, project(day))
    assert found.unknown[Unknown.GONE] == sum(
        row.snapshot_id is not None for row in day.admin.all(models.Decision, project_id=day.project_id)
    )


def test_the_command_compares_with_a_file_a_version_or_the_present_rules(day: Day, migrated_url: str) -> None:
    environ = {"DATABASE_URL": migrated_url, "SECRET_KEY": "s" * 40}

    def run(*arguments: str, given: str = "") -> str:
        done = CliRunner().invoke(main, ["config", "replay", "acme", *arguments], input=given, env=environ)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "as before, 0 otherwise, 0 unknown" in run()
    apply(day.database, load(CONFIG, {}))
    head = CONFIG.partition("    rules:")[0]
    text = run("--file", "-", "--list", "3", given=f"{head}    rules: [{{name: shut, overflow: '7'}}]\n")
    assert "rule shut: 0 → " in text
    assert text.count(" → 7 (shut)") == 3
    apply(day.database, load(f"{head}    rules: [{{name: shut, overflow: '7'}}]\n", {}), as_draft=True)
    assert sorted(run("--draft", "--list", "3").splitlines()) == sorted(text.splitlines())
    told = json.loads(
        run("--file", "-", "--json", "--list", "2", given=head.replace("380441234567", "8") + "    rules: []\n")
    )
    assert (told["differing"], len(told["differences"])) == (told["total"], 2)
    assert {one["now"]["rule"] for one in told["differences"]} == {None}
    assert {one["then"]["rule"] for one in told["differences"]} == {"everyone"}
    assert json.loads(run("--until", "2026-01-02", "--since", "2026-01-01", "--json"))["total"] == 0
    assert "as before, 0 otherwise" in run("--version", str(project(day).version), "--since", "2026-01-01")
