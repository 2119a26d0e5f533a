"""Publish the configuration: one document per version, a single row, which the hook and recomputations read.

People edit rows; `publish` stores them as a document, counts the version up and records who changed what. Every change
of configuration goes through `changing`. Secrets are never part of a document.
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

from router.core.conditions import read_conditions
from router.core.model import Agent, Group, Member, Project, WhenUnknown
from router.core.rules import Preference, Rule
from router.core.schedule import Schedule
from router.core.schedule_words import parse_schedule
from router.core.strategies import STRATEGIES
from router.db import models
from router.db.session import Database

Document = dict[str, Any]
T = TypeVar("T")

_LISTS = {"schedules": "schedule", "agents": "agent", "groups": "group", "rules": "rule"}


class UnknownProjectError(LookupError):
    """There is no project with this name or id."""


class BuildError(ValueError):
    """A configuration that cannot route calls. The message names the part and the fault."""


class Configured(NamedTuple):
    """A published configuration as a document, and as the rules see it. It is shared and must not be changed.

    `fault`: why the newer version that was asked for cannot be built; "" if this is that version.
    """

    document: Document
    project: Project
    fault: str = ""


@contextmanager
def changing(database: Database, project_id: int, actor: str) -> Iterator[Session]:
    """Change a project's configuration in one transaction, published with its audit rows when it ends without error."""
    with database.writing() as session:
        lock_project(session, project_id)
        yield session
        publish(session, project_id, actor)


def lock_project(session: Session, project_id: int) -> models.Project:
    """Return the project's row, locked until the transaction ends: changes of a configuration are serialised."""
    # Not FOR UPDATE: every decision refers to the project's row, and calls need not wait for an admin.
    project = session.get(models.Project, project_id, with_for_update={"key_share": True})
    if project is None:
        raise UnknownProjectError(f"there is no project with id {project_id}")
    return project


def publish(session: Session, project_id: int, actor: str) -> int:
    """Store the configuration as it stands in this transaction, if it changed; return its version.

    The configuration is built first, as for calls. Raises BuildError when that fails, unless the version before fails
    too, so that several faults can be corrected one by one.
    """
    session.flush()
    is_audited = session.info.pop("is_audited", False)
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
    # Not through the ORM, which would count `revision` up, so that edits of different things would conflict.
    session.execute(text("UPDATE projects SET version = version + 1 WHERE id = :id"), {"id": project_id})
    session.refresh(project, ["version"])
    session.add(
        models.ConfigVersion(
            project_id=project_id, version=project.version, published_at=now, actor=actor, document=after
        )
    )
    session.add_all(_audit(before, after, project, actor, now, is_audited=is_audited))
    _ensure_clocks(session, project_id, now)
    _note_available(session, before, after, now)
    session.flush()
    return project.version


def load_document(session: Session, project_id: int, version: int) -> Document | None:
    """Return the document of this version, None when it was pruned or never published."""
    row = session.get(models.ConfigVersion, (project_id, version))
    return None if row is None else row.document


