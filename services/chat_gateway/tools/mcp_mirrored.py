"""Arguments of MCP tools that are headers, too (SEP-2243, protocol 2026-07-28): proxies may route by them.

Imports the SDK's: load it only where a server is used.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map
from mcp_types import Tool


class Mirrored:
    """What a server's tools say of their arguments; kept beyond a session, as the list of tools is."""

    def __init__(self) -> None:
        self._by_tool: dict[str, Mapping[tuple[str, ...], str]] = {}

    def learn(self, tools: Iterable[Tool]) -> None:
        """Takes the whole list of tools."""
        valid = (tool for tool in tools if find_invalid_x_mcp_header(tool.input_schema) is None)
        self._by_tool = {tool.name: found for tool in valid if (found := x_mcp_header_map(tool.input_schema))}

    def headers(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Returns the headers of a call; none for an argument that is not given."""
        found = self._by_tool.get(tool)
        return mcp_param_headers(found, arguments) if found else {}
