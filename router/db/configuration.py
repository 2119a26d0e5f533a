"""The published configuration: one document per version, which the hook reads in one row and a replay decides by.

Rows are what people edit; `publish` writes them down as a document, counts the version up and records who changed what.
Every change of configuration goes through `changing`. Secrets are never part of a document.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session

from router.core import patterns
from router.core.model import Agent, Group, Member, Project, WhenUnknown
from router.core.rules import Conditions, NumberTest, ParamTest, Preference, Rule
from router.core.schedule import Schedule
from router.core.schedule_words import parse_schedule
from router.core.strategies import STRATEGIES
from router.db import models
from router.db.session import Database

Document = dict[str, Any]
T = TypeVar("T")

_LISTS = {"schedules": "schedule", "agents": "agent", "groups": "group", "rules": "rule"}


class UnknownProjectError(LookupError):
    """No project with this name or id."""


class BuildError(ValueError):
    """A configuration that calls could not be routed by: which part of it, and what is wrong with that."""


class Configured(NamedTuple):
    """A published configuration: its words, and the rules' view of them. Shared: not to be changed.

    `fault`: why it is this one and not the newer one that was asked for, else "".
    """

    document: Document
    project: Project
    fault: str = ""


@contextmanager
def changing(database: Database, project_id: int, actor: str) -> Iterator[Session]:
    """Change a project's configuration: one transaction, published with its audit rows when it ends without error."""
    with database.writing() as session:
        lock_project(session, project_id)
        yield session
        publish(session, project_id, actor)


def lock_project(session: Session, project_id: int) -> models.Project:
    """The project's row, held until the transaction ends: changes of one project's configuration queue here."""
    # Not FOR UPDATE: every decision refers to the project's row, and calls need not wait for an admin.
    project = session.get(models.Project, project_id, with_for_update={"key_share": True})
    if project is None:
        raise UnknownProjectError(f"there is no project with id {project_id}")
    return project


def publish(session: Session, project_id: int, actor: str) -> int:
    """Write down the configuration as it stands in this transaction, if it changed; the version it has now.

    It is built before, as calls will have it. Raises BuildError when that fails, unless the one before fails too: then
    nothing gets worse, and where several things are wrong they can be mended one by one.
    """
    session.flush()
    is_told = session.info.pop("is_told", False)
    project = session.get_one(models.Project, project_id)
    before = load_document(session, project_id, project.version) or {}
    after = document_of(session, project)
    if after == before:
        return project.version
    try:
        build_project(after, project_id, project.version + 1)
    except BuildError:
        if not before or is_buildable(before):
            raise
    now = datetime.now(UTC)
    # Not through the ORM: `revision` counts what people edit, and two admins who edit unlike things do not conflict.
    session.execute(text("UPDATE projects SET version = version + 1 WHERE id = :id"), {"id": project_id})
    session.refresh(project, ["version"])
    session.add(
        models.ConfigVersion(
            project_id=project_id, version=project.version, published_at=now, actor=actor, document=after
        )
    )
    session.add_all(_audit(before, after, project, actor, now, is_told=is_told))
    _ensure_clocks(session, project_id, now)
    _note_available(session, before, after, now)
    session.flush()
    return project.version


def load_document(session: Session, project_id: int, version: int) -> Document | None:
    """The document of this version, None when it was pruned or never published."""
    row = session.get(models.ConfigVersion, (project_id, version))
    return None if row is None else row.document


def load_configured(session: Session, project_id: int, version: int) -> Configured:
    """The configuration of this version; while that cannot be built, of the newest one before it that can.

    Raises BuildError when there is none, UnknownProjectError when nothing was published.
    """
    kept = models.ConfigVersion
    of_project = (kept.project_id == project_id, kept.version <= version)
    versions = session.scalars(select(kept.version).where(*of_project).order_by(kept.version.desc())).all()
    if not versions:
        raise UnknownProjectError(f"there is no version {version} of project {project_id}")
    fault = "" if version in versions else f"version {version} is not there"
    for each in versions:
        document = load_document(session, project_id, each) or {}
        try:
            return Configured(document, build_project(document, project_id, each), fault)
        except BuildError as error:
            fault = fault or f"version {each}: {error}"
    raise BuildError(fault)


