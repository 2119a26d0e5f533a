"""Apply a configuration file to the database.

Rows are identified by name. The file is compared with the stored configuration in the same form, so that a file equal
to it changes nothing, whoever stored that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.configuration.change import ConfigurationError, Draft
from router.configuration.check import token_needed
from router.configuration.document import ITEMS, compact, convert, ids_of, named_item, names_of, project_of
from router.configuration.drafts import KeptDraft
from router.configuration.reading import ConfigFile, ConfigFileError, Problem, line_of, place_of
from router.configuration.rows import ORDERED, read_rows
from router.configuration.schema import SECRETS, Config, ProjectConfig, part_of
from router.db import models
from router.db.documents import Document
from router.db.session import Database
from router.hook.auth import new_token
from router.presence.source import OnlineFrom
from router.routing.known import token_hash


class Change(NamedTuple):
    """One change in one project, in words. Never holds a secret's value."""

    project: str
    what: str

    def __str__(self) -> str:
        return f"{self.project}: {self.what}"


# ---- apply


def apply(
    database: Database,
    config: ConfigFile,
    *,
    actor: str = "cli",
    comment: str = "",
    accept_failing: bool = False,
    dry_run: bool = False,
    as_draft: bool = False,
) -> list[Change]:
    """Make the projects of the file as it describes them, in one transaction. Other projects stay as they are.

    Return the changes, [] if there are none. `comment`: of the versions. `accept_failing`: whether tests may
    fail. `dry_run`: make them and roll back. `as_draft`: keep the changes as the projects' drafts.

    Raises ConfigFileError if the file contradicts what is stored, BuildError if calls could not be routed by it, and
    FailingTestsError. Then nothing is changed.
    """
    with database.reading() as session:
        _refuse_without_token(session, config)
        if as_draft:
            _refuse_in_drafts(session, config)
        elif _is_applied(session, config):
            return []  # without taking a lock
    changes: list[Change] = []
    with database.writing() as session:
        added = _add_missing(session, {project.name for project in config.projects})
        rows = _lock(session, [project.name for project in config.projects])
        for place, project in enumerate(config.projects):
            row = rows[project.name]
            done = ["project added"] if project.name in added else []
            if row.deleted_at is not None:
                row.deleted_at = None
                done.append("project brought back from deletion")
            draft = (KeptDraft if as_draft else Draft)(session, row, actor)
            draft.comment, draft.accepts_failing = comment, accept_failing
            wanted = _with_online_from(row, project)
            done += [*differences_in_words(draft.document, wanted), *_secret_differences(row, wanted)]
            _fill(draft, wanted)
            try:
                draft.save()
            except ConfigurationError as error:
                raise _refused(config, place, error) from None
            changes += [Change(wanted.name, what) for what in done]
        if dry_run:
            session.rollback()
    return changes


def _refused(config: ConfigFile, place: int, error: ConfigurationError) -> ConfigFileError:
    problems = []
    for fault in error.faults:
        path = ("projects", place, *fault.path)
        problems.append(Problem(place_of(path), fault.message, fault.remedy, line_of(config.lines, path)))
    return ConfigFileError(config.filename, problems)


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


def _refuse_in_drafts(session: Session, config: ConfigFile) -> None:
    """Raise ConfigFileError for what takes effect at once, so that no draft can hold it: projects and credentials."""
    rows = {row.name: row for row in session.scalars(select(models.Project).where(models.Project.deleted_at.is_(None)))}
    problems = []
    for i, wanted in enumerate(config.projects):
        row, path = rows.get(wanted.name), ("projects", i, "name")
        if row is None:
            message, remedy = f"there is no project {wanted.name!r}", "apply the file without --draft first"
            problems.append(Problem(place_of(path), message, remedy, line_of(config.lines, path)))
            continue
        for part, key, stored, given in _given_secrets(row, wanted):
            if given != stored:
                place = ("projects", i, part, key)
                message, remedy = "a credential cannot be in a draft", "apply it without --draft, or leave it out"
                problems.append(Problem(place_of(place), message, remedy, line_of(config.lines, place)))
    if problems:
        raise ConfigFileError(config.filename, problems)


def _is_applied(session: Session, config: ConfigFile) -> bool:
    """Return whether the stored configuration already equals that of the file."""
    rows = {row.name: row for row in session.scalars(select(models.Project).where(models.Project.deleted_at.is_(None)))}
    for wanted in config.projects:
        row = rows.get(wanted.name)
        if row is None or row.version == 0 or any(_secret_differences(row, wanted)):
            return False
        if any(differences_in_words(read_rows(session, row), _with_online_from(row, wanted))):
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


