"""Texts that can be sent and not be stored: PostgreSQL has no NUL character (U+0000)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from scheduling.domain.errors import Violation

_NUL = "\0"


def find_nul_characters(raw: bytes, message: Message) -> list[Violation]:
    """A violation for each text of `message` that holds a NUL character; `raw` are the bytes it was parsed from.

    Packed messages are the target's business: they are stored as bytes, and looked into by the rules of their type.
    """
    # In UTF-8 no other character holds this byte.
    if _NUL.encode() not in raw:
        return []
    return [
        Violation(path, "holds a NUL character, which cannot be stored", "NUL_CHARACTER") for path in _walk(message)
    ]


def _walk(message: Message, prefix: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            # A path with the key in it would not be printable: the field is named as a whole.
            yield from (path for key, text in value.items() if _holds(key) or _holds(text))
        elif kind is None or kind.full_name != "google.protobuf.Any":
            items = list(value) if field.is_repeated else [value]
            for index, item in enumerate(items):
                here = f"{path}[{index}]" if field.is_repeated else path
                if isinstance(item, Message):
                    yield from _walk(item, f"{here}.")
                elif field.type == FieldDescriptor.TYPE_STRING and _holds(item):
                    yield here


def _holds(value: Any) -> bool:
    return isinstance(value, str) and _NUL in value
