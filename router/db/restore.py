"""Writes decisions that were answered without the database, when it is back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from router.db.claim import Lease, lease_values, question
from router.db.session import Database


def restore(database: Database, rows: Sequence[tuple[dict[str, Any], Lease | None]], *, deadline: float) -> None:
    """Write the decisions with their leases, all or none.

    A question that somebody recorded meanwhile stays as it is. A lease still live keeps its agent from other calls;
    of two that were promised apart the longer one stays. The clock moves as if the offer were made now.
    """
    with question(database, deadline=deadline) as transaction:
        written = transaction.run([("RESTORE", decision) for decision, _ in rows])
        steps: list[tuple[str, Mapping[str, Any]]] = []
        for (decision, lease), ids in zip(rows, written, strict=True):
            if ids and lease is not None:
                values = lease_values(decision, lease) | {"decision_id": ids[0][0]}
                steps += [(name, values) for name in ("RESTORE_LEASE", "RESTORE_PHONES", "RESTORE_CLOCK")]
        transaction.run([*steps, ("COMMIT", {})])


def is_refusal(error: BaseException) -> bool:
    """Does this say that the row is wrong, not the database? It would never be taken, however often it is tried."""
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "")[:2] in ("22", "23")  # data exception, integrity constraint violation
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError | UnicodeError)
