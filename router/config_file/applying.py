"""Apply a configuration file to the database.

Rows are identified by name. The file is compared with the stored configuration in the same form, so that a file equal
to it changes nothing, whoever stored that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.config_file.document import config_from, document_rows, project_document
from router.config_file.normalise import token_needed
from router.config_file.reading import ConfigFile, ConfigFileError, Problem, line_of, place_of
from router.config_file.rows import MODELS, ORDERED, set_logins, set_values, write_project, write_row
from router.config_file.schema import SECRETS, Config, ProjectConfig, name_of, part_of
from router.db import models
from router.db.configuration import document_of, publish
from router.db.session import Database
from router.hook.auth import new_token, token_hash
from router.presence.source import OnlineFrom


class Change(NamedTuple):
    """One change in one project, in words. Never holds a secret's value."""

    project: str
    what: str

    def __str__(self) -> str:
        return f"{self.project}: {self.what}"


# ---- apply


def apply(database: Database, config: ConfigFile, *, actor: str = "cli", dry_run: bool = False) -> list[Change]:
    """Make the projects of the file as it describes them, in one transaction. Other projects stay as they are.

    Return the changes, [] if there are none. `dry_run`: make them and roll back.

    Raises ConfigFileError if the file contradicts what is stored, and BuildError if calls could not be routed by it.
    Then nothing is changed.
    """
    with database.reading() as session:
        _refuse_without_token(session, config)
        if _is_applied(session, config):
            return []  # without taking a lock
    changes: list[Change] = []
    with database.writing() as session:
        added = _add_missing(session, {project.name for project in config.projects})
        rows = _lock(session, [project.name for project in config.projects])
        for wanted in config.projects:
            done = ["project added"] if wanted.name in added else []
            done += _apply_project(session, rows[wanted.name], wanted, actor)
            changes += [Change(wanted.name, what) for what in done]
        if dry_run:
            session.rollback()
    return changes


def _refuse_without_token(session: Session, config: ConfigFile) -> None:
    """Raise ConfigFileError if the file needs a token that is neither in it nor stored."""
    stored = {row.name: row.presence_token for row in session.scalars(select(models.Project))}
    problems = []
    for i, wanted in enumerate(config.projects):
        presence = wanted.presence
        if presence.online_from in (None, OnlineFrom.SIP) or presence.token is not None or stored.get(wanted.name):
            continue
        path = ("projects", i, "presence", "online_from")
        problems.append(Problem(place_of(path), *token_needed(presence.online_from), line_of(config.lines, path)))
    if problems:
        raise ConfigFileError(config.filename, problems)


def _is_applied(session: Session, config: ConfigFile) -> bool:
    """Return whether the stored configuration already equals that of the file."""
    rows = {row.name: row for row in session.scalars(select(models.Project).where(models.Project.deleted_at.is_(None)))}
    for wanted in config.projects:
        row = rows.get(wanted.name)
        if row is None or row.version == 0 or next(_write_secrets(row, wanted), None) is not None:
            return False
        if next(_differences(config_from(document_of(session, row)), _with_online_from(row, wanted)), None) is not None:
            return False
    return True


def _add_missing(session: Session, names: set[str]) -> set[str]:
    """Add new projects, each with a hook token. Return their names.

    In one order and before any lock, so that files applied at the same time do not deadlock.
    """
    known = set(session.scalars(select(models.Project.name).where(models.Project.name.in_(names))))
    added = set()
    now = datetime.now(UTC)
    for name in sorted(names - known):
        row = models.Project(name=name, created_at=now)
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            continue  # another process has just added it
        token = new_token()
        session.add(models.HookToken(project_id=row.id, token=token, token_hash=token_hash(token), created_at=now))
        added.add(name)
    return added


def _lock(session: Session, names: Sequence[str]) -> dict[str, models.Project]:
    """Return the rows by name, locked until the transaction ends."""
    query = select(models.Project).where(models.Project.name.in_(names)).order_by(models.Project.id)
    # Not FOR UPDATE, which would make calls wait: every decision refers to the project's row.
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return {row.name: row for row in session.scalars(query)}


def _apply_project(session: Session, row: models.Project, wanted: ProjectConfig, actor: str) -> list[str]:
    changes: list[str] = []
    if row.deleted_at is not None:
        row.deleted_at = None
        changes.append("project brought back from deletion")
    wanted = _with_online_from(row, wanted)
    differences = list(_differences(config_from(document_of(session, row)), wanted))
    if differences:
        write_project(row, project_document(wanted))
        _write_rows(session, row, wanted)
    secrets = list(_write_secrets(row, wanted))
    changes += differences + secrets
    if changes or row.version == 0:
        publish(session, row.id, actor)
    return changes


