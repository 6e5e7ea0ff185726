"""Use cases of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, Violation, WrongState
from scheduling.domain.etag import etag as etag_of
from scheduling.domain.execution import Execution, Origin
from scheduling.domain.filters import LABELS, STRING, TIMESTAMP, enum_of
from scheduling.domain.ids import JOB_PREFIX, SCHEDULE_PREFIX, is_valid_id, uuid7, uuid7s, uuid_texts
from scheduling.domain.job import Creation, Job, JobState, NewJob, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.policy import EVERYTHING, is_raised
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.operations import checks, repeats
from scheduling.operations.drafts import CreateDraft, JobDraft, ListQuery, Payload, Repeat, RetryDraft
from scheduling.operations.pages import read_page
from scheduling.operations.ports import JobChange, NewRun, Page, Ports

RESOURCE = "Job"
#: Members of a batch that are checked in one go, a few milliseconds.
SLICE = 100

JOB_FIELDS = {
    "job_id": STRING,
    "display_name": STRING,
    "target": STRING,
    "queue": enum_of(Queue),
    "owner": STRING,
    "principal": STRING,
    "state": enum_of(JobState),
    "create_time": TIMESTAMP,
    "update_time": TIMESTAMP,
    "labels": LABELS,
}
_RETRY_FIELDS = (
    "max_attempts",
    "initial_backoff",
    "backoff_multiplier",
    "max_backoff",
    "max_age",
    "after_lost_worker",
)


async def create_job(
    ports: Ports, principal: str, draft: CreateDraft, repeat: Repeat, *, validate_only: bool = False
) -> Job:
    """Stores a job, with its first schedule if it has one, durably.

    A repeat gets the first answer's job. Raises InvalidRequest, AlreadyExists, QuotaExceeded, StoreUnavailable.
    """
    checks.check_granted(ports, principal, draft.job)
    calendars = await checks.calendars_named(ports, [draft.schedule])
    now = ports.clock.now()
    (ids,) = _new_ids(now, 1)
    new, violations = _new_job(ports, principal, draft, calendars, now, ids)
    if violations:
        return (await _answered_before(ports, principal, repeat, InvalidRequest(violations)))[0]
    assert new is not None
    creation = Creation(principal, (new,), repeat.request_id, repeat.digest)
    return (await _create(ports, creation, validate_only=validate_only))[0]


async def _answered_before(ports: Ports, principal: str, repeat: Repeat, error: InvalidRequest) -> Sequence[Job]:
    """The jobs of the first call, if this one repeats it; otherwise raises what is wrong with it.

    A repeat is answered like the first call even if the same words would be refused by now: its time has passed, say.
    """
    answer = await repeats.find_answer(ports, principal, repeat)
    if answer is None:
        raise error
    jobs = await ports.store.get_jobs_by_uid(answer)
    if len(jobs) < len(answer):
        raise repeats.answer_deleted(repeat)
    return jobs


async def batch_create_jobs(
    ports: Ports, principal: str, drafts: Sequence[CreateDraft], repeat: Repeat, *, validate_only: bool = False
) -> Sequence[Job]:
    """Stores all of the jobs or none; see create_job."""
    for draft in drafts:
        checks.check_granted(ports, principal, draft.job)
    jobs: list[NewJob] = []
    violations: list[Violation] = []
    seen: dict[str, int] = {}
    calendars = await checks.calendars_named(ports, [draft.schedule for draft in drafts])
    now = ports.clock.now()
    for position, (draft, ids) in enumerate(zip(drafts, _new_ids(now, len(drafts)), strict=True)):
        if position % SLICE == SLICE - 1:
            # Others are served meanwhile.
            await ports.clock.sleep(0)
        new, wrong = _new_job(ports, principal, draft, calendars, now, ids)
        if wrong:
            violations += [replace(each, field=f"requests[{position}].{each.field}") for each in wrong]
        if draft.job_id:
            first = seen.setdefault(draft.job_id, position)
            if first != position:
                violations.append(
                    Violation(f"requests[{position}].job_id", f"is the same as that of requests[{first}]", "DUPLICATE")
                )
        if new is not None:
            jobs.append(new)
    if violations:
        return await _answered_before(ports, principal, repeat, InvalidRequest(violations))
    creation = Creation(principal, tuple(jobs), repeat.request_id, repeat.digest)
    return await _create(ports, creation, validate_only=validate_only)


class _Ids(NamedTuple):
    """New ids for a job, its schedule and its plan, and the texts of the first two."""

    job: UUID
    schedule: UUID
    plan: UUID
    job_text: str
    schedule_text: str


def _new_ids(now: datetime, count: int) -> Iterable[_Ids]:
    ids = uuid7s(now, 3 * count)
    texts = uuid_texts(ids[: 2 * count])
    parts = (ids[:count], ids[count : 2 * count], ids[2 * count :], texts[:count], texts[count:])
    return map(_Ids._make, zip(*parts, strict=True))


def _new_job(
    ports: Ports,
    principal: str,
    draft: CreateDraft,
    calendars: Mapping[str, SharedCalendar],
    now: datetime,
    ids: _Ids,
) -> tuple[NewJob | None, list[Violation]]:
    """The job as it is to be stored, or what is wrong with it."""
    spec, violations = checks.check_job(ports, principal, draft.job)
    if draft.job_id and not is_valid_id(draft.job_id):
        violations.append(
            Violation("job_id", "expected a to z first, then a to z, 0 to 9 and -, at most 63", "INVALID_ID")
        )
    schedule = None
    if draft.schedule is not None:
        target = ports.targets.get(draft.job.target)
        if target is not None:
            schedule, wrong = checks.check_schedule(
                ports,
                target,
                draft.schedule,
                calendars,
                f"{SCHEDULE_PREFIX}{ids.schedule_text}",
                now,
                "schedule",
                (ids.schedule, ids.plan),
            )
            violations += wrong
    if violations or spec is None:
        return None, violations
    job_id = draft.job_id or f"{JOB_PREFIX}{ids.job_text}"
    return NewJob(ids.job, job_id, principal, spec, schedule, has_made_id=not draft.job_id), []


async def _create(ports: Ports, creation: Creation, *, validate_only: bool) -> Sequence[Job]:
    if not validate_only:
        return await ports.store.create(creation)
    for new in creation.jobs:
        if await ports.store.get_job(new.job_id, with_payload=False) is not None:
            raise AlreadyExists(f"job {new.job_id!r} exists already", resource_type=RESOURCE, name=f"jobs/{new.job_id}")
    now = ports.clock.now()
    return [new.as_created(now) for new in creation.jobs]


async def get_job(ports: Ports, job_id: str, *, with_payload: bool = True) -> Job:
    """The job. Raises NotFound, or PermissionDenied whether it is there or not."""
    job = await ports.store.get_job(job_id, with_payload=with_payload)
    if job is None:
        raise ports.access.missing(NotFound(RESOURCE, f"jobs/{job_id}"))
    ports.access.check_job(job.name, job.principal, job.target, job.owner)
    return job


async def check_job(ports: Ports, job_id: str) -> None:
    """Refuses what belongs to a job that the caller may not use, before it is looked for."""
    if ports.access is not EVERYTHING:
        await get_job(ports, job_id, with_payload=False)


async def list_jobs(ports: Ports, query: ListQuery) -> Page[Job]:
    """A page of jobs. Raises InvalidRequest."""
    return await read_page(
        query,
        parent="",
        fields=JOB_FIELDS,
        orders=("create_time", "job_id"),
        principals=ports.access.principals,
        read=ports.store.list_jobs,
    )


async def update_job(
    ports: Ports, job_id: str, draft: JobDraft, mask: frozenset[str], etag: str = "", *, validate_only: bool = False
) -> Job:
    """Changes the fields that the mask names. Raises InvalidRequest, NotFound, WrongState, Conflict."""
    for _ in range(3):
        job = await get_job(ports, job_id)
        _check_etag(job, etag)
        if job.state is JobState.CANCELLED:
            raise WrongState(f"{job.name} is CANCELLED and cannot be changed", subject=job.name, reason="JOB_CANCELLED")
        change = _change(ports, job, draft, mask)
        target = ports.targets.get(job.target)
        raises = target is not None and change.queue != job.queue and is_raised(change.queue, target.queue)
        ports.access.check_job(job.name, job.principal, job.target, job.owner, raises=raises)
        if validate_only:
            return _changed(job, change)
        updated = await ports.store.update_job(job, change)
        if updated is not None:
            return updated
        # Somebody was faster. Without an etag the caller does not mind: the same change goes onto the newer job.
    raise Conflict(f"jobs/{job_id} is being changed by others; read it again and repeat")


async def delete_job(ports: Ports, job_id: str, etag: str = "", *, force: bool = False) -> None:
    """Deletes the job with everything of it. Raises NotFound, Conflict, WrongState."""
    job = await get_job(ports, job_id, with_payload=False)
    _check_etag(job, etag)
    if not await ports.store.delete_job(job, force=force, at_revision=bool(etag)):
        raise Conflict(f"{job.name} was changed in between; read it again and repeat")


async def cancel_job(ports: Ports, job_id: str, etag: str = "") -> Job:
    """Ends the job; one that is CANCELLED stays as it is. Raises NotFound, Conflict."""
    job = await get_job(ports, job_id, with_payload=False)
    _check_etag(job, etag)
    cancelled = await ports.store.cancel_job(job_id, job.revision if etag else None)
    if cancelled is None:
        if etag:
            raise Conflict(f"{job.name} was changed in between; read it again and repeat")
        raise NotFound(RESOURCE, job.name)
    return cancelled


async def run_job(
    ports: Ports,
    principal: str,
    job_id: str,
    request: Payload | None,
    overlap_policy: OverlapPolicy | None,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Execution:
    """Makes an execution that is due now. Raises InvalidRequest, NotFound, WrongState, AlreadyExists."""
    job = await get_job(ports, job_id, with_payload=False)
    answer = await repeats.find_answer(ports, principal, repeat)
    if answer is not None:
        first = await ports.store.get_execution(job_id, answer[0], with_payload=True)
        if first is None:
            raise repeats.answer_deleted(repeat)
        return first
    if request is not None:
        target = ports.targets.get(job.target)
        if target is None:
            raise InvalidRequest([checks.unknown_target(ports.targets, job.target, "name")])
        checks.raise_if(checks.check_payload(ports.targets, ports.limits, target, request, "request"))
    if job.state is JobState.CANCELLED:
        raise WrongState(f"{job.name} is CANCELLED; create another job", subject=job.name, reason="JOB_CANCELLED")
    now = ports.clock.now()
    run = NewRun(
        uid=uuid7(now),
        job_uid=job.uid,
        principal=principal,
        request=None if request is None else request.value,
        request_type=None if request is None else request.type_name,
        request_id=repeat.request_id,
        digest=repeat.digest,
        overlap_policy=overlap_policy,
    )
    if validate_only:
        return _planned(job, run, now)
    uid = await ports.store.add_run(run)
    execution = await ports.store.get_execution(job_id, uid, with_payload=True)
    if execution is None:
        raise WrongState(f"{job.name} was deleted in between", subject=job.name, reason="DELETED")
    return execution


def _check_etag(job: Job, etag: str) -> None:
    if etag and etag != etag_of(job.uid, job.revision):
        raise Conflict(f"{job.name} has changed since it was read; read it again and repeat")


def _change(ports: Ports, job: Job, draft: JobDraft, mask: frozenset[str]) -> JobChange:
    target = ports.targets.get(job.target)
    violations = [
        Violation(f"job.{name}", f"cannot be changed; it is {current!r}", "IMMUTABLE")
        for name, wanted, current in (("target", draft.target, job.target), ("owner", draft.owner, job.owner))
        if wanted not in ("", current)
    ]
    policy = _policy(job.retry_policy, draft.retry, mask, None if target is None else target.retry_policy)
    if policy is not None:
        violations += checks.check_policy(policy, ports.limits, "job.retry_policy")
    request = None
    if "request" in mask:
        if target is None:
            violations.append(checks.unknown_target(ports.targets, job.target, "job.request"))
        else:
            violations += checks.check_payload(ports.targets, ports.limits, target, draft.request, "job.request")
        request = None if draft.request is None else draft.request.value
    timeout = None
    if "timeout" in mask:
        timeout = draft.timeout or (None if target is None else target.timeout)
        if timeout is not None:
            violations += checks.check_timeout(timeout, ports.limits, "job.timeout")
    checks.raise_if(violations)
    queue = None
    if "queue" in mask:
        queue = draft.queue or (None if target is None else target.queue)
    return JobChange(
        display_name=draft.display_name if "display_name" in mask else None,
        request=request,
        queue=queue,
        retry_policy=policy,
        timeout=timeout,
        overlap_policy=draft.overlap_policy if "overlap_policy" in mask else None,
        clear_overlap_policy="overlap_policy" in mask and draft.overlap_policy is None,
        labels=draft.labels if "labels" in mask else None,
    )


def _policy(
    current: RetryPolicy, draft: RetryDraft, mask: frozenset[str], default: RetryPolicy | None
) -> RetryPolicy | None:
    """The new policy: `retry_policy` in the mask replaces the whole, `retry_policy.x` only that field."""
    if "retry_policy" in mask:
        return checks.merge_policy(draft, default or current)
    named = [name for name in _RETRY_FIELDS if f"retry_policy.{name}" in mask]
    if not named:
        return None
    values = {name: getattr(draft, name) for name in named}
    fallback = default or current
    return replace(current, **{n: getattr(fallback, n) if v is None else v for n, v in values.items()})


def _changed(job: Job, change: JobChange) -> Job:
    values = {
        name: getattr(change, name)
        for name in ("display_name", "request", "queue", "retry_policy", "timeout", "overlap_policy", "labels")
        if getattr(change, name) is not None
    }
    if change.clear_overlap_policy:
        values["overlap_policy"] = None
    if change.request is not None:
        values["request_bytes"] = len(change.request)
    return replace(job, **values)


def _planned(job: Job, run: NewRun, now: datetime) -> Execution:
    return Execution(
        uid=run.uid,
        job_uid=job.uid,
        job_id=job.job_id,
        schedule_id=None,
        origin=Origin.MANUAL,
        target=job.target,
        queue=job.queue,
        owner=job.owner,
        state=State.PENDING,
        reason="",
        held_by="",
        nominal_time=now,
        due_time=now,
        ready_time=now,
        expire_time=now + job.retry_policy.max_age,
        start_time=None,
        finish_time=None,
        attempt=0,
        attempts=(),
        code=None,
        message="",
        response=None,
        response_type="",
        request=run.request,
        request_type=run.request_type or "",
        cancel_request_time=None,
        create_time=now,
        job_revision=0,
    )
