"""Taking a change back: whatever one version of the configuration changed is made again as it was before.

Only while it is still as that version left it; what was changed since is nobody's to take back in passing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flask import get_template_attribute, url_for
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from router.admin.i18n import _
from router.db import models
from router.db.configuration import Document, document_of, load_document

Row = Mapping[str, Any]

_MODELS: dict[str, Any] = {
    "schedules": models.Schedule,
    "agents": models.Agent,
    "groups": models.Group,
    "rules": models.Rule,
}
"""In the order in which they may refer to each other."""


class CannotUndoError(Exception):
    """It was changed since, or is no longer kept."""


class _Change(NamedTuple):
    kind: str
    id: int
    before: Row | None
    after: Row | None


def with_undo(message: str, version: int, back: str) -> Markup:
    """A message for `done` with a button that takes this version back and leads to `back`."""
    button = get_template_attribute("_macros.html", "post_button")
    fields = {"version": version, "next": back}
    return Markup('<div class="row-flex"><span>{}</span>{}</div>').format(
        message, button(_("Undo"), url_for("admin.undo"), "undo", fields=fields)
    )


def undo_version(session: Session, project_id: int, version: int) -> None:
    """Take back what this version changed of schedules, agents, groups and rules. Raises CannotUndoError."""
    project = session.get_one(models.Project, project_id)
    after = load_document(session, project_id, version)
    before = load_document(session, project_id, version - 1)
    if before is None or after is None or before["project"] != after["project"]:
        raise CannotUndoError
    now = document_of(session, project)
    changes = list(_changes(before, after))
    if not changes and _ids(before) == _ids(after):
        raise CannotUndoError
    for change in changes:
        if _find(now, change.kind, change.id) != change.after:
            raise CannotUndoError
    if not changes and _ids(now) != _ids(after):  # an order only: nobody may have moved anything since
        raise CannotUndoError
    try:
        _Undo(session, project_id).run(changes)
        _reorder(session, project_id, _ids(before))
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


def _ids(document: Document) -> list[int]:
    return [row["id"] for row in document["rules"]]


class _Undo:
    """Writes rows of a document back. A deleted row comes back under its id, so that the call log names it again."""

    def __init__(self, session: Session, project_id: int) -> None:
        self._session, self._project_id = session, project_id

    def run(self, changes: Sequence[_Change]) -> None:
        for change in reversed(changes):
            if change.before is None:
                self._session.delete(self._session.get_one(_MODELS[change.kind], change.id))
                self._session.flush()
        restored = [change for change in changes if change.before is not None]
        for change in restored:
            if change.kind == "agents":  # a login that moved is given up before the other takes it back
                self._drop_logins(change)
        for change in restored:
            getattr(self, f"_write_{change.kind}")(self._row(change), change.before)
            self._session.flush()
        for change in restored:  # all agents are there by now
            if change.kind == "agents" and change.before is not None:
                self._session.get_one(models.Agent, change.id).deputy_id = change.before["deputy"]
        self._session.flush()

    def _row(self, change: _Change) -> Any:
        model = _MODELS[change.kind]
        row = self._session.get(model, change.id)
        if row is not None and row.project_id != self._project_id:
            raise CannotUndoError  # SQLite gives the last id anew
        if row is None:
            row = model(id=change.id, project_id=self._project_id)
            self._session.add(row)
        return row

    def _drop_logins(self, change: _Change) -> None:
        agent = self._session.get(models.Agent, change.id)
        if agent is not None and change.before is not None:
            agent.sip_logins = [one for one in agent.sip_logins if one.login in change.before["sip_logins"]]
            self._session.flush()

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


def _reorder(session: Session, project_id: int, wanted: Sequence[int]) -> None:
    """The rules in this order; one that it does not name keeps its neighbour above."""
    rows = session.scalars(
        select(models.Rule).where(models.Rule.project_id == project_id).order_by(models.Rule.position, models.Rule.id)
    ).all()
    place = {rule_id: index for index, rule_id in enumerate(wanted)}
    last = (-1, 0)
    keys: dict[int, tuple[int, int]] = {}
    for index, row in enumerate(rows):
        last = (place[row.id], 0) if row.id in place else (last[0], index + 1)
        keys[row.id] = last
    for position, row in enumerate(sorted(rows, key=lambda row: keys[row.id])):
        if row.position != position:
            row.position = position
