"""The recurring schedules among millions of one-offs: found by lists, and by a leader that knows other zones."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

# No one-off is in either. Where millions of schedules are stored, both are to be made before, with CONCURRENTLY: what
# is there already is left as it is.
INDEXES = """
CREATE INDEX IF NOT EXISTS schedules_zone_version ON schedules (zone_version)
    WHERE evaluated_until < 'infinity' AND NOT paused AND NOT stale;
CREATE INDEX IF NOT EXISTS schedules_recurring ON schedules (uid) WHERE kind <> 'ONCE';
"""


def upgrade() -> None:
    """Makes both."""
    op.execute(INDEXES)


def downgrade() -> None:
    """Drops both; for tests only."""
    op.execute("DROP INDEX schedules_zone_version, schedules_recurring")
