"""Row ↔ domain, in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from scheduling.domain.execution import Attempt, Execution, Origin
from scheduling.domain.job import Job, JobState, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.schedule import Pause, Schedule, ScheduleState
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from scheduling.domain.timing import CatchupPolicy, DstPolicy, NamedCalendar, Timing
from scheduling.storage.timings import exclusions_from_json, micros, spec_to_when

Row = Mapping[str, Any]


def timing(row: Row, calendars: Mapping[str, NamedCalendar] = MappingProxyType({})) -> Timing:
    """The timing of a row of `schedules`, with the shared calendars that it names."""
    return Timing(
        when=spec_to_when(row["kind"], row["spec"]),
        time_zone=row["time_zone"],
        start=row["start_time"],
        end=row["end_time"],
        max_firings=row["max_firings"],
        jitter=row["jitter"],
        dst_policy=DstPolicy(row["dst_policy"]),
        catchup_policy=CatchupPolicy(row["catchup_policy"]),
        catchup_window=row["catchup_window"],
        exclusions=exclusions_from_json(row["exclusions"], calendars) if row["exclusions"] else (),
    )


def retry_policy(row: Row) -> RetryPolicy:
    """The retry policy of a row of `jobs`."""
    return RetryPolicy(
        max_attempts=row["max_attempts"],
        initial_backoff=row["initial_backoff"],
        backoff_multiplier=row["backoff_multiplier"],
        max_backoff=row["max_backoff"],
        max_age=row["max_age"],
        after_lost_worker=AfterLostWorker(row["after_lost_worker"]),
    )


def job(row: Row) -> Job:
    """A job from a row that carries the derived columns `state`, `next_fire_time` and `request_bytes` too."""
    return Job(
        uid=row["uid"],
        job_id=row["job_id"],
        display_name=row["display_name"],
        target=row["target"],
        request=row["request"] or b"",
        request_type=row["request_type"],
        request_bytes=row["request_bytes"],
        queue=Queue(row["queue"]),
        retry_policy=retry_policy(row),
        timeout=row["timeout"],
        overlap_policy=None if row["overlap_policy"] is None else OverlapPolicy(row["overlap_policy"]),
        owner=row["owner"],
        principal=row["principal"],
        labels=row["labels"],
        state=JobState(row["state"]),
        revision=row["revision"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        cancel_time=row["cancel_time"],
        next_fire_time=row["next_fire_time"],
    )


def schedule(row: Row, calendars: Mapping[str, NamedCalendar] = MappingProxyType({})) -> Schedule:
    """A schedule from a row that carries `job_id` and the derived columns `state` and `next_fire_time` too."""
    return Schedule(
        uid=row["uid"],
        schedule_id=row["schedule_id"],
        job_uid=row["job_uid"],
        job_id=row["job_id"],
        display_name=row["display_name"],
        timing=timing(row, calendars),
        request=row["request"],
        request_type=row["request_type"],
        state=ScheduleState(row["state"]),
        revision=row["revision"],
        evaluated_until=row["evaluated_until"],
        next_fire_time=row["next_fire_time"],
        fired_count=row["fired_count"],
        missed_count=row["missed_count"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        pause=Pause(row["pause_time"], row["pause_principal"], row["pause_note"]) if row["paused"] else None,
        skipped=row["skipped"],
        buffered=row["buffered"],
        zone_version=row["zone_version"],
        moved_time=row["moved_time"],
        moved_from=row["moved_from"],
    )


def execution(row: Row) -> Execution:
    """An execution from a row of the live table or of the history that carries `job_id` too."""
    return Execution(
        uid=row["uid"],
        job_uid=row["job_uid"],
        job_id=row["job_id"],
        schedule_id=row["schedule_id"],
        origin=Origin(row["origin"]),
        target=row["target"],
        queue=Queue(row["queue"]),
        owner=row["owner"],
        state=State(row["state"]),
        reason=row["reason"],
        held_by=row["held_by"] or "",
        nominal_time=row["nominal_time"],
        due_time=row["due_time"],
        ready_time=row["ready_time"],
        expire_time=row["expire_time"],
        start_time=row["start_time"],
        finish_time=row["finish_time"],
        attempt=row["attempt"],
        attempts=_attempts(row),
        code=row["code"],
        message=row["message"],
        response=row["response"],
        response_type=row["response_type"],
        request=row["request"],
        request_type=row["request_type"] or "",
        cancel_request_time=row["cancel_request_time"],
        create_time=row["create_time"],
        job_revision=row["job_revision"],
    )


def _attempts(row: Row) -> tuple[Attempt, ...]:
    if row["attempts"] is not None:
        return attempts_from_json(row["attempts"])
    if row["state"] == "SUCCEEDED" and row["attempt"] == 1 and row["start_time"] is not None:
        # A first attempt that succeeded is told by the execution's own columns; its history is not stored.
        duration = row["finish_time"] - row["start_time"]
        return (Attempt(1, row["start_time"], duration, str(row["worker_uid"]), row["code"] or 0, "", True),)
    return ()


def attempts_to_json(attempts: Sequence[Attempt]) -> str | None:
    """Attempts as the column `attempts`; None for none."""
    if not attempts:
        return None
    return json.dumps(
        [
            {
                "n": a.number,
                "at": a.start_time.isoformat(),
                "us": micros(a.duration),
                "w": a.worker,
                "c": a.code,
                "m": a.message,
                "k": a.counted,
                "r": a.reason,
            }
            for a in attempts
        ],
        separators=(",", ":"),
    )


def attempts_from_json(value: Sequence[Mapping[str, Any]] | None) -> tuple[Attempt, ...]:
    """The inverse of `attempts_to_json`, from what psycopg made of the column."""
    return tuple(
        Attempt(
            number=a["n"],
            start_time=datetime.fromisoformat(a["at"]),
            duration=timedelta(microseconds=a["us"]),
            worker=a["w"],
            code=a["c"],
            message=a["m"],
            counted=a["k"],
            reason=a["r"],
        )
        for a in value or ()
    )
