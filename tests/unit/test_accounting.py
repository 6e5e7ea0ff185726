"""The books of a schedule: what `verify` finds, and that it does find it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain import accounting
from scheduling.domain.accounting import Ledger, audit
from scheduling.domain.timing import Interval, Timing

HOUR = timedelta(hours=1)
T0 = datetime(2031, 7, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    return T0 + hour * HOUR


def ats(*hours: float) -> list[datetime]:
    return [at(hour) for hour in hours]


def ledger(nominals: Sequence[datetime], gaps: Sequence[tuple[datetime, datetime]] = (), **more: Any) -> Ledger:
    """An hourly schedule since T0; it is half past five, and the plan for six is made."""
    values: dict[str, Any] = {
        "name": "jobs/a/schedules/b",
        "timing": Timing(Interval(HOUR)),
        "since": T0,
        "until": at(6),
        "nominals": nominals,
        "gaps": gaps,
        "paused": False,
        "is_spent": False,
    }
    return Ledger(**values | more)


NOW = at(5.5)
ALL = ats(1, 2, 3, 4, 5, 6)


def test_executions_and_gaps_account_for_everything() -> None:
    for gaps, nominals in (((), ALL), ([(at(2), at(4))], ats(1, 5, 6)), ([(at(1), at(1)), (at(3), at(6))], ats(2))):
        account = audit(ledger(nominals, gaps), NOW)
        assert account.is_sound
        assert account.expected == 6


@pytest.mark.parametrize("lost", range(6))
def test_a_lost_execution_is_found(lost: int) -> None:
    account = audit(ledger([each for n, each in enumerate(ALL) if n != lost]), NOW)
    assert (account.unaccounted, account.doubled, account.unexpected) == ((ALL[lost],), (), ())
    assert not account.is_sound


@pytest.mark.parametrize("double", range(6))
def test_a_doubled_execution_is_found(double: int) -> None:
    account = audit(ledger([*ALL, ALL[double]]), NOW)
    assert (account.unaccounted, account.doubled, account.unexpected) == ((), (ALL[double],), ())


def test_an_execution_in_a_gap_is_doubled_and_so_are_two_gaps() -> None:
    assert audit(ledger(ALL, [(at(2), at(3))]), NOW).doubled == tuple(ats(2, 3))
    assert audit(ledger(ats(1, 4, 5, 6), [(at(2), at(3)), (at(3), at(3))]), NOW).doubled == (at(3),)


def test_an_execution_that_the_timing_does_not_have_is_unexpected() -> None:
    account = audit(ledger([*ALL, at(2.5)]), NOW)
    assert (account.unaccounted, account.doubled, account.unexpected) == ((), (), (at(2.5),))


def test_a_plan_beyond_the_one_plan_ahead_is_unexpected() -> None:
    assert audit(ledger([*ALL, at(7)]), NOW).unexpected == (at(7),)
    # Not while it is behind: then nothing is said about what is to come.
    assert audit(ledger([*ALL, at(7)]), at(8)).is_sound


def test_what_was_before_the_timing_is_not_looked_at() -> None:
    assert audit(ledger([at(-1), at(-0.5), *ALL], [(at(-3), at(-2))]), NOW).is_sound
    # A gap that reaches into it counts from there.
    assert audit(ledger(ats(3, 4, 5, 6), [(at(-3), at(2))]), NOW).is_sound


def test_what_an_earlier_timing_left_over_counts_but_is_no_error() -> None:
    left = frozenset(ats(5.75, 6))
    assert audit(ledger([*ats(1, 2, 3, 4, 5), *left], left_over=left), NOW).is_sound
    assert audit(ledger([*ats(1, 2, 3, 4, 5), *left]), NOW).unexpected == (at(5.75),)


def test_a_finished_schedule_is_looked_at_up_to_now() -> None:
    ended = Timing(Interval(HOUR), end=at(4))
    assert audit(ledger(ats(1, 2, 3), until=None, timing=ended), NOW).is_sound
    assert audit(ledger(ats(1, 2), until=None, timing=ended), NOW).unaccounted == (at(3),)
    assert audit(ledger(ats(1, 2, 3), until=None), NOW).unaccounted == tuple(ats(4, 5))


def test_a_spent_schedule_is_looked_at_up_to_its_last_execution() -> None:
    assert audit(ledger(ats(1, 2, 3), until=None, is_spent=True), NOW).is_sound
    assert audit(ledger(ats(1, 3), until=None, is_spent=True), NOW).unaccounted == (at(2),)
    assert audit(ledger([], until=None, is_spent=True), NOW).is_sound


def test_a_paused_schedule_is_looked_at_up_to_the_pause() -> None:
    assert audit(ledger(ats(1, 2, 3), until=at(3.5), paused=True), NOW).is_sound
    assert audit(ledger(ats(1, 3), until=at(3.5), paused=True), NOW).unaccounted == (at(2),)


def test_of_a_long_life_the_latest_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "MAX_FIRINGS", 4)
    account = audit(ledger(ALL), NOW)
    assert (account.expected, account.is_sound) == (4, True)
    assert audit(ledger(ats(1, 2, 3, 4, 6)), NOW).unaccounted == (at(5),)
    assert audit(ledger(ats(3, 4, 5, 6)), NOW).is_sound
    assert audit(ledger(ALL[3:], [(at(1), at(3))]), NOW).is_sound


@given(st.lists(st.integers(0, 2), min_size=24, max_size=24), st.lists(st.booleans(), min_size=24, max_size=24))
def test_whatever_is_stored_each_firing_is_counted_as_it_is(copies: list[int], in_gap: list[bool]) -> None:
    hours = range(1, 25)
    nominals = [at(hour) for hour, count in zip(hours, copies, strict=True) for _ in range(count)]
    gaps = []
    for covered, group in itertools.groupby(zip(hours, in_gap, strict=True), key=lambda pair: pair[1]):
        members = [hour for hour, _ in group]
        if covered:
            gaps.append((at(members[0]), at(members[-1])))
    account = audit(ledger(nominals, gaps, until=at(24)), at(23.5))
    totals = [count + covered for count, covered in zip(copies, in_gap, strict=True)]
    assert account.unaccounted == tuple(at(hour) for hour, total in zip(hours, totals, strict=True) if total == 0)
    assert account.doubled == tuple(at(hour) for hour, total in zip(hours, totals, strict=True) if total > 1)
    assert account.unexpected == ()
