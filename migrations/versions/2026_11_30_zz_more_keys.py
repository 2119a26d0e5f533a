"""Add a column for keys of the configuration that have no column. The release before ignores it: it has a default."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "d20f7b5c9e61"
down_revision = "a4c60e2d8f13"
branch_labels = None
depends_on = None

_TABLES = ("projects", "schedules", "agents", "groups", "rules")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("more", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    for table in _TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("more")
