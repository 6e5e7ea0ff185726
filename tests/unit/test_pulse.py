"""The leader's pulse: when it looks, when it rings, and when it does the work itself. And its term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from scheduling.dispatch.pulse import (
    BUSY_PAUSE,
    HELD_PAUSE,
    LISTENING_PAUSE,
    PRESSING_PAUSE,
    RING_PATIENCE,
    STOOD_STILL,
    Leadership,
    Pulse,
)
from scheduling.domain.errors import StoreUnavailable
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.terms import Terms

SECOND = timedelta(seconds=1)
POLL = 0.1


@dataclass(frozen=True)
class Seen:
    """What the store sees ahead."""

    now: datetime
    next_ready: datetime | None = None
    held: bool = False
    is_pressing: bool = False
    next_advance: datetime | None = None


class Dispatch:
    """The store, the ringer and the scheduler around a pulse; each remembers what was asked of it."""

    def __init__(self, *, poll: float = POLL) -> None:
        self.clock = ManualClock()
        self.terms = Terms(self.clock)
        self.leadership = Leadership(uuid4(), self.terms, self.clock)
        self.seen: Callable[[datetime], Seen] = Seen
        self.redis_up = True
        self.rings: list[int] = []
        self.runs: list[int] = []
        self.pulse = Pulse(
            self.leadership, self, self, self, self.clock, look_ahead=SECOND, poll=timedelta(seconds=poll)
        )

    async def look_ahead(self) -> Seen:
        return self.seen(self.clock.now())

    async def ring(self, term: int) -> bool:
        if self.redis_up:
            self.rings.append(term)
        return self.redis_up

    async def run(self, term: int) -> int:
        self.runs.append(term)
        return 0

    async def lead(self) -> None:
        await self.leadership.tick()
        assert self.leadership.term == 1

    def waits(self, seconds: float) -> None:
        """From now on something is ready that many seconds ahead of now."""
        head = self.clock.now() + timedelta(seconds=seconds)
        self.seen = lambda now: Seen(now, next_ready=head)


def test_a_standby_neither_looks_nor_rings() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        dispatch.seen = lambda now: pytest.fail("looked")
        assert await dispatch.pulse.tick() == POLL
        assert (dispatch.rings, dispatch.runs) == ([], [])

    run(scenario())


def test_with_nothing_ahead_the_leader_polls_or_waits_to_be_notified() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        assert await dispatch.pulse.tick() == POLL
        dispatch.pulse.is_listening = True
        assert await dispatch.pulse.tick() == LISTENING_PAUSE
        assert (dispatch.rings, dispatch.runs) == ([], [])

    run(scenario())


def test_the_leader_looks_again_when_what_is_next_comes_into_the_look_ahead() -> None:
    async def scenario() -> None:
        dispatch = Dispatch(poll=1.0)
        await dispatch.lead()
        dispatch.waits(1.4)
        assert await dispatch.pulse.tick() == pytest.approx(0.4)
        assert dispatch.rings == []
        dispatch.clock.advance(0.4)
        assert await dispatch.pulse.tick() == BUSY_PAUSE
        assert dispatch.rings == [1]

    run(scenario())


def test_a_firing_to_plan_is_rung_for_as_well() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        dispatch.seen = lambda now: Seen(now, next_advance=now)
        await dispatch.pulse.tick()
        assert dispatch.rings == [1]

    run(scenario())


def test_what_a_ring_has_not_brought_about_in_time_the_leader_does_itself() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        dispatch.waits(0)
        await dispatch.pulse.tick()
        dispatch.clock.advance(RING_PATIENCE * 0.9)
        assert await dispatch.pulse.tick() == BUSY_PAUSE
        assert (dispatch.rings, dispatch.runs) == ([1], [])
        dispatch.clock.advance(RING_PATIENCE * 0.2)
        await dispatch.pulse.tick()
        assert (dispatch.rings, dispatch.runs) == ([1], [1])

    run(scenario())


def test_work_that_follows_work_is_rung_for_again() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        for _ in range(3):
            dispatch.waits(0)
            await dispatch.pulse.tick()
            dispatch.clock.advance(BUSY_PAUSE)
        assert dispatch.rings == [1, 1, 1]
        assert dispatch.runs == []

    run(scenario())


def test_what_is_rung_for_ahead_of_its_time_is_not_rung_for_again_before_it() -> None:
    async def scenario() -> None:
        dispatch = Dispatch(poll=1.0)
        await dispatch.lead()
        dispatch.waits(0.8)
        await dispatch.pulse.tick()
        for _ in range(3):
            pause = await dispatch.pulse.tick()
            assert 0 < pause <= HELD_PAUSE
            dispatch.clock.advance(pause)
        assert dispatch.rings == [1]

    run(scenario())


def test_at_its_own_moment_the_leader_sees_to_what_an_early_ring_left_waiting() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        dispatch.waits(0.8)
        await dispatch.pulse.tick()
        dispatch.clock.advance(0.8)
        await dispatch.pulse.tick()
        assert len(dispatch.rings) + len(dispatch.runs) == 2

    run(scenario())


def test_without_redis_the_leader_does_the_work_at_once() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        dispatch.redis_up = False
        await dispatch.lead()
        dispatch.waits(0)
        await dispatch.pulse.tick()
        assert (dispatch.rings, dispatch.runs) == ([], [1])

    run(scenario())


def test_while_something_is_held_the_scheduler_runs_again_and_again() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        dispatch.seen = lambda now: Seen(now, held=True)
        assert await dispatch.pulse.tick() == HELD_PAUSE
        assert await dispatch.pulse.tick() == HELD_PAUSE
        # What may go on any moment is looked at more often, also while something else comes near.
        dispatch.seen = lambda now: Seen(now, held=True, is_pressing=True)
        assert await dispatch.pulse.tick() == PRESSING_PAUSE
        dispatch.seen = lambda now: Seen(now, now + SECOND / 2, held=True, is_pressing=True)
        await dispatch.pulse.tick()
        rings = len(dispatch.rings)
        assert await dispatch.pulse.tick() == PRESSING_PAUSE
        assert len(dispatch.rings) == rings + 1
        assert set(dispatch.rings) == {1}

    run(scenario())


def test_a_leader_that_lost_its_term_stops_ringing() -> None:
    async def scenario() -> None:
        dispatch = Dispatch()
        await dispatch.lead()
        dispatch.waits(0)
        dispatch.clock.advance(3.0)
        assert dispatch.leadership.term is None
        assert await dispatch.pulse.tick() == POLL
        assert (dispatch.rings, dispatch.runs) == ([], [])

    run(scenario())


def test_of_two_candidates_one_leads_and_the_other_follows_when_the_term_has_ended() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        terms = Terms(clock)
        first, second = Leadership(uuid4(), terms, clock), Leadership(uuid4(), terms, clock)
        assert await first.tick() == 1.0
        assert await second.tick() == 0.5
        assert (first.term, second.term) == (1, None)
        clock.advance(1)
        await first.tick()
        clock.advance(2.9)
        await second.tick()
        assert (first.term, second.term) == (1, None)
        clock.advance(0.2)
        await second.tick()
        assert (first.term, second.term) == (None, 2)
        # The one that was away learns of it.
        assert await first.tick() == 0.5
        assert first.term is None

    run(scenario())


def test_a_process_that_cannot_renew_stops_leading_before_anybody_else_can_begin() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        terms = Terms(clock)
        leadership = Leadership(uuid4(), terms, clock)
        await leadership.tick()
        terms.broken = True
        clock.advance(2.9)
        with pytest.raises(StoreUnavailable):
            await leadership.tick()
        terms_seen = [leadership.term]
        clock.advance(0.1)
        terms_seen.append(leadership.term)
        assert terms_seen == [1, None]
        assert clock.now() <= terms.until

    run(scenario())


def test_who_resigns_is_followed_at_once() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        terms = Terms(clock)
        first, second = Leadership(uuid4(), terms, clock), Leadership(uuid4(), terms, clock)
        await first.tick()
        await first.resign()
        assert first.term is None
        await second.tick()
        assert second.term == 2
        # Twice, or without a term, does nothing.
        await first.resign()
        assert terms.holder is not None

    run(scenario())


def test_resigning_without_the_store_leaves_the_term_to_end_by_itself() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        terms = Terms(clock)
        leadership = Leadership(uuid4(), terms, clock)
        await leadership.tick()
        terms.broken = True
        await leadership.resign()
        assert leadership.term is None

    run(scenario())


def test_a_link_is_sound_from_the_first_success_on_whether_the_process_leads_or_not() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        terms = Terms(clock)
        first, second = Leadership(uuid4(), terms, clock), Leadership(uuid4(), terms, clock)
        await first.tick()
        assert second.sound_since is None
        began = clock.monotonic()
        for _ in range(3):
            await second.tick()
            clock.advance(0.5)
        assert [second.term, second.sound_since] == [None, began]
        terms.broken = True
        with pytest.raises(StoreUnavailable):
            await second.tick()
        assert second.sound_since is None
        terms.broken = False
        await second.tick()
        assert second.sound_since == clock.monotonic()

    run(scenario())


def test_a_process_that_stood_still_cannot_say_that_its_link_was_sound() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        leadership = Leadership(uuid4(), Terms(clock), clock)
        await leadership.tick()
        clock.advance(STOOD_STILL + 0.1)
        await leadership.tick()
        assert leadership.sound_since == clock.monotonic()

    run(scenario())
