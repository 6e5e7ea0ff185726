"""Leases: the heartbeat, the guard, callers' wishes to cancel, the reaper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from scheduling.delivery.database_clock import DatabaseClock
from scheduling.dispatch.lease import CANCEL_PAUSE, ORPHAN_AGE, REAP_PAUSE, SETTLE_SECONDS, Canceller, Lease, Reaper
from scheduling.domain.errors import StoreUnavailable
from tests.support.clock import START, ManualClock
from tests.support.run import run

BEAT, CUTOFF = timedelta(seconds=1.5), timedelta(seconds=4.5)


@dataclass(frozen=True)
class Answer:
    """What a heartbeat brings back."""

    now: datetime
    running: Mapping[UUID, UUID] = field(default_factory=dict)
    claimed: Mapping[UUID, datetime] = field(default_factory=dict)
    sent: float = 0.0
    received: float = 0.0


class Engine:
    """What leases do to an engine, written down."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.last_start: datetime | None = None
        self.tokens: frozenset[UUID] = frozenset()
        self.unanswered: frozenset[UUID] = frozenset()
        self.until = float("-inf")
        self.cuts = 0
        self.cancelled: set[UUID] = set()
        self.given_back: list[tuple[UUID, UUID]] = []
        self.held: frozenset[UUID] = frozenset()
        self.lost: set[UUID] = set()

    def forget_unanswered(self, tokens: Iterable[UUID]) -> None:
        self.unanswered = self.unanswered.difference(tokens)

    def renew_lease(self, until: float) -> None:
        self.until = until

    def has_lease(self) -> bool:
        return self._clock.monotonic() < self.until

    def cut_off(self) -> None:
        self.cuts += 1

    def cancel(self, tokens: Iterable[UUID]) -> None:
        self.cancelled |= set(tokens)

    def lose(self, tokens: Iterable[UUID]) -> None:
        self.lost |= set(tokens)

    def give_back(self, claims: Iterable[tuple[UUID, UUID]], now: datetime) -> None:
        self.given_back += claims


class Process:
    """A lease with its surroundings. `takes` is how long a heartbeat's round trip lasts."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = Engine(self.clock)
        self.database_clock = DatabaseClock(self.clock)
        self.answer = Answer(START)
        self.broken = False
        self.takes = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.last_starts: list[datetime | None] = []
        self.lease = Lease(self.engine, self._beat, self.database_clock, self.clock, beat=BEAT, cutoff=CUTOFF)

    async def _beat(self, last_start: datetime | None) -> Answer:
        self.last_starts.append(last_start)
        sent = self.clock.monotonic()
        self.clock.advance(self.takes)
        self.meanwhile()
        if self.broken:
            raise StoreUnavailable
        return replace(self.answer, sent=sent, received=self.clock.monotonic())


def test_a_heartbeat_renews_the_lease_from_before_it_was_sent() -> None:
    async def scenario() -> None:
        process = Process()
        sent = process.clock.monotonic()
        process.takes = 0.4
        pause = await process.lease.tick()
        assert process.engine.until == sent + CUTOFF.total_seconds()
        assert pause == pytest.approx(1.1)

    run(scenario())


def test_a_slow_heartbeat_is_followed_by_the_next_at_once() -> None:
    async def scenario() -> None:
        process = Process()
        process.takes = 2.0
        assert await process.lease.tick() == 0

    run(scenario())


def test_a_heartbeat_tells_when_the_last_call_began() -> None:
    async def scenario() -> None:
        process = Process()
        await process.lease.tick()
        process.engine.last_start = START
        await process.lease.tick()
        assert process.last_starts == [None, START]

    run(scenario())


def test_a_worker_that_cannot_renew_cuts_off_its_calls_before_its_lease_ends() -> None:
    async def scenario() -> None:
        process = Process()
        await process.lease.tick()
        process.broken = True
        process.clock.advance(4.4)
        with pytest.raises(StoreUnavailable):
            await process.lease.tick()
        await process.lease.guard()
        assert process.engine.cuts == 0
        process.clock.advance(0.2)
        await process.lease.guard()
        assert process.engine.cuts == 1

    run(scenario())


def test_the_clock_of_the_database_is_learned_from_the_heartbeat() -> None:
    async def scenario() -> None:
        process = Process()
        process.takes = 0.2
        process.answer = Answer(START + timedelta(hours=1))
        await process.lease.tick()
        # The answer was made somewhere within the round trip: the estimate may lag and never runs ahead.
        assert process.database_clock.now() == START + timedelta(hours=1)

    run(scenario())


def test_a_sample_over_a_slow_link_does_not_spoil_an_exact_one() -> None:
    clock = ManualClock()
    known = DatabaseClock(clock)
    at = clock.monotonic()
    known.sample(at - 0.01, at, START)
    known.sample(at - 2.0, at, START + timedelta(seconds=1.5))
    assert known.now() == START
    # In time the old sample loses its worth: clocks drift.
    clock.advance(10_000)
    known.sample(clock.monotonic() - 2.0, clock.monotonic(), START)
    assert known.now() == START


def test_what_postgresql_believes_to_run_here_and_does_not_is_given_back() -> None:
    async def scenario() -> None:
        process = Process()
        held, orphan, fresh = uuid4(), uuid4(), uuid4()
        uids = {token: uuid4() for token in (held, orphan, fresh)}
        old = START - ORPHAN_AGE - timedelta(seconds=1)
        process.engine.tokens = frozenset({held})
        process.answer = Answer(START, uids, {held: old, orphan: old, fresh: START - ORPHAN_AGE / 2})
        await process.lease.tick()
        # The fresh one may be a claim whose answer is still on its way.
        assert process.engine.given_back == [(orphan, uids[orphan])]

    run(scenario())


def test_a_claim_that_was_given_up_here_and_went_through_is_given_back_at_once() -> None:
    async def scenario() -> None:
        process = Process()
        token, uid = uuid4(), uuid4()
        process.engine.unanswered = frozenset({token, uuid4()})
        process.answer = Answer(START, {token: uid}, {token: START})
        await process.lease.tick()
        assert process.engine.given_back == [(token, uid)]
        assert process.engine.unanswered == frozenset()

    run(scenario())


def test_what_is_held_here_and_no_longer_ours_in_postgresql_is_let_go() -> None:
    async def scenario() -> None:
        process = Process()
        ours, lost, ended, claimed = (uuid4() for _ in range(4))
        process.engine.tokens = process.engine.held = frozenset({ours, lost, ended})
        process.answer = Answer(START, {ours: uuid4()}, {ours: START})

        def go_on() -> None:
            # One call ends and another execution is claimed while the heartbeat is under way: neither is lost.
            process.engine.tokens = process.engine.held = frozenset({ours, lost, claimed})

        process.meanwhile = go_on
        await process.lease.tick()
        assert process.engine.lost == {lost}
        assert process.engine.given_back == []

    run(scenario())


class Wishes:
    """Which of a worker's executions callers want to end."""

    def __init__(self, tokens: set[UUID]) -> None:
        self.tokens = tokens
        self.asked: list[UUID] = []

    async def cancellations(self, worker: UUID) -> set[UUID]:
        self.asked.append(worker)
        return self.tokens


