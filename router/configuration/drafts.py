"""Keep a draft: changes of a project's configuration that are collected, and published together.

A project has one draft at most, which all its people see. It is kept as a document beside the rows. What is published
meanwhile is merged into it whenever it is read; what both changed otherwise must be settled before it is published.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.configuration.change import (
    NEW_IDS,
    ConfigurationError,
    Difference,
    Draft,
    NoSuchRowError,
    audit_entries,
    check_builds,
    differences,
    lock_project,
    users_of,
)
from router.configuration.document import completed
from router.configuration.merging import Conflict, inserted, merge
from router.configuration.rows import ORDERED, read_rows
from router.configuration.rule_tests import FailingTestsError, newly_failing
from router.configuration.schema import Fault
from router.configuration.undo import CannotUndoError, owners_settings, stands
from router.configuration.versions import adopt_rows, renumbered
from router.db import models
from router.db.documents import KINDS, BuildError, Document, made_once, upgrade
from router.db.session import Database

Row = dict[str, Any]

_MOST_NEW = 147_000_000  # so many ids fit between NEW_IDS and the end of 32 bits
LATE = timedelta(hours=1)  # after its time a draft is not published any more


class CannotPublishError(Exception):
    """A draft that cannot be published. `code`: "nothing", "conflicts", "owner" (it changes what only owners may
    change), "invalid", "tests" or "name" (another project has its name); of a planned draft also "late" or "planner".
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
    "late": "its time was over when the service could publish it",
    "planner": "who planned it may not publish any more",
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
            base, ours = self._without_reused_ids(row.base_version, base, ours)
            merged, conflicts = merge(base, ours, live)
            found = [*before, *(one for one in conflicts if one not in before)]
        return _Read(live, merged, tuple(one for one in found if value_at(merged, one) != value_at(live, one)))

    def _without_reused_ids(self, version: int, *documents: Document) -> list[Document]:
        """Return the documents with other ids for rows that were deleted since this version, and whose ids other rows
        have now: SQLite reuses the highest.
        """
        entry = models.AuditEntry
        query = select(entry.subject, entry.subject_id, entry.subject_name).where(
            entry.project_id == self.project.id, entry.version > version, entry.action == "created"
        )
        created = {(subject, row_id): name for subject, row_id, name in self.session.execute(query)}
        reused = {
            (kind, row["id"]): self._new_id(kind)
            for kind, word in KINDS.items()
            for row in documents[0][kind]
            if created.get((word, row["id"]), row["name"]) != row["name"]
        }
        return [renumbered(document, reused) for document in documents] if reused else [*documents]

    def _new_id(self, kind: str) -> int:
        return NEW_IDS + secrets.randbelow(_MOST_NEW)  # never that of a row which was there before

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
        """Decide a conflict for the draft, or for what is published. Raises ConfigurationError, and NoSuchRowError for
        one that is not there.
        """
        if conflict not in self.conflicts:
            raise NoSuchRowError("this is no conflict")
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
        if self.row is None:
            raise CannotUndoError
        entry = models.AuditEntry
        of_draft = (entry.draft_id == self.row.id, entry.at >= self.row.started_at, entry.id.between(first, last))
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
        elif entry.subject in ORDERED:
            names = (entry.before or {}).get("order", [])
            ids = {row["name"]: row["id"] for row in self.document[entry.subject]}
            self._place(entry.subject, [ids[name] for name in names if name in ids], [*ids.values()])
        else:
            kind = next(kind for kind, word in KINDS.items() if word == entry.subject)
            if entry.before is None:
                self.remove(kind, entry.subject_id or 0)
            else:
                self._put_back(kind, entry.before, entry.subject_id or 0)

    def discard(self) -> None:
        """Drop all that it changes."""
        if self.row is not None:
            self._audit("discarded")
            self.session.delete(self.row)
            self.row = None
        self.document = self._stored = self.live

    def plan(self, at: datetime | None, comment: str = "", *, accepts_failing: bool = False) -> None:
        """Publish it at this instant, or call that off with None. Raises CannotPublishError where it is empty.

        `accepts_failing`: although those tests fail that fail now.
        """
        if self.row is None:
            raise CannotPublishError("nothing")
        self.row.publish_at, self.row.publish_by = at, self._actor if at else ""
        self.row.comment, self.row.trouble = comment, ""
        self.row.accepted = self.failing_tests() if accepts_failing else []
        self._audit("planned" if at else "unplanned", after={"publish_at": at.isoformat()} if at else None)

    def failing_tests(self) -> list[str]:
        """Return the names of the tests that hold it up."""
        return [result.name for result in newly_failing(self.live, self.document)]

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
            self._place(at.kind, _ids(self.live, at.kind), _ids(self.document, at.kind))
        elif (row := _row(self.live, at.kind, at.id)) is None:
            self._forget(at.kind, at.id)
        elif at.key:
            self.put(at.kind, {at.key: row[at.key]}, at.id)
        else:
            self._put_back(at.kind, row, at.id)

    def _put_back(self, kind: str, row: Row, row_id: int) -> None:
        """Set a row as it was; one that was removed gets its place again, if it is published."""
        before = _ids(self.document, kind)
        self.put(kind, row, row_id)
        if row_id not in before:
            self._place(kind, before, _ids(self.live, kind))

    def _place(self, kind: str, order: Sequence[int], others: Sequence[int]) -> None:
        """Order all rows of a kind: by the first order, what it lacks by the second, the others last."""
        there = _ids(self.document, kind)
        self.order(kind, inserted(inserted(order, others, there), there, there))

    def _forget(self, kind: str, row_id: int) -> None:
        """Remove a row. Raises ConfigurationError where a rule or a test would then mean something else."""
        for user_kind, place in users_of(self.document).get((kind, row_id), ()):
            user = self.document[user_kind][place]
            is_counted = kind == "groups" and user.get("when", {}).get("free", {}).get("group") == row_id
            if kind == "schedules" or user_kind == "tests" or is_counted:
                values = {"name": self.item(kind, row_id)["name"], "user": user["name"]}
                message = f"{KINDS[kind]} {values['name']!r} is still used by {KINDS[user_kind]} {values['user']!r}"
                fault = Fault((user_kind, place), message, "take it out there first", "still_used", values)
                raise ConfigurationError([fault], self.document)
        self.forget(kind, row_id)

    def _keep(self, document: Document) -> None:
        now = datetime.now(UTC)
        changed = list(differences(self.live, document, self.project.id))
        if self.row is None:
            self.row = models.Draft(project_id=self.project.id, started_at=now)
            self.session.add(self.row)
        self.row.base_version, self.row.base, self.row.document = self.project.version, self.live, document
        self.row.conflicts = [list(one) for one in self.conflicts]
        self.row.changes, self.row.changed_at, self.row.changed_by = len(changed), now, self._actor
        self.row.trouble = ""
        self.session.flush()
        entries = list(audit_entries(self._stored, document, self.project, self._actor, now, draft_id=self.row.id))
        self.session.add_all(entries)
        self.session.flush()
        if entries:
            self.saved = (entries[0].id, entries[-1].id)
        self.document = self._stored = document
        if not changed and not self.conflicts:
            self.session.delete(self.row)
            self.session.flush()
            self.row = self.saved = None

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


