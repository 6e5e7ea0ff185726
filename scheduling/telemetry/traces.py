"""Trace context between services: the `traceparent` header of W3C Trace Context, level 1."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
#: The last bit of a trace id and of the span id behind it: all zeros would mean "no id".
_NOT_ZERO = 1 << 64 | 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One place in one trace: 32 and 16 lower-case hexadecimal digits, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    def header(self) -> str:
        """The `traceparent` that says this."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"


def parse_traceparent(header: str | None) -> TraceContext | None:
    """The context that `header` says, None if it is absent or malformed in any way.

    Later versions are read as version 00 as long as they start like it; flags other than `sampled` are dropped.
    """
    match = _HEADER.fullmatch(header or "")
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def new_trace(*, sampled: bool = True) -> TraceContext:
    """The start of a trace of its own, with random ids."""
    return TraceContext(_random_id(16), _random_id(8), sampled)


def new_header() -> str:
    """The `traceparent` of a new trace that is recorded: `new_trace().header()` for the price of its text alone."""
    # Both ids from one number.
    ids = (random.getrandbits(192) | _NOT_ZERO).to_bytes(24, "big").hex()
    return f"00-{ids[:32]}-{ids[32:]}-01"


def child_of(parent: TraceContext) -> TraceContext:
    """A new span in the trace of `parent`, recorded if that is."""
    return TraceContext(parent.trace_id, _random_id(8), parent.sampled)


def continue_trace(header: str | None) -> TraceContext:
    """A child of what `header` says, or a new trace if it says nothing usable."""
    parent = parse_traceparent(header)
    return new_trace() if parent is None else child_of(parent)


def _random_id(size: int) -> str:
    # All zeros mean "no id". Ids have to be unique, not secret, and each call of a sibling takes two.
    return f"{random.getrandbits(8 * size) or 1:0{2 * size}x}"
