"""Undo a change: restore what one version of the configuration changed to what it was before.

Only where nothing has changed since that version.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.config_file.rows import MODELS, ORDERED, set_values, write_project, write_row
from router.db import models
from router.db.configuration import Document, document_of, is_buildable, load_document

Row = Mapping[str, Any]


class CannotUndoError(Exception):
    """The configuration was changed since, or the version is no longer stored."""


class _Change(NamedTuple):
    kind: str
    id: int
    before: Row | None
    after: Row | None


def is_undoable(before: Document | None, after: Document | None) -> bool:
    """Return whether the change from one version to the other can be undone.

    Not if a credential or a hook URL was changed, nor if calls could not be routed by one of the versions.
    """
    if before is None or after is None or before == after or not (is_buildable(before) and is_buildable(after)):
        return False
    return _secrets(before) == _secrets(after)


def undo_version(session: Session, project_id: int, version: int) -> None:
    """Undo what this version changed. Raises CannotUndoError."""
    project = session.get_one(models.Project, project_id)
    after = load_document(session, project_id, version)
    before = load_document(session, project_id, version - 1)
    if before is None or after is None or not is_undoable(before, after):
        raise CannotUndoError
    now = document_of(session, project)
    changes = list(_changes(before, after))
    moved = [kind for kind in ORDERED if _ids(before, kind) != _ids(after, kind)]
    rows = {(kind, row["id"]): row for kind in MODELS for row in now[kind]}
    if any(rows.get((change.kind, change.id)) != change.after for change in changes):
        raise CannotUndoError
    if before["project"] != after["project"] and now["project"] != after["project"]:
        raise CannotUndoError
    if not changes and any(_ids(now, kind) != _ids(after, kind) for kind in moved):
        raise CannotUndoError  # only the order was changed, and it was changed again since
    try:
        _Undo(session, project).run(changes, before["project"])
        for kind in moved:
            _reorder(session, project_id, kind, _restored(_ids(before, kind), _ids(after, kind), _ids(now, kind)))
        session.flush()
    except IntegrityError:  # a name or login is taken now, or a referred row was deleted
        raise CannotUndoError from None


def _changes(before: Document, after: Document) -> Iterator[_Change]:
    for kind in MODELS:
        old = {row["id"]: row for row in before[kind]}
        new = {row["id"]: row for row in after[kind]}
        for row_id in sorted(old.keys() | new.keys()):
            if old.get(row_id) != new.get(row_id):
                yield _Change(kind, row_id, old.get(row_id), new.get(row_id))


def _ids(document: Document, kind: str) -> list[int]:
    return [row["id"] for row in document[kind]]


def _secrets(document: Document) -> tuple[Any, Any]:
    return document["project"]["secrets"], document["project"]["hook"]["basic_auth"]


def _restored(before: Sequence[int], after: Sequence[int], now: Sequence[int]) -> list[int]:
    """Return the order of `before`. If the order was changed since: the present one, with restored rows below their
    former neighbours.
    """
    if now == after:
        return list(before)
    order = [row_id for row_id in now if row_id in before or row_id not in after]
    for place, row_id in enumerate(before):
        if row_id not in order:
            above = next((order.index(one) + 1 for one in reversed(before[:place]) if one in order), 0)
            order.insert(above, row_id)
    return order


class _Undo:
    """Writes rows of a document back. A deleted row gets its old id, so that the call log names it again."""

    def __init__(self, session: Session, project: models.Project) -> None:
        self._session, self._project = session, project

    def run(self, changes: Sequence[_Change], project: Row) -> None:
        self._free_names(changes)
        write_project(self._project, project)
        for change in changes:
            if change.before is not None:
                write_row(self._row(change), change.before)
                self._session.flush()
        for change in changes:  # after all agents exist
            if change.kind == "agents" and change.before is not None:
                self._session.get_one(models.Agent, change.id).deputy_id = change.before["deputy"]
        self._session.flush()
        for change in reversed(changes):  # nothing refers to them any more
            if change.before is None:
                self._session.delete(self._session.get_one(MODELS[change.kind], change.id))
                self._session.flush()

    def _free_names(self, changes: Sequence[_Change]) -> None:
        """Free names and logins before others get them back: they may have been swapped in a circle."""
        for change in changes:
            if change.after is None:
                continue
            row = self._session.get_one(MODELS[change.kind], change.id)
            before = change.before or {"name": None, "sip_logins": ()}
            if before["name"] != change.after["name"]:
                row.name = secrets.token_hex(16)
            if isinstance(row, models.Agent):
                row.sip_logins = [one for one in row.sip_logins if one.login in before["sip_logins"]]
                if change.before is None:
                    row.deputy_id = None
        self._session.flush()

    def _row(self, change: _Change) -> Any:
        model = MODELS[change.kind]
        row = self._session.get(model, change.id)
        if row is not None and row.project_id != self._project.id:
            raise CannotUndoError  # SQLite reuses the last id
        if row is None:
            row = model(id=change.id, project_id=self._project.id)
            self._session.add(row)
        return row


def _reorder(session: Session, project_id: int, kind: str, wanted: Sequence[int]) -> None:
    model = MODELS[kind]
    rows = {row.id: row for row in session.scalars(select(model).where(model.project_id == project_id))}
    for position, row_id in enumerate(wanted):
        set_values(rows[row_id], position=position)
