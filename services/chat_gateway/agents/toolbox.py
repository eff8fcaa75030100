"""The ports of the tool loop: listing and calling the tools of an agent config."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from chat_gateway.model.journal import StepCalled
from chat_gateway.model.tools import (
    CalledTool,
    CallFinished,
    CallStarted,
    ListedTools,
    ServerTools,
    ToolKind,
    ToolOutcome,
    ToolPolicy,
    ToolResult,
    ToolRun,
    ToolsUnavailable,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Message, ToolCall
from chat_gateway.model.usage import NO_USAGE, Usage
from servicekit.values import value


@value
class ToolCaller:
    """The caller for whom tools are called. `user_token` is the bearer token of an identity provider, or empty."""

    project: str
    user_id: str
    session_id: str
    turn_id: str
    user_token: str = ""


class Toolbox(Protocol):
    """The tools of tool servers for one turn."""

    async def tools(self) -> ListedTools:
        """Returns the tools by the config's allow and deny lists, the same for the whole turn. Servers are queried
        concurrently, each with a timeout, and their lists cached for a while. Raises `ToolServerUnavailable` for a
        required server; others are listed in `unavailable`.
        """
        ...

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        """Calls one tool with the model's arguments, JSON text that may be invalid.

        Every outcome is a result, including errors, timeouts, garbage and oversized responses, within the policy's
        bounds of time and bytes. After a lost connection the call is repeated only if it was certainly not received, or
        the tool is idempotent. `call_id` is sent where the protocol allows it, so that a server can recognise a repeat.
        Raises nothing but cancellation, which also cancels the call at the server if possible.
        """
        ...


class CallMetrics(Protocol):
    """Counts calls of tools."""

    def observe(self, kind: ToolKind, server: str, outcome: ToolOutcome, seconds: float) -> None:
        """Records one call; `server` is the tool server or the agent."""
        ...


class Toolboxes(Protocol):
    """Opens the tools of turns. Connections outlive turns and are shared within a project."""

    def open(
        self, servers: Sequence[ServerTools], policy: ToolPolicy, caller: ToolCaller
    ) -> AbstractAsyncContextManager[Toolbox]:
        """Returns the toolbox of one turn; nothing is connected before it is used."""
        ...


@value
class Steps:
    """The state of a turn's tool loop, from which it can continue.

    The last message that calls tools may have calls without results: they are run first.
    """

    messages: tuple[Message, ...] = ()
    """The model's messages and the results of the gateway's calls, in order."""
    count: int = 0
    """The number of model calls made."""
    usage: Usage = NO_USAGE
    runs: tuple[ToolRun, ...] = ()
    """Of the messages' calls, those that the gateway ran."""
    unrecorded: frozenset[str] = frozenset()
    """Of those calls, the ids of the ones that may have been made."""
    listed: ToolsListed | None = None
    """The tools that were listed to the caller."""
    called: tuple[CalledTool, ...] = ()
    """The tools of the last step's calls."""
    unavailable: tuple[ToolsUnavailable, ...] = ()
    """The tools that the turn was without so far."""
    handed_to: tuple[str, ...] = ()
    """The agents to which the turn was handed over, one after the other."""


NO_STEPS = Steps()


class StepSink(Protocol):
    """Is informed of the tool loop's actions before anything depends on them. An exception ends the turn."""

    async def tools_listed(self, event: ToolsListed) -> None:
        """The model is offered these tools."""
        ...

    async def call_started(self, event: CallStarted) -> None:
        """A call is about to be made."""
        ...

    async def call_finished(self, event: CallFinished, result: Message, *, ends_step: bool) -> None:
        """A call has this result.

        With `ends_step`, `step_finished` follows at once, and both may be written together.
        """
        ...

    async def step_called(self, event: StepCalled) -> None:
        """The model has requested calls of the gateway's tools. This may be written together with the start of the
        first call, or the end of the turn, which follow at once.
        """
        ...

    async def step_finished(self, steps: Steps) -> None:
        """All calls of a step have their results."""
        ...


@value
class ApprovedCall:
    """A call of the previous turn that waited for approval; without `approve` the model learns of the rejection."""

    call: ToolCall
    approve: bool
    note: str = ""
    server: str = ""
    """Who was to run it when it was requested; empty if unknown."""
    begun: bool = False
    """Whether a turn that was not stored has begun it: what came of that is unknown."""
