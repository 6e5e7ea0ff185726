"""The life of an execution: every (state, event) pair, and what else speaks of states agrees with the table."""

from __future__ import annotations

import pytest
from whispr.scheduling.v1 import execution_pb2

from scheduling.domain.lifecycle import (
    FINAL,
    HOLDS_SLOT,
    TRANSITIONS,
    UNFINISHED,
    Event,
    ImpossibleTransition,
    State,
    next_state,
)

#: Design §5, line by line: from, to, the events that lead there.
LIFE: list[tuple[str, str, str]] = [
    ("PENDING", "QUEUED", "RELEASE"),
    ("PENDING QUEUED", "SKIPPED", "SKIP"),
    ("PENDING QUEUED", "CANCELLED", "CANCEL"),
    ("PENDING QUEUED", "FAILED", "EXPIRE"),
    ("QUEUED", "RUNNING", "CLAIM"),
    ("QUEUED", "PENDING", "GIVE_BACK"),
    ("RUNNING", "SUCCEEDED", "SUCCEED"),
    ("RUNNING", "FAILED", "FAIL"),
    ("RUNNING", "CANCELLED", "ABANDON"),
    ("RUNNING", "PENDING", "RETRY SNOOZE LOSE"),
    ("FAILED", "PENDING", "REDRIVE"),
]
EXPECTED = {
    (State(before), Event(event)): State(after)
    for befores, after, events in LIFE
    for before in befores.split()
    for event in events.split()
}


@pytest.mark.parametrize("event", list(Event))
@pytest.mark.parametrize("state", list(State))
def test_an_event_leads_where_the_design_says_or_cannot_happen(state: State, event: Event) -> None:
    expected = EXPECTED.get((state, event))
    if expected is None:
        with pytest.raises(ImpossibleTransition, match=rf"{event} cannot happen.*{state}"):
            next_state(state, event)
    else:
        assert next_state(state, event) is expected


def test_nothing_leads_out_of_a_final_state() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - FINAL


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {State.PENDING}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)


def test_every_unfinished_state_has_a_way_to_each_end() -> None:
    for start in UNFINISHED:
        reached = {start}
        for _ in State:
            reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
        assert reached >= FINAL | {State.FAILED}


def test_a_slot_is_held_from_release_until_the_end_of_the_attempt() -> None:
    assert next_state(State.PENDING, Event.RELEASE) in HOLDS_SLOT
    assert next_state(State.QUEUED, Event.CLAIM) in HOLDS_SLOT
    assert {State.PENDING, *HOLDS_SLOT} == UNFINISHED


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.FAILED, Event.CLAIM] = State.RUNNING  # type: ignore[index]


def test_the_proto_enum_has_exactly_these_states() -> None:
    names = set(execution_pb2.Execution.State.keys())
    assert names == {"STATE_UNSPECIFIED", *(state.value for state in State)}
