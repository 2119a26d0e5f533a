"""Change the configuration: the only writer of it, for forms, the file, undo, imports and the board.

Under the project's lock a draft is edited as a document, checked by the schema, built as calls need it, compared with
what was published, and written: rows, document, version and audit entries in one transaction. `drafts` keeps one
beside the rows instead, until it is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session

from router.configuration.check import Faults, check_document, read, token_needed
from router.configuration.document import ITEMS, convert, defaults_of, without
from router.configuration.rows import MODELS, ORDERED, add_row, read_rows, read_version, write_rows
from router.configuration.rule_tests import FailingTestsError, newly_failing
from router.configuration.schema import SECRETS, Config, Fault, ProjectConfig, most_of, part_of
from router.core.model import Agent
from router.db import models
from router.db.documents import (
    KINDS,
    BuildError,
    Document,
    UnknownProjectError,
    build_project,
    is_buildable,
    leave_of,
)
from router.db.session import Database
from router.presence.source import OnlineFrom

NEW_IDS = 2 * 10**9
"""Rows that are not stored yet have ids from here on. They fit into a column of 32 bits."""


D = TypeVar("D", bound="Draft")


class ConfigurationError(ValueError):
    """A draft that cannot be published. `faults`: all that is wrong with it, with paths into `document`."""

    def __init__(self, faults: Sequence[Fault], document: Document) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults, self.document = faults, document


class NoSuchRowError(LookupError):
    """The project has no schedule, agent, group or rule of this id."""


class Draft:
    """A project's configuration while it is changed. `project` is its row, locked.

    `document` is read only: its parts are replaced by the methods, never changed. Nothing is written before `save`.
    `comment` is stored with the version that is published. `accepts_failing`: whether that may fail tests.
    """

    def __init__(self, session: Session, project: models.Project, actor: str) -> None:
        self.session, self.project, self._actor = session, project, actor
        self.document = self._stored = self._load()
        self._secrets: dict[tuple[str, str], str] = {}
        self._audited: models.AuditEntry | None = None
        self.comment, self.accepts_failing = "", False

    def _load(self) -> Document:
        return read_rows(self.session, self.project)

    def revision_of(self, kind: str, row_id: int) -> int:
        """Return a number that differs when the stored row has changed."""
        model = MODELS[kind]
        return self.session.scalar(select(model.revision).where(model.id == row_id)) or 0

    def item(self, kind: str, row_id: int) -> dict[str, Any]:
        """Return one row of the document. Raises NoSuchRowError."""
        for row in self.document[kind]:
            if row["id"] == row_id:
                return dict(row)
        raise NoSuchRowError(f"there is none of the {kind} with id {row_id}")

    def put(self, kind: str, values: Mapping[str, Any], row_id: int | None = None) -> int:
        """Change the row of this id, or add one below all others. What is left out stays as it is.

        Return its id. That of a new row is one of NEW_IDS until the draft is saved, see `save`.
        """
        rows = list(self.document[kind])
        place = next((n for n, row in enumerate(rows) if row["id"] == row_id), None)
        if place is not None:
            rows[place] = {**rows[place], **values}
        else:
            row_id = row_id or self._new_id(kind)
            rows.append({**defaults_of(ITEMS[kind]), **values, "id": row_id})
        self.replace(kind, rows)
        return row_id or 0

    def _new_id(self, kind: str) -> int:
        return max((NEW_IDS, *(int(row["id"]) for row in self.document[kind]))) + 1

    def remove(self, kind: str, row_id: int) -> None:
        """Remove the row of this id. Raises NoSuchRowError."""
        self.item(kind, row_id)
        self.replace(kind, [row for row in self.document[kind] if row["id"] != row_id])

    def forget(self, kind: str, row_id: int) -> None:
        """Remove the row of this id, and take it out of all rows that refer to it. Raises NoSuchRowError."""
        for user_kind, place in users_of(self.document).get((kind, row_id), ()):
            row = self.document[user_kind][place]
            self.put(user_kind, without(ITEMS[user_kind], row, (kind, row_id)), row["id"])
        self.remove(kind, row_id)

    def order(self, kind: str, row_ids: Sequence[int]) -> None:
        """Set the order of all rows of a kind."""
        rows = {row["id"]: row for row in self.document[kind]}
        self.replace(kind, [rows[row_id] for row_id in row_ids])

    def replace(self, kind: str, rows: Sequence[dict[str, Any]]) -> None:
        """Set all rows of a kind, in their order. Those that are left out are removed."""
        self.document = {**self.document, kind: list(rows)}

    def put_project(self, values: Mapping[str, Any]) -> None:
        """Change the project's own settings; those of `hook` and `presence` one by one."""
        before = self.document["project"]
        parts = {part: {**before[part], **values[part]} for part in SECRETS if part in values}
        self.document = {**self.document, "project": {**before, **values, **parts}}

    def put_secret(self, part: str, key: str, secret: str) -> None:
        """Store a secret of `schema.SECRETS`; "" removes it."""
        if (getattr(self.project, f"{part}_{key}") or "") == secret:
            return
        self._secrets[part, key] = secret
        self.count_secret()
        if (part, key) == ("hook", "basic_auth"):
            self.put_project({"hook": {"basic_auth": bool(secret)}})

    def count_secret(self, entry: models.AuditEntry | None = None) -> None:
        """Count a change of secrets, so that every process reads them again. `entry`: the audit entry about it."""
        self._audited = entry or self._audited
        self.put_project({"secrets": self.document["project"]["secrets"] + 1})

    def save(self) -> dict[tuple[str, int], int]:
        """Check and publish the draft if it differs from what is stored; return the ids of new rows, by their
        kind and that of `put`.

        Raises ConfigurationError or FailingTestsError, and then drops all changes. Raises BuildError if calls could not
        be routed by it.
        """
        ids: dict[tuple[str, int], int] = {}
        accepted = ""
        if self.document != self._stored:
            document, faults = self._checked()
            failing = [] if faults else newly_failing(self._stored, document)
            if faults or (failing and not self.accepts_failing):
                error = ConfigurationError(faults, self.document) if faults else FailingTestsError(failing)
                self.document, self._secrets, self._audited = self._stored, {}, None
                raise error
            accepted = ", ".join(result.name for result in failing)
            document, ids = self._with_new_rows(document)
            write_rows(self.session, self.project, self._stored, document)
            for (part, key), secret in self._secrets.items():
                setattr(self.project, f"{part}_{key}", secret or None)
            self.project.secrets_revision = document["project"]["secrets"]
            self.document = self._stored = read_rows(self.session, self.project)
        audited, self._secrets, self._audited = self._audited, {}, None
        publish(self.session, self.project, self.document, self._actor, audited, self.comment)
        if accepted:
            self.session.add(
                models.AuditEntry(
                    at=datetime.now(UTC),
                    actor=self._actor,
                    project_id=self.project.id,
                    version=self.project.version,
                    action="accepted",
                    subject="tests",
                    subject_name=accepted,
                )
            )
        return ids

    def _with_new_rows(self, document: Document) -> tuple[Document, dict[tuple[str, int], int]]:
        """Add the rows that are not stored. Return the document with their ids, and these ids, see `save`."""
        found: dict[str, dict[int, int]] = {}
        for kind in KINDS:
            stored = {row["id"] for row in self._stored[kind]}
            new = [row["id"] for row in document[kind] if row["id"] not in stored]
            found[kind] = {
                row_id: add_row(self.session, kind, self.project, row_id if row_id < NEW_IDS else 0) for row_id in new
            }
        if not any(found.values()):
            return document, {}
        lists = {
            kind: [
                {
                    "id": found[kind].get(row["id"], row["id"]),
                    **convert(model, row, lambda of, row_id: found[of].get(row_id, row_id)),
                }
                for row in document[kind]
            ]
            for kind, model in ITEMS.items()
        }
        return {**document, **lists}, {(kind, old): new for kind, ids in found.items() for old, new in ids.items()}

    def check(self) -> list[Fault]:
        """Return what is wrong with it."""
        return self._checked()[1]

    def _checked(self) -> tuple[Document, list[Fault]]:
        stored = {kind: {row["id"]: row for row in self._stored[kind]} for kind in KINDS}
        changed = [
            (kind, place)
            for kind in KINDS
            for place, row in enumerate(self.document[kind])
            if stored[kind].get(row["id"]) != row
        ]
        counted = {**self._stored["project"], "secrets": self.document["project"]["secrets"]}
        is_project_changed = self.document["project"] != counted or bool(self._secrets)
        document, faults = check_document(self.document, changed, is_project_changed=is_project_changed)
        faults += [*self._dangling(stored), *self._too_many(), *self._wrong_secrets()]
        presence = document["project"]["presence"]
        token = self._secrets.get(("presence", "token"), self.project.presence_token)
        if presence["online_from"] != OnlineFrom.SIP and is_project_changed and not token:
            faults.append(Fault(("presence", "online_from"), *token_needed(presence["online_from"]), "no_token"))
        return document, faults

    def _wrong_secrets(self) -> Faults:
        faults = Faults()
        for (part, key), secret in self._secrets.items():
            read(cast("type[Config]", part_of(ProjectConfig, part)[0]), {key: secret}, (part,), faults.refuse)
        return faults

    def _too_many(self) -> Iterator[Fault]:
        for kind in KINDS:
            most, count = most_of(ProjectConfig, kind), len(self.document[kind])
            if len(self._stored[kind]) < count > most:
                message = f"found {count:,} entries"
                yield Fault((kind, count - 1), message, f"take some out: {most:,} fit", "too_many", {"most": most})

    def _dangling(self, stored: Mapping[str, Mapping[int, Any]]) -> Iterator[Fault]:
        """Yield a fault for each row that refers to one that was removed."""
        there = {kind: {row["id"] for row in self.document[kind]} for kind in KINDS}
        gone = [(kind, row_id) for kind in KINDS for row_id in stored[kind].keys() - there[kind]]
        users = users_of(self.document) if gone else {}
        for kind, row_id in gone:
            for user_kind, place in users.get((kind, row_id), ()):
                name, user = stored[kind][row_id]["name"], self.document[user_kind][place]["name"]
                message = f"{KINDS[kind]} {name!r} is still used by {KINDS[user_kind]} {user!r}"
                values = {"name": name, "user": user}
                yield Fault((user_kind, place), message, "take it out there first", "still_used", values)


