"""What a short gap in presence is told by: the project's setting, the reading before the newest, who left for a moment.

The release before knows none of these columns: each is empty or has a default.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c27d94f0a6e3"
down_revision = "b7c2a95e41f0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("presence_away_seconds", sa.Double(), nullable=False, server_default="30"))
    op.add_column("presence", sa.Column("previous_at", sa.BigInteger(), nullable=True))
    op.add_column("member_clocks", sa.Column("left_at", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("member_clocks", schema=None) as batch_op:
        batch_op.drop_column("left_at")
    with op.batch_alter_table("presence", schema=None) as batch_op:
        batch_op.drop_column("previous_at")
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.drop_column("presence_away_seconds")
