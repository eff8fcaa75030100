"""A2AService over the operations. The agent is named by `tenant`, in the project of the caller's key."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import grpc
from a2a.types import a2a_pb2 as pb
from google.protobuf import message_factory

from chat_gateway.a2a.calls import A2ACall, call_of, check_version
from chat_gateway.a2a.errors import in_words_of_protocol
from chat_gateway.a2a.methods import Methods
from chat_gateway.memory import MemoryBudget
from servicekit.errors import InvalidArgument, ServiceError, Violation

_LARGE = 64 * 1024
_OF_AN_AGENT = frozenset({"ListTasks", "GetExtendedAgentCard"})


def handlers(methods: Methods, memory: MemoryBudget) -> Mapping[str, Any]:
    """Returns the handlers of all methods of the service, by their names."""
    made = {}
    for method in pb.DESCRIPTOR.services_by_name["A2AService"].methods:
        request = message_factory.GetMessageClass(method.input_type).FromString
        response = message_factory.GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            behavior = _streamed(method.name, methods, memory)
            made[method.name] = grpc.unary_stream_rpc_method_handler(behavior, request, response)
        else:
            behavior = _unary(method.name, methods, memory)
            made[method.name] = grpc.unary_unary_rpc_method_handler(behavior, request, response)
    return made


def _unary(name: str, methods: Methods, memory: MemoryBudget) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        async with _reading(request, memory):
            return await methods.answer(name, _call(name, request, context), request, "")

    return answer


def _streamed(name: str, methods: Methods, memory: MemoryBudget) -> Any:
    serve = methods.streamed[name]

    async def stream(request: Any, context: Any) -> None:
        async with _reading(request, memory):
            await serve(_call(name, request, context), request, context.write)

    return stream


@asynccontextmanager
async def _reading(request: Any, memory: MemoryBudget) -> AsyncIterator[None]:
    """A request while it is served: a large one counts in the memory budget. Errors are those of the protocol."""
    size = request.ByteSize()
    try:
        async with memory.held(size) if size > _LARGE else nullcontext():
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
