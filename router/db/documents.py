"""Read the configuration: one document per version, a single row, which the hook and recomputations read.

A document holds what admins configured as plain JSON: the keys of `configuration.schema`, with the ids of other rows
where the file has their names, and never a secret. `schema` is its form; one of an earlier release is upgraded when it
is read. `configuration.change` writes documents.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from router.core.conditions import read_conditions
from router.core.model import Agent, Group, Member, Project, WhenUnknown
from router.core.rules import Preference, Rule
from router.core.schedule import Schedule
from router.core.schedule_words import parse_schedule
from router.core.strategies import STRATEGIES
from router.db import models

Document = dict[str, Any]
T = TypeVar("T")

SCHEMA = 2
"""The present form of documents."""

KINDS: Mapping[str, str] = {
    "schedules": "schedule",
    "agents": "agent",
    "groups": "group",
    "rules": "rule",
    "tests": "test",
}
"""The lists of a document with the word for one of each, in the order in which they may refer to each other."""

_KEPT = 16  # built versions per process; a page of the log rarely needs more


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


# ---- reading


def load_document(session: Session, project_id: int, version: int) -> Document | None:
    """Return the document of this version, None when it was pruned or never published."""
    row = session.get(models.ConfigVersion, (project_id, version))
    return None if row is None else upgrade(row.document)


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


# By database, because tests have many in one process.
_made: WeakKeyDictionary[Engine, OrderedDict[tuple[object, ...], Any]] = WeakKeyDictionary()


def made_once(session: Session, key: tuple[object, ...], make: Callable[[], T | None]) -> T | None:
    """Return what `make` returned for this key in this process, if that is kept, else make it. None is not kept.

    It is shared and must not be changed.
    """
    bind = session.get_bind()
    kept = _made.setdefault(bind if isinstance(bind, Engine) else bind.engine, OrderedDict())
    found: T | None = kept.get(key)
    if found is not None:
        kept.move_to_end(key)
        return found
    found = make()
    if found is not None:
        kept[key] = found
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    return found


def configured(session: Session, project_id: int, version: int) -> Configured | None:
    """Return the configuration of this version, None when it was pruned, never published, or cannot be built."""

    def make() -> Configured | None:
        if (document := load_document(session, project_id, version)) is None:
            return None
        try:
            return Configured(document, build_project(document, project_id, version))
        except BuildError:
            return None

    return made_once(session, (project_id, version), make)


def in_use(session: Session, project_id: int, version: int) -> Configured:
    """Return the configuration that calls use while this version is published. Raises the errors of load_configured."""
    return configured(session, project_id, version) or load_configured(session, project_id, version)


# ---- documents of earlier releases


def upgrade(document: Document) -> Document:
    """Return a document of any release in the present form; one that cannot be read stays, and cannot be built."""
    try:
        document = {"tests": [], **document}
        if document.get("schema") == SCHEMA:
            return document
        project = document["project"]
        presence = {"away_seconds": 30, "call_log_days": 0, **project["presence"]}
        lists = {kind: [upgrade_item(word, row) for row in document[kind]] for kind, word in KINDS.items()}
    except (KeyError, TypeError, AttributeError):
        return document
    return {"schema": SCHEMA, "project": {**project, "presence": presence}, **lists}


def upgrade_item(word: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one schedule, agent, group or rule of any release in the present form, also one with only some keys."""
    return _UPGRADES[word](dict(row)) if word in _UPGRADES else dict(row)


def _upgrade_schedule(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "override": row["override"] or None} if "override" in row else row


def _upgrade_agent(row: dict[str, Any]) -> dict[str, Any]:
    return {("staff_id" if key == "external_id" else key): value for key, value in row.items()}


def _upgrade_group(row: dict[str, Any]) -> dict[str, Any]:
    if "members" not in row:
        return row
    return {**row, "members": [{k: v for k, v in member.items() if k != "position"} for member in row["members"]]}


