"""Words and documents: the same configuration by name and by id.

A document (see router/db/configuration.py) is what the hook reads and what is kept of every version; the rules' view is
built from it. Reads no file and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from router.config_file.settle import settle_times
from router.config_file.words import (
    SECRETS,
    AgentWords,
    FreeWords,
    GroupWords,
    HookWords,
    MemberWords,
    PresenceWords,
    ProjectWords,
    RuleWords,
    ScheduleWords,
    WhenWords,
)
from router.db.configuration import Document
from router.presence.source import OnlineFrom


def prefer_columns(words: RuleWords) -> tuple[str, str]:
    """What a rule keeps of its preference: the kind and the parameter."""
    match words.prefer:
        case {"param": name}:
            return "param", name
        case "last_agent":
            return "last_agent", ""
    return "", ""


def conditions_of(when: WhenWords) -> dict[str, Any]:
    """What a rule keeps of its conditions as JSON: all but what refers to other rows; what is not asked is left out."""
    lists = ("caller", "not_caller", "dialed", "not_dialed", "direction")
    kept: dict[str, Any] = {kind: list(getattr(when, kind)) for kind in lists if getattr(when, kind)}
    for kind in ("params", "not_params"):
        if tests := getattr(when, kind):
            kept[kind] = {name: list(values) for name, values in tests.items()}
    return kept


def document_from(words: ProjectWords) -> Document:
    """The settled words as a document, with ids by position from 1: what the rules' view is built from."""
    schedules = {row.name: i for i, row in enumerate(words.schedules, start=1)}
    agents = {row.name: i for i, row in enumerate(words.agents, start=1)}
    groups = {row.name: i for i, row in enumerate(words.groups, start=1)}
    return {
        "project": {
            **words.model_dump(exclude={"schedules", "agents", "groups", "rules", "hook", "presence"}),
            "hook": {**words.hook.model_dump(mode="json"), "basic_auth": words.hook.basic_auth is not None},
            "presence": {
                **words.presence.model_dump(mode="json", exclude={"auth_key", "token"}),
                "online_from": words.presence.online_from or OnlineFrom.SIP.value,
            },
            "secrets": 0,
        },
        "schedules": [
            {**row.model_dump(), "id": i, "override": row.override or ""}
            for i, row in enumerate(words.schedules, start=1)
        ],
        "agents": [
            {
                **row.model_dump(exclude={"staff_id"}),
                "id": i,
                "sip_logins": list(row.sip_logins),
                "external_id": row.staff_id,
                "hours": schedules.get(row.hours or ""),
                "deputy": agents.get(row.deputy or ""),
            }
            for i, row in enumerate(words.agents, start=1)
        ],
        "groups": [
            {
                **row.model_dump(),
                "id": i,
                "members": [
                    {
                        **member.model_dump(),
                        "agent": agents[member.agent],
                        "position": position,
                        "hours": schedules.get(member.hours or ""),
                    }
                    for position, member in enumerate(row.members)
                ],
            }
            for i, row in enumerate(words.groups, start=1)
        ],
        "rules": [
            {
                "id": i,
                "name": row.name,
                "enabled": row.enabled,
                "when": conditions_of(row.when),
                "inside": schedules.get(row.when.schedule or ""),
                "outside": schedules.get(row.when.outside or ""),
                "free_group": None if row.when.free is None else groups[row.when.free.group],
                "free_fewer_than": 0 if row.when.free is None else row.when.free.fewer_than,
                "prefer": prefer_columns(row)[0],
                "prefer_param": prefer_columns(row)[1],
                "prefer_days": row.prefer_days,
                "groups": [groups[name] for name in row.groups],
                "overflow": row.overflow,
            }
            for i, row in enumerate(words.rules, start=1)
        ],
    }


def words_from(document: Mapping[str, Any]) -> ProjectWords:
    """The words of a document, without secrets. Not checked again: what is published is valid."""
    project = document["project"]
    names = _NameOf(document)
    words = ProjectWords.model_construct(
        **{key: project[key] for key in ProjectWords.model_fields if key in project and key not in SECRETS},
        hook=_hook_words(project["hook"]),
        presence=PresenceWords.model_construct(**project["presence"]),
        schedules=tuple(
            ScheduleWords.model_construct(**{**row, "override": row["override"] or None})
            for row in _without_ids(document["schedules"])
        ),
        agents=tuple(_agent_words(row, names) for row in document["agents"]),
        groups=tuple(_group_words(row, names) for row in document["groups"]),
        rules=tuple(_rule_words(row, names) for row in document["rules"]),
    )
    return settle_times(words)  # not the numbers: in national notation they might be other numbers


class _NameOf:
    """Names by id, None for no id."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.schedule: Mapping[int | None, str] = {row["id"]: row["name"] for row in document["schedules"]}
        self.agent: Mapping[int | None, str] = {row["id"]: row["name"] for row in document["agents"]}
        self.group: Mapping[int | None, str] = {row["id"]: row["name"] for row in document["groups"]}


def _hook_words(hook: Mapping[str, Any]) -> HookWords:
    words = {
        **hook,
        "basic_auth": None,
        "allow_addresses": tuple(hook["allow_addresses"]),
        "fields": {name: tuple(aliases) for name, aliases in hook["fields"].items()},
    }
    return HookWords.model_construct(**words)


def _agent_words(row: Mapping[str, Any], names: _NameOf) -> AgentWords:
    return AgentWords.model_construct(
        name=row["name"],
        sip_logins=tuple(row["sip_logins"]),
        paused=row["paused"],
        wrap_up_seconds=row["wrap_up_seconds"],
        daily_cap=row["daily_cap"],
        hours=names.schedule.get(row["hours"]),
        staff_id=row["external_id"],
        deputy=names.agent.get(row["deputy"]),
        away_until=row["away_until"],
    )


def _group_words(row: Mapping[str, Any], names: _NameOf) -> GroupWords:
    members = (
        MemberWords.model_construct(
            agent=names.agent[member["agent"]],
            tier=member["tier"],
            weight=member["weight"],
            hours=names.schedule.get(member["hours"]),
        )
        for member in row["members"]
    )
    return GroupWords.model_construct(
        name=row["name"],
        strategy=row["strategy"],
        ring_seconds=row["ring_seconds"],
        overflow=row["overflow"],
        members=tuple(members),
    )


def _rule_words(row: Mapping[str, Any], names: _NameOf) -> RuleWords:
    when: dict[str, Any] = {
        kind: {name: tuple(tests) for name, tests in value.items()} if isinstance(value, dict) else tuple(value)
        for kind, value in row["when"].items()
    }
    when["direction"] = tuple(word.casefold() for word in when.get("direction", ()))
    if row["free_group"] is not None:
        when["free"] = FreeWords.model_construct(
            group=names.group[row["free_group"]], fewer_than=row["free_fewer_than"]
        )
    return RuleWords.model_construct(
        name=row["name"],
        enabled=row["enabled"],
        when=WhenWords.model_construct(
            **when, schedule=names.schedule.get(row["inside"]), outside=names.schedule.get(row["outside"])
        ),
        prefer={"param": row["prefer_param"]} if row["prefer"] == "param" else row["prefer"] or None,
        prefer_days=row["prefer_days"],
        groups=tuple(names.group[group_id] for group_id in row["groups"]),
        overflow=row["overflow"],
    )


def _without_ids(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {key: value for key, value in row.items() if key != "id"}
