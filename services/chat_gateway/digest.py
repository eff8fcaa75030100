"""The digest by which a repeated request id is checked to come with the same request."""

import hashlib
from typing import Any

import msgspec

from chat_gateway.model.parts import content_of
from chat_gateway.model.turn import AudioPart, Extra, ImagePart, Message, Part, TextPart, Tool, TurnRequest
from contract.enums import HistoryPolicy
from servicekit.values import value

_LARGE_PART_BYTES = 64 * 1024
"""Parts of at least this size have been digested already."""

_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_in_order = msgspec.json.Encoder().encode


def request_digest(request: TurnRequest) -> bytes:
    """Returns 32 bytes that are the same for the same request, streamed or not, and 8 more where it has metadata.

    The deadline and the busy policy are not included. Metadata is digested separately, because the previous release did
    not include it; session_svc compares 32 bytes if one side has no more.
    """
    asked: tuple[Any, ...] = (
        request.project,
        request.agent_id,
        request.user_id,
        msgspec.Raw(_encode_in_order([_message(message) for message in request.messages])),
        request.agent_revision,
        request.sampling,
        [_tool(tool) for tool in request.tools],
        request.tool_choice,
        request.response_format,
    )
    later = _later(request)
    digest = hashlib.sha256(_encode((*asked, later) if later else asked)).digest()
    if not request.metadata:
        return digest
    return digest + hashlib.blake2b(_encode(request.metadata), digest_size=8).digest()


def _later(request: TurnRequest) -> dict[str, Any]:
    """Returns the parts that the previous release did not know: requests without them keep their digest."""
    said: dict[str, Any] = {
        "extra": {name: value.hex() for name, value in request.extra.items()},
        "history": "" if request.history in (None, HistoryPolicy.MATCH) else request.history,
        "approvals": request.approvals,
        "extra_of_messages": [
            (
                index,
                _extra(message.extra),
                [_extra(part.extra) for part in message.parts],
                [_extra(call.extra) for call in message.tool_calls],
            )
            for index, message in enumerate(request.messages)
            if message.extra or any(one.extra for one in (*message.parts, *message.tool_calls))
        ],
        "extra_of_tools": [_extra(tool.extra) for tool in request.tools]
        if any(tool.extra for tool in request.tools)
        else (),
        "allowed_tools": sorted(request.allowed_tools),
        "instructions": request.instructions,
        "after_turn": request.after_turn,
        "messages": [
            (index, message.reasoning, message.provider_data, [call.provider_data for call in message.tool_calls])
            for index, message in enumerate(request.messages)
            if message.reasoning or message.provider_data or any(call.provider_data for call in message.tool_calls)
        ],
    }
    return {name: value for name, value in said.items() if value}


def _message(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        "parts": [_part(part) for part in message.parts],
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "refusal": message.refusal,
    }


@value
class _Extra:
    """An `Extra` as the previous release digests it, which knows no echoes."""

    json: bytes
    texts: tuple[tuple[str, "_Extra | Extra | None"], ...]
    place: str


def _extra(extra: Extra | None) -> "_Extra | Extra | None":
    if extra is None or extra.echoes:
        return extra
    return _Extra(extra.json, tuple([(text, _extra(more)) for text, more in extra.texts]), extra.place)


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}


def _part(part: Part) -> Any:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if part.kept is None or part.kept.size < _LARGE_PART_BYTES:
        content: Any = content_of(part)
    else:
        content = part.kept.digest.hex()
    if isinstance(part, ImagePart):
        return {"url": content, "detail": part.detail}
    if isinstance(part, AudioPart):
        return {"data": content, "format": part.format}
    return {"data": content, "id": part.id, "name": part.name}
