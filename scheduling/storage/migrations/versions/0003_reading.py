"""Reading at scale: what is held, buffered, retrying or failed is found and counted without reading all that waits."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

# Each holds only rows that are an exception: a plain one-off that succeeds at its first attempt never enters one. The
# tables are small when this runs, and migrations run in one transaction; on large tables such indexes are to be made
# with CONCURRENTLY, outside of one.
INDEXES = """
CREATE INDEX IF NOT EXISTS executions_gated ON executions (queue, ready_time)
    WHERE state = 'PENDING' AND held_by IS NULL AND (recurring OR overlap IS NOT NULL);
CREATE INDEX IF NOT EXISTS executions_buffered ON executions (queue, job_uid, ready_time)
    WHERE state = 'PENDING' AND held_by = 'OVERLAP';
CREATE INDEX IF NOT EXISTS executions_held_queue ON executions (queue) WHERE state = 'PENDING' AND held_by IS NOT NULL;
CREATE INDEX IF NOT EXISTS executions_tried ON executions (queue, job_uid) INCLUDE (attempt)
    WHERE state = 'PENDING' AND (attempt > 0 OR queue_time IS NOT NULL);
CREATE INDEX IF NOT EXISTS executions_failed_queue ON executions (queue) WHERE state = 'FAILED';
"""


def upgrade() -> None:
    """Adds them; the previous version goes on as before."""
    op.execute(INDEXES)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute(
        "DROP INDEX executions_gated, executions_buffered, executions_held_queue, executions_tried, "
        "executions_failed_queue"
    )
