"""The gRPC server: our services with health, reflection and channelz, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import grpc
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_channelz.v1.channelz import aio as channelz_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from whispr.scheduling.v1 import operations_service_pb2_grpc, scheduling_service_pb2_grpc

from scheduling.domain.clock import Clock
from scheduling.operations.ports import Ports
from scheduling.rpc import operations_servicer, scheduling_servicer
from scheduling.rpc.authentication import Authenticator
from scheduling.rpc.health import HealthMonitor, IsServing
from scheduling.rpc.interceptors import PolicyInForce, Refused, RpcMetrics, allow_all, build_interceptors, note_nothing
from scheduling.rpc.reflection import add_reflection
from scheduling.rpc.streams import OpenStreams

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """How the server listens. `listen` is `host:port`, port 0 takes any free one. Sizes in bytes, times in seconds."""

    listen: str
    max_receive_bytes: int = 8 * _MEBIBYTE
    max_send_bytes: int = 8 * _MEBIBYTE
    #: Calls that one connection may have open at a time; more wait at the client.
    max_streams: int = 1000
    #: A connection that does not answer a ping for `keepalive_timeout` is closed; asked when silent for so long.
    keepalive: float = 60.0
    keepalive_timeout: float = 20.0
    #: Clients that ping more often than this are cut off. Envoy and the usual client settings stay above.
    least_client_ping: float = 10.0


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service to serve: its full name, and what registers its servicer with a server."""

    name: str
    register: Callable[[grpc.aio.Server], None]


class ListenError(Exception):
    """The address cannot be listened on: taken, not of this machine, or not allowed."""


def api_services(ports: Ports) -> tuple[Service, ...]:
    """Our two services over the operations."""
    scheduling = scheduling_servicer.SchedulingServicer(ports)
    operations = operations_servicer.OperationsServicer(ports)
    add_scheduling: Any = scheduling_service_pb2_grpc.add_SchedulingServiceServicer_to_server
    add_operations: Any = operations_service_pb2_grpc.add_OperationsServiceServicer_to_server
    return (
        Service(scheduling_servicer.SERVICE_NAME, lambda server: add_scheduling(scheduling, server)),
        Service(operations_servicer.SERVICE_NAME, lambda server: add_operations(operations, server)),
    )


class _ByName:
    """What generated code registers its methods with: they are looked up by their names at each call.

    Of methods that are registered with gRPC's core beforehand, grpc.aio keeps a task waiting for each, and goes through
    all of them at every call: with our sixty that was a tenth of what an empty call costs.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Leaves them to be looked up."""


class RpcServer:
    """One API server. `start` once, `stop` once; both on the same event loop.

    `is_serving` is asked every second and decides the health of `services`. `described` names services of others that
    reflection is to describe (their generated modules must have been imported).
    """

    def __init__(
        self,
        options: RpcOptions,
        *,
        services: Sequence[Service],
        is_serving: IsServing,
        authenticator: Authenticator,
        policy: PolicyInForce = allow_all,
        refused: Refused = note_nothing,
        metrics: RpcMetrics,
        clock: Clock,
        described: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._services = tuple(services)
        self._described = tuple(described)
        self._clock = clock
        self._streams = OpenStreams()
        self._interceptors = build_interceptors(
            metrics=metrics,
            clock=clock,
            streams=self._streams,
            authenticator=authenticator,
            policy=policy,
            refused=refused,
            max_send_bytes=options.max_send_bytes,
        )
        self._health = HealthMonitor(is_serving, clock, [service.name for service in self._services])
        self._monitor: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens and serves; returns the port. Raises ListenError, or ValueError for `described` names nobody knows.

        Health is NOT_SERVING until `is_serving` has said yes for the first time.
        """
        server = grpc.aio.server(interceptors=self._interceptors, options=_channel_options(self._options))
        by_name = cast("grpc.aio.Server", _ByName(server))
        for service in self._services:
            service.register(by_name)
        self._add_standard_services(by_name)
        try:
            port: int = server.add_insecure_port(self._options.listen)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {self._options.listen}: it is in use or not allowed") from error
        await self._health.begin()
        await server.start()
        self._server = server
        self._monitor = asyncio.create_task(self._health.run(), name="rpc-health")
        return port

    async def check_health(self) -> bool:
        """Asks `is_serving` now instead of at the next second; returns its answer."""
        return await self._health.tick()

    async def stop(self, drain: float, grace: float = 10.0) -> None:
        """Stops: NOT_SERVING, `drain` seconds for callers to notice, then no new calls.

        Open streams end with UNAVAILABLE; unary calls have `grace` seconds to finish, then they are cancelled.
        Returns as soon as none is left. Does nothing when the server was not started or has stopped.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.shut_down()
        if self._monitor is not None:
            self._monitor.cancel()
            with suppress(asyncio.CancelledError):
                await self._monitor
        if drain > 0:
            await self._clock.sleep(drain)
        # New calls are refused first: a stream that ends before would come back on the same connection.
        stopped = asyncio.ensure_future(server.stop(grace))
        await self._clock.sleep(0)
        self._streams.end_all()
        await stopped

    def _add_standard_services(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz_aio.ChannelzServicer(), server)
        standard = [
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
        ]
        served = [service.name for service in self._services] + standard
        add_reflection(server, served=served, described=self._described)


def _channel_options(options: RpcOptions) -> tuple[tuple[str, int], ...]:
    """The channel arguments (grpc/impl/channel_arg_names.h) for these options."""
    return (
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", options.max_send_bytes),
        ("grpc.max_concurrent_streams", options.max_streams),
        # Two servers on one port would share its connections at random: the second is to fail.
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", 1),
        ("grpc.keepalive_time_ms", int(options.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.least_client_ping * 1000)),
    )
