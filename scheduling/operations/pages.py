"""The common part of list calls: filter, order and token become a page that the store can read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from scheduling.domain.filters import FilterField, parse_filter, parse_order_by
from scheduling.domain.paging import PageToken, page_size
from scheduling.operations.drafts import ListQuery
from scheduling.operations.ports import Page, PageRequest

#: With payloads a page holds at most so many items: each may be 1 MB, and all are read before they are measured.
MAX_PAYLOAD_ITEMS = 50

T = TypeVar("T")
Position = tuple[str | int | None, ...]


async def read_page(
    query: ListQuery,
    *,
    parent: str,
    fields: Mapping[str, FilterField],
    orders: Sequence[str],
    principals: frozenset[str] | None = None,
    read: Callable[[PageRequest], Awaitable[tuple[Sequence[T], Position | None]]],
) -> Page[T]:
    """One page. The token is bound to everything but the page's size. Raises InvalidRequest."""
    bound: dict[str, str | bool] = {
        "parent": parent,
        "filter": query.filter,
        "order": query.order_by,
        "payload": query.with_payload,
    }
    order = parse_order_by(query.order_by, orders)
    token = PageToken.decode(query.page_token, bound)
    request = PageRequest(
        size=min(page_size(query.page_size), MAX_PAYLOAD_ITEMS) if query.with_payload else page_size(query.page_size),
        order=order.field,
        descending=order.descending,
        filter=parse_filter(query.filter, fields),
        principals=principals,
        after=None if token is None else token.position,
        with_payload=query.with_payload,
    )
    items, position = await read(request)
    return Page(items, "" if position is None else PageToken(position).encode(bound))
