"""What happens to a firing that comes due while others of its job are open."""

from __future__ import annotations

import pytest

from scheduling.domain.job import OverlapPolicy
from scheduling.domain.overlap import BUFFER_LIMIT, Judgement, Verdict, judge

P, V = OverlapPolicy, Verdict


@pytest.mark.parametrize("policy", list(OverlapPolicy))
def test_with_nothing_open_every_policy_releases(policy: OverlapPolicy) -> None:
    assert judge(policy, running=0, waiting=0) == Judgement(V.RELEASE)


@pytest.mark.parametrize(
    ("policy", "running", "waiting", "expected"),
    [
        (P.SKIP, 1, 0, Judgement(V.SKIP)),
        (P.SKIP, 0, 1, Judgement(V.SKIP)),
        (P.BUFFER_ONE, 1, 0, Judgement(V.HOLD)),
        (P.BUFFER_ONE, 1, 1, Judgement(V.SKIP)),
        (P.BUFFER_ALL, 1, 0, Judgement(V.HOLD)),
        (P.BUFFER_ALL, 1, BUFFER_LIMIT - 1, Judgement(V.HOLD)),
        (P.BUFFER_ALL, 1, BUFFER_LIMIT, Judgement(V.SKIP_BUFFER_FULL)),
        (P.CANCEL_OTHER, 1, 0, Judgement(V.HOLD, cancel_others=True)),
        (P.TERMINATE_OTHER, 1, 0, Judgement(V.RELEASE, cancel_others=True)),
        (P.TERMINATE_OTHER, 3, 0, Judgement(V.RELEASE, cancel_others=True)),
        (P.ALLOW_ALL, 50, 50, Judgement(V.RELEASE)),
    ],
)
def test_with_others_open_the_policy_decides(
    policy: OverlapPolicy, running: int, waiting: int, expected: Judgement
) -> None:
    assert judge(policy, running=running, waiting=waiting) == expected


def test_the_buffer_holds_as_many_as_the_design_says() -> None:
    assert BUFFER_LIMIT == 1000