def document_of(session: Session, project: models.Project) -> Document:
    """The configuration as it stands in the rows, as plain JSON values."""

    def rows(model: Any, *order: Any) -> Any:
        return session.scalars(select(model).where(model.project_id == project.id).order_by(*order))

    return {
        "project": {
            "name": project.name,
            "time_zone": project.time_zone,
            "country": project.country,
            "overflow": project.overflow,
            "hook": {
                "answer": project.hook_answer,
                "key": project.hook_key,
                "rpc_result": project.hook_rpc_result,
                "retry_seconds": project.hook_retry_seconds,
                "allow_addresses": project.hook_allow_addresses,
                "fields": project.hook_fields,
                "basic_auth": project.hook_basic_auth is not None,
            },
            "presence": {
                "source": project.presence_source,
                "api_url": project.presence_api_url,
                "online_from": project.presence_online_from,
                "project_id": project.presence_project_id,
                "with_do_not_disturb": project.presence_with_do_not_disturb,
                "poll_seconds": project.presence_poll_seconds,
                "fresh_seconds": project.presence_fresh_seconds,
                "when_unknown": project.presence_when_unknown,
                "last_known_seconds": project.presence_last_known_seconds,
                "away_seconds": project.presence_away_seconds,
                "call_log_days": project.presence_call_log_days,
            },
            "cool_down_seconds": project.cool_down_seconds,
            "break_after_no_answers": project.break_after_no_answers,
            "keep_days": project.keep_days,
            "mask_numbers": project.mask_numbers,
            "secrets": project.secrets_revision,
        },
        "schedules": [
            {
                "id": row.id,
                "name": row.name,
                "time_zone": row.time_zone,
                "open": row.open,
                "exceptions": row.exceptions,
                "override": row.override,
                "override_until": _iso(row.override_until),
            }
            for row in rows(models.Schedule, models.Schedule.name)
        ],
        "agents": [
            {
                "id": row.id,
                "name": row.name,
                "sip_logins": [login.login for login in row.sip_logins],
                "paused": row.paused,
                "wrap_up_seconds": row.wrap_up_seconds,
                "daily_cap": row.daily_cap,
                "external_id": row.external_id,
                "hours": row.hours_id,
                "deputy": row.deputy_id,
                "away_until": _iso(row.away_until),
            }
            for row in rows(models.Agent, models.Agent.name)
        ],
        "groups": [
            {
                "id": row.id,
                "name": row.name,
                "strategy": row.strategy,
                "ring_seconds": row.ring_seconds,
                "overflow": row.overflow,
                "members": [
                    {
                        "agent": member.agent_id,
                        "tier": member.tier,
                        "position": member.position,
                        "weight": member.weight,
                        "hours": member.hours_id,
                    }
                    for member in sorted(row.members, key=lambda m: (m.tier, m.position, m.agent_id))
                ],
            }
            for row in rows(models.Group, models.Group.position, models.Group.name)
        ],
        "rules": [
            {
                "id": row.id,
                "name": row.name,
                "enabled": row.enabled,
                "when": row.conditions,
                "inside": row.inside_id,
                "outside": row.outside_id,
                "free_group": row.free_group_id,
                "free_fewer_than": row.free_fewer_than,
                "prefer": row.prefer,
                "prefer_param": row.prefer_param,
                "prefer_days": row.prefer_days,
                "groups": [link.group_id for link in sorted(row.groups, key=lambda link: link.position)],
                "overflow": row.overflow,
            }
            for row in rows(models.Rule, models.Rule.position, models.Rule.id)
        ],
    }


