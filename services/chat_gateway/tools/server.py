"""The interface of one tool server, implemented for MCP, HTTP services and A2A."""

from collections.abc import Mapping
from typing import Any, Protocol

from chat_gateway.model.tools import ToolResult
from chat_gateway.tools.offered import Offer
from chat_gateway.tools.secrets import Redaction
from servicekit.values import value

MAX_RESULT_BYTES = 10 * 1024 * 1024
"""What a server may answer to one call; more counts as a fault."""


class ServerUnavailable(Exception):
    """The server's tools are unavailable. The message says why, after its id, without the server's text."""


@value
class CallOptions:
    """Of one call: `call_id` is the model's, `seconds` bound it, and `idempotent` allows it to be repeated.

    `session_id` is that of the turn, with its project; empty for a stateless one.
    """

    call_id: str
    seconds: float
    idempotent: bool
    session_id: str = ""


class ServerClient(Protocol):
    """One tool server, as one project calls it."""

    @property
    def redaction(self) -> Redaction:
        """Removes what the server was sent in confidence, as of now."""
        ...

    async def offer(self) -> Offer:
        """Returns the server's tools, which are kept for a while. Raises `ServerUnavailable` and `EgressDenied`."""
        ...

    async def call(self, tool: str, arguments: Mapping[str, Any], options: CallOptions) -> ToolResult:
        """Calls a tool. Whatever comes of it is a result, which may be large and hold secrets: `finish` it."""
        ...

    async def close(self) -> None:
        """Ends connections. Idempotent; bounded in time."""
        ...
