"""Lists: filters turned into SQL, and pages by keyset.

A keyset page costs the same wherever it is, and never shows an item twice or hides one that was there all along.

Where a filter lets few through, a page would have to look at all there is. It is looked for stretch by stretch, each
bounded by the rows that are looked at, and after some time the page is what was found so far: perhaps nothing, with a
token that goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.errors import invalid
from scheduling.domain.filters import And, Comparison, Expression, Not, Op, Or
from scheduling.operations.ports import PageRequest

Column = sa.ColumnElement[Any]
Position = tuple[str | int | None, ...]

#: Payloads in one page: gRPC clients take answers of 4 MiB by default.
MAX_PAGE_BYTES = 3 * 1024 * 1024

#: Rows that one statement looks at for those that a filter lets through, in each of the tables that it reads.
STRETCH = 5_000
#: Seconds after which a page is what was found by then.
PATIENCE = 1.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column that a list may be ordered by, and how its value travels in a page token."""

    column: Column
    encode: Callable[[Any], str | int]
    decode: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Walk:
    """An index along which a list looks for what a filter lets through: its keys in the order of the list, and what all
    have in common that are looked at. Both have to be one index, or the look itself has no bound.
    """

    keys: Sequence[SortKey]
    within: Sequence[sa.ColumnElement[bool]] = ()


def uid_key(column: Column) -> SortKey:
    """Order by uid, which is the order of creation."""
    return SortKey(column, str, UUID)


def text_key(column: Column) -> SortKey:
    """Order by a text."""
    return SortKey(column, str, str)


def time_key(column: Column) -> SortKey:
    """Order by a time."""

    def encode(value: datetime) -> int:
        return (value - _EPOCH) // timedelta(microseconds=1)

    def decode(value: int) -> datetime:
        return _EPOCH + timedelta(microseconds=value)

    return SortKey(column, encode, decode)


def condition(expression: Expression, columns: Mapping[str, Column]) -> sa.ColumnElement[bool]:
    """A filter as a condition. A missing value matches no comparison; NOT is true wherever its operand is not."""
    match expression:
        case And(operands):
            return sa.and_(*(condition(each, columns) for each in operands))
        case Or(operands):
            return sa.or_(*(condition(each, columns) for each in operands))
        case Not(operand):
            return sa.not_(sa.func.coalesce(condition(operand, columns), sa.false()))
        case Comparison():
            return _comparison(expression, columns[expression.field])


def _comparison(each: Comparison, field: Column) -> sa.ColumnElement[bool]:
    column: Any = field if each.key is None else field.op("->>", return_type=sa.Text())(each.key)
    # Bound as the column's own type, a number beyond its range would be an error rather than no match.
    is_number = isinstance(each.value, int) and not isinstance(each.value, bool)
    value: Any = sa.literal(each.value, sa.BigInteger()) if is_number else each.value
    if each.field == "state":
        # In the statement itself: behind a parameter, the indexes of dead letters would not be considered.
        value = sa.bindparam(None, each.value, sa.Text(), unique=True, literal_execute=True)
    match each.op:
        case Op.EQ:
            result = column == value
        case Op.NE:
            result = column != value
        case Op.LT:
            result = column < value
        case Op.LE:
            result = column <= value
        case Op.GT:
            result = column > value
        case Op.GE:
            result = column >= value
        case Op.STARTS_WITH:
            result = column.startswith(value, autoescape=True)
        case Op.ENDS_WITH:
            result = column.endswith(value, autoescape=True)
        case Op.CONTAINS:
            result = column.contains(value, autoescape=True)
        case Op.PRESENT:
            result = column.is_not(None)
    checked: sa.ColumnElement[bool] = result
    return checked


def page_bounds(
    select: sa.Select[Any],
    page: PageRequest,
    keys: Sequence[SortKey],
    columns: Mapping[str, Column],
    until: Position | None = None,
) -> sa.Select[Any]:
    """The select narrowed to one page, up to `until`, and one item more, which tells whether there is a next page."""
    if page.filter is not None:
        select = select.where(condition(page.filter, columns))
    return _in_order(select, page, keys, until).limit(page.size + 1)


def _in_order(
    select: sa.Select[Any], page: PageRequest, keys: Sequence[SortKey], until: Position | None = None
) -> sa.Select[Any]:
    here = sa.tuple_(*(key.column for key in keys))
    if page.after is not None:
        there = _place(page.after, keys)
        select = select.where(here < there if page.descending else here > there)
    if until is not None:
        there = _place(until, keys)
        select = select.where(here >= there if page.descending else here <= there)
    return select.order_by(*(key.column.desc() if page.descending else key.column.asc() for key in keys))


def _place(position: Position, keys: Sequence[SortKey]) -> Any:
    try:
        values = [key.decode(value) for key, value in zip(keys, position, strict=True)]
    except (ValueError, TypeError, OverflowError, AttributeError):
        raise invalid("page_token", "expected the next_page_token of an earlier answer", "INVALID_PAGE_TOKEN") from None
    return sa.tuple_(*(sa.literal(value, key.column.type) for key, value in zip(keys, values, strict=True)))


