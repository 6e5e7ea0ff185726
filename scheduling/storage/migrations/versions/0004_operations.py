"""Operations in bulk, and dead letters found without reading what else there is."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0005"

# `position`: the walk over the uids has looked at everything up to it. `found`, `passed`, `failed` and `failures` count
# in this walk only. `current_job` is too large for one piece and half done. `principals`: whose jobs may be touched.
OPERATIONS = """
CREATE TABLE operations (
    uid              uuid PRIMARY KEY,
    method           text NOT NULL CHECK (method IN ('BATCH_RETRY_EXECUTIONS', 'BATCH_CANCEL_JOBS', 'ERASE_JOBS')),
    state            text NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'CANCELLED')),
    parent           text NOT NULL,
    job_uid          uuid,
    filter           text NOT NULL,
    owner            text,
    label_key        text,
    label_value      text,
    principals       text[],
    rate             integer NOT NULL CHECK (rate >= 1),
    total            bigint NOT NULL,
    total_is_partial boolean NOT NULL,
    done             bigint NOT NULL DEFAULT 0,
    found            bigint NOT NULL DEFAULT 0,
    passed           bigint NOT NULL DEFAULT 0,
    failed           bigint NOT NULL DEFAULT 0,
    failures         text[] NOT NULL DEFAULT '{}',
    position         uuid,
    current_job      uuid,
    next_time        timestamptz NOT NULL,
    principal        text NOT NULL,
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL,
    end_time         timestamptz
);
CREATE INDEX IF NOT EXISTS operations_running ON operations (next_time) WHERE state = 'RUNNING';
"""

# They hold dead letters only. The tables are small when this runs; see the note in 0003.
INDEXES = """
CREATE INDEX IF NOT EXISTS executions_failed_uid ON executions (uid) WHERE state = 'FAILED';
CREATE INDEX IF NOT EXISTS executions_failed_target ON executions (target, uid) WHERE state = 'FAILED';
CREATE INDEX IF NOT EXISTS executions_failed_owner ON executions (owner, uid) WHERE state = 'FAILED';
CREATE INDEX IF NOT EXISTS execution_history_failed ON execution_history (uid) WHERE state = 'FAILED';
"""


def upgrade() -> None:
    """Adds them; the previous version goes on as before."""
    op.execute(OPERATIONS)
    op.execute(INDEXES)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute(
        "DROP TABLE operations; DROP INDEX executions_failed_uid, executions_failed_target, executions_failed_owner, "
        "execution_history_failed"
    )