@contextmanager
def _about(part: str) -> Iterator[None]:
    """Tell whatever fails as a BuildError about this part of the document."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        told = f"there is no {error}" if isinstance(error, KeyError) else str(error) or repr(error)
        raise BuildError(f"{part}: {told}") from error


def is_buildable(document: Document) -> bool:
    """Could calls be routed by it?"""
    try:
        build_project(document, 0, 0)
    except BuildError:
        return False
    return True


def _each(kind: str, rows: Iterable[Mapping[str, Any]], build: Callable[[Mapping[str, Any]], T]) -> dict[int, T]:
    """By id what is built of each row."""
    built: dict[int, T] = {}
    for row in rows:
        with _about(f"{kind} {row['name']!r}"):
            built[row["id"]] = build(row)
    return built


@_about("the project")
def build_project(document: Mapping[str, Any], project_id: int, version: int) -> Project:
    """The rules' view of a document. Raises BuildError: what cannot be understood is never guessed.

    What the hook makes of it beside the rules is tried as well: the time zone, the addresses that may ask.
    """
    project = document["project"]
    ZoneInfo(project["time_zone"])
    for address in project["hook"]["allow_addresses"]:
        ip_network(address.strip(), strict=False)
    agent_ids = {row["id"] for row in document["agents"]}
    group_ids = {row["id"] for row in document["groups"]}
    schedules = _each("schedule", document["schedules"], build_schedule)
    groups = _each("group", document["groups"], lambda row: _build_group(row, schedules, agent_ids))
    presence = project["presence"]
    return Project(
        id=project_id,
        name=project["name"],
        version=version,
        time_zone=project["time_zone"],
        overflow=project["overflow"],
        agents=_each("agent", document["agents"], lambda row: _build_agent(row, schedules, agent_ids)),
        groups=groups,
        rules=tuple(_each("rule", document["rules"], lambda row: _build_rule(row, schedules, group_ids)).values()),
        retry_window=timedelta(seconds=project["hook"]["retry_seconds"]),
        fresh=timedelta(seconds=presence["fresh_seconds"]),
        when_unknown=WhenUnknown(presence["when_unknown"]),
        last_known=timedelta(seconds=presence["last_known_seconds"]),
        away=timedelta(seconds=presence.get("away_seconds", 30)),
        cool_down=timedelta(seconds=project["cool_down_seconds"]),
        break_after_no_answers=project["break_after_no_answers"],
    )


def build_schedule(row: Mapping[str, Any]) -> Schedule:
    """The rules' view of one schedule of a document."""
    return parse_schedule(
        row["name"],
        row["time_zone"],
        row["open"],
        row["exceptions"],
        row["override"],
        row["override_until"],
        id=row["id"],
    )


def _refer(known: Collection[int], what: str, *ids: int | None) -> None:
    """Refuse an id that is not there: a decision would find out while a caller waits."""
    for id_ in ids:
        if id_ is not None and id_ not in known:
            raise ValueError(f"there is no {what} {id_}")


