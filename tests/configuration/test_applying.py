"""Applying a file: all of it or nothing, once, and nobody loses a turn, a clock or a secret."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from router.configuration import Change, ConfigFileError, apply, change, load
from router.configuration.rows import read_rows
from router.db import models
from router.db.documents import load_document
from router.db.queries import load_published, project_named
from router.db.session import Database
from router.db.types import readable
from router.hook.auth import looks_like_token
from router.routing.known import accepts, token_hash
from tests.configuration.conftest import ENVIRON, load_sample, sample

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

PAIR = """\
projects:
  - name: acme
    overflow: "100"
    agents:
      - {name: Ann, sip_logins: [ann, ann_mob]}
      - {name: Bob, sip_logins: [bob]}
    groups:
      - {name: sales, members: [{agent: Ann}, {agent: Bob}]}
      - {name: vip, members: [{agent: Ann}]}
    rules:
      - {name: VIP, when: {dialed: "1"}, groups: [vip, sales]}
      - {name: everyone, groups: [sales]}
"""


def do(database: Database, text: str, *, dry_run: bool = False, environ: dict[str, str] | None = None) -> list[str]:
    return [str(change) for change in apply(database, load(text, environ or {}), dry_run=dry_run)]


def count(database: Database, model: type[models.Base]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def project_of(database: Database, name: str = "acme") -> models.Project:
    with database.reading() as session:
        return session.scalars(select(models.Project).where(models.Project.name == name)).one()


def ids(database: Database, model: Any) -> dict[str, int]:
    with database.reading() as session:
        return {row.name: row.id for row in session.scalars(select(model))}


def revisions(database: Database) -> dict[str, int]:
    rows: tuple[Any, ...] = (models.Project, models.Schedule, models.Agent, models.Group, models.Rule)
    with database.reading() as session:
        return {
            f"{model.__tablename__} {row.name}": row.revision
            for model in rows
            for row in session.scalars(select(model))
        }


def test_a_new_project_is_published_and_can_be_called(database: Database) -> None:
    apply(database, load_sample(), actor="ann@acme.example")
    with database.reading() as session:
        row = project_named(session, "acme")
        published = load_published(session, row.id)
        (token,) = session.scalars(select(models.HookToken))
        (version,) = session.scalars(select(models.ConfigVersion))
    assert (row.version, version.version, version.actor) == (1, 1, "ann@acme.example")
    assert looks_like_token(readable(token.token))
    assert token.token_hash == token_hash(readable(token.token))
    assert accepts(published, token.token_hash)
    assert published.basic_auth == "ringostat:pa55word"
    assert row.presence_auth_key == "k3y-of-acme"
    assert [rule.name for rule in published.project.rules] == ["blocked", "VIP", "CRM", "night", "everyone"]


def test_applying_twice_changes_nothing(database: Database) -> None:
    assert apply(database, load_sample())
    before = (project_of(database).version, revisions(database), count(database, models.AuditEntry))
    assert apply(database, load_sample()) == []
    assert (project_of(database).version, revisions(database), count(database, models.AuditEntry)) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(database: Database) -> None:
    told = apply(database, load_sample(), dry_run=True)
    assert count(database, models.Project) == 0
    assert apply(database, load_sample()) == told
    before = revisions(database)
    assert do(database, sample("acme.yaml").replace("keep_days: 30", "keep_days: 31"), dry_run=True, environ=ENVIRON)
    assert revisions(database) == before
    assert project_of(database).version == 1


def test_changes_are_told_in_words(database: Database) -> None:
    do(database, PAIR)
    told = do(
        database,
        """\
projects:
  - name: acme
    overflow: "101"
    hook: {retry_seconds: 2.5, basic_auth: "u:p"}
    schedules: [{name: days, open: {daily: ["08:00-18:00"]}}]
    agents:
      - {name: Bob, sip_logins: [bob], paused: true, daily_cap: 9}
      - {name: Cid, sip_logins: [ann_mob]}
    groups:
      - {name: vip, members: [{agent: Cid}]}
      - {name: sales, strategy: weighted, members: [{agent: Cid}, {agent: Bob, weight: 2}]}
    rules:
      - {name: everyone, groups: [sales]}
      - {name: VIP, when: {dialed: ["1", 2*], schedule: days}, groups: [sales], overflow: ""}
