"""Keep a draft: changes of a project's configuration that are collected, and published together.

A project has one draft at most, which all its people see. It is kept as a document beside the rows. What is published
meanwhile is merged into it whenever it is read; what both changed otherwise must be settled before it is published.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.configuration.change import (
    ConfigurationError,
    Difference,
    Draft,
    audit_entries,
    check_builds,
    differences,
    lock_project,
)
from router.configuration.document import completed
from router.configuration.merging import Conflict, merge
from router.configuration.rows import ORDERED, read_rows
from router.configuration.rule_tests import FailingTestsError
from router.configuration.schema import Fault
from router.configuration.undo import CannotUndoError, owners_settings, stands
from router.configuration.versions import adopt_rows
from router.db import models
from router.db.documents import KINDS, BuildError, Document, made_once, upgrade
from router.db.session import Database

Row = dict[str, Any]


class CannotPublishError(Exception):
    """A draft that cannot be published. `code`: "nothing", "conflicts", "owner" (it changes what only owners may
    change), "invalid", "tests" or "name" (another project has its name).
    """

    def __init__(self, code: str, cause: Exception | None = None) -> None:
        super().__init__(code)
        self.code, self.cause = code, cause

    @property
    def words(self) -> str:
        """Why, in English."""
        return str(self.cause) if self.cause and self.code in ("invalid", "tests") else _WHY[self.code]


_WHY = {
    "nothing": "there is no draft",
    "conflicts": "something was changed outside of the draft meanwhile: decide in the browser, under Draft",
    "owner": "the draft changes where credentials are sent",
    "invalid": "the draft does not fit together",
    "tests": "a test fails",
    "name": "another project has the name that the draft gives to this one",
}


class SecretInDraftError(ValueError):
    """A credential was to be changed in a draft: credentials take effect at once."""


class _Read(NamedTuple):
    """A draft as it is read: what is published, merged with what it changes."""

    live: Document
    merged: Document
    conflicts: Sequence[Conflict]


class KeptDraft(Draft):
    """A project's draft. Saving it keeps it: calls go on by what is published.

    `row`: as it is stored, None where nothing has been changed yet. `conflicts`: what was published otherwise
    meanwhile, and has to be settled.
    """

    row: models.Draft | None
    conflicts: list[Conflict]

    live: Document
    """What is published."""

    def _load(self) -> Document:
        self.saved: tuple[int, int] | None = None
        self.row = _row_of(self.session, self.project.id)
        read = made_once(self.session, self.key, self._read) or self._read()
        self.live, merged, self.conflicts = read.live, read.merged, [*read.conflicts]
        return merged

    @property
    def key(self) -> tuple[object, ...]:
        """What changes when the draft reads otherwise."""
        row = self.row
        return ("draft", self.project.id, self.project.version, *((row.id, row.changed_at) if row else ()))

    def _read(self) -> _Read:
        row = self.row
        if row is None:
            live = read_rows(self.session, self.project)
            return _Read(live, live, ())
        ours, before = completed(upgrade(row.document)), [Conflict(*one) for one in row.conflicts]
        base = completed(upgrade(row.base))
        if row.base_version == self.project.version:
            live, merged, found = base, ours, before
        else:
            live = read_rows(self.session, self.project)
            merged, conflicts = merge(base, ours, live)
            found = [*before, *(one for one in conflicts if one not in before)]
        return _Read(live, merged, tuple(one for one in found if value_at(merged, one) != value_at(live, one)))

    @property
    def differences(self) -> list[Difference]:
        """What it changes."""
        return list(differences(self.live, self.document, self.project.id))

    def revision_of(self, kind: str, row_id: int) -> int:
        return revision_of(self.item(kind, row_id))

    def put_secret(self, part: str, key: str, secret: str) -> None:
        """Refuse another secret than the one that is stored: raises SecretInDraftError."""
        if (getattr(self.project, f"{part}_{key}") or "") != secret:
            raise SecretInDraftError(f"{part}.{key}")

    def save(self) -> dict[tuple[str, int], int]:
        """Check the draft and keep it, if it differs from what is kept. Its new rows keep their ids; return them.

        Raises ConfigurationError, and then drops all changes; BuildError if calls could not be routed by it.
        """
        if self.document == self._stored:
            return {}
        document, faults = self._checked()
        if faults:
            error = ConfigurationError(faults, self.document)
            self.document = self._stored
            raise error
        check_builds(self._stored, document, self.project)
        there = {(kind, row["id"]) for kind in KINDS for row in self._stored[kind]}
        self._keep(document)
        added = ((kind, row["id"]) for kind in KINDS for row in document[kind])
        return {place: place[1] for place in added if place not in there}

    def settle(self, conflict: Conflict, *, takes_live: bool) -> None:
        """Decide a conflict for the draft, or for what is published. Raises ConfigurationError."""
        if conflict not in self.conflicts:
            return
        if takes_live:
            self._take_live(conflict)
        self.conflicts = [one for one in self.conflicts if one != conflict]
        self.save()
        self._keep(self.document)

    def take_back(self, kind: str, row_id: int) -> None:
        """Take back what the draft changes of the project, a row, or with the id 0 the order of all rows.

        Raises ConfigurationError, and NoSuchRowError where neither has the row.
        """
        self._take_live(Conflict(kind, row_id, "" if row_id or kind == "project" else "order"))
        self.save()

    def undo(self, first: int, last: int) -> None:
        """Undo what these entries of the audit trail changed in this draft.

        Raises CannotUndoError if it was changed again since, and ConfigurationError.
        """
        entry = models.AuditEntry
        of_draft = (entry.draft_id == (self.row.id if self.row else None), entry.id.between(first, last))
        entries = self.session.scalars(
            select(entry).where(entry.project_id == self.project.id, *of_draft).order_by(entry.id.desc())
        ).all()
        if not entries or not all(stands(self.document, one) for one in entries):
            raise CannotUndoError
        for one in entries:
            self._undo(one)
        self.save()

    def _undo(self, entry: models.AuditEntry) -> None:
        if entry.subject == "project":
            self.put_project(entry.before or {})
        elif entry.subject == "rules":
            names = (entry.before or {}).get("order", [])
            ids = {row["name"]: row["id"] for row in self.document["rules"]}
            wanted = [ids[name] for name in names if name in ids]
            self.order("rules", wanted + [row_id for row_id in ids.values() if row_id not in wanted])
        else:
            kind = next(kind for kind, word in KINDS.items() if word == entry.subject)
            if entry.before is None:
                self.remove(kind, entry.subject_id or 0)
            else:
                self.put(kind, entry.before, entry.subject_id)

    def discard(self) -> None:
        """Drop all that it changes."""
        if self.row is not None:
            self._audit("discarded")
            self.session.delete(self.row)
            self.row = None
        self.document = self._stored = self.live

    def plan(self, at: datetime | None, comment: str = "", *, accepts_failing: bool = False) -> None:
        """Publish it at this instant, or call that off with None. Raises CannotPublishError where it is empty."""
        if self.row is None:
            raise CannotPublishError("nothing")
        self.row.publish_at, self.row.publish_by = at, self._actor if at else ""
        self.row.comment, self.row.accepts_failing, self.row.trouble = comment, accepts_failing, ""
        self._audit("planned" if at else "unplanned", after={"publish_at": at.isoformat()} if at else None)

    def fail(self, code: str) -> None:
        """Note why it could not be published as planned: see CannotPublishError."""
        if self.row is not None:
            self._actor = self.row.publish_by
            self.row.publish_at, self.row.trouble = None, code
            self._audit("not_published")

    def _take_live(self, at: Conflict) -> None:
        if at.kind == "project":
            part, dot, key = at.key.partition(".")
            if not at.key:
                self.put_project(self.live["project"])
            else:
                self.put_project({part: {key: self.live["project"][part][key]} if dot else self.live["project"][part]})
        elif at.key == "order":
            there = {row["id"] for row in self.document[at.kind]}
            order = [row["id"] for row in self.live[at.kind] if row["id"] in there]
            self.order(at.kind, order + [row_id for row_id in there if row_id not in order])
        elif (row := _row(self.live, at.kind, at.id)) is None:
            self.forget(at.kind, at.id)
        elif at.key:
            self.put(at.kind, {at.key: row[at.key]}, at.id)
        else:
            self.put(at.kind, row, at.id)

    def _keep(self, document: Document) -> None:
        now = datetime.now(UTC)
        changed = list(differences(self.live, document, self.project.id))
        moved = sum(_ids(self.live, kind) != _ids(document, kind) for kind in ORDERED)
        if self.row is None:
            self.row = models.Draft(project_id=self.project.id, started_at=now)
            self.session.add(self.row)
        self.row.base_version, self.row.base, self.row.document = self.project.version, self.live, document
        self.row.conflicts = [list(one) for one in self.conflicts]
        self.row.changes, self.row.changed_at, self.row.changed_by = len(changed), now, self._actor
        self.session.flush()
        entries = list(audit_entries(self._stored, document, self.project, self._actor, now, draft_id=self.row.id))
        self.session.add_all(entries)
        self.session.flush()
        if entries:
            self.saved = (entries[0].id, entries[-1].id)
        self.document = self._stored = document
        if not changed and not moved and not self.conflicts:
            self.session.delete(self.row)
            self.session.flush()
            self.row = None

    def _audit(self, action: str, after: Document | None = None) -> None:
        who = {"actor": self._actor, "project_id": self.project.id, "draft_id": self.row.id if self.row else None}
        told = {**who, "subject": "draft", "subject_name": ""}
        self.session.add(models.AuditEntry(at=datetime.now(UTC), action=action, after=after, **told))


def _row_of(session: Session, project_id: int) -> models.Draft | None:
    return session.scalar(select(models.Draft).where(models.Draft.project_id == project_id))


def _row(document: Document, kind: str, row_id: int) -> Row | None:
    return next((row for row in document[kind] if row["id"] == row_id), None)


def _ids(document: Document, kind: str) -> list[int]:
    return [row["id"] for row in document[kind]]


def revision_of(row: Mapping[str, Any]) -> int:
    """Return a number that differs when the row of a draft has changed."""
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())


def value_at(document: Document, at: Conflict) -> Any:
    """Return what a document has at the place of a conflict; None for nothing."""
    if at.kind == "project":
        part, dot, key = at.key.partition(".")
        return document["project"][part].get(key) if dot else document["project"].get(part)
    if at.key == "order":
        return _ids(document, at.kind)
    row = _row(document, at.kind, at.id)
    return row.get(at.key) if row and at.key else row


class Summary(NamedTuple):
    """What all pages say of a draft. `trouble`: why it could not be published as planned."""

    id: int
    changes: int
    changed_at: datetime
    changed_by: str
    publish_at: datetime | None
    publish_by: str
    trouble: str


def summary_of(session: Session, project_id: int) -> Summary | None:
    """Return what is known of a project's draft without reading it; None where there is none."""
    columns = (getattr(models.Draft, name) for name in Summary._fields)
    row = session.execute(select(*columns).where(models.Draft.project_id == project_id)).first()
    return None if row is None else Summary(*row)


