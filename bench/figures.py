"""The figures that the project is held to: what, the aim, and the floor below which it is not done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the budget. `at_most` says which side of the aim is the good one."""

    name: str
    what: str
    aim: float
    floor: float
    at_most: bool = False

    def verdict(self, value: float) -> str:
        """How a value stands to the budget: `good`, `enough` (past the floor) or `short`."""
        sign = -1 if self.at_most else 1
        if sign * value >= sign * self.aim:
            return "good"
        return "enough" if sign * value >= sign * self.floor else "short"


FIGURES: tuple[Figure, ...] = (
    Figure("delivery_ratio", "executions/s from a due backlog ÷ bare gRPC calls/s", 0.90, 0.80),
    Figure("lateness_p50_ms", "100/s, 1,000,000 pending", 1.5, 3, at_most=True),
    Figure("lateness_p99_ms", "100/s, 1,000,000 pending", 4, 8, at_most=True),
    Figure("lateness_p99_1000_ms", "1,000/s", 25, 50, at_most=True),
    Figure("store_cpu_ratio", "PostgreSQL's CPU at 100/s: 1,000,000 pending ÷ 10,000", 1.2, 1.2, at_most=True),
    Figure("create_ratio", "CreateJob/s ÷ empty calls/s of the same server", 0.6, 0.5),
    Figure("batch_create_per_s", "jobs/s by BatchCreateJobs of 1,000", 25_000, 15_000),
    Figure("release_per_s", "one-offs/s by one scheduler actor, messages included", 20_000, 10_000),
    Figure("growth_ratio", "delivery with 10,000,000 pending and 20,000,000 finished ÷ empty", 0.95, 0.95),
    Figure("prune_s", "1,000,000 expired executions gone", 5, 5, at_most=True),
    Figure("worker_cpu_ratio", "CPU per execution in the worker ÷ per call of the bare client", 1.4, 1.8, at_most=True),
    Figure("worker_rss_mb", "with 10,000 held", 120, 150, at_most=True),
    Figure("server_rss_mb", "after the creations", 120, 150, at_most=True),
    Figure("peer_ratio_dramatiq", "our delivery ÷ a Dramatiq message for each call", 1.5, 1.5),
    Figure("peer_ratio_procrastinate", "our delivery ÷ Procrastinate's", 1.5, 1.5),
    Figure("peer_ratio_pgqueuer", "our delivery ÷ pgqueuer's", 1.5, 1.3),
    Figure("peer_ratio_celery", "our delivery ÷ Celery's", 1.5, 1.5),
    Figure("start_ms", "`scheduling server` ready", 1500, 1500, at_most=True),
    Figure("help_ms", "`scheduling --help`", 300, 300, at_most=True),
)
BY_NAME = {figure.name: figure for figure in FIGURES}
