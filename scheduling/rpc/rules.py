"""Field rules: what the protos say of single fields with protovalidate, as violations of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from scheduling import field_rules
from scheduling.domain.errors import Violation

if TYPE_CHECKING:
    import protovalidate


def broken_rules(message: Message) -> list[Violation]:
    """A violation for each rule of the message's proto that it breaks."""
    return [_violation(found) for found in field_rules.broken(message)]


def _violation(found: protovalidate.Violation) -> Violation:
    proto = found.proto
    reason = re.sub(r"[^A-Z0-9]+", "_", proto.rule_id.upper()).strip("_") or "INVALID_VALUE"
    path = field_path(proto.field.elements) if proto.field is not None else ""
    return Violation(path, f"{proto.message}{' (the key)' if proto.for_key else ''}", reason)


def field_path(elements: Any) -> str:
    """A path of protovalidate as text in proto names: `job.labels["x"]`, `requests[3].job`."""
    text = ""
    for element in elements:
        text += f".{element.field_name}" if text else element.field_name
        subscript = element.subscript
        if subscript is None:
            continue
        value = subscript.value
        text += f'["{value}"]' if isinstance(value, str) else f"[{str(value).lower()}]"
    return text
