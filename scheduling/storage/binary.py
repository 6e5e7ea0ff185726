"""Columns in PostgreSQL's binary format, for statements that carry many rows.

psycopg adapts lists element by element, and escapes each text in them: half of what a batch of creations cost. Here a
column is encoded at once, one whose values are all the same without looking at each, and then sent as an array
parameter or as a COPY.

A column has the name of its SQL type. `words` is a `text[]` that is given as one text, parted by spaces, since arrays
of arrays would have to be rectangular. Times may be the text `infinity`, which Python's datetime has no value for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any
from uuid import UUID

from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_NULL = b"\xff\xff\xff\xff"
_NAMED = re.compile(r"(?<!%)%\((\w+)\)s")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITY = 2**63 - 1
_DAY, _SECOND = 86_400_000_000, 1_000_000

_int = Struct("!i").pack
_int2, _int4, _int8 = Struct("!ih").pack, Struct("!ii").pack, Struct("!iq").pack
_float8, _bool = Struct("!id").pack, Struct("!i?").pack
_interval = Struct("!iqii").pack
_array = Struct("!iiiii").pack
_copy_fields = Struct("!h").pack
# Signature, no flags, no header extension; a row of -1 fields ends it.
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def _text(value: str) -> bytes:
    raw = value.encode()
    return _int(len(raw)) + raw


def _bytea(value: bytes) -> bytes:
    return _int(len(value)) + value


def _jsonb(value: str) -> bytes:
    # The format's version is the first byte.
    return _bytea(b"\1" + value.encode())


def _uuid(value: UUID) -> bytes:
    return b"\0\0\0\x10" + value.bytes


def _micros(span: timedelta) -> int:
    return span.days * _DAY + span.seconds * _SECOND + span.microseconds


def _timestamptz(value: datetime | str) -> bytes:
    return _int8(8, _INFINITY if isinstance(value, str) else _micros(value - _EPOCH))


def _timedelta(value: timedelta) -> bytes:
    return _interval(16, value.seconds * _SECOND + value.microseconds, value.days, 0)


def _words(value: str) -> bytes:
    return _bytea(_array_of("text", [_text(word) for word in value.split()]))


#: The object id of each type (pg_type.dat), and how a value of it is encoded, its length in front.
_KINDS: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "bool": (16, lambda value: _bool(1, value)),
    "bytea": (17, _bytea),
    "int2": (21, lambda value: _int2(2, value)),
    "int4": (23, lambda value: _int4(4, value)),
    "text": (25, _text),
    "float8": (701, lambda value: _float8(8, value)),
    "words": (1009, _words),
    "timestamptz": (1184, _timestamptz),
    "interval": (1186, _timedelta),
    "uuid": (2950, _uuid),
    "jsonb": (3802, _jsonb),
}


def _texts(values: Sequence[str | None]) -> list[bytes]:
    return [_NULL if value is None else _int(len(raw := value.encode())) + raw for value in values]


def _byteas(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _int(len(value)) + value for value in values]


def _uuids(values: Sequence[UUID | None]) -> list[bytes]:
    # `bytes` of a UUID is a property of Python's, twice as dear.
    return [_NULL if value is None else b"\0\0\0\x10" + value.int.to_bytes(16, "big") for value in values]


def _times(values: Sequence[datetime | str | None]) -> list[bytes]:
    pack, epoch = _int8, _EPOCH
    return [
        pack(8, ((past := value - epoch).days * 86_400 + past.seconds) * _SECOND + past.microseconds)
        if isinstance(value, datetime)
        else _NULL
        if value is None
        else _timestamptz(value)
        for value in values
    ]


#: The kinds that differ from row to row, encoded without a call for each value.
_AT_ONCE: Mapping[str, Callable[[list[Any]], list[bytes]]] = {
    "bytea": _byteas,
    "text": _texts,
    "timestamptz": _times,
    "uuid": _uuids,
}


class Encoded(bytes):
    """A parameter in binary format. The statement says of which type it is, with a cast."""

    __slots__ = ()


class EncodedDumper(Dumper):
    """Sends `Encoded` as it is. The server takes the type from the cast."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Encoded) -> Buffer:
        """The bytes."""
        return obj


