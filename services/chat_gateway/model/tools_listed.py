"""The tools that the model of a turn is offered, server by server, as they are shown and kept: within a bound."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from servicekit.values import value

MAX_TOOLS_LISTED_BYTES: Final = 16 * 1024


@value
class ListedTool:
    """A tool; `parameters` is the JSON Schema of its arguments, None where it is left out."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


@value
class ListedServer:
    """What a tool server, or an agent, is offered with; `error` says what of it can't be had, and why."""

    server: str
    tools: tuple[ListedTool, ...] = ()
    error: str = ""


@value
class ToolsListed:
    """The tools of a turn, once the turn knows them."""

    servers: tuple[ListedServer, ...]


def within_bound(servers: Sequence[ListedServer]) -> ToolsListed:
    """Returns a list that takes no more than `MAX_TOOLS_LISTED_BYTES`.

    Of one that is too large schemas are left out first, then descriptions, then tools, which each server says.
    """
    listed = ToolsListed(tuple(servers))
    for shorter in (_without_schemas, _without_descriptions):
        if _size(listed) <= MAX_TOOLS_LISTED_BYTES:
            return listed
        listed = shorter(listed)
    most = max((len(one.tools) for one in listed.servers), default=0)
    while most and _size(listed) > MAX_TOOLS_LISTED_BYTES:
        most //= 2
        listed = ToolsListed(tuple(_with_at_most(one, most) for one in listed.servers))
    fits = _size(listed) <= MAX_TOOLS_LISTED_BYTES
    return listed if fits else ToolsListed(())


def _size(listed: ToolsListed) -> int:
    """Returns no less than the bytes that it takes where it is kept."""
    said = [
        {
            "server": one.server,
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
                for tool in one.tools
            ],
            "error": one.error,
        }
        for one in listed.servers
    ]
    return len(json.dumps(said, ensure_ascii=False).encode("utf-8", "replace"))


def _without_schemas(listed: ToolsListed) -> ToolsListed:
    return _each(listed, lambda tool: ListedTool(tool.name, tool.description))


def _without_descriptions(listed: ToolsListed) -> ToolsListed:
    return _each(listed, lambda tool: ListedTool(tool.name))


def _each(listed: ToolsListed, shorter: Callable[[ListedTool], ListedTool]) -> ToolsListed:
    return ToolsListed(
        tuple(ListedServer(one.server, tuple(map(shorter, one.tools)), one.error) for one in listed.servers)
    )


def _with_at_most(server: ListedServer, most: int) -> ListedServer:
    left_out = len(server.tools) - most
    if left_out <= 0:
        return server
    return ListedServer(server.server, server.tools[:most], server.error or "not all of its tools are listed here")
