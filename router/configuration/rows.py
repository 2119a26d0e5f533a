"""Map the rows of the configuration to a document and back. The keys are those of the schema; this is the only mapper.

Only values that differ are written: otherwise the revision would count up, and report a false conflict to an admin.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import RowMapping, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from router.configuration.document import ITEMS, PARTS, compact, completed, defaults_of, plain_defaults
from router.configuration.schema import SECRETS, notes_of
from router.db import models
from router.db.documents import KINDS, SCHEMA, Document, load_document

MODELS: Mapping[str, Any] = {
    "schedules": models.Schedule,
    "agents": models.Agent,
    "groups": models.Group,
    "rules": models.Rule,
    "tests": models.RuleTest,
}
"""By their key in a document, in the order in which they may refer to each other."""

ORDERED = ("groups", "rules")
"""Those that have a position."""

_ORDER: Mapping[str, Sequence[str]] = {"groups": ("position", "name"), "rules": ("position", "id")}
_OTHERWISE_NAMED = {"staff_id": "external_id"}


class _Children(NamedTuple):
    """A list whose entries are rows. `parent`: their column of the row they belong to. `key`: the column that
    identifies each. `columns`: their columns by the keys of an entry; one key of "" for an entry that is no mapping.
    """

    model: Any
    parent: str
    key: str
    order: Sequence[str]
    columns: Mapping[str, str]

    def of_row(self, row: RowMapping) -> Any:
        """Return the entry of a document."""
        found = {key: row[column] for key, column in self.columns.items()}
        return found.get("", found)

    def of_entry(self, entry: Any, place: int) -> dict[str, Any]:
        """Return the columns of an entry at this place."""
        values = entry if isinstance(entry, dict) else {"": entry}
        return {column: values[key] for key, column in self.columns.items()} | {"position": place}


_CHILDREN: Mapping[tuple[str, str], _Children] = {
    ("agents", "sip_logins"): _Children(models.SipLogin, "agent_id", "login", ("position",), {"": "login"}),
    ("groups", "members"): _Children(
        *(models.Member, "group_id", "agent_id", ("tier", "position", "agent_id")),
        {"agent": "agent_id", "tier": "tier", "weight": "weight", "hours": "hours_id"},
    ),
    ("rules", "groups"): _Children(models.RuleGroup, "rule_id", "group_id", ("position",), {"": "group_id"}),
}


def _when_of(row: RowMapping) -> dict[str, Any]:
    free = {"group": row["free_group_id"], "fewer_than": row["free_fewer_than"]} if row["free_group_id"] else None
    return {**row["conditions"], "schedule": row["inside_id"], "outside": row["outside_id"], "free": free}


def _columns_of_when(when: Mapping[str, Any]) -> dict[str, Any]:
    free = when.get("free") or {"group": None, "fewer_than": 0}
    return {
        "conditions": {key: words for key, words in when.items() if key not in ("schedule", "outside", "free")},
        "inside_id": when.get("schedule"),
        "outside_id": when.get("outside"),
        "free_group_id": free["group"],
        "free_fewer_than": free["fewer_than"],
    }


def _columns_of_prefer(prefer: Any) -> dict[str, Any]:
    if isinstance(prefer, dict):
        return {"prefer": "param", "prefer_param": prefer["param"]}
    return {"prefer": prefer or "", "prefer_param": ""}


_COMPOSED: Mapping[str, tuple[Callable[[RowMapping], Any], Callable[[Any], dict[str, Any]]]] = {
    "when": (_when_of, _columns_of_when),
    "prefer": (
        lambda row: {"param": row["prefer_param"]} if row["prefer"] == "param" else row["prefer"] or None,
        _columns_of_prefer,
    ),
    "override": (lambda row: row["override"] or None, lambda override: {"override": override or ""}),
}
"""Keys that are not a column: from the row, and to its columns."""


@lru_cache(maxsize=256)
def _column(kind: str, key: str) -> str:
    """Return the column of a key; "" for one whose value is in `more`, because nothing asks the database for it."""
    columns = MODELS[kind].__table__.columns
    return next((name for name in (_OTHERWISE_NAMED.get(key, key), f"{key}_id") if name in columns), "")


_REFERRED_IN_MORE: Sequence[tuple[str, str, str]] = [
    (kind, key, f"{notes_of(field).refers}s")
    for kind, model in ITEMS.items()
    for key, field in model.model_fields.items()
    if notes_of(field).refers and (kind, key) not in _CHILDREN and not _column(kind, key)
]
"""The kind and key of lists of references in `more`, with the kind that they refer to."""


@lru_cache(maxsize=256)
def _defaults(kind: str) -> dict[str, Any]:
    return defaults_of(ITEMS[kind])


# ---- reading


def read_version(session: Session, project_id: int, version: int) -> Document | None:
    """Return a published version as `read_rows` would today; None when it was pruned or never published."""
    document = load_document(session, project_id, version)
    return None if document is None else completed(document)


def read_rows(session: Session, project: models.Project) -> Document:
    """Return the configuration in the rows as a document."""
    session.flush()
    lists = {kind: _read_kind(session, kind, project.id) for kind in KINDS}
    for kind, key, refers in _REFERRED_IN_MORE:  # no foreign key guards them
        there = {row["id"] for row in lists[refers]}
        for row in lists[kind]:
            row[key] = [row_id for row_id in row[key] if row_id in there] if isinstance(row[key], list) else []
    return {"schema": SCHEMA, "project": _read_project(project), **lists}


def _read_project(project: models.Project) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for part, model in PARTS.items():
        defaults = plain_defaults(model)
        for key, column in _columns_of(part):
            parts[part][key] = getattr(project, column) if column else project.more.get(f"{part}.{key}", defaults[key])
    parts["hook"]["basic_auth"] = project.hook_basic_auth is not None
    return {**parts[""], "hook": parts["hook"], "presence": parts["presence"], "secrets": project.secrets_revision}


@lru_cache(maxsize=8)
def _columns_of(part: str) -> Sequence[tuple[str, str]]:
    """Return the keys of a part of the project that are no secrets, with their columns, "" for one in `more`."""
    keys = PARTS[part].model_fields.keys() - {*KINDS, *PARTS, *SECRETS.get(part, ())}
    names = ((key, f"{part}_{key}" if part else key) for key in PARTS[part].model_fields if key in keys)
    return [(key, name if name in models.Project.__table__.columns else "") for key, name in names]


def _read_kind(session: Session, kind: str, project_id: int) -> list[dict[str, Any]]:
    table, found = MODELS[kind].__table__, []
    order = (table.c[name] for name in _ORDER.get(kind, ("name",)))
    children = {key: _read_children(session, kind, key, project_id) for of, key in _CHILDREN if of == kind}
    for row in session.execute(select(table).where(table.c.project_id == project_id).order_by(*order)).mappings():
        values: dict[str, Any] = {"id": row["id"]}
        for key in ITEMS[kind].model_fields:
            if key in children:
                values[key] = children[key].get(row["id"], [])
            elif key in _COMPOSED:
                values[key] = _COMPOSED[key][0](row)
            elif column := _column(kind, key):
                value = row[column]
                values[key] = value.isoformat() if isinstance(value, datetime) else value
            else:
                values[key] = row["more"].get(key, _defaults(kind)[key])
        found.append(compact(values))
    return found


def _read_children(session: Session, kind: str, key: str, project_id: int) -> dict[int, list[Any]]:
    child, parents = _CHILDREN[kind, key], MODELS[kind].__table__
    table = child.model.__table__
    of_project = select(table).join(parents, parents.c.id == table.c[child.parent])
    query = of_project.where(parents.c.project_id == project_id).order_by(*(table.c[name] for name in child.order))
    found: dict[int, list[Any]] = {}
    for row in session.execute(query).mappings():
        found.setdefault(row[child.parent], []).append(child.of_row(row))
    return found


# ---- writing


def add_row(session: Session, kind: str, project: models.Project, row_id: int) -> int:
    """Add a row whose values `write_rows` sets; return its id. `row_id`: that of one that is restored, else 0."""
    row = MODELS[kind](project_id=project.id, name=secrets.token_hex(16))
    if row_id:
        row.id = row_id
    if kind == "schedules":
        row.time_zone = project.time_zone
    session.add(row)
    session.flush()
    return int(row.id)


def write_rows(session: Session, project: models.Project, before: Document, after: Document) -> None:
    """Write what differs between two documents. The rows of `after` exist, see `add_row`."""
    changes = {kind: _changed(before[kind], after[kind]) for kind in KINDS}
    rows = {kind: _load(session, kind, [row["id"] for row in items]) for kind, items in changes.items()}
    _free_names(session, changes, before)
    _write_project(project, after["project"])
    for kind, items in changes.items():
        for item in items:
            _write_row(kind, rows[kind][item["id"]], item)
        session.flush()
    for item in changes["agents"]:  # after all agents exist
        set_values(rows["agents"][item["id"]], deputy_id=item["deputy"])
    session.flush()
    for kind in reversed([*MODELS]):  # nothing refers to them any more
        gone = {row["id"] for row in before[kind]} - {row["id"] for row in after[kind]}
        rows_gone = _load(session, kind, gone).values()
        if kind == "agents":
            for row in rows_gone:
                row.deputy_id = None  # they may stand in for each other
            session.flush()
        for row in rows_gone:
            session.delete(row)
        session.flush()
    for kind in ORDERED:
        _write_order(session, kind, [row["id"] for row in before[kind]], [row["id"] for row in after[kind]])


def _changed(before: Iterable[dict[str, Any]], after: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    was = {row["id"]: row for row in before}
    return [row for row in after if was.get(row["id"]) != row]


def _load(session: Session, kind: str, ids: Iterable[int]) -> dict[int, Any]:
    model, wanted = MODELS[kind], list(ids)
    found: dict[int, Any] = {}
    for place in range(0, len(wanted), 500):
        some = model.id.in_(wanted[place : place + 500])
        found |= {row.id: row for row in session.scalars(select(model).where(some))}
    return found


def _free_names(session: Session, changes: Mapping[str, Sequence[dict[str, Any]]], before: Document) -> None:
    """Free the names and logins that others take: they may be swapped in a circle, or belong to a row that goes."""
    for kind, items in changes.items():
        owners = {row["name"]: row["id"] for row in before[kind]}
        taken = {owners[row["name"]] for row in items if owners.get(row["name"], row["id"]) != row["id"]}
        for row in _load(session, kind, taken).values():
            row.name = secrets.token_hex(16)
    owned = {login: row["id"] for row in before["agents"] for login in row["sip_logins"]}
    moved = {
        login for row in changes["agents"] for login in row["sip_logins"] if owned.get(login, row["id"]) != row["id"]
    }
    for row in _load(session, "agents", {owned[login] for login in moved}).values():
        row.sip_logins = [one for one in row.sip_logins if one.login not in moved]
    session.flush()


def _write_project(row: models.Project, values: Mapping[str, Any]) -> None:
    more = {}
    for part in PARTS:
        of_part = values[part] if part else values
        for key, column in _columns_of(part):
            if column:
                set_values(row, **{column: of_part[key]})
            else:
                more[f"{part}.{key}"] = of_part[key]
    set_values(row, more={**row.more, **more})


def _write_row(kind: str, row: Any, values: Mapping[str, Any]) -> None:
    more = {key: value for key, value in values.items() if key in _defaults(kind) and not _is_stored(kind, key)}
    set_values(row, more={**row.more, **more})
    for key, value in values.items():
        if (kind, key) in _CHILDREN:
            _write_children(row, key, _CHILDREN[kind, key], value)
        elif key in _COMPOSED:
            set_values(row, **_COMPOSED[key][1](value))
        elif key.endswith("_until"):
            set_values(row, **{key: None if value is None else datetime.fromisoformat(value)})
        elif key != "deputy" and (column := _column(kind, key)):
            set_values(row, **{column: value})


def _is_stored(kind: str, key: str) -> bool:
    """Return whether a key has columns or rows of its own."""
    return key in _COMPOSED or (kind, key) in _CHILDREN or bool(_column(kind, key))


def set_values(row: Any, **values: Any) -> bool:
    """Set the values that differ. Return whether any did."""
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    return bool(changed)


def _write_children(row: Any, attribute: str, child: _Children, entries: Iterable[Any]) -> None:
    """Set a list of child rows. A change counts up the revision of the parent, as people edit both in one form."""
    stored, children, is_changed = getattr(row, attribute), [], False
    by_key = {getattr(one, child.key): one for one in stored}
    of_project = {"project_id": row.project_id} if "project_id" in child.model.__table__.columns else {}
    for place, entry in enumerate(entries):
        values = child.of_entry(entry, place) | of_project
        one = by_key.get(values[child.key]) or child.model()
        is_changed |= set_values(one, **values)
        children.append(one)
    if is_changed or stored != children:
        setattr(row, attribute, children)
        flag_modified(row, "name")


def _write_order(session: Session, kind: str, before: Sequence[int], after: Sequence[int]) -> None:
    if before == after:
        return
    table = MODELS[kind].__table__  # not through the ORM: a place in the order is no part of a row's form
    query = select(table.c.id, table.c.position).where(table.c.id.in_(after))
    stored: dict[int, int] = {row.id: row.position for row in session.execute(query)}
    for position, row_id in enumerate(after):
        if stored[row_id] != position:
            session.execute(update(table).where(table.c.id == row_id).values(position=position))
