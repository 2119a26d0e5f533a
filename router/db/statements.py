"""Run the statements of a call on PostgreSQL: several in one round trip, by psycopg's pipeline mode.

https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import RawCursor

from router.db.session import PostgresConnection

Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """SQL with `$n` for parameters, and their names in that order."""

    sql: bytes
    parameters: tuple[str, ...]
    is_prepared: bool  # statements on tables; not COMMIT, after which psycopg would forget the others


def read_statements(named_sql: Mapping[str, str]) -> dict[str, Statement]:
    """Return the statements for SQL with `:name` for parameters (`::type` is a cast)."""
    return {name: _statement(sql) for name, sql in named_sql.items()}


def _statement(sql: str) -> Statement:
    found: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${found.setdefault(match[1], len(found) + 1)}"

    text = re.sub(r"(?<!:):([a-z_]+)", number, sql).encode()
    return Statement(text, tuple(found), is_prepared=" " in sql and not sql.startswith("BEGIN"))


def run(connection: PostgresConnection, steps: Sequence[tuple[Statement, Mapping[str, Any]]]) -> list[Rows]:
    """Run these statements in order, in one round trip. Return the rows of each.

    Raises psycopg.Error for the first that fails; those after it do not run.
    """
    cursors = []
    with connection.pipeline() as pipeline:
        connection.is_queueing = True
        try:
            for statement, values in steps:
                cursor = RawCursor(connection)
                parameters = [_text(values[name]) for name in statement.parameters]
                cursors.append(cursor.execute(statement.sql, parameters, prepare=statement.is_prepared))
        finally:
            connection.is_queueing = False
        while pipeline.command_queue:  # into libpq's buffer: the pipeline would send each of them alone
            pipeline.command_queue.popleft()()
    return [[] if cursor.rownumber is None else cursor.fetchall() for cursor in cursors]


def _text(value: Any) -> str | None:
    """Return the value as text. The server knows its type, so numbers of all sizes share one prepared statement."""
    if value is None:
        return None
    if value.__class__ is str:
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if value.__class__ is list:
        return f"{{{','.join(map(str, value))}}}"
    if value.__class__ is bool:
        return "t" if value else "f"
    if value.__class__ is bytes:
        return f"\\x{value.hex()}"
    return str(value)
