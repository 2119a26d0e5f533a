"""Taking a change back: whatever one version of the configuration changed is made again as it was before.

Only while it is still as that version left it; what was changed since is nobody's to take back in passing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.db import models
from router.db.configuration import Document, document_of, is_buildable, load_document

Row = Mapping[str, Any]

_MODELS: dict[str, Any] = {
    "schedules": models.Schedule,
    "agents": models.Agent,
    "groups": models.Group,
    "rules": models.Rule,
}
"""In the order in which they may refer to each other."""

_ORDERED = ("groups", "rules")


class CannotUndoError(Exception):
    """It was changed since, or is no longer kept."""


class _Change(NamedTuple):
    kind: str
    id: int
    before: Row | None
    after: Row | None


def is_undoable(before: Document | None, after: Document | None) -> bool:
    """Can what led from one version to the other be taken back? Not where a credential or an address was changed, nor
    to what calls could not be routed by.
    """
    if before is None or after is None or before == after or not (is_buildable(before) and is_buildable(after)):
        return False
    return _secrets(before) == _secrets(after)


def undo_version(session: Session, project_id: int, version: int) -> None:
    """Take back what this version changed. Raises CannotUndoError."""
    project = session.get_one(models.Project, project_id)
    after = load_document(session, project_id, version)
    before = load_document(session, project_id, version - 1)
    if before is None or after is None or not is_undoable(before, after):
        raise CannotUndoError
    now = document_of(session, project)
    changes = list(_changes(before, after))
    moved = [kind for kind in _ORDERED if _ids(before, kind) != _ids(after, kind)]
    if any(_find(now, change.kind, change.id) != change.after for change in changes):
        raise CannotUndoError
    if before["project"] != after["project"] and now["project"] != after["project"]:
        raise CannotUndoError
    if not changes and any(_ids(now, kind) != _ids(after, kind) for kind in moved):
        raise CannotUndoError  # an order only: nobody may have moved anything since
    try:
        _Undo(session, project).run(changes, before["project"])
        for kind in moved:
            _reorder(session, project_id, kind, _restored(_ids(before, kind), _ids(after, kind), _ids(now, kind)))
        session.flush()
    except IntegrityError:  # a name or a login that was taken since, a reference to what is gone
        raise CannotUndoError from None


def _changes(before: Document, after: Document) -> Iterator[_Change]:
    for kind in _MODELS:
        old = {row["id"]: row for row in before[kind]}
        new = {row["id"]: row for row in after[kind]}
        for row_id in sorted(old.keys() | new.keys()):
            if old.get(row_id) != new.get(row_id):
                yield _Change(kind, row_id, old.get(row_id), new.get(row_id))


def _find(document: Document, kind: str, row_id: int) -> Row | None:
    return next((row for row in document[kind] if row["id"] == row_id), None)


def _ids(document: Document, kind: str) -> list[int]:
    return [row["id"] for row in document[kind]]


def _secrets(document: Document) -> tuple[Any, Any]:
    return document["project"]["secrets"], document["project"]["hook"]["basic_auth"]


def _restored(before: Sequence[int], after: Sequence[int], now: Sequence[int]) -> list[int]:
    """The order of before; where others were moved since, theirs, with what comes back below its neighbour of then."""
    if now == after:
        return list(before)
    order = [row_id for row_id in now if row_id in before or row_id not in after]
    for place, row_id in enumerate(before):
        if row_id not in order:
            above = next((order.index(one) + 1 for one in reversed(before[:place]) if one in order), 0)
            order.insert(above, row_id)
    return order


class _Undo:
    """Writes rows of a document back. A deleted row comes back under its id, so that the call log names it again."""

    def __init__(self, session: Session, project: models.Project) -> None:
        self._session, self._project = session, project

    def run(self, changes: Sequence[_Change], project: Row) -> None:
        self._give_up(changes)
        self._write_project(project)
        for change in changes:
            if change.before is not None:
                getattr(self, f"_write_{change.kind}")(self._row(change), change.before)
                self._session.flush()
        for change in changes:  # all agents are there by now
            if change.kind == "agents" and change.before is not None:
                self._session.get_one(models.Agent, change.id).deputy_id = change.before["deputy"]
        self._session.flush()
        for change in reversed(changes):  # nothing refers to them any more
            if change.before is None:
                self._session.delete(self._session.get_one(_MODELS[change.kind], change.id))
                self._session.flush()

    def _give_up(self, changes: Sequence[_Change]) -> None:
        """Free the names and logins that others take back: they may have changed hands in a circle."""
        for change in changes:
            if change.after is None:
                continue
            row = self._session.get_one(_MODELS[change.kind], change.id)
            before = change.before or {"name": None, "sip_logins": ()}
            if before["name"] != change.after["name"]:
                row.name = f"{secrets.token_hex(16)} is taken back"
            if isinstance(row, models.Agent):
                row.sip_logins = [one for one in row.sip_logins if one.login in before["sip_logins"]]
                if change.before is None:
                    row.deputy_id = None
        self._session.flush()

    def _row(self, change: _Change) -> Any:
        model = _MODELS[change.kind]
        row = self._session.get(model, change.id)
        if row is not None and row.project_id != self._project.id:
            raise CannotUndoError  # SQLite gives the last id anew
        if row is None:
            row = model(id=change.id, project_id=self._project.id)
            self._session.add(row)
        return row

    def _write_project(self, was: Row) -> None:
        """All but credentials, which no document holds."""
        for part in ("hook", "presence"):
            _put(self._project, **{f"{part}_{key}": value for key, value in was[part].items() if key != "basic_auth"})
        _put(self._project, **{key: was[key] for key in was.keys() - {"hook", "presence", "secrets"}})

    def _write_schedules(self, row: models.Schedule, was: Row) -> None:
        row.name, row.time_zone = was["name"], was["time_zone"]
        row.open, row.exceptions = was["open"], was["exceptions"]
        row.override, row.override_until = was["override"], _instant(was["override_until"])

    def _write_agents(self, row: models.Agent, was: Row) -> None:
        row.name, row.paused, row.external_id = was["name"], was["paused"], was["external_id"]
        row.wrap_up_seconds, row.daily_cap, row.hours_id = was["wrap_up_seconds"], was["daily_cap"], was["hours"]
        row.away_until = _instant(was["away_until"])
        set_logins(row, was["sip_logins"])

    def _write_groups(self, row: models.Group, was: Row) -> None:
        row.name, row.strategy, row.overflow = was["name"], was["strategy"], was["overflow"]
        row.ring_seconds = was["ring_seconds"]
        kept = {member.agent_id: member for member in row.members}
        row.members = [
            _put(
                kept.get(member["agent"]) or models.Member(agent_id=member["agent"]),
                tier=member["tier"],
                position=member["position"],
                weight=member["weight"],
                hours_id=member["hours"],
            )
            for member in was["members"]
        ]

    def _write_rules(self, row: models.Rule, was: Row) -> None:
        row.name, row.enabled, row.conditions, row.overflow = was["name"], was["enabled"], was["when"], was["overflow"]
        row.inside_id, row.outside_id = was["inside"], was["outside"]
        row.free_group_id, row.free_fewer_than = was["free_group"], was["free_fewer_than"]
        row.prefer, row.prefer_param, row.prefer_days = was["prefer"], was["prefer_param"], was["prefer_days"]
        set_chain(row, was["groups"])


def set_logins(agent: models.Agent, logins: Sequence[str]) -> None:
    """Give the agent these logins, in this order."""
    owned = {login.login: login for login in agent.sip_logins}
    agent.sip_logins = [
        _put(owned.get(login) or models.SipLogin(project_id=agent.project_id, login=login), position=place)
        for place, login in enumerate(logins)
    ]


def set_chain(rule: models.Rule, group_ids: Sequence[int]) -> None:
    """Give the rule this chain of groups."""
    links = {link.group_id: link for link in rule.groups}
    rule.groups = [
        _put(links.get(group_id) or models.RuleGroup(group_id=group_id), position=place)
        for place, group_id in enumerate(group_ids)
    ]


def _put(row: Any, **values: Any) -> Any:
    for name, value in values.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    return row


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _reorder(session: Session, project_id: int, kind: str, wanted: Sequence[int]) -> None:
    model = _MODELS[kind]
    rows = {row.id: row for row in session.scalars(select(model).where(model.project_id == project_id))}
    for position, row_id in enumerate(wanted):
        _put(rows[row_id], position=position)
