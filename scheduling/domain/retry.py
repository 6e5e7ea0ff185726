"""What an answer of a target means, and when to try again.

Codes are gRPC status code numbers, so that the rules need no gRPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.target import RetryPolicy


class Code(IntEnum):
    """gRPC status codes (grpc/doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class AnswerClass(StrEnum):
    """What kind of answer a code is."""

    OK = "OK"
    TRANSIENT = "TRANSIENT"
    CONFLICT = "CONFLICT"
    EXISTS = "EXISTS"
    PERMANENT = "PERMANENT"


ANSWER_CLASSES: dict[Code, AnswerClass] = {
    Code.OK: AnswerClass.OK,
    Code.UNAVAILABLE: AnswerClass.TRANSIENT,
    Code.DEADLINE_EXCEEDED: AnswerClass.TRANSIENT,
    Code.RESOURCE_EXHAUSTED: AnswerClass.TRANSIENT,
    Code.INTERNAL: AnswerClass.TRANSIENT,
    Code.UNKNOWN: AnswerClass.TRANSIENT,
    Code.CANCELLED: AnswerClass.TRANSIENT,
    Code.ABORTED: AnswerClass.CONFLICT,
    Code.ALREADY_EXISTS: AnswerClass.EXISTS,
    Code.INVALID_ARGUMENT: AnswerClass.PERMANENT,
    Code.NOT_FOUND: AnswerClass.PERMANENT,
    Code.FAILED_PRECONDITION: AnswerClass.PERMANENT,
    Code.OUT_OF_RANGE: AnswerClass.PERMANENT,
    Code.PERMISSION_DENIED: AnswerClass.PERMANENT,
    Code.UNAUTHENTICATED: AnswerClass.PERMANENT,
    Code.UNIMPLEMENTED: AnswerClass.PERMANENT,
    Code.DATA_LOSS: AnswerClass.PERMANENT,
}

#: The pause after a conflict answer: the target said that the same work is running already.
CONFLICT_PAUSE = timedelta(minutes=1)
#: The shortest pause after a call that never left the sidecar, which no bound on attempts ends.
UNSENT_PAUSE = timedelta(seconds=1)
#: The part of a pause that chance may take away.
JITTER_SHARE = 0.2
#: The longest pause that a target may ask for.
MAX_PUSHBACK = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an answer. `ready_time` is set when the state is PENDING."""

    state: State
    reason: str = ""
    counted: bool = True
    ready_time: datetime | None = None


def backoff(policy: RetryPolicy, failures: int, chance: float) -> timedelta:
    """The pause after the `failures`-th counted failure (1 for the first); `chance` in [0, 1) shortens it by up to a
    fifth.
    """
    # The exponent is bounded, so that no count overflows a float.
    factor = policy.backoff_multiplier ** min(failures - 1, 64)
    seconds = min(policy.initial_backoff.total_seconds() * factor, policy.max_backoff.total_seconds())
    return timedelta(seconds=seconds * (1 - JITTER_SHARE * chance))


def decide(
    code: Code,
    *,
    attempt: int,
    counted_before: int,
    policy: RetryPolicy,
    now: datetime,
    expire_time: datetime,
    chance: float,
    pushback: timedelta | None = None,
    cancel_requested: bool = False,
    reason: str = "",
    unsent: str = "",
) -> Decision:
    """What becomes of an execution after an answer.

    `attempt` is the number of the attempt that was answered, `counted_before` how many counted before it. `pushback` is
    the pause that the target asked for; negative means that it asks not to be tried again. `reason` is an attempt's own
    reason, such as LEASE_LOST. `unsent` tells why the call was never sent; it is then not counted.
    """
    kind = ANSWER_CLASSES[code]
    if kind is AnswerClass.OK or (kind is AnswerClass.EXISTS and attempt > 1):
        return Decision(State.SUCCEEDED)
    counted = kind is not AnswerClass.CONFLICT and not unsent
    if cancel_requested:
        return Decision(State.CANCELLED, Reason.CALLER, counted)
    if kind in (AnswerClass.PERMANENT, AnswerClass.EXISTS):
        return Decision(State.FAILED, Reason.PERMANENT)
    if unsent:
        pause = max(backoff(policy, counted_before + 1, chance), UNSENT_PAUSE)
        return again(unsent, counted=False, ready_time=now + pause, expire_time=expire_time)
    if not counted:
        return again(Reason.CONFLICT, counted=False, ready_time=now + CONFLICT_PAUSE, expire_time=expire_time)
    if counted_before + 1 >= policy.max_attempts:
        return Decision(State.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    if pushback is not None:
        if pushback < timedelta(0):
            return Decision(State.FAILED, Reason.PERMANENT)
        pause = min(pushback, MAX_PUSHBACK)
    else:
        pause = backoff(policy, counted_before + 1, chance)
    return again(reason, counted=True, ready_time=now + pause, expire_time=expire_time)


def again(reason: str, *, counted: bool, ready_time: datetime, expire_time: datetime) -> Decision:
    """Another try at `ready_time`, unless that lies beyond the execution's maximum age."""
    if ready_time >= expire_time:
        return Decision(State.FAILED, Reason.EXPIRED, counted)
    return Decision(State.PENDING, reason, counted, ready_time)
