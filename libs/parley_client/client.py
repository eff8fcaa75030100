"""The client of an installation, for threads."""

import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self

import grpc

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from parley.config.v1.access_service_pb2_grpc import AccessServiceStub
from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceStub
from parley.config.v1.provider_service_pb2_grpc import ProviderServiceStub
from parley.config.v1.template_service_pb2_grpc import TemplateServiceStub
from parley.config.v1.tool_server_service_pb2_grpc import ToolServerServiceStub
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from parley_client.channels import open_channel
from parley_client.chat import FollowedTurn, Messages, turn_input
from parley_client.errors import ParleyError
from parley_client.health import ASK_SECONDS, is_serving
from parley_client.servers import DEFAULT_GATEWAY, Connected, Servers


class Client(Connected[grpc.Channel]):
    """An installation's services as generated stubs, and turns that survive broken connections. `with` closes it.

    Calls of stubs have deadlines, are repeated where the protos allow it, and raise `ParleyError`. Threads share it.
    """

    chat: ChatServiceStub
    runtime: RuntimeServiceStub
    agent_configs: AgentConfigServiceStub
    templates: TemplateServiceStub
    access: AccessServiceStub
    tool_servers: ToolServerServiceStub
    providers: ProviderServiceStub
    sessions: SessionServiceStub
    turns: TurnServiceStub

    def __init__(self, servers: Servers | str = DEFAULT_GATEWAY) -> None:
        super().__init__(servers, open_channel)

    def complete(
        self, agent_id: str, messages: Messages, *, timeout: float | None = None, **fields: Any
    ) -> pb.CompleteResponse:
        """Runs one turn. `messages` may be one text, `fields` are TurnInput's, such as `session_id`."""
        request = pb.CompleteRequest(input=turn_input(agent_id, messages, **fields))
        return self.chat.Complete(request, timeout=timeout)

    def stream(
        self, agent_id: str, messages: Messages, *, timeout: float | None = None, **fields: Any
    ) -> Generator[pb.StreamCompleteResponse, None, None]:
        """Yields the events of one turn until its end. With `resumable` a broken connection is resumed. `close` it to
        leave early. `timeout` bounds the whole stream. Arguments are those of `complete`.
        """
        followed = FollowedTurn(turn_input(agent_id, messages, **fields), timeout)
        yield from self._followed(followed)

    def watch(
        self, session_id: str, turn_id: str, *, after_event_id: str = "", timeout: float | None = None, **fields: str
    ) -> Generator[pb.StreamCompleteResponse, None, None]:
        """Yields the events of an existing turn after a given one (fields: `project`, `user_id`)."""
        request = pb.WatchTurnRequest(session_id=session_id, turn_id=turn_id, after_event_id=after_event_id, **fields)
        yield from self._followed(FollowedTurn.watched(request, timeout))

    def _followed(self, followed: FollowedTurn) -> Generator[pb.StreamCompleteResponse, None, None]:
        while not followed.finished:
            try:
                yield from self._events(followed)
            except ParleyError as error:
                time.sleep(followed.pause_after(error))

    def _events(self, followed: FollowedTurn) -> Generator[pb.StreamCompleteResponse, None, None]:
        request = followed.request()
        first = isinstance(request, pb.StreamCompleteRequest)
        method: Any = self.chat.StreamComplete if first else self.chat.WatchTurn
        with method(request, timeout=followed.remaining()) as responses:
            for response in responses:
                yield from followed.events(response)
        followed.check_end()

    def is_serving(self, server: str = "gateway", service: str = "", *, timeout: float = ASK_SECONDS) -> bool:
        """Returns whether a replica of a server reports a service as serving; "" is the whole server."""
        return is_serving(self.channel(server), service, timeout=timeout)

    def close(self) -> None:
        """Cancels open calls."""
        for channel in self._channels.values():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
