"""Calls of tools that need no SDK: requests as it made them before, answers that are one JSON object with texts.

The SDK's way costs about a millisecond a call. It negotiates, lists, and makes the first call of each tool; what it
sent then is sent again with other arguments. Whatever is not plain about an answer is left to it.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from chat_gateway.tools.mcp_results import as_text
from servicekit.values import value


@value
class CallAnswer:
    """What a tool answered, as text for the model."""

    text: str
    is_error: bool


@value
class PlainCall:
    """How a tool is called: what every request has in common."""

    url: str
    headers: Mapping[str, str]
    name: str
    meta: Mapping[str, Any]

    def body(self, request_id: int, arguments: Mapping[str, Any], meta: Mapping[str, Any]) -> bytes | None:
        """Returns the request of a call; None for arguments that are no JSON."""
        params = {"name": self.name, "arguments": arguments, "_meta": {**self.meta, **meta}}
        try:
            return _encode({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None


def learned(url: str, headers: Mapping[str, str], body: bytes) -> PlainCall | None:
    """Returns how a tool is called by a request that was answered, without the headers that say its arguments."""
    headers = {name: text for name, text in headers.items() if not name.lower().startswith("mcp-param-")}
    try:
        request = msgspec.json.decode(body, type=_Request)
    except msgspec.MsgspecError:
        return None
    return PlainCall(url, headers, request.params.name, request.params.meta)


def answer_of(content: bytes, request_id: int) -> CallAnswer | None:
    """Returns a call's answer; None for one that is not plain."""
    try:
        response = msgspec.json.decode(content, type=_Response)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if response.id != request_id:
        return None
    result = response.result
    return CallAnswer(as_text(result.content, result.structured), result.is_error)


class _Params(msgspec.Struct):
    name: str
    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


class _Request(msgspec.Struct):
    method: Literal["tools/call"]
    params: _Params


class _Text(msgspec.Struct):
    type: Literal["text"]
    text: str


class _Result(msgspec.Struct):
    content: list[_Text]
    structured: dict[str, Any] | None = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)
    kind: Literal["complete"] = msgspec.field(name="resultType", default="complete")


class _Response(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: int
    result: _Result


_encode = msgspec.json.Encoder().encode
