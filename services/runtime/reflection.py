"""Server reflection, v1alpha and v1.

The library serves v1alpha only; older tools ask for that, newer ones for v1 first. The messages are the
same on the wire, so v1 is v1alpha's servicer under the other name, plus a file descriptor that describes
the other name. And it finds no file by the name of a method, which a symbol may be (ghz asks so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection as alpha
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"
_METHOD = "ServerReflectionInfo"


def _describe_v1() -> None:
    """Adds grpc/reflection/v1/reflection.proto to the default pool: v1alpha's descriptor with another
    package.
    """
    pool = descriptor_pool.Default()
    try:
        pool.FindFileContainingSymbol(V1)
    except KeyError:
        described = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(described)
        described.name = "grpc/reflection/v1/reflection.proto"
        described.package = "grpc.reflection.v1"
        for message in described.message_type:
            _rename_types(message)
        for service in described.service:
            for method in service.method:
                method.input_type = _renamed(method.input_type)
                method.output_type = _renamed(method.output_type)
        pool.AddSerializedFile(described.SerializeToString())


class _Pool:
    """The default pool, which finds the file of a method too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """KeyError when there is none."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return pool.FindMethodByName(symbol).containing_service.file


def _rename_types(message: descriptor_pb2.DescriptorProto) -> None:
    for member in message.field:
        if member.type_name:
            member.type_name = _renamed(member.type_name)
    for nested in message.nested_type:
        _rename_types(nested)


def _renamed(name: str) -> str:
    return name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")


def add_reflection(server: Any, service_names: Sequence[str], *, asynchronous: bool) -> None:
    """Registers both versions on a server (grpc.aio when ``asynchronous``)."""
    _describe_v1()
    names = (*service_names, V1ALPHA, V1)
    servicers = alpha.aio if asynchronous else alpha
    servicer = servicers.ReflectionServicer(names, _Pool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {_METHOD: handler}),))
    server.add_registered_method_handlers(V1, {_METHOD: handler})
