"""What becomes of executions when their worker is killed, and when it is told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.scheduling_service_pb2 import BatchCreateJobsRequest, ListExecutionsRequest
from whispr.scheduling.v1.target_pb2 import WAIT_FOR_DEADLINE

from tests.support.service import (
    Api,
    Service,
    after,
    create_request,
    eventually,
    retries,
    running_service,
    send_job,
    tell,
    utc_now,
)

SEND = "messaging.MessagingService/SendScheduledMessage"
#: How many come due, and how many of them are in the middle of a call when the worker dies.
LOAD, SLOW, ONCE = 200, 20, 3
#: Seconds within which what ran on a killed worker has to run again.
AGAIN_WITHIN = 15.0


def create_all(api: Api, jobs: Sequence[Job], spread: float) -> list[Job]:
    """Creates jobs that come due one after the other over `spread` seconds."""
    step = spread / len(jobs)
    requests = [create_request(job=job, schedule=after(0.5 + n * step)) for n, job in enumerate(jobs)]
    made = api.scheduling.BatchCreateJobs(BatchCreateJobsRequest(requests=requests))
    return list(made.jobs)


def states(service: Service) -> dict[str, int]:
    """How many executions are in each state."""
    union = "SELECT state FROM executions UNION ALL SELECT state FROM execution_history"
    return dict(service.query(f"SELECT state, count(*) FROM ({union}) AS e GROUP BY state"))


def under_way(service: Service, seconds: float) -> int:
    """How many executions were claimed that long ago: their calls have surely reached the siblings."""
    claimed = "SELECT count(*) FROM executions WHERE state = 'RUNNING' AND claim_time < now() - %s::interval"
    ((count,),) = service.query(claimed, timedelta(seconds=seconds))
    return int(count)


def ended_by_id(service: Service, jobs: Sequence[Job], ids: Sequence[str]) -> dict[str, Execution]:
    """The execution of each job, by the id of its message, when all have ended."""
    eventually(lambda: states(service), lambda seen: seen.keys() <= {"SUCCEEDED", "FAILED"})
    asked = ListExecutionsRequest(parent="jobs/-", page_size=1000)
    by_job = {
        each.name.partition("/executions")[0]: each for each in service.api.scheduling.ListExecutions(asked).executions
    }
    assert len(by_job) == len(jobs)
    return {each: by_job[job.name] for each, job in zip(ids, jobs, strict=True)}


def test_what_a_killed_worker_was_running_runs_again_and_nothing_is_lost(
    database_url: str, redis_url: str, environment: str, tmp_path: Path
) -> None:
    slow = [f"slow-{n}" for n in range(SLOW)]
    once = [f"once-{n}" for n in range(ONCE)]
    quick = [f"quick-{n}" for n in range(LOAD - SLOW - ONCE - 1)]
    patient = send_job("slow-patient", timeout=Duration(seconds=8))
    patient.retry_policy.after_lost_worker = WAIT_FOR_DEADLINE
    ids = [*slow, *once, "slow-patient", *quick]
    asked = [
        *(send_job(each) for each in slow),
        *(send_job(each, retry_policy=retries(1)) for each in once),
        patient,
        *(send_job(each) for each in quick),
    ]
    rules = [f"{SEND} match=slow-* times=1 hang", f"{SEND} match=once-* hang"]
    with running_service(tmp_path, database_url, redis_url, environment, rules) as service:
        jobs = create_all(service.api, asked, 4.0)
        # The slow calls have been under way for a while, and there is more to come.
        eventually(lambda: under_way(service, 1.0), lambda count: count >= SLOW + ONCE + 1)
        assert 0 < states(service)["SUCCEEDED"] < len(quick)
        service.worker.kill()
        killed = utc_now()
        held = {str(uid) for (uid,) in service.query("SELECT uid FROM executions WHERE state = 'RUNNING'")}
        service.start_worker().wait_ready()
        ended = ended_by_id(service, jobs, ids)
        assert len(ended) == LOAD

        # At least once: none is lost, and only what was under way at the kill was called twice.
        calls = service.received()
        assert {call["id"] for call in calls} == set(ids)
        again = [call for call in calls if call["attempt"] > 1]
        assert {call["idempotency_key"] for call in again} <= held
        for each in (*slow, "slow-patient"):
            execution = ended[each]
            assert [call["idempotency_key"] for call in calls if call["id"] == each] == [execution.uid] * 2
            assert (execution.state, execution.attempt_count) == (Execution.SUCCEEDED, 2)
            first, second = execution.attempts
            assert (first.reason, first.counted, first.status.code) == ("LEASE_LOST", True, 14)
            assert (second.reason, second.status.code) == ("", 0)
            assert first.worker != second.worker

        seconds = {call["id"]: call["received"] - killed.timestamp() for call in again}
        waits = sorted(seconds[each] for each in slow)
        tell(f"kill -9: {LOAD - len(ended)} lost; RUNNING ran again after {waits[0]:.2f} to {waits[-1]:.2f} s")
        assert 0 < waits[-1] < AGAIN_WITHIN

        # At most once, on request.
        for each in once:
            execution = ended[each]
            assert (execution.state, execution.reason) == (Execution.FAILED, "ATTEMPTS_EXHAUSTED")
            assert [attempt.reason for attempt in execution.attempts] == ["LEASE_LOST"]
            assert len([call for call in calls if call["id"] == each]) == 1

        # Not before the lost call's deadline, on request.
        first, second = ended["slow-patient"].attempts
        gap = second.start_time.ToDatetime() - first.start_time.ToDatetime()
        assert gap >= timedelta(seconds=8)


def test_a_worker_that_is_told_to_stop_finishes_its_calls_and_loses_nothing(
    database_url: str, redis_url: str, environment: str, tmp_path: Path
) -> None:
    slow, later = [f"slow-{n}" for n in range(10)], [f"later-{n}" for n in range(50)]
    rules = [f"{SEND} match=slow-* delay=2", f"{SEND} match=endless times=1 hang"]
    with running_service(tmp_path, database_url, redis_url, environment, rules, worker_drain="3s") as service:
        jobs = create_all(service.api, [send_job(each) for each in [*slow, "endless"]], 0.1)
        jobs += create_all(service.api, [send_job(each) for each in later], 3.0)
        eventually(lambda: under_way(service, 0.4), lambda count: count > len(slow))
        first = service.worker
        second = service.start_worker()
        assert first.stop() == 0
        second.wait_ready()
        ended = ended_by_id(service, jobs, [*slow, "endless", *later])
        assert {each.state for each in ended.values()} == {Execution.SUCCEEDED}
        calls = eventually(service.received, lambda them: len(them) >= len(jobs) + 1)

        # Whatever had an end was waited for, and nothing was done twice.
        endless = ended.pop("endless")
        assert {each.attempt_count for each in ended.values()} == {1}
        assert all(attempt.reason == "" for each in ended.values() for attempt in each.attempts)
        assert len(calls) == len(jobs) + 1

        # What outlasted the stopping worker was cut, and made again by the other under the same key.
        assert endless.attempt_count == 2
        twice = [call for call in calls if call["id"] == "endless"]
        assert [(call["idempotency_key"], call["code"]) for call in twice] == [
            (endless.uid, "CANCELLED"),
            (endless.uid, "OK"),
        ]
