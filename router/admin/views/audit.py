"""The audit trail, for owners: who changed what, when, from what to what; who signed in or tried to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from flask import g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from router.admin import auth, security
from router.admin.audit_words import (
    SUBJECTS,
    Names,
    action_words,
    changes_in_words,
    load_names,
    names_in_drafts,
    names_its_subject,
)
from router.admin.i18n import lazy
from router.admin.page import Role, as_id, page, reading, undo_button
from router.admin.views.board import pause_as_it_was
from router.configuration.change import NEW_IDS
from router.configuration.rows import ORDERED
from router.configuration.undo import is_never_undone, stands
from router.db import models
from router.db.documents import BuildError, Document, UnknownProjectError, in_use

PAGE_ROWS = 50
_FILTERS = ("actor", "project", "subject", "since", "until")


class _Project(NamedTuple):
    """What the page needs of a project, also of a deleted one."""

    id: int
    name: str
    time_zone: str
    version: int
    deleted_at: datetime | None


@page("/audit", see=Role.OWNER, keeps_menu=True)
def audit() -> ResponseReturnValue:
    """List the entries, newest first, filtered, by pages. It begins with the project that one comes from."""
    here = g.project.name if "project" in g else ""
    filters = {name: request.args.get(name, "").strip() for name in _FILTERS}
    filters["project"] = request.args.get("project", here).strip()
    before, after = as_id(request.args.get("before")), as_id(request.args.get("after"))
    with reading() as session:
        rows = session.execute(select(*(getattr(models.Project, name) for name in _Project._fields))).all()
        projects = {row.id: _Project(*row) for row in rows}
        g.time_zone = _zone(filters["project"], projects.values())
        entries, has_newer, has_older = _entries(session, _filtered(filters, projects), before, after)
        names = load_names(session, {entry.project_id for entry in entries if entry.project_id is not None})
        names = names.joined(names_in_drafts(session, {entry.draft_id for entry in entries if entry.draft_id}))
        undo = _undo_buttons(session, entries, projects)
    return render_template(
        "audit/audit.html",
        entries=[_row(entry, names, projects.get(entry.project_id or 0), undo) for entry in entries],
        filters=filters,
        filtered=any(value for name, value in filters.items() if name != "project" or value != here),
        here=here,
        zone=str(g.time_zone),
        subjects=list(SUBJECTS.items()),
        project_names=[(name, name) for name in sorted({project.name for project in projects.values()})],
        newer_url=_url(filters, after=entries[0].id) if has_newer else None,
        older_url=_url(filters, before=entries[-1].id) if has_older else None,
    )


def _zone(name: str, projects: Iterable[_Project]) -> ZoneInfo:
    """Return the zone of the chosen project, or of all if they share one; else UTC."""
    of_all = {project.time_zone for project in projects if name in ("", project.name)}
    return ZoneInfo(of_all.pop() if len(of_all) == 1 else "UTC")


def _filtered(filters: dict[str, str], projects: Mapping[int, _Project]) -> Select[models.AuditEntry]:
    entry = models.AuditEntry
    query = select(entry)
    if actor := filters["actor"]:
        query = query.where(entry.actor.icontains(actor, autoescape=True))
    if name := filters["project"]:
        query = query.where(entry.project_id.in_([each.id for each in projects.values() if each.name == name]))
    if subject := filters["subject"]:
        # With `=` for a single value, the index also gives the order.
        ordered = f"{subject}s"
        is_either = entry.subject.in_([subject, ordered])
        query = query.where(is_either if ordered in ORDERED else entry.subject == subject)
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
    entry: models.AuditEntry, names: Names, project: _Project | None, undo: Mapping[int, Markup]
) -> dict[str, Any]:
    """Return what _entries.html needs of an entry."""
    name = project.name if project else None
    return {
        "id": entry.id,
        "at": entry.at,
        "actor": entry.actor or "?",
        "action_words": action_words(entry.action, entry.subject),
        "subject_name": entry.subject_name if names_its_subject(entry.action) else "",
        "url": _subject_url(entry, name),
        "project": name,
        "version": entry.version,
        "is_drafted": entry.draft_id is not None and entry.subject != "draft",
        "version_url": entry.version and name and url_for("admin.version", project=name, number=entry.version),
        "changes": changes_in_words(entry, names, ZoneInfo(project.time_zone) if project else g.time_zone),
        "undo": undo.get(entry.id, ""),
    }


def _subject_url(entry: models.AuditEntry, project: str | None) -> str | None:
    if entry.action in {"deleted", "sign_in_failed"} or entry.subject_id is None or entry.subject_id >= NEW_IDS:
        return None
    if entry.subject == "user":
        return url_for("admin.user", id=entry.subject_id) if names_its_subject(entry.action) else None
    if project is None:
        return None
    if entry.subject == "project":
        return url_for("admin.settings", project=project)
    if entry.subject not in {"agent", "group", "rule", "schedule", "test"}:
        return None
    return url_for(f"admin.{entry.subject}", project=project, id=entry.subject_id)


def _url(filters: dict[str, str], **place: Any) -> str:
    chosen = {name: value for name, value in filters.items() if value or name == "project"}
    return url_for("admin.audit", **{**chosen, **place})


# ---- undo

_SAME_CHANGE = timedelta(seconds=5)  # between an entry and the state that it tells of: two clocks

_NEVER_UNDONE = {
    ("rotated", "hook_token"): lazy("cannot be undone: the earlier address ends at its time"),
    ("ended", "hook_token"): lazy("cannot be undone"),
    ("erased", "caller"): lazy("cannot be undone"),
    ("changed", "project"): lazy("cannot be undone: credentials, and where they are sent, are not restored"),
}


def _undo_buttons(
    session: Session, entries: Sequence[models.AuditEntry], projects: Mapping[int, _Project]
) -> dict[int, Markup]:
    """Return by entry the button that undoes its change, or words why nothing can; those changed since have neither.

    Of what one version changed the newest entry has the button, if all stands that the page shows of it.
    """
    user_ids = [entry.subject_id for entry in entries if entry.subject == "user"]
    users = {user.id: user for user in session.scalars(select(models.User).where(models.User.id.in_(user_ids)))}
    entries = [entry for entry in entries if entry.draft_id is None]
    agent_ids = [entry.subject_id for entry in entries if entry.subject == "agent" and not entry.version]
    of_agents = select(models.AgentState).where(models.AgentState.agent_id.in_(agent_ids))
    states = {state.agent_id: state for state in session.scalars(of_agents)}
    documents = _documents(session, {entry.project_id or 0 for entry in entries if entry.version}, projects)
    versions: dict[tuple[int | None, int | None], list[models.AuditEntry]] = {}
    for entry in entries:
        versions.setdefault((entry.project_id, entry.version), []).append(entry)
    found: dict[int, Markup] = {}
    back = security.here()
    for entry in entries:
        project, deed = projects.get(entry.project_id or 0), (entry.action, entry.subject)
        document = documents.get(project.id) if project and entry.version else None
        of_version = versions[entry.project_id, entry.version]
        if entry.subject == "user" and auth.can_undo(users.get(entry.subject_id or 0), entry):
            found[entry.id] = undo_button(url_for("admin.user_undo"), entry=entry.id, next=back)
        elif project and entry.subject_id in states and (action := _board_action(entry, states[entry.subject_id])):
            url = url_for("admin.agent_action", project=project.name)
            found[entry.id] = undo_button(url, do=action)
        elif deed == ("deleted", "project") and project and project.deleted_at:
            found[entry.id] = undo_button(url_for("admin.project_restore"), id=project.id)
        elif deed in _NEVER_UNDONE and is_never_undone(entry):
            found[entry.id] = Markup('<span class="quiet small">{}</span>').format(_NEVER_UNDONE[deed])
        elif project and document and entry is of_version[0] and all(stands(document, one) for one in of_version):
            url = url_for("admin.undo", project=project.name)
            found[entry.id] = undo_button(url, version=entry.version, next=back)
    return found


def _board_action(entry: models.AuditEntry, state: models.AgentState) -> str:
    """Return what `do` of the board's actions undoes this change of an agent's status or pause; "" if it was changed
    since, or the pause would be over by now.
    """
    before, after = entry.before or {}, entry.after or {}
    since = state.status_since_at
    if after == {"status": state.status} and since is not None and abs(entry.at - since) < _SAME_CHANGE:
        return f"{before['status']}:{state.agent_id}"
    if "paused_until" not in after or _instant(after["paused_until"]) != state.paused_until:
        return ""
    since = state.available_since_at
    if state.paused_until is None and (since is None or abs(entry.at - since) > _SAME_CHANGE):
        return ""  # it was paused and resumed again since
    paused = pause_as_it_was(state.agent_id, _instant(before.get("paused_until")), datetime.now(UTC))
    return paused or (f"resume:{state.agent_id}" if state.paused_until is not None else "")


def _instant(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)


def _documents(session: Session, ids: Iterable[int], projects: Mapping[int, _Project]) -> dict[int, Document]:
    """Return the configurations in use. A project whose configuration cannot be built has no Undo here."""
    found = {}
    for project in (projects[id_] for id_ in ids if id_ in projects and projects[id_].deleted_at is None):
        with suppress(BuildError, UnknownProjectError):
            found[project.id] = in_use(session, project.id, project.version).document
    return found
