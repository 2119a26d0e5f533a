"""Merge two documents that began as one, as a draft and what was published meanwhile. Pure: no database, no clock.

What only one side changed is taken from it, down to single members, conditions, hours and logins. What both changed
otherwise stays as it is in ours, and is a conflict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from router.configuration.change import users_of
from router.configuration.document import PARTS
from router.configuration.rows import ORDERED
from router.db.documents import KINDS, Document

_SECRETS = ("secrets", "hook.basic_auth")  # take effect at once, so they are always theirs
_SETS = ("sip_logins",)  # lists whose order says little
_MISSING: Any = object()


class Conflict(NamedTuple):
    """What both sides changed otherwise.

    `kind`: "project", with `id` 0, or a kind of rows. `key`: of the row; "" for the row itself, which one side removed;
    "order" with `id` 0 for the order of all rows. Keys of parts of the project are as "hook.retry_seconds".
    """

    kind: str
    id: int
    key: str


class _DiffersError(Exception):
    """Both sides changed a value otherwise."""


def merge(base: Document, ours: Document, theirs: Document) -> tuple[Document, list[Conflict]]:
    """Return the merged document, and what both sides changed otherwise.

    A row that only one side removed is kept, with a conflict, if a row of the result refers to it.
    """
    conflicts: list[Conflict] = []
    was, our, their = (_flat(document["project"]) for document in (base, ours, theirs))
    project = _unflat(_merge_row(("project", 0), was, our, their, conflicts))
    lists = {kind: _merge_rows(kind, base[kind], ours[kind], theirs[kind], conflicts) for kind in KINDS}
    merged = {**theirs, "project": project, **lists}
    _restore_used(merged, (ours, theirs), conflicts)
    return merged, conflicts


def inserted(order: Sequence[int], others: Sequence[int], there: Collection[int]) -> list[int]:
    """Return an order with the ids of another one that it lacks, each below its neighbour there, as far as they are
    `there`.
    """
    found = [row_id for row_id in order if row_id in there]
    for place, row_id in enumerate(others):
        if row_id in there and row_id not in found:
            above = next((found.index(one) + 1 for one in reversed(others[:place]) if one in found), 0)
            found.insert(above, row_id)
    return found


def _flat(project: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in project.items() if key not in PARTS}
    return own | {f"{part}.{key}": value for part in PARTS if part for key, value in project[part].items()}


def _unflat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {part: {} for part in PARTS if part}
    for name, value in values.items():
        part, dot, key = name.partition(".")
        (found[part] if dot else found)[key or name] = value
    return found


def _merge_row(
    place: tuple[str, int],
    base: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    conflicts: list[Conflict],
) -> dict[str, Any]:
    found = {}
    for key in dict.fromkeys([*theirs, *ours]):
        was, our, their = (side.get(key, _MISSING) for side in (base, ours, theirs))
        try:
            value = their if key in _SECRETS else _merge_value(key, was, our, their)
        except _DiffersError:
            value = our
            conflicts.append(Conflict(*place, key))
        if value is not _MISSING:
            found[key] = value
    return found


def _merge_value(key: str, was: Any, our: Any, their: Any) -> Any:
    """Return the value of the side that changed it, or both joined. Raises _DiffersError where that cannot be."""
    if our in (was, their):
        return their
    if their == was:
        return our
    sides = (was, our, their)
    if all(isinstance(side, dict) for side in sides):
        joined = {name: _merge_value("", *(side.get(name, _MISSING) for side in sides)) for name in {**their, **our}}
        return {name: value for name, value in joined.items() if value is not _MISSING}
    if key == "members" and all(isinstance(side, list) for side in sides):
        before, here, there = ({member["agent"]: member for member in side} for side in sides)
        by_agent, (first, second, differs) = _merge_value("", before, here, there), _orders(before, here, there)
        if differs:
            raise _DiffersError
        return [by_agent[agent] for agent in inserted(first, second, by_agent)]
    if key in _SETS and all(isinstance(side, list) for side in sides):
        kept = {one for one in (*our, *their) if one not in was or (one in our and one in their)}
        return inserted(our, their, kept)
    raise _DiffersError


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
            found[row_id] = _merge_row((kind, row_id), was.get(row_id, {}), our[row_id], their[row_id], conflicts)
        elif row_id not in was:
            found[row_id] = our.get(row_id) or their[row_id]
        elif row_id in our and our[row_id] != was[row_id]:
            found[row_id] = our[row_id]
            conflicts.append(Conflict(kind, row_id, ""))
        elif row_id in their and their[row_id] != was[row_id]:
            conflicts.append(Conflict(kind, row_id, ""))
    first, second, differs = _orders(was, our, their)
    if kind in ORDERED and differs:
        conflicts.append(Conflict(kind, 0, "order"))
    return [found[row_id] for row_id in inserted(first, second, found)]


def _orders(was: Iterable[int], our: Iterable[int], their: Iterable[int]) -> tuple[list[int], list[int], bool]:
    """Return the order that counts, the other one, and whether both sides changed the order otherwise."""
    sides = [*was], [*our], [*their]
    common = {*sides[0]} & {*sides[1]} & {*sides[2]}
    before, here, there = ([row_id for row_id in side if row_id in common] for side in sides)
    differs = here not in (before, there) and there != before
    return (sides[2], sides[1], differs) if here == before else (sides[1], sides[2], differs)


def _restore_used(merged: Document, sides: Sequence[Document], conflicts: list[Conflict]) -> None:
    """Put back the rows that were removed on one side and are referred to by what the other side changed."""
    while True:
        there = {(kind, row["id"]) for kind in KINDS for row in merged[kind]}
        missing = {place for place in users_of(merged) if place not in there}
        found = {
            (kind, row["id"]): row
            for side in reversed(sides)
            for kind in KINDS
            for row in side[kind]
            if (kind, row["id"]) in missing
        }
        if not found:
            return
        for (kind, row_id), row in found.items():
            rows = {**{one["id"]: one for one in merged[kind]}, row_id: row}
            order = next(ids for side in sides if row_id in (ids := [one["id"] for one in side[kind]]))
            merged[kind] = [rows[one] for one in inserted([*rows][:-1], order, rows)]
            if (conflict := Conflict(kind, row_id, "")) not in conflicts:
                conflicts.append(conflict)
