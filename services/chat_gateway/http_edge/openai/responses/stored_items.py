"""The items of a stored turn: what its caller brought, and what the agent did."""

from collections.abc import Sequence

from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.echo import echo_of
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.output_items import (
    COMPLETED,
    function_call_item,
    message_item,
    output_items,
    reasoning_item,
    refusal_part,
    text_part,
)
from chat_gateway.model.answers import agents_part
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.turn import AudioPart, FilePart, FinishReason, ImagePart, Message, Part, TextPart
from contract.enums import Role


def input_items(turn: Turn, session_id: str) -> list[Item]:
    """Returns what the turn's caller brought, in order. An item's place is that of its message."""
    brought = turn.messages[: len(turn.messages) - len(agents_part(turn))]
    return items_brought(TurnRef(turn.id, session_id), brought, turn.notes)


def items_brought(ref: TurnRef, brought: Sequence[Message], notes: bytes) -> list[Item]:
    """Returns what the caller of a turn brought, which may still run; `notes` are the turn's."""
    items = [item for place, message in enumerate(brought) for item in _items(ref, message, f"i{place}")]
    if notes and any(message.role is Role.SYSTEM for message in brought):
        developers = {ref.item_id("msg", f"i{len(brought) - place}") for place in echo_of(notes, "").developers}
        for item in items:
            if item["id"] in developers:
                item["role"] = "developer"
    return items


def turn_items(turn: Turn, session_id: str, *, keep: bool = False) -> list[Item]:
    """Returns all of a turn. `keep`: with what providers need back."""
    ref = TurnRef(turn.id, session_id)
    output = output_items(
        ref,
        agents_part(turn),
        turn.runs,
        turn.awaiting,
        cut=turn.finish_reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER),
        keep=keep,
        annotations=turn.details.annotations,
        listed=turn.listed,
    )
    return [*input_items(turn, session_id), *output]


def _items(ref: TurnRef, message: Message, place: str) -> list[Item]:
    if message.role is Role.ASSISTANT:
        return _assistants(ref, message, place)
    if message.role is Role.TOOL:
        return [
            {
                "type": "function_call_output",
                "id": ref.item_id("fco", place),
                "call_id": message.tool_call_id,
                "output": message.content,
                "status": COMPLETED,
            }
        ]
    parts = message.parts or (TextPart(message.content),)
    return [
        {
            "type": "message",
            "id": ref.item_id("msg", place),
            "status": COMPLETED,
            "role": message.role.value,
            "content": list(map(_part, parts)),
        }
    ]


def _assistants(ref: TurnRef, message: Message, place: str) -> list[Item]:
    items = [reasoning_item(ref.item_id("rs", place), message.reasoning, COMPLETED)] if message.reasoning else []
    content = [text_part(message.content)] if message.content else []
    content += [refusal_part(message.refusal)] if message.refusal else []
    if content:
        items.append(message_item(ref.item_id("msg", place), content, COMPLETED))
    for index, call in enumerate(message.tool_calls):
        items.append(function_call_item(ref.item_id("fc", f"{place}-{index}"), call, COMPLETED))
    return items


def _part(part: Part) -> Item:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
        case AudioPart():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case FilePart():
            said = {"file_data": part.data, "file_id": part.id, "filename": part.name}
            return {"type": "input_file", **{name: value for name, value in said.items() if value}}
