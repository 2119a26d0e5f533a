"""`apply` brings the database to what a configuration file says.

Rows keep their identity by name. What changes is found by comparing words with words, so that a file that says what is
stored already changes nothing, whichever way that came to be stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from router.config_file.document import conditions_of, prefer_columns, words_from
from router.config_file.reading import ConfigFile, ConfigFileError, Problem, line_of, place_of
from router.config_file.settle import token_needed
from router.config_file.words import (
    SECRETS,
    AgentWords,
    GroupWords,
    ProjectWords,
    RuleWords,
    ScheduleWords,
    Words,
    name_of,
    part_of,
)
from router.db import models
from router.db.configuration import document_of, publish
from router.db.session import Database
from router.hook.auth import new_token, token_hash
from router.presence.source import OnlineFrom

Row = TypeVar("Row", models.Schedule, models.Agent, models.Group, models.Rule)


class Change(NamedTuple):
    """What an apply changed in one project, in words. Never a secret's value."""

    project: str
    what: str

    def __str__(self) -> str:
        return f"{self.project}: {self.what}"


# ---- apply


def apply(database: Database, config: ConfigFile, *, actor: str = "cli", dry_run: bool = False) -> list[Change]:
    """Bring all projects of the file to what it says, in one transaction; other projects are left alone.

    Raises ConfigFileError for what cannot be beside what is stored, and BuildError when calls could not be routed by
    it; either way nothing is changed.

    Returns what changed, [] when nothing did. `dry_run` does the same and takes it back.
    """
    with database.reading() as session:
        _refuse_without_token(session, config)
        if _is_applied(session, config):
            return []  # nobody waits for a file that changes nothing
    changes: list[Change] = []
    with database.writing() as session:
        added = _add_missing(session, {project.name for project in config.projects})
        rows = _lock(session, [project.name for project in config.projects])
        for words in config.projects:
            told = ["project added"] if words.name in added else []
            told += _apply_project(session, rows[words.name], words, actor)
            changes += [Change(words.name, what) for what in told]
        if dry_run:
            session.rollback()
    return changes


def _refuse_without_token(session: Session, config: ConfigFile) -> None:
    """What the file leaves to a stored token needs one: as in the form."""
    stored = {row.name: row.presence_token for row in session.scalars(select(models.Project))}
    problems = []
    for i, words in enumerate(config.projects):
        presence = words.presence
        if presence.online_from in (None, OnlineFrom.SIP) or presence.token is not None or stored.get(words.name):
            continue
        path = ("projects", i, "presence", "online_from")
        problems.append(Problem(place_of(path), *token_needed(presence.online_from), line_of(config.lines, path)))
    if problems:
        raise ConfigFileError(config.filename, problems)


def _is_applied(session: Session, config: ConfigFile) -> bool:
    """Does the database say what the file says already?"""
    rows = {row.name: row for row in session.scalars(select(models.Project).where(models.Project.deleted_at.is_(None)))}
    for words in config.projects:
        row = rows.get(words.name)
        if row is None or row.version == 0 or next(_write_secrets(row, words), None) is not None:
            return False
        if next(_differences(words_from(document_of(session, row)), _with_online_from(row, words)), None) is not None:
            return False
    return True


def _add_missing(session: Session, names: set[str]) -> set[str]:
    """New projects, each with a hook token. In one order and before any lock: files applied at once wait in line."""
    known = set(session.scalars(select(models.Project.name).where(models.Project.name.in_(names))))
    added = set()
    now = datetime.now(UTC)
    for name in sorted(names - known):
        row = models.Project(name=name, created_at=now)
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            continue  # somebody else has added it since
        token = new_token()
        session.add(models.HookToken(project_id=row.id, token=token, token_hash=token_hash(token), created_at=now))
        added.add(name)
    return added


def _lock(session: Session, names: Sequence[str]) -> dict[str, models.Project]:
    """The rows by name, held until the transaction ends."""
    query = select(models.Project).where(models.Project.name.in_(names)).order_by(models.Project.id)
    # Not FOR UPDATE: every decision refers to the project's row, and calls need not wait for a file.
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return {row.name: row for row in session.scalars(query)}


