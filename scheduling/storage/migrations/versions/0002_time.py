"""Time: calendars, exclusions, pauses, counters, backfills, deployments."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

# `timing_time`: from here on the stored timing counts; what was due before was planned by an earlier one. `stale`: the
# calendars or the zone database behind the plan have changed, and the leader is to look at it again.
SCHEDULES = """
ALTER TABLE schedules
    ADD COLUMN exclusions      jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN calendar_ids    text[] NOT NULL DEFAULT '{}',
    ADD COLUMN pause_time      timestamptz,
    ADD COLUMN pause_principal text NOT NULL DEFAULT '',
    ADD COLUMN pause_note      text NOT NULL DEFAULT '',
    ADD COLUMN skipped         jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN stale           boolean NOT NULL DEFAULT false,
    ADD COLUMN moved_time      timestamptz,
    ADD COLUMN moved_from      timestamptz,
    ADD COLUMN timing_time     timestamptz NOT NULL DEFAULT now(),
    DROP CONSTRAINT schedules_kind_check,
    ADD CONSTRAINT schedules_kind_check
        CHECK (kind IN ('ONCE', 'CRON', 'INTERVAL', 'CALENDAR', 'UNION', 'DEPLOYMENT'));
CREATE INDEX schedules_stale ON schedules (uid) WHERE stale;
CREATE INDEX schedules_by_calendar ON schedules USING gin (calendar_ids) WHERE calendar_ids <> '{}';
CREATE INDEX schedules_on_deployment ON schedules (uid) WHERE kind = 'DEPLOYMENT';
"""

# What ended ahead of its time: a caller cancelled that one firing. It is not planned again, whatever else changes.
HISTORY = """
CREATE INDEX execution_history_ahead ON execution_history (schedule_uid, nominal_time) WHERE finish_time < nominal_time;
"""

CALENDARS = """
CREATE TABLE calendars (
    calendar_id  text PRIMARY KEY,
    uid          uuid NOT NULL,
    display_name text NOT NULL,
    exclusions   jsonb NOT NULL,
    time_zone    text,
    revision     bigint NOT NULL DEFAULT 1,
    create_time  timestamptz NOT NULL DEFAULT now(),
    update_time  timestamptz NOT NULL DEFAULT now()
);
"""

BACKFILLS = """
CREATE TABLE backfills (
    uid           uuid PRIMARY KEY,
    job_uid       uuid NOT NULL,
    schedule_uid  uuid NOT NULL,
    from_time     timestamptz NOT NULL,
    to_time       timestamptz NOT NULL,
    state         text NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'CANCELLED')),
    total         bigint NOT NULL,
    made          bigint NOT NULL DEFAULT 0,
    progress_time timestamptz NOT NULL,
    next_time     timestamptz NOT NULL,
    rate          integer NOT NULL,
    overlap       text NOT NULL,
    principal     text NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX backfills_running ON backfills (next_time) WHERE state = 'RUNNING';
CREATE INDEX backfills_schedule ON backfills (schedule_uid);
"""

DEPLOYMENTS = """
CREATE TABLE deployments (
    deployment_id text PRIMARY KEY,
    start_time    timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Adds them; the previous version goes on with what it knows."""
    for script in (SCHEDULES, HISTORY, CALENDARS, BACKFILLS, DEPLOYMENTS):
        op.execute(script)


def downgrade() -> None:
    """Takes them away; for tests only."""
    op.execute("DROP TABLE calendars, backfills, deployments; DROP INDEX execution_history_ahead")
    op.execute("DELETE FROM schedules WHERE kind IN ('CALENDAR', 'UNION', 'DEPLOYMENT')")
    op.execute("""
        ALTER TABLE schedules DROP COLUMN exclusions, DROP COLUMN calendar_ids, DROP COLUMN pause_time,
            DROP COLUMN pause_principal, DROP COLUMN pause_note, DROP COLUMN skipped, DROP COLUMN stale,
            DROP COLUMN moved_time, DROP COLUMN moved_from, DROP COLUMN timing_time,
            DROP CONSTRAINT schedules_kind_check,
            ADD CONSTRAINT schedules_kind_check CHECK (kind IN ('ONCE', 'CRON', 'INTERVAL'))
    """)
