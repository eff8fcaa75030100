"""What the tool loop needs of the world: the tools that an agent config names, listed and called."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from chat_gateway.model.tools import ListedTools, ServerTools, ToolPolicy, ToolResult
from servicekit.values import value


@value
class ToolCaller:
    """For whom tools are called. `user_token` is the bearer token of an identity provider, or empty."""

    project: str
    user_id: str
    session_id: str
    turn_id: str
    user_token: str = ""


class Toolbox(Protocol):
    """The tools of tool servers for one turn."""

    async def tools(self) -> ListedTools:
        """Returns the tools by the config's allow and deny lists, the same for the whole turn.

        Servers are asked at the same time, each within a bound; what they said is kept between turns for a while.
        Raises `ToolServerUnavailable` for a server that the config says is required; any other is in `unavailable`.
        """
        ...

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        """Calls one tool with the model's arguments, JSON text that may be invalid.

        Whatever the server does is a result: an error, a hang, garbage, too much. It is within the policy's bounds of
        time and bytes. A lost connection is made again, and the call repeated only where it was certainly not received,
        or the tool is idempotent. `call_id` goes with the call where its protocol has a place for it, so that a server
        can recognise a repeat. Raises nothing but cancellation, which also stops the call at the server where it can.
        """
        ...


class Toolboxes(Protocol):
    """Opens the tools of turns. Connections live longer than turns, and are shared by those of one project."""

    def open(
        self, servers: Sequence[ServerTools], policy: ToolPolicy, caller: ToolCaller
    ) -> AbstractAsyncContextManager[Toolbox]:
        """Returns the toolbox of one turn; nothing is connected before it is used."""
        ...
