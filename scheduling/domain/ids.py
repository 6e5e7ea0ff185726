"""Names and numbers of things.

Uids are UUIDs of version 7 (RFC 9562): 48 bits of Unix milliseconds, then random, so they sort by creation. Resource
ids follow AIP-122: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from struct import Struct
from uuid import UUID

ID_PATTERN = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

#: Letters in front of the uid in ids that the service makes, since a UUID may start with a digit.
JOB_PREFIX, SCHEDULE_PREFIX, EXECUTION_PREFIX = "j-", "s-", "e-"

_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_VERSION_4 = (0x4 << 76) | (0b10 << 62)
_NO_VERSION = ~((0xF << 76) | (0b11 << 62))
_PAIRS = Struct("!QQ").iter_unpack
_RANDOM = (0xFFF << 64) | ((1 << 62) - 1)


def uuid7(now: datetime) -> UUID:
    """A new UUID of version 7 for the moment `now`."""
    return uuid7s(now, 1)[0]


def uuid7s(now: datetime, count: int) -> list[UUID]:
    """New UUIDs of version 7 for one moment, for the price of one look at the system's source of randomness."""
    millis = int(now.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    frame = (millis << 80) | _VERSION_AND_VARIANT
    # 74 of these bits stay random; the version and the variant take the places of six.
    random, number = os.urandom(10 * count), int.from_bytes
    return [UUID(int=frame | number(random[at : at + 10], "big") & _RANDOM) for at in range(0, 10 * count, 10)]


def uuid4s(count: int) -> list[UUID]:
    """New UUIDs of version 4, for the price of one look at the system's source of randomness."""
    return [UUID(int=(high << 64 | low) & _NO_VERSION | _VERSION_4) for high, low in _PAIRS(os.urandom(16 * count))]


def uuid_text(uid: UUID) -> str:
    """`str(uid)` for two thirds of its price."""
    digits = uid.int.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


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
