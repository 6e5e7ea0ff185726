"""Server reflection, v1 and v1alpha, for our services and for the types of the siblings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

_V1ALPHA, _V1 = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_METHOD = "ServerReflectionInfo"


def add_reflection(server: grpc.aio.Server, *, served: Sequence[str], described: Sequence[str]) -> None:
    """Adds reflection that lists the services `served` and itself.

    `described` names services that live elsewhere but whose types callers need, such as the siblings' for packing a
    target's request: they can be described and are not listed. ValueError if a service of either kind is not in the
    default descriptor pool, which means that its generated module was not imported.
    """
    pool = descriptor_pool.Default()
    _add_v1_descriptor(pool)
    missing = [name for name in (*served, *described) if not _is_known(pool, name)]
    if missing:
        raise ValueError(f"reflection cannot describe {', '.join(missing)}: not in the descriptor pool")
    own = [f"{package}.ServerReflection" for package in (_V1, _V1ALPHA)]
    servicer = reflection_aio.ReflectionServicer([*served, *own], pool=_PoolWithMethods(pool))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # The library only has v1alpha; v1 is the same on the wire.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(own[0], {_METHOD: handler}),))


class _PoolWithMethods:
    """A descriptor pool that finds methods by name too, so that clients can describe `package.Service.Method`."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the library's name
        """The file that declares the symbol. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _is_known(pool: descriptor_pool.DescriptorPool, service: str) -> bool:
    try:
        pool.FindServiceByName(service)
    except KeyError:
        return False
    return True


def _add_v1_descriptor(pool: descriptor_pool.DescriptorPool) -> None:
    """Makes `grpc.reflection.v1` describable: clients that list services ask for the descriptor of each."""
    if _is_known(pool, f"{_V1}.ServerReflection"):
        return
    alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    file = descriptor_pb2.FileDescriptorProto.FromString(alpha)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _V1
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(_V1ALPHA, _V1)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(_V1ALPHA, _V1)
            method.output_type = method.output_type.replace(_V1ALPHA, _V1)
    pool.AddSerializedFile(file.SerializeToString())
