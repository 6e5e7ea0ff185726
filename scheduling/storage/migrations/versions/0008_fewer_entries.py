"""Less to write for each execution that is released and claimed: lists find what is queued or running another way."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

# An entry in executions_principal was written for each state that an execution passed, a sixth of what PostgreSQL did
# for a delivery. What is queued or running is as much as queues and workers hold, and is read by executions_slots.
# Lists of the previous version are right without it and read more while both run. On large tables the new index is to
# be made before, with CONCURRENTLY: what is there already is left as it is.
INDEXES = """
CREATE INDEX IF NOT EXISTS executions_principal_waiting ON executions (principal, uid)
    WHERE state IN ('PENDING', 'FAILED');
DROP INDEX IF EXISTS executions_principal;
"""


def upgrade() -> None:
    """Makes the one and drops the other."""
    op.execute(INDEXES)


def downgrade() -> None:
    """Makes the old one again; for tests only."""
    op.execute("CREATE INDEX executions_principal ON executions (principal, uid)")
    op.execute("DROP INDEX executions_principal_waiting")