def load_configured(session: Session, project_id: int, version: int) -> Configured:
    """Return the configuration of this version; if it cannot be built, the newest one before it that can.

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
    """Return the configuration in the rows, as plain JSON values."""

    def rows(model: Any, *order: Any) -> Any:
        return session.scalars(select(model).where(model.project_id == project.id).order_by(*order))

    return {
        "project": {
            **_values(project, "name time_zone country overflow"),
            "hook": {
                **_values(project, "answer key rpc_result retry_seconds allow_addresses fields", column="hook_{}"),
                "basic_auth": project.hook_basic_auth is not None,
            },
            "presence": _values(
                project,
                "source api_url online_from project_id with_do_not_disturb poll_seconds fresh_seconds when_unknown"
                " last_known_seconds away_seconds call_log_days",
                column="presence_{}",
            ),
            **_values(project, "cool_down_seconds break_after_no_answers keep_days mask_numbers"),
            "secrets": project.secrets_revision,
        },
        "schedules": [_values(row, _SCHEDULE) for row in rows(models.Schedule, models.Schedule.name)],
        "agents": [
            {
                **_values(row, "id name"),
                "sip_logins": [login.login for login in row.sip_logins],
                **_values(row, "paused wrap_up_seconds daily_cap external_id"),
                **_values(row, "hours deputy", column="{}_id"),
                **_values(row, "away_until"),
            }
            for row in rows(models.Agent, models.Agent.name)
        ],
        "groups": [
            {
                **_values(row, "id name strategy ring_seconds overflow"),
                "members": [
                    {"agent": member.agent_id, **_values(member, "tier position weight"), "hours": member.hours_id}
                    for member in sorted(row.members, key=lambda m: (m.tier, m.position, m.agent_id))
                ],
            }
            for row in rows(models.Group, models.Group.position, models.Group.name)
        ],
        "rules": [rule_document(row) for row in rows(models.Rule, models.Rule.position, models.Rule.id)],
    }


def rule_document(row: models.Rule) -> Document:
    """Return a rule as a document holds it."""
    return {
        **_values(row, "id name enabled"),
        "when": row.conditions,
        **_values(row, "inside outside free_group", column="{}_id"),
        **_values(row, "free_fewer_than prefer prefer_param prefer_days"),
        "groups": [link.group_id for link in sorted(row.groups, key=lambda link: link.position)],
        "overflow": row.overflow,
    }


_SCHEDULE = "id name time_zone open exceptions override override_until"


def _values(row: models.Base, names: str, column: str = "{}") -> Document:
    """Return these values by name. `column`: the format of their column's name."""
    values = {name: getattr(row, column.format(name)) for name in names.split()}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


@contextmanager
def _about(part: str) -> Iterator[None]:
    """Turn any exception into a BuildError about this part of the document."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error) or repr(error)
        raise BuildError(f"{part}: {reason}") from error


def is_buildable(document: Document) -> bool:
    """Return whether calls could be routed by this document."""
    try:
        build_project(document, 0, 0)
    except BuildError:
        return False
    return True


def _each(kind: str, rows: Iterable[Mapping[str, Any]], build: Callable[[Mapping[str, Any]], T]) -> dict[int, T]:
    """Return the results of `build` for each row, by the row's id."""
    built: dict[int, T] = {}
    for row in rows:
        with _about(f"{kind} {row['name']!r}"):
            built[row["id"]] = build(row)
    return built


@_about("the project")
def build_project(document: Mapping[str, Any], project_id: int, version: int) -> Project:
    """Return the rules' view of a document. Raises BuildError for anything invalid.

    The hook's settings outside the rules are checked too: the time zone, the allowed addresses.
    """
    project = document["project"]
    ZoneInfo(project["time_zone"])
    for address in project["hook"]["allow_addresses"]:
        ip_network(address.strip(), strict=False)
    agent_ids = {row["id"] for row in document["agents"]}
    group_ids = {row["id"]: row["id"] for row in document["groups"]}
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
    """Return the rules' view of one schedule of a document."""
    return parse_schedule(**_taken(row, _SCHEDULE))


def _taken(row: Mapping[str, Any], names: str) -> Document:
    return {name: row[name] for name in names.split()}


def _refer(known: Collection[int], what: str, *ids: int | None) -> None:
    """Raise ValueError for an id that does not exist, before a decision fails on it."""
    for id_ in ids:
        if id_ is not None and id_ not in known:
            raise ValueError(f"there is no {what} {id_}")