def publish_into(draft: Draft, actor: str, *, is_owner: bool) -> None:
    """Make a locked project's configuration what its draft says, as one version, and end the draft.

    Raises CannotPublishError.
    """
    kept = KeptDraft(draft.session, draft.project, actor)
    if kept.row is None:
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
        if "projects" not in str(error.orig):
            raise
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
        try:
            with database.writing() as session:
                published += _publish_planned(session, draft_id, project_id, now)
        except CannotPublishError as error:
            with database.writing() as session:
                lock_project(session, project_id)
                if (row := _due(session, draft_id, now)) is not None:
                    KeptDraft(session, session.get_one(models.Project, row.project_id), row.publish_by).fail(error.code)
    return published


def _due(session: Session, draft_id: int, now: datetime) -> models.Draft | None:
    """Return the draft, unless it was called off or published meanwhile."""
    row = session.get(models.Draft, draft_id, populate_existing=True)
    return row if row is not None and row.publish_at is not None and row.publish_at <= now else None


def _publish_planned(session: Session, draft_id: int, project_id: int, now: datetime) -> bool:
    project = lock_project(session, project_id)
    row = _due(session, draft_id, now)
    if row is None or row.publish_at is None or project.deleted_at is not None:
        return False
    if row.publish_at < now - LATE:
        raise CannotPublishError("late")
    role = _role_of(session, row.publish_by)
    if role == "viewer":
        raise CannotPublishError("planner")
    draft = Draft(session, project, row.publish_by)
    draft.comment = row.comment
    if row.accepted and role == "owner":
        failing = KeptDraft(session, project, row.publish_by).failing_tests()
        draft.accepts_failing = {*failing} <= {*row.accepted}
    publish_into(draft, row.publish_by, is_owner=role == "owner")
    return True


def _role_of(session: Session, actor: str) -> str:
    """Return the role of who planned it; of a command "owner", of a user who may not sign in any more "viewer"."""
    if "@" not in actor:
        return "owner"
    user = models.User
    query = select(user.role).where(user.email == actor, user.disabled_at.is_(None))
    return session.scalar(query) or "viewer"
