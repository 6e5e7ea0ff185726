"""Calls over real gRPC, with all interceptors: what becomes of those that go wrong."""

# ruff: noqa: N802 - gRPC gives the names of methods

import asyncio
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest
import whispr.siblings.messaging_pb2  # noqa: F401 - reflection describes its types
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from whispr.scheduling.v1 import job_pb2, schedule_pb2
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.domain.errors import NotFound, StoreUnavailable, invalid
from scheduling.domain.limits import Limits
from scheduling.operations.ports import Ports, Store, Targets
from scheduling.rpc.authentication import MeshIdentity
from scheduling.rpc.call import current_call
from scheduling.rpc.errors import INTERNAL_MESSAGE
from scheduling.rpc.scheduling_servicer import SERVICE_NAME
from scheduling.rpc.server import RpcOptions, Service, api_services
from tests.integration.test_rpc_server import (
    PATIENCE,
    Context,
    Handler,
    LoopClock,
    Refusal,
    Scripted,
    Stack,
    add_to_server,
    echo,
    running,
    serving,
)

OPERATIONS = "whispr.scheduling.v1.OperationsService"
METHODS = [
    (service, method.name)
    for service in (SERVICE_NAME, OPERATIONS)
    for method in descriptor_pool.Default().FindServiceByName(service).methods
]


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "ok\tno"])
def test_a_request_id_that_is_not_sane_is_replaced(sent: Any) -> None:
    async def scenario() -> None:
        async with serving(failing(NotFound("Job", "jobs/a"))) as stack:
            refusal = await stack.refused(
                "GetJob",
                pb.GetJobRequest(name="jobs/a"),
                metadata=(("x-request-id", sent),) if sent != "ok\tno" else (),
            )
            request_id = refusal.metadata["x-request-id"]
            assert request_id != sent
            assert refusal.details["ErrorInfo"].metadata["request_id"] == request_id

    running(scenario)


def failing(error: BaseException) -> Handler:
    async def handler(request: Any, context: Context) -> Any:
        raise error

    return handler


def test_the_trace_of_the_caller_is_known_to_the_call() -> None:
    seen = []

    async def handler(request: Any, context: Context) -> job_pb2.Job:
        seen.append(current_call().trace)
        return job_pb2.Job()

    async def scenario() -> None:
        async with serving(handler) as stack:
            header = f"00-{'a' * 32}-{'b' * 16}-01"
            await stack.call("GetJob", b"", metadata=(("traceparent", header),))
            await stack.call("GetJob", b"", metadata=(("traceparent", "nonsense"),))
        assert seen[0] is not None
        assert seen[0].trace_id == "a" * 32
        assert seen[1] is None

    running(scenario)


def test_bytes_that_are_no_message_are_an_invalid_argument() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            refusal = await stack.refused("GetJob", b"\xff\xff\xff")
            assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
            assert "whispr.scheduling.v1.GetJobRequest" in refusal.message
            not_utf8 = await stack.refused("GetJob", b"\x0a\x01\xff")
            assert not_utf8.reason == "MALFORMED_MESSAGE"

    running(scenario)


def test_malformed_requests_to_health_are_an_invalid_argument_too() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stack.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff")
            assert Refusal(caught.value).reason == "MALFORMED_MESSAGE"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stack.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(
                    [b"\xff"]
                ):
                    pass
            assert Refusal(caught.value).reason == "MALFORMED_MESSAGE"

    running(scenario)


def test_an_unknown_method_stays_unimplemented_and_is_counted_without_its_name() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            assert (await stack.refused("Nonsense", b"")).code == "UNIMPLEMENTED"
            await stack.metrics.until("unknown", "UNIMPLEMENTED")
            # Served by nobody, but known to the generated code.
            assert (await stack.refused("DeleteJob", b"")).code == "UNIMPLEMENTED"

    running(scenario)


