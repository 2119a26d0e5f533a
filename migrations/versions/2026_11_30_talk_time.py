"""Seconds that an agent talked on a day, what of them each call counts, and a newcomer's head start in seconds.

The release before knows none of the columns: they have defaults or may be NULL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "a4c60e2d8f13"
down_revision = "5c1e7d90b3a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent_states", sa.Column("talked_today", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("member_clocks", sa.Column("head_start_seconds", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("heard_calls", sa.Column("talks", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    for table, column in (
        ("heard_calls", "talks"),
        ("member_clocks", "head_start_seconds"),
        ("agent_states", "talked_today"),
    ):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column(column)
