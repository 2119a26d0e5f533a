"""Queries that more than one module needs."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, literal, select, text, union_all
from sqlalchemy.orm import Session, aliased

from router.core.model import LastTalk, Project
from router.db import models
from router.db.documents import BuildError, Configured, Document, UnknownProjectError, load_configured
from router.db.types import SecretError, Unreadable, readable


@dataclass(frozen=True, slots=True)
class Published:
    """A project's configuration as the hook uses it.

    `version`: the published version. If it cannot be built, `fault` says why, and `project` is of an earlier version.
    """

    project: Project
    document: Document
    version: int
    tokens: Mapping[str, datetime | None]  # hash of a hook token → when it expires
    basic_auth: str | Unreadable | None
    fault: str = ""

    @property
    def reads_call_log(self) -> bool:
        """Return whether talks in the platform's call log count too."""
        return bool(self.document["project"]["presence"].get("call_log_days"))


def load_published(session: Session, project_id: int, *, known: Published | None = None) -> Published:
    """Return the newest published configuration; while it cannot be built, the newest one before it that can.

    `known`: the last result. While the version is the same, only tokens and credentials are read again. If no version
    can be built, the known one stays in use. Raises UnknownProjectError, and BuildError if none is known.
    """
    row = session.get(models.Project, project_id)
    if row is None or row.deleted_at:
        raise UnknownProjectError(f"there is no project with id {project_id}")
    if known is not None and known.project.version == row.version:
        found = Configured(known.document, known.project)
    else:
        try:
            found = load_configured(session, project_id, row.version)
        except BuildError as error:
            if known is None:
                raise
            found = Configured(known.document, known.project, str(error))
    tokens = session.scalars(select(models.HookToken).where(models.HookToken.project_id == project_id))
    return Published(
        project=found.project,
        document=found.document,
        version=row.version,
        tokens={token.token_hash: token.expires_at for token in tokens},
        basic_auth=row.hook_basic_auth,
        fault=found.fault,
    )


def version(session: Session, project_id: int) -> int | None:
    """Return the published version of the project; None when it was deleted."""
    project = models.Project
    return session.scalar(select(project.version).where(project.id == project_id, project.deleted_at.is_(None)))


def project_of_token(session: Session, token_hash: str) -> int | None:
    """Return the id of the project with this hook token, expired or not; None when there is none."""
    return session.scalar(
        select(models.HookToken.project_id)
        .join(models.Project, models.Project.id == models.HookToken.project_id)
        .where(models.HookToken.token_hash == token_hash, models.Project.deleted_at.is_(None))
    )


def tokens(session: Session) -> dict[str, int]:
    """Return the project of every hook token, expired or not, by its hash."""
    rows = session.execute(
        select(models.HookToken.token_hash, models.HookToken.project_id)
        .join(models.Project, models.Project.id == models.HookToken.project_id)
        .where(models.Project.deleted_at.is_(None))
    )
    return {row[0]: row[1] for row in rows}


def installation(session: Session) -> str:
    """Return the name of this installation, which never changes; "" before it has one."""
    return session.scalar(select(models.Installation.name)) or ""


def name_installation(session: Session) -> None:
    """Give the installation a name, unless it has one, or another process gives it one at the same time."""
    session.execute(
        text("INSERT INTO installation (id, name) VALUES (1, :name) ON CONFLICT DO NOTHING"),
        {"name": secrets.token_hex(16)},
    )


def versions(session: Session) -> dict[int, int]:
    """Return the published version of each project."""
    project = models.Project
    rows = session.execute(select(project.id, project.version).where(project.deleted_at.is_(None), project.version > 0))
    return {row[0]: row[1] for row in rows}


def current_token(session: Session, project_id: int) -> str:
    """Return the token in a project's hook URL: the newest that does not expire. Raises SecretError."""
    token = session.scalars(
        select(models.HookToken.token)
        .where(models.HookToken.project_id == project_id, models.HookToken.expires_at.is_(None))
        .order_by(models.HookToken.id.desc())
        .limit(1)
    ).one()
    return readable(token)