def authors_of(session: Session, draft: models.Draft) -> dict[tuple[str, int | None], list[str]]:
    """Return who changed what in a draft, by subject and its id."""
    entry = models.AuditEntry
    query = (
        select(entry.subject, entry.subject_id, entry.actor)
        .where(entry.project_id == draft.project_id, entry.draft_id == draft.id, entry.at >= draft.started_at)
        .distinct()
    )
    found: dict[tuple[str, int | None], list[str]] = {}
    for subject, subject_id, actor in session.execute(query):
        found.setdefault((subject, subject_id), []).append(actor)
    return found


# ---- publishing


def publish_into(draft: Draft, actor: str, *, is_owner: bool, kept_id: int | None = None) -> None:
    """Make a locked project's configuration what its draft says, as one version, and end the draft.

    Raises CannotPublishError. `kept_id`: only if it is this draft still.
    """
    kept = KeptDraft(draft.session, draft.project, actor)
    if kept.row is None or (kept_id is not None and kept.row.id != kept_id):
        raise CannotPublishError("nothing")
    if kept.conflicts:
        raise CannotPublishError("conflicts")
    if not is_owner and owners_settings(kept.live) != owners_settings(kept.document):
        raise CannotPublishError("owner")
    adopt_rows(draft, kept.document)
    draft.put_project({**kept.document["project"], "secrets": draft.document["project"]["secrets"]})
    try:
        draft.save()
    except ConfigurationError as error:
        raise CannotPublishError("invalid", error) from error
    except BuildError as error:
        raise CannotPublishError("invalid", error) from error
    except FailingTestsError as error:
        raise CannotPublishError("tests", error) from error
    except IntegrityError as error:
        raise CannotPublishError("name", error) from error
    draft.session.delete(kept.row)


