"""Audit: what is written down of a change or a refusal, and by whom it is being made.

The one who acts is known for the task that serves a call; loops of the service act for nobody, and what they do is no
change by anybody. Payloads are never part of what is written down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

#: Fields that hold payloads or what targets answered. That they changed is told, never how.
SECRET: Final = frozenset({"request", "response", "message", "attempts"})
#: Fields that change with everything else and say nothing.
_NOISE: Final = frozenset({"update_time", "etag"})

Facts = Mapping[str, Any]


class Acting(Protocol):
    """Who acts, by which RPC (`package.Service/Method`), in which request."""

    @property
    def principal(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def request_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts other than by a call: by a command or a setting, named in `method`, or by what an earlier call asked."""

    principal: str
    method: str
    request_id: str = ""


#: Whoever acts in this task.
acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


class AuditOutcome(StrEnum):
    """What an entry is about."""

    CHANGED = "CHANGED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody changed or was refused.

    `before` and `after` hold the fields that differ; `before` is None for what is new, `after` for what is gone.
    `missing` is what a refusal lacked. `count` is how many equal refusals it stands for.
    """

    uid: UUID
    time: datetime
    principal: str
    rpc: str
    resource: str
    outcome: AuditOutcome
    reason: str
    missing: str
    before: Facts | None
    after: Facts | None
    request_id: str
    count: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Equal refusals that came close together."""

    principal: str
    rpc: str
    resource: str
    reason: str
    missing: str
    request_id: str
    count: int


def facts(value: Any) -> dict[str, Any]:
    """A resource as it is written down: its fields as JSON, without payloads."""
    return {
        field.name: plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.name not in SECRET and field.name not in _NOISE
    }


def differences(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields in which two states of one resource differ, before and after. Of a payload only that it changed."""
    old, new = {}, {}
    for field in dataclasses.fields(after):
        was, is_now = getattr(before, field.name), getattr(after, field.name)
        if was == is_now or field.name in _NOISE:
            continue
        if field.name in SECRET:
            new[field.name] = "changed"
        else:
            old[field.name], new[field.name] = plain(was), plain(is_now)
    return old, new


def plain(value: Any) -> Any:
    """A value as JSON."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return str(value.value)
        case str():
            return value
        case bytes():
            return f"{len(value)} bytes"
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g}s"
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case Collection():
            return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__} | facts(value)
    return str(value)