def test_a_wish_to_cancel_reaches_the_running_call() -> None:
    async def scenario() -> None:
        engine, worker, wishes = Engine(ManualClock()), uuid4(), Wishes({uuid4()})
        canceller = Canceller(worker, wishes, engine)
        assert await canceller.tick() == CANCEL_PAUSE
        assert wishes.asked == []  # nothing runs, nobody is asked
        engine.tokens = frozenset({uuid4()})
        await canceller.tick()
        assert wishes.asked == [worker]
        assert engine.cancelled == wishes.tokens

    run(scenario())


class Term:
    """Whether this process leads, and since when its link has been sound."""

    def __init__(self) -> None:
        self.term: int | None = 3
        self.sound_since: float | None = ManualClock().monotonic()


class Recoveries:
    """The recovery, written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.broken = False

    async def __call__(self, term: int, grace: timedelta, *, dry_run: bool) -> int:
        if self.broken:
            raise StoreUnavailable
        self.calls.append((term, dry_run))
        return 0 if dry_run else 1


def test_only_the_leader_takes_back_the_executions_of_others() -> None:
    async def scenario() -> None:
        term, recover = Term(), Recoveries()
        term.term = None
        assert await Reaper(term, recover, ManualClock()).tick() == REAP_PAUSE
        assert recover.calls == []

    run(scenario())


def test_the_leader_judges_others_only_after_its_own_link_has_been_sound_for_a_while() -> None:
    async def scenario() -> None:
        clock, term, recover = ManualClock(), Term(), Recoveries()
        reaper = Reaper(term, recover, clock)
        await reaper.tick()
        clock.advance(SETTLE_SECONDS - 0.1)
        await reaper.tick()
        assert recover.calls == [(3, True), (3, True)]
        clock.advance(0.1)
        await reaper.tick()
        assert recover.calls[-1] == (3, False)

    run(scenario())


def test_a_break_of_the_link_makes_the_leader_wait_anew() -> None:
    async def scenario() -> None:
        clock, term, recover = ManualClock(), Term(), Recoveries()
        reaper = Reaper(term, recover, clock)
        await reaper.tick()
        clock.advance(SETTLE_SECONDS)
        recover.broken = True
        with pytest.raises(StoreUnavailable):
            await reaper.tick()
        recover.broken = False
        await reaper.tick()
        clock.advance(SETTLE_SECONDS - 0.1)
        await reaper.tick()
        assert [dry for _, dry in recover.calls[1:]] == [True, True]
        clock.advance(0.1)
        await reaper.tick()
        assert recover.calls[-1] == (3, False)

    run(scenario())


def test_a_new_leader_judges_at_once_when_its_link_was_sound_before() -> None:
    async def scenario() -> None:
        clock, term, recover = ManualClock(), Term(), Recoveries()
        reaper = Reaper(term, recover, clock)
        term.term = None
        await reaper.tick()
        clock.advance(SETTLE_SECONDS)
        term.term = 5
        await reaper.tick()
        assert recover.calls == [(5, False)]

    run(scenario())


def test_a_leader_whose_link_is_not_sound_judges_nobody() -> None:
    async def scenario() -> None:
        clock, term, recover = ManualClock(), Term(), Recoveries()
        reaper = Reaper(term, recover, clock)
        term.sound_since = None
        clock.advance(SETTLE_SECONDS)
        assert await reaper.tick() == REAP_PAUSE
        assert recover.calls == []
        term.sound_since = clock.monotonic()
        await reaper.tick()
        assert recover.calls == [(3, True)]

    run(scenario())