def _with_online_from(row: models.Project, wanted: ProjectConfig) -> ProjectConfig:
    """Fill in the default of `online_from`. It depends on the token, which may be stored and not in the file."""
    presence = wanted.presence
    if presence.online_from is not None:
        return wanted
    token = row.presence_token if presence.token is None else presence.token.get_secret_value()
    online_from = OnlineFrom.EITHER if presence.project_id and token else OnlineFrom.SIP
    return wanted.model_copy(update={"presence": presence.model_copy(update={"online_from": online_from.value})})


def _given_secrets(row: models.Project, wanted: ProjectConfig) -> Iterator[tuple[str, str, str, str]]:
    """Yield (part, key, stored, given) of each secret in the file. One left out stays; "" removes it."""
    for part, keys in SECRETS.items():
        for key in keys:
            given: SecretStr | None = getattr(getattr(wanted, part), key)
            if given is not None:
                yield part, key, getattr(row, f"{part}_{key}") or "", given.get_secret_value()


def _secret_differences(row: models.Project, wanted: ProjectConfig) -> Iterator[str]:
    for part, key, stored, given in _given_secrets(row, wanted):
        if given != stored:
            yield f"{part}.{key} {'changed' if given and stored else 'set' if given else 'taken away'}"


def _fill(draft: Draft, wanted: ProjectConfig) -> None:
    """Make the draft as the file describes the project."""
    project = project_of(wanted)
    del project["secrets"], project["hook"]["basic_auth"]
    draft.put_project(project)
    for part, key, _stored, given in _given_secrets(draft.project, wanted):
        draft.put_secret(part, key, given)
    ids = ids_of(draft.document)
    for kind in ITEMS:
        for row in getattr(wanted, kind):
            if row.name not in ids[kind]:
                ids[kind][row.name] = draft.put(kind, {"name": row.name})
    for kind, model in ITEMS.items():
        rows = (convert(model, row, lambda of, name: ids[of][name]) for row in _named_rows(wanted, kind))
        draft.replace(kind, [{"id": ids[kind][row["name"]], **row} for row in rows])


def _named_rows(wanted: ProjectConfig, kind: str) -> list[dict[str, Any]]:
    """Return rows of the file as plain values, as a document has them but for the references by name."""
    return [compact(row.model_dump(mode="json")) for row in getattr(wanted, kind)]


# ---- differences, in words


def differences_in_words(stored: Document, wanted: ProjectConfig) -> Iterator[str]:
    """Yield each difference between a document and a configuration in the words of the file."""
    names = names_of(stored)
    yield from _differences(ProjectConfig, stored["project"], project_of(wanted))
    for kind, model in ITEMS.items():
        rows = [named_item(model, row, names) for row in stored[kind]]
        yield from _list_differences(model, rows, _named_rows(wanted, kind), "", kind)


def _differences(
    model: type[Config], old: Mapping[str, Any], new: Mapping[str, Any], about: str = "", prefix: str = ""
) -> Iterator[str]:
    """Yield each difference in words.

    `about`: whose keys they are, as "agent Ann: ". `prefix`: the keys around them, as "when.".
    """
    for key, field in model.model_fields.items():
        default = field.default if prefix == "when." else None
        before, after = old.get(key, default), new.get(key, default)
        part, is_list = part_of(model, key)
        if before == after or key in SECRETS.get(prefix.removesuffix("."), ()):
            continue
        if part is not None and is_list:
            yield from _list_differences(part, before or (), after or (), about, key)
        elif part is not None and isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(part, before, after, about, f"{prefix}{key}.")
        else:
            yield f"{about}{prefix}{key}: {_render(before)} → {_render(after)}"


def _list_differences(
    model: type[Config], old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], about: str, key: str
) -> Iterator[str]:
    what, name_key = f"{about}{key.removesuffix('s')} ", "name" if "name" in model.model_fields else "agent"
    before, after = {row[name_key]: row for row in old}, {row[name_key]: row for row in new}
    yield from (f"{what}{name} removed" for name in before if name not in after)
    for name, row in after.items():
        if name in before:
            yield from _differences(model, before[name], row, f"{what}{name}: ")
        else:
            yield f"{what}{name} added"
    stay, now = ([name for name in names if name in before and name in after] for names in (before, after))
    if stay != now and key in (*ORDERED, "members"):
        yield f"{about}{key} reordered: {', '.join(after)}"


def _render(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
