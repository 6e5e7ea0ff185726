"""Gates: how often an execution's worker was lost, so that what takes processes down runs by itself."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"

# The index holds next to nothing: what has crashed two processes and is queued again.
CRASHES = """
ALTER TABLE executions ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
CREATE INDEX executions_crashed ON executions (queue, ready_time) WHERE state = 'QUEUED' AND crashes >= 2;
"""


def upgrade() -> None:
    """Adds them; the previous version goes on with what it knows."""
    op.execute(CRASHES)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute("ALTER TABLE executions DROP COLUMN crashes")