def _build_agent(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Agent:
    _refer(agent_ids, "agent", row["deputy"])
    return Agent(
        id=row["id"],
        name=row["name"],
        sip_logins=tuple(row["sip_logins"]),
        paused=row["paused"],
        wrap_up=timedelta(seconds=row["wrap_up_seconds"]),
        daily_cap=row["daily_cap"],
        hours=schedules[row["hours"]] if row["hours"] else None,
        external_id=row["external_id"],
        deputy_id=row["deputy"],
        away_until=_leave_of(row),
    )


def _build_group(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Group:
    if row["strategy"] not in STRATEGIES:
        raise ValueError(f"there is no strategy {row['strategy']!r}")
    _refer(agent_ids, "agent", *(member["agent"] for member in row["members"]))
    return Group(
        id=row["id"],
        name=row["name"],
        strategy=row["strategy"],
        members=tuple(
            Member(
                agent_id=member["agent"],
                tier=member["tier"],
                position=member["position"],
                weight=member["weight"],
                hours=schedules[member["hours"]] if member["hours"] else None,
            )
            for member in row["members"]
        ),
        ring=timedelta(seconds=row["ring_seconds"]),
        overflow=row["overflow"],
    )


def _build_rule(row: Mapping[str, Any], schedules: Mapping[int, Schedule], group_ids: Collection[int]) -> Rule:
    _refer(group_ids, "group", *row["groups"], row["free_group"])
    prefer = None
    if row["prefer"]:
        prefer = Preference(
            last_agent=row["prefer"] == "last_agent",
            param=row["prefer_param"],
            within=timedelta(days=row["prefer_days"]),
        )
    return Rule(
        id=row["id"],
        name=row["name"],
        group_ids=tuple(row["groups"]),
        conditions=build_conditions(
            row["when"],
            inside=schedules[row["inside"]] if row["inside"] else None,
            outside=schedules[row["outside"]] if row["outside"] else None,
            free_group_id=row["free_group"],
            free_fewer_than=row["free_fewer_than"],
        ),
        prefer=prefer,
        overflow=row["overflow"],
        enabled=row["enabled"],
    )


def build_conditions(when: Mapping[str, Any], **references: Any) -> Conditions:
    """The words of a rule's `when` as tests. `references`: what the rule's columns refer to."""

    def numbers(kind: str) -> NumberTest | None:
        return patterns.number_test(when[kind]) if when.get(kind) else None

    return Conditions(
        caller=numbers("caller"),
        not_caller=numbers("not_caller"),
        dialed=numbers("dialed"),
        not_dialed=numbers("not_dialed"),
        params=_param_tests(when.get("params", {})),
        not_params=_param_tests(when.get("not_params", {})),
        direction=frozenset(value.casefold() for value in when.get("direction", ())),
        **references,
    )


def _param_tests(params: Mapping[str, list[str]]) -> dict[str, tuple[ParamTest, ...]]:
    return {name.casefold(): patterns.param_tests(values) for name, values in params.items()}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _ensure_clocks(session: Session, project_id: int, now: datetime) -> None:
    """Every agent has a state and every member (and deputy) a clock: the hook's one read joins them."""
    stamp = {"project": project_id, "now": int(now.timestamp() * 1_000_000)}
    session.execute(
        text(
            "INSERT INTO agent_states (agent_id, project_id, status, status_since_at, status_reason, no_answers,"
            " answered_today, available_since_at)"
            " SELECT id, project_id, 'available', :now, '', 0, 0, :now FROM agents WHERE project_id = :project"
            " ON CONFLICT (agent_id) DO NOTHING"
        ),
        stamp,
    )
    session.execute(
        text(
            "INSERT INTO member_clocks (group_id, agent_id, last_offered, virtual_time)"
            " SELECT m.group_id, m.agent_id, 0, 0 FROM members m JOIN agents a ON a.id = m.agent_id"
            " WHERE a.project_id = :project"
            " UNION SELECT m.group_id, a.deputy_id, 0, 0 FROM members m JOIN agents a ON a.id = m.agent_id"
            " WHERE a.project_id = :project AND a.deputy_id IS NOT NULL"
            " ON CONFLICT (group_id, agent_id) DO NOTHING"
        ),
        stamp,
    )


def _note_available(session: Session, before: Document, after: Document, now: datetime) -> None:
    """Whoever is taken back from a pause or a leave is available from now on; whose leave was over, from then on."""
    was = {row["id"]: row for row in before.get("agents", [])}
    state = models.AgentState
    for row in after["agents"]:
        old = was.get(row["id"], row)
        if (old["paused"], old["away_until"]) == (row["paused"], row["away_until"]):
            continue
        left_until = _leave_of(old)
        since = left_until if left_until is not None and left_until <= now else None
        if _is_absent(old, now) and not _is_absent(row, now):
            since = now
        if since is not None:
            is_earlier = or_(state.available_since_at.is_(None), state.available_since_at < since)
            session.execute(
                update(state).where(state.agent_id == row["id"], is_earlier).values(available_since_at=since)
            )


def _leave_of(agent: Mapping[str, Any]) -> datetime | None:
    return datetime.fromisoformat(agent["away_until"]) if agent["away_until"] else None


def _is_absent(agent: Mapping[str, Any], now: datetime) -> bool:
    until = _leave_of(agent)
    return agent["paused"] or (until is not None and until > now)


def tell(session: Session, entry: models.AuditEntry) -> None:
    """Write down what this change of a secret is: that some secret changed is not told once more then."""
    session.add(entry)
    session.info["is_told"] = True


def _audit(
    before: Document, after: Document, project: models.Project, actor: str, now: datetime, *, is_told: bool
) -> Iterator[models.AuditEntry]:
    """One row for each thing that this change created, changed or deleted. `is_told`: see `tell`."""

    def entry(subject: str, row_id: int, old: dict[str, Any] | None, new: dict[str, Any] | None) -> models.AuditEntry:
        named = new or old or {}
        return models.AuditEntry(
            at=now,
            actor=actor,
            project_id=project.id,
            version=project.version,
            action="created" if old is None else "deleted" if new is None else "changed",
            subject=subject,
            subject_id=row_id,
            subject_name=named.get("name", ""),
            before=old,
            after=new,
        )

    old_project, new_project = before.get("project"), after["project"]
    is_secret = old_project is not None and old_project | {"secrets": new_project["secrets"]} == new_project
    if old_project != new_project and not (is_told and is_secret):
        yield entry("project", project.id, old_project, new_project)
    for plural, subject in _LISTS.items():
        old_rows = {row["id"]: row for row in before.get(plural, [])}
        new_rows = {row["id"]: row for row in after[plural]}
        for row_id in sorted(old_rows.keys() | new_rows.keys()):
            if old_rows.get(row_id) != new_rows.get(row_id):
                yield entry(subject, row_id, old_rows.get(row_id), new_rows.get(row_id))
        order = [row["id"] for row in before.get(plural, []) if row["id"] in new_rows]
        if plural == "rules" and order != [row["id"] for row in after[plural] if row["id"] in old_rows]:
            names = {row["id"]: row["name"] for row in after[plural]}
            yield models.AuditEntry(
                at=now,
                actor=actor,
                project_id=project.id,
                version=project.version,
                action="reordered",
                subject="rules",
                before={"order": [names[row_id] for row_id in order]},
                after={"order": [row["name"] for row in after[plural]]},
            )
