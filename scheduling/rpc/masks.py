"""Update masks (AIP-134): which fields of a resource a call changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from scheduling.rpc.values import Findings

M = TypeVar("M", bound=Message)


def read_mask(
    paths: Sequence[str],
    allowed: Sequence[str],
    resource: Message,
    findings: Findings,
    *,
    immutable: Collection[str] = (),
    inner: Collection[str] = (),
) -> frozenset[str]:
    """The paths of a mask that is not empty; a violation for each that may not be named, which is left out.

    `inner` may be named too, but is not listed in what callers are told.
    """
    descriptor = cast("Descriptor", resource.DESCRIPTOR)
    named = set()
    for index, path in enumerate(paths):
        if path in allowed or path in inner:
            named.add(path)
            continue
        field = f"update_mask.paths[{index}]"
        first = path.partition(".")[0]
        told = f"the mask may name {', '.join(allowed)}"
        if first in immutable:
            findings.add(field, f"{first} cannot be changed; {told}", "IMMUTABLE_FIELD")
        elif path in descriptor.fields_by_name:
            findings.add(field, f"{path} is set by the service; {told}", "OUTPUT_ONLY_FIELD")
        else:
            noun = descriptor.name.lower()
            findings.add(field, f"is no field of a {noun} that can be changed; {told}", "UNKNOWN_FIELD")
    return frozenset(named)


def fields_set(resource: Message) -> frozenset[str]:
    """The names of the fields that are set: present, or other than the default where there is no presence."""
    return frozenset(field.name for field, _ in resource.ListFields())


def only(resource: M, fields: Collection[str]) -> M:
    """A copy of the resource with these fields alone."""
    kept = type(resource)()
    kept.CopyFrom(resource)
    for name in fields_set(kept) - frozenset(fields):
        kept.ClearField(name)
    return kept
