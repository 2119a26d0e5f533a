"""Merge two documents that began as one, as a draft and what was published meanwhile. Pure: no database, no clock.

What only one side changed is taken from it. What both changed otherwise stays as it is in ours, and is a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from router.configuration.change import users_of
from router.configuration.document import PARTS
from router.configuration.rows import ORDERED
from router.db.documents import KINDS, Document

_SECRETS = ("secrets", "hook.basic_auth")  # take effect at once, so they are always theirs
_MISSING: Any = object()


class Conflict(NamedTuple):
    """What both sides changed otherwise.

    `kind`: "project", with `id` 0, or a kind of rows. `key`: of the row; "" for the row itself, which one side removed;
    "order" with `id` 0 for the order of all rows. Keys of parts of the project are as "hook.retry_seconds".
    """

    kind: str
    id: int
    key: str


def merge(base: Document, ours: Document, theirs: Document) -> tuple[Document, list[Conflict]]:
    """Return the merged document, and what both sides changed otherwise.

    A row that only one side removed is kept, with a conflict, if a row of the result refers to it.
    """
    conflicts: list[Conflict] = []
    was, our, their = (_flat(document["project"]) for document in (base, ours, theirs))
    project = _unflat(_merge_values(("project", 0), was, our, their, conflicts))
    lists = {kind: _merge_rows(kind, base[kind], ours[kind], theirs[kind], conflicts) for kind in KINDS}
    merged = {**theirs, "project": project, **lists}
    _restore_used(merged, (ours, theirs), conflicts)
    return merged, conflicts


def _flat(project: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in project.items() if key not in PARTS}
    return own | {f"{part}.{key}": value for part in PARTS if part for key, value in project[part].items()}


def _unflat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {part: {} for part in PARTS if part}
    for name, value in values.items():
        part, dot, key = name.partition(".")
        (found[part] if dot else found)[key or name] = value
    return found


def _merge_values(
    place: tuple[str, int],
    base: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    conflicts: list[Conflict],
) -> dict[str, Any]:
    found = {}
    for key in dict.fromkeys([*theirs, *ours]):
        was, our, their = (side.get(key, _MISSING) for side in (base, ours, theirs))
        if key in _SECRETS or our in (was, their):
            value = their
        else:
            value = our
            if their != was:
                conflicts.append(Conflict(*place, key))
        if value is not _MISSING:
            found[key] = value
    return found


def _merge_rows(
    kind: str,
    base: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
    conflicts: list[Conflict],
) -> list[dict[str, Any]]:
    was, our, their = ({row["id"]: row for row in rows} for rows in (base, ours, theirs))
    found: dict[int, dict[str, Any]] = {}
    for row_id in dict.fromkeys([*our, *their]):
        if row_id in our and row_id in their:
            found[row_id] = _merge_values((kind, row_id), was.get(row_id, {}), our[row_id], their[row_id], conflicts)
        elif row_id not in was:
            found[row_id] = our.get(row_id) or their[row_id]
        elif row_id in our and our[row_id] != was[row_id]:
            found[row_id] = our[row_id]
            conflicts.append(Conflict(kind, row_id, ""))
        elif row_id in their and their[row_id] != was[row_id]:
            conflicts.append(Conflict(kind, row_id, ""))
    return [found[row_id] for row_id in _merge_order(kind, [*was], [*our], [*their], found, conflicts)]


def _merge_order(
    kind: str,
    base: list[int],
    ours: list[int],
    theirs: list[int],
    there: Mapping[int, object],
    conflicts: list[Conflict],
) -> list[int]:
    common = set(base) & set(ours) & set(theirs)
    was, our, their = ([row_id for row_id in ids if row_id in common] for ids in (base, ours, theirs))
    if kind in ORDERED and our not in (was, their) and their != was:
        conflicts.append(Conflict(kind, 0, "order"))
    first, second = (theirs, ours) if our == was else (ours, theirs)
    order = [row_id for row_id in first if row_id in there]
    for place, row_id in enumerate(second):
        if row_id in there and row_id not in order:
            above = next((order.index(one) + 1 for one in reversed(second[:place]) if one in order), 0)
            order.insert(above, row_id)
    return order


def _restore_used(merged: Document, sides: Sequence[Document], conflicts: list[Conflict]) -> None:
    """Put back the rows that were removed on one side and are referred to by what the other side changed."""
    while True:
        there = {(kind, row["id"]) for kind in KINDS for row in merged[kind]}
        missing = {place for place in users_of(merged) if place not in there}
        rows = [(kind, row) for side in sides for kind in KINDS for row in side[kind] if (kind, row["id"]) in missing]
        if not rows:
            return
        for kind, row in rows:
            if (kind, row["id"]) in missing:
                missing.discard((kind, row["id"]))
                merged[kind] = [*merged[kind], row]
                conflict = Conflict(kind, row["id"], "")
                if conflict not in conflicts:
                    conflicts.append(conflict)