def users_of(document: Document) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """Return, by kind and id of a row, the kinds and positions of the rows that refer to it, rules first."""
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for kind in reversed([*KINDS]):
        for place, row in enumerate(document[kind]):
            seen: dict[tuple[str, int], None] = {}
            convert(ITEMS[kind], row, partial(_note_reference, seen))
            for reference in seen:
                found.setdefault(reference, []).append((kind, place))
    return found


def _note_reference(seen: dict[tuple[str, int], None], kind: str, row_id: int) -> None:
    seen[kind, row_id] = None


def change(database: Database, project_id: int, actor: str) -> AbstractContextManager[Draft]:
    """Change a project's configuration in one transaction: the draft is saved when it ends without error."""
    return change_as(Draft, database, project_id, actor)


@contextmanager
def change_as(kind: type[D], database: Database, project_id: int, actor: str) -> Iterator[D]:
    """Change a project's configuration, or what else a kind of draft saves: see `change`."""
    with database.writing() as session:
        draft = kind(session, lock_project(session, project_id), actor)
        yield draft
        draft.save()


def lock_project(session: Session, project_id: int) -> models.Project:
    """Return the project's row, locked until the transaction ends: changes of a configuration are serialised."""
    # Not FOR UPDATE: every decision refers to the project's row, and calls need not wait for an admin.
    project = session.get(models.Project, project_id, with_for_update={"key_share": True}, populate_existing=True)
    if project is None:
        raise UnknownProjectError(f"there is no project with id {project_id}")
    return project