def test_a_call_whose_deadline_has_passed_is_not_begun() -> None:
    begun = []

    async def handler(request: Any, context: Context) -> job_pb2.Job:
        begun.append(request)
        return job_pb2.Job()

    class BusyClock(LoopClock):
        """Looked at when a call comes in: the process is busy then, for longer than the call may take."""

        def monotonic(self) -> float:
            time.sleep(0.3)
            return super().monotonic()

    async def scenario() -> None:
        async with serving(handler, clock=BusyClock()) as stack:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stack.channel.unary_unary(f"/{SERVICE_NAME}/GetJob")(b"", timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await stack.metrics.until("GetJob", "DEADLINE_EXCEEDED")
        assert begun == []

    running(scenario)


def test_a_call_is_cancelled_when_its_deadline_passes_or_its_client_goes() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def handler(request: Any, context: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def scenario() -> None:
        async with serving(handler) as stack:
            method = stack.channel.unary_unary(f"/{SERVICE_NAME}/GetJob")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(b"", timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await cancelled.wait()
            await stack.metrics.until("GetJob", "DEADLINE_EXCEEDED")
            begun.clear()
            cancelled.clear()
            call = method(b"")
            await begun.wait()
            call.cancel()
            await cancelled.wait()
            await stack.metrics.until("GetJob", "CANCELLED")
            assert not {code for _, code in stack.metrics.calls} & {"INTERNAL", "UNKNOWN"}

    running(scenario)


def test_a_request_over_the_limit_is_refused_and_the_server_goes_on() -> None:
    async def scenario() -> None:
        async with serving(options=RpcOptions("127.0.0.1:0", max_receive_bytes=1000)) as stack:
            refusal = await stack.refused("GetJob", pb.GetJobRequest(name="x" * 2000))
            assert refusal.code == "RESOURCE_EXHAUSTED"
            await stack.call("GetJob", pb.GetJobRequest(name="jobs/a"))

    running(scenario)


def test_an_answer_over_the_limit_says_what_to_ask_for_instead() -> None:
    async def handler(request: Any, context: Context) -> job_pb2.Job:
        return job_pb2.Job(display_name="x" * 2000)

    async def scenario() -> None:
        async with serving(handler, options=RpcOptions("127.0.0.1:0", max_send_bytes=1000)) as stack:
            refusal = await stack.refused("GetJob", b"")
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "RESPONSE_TOO_LARGE")

    running(scenario)


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), TimeoutError(), AssertionError("hunter2")])
def test_an_unexpected_exception_is_internal_with_a_fixed_text(error: Any, caplog: Any) -> None:
    async def scenario() -> None:
        async with serving(failing(error)) as stack:
            with caplog.at_level(logging.ERROR, logger="scheduling"):
                refusal = await stack.refused("GetJob", b"", metadata=(("x-request-id", "find-me"),))
            assert (refusal.code, refusal.message, refusal.reason) == ("INTERNAL", INTERNAL_MESSAGE, "INTERNAL")
            assert refusal.details["ErrorInfo"].metadata["request_id"] == "find-me"
            assert "hunter2" not in str(refusal.metadata)
            await stack.metrics.until("GetJob", "INTERNAL")
            assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]

    running(scenario)


def test_an_answer_that_cannot_be_serialised_is_internal() -> None:
    async def handler(request: Any, context: Context) -> Any:
        return None

    async def scenario() -> None:
        async with serving(handler) as stack:
            assert (await stack.refused("GetJob", b"")).message == INTERNAL_MESSAGE

    running(scenario)


def test_an_exception_in_a_stream_is_internal_too() -> None:
    class Broken(Scripted):
        async def WatchExecutions(self, request: Any, context: Any) -> Any:
            yield pb.WatchExecutionsResponse(resume_token="first")
            raise RuntimeError("hunter2")

    def register(server: grpc.aio.Server) -> None:
        add_to_server(Broken(echo), server)

    async def scenario() -> None:
        async with serving(services=[Service(SERVICE_NAME, register)]) as stack:
            answers = stack.channel.unary_stream(f"/{SERVICE_NAME}/WatchExecutions")(b"")
            assert b"first" in await answers.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answers.read()
            assert Refusal(caught.value).message == INTERNAL_MESSAGE

    running(scenario)


