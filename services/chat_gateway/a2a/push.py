"""Push notifications of tasks: the operations on their configurations, and when they are sent."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence

from a2a.types import a2a_pb2 as pb
from google.protobuf import empty_pb2

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.errors import TaskNotFound
from chat_gateway.a2a.push_configs import PushConfigs, page_of, shown, turn_of_task
from chat_gateway.a2a.push_sender import PushSender
from servicekit.errors import InvalidArgument, Violation

_FIELD = "configuration.task_push_notification_config."

ReadTask = Callable[[A2ACall, str], Awaitable[pb.Task]]
"""Returns a task that the caller may see, as it is now. Raises `TaskNotFound`."""


class TaskPush:
    """Keeps configurations with their tasks, and starts notifications. Callers are those of the running task."""

    def __init__(self, configs: PushConfigs, sender: PushSender) -> None:
        self._configs = configs
        self._sender = sender

    def check(self, request: pb.SendMessageRequest) -> None:
        """Raises `InvalidArgument` for a message whose configuration can't be kept."""
        if not request.configuration.HasField("task_push_notification_config"):
            return
        config = request.configuration.task_push_notification_config
        self._configs.check(config, _FIELD)
        if config.task_id not in ("", request.message.task_id):
            raise InvalidArgument([Violation(f"{_FIELD}task_id", "must be empty, or that of the message")])

    async def keep(self, call: A2ACall, task_id: str, request: pb.SendMessageRequest) -> pb.TaskPushNotificationConfig:
        """Keeps the configuration of a message; the same one where the message is sent again."""
        default_id = hashlib.sha256(request.message.message_id.encode()).hexdigest()[:32]
        config = request.configuration.task_push_notification_config
        return await self._configs.put(turn_of_task(call, task_id), config, default_id)

    def notify(self, call: A2ACall, task_id: str, read: ReadTask, *, only: str = "") -> None:
        """Notifies of a task, unless it runs; returns at once. `only`: by the configuration with this id."""
        self._sender.start(turn_of_task(call, task_id), lambda: read(call, task_id), only)


class PushOperations:
    """What callers do with configurations of tasks that they may see."""

    def __init__(self, configs: PushConfigs, push: TaskPush, read: ReadTask) -> None:
        self._configs = configs
        self._push = push
        self._read = read

    async def create(self, call: A2ACall, request: pb.TaskPushNotificationConfig) -> pb.TaskPushNotificationConfig:
        """Keeps a configuration, in place of one with its id; a task that does not run is notified of at once."""
        self._configs.check(request)
        await self._read(call, request.task_id)
        config = await self._configs.put(turn_of_task(call, request.task_id), request)
        self._push.notify(call, request.task_id, self._read, only=config.id)
        return shown(config, request.task_id)

    async def get(
        self, call: A2ACall, request: pb.GetTaskPushNotificationConfigRequest
    ) -> pb.TaskPushNotificationConfig:
        """Returns a configuration without what is secret. Raises `TaskNotFound`, also where only it is not there."""
        for config in await self._list(call, request.task_id):
            if config.id == request.id:
                return shown(config, request.task_id)
        raise TaskNotFound

    async def list(
        self, call: A2ACall, request: pb.ListTaskPushNotificationConfigsRequest
    ) -> pb.ListTaskPushNotificationConfigsResponse:
        """Lists configurations without what is secret."""
        return page_of(await self._list(call, request.task_id), request)

    async def delete(self, call: A2ACall, request: pb.DeleteTaskPushNotificationConfigRequest) -> empty_pb2.Empty:
        """Removes a configuration, where the task has it."""
        await self._read(call, request.task_id)
        await self._configs.delete(turn_of_task(call, request.task_id), request.id)
        return empty_pb2.Empty()

    async def _list(self, call: A2ACall, task_id: str) -> Sequence[pb.TaskPushNotificationConfig]:
        await self._read(call, task_id)
        return await self._configs.list(turn_of_task(call, task_id))