def _apply_project(session: Session, row: models.Project, wanted: ProjectWords, actor: str) -> list[str]:
    changes: list[str] = []
    if row.deleted_at is not None:
        row.deleted_at = None
        changes.append("project brought back from deletion")
    wanted = _with_online_from(row, wanted)
    differences = list(_differences(words_from(document_of(session, row)), wanted))
    if differences:
        _write_settings(row, wanted)
        _Rows(session, row).write(wanted)
    secrets = list(_write_secrets(row, wanted))
    changes += differences + secrets
    if changes or row.version == 0:
        publish(session, row.id, actor)
    return changes


def _with_online_from(row: models.Project, wanted: ProjectWords) -> ProjectWords:
    """The default depends on the token, which may be stored and not in the file."""
    presence = wanted.presence
    if presence.online_from is not None:
        return wanted
    token = row.presence_token if presence.token is None else presence.token.get_secret_value()
    online_from = OnlineFrom.EITHER if presence.project_id and token else OnlineFrom.SIP
    return wanted.model_copy(update={"presence": presence.model_copy(update={"online_from": online_from.value})})


def _write_settings(row: models.Project, wanted: ProjectWords) -> None:
    plain = [key for key in ProjectWords.model_fields if key in models.Project.__table__.columns]
    values: dict[str, Any] = {key: getattr(wanted, key) for key in plain}
    for part in ("hook", "presence"):
        words: dict[str, Any] = getattr(wanted, part).model_dump(mode="json", exclude=set(SECRETS[part]))
        values |= {f"{part}_{key}": value for key, value in words.items()}
    _set(row, **values)


def _write_secrets(row: models.Project, wanted: ProjectWords) -> Iterator[str]:
    """Secrets that the file leaves out stay as they are; "" takes one away."""
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