""",
    )
    assert told == [
        *('acme: overflow: "100" → "101"', "acme: hook.retry_seconds: 5 → 2.5", "acme: schedule days added"),
        *("acme: agent Ann removed", "acme: agent Bob: paused: false → true"),
        *("acme: agent Bob: daily_cap: not set → 9", "acme: agent Cid added", "acme: group vip: member Ann removed"),
        *("acme: group vip: member Cid added", 'acme: group sales: strategy: "round_robin" → "weighted"'),
        *("acme: group sales: member Ann removed", "acme: group sales: member Cid added"),
        *("acme: group sales: member Bob: weight: 1 → 2", "acme: groups reordered: vip, sales"),
        *('acme: rule VIP: when.dialed: ["1"] → ["1", "2*"]', 'acme: rule VIP: when.schedule: not set → "days"'),
        *('acme: rule VIP: groups: ["vip", "sales"] → ["sales"]', 'acme: rule VIP: overflow: not set → ""'),
        *("acme: rules reordered: everyone, VIP", "acme: hook.basic_auth set"),
    ]


def test_rows_keep_their_identity_and_agents_their_clocks(database: Database) -> None:
    do(database, PAIR)
    agents, groups, rules = (ids(database, model) for model in (models.Agent, models.Group, models.Rule))
    with database.writing() as session:
        for clock in session.scalars(select(models.MemberClock)):
            clock.last_offered = clock.agent_id * 10
        for state in session.scalars(select(models.AgentState)):
            state.answered_today = 7
    do(
        database,
        PAIR.replace("[ann, ann_mob]", "[ann_new]")
        .replace("{agent: Ann}, {agent: Bob}", "{agent: Bob, tier: 3}, {agent: Ann}")
        .replace("name: sales, members", "name: sales, strategy: random, members")
        .replace('dialed: "1"', 'caller: "2"'),
    )
    assert (ids(database, models.Agent), ids(database, models.Group), ids(database, models.Rule)) == (
        agents,
        groups,
        rules,
    )
    with database.reading() as session:
        assert {c.agent_id * 10 for c in session.scalars(select(models.MemberClock))} == {
            c.last_offered for c in session.scalars(select(models.MemberClock))
        }
        assert {state.answered_today for state in session.scalars(select(models.AgentState))} == {7}


def test_order_is_the_order_of_the_file(database: Database) -> None:
    do(database, PAIR)
    swapped = PAIR.replace("[{agent: Ann}, {agent: Bob}]", "[{agent: Bob}, {agent: Ann}]")
    lines = swapped.splitlines(keepends=True)
    lines[-2], lines[-1] = lines[-1], lines[-2]
    told = do(database, "".join(lines))
    assert told == ["acme: group sales: members reordered: Bob, Ann", "acme: rules reordered: everyone, VIP"]
    with database.reading() as session:
        project = load_published(session, project_of(database).id).project
        order = session.scalars(select(models.AuditEntry).where(models.AuditEntry.action == "reordered")).one()
    assert [rule.name for rule in project.rules] == ["everyone", "VIP"]
    sales = next(group for group in project.groups.values() if group.name == "sales")
    assert [project.agents[member.agent_id].name for member in sales.members] == ["Bob", "Ann"]
    assert order.after == {"order": ["everyone", "VIP"]}


def test_members_of_unlike_tiers_have_no_order_to_be_changed(database: Database) -> None:
    text = PAIR.replace("[{agent: Ann}, {agent: Bob}]", "[{agent: Bob, tier: 2}, {agent: Ann}]")
    do(database, text)
    assert do(database, text) == []


def test_logins_change_hands(database: Database) -> None:
    do(database, PAIR)
    do(database, PAIR.replace("[ann, ann_mob]", "[x]").replace("[bob]", "[ann_mob, ann]").replace("[x]", "[bob]"))
    with database.reading() as session:
        agents = load_published(session, project_of(database).id).project.agents.values()
    assert {agent.name: agent.sip_logins for agent in agents} == {"Ann": ("bob",), "Bob": ("ann_mob", "ann")}


def test_what_is_gone_from_the_file_goes_with_all_that_hangs_on_it(database: Database) -> None:
    apply(database, load_sample())
    row = project_of(database)
    agents, groups = ids(database, models.Agent), ids(database, models.Group)
    with database.writing() as session:
        session.add(
            models.Reservation(
                agent_id=agents["Ann"], project_id=row.id, group_id=groups["vip"], decision_id=1, call_id="c",
                sip_login="acme_ann", claimed_at=NOW, expires_at=NOW,
            )
        )  # fmt: skip
    assert count(database, models.MemberClock)
    told = do(database, "projects: [{name: acme, overflow: '100'}]")
    for what in ("schedule office hours", "agent Ann", "agent Cid", "group sales", "rule VIP"):
        assert f"acme: {what} removed" in told
    for model in (
        *(models.Schedule, models.Agent, models.SipLogin, models.Group, models.Member, models.Rule, models.RuleGroup),
        *(models.AgentState, models.MemberClock),
    ):
        assert count(database, model) == 0, model
    assert count(database, models.Reservation) == 1, "a phone that rings stays promised, whoever has it"
    assert count(database, models.HookToken) == 1
    assert count(database, models.ConfigVersion) == 2


def test_agents_who_stand_in_for_each_other_can_both_go(database: Database) -> None:
    agents = "agents: [{name: Ann, deputy: Bob}, {name: Bob, deputy: Ann}, {name: Cid, deputy: Ann}]"
    do(database, f"projects: [{{name: acme, {agents}}}]")
    assert do(database, "projects: [{name: acme, agents: [{name: Cid}]}]")
    assert ids(database, models.Agent).keys() == {"Cid"}


def test_all_projects_or_none(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    do(database, PAIR)
    before = revisions(database)

    def failing(session: Session, project: models.Project, *more: Any) -> int:
        if project.name != "acme":
            raise RuntimeError("no room left on the disk")
        return publish(session, project, *more)

    publish = change.publish
    monkeypatch.setattr(change, "publish", failing)
    with pytest.raises(RuntimeError, match="no room"):
        do(database, PAIR.replace('"100"', '"200"') + "  - name: beta\n")
    assert revisions(database) == before
    assert (project_of(database).overflow, project_of(database).version) == ("100", 1)


def test_projects_that_the_file_does_not_name_are_left_alone(database: Database) -> None:
    do(database, PAIR)
    do(database, PAIR.replace("name: acme", "name: beta"))
    before = project_of(database).version
    assert do(database, "projects: [{name: beta, overflow: '1'}]")
    assert project_of(database).version == before
    assert ids(database, models.Agent).keys() == {"Ann", "Bob"}


def test_a_deleted_project_comes_back_with_its_name(database: Database) -> None:
    do(database, PAIR)
    with database.writing() as session:
        session.scalars(select(models.Project)).one().deleted_at = NOW
    assert do(database, PAIR) == ["acme: project brought back from deletion"]
    assert project_of(database).deleted_at is None


def test_two_files_applied_at_once_wait_for_each_other(database: Database) -> None:
    text = PAIR + "  - name: beta\n"
    turned = "projects:\n  - name: beta\n" + PAIR.removeprefix("projects:\n")
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda i: do(database, turned if i % 2 else text), range(8)))
    assert sorted(map(bool, told)) == [False] * 7 + [True]
    assert (count(database, models.Project), count(database, models.HookToken)) == (2, 2)
    assert [project_of(database, name).version for name in ("acme", "beta")] == [1, 1]


def test_a_form_learns_of_a_change_in_what_belongs_to_its_row(database: Database) -> None:
    do(database, PAIR)
    before = revisions(database)
    do(database, PAIR.replace("[ann, ann_mob]", "[ann_mob, ann]").replace("vip, members: [{agent: Ann}]", "vip"))
    changed = {name for name, revision in revisions(database).items() if revision != before[name]}
    assert changed == {"agents Ann", "groups vip"}


# ---- secrets

SECRETS = "projects: [{name: acme, hook: {basic_auth: '${B}'}, presence: {auth_key: '${A}', token: '${T}'}}]"
THREE = {"A": "auth-key-1", "B": "user:pass-1", "T": "token-1"}


def stored_secrets(database: Database) -> tuple[object, object, object, int]:
    row = project_of(database)
    return row.presence_auth_key, row.hook_basic_auth, row.presence_token, row.secrets_revision


def test_secrets_that_are_left_out_stay_as_they_are(database: Database) -> None:
    do(database, SECRETS, environ=THREE)
    revision = project_of(database).secrets_revision
    assert do(database, "projects: [{name: acme}]") == []
    assert do(database, SECRETS, environ=THREE) == []
    assert stored_secrets(database) == ("auth-key-1", "user:pass-1", "token-1", revision)
    assert project_of(database).version == 1


def test_a_changed_secret_makes_a_version_but_shows_nowhere(database: Database) -> None:
    do(database, SECRETS, environ=THREE)
    revision = project_of(database).secrets_revision
    told = do(database, SECRETS, environ={"A": "auth-key-2", "B": "user:pass-2", "T": "token-1"})
    assert told == ["acme: hook.basic_auth changed", "acme: presence.auth_key changed"]
    assert stored_secrets(database) == ("auth-key-2", "user:pass-2", "token-1", revision + 2)
    assert project_of(database).version == 2
    with database.reading() as session:
        row = project_named(session, "acme")
        kept: list[object] = [read_rows(session, row), *(load_document(session, row.id, n) for n in (1, 2))]
        kept += [(entry.before, entry.after) for entry in session.scalars(select(models.AuditEntry))]
    assert not any(secret in str(kept) for secret in ("auth-key", "pass-", "token-1"))


def test_an_empty_secret_takes_it_away(database: Database) -> None:
    do(database, SECRETS, environ=THREE)
    told = do(database, "projects: [{name: acme, hook: {basic_auth: ''}, presence: {auth_key: '${A:-}'}}]")
    assert told == ["acme: hook.basic_auth taken away", "acme: presence.auth_key taken away"]
    assert stored_secrets(database)[:3] == (None, None, "token-1")
    assert do(database, "projects: [{name: acme, hook: {basic_auth: ''}}]") == []


def test_smart_phones_count_once_their_project_and_token_are_known(database: Database) -> None:
    def online_from(presence: str) -> str:
        do(database, f"projects: [{{name: acme, presence: {{{presence}}}}}]")
        return project_of(database).presence_online_from

    assert online_from("") == "sip"
    assert online_from("project_id: 7") == "sip"
    assert online_from("project_id: 7, token: t") == "either"
    assert online_from("project_id: 7") == "either"  # the token is stored
    assert online_from("project_id: 7, online_from: sip") == "sip"
    assert online_from("project_id: 7, token: ''") == "sip"


@pytest.mark.parametrize("online_from", ["either", "smart_phone"])
def test_smart_phones_need_a_token_that_the_file_brings_or_that_is_stored(database: Database, online_from: str) -> None:
    text = f"projects:\n- name: acme\n  presence: {{project_id: 7, online_from: {online_from}}}"
    with pytest.raises(
        ConfigFileError, match=rf"f:3: projects\[0\].presence.online_from: {online_from} needs the token"
    ):
        apply(database, load(text, {}, filename="f"))
    assert count(database, models.Project) == 0
    assert do(database, text.replace("7,", "7, token: t,"))
    assert do(database, text) == []


def test_what_was_stored_before_and_cannot_be_any_more_is_refused_only_when_it_is_applied(database: Database) -> None:
    text = "projects:\n- name: acme\n  presence: {project_id: 7, online_from: either, token: t}"
    do(database, text)
    with database.writing() as session:
        session.scalars(select(models.Project)).one().presence_token = None
    with database.reading() as session:
        assert load_published(session, project_of(database).id).fault == ""
    with pytest.raises(ConfigFileError, match="add token, or write online_from: sip"):
        do(database, text.replace(", token: t", ""))


def test_a_change_reads_as_a_line() -> None:
    assert str(Change("acme", "group sales: member Bob added")) == "acme: group sales: member Bob added"
