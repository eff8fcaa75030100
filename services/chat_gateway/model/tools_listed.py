"""A bounded list of the tools offered to a turn's model, by server."""

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
    """The tools of a tool server or an agent; `error` says what is unavailable, and why."""

    server: str
    tools: tuple[ListedTool, ...] = ()
    error: str = ""


@value
class ToolsListed:
    """The tools of a turn, once the turn knows them."""

    servers: tuple[ListedServer, ...]


def within_bound(servers: Sequence[ListedServer]) -> ToolsListed:
    """Returns a list that takes no more than `MAX_TOOLS_LISTED_BYTES`.

    If it is too large, schemas are dropped first, then descriptions, then tools, which is noted at each server.
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
    """Returns an upper bound of its stored size in bytes."""
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
