"""What conclusions about calls did to agents, so that it can be undone; declined calls apart from missed ones.

The release before knows none of the columns: they have defaults or may be NULL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "8d2f5a1c9e47"
down_revision = "e04b6a17c9d5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("heard_calls", sa.Column("effects", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("agent_states", sa.Column("missed_day", sa.Date(), nullable=True))
    op.add_column("agent_states", sa.Column("declines", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("agent_states", sa.Column("talk_id", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("agent_states", schema=None) as batch_op:
        batch_op.drop_column("talk_id")
        batch_op.drop_column("declines")
        batch_op.drop_column("missed_day")
    with op.batch_alter_table("heard_calls", schema=None) as batch_op:
        batch_op.drop_column("effects")
