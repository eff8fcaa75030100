"""The toolbox of a turn: the tools of its servers under unique names, and bounded calls of them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec

from chat_gateway.agents.toolbox import ToolCaller
from chat_gateway.model.errors import ToolServerUnavailable
from chat_gateway.model.tool_names import unique_names
from chat_gateway.model.tools import (
    GatewayTool,
    ListedTools,
    ServerTools,
    ToolKind,
    ToolOutcome,
    ToolPolicy,
    ToolResult,
    ToolsUnavailable,
    all_unavailable,
)
from chat_gateway.tools.metrics import ToolMetrics
from chat_gateway.tools.offered import OfferedTool
from chat_gateway.tools.results import failed, finish
from chat_gateway.tools.server import CallOptions, ServerClient, ServerUnavailable
from chat_gateway.tools.servers import ServerClients
from servicekit.egress import EgressDenied
from servicekit.errors import ServiceError
from servicekit.values import value

MAX_TOOLS = 128
"""Of one server in one turn. Providers take no more in all."""
MAX_ARGUMENTS = 1024 * 1024
"""Characters."""

_RETRY_SECONDS = 1.0
_GRACE_SECONDS = 0.5
"""Time after a call's own timeout, for cancelling it at the server."""


@value
class _Listed:
    """What one entry of the agent config comes to."""

    server: str
    client: ServerClient | None
    tools: tuple[tuple[OfferedTool, ServerTools], ...] = ()
    unavailable: tuple[ToolsUnavailable, ...] = ()


@value
class _Bound:
    """A tool of the turn, and who runs it."""

    tool: GatewayTool
    own_name: str
    client: ServerClient


class ServerToolboxes:
    """Implements `Toolboxes` for the tool servers of projects and of the operator."""

    def __init__(self, servers: ServerClients, metrics: ToolMetrics) -> None:
        self.servers = servers
        self.metrics = metrics

    def open(self, servers: Sequence[ServerTools], policy: ToolPolicy, caller: ToolCaller) -> "ServerToolbox":
        return ServerToolbox(self.servers, self.metrics, servers, policy, caller)


class ServerToolbox:
    """Implements `Toolbox`; a context manager, which uses the clients of its servers until it is left."""

    def __init__(
        self,
        clients: ServerClients,
        metrics: ToolMetrics,
        servers: Sequence[ServerTools],
        policy: ToolPolicy,
        caller: ToolCaller,
    ) -> None:
        self._clients = clients
        self._metrics = metrics
        self._servers = servers
        self._policy = policy
        self._caller = caller
        self._used = AsyncExitStack()
        self._listing = asyncio.Lock()
        self._listed: ListedTools | None = None
        self._bound: dict[str, _Bound] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._used.aclose()

    async def tools(self) -> ListedTools:
        async with self._listing:
            if self._listed is None:
                self._listed = await self._list()
            return self._listed

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        await self.tools()
        bound = self._bound.get(name)
        if bound is None:
            return failed(f"there is no tool {name[:64]!r}", ToolOutcome.INVALID_ARGUMENTS)
        start = time.perf_counter()
        outcome = ToolOutcome.UNKNOWN
        try:
            result = await self._call(bound, arguments, call_id)
            outcome = result.outcome
            return finish(result, bound.client.redaction, self._policy.max_result_bytes)
        finally:
            self._metrics.observe(ToolKind.SERVER, bound.tool.server, outcome, time.perf_counter() - start)

    async def _call(self, bound: _Bound, arguments: str, call_id: str) -> ToolResult:
        given = _arguments(arguments)
        if given is None:
            return failed("the arguments must be one JSON object", ToolOutcome.INVALID_ARGUMENTS)
        seconds = self._policy.call_timeout
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                # Ids of calls are the model's, and may come again in another turn.
                caller = self._caller
                session = f"{caller.project}/{caller.session_id}" if caller.session_id else ""
                options = CallOptions(f"{caller.turn_id}/{call_id}", seconds, bound.tool.idempotent, session)
                return await bound.client.call(bound.own_name, given, options)
        except TimeoutError:
            return failed(f"the tool did not answer within {seconds:g} s", ToolOutcome.TIMEOUT)

    async def _list(self) -> ListedTools:
        if len(self._servers) == 1:
            listed = [await self._list_one(self._servers[0])]  # without a task of its own
        else:
            listed = await asyncio.gather(*map(self._list_one, self._servers))
        offered: dict[tuple[str, str], tuple[OfferedTool, ServerTools, ServerClient]] = {}
        for one in listed:
            for tool, named in one.tools:
                if one.client is not None:
                    offered.setdefault((one.server, tool.name), (tool, named, one.client))
        names = unique_names(list(offered))
        for name, ((server, own_name), (tool, named, client)) in zip(names, offered.items(), strict=True):
            made = GatewayTool(
                name,
                tool.description,
                tool.parameters,
                server,
                idempotent=tool.idempotent or own_name in named.idempotent,
                needs_approval=named.approval_always or own_name in named.approval,
                own_name=own_name,
            )
            self._bound[name] = _Bound(made, own_name, client)
        unavailable = tuple([lacking for one in listed for lacking in one.unavailable])
        return ListedTools(tuple([bound.tool for bound in self._bound.values()]), unavailable)

    async def _list_one(self, named: ServerTools) -> _Listed:
        server = named.server
        try:
            client = await self._used.enter_async_context(await self._clients.use(named, self._caller))
            offer = await client.offer()
        except ServerUnavailable as error:
            if named.required:
                raise ToolServerUnavailable(server, str(error), retry_after=_RETRY_SECONDS) from None
            return _Listed(server, None, (), (all_unavailable(named, str(error)),))
        except EgressDenied as error:
            if named.required:
                raise
            return _Listed(server, None, (), (all_unavailable(named, error.message),))
        except ServiceError as error:
            if named.required:
                raise ToolServerUnavailable(server, f"can't be used: {error.message}") from None
            return _Listed(server, None, (), (all_unavailable(named, error.message),))
        chosen = list(offer.tools)
        if named.allow:
            chosen = [tool for tool in chosen if tool.name in named.allow]
        if named.deny:
            chosen = [tool for tool in chosen if tool.name not in named.deny]
        unavailable: list[ToolsUnavailable] = []
        if named.allow and (missing := sorted(named.allow - {tool.name for tool in offer.tools})):
            reason = f"does not offer {', '.join(missing)[:1000]}"
            unavailable.append(ToolsUnavailable(server, reason, frozenset(missing)))
        left_out = len(chosen) - MAX_TOOLS + offer.left_out if len(chosen) > MAX_TOOLS else offer.left_out
        if left_out and not named.allow:
            reason = f"offers {left_out} more tools than are used: allow those that are needed"
            unavailable.append(ToolsUnavailable(server, reason, frozenset()))
        return _Listed(server, client, tuple([(tool, named) for tool in chosen[:MAX_TOOLS]]), tuple(unavailable))


def _arguments(text: str) -> Mapping[str, Any] | None:
    if not text.strip():
        return {}
    if len(text) > MAX_ARGUMENTS:
        return None
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return given if isinstance(given, dict) else None
