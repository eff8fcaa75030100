"""By what a repeated request id is known to come with the same request."""

import hashlib
from typing import Any

import msgspec

from chat_gateway.model.parts import content_of
from chat_gateway.model.turn import AudioPart, ImagePart, Message, Part, TextPart, ToolCall, TurnRequest

_LARGE_PART_BYTES = 64 * 1024
"""Parts with so large a content have been digested already."""

_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_in_order = msgspec.json.Encoder().encode


def request_digest(request: TurnRequest) -> bytes:
    """Returns 32 bytes that are the same for the same request, streamed or not.

    How long the caller waits and what it does about a busy session are not part of what it asks for.
    """
    asked: tuple[Any, ...] = (
        request.project,
        request.agent_id,
        request.user_id,
        msgspec.Raw(_encode_in_order([_message(message) for message in request.messages])),
        request.agent_revision,
        request.sampling,
        request.tools,
        request.tool_choice,
        request.response_format,
    )
    if request.extra:
        asked = (*asked, sorted((name, value.hex()) for name, value in request.extra.items()))
    if request.approvals:
        asked = (*asked, "approvals", request.approvals)
    return hashlib.sha256(_encode(asked)).digest()


# A field that a release adds must not change the digest of requests without it: gateways of both releases see repeats.
def _message(message: Message) -> dict[str, Any]:
    asked = {
        "role": message.role,
        "content": message.content,
        "parts": [_part(part) for part in message.parts],
        "tool_calls": [_tool_call(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "refusal": message.refusal,
    }
    later = {"reasoning": message.reasoning, "provider_data": message.provider_data}
    return asked | {name: value for name, value in later.items() if value}


def _part(part: Part) -> Any:
    if isinstance(part, TextPart):
        return part
    if part.kept is None or part.kept.size < _LARGE_PART_BYTES:
        content: Any = content_of(part)
    else:
        content = part.kept.digest.hex()
    if isinstance(part, ImagePart):
        return {"url": content, "detail": part.detail}
    if isinstance(part, AudioPart):
        return {"data": content, "format": part.format}
    return {"data": content, "id": part.id, "name": part.name}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    asked: dict[str, Any] = {"id": call.id, "name": call.name, "arguments": call.arguments}
    return asked if call.provider_data is None else {**asked, "provider_data": call.provider_data}
