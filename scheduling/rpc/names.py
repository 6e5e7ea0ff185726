"""Resource names (AIP-122): `jobs/{job}` with what belongs to a job below it, `calendars/{calendar}`,
and `operations/{operation}`.

Every function raises InvalidRequest on `field` for a name of another shape or with a malformed id. Whether the resource
exists is not asked.
"""

from __future__ import annotations

from scheduling.domain.errors import InvalidRequest, invalid
from scheduling.domain.ids import ID_PATTERN, is_valid_id

#: Stands for every job in the parent of a list or watch (AIP-159).
WILDCARD = "-"


def job_id(name: str, field: str = "name") -> str:
    """The id in `jobs/{job}`."""
    (job,) = _ids(name, ("jobs",), "jobs/{job}", field)
    return job


def parent_job_id(parent: str, field: str = "parent") -> str | None:
    """The id in `jobs/{job}`, or None for `jobs/-`, which stands for every job."""
    return None if parent == f"jobs/{WILDCARD}" else job_id(parent, field)


def schedule_ids(name: str, field: str = "name") -> tuple[str, str]:
    """The ids in `jobs/{job}/schedules/{schedule}`."""
    job, schedule = _ids(name, ("jobs", "schedules"), "jobs/{job}/schedules/{schedule}", field)
    return job, schedule


def execution_ids(name: str, field: str = "name") -> tuple[str, str]:
    """The ids in `jobs/{job}/executions/{execution}`."""
    job, execution = _ids(name, ("jobs", "executions"), "jobs/{job}/executions/{execution}", field)
    return job, execution


def backfill_ids(name: str, field: str = "name") -> tuple[str, str, str]:
    """The ids in `jobs/{job}/schedules/{schedule}/backfills/{backfill}`."""
    collections = ("jobs", "schedules", "backfills")
    job, schedule, backfill = _ids(name, collections, "jobs/{job}/schedules/{schedule}/backfills/{backfill}", field)
    return job, schedule, backfill


def calendar_id(name: str, field: str = "name") -> str:
    """The id in `calendars/{calendar}`."""
    (calendar,) = _ids(name, ("calendars",), "calendars/{calendar}", field)
    return calendar


def operation_id(name: str, field: str = "name") -> str:
    """The id in `operations/{operation}`."""
    (operation,) = _ids(name, ("operations",), "operations/{operation}", field)
    return operation


def _ids(name: str, collections: tuple[str, ...], pattern: str, field: str) -> list[str]:
    parts = name.split("/")
    ids = parts[1::2]
    if tuple(parts[::2]) != collections or len(ids) != len(collections) or not all(map(is_valid_id, ids)):
        raise _malformed(pattern, field)
    return ids


def _malformed(pattern: str, field: str) -> InvalidRequest:
    return invalid(field, f"must be {pattern}, each id matching {ID_PATTERN.pattern}", "INVALID_RESOURCE_NAME")
