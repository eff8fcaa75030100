"""A2AService over the operations. The agent is named by `tenant`, in the project of the caller's key."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from a2a.types import a2a_pb2 as pb
from google.protobuf import message_factory

from chat_gateway.a2a.calls import A2ACall, call_of, check_version
from chat_gateway.a2a.errors import in_words_of_protocol
from chat_gateway.a2a.methods import Methods
from servicekit.errors import InvalidArgument, ServiceError, Violation

_OF_AN_AGENT = frozenset({"ListTasks", "GetExtendedAgentCard"})


def handlers(methods: Methods) -> Mapping[str, Any]:
    """Returns the handlers of all methods of the service, by their names."""
    made = {}
    for method in pb.DESCRIPTOR.services_by_name["A2AService"].methods:
        request = message_factory.GetMessageClass(method.input_type).FromString
        response = message_factory.GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            behavior = _streamed(method.name, methods)
            made[method.name] = grpc.unary_stream_rpc_method_handler(behavior, request, response)
        else:
            behavior = _unary(method.name, methods)
            made[method.name] = grpc.unary_unary_rpc_method_handler(behavior, request, response)
    return made


def _unary(name: str, methods: Methods) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        with _in_words():
            return await methods.answer(name, _call(name, request, context), request, "")

    return answer


def _streamed(name: str, methods: Methods) -> Any:
    serve = methods.streamed[name]

    async def stream(request: Any, context: Any) -> None:
        with _in_words():
            await serve(_call(name, request, context), request, context.write)

    return stream


@contextmanager
def _in_words() -> Iterator[None]:
    """Has errors be those of the protocol."""
    try:
        yield
    except ServiceError as error:
        raise in_words_of_protocol(error) from error


def _call(name: str, request: Any, context: Any) -> A2ACall:
    metadata = {key: said for key, said in context.invocation_metadata() or () if isinstance(said, str)}
    call = call_of(request.tenant, metadata.get("x-project-id", ""), metadata.get("x-user-id", ""))
    check_version(metadata.get("a2a-version", ""))
    if name in _OF_AN_AGENT and not call.agent_id:
        raise InvalidArgument([Violation("tenant", "is required: the id of the agent")])
    return call
