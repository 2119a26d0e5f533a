"""The platform's call log: how far it was read, and who talked with whom by it.

The release before knows neither the tables nor the column, which has a default.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3c0f6d1b72aa"
down_revision = "e7bb77a9038a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "call_logs",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("known_since", sa.BigInteger(), nullable=True),
        sa.Column("known_until", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("error_remedy", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_call_logs_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_call_logs")),
    )
    op.create_table(
        "logged_talks",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("login", sa.String(), nullable=False),
        sa.Column("talked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_logged_talks_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "caller", "login", name=op.f("pk_logged_talks")),
    )
    op.create_index("ix_logged_talks_project_id_talked_at", "logged_talks", ["project_id", "talked_at"])
    op.add_column("projects", sa.Column("presence_call_log_days", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.drop_column("presence_call_log_days")
    op.drop_index("ix_logged_talks_project_id_talked_at", table_name="logged_talks")
    op.drop_table("logged_talks")
    op.drop_table("call_logs")
