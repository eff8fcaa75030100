"""A2A's own client, and what tests say and read with it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict

from tests.servers.system import System

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")


def made(system: System, **fields: Any) -> str:
    return str(system.create_agent(f"agent-{uuid4().hex[:8]}", **fields)["id"])


@contextlib.asynccontextmanager
async def client_of(
    system: System, agent: str, binding: str, *, streaming: bool = False, gateway: int = 0, **headers: str
) -> AsyncIterator[Client]:
    served = system.gateways[gateway]
    if system.operator_key:
        headers.setdefault("authorization", f"Bearer {system.operator_key}")
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False, headers=headers) as http,
        grpc.aio.insecure_channel(served.grpc_target, interceptors=_said(headers)) as channel,
    ):
        card = await A2ACardResolver(http, f"{served.http_url}/a2a/{agent}").get_agent_card()
        card.supported_interfaces.add(
            url=served.grpc_target, protocol_binding="GRPC", protocol_version="1.0", tenant=agent
        )
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            grpc_channel_factory=lambda url: channel,
            supported_protocol_bindings=[binding],
        )
        yield ClientFactory(config).create(card)


def message(text: str = "", **fields: Any) -> pb.SendMessageRequest:
    configuration = fields.pop("configuration", None)
    parts = fields.pop("parts", None) or [pb.Part(text=text)]
    said = pb.Message(message_id=uuid4().hex, role=pb.ROLE_USER, parts=parts, **fields)
    return pb.SendMessageRequest(message=said, configuration=configuration)


def data(**fields: Any) -> pb.Part:
    part = pb.Part()
    part.data.struct_value.update(fields)
    return part


async def events_of(client: Client, request: pb.SendMessageRequest) -> list[pb.StreamResponse]:
    return [event async for event in client.send_message(request)]


async def task_of(client: Client, request: pb.SendMessageRequest) -> pb.Task:
    [event] = await events_of(client, request)
    return event.task


def answer_of(task: pb.Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def states(events: list[pb.StreamResponse]) -> list[int]:
    return [event.status_update.status.state for event in events if event.HasField("status_update")]


def streamed(events: list[pb.StreamResponse]) -> str:
    pieces = [event.artifact_update for event in events if event.HasField("artifact_update")]
    assert [piece.append for piece in pieces] == [number > 0 for number in range(len(pieces))]
    return "".join(part.text for piece in pieces for part in piece.artifact.parts)


def wanted(task: pb.Task) -> dict[str, Any]:
    [found] = [MessageToDict(part.data) for part in task.status.message.parts if part.HasField("data")]
    return found


def _said(headers: dict[str, str]) -> list[grpc.aio.ClientInterceptor]:
    """Return what sends the headers as metadata of every call."""
    metadata = tuple((name.lower(), text) for name, text in headers.items())

    def more(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *metadata))

    class Unary(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(more(details), request)

    class Streamed(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(more(details), request)

    return [Unary(), Streamed()]
