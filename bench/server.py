"""`scheduling server` with one more method, `whispr.scheduling.v1.BenchService/Nothing`: what a call costs that does
nothing, through the same interceptors of the same process.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.empty_pb2 import Empty

from scheduling import app
from scheduling.cli.processes import run_process
from scheduling.operations.ports import Ports
from scheduling.rpc.server import Service, api_services

SERVICE, METHOD = "whispr.scheduling.v1.BenchService", "Nothing"


async def _nothing(request: Empty, context: Any) -> Empty:  # noqa: ARG001 - a behaviour
    return Empty()


def _register(server: grpc.aio.Server) -> None:
    handler = grpc.unary_unary_rpc_method_handler(
        _nothing, request_deserializer=Empty.FromString, response_serializer=Empty.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


def _describe() -> None:
    """Makes the service known, as generated code would: metrics are announced from descriptors."""
    file = descriptor_pb2.FileDescriptorProto(
        name="bench.proto", package=SERVICE.rpartition(".")[0], dependency=["google/protobuf/empty.proto"]
    )
    empty = f".{Empty.DESCRIPTOR.full_name}"
    service = file.service.add(name=SERVICE.rpartition(".")[2])
    service.method.add(name=METHOD, input_type=empty, output_type=empty)
    descriptor_pool.Default().Add(file)


def _services(ports: Ports) -> tuple[Service, ...]:
    return (*api_services(ports), Service(SERVICE, _register))


def main() -> int:
    """Runs until told to stop."""
    _describe()
    vars(app)["api_services"] = _services
    return run_process("server")


if __name__ == "__main__":
    sys.exit(main())
