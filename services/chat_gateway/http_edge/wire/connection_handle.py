"""What a request may do with its connection, and ASGI has no messages for."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

CONNECTION: Final = "parley.connection"
"""Where the scope of a request has the handle."""


class WatchedConnection(Protocol):
    """What a handle needs of a connection."""

    flow: FlowControl
    when_gone: Callable[[], None] | None
    lost: bool


class ConnectionHandle:
    """What a request may do with its connection that ASGI has no messages for."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: WatchedConnection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def has_body(self) -> bool:
        """Whether all of the body has arrived: then `receive` returns it, and does not wait."""
        return not self._cycle.more_body

    def watch(self, when_gone: Callable[[], None]) -> None:
        """Calls `when_gone` once the client has left: now, if it has. Saves a task that waits in `receive`.

        Only for the request that is served, and after its body has been read.
        """
        connection = self._connection
        connection.flow.resume_reading()  # a connection that is not read from is not seen to end
        connection.when_gone = when_gone
        if connection.lost:
            when_gone()

    def unwatch(self) -> None:
        """Stops watching. May be repeated."""
        self._connection.when_gone = None


def connection_of(scope: Any) -> ConnectionHandle:
    """Returns the connection of a request that a `BoundedHttpProtocol` received."""
    handle: ConnectionHandle = scope[CONNECTION]
    return handle
