"""What operators and tools see of a running service: status, queues, targets, health, reflection, channelz, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.operations_service_pb2 import (
    GetStatusRequest,
    ListQueuesRequest,
    ListTargetsRequest,
    QueueStatus,
    Status,
)
from whispr.scheduling.v1.scheduling_service_pb2 import GetJobRequest
from whispr.scheduling.v1.target_pb2 import Queue, Target

from scheduling import __version__
from scheduling.delivery.targets import ROWS
from tests.support.servers import Databases
from tests.support.service import (
    OPERATIONS,
    PATIENCE,
    SCHEDULING,
    SEND,
    Api,
    Service,
    after,
    eventually,
    metrics,
    refused,
    retries,
    running_service,
    send_job,
    utc_now,
)

RULES = (
    "messaging.MessagingService/SendScheduledMessage match=hang-* hang",
    "messaging.MessagingService/SendScheduledMessage match=wrong-* code=NOT_FOUND",
    "messaging.MessagingService/SendScheduledMessage match=later-* code=INTERNAL",
)
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("operations")
    listening = {"metrics_listen": "127.0.0.1:0"}
    url = database_server.migrated()
    with running_service(folder, url, redis_url, "operations", RULES, **listening) as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def status(api: Api) -> Status:
    answer: Status = api.operations.GetStatus(GetStatusRequest())
    return answer


def queue(api: Api, name: str) -> QueueStatus:
    queues: list[QueueStatus] = list(api.operations.ListQueues(ListQueuesRequest()).queues)
    return next(each for each in queues if each.queue == Queue.Value(name))


def reflect(api: Api, package: str, **asked: str) -> Any:
    """The one answer to one question."""
    call = api.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(iter(call(iter([reflection_pb2.ServerReflectionRequest(**asked)]), timeout=PATIENCE)))


# --- status -----------------------------------------------------------------------------------------------------------


def test_the_status_tells_who_leads_and_who_works(api: Api, service: Service) -> None:
    worker = service.worker.wait_ready()
    seen = eventually(lambda: status(api), lambda seen: seen.leader == worker and not seen.degraded_modes)
    assert (seen.version, seen.environment, seen.leader_term) == (__version__, "operations", 1)
    (only,) = seen.workers
    assert (UUID(only.worker), only.pid) == (UUID(worker), service.worker.pid)
    assert list(only.queues) == [Queue.HIGH, Queue.MEDIUM, Queue.LOW]
    assert abs((only.heartbeat_time.ToDatetime() - seen.read_time.ToDatetime()).total_seconds()) < 6
    assert seen.schema_revision
    assert seen.database_version
    assert re.fullmatch(r"\d{4}[a-z]|\d{4}\.\d+", seen.time_zone_version)


def test_the_status_follows_what_happens(api: Api) -> None:
    before = status(api).job_count
    job = api.create(schedule=after(0))
    done = api.wait(job.name)
    assert status(api).job_count == before + 1
    eventually(lambda: status(api), lambda seen: seen.last_start_time.ToDatetime() >= done.start_time.ToDatetime())
    api.create(schedule=after(timedelta(minutes=30)))
    due = status(api).next_due_time.ToDatetime(utc_now().tzinfo)
    assert utc_now() < due <= utc_now() + timedelta(minutes=30)


def test_the_queues_are_listed_with_their_lengths(api: Api, service: Service) -> None:
    answer = api.operations.ListQueues(ListQueuesRequest())
    assert [each.queue for each in answer.queues] == [Queue.HIGH, Queue.MEDIUM, Queue.LOW]
    before = queue(api, "LOW")
    for message_id, state, attempts in (("hang", "RUNNING", 1), ("wrong", "FAILED", 1), ("later", "PENDING", 3)):
        job = send_job(f"{message_id}-counted", queue="LOW", retry_policy=retries(attempts))
        made = api.create(job=job, schedule=after(0))
        api.wait(made.name, state)
    seen = eventually(lambda: queue(api, "LOW"), lambda seen: seen.retrying_count > before.retrying_count)
    assert (seen.running_count - before.running_count, seen.failed_count - before.failed_count) == (1, 1)
    assert metrics(service.worker)['queue_failed{queue="LOW"}'] == seen.failed_count
    assert metrics(service.worker)['queue_running{queue="LOW"}'] == 1


# --- targets ----------------------------------------------------------------------------------------------------------


def test_the_targets_are_listed_with_their_defaults(api: Api) -> None:
    targets: list[Target] = list(api.operations.ListTargets(ListTargetsRequest()).targets)
    assert [target.method for target in targets] == sorted(row.method for row in ROWS)
    send = next(target for target in targets if target.method == SEND)
    assert send.name == "targets/messaging.MessagingService.SendScheduledMessage"
    assert send.request_type == "messaging.SendScheduledMessageRequest"
    assert (send.queue, send.timeout.seconds, send.retry_policy.max_attempts) == (Queue.HIGH, 30, 4)
    assert all(target.description and target.breaker_state == Target.CLOSED for target in targets)


def test_a_walk_over_the_targets_is_the_whole_list(api: Api) -> None:
    names: list[str] = []
    asked = ListTargetsRequest(page_size=4)
    while True:
        page = api.operations.ListTargets(asked)
        names += [target.method for target in page.targets]
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert names == sorted(row.method for row in ROWS)


# --- standard services ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", SCHEDULING, OPERATIONS])
def test_health_says_that_each_service_serves(api: Api, name: str) -> None:
    assert api.is_serving(name)


def test_reflection_lists_and_describes_our_services(api: Api) -> None:
    for package in REFLECTION:
        listed = reflect(api, package, list_services="").list_services_response
        names = {each.name for each in listed.service}
        assert {
            SCHEDULING,
            OPERATIONS,
            "grpc.health.v1.Health",
            "grpc.channelz.v1.Channelz",
            *(f"{each}.ServerReflection" for each in REFLECTION),
        } == names
        for name in names:
            assert reflect(api, package, file_containing_symbol=name).HasField("file_descriptor_response")


@pytest.mark.parametrize("method", [row.method for row in ROWS])
def test_reflection_describes_the_siblings_types(api: Api, method: str) -> None:
    service_name, _, name = method.partition("/")
    answer = reflect(api, REFLECTION[0], file_containing_symbol=service_name).file_descriptor_response
    files = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in answer.file_descriptor_proto]
    package, _, short = service_name.partition(".")
    described = next(s for f in files if f.package == package for s in f.service if s.name == short)
    wanted = next(each for each in described.method if each.name == name).input_type.lstrip(".")
    assert any(f"{f.package}.{m.name}" == wanted for f in files for m in f.message_type)


def test_channelz_shows_the_server(api: Api) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(api.channel)
    servers = stub.GetServers(channelz_pb2.GetServersRequest(start_server_id=0), timeout=PATIENCE).server
    assert len(servers) == 1
    assert servers[0].data.calls_started > 0


def test_every_answer_carries_the_callers_request_id(api: Api) -> None:
    refusal = refused(
        api.scheduling.GetJob, GetJobRequest(name="jobs/nobody"), metadata=(("x-request-id", "from-the-caller"),)
    )
    assert refusal.details["ErrorInfo"].metadata["request_id"] == "from-the-caller"


def test_an_unknown_method_is_unimplemented(api: Api) -> None:
    call = api.channel.unary_unary(f"/{SCHEDULING}/Nope")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=PATIENCE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_each_process_serves_its_metrics(api: Api, service: Service) -> None:
    api.wait(api.create(job=send_job("measured"), schedule=after(0)).name)
    seen = eventually(
        lambda: metrics(service.worker),
        lambda seen: seen.get(f'executions_total{{method="{SEND}",outcome="SUCCEEDED"}}', 0) >= 1,
    )
    assert (seen["leader"], seen["leader_term"], seen["redis_up"]) == (1, 1, 1)
    assert seen['breaker_state{service="messaging.MessagingService"}'] == 0
    assert seen['lateness_seconds_count{queue="HIGH"}'] >= 1
    assert seen['queue_waiting{queue="HIGH"}'] == seen['queue_queued{queue="HIGH"}'] == 0
    seen = metrics(service.server)
    assert seen[f'rpc_total{{code="OK",method="{SCHEDULING}/CreateJob"}}'] >= 1
    assert 'queue_waiting{queue="HIGH"}' in seen
    assert 'breaker_state{service="messaging.MessagingService"}' in seen


def test_a_plan_is_not_counted_as_waiting(api: Api) -> None:
    before = queue(api, "MEDIUM")
    job = api.create(job=send_job("planned", queue="MEDIUM"), schedule=after(timedelta(hours=1)))
    assert queue(api, "MEDIUM") == before
    assert api.executions(job.name)[0].state == Execution.PENDING