def of_principals(
    bounded: sa.Select[Any],
    principal: Column,
    page: PageRequest,
    keys: Sequence[SortKey],
    *,
    indexed: sa.ColumnElement[bool] | None = None,
    few: sa.ColumnElement[bool] | None = None,
) -> sa.Select[Any]:
    """The page narrowed to what belongs to `page.principals`: one look for each of them, by an index that begins with
    the principal, and the first ones of all. Nothing of others is read, however much there is.

    Where that index has not all rows, `indexed` is its condition and `few` that of the rest, which is read as a whole.
    """
    each = []
    for one in sorted(page.principals or ()):
        look = bounded.where(principal == one)
        if indexed is not None and few is not None:
            # Without an order of its own, or the planner might look for few among all in that order.
            each.append(sa.select(look.where(few).order_by(None).limit(None).subquery()))
            look = look.where(indexed)
        each.append(sa.select(look.subquery()))
    merged = sa.union_all(*each).subquery()
    columns = [merged.c[str(key.column.key)] for key in keys]
    order = [column.desc() if page.descending else column.asc() for column in columns]
    return sa.select(merged).order_by(*order).limit(page.size + 1)


async def read_page(
    connection: AsyncConnection, select: sa.Executable, page: PageRequest, keys: Sequence[SortKey]
) -> tuple[Sequence[Mapping[str, Any]], Position | None]:
    """The rows of one page, and the position after its last one if more follow.

    A page with payloads may be shorter than asked for, so that an answer stays within what clients take.
    """
    rows: Sequence[Mapping[Any, Any]] = (await connection.execute(select)).mappings().all()
    fitting = _fitting(rows) if page.with_payload else len(rows)
    if len(rows) <= page.size and fitting == len(rows):
        return rows, None
    shown = rows[: min(page.size, fitting)]
    return shown, tuple(key.encode(shown[-1][key.column.key]) for key in keys)


async def read_stretches(
    connection: AsyncConnection,
    build: Callable[[PageRequest, Position | None], sa.Executable],
    page: PageRequest,
    keys: Sequence[SortKey],
    walks: Sequence[Walk],
) -> tuple[Sequence[Mapping[str, Any]], Position | None]:
    """Like `read_page`, of what `build` makes of a page and of the place up to which it may look.

    A page is read in one go unless there are `walks`, whose keys are comparable with `keys`: then it may be shorter
    than asked for, even empty, while more follow. The position tells.
    """
    clock = asyncio.get_running_loop()
    ends_at = clock.time() + PATIENCE
    found: list[Mapping[str, Any]] = []
    while True:
        until = await _horizon(connection, page, keys, walks)
        rows, position = await read_page(connection, build(page, until), page, keys)
        found += rows
        if position is not None or until is None:
            return found, position
        # What is found of payloads was measured for one stretch alone.
        is_enough = len(rows) == page.size or (page.with_payload and found)
        if is_enough or clock.time() >= ends_at:
            return found, until
        page = replace(page, size=page.size - len(rows), after=until)


async def _horizon(
    connection: AsyncConnection, page: PageRequest, keys: Sequence[SortKey], walks: Sequence[Walk]
) -> Position | None:
    """Where the first of the walks has gone a stretch; None when all of them end before."""
    ends = []
    for walk in walks:
        columns = [key.column.label(f"key_{number}") for number, key in enumerate(walk.keys)]
        select = _in_order(sa.select(*columns).where(*walk.within), page, walk.keys).offset(STRETCH - 1).limit(1)
        row = (await connection.execute(select)).first()
        if row is not None:
            ends.append(tuple(row))
    if not ends:
        return None
    first = max(ends) if page.descending else min(ends)
    return tuple(key.encode(value) for key, value in zip(keys, first, strict=True))


def named(expression: Expression | None, field: str) -> frozenset[str] | None:
    """The values of a field that a filter lets through, if it names them; None when there may be others."""
    match expression:
        case Comparison(field=found, op=Op.EQ, value=str() as value) if found == field:
            return frozenset({value})
        case And(operands):
            each = [values for operand in operands if (values := named(operand, field)) is not None]
            return frozenset.intersection(*each) if each else None
        case Or(operands):
            all_ = [named(operand, field) for operand in operands]
            return None if None in all_ else frozenset().union(*(values for values in all_ if values is not None))
    return None


def _fitting(rows: Sequence[Mapping[Any, Any]]) -> int:
    """How many of the rows, at least one, have payloads of MAX_PAGE_BYTES together."""
    total = 0
    for count, row in enumerate(rows):
        total += sum(len(row.get(name) or b"") for name in ("request", "response"))
        if total > MAX_PAGE_BYTES:
            return max(count, 1)
    return len(rows)
