"""The audit trail, for owners: who changed what, when, from what to what; who signed in or tried to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from router.admin.audit_words import (
    SUBJECTS,
    Names,
    action_words,
    changes_in_words,
    load_names,
    names_its_subject,
)
from router.admin.page import Role, as_id, page, reading
from router.db import models

PAGE_ROWS = 50
_FILTERS = ("actor", "project", "subject", "since", "until")


@page("/audit", see=Role.OWNER)
def audit() -> ResponseReturnValue:
    """List the entries, newest first, filtered, by pages."""
    filters = {name: request.args.get(name, "").strip() for name in _FILTERS}
    before, after = as_id(request.args.get("before")), as_id(request.args.get("after"))
    with reading() as session:
        columns = (models.Project.id, models.Project.name, models.Project.time_zone)
        rows = session.execute(select(*columns)).all()
        projects, zones = {row.id: row.name for row in rows}, {row.id: ZoneInfo(row.time_zone) for row in rows}
        g.time_zone = _zone(filters["project"], projects, zones)
        entries, has_newer, has_older = _entries(session, _filtered(filters, projects), before, after)
        names = load_names(session, {entry.project_id for entry in entries if entry.project_id is not None})
    return render_template(
        "audit/audit.html",
        entries=[_row(entry, names, projects, zones) for entry in entries],
        filters=filters,
        filtered=any(filters.values()),
        subjects=list(SUBJECTS.items()),
        project_names=sorted(set(projects.values())),
        newer_url=_url(filters, after=entries[0].id) if has_newer else None,
        older_url=_url(filters, before=entries[-1].id) if has_older else None,
    )


def _zone(project: str, projects: dict[int, str], zones: dict[int, ZoneInfo]) -> ZoneInfo:
    """Return the zone of the chosen project, or of all if they share one; else UTC."""
    of_all = {zone for id_, zone in zones.items() if project in ("", projects[id_])}
    return of_all.pop() if len(of_all) == 1 else ZoneInfo("UTC")


def _filtered(filters: dict[str, str], projects: dict[int, str]) -> Select[models.AuditEntry]:
    entry = models.AuditEntry
    query = select(entry)
    if actor := filters["actor"]:
        query = query.where(entry.actor.icontains(actor, autoescape=True))
    if name := filters["project"]:
        query = query.where(entry.project_id.in_([id_ for id_, each in projects.items() if each == name]))
    if subject := filters["subject"]:
        # With `=` for a single value, the index also gives the order.
        is_rule = entry.subject.in_(["rule", "rules"])
        query = query.where(is_rule if subject == "rule" else entry.subject == subject)
    if since := _day(filters["since"]):
        query = query.where(entry.at >= since.astimezone(UTC))
    if until := _day(filters["until"]):
        query = query.where(entry.at < (until + timedelta(days=1)).astimezone(UTC))
    return query


def _day(text: str) -> datetime | None:
    """Return the first moment of a date in the page's zone; None for an invalid date."""
    try:
        day = datetime.fromisoformat(text).date()
    except ValueError:
        return None
    return datetime.combine(day, time(), g.time_zone) if 1970 < day.year < 9999 else None


def _entries(
    session: Session, query: Select[models.AuditEntry], before: int | None, after: int | None
) -> tuple[Sequence[models.AuditEntry], bool, bool]:
    """Return a page of entries, newest first, and whether there are newer and older ones."""
    entry = models.AuditEntry
    if after is not None:
        found = list(session.scalars(query.where(entry.id > after).order_by(entry.id).limit(PAGE_ROWS + 1)))
        return found[:PAGE_ROWS][::-1], len(found) > PAGE_ROWS, True
    if before is not None:
        query = query.where(entry.id < before)
    found = list(session.scalars(query.order_by(entry.id.desc()).limit(PAGE_ROWS + 1)))
    return found[:PAGE_ROWS], before is not None and bool(found), len(found) > PAGE_ROWS


def _row(
    entry: models.AuditEntry, names: Names, projects: dict[int, str], zones: dict[int, ZoneInfo]
) -> dict[str, Any]:
    """Return what _entries.html needs of an entry."""
    return {
        "id": entry.id,
        "at": entry.at,
        "actor": entry.actor or "?",
        "action_words": action_words(entry.action, entry.subject),
        "subject_name": entry.subject_name if names_its_subject(entry.action) else "",
        "url": _subject_url(entry, projects),
        "project": projects.get(entry.project_id or 0),
        "version": entry.version,
        "changes": changes_in_words(entry, names, zones.get(entry.project_id or 0, g.time_zone)),
    }


def _subject_url(entry: models.AuditEntry, projects: dict[int, str]) -> str | None:
    if entry.action in {"deleted", "sign_in_failed"} or entry.subject_id is None:
        return None
    if entry.subject == "user":
        return url_for("admin.user", id=entry.subject_id) if names_its_subject(entry.action) else None
    project = projects.get(entry.project_id or 0)
    if project is None:
        return None
    if entry.subject == "project":
        return url_for("admin.settings", project=project)
    if entry.subject not in {"agent", "group", "rule", "schedule"}:
        return None
    return url_for(f"admin.{entry.subject}", project=project, id=entry.subject_id)


def _url(filters: dict[str, str], **place: Any) -> str:
    chosen = {name: value for name, value in filters.items() if value}
    return f"{url_for('admin.audit')}?{urlencode({**chosen, **place})}"
