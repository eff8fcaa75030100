"""The tools of one turn: those of tool servers, and the agents that it may call, as one toolbox."""

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import msgspec

from chat_gateway.agents.toolbox import ApprovedCall, CallMetrics, Toolbox, Toolboxes, ToolCaller
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.answers import open_calls
from chat_gateway.model.errors import AgentDepthExceeded, ApprovalUnknown
from chat_gateway.model.stored_turn import Begun
from chat_gateway.model.tools import (
    AgentCall,
    ClientTool,
    GatewayTool,
    ListedTools,
    ServerTools,
    ToolKind,
    ToolOutcome,
    ToolResult,
    all_unavailable,
    hidden_tools,
)
from chat_gateway.model.turn import Message, TurnOutcome, TurnRequest
from contract.enums import Role
from contract.fields import check_request_id, check_session_id
from contract.reasons import Reason
from servicekit.errors import InvalidArgument, ServiceError, Violations
from servicekit.values import value

MAX_AGENT_DEPTH = 5
"""The maximum depth of agents calling agents, below the one that the caller talks to."""

_GONE = (Reason.AGENT_NOT_FOUND, Reason.AGENT_DELETED)
_NOTHING = ListedTools(())
_PARAMETERS = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to say to the agent: all that it needs to know."}
    },
    "required": ["message"],
    "additionalProperties": False,
}


@value
class CallChain:
    """The calling turns of a called agent's turn: their agents, and the lifetime of their session."""

    uids: tuple[str, ...]
    idle_ttl: timedelta
    max_lifetime: timedelta


RunCalled = Callable[[TurnRequest, CallChain], Awaitable[TurnOutcome]]
"""Runs the turn of an agent called by the last agent of the chain."""