def faults_of(kept: KeptDraft) -> list[Fault]:
    """Return what must be corrected before a draft can be published."""
    draft = Draft(kept.session, kept.project, "")
    adopt_rows(draft, kept.document)
    draft.put_project({**kept.document["project"], "secrets": draft.document["project"]["secrets"]})
    return draft.check()


def check_publishable(
    database: Database, project_id: int, actor: str, *, is_owner: bool, accepts_failing: bool
) -> None:
    """Raise CannotPublishError if a project's draft could not be published now."""
    with database.writing() as session:
        draft = Draft(session, lock_project(session, project_id), actor)
        draft.accepts_failing = accepts_failing
        publish_into(draft, actor, is_owner=is_owner)
        session.rollback()


def publish_due(database: Database, now: datetime) -> int:
    """Publish the drafts whose time has come; return how many were. One that cannot be published says why."""
    planned, project, published = models.Draft, models.Project, 0
    with database.reading() as session:
        query = select(planned.id, planned.project_id).join(project, project.id == planned.project_id)
        due = session.execute(query.where(planned.publish_at <= now, project.deleted_at.is_(None))).all()
    for draft_id, project_id in due:
        published += _publish_planned(database, draft_id, project_id, now)
    return published


def _publish_planned(database: Database, draft_id: int, project_id: int, now: datetime) -> bool:
    try:
        with database.writing() as session:
            project = lock_project(session, project_id)
            row = session.get(models.Draft, draft_id)
            if row is None or row.publish_at is None or row.publish_at > now:
                return False  # it was called off, or another process was first
            draft = Draft(session, project, row.publish_by)
            draft.comment, draft.accepts_failing = row.comment, row.accepts_failing
            publish_into(draft, row.publish_by, is_owner=True)
    except CannotPublishError as error:
        with database.writing() as session:
            kept = KeptDraft(session, lock_project(session, project_id), "")
            if kept.row is not None and kept.row.publish_at is not None:
                kept.fail(error.code)
        return False
    return True
