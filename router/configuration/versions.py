"""Look back at the published versions of a configuration, and restore one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, String, cast, column, func, select, values
from sqlalchemy.orm import Session

from router.configuration.change import NEW_IDS, Draft
from router.configuration.document import ITEMS, convert
from router.configuration.rows import MODELS, read_version
from router.configuration.undo import owners_settings
from router.db import models
from router.db.documents import Document, is_buildable
from router.db.retention import LATE

MAX_COMMENT_CHARS = 200


class NoSuchVersionError(LookupError):
    """The project has no version of this number, it was pruned, or calls could not be routed by it."""


class Version(NamedTuple):
    """A published version. `replaced_at`: when the next stored one was published; None: it is in use."""

    number: int
    published_at: datetime
    actor: str
    comment: str
    replaced_at: datetime | None


def list_versions(
    session: Session, project_id: int, *, limit: int, before: int | None = None, number: int | None = None
) -> list[Version]:
    """Return stored versions, newest first. `before`: only those of lower numbers. `number`: only this one."""
    kept = models.ConfigVersion
    replaced = (
        func.lead(kept.published_at, type_=kept.published_at.type).over(order_by=kept.version).label("replaced_at")
    )
    columns = (kept.version, kept.published_at, kept.actor, kept.comment, replaced)
    found = select(*columns).where(kept.project_id == project_id).subquery()
    query = select(found).order_by(found.c.version.desc()).limit(limit)
    if before is not None:
        query = query.where(found.c.version < before)
    if number is not None:
        query = query.where(found.c.version == number)
    return [Version(*row) for row in session.execute(query)]


def count_calls(session: Session, project_id: int, versions: Sequence[Version], most: int) -> dict[int, int]:
    """Return how many calls of the log each version decided, by its number. Counts at most `most` answers of each."""
    decision, never = models.Decision, datetime(9999, 1, 1, tzinfo=UTC)
    rows = [(one.number, one.published_at - LATE, (one.replaced_at or never - LATE) + LATE) for one in versions]
    if not rows:
        return {}
    when = decision.asked_at.type
    asked = values(column("number", BigInteger), column("since", when), column("until", when), name="asked")
    version = asked.data(rows).cte()
    made = (
        select(decision.call_id, decision.id)
        .where(
            decision.project_id == project_id,
            ~decision.is_test,
            decision.config_version == version.c.number,
            decision.asked_at.between(version.c.since, version.c.until),
        )
        .limit(most)
        .correlate(version)
        .subquery()
    )
    call = func.coalesce(func.nullif(made.c.call_id, ""), cast(made.c.id, String))
    count = select(func.count(call.distinct())).select_from(made).scalar_subquery()
    return {row.number: row.calls for row in session.execute(select(version.c.number, count.label("calls")))}


def restore_version(draft: Draft, number: int) -> None:
    """Make the configuration what it was in this version. Raises NoSuchVersionError.

    What only owners may change stays: credentials, and where they are sent. So do the project's name and its tests,
    which say what must not be lost by it.
    """
    document = read_version(draft.session, draft.project.id, number)
    if document is None or not is_buildable(document):
        raise NoSuchVersionError(f"there is no version {number} by which calls can be routed")
    adopt_rows(draft, document, [kind for kind in ITEMS if kind != "tests"])
    kept = {**owners_settings(draft.document), "name": draft.document["project"]["name"]}
    draft.put_project(document["project"])
    draft.put_project(kept)


def adopt_rows(draft: Draft, document: Document, kinds: Iterable[str] = tuple(ITEMS)) -> None:
    """Make the rows of these kinds what they are in another document of the project."""
    rows = renumbered(document, _taken_ids(draft, document))
    for kind in kinds:
        draft.replace(kind, rows[kind])


def renumbered(document: Document, ids: Mapping[tuple[str, int], int]) -> Document:
    """Return a document with other ids for some rows, by their kind and id."""

    def refer(kind: str, row_id: int) -> int:
        return ids.get((kind, row_id), row_id)

    lists = {
        kind: [{"id": refer(kind, row["id"]), **convert(model, row, refer)} for row in document[kind]]
        for kind, model in ITEMS.items()
    }
    return {**document, **lists}


def _taken_ids(draft: Draft, document: Document) -> dict[tuple[str, int], int]:
    """Return new ids for the deleted rows of a document whose ids belong to other projects now: SQLite reuses them."""
    found: dict[tuple[str, int], int] = {}
    for kind, model in MODELS.items():
        there = {row["id"] for row in draft.document[kind]}
        gone = [row["id"] for row in document[kind] if row["id"] not in there]
        taken = draft.session.scalars(select(model.id).where(model.id.in_(gone))) if gone else ()
        start = max((NEW_IDS, *gone)) + 1
        found |= {(kind, row_id): new_id for new_id, row_id in enumerate(taken, start)}
    return found