def _upgrade_rule(row: dict[str, Any]) -> dict[str, Any]:
    if "inside" not in row:
        return row
    when, few = dict(row["when"]), row.pop("free_group")
    when |= {key: row[old] for key, old in (("schedule", "inside"), ("outside", "outside")) if row[old]}
    fewer_than = row.pop("free_fewer_than")
    when |= {"free": {"group": few, "fewer_than": fewer_than}} if few else {}
    param = row.pop("prefer_param")
    prefer = {"param": param} if row["prefer"] == "param" else row["prefer"] or None
    return {key: value for key, value in row.items() if key not in ("inside", "outside")} | {
        "when": when,
        "prefer": prefer,
    }


_UPGRADES: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "schedule": _upgrade_schedule,
    "agent": _upgrade_agent,
    "group": _upgrade_group,
    "rule": _upgrade_rule,
}


# ---- building


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
        away=timedelta(seconds=presence["away_seconds"]),
        cool_down=timedelta(seconds=project["cool_down_seconds"]),
        break_after_no_answers=project["break_after_no_answers"],
    )


def build_schedule(row: Mapping[str, Any]) -> Schedule:
    """Return the rules' view of one schedule of a document."""
    return parse_schedule(**{**row, "override": row["override"] or ""})


def _taken(model: type[Any], row: Mapping[str, Any]) -> Document:
    """Return the values of a row that the rules' class has under the same name."""
    names = (field.name for field in fields(model) if field.name in row)
    return {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names}


def _refer(known: Collection[int], what: str, *ids: int | None) -> None:
    """Raise ValueError for an id that does not exist, before a decision fails on it."""
    for id_ in ids:
        if id_ is not None and id_ not in known:
            raise ValueError(f"there is no {what} {id_}")


def _build_agent(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Agent:
    _refer(agent_ids, "agent", row["deputy"])
    others = {
        "wrap_up": timedelta(seconds=row["wrap_up_seconds"]),
        "hours": schedules[row["hours"]] if row["hours"] else None,
        "deputy_id": row["deputy"],
        **leave_of(row),
    }
    return Agent(**_taken(Agent, row) | others)


def _build_group(row: Mapping[str, Any], schedules: Mapping[int, Schedule], agent_ids: Collection[int]) -> Group:
    if row["strategy"] not in STRATEGIES:
        raise ValueError(f"there is no strategy {row['strategy']!r}")
    _refer(agent_ids, "agent", *(member["agent"] for member in row["members"]))
    members = tuple(
        Member(
            agent_id=member["agent"],
            tier=member["tier"],
            position=position,
            weight=member["weight"],
            hours=schedules[member["hours"]] if member["hours"] else None,
        )
        for position, member in enumerate(row["members"])
    )
    return Group(**_taken(Group, row) | {"members": members, "ring": timedelta(seconds=row["ring_seconds"])})


def _build_rule(row: Mapping[str, Any], schedules: Mapping[int, Schedule], group_ids: Mapping[int, int]) -> Rule:
    _refer(group_ids, "group", *row["groups"])
    prefer, within = row["prefer"], timedelta(days=row["prefer_days"])
    param = prefer["param"] if isinstance(prefer, dict) else ""
    others = {
        "group_ids": tuple(row["groups"]),
        "conditions": read_conditions(named_when(row["when"], {"schedules": schedules, "groups": group_ids})),
        "prefer": Preference(last_agent=prefer == "last_agent", param=param, within=within) if prefer else None,
    }
    return Rule(**_taken(Rule, row) | others)


def named_when(when: Mapping[str, Any], known: Mapping[str, Mapping[Any, Any]]) -> Document:
    """Return the words of a rule's `when` with what `known` has for each schedule and group in place of its id.

    Raises KeyError for an id that it does not have.
    """
    words = {**when, **{key: known["schedules"][when[key]] for key in ("schedule", "outside") if key in when}}
    if free := when.get("free"):
        words["free"] = {**free, "group": known["groups"][free["group"]]}
    return words


def leave_of(agent: Mapping[str, Any]) -> dict[str, datetime | None]:
    """Return the leave of a document's agent, as the rules' class has it. Earlier releases stored no `away_from`."""
    leave = ((key, agent.get(key)) for key in ("away_from", "away_until"))
    return {key: datetime.fromisoformat(text) if text else None for key, text in leave}
