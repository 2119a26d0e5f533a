"""The weight and the tier by which a member's clock was written: so that a change of either is told from the turn.

The release before knows neither column: both have a default. Clocks of now were written by the weights of now.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "5b1e0c8d2f47"
down_revision = "9d41c7e05b38"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("member_clocks", sa.Column("weight", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("member_clocks", sa.Column("tier", sa.Integer(), nullable=False, server_default="0"))
    clock = sa.table("member_clocks", *map(sa.column, ("group_id", "agent_id", "weight", "tier")))
    member = sa.table("members", *map(sa.column, ("group_id", "agent_id", "weight", "tier")))
    is_of_member = sa.and_(member.c.group_id == clock.c.group_id, member.c.agent_id == clock.c.agent_id)
    op.execute(
        clock.update()
        .where(sa.exists().where(is_of_member))
        .values({name: sa.select(member.c[name]).where(is_of_member).scalar_subquery() for name in ("weight", "tier")})
    )


def downgrade() -> None:
    with op.batch_alter_table("member_clocks", schema=None) as batch_op:
        batch_op.drop_column("tier")
        batch_op.drop_column("weight")