# ---- publishing


def publish(
    session: Session,
    project: models.Project,
    after: Document,
    actor: str,
    audited: models.AuditEntry | None = None,
    comment: str = "",
) -> int:
    """Store the configuration that the rows hold, if it changed; return its version.

    It is built first, as for calls. Raises BuildError when that fails, unless the version before fails too, so that
    several faults can be corrected one by one. `audited`: the audit entry of a changed secret.
    """
    project_id = project.id
    before = read_version(session, project_id, project.version) or {}
    if after == before:
        return project.version
    check_builds(before, after, project)
    now = datetime.now(UTC)
    # Not through the ORM, which would count `revision` up, so that edits of different things would conflict.
    session.execute(text("UPDATE projects SET version = version + 1 WHERE id = :id"), {"id": project_id})
    session.refresh(project, ["version"])
    told = {"published_at": now, "actor": actor, "comment": comment}
    session.add(models.ConfigVersion(project_id=project_id, version=project.version, document=after, **told))
    session.add_all([audited] if audited else [])
    is_audited = audited is not None
    session.add_all(audit_entries(before, after, project, actor, now, is_audited=is_audited, version=project.version))
    _ensure_clocks(session, project_id, now)
    _note_available(session, before, after, now)
    session.flush()
    return project.version


def check_builds(before: Document, after: Document, project: models.Project) -> None:
    """Raise BuildError if calls could not be routed after a change, unless they could not before it either."""
    try:
        build_project(after, project.id, project.version + 1)
    except BuildError:
        if not before or is_buildable(before):
            raise


