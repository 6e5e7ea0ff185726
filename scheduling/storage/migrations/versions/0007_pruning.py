"""Pruning: which jobs may go with their last execution, which request ids have nothing left to answer with."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

# `used_time` is when a job was last given more than the schedule that it was created with. NULL says never: its one
# execution is all there will be, so pruning need not look for others in every day of the history. What the previous
# version creates may have been used in any way; a moment long ago says so, and has pruning look.
JOBS = "ALTER TABLE jobs ADD COLUMN used_time timestamptz DEFAULT '2000-01-01 00:00:00+00'"

# When it was noticed that what the first call made is gone.
REQUEST_IDS = "ALTER TABLE request_ids ADD COLUMN gone_time timestamptz"

# Defaults wait for a fifth of a table to be dead or new; on tables of millions that comes too late, and all at once.
UPKEEP = """
ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
                      autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE schedules SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
                           autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE request_ids SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE owner_days SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
"""


def upgrade() -> None:
    """Adds them; the previous version goes on with what it knows."""
    for script in (JOBS, REQUEST_IDS, UPKEEP):
        op.execute(script)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute("ALTER TABLE jobs DROP COLUMN used_time")
    op.execute("ALTER TABLE request_ids DROP COLUMN gone_time")
    for table in ("jobs", "schedules", "request_ids", "owner_days"):
        op.execute(
            f"ALTER TABLE {table} RESET (fillfactor, autovacuum_vacuum_scale_factor, "
            "autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor)"
        )
