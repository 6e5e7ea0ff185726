"""Names and numbers of things.

Uids are UUIDs of version 7 (RFC 9562): 48 bits of Unix milliseconds, then random, so they sort by creation. Resource
ids follow AIP-122: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from struct import Struct
from uuid import UUID, SafeUUID

ID_PATTERN = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

#: Letters in front of the uid in ids that the service makes, since a UUID may start with a digit.
JOB_PREFIX, SCHEDULE_PREFIX, EXECUTION_PREFIX = "j-", "s-", "e-"

_VERSION_4 = (0x4 << 76) | (0b10 << 62)
_NO_VERSION = ~((0xF << 76) | (0b11 << 62))
_PAIRS = Struct("!QQ").iter_unpack
# What becomes of the bytes that hold the version and the variant.
_VERSION_7 = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
#: Where the 32 digits stand in the text of a UUID.
_DIGITS = [place for place in range(36) if place not in (8, 13, 18, 23)]
#: Texts from so many on are cheaper made together.
_MANY = 8
# `UUID(int=…)` looks through five ways to say what it is to be, and guards its two slots: half of its price.
_new, _set_int, _set_safe = UUID.__new__, vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__


def uuid7(now: datetime) -> UUID:
    """A new UUID of version 7 for the moment `now`."""
    return uuid7s(now, 1)[0]


def uuid7s(now: datetime, count: int) -> list[UUID]:
    """New UUIDs of version 7 for one moment, for the price of one look at the system's source of randomness."""
    raw = bytearray(os.urandom(16 * count))
    millis = int(now.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    for place, byte in enumerate(millis.to_bytes(6, "big")):
        raw[place::16] = bytes((byte,)) * count
    raw[6::16] = raw[6::16].translate(_VERSION_7)
    raw[8::16] = raw[8::16].translate(_VARIANT)
    new, set_int, set_safe, unknown = _new, _set_int, _set_safe, SafeUUID.unknown
    made = []
    for high, low in _PAIRS(raw):
        uid = new(UUID)
        set_int(uid, high << 64 | low)
        set_safe(uid, unknown)
        made.append(uid)
    return made


def uuid_texts(uids: Sequence[UUID]) -> list[str]:
    """`str` of each, a third as dear when there are many."""
    count = len(uids)
    if count < _MANY:
        return [str(uid) for uid in uids]
    digits = b"".join([uid.int.to_bytes(16, "big") for uid in uids]).hex().encode()
    text = bytearray(b"-") * (36 * count)
    for number, place in enumerate(_DIGITS):
        text[place::36] = digits[number::32]
    whole = text.decode()
    return [whole[at : at + 36] for at in range(0, 36 * count, 36)]


def uuid4s(count: int) -> list[UUID]:
    """New UUIDs of version 4, for the price of one look at the system's source of randomness."""
    return [UUID(int=(high << 64 | low) & _NO_VERSION | _VERSION_4) for high, low in _PAIRS(os.urandom(16 * count))]


def is_valid_id(text: str) -> bool:
    """Whether `text` may be a resource id."""
    return ID_PATTERN.fullmatch(text) is not None


def execution_id(uid: UUID) -> str:
    """The id of an execution: its uid with a letter in front."""
    return f"{EXECUTION_PREFIX}{uid}"


def parse_execution_id(text: str) -> UUID | None:
    """The uid in an execution's id, or None if it is not one in canonical form."""
    if not text.startswith(EXECUTION_PREFIX):
        return None
    try:
        uid = UUID(text[len(EXECUTION_PREFIX) :])
    except ValueError:
        return None
    return uid if execution_id(uid) == text else None
