"""What the tool loop needs of the world: the tools that an agent config names, listed and called."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from chat_gateway.model.tools import (
    CallFinished,
    CallStarted,
    ListedTools,
    ServerTools,
    ToolKind,
    ToolOutcome,
    ToolPolicy,
    ToolResult,
    ToolRun,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Message, ToolCall
from chat_gateway.model.usage import NO_USAGE, Usage
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


class CallMetrics(Protocol):
    """Counts calls of tools."""

    def observe(self, kind: ToolKind, server: str, outcome: ToolOutcome, seconds: float) -> None:
        """Records one call; `server` is the tool server or the agent."""
        ...


class Toolboxes(Protocol):
    """Opens the tools of turns. Connections live longer than turns, and are shared by those of one project."""

    def open(
        self, servers: Sequence[ServerTools], policy: ToolPolicy, caller: ToolCaller
    ) -> AbstractAsyncContextManager[Toolbox]:
        """Returns the toolbox of one turn; nothing is connected before it is used."""
        ...


@value
class Steps:
    """What a turn has done so far, from which the tool loop goes on: all that it needs to know of it.

    The last message that calls tools may have calls without results: they are run first.
    """

    messages: tuple[Message, ...] = ()
    """The model's messages and the results of the gateway's calls, in order."""
    count: int = 0
    """Model calls that were made."""
    usage: Usage = NO_USAGE
    runs: tuple[ToolRun, ...] = ()
    """Of the messages' calls, those that the gateway ran."""
    unrecorded: frozenset[str] = frozenset()
    """Of those calls, the ids of the ones that may have been made."""
    listed: ToolsListed | None = None
    """The tools that the caller was told of."""


NO_STEPS = Steps()


class StepSink(Protocol):
    """Learns what the tool loop does, before anything follows from it. What it raises ends the turn."""

    async def tools_listed(self, event: ToolsListed) -> None:
        """The model is offered these tools."""
        ...

    async def call_started(self, event: CallStarted) -> None:
        """A call is about to be made."""
        ...

    async def call_finished(self, event: CallFinished, result: Message, *, ends_step: bool) -> None:
        """A call has this result; with `ends_step`, `step_finished` follows at once, and this may wait for it."""
        ...

    async def step_called(self, step: int, message: Message, usage: Usage) -> None:
        """The model has asked for calls of the gateway's tools; `usage` is that of the turn so far.

        This may wait for the start of the first of them, or the end of the turn, which follow at once.
        """
        ...

    async def step_finished(self, steps: Steps) -> None:
        """All calls of a step have their results."""
        ...


@value
class ApprovedCall:
    """A call of the turn before that waited for an approval; without `approve` the model hears that it is rejected."""

    call: ToolCall
    approve: bool
    note: str = ""
