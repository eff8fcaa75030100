"""The operations by their names, which JSON-RPC and gRPC share."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from a2a.types import a2a_pb2 as pb

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.card import AgentCards
from chat_gateway.a2a.operations import A2AOperations, Emit
from chat_gateway.a2a.push import PushOperations

REQUESTS: Final[dict[str, Any]] = {
    "SendMessage": pb.SendMessageRequest,
    "SendStreamingMessage": pb.SendMessageRequest,
    "GetTask": pb.GetTaskRequest,
    "ListTasks": pb.ListTasksRequest,
    "CancelTask": pb.CancelTaskRequest,
    "SubscribeToTask": pb.SubscribeToTaskRequest,
    "CreateTaskPushNotificationConfig": pb.TaskPushNotificationConfig,
    "GetTaskPushNotificationConfig": pb.GetTaskPushNotificationConfigRequest,
    "ListTaskPushNotificationConfigs": pb.ListTaskPushNotificationConfigsRequest,
    "DeleteTaskPushNotificationConfig": pb.DeleteTaskPushNotificationConfigRequest,
    "GetExtendedAgentCard": pb.GetExtendedAgentCardRequest,
}

Unary = Callable[[A2ACall, Any, str], Awaitable[Any]]
Streamed = Callable[[A2ACall, Any, Emit], Awaitable[None]]


class Methods:
    """What serves each operation: with the call, its request, and where it was asked for."""

    def __init__(
        self, operations: A2AOperations, push: PushOperations, cards: AgentCards, jwks: dict[str, Any]
    ) -> None:
        self.cards = cards
        self.jwks = jwks
        self.streamed: dict[str, Streamed] = {
            "SendStreamingMessage": operations.stream,
            "SubscribeToTask": operations.subscribe,
        }
        self._unary: dict[str, Callable[[A2ACall, Any], Awaitable[Any]]] = {
            "SendMessage": operations.send,
            "GetTask": operations.get,
            "ListTasks": operations.list,
            "CancelTask": operations.cancel,
            "CreateTaskPushNotificationConfig": push.create,
            "GetTaskPushNotificationConfig": push.get,
            "ListTaskPushNotificationConfigs": push.list,
            "DeleteTaskPushNotificationConfig": push.delete,
        }

    async def answer(self, operation: str, call: A2ACall, request: Any, base_url: str) -> Any:
        """Returns the answer of an operation that is not streamed."""
        if operation == "GetExtendedAgentCard":
            return await self.cards.extended(call, base_url)
        return await self._unary[operation](call, request)
