"""Convert between documents, which refer to other rows by id, and the models of the file, which refer by name.

Both have the same keys (see schema.py), so that the schema's notes alone say what to convert. Reads no file and no
database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from router.configuration.schema import (
    SECRETS,
    Config,
    HookConfig,
    PresenceConfig,
    ProjectConfig,
    ScheduleConfig,
    notation,
    notes_of,
    part_of,
)
from router.db.documents import KINDS, SCHEMA, Document
from router.presence.source import OnlineFrom

ITEMS: Mapping[str, type[Config]] = {kind: cast("type[Config]", part_of(ProjectConfig, kind)[0]) for kind in KINDS}
"""The model of one schedule, agent, group or rule, by the list's key."""

PARTS: Mapping[str, type[Config]] = {"": ProjectConfig, "hook": HookConfig, "presence": PresenceConfig}
"""The parts of the project's settings, by their key in it."""

Refer = Callable[[str, Any], Any]
"""Converts a reference, given its kind ("schedules", "agents" or "groups"), from a name to an id or back."""


def ids_of(document: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the ids of all rows, by kind and name."""
    return {kind: {row["name"]: row["id"] for row in document[kind]} for kind in KINDS}


def names_of(document: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Return the names of all rows, by kind and id."""
    return {kind: {row["id"]: row["name"] for row in document[kind]} for kind in KINDS}


def convert(model: type[Config], values: Mapping[str, Any], refer: Refer) -> dict[str, Any]:
    """Return the values of a row with every reference in them converted."""
    found: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        if key not in values:
            continue
        value, kind = values[key], notes_of(field).refers
        part, is_list = part_of(model, key)
        if kind and value is not None:
            found[key] = [refer(f"{kind}s", one) for one in value] if is_list_of(value) else refer(f"{kind}s", value)
        elif part is not None and value is not None:
            found[key] = [convert(part, one, refer) for one in value] if is_list else convert(part, value, refer)
        else:
            found[key] = value
    return found


def without(model: type[Config], row: Mapping[str, Any], gone: tuple[str, int]) -> dict[str, Any]:
    """Return a row of a document without another that it refers to, given by kind and id."""
    return compact(_without_none(model, convert(model, row, lambda *one: None if one == gone else one[1])))


def _without_none(model: type[Config], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without empty entries, and without those parts that lack a key which they need."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        part, is_list = part_of(model, key)
        entries = value if is_list_of(value) else [value]
        if part is not None:
            needed = [name for name, field in part.model_fields.items() if field.is_required()]
            entries = [
                _without_none(part, one)
                for one in entries
                if one is not None and all(one[name] is not None for name in needed)
            ]
        entries = [one for one in entries if one is not None]
        found[key] = entries if is_list or is_list_of(value) else next(iter(entries), None)
    return found


def is_list_of(value: object) -> bool:
    """Return whether a value is a list of values."""
    return isinstance(value, list | tuple)


def document_of(config: ProjectConfig, ids: Mapping[str, Mapping[str, int]] | None = None) -> Document:
    """Return a normalised configuration as a document. `ids`: of its rows, by kind and name; by default their places.

    It has no project secrets: their count is 0.
    """
    ids = ids or {kind: {row.name: n for n, row in enumerate(getattr(config, kind), start=1)} for kind in KINDS}
    lists = {
        kind: [{"id": ids[kind][row.name], **item_of(row, ids)} for row in getattr(config, kind)] for kind in KINDS
    }
    return {"schema": SCHEMA, "project": project_of(config), **lists}


def project_of(config: ProjectConfig) -> dict[str, Any]:
    """Return the project's part of a document."""
    dumped = config.model_dump(mode="json", exclude={*KINDS, "hook", "presence"})
    hook = {**config.hook.model_dump(mode="json"), "basic_auth": config.hook.basic_auth is not None}
    presence = config.presence.model_dump(mode="json", exclude=set(SECRETS["presence"]))
    presence["online_from"] = presence["online_from"] or OnlineFrom.SIP.value
    return {**dumped, "hook": hook, "presence": presence, "secrets": 0}


def item_of(config: Config, ids: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return one row of a document, without its id."""
    return compact(convert(type(config), config.model_dump(mode="json"), lambda kind, name: ids[kind][name]))


def compact(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a document with only those conditions that it has."""
    return {**row, "when": {key: words for key, words in row["when"].items() if words}} if "when" in row else row


def defaults_of(model: type[Config]) -> dict[str, Any]:
    """Return what a new row of a document holds besides its name."""
    return compact(construct(model, {"name": ""}).model_dump(mode="json"))


def completed(document: Document) -> Document:
    """Return a document with the defaults of those keys that its release did not have, to be compared with another."""
    try:
        project = document["project"]
        parts = {part: {**plain_defaults(model), **project[part]} for part, model in PARTS.items() if part}
        defaults = {kind: defaults_of(model) for kind, model in ITEMS.items()}
        lists = {kind: [{**defaults[kind], **row} for row in document[kind]] for kind in ITEMS}
    except (KeyError, TypeError):  # it cannot be read, nor built
        return document
    return {**document, "project": {**plain_defaults(ProjectConfig), **project, **parts}, **lists}


def plain_defaults(model: type[Config]) -> dict[str, Any]:
    """Return the defaults of a part of the project, without its lists, parts and secrets."""
    left_out = {*KINDS, *PARTS, *(key for keys in SECRETS.values() for key in keys)}
    fields = ((key, field) for key, field in model.model_fields.items() if key not in left_out)
    found = {key: field.default for key, field in fields if not field.is_required()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def config_from(document: Mapping[str, Any]) -> ProjectConfig:
    """Return the configuration of a document, without secrets. It is not checked."""
    names = names_of(document)
    lists = {
        kind: tuple(construct(model, named_item(model, row, names)) for row in document[kind])
        for kind, model in ITEMS.items()
    }
    project = {key: value for key, value in document["project"].items() if key != "secrets"}
    hook = {key: value for key, value in project["hook"].items() if key != "basic_auth"}
    return cast("ProjectConfig", construct(ProjectConfig, {**project, "hook": hook})).model_copy(update=lists)


def named_item(model: type[Config], row: Mapping[str, Any], names: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """Return a row of a document with names in place of ids; of an unknown id "#7"."""
    return convert(model, row, lambda kind, id_: names[kind].get(id_, f"#{id_}"))


def construct(model: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the model of plain values, which are not checked."""
    found: dict[str, Any] = {}
    for key in model.model_fields.keys() & values.keys():
        part, is_list = part_of(model, key)
        value = values[key]
        if model.model_fields[key].annotation == dict[str, Any]:
            found[key] = value
        elif part is None or value is None:
            found[key] = _frozen(value)
        else:
            found[key] = tuple(construct(part, one) for one in value) if is_list else construct(part, value)
    return model.model_construct(**found)


def _frozen(words: Any) -> Any:
    """Return lists as tuples, in a mapping too."""
    if isinstance(words, dict):
        return {name: _frozen(value) for name, value in words.items()}
    return tuple(map(_frozen, words)) if isinstance(words, list) else words


# ---- as the file has it


def plain(config: Config, project: ProjectConfig) -> dict[str, Any]:
    """Return a part of the project as the file has it: the keys whose value is not the default, as plain values."""
    found: dict[str, Any] = {}
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        if value == field.default and not (config is project and key == "overflow"):
            continue
        if isinstance(config, ScheduleConfig) and key == "time_zone" and value == project.time_zone:
            continue
        if (
            isinstance(config, PresenceConfig)
            and key == "online_from"
            and value == OnlineFrom.SIP
            and not config.project_id
        ):
            continue  # the default depends on the token, which is not exported, unless there is no project_id
        notes = notes_of(field)
        if value and (notes.is_instant or key == "override_until"):
            zone = config.time_zone if isinstance(config, ScheduleConfig) else None
            value = datetime.fromisoformat(value).astimezone(ZoneInfo(zone or project.time_zone)).isoformat()
        value = _value(value, project, notes.reads)
        if value != {}:
            found[key] = value
    return found


def _value(value: Any, project: ProjectConfig, read: Callable[[str, str], str] | None) -> Any:
    """Return a value for YAML. `read`: the function that reads it, if its notation depends on the country."""
    match value:
        case Config():
            return plain(value, project)
        case str():
            return notation(value, project.country, read) if read else value
        case list() | tuple():
            return [_value(item, project, read) for item in value]
        case dict():
            return {key: _value(item, project, read) for key, item in value.items()}
        case float() if value.is_integer():
            return int(value)
    return value