def _build_agent(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Agent:
    _refer(agent_ids, "agent", row["deputy"])
    return Agent(
        **_taken(row, "id name paused daily_cap external_id"),
        sip_logins=tuple(row["sip_logins"]),
        wrap_up=timedelta(seconds=row["wrap_up_seconds"]),
        hours=schedules[row["hours"]] if row["hours"] else None,
        deputy_id=row["deputy"],
        away_until=_leave_of(row),
    )


def _build_group(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Group:
    if row["strategy"] not in STRATEGIES:
        raise ValueError(f"there is no strategy {row['strategy']!r}")
    _refer(agent_ids, "agent", *(member["agent"] for member in row["members"]))
    return Group(
        **_taken(row, "id name strategy overflow"),
        members=tuple(
            Member(
                **_taken(member, "tier position weight"),
                agent_id=member["agent"],
                hours=schedules[member["hours"]] if member["hours"] else None,
            )
            for member in row["members"]
        ),
        ring=timedelta(seconds=row["ring_seconds"]),
    )


def _build_rule(row: Mapping[str, Any], schedules: Mapping[int, Schedule], group_ids: Mapping[int, int]) -> Rule:
    _refer(group_ids, "group", *row["groups"], row["free_group"])
    prefer = None
    if row["prefer"]:
        prefer = Preference(
            last_agent=row["prefer"] == "last_agent",
            param=row["prefer_param"],
            within=timedelta(days=row["prefer_days"]),
        )
    return Rule(
        **_taken(row, "id name overflow enabled"),
        group_ids=tuple(row["groups"]),
        conditions=read_conditions(when_words(row, {"schedules": schedules, "groups": group_ids})),
        prefer=prefer,
    )


def when_words(rule: Mapping[str, Any], referred: Mapping[str, Mapping[Any, Any]]) -> Document:
    """Return the words of `when` of a document's rule, as the configuration file has them.

    `referred`: what stands for each schedule and each group, by id.
    """
    words = dict(rule["when"])
    for key, column in (("schedule", "inside"), ("outside", "outside")):
        if rule[column]:
            words[key] = referred["schedules"][rule[column]]
    if rule["free_group"]:
        words["free"] = {"group": referred["groups"][rule["free_group"]], "fewer_than": rule["free_fewer_than"]}
    return words


def _ensure_clocks(session: Session, project_id: int, now: datetime) -> None:
    """Create missing states of agents and clocks of members and deputies: the hook's statement joins them."""
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
    """Note since when agents are available: now if a pause or leave was ended by hand, else its end."""
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


def audit_secret(session: Session, entry: models.AuditEntry) -> None:
    """Add the audit entry of a changed secret, so that `publish` adds no second one for it."""
    session.add(entry)
    session.info["is_audited"] = True


def _audit(
    before: Document, after: Document, project: models.Project, actor: str, now: datetime, *, is_audited: bool
) -> Iterator[models.AuditEntry]:
    """Yield an entry for each thing that was created, changed or deleted. `is_audited`: see `audit_secret`."""

    def entry(action: str, subject: str, old: Document | None, new: Document | None, **more: Any) -> models.AuditEntry:
        of_change = {"at": now, "actor": actor, "project_id": project.id, "version": project.version}
        return models.AuditEntry(**of_change, action=action, subject=subject, before=old, after=new, **more)

    def changed(subject: str, row_id: int, old: Document | None, new: Document | None) -> models.AuditEntry:
        action = "created" if old is None else "deleted" if new is None else "changed"
        name = (new or old or {}).get("name", "")
        return entry(action, subject, old, new, subject_id=row_id, subject_name=name)

    old_project, new_project = before.get("project"), after["project"]
    is_secret = old_project is not None and old_project | {"secrets": new_project["secrets"]} == new_project
    if old_project != new_project and not (is_audited and is_secret):
        yield changed("project", project.id, old_project, new_project)
    for plural, subject in _LISTS.items():
        old_rows = {row["id"]: row for row in before.get(plural, [])}
        new_rows = {row["id"]: row for row in after[plural]}
        for row_id in sorted(old_rows.keys() | new_rows.keys()):
            if old_rows.get(row_id) != new_rows.get(row_id):
                yield changed(subject, row_id, old_rows.get(row_id), new_rows.get(row_id))
        order = [row["id"] for row in before.get(plural, []) if row["id"] in new_rows]
        if plural == "rules" and order != [row["id"] for row in after[plural] if row["id"] in old_rows]:
            names = {row["id"]: row["name"] for row in after[plural]}
            orders = {"order": [names[row_id] for row_id in order]}, {"order": list(names.values())}
            yield entry("reordered", "rules", *orders)
