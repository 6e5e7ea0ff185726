"""Who may do what: grants, and what they add up to for one principal and one RPC.

A grant is whole by itself. Two grants never add up to something that neither of them gives: a call is allowed when one
single grant allows all of it. Only what may be seen is the union of what each grant shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from scheduling.domain.errors import NotFound, PermissionDenied
from scheduling.domain.kept import Kept, weight_of
from scheduling.domain.target import Queue

#: RPCs that bring calls of targets about: a grant's targets and owners bind these, on top of whose job it is.
CALLING: Final = frozenset(
    {
        "CreateJob",
        "BatchCreateJobs",
        "UpdateJob",
        "RunJob",
        "ScheduleJob",
        "UpdateSchedule",
        "ResumeSchedule",
        "BackfillSchedule",
        "RetryExecution",
        "BatchRetryExecutions",
    }
)
#: How identities of services begin. As owners they are matched only by patterns that say so.
IDENTITY: Final = "spiffe://"

_QUEUES: Final = tuple(Queue)  # highest first


class Globs:
    """Patterns in which `*` stands for any characters. `*` alone matches everything."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._exact = frozenset(each for each in self.patterns if "*" not in each)
        wild = [".*".join(re.escape(part) for part in each.split("*")) for each in self.patterns if "*" in each]
        self._wild = re.compile("|".join(wild), re.DOTALL) if wild else None

    def __contains__(self, text: object) -> bool:
        if text in self._exact:
            return True
        return self._wild is not None and isinstance(text, str) and self._wild.fullmatch(text) is not None


@dataclass(frozen=True)
class Grant:
    """What some principals may do, as a whole.

    `rpcs` are patterns of method names, with or without the service (`Get*`, `OperationsService/*`). `targets` are
    patterns of methods that may be called, `owners` of those that jobs may be for; each may act for itself always.
    `jobs` are the principals whose jobs are meant besides one's own, None for everybody's. `raise_queue` lets jobs into
    a queue above their method's own.
    """

    principals: frozenset[str] | None
    rpcs: Globs
    targets: Globs = field(default_factory=lambda: Globs(()))
    owners: Globs = field(default_factory=lambda: Globs(()))
    jobs: frozenset[str] | None = frozenset()
    raise_queue: bool = False

    @cached_property
    def _identities(self) -> Globs:
        return Globs(each for each in self.owners.patterns if each.startswith(IDENTITY))

    def reaches(self, principal: str, job_principal: str) -> bool:
        """Whether jobs of `job_principal` are meant."""
        return self.jobs is None or job_principal == principal or job_principal in self.jobs

    def has_owner(self, principal: str, owner: str) -> bool:
        """Whether jobs may be for `owner`. `*` matches no service's identity: those are named as what they are."""
        if owner == principal:
            return True
        return owner in (self._identities if owner.lower().startswith(IDENTITY) else self.owners)


