"""What an answer of a target means, and when it is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import (
    ANSWER_CLASSES,
    CONFLICT_PAUSE,
    MAX_PUSHBACK,
    UNSENT_PAUSE,
    AnswerClass,
    Code,
    Decision,
    backoff,
    decide,
)
from scheduling.domain.target import RetryPolicy

NOW = datetime(2031, 7, 1, 12, 0, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=4)

#: Design §6, line by line.
CLASSES: dict[AnswerClass, str] = {
    AnswerClass.OK: "OK",
    AnswerClass.TRANSIENT: "UNAVAILABLE DEADLINE_EXCEEDED RESOURCE_EXHAUSTED INTERNAL UNKNOWN CANCELLED",
    AnswerClass.CONFLICT: "ABORTED",
    AnswerClass.EXISTS: "ALREADY_EXISTS",
    AnswerClass.PERMANENT: (
        "INVALID_ARGUMENT NOT_FOUND FAILED_PRECONDITION OUT_OF_RANGE PERMISSION_DENIED UNAUTHENTICATED UNIMPLEMENTED "
        "DATA_LOSS"
    ),
}
TRANSIENT = [Code[name] for name in CLASSES[AnswerClass.TRANSIENT].split()]
PERMANENT = [Code[name] for name in CLASSES[AnswerClass.PERMANENT].split()]


def answered(code: Code, **more: Any) -> Decision:
    arguments: dict[str, Any] = {
        "attempt": 1,
        "counted_before": 0,
        "policy": POLICY,
        "now": NOW,
        "expire_time": NOW + timedelta(days=1),
        "chance": 0.0,
    }
    return decide(code, **{**arguments, **more})


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize("code", list(Code))
def test_a_code_is_of_the_class_that_the_design_says(code: Code) -> None:
    (expected,) = [kind for kind, names in CLASSES.items() if code.name in names.split()]
    assert ANSWER_CLASSES[code] is expected


def test_ok_is_a_success() -> None:
    assert answered(Code.OK) == Decision(State.SUCCEEDED)


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_transient_answer_is_tried_again_after_the_backoff_and_counts(code: Code) -> None:
    assert answered(code) == Decision(State.PENDING, "", True, NOW + timedelta(minutes=1))
    assert answered(code, attempt=3, counted_before=2) == Decision(State.PENDING, "", True, NOW + timedelta(minutes=4))


@pytest.mark.parametrize("code", PERMANENT)
def test_a_permanent_answer_fails_at_once_whatever_is_left(code: Code) -> None:
    assert answered(code) == Decision(State.FAILED, Reason.PERMANENT)
    assert answered(code, attempt=2, counted_before=1) == Decision(State.FAILED, Reason.PERMANENT)


def test_a_conflict_is_tried_again_after_a_minute_and_never_counts() -> None:
    for counted in (0, 3, 100):
        decision = answered(Code.ABORTED, attempt=101, counted_before=counted)
        assert decision == Decision(State.PENDING, Reason.CONFLICT, False, NOW + CONFLICT_PAUSE)


def test_exists_on_a_later_attempt_means_that_an_earlier_one_got_through() -> None:
    assert answered(Code.ALREADY_EXISTS, attempt=2, counted_before=1) == Decision(State.SUCCEEDED)
    assert answered(Code.ALREADY_EXISTS, attempt=2, counted_before=1, cancel_requested=True).state is State.SUCCEEDED


def test_exists_on_the_first_attempt_is_permanent() -> None:
    assert answered(Code.ALREADY_EXISTS) == Decision(State.FAILED, Reason.PERMANENT)


@pytest.mark.parametrize("code", TRANSIENT)
def test_the_last_counted_attempt_ends_it(code: Code) -> None:
    assert answered(code, attempt=9, counted_before=3) == Decision(State.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    assert answered(code, attempt=9, counted_before=2).state is State.PENDING


def test_an_execution_that_may_be_attempted_once_is_never_tried_again() -> None:
    decision = answered(Code.UNAVAILABLE, policy=RetryPolicy(max_attempts=1), pushback=timedelta(0))
    assert decision == Decision(State.FAILED, Reason.ATTEMPTS_EXHAUSTED)


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(milliseconds=5), timedelta(hours=3)])
def test_the_pause_that_a_target_asks_for_wins_over_the_backoff(pause: timedelta) -> None:
    assert answered(Code.RESOURCE_EXHAUSTED, pushback=pause, chance=0.5).ready_time == NOW + pause


def test_a_target_cannot_push_further_than_a_day() -> None:
    decision = answered(Code.UNAVAILABLE, pushback=timedelta(days=400), expire_time=NOW + timedelta(days=7))
    assert decision.ready_time == NOW + MAX_PUSHBACK


def test_a_target_that_asks_not_to_be_tried_again_is_not() -> None:
    assert answered(Code.UNAVAILABLE, pushback=timedelta(milliseconds=-1)) == Decision(State.FAILED, Reason.PERMANENT)


def test_another_try_beyond_the_maximum_age_is_not_made() -> None:
    edge = NOW + timedelta(minutes=1)
    assert answered(Code.UNAVAILABLE, expire_time=edge) == Decision(State.FAILED, Reason.EXPIRED, True)
    assert answered(Code.UNAVAILABLE, expire_time=edge + timedelta(microseconds=1)).state is State.PENDING
    assert answered(Code.ABORTED, expire_time=edge) == Decision(State.FAILED, Reason.EXPIRED, False)


@pytest.mark.parametrize("code", [*TRANSIENT, Code.ABORTED, *PERMANENT])
def test_what_a_caller_asked_to_end_is_cancelled_and_never_tried_again(code: Code) -> None:
    decision = answered(code, cancel_requested=True)
    assert (decision.state, decision.reason) == (State.CANCELLED, Reason.CALLER)


def test_a_call_that_got_through_is_a_success_though_a_caller_asked_to_end_it() -> None:
    assert answered(Code.OK, cancel_requested=True) == Decision(State.SUCCEEDED)


@pytest.mark.parametrize(
    ("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (5000, 30)]
)
def test_the_default_backoff_is_one_two_four_minutes_up_to_thirty(failures: int, minutes: int) -> None:
    assert backoff(POLICY, failures, 0.0) == timedelta(minutes=minutes)


@given(
    failures=st.integers(1, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
    multiplier=st.floats(1, 10),
    initial=st.timedeltas(timedelta(milliseconds=1), timedelta(hours=1)),
    longest=st.timedeltas(timedelta(hours=1), timedelta(days=1)),
)
def test_a_backoff_lies_between_four_fifths_of_the_first_and_the_longest_pause(
    failures: int, chance: float, multiplier: float, initial: timedelta, longest: timedelta
) -> None:
    policy = RetryPolicy(6, initial, multiplier, longest)
    pause = backoff(policy, failures, chance)
    assert initial * 0.8 - timedelta(microseconds=2) <= pause <= longest
    assert pause <= backoff(policy, failures, 0.0) <= backoff(policy, failures + 1, 0.0)


@pytest.mark.parametrize("unsent", [Reason.POOL_OVERFLOW, Reason.NOT_CONNECTED])
def test_a_call_that_never_left_the_sidecar_counts_for_nothing(unsent: Reason) -> None:
    policy = RetryPolicy(max_attempts=1)
    decision = answered(Code.UNAVAILABLE, unsent=unsent, policy=policy, attempt=9)
    assert decision == Decision(State.PENDING, unsent, False, NOW + policy.initial_backoff)


def test_calls_that_are_never_sent_do_not_follow_each_other_at_once() -> None:
    policy = RetryPolicy(max_attempts=4, initial_backoff=timedelta(milliseconds=100))
    decision = answered(Code.UNAVAILABLE, unsent=Reason.POOL_OVERFLOW, policy=policy)
    assert decision.ready_time == NOW + UNSENT_PAUSE


def test_calls_that_are_never_sent_end_with_the_maximum_age() -> None:
    decision = answered(Code.UNAVAILABLE, unsent=Reason.NOT_CONNECTED, expire_time=NOW + timedelta(seconds=30))
    assert decision == Decision(State.FAILED, Reason.EXPIRED, False)


def test_a_caller_who_cancels_what_was_never_sent_ends_it() -> None:
    decision = answered(Code.UNAVAILABLE, unsent=Reason.NOT_CONNECTED, cancel_requested=True)
    assert decision == Decision(State.CANCELLED, Reason.CALLER, False)
