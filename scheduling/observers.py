"""What the rooms tell, turned into metrics and log lines. Part of construction: it knows the rooms and the
telemetry.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from scheduling.domain.execution import Claim, LostExecution, Outcome
from scheduling.domain.ids import execution_id
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code
from scheduling.domain.target import Queue
from scheduling.telemetry.logs import log_event
from scheduling.telemetry.metrics import CODES, Metrics

_log = logging.getLogger(__name__)


class RpcObserver:
    """Counts RPCs."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def rpc_handled(self, method: str, code: str, seconds: float) -> None:
        """One finished call."""
        self._metrics.rpc_for(method, code).inc()
        self._metrics.rpc_duration_for(method).observe(seconds)


class EngineObserver:
    """Counts what the delivery engine does, and writes the life of each execution to the log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def claimed(self, queue: Queue, count: int, *, swept: bool) -> None:
        """A claiming statement came back; `swept` says that it went without a message."""
        if count:
            self._metrics.claim_batch.observe(count)
        if swept:
            self._metrics.swept_for(queue.value).inc(count)
            log_event(_log, logging.DEBUG, "executions_swept", queue=queue.value, count=count)

    def started(self, claim: Claim, lateness: float | None) -> None:
        """A call begins; `lateness` in seconds is that of a first attempt."""
        if lateness is not None:
            self._metrics.lateness_for(claim.queue).observe(max(lateness, 0.0))

    def answered(self, claim: Claim, code: Code, seconds: float) -> None:
        """A call has ended."""
        self._metrics.attempts_for(claim.target, CODES[code]).inc()
        self._metrics.attempt_duration_for(claim.target).observe(seconds)

    def recorded(self, outcomes: Sequence[tuple[Claim | None, Outcome]]) -> None:
        """Outcomes are durable."""
        self._metrics.record_batch.observe(len(outcomes))
        ended: Counter[tuple[str, State]] = Counter()
        is_logged = {state: _log.isEnabledFor(level) for state, level in ((state, _level(state)) for state in State)}
        for claim, outcome in outcomes:
            if claim is None:
                continue
            if outcome.state is not State.PENDING:
                ended[claim.target, outcome.state] += 1
            if is_logged[outcome.state]:
                attempt = outcome.attempt
                log_event(
                    _log,
                    _level(outcome.state),
                    "execution_recorded",
                    execution=f"jobs/{claim.job_id}/executions/{execution_id(claim.uid)}",
                    target=claim.target,
                    state=outcome.state.value,
                    reason=outcome.reason,
                    attempt=claim.attempt,
                    code=None if attempt is None else Code(attempt.code).name,
                )
        for (target, state), count in ended.items():
            self._metrics.executions_for(target, state.value).inc(count)


def _level(state: State) -> int:
    """How loud an outcome is told."""
    if state is State.FAILED:
        return logging.WARNING
    return logging.DEBUG if state is State.SUCCEEDED else logging.INFO


class SchedulerObserver:
    """Counts what the scheduler does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def released(self, queue: Queue, count: int) -> None:
        """Executions went to the workers."""
        self._metrics.released_for(queue.value).inc(count)

    def ended(self, target: str, state: State, count: int) -> None:
        """Executions ended without a call: skipped, or too old."""
        self._metrics.executions_for(target, state.value).inc(count)
        if state is State.FAILED:
            log_event(_log, logging.WARNING, "executions_expired", target=target, count=count)

    def recovered(self, lost: Sequence[tuple[LostExecution, Outcome]]) -> None:
        """Executions of lost workers were taken back."""
        for each, outcome in lost:
            self._metrics.leases_recovered_for(each.queue.value).inc()
            if outcome.state is not State.PENDING:
                self._metrics.executions_for(each.target, outcome.state.value).inc()
