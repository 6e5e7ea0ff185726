"""Rules of operations in bulk: their ids, their pace, and the owner that shortens a walk."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.bulk import MAX_RATE, Pace, operation_id, parse_operation_id
from scheduling.domain.filters import parse_filter
from scheduling.domain.policy import EVERYTHING, Access, Globs, Grant
from scheduling.operations.jobs import JOB_FIELDS
from scheduling.storage.selecting import _owner_of


@given(st.uuids())
def test_an_id_is_read_back_as_the_uid(uid: UUID) -> None:
    assert parse_operation_id(operation_id(uid)) == uid


@pytest.mark.parametrize(
    "text", ["", "o-", "o-1", "e-01234567-89ab-7cde-8f01-23456789abcd", "o-01234567-89AB-7CDE-8F01-23456789ABCD"]
)
def test_another_text_is_no_id(text: str) -> None:
    assert parse_operation_id(text) is None


@given(st.integers(1, MAX_RATE))
def test_pieces_and_pauses_keep_to_the_rate(rate: int) -> None:
    pace = Pace(rate)
    assert pace.piece >= 1
    assert pace.piece / pace.pause(pace.piece).total_seconds() <= rate * 1.001
    # What was less than a full piece is waited for less.
    assert pace.pause(1) <= pace.pause(pace.piece)
    assert pace.pause(0) == timedelta(0)


@pytest.mark.parametrize(
    ("filter_", "owner"),
    [
        ("owner = u-1", "u-1"),
        ('state = ACTIVE AND owner = "u-1"', "u-1"),
        ("owner = u-1 OR owner = u-2", None),
        ("NOT owner = u-1", None),
        ("owner != u-1", None),
        ('owner = "u-*"', None),
        ("labels.owner = u-1", None),
        ("queue = HIGH", None),
    ],
)
def test_a_walk_is_shortened_only_by_an_owner_that_every_match_has(filter_: str, owner: str | None) -> None:
    assert _owner_of(parse_filter(filter_, JOB_FIELDS)) == owner


ANYONE, EVERY = Globs(("*", "spiffe://*")), Globs(("*",))


@pytest.mark.parametrize(
    ("rpc", "grants", "reached"),
    [
        ("BatchCancelJobs", [Grant(None, EVERY)], {"me"}),
        ("BatchCancelJobs", [Grant(None, EVERY, jobs=frozenset({"other"}))], {"me", "other"}),
        ("EraseJobs", [Grant(None, EVERY, jobs=None)], None),
        ("BatchRetryExecutions", [Grant(None, EVERY, EVERY, ANYONE, jobs=None)], None),
        ("BatchRetryExecutions", [Grant(None, EVERY, EVERY, ANYONE, jobs=frozenset({"other"}))], {"me", "other"}),
        # Some targets, or some owners, are not all: only one's own jobs, which were granted when they were made.
        ("BatchRetryExecutions", [Grant(None, EVERY, Globs(("a.*",)), ANYONE, jobs=None)], {"me"}),
        ("BatchRetryExecutions", [Grant(None, EVERY, EVERY, EVERY, jobs=None)], {"me"}),
        # Two grants do not add up.
        ("BatchRetryExecutions", [Grant(None, EVERY, jobs=None), Grant(None, EVERY, EVERY, ANYONE)], {"me"}),
    ],
)
def test_in_bulk_only_jobs_are_reached_that_a_single_grant_allows(
    rpc: str, grants: list[Grant], reached: set[str] | None
) -> None:
    found = Access("me", f"SchedulingService/{rpc}", grants).principals_in_bulk
    assert found == (None if reached is None else frozenset(reached))
    assert EVERYTHING.principals_in_bulk is None
