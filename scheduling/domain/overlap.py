"""Overlap of a job's executions: what happens to one that comes due while others are open."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduling.domain.job import OverlapPolicy

#: How many executions of one job may wait under BUFFER_ALL.
BUFFER_LIMIT = 1000


class Verdict(StrEnum):
    """What release does with a due execution of a job whose executions may not overlap."""

    RELEASE = "RELEASE"
    HOLD = "HOLD"
    SKIP = "SKIP"
    SKIP_BUFFER_FULL = "SKIP_BUFFER_FULL"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and whether the open ones are to be cancelled first."""

    verdict: Verdict
    cancel_others: bool = False


def judge(policy: OverlapPolicy, *, running: int, waiting: int) -> Judgement:
    """What happens to a due execution that finds `running` others of its job holding a slot or waiting to retry, and
    `waiting` earlier ones held by the same rule.
    """
    is_open = running + waiting > 0
    match policy:
        case OverlapPolicy.ALLOW_ALL:
            return Judgement(Verdict.RELEASE)
        case OverlapPolicy.SKIP:
            return Judgement(Verdict.SKIP if is_open else Verdict.RELEASE)
        case OverlapPolicy.BUFFER_ONE | OverlapPolicy.BUFFER_ALL:
            if not is_open:
                return Judgement(Verdict.RELEASE)
            if policy is OverlapPolicy.BUFFER_ONE and waiting >= 1:
                return Judgement(Verdict.SKIP)
            if waiting >= BUFFER_LIMIT:
                return Judgement(Verdict.SKIP_BUFFER_FULL)
            return Judgement(Verdict.HOLD)
        case OverlapPolicy.CANCEL_OTHER:
            return Judgement(Verdict.HOLD if is_open else Verdict.RELEASE, cancel_others=is_open)
        case OverlapPolicy.TERMINATE_OTHER:
            return Judgement(Verdict.RELEASE, cancel_others=is_open)
