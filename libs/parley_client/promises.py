"""What the protos promise of each method: whether it may be retried, and its default deadline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from parley.chat.v1 import chat_service_pb2, runtime_service_pb2
from parley.config.v1 import (
    access_service_pb2,
    agent_config_service_pb2,
    provider_service_pb2,
    template_service_pb2,
    tool_server_service_pb2,
)
from parley.session.v1 import session_service_pb2, turn_service_pb2

CALL_SECONDS: Final = 60.0
"""The deadline of a call that says none."""
TURN_SECONDS: Final = 660.0
"""The default deadline of a turn: a minute more than a gateway's default."""
STREAM_SECONDS: Final = 3600.0
"""The default deadline of other streams, such as watches, which are reopened where they ended."""

_FILES = {
    "gateway": (chat_service_pb2, runtime_service_pb2),
    "config": (
        agent_config_service_pb2,
        template_service_pb2,
        access_service_pb2,
        tool_server_service_pb2,
        provider_service_pb2,
    ),
    "session": (session_service_pb2, turn_service_pb2),
}

SERVICES: Final[Mapping[str, tuple[ServiceDescriptor, ...]]] = {
    server: tuple(service for file in files for service in file.DESCRIPTOR.services_by_name.values())
    for server, files in _FILES.items()
}
"""The services of each server: `gateway`, `config` and `session`. The first one's health is the server's."""

_TURNS = ("Complete", "StreamComplete")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a method promises."""

    repeatable: bool = False
    """Whether a call with an unknown outcome may be repeated."""
    request_id: tuple[str, ...] = ()
    """The path of the field that makes a call repeatable when set; empty if none is needed."""
    seconds: float = CALL_SECONDS
    """The deadline of a call that says none."""

    def keyed(self, request: Message, key: str) -> Message:
        """Returns the request with `key` as its request id, if the method has one and the request does not."""
        if not self.request_id or _at(request, self.request_id):
            return request
        copy = type(request)()
        copy.CopyFrom(request)
        holder = copy
        for name in self.request_id[:-1]:
            holder = getattr(holder, name)
        setattr(holder, self.request_id[-1], key)
        return copy


def _at(request: Message, path: tuple[str, ...]) -> object:
    value: object = request
    for name in path:
        value = getattr(value, name)
    return value


def _request_id(method: MethodDescriptor) -> tuple[str, ...]:
    fields = method.input_type.fields_by_name
    if "request_id" in fields:
        return ("request_id",)
    given = fields.get("input")
    inner = given.message_type if given is not None else None
    return ("input", "request_id") if inner is not None and "request_id" in inner.fields_by_name else ()


def _promise(method: MethodDescriptor) -> Promise:
    idempotent = method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
    request_id = () if idempotent else _request_id(method)
    seconds = STREAM_SECONDS if method.server_streaming else CALL_SECONDS
    if method.name in _TURNS:
        seconds = TURN_SECONDS
    return Promise(idempotent or bool(request_id), request_id, seconds)


PROMISES: Final[Mapping[str, Promise]] = {
    f"/{service.full_name}/{method.name}": _promise(method)
    for services in SERVICES.values()
    for service in services
    for method in service.methods
}
"""Every method's, by its path."""

_NONE = Promise()


def promise_of(path: str) -> Promise:
    """Returns the promise of the method at `path`; methods of others have none."""
    return PROMISES.get(path, _NONE)
