"""Walks over pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from scheduling.operations.ports import PageRequest

T = TypeVar("T")
Read = Callable[[PageRequest], Awaitable[tuple[Sequence[T], tuple[str | int | None, ...] | None]]]


async def walk(read: Read[T], size: int, order: str, *, descending: bool, filter_: Any = None) -> list[T]:
    """All items, page by page."""
    found: list[T] = []
    after: tuple[str | int | None, ...] | None = None
    while True:
        items, after = await read(PageRequest(size, order, descending, filter_, after))
        assert len(items) <= size
        assert len(items) == size or after is None
        found += items
        if after is None:
            return found
