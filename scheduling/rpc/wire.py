"""What parsing hides: two members of one oneof in the bytes, of which protobuf keeps the last without a word.

"Two kinds of schedule at once" can be told only from the bytes. Reading them here is slow beside the real parser, so it
is done only for messages that do not serialise to the same bytes again, and only where there is a oneof inside. Lengths
alone would not do: what was dropped may be outweighed by what is written longer than it came (an unpacked number, a map
entry without its key).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from scheduling.domain.errors import Violation

_VARINT, _FIXED64, _LENGTH, _GROUP_START, _GROUP_END, _FIXED32 = 0, 1, 2, 3, 4, 5


def find_oneof_clashes(raw: bytes, message: Message) -> list[Violation]:
    """A violation for each oneof of which `raw`, the bytes that `message` was parsed from, holds several members."""
    if message.SerializeToString() == raw:
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
        if (oneof := _oneof(field)) is not None:
            seen.setdefault(f"{prefix}{oneof}", set()).add(field.name)
        if chunk is None or field.message_type is None or not _holds_oneof(field.message_type):
            continue
        if field.is_repeated:
            index = counts[path] = counts.get(path, -1) + 1
            path = f"{path}[{index}]"
        _walk(chunk, field.message_type, f"{path}.", seen, counts)


def _oneof(field: FieldDescriptor) -> str | None:
    """The oneof that the field is a member of. proto3 `optional` is a oneof of one member, named after it."""
    oneof = field.containing_oneof
    return None if oneof is None or oneof.name == f"_{field.name}" else oneof.name


@cache
def _holds_oneof(descriptor: Descriptor) -> bool:
    """Whether the message or one inside it has a oneof. Those of google.protobuf are not ours to judge."""
    if descriptor.file.package == "google.protobuf":
        return False
    open_types, known = [descriptor], {descriptor.full_name}
    while open_types:
        for field in open_types.pop().fields:
            if _oneof(field) is not None:
                return True
            inner = field.message_type
            if inner is None or inner.full_name in known or inner.file.package == "google.protobuf":
                continue
            known.add(inner.full_name)
            open_types.append(inner)
    return False


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Field numbers, with the bytes of length-delimited ones.

    `raw` has been parsed before, so it is well formed. Groups are passed over: our messages have none.
    """
    position = depth = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        number, kind = key >> 3, key & 7
        chunk = None
        if kind == _VARINT:
            _, position = _varint(raw, position)
        elif kind == _LENGTH:
            length, position = _varint(raw, position)
            chunk = raw[position : position + length]
            position += length
        elif kind in (_GROUP_START, _GROUP_END):
            depth += 1 if kind == _GROUP_START else -1
            continue
        else:
            position += 4 if kind == _FIXED32 else 8
        if depth == 0:
            yield number, chunk


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
