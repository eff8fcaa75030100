"""The list of offered tools for a turn's caller."""

from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.offer import Offer
from chat_gateway.model.tools_listed import ListedServer, ListedTool, ToolsListed, within_bound
from contract.enums import Role


def tools_to_list(context: TurnContext, offer: Offer) -> ToolsListed | None:
    """Returns the tools that the gateway runs, by server; None if the caller gets no list. It gets one once, with the
    first action of the agent in the session, from one gateway.
    """
    request, steps = context.request, context.steps
    if not request.lists_tools or steps.listed is not None or steps.count or context.approvals:
        return None
    if any(message.role is Role.ASSISTANT for message in context.window):
        return None
    tools: dict[str, list[ListedTool]] = {}
    for tool in (*[one.tool for one in offer.functions.values()], *offer.listed.values()):
        tools.setdefault(tool.server, []).append(ListedTool(tool.name, tool.description, tool.parameters))
    errors: dict[str, list[str]] = {}
    for one in offer.unavailable:
        errors.setdefault(one.server, []).append(one.reason)
    servers = [
        ListedServer(name, tuple(tools.get(name, ())), "; ".join(errors.get(name, ())))
        for name in dict.fromkeys((*tools, *errors))
    ]
    return within_bound(servers) if servers else None
