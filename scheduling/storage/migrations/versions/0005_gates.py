"""Gates: pauses and rates, what waits for them, and how often an execution was lost with its process."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"

# The index holds next to nothing: what has crashed two processes and is queued again.
CRASHES = """
ALTER TABLE executions ADD COLUMN IF NOT EXISTS crashes smallint NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS executions_crashed ON executions (queue, ready_time) WHERE state = 'QUEUED' AND crashes >= 2;
"""

# A row is a pause that stands. `next_time` of a rate is when the next call would be due at the steady pace.
CONTROLS = """
CREATE TABLE controls (
    scope      text NOT NULL CHECK (scope IN ('SERVICE', 'QUEUE', 'TARGET')),
    name       text NOT NULL,
    principal  text NOT NULL,
    note       text NOT NULL,
    pause_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT controls_pkey PRIMARY KEY (scope, name)
);
CREATE TABLE rates (
    service   text PRIMARY KEY,
    next_time timestamptz NOT NULL
);
"""

# Plain one-offs lie apart by target, so that those that are due for a target which is shut are in nobody's way.
INDEXES = """
CREATE INDEX IF NOT EXISTS executions_plain ON executions (queue, hashtext(target), ready_time)
    WHERE state = 'PENDING' AND held_by IS NULL AND NOT recurring AND overlap IS NULL;
CREATE INDEX IF NOT EXISTS executions_held_owner ON executions (owner, ready_time)
    WHERE state = 'PENDING' AND starts_with(held_by, 'OWNER:');
CREATE INDEX IF NOT EXISTS executions_held_keys ON executions (held_by)
    WHERE state = 'PENDING' AND held_by IS NOT NULL AND NOT starts_with(held_by, 'OWNER:');
"""


def upgrade() -> None:
    """Adds them; the previous version goes on with what it knows."""
    for script in (CRASHES, CONTROLS, INDEXES):
        op.execute(script)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute("DROP INDEX executions_plain, executions_held_owner, executions_held_keys; DROP TABLE controls, rates")
    op.execute("ALTER TABLE executions DROP COLUMN crashes")
