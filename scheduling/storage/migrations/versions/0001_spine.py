"""The spine: jobs, schedules, executions, their history, and what dispatch needs."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

JOBS = """
CREATE TABLE jobs (
    uid                uuid PRIMARY KEY,
    job_id             text NOT NULL CONSTRAINT jobs_job_id_key UNIQUE,
    display_name       text NOT NULL,
    target             text NOT NULL,
    request            bytea NOT NULL,
    request_type       text NOT NULL,
    queue              text NOT NULL CHECK (queue IN ('HIGH', 'MEDIUM', 'LOW')),
    max_attempts       smallint NOT NULL CHECK (max_attempts >= 1),
    initial_backoff    interval NOT NULL,
    backoff_multiplier double precision NOT NULL,
    max_backoff        interval NOT NULL,
    max_age            interval NOT NULL,
    after_lost_worker  text NOT NULL CHECK (after_lost_worker IN ('RETRY_NOW', 'WAIT_FOR_DEADLINE')),
    timeout            interval NOT NULL,
    overlap_policy     text CHECK (overlap_policy IN
                         ('SKIP', 'BUFFER_ONE', 'BUFFER_ALL', 'CANCEL_OTHER', 'TERMINATE_OTHER', 'ALLOW_ALL')),
    owner              text NOT NULL,
    principal          text NOT NULL,
    labels             jsonb NOT NULL,
    retention_days     smallint,
    revision           bigint NOT NULL DEFAULT 1,
    create_time        timestamptz NOT NULL DEFAULT now(),
    update_time        timestamptz NOT NULL DEFAULT now(),
    cancel_time        timestamptz
);
CREATE INDEX jobs_owner ON jobs (owner, uid);
"""

# Calls that a caller made safe to repeat. `answer` holds the uids of what the first call made.
REQUEST_IDS = """
CREATE TABLE request_ids (
    principal   text NOT NULL,
    request_id  text NOT NULL,
    digest      bytea NOT NULL,
    answer      uuid[] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT request_ids_pkey PRIMARY KEY (principal, request_id)
);
CREATE TABLE owner_days (
    owner text NOT NULL,
    day   date NOT NULL,
    jobs  integer NOT NULL,
    CONSTRAINT owner_days_pkey PRIMARY KEY (owner, day)
);
"""

# Ends the creating statement when an owner is over its quota. The detail names the owner, the hint the moment.
OVER_QUOTA = """
CREATE FUNCTION whispr_over_quota(owner text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'over quota' USING ERRCODE = 'WQ001', DETAIL = owner,
        HINT = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00');
END $$;
"""

# `evaluated_until`: every nominal time up to it is accounted for. 'infinity' when nothing more will be planned,
# which is so for a one-off from the start: no hot statement touches its row.
SCHEDULES = """
CREATE TABLE schedules (
    uid             uuid PRIMARY KEY,
    job_uid         uuid NOT NULL,
    schedule_id     text NOT NULL,
    display_name    text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('ONCE', 'CRON', 'INTERVAL')),
    spec            jsonb NOT NULL,
    time_zone       text NOT NULL,
    start_time      timestamptz,
    end_time        timestamptz,
    max_firings     integer,
    jitter          interval NOT NULL,
    dst_policy      text NOT NULL,
    catchup_policy  text NOT NULL,
    catchup_window  interval,
    request         bytea,
    request_type    text,
    paused          boolean NOT NULL DEFAULT false,
    revision        bigint NOT NULL DEFAULT 1,
    evaluated_until timestamptz NOT NULL,
    fired_count     bigint NOT NULL DEFAULT 0,
    missed_count    bigint NOT NULL DEFAULT 0,
    zone_version    text NOT NULL,
    create_time     timestamptz NOT NULL DEFAULT now(),
    update_time     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedules_job_uid_schedule_id_key UNIQUE (job_uid, schedule_id)
);
CREATE INDEX schedules_to_advance ON schedules (evaluated_until) WHERE evaluated_until < 'infinity' AND NOT paused;

