"""The API server over real gRPC: how it starts and stops, its health, reflection and channelz."""

# ruff: noqa: N802 - gRPC gives the names of methods

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest
import whispr.siblings.messaging_pb2  # noqa: F401 - reflection describes its types
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from whispr.scheduling.v1 import job_pb2, scheduling_service_pb2_grpc
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.domain.errors import NotFound
from scheduling.rpc.authentication import FixedPrincipal
from scheduling.rpc.call import current_call
from scheduling.rpc.scheduling_servicer import SERVICE_NAME
from scheduling.rpc.server import ListenError, RpcOptions, RpcServer, Service

#: Seconds for anything to happen that must happen.
PATIENCE = 60.0

Context = Any
add_to_server: Any = scheduling_service_pb2_grpc.add_SchedulingServiceServicer_to_server


class LoopClock:
    """The loop's own time: these tests wait for real sockets."""

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - this is the clock


@dataclass
class Counted:
    """The calls that were counted."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def rpc_handled(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method.rpartition("/")[2], code))
        self.changed.set()

    async def until(self, method: str, code: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (method, code) not in self.calls:
                self.changed.clear()
                await self.changed.wait()


Handler = Callable[[Any, Context], Awaitable[Any]]


class Scripted(scheduling_service_pb2_grpc.SchedulingServiceServicer):
    """GetJob, CreateJob and UpdateJob answer as `handler` says; WatchExecutions streams until it is ended."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.watches_closed = 0

    async def GetJob(self, request: Any, context: Any) -> Any:
        return await self.handler(request, context)

    async def CreateJob(self, request: Any, context: Any) -> Any:
        return await self.handler(request, context)

    async def UpdateJob(self, request: Any, context: Any) -> Any:
        return await self.handler(request, context)

    async def WatchExecutions(self, request: Any, context: Any) -> Any:
        try:
            yield pb.WatchExecutionsResponse(resume_token="first")
            await asyncio.Event().wait()
        finally:
            self.watches_closed += 1


async def echo(request: Any, context: Context) -> job_pb2.Job:
    return job_pb2.Job(name=getattr(request, "name", ""), principal=current_call().principal)


async def yes() -> bool:
    return True


@dataclass
class Stack:
    server: RpcServer
    channel: grpc.aio.Channel
    port: int
    metrics: Counted
    servicer: Scripted

    async def call(self, method: str, request: Any, **options: Any) -> job_pb2.Job:
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        answer = await self.channel.unary_unary(f"/{SERVICE_NAME}/{method}")(raw, timeout=PATIENCE, **options)
        return job_pb2.Job.FromString(answer)

    async def refused(self, method: str, request: Any, **options: Any) -> "Refusal":
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request, **options)
        return Refusal(caught.value)


