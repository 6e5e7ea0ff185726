"""Entries of the audit as messages."""

from __future__ import annotations

from google.protobuf import struct_pb2
from whispr.scheduling.v1 import operations_service_pb2 as pb

from scheduling.domain.audit import AuditEntry, AuditOutcome, Facts
from scheduling.operations.ports import Page
from scheduling.rpc.values import EnumMap

_OUTCOMES = EnumMap(AuditOutcome, pb.AuditEntry.Outcome)


def page(value: Page[AuditEntry]) -> pb.ListAuditEntriesResponse:
    """A page of entries."""
    return pb.ListAuditEntriesResponse(
        entries=[entry(each) for each in value.items], next_page_token=value.next_page_token
    )


def entry(value: AuditEntry) -> pb.AuditEntry:
    """One entry."""
    message = pb.AuditEntry(
        uid=str(value.uid),
        principal=value.principal,
        rpc=value.rpc,
        resource=value.resource,
        outcome=_OUTCOMES.number(value.outcome),
        reason=value.reason,
        missing=value.missing,
        before=_struct(value.before),
        after=_struct(value.after),
        request_id=value.request_id,
        count=value.count,
    )
    message.time.FromDatetime(value.time)
    return message


def _struct(value: Facts | None) -> struct_pb2.Struct | None:
    if value is None:
        return None
    message = struct_pb2.Struct()
    message.update(dict(value))
    return message