def _ensure_clocks(session: Session, project_id: int, now: datetime) -> None:
    """Create missing states of agents and clocks of members and deputies: the hook's statement joins them."""
    stamp = {"project": project_id, "now": int(now.timestamp() * 1_000_000)}
    session.execute(
        text(
            "INSERT INTO agent_states (agent_id, project_id, status, status_since_at, status_reason, no_answers,"
            " answered_today, available_since_at)"
            " SELECT id, project_id, 'available', :now, '', 0, 0, :now FROM agents WHERE project_id = :project"
            " ON CONFLICT (agent_id) DO NOTHING"
        ),
        stamp,
    )
    session.execute(
        text(
            "INSERT INTO member_clocks (group_id, agent_id, last_offered, virtual_time)"
            " SELECT m.group_id, m.agent_id, 0, 0 FROM members m JOIN agents a ON a.id = m.agent_id"
            " WHERE a.project_id = :project"
            " UNION SELECT m.group_id, a.deputy_id, 0, 0 FROM members m JOIN agents a ON a.id = m.agent_id"
            " WHERE a.project_id = :project AND a.deputy_id IS NOT NULL"
            " ON CONFLICT (group_id, agent_id) DO NOTHING"
        ),
        stamp,
    )


def _note_available(session: Session, before: Document, after: Document, now: datetime) -> None:
    """Note since when agents are available: now if a pause or leave was ended by hand, else its end."""
    was = {row["id"]: row for row in before.get("agents", [])}
    state = models.AgentState
    for row in after["agents"]:
        old = was.get(row["id"], row)
        was_leave, leave = leave_of(old), leave_of(row)
        if (old["paused"], was_leave) == (row["paused"], leave):
            continue
        left_until = was_leave["away_until"]
        since = left_until if left_until is not None and left_until <= now else None
        if _is_absent(old, now) and not _is_absent(row, now):
            since = now
        if since is not None:
            is_earlier = or_(state.available_since_at.is_(None), state.available_since_at < since)
            session.execute(
                update(state).where(state.agent_id == row["id"], is_earlier).values(available_since_at=since)
            )


def _is_absent(agent: Mapping[str, Any], now: datetime) -> bool:
    leave = leave_of(agent)
    return agent["paused"] or Agent(0, "", away_from=leave["away_from"], away_until=leave["away_until"]).is_away(now)


def audit_entries(
    before: Document,
    after: Document,
    project: models.Project,
    actor: str,
    now: datetime,
    *,
    is_audited: bool = False,
    **place: int,
) -> Iterator[models.AuditEntry]:
    """Yield an entry for each difference. `is_audited`: a changed secret has one. `place`: the version or draft."""
    old_project, new_project = before.get("project"), after["project"]
    is_secret = old_project is not None and old_project | {"secrets": new_project["secrets"]} == new_project
    for difference in differences(before, after, project.id):
        if difference.subject != "project" or not (is_audited and is_secret):
            of_change = {"at": now, "actor": actor, "project_id": project.id, **place}
            yield models.AuditEntry(**of_change, **difference._asdict())


class Difference(NamedTuple):
    """A thing that was created, changed or deleted between two documents, or the new order of all of a kind."""

    action: str
    subject: str
    subject_id: int | None
    subject_name: str
    before: Document | None
    after: Document | None


def differences(before: Document, after: Document, project_id: int) -> Iterator[Difference]:
    """Yield the differences between two documents of a project. `before` may be empty."""

    def changed(subject: str, row_id: int, old: Document | None, new: Document | None) -> Difference:
        action = "created" if old is None else "deleted" if new is None else "changed"
        return Difference(action, subject, row_id, (new or old or {}).get("name", ""), old, new)

    if before.get("project") != after["project"]:
        yield changed("project", project_id, before.get("project"), after["project"])
    for plural, subject in KINDS.items():
        old_rows = {row["id"]: row for row in before.get(plural, [])}
        new_rows = {row["id"]: row for row in after[plural]}
        for row_id in sorted(old_rows.keys() | new_rows.keys()):
            if old_rows.get(row_id) != new_rows.get(row_id):
                yield changed(subject, row_id, old_rows.get(row_id), new_rows.get(row_id))
        order = [row["id"] for row in before.get(plural, []) if row["id"] in new_rows]
        if plural in ORDERED and order != [row["id"] for row in after[plural] if row["id"] in old_rows]:
            names = {row["id"]: row["name"] for row in after[plural]}
            orders = {"order": [names[row_id] for row_id in order]}, {"order": list(names.values())}
            yield Difference("reordered", plural, None, "", *orders)
