"""Requests as callers write them, and what becomes of them upstream."""

import json
from typing import Any

from access.caller import ANONYMOUS
from chat_gateway.http_edge.openai.chat.handler import read_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.rules import DEFAULT_BOUNDS
from chat_gateway.model.turn import Sampling, TurnRequest
from chat_gateway.providers.openai.dialect import PRESETS
from chat_gateway.providers.openai.request import encode_call as openai_call
from chat_gateway.providers.provider import ModelCall

TEXT = {"type": "text", "text": "x"}
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "4"}


def asked(messages: list[Any], **body: Any) -> TurnRequest:
    said = {"model": "support", "messages": messages} | body
    return read_request(json.dumps(said).encode(), TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)[1]


def called(request: TurnRequest) -> ModelCall:
    return ModelCall("m", request.messages, Sampling(), request.tools, request.tool_choice)


def sent(request: TurnRequest, preset: str = "compatible") -> Any:
    return json.loads(openai_call(called(request), PRESETS[preset], "p", stream=False))


def answered(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "yes"} | fields


def at(body: Any, path: str) -> Any:
    for key in path.replace("[", ".[").split("."):
        body = body[int(key[1:-1])] if key.startswith("[") else body[key]
    return body
