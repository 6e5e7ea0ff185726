"""Use cases of the audit: reading it, and writing down refusals without letting a flood of them hurt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from scheduling.domain.audit import AuditEntry, AuditOutcome, Refusal
from scheduling.domain.errors import PermissionDenied
from scheduling.domain.filters import INTEGER, STRING, TIMESTAMP, enum_of
from scheduling.operations.drafts import ListQuery
from scheduling.operations.pages import read_page
from scheduling.operations.ports import Page, Ports
from scheduling.telemetry.logs import log_event

#: Seconds between two batches.
WRITE_PAUSE: Final = 1.0
#: Different refusals that wait for the next batch; more are only counted.
MAX_WAITING: Final = 200

_FIELDS = {
    "time": TIMESTAMP,
    "principal": STRING,
    "rpc": STRING,
    "resource": STRING,
    "outcome": enum_of(AuditOutcome),
    "reason": STRING,
    "request_id": STRING,
    "count": INTEGER,
}

_log = logging.getLogger(__name__)


async def list_audit_entries(ports: Ports, resource: str, query: ListQuery) -> Page[AuditEntry]:
    """A page of the audit, latest first unless asked otherwise. Raises InvalidRequest."""
    return await read_page(
        replace(query, order_by=query.order_by or "time desc"),
        parent=resource,
        fields=_FIELDS,
        orders=("time",),
        read=lambda page: ports.store.list_audit(page, resource),
    )


class RefusalStore(Protocol):
    """Where refusals are written down."""

    async def add_refusals(self, refusals: Sequence[Refusal]) -> None: ...


class RefusalLog:
    """Gathers refusals and writes them down in batches. Equal ones that come close together are one entry with their
    number; what does not fit is counted as dropped.
    """

    def __init__(self, store: RefusalStore, on_dropped: Callable[[int], None] = lambda count: None) -> None:  # noqa: ARG005
        self._store = store
        self._on_dropped = on_dropped
        self._waiting: dict[tuple[str, str, str, str], Refusal] = {}
        self._dropped = 0

    def note(self, principal: str, rpc: str, request_id: str, error: PermissionDenied) -> None:
        """Takes down one refusal. Never waits."""
        kind = error.metadata.get("missing", "")
        value = error.metadata.get(kind, "")
        resource, missing = (value, kind) if kind == "job" else ("", f"{kind} {value}")
        key = (principal, rpc, resource, error.reason)
        before = self._waiting.get(key)
        if before is not None:
            self._waiting[key] = replace(before, count=before.count + 1)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting[key] = Refusal(
                principal, rpc, resource[:300], error.reason, missing[:300], request_id, count=1
            )
        else:
            self._dropped += 1
            self._on_dropped(1)

    async def tick(self) -> float:
        """Writes down what waits; the seconds until the next batch. What cannot be written waits on."""
        if self._waiting:
            batch = dict(self._waiting)
            await self._store.add_refusals(list(batch.values()))
            # What came while the batch was being written has its own entry.
            written = {key: refusal.count for key, refusal in batch.items()}
            self._waiting = {
                key: replace(refusal, count=refusal.count - written.get(key, 0))
                for key, refusal in self._waiting.items()
                if refusal.count > written.get(key, 0)
            }
        if self._dropped:
            log_event(_log, logging.WARNING, "refusals_dropped", count=self._dropped)
            self._dropped = 0
        return WRITE_PAUSE
