"""Add the comment of a version of the configuration. The release before ignores it: it has a default."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "e5b81c07a94d"
down_revision = "b7e2c4f09a15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("config_versions", sa.Column("comment", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("config_versions", schema=None) as batch_op:
        batch_op.drop_column("comment")
