"""The circuit breaker: each transition, and that it is never stuck."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.domain.breaker import (
    CLOSE_ABOVE,
    DOWN_CODES,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OPEN_AFTER,
    STEP,
    UNANSWERED,
    Breaker,
    BreakerState,
    after_answers,
    after_grant,
)
from scheduling.domain.retry import Code
from tests.support.clock import START

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SERVICE = "messaging.MessagingService"
LATER = START + timedelta(minutes=1)


def opened(failed_probes: int = 0) -> Breaker:
    """A breaker that has just opened, or opened anew after so many probes in a row that failed."""
    breaker = after_answers(Breaker(SERVICE), OPEN_AFTER, 0, START)
    for _ in range(failed_probes):
        breaker = after_answers(after_grant(breaker, START), 1, 0, START)
    return breaker


def half_open() -> Breaker:
    return after_answers(after_grant(opened(), START), 0, 1, START)


def granted(breaker: Breaker) -> Iterable[tuple[int, Breaker]]:
    """How many probes each grant lets through, one after the other, until the breaker is closed."""
    while breaker.state is not CLOSED:
        yield breaker.probes, (breaker := after_grant(breaker, START))


def test_only_answers_that_tell_of_absence_count() -> None:
    assert {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED} == DOWN_CODES


def test_a_breaker_that_was_never_fed_is_closed_and_clean() -> None:
    breaker = Breaker(SERVICE)
    assert (breaker.state, breaker.is_clean) == (CLOSED, True)


@pytest.mark.parametrize("batches", [[1] * OPEN_AFTER, [OPEN_AFTER], [OPEN_AFTER - 1, 1], [7, 7, 7]])
def test_failures_in_a_row_open_it_however_they_are_bundled(batches: list[int]) -> None:
    breaker = Breaker(SERVICE)
    for count in batches[:-1]:
        breaker = after_answers(breaker, count, 0, START)
        assert (breaker.state, breaker.is_clean) == (CLOSED, False)
    breaker = after_answers(breaker, batches[-1], 0, START)
    assert breaker == Breaker(SERVICE, OPEN, 0, 1, START + FIRST_PAUSE)


def test_one_success_in_between_forgets_the_failures() -> None:
    breaker = after_answers(Breaker(SERVICE), OPEN_AFTER - 1, 0, START)
    assert after_answers(breaker, OPEN_AFTER, 1, START).is_clean
    assert after_answers(breaker, 0, 1, START).is_clean


def test_an_open_breaker_lets_one_probe_through_and_waits_for_it() -> None:
    waiting = after_grant(opened(), START)
    assert (waiting.state, waiting.probes) == (OPEN, 0)
    # Should the probe be lost with its worker, another one goes.
    assert waiting.probe_time == START + UNANSWERED


def test_answers_of_calls_that_began_before_tell_an_open_breaker_nothing() -> None:
    assert after_answers(opened(), 50, 0, LATER) == opened()


def test_the_pause_doubles_with_each_failed_probe_up_to_the_longest() -> None:
    pauses = []
    for count in range(1, 9):
        breaker = opened(count)
        assert (breaker.state, breaker.failures, breaker.probes) == (OPEN, count, 1)
        assert breaker.probe_time is not None
        pauses.append((breaker.probe_time - START).total_seconds())
    assert pauses == [1, 2, 4, 4, 4, 4, 4, 4]


def test_a_probe_that_gets_through_opens_it_by_half() -> None:
    assert half_open() == Breaker(SERVICE, HALF_OPEN, 0, 2, START)


def test_a_half_open_breaker_lets_twice_as_many_through_each_time_until_it_is_closed() -> None:
    steps = list(granted(half_open()))
    assert [probes for probes, _ in steps] == [2, 4, 8, 16, 32, 64, 128, 256]
    assert steps[-1][0] <= CLOSE_ABOVE
    assert steps[-1][1] == Breaker(SERVICE)
    assert all(after.probe_time == START + STEP for _, after in steps[:-1])


def test_a_failure_opens_a_half_open_breaker_anew() -> None:
    breaker = after_grant(half_open(), START)
    reopened = after_answers(breaker, 1, 0, LATER)
    assert (reopened.state, reopened.probes, reopened.probe_time) == (OPEN, 1, LATER + FIRST_PAUSE)


def test_a_failure_among_successes_leaves_a_half_open_breaker_as_it_is() -> None:
    assert after_answers(half_open(), 3, 1, LATER) == half_open()
    assert after_answers(half_open(), 0, 5, LATER) == half_open()


Answers = tuple[str, int, int]
events = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.just(0), st.just(0)),
        st.tuples(st.just("answers"), st.integers(0, 300), st.integers(0, 300)),
    ),
    max_size=60,
)


def after_events(happened: list[Answers]) -> tuple[Breaker, timedelta]:
    """A breaker after anything that may happen to it, and how much time has passed. A grant happens at its time."""
    breaker, passed = Breaker(SERVICE), timedelta(0)
    for kind, failures, successes in happened:
        if kind == "answers":
            passed += timedelta(milliseconds=50)
            breaker = after_answers(breaker, failures, successes, START + passed)
        elif breaker.state is not CLOSED:
            assert breaker.probe_time is not None
            passed = max(passed, breaker.probe_time - START)
            breaker = after_grant(breaker, START + passed)
    return breaker, passed


@given(events)
def test_whatever_happens_the_next_probe_has_its_time(happened: list[Answers]) -> None:
    breaker, passed = after_events(happened)
    if breaker.state is CLOSED:
        assert breaker.failures < OPEN_AFTER
        return
    assert breaker.probe_time is not None
    assert breaker.probe_time - (START + passed) <= UNANSWERED
    assert breaker.probes > 0 or breaker.state is OPEN


@given(events)
@settings(max_examples=50)
def test_whatever_happened_a_service_that_is_back_is_trusted_again(happened: list[Answers]) -> None:
    breaker, passed = after_events(happened)
    began = passed
    while breaker.state is not CLOSED:
        assert breaker.probe_time is not None
        passed = max(passed, breaker.probe_time - START)
        probes = max(breaker.probes, 1)
        breaker = after_grant(breaker, START + passed)
        if breaker.state is not CLOSED:
            breaker = after_answers(breaker, 0, probes, START + passed)
        assert passed - began <= LONGEST_PAUSE + 10 * STEP


@given(events)
@settings(max_examples=50)
def test_whatever_happened_a_service_that_is_down_gets_few_probes(happened: list[Answers]) -> None:
    breaker, passed = after_events(happened)
    until, probes = passed + timedelta(minutes=10), 0
    # What a half-open one had let through already is no longer in question.
    breaker = after_answers(breaker, OPEN_AFTER, 0, START + passed)
    while passed < until:
        assert breaker.state is not CLOSED
        assert breaker.probe_time is not None
        passed = max(passed, breaker.probe_time - START)
        probes += max(breaker.probes, 1)
        breaker = after_answers(after_grant(breaker, START + passed), 1, 0, START + passed)
    assert probes <= 10 * 60 / LONGEST_PAUSE.total_seconds() + 10
