"""Who last talked with a caller, of calls that are no longer kept. The release before does not know the table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "e04b6a17c9d5"
down_revision = "b2e95a0c4d17"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "last_talks",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("agent_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("talked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_last_talks_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "caller", "agent_id", name=op.f("pk_last_talks")),
    )
    op.create_index("ix_last_talks_project_id_talked_at", "last_talks", ["project_id", "talked_at"])


def downgrade() -> None:
    op.drop_index("ix_last_talks_project_id_talked_at", table_name="last_talks")
    op.drop_table("last_talks")
