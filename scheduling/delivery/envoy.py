"""What our own sidecar says when a call never left it.

An Envoy answers in the target's place when it cannot pass a call on. Some of those answers prove that nothing was sent,
so that the attempt need not count; all others leave it open, and count. Three signs must agree: the words, that an
Envoy answered, and that no upstream did. What a sidecar of the target says has been on its way already and counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from scheduling.domain.execution import Reason

#: Envoy's reset reasons before a request is given to a connection, and what they are to us. Not among them, since the
#: request may have been sent: connection termination, local reset, remote reset, refused streams, protocol errors.
RESET_REASONS: Final[Mapping[str, Reason]] = {
    "overflow": Reason.POOL_OVERFLOW,
    "local connection failure": Reason.NOT_CONNECTED,
    "remote connection failure": Reason.NOT_CONNECTED,
    "connection timeout": Reason.NOT_CONNECTED,
}
#: What Envoy says when all hosts of a cluster are ejected, or there is none.
NO_HOST: Final = "no healthy upstream"
#: Set by Envoys on what they answer or pass on.
_SERVER: Final = "server"
_SERVERS: Final = frozenset({"envoy", "istio-envoy"})
#: Set by an Envoy on what an upstream answered.
_UPSTREAM: Final = "x-envoy-upstream-service-time"

_RESET = re.compile(
    # With "retried and the latest" between the sentences an earlier try may have been sent.
    r"upstream connect error or disconnect/reset before headers\. reset reason: ([a-z ]+)"
    r"(?:, transport failure reason: .*)?",
    re.DOTALL,
)


def unsent_reason(text: str, metadata: Mapping[str, str]) -> str:
    """Why a call that was answered UNAVAILABLE with `text` was never sent; empty when it may have been.

    `metadata` is what came with the answer, initial and trailing.
    """
    if metadata.get(_SERVER) not in _SERVERS or _UPSTREAM in metadata:
        return ""
    if text == NO_HOST:
        return Reason.NOT_CONNECTED
    match = _RESET.fullmatch(text)
    return RESET_REASONS.get(match.group(1), "") if match else ""
