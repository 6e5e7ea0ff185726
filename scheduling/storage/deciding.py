"""What becomes of due executions that are gated by their schedule or by the overlap rule of their job."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from scheduling.domain.advance import MISSED_AFTER
from scheduling.domain.execution import Reason
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.overlap import Judgement, Verdict, judge
from scheduling.domain.target import Queue
from scheduling.storage.gating import HELD_BY_OWNER, Gates

#: What a hold of the overlap rule is called.
HELD_BY_OVERLAP = "OVERLAP"
_FREE = Judgement(Verdict.RELEASE)


class Candidate(NamedTuple):
    """A due execution, in the columns of the statements that find it. `queue_time` is when it was last released."""

    uid: UUID
    job: UUID
    schedule: UUID | None
    overlap: str | None
    ready: datetime
    recurring: bool
    queue_time: datetime | None
    attempt: int
    expire: datetime
    held_by: str | None
    owner: str
    target: str

    @property
    def is_new(self) -> bool:
        """A retry, or what was released before and given back, is open already: it is not judged as a new firing."""
        return self.attempt == 0 and self.queue_time is None


@dataclass(slots=True)
class Decisions:
    """What is to be written. `hold` has what each is held by, `fired` the firings to count by schedule."""

    queue: list[UUID] = field(default_factory=list)
    hold: dict[UUID, str] = field(default_factory=dict)
    expired: list[UUID] = field(default_factory=list)
    replaced: list[UUID] = field(default_factory=list)
    finished: set[UUID] = field(default_factory=set)
    skip: dict[Reason, list[UUID]] = field(default_factory=lambda: defaultdict(list))
    cancel_jobs: set[UUID] = field(default_factory=set)
    fired: dict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    released: list[tuple[UUID, datetime]] = field(default_factory=list)
    ended: Counter[tuple[str, State]] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Executions that were decided about."""
        return len(self.queue) + len(self.hold) + len(self.expired) + sum(len(uids) for uids in self.skip.values())


def decide(
    candidates: Iterable[Candidate],
    open_by_job: dict[UUID, tuple[int, int]],
    left: dict[UUID, int | None],
    gates: Gates,
    queue: Queue,
    free: dict[str, int],
) -> Decisions:
    """What becomes of each candidate. `left` is how many firings a schedule may still have, None is any number; `free`
    are the slots that are left to each owner.
    """
    round_ = _Round(open_by_job, left, gates, queue, free)
    # Retries first: their executions are open already, and a firing that comes due beside them finds them so.
    for each in sorted(candidates, key=lambda each: each.is_new):
        round_.decide(each)
    return round_.decisions()


class _Round:
    """The decisions of one round, and what they change for those that come after."""

    def __init__(
        self,
        open_by_job: dict[UUID, tuple[int, int]],
        left: dict[UUID, int | None],
        gates: Gates,
        queue: Queue,
        free: dict[str, int],
    ) -> None:
        self._running = {job: counts[0] for job, counts in open_by_job.items()}
        self._waiting = {job: counts[1] for job, counts in open_by_job.items()}
        self._left = left
        self._gates = gates
        self._queue = queue
        self._free = free
        self._taken: dict[UUID, list[UUID]] = defaultdict(list)
        self._made = Decisions()

    def decisions(self) -> Decisions:
        """All of them, without what a later firing has replaced."""
        made = self._made
        replaced = set(made.replaced)
        made.released = [(uid, ready) for uid, ready in made.released if uid not in replaced]
        made.hold = {uid: held_by for uid, held_by in made.hold.items() if uid not in replaced}
        made.queue = [uid for uid, _ in made.released]
        return made

    def decide(self, each: Candidate) -> None:
        """What becomes of one."""
        made = self._made
        if each.expire <= self._gates.moment:
            made.expired.append(each.uid)
            return
        budget = self._budget(each)
        if budget is not None and budget <= 0:
            assert each.schedule is not None
            made.finished.add(each.schedule)
            return
        judgement = self._judge(each)
        if each.ready > self._gates.moment and judgement != _FREE:
            # Not every gate is open yet: it is decided at its own moment.
            return
        if judgement.verdict is Verdict.RELEASE and not self._takes_slot(each):
            return
        if judgement.cancel_others:
            made.cancel_jobs.add(each.job)
            made.replaced += self._taken.pop(each.job, [])
        match judgement.verdict:
            case Verdict.RELEASE:
                self._release(each, budget)
            case Verdict.HOLD:
                self._taken[each.job].append(each.uid)
                self._hold(each, HELD_BY_OVERLAP)
            case Verdict.SKIP:
                made.skip[Reason.OVERLAP].append(each.uid)
            case Verdict.SKIP_BUFFER_FULL:
                made.skip[Reason.BUFFER_FULL].append(each.uid)

    def _budget(self, each: Candidate) -> int | None:
        is_firing = each.recurring and each.queue_time is None and each.schedule is not None
        return self._left.get(each.schedule) if is_firing and each.schedule is not None else None

    def _judge(self, each: Candidate) -> Judgement:
        policy = OverlapPolicy.ALLOW_ALL if each.overlap is None or not each.is_new else OverlapPolicy(each.overlap)
        # What waited already has waited before those that wait now.
        waited = each.held_by is not None or each.uid in self._gates.let_go
        waiting = 0 if waited else self._waiting.get(each.job, 0)
        return judge(policy, running=self._running.get(each.job, 0), waiting=waiting)

    def _takes_slot(self, each: Candidate) -> bool:
        """Takes the slots of owner and target; where there is none the execution is held."""
        refusal = self._gates.refusal(self._queue, each.target, each.uid)
        if not refusal and self._free.get(each.owner, 1) <= 0:
            refusal = HELD_BY_OWNER + each.owner
        if refusal:
            self._hold(each, refusal)
            return False
        if each.ready > self._gates.moment and not self._gates.may_be_early(each.target):
            return False
        self._gates.take(each.target)
        if each.owner in self._free:
            self._free[each.owner] -= 1
        return True

    def _hold(self, each: Candidate, held_by: str) -> None:
        if each.held_by is None:
            self._made.hold[each.uid] = held_by
            self._waiting[each.job] = self._waiting.get(each.job, 0) + 1

    def _release(self, each: Candidate, budget: int | None) -> None:
        self._made.released.append((each.uid, each.ready))
        self._taken[each.job].append(each.uid)
        self._running[each.job] = self._running.get(each.job, 0) + 1
        if each.recurring and each.schedule is not None and each.queue_time is None:
            self._made.fired[each.schedule] += 1
        if budget is not None and each.schedule is not None:
            self._left[each.schedule] = budget - 1


def is_missed(each: Candidate, moment: datetime) -> bool:
    """Whether a plan of a schedule that is behind was not even looked at in time."""
    return each.recurring and each.is_new and each.held_by is None and each.ready < moment - MISSED_AFTER
