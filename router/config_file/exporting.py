"""Export the stored configuration as a file, without secrets. Applying an export changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from router.config_file.document import config_from
from router.config_file.schema import (
    SECRETS,
    Config,
    PresenceConfig,
    ProjectConfig,
    ScheduleConfig,
    notation,
    notes_of,
)
from router.db import models
from router.db.configuration import document_of
from router.db.queries import project_named
from router.presence.source import OnlineFrom

_HEAD = "# Check with `router config check`, apply with `router config apply`.\n"


def export(session: Session, name: str | None = None) -> str:
    """Return the configuration of one project, or of all, as YAML. Defaults are left out, except an empty overflow.

    Raises UnknownProjectError.
    """
    if name is None:
        active = models.Project.deleted_at.is_(None)
        rows = session.scalars(select(models.Project).where(active).order_by(models.Project.name)).all()
    else:
        rows = [project_named(session, name)]
    if not rows:
        return f"{_HEAD}projects: []\n"
    return f"{_HEAD}projects:\n" + "\n".join(_render(session, row) for row in rows)


def _render(session: Session, row: models.Project) -> str:
    config = config_from(document_of(session, row))
    dumped = yaml.dump(
        _plain(config, config),
        Dumper=_Dumper,
        allow_unicode=True,
        default_flow_style=None,  # lists and mappings without nested ones take one line
        sort_keys=False,
        width=10**9,  # folded text would be read back as different text
    )
    first, *rest = dumped.splitlines()
    kept = [f"{part}.{key}" for part, keys in SECRETS.items() for key in keys if getattr(row, f"{part}_{key}")]
    if kept:
        rest.insert(0, f"# Set, and not exported: {', '.join(kept)}. Left out, they stay as they are.")
    return "".join(f"  {'- ' if i == 0 else '  '}{line}\n" for i, line in enumerate([first, *rest]))


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _plain(config: Config, project: ProjectConfig) -> dict[str, Any]:
    """Return the keys whose value is not the default, as lists, dicts, text and numbers."""
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
        value = _value(value, project, notes_of(field).reads)
        if value != {}:
            found[key] = value
    return found


def _value(value: Any, project: ProjectConfig, read: Callable[[str, str], str] | None) -> Any:
    """Return a value for YAML. `read`: the function that reads it, if its notation depends on the country."""
    match value:
        case Config():
            return _plain(value, project)
        case str():
            text = notation(value, project.country, read) if read else value
            return text.replace("${", "$${")  # ${ begins a reference to the environment
        case list() | tuple():
            return [_value(item, project, read) for item in value]
        case dict():
            return {key: _value(item, project, read) for key, item in value.items()}
        case float() if value.is_integer():
            return int(value)
    return value