def _with_online_from(row: models.Project, wanted: ProjectConfig) -> ProjectConfig:
    """Fill in the default of `online_from`. It depends on the token, which may be stored and not in the file."""
    presence = wanted.presence
    if presence.online_from is not None:
        return wanted
    token = row.presence_token if presence.token is None else presence.token.get_secret_value()
    online_from = OnlineFrom.EITHER if presence.project_id and token else OnlineFrom.SIP
    return wanted.model_copy(update={"presence": presence.model_copy(update={"online_from": online_from.value})})


def _write_secrets(row: models.Project, wanted: ProjectConfig) -> Iterator[str]:
    """Store the secrets that the file holds and yield what changed. One left out stays; "" removes it."""
    for part, keys in SECRETS.items():
        for key in keys:
            given: SecretStr | None = getattr(getattr(wanted, part), key)
            column = f"{part}_{key}"
            stored: str = getattr(row, column) or ""
            if given is None or given.get_secret_value() == stored:
                continue
            new = given.get_secret_value()
            setattr(row, column, new or None)
            row.secrets_revision += 1
            yield f"{part}.{key} {'changed' if new and stored else 'set' if new else 'taken away'}"


def _write_rows(session: Session, project: models.Project, wanted: ProjectConfig) -> None:
    """Make the project's rows as the file describes them. Other rows are deleted last, when nothing refers to them."""
    rows: dict[str, dict[str, Any]] = {
        kind: {row.name: row for row in session.scalars(select(model).where(model.project_id == project.id))}
        for kind, model in MODELS.items()
    }
    logins = {agent.name: agent.sip_logins for agent in wanted.agents}
    for name, row in rows["agents"].items():  # a login that moves is freed before another agent takes it
        set_logins(row, [one.login for one in row.sip_logins if one.login in logins.get(name, ())])
    session.flush()
    ids = {kind: {name: row.id for name, row in of_kind.items()} for kind, of_kind in rows.items()}
    for kind, of_kind in rows.items():
        for position, values in enumerate(document_rows(wanted, kind, ids)):
            name = values["name"]
            if name not in of_kind:
                of_kind[name] = MODELS[kind](project_id=project.id)
                session.add(of_kind[name])
            write_row(of_kind[name], values)
            if kind in ORDERED:
                set_values(of_kind[name], position=position)
        session.flush()
        ids[kind] = {name: row.id for name, row in of_kind.items()}
    deputies = {agent.name: agent.deputy for agent in wanted.agents}
    for name, row in rows["agents"].items():
        set_values(row, deputy_id=ids["agents"].get(deputies.get(name) or ""))
    session.flush()
    for kind in reversed([*MODELS]):
        names = {item.name for item in getattr(wanted, kind)}
        for name, row in rows[kind].items():
            if name not in names:
                session.delete(row)
        session.flush()


# ---- differences, in words


def _differences(old: Config, new: Config, about: str = "", prefix: str = "") -> Iterator[str]:
    """Yield each difference in words.

    `about`: whose keys they are, as "agent Ann: ". `prefix`: the keys around them, as "when.".
    """
    for key in type(new).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        part, is_list = part_of(type(new), key)
        if before == after or key in SECRETS.get(prefix.removesuffix("."), ()):
            continue
        if part is not None and is_list:
            yield from _list_differences(before, after, about, key)
        elif isinstance(before, Config) and isinstance(after, Config):
            yield from _differences(before, after, about, f"{prefix}{key}.")
        else:
            yield f"{about}{prefix}{key}: {_render(before)} → {_render(after)}"


def _list_differences(old: Sequence[Any], new: Sequence[Any], about: str, key: str) -> Iterator[str]:
    what = f"{about}{key.removesuffix('s')} "
    before, after = {name_of(item): item for item in old}, {name_of(item): item for item in new}
    yield from (f"{what}{name} removed" for name in before if name not in after)
    for name, item in after.items():
        if name in before:
            yield from _differences(before[name], item, f"{what}{name}: ")
        else:
            yield f"{what}{name} added"
    stay, now = ([name for name in names if name in before and name in after] for names in (before, after))
    if stay != now and key in (*ORDERED, "members"):
        yield f"{about}{key} reordered: {', '.join(after)}"


def _render(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, Config) else str(value)
