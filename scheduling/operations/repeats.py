"""Repeats: a call that a caller made safe to repeat is answered like the first one, whatever has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from scheduling.domain.errors import AlreadyExists
from scheduling.operations.drafts import Repeat
from scheduling.operations.ports import Ports


async def find_answer(ports: Ports, principal: str, repeat: Repeat) -> Sequence[UUID] | None:
    """The uids of what the first call made; None if this is the first, or no request_id was given.

    Raises AlreadyExists when the first call had another body.
    """
    if not repeat.request_id:
        return None
    return await ports.store.find_answer(principal, repeat.request_id, repeat.digest)


def answer_deleted(repeat: Repeat) -> AlreadyExists:
    """The error for a repeat whose first answer was deleted in between."""
    return AlreadyExists(
        f"what request_id {repeat.request_id!r} made was deleted since; a new request needs a new request_id",
        resource_type="request_id",
        name=repeat.request_id,
        reason="REQUEST_ANSWER_DELETED",
    )
