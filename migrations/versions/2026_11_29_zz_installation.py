"""A name for the installation, by which what processes keep on disk is known to belong to this database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "5c1e7d90b3a4"
down_revision = "d3f18b62c905"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )


def downgrade() -> None:
    op.drop_table("installation")
