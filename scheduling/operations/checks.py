"""Checks of what callers ask for that need the target table, the limits or the clock.

Field rules that need none of these stand in the protos. Every check collects all that is wrong before it raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduling.domain import recurrence
from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.ids import SCHEDULE_PREFIX
from scheduling.domain.job import JobSpec
from scheduling.domain.limits import Limits
from scheduling.domain.policy import EVERYTHING, is_raised
from scheduling.domain.schedule import NewSchedule
from scheduling.domain.target import RetryPolicy, Target
from scheduling.domain.timing import CatchupPolicy, DstPolicy, Exclusion, Once, Timing, When
from scheduling.operations.drafts import (
    NOTHING_SAID,
    AfterDelay,
    AtTime,
    CalendarReference,
    ExclusionDraft,
    JobDraft,
    Payload,
    RetryDraft,
    ScheduleDraft,
)
from scheduling.operations.ports import Ports, Targets

_SHORTEST_TIMEOUT = timedelta(milliseconds=1)
_DST_POLICY, _CATCHUP_POLICY = DstPolicy.FIRE_AFTER_GAP, CatchupPolicy.FIRE_ONCE_LATEST


def raise_if(violations: Sequence[Violation]) -> None:
    """Raises InvalidRequest if there is any violation."""
    if violations:
        raise InvalidRequest(violations)


def check_payload(
    targets: Targets, limits: Limits, target: Target, payload: Payload | None, field: str
) -> list[Violation]:
    """What is wrong with a packed request for `target`."""
    if payload is None or not payload.type_name:
        return [Violation(field, f"is missing; give a {target.request_type}", "REQUIRED")]
    if len(payload.value) > limits.payload_bytes:
        return [
            Violation(
                field,
                f"is {len(payload.value):,} bytes; at most {limits.payload_bytes:,} are accepted",
                "PAYLOAD_TOO_LARGE",
            )
        ]
    found = targets.check(target.method, f"type.googleapis.com/{payload.type_name}", payload.value)
    if not found:
        return []
    return [
        Violation(f"{field}.{each.field}" if each.field else field, each.description, each.reason) for each in found
    ]


def unknown_target(targets: Targets, method: str, field: str) -> Violation:
    """Why `method` cannot be scheduled, said of `field`."""
    problem = targets.problem(method)
    if problem is None:
        return Violation(field, f"{method!r} is no longer a target of this service", "TARGET_UNKNOWN")
    return Violation(field, problem.description, problem.reason)


def merge_policy(draft: RetryDraft, default: RetryPolicy) -> RetryPolicy:
    """The draft's policy, its holes filled from `default`."""
    if draft is NOTHING_SAID or draft == NOTHING_SAID:
        return default
    return RetryPolicy(
        max_attempts=default.max_attempts if draft.max_attempts is None else draft.max_attempts,
        initial_backoff=default.initial_backoff if draft.initial_backoff is None else draft.initial_backoff,
        backoff_multiplier=default.backoff_multiplier if draft.backoff_multiplier is None else draft.backoff_multiplier,
        max_backoff=default.max_backoff if draft.max_backoff is None else draft.max_backoff,
        max_age=default.max_age if draft.max_age is None else draft.max_age,
        after_lost_worker=default.after_lost_worker if draft.after_lost_worker is None else draft.after_lost_worker,
    )


def check_policy(policy: RetryPolicy, limits: Limits, field: str) -> list[Violation]:
    """What is wrong with a complete retry policy."""
    violations: list[Violation] = []
    if not 1 <= policy.max_attempts <= limits.retries + 1:
        violations.append(
            Violation(
                f"{field}.max_attempts",
                f"is {policy.max_attempts}; expected 1 to {limits.retries + 1} ({limits.retries} retries)",
                "TOO_MANY_RETRIES" if policy.max_attempts > limits.retries else "INVALID_VALUE",
            )
        )
    if policy.initial_backoff > policy.max_backoff:
        violations.append(
            Violation(f"{field}.initial_backoff", f"is longer than max_backoff, which is {policy.max_backoff}")
        )
    return violations


def check_timeout(timeout: timedelta, limits: Limits, field: str) -> list[Violation]:
    """What is wrong with a call's deadline."""
    if _SHORTEST_TIMEOUT <= timeout <= limits.timeout:
        return []
    return [
        Violation(
            field,
            f"is {timeout.total_seconds():g}s; expected 0.001s to {limits.timeout.total_seconds():g}s",
            "TIMEOUT_OUT_OF_RANGE",
        )
    ]


def check_job(ports: Ports, principal: str, draft: JobDraft) -> tuple[JobSpec | None, list[Violation]]:
    """The job as it is to be stored, or what is wrong with it, said of `job` and its fields."""
    target = ports.targets.get(draft.target)
    if target is None:
        return None, [unknown_target(ports.targets, draft.target, "job.target")]
    payload, limits = draft.request, ports.limits
    policy = merge_policy(draft.retry, target.retry_policy)
    timeout = target.timeout if draft.timeout is None else draft.timeout
    violations = check_payload(ports.targets, limits, target, payload, "job.request")
    violations += check_policy(policy, limits, "job.retry_policy")
    violations += check_timeout(timeout, limits, "job.timeout")
    if violations or payload is None:
        return None, violations
    retention = target.retention
    # By position, which costs half of what keywords do: this is made for each job of a batch.
    return JobSpec(
        draft.display_name,
        target.method,
        payload.value,
        payload.type_name,
        draft.queue or target.queue,
        policy,
        timeout,
        draft.overlap_policy,
        draft.owner or principal,
        draft.labels,
        None if retention is None else retention.days,
    ), violations


