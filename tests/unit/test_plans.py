"""First plans: as columns for many jobs at once, or as one row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from scheduling.domain.ids import uuid7s, uuid_texts
from scheduling.domain.job import NewJob, OverlapPolicy
from scheduling.domain.schedule import NewSchedule
from scheduling.domain.timing import OnDeployment, Timing
from scheduling.storage.creation import schedule_columns
from scheduling.storage.plans import PLAN_COLUMNS, first_plan, first_plans, owner_of
from tests.support.builders import every, new_job, once

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row_of(job: NewJob, schedule: NewSchedule) -> dict[str, object]:
    """The plan as it is made for a schedule that is added to a stored job."""
    spec = job.spec
    stored = {
        "uid": job.uid,
        "target": spec.target,
        "queue": spec.queue.value,
        "owner": spec.owner,
        "max_age": spec.retry_policy.max_age,
        "retention_days": spec.retention_days,
        "overlap_policy": None if spec.overlap_policy is None else spec.overlap_policy.value,
        "principal": job.principal,
    }
    return first_plan(owner_of(stored), schedule, schedule.accept_time)


def on_deployment() -> NewSchedule:
    schedule = once(NOW)
    schedule.timing = Timing(OnDeployment(timedelta(0)))  # type: ignore[misc]  # nobody else has it yet
    schedule.first_fire = schedule.first_ready = None  # type: ignore[misc]
    return schedule


def test_the_first_plans_of_many_jobs_are_those_that_each_would_get_by_itself() -> None:
    schedules = [
        once(NOW, NOW + timedelta(hours=1)),
        every(NOW, timedelta(minutes=5), jitter=timedelta(seconds=30)),
        once(NOW, request=b"another", request_type="a.Type"),
        every(NOW),
    ]
    policies = [None, None, OverlapPolicy.BUFFER_ONE, OverlapPolicy.ALLOW_ALL]
    jobs = [
        new_job(NOW, schedule=schedule, overlap=overlap, owner=f"owner-{n}", retention_days=n or None)
        for n, (schedule, overlap) in enumerate(zip(schedules, policies, strict=True))
    ]
    without = [new_job(NOW), new_job(NOW, schedule=on_deployment())]
    columns = first_plans([without[0], *jobs, without[1]])
    assert list(columns) == list(PLAN_COLUMNS)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    assert rows == [row_of(job, schedule) for job, schedule in zip(jobs, schedules, strict=True)]


def test_a_one_off_and_a_deployment_have_nothing_left_to_evaluate() -> None:
    schedules = [once(NOW), every(NOW), on_deployment()]
    columns = schedule_columns([(schedule.uid, schedule) for schedule in schedules])
    assert columns["evaluated_until"] == ["infinity", schedules[1].first_fire, "infinity"]


def test_ids_of_one_moment_differ_and_sort_after_those_of_an_earlier_one() -> None:
    earlier, later = uuid7s(NOW, 1000), uuid7s(NOW + timedelta(milliseconds=1), 1000)
    assert len({*earlier, *later}) == 2000
    assert max(earlier) < min(later)
    assert {(each.version, each.variant) for each in earlier} == {(7, "specified in RFC 4122")}


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_ids_made_together_are_like_those_made_one_by_one(count: int) -> None:
    made = uuid7s(NOW, count)
    plain = [UUID(int=each.int) for each in made]
    assert (made, [hash(each) for each in made]) == (plain, [hash(each) for each in plain])
    assert [each.is_safe for each in made] == [each.is_safe for each in plain]
    assert uuid_texts(made) == [str(each) for each in made]
