"""The tables, as SQLAlchemy sees them, for statements that are not hot. The migrations make them; a test compares
both.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = sa.MetaData()
_Time = sa.DateTime(timezone=True)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("job_id", sa.Text),
    sa.Column("display_name", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("request", sa.LargeBinary),
    sa.Column("request_type", sa.Text),
    sa.Column("queue", sa.Text),
    sa.Column("max_attempts", sa.SmallInteger),
    sa.Column("initial_backoff", sa.Interval),
    sa.Column("backoff_multiplier", sa.Double),
    sa.Column("max_backoff", sa.Interval),
    sa.Column("max_age", sa.Interval),
    sa.Column("after_lost_worker", sa.Text),
    sa.Column("timeout", sa.Interval),
    sa.Column("overlap_policy", sa.Text),
    sa.Column("owner", sa.Text),
    sa.Column("principal", sa.Text),
    sa.Column("labels", JSONB),
    sa.Column("retention_days", sa.SmallInteger),
    sa.Column("revision", sa.BigInteger),
    sa.Column("create_time", _Time),
    sa.Column("update_time", _Time),
    sa.Column("cancel_time", _Time),
    sa.Column("used_time", _Time),
)

request_ids = sa.Table(
    "request_ids",
    metadata,
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("answer", ARRAY(UUID)),
    sa.Column("create_time", _Time),
    sa.Column("gone_time", _Time),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("job_uid", UUID),
    sa.Column("schedule_id", sa.Text),
    sa.Column("display_name", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("spec", JSONB),
    sa.Column("time_zone", sa.Text),
    sa.Column("start_time", _Time),
    sa.Column("end_time", _Time),
    sa.Column("max_firings", sa.Integer),
    sa.Column("jitter", sa.Interval),
    sa.Column("dst_policy", sa.Text),
    sa.Column("catchup_policy", sa.Text),
    sa.Column("catchup_window", sa.Interval),
    sa.Column("request", sa.LargeBinary),
    sa.Column("request_type", sa.Text),
    sa.Column("paused", sa.Boolean),
    sa.Column("revision", sa.BigInteger),
    sa.Column("evaluated_until", _Time),
    sa.Column("fired_count", sa.BigInteger),
    sa.Column("missed_count", sa.BigInteger),
    sa.Column("zone_version", sa.Text),
    sa.Column("create_time", _Time),
    sa.Column("update_time", _Time),
    sa.Column("exclusions", JSONB),
    sa.Column("calendar_ids", ARRAY(sa.Text)),
    sa.Column("pause_time", _Time),
    sa.Column("pause_principal", sa.Text),
    sa.Column("pause_note", sa.Text),
    sa.Column("skipped", JSONB),
    sa.Column("stale", sa.Boolean),
    sa.Column("moved_time", _Time),
    sa.Column("moved_from", _Time),
    sa.Column("timing_time", _Time),
)

calendars = sa.Table(
    "calendars",
    metadata,
    sa.Column("calendar_id", sa.Text, primary_key=True),
    sa.Column("uid", UUID),
    sa.Column("display_name", sa.Text),
    sa.Column("exclusions", JSONB),
    sa.Column("time_zone", sa.Text),
    sa.Column("revision", sa.BigInteger),
    sa.Column("create_time", _Time),
    sa.Column("update_time", _Time),
)

backfills = sa.Table(
    "backfills",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("job_uid", UUID),
    sa.Column("schedule_uid", UUID),
    sa.Column("from_time", _Time),
    sa.Column("to_time", _Time),
    sa.Column("state", sa.Text),
    sa.Column("total", sa.BigInteger),
    sa.Column("made", sa.BigInteger),
    sa.Column("progress_time", _Time),
    sa.Column("next_time", _Time),
    sa.Column("rate", sa.Integer),
    sa.Column("overlap", sa.Text),
    sa.Column("principal", sa.Text),
    sa.Column("create_time", _Time),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("method", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("parent", sa.Text),
    sa.Column("job_uid", UUID),
    sa.Column("filter", sa.Text),
    sa.Column("owner", sa.Text),
    sa.Column("label_key", sa.Text),
    sa.Column("label_value", sa.Text),
    sa.Column("principals", ARRAY(sa.Text)),
    sa.Column("rate", sa.Integer),
    sa.Column("total", sa.BigInteger),
    sa.Column("total_is_partial", sa.Boolean),
    sa.Column("done", sa.BigInteger),
    sa.Column("found", sa.BigInteger),
    sa.Column("passed", sa.BigInteger),
    sa.Column("failed", sa.BigInteger),
    sa.Column("failures", ARRAY(sa.Text)),
    sa.Column("position", UUID),
    sa.Column("current_job", UUID),
    sa.Column("next_time", _Time),
    sa.Column("principal", sa.Text),
    sa.Column("create_time", _Time),
    sa.Column("update_time", _Time),
    sa.Column("end_time", _Time),
)

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("deployment_id", sa.Text, primary_key=True),
    sa.Column("start_time", _Time),
)

schedule_gaps = sa.Table(
    "schedule_gaps",
    metadata,
    sa.Column("schedule_uid", UUID, primary_key=True),
    sa.Column("from_time", _Time, primary_key=True),
    sa.Column("to_time", _Time),
    sa.Column("firings", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.Column("create_time", _Time),
)


def _execution_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("uid", UUID, primary_key=True),
        sa.Column("job_uid", UUID),
        sa.Column("schedule_uid", UUID),
        sa.Column("schedule_id", sa.Text),
        sa.Column("origin", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("state", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("nominal_time", _Time),
        sa.Column("due_time", _Time),
        sa.Column("ready_time", _Time),
        sa.Column("expire_time", _Time),
        sa.Column("attempt", sa.Integer),
        sa.Column("counted", sa.Integer),
        sa.Column("start_time", _Time),
        sa.Column("finish_time", _Time),
        sa.Column("worker_uid", UUID),
        sa.Column("code", sa.SmallInteger),
        sa.Column("message", sa.Text),
        sa.Column("attempts", JSONB),
        sa.Column("request", sa.LargeBinary),
        sa.Column("request_type", sa.Text),
        sa.Column("response", sa.LargeBinary),
        sa.Column("response_type", sa.Text),
        sa.Column("cancel_request_time", _Time),
        sa.Column("job_revision", sa.BigInteger),
        sa.Column("retention_days", sa.SmallInteger),
        sa.Column("create_time", _Time),
        sa.Column("principal", sa.Text),
    ]


#: The columns that a live execution takes along into the history, in order.
HISTORY_COLUMNS = tuple(column.name for column in _execution_columns())

executions = sa.Table(
    "executions",
    metadata,
    *_execution_columns(),
    sa.Column("recurring", sa.Boolean),
    sa.Column("overlap", sa.Text),
    sa.Column("held_by", sa.Text),
    sa.Column("queue_time", _Time),
    sa.Column("claim_token", UUID),
    sa.Column("claim_time", _Time),
    sa.Column("deadline_time", _Time),
    sa.Column("crashes", sa.SmallInteger),
)

execution_history = sa.Table(
    "execution_history", metadata, *_execution_columns(), sa.Column("prune_day", sa.Date, primary_key=True)
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("version", sa.Text),
    sa.Column("queues", ARRAY(sa.Text)),
    sa.Column("start_time", _Time),
    sa.Column("heartbeat_time", _Time),
    sa.Column("expire_time", _Time),
    sa.Column("last_start_time", _Time),
)

leadership = sa.Table(
    "leadership",
    metadata,
    sa.Column("lock", sa.Boolean, primary_key=True),
    sa.Column("term", sa.BigInteger),
    sa.Column("holder", UUID),
    sa.Column("expire_time", _Time),
)

breakers = sa.Table(
    "breakers",
    metadata,
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("state", sa.Text),
    sa.Column("failures", sa.Integer),
    sa.Column("probes", sa.Integer),
    sa.Column("probe_time", _Time),
    sa.Column("change_time", _Time),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("uid", UUID, primary_key=True),
    sa.Column("time", _Time),
    sa.Column("principal", sa.Text),
    sa.Column("rpc", sa.Text),
    sa.Column("resource", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("missing", sa.Text),
    sa.Column("before", JSONB),
    sa.Column("after", JSONB),
    sa.Column("request_id", sa.Text),
    sa.Column("count", sa.Integer),
)

controls = sa.Table(
    "controls",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("pause_time", _Time),
)

rates = sa.Table(
    "rates",
    metadata,
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("next_time", _Time),
)

owner_days = sa.Table(
    "owner_days",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("jobs", sa.Integer),
)
