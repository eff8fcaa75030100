"""The tools that a model was offered, as they are kept with its turn."""

from collections.abc import Mapping
from typing import Any

import msgspec

from chat_gateway.model.tools_listed import ListedServer, ListedTool, ToolsListed


class _Tool(msgspec.Struct, omit_defaults=True):
    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


class _Server(msgspec.Struct, omit_defaults=True):
    server: str
    tools: list[_Tool] = []
    error: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Server]).decode


def tools_listed_to_bytes(listed: ToolsListed) -> bytes:
    """Returns the list as it is kept."""
    return _encode(
        [
            _Server(
                one.server,
                [_Tool(tool.name, tool.description, tool.parameters) for tool in one.tools],
                one.error,
            )
            for one in listed.servers
        ]
    )


def tools_listed_from_bytes(data: bytes) -> ToolsListed | None:
    """Returns what is kept; None where nothing is, or nothing that this release can read."""
    if not data:
        return None
    try:
        kept = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return ToolsListed(
        tuple(
            ListedServer(
                one.server,
                tuple(ListedTool(tool.name, tool.description, tool.parameters) for tool in one.tools),
                one.error,
            )
            for one in kept
        )
    )
