"""The life of an execution, in one table.

Everything that moves an execution stands here: SQL guards, the database constraint, the proto enum and the diagram in
`docs/architecture.md` are tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where an execution stands."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


class Event(StrEnum):
    """What can happen to an execution."""

    RELEASE = "RELEASE"  # every gate is open
    SKIP = "SKIP"  # overlap, missed, paused, excluded, buffer full
    CANCEL = "CANCEL"  # a caller ends it before a worker holds it
    EXPIRE = "EXPIRE"  # its maximum age is reached
    CLAIM = "CLAIM"  # a worker takes it, with a token made beforehand
    GIVE_BACK = "GIVE_BACK"  # pause, breaker, update, drain
    SUCCEED = "SUCCEED"  # the target answered OK
    FAIL = "FAIL"  # a permanent answer, or the last attempt
    RETRY = "RETRY"  # a transient answer: later again, counted
    SNOOZE = "SNOOZE"  # a conflict, or the call was never begun: later again, not counted
    LOSE = "LOSE"  # the worker is gone: again, counted
    ABANDON = "ABANDON"  # the call was cancelled at a caller's wish and did not get through
    REDRIVE = "REDRIVE"  # an operator tries a failed one again


#: (state, event) -> next state. What is not here cannot happen.
TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PENDING, Event.RELEASE): State.QUEUED,
        (State.PENDING, Event.SKIP): State.SKIPPED,
        (State.PENDING, Event.CANCEL): State.CANCELLED,
        (State.PENDING, Event.EXPIRE): State.FAILED,
        (State.QUEUED, Event.CLAIM): State.RUNNING,
        (State.QUEUED, Event.GIVE_BACK): State.PENDING,
        (State.QUEUED, Event.SKIP): State.SKIPPED,
        (State.QUEUED, Event.CANCEL): State.CANCELLED,
        (State.QUEUED, Event.EXPIRE): State.FAILED,
        (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
        (State.RUNNING, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.ABANDON): State.CANCELLED,
        (State.RUNNING, Event.RETRY): State.PENDING,
        (State.RUNNING, Event.SNOOZE): State.PENDING,
        (State.RUNNING, Event.LOSE): State.PENDING,
        (State.FAILED, Event.REDRIVE): State.PENDING,
    }
)

#: States in which an execution holds a slot of its owner, job and target.
HOLDS_SLOT = frozenset({State.QUEUED, State.RUNNING})
#: States that may still lead to a call.
UNFINISHED = frozenset({State.PENDING, State.QUEUED, State.RUNNING})
#: States that nothing leads out of; FAILED is not one, since it may be redriven.
FINAL = frozenset({State.SUCCEEDED, State.CANCELLED, State.SKIPPED})


class ImpossibleTransition(Exception):
    """A (state, event) pair that the table does not hold: a defect of ours, never a caller's mistake."""


def next_state(state: State, event: Event) -> State:
    """The state that `event` leads to from `state`.

    Raises ImpossibleTransition when the table does not hold the pair.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{event} cannot happen to an execution that is {state}") from None
