"""What is looked at in the database afterwards: nothing may be stored in halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.fuzz.drive import Probe

Query = Callable[..., list[tuple[Any, ...]]]

#: What must not be there, by what it would mean.
HALVES = {
    "a schedule without its job": (
        "SELECT uid FROM schedules s WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.uid = s.job_uid)"
    ),
    "an execution without its job": (
        "SELECT uid FROM executions e WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.uid = e.job_uid)"
    ),
    "an active recurring schedule without a plan": (
        "SELECT s.uid FROM schedules s JOIN jobs j ON j.uid = s.job_uid WHERE s.evaluated_until < 'infinity' "
        "AND NOT s.paused AND j.cancel_time IS NULL AND s.evaluated_until > now() + interval '1 minute' "
        # A caller may have cancelled it: then it is in the history.
        "AND NOT EXISTS (SELECT FROM executions e "
        "WHERE e.schedule_uid = s.uid AND e.nominal_time >= s.evaluated_until) "
        "AND NOT EXISTS (SELECT FROM execution_history e "
        "WHERE e.schedule_uid = s.uid AND e.nominal_time >= s.evaluated_until)"
    ),
    "one firing twice": (
        "SELECT schedule_uid, nominal_time FROM (SELECT schedule_uid, nominal_time, origin FROM executions UNION ALL "
        "SELECT schedule_uid, nominal_time, origin FROM execution_history) AS e WHERE origin = 'SCHEDULED' "
        "AND schedule_uid IS NOT NULL GROUP BY schedule_uid, nominal_time HAVING count(*) > 1"
    ),
    "a waiting execution of a cancelled job": (
        "SELECT e.uid FROM executions e JOIN jobs j ON j.uid = e.job_uid "
        "WHERE j.cancel_time < now() - interval '1 minute' AND e.state IN ('PENDING', 'QUEUED')"
    ),
}


def stored_halves(query: Query, probes: Sequence[Probe]) -> list[str]:
    """Everything that is half there, in words; empty when all is well."""
    found = [f"{what}: {rows[:3]}" for what, statement in HALVES.items() if (rows := query(statement))]
    counts: dict[str, int] = dict(query("SELECT owner, count(*) FROM jobs WHERE owner LIKE 'probe-%%' GROUP BY owner"))
    quota: dict[str, int] = dict(
        query("SELECT owner, sum(jobs)::int FROM owner_days WHERE owner LIKE 'probe-%%' GROUP BY owner")
    )
    for probe in probes:
        there = counts.get(probe.owner, 0)
        if there not in (0, probe.count) or (probe.code == "OK" and there == 0):
            found.append(f"{there} of a batch of {probe.count} that was answered {probe.code}")
        elif there and probe.code not in ("OK", "DEADLINE_EXCEEDED", "CANCELLED", "UNAVAILABLE"):
            found.append(f"a batch of {probe.count} is stored though it was answered {probe.code}")
        if quota.get(probe.owner, 0) != there:
            found.append(
                f"a batch of {probe.count} counts {quota.get(probe.owner, 0)} against its quota, {there} are there"
            )
    return found
