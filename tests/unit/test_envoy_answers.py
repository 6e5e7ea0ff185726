"""Which of Envoy's answers prove that a call was never sent. That a real Envoy gives them is shown in tests/mesh."""

from __future__ import annotations

import pytest

from scheduling.delivery.envoy import NO_HOST, RESET_REASONS, unsent_reason
from scheduling.domain.execution import Reason

BROKEN = "upstream connect error or disconnect/reset before headers. reset reason: "
OURS = {"server": "envoy", "date": "today"}


@pytest.mark.parametrize(("words", "reason"), [(BROKEN + words, reason) for words, reason in RESET_REASONS.items()])
@pytest.mark.parametrize("server", ["envoy", "istio-envoy"])
def test_what_never_left_the_sidecar_is_recognised(words: str, reason: Reason, server: str) -> None:
    assert unsent_reason(words, {"server": server}) == reason
    assert unsent_reason(f"{words}, transport failure reason: TLS_error:|1:\nCERTIFICATE", OURS) == reason


def test_a_cluster_without_hosts_sends_nothing() -> None:
    assert unsent_reason(NO_HOST, OURS) == Reason.NOT_CONNECTED


@pytest.mark.parametrize(
    "words",
    [
        BROKEN + "connection termination",
        BROKEN + "local reset",
        BROKEN + "remote reset",
        BROKEN + "remote refused stream reset",
        BROKEN + "protocol error",
        BROKEN + "overload manager reset",
        BROKEN + "overflow of something else",
        BROKEN.replace("reset reason", "retried and the latest reset reason") + "overflow",
        "upstream request timeout",
        "local_rate_limited",
        "Socket closed",
        "the upstream said: no healthy upstream",
        "",
    ],
)
def test_what_may_have_been_sent_counts(words: str) -> None:
    assert unsent_reason(words, OURS) == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"server": "nginx"},
        {"server": "envoy", "x-envoy-upstream-service-time": "4"},
    ],
)
def test_the_same_words_of_anybody_else_count(metadata: dict[str, str]) -> None:
    assert unsent_reason(NO_HOST, metadata) == ""
    assert unsent_reason(BROKEN + "overflow", metadata) == ""
