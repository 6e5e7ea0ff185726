"""Checks of what callers ask for that need the target table, the limits or the clock.

Field rules that need none of these stand in the protos. Every check collects all that is wrong before it raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from scheduling.domain import recurrence
from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.ids import SCHEDULE_PREFIX, uuid7
from scheduling.domain.job import JobSpec
from scheduling.domain.limits import Limits
from scheduling.domain.schedule import CatchupPolicy, DstPolicy, NewSchedule, Once, Timing, When
from scheduling.domain.target import RetryPolicy, Target
from scheduling.operations.drafts import AfterDelay, AtTime, JobDraft, Payload, RetryDraft, ScheduleDraft
from scheduling.operations.ports import Ports, Targets

_SHORTEST_TIMEOUT = timedelta(milliseconds=1)


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
    return [
        Violation(f"{field}.{each.field}" if each.field else field, each.description, each.reason)
        for each in targets.check(target.method, f"type.googleapis.com/{payload.type_name}", payload.value)
    ]


def unknown_target(targets: Targets, method: str, field: str) -> Violation:
    """Why `method` cannot be scheduled, said of `field`."""
    problem = targets.problem(method)
    if problem is None:
        return Violation(field, f"{method!r} is no longer a target of this service", "TARGET_UNKNOWN")
    return Violation(field, problem.description, problem.reason)


def merge_policy(draft: RetryDraft, default: RetryPolicy) -> RetryPolicy:
    """The draft's policy, its holes filled from `default`."""
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
    violations = []
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


def check_job(ports: Ports, principal: str, draft: JobDraft, field: str) -> tuple[JobSpec | None, list[Violation]]:
    """The job as it is to be stored, or what is wrong with it. `field` is the path of the job in the request."""
    target = ports.targets.get(draft.target)
    if target is None:
        return None, [unknown_target(ports.targets, draft.target, f"{field}.target")]
    policy = merge_policy(draft.retry, target.retry_policy)
    timeout = target.timeout if draft.timeout is None else draft.timeout
    violations = [
        *check_payload(ports.targets, ports.limits, target, draft.request, f"{field}.request"),
        *check_policy(policy, ports.limits, f"{field}.retry_policy"),
        *check_timeout(timeout, ports.limits, f"{field}.timeout"),
    ]
    if violations or draft.request is None:
        return None, violations
    return JobSpec(
        display_name=draft.display_name,
        target=target.method,
        request=draft.request.value,
        request_type=draft.request.type_name,
        queue=draft.queue or target.queue,
        retry_policy=policy,
        timeout=timeout,
        overlap_policy=draft.overlap_policy,
        owner=draft.owner or principal,
        labels=draft.labels,
        retention_days=None if target.retention is None else target.retention.days,
    ), []


def check_schedule(
    ports: Ports, target: Target, draft: ScheduleDraft, schedule_id: str, now: datetime, field: str
) -> tuple[NewSchedule | None, list[Violation]]:
    """The schedule with its first plan, or what is wrong with it. `now` is when the call was accepted."""
    when, violations = _when(ports, draft, now, field)
    if draft.request is not None:
        violations += check_payload(ports.targets, ports.limits, target, draft.request, f"{field}.request")
    if when is None:
        return None, violations
    timing = Timing(
        when=when,
        time_zone=draft.time_zone or ports.default_time_zone,
        start=draft.start,
        end=draft.end,
        max_firings=draft.max_firings or None,
        jitter=draft.jitter,
        dst_policy=draft.dst_policy or DstPolicy.FIRE_AFTER_GAP,
        catchup_policy=draft.catchup_policy or CatchupPolicy.FIRE_ONCE_LATEST,
        catchup_window=draft.catchup_window,
    )
    if isinstance(when, Once):
        violations += [
            Violation(f"{field}.{name}", "is for recurring schedules; leave it out of a one-off")
            for name, value in (
                ("start_time", draft.start),
                ("end_time", draft.end),
                ("max_firings", draft.max_firings),
            )
            if value
        ]
    violations += recurrence.check_timing(timing, now, field=field)
    if violations:
        return None, violations
    first = when.time if isinstance(when, Once) else recurrence.next_fire(timing, now)
    if first is None:
        return None, [Violation(field, "has no firing ahead", "NEVER_FIRES")]
    uid = uuid7(now)
    return NewSchedule(
        uid=uid,
        schedule_id=schedule_id or f"{SCHEDULE_PREFIX}{uid}",
        display_name=draft.display_name,
        timing=timing,
        first_fire=first,
        first_ready=recurrence.jittered(timing, uid, first),
        request=None if draft.request is None else draft.request.value,
        request_type=None if draft.request is None else draft.request.type_name,
        plan_uid=uuid7(now),
    ), []


def _when(ports: Ports, draft: ScheduleDraft, now: datetime, field: str) -> tuple[When | None, list[Violation]]:
    match draft.when:
        case AtTime(time):
            tolerance = ports.limits.past_tolerance
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
                return None, [
                    Violation(
                        f"{field}.at_time",
                        f"{_text(time)} is more than {ports.limits.horizon.days} days ahead",
                        "TOO_FAR",
                    )
                ]
            return Once(time), []
        case AfterDelay(delay):
            return Once(now + delay, after=delay), []
        case recurring:
            return recurring, []


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
