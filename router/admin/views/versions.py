"""Versions of the configuration: who published which, what it changed, how many calls it decided; compare, restore."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from flask import abort, g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from router.admin.audit_words import Change, action_words, changes_in_words, names_in
from router.admin.faults import words_of_fault
from router.admin.i18n import _, ngettext
from router.admin.page import (
    Role,
    as_id,
    audit_entry,
    changing,
    context,
    current_project,
    done,
    is_in_draft,
    page,
    reading,
)
from router.configuration.change import ConfigurationError, differences
from router.configuration.rows import read_version
from router.configuration.undo import is_undoable
from router.configuration.versions import (
    MAX_COMMENT_CHARS,
    NoSuchVersionError,
    Version,
    count_calls,
    list_versions,
    restore_version,
)
from router.db import models
from router.db.documents import Document

PAGE_ROWS = 20
MOST_COUNTED = 1000
MOST_TO_COMPARE = 100
MOST_SHOWN = 200


class Deed(NamedTuple):
    """What a version did to one thing: "changed the rule", "Night"."""

    words: str
    name: str
    changes: Sequence[Change] = ()


@page("/p/<project>/versions", see=Role.VIEWER)
def versions() -> ResponseReturnValue:
    """List the versions, newest first, by pages."""
    project, before = current_project(), as_id(request.args.get("before"))
    with reading() as session:
        found = list_versions(session, project.id, limit=PAGE_ROWS + 1, before=before)
        shown = found[:PAGE_ROWS]
        deeds = _deeds(session, project.id, shown)
        calls = _counts(session, shown)
    return render_template(
        "versions/versions.html",
        versions=shown,
        deeds=deeds,
        calls=calls,
        newer_url=url_for("admin.versions") if before else None,
        older_url=url_for("admin.versions", before=shown[-1].number) if len(found) > PAGE_ROWS else None,
    )


def _deeds(session: Session, project_id: int, shown: Sequence[Version]) -> dict[int, list[Deed]]:
    """Return what each version did, by the audit trail, without the details."""
    found: dict[int, list[Deed]] = {one.number: [] for one in shown}
    if shown:
        entry, near = models.AuditEntry, timedelta(minutes=1)
        query = select(func.coalesce(entry.version, 0), entry.action, entry.subject, entry.subject_name).where(
            entry.project_id == project_id,
            entry.at.between(shown[-1].published_at - near, shown[0].published_at + near),
            entry.version.in_(found),
        )
        for version, action, subject, name in session.execute(query.order_by(entry.id)):
            found[version].append(Deed(action_words(action, subject), name))
    return found


def _counts(session: Session, shown: Sequence[Version]) -> dict[int, str]:
    """Return how many calls each version decided, "1,000+" for more than are counted."""
    found = count_calls(session, current_project().id, shown, MOST_COUNTED + 1)
    return {n: f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}" for n, count in found.items()}


@page("/p/<project>/versions/<int:number>", see=Role.VIEWER)
def version(number: int) -> ResponseReturnValue:
    """Show what a version changed, or how it differs from another one."""
    project = current_project()
    with reading() as session:
        earlier = list_versions(session, project.id, limit=1, before=number)
        base = as_id(request.args.get("with")) or (earlier[0].number if earlier else 0)
        shown = next(iter(list_versions(session, project.id, limit=1, number=number)), None)
        after = read_version(session, project.id, number)
        if shown is None or after is None:
            return _gone(number)
        before = read_version(session, project.id, base)
        previous = before if base == number - 1 else read_version(session, project.id, number - 1)
        others = list_versions(session, project.id, limit=MOST_TO_COMPARE)
        if base and base not in {one.number for one in others}:
            others += list_versions(session, project.id, limit=1, number=base)
        (calls,) = _counts(session, [shown]).values()
    return render_template(
        "versions/version.html",
        version=shown,
        base=base,
        others=[one for one in others if one.number != number],
        differing=_compared(before, after) if before or not base else None,
        calls=calls,
        is_current=number == project.version,
        can_undo=is_undoable(previous, after),
        most_chars=MAX_COMMENT_CHARS,
    )


def _gone(number: int) -> ResponseReturnValue:
    if number > current_project().version:
        abort(404)
    message = _("Version %(n)s is no longer stored: no call in the log was decided by it.", n=number)
    return done(message, url_for("admin.versions"), "warning")


def _compared(before: Document | None, after: Document) -> tuple[list[Deed], int]:
    """Return the differences between two documents in words, and how many more there are."""
    before = before or {}
    names = names_in(before, after)
    found = list(differences(before, after, current_project().id))
    deeds = [
        Deed(action_words(one.action, one.subject), one.subject_name, changes_in_words(one, names, g.time_zone))
        for one in found[:MOST_SHOWN]
    ]
    return deeds, len(found) - len(deeds)


@page("/p/<project>/versions/<int:number>/restore", do=Role.EDITOR, drafts=True)
def version_restore(number: int) -> ResponseReturnValue:
    """Make the configuration what it was in this version, as a new version, or the draft."""
    try:
        with changing() as draft:
            before = draft.document
            restore_version(draft, number)
            draft.comment = _("Version %(n)s restored", n=number)
            draft.save()
            name, is_same = draft.project.name, draft.document == before
    except NoSuchVersionError:
        return _gone(number)
    except ConfigurationError as error:
        reason = " ".join(words_of_fault(fault) for fault in error.faults)
        message = _("Not restored, and nothing was changed: %(reason)s", reason=reason)
        return done(message, url_for("admin.version", number=number), "warning")
    if is_same:
        return done(_("Nothing differs from this version."), url_for("admin.versions"), "info")
    if is_in_draft():
        return done(_("The draft is as version %(n)s was.", n=number), url_for("admin.draft"))
    message = _("Version %(n)s is restored. Applies from the next call.", n=number)
    return done(message, url_for("admin.versions", project=name))


@page("/p/<project>/versions/<int:number>/comment", do=Role.EDITOR)
def version_comment(number: int) -> ResponseReturnValue:
    """Store the comment of a version."""
    comment = " ".join(request.form.get("comment", "").split())
    back = url_for("admin.version", number=number)
    if len(comment) > MAX_COMMENT_CHARS or not comment.isprintable():
        most = ngettext("Write at most %(num)s character.", "Write at most %(num)s characters.", MAX_COMMENT_CHARS)
        return done(most, back, "warning")
    kept = models.ConfigVersion
    project = current_project()
    with context().database.writing() as session:
        row = session.get(kept, (project.id, number))
        if row is None:
            return _gone(number)
        told = {"before": {"comment": row.comment}, "after": {"comment": comment}, "version": number}
        if row.comment != comment:
            row.comment = comment
            session.add(audit_entry("commented", "version", project_id=project.id, name=str(number), **told))
    return done(_("The comment is saved."), back)