def test_violations_of_field_rules_have_paths_in_proto_names() -> None:
    request = pb.BatchCreateJobsRequest()
    create = pb.CreateJobRequest(job_id="Not An Id")
    create.job.labels["Bad Key"] = "x"
    create.job.labels["good"] = "y" * 200
    create.job.retry_policy.max_attempts = 0
    create.schedule.jitter.seconds = -1
    request.requests.extend([create, create])

    async def scenario() -> None:
        async with serving() as stack:
            refusal = await stack.refused("CreateJob", create)
            assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
            assert {
                ("job_id", "STRING_PATTERN"),
                ('job.labels["Bad Key"]', "STRING_PATTERN"),
                ('job.labels["good"]', "STRING_MAX_LEN"),
                ("job.retry_policy.max_attempts", "INT32_GTE"),
                ("schedule.when", "REQUIRED"),
                ("schedule.jitter", "DURATION_GTE_LTE"),
            } <= set(refusal.violations)

    running(scenario)


def test_two_kinds_of_schedule_at_once_are_refused_although_the_parser_takes_them() -> None:
    at = schedule_pb2.Schedule(at_time=datetime(2031, 1, 1, tzinfo=UTC)).SerializeToString()
    after = schedule_pb2.Schedule(after=timedelta(seconds=5)).SerializeToString()
    job = pb.CreateJobRequest(job=job_pb2.Job(target="a.B/C")).SerializeToString()

    async def scenario() -> None:
        async with serving() as stack:
            refusal = await stack.refused("CreateJob", job + bytes([0x1A, len(at + after)]) + at + after)
            assert refusal.violations == [("schedule.when", "ONEOF_CLASH")]
            await stack.call("CreateJob", job + bytes([0x1A, len(at)]) + at)

    running(scenario)


def test_texts_of_errors_arrive_whole_whatever_is_in_them() -> None:
    async def scenario() -> None:
        async with serving(failing(invalid("job.filter", "100% ünïcode 🎈 \r\n\x00 end"))) as stack:
            refusal = await stack.refused("GetJob", b"")
            assert refusal.message == "job.filter: 100% ünïcode 🎈   end"
        async with serving(failing(invalid("ä" * 9000, "🎈" * 9000))) as stack:
            refusal = await stack.refused("GetJob", b"", metadata=(("x-request-id", "r" * 128),))
            assert refusal.code == "INVALID_ARGUMENT"
            assert refusal.violations

    running(scenario)


def test_callers_are_authenticated_by_their_metadata_but_health_is_for_everyone() -> None:
    own, caller = "spiffe://mesh/scheduling", "spiffe://mesh/me"
    authenticator = MeshIdentity(own, ("127.0.0.1",))
    told = ("x-forwarded-client-cert", f"By={own};URI={caller}")
    forged = ("x-forwarded-client-cert", f"By={own};URI=spiffe://mesh/operator")

    async def scenario() -> None:
        async with serving(authenticator=authenticator) as stack:
            assert (await stack.refused("GetJob", b"")).code == "UNAUTHENTICATED"
            job = await stack.call("GetJob", b"", metadata=(forged, told))
            assert job.principal == caller
            stub = health_pb2_grpc.HealthStub(stack.channel)
            await stub.Check(health_pb2.HealthCheckRequest())

    running(scenario)


class Unreachable:
    """A store and a Redis that are down, and a catalogue that knows nothing."""

    def __getattr__(self, name: str) -> Any:
        async def unavailable(*args: Any, **options: Any) -> Any:
            raise StoreUnavailable

        return unavailable

    async def is_up(self) -> bool:
        return False

    def get(self, method: str) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def all(self) -> list[Any]:
        return []

    def explain_unknown(self, method: str) -> str:
        return "unknown"


