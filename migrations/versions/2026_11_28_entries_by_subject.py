"""The audit trail by subject: what was done to a kind of thing is found without reading through all else.

The release before knows nothing of the index and needs not.
"""

from __future__ import annotations

from alembic import op

revision = "9d41c7e05b38"
down_revision = "3c0f6d1b72aa"
branch_labels = None
depends_on = None

_NAME = "ix_audit_entries_project_id_subject_id"


def upgrade() -> None:
    op.create_index(op.f(_NAME), "audit_entries", ["project_id", "subject", "id"])


def downgrade() -> None:
    op.drop_index(op.f(_NAME), "audit_entries")
