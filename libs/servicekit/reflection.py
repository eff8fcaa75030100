"""Server reflection: grpc.reflection.v1 and, for clients from before it, v1alpha; every element can be described.

grpcio has v1alpha only, and its descriptor pool finds the file of a method by no name.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

_FILE: Final = "grpc/reflection/v1/reflection.proto"
_METHOD: Final = "ServerReflectionInfo"

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""The services that serve reflection."""
METHODS: Final = tuple(f"{service}/{_METHOD}" for service in SERVICES)
"""Their methods: streams that never end by themselves."""


def enable(
    service_names: Iterable[str], server: grpc.aio.Server, lazy: Mapping[str, Callable[[], object]] | None = None
) -> None:
    """Adds both services to a server; they list these services and themselves, and describe all that is loaded.

    `lazy` names services that are listed, too, and loads what describes them, once that is asked for.
    """
    _describe_stable()
    servicer = _Servicer([*service_names, *SERVICES], lazy or {})
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # The messages of v1 are those of v1alpha under other names: on the wire they are the same.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers(SERVICES[0], {_METHOD: handler})


class _Servicer(reflection.aio.ReflectionServicer):  # type: ignore[misc, unused-ignore]
    def __init__(self, service_names: Iterable[str], lazy: Mapping[str, Callable[[], object]]) -> None:
        super().__init__([*service_names, *lazy])
        self._lazy = dict(lazy)

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        found = _file_of(fully_qualified_name)
        if found is None and self._lazy:
            while self._lazy:  # an element of theirs, or of what they import
                self._lazy.popitem()[1]()
            found = _file_of(fully_qualified_name)
        return super()._file_by_filename(request, fully_qualified_name if found is None else found.name)


def _file_of(symbol: str) -> FileDescriptor | None:
    """The file of an element: of a method its service's, of an enum's value (`Enum.VALUE`) its enum's."""
    pool = descriptor_pool.Default()
    parent, _, name = symbol.rpartition(".")
    with suppress(KeyError):
        return pool.FindFileContainingSymbol(symbol)
    with suppress(KeyError):
        service = pool.FindServiceByName(parent)
        return service.file if name in service.methods_by_name else None
    with suppress(KeyError):
        enum = pool.FindEnumTypeByName(parent)
        return enum.file if name in enum.values_by_name else None
    return None


def _describe_stable() -> None:
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
        text = text_format.MessageToString(alpha).replace(reflection_pb2.DESCRIPTOR.name, _FILE)
        stable = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
        pool.AddSerializedFile(stable.SerializeToString())
