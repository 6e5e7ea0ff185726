"""What parsing hides: two members of one oneof in the bytes, of which protobuf keeps the last without a word.

"Two kinds of schedule at once" can be told only from the bytes. Reading them here is slow beside the real parser, so it
is done only for messages whose bytes are longer than what was kept of them, which is rare: something was dropped then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from scheduling.domain.errors import Violation

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def find_oneof_clashes(raw: bytes, message: Message) -> list[Violation]:
    """A violation for each oneof of which `raw`, the bytes that `message` was parsed from, holds several members."""
    if message.ByteSize() >= len(raw):
        return []
    seen: dict[str, set[str]] = {}
    _walk(raw, cast("Descriptor", message.DESCRIPTOR), "", seen, {})
    return [
        Violation(path, f"exactly one of {', '.join(sorted(members))} may be given", "ONEOF_CLASH")
        for path, members in seen.items()
        if len(members) > 1
    ]


def _walk(raw: bytes, descriptor: Descriptor, prefix: str, seen: dict[str, set[str]], counts: dict[str, int]) -> None:
    for number, chunk in _fields(raw):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        path = f"{prefix}{field.name}"
        oneof = field.containing_oneof
        # proto3 `optional` is a oneof of one member, named after it.
        if oneof is not None and oneof.name != f"_{field.name}":
            seen.setdefault(f"{prefix}{oneof.name}", set()).add(field.name)
        if chunk is None or field.message_type is None or field.message_type.file.package == "google.protobuf":
            continue
        if field.is_repeated:
            index = counts[path] = counts.get(path, -1) + 1
            path = f"{path}[{index}]"
        _walk(chunk, field.message_type, f"{path}.", seen, counts)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Field numbers, with the bytes of length-delimited ones.

    `raw` has been parsed before, so it is well formed. A group ends the walk: our messages have none.
    """
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, position = _varint(raw, position)
            yield number, None
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
            yield number, None
        elif kind == _LENGTH:
            length, position = _varint(raw, position)
            yield number, raw[position : position + length]
            position += length
        else:
            return


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
