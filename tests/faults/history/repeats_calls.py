"""chat_gateway that makes calls of tools again, now and then: what the history checker must notice.

Run as a module, as chat_gateway itself is. Nothing in services/ knows of it.
"""

import itertools
import runpy
from collections.abc import Mapping
from typing import Any

from chat_gateway.model.tools import ToolResult
from chat_gateway.tools.mcp_client import McpClient
from chat_gateway.tools.server import CallOptions

EVERY = 3

_call = McpClient.call
_numbers = itertools.count(1)


async def call_again(client: McpClient, tool: str, arguments: Mapping[str, Any], options: CallOptions) -> ToolResult:
    """Make the call, and every third one once more, as a retry would."""
    result = await _call(client, tool, arguments, options)
    return await _call(client, tool, arguments, options) if next(_numbers) % EVERY == 0 else result


if __name__ == "__main__":
    McpClient.call = call_again  # type: ignore[method-assign]
    runpy.run_module("chat_gateway", run_name="__main__")
