"""Which tool a call is of, and what its result is where that tool is unavailable now."""

from collections.abc import Iterable, Sequence

from chat_gateway.agents.offer import Offer
from chat_gateway.agents.toolbox import ApprovedCall
from chat_gateway.model.tool_names import may_be_named
from chat_gateway.model.tools import CalledTool, GatewayTool, ToolOutcome, ToolResult, ToolsUnavailable
from chat_gateway.model.turn import ToolCall

MAX_NAMED = 8
"""Of the unavailable servers in a result."""


class CalledTools:
    """The tools of calls. `known` are those of calls that were requested when other tools may have been offered: a call
    is one of the same server's tool then, never of another's that has the name now.
    """

    def __init__(self, offer: Offer, known: Iterable[CalledTool] = ()) -> None:
        self._offer = offer
        self._known = {one.call_id: one for one in known if one.server}

    def tool(self, call: ToolCall) -> GatewayTool | None:
        """Returns the tool of a call, if it is available."""
        tool, known = self._offer.runs(call.name), self._known.get(call.id)
        if known is None or (tool is not None and tool.server == known.server):
            return tool
        found = [
            one
            for one in self._offer.listed.values()
            if one.server == known.server and may_be_named(call.name, one.server, one.own_name or one.name)
        ]
        return found[0] if len(found) == 1 else None

    def server(self, call: ToolCall) -> str:
        """Returns who runs a call; empty if nobody is known to."""
        if (known := self._known.get(call.id)) is not None:
            return known.server
        if (tool := self._offer.runs(call.name)) is not None:
            return tool.server
        servers = {one.server for one in self._lacking(call.name)}
        return servers.pop() if len(servers) == 1 else ""

    def needs_approval(self, call: ToolCall) -> bool:
        """Whether a call waits for an approval."""
        known, tool = self._known.get(call.id), self.tool(call)
        return (known is not None and known.needs_approval) or (tool is not None and tool.needs_approval)

    def requested(self, calls: Sequence[ToolCall]) -> tuple[CalledTool, ...]:
        """Returns the tools of calls that have just been requested."""
        tools = [(call, self._offer.runs(call.name)) for call in calls]
        return tuple([CalledTool(call.id, one.server, one.needs_approval) for call, one in tools if one is not None])

    def missing(self, call: ToolCall) -> ToolResult:
        """Returns the result of a call whose tool can't be called: it is unavailable, or does not exist."""
        name = call.name[:64]
        if (known := self._known.get(call.id)) is not None:
            reasons = [one.reason for one in self._lacking(call.name) if one.server == known.server]
            why = "; ".join(reasons) or "it is not offered any more"
            text = f"Not run: the tool {name!r} of {known.server!r} is unavailable: {why}."
            return ToolResult(text, ToolOutcome.UNAVAILABLE)
        if lacking := self._lacking(call.name):
            named = "; ".join(f"{one.server!r}: {one.reason}" for one in lacking[:MAX_NAMED])
            text = f"Not run: the tool {name!r} is unavailable in this turn. What is unavailable: {named}."
            return ToolResult(text, ToolOutcome.UNAVAILABLE)
        offered = ", ".join(one.name for one in self._offer.tools)
        return ToolResult(f"There is no tool {name!r}. The tools are: {offered}", ToolOutcome.ERROR)

    def _lacking(self, name: str) -> list[ToolsUnavailable]:
        return [one for one in self._offer.unavailable if one.may_have(name)]


def of_approvals(approvals: Iterable[ApprovedCall]) -> Iterable[CalledTool]:
    """Returns the tools of decided calls."""
    return [CalledTool(one.call.id, one.server) for one in approvals]