def without_a_database() -> tuple[Service, ...]:
    down = Unreachable()
    return api_services(
        Ports(
            store=cast("Store", down),
            targets=cast("Targets", down),
            clock=LoopClock(),
            limits=Limits(),
            redis=down,
            default_time_zone="UTC",
            environment="test",
            version="0",
        )
    )


async def answer_of(stack: Stack, service: str, method: str, raw: bytes) -> Refusal | None:
    """The error that a method answers, None if it answers at all."""
    descriptor = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(method)
    path = f"/{service}/{method}"
    try:
        if descriptor.server_streaming:
            await stack.channel.unary_stream(path)(raw, timeout=PATIENCE).read()
        else:
            await stack.channel.unary_unary(path)(raw, timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    return None


def test_every_method_answers_malformed_empty_and_oversized_requests_with_the_right_code() -> None:
    async def scenario() -> None:
        options = RpcOptions("127.0.0.1:0", max_receive_bytes=10_000)
        async with serving(services=without_a_database(), options=options) as stack:
            for service, method in METHODS:
                refusal = await answer_of(stack, service, method, b"\xff\xff")
                assert refusal is not None
                assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), method
                refusal = await answer_of(stack, service, method, b"")
                assert refusal is None or refusal.code in ("INVALID_ARGUMENT", "UNAVAILABLE"), method
                assert refusal is None or refusal.details["ErrorInfo"].domain == "scheduling.whispr", method
                refusal = await answer_of(stack, service, method, bytes([0x7A, 0xFF, 0x7F]) + b"x" * 16_383)
                assert refusal is not None
                assert refusal.code == "RESOURCE_EXHAUSTED", method

    running(scenario)


NAMED = {
    "GetJob": "jobs/a",
    "DeleteJob": "jobs/a",
    "CancelJob": "jobs/a",
    "GetSchedule": "jobs/a/schedules/b",
    "DeleteSchedule": "jobs/a/schedules/b",
    "GetExecution": "jobs/a/executions/e-0190f0c0-0000-7000-8000-000000000001",
    "CancelExecution": "jobs/a/executions/e-0190f0c0-0000-7000-8000-000000000001",
}


@pytest.mark.parametrize(("method", "name"), NAMED.items())
def test_without_the_database_a_well_formed_call_is_unavailable_with_a_pause(method: Any, name: Any) -> None:
    async def scenario() -> None:
        async with serving(services=without_a_database()) as stack:
            kind = descriptor_pool.Default().FindServiceByName(SERVICE_NAME).FindMethodByName(method).input_type
            refusal = await stack.refused(method, GetMessageClass(kind)(name=name))
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
            assert refusal.details["RetryInfo"].retry_delay.ToTimedelta() > timedelta(0)
            malformed = await stack.refused(method, GetMessageClass(kind)(name=f"{name}/"))
            assert malformed.violations == [("name", "INVALID_RESOURCE_NAME")]

    running(scenario)


@pytest.mark.parametrize("method", ["ListSchedules", "ListExecutions", "WatchExecutions"])
def test_parents_may_be_the_wildcard_and_are_checked_otherwise(method: Any) -> None:
    async def scenario() -> None:
        async with serving(services=without_a_database()) as stack:
            kind = descriptor_pool.Default().FindServiceByName(SERVICE_NAME).FindMethodByName(method).input_type
            for parent, code in (("jobs/-", "UNAVAILABLE"), ("jobs/a", "UNAVAILABLE"), ("jobs/A", "INVALID_ARGUMENT")):
                raw = GetMessageClass(kind)(parent=parent).SerializeToString()
                refusal = await answer_of(stack, SERVICE_NAME, method, raw)
                assert refusal is not None
                assert refusal.code == code, parent

    running(scenario)