def _is_steady(values: list[Any]) -> bool:
    first = values[0]
    return bool(first == values[-1]) and values.count(first) == len(values)


def encode(kind: str, values: list[Any]) -> list[bytes]:
    """The values of a column, each with its length in front; None as NULL. Raises KeyError for an unknown kind."""
    _, encode_one = _KINDS[kind]
    if not values:
        return []
    if _is_steady(values):
        return [_NULL if values[0] is None else encode_one(values[0])] * len(values)
    at_once = _AT_ONCE.get(kind)
    if at_once is not None:
        return at_once(values)
    return [_NULL if value is None else encode_one(value) for value in values]


def array(kind: str, values: list[Any]) -> Encoded:
    """The values as a one-dimensional array, a parameter for `unnest`."""
    return Encoded(_array_of(kind, encode(kind, values)))


@lru_cache(maxsize=1024)
def _same_array(kind: str, value: Hashable, count: int) -> Encoded:
    return array(kind, [value] * count)


def steady_array(kind: str, values: list[Any]) -> Encoded:
    """`array` for a column that mostly holds one value, and the same one each time: such arrays are kept."""
    if not values or values.count(values[0]) < len(values):
        return array(kind, values)
    return _same_array(kind, values[0], len(values))


class Copies:
    """Rows for several tables that are copied one after the other. What two columns have in common is encoded once."""

    def __init__(self) -> None:
        self._encoded: dict[str, list[tuple[list[Any], list[bytes]]]] = {}

    def rows(self, kinds: Mapping[str, str], columns: Mapping[str, list[Any]]) -> tuple[list[str], bytes]:
        """The columns in the order in which they go, and the rows as the whole of a COPY … (FORMAT binary).

        Columns that hold one value throughout go last, as one piece.
        """
        varied: dict[str, list[bytes]] = {}
        steady: dict[str, bytes] = {}
        for name, kind in kinds.items():
            values = columns[name]
            if values and _is_steady(values):
                steady[name] = _NULL if values[0] is None else _KINDS[kind][1](values[0])
            else:
                varied[name] = self._encode(kind, values)
        count = len(columns[next(iter(kinds))])
        if not count:
            return [*kinds], _COPY_HEAD + _COPY_END
        fields, rest = _copy_fields(len(kinds)), b"".join(steady.values())
        # Behind each row stands how many fields the next one has, or the end.
        ends = [rest + fields] * (count - 1) + [rest + _COPY_END]
        rows = chain.from_iterable(zip(*varied.values(), ends, strict=True))
        return [*varied, *steady], b"".join(chain([_COPY_HEAD, fields], rows))

    def _encode(self, kind: str, values: list[Any]) -> list[bytes]:
        known = self._encoded.setdefault(kind, [])
        for others, encoded in known:
            # Mostly the very same objects, or others from the first on.
            if others == values:
                return encoded
        known.append((values, encoded := encode(kind, values)))
        return encoded


class Numbered:
    """A statement with named placeholders, `%(name)s`, made ready for a raw cursor of psycopg.

    psycopg would turn the names into numbers at each execution: for long statements, and for those of more than 50
    parameters, it does not remember them. A percent sign that is meant as such is written twice.
    """

    def __init__(self, statement: str) -> None:
        numbers: dict[str, str] = {}
        text = _NAMED.sub(lambda found: numbers.setdefault(found[1], f"${len(numbers) + 1}"), statement)
        self.text = text.replace("%%", "%").encode()
        self.names = tuple(numbers)

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters in the order of their numbers."""
        return [parameters[name] for name in self.names]


def _array_of(kind: str, elements: Sequence[bytes]) -> bytes:
    if not elements:
        return bytes(8) + _int(_KINDS[kind][0])
    # One dimension, perhaps with nulls, counted from 1.
    return _array(1, 1, _KINDS[kind][0], len(elements), 1) + b"".join(elements)
