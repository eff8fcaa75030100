"""The client of an installation, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from parley.chat.v1 import chat_service_pb2 as pb
from parley_client.channels import open_async_channel
from parley_client.chat import FollowedTurn, Messages, turn_input
from parley_client.errors import ParleyError
from parley_client.health import ASK_SECONDS, is_serving_async
from parley_client.servers import DEFAULT_GATEWAY, Connected, Servers

if TYPE_CHECKING:  # these classes are in the stubs' type hints only
    from parley.chat.v1.chat_service_pb2_grpc import ChatServiceAsyncStub
    from parley.chat.v1.runtime_service_pb2_grpc import RuntimeServiceAsyncStub
    from parley.config.v1.access_service_pb2_grpc import AccessServiceAsyncStub
    from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceAsyncStub
    from parley.config.v1.provider_service_pb2_grpc import ProviderServiceAsyncStub
    from parley.config.v1.template_service_pb2_grpc import TemplateServiceAsyncStub
    from parley.config.v1.tool_server_service_pb2_grpc import ToolServerServiceAsyncStub
    from parley.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from parley.session.v1.turn_service_pb2_grpc import TurnServiceAsyncStub


class AsyncClient(Connected[grpc.aio.Channel]):
    """As `Client`, for one event loop. `async with` closes it."""

    chat: "ChatServiceAsyncStub"
    runtime: "RuntimeServiceAsyncStub"
    agent_configs: "AgentConfigServiceAsyncStub"
    templates: "TemplateServiceAsyncStub"
    access: "AccessServiceAsyncStub"
    tool_servers: "ToolServerServiceAsyncStub"
    providers: "ProviderServiceAsyncStub"
    sessions: "SessionServiceAsyncStub"
    turns: "TurnServiceAsyncStub"

    def __init__(self, servers: Servers | str = DEFAULT_GATEWAY) -> None:
        super().__init__(servers, open_async_channel)

    async def complete(
        self, agent_id: str, messages: Messages, *, timeout: float | None = None, **fields: Any
    ) -> pb.CompleteResponse:
        """As `Client.complete`."""
        request = pb.CompleteRequest(input=turn_input(agent_id, messages, **fields))
        return await self.chat.Complete(request, timeout=timeout)

    def stream(
        self, agent_id: str, messages: Messages, *, timeout: float | None = None, **fields: Any
    ) -> AsyncGenerator[pb.StreamCompleteResponse, None]:
        """As `Client.stream`; `aclosing` cancels an unfinished stream."""
        return self._followed(FollowedTurn(turn_input(agent_id, messages, **fields), timeout))

    def watch(
        self, session_id: str, turn_id: str, *, after_event_id: str = "", timeout: float | None = None, **fields: str
    ) -> AsyncGenerator[pb.StreamCompleteResponse, None]:
        """As `Client.watch`; `aclosing` cancels an unfinished stream."""
        request = pb.WatchTurnRequest(session_id=session_id, turn_id=turn_id, after_event_id=after_event_id, **fields)
        return self._followed(FollowedTurn.watched(request, timeout))

    async def _followed(self, followed: FollowedTurn) -> AsyncGenerator[pb.StreamCompleteResponse, None]:
        while not followed.finished:
            try:
                async with aclosing(self._events(followed)) as events:
                    async for event in events:
                        yield event
            except ParleyError as error:
                await asyncio.sleep(followed.pause_after(error))

    async def _events(self, followed: FollowedTurn) -> AsyncGenerator[pb.StreamCompleteResponse, None]:
        request = followed.request()
        first = isinstance(request, pb.StreamCompleteRequest)
        method: Any = self.chat.StreamComplete if first else self.chat.WatchTurn
        async with method(request, timeout=followed.remaining()) as responses:
            async for response in responses:
                for event in followed.events(response):
                    yield event
        followed.check_end()

    async def is_serving(self, server: str = "gateway", service: str = "", *, timeout: float = ASK_SECONDS) -> bool:
        """As `Client.is_serving`."""
        return await is_serving_async(self.channel(server), service, timeout=timeout)

    async def close(self) -> None:
        """Cancels open calls."""
        for channel in self._channels.values():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
