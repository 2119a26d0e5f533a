"""Convert between the models of the configuration file, which refer by name, and documents, which refer by id.

A document (see router/db/configuration.py) is what the hook reads and what each version stores; the rules' view is
built from it. Reads no file and no database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from router.config_file.normalise import normalise_times
from router.config_file.rows import MODELS
from router.config_file.schema import (
    SECRETS,
    AgentConfig,
    Config,
    FreeConfig,
    GroupConfig,
    HookConfig,
    MemberConfig,
    PresenceConfig,
    ProjectConfig,
    RuleConfig,
    ScheduleConfig,
    WhenConfig,
)
from router.db.configuration import Document, when_words
from router.presence.source import OnlineFrom

W = TypeVar("W", bound=Config)
Ids = Mapping[str, Mapping[str, int]]
"""The ids of rows, by kind and name."""


def document_from(config: ProjectConfig) -> Document:
    """Return a normalised configuration as a document, with ids by position from 1, to build the rules' view from."""
    ids = {kind: {row.name: n for n, row in enumerate(getattr(config, kind), start=1)} for kind in MODELS}
    return {"project": project_document(config), **{kind: document_rows(config, kind, ids) for kind in MODELS}}


def project_document(config: ProjectConfig) -> dict[str, Any]:
    """Return the project's part of a document."""
    return {
        **config.model_dump(exclude={"hook", "presence", *MODELS}),
        "hook": {**config.hook.model_dump(mode="json"), "basic_auth": config.hook.basic_auth is not None},
        "presence": {
            **config.presence.model_dump(mode="json", exclude=set(SECRETS["presence"])),
            "online_from": config.presence.online_from or OnlineFrom.SIP.value,
        },
        "secrets": 0,
    }


def document_rows(config: ProjectConfig, kind: str, ids: Ids) -> list[dict[str, Any]]:
    """Return one list of a document: "schedules", "agents", "groups" or "rules".

    A name that has no id yet, such as that of a new deputy, gives None.
    """
    return [{**_RENDER[kind](row, ids), "id": ids[kind].get(row.name)} for row in getattr(config, kind)]


def _render_agent(row: AgentConfig, ids: Ids) -> dict[str, Any]:
    return {
        **row.model_dump(exclude={"staff_id"}),
        "sip_logins": list(row.sip_logins),
        "external_id": row.staff_id,
        "hours": ids["schedules"].get(row.hours or ""),
        "deputy": ids["agents"].get(row.deputy or ""),
    }


def _render_group(row: GroupConfig, ids: Ids) -> dict[str, Any]:
    members = [
        {
            **member.model_dump(),
            "agent": ids["agents"][member.agent],
            "position": position,
            "hours": ids["schedules"].get(member.hours or ""),
        }
        for position, member in enumerate(row.members)
    ]
    return {**row.model_dump(exclude={"members"}), "members": members}


def _render_rule(row: RuleConfig, ids: Ids) -> dict[str, Any]:
    return {
        **row.model_dump(exclude={"when", "prefer"}),
        **render_when(row.when.model_dump(mode="json"), ids),
        "prefer": "param" if isinstance(row.prefer, dict) else row.prefer or "",
        "prefer_param": row.prefer["param"] if isinstance(row.prefer, dict) else "",
        "groups": [ids["groups"][name] for name in row.groups],
    }


_RENDER: Mapping[str, Callable[[Any, Ids], dict[str, Any]]] = {
    "schedules": lambda row, _ids: {**row.model_dump(), "override": row.override or ""},
    "agents": _render_agent,
    "groups": _render_group,
    "rules": _render_rule,
}


def render_when(when: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    """Return what a document's rule holds of the words of `when`: references to other rows apart, nothing empty."""
    free = when.get("free") or {"group": None, "fewer_than": 0}
    return {
        "when": {key: words for key, words in when.items() if words and key not in ("schedule", "outside", "free")},
        "inside": ids["schedules"].get(when.get("schedule") or ""),
        "outside": ids["schedules"].get(when.get("outside") or ""),
        "free_group": ids["groups"].get(free["group"]),
        "free_fewer_than": free["fewer_than"],
    }


def config_from(document: Mapping[str, Any]) -> ProjectConfig:
    """Return the configuration of a document, without secrets. It is not checked again: published ones are valid."""
    project = document["project"]
    names: dict[str, dict[int | None, str]] = {
        kind: {row["id"]: row["name"] for row in document[kind]} for kind in MODELS
    }
    hook = {**project["hook"], "basic_auth": None, "allow_addresses": tuple(project["hook"]["allow_addresses"])}
    hook["fields"] = {name: tuple(aliases) for name, aliases in hook["fields"].items()}
    schedule = names["schedules"].get
    config = _config_of(
        ProjectConfig,
        project,
        hook=HookConfig.model_construct(**hook),
        presence=_config_of(PresenceConfig, project["presence"]),
        schedules=tuple(
            _config_of(ScheduleConfig, row, override=row["override"] or None) for row in document["schedules"]
        ),
        agents=tuple(
            _config_of(
                AgentConfig,
                row,
                sip_logins=tuple(row["sip_logins"]),
                hours=schedule(row["hours"]),
                staff_id=row["external_id"],
                deputy=names["agents"].get(row["deputy"]),
            )
            for row in document["agents"]
        ),
        groups=tuple(
            _config_of(
                GroupConfig,
                row,
                members=tuple(
                    _config_of(
                        MemberConfig, member, agent=names["agents"][member["agent"]], hours=schedule(member["hours"])
                    )
                    for member in row["members"]
                ),
            )
            for row in document["groups"]
        ),
        rules=tuple(_rule_config(row, names) for row in document["rules"]),
    )
    return normalise_times(config)  # not the numbers: read in national notation they could become other numbers


def _config_of(model: type[W], row: Mapping[str, Any], **others: Any) -> W:
    """Return the model of a row, with its values of the same names, and `others`."""
    return cast("W", model.model_construct(**{key: row[key] for key in model.model_fields if key in row} | others))


def _rule_config(row: Mapping[str, Any], names: Mapping[str, Mapping[int | None, str]]) -> RuleConfig:
    when: dict[str, Any] = {key: _frozen(words) for key, words in when_words(row, names).items()}
    when["direction"] = tuple(word.casefold() for word in when.get("direction", ()))
    if "free" in when:
        when["free"] = FreeConfig.model_construct(**when["free"])
    return _config_of(
        RuleConfig,
        row,
        when=WhenConfig.model_construct(**when),
        prefer={"param": row["prefer_param"]} if row["prefer"] == "param" else row["prefer"] or None,
        groups=tuple(names["groups"][group_id] for group_id in row["groups"]),
    )


def _frozen(words: Any) -> Any:
    """Return lists as tuples, in a mapping too."""
    if isinstance(words, dict):
        return {name: _frozen(value) for name, value in words.items()}
    return tuple(words) if isinstance(words, list) else words
