"""Values that fields of requests are filled with: sensible ones, extreme ones and hostile ones."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

#: Strings that have broken software before: nothing, very long, not text, other people's languages.
HOSTILE: Sequence[str] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ufeff",
    "\u202e\u2066reversed",
    "\U0001f4a3" * 50,
    "e\u0301" * 30,
    "'; DROP TABLE jobs; --",
    '" OR "1"="1',
    "$(reboot)",
    "${jndi:ldap://127.0.0.1/a}",
    "%s%s%n",
    "{0.__class__}",
    "../../etc/passwd",
    "jobs/../jobs/x",
    "jobs//executions/",
    "jobs/-/schedules/-",
    "\\",
    "\r\nx-injected: 1",
    "<script>alert(1)</script>",
    "NaN",
    "-0",
    "1e309",
    "0x7fffffffffffffff",
    "9" * 400,
    "x" * 127,
    "x" * 201,
    "x" * 2001,
    "x" * 100_000,
    "(" * 500,
    "NOT " * 400 + 'state = "FAILED"',
    'a = "b" AND ' * 150 + 'a = "b"',
    "* * * * *" * 60,
)
#: What callers filter and order by, right and wrong.
FILTERS: Sequence[str] = (
    'state = "FAILED"',
    'state = "SUCCEEDED" OR state = "PENDING"',
    'owner = "owner-1"',
    'target = "messaging.MessagingService/SendScheduledMessage"',
    'create_time > "2030-01-01T00:00:00Z"',
    'create_time < "2100-01-01T00:00:00Z" AND NOT state = "CANCELLED"',
    'labels.kind = "fuzz"',
    'queue = "HIGH" AND (state = "QUEUED" OR state = "RUNNING")',
    "code = 14",
    "attempt_count >= 1",
    'ready_time > "2020-01-01T00:00:00Z" AND ready_time <= "2099-12-31T23:59:59.999999Z"',
    'nominal_time = "0001-01-01T00:00:00Z"',
    'create_time > "9999-12-31T23:59:59Z"',
    'job_id:"a*"',
    "state =",
    '= "x"',
    'unknown_field = "x"',
    'owner = "unterminated',
    "code = 99999999999999999999",
    'state = "NOPE"',
    'create_time > "yesterday"',
)
ORDERS: Sequence[str] = ("create_time", "create_time desc", "job_id", "nominal_time desc", "uid", "create_time, job_id")
ZONES: Sequence[str] = (
    "UTC",
    "Europe/Paris",
    "Africa/Lome",
    "America/Sao_Paulo",
    "Mars/Olympus",
    "../UTC",
    "europe/paris",
)
CRONS: Sequence[str] = (
    "* * * * *",
    "*/5 * * * *",
    "0 9 * * MON-FRI",
    "@daily",
    "0 0 L * *",
    "0 0 31 2 *",
    "0 12 * * 5#3",
    "*/7 * * * * *",
    "0 25 * * *",
    "60 * * * *",
    "a b c d e",
    "* * *",
    "0 0 29 2 *",
)
INTEGERS: Sequence[int] = (0, 1, 2, 3, 10, 50, 1000, 1001, -1, -(2**31), 2**31 - 1, 2**63 - 1, -(2**63))
SECONDS: Sequence[int] = (
    0,
    1,
    60,
    3600,
    86_400,
    -1,
    -62_135_596_800,
    253_402_300_799,
    253_402_300_800,
    -62_135_596_801,
    2**31,
    2**63 - 1,
    -(2**63),
)
NANOS: Sequence[int] = (0, 1, 1_000, 999_999_999, 1_000_000_000, -1, -999_999_999, 2**31 - 1)


class Known:
    """What the server has named in its answers, so that later requests can mean something. Keeps the newest of each."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[str]] = {}

    def add(self, kind: str, value: str) -> None:
        """Remembers a name, a token or an etag."""
        if value:
            self._kept.setdefault(kind, deque(maxlen=500)).append(value)

    def any(self, kind: str, chance: random.Random) -> str:
        """One that is known, or one that never was."""
        kept = self._kept.get(kind)
        if kept and chance.random() < 0.9:
            return kept[chance.randrange(len(kept))]
        return f"{kind}/never-{chance.randrange(1000)}"


def moment(chance: random.Random, now: datetime) -> tuple[int, int]:
    """Seconds and nanoseconds of a time: mostly near, sometimes at the ends of what can be said, or beyond."""
    kind = chance.random()
    if kind < 0.7:
        near = now + timedelta(seconds=chance.uniform(-30, 86_400 * chance.choice((1, 30, 3000))))
        return int(near.astimezone(UTC).timestamp()), chance.randrange(1_000_000) * 1000
    return chance.choice(SECONDS), chance.choice(NANOS)


def span(chance: random.Random) -> tuple[int, int]:
    """Seconds and nanoseconds of a duration."""
    if chance.random() < 0.7:
        return chance.choice((0, 1, 5, 60, 300, 3600, 86_400)), 0
    return chance.choice(SECONDS), chance.choice(NANOS)


def text(chance: random.Random, field: str, known: Known) -> str:
    """A string for a field of this name."""
    draw = chance.random()
    if draw < 0.12:
        return chance.choice(HOSTILE)
    kinds = {
        "name": ("jobs", "schedules", "executions", "calendars", "backfills", "operations"),
        "parent": ("jobs",),
        "page_token": ("page_token",),
        "resume_token": ("resume_token",),
        "etag": ("etag",),
        "calendar": ("calendars",),
    }
    if field in kinds:
        return "jobs/-" if field == "parent" and draw < 0.3 else known.any(chance.choice(kinds[field]), chance)
    lists: dict[str, Sequence[str]] = {
        "filter": FILTERS,
        "order_by": ORDERS,
        "time_zone": ZONES,
        "expression": CRONS,
        "target": (
            "messaging.MessagingService/SendScheduledMessage",
            "notification.NotificationService/CleanupNotificationHistory",
            "messaging.MessagingService/Nope",
            "messaging.MessagingService",
        ),
    }
    if field in lists:
        return chance.choice(lists[field])
    if field.endswith("_id"):
        return f"{field.removesuffix('_id')}-{chance.randrange(100_000)}"
    if field == "owner":
        return f"owner-{chance.randrange(300)}"
    return f"{field}-{chance.randrange(1000)}"
