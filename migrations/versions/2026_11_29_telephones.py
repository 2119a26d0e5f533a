"""Phones promised with their agents, and leases that outlive the agent.

The release before knows nothing of phones: those of a lease that it ends go with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "b2e95a0c4d17"
down_revision = "c27d94f0a6e3"
branch_labels = None
depends_on = None

_AGENT = "fk_reservations_agent_id_agents"


def upgrade() -> None:
    with op.batch_alter_table("reservations") as batch_op:
        batch_op.drop_constraint(op.f(_AGENT), type_="foreignkey")
    op.create_table(
        "reserved_phones",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("phone", sa.String(), nullable=False),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"],
            ["reservations.agent_id"],
            name=op.f("fk_reserved_phones_agent_id_reservations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "phone", name=op.f("pk_reserved_phones")),
    )
    op.create_index(op.f("ix_reserved_phones_agent_id"), "reserved_phones", ["agent_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_reserved_phones_agent_id"), table_name="reserved_phones")
    op.drop_table("reserved_phones")
    op.execute("DELETE FROM reservations WHERE agent_id NOT IN (SELECT id FROM agents)")
    with op.batch_alter_table("reservations") as batch_op:
        batch_op.create_foreign_key(op.f(_AGENT), "agents", ["agent_id"], ["id"], ondelete="CASCADE")