def project_named(session: Session, name: str) -> models.Project:
    """Return the project with this name. Raises UnknownProjectError, whose text lists the existing names."""
    row = session.scalar(select(models.Project).where(models.Project.name == name, models.Project.deleted_at.is_(None)))
    if row is None:
        names = session.scalars(
            select(models.Project.name).where(models.Project.deleted_at.is_(None)).order_by(models.Project.name)
        ).all()
        there = f"there are: {', '.join(names)}" if names else "there is none yet: make one with `router config apply`"
        raise UnknownProjectError(f"there is no project {name!r}; {there}")
    return row


def is_of_call(project_ids: Collection[int]) -> ColumnElement[bool]:
    """Return the condition that a decision of these projects is about a call, and not about a test request.

    By the instants of the few tests: indexes hold those, and counting reads nothing else.
    """
    test = aliased(models.Decision)
    return models.Decision.asked_at.not_in(select(test.asked_at).where(test.is_test, test.project_id.in_(project_ids)))


TALKS_LOOKED_AT = 100  # talks with one caller that are read, newest first: a robot may have thousands


def last_talk(session: Session, published: Published, caller: str, since: datetime) -> LastTalk | None:
    """Return the last talk of an agent of the project with this caller, if it was after `since`.

    By our own outcomes and, if the project reads it, the platform's call log.
    """
    project, talks = published.project, models.LoggedTalk
    ours = _our_last_talk(session, project.id, caller, since)
    if not published.reads_call_log:
        return ours
    logged = session.execute(
        select(talks.login, talks.talked_at)
        .where(
            talks.project_id == project.id,
            talks.caller == caller,
            talks.talked_at >= (since if ours is None else ours.at),
        )
        .order_by(talks.talked_at.desc(), talks.login)
        .limit(TALKS_LOOKED_AT)
    )
    for login, at in logged:  # one row per login that talked with this caller
        agent = project.login_named(login)[1]
        if agent is not None:
            return LastTalk(agent.id, at, logged=True)
    return ours


def _our_last_talk(session: Session, project_id: int, caller: str, since: datetime) -> LastTalk | None:
    """Return the last talk by stored calls, else by the table of talks in deleted ones. One statement, by indexes."""
    decision, kept, agent = models.Decision, models.LastTalk, models.Agent
    answers = (
        select(decision.id, decision.answered_agent_id.label("agent_id"), decision.asked_at.label("at"))
        .where(
            decision.project_id == project_id,
            decision.caller == caller,
            decision.answered_agent_id.is_not(None),
            decision.asked_at >= since,
        )
        .order_by(decision.id.desc())
        .limit(TALKS_LOOKED_AT)
        .subquery()
    )
    talks = (
        select(kept.agent_id, kept.talked_at.label("at"))
        .where(kept.project_id == project_id, kept.caller == caller, kept.talked_at >= since)
        .order_by(kept.talked_at.desc())
        .limit(TALKS_LOOKED_AT)
        .subquery()
    )
    found = union_all(
        select(answers.c.agent_id, answers.c.at, answers.c.id.label("place")),
        select(talks.c.agent_id, talks.c.at, literal(0)),
    ).subquery()
    row = session.execute(
        select(found.c.agent_id, found.c.at)
        .where(exists().where(agent.id == found.c.agent_id, agent.project_id == project_id))
        .order_by(found.c.place.desc(), found.c.at.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else LastTalk(row[0], row[1])


def shared_logins(session: Session, project_id: int) -> dict[str, str]:
    """Return the SIP logins that another project of the same presence account owns too: login → that project's name."""
    project, login, other = models.Project, models.SipLogin, aliased(models.SipLogin)
    mine = session.get_one(project, project_id)
    key = _secret(mine.presence_auth_key)
    if not key:
        return {}
    rows = session.execute(
        select(login.login, project.name, project.presence_auth_key)
        .join(other, and_(other.login == login.login, other.project_id != login.project_id))
        .join(project, project.id == other.project_id)
        .where(
            login.project_id == project_id,
            project.deleted_at.is_(None),
            project.presence_source == mine.presence_source,
            project.presence_api_url == mine.presence_api_url,
        )
        .order_by(login.login, project.name)
    )
    return {row.login: row.name for row in rows if _secret(row.presence_auth_key) == key}


def _secret(stored: str | Unreadable | None) -> str:
    try:
        return readable(stored)
    except SecretError:
        return ""
