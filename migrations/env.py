"""How Alembic meets our schema. Run by `router db …`, never by hand; see router/db/migrate.py."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from router.db.models import Base


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Our own column types stand in migrations as what the database sees: a migration outlives our classes."""
    if kind == "type" and type(item).__module__ == "router.db.types":
        return f"sa.{type(item.impl).__name__}()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_item=render_item,
    render_as_batch=True,  # SQLite changes a table by making it anew
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