class Access:
    """What one principal may do by one RPC. Every check raises PermissionDenied, saying what was missing."""

    def __init__(self, principal: str, rpc: str, grants: Sequence[Grant]) -> None:
        self.principal = principal
        self.rpc = rpc
        self._grants = tuple(grants)
        self._calls = rpc.rpartition("/")[2] in CALLING
        scopes = [grant.jobs for grant in self._grants]
        #: Whose jobs may be seen; None when everybody's.
        self.principals: frozenset[str] | None = None
        named = [scope for scope in scopes if scope is not None]
        if len(named) == len(scopes):
            self.principals = frozenset({principal}.union(*named))

    @property
    def principals_in_bulk(self) -> frozenset[str] | None:
        """Whose jobs one call may reach without a look at each; None when everybody's.

        Calls of targets brought about in bulk are not held against targets and owners one by one: but for one's own
        jobs, which were granted when they were made, a single grant has to allow all of them.
        """
        if not self._calls:
            return self.principals
        every = {"*", f"{IDENTITY}*"}
        grants = [each for each in self._grants if "*" in each.targets.patterns and every <= set(each.owners.patterns)]
        if any(grant.jobs is None for grant in grants):
            return None
        return frozenset({self.principal}.union(*(grant.jobs for grant in grants if grant.jobs is not None)))

    @property
    def sees_all(self) -> bool:
        """Whether everybody's jobs may be seen, so that what is missing may be called missing."""
        return self.principals is None

    def check_call(self) -> None:
        """Refuses when no grant allows the RPC at all."""
        if not self._grants:
            raise self.denied("RPC_NOT_GRANTED", f"{self.rpc} is not granted", "rpc", self.rpc)

    def check_new(self, target: str, owner: str, *, raises: bool) -> None:
        """Refuses unless one grant allows a job with this target and owner; `raises` if its queue is above the
        method's own.
        """
        self._check_calling(self._grants, target, owner, raises=raises)

    def check_job(self, name: str, principal: str, target: str, owner: str, *, raises: bool = False) -> None:
        """Refuses unless one grant reaches the job of `principal`, and by an RPC that brings calls about allows its
        target and owner as well.
        """
        grants = [grant for grant in self._grants if grant.reaches(self.principal, principal)]
        if not grants:
            raise self.hidden(name)
        if self._calls:
            self._check_calling(grants, target, owner, raises=raises)

    def missing(self, error: NotFound) -> NotFound | PermissionDenied:
        """The answer for a job that is not there: the same as for one that may not be seen."""
        return error if self.sees_all else self.hidden(error.resource_name)

    def hidden(self, name: str) -> PermissionDenied:
        """The answer for a job that may not be seen, whether it is there or not."""
        job = "/".join(name.split("/")[:2])
        return self.denied("JOB_NOT_GRANTED", f"{job} is not among the jobs granted", "job", job)

    def denied(self, reason: str, message: str, missing: str, value: str) -> PermissionDenied:
        """The refusal, with what was missing."""
        metadata = {"principal": self.principal, "rpc": self.rpc, "missing": missing, missing: value}
        return PermissionDenied(f"{message} to {self.principal}", reason=reason, metadata=metadata)

    def _check_calling(self, grants: Sequence[Grant], target: str, owner: str, *, raises: bool) -> None:
        found = [grant for grant in grants if target in grant.targets]
        if not found:
            raise self.denied("TARGET_NOT_GRANTED", f"target {target} is not granted", "target", target)
        found = [grant for grant in found if grant.has_owner(self.principal, owner)]
        if not found:
            raise self.denied(
                "OWNER_NOT_GRANTED", f"owner {owner} is not granted together with {target}", "owner", owner
            )
        if raises and not any(grant.raise_queue for grant in found):
            raise self.denied(
                "QUEUE_NOT_GRANTED", f"a queue above that of {target} is not granted", "raise_queue", target
            )


#: Everything is allowed: no policy is set.
EVERYTHING: Final = Access(
    "",
    "",
    [Grant(None, Globs("*"), Globs("*"), Globs(("*", f"{IDENTITY}*")), jobs=None, raise_queue=True)],
)


def is_raised(queue: Queue | None, own: Queue) -> bool:
    """Whether a queue is above a method's own."""
    return queue is not None and _QUEUES.index(queue) < _QUEUES.index(own)


class Policy:
    """All grants."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self.grants = tuple(grants)
        self._known = Kept[tuple[str, str], Access](KEPT_BYTES, _weigh)

    def access(self, principal: str, rpc: str) -> Access:
        """What `principal` may do by `rpc`, such as `SchedulingService/CreateJob`."""
        key = (principal, rpc)
        access = self._known.get(key)
        if access is None:
            method = rpc.rpartition("/")[2]
            access = Access(
                principal,
                rpc,
                [
                    grant
                    for grant in self.grants
                    if (grant.principals is None or principal in grant.principals)
                    and (method in grant.rpcs or rpc in grant.rpcs)
                ],
            )
            self._known[key] = access
        return access


#: Bytes of what principals may do by an RPC that are kept: some thousands of pairs.
KEPT_BYTES: Final = 4 * 1024 * 1024


def _weigh(key: tuple[str, str], access: Access) -> int:
    return 2 * weight_of(key) + weight_of(access.principals)
