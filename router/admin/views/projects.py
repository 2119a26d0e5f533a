"""Projects: the list with their health, new ones, deleting and restoring."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import BigInteger, func, select, type_coerce
from sqlalchemy.orm import Session
from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField
from router.admin.forms.parts import zones
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    as_id,
    audit_entry,
    changing,
    context,
    current_project,
    current_user,
    done,
    may,
    page,
    reading,
    render_form,
)
from router.admin.source_words import explain_source
from router.admin.views.settings import BasicsForm, is_taken
from router.configuration.change import Draft, lock_project
from router.db import models
from router.db.queries import is_of_call
from router.db.types import from_micros, to_micros
from router.hook.auth import new_token
from router.routing.known import token_hash

_HOUR = 3_600_000_000  # microseconds


@page("/", see=Role.VIEWER)
def home() -> ResponseReturnValue:
    """Redirect to the board of the only project, or to the list."""
    with reading() as session:
        names = session.scalars(
            select(models.Project.name)
            .where(models.Project.deleted_at.is_(None))
            .order_by(models.Project.name)
            .limit(2)
        ).all()
    if len(names) == 1:
        return redirect(url_for("admin.board", project=names[0]))
    return redirect(url_for("admin.projects"))


# ---- the list


@page("/projects", see=Role.VIEWER)
def projects() -> ResponseReturnValue:
    """List all projects, and for owners the deleted ones."""
    now = datetime.now(UTC)
    with reading() as session:
        rows = _project_rows(session, now)
        deleted: Sequence[Any] = []
        if may(Role.OWNER):
            columns = (models.Project.id, models.Project.name, models.Project.deleted_at)
            query = select(*columns).where(models.Project.deleted_at.is_not(None))
            deleted = session.execute(query.order_by(models.Project.deleted_at.desc())).all()
    return render_template("projects/projects.html", rows=rows, deleted=deleted)


def _project_rows(session: Session, now: datetime) -> list[dict[str, Any]]:
    """Return what projects.html needs of each project."""
    project, presence = models.Project, models.Presence
    agents = select(func.count()).where(models.Agent.project_id == project.id).scalar_subquery()
    last_call = (
        select(func.max(models.Decision.asked_at))
        .where(models.Decision.project_id == project.id, ~models.Decision.is_test)
        .scalar_subquery()
    )
    found = session.execute(
        select(
            *(project.id, project.name, project.time_zone, project.presence_fresh_seconds, project.overflow),
            *(presence.began_at, presence.failures, presence.error_code, presence.error_message, presence.error_remedy),
            agents.label("agents"),
            last_call.label("last_call"),
        )
        .outerjoin(presence, presence.project_id == project.id)
        .where(project.deleted_at.is_(None))
        .order_by(project.name)
    ).all()
    trends = _trends(session, {row.id: ZoneInfo(row.time_zone) for row in found}, now)
    return [
        {
            "name": row.name,
            "url": url_for("admin.board", project=row.name),
            "presence": _presence_state(row.began_at, row.presence_fresh_seconds, now),
            "presence_at": row.began_at,
            "agents": row.agents,
            "calls_today": sum(trends[row.id]),
            "trend": trends[row.id],
            "last_call_at": row.last_call,
            "warning": _warning(row),
        }
        for row in found
    ]


def _presence_state(began_at: datetime | None, fresh_seconds: float, now: datetime) -> str:
    if began_at is None:
        return "unknown"
    return "fresh" if now - began_at <= timedelta(seconds=fresh_seconds) else "old"


def _warning(row: Any) -> str:
    if row.failures:
        return explain_source(row.error_code, row.error_message, row.error_remedy).message
    return "" if row.overflow else _("No overflow: for a call that nobody can take no destination is sent.")


def _trends(session: Session, zones: dict[int, ZoneInfo], now: datetime) -> dict[int, list[int]]:
    """Return the calls of each hour of today in each project's local time, up to the present hour."""
    trends: dict[int, list[int]] = {}
    for zone in set(zones.values()):
        ids = [project_id for project_id, each in zones.items() if each == zone]
        midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        start = to_micros(midnight)
        hours = (to_micros(now) - start) // _HOUR + 1
        trends |= {project_id: [0] * hours for project_id in ids}
        # As numbers: whole microseconds divide to whole hours on both databases.
        hour = type_coerce(models.Decision.asked_at, BigInteger).op("-")(start).op("/")(_HOUR)
        counted = session.execute(
            select(models.Decision.project_id, hour.label("hour"), func.count().label("calls"))
            .where(models.Decision.project_id.in_(ids), models.Decision.asked_at >= from_micros(start), is_of_call(ids))
            .group_by(models.Decision.project_id, hour)
        )
        for project_id, at, calls in counted:
            if 0 <= at < hours:
                trends[project_id][at] = calls
    return trends


# ---- a new one


@page("/projects/new", see=Role.OWNER, do=Role.OWNER, is_form=True)
def project_new() -> ResponseReturnValue:
    """Add a project; next come its credentials."""
    form = BasicsForm()
    if form.saves():
        with context().database.writing() as session:
            if not is_taken(session, form, None):
                now = datetime.now(UTC)
                row = models.Project(name=form.name.data, created_at=now)
                session.add(row)
                session.flush()
                token = new_token()
                session.add(
                    models.HookToken(project_id=row.id, token=token, token_hash=token_hash(token), created_at=now)
                )
                if form.saves_in(Draft(session, row, current_user().email)):
                    return done(_("The project is created."), url_for("admin.board", project=row.name))
                session.rollback()
    return render_form("projects/new.html", form, zones=zones())


# ---- deleting and restoring


class DeleteProjectForm(Form):
    """The name, typed to confirm."""

    name = TextField(lazy("The project’s name"))
    expected = ""

    def validate_name(self, field: Any) -> None:
        if field.data != self.expected:
            raise ValidationError(_("Type the name exactly: %(name)s.", name=self.expected))


@page("/p/<project>/delete", see=Role.OWNER, do=Role.OWNER, is_form=True)
def project_delete() -> ResponseReturnValue:
    """Delete the project: its hook and pages stop. All its data stays, so that it can be restored."""
    form = DeleteProjectForm()
    form.expected = current_project().name
    if form.saves():
        with changing() as draft:
            row = draft.project
            _set_deleted(draft, datetime.now(UTC))
        message = render_template("projects/_deleted.html", id=row.id, name=row.name)
        flash(Markup(message), "success")  # noqa: S704 - rendered by Jinja
        return redirect(url_for("admin.projects"), 303)
    return render_form("projects/delete.html", form)


@page("/projects/restore", do=Role.OWNER)
def project_restore() -> ResponseReturnValue:
    """Restore a deleted project; its hook answers again."""
    project_id = as_id(request.form.get("id"))
    with context().database.writing() as session:
        row = session.get(models.Project, project_id) if project_id is not None else None
        if row is None or row.deleted_at is None:
            abort(404)
        draft = Draft(session, lock_project(session, row.id), current_user().email)
        _set_deleted(draft, None)
        draft.save()
        return done(_("The project is back."), url_for("admin.settings", project=row.name))


def _set_deleted(draft: Draft, at: datetime | None) -> None:
    row = draft.project
    row.deleted_at = at
    action = "deleted" if at else "restored"
    # Counted as a secret, so that every process reads the hook's tokens again.
    draft.count_secret(audit_entry(action, "project", project_id=row.id, name=row.name, subject_id=row.id))
