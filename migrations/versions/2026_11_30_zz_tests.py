"""Mark the decisions about test requests. The release before takes those for calls without an outcome."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "b7e2c4f09a15"
down_revision = "d20f7b5c9e61"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("is_test", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.create_index(
        "ix_decisions_tests",
        "decisions",
        ["project_id", "asked_at"],
        sqlite_where=sa.text("is_test = 1"),  # as SQLAlchemy writes the condition there
        postgresql_where=sa.text("is_test"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM decisions WHERE is_test")
    op.drop_index("ix_decisions_tests", table_name="decisions")
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.drop_column("is_test")