class _Rows:
    """One project's rows by name, brought to the words of a file.

    First what is wanted, then away with the rest: by then nothing refers to it any more.
    """

    def __init__(self, session: Session, project: models.Project) -> None:
        self._session = session
        self._project = project
        self.schedules = self._stored(models.Schedule)
        self.agents = self._stored(models.Agent)
        self.groups = self._stored(models.Group)
        self.rules = self._stored(models.Rule)

    def _stored(self, model: type[Row]) -> dict[str, Row]:
        rows = self._session.scalars(select(model).where(model.project_id == self._project.id))
        return {row.name: row for row in rows}

    def write(self, wanted: ProjectWords) -> None:
        self._write_schedules(wanted.schedules)
        self._write_agents(wanted.agents)
        self._write_groups(wanted.groups)
        self._write_rules(wanted.rules)
        self._delete_all_but(wanted.rules, self.rules)
        self._delete_all_but(wanted.groups, self.groups)
        self._delete_all_but(wanted.agents, self.agents)
        self._delete_all_but(wanted.schedules, self.schedules)

    def _row(self, rows: dict[str, Row], name: str, model: type[Row]) -> Row:
        if name not in rows:
            rows[name] = model(project_id=self._project.id, name=name)
            self._session.add(rows[name])
        return rows[name]

    def _delete_all_but(self, wanted: Iterable[Words], rows: dict[str, Row]) -> None:
        names = {name_of(item) for item in wanted}
        for name, row in rows.items():
            if name not in names:
                self._session.delete(row)
        self._session.flush()

    def _hours_id(self, name: str | None) -> int | None:
        return None if name is None else self.schedules[name].id

    def _write_schedules(self, wanted: Sequence[ScheduleWords]) -> None:
        for words in wanted:
            _set(
                self._row(self.schedules, words.name, models.Schedule),
                time_zone=words.time_zone,
                open=words.open,
                exceptions=words.exceptions,
                override=words.override or "",
                override_until=_instant(words.override_until),
            )
        self._session.flush()

    def _write_agents(self, wanted: Sequence[AgentWords]) -> None:
        logins = {words.name: words.sip_logins for words in wanted}
        deputies = {words.name: words.deputy for words in wanted}
        for name, row in self.agents.items():
            # A login that moves is given up by one agent before the other takes it.
            _set_list(row, "sip_logins", [login for login in row.sip_logins if login.login in logins.get(name, ())])
        self._session.flush()
        for words in wanted:
            row = self._row(self.agents, words.name, models.Agent)
            _set(
                row,
                paused=words.paused,
                wrap_up_seconds=words.wrap_up_seconds,
                daily_cap=words.daily_cap,
                external_id=words.staff_id,
                hours_id=self._hours_id(words.hours),
                away_until=_instant(words.away_until),
            )
            owned = {login.login: login for login in row.sip_logins}
            kept, changed = [], False
            for position, login in enumerate(words.sip_logins):
                kept.append(owned.get(login) or models.SipLogin(project_id=self._project.id, login=login))
                changed |= _set(kept[-1], position=position)
            _set_list(row, "sip_logins", kept, changed=changed)
        self._session.flush()
        for name, row in self.agents.items():
            deputy = deputies.get(name)
            _set(row, deputy_id=None if deputy is None else self.agents[deputy].id)
        self._session.flush()

    def _write_groups(self, wanted: Sequence[GroupWords]) -> None:
        for position, words in enumerate(wanted):
            row = self._row(self.groups, words.name, models.Group)
            _set(
                row,
                strategy=words.strategy,
                ring_seconds=words.ring_seconds,
                overflow=words.overflow,
                position=position,
            )
            members = {member.agent_id: member for member in row.members}
            kept, changed = [], False
            for place, member in enumerate(words.members):
                agent_id = self.agents[member.agent].id
                kept.append(members.get(agent_id) or models.Member(agent_id=agent_id))
                hours_id = self._hours_id(member.hours)
                changed |= _set(kept[-1], tier=member.tier, weight=member.weight, position=place, hours_id=hours_id)
            _set_list(row, "members", kept, changed=changed)
        self._session.flush()

    def _write_rules(self, wanted: Sequence[RuleWords]) -> None:
        for position, words in enumerate(wanted):
            row = self._row(self.rules, words.name, models.Rule)
            prefer, prefer_param = prefer_columns(words)
            free = words.when.free
            _set(
                row,
                position=position,
                enabled=words.enabled,
                conditions=conditions_of(words.when),
                inside_id=self._hours_id(words.when.schedule),
                outside_id=self._hours_id(words.when.outside),
                free_group_id=None if free is None else self.groups[free.group].id,
                free_fewer_than=0 if free is None else free.fewer_than,
                prefer=prefer,
                prefer_param=prefer_param,
                prefer_days=words.prefer_days,
                overflow=words.overflow,
            )
            links = {link.group_id: link for link in row.groups}
            kept, changed = [], False
            for place, name in enumerate(words.groups):
                group_id = self.groups[name].id
                kept.append(links.get(group_id) or models.RuleGroup(group_id=group_id))
                changed |= _set(kept[-1], position=place)
            _set_list(row, "groups", kept, changed=changed)
        self._session.flush()


def _set(row: models.Base, **values: Any) -> bool:
    """Only what differs: a revision that counts up for nothing would tell an admin of a conflict that is none."""
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    return bool(changed)


def _set_list(row: Row, name: str, children: list[Any], *, changed: bool = False) -> None:
    """Only when the list or (`changed`) one of its items differs. The parent's revision counts that too: people edit
    both in one form.
    """
    if changed or getattr(row, name) != children:
        setattr(row, name, children)
        flag_modified(row, "name")


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# ---- differences, in words


def _differences(old: Words, new: Words, about: str = "", prefix: str = "") -> Iterator[str]:
    """`about`: whose keys they are, as "agent Ann: "; `prefix`: the keys around them, as "when."."""
    for key in type(new).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        part, is_list = part_of(type(new), key)
        if before == after or key in SECRETS.get(prefix.removesuffix("."), ()):
            continue
        if part is not None and is_list:
            yield from _list_differences(before, after, about, key)
        elif isinstance(before, Words) and isinstance(after, Words):
            yield from _differences(before, after, about, f"{prefix}{key}.")
        else:
            yield f"{about}{prefix}{key}: {_told(before)} → {_told(after)}"


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
    if stay != now and key in _ORDERED:
        yield f"{about}{key} reordered: {', '.join(after)}"


_ORDERED = {"groups", "members", "rules"}


def _told(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, Words) else str(value)
