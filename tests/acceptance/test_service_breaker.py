"""A sibling that is not there: it costs few attempts, everybody can see it, and it gets everything once it is back."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

from whispr.scheduling.v1.operations_service_pb2 import GetStatusRequest, ListQueuesRequest, ListTargetsRequest
from whispr.scheduling.v1.scheduling_service_pb2 import BatchCreateJobsRequest, ListExecutionsRequest
from whispr.scheduling.v1.target_pb2 import Target

from scheduling.domain.breaker import OPEN_AFTER
from tests.support import processes
from tests.support.processes import Process, sibling_settings
from tests.support.service import (
    Service,
    after,
    create_request,
    eventually,
    metrics,
    retries,
    send_job,
    service,
    tell,
)

MESSAGING = "messaging.MessagingService"
JOBS, SLOTS = 70, 10


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def breaker(made: Service) -> str:
    """The state of the breaker as ListTargets shows it."""
    targets = made.api.operations.ListTargets(ListTargetsRequest()).targets
    (state,) = {each.breaker_state for each in targets if each.method.startswith(MESSAGING)}
    assert {each.breaker_state for each in targets if not each.method.startswith(MESSAGING)} == {Target.CLOSED}
    return Target.BreakerState.Name(state)


def attempts(made: Service) -> int:
    """All calls that were begun."""
    union = "SELECT attempt FROM executions UNION ALL SELECT attempt FROM execution_history"
    ((count,),) = made.query(f"SELECT coalesce(sum(attempt), 0)::int FROM ({union}) AS e")
    return int(count)


def test_a_dead_sibling_costs_few_attempts_and_gets_everything_when_it_is_back(
    database_url: str, redis_url: str, environment: str, tmp_path: Path
) -> None:
    port = free_port()
    settings = _settings(port)
    with service(tmp_path, database_url, redis_url, environment, **settings) as made:
        made.start_server()
        made.start_worker()
        api = made.connect()
        eventually(api.is_serving, bool)
        policy = retries(6, timedelta(milliseconds=200))
        asked = [
            create_request(job=send_job(f"m-{n}", retry_policy=policy), schedule=after(0.5 + n / 100))
            for n in range(JOBS)
        ]
        api.scheduling.BatchCreateJobs(BatchCreateJobsRequest(requests=asked))
        eventually(lambda: breaker(made), lambda state: state == "OPEN")

        # It is down for two probes, while more comes due.
        probes = 2
        failed = "SELECT failures FROM breakers"
        eventually(lambda: made.query(failed), lambda rows: rows[0][0] >= probes)
        spent = attempts(made)
        tell(
            f"breaker: {spent} attempts spent on a dead target with {SLOTS} slots, {probes} probes and {JOBS} jobs due"
        )
        assert spent <= OPEN_AFTER + 2 * SLOTS + probes + 1
        assert f"TARGET_DOWN:{MESSAGING}" in api.operations.GetStatus(GetStatusRequest()).degraded_modes
        high = api.operations.ListQueues(ListQueuesRequest()).queues[0]
        assert high.waiting_count >= JOBS - 2
        assert high.failed_count == 0
        held = api.scheduling.ListExecutions(
            ListExecutionsRequest(parent="jobs/-", filter=f'held_by = "BREAKER:{MESSAGING}"', page_size=1000)
        )
        assert len(held.executions) >= JOBS - 2
        seen = metrics(made.worker)
        assert (seen[f'breaker_state{{service="{MESSAGING}"}}'], seen["leader"]) == (2, 1)
        assert seen['queue_waiting{queue="HIGH"}'] >= JOBS - 2
        assert seen['lateness_seconds_count{queue="HIGH"}'] >= 1

        record = str(tmp_path / "siblings.jsonl")
        arguments = ["scheduling.demo.siblings", "--listen", f"127.0.0.1:{port}", "--record", record]
        made.siblings = Process(arguments, processes.environment(), tmp_path / "siblings.log")
        made.siblings.wait_ready()
        done = "SELECT count(*) FROM execution_history WHERE state = 'SUCCEEDED'"
        eventually(lambda: made.query(done), lambda rows: rows == [(JOBS,)], 60)
        calls = eventually(made.received, lambda them: len(them) >= JOBS)
        assert {call["id"] for call in calls} == {f"m-{n}" for n in range(JOBS)}
        assert len(calls) == JOBS
        assert breaker(made) in {"HALF_OPEN", "CLOSED"}


def _settings(port: int) -> dict[str, str]:
    addresses = sibling_settings(f"127.0.0.1:{port}")
    named = {name.removeprefix("SCHEDULING_").lower(): value for name, value in addresses.items()}
    return {**named, "slots_high": str(SLOTS), "metrics_listen": "127.0.0.1:0"}