CREATE TABLE schedule_gaps (
    schedule_uid uuid NOT NULL,
    from_time    timestamptz NOT NULL,
    to_time      timestamptz NOT NULL,
    firings      bigint NOT NULL,
    reason       text NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedule_gaps_pkey PRIMARY KEY (schedule_uid, from_time)
);
"""

COLUMNS = """
    uid                 uuid NOT NULL,
    job_uid             uuid NOT NULL,
    schedule_uid        uuid,
    schedule_id         text,
    origin              text NOT NULL CHECK (origin IN ('SCHEDULED', 'MANUAL', 'BACKFILL')),
    target              text NOT NULL,
    queue               text NOT NULL CHECK (queue IN ('HIGH', 'MEDIUM', 'LOW')),
    owner               text NOT NULL,
    state               text NOT NULL CHECK (state IN
                          ('PENDING', 'QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'SKIPPED')),
    reason              text NOT NULL DEFAULT '',
    nominal_time        timestamptz NOT NULL,
    due_time            timestamptz NOT NULL,
    ready_time          timestamptz NOT NULL,
    expire_time         timestamptz NOT NULL,
    attempt             integer NOT NULL DEFAULT 0,
    counted             integer NOT NULL DEFAULT 0,
    start_time          timestamptz,
    finish_time         timestamptz,
    worker_uid          uuid,
    code                smallint,
    message             text NOT NULL DEFAULT '',
    attempts            jsonb,
    request             bytea,
    request_type        text,
    response            bytea,
    response_type       text NOT NULL DEFAULT '',
    cancel_request_time timestamptz,
    job_revision        bigint NOT NULL DEFAULT 0,
    retention_days      smallint,
    create_time         timestamptz NOT NULL DEFAULT now()
"""

# Live executions. `recurring` and `overlap` are copies that let release decide about one-offs without a join. A claim
# token stands exactly while a worker holds the execution: it is the fence of every later write of that attempt.
EXECUTIONS = f"""
CREATE TABLE executions (
    {COLUMNS.strip()},
    recurring   boolean NOT NULL DEFAULT false,
    overlap     text,
    held_by     text,
    queue_time  timestamptz,
    claim_token uuid,
    claim_time  timestamptz,
    -- When the call that is under way has to have ended: fixed at its claim, whatever happens to the job meanwhile.
    deadline_time timestamptz,
    CONSTRAINT executions_pkey PRIMARY KEY (uid),
    CONSTRAINT executions_claim_check CHECK ((state = 'RUNNING') = (claim_token IS NOT NULL)),
    CONSTRAINT executions_held_check CHECK (held_by IS NULL OR state = 'PENDING'),
    CONSTRAINT executions_live_check CHECK (state IN ('PENDING', 'QUEUED', 'RUNNING', 'FAILED'))
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX executions_firing ON executions (schedule_uid, nominal_time) WHERE origin = 'SCHEDULED';
CREATE INDEX executions_due ON executions (queue, ready_time) WHERE state = 'PENDING' AND held_by IS NULL;
CREATE INDEX executions_held ON executions (held_by, ready_time) WHERE state = 'PENDING' AND held_by IS NOT NULL;
CREATE INDEX executions_expiring ON executions (expire_time)
    WHERE state = 'PENDING' AND (held_by IS NOT NULL OR attempt > 0);
CREATE INDEX executions_queued ON executions (queue, ready_time) WHERE state = 'QUEUED';
CREATE INDEX executions_running ON executions (worker_uid) WHERE state = 'RUNNING';
CREATE INDEX executions_slots ON executions (owner) WHERE state IN ('QUEUED', 'RUNNING');
CREATE INDEX executions_failed ON executions (finish_time) WHERE state = 'FAILED';
CREATE INDEX executions_job ON executions (job_uid, uid);
"""

# What has ended for good, by the day on which it may go: a whole day is dropped at once.
HISTORY = f"""
CREATE TABLE execution_history (
    {COLUMNS.strip()},
    prune_day date NOT NULL,
    CONSTRAINT execution_history_final_check CHECK (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'SKIPPED'))
) PARTITION BY RANGE (prune_day);
CREATE INDEX execution_history_uid ON execution_history (uid);
CREATE INDEX execution_history_job ON execution_history (job_uid, uid);
CREATE INDEX execution_history_finish ON execution_history USING brin (finish_time) WITH (pages_per_range = 16);
CREATE TABLE execution_history_permanent PARTITION OF execution_history FOR VALUES FROM ('9999-01-01') TO (MAXVALUE);
CREATE TABLE execution_history_other PARTITION OF execution_history DEFAULT;
"""

DISPATCH = """
CREATE TABLE workers (
    uid             uuid PRIMARY KEY,
    host            text NOT NULL,
    pid             integer NOT NULL,
    version         text NOT NULL,
    queues          text[] NOT NULL,
    start_time      timestamptz NOT NULL DEFAULT now(),
    heartbeat_time  timestamptz NOT NULL DEFAULT now(),
    expire_time     timestamptz NOT NULL,
    last_start_time timestamptz
);
CREATE TABLE leadership (
    lock        boolean PRIMARY KEY DEFAULT true CHECK (lock),
    term        bigint NOT NULL,
    holder      uuid,
    expire_time timestamptz NOT NULL
);
INSERT INTO leadership (term, holder, expire_time) VALUES (0, NULL, '-infinity');
CREATE TABLE breakers (
    service     text PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('CLOSED', 'OPEN', 'HALF_OPEN')),
    failures    integer NOT NULL DEFAULT 0,
    probes      integer NOT NULL DEFAULT 0,
    probe_time  timestamptz,
    change_time timestamptz NOT NULL DEFAULT now()
);
"""

# lz4 is a build option of PostgreSQL; without it the default compression is as correct, only slower.
COMPRESSION = """
DO $$
BEGIN
    ALTER TABLE jobs ALTER COLUMN request SET COMPRESSION lz4;
    ALTER TABLE schedules ALTER COLUMN request SET COMPRESSION lz4;
    ALTER TABLE executions ALTER COLUMN request SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;
"""


def upgrade() -> None:
    """Makes everything."""
    for script in (JOBS, REQUEST_IDS, OVER_QUOTA, SCHEDULES, EXECUTIONS, HISTORY, DISPATCH, COMPRESSION):
        op.execute(script)


def downgrade() -> None:
    """Drops everything; for tests only."""
    op.execute(
        "DROP TABLE jobs, request_ids, owner_days, schedules, schedule_gaps, executions, execution_history, workers, "
        "leadership, breakers; DROP FUNCTION whispr_over_quota(text)"
    )
