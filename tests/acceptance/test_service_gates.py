"""Limits and pauses of a running service, as callers and operators see them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.operations_service_pb2 import (
    GetStatusRequest,
    ListAuditEntriesRequest,
    ListQueuesRequest,
    ListTargetsRequest,
    PauseQueueRequest,
    PauseServiceRequest,
    PauseTargetRequest,
    ResumeQueueRequest,
    ResumeServiceRequest,
    ResumeTargetRequest,
)
from whispr.scheduling.v1.scheduling_service_pb2 import BatchCreateJobsRequest, CancelExecutionRequest
from whispr.scheduling.v1.target_pb2 import Queue

from tests.support.servers import Databases
from tests.support.service import (
    SEND,
    Service,
    after,
    create_request,
    eventually,
    metrics,
    refused,
    running_service,
    send_job,
    tell,
)

RULES = ("messaging.MessagingService/SendScheduledMessage match=hang-* hang",)
OWNER_RUNNING, OWNER_DAILY = 10, 1000
ASKED, CLIENTS = 1500, 32


@pytest.fixture(scope="module")
def made(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    url, folder = database_server.migrated(), tmp_path_factory.mktemp("gates")
    with running_service(folder, url, redis_url, "gates", RULES, metrics_listen="127.0.0.1:0") as running:
        yield running
    database_server.drop(url)


def test_ten_of_one_owner_run_while_others_flow(made: Service) -> None:
    api = made.api
    hanging = [create_request(job=send_job(f"hang-{n}", owner="busy"), schedule=after()) for n in range(30)]
    jobs = api.scheduling.BatchCreateJobs(BatchCreateJobsRequest(requests=hanging)).jobs
    of_busy = "SELECT state, coalesce(held_by, ''), count(*)::int FROM executions WHERE owner = 'busy' GROUP BY 1, 2"
    full = {("RUNNING", "", OWNER_RUNNING), ("PENDING", "OWNER:busy", 30 - OWNER_RUNNING)}
    eventually(lambda: set(made.query(of_busy)), lambda rows: rows == full)
    others = [api.create(job=send_job(f"flow-{n}", owner=f"o{n}"), schedule=after()) for n in range(20)]
    for job in others:
        api.wait(job.name)
    assert set(made.query(of_busy)) == full
    # A slot that becomes free is taken by the oldest of those that wait.
    running = [job for job in jobs if api.executions(job.name)[0].state == Execution.RUNNING]
    api.scheduling.CancelExecution(CancelExecutionRequest(name=api.executions(running[0].name)[0].name))
    left = {("RUNNING", "", OWNER_RUNNING), ("PENDING", "OWNER:busy", 29 - OWNER_RUNNING)}
    eventually(lambda: set(made.query(of_busy)), lambda rows: rows == left)


def test_exactly_as_many_as_the_quota_are_accepted_from_many_clients_at_once(made: Service) -> None:
    api = made.api
    numbers, lock = iter(range(ASKED)), threading.Lock()
    codes: Counter[str] = Counter()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                api.scheduling.CreateJob(create_request(job=send_job(f"quota-{number}", owner="eager")))
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
            with lock:
                codes[code] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(client) for _ in range(CLIENTS)]:
            each.result()
    tell(f"limits: {ASKED} creations of one owner by {CLIENTS} clients at once: {dict(codes)}")
    assert codes == {"OK": OWNER_DAILY, "RESOURCE_EXHAUSTED": ASKED - OWNER_DAILY}
    assert made.query("SELECT count(*)::int FROM jobs WHERE owner = 'eager'") == [(OWNER_DAILY,)]


def test_a_paused_queue_holds_its_own_and_everybody_can_see_it(made: Service) -> None:
    operations, api = made.api.operations, made.api
    paused = operations.PauseQueue(PauseQueueRequest(queue=Queue.HIGH, note="the siblings move"))
    assert (paused.pause.name, paused.pause.note) == ("queues/high", "the siblings move")
    assert paused.pause.principal
    assert operations.PauseQueue(PauseQueueRequest(queue=Queue.HIGH, note="again")).pause == paused.pause
    high = api.create(job=send_job("paused-high", owner="p"), schedule=after())
    medium = api.create(job=send_job("not-paused", owner="p", queue=Queue.MEDIUM), schedule=after())
    api.wait(medium.name)
    execution = api.wait(high.name, "PENDING")
    held = eventually(lambda: api.execution(execution.name).held_by, bool)
    assert held == "QUEUE_PAUSED:HIGH"
    seen = {each.queue: each.pause.name for each in operations.ListQueues(ListQueuesRequest()).queues}
    assert seen == {Queue.HIGH: "queues/high", Queue.MEDIUM: "", Queue.LOW: ""}
    status = operations.GetStatus(GetStatusRequest())
    assert "QUEUE_PAUSED:HIGH" in status.degraded_modes
    assert [each.name for each in status.pauses] == ["queues/high"]
    gauges = metrics(made.worker)
    assert (gauges['queue_paused{queue="HIGH"}'], gauges['queue_paused{queue="LOW"}'], gauges["paused"]) == (1, 0, 0)
    for _ in range(2):
        assert not operations.ResumeQueue(ResumeQueueRequest(queue=Queue.HIGH)).HasField("pause")
    api.wait(high.name)


@pytest.mark.parametrize("name", ["targets/messaging.MessagingService", f"targets/{SEND.replace('/', '.')}"])
def test_a_paused_target_is_held_and_goes_on(made: Service, name: str) -> None:
    operations, api = made.api.operations, made.api
    targets = operations.PauseTarget(PauseTargetRequest(name=name, note="a new version")).targets
    assert {each.pause.name for each in targets} == {name}
    job = api.create(job=send_job(f"paused-{len(name)}", owner="t"), schedule=after())
    execution = api.wait(job.name, "PENDING")
    held = eventually(lambda: api.execution(execution.name).held_by, bool)
    assert held.startswith("TARGET_PAUSED:messaging.MessagingService")
    shown = operations.ListTargets(ListTargetsRequest()).targets
    assert {each.method for each in shown if each.HasField("pause")} == {each.method for each in targets}
    assert metrics(made.worker)[f'target_paused{{method="{SEND}"}}'] == 1
    resumed = operations.ResumeTarget(ResumeTargetRequest(name=name)).targets
    assert not any(each.HasField("pause") for each in resumed)
    api.wait(job.name)


def test_a_paused_service_accepts_and_delivers_later(made: Service) -> None:
    operations, api = made.api.operations, made.api
    status = operations.PauseService(PauseServiceRequest(note="maintenance"))
    assert (status.pauses[0].name, status.degraded_modes[0]) == ("service", "SERVICE_PAUSED")
    job = api.create(job=send_job("paused-all", owner="s"), schedule=after())
    execution = api.wait(job.name, "PENDING")
    assert eventually(lambda: api.execution(execution.name).held_by, bool) == "SERVICE_PAUSED"
    assert metrics(made.worker)["paused"] == 1
    assert not operations.ResumeService(ResumeServiceRequest()).pauses
    api.wait(job.name)


def test_a_worker_that_is_not_enabled_starts_the_service_paused(
    database_url: str, redis_url: str, environment: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("disabled")
    with running_service(folder, database_url, redis_url, environment, enabled="false") as made:
        status = eventually(
            lambda: made.api.operations.GetStatus(GetStatusRequest()), lambda seen: len(seen.pauses) == 1
        )
        assert status.pauses[0].note == "SCHEDULING_ENABLED is false"
        job = made.api.create(schedule=after())
        assert made.api.wait(job.name, "PENDING").state == Execution.PENDING
        made.api.operations.ResumeService(ResumeServiceRequest())
        made.api.wait(job.name)
        told = made.api.operations.ListAuditEntries(ListAuditEntriesRequest(resource="service"))
        assert [each.rpc for each in told.entries] == ["OperationsService/ResumeService", "SCHEDULING_ENABLED"]


LONG = "x" * 501
BAD = [
    ("PauseQueue", PauseQueueRequest(), "INVALID_ARGUMENT", {"queue"}),
    ("ResumeQueue", ResumeQueueRequest(), "INVALID_ARGUMENT", {"queue"}),
    ("PauseQueue", PauseQueueRequest(queue=9), "INVALID_ARGUMENT", {"queue"}),  # type: ignore[arg-type]  # on purpose
    ("PauseQueue", PauseQueueRequest(queue=Queue.LOW, note=LONG), "INVALID_ARGUMENT", {"note"}),
    ("PauseQueue", PauseQueueRequest(queue=Queue.LOW, note="\0"), "INVALID_ARGUMENT", {"note"}),
    ("PauseService", PauseServiceRequest(note=LONG), "INVALID_ARGUMENT", {"note"}),
    ("PauseTarget", PauseTargetRequest(), "INVALID_ARGUMENT", {"name"}),
    ("PauseTarget", PauseTargetRequest(name="media.MediaService"), "INVALID_ARGUMENT", {"name"}),
    ("PauseTarget", PauseTargetRequest(name="targets/"), "INVALID_ARGUMENT", {"name"}),
    ("PauseTarget", PauseTargetRequest(name=f"targets/{SEND}"), "INVALID_ARGUMENT", {"name"}),
    ("ResumeTarget", ResumeTargetRequest(name="targets/\0"), "INVALID_ARGUMENT", {"name"}),
    ("ResumeTarget", ResumeTargetRequest(name="targets/nobody.Service"), "NOT_FOUND", set()),
    ("PauseTarget", PauseTargetRequest(name="targets/media.MediaService.Nothing"), "NOT_FOUND", set()),
]


@pytest.mark.parametrize(("rpc", "request_", "code", "fields"), BAD)
def test_bad_pauses_are_refused_and_pause_nothing(
    made: Service, rpc: str, request_: object, code: str, fields: set[str]
) -> None:
    refusal = refused(getattr(made.api.operations, rpc), request_)
    assert refusal.code == code
    if fields:
        assert set(refusal.violations) == fields
    assert made.query("SELECT count(*)::int FROM controls") == [(0,)]