class ToolsOfTurns:
    """Opens the tools of turns. `run_called` runs the turns of called agents; without it none can be called."""

    def __init__(
        self,
        toolboxes: Toolboxes | None,
        run_called: RunCalled | None = None,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._toolboxes = toolboxes
        self._call_metrics = call_metrics
        self._run_called = run_called

    def open(
        self, config: AgentConfig, caller: ToolCaller, metadata: Mapping[str, str], above: CallChain | None
    ) -> AbstractAsyncContextManager[Toolbox]:
        """Opens what the config names: servers are connected when they are first used."""
        agents = [tool for tool in config.tools if isinstance(tool, AgentCall)]
        servers = [tool for tool in config.tools if isinstance(tool, ServerTools)]
        if servers and not agents and self._toolboxes is not None:
            return self._toolboxes.open(servers, config.tool_policy, caller)
        return self._opened(agents, servers, config, caller, metadata, above)

    @asynccontextmanager
    async def _opened(
        self,
        agents: Sequence[AgentCall],
        servers: Sequence[ServerTools],
        config: AgentConfig,
        caller: ToolCaller,
        metadata: Mapping[str, str],
        above: CallChain | None,
    ) -> AsyncIterator[Toolbox]:
        uids = (*above.uids, config.uid) if above is not None else (config.uid,)
        chain = CallChain(uids, config.idle_ttl, config.max_lifetime)
        called = None
        if agents:
            called = _AgentTools(agents, self._run_called, config, caller, metadata, chain, self._call_metrics)
        if not servers:
            yield _TurnToolbox(None, called)
        elif self._toolboxes is None:
            yield _TurnToolbox(_NoServers(servers), called)
        else:
            async with self._toolboxes.open(servers, config.tool_policy, caller) as toolbox:
                yield toolbox if called is None else _TurnToolbox(toolbox, called)


def has_gateway_tools(config: AgentConfig) -> bool:
    """Whether the gateway runs any of the agent's tools."""
    return bool(config.tools) and not all(isinstance(tool, ClientTool) for tool in config.tools)


def approved_calls(request: TurnRequest, begun: Begun) -> tuple[ApprovedCall, ...]:
    """Returns the decided calls of the previous turn. A call that the request does not list is rejected; if it has no
    approvals, only those are returned that a failed turn may have made: the turn records that. Raises
    `ApprovalUnknown`, and `InvalidArgument` for a result of the caller's for a call that the gateway is to run.
    """
    awaiting = frozenset(begun.awaiting)
    if awaiting:
        found = Violations()
        for number, message in enumerate(request.messages):
            if message.tool_call_id in awaiting:
                found.add(f"messages[{number}].tool_call_id", "is a call that waits for an approval, not for a result")
        found.check()
    if not request.approvals and not begun.begun_calls:
        return ()
    said = {approval.call_id: approval for approval in request.approvals}
    calls = [call for call in open_calls(begun.window) if call.id in awaiting]
    if not said:
        calls = [call for call in calls if call.id in begun.begun_calls]
    for call_id in said:
        if call_id not in {call.id for call in calls}:
            raise ApprovalUnknown(call_id)
    return tuple(
        ApprovedCall(
            call,
            call.id in said and said[call.id].approve,
            said[call.id].note if call.id in said else "",
            begun.awaiting_servers.get(call.id, ""),
            call.id in begun.begun_calls,
        )
        for call in calls
    )


class _NoServers:
    """Implements `Toolbox` without tool servers."""

    def __init__(self, servers: Sequence[ServerTools]) -> None:
        self._servers = servers

    async def tools(self) -> ListedTools:
        reason = "this gateway reaches no tool server"
        return ListedTools((), tuple(all_unavailable(named, reason) for named in self._servers))

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        return ToolResult("The tool server is unavailable.", ToolOutcome.UNAVAILABLE)


class _TurnToolbox:
    """Implements `Toolbox` with the tools of servers and with agents; agents' names come first."""

    def __init__(self, servers: Toolbox | None, agents: "_AgentTools | None") -> None:
        self._servers = servers
        self._agents = agents

    async def tools(self) -> ListedTools:
        """Returns both."""
        listed = await self._servers.tools() if self._servers is not None else _NOTHING
        own = self._agents.listed if self._agents is not None else ()
        names = {tool.name for tool in own}
        others = [tool for tool in listed.tools if tool.name not in names]
        return ListedTools((*own, *others), (*listed.unavailable, *hidden_tools(listed.tools, names)))

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        """Calls an agent or a server's tool. Raises `AgentDepthExceeded`."""
        if self._agents is not None and name in self._agents.names:
            return await self._agents.call(name, arguments, call_id)
        assert self._servers is not None, "what is listed is there"
        return await self._servers.call(name, arguments, call_id=call_id)


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    message: str


class _AgentTools:
    """Other agents of the project. Each runs in a session of its own, or statelessly if the calling turn does."""

    def __init__(
        self,
        agents: Sequence[AgentCall],
        run_called: RunCalled | None,
        config: AgentConfig,
        caller: ToolCaller,
        metadata: Mapping[str, str],
        chain: CallChain,
        call_metrics: CallMetrics | None,
    ) -> None:
        self.names = {agent.name or agent.agent_id: agent for agent in agents}
        self._run_called = run_called
        self._config = config
        self._caller = caller
        self._metadata = metadata
        self._chain = chain
        self._call_metrics = call_metrics

    @property
    def listed(self) -> tuple[GatewayTool, ...]:
        """Agents as tools. A repeated call in a session returns the stored turn."""
        return tuple(
            GatewayTool(
                name=name,
                description=agent.description,
                parameters=_PARAMETERS,
                server=agent.agent_id,
                idempotent=bool(self._caller.session_id),
                needs_approval=agent.approval,
            )
            for name, agent in self.names.items()
        )

    async def call(self, name: str, arguments: str, call_id: str) -> ToolResult:
        """Runs the agent's turn; an error becomes a result, except `AgentDepthExceeded`, which is raised."""
        begin, outcome = time.perf_counter(), ToolOutcome.UNKNOWN
        try:
            result = await self._call(name, arguments, call_id)
            outcome = result.outcome
            return result
        finally:
            if self._call_metrics is not None:
                seconds = time.perf_counter() - begin
                self._call_metrics.observe(ToolKind.AGENT, self.names[name].agent_id, outcome, seconds)

    async def _call(self, name: str, arguments: str, call_id: str) -> ToolResult:
        assert self._run_called is not None, "only a turn calls"
        agent = self.names[name]
        try:
            asked = msgspec.json.decode(arguments, type=_Asked)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return ToolResult(f"The arguments are not valid: {error}", ToolOutcome.INVALID_ARGUMENTS)
        if len(self._chain.uids) > MAX_AGENT_DEPTH:
            raise AgentDepthExceeded(agent.agent_id, MAX_AGENT_DEPTH)
        try:
            outcome = await self._run_called(self._request(agent, name, asked.message, call_id), self._chain)
        except AgentDepthExceeded:
            raise
        except InvalidArgument as error:
            return ToolResult(f"The agent can't be asked that: {error.message}", ToolOutcome.INVALID_ARGUMENTS)
        except ServiceError as error:
            if error.reason in _GONE:
                text = f"Not run: the tool {name!r} is unavailable: there is no agent {agent.agent_id!r} any more."
                return ToolResult(text, ToolOutcome.UNAVAILABLE)
            return ToolResult(f"The agent failed ({error.reason}): {error.message}", ToolOutcome.ERROR)
        if outcome.pending or outcome.message.tool_calls:
            waits = "calls that nobody here can run or approve"
            return ToolResult(f"The agent ended with {waits}. {_text(outcome)}", ToolOutcome.ERROR, outcome.usage)
        return ToolResult(_text(outcome), ToolOutcome.OK, outcome.usage)

    def _request(self, agent: AgentCall, name: str, message: str, call_id: str) -> TurnRequest:
        parent = self._caller.session_id
        session_id = child_session_id(parent, name) if parent else ""
        request_id = f"{self._caller.turn_id}:{call_id}"
        if not _fits(check_request_id, request_id):
            request_id = f"{self._caller.turn_id}:{_digest(call_id)}"
        return TurnRequest(
            agent_id=agent.agent_id,
            messages=(Message(Role.USER, message),),
            project=self._config.project,
            session_id=session_id,
            user_id=self._caller.user_id,
            stateless=not parent,
            request_id=request_id if parent else "",
            metadata=self._metadata,
            parent_session_id=parent,
        )


def child_session_id(parent: str, name: str) -> str:
    """Returns the session of an agent called as this tool: the same for every call in a session."""
    session_id = f"{parent}:{name}"
    return session_id if _fits(check_session_id, session_id) else f"{parent[:80]}:{_digest(session_id)}"


def _fits(check: Callable[[Violations, str, str], None], text: str) -> bool:
    found = Violations()
    check(found, "", text)
    return not found


def _text(outcome: TurnOutcome) -> str:
    return outcome.message.content or outcome.message.refusal


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]
