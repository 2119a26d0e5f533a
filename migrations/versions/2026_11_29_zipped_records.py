"""Records of decisions, packed.

The release before writes its own plain ones, and finds an almost empty one beside what is packed: its board shows such
a call without who was passed over; the call's page and the caller's export and erasure fail.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "d3f18b62c905"
down_revision = "8d2f5a1c9e47"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("packed", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    # What was packed goes; the release before shows such a call as one whose caller was erased, without reasons.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    build = "json_object" if is_sqlite else "json_build_object"
    empty = [f"json('{value}')" if is_sqlite else f"'{value}'::json" for value in ("{}", "[]")]
    op.execute(
        f"UPDATE decisions SET record = {build}('call', {build}('step', step, 'caller', caller, 'dialed', dialed,"  # noqa: S608 - constants
        f" 'direction', '', 'params', {empty[0]}), 'received', NULL, 'trials', {empty[1]}, 'erased_at', '')"
        " WHERE packed IS NOT NULL"
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.drop_column("packed")
