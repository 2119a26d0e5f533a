"""Export the stored configuration as a file, without secrets. Applying an export changes nothing."""

from __future__ import annotations

from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from router.configuration.document import config_from, plain
from router.configuration.rows import read_rows
from router.configuration.schema import SECRETS
from router.db import models
from router.db.queries import project_named

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
    config = config_from(read_rows(session, row))
    dumped = yaml.dump(
        _escaped(plain(config, config)),
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


def _escaped(value: Any) -> Any:
    """Return a value in which "${" does not begin a reference to the environment."""
    match value:
        case str():
            return value.replace("${", "$${")
        case list():
            return [_escaped(item) for item in value]
        case dict():
            return {key: _escaped(item) for key, item in value.items()}
    return value


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)
