"""Sessions that somebody signed out of, so that a copy of the cookie is worth nothing.

The release before knows nothing of the table and needs not: what it signs out of ends in that browser alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "b7c2a95e41f0"
down_revision = "5b1e0c8d2f47"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ended_sessions",
        sa.Column("id_hash", sa.String(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id_hash", name=op.f("pk_ended_sessions")),
    )
    op.create_index(op.f("ix_ended_sessions_ended_at"), "ended_sessions", ["ended_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_ended_sessions_ended_at"), "ended_sessions")
    op.drop_table("ended_sessions")
