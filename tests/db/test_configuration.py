"""Publishing: a version for each change, an audit row for each thing changed, no secret anywhere, nothing guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from router.configuration.change import lock_project
from router.core.conditions import read_conditions
from router.core.model import Agent, Group, Member, Project, WhenUnknown
from router.core.rules import Preference
from router.db import models, queries, types
from router.db.documents import BuildError, Document, UnknownProjectError, build_project, load_document
from router.routing.known import accepts
from tests.rows import changing, publish
from tests.world import World, world_at

EARLIEST, EARLIER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
SOON, LATER = datetime(2125, 1, 1, tzinfo=UTC), datetime(2126, 1, 1, tzinfo=UTC)
SECRETS = ("auth-key-abc", "token-def", "user:password-ghi", "hook-token-jkl")


@pytest.fixture(autouse=True)
def _keys() -> Iterator[None]:
    before = types._Keys.fernet
    types.use_encryption_keys([Fernet.generate_key()])
    yield
    types._Keys.fernet = before


@pytest.fixture
def world(migrated_url: str, tmp_path: Path) -> Iterator[World]:
    with world_at(migrated_url, tmp_path) as world:
        world.configure(
            agents={"ann": {"external_id": "7", "wrap_up_seconds": 10}, "ben": {"deputy": "ann"}},
            groups={
                "sales": {"members": [{"agent": "ben", "tier": 2}, "ann"], "strategy": "weighted"},
                "support": ["ann"],
            },
            rules=[{"name": "one", "groups": ["support", "sales"]}, {"name": "two", "overflow": ""}],
        )
        yield world


def version(world: World) -> int:
    with world.database.reading() as session:
        return session.get_one(models.Project, world.project_id).version


def document(world: World) -> Document:
    with world.database.reading() as session:
        found = load_document(session, world.project_id, version(world))
    assert found is not None
    return found


def audit(world: World, since: int) -> list[tuple[str, str, str]]:
    """(action, subject, name) of what was changed since a version, sorted."""
    with world.database.reading() as session:
        rows = session.scalars(select(models.AuditEntry).where(models.AuditEntry.version > since))
        return sorted((row.action, row.subject, row.subject_name) for row in rows)


def one(session: Any, model: Any, name: str) -> Any:
    return session.scalars(select(model).where(model.name == name)).one()


# ---- versions


def test_each_change_is_a_version_of_its_own_and_the_old_ones_stay(world: World) -> None:
    first, before = version(world), document(world)
    with world.change() as session:
        one(session, models.Agent, "ann").paused = True
        one(session, models.Agent, "ben").paused = True
    assert version(world) == first + 1
    with world.database.reading() as session:
        assert load_document(session, world.project_id, first) == before
        kept = session.scalars(select(models.ConfigVersion.version).order_by(models.ConfigVersion.version)).all()
        assert kept == list(range(1, first + 2))
        newest = session.get_one(models.ConfigVersion, (world.project_id, first + 1))
    assert newest.actor == "test"
    assert abs(newest.published_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert [row["paused"] for row in newest.document["agents"]] == [True, True]


def test_a_change_that_changes_nothing_is_no_version(world: World) -> None:
    before = version(world)
    with world.change() as session:
        one(session, models.Agent, "ann").paused = False
        one(session, models.Group, "sales").ring_seconds = 25
    assert version(world) == before
    assert audit(world, before) == []


def test_an_error_changes_nothing(world: World) -> None:
    before, kept = version(world), document(world)
    with pytest.raises(ZeroDivisionError), world.change() as session:
        one(session, models.Agent, "ann").paused = bool(1 / 0)
    with pytest.raises(IntegrityError), world.change() as session:
        one(session, models.Agent, "ann").name = "ben"
    assert (version(world), document(world)) == (before, kept)


def test_an_unknown_project_cannot_be_changed(world: World) -> None:
    with pytest.raises(UnknownProjectError, match="99"), changing(world.database, 99, "test"):
        pass
    with world.database.reading() as session, pytest.raises(UnknownProjectError, match="there are: acme"):
        queries.project_named(session, "nobody")


def test_changes_at_the_same_time_are_each_published(world: World) -> None:
    """They queue: each sees what those before it did."""
    before = version(world)

    def add(number: int) -> None:
        with world.change() as session:
            session.add(models.Agent(project_id=world.project_id, name=f"new {number}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    assert version(world) == before + 6
    assert {row["name"] for row in document(world)["agents"]} == {"ann", "ben", *(f"new {n}" for n in range(6))}
    assert len(audit(world, before)) == 6


def test_two_who_edit_the_same_thing_do_not_overwrite_each_other(world: World) -> None:
    with world.database.reading() as session:
        seen = one(session, models.Agent, "ann")
    with world.change() as session:
        one(session, models.Agent, "ann").daily_cap = 5
    seen.daily_cap = 9
    with pytest.raises(StaleDataError), world.change() as session:
        session.add(seen)
    assert next(row for row in document(world)["agents"] if row["name"] == "ann")["daily_cap"] == 5


def test_publishing_does_not_count_as_an_edit_of_the_project(world: World) -> None:
    with world.database.reading() as session:
        revision = session.get_one(models.Project, world.project_id).revision
    with world.change() as session:
        one(session, models.Agent, "ann").paused = True
    with world.database.reading() as session:
        assert session.get_one(models.Project, world.project_id).revision == revision


def test_one_transaction_may_publish_more_than_once(world: World) -> None:
    before = version(world)
    with world.database.writing() as session:
        lock_project(session, world.project_id)
        one(session, models.Agent, "ann").paused = True
        assert publish(session, world.project_id, "first") == before + 1
        assert publish(session, world.project_id, "again") == before + 1
        one(session, models.Agent, "ann").paused = False
        assert publish(session, world.project_id, "second") == before + 2
    assert audit(world, before) == [("changed", "agent", "ann")] * 2


# ---- nothing is published that calls could not be routed by


def test_what_cannot_be_built_is_not_published_and_nothing_is_half_saved(world: World) -> None:
    before, kept = version(world), document(world)
    with pytest.raises(BuildError, match=r"^group 'sales': there is no strategy 'fastest'$"):  # noqa: PT012, SIM117
        with world.change() as session:
            one(session, models.Agent, "ann").paused = True
            one(session, models.Group, "sales").strategy = "fastest"
    assert (version(world), document(world), audit(world, before)) == (before, kept, [])
    with world.database.reading() as session:
        assert not one(session, models.Agent, "ann").paused


def test_what_was_wrong_before_can_be_mended_one_by_one(world: World) -> None:
    with world.database.writing() as session:  # as a release before would have taken it
        published = session.get_one(models.ConfigVersion, (world.project_id, version(world)))
        groups = [group | {"strategy": "fastest"} for group in published.document["groups"]]
        published.document = published.document | {"groups": groups}
        for group in session.scalars(select(models.Group)):
            group.strategy = "fastest"
    before = version(world)
    with world.change() as session:
        one(session, models.Group, "sales").strategy = "random"
    with world.change() as session:
        one(session, models.Group, "support").strategy = "random"
    assert version(world) == before + 2
    with pytest.raises(BuildError), world.change() as session:
        one(session, models.Group, "support").strategy = "fastest"


# ---- what comes with a version


def test_every_member_and_deputy_has_a_clock_and_every_agent_a_state(world: World) -> None:
    with world.change() as session:
        session.add(models.Agent(project_id=world.project_id, name="cat"))
        session.flush()
        on_leave = one(session, models.Agent, "ann")
        on_leave.deputy_id = world.agent_id(session, "cat")
    with world.database.reading() as session:
        clocks = {
            (group, agent)
            for group, agent in session.execute(
                select(models.Group.name, models.Agent.name)
                .join(models.MemberClock, models.MemberClock.group_id == models.Group.id)
                .join(models.Agent, models.Agent.id == models.MemberClock.agent_id)
            )
        }
        states = session.scalars(select(models.AgentState)).all()
    assert clocks == {(group, agent) for group in ("sales", "support") for agent in ("ann", "ben", "cat")} - {
        ("support", "ben")
    }
    assert [(state.status, state.answered_today) for state in states] == [("available", 0)] * 3
    assert all(state.available_since_at is not None for state in states)


def test_editing_a_group_resets_nobodys_turn(world: World) -> None:
    with world.database.writing() as session:
        for clock in session.scalars(select(models.MemberClock)):
            clock.last_offered, clock.virtual_time = 7, 8
    with world.change() as session:
        group = one(session, models.Group, "sales")
        group.members.clear()
        session.flush()
        group.members.append(models.Member(agent_id=world.agent_id(session, "ann")))
    with world.change() as session:
        group = one(session, models.Group, "sales")
        group.members.append(models.Member(agent_id=world.agent_id(session, "ben")))
    with world.database.reading() as session:
        clocks = session.scalars(select(models.MemberClock)).all()
    assert {(clock.last_offered, clock.virtual_time) for clock in clocks} == {(7, 8)}


@pytest.mark.parametrize(
    ("before", "after", "since"),
    [
        ({"paused": True}, {"paused": False}, "now"),
        ({"away_until": LATER}, {"away_until": None}, "now"),
        ({"away_until": LATER}, {"paused": True}, "before"),
        ({"paused": True, "away_until": LATER}, {"paused": False}, "before"),
        ({"away_until": EARLIER}, {"away_until": None}, "the end of the leave"),
        ({"more": {"away_from": EARLIER.isoformat()}, "away_until": LATER}, {"more": {}, "away_until": None}, "now"),
        ({"more": {"away_from": SOON.isoformat()}, "away_until": LATER}, {"more": {}, "away_until": None}, "before"),
        ({"away_until": EARLIER}, {"away_until": LATER}, "the end of the leave"),
        ({}, {"daily_cap": 5}, "before"),
    ],
    ids=str,
)
def test_whoever_is_taken_back_is_available_since_then(
    world: World, before: dict[str, Any], after: dict[str, Any], since: str
) -> None:
    def configure(columns: dict[str, Any]) -> datetime | None:
        with world.change() as session:
            agent = one(session, models.Agent, "ann")
            for name, value in columns.items():
                setattr(agent, name, value)
        return world.state("ann").available_since_at

    configure(before)
    world.declare("ann", available_since_at=EARLIEST)
    at = datetime.now(UTC)
    found = configure(after)
    assert found is not None
    assert found >= at if since == "now" else found == {"before": EARLIEST, "the end of the leave": EARLIER}[since]


# ---- the audit


def test_each_thing_created_changed_and_deleted_has_its_row(world: World) -> None:
    before, kept = version(world), document(world)
    with world.change() as session:
        session.get_one(models.Project, world.project_id).overflow = "101"
        one(session, models.Agent, "ann").paused = True
        session.add(models.Schedule(project_id=world.project_id, name="hours", time_zone="UTC"))
        session.delete(one(session, models.Rule, "two"))
    assert audit(world, before) == [
        ("changed", "agent", "ann"),
        ("changed", "project", "acme"),
        ("created", "schedule", "hours"),
        ("deleted", "rule", "two"),
    ]
    with world.database.reading() as session:
        rows = {row.subject: row for row in session.scalars(select(models.AuditEntry)) if row.version == before + 1}
    assert {row.actor for row in rows.values()} == {"test"}
    assert (rows["agent"].before or {})["paused"] is False
    assert (rows["agent"].after or {})["paused"] is True
    assert rows["schedule"].before is None
    assert (rows["rule"].before, rows["rule"].after) == (kept["rules"][1], None)


def test_members_and_chains_are_part_of_their_group_and_rule(world: World) -> None:
    before = version(world)
    with world.change() as session:
        group, rule = one(session, models.Group, "sales"), one(session, models.Rule, "one")
        group.members[0].weight = 5
        rule.groups.pop()
    assert audit(world, before) == [("changed", "group", "sales"), ("changed", "rule", "one")]


def test_moving_a_rule_is_told_as_one_move(world: World) -> None:
    before = version(world)
    with world.change() as session:
        one(session, models.Rule, "one").position = 5
    assert [row["name"] for row in document(world)["rules"]] == ["two", "one"]
    assert audit(world, before) == [("reordered", "rules", "")]
    with world.database.reading() as session:
        (row,) = session.scalars(select(models.AuditEntry).where(models.AuditEntry.version > before))
    assert (row.before, row.after) == ({"order": ["one", "two"]}, {"order": ["two", "one"]})


# ---- secrets


def test_no_secret_is_part_of_a_document_or_of_the_audit(world: World) -> None:
    before = version(world)
    with world.change() as session:
        project = session.get_one(models.Project, world.project_id)
        project.presence_auth_key, project.presence_token, project.hook_basic_auth = SECRETS[:3]
        project.secrets_revision += 1
        session.add(
            models.HookToken(
                project_id=world.project_id, token_hash="hash", token=SECRETS[3], created_at=datetime.now(UTC)
            )
        )
    assert version(world) == before + 1, "every process learns of new credentials with its next call"
    assert audit(world, before) == [("changed", "project", "acme")]
    with world.database.reading() as session:
        written = [json.dumps([row.before, row.after]) for row in session.scalars(select(models.AuditEntry))] + [
            json.dumps(row.document) for row in session.scalars(select(models.ConfigVersion))
        ]
        stored = [
            str(session.execute(text("SELECT * FROM projects")).all()),
            str(session.execute(text("SELECT * FROM hook_tokens")).all()),
        ]
        published = queries.load_published(session, world.project_id)
    assert not [secret for secret in SECRETS for told in written + stored if secret in told]
    assert published.basic_auth == SECRETS[2]
    assert document(world)["project"]["hook"]["basic_auth"] is True
    assert accepts(published, "hash")
    assert not accepts(published, "another")


# ---- what the rules see


def test_builds_what_the_rows_say(world: World) -> None:
    with world.change() as session:
        hours = models.Schedule(
            project_id=world.project_id, name="hours", time_zone="Europe/Kyiv", open={"mon-fri": ["09:00-18:00"]}
        )
        session.add(hours)
        session.flush()
        ben = one(session, models.Agent, "ben")
        ben.hours_id, ben.daily_cap = hours.id, 4
        ben.away_until = datetime(2026, 12, 24, 12, tzinfo=UTC)
        rule = one(session, models.Rule, "one")
        rule.conditions = {"caller": ["38050*"], "params": {"UTM": ["Google"]}, "direction": ["IN"]}
        rule.outside_id, rule.prefer, rule.prefer_days = hours.id, "last_agent", 7
        project = session.get_one(models.Project, world.project_id)
        project.presence_when_unknown, project.presence_fresh_seconds = "assume_online", 2.5
    with world.database.reading() as session:
        published = queries.load_published(session, world.project_id)
    built = published.project
    assert build_project(published.document, built.id, built.version) == built
    agents = {agent.name: agent for agent in built.agents.values()}
    groups = {group.name: group for group in built.groups.values()}
    ann, ben = agents["ann"], agents["ben"]
    assert ann == Agent(ann.id, "ann", ("ann",), wrap_up=timedelta(seconds=10), staff_id="7")
    assert (ben.deputy_id, ben.daily_cap, ben.away_until) == (ann.id, 4, datetime(2026, 12, 24, 12, tzinfo=UTC))
    assert ben.hours is not None
    assert ben.hours.time_zone == "Europe/Kyiv"
    assert groups["sales"] == Group(
        groups["sales"].id, "sales", "weighted", (Member(ann.id, 1, 0), Member(ben.id, 2, 1)), timedelta(seconds=25)
    )
    one_, two = built.rules
    assert one_.group_ids == (groups["support"].id, groups["sales"].id), "in the order of the chain"
    assert one_.conditions == read_conditions(
        {"caller": ["38050*"], "params": {"utm": ["Google"]}, "direction": ["in"], "outside": ben.hours}
    )
    assert one_.prefer == Preference(last_agent=True, within=timedelta(days=7))
    assert (two.overflow, two.prefer, one_.overflow) == ("", None, None)
    assert (built.when_unknown, built.fresh) == (WhenUnknown.ASSUME_ONLINE, timedelta(seconds=2.5))


def test_a_document_is_plain_json(world: World) -> None:
    found = document(world)
    assert json.loads(json.dumps(found)) == found


ON_MARS = {
    "id": 1,
    "name": "x",
    "time_zone": "Mars",
    "open": {},
    "exceptions": {},
    "override": "",
    "override_until": "",
}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (["groups", 0, "strategy"], "round-robin", "^group 'sales': there is no strategy 'round-robin'$"),
        (["groups", 0, "members", 0, "agent"], 99, "^group 'sales': there is no agent 99$"),
        (["groups"], [{"id": 1}], "there is no 'name'"),
        (["groups"], None, "the project: "),
        (["project", "presence", "when_unknown"], "guess", "^the project: .*guess"),
        (["project", "time_zone"], "Mars/Crater", "Mars/Crater"),
        (["project", "hook", "allow_addresses"], ["10.0.0.300"], "10.0.0.300"),
        (["project", "cool_down_seconds"], 1e300, "the project: "),
        (["rules", 0, "when"], {"caller": ["*"]}, "^rule 'one': .*matches every number"),
        (["rules", 0, "when"], {"params": {"x": ["*y"]}}, "cannot be searched for"),
        (["rules", 0, "groups"], [99], "^rule 'one': there is no group 99$"),
        (["rules", 0, "when"], {"free": {"group": 99, "fewer_than": 1}}, "^rule 'one': there is no 99$"),
        (["rules", 0, "when"], {"schedule": 99}, "^rule 'one': there is no 99$"),
        (["agents", 0, "hours"], 99, "^agent 'ann': there is no 99$"),
        (["agents", 0, "deputy"], 99, "^agent 'ann': there is no agent 99$"),
        (["agents", 0, "away_until"], "tomorrow", "tomorrow"),
        (["schedules"], [ON_MARS], "^schedule 'x': .*Mars"),
        (["project", "hook"], {}, "allow_addresses"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_understood_is_refused(built: Document, path: list[Any], value: Any, told: str) -> None:
    target = built
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(BuildError, match=told):
        build_project(built, 1, 1)


@pytest.fixture(scope="module")
def _document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    from router.db import migrate

    folder = tmp_path_factory.mktemp("document")
    with world_at(f"sqlite+pysqlite:///{folder / 'router.db'}", folder) as world:
        migrate.upgrade(world.database)
        world.configure(agents=["ann"], groups={"sales": ["ann"]}, rules=[{"name": "one", "groups": ["sales"]}])
        return document(world)


@pytest.fixture
def built(_document: Document) -> Document:
    assert isinstance(build_project(_document, 1, 1), Project)
    return deepcopy(_document)


def test_conditions_that_are_not_there_are_no_conditions() -> None:
    assert read_conditions({}) == read_conditions({"caller": [], "params": {}}) == ()


# ---- what the database itself keeps


@pytest.mark.parametrize("model", [models.Group, models.Agent])
def test_what_a_rule_or_an_agent_needs_cannot_be_deleted(world: World, model: Any) -> None:
    name = "support" if model is models.Group else "ann"  # ann is ben's deputy
    with pytest.raises(IntegrityError), world.database.writing() as session:
        session.execute(delete(model).where(model.name == name))


def test_an_expired_token_is_not_accepted(world: World) -> None:
    now = datetime.now(UTC)
    with world.change() as session:
        for name, until in (("old", now - timedelta(seconds=1)), ("going", now + timedelta(minutes=1)), ("new", None)):
            session.add(
                models.HookToken(
                    project_id=world.project_id, token_hash=name, token=name, created_at=now, expires_at=until
                )
            )
        session.get_one(models.Project, world.project_id).secrets_revision += 1
    with world.database.reading() as session:
        published = queries.load_published(session, world.project_id)
        assert queries.current_token(session, world.project_id) == "new"
        assert [queries.project_of_token(session, name) for name in ("new", "none")] == [world.project_id, None]
    assert [accepts(published, name) for name in ("old", "going", "new")] == [False, True, True]
