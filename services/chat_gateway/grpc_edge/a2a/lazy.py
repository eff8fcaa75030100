"""The handlers of `lf.a2a.v1.A2AService`, loaded on its first call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from servicekit.call_acceptor import NamedHandlers

SERVICE: Final = "lf.a2a.v1.A2AService"
METHODS: Final = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "GetExtendedAgentCard",
    "DeleteTaskPushNotificationConfig",
)
"""Of the service: a server has to know them before it serves."""

log = structlog.get_logger("chat_gateway.a2a")


class LazyHandlers(NamedHandlers):
    """Serves the methods that `load` makes handlers for; none where what they need is not installed."""

    def __init__(self, load: Callable[[], Mapping[str, Any]]) -> None:
        self._make = load
        self._handlers: Mapping[str, Any] | None = None

    @property
    def methods(self) -> Sequence[str]:
        """The methods of the service."""
        return [f"/{SERVICE}/{method}" for method in METHODS]

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a method; None for one of another service."""
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        return self._all().get(method) if service == SERVICE else None

    def load(self) -> None:
        """Makes the handlers."""
        self._all()

    def _all(self) -> Mapping[str, Any]:
        if self._handlers is None:
            try:
                self._handlers = self._make()
            except ImportError as error:
                log.warning("a2a_not_installed", error=str(error))
                self._handlers = {}
        return self._handlers