class Refusal:
    """An error as a client sees it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        self.message = error.details()
        self.metadata = dict(error.trailing_metadata() or ())
        self.details: dict[str, Any] = {}
        if "grpc-status-details-bin" in self.metadata:
            status = status_pb2.Status.FromString(cast("bytes", self.metadata["grpc-status-details-bin"]))
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                name = detail.type_url.rpartition(".")[2]
                self.details[name] = getattr(error_details_pb2, name).FromString(detail.value)

    @property
    def reason(self) -> str:
        return cast("str", self.details["ErrorInfo"].reason)

    @property
    def violations(self) -> list[tuple[str, str]]:
        return [(v.field, v.reason) for v in self.details["BadRequest"].field_violations]


@asynccontextmanager
async def serving(handler: Handler = echo, **changes: Any) -> AsyncIterator[Stack]:
    servicer, metrics = Scripted(handler), Counted()

    def register(server: grpc.aio.Server) -> None:
        add_to_server(servicer, server)

    settings: dict[str, Any] = {
        "services": [Service(SERVICE_NAME, register)],
        "is_serving": yes,
        "authenticator": FixedPrincipal("spiffe://test/caller"),
        "metrics": metrics,
        "clock": LoopClock(),
    }
    server = RpcServer(changes.pop("options", RpcOptions("127.0.0.1:0")), **(settings | changes))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Stack(server, channel, port, metrics, servicer)
        finally:
            await server.stop(0, grace=1)


def running(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def test_a_good_call_is_answered_and_carries_its_request_id_back() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            call = stack.channel.unary_unary(f"/{SERVICE_NAME}/GetJob")(
                pb.GetJobRequest(name="jobs/a").SerializeToString(), metadata=(("x-request-id", "mine-1"),)
            )
            job = job_pb2.Job.FromString(await call)
            assert (job.name, job.principal) == ("jobs/a", "spiffe://test/caller")
            assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"
            await stack.metrics.until("GetJob", "OK")

    running(scenario)


def test_health_follows_what_the_service_says_of_itself() -> None:
    answer: dict[str, Any] = {"serving": False}

    async def is_serving() -> bool:
        if isinstance(answer["serving"], Exception):
            raise answer["serving"]
        return cast("bool", answer["serving"])

    async def scenario() -> None:
        async with serving(is_serving=is_serving) as stack:
            stub = health_pb2_grpc.HealthStub(stack.channel)

            async def status(service: str) -> str:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                return cast("str", health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

            for value, expected in (
                (False, "NOT_SERVING"),
                (True, "SERVING"),
                (ConnectionError("down"), "NOT_SERVING"),
                (True, "SERVING"),
            ):
                answer["serving"] = value
                await stack.server.check_health()
                assert [await status(name) for name in ("", SERVICE_NAME)] == [expected, expected]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await status("nobody")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    running(scenario)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_what_is_served_and_describes_the_siblings_too(version: Any) -> None:
    async def scenario() -> None:
        async with serving(described=["messaging.MessagingService"]) as stack:
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                *(
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
                    for name in (
                        SERVICE_NAME,
                        "messaging.MessagingService",
                        "grpc.reflection.v1.ServerReflection",
                        "grpc.channelz.v1.Channelz",
                    )
                ),
            ]
            call = stack.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )(requests)
            listed, *files = [answer async for answer in call]
            names = [service.name for service in listed.list_services_response.service]
            assert SERVICE_NAME in names
            assert "messaging.MessagingService" not in names
            for answer in files:
                assert answer.file_descriptor_response.file_descriptor_proto
                for raw in answer.file_descriptor_response.file_descriptor_proto:
                    descriptor_pb2.FileDescriptorProto.FromString(raw)

    running(scenario)


def test_a_service_that_reflection_cannot_describe_stops_the_start() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match=r"nobody\.KnowsIt"):
            async with serving(described=["nobody.KnowsIt"]):
                pass

    running(scenario)


def test_channelz_tells_about_the_server() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            stub = channelz_pb2_grpc.ChannelzStub(stack.channel)
            assert (await stub.GetServers(channelz_pb2.GetServersRequest())).server

    running(scenario)


def test_an_address_that_is_taken_is_a_clear_error() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            with pytest.raises(ListenError, match=f"127.0.0.1:{stack.port}"):
                async with serving(options=RpcOptions(f"127.0.0.1:{stack.port}")):
                    pass
        with socket.create_server(("127.0.0.1", stack.port)):
            pass  # The port is free again.

    running(scenario)


def test_stopping_ends_streams_as_unavailable_and_lets_calls_finish() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Context) -> job_pb2.Job:
        begun.set()
        await finish.wait()
        return job_pb2.Job(name="finished")

    async def scenario() -> None:
        async with serving(handler) as stack:
            watch = stack.channel.unary_stream(f"/{SERVICE_NAME}/WatchExecutions")(b"")
            await watch.read()
            health_stub = health_pb2_grpc.HealthStub(stack.channel)
            health = health_stub.Watch(health_pb2.HealthCheckRequest())
            await health.read()
            unary = asyncio.create_task(stack.call("GetJob", b""))
            await begun.wait()
            stopping = asyncio.create_task(stack.server.stop(0, grace=PATIENCE))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch.read()
            refusal = Refusal(caught.value)
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
            assert "RetryInfo" in refusal.details
            assert stack.servicer.watches_closed == 1
            assert not stopping.done()
            finish.set()
            assert (await unary).name == "finished"
            async with asyncio.timeout(PATIENCE / 2):
                await stopping  # Does not wait for the watcher of health.

    running(scenario)


def test_health_says_not_serving_while_the_server_drains() -> None:
    slept = asyncio.Event()
    go_on = asyncio.Event()

    class DrainClock(LoopClock):
        async def sleep(self, seconds: float) -> None:
            if seconds == 33:
                slept.set()
                await go_on.wait()
            else:
                await super().sleep(seconds)

    async def scenario() -> None:
        async with serving(clock=DrainClock()) as stack:
            await stack.server.check_health()
            stopping = asyncio.create_task(stack.server.stop(33, grace=1))
            await slept.wait()
            stub = health_pb2_grpc.HealthStub(stack.channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
            await stack.call("GetJob", b"")
            go_on.set()
            await stopping
            await stack.server.stop(0)

    running(scenario)


def test_a_call_that_outlives_the_grace_is_cancelled() -> None:
    begun = asyncio.Event()

    async def handler(request: Any, context: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with serving(handler) as stack:
            unary = asyncio.create_task(stack.refused("GetJob", b""))
            await begun.wait()
            await stack.server.stop(0, grace=0.1)
            assert (await unary).code in ("UNAVAILABLE", "CANCELLED")
            await stack.metrics.until("GetJob", "CANCELLED")

    running(scenario)


def test_a_stream_is_closed_when_its_client_goes() -> None:
    async def scenario() -> None:
        async with serving() as stack:
            watch = stack.channel.unary_stream(f"/{SERVICE_NAME}/WatchExecutions")(b"")
            await watch.read()
            watch.cancel()
            await stack.metrics.until("WatchExecutions", "CANCELLED")
            assert stack.servicer.watches_closed == 1

    running(scenario)


def test_a_refused_call_holds_on_to_nothing_until_the_garbage_collector_comes() -> None:
    """Requests have up to 8 MiB, and the collector goes by the number of objects."""

    class Held:
        pass

    gone = asyncio.Semaphore(0)

    async def refusing(request: Any, context: Context) -> job_pb2.Job:
        of_the_call = Held()
        weakref.finalize(of_the_call, gone.release)
        if request.name == "jobs/aborted":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        missing = NotFound("job", request.name)
        raise missing

    async def scenario() -> None:
        async with serving(refusing) as stack:
            for name in ("jobs/a", "jobs/aborted"):
                assert (await stack.refused("GetJob", pb.GetJobRequest(name=name))).code == "NOT_FOUND"
                await gone.acquire()

    gc.disable()
    try:
        running(scenario)
    finally:
        gc.enable()