def check_granted(ports: Ports, principal: str, draft: JobDraft) -> None:
    """Raises PermissionDenied unless the caller may create such a job. Targets that nobody knows are not judged."""
    if ports.access is EVERYTHING:
        return
    target = ports.targets.get(draft.target)
    if target is not None:
        ports.access.check_new(
            target.method, draft.owner or principal, raises=is_raised(draft.queue or target.queue, target.queue)
        )


async def calendars_named(ports: Ports, drafts: Iterable[ScheduleDraft | None]) -> Mapping[str, SharedCalendar]:
    """The shared calendars that the drafts name and that exist. The store is asked only when any are named."""
    ids = {
        each.calendar_id
        for draft in drafts
        if draft is not None
        for each in draft.exclusions
        if isinstance(each, CalendarReference)
    }
    return await ports.store.get_calendars(sorted(ids)) if ids else {}


def exclusions_of(
    drafts: Sequence[ExclusionDraft], calendars: Mapping[str, SharedCalendar], field: str
) -> tuple[tuple[Exclusion, ...], list[Violation]]:
    """The exclusions with their calendars filled in, or which calendars do not exist."""
    found: list[Exclusion] = []
    violations = []
    for index, each in enumerate(drafts):
        if not isinstance(each, CalendarReference):
            found.append(each)
        elif each.calendar_id in calendars:
            found.append(calendars[each.calendar_id].as_exclusion())
        else:
            violations.append(
                Violation(
                    f"{field}.exclusions[{index}].calendar",
                    f"there is no calendar {each.calendar_id!r}; create it first",
                    "UNKNOWN_CALENDAR",
                )
            )
    return tuple(found), violations


def timing_of(
    ports: Ports, draft: ScheduleDraft, calendars: Mapping[str, SharedCalendar], now: datetime, field: str
) -> tuple[Timing | None, list[Violation]]:
    """The timing that a draft asks for, or what is wrong with it. `now` is when the call was accepted."""
    when, violations = when_of(ports, draft, now, field)
    exclusions: tuple[Exclusion, ...] = ()
    if draft.exclusions:
        exclusions, unknown = exclusions_of(draft.exclusions, calendars, field)
        violations += unknown
    if when is None:
        return None, violations
    timing = Timing(
        when,
        draft.time_zone or ports.default_time_zone,
        draft.start,
        draft.end,
        draft.max_firings or None,
        draft.jitter,
        draft.dst_policy or _DST_POLICY,
        draft.catchup_policy or _CATCHUP_POLICY,
        draft.catchup_window,
        exclusions,
    )
    violations += check_timing(timing, now, field)
    return (None if violations else timing), violations


def check_timing(timing: Timing, now: datetime, field: str) -> list[Violation]:
    """What is wrong with a complete timing."""
    violations: list[Violation] = []
    if (timing.start or timing.end or timing.exclusions or timing.max_firings) and not timing.is_recurring:
        given = (
            ("start_time", timing.start),
            ("end_time", timing.end),
            ("exclusions", timing.exclusions),
            ("max_firings", timing.max_firings if isinstance(timing.when, Once) else None),
        )
        violations = [
            Violation(f"{field}.{name}", "is for recurring schedules; leave it out of this one")
            for name, value in given
            if value
        ]
    violations += recurrence.check_timing(timing, now, field=field)
    return violations


def check_schedule(
    ports: Ports,
    target: Target,
    draft: ScheduleDraft,
    calendars: Mapping[str, SharedCalendar],
    schedule_id: str,
    now: datetime,
    field: str,
    ids: Sequence[UUID],
) -> tuple[NewSchedule | None, list[Violation]]:
    """The schedule with its first plan, or what is wrong with it. `now` is when the call was accepted, `ids` are for
    the schedule and the plan.
    """
    timing, violations = timing_of(ports, draft, calendars, now, field)
    if draft.request is not None:
        violations += check_payload(ports.targets, ports.limits, target, draft.request, f"{field}.request")
    if timing is None or violations:
        return None, violations
    uid, plan_uid = ids
    first = first_fire(timing, now)
    request = draft.request
    return NewSchedule(
        uid,
        schedule_id or f"{SCHEDULE_PREFIX}{uid}",
        draft.display_name,
        timing,
        first,
        None if first is None else recurrence.jittered(timing, uid, first),
        now,
        None if request is None else request.value,
        None if request is None else request.type_name,
        plan_uid=plan_uid,
    ), violations


def first_fire(timing: Timing, now: datetime) -> datetime | None:
    """The first firing of a sound timing; a one-off of the last minute is due at once. None when a deployment
    decides.
    """
    return timing.when.time if isinstance(timing.when, Once) else recurrence.next_fire(timing, now)


def when_of(ports: Ports, draft: ScheduleDraft, now: datetime, field: str) -> tuple[When | None, list[Violation]]:
    """The way to say when that a draft asks for, or what is wrong with it."""
    when = draft.when
    if isinstance(when, AtTime):
        time, tolerance = when.time, ports.limits.past_tolerance
        if time < now - tolerance:
            late = (now - time).total_seconds()
            return None, [
                Violation(
                    f"{field}.at_time",
                    f"{_text(time)} is {late:.0f}s in the past; expected at most {tolerance.total_seconds():.0f}s "
                    f"(it is {_text(now)} now)",
                    "IN_THE_PAST",
                )
            ]
        if time > now + ports.limits.horizon:
            days = ports.limits.horizon.days
            return None, [Violation(f"{field}.at_time", f"{_text(time)} is more than {days} days ahead", "TOO_FAR")]
        return Once(time), []
    if when is None:
        return None, [Violation(f"{field}.when", "say when: at_time, after, cron, interval, …", "REQUIRED")]
    if isinstance(when, AfterDelay):
        return Once(now + when.delay, after=when.delay), []
    return when, []


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
