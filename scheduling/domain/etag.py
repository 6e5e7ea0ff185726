"""Etags (AIP-154): a revision that cannot be mistaken for that of another resource with the same name."""

from __future__ import annotations

from uuid import UUID


def etag(uid: UUID, revision: int) -> str:
    """The etag of the resource `uid` at `revision`."""
    return etag_by_text(uid.hex, revision)


def etag_by_text(uid: str, revision: int) -> str:
    """`etag` for who has the uid as text."""
    return f"{uid[-12:]}-{revision}"
