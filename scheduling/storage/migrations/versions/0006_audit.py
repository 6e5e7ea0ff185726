"""Audit: who changed what, and whom something was refused; whose jobs executions belong to."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0004"

# Append only: what happened is not rewritten. The uid begins with the moment, so that the primary key is the order of
# time: what is old is archived and deleted as one range of it.
AUDIT = """
CREATE FUNCTION whispr_time_uuid(moment timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
            || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;
CREATE TABLE audit (
    uid        uuid PRIMARY KEY,
    time       timestamptz NOT NULL,
    principal  text NOT NULL,
    rpc        text NOT NULL,
    resource   text NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('CHANGED', 'REFUSED')),
    reason     text NOT NULL DEFAULT '',
    missing    text NOT NULL DEFAULT '',
    before     jsonb,
    after      jsonb,
    request_id text NOT NULL,
    count      integer NOT NULL DEFAULT 1
);
CREATE INDEX IF NOT EXISTS audit_resource ON audit (resource text_pattern_ops, uid);
CREATE FUNCTION whispr_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit is append only';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION whispr_audit_is_append_only();
"""

# Lists show a caller what belongs to its jobs without reading what belongs to others. Executions that the previous
# version makes while both run have no principal: they are found under their job. On large tables the columns and the
# indexes are to be made before, these with CONCURRENTLY: what is there already is left as it is.
PRINCIPALS = """
CREATE INDEX IF NOT EXISTS jobs_principal ON jobs (principal, uid);
ALTER TABLE executions ADD COLUMN IF NOT EXISTS principal text NOT NULL DEFAULT '';
ALTER TABLE execution_history ADD COLUMN IF NOT EXISTS principal text NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS executions_principal ON executions (principal, uid);
CREATE INDEX IF NOT EXISTS execution_history_principal ON execution_history (principal, uid);
"""


def upgrade() -> None:
    """Adds them; the previous version goes on as before."""
    op.execute(AUDIT)
    op.execute(PRINCIPALS)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute("DROP TABLE audit; DROP FUNCTION whispr_audit_is_append_only(); DROP FUNCTION whispr_time_uuid")
    op.execute("DROP INDEX jobs_principal, executions_principal, execution_history_principal")
    op.execute("ALTER TABLE executions DROP COLUMN principal")
    op.execute("ALTER TABLE execution_history DROP COLUMN principal")
