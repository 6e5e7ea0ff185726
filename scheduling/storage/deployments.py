"""Deployments: what is to happen once after each of them is planned by the first process that leads in it."""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import dict_row

from scheduling.domain.timing import OnDeployment
from scheduling.storage import rows
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.notify import CHANNEL
from scheduling.storage.plans import INSERT_PLANS, JOBS_OF, PLAN_COLUMNS, owner_of, plan_record

_BEGIN = f"""
INSERT INTO deployments (deployment_id, start_time) SELECT %(id)s, {NOW} WHERE {TERM_HOLDS}
ON CONFLICT DO NOTHING RETURNING start_time
"""
_SCHEDULES = """
SELECT uid, job_uid, schedule_id, kind, spec, time_zone, start_time, end_time, max_firings, jitter, dst_policy,
       catchup_policy, catchup_window, request, request_type, exclusions, calendar_ids, fired_count
FROM schedules WHERE kind = 'DEPLOYMENT' AND NOT paused ORDER BY uid FOR UPDATE
"""
_COUNT = "UPDATE schedules SET fired_count = fired_count + 1 WHERE uid = ANY(%(uids)s::uuid[])"


class DeploymentStore:
    """What the leader does at the start of a deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin_deployment(self, term: int, deployment_id: str) -> int | None:
        """Plans what is to happen after the start of this deployment; returns how many plans, None if it had begun
        before.

        The row of the deployment and the plans are one transaction: once, whoever is first, and all of them.
        """
        now = self._database.now()
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(_BEGIN, {"now": now, "id": deployment_id, "term": term})
            begun = await cursor.fetchone()
            if begun is None:
                return None
            start: datetime = begun["start_time"]
            await cursor.execute(_SCHEDULES)
            stored = await cursor.fetchall()
            await cursor.execute(JOBS_OF, {"uids": [row["job_uid"] for row in stored]})
            owners = {row["uid"]: owner_of(row) for row in await cursor.fetchall()}
            found = [
                (row, timing)
                for row in stored
                for timing in [rows.timing(row)]
                if row["job_uid"] in owners and (timing.max_firings is None or row["fired_count"] < timing.max_firings)
            ]
            plans = []
            for row, timing in found:
                assert isinstance(timing.when, OnDeployment)
                due = start + timing.when.delay
                plans.append(plan_record(owners[row["job_uid"]], row, timing, due, start, ready=due))
            if plans:
                await cursor.execute(INSERT_PLANS, {"now": now, **{n: [p[n] for p in plans] for n in PLAN_COLUMNS}})
                await cursor.execute(_COUNT, {"uids": [row["uid"] for row, _ in found]})
                await cursor.execute(f"SELECT pg_notify('{CHANNEL}', '')")
            return len(plans)
