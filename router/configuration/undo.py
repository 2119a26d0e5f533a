"""Undo a change: restore what one version of the configuration changed to what it was before.

Only where nothing has changed since that version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy.exc import IntegrityError

from router.configuration.change import Draft
from router.configuration.document import PARTS
from router.configuration.rows import MODELS, ORDERED, read_version
from router.configuration.schema import notes_of
from router.db import models
from router.db.documents import KINDS, Document, is_buildable

Row = dict[str, Any]


class CannotUndoError(Exception):
    """The configuration was changed since, or the version is no longer stored."""


class _Change(NamedTuple):
    kind: str
    id: int
    before: Row | None
    after: Row | None


def is_undoable(before: Document | None, after: Document | None) -> bool:
    """Return whether the change from one version to the other can be undone.

    Not if a credential, where it is sent or a hook URL was changed, nor if calls could not be routed by one of them.
    """
    if before is None or after is None or before == after or not (is_buildable(before) and is_buildable(after)):
        return False
    return owners_settings(before) == owners_settings(after)


def stands(now: Document, entry: models.AuditEntry) -> bool:
    """Return whether what this entry of the audit trail changed is still as it left it, and can be undone."""
    if (entry.action, entry.subject) == ("accepted", "tests"):
        return True  # it only says how the change was saved
    if is_never_undone(entry):
        return False
    if entry.subject == "project":
        return entry.before is not None and now["project"] == entry.after
    if entry.subject in ORDERED:
        return entry.after == {"order": [row["name"] for row in now[entry.subject]]}
    kind = next((kind for kind, word in KINDS.items() if word == entry.subject), "")
    return bool(kind) and entry.after == next((row for row in now[kind] if row["id"] == entry.subject_id), None)


def is_never_undone(entry: models.AuditEntry) -> bool:
    """Return whether a change cannot be undone whatever happens: of secrets, where they are sent, or a hook URL."""
    if entry.subject != "project":
        return entry.subject not in {*KINDS.values(), *ORDERED, "tests"}
    before, after = entry.before, entry.after
    return bool(before and after) and owners_settings({"project": before}) != owners_settings({"project": after})


def undo_version(draft: Draft, version: int) -> None:
    """Undo what this version changed. Raises CannotUndoError, or ConfigurationError where the configuration would be
    invalid now: a name or login is taken, or a row is used.
    """
    session, project = draft.session, draft.project
    after, before = (read_version(session, project.id, number) for number in (version, version - 1))
    if before is None or after is None or not is_undoable(before, after):
        raise CannotUndoError
    now = draft.document
    changes = list(_changes(before, after))
    moved = [kind for kind in ORDERED if _ids(before, kind) != _ids(after, kind)]
    rows = {(kind, row["id"]): row for kind in KINDS for row in now[kind]}
    if any(rows.get((change.kind, change.id)) != change.after for change in changes):
        raise CannotUndoError
    if before["project"] != after["project"] and now["project"] != after["project"]:
        raise CannotUndoError
    if not changes and any(_ids(now, kind) != _ids(after, kind) for kind in moved):
        raise CannotUndoError  # only the order was changed, and it was changed again since
    for change in changes:
        if change.before is None:
            draft.remove(change.kind, change.id)
        elif change.after is None and session.get(MODELS[change.kind], change.id) is not None:
            raise CannotUndoError  # SQLite reuses the last id
        else:
            draft.put(change.kind, change.before, change.id)  # a deleted row gets its old id: the call log names it
    if before["project"] != after["project"]:
        draft.put_project(before["project"])
    for kind in moved:
        draft.order(kind, _restored(_ids(before, kind), _ids(after, kind), _ids(now, kind)))
    try:
        draft.save()
    except IntegrityError:  # another project has the name now
        raise CannotUndoError from None


def _changes(before: Document, after: Document) -> Iterator[_Change]:
    for kind in KINDS:
        old = {row["id"]: row for row in before[kind]}
        new = {row["id"]: row for row in after[kind]}
        for row_id in sorted(old.keys() | new.keys()):
            if old.get(row_id) != new.get(row_id):
                yield _Change(kind, row_id, old.get(row_id), new.get(row_id))


def _ids(document: Document, kind: str) -> list[int]:
    return [row["id"] for row in document[kind]]


def owners_settings(document: Document) -> dict[str, Any]:
    """Return what only owners may change, as far as a document holds it, for `Draft.put_project`."""
    project = document["project"]
    found: dict[str, Any] = {"secrets": project["secrets"]}
    for part, model in PARTS.items():
        stored = project[part] if part else project
        kept = {
            key: stored[key]
            for key, field in model.model_fields.items()
            if notes_of(field).is_for_owners and key in stored
        }
        found |= {part: kept} if part else kept
    return found


def _restored(before: Sequence[int], after: Sequence[int], now: Sequence[int]) -> list[int]:
    """Return the order of `before`. If the order was changed since: the present one, with restored rows below their
    former neighbours.
    """
    if now == after:
        return list(before)
    order = [row_id for row_id in now if row_id in before or row_id not in after]
    for place, row_id in enumerate(before):
        if row_id not in order and row_id not in after:
            above = next((order.index(one) + 1 for one in reversed(before[:place]) if one in order), 0)
            order.insert(above, row_id)
    return order
