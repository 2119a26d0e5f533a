"""Add the table of the rules' own tests. The release before does not use it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c3d90e7a41f8"
down_revision = "e5b81c07a94d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rule_tests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("more", sa.JSON(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_rule_tests_project_id_projects", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rule_tests"),
        sa.UniqueConstraint("project_id", "name", name="uq_rule_tests_project_id_name"),
    )


def downgrade() -> None:
    op.drop_table("rule_tests")
