"""Converts messages of OpenAI's chat completion requests to those of a turn."""

from dataclasses import replace
from typing import Final

import msgspec

from chat_gateway.http_edge.openai.chat.nested_fields import NestedFields, extra_of
from chat_gateway.http_edge.openai.chat.schema import ChatMessage, ContentPart, ExtraContent, InputFile, ToolCall
from chat_gateway.http_edge.wire.bodies import raw_json
from chat_gateway.model import turn as model
from chat_gateway.model.parts import BASE64_RULE, known, wrong_base64
from chat_gateway.model.provider_errors import UNKNOWN_FIELD
from contract.enums import Role
from servicekit.errors import Violations

PART_FIELDS: Final = {"file.data": "file.file_data", "file.id": "file.file_id", "file.name": "file.filename"}
"""By the name that a field of a part has in a turn."""
_ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}
_TEXT_PARTS: Final = ("text",)
_PARTS: Final = {Role.USER: ("text", "image_url", "input_audio", "file"), Role.ASSISTANT: ("text", "refusal")}
_PART_KINDS: Final = ("text", "image_url", "input_audio", "file", "refusal")
_MAX_SHOWN: Final = 100


def to_message(message: ChatMessage, index: int, found: Violations, nested: NestedFields) -> model.Message:
    """Returns a message of the request; notes what is wrong with it."""
    role = _ROLES.get(message.role)
    if role is None:
        found.add(f"messages[{index}].role", "must be system, developer, user, assistant or tool")
        role = Role.USER
    content = message.content
    calls = message.tool_calls
    if type(content) is str and not (nested or calls or message.reasoning_content or message.extra_content):
        return model.Message(
            role=role,
            content=content,
            tool_call_id=message.tool_call_id or "",
            name=message.name or "",
            refusal=message.refusal or "",
        )
    text, parts, refusal, extra = _content(content, role, index, found, nested)
    if of_message := extra_of(nested, f"messages[{index}]", ("extra_content",)):
        extra = of_message if extra is None else replace(of_message, texts=extra.texts)
    return model.Message(
        role=role,
        content=text,
        parts=parts,
        tool_calls=tuple(
            [
                _tool_call(call, f"messages[{index}].tool_calls[{i}]", found, nested)
                for i, call in enumerate(calls or ())
            ]
        ),
        tool_call_id=message.tool_call_id or "",
        name=message.name or "",
        refusal=message.refusal or refusal,
        reasoning=(message.reasoning_content or "") if role is Role.ASSISTANT else "",
        provider_data=_provider_data(message.extra_content) if role is Role.ASSISTANT else None,
        extra=extra,
    )


def _provider_data(extra: ExtraContent | msgspec.UnsetType | None) -> model.ProviderData | None:
    if not extra or extra.parley is None:
        return None
    kept = extra.parley
    return model.ProviderData(kept.kind, kept.provider, raw_json(kept.data, "messages.extra_content.parley.data"))


def _content(
    content: str | list[ContentPart] | None, role: Role, index: int, found: Violations, nested: NestedFields
) -> tuple[str, tuple[model.Part, ...], str, model.Extra | None]:
    """Text, parts and refusal of a message. Only users have parts; parts of others are joined to one text."""
    if content is None or isinstance(content, str):
        return content or "", (), "", None
    parts: list[model.Part] = []
    refusal = ""
    for number, part in enumerate(content):
        where = f"messages[{index}].content[{number}]"
        for other in _PART_KINDS if part.type in _PART_KINDS else ():
            if other != part.type and getattr(part, other) is not None:
                found.add(f"{where}.{other}", f"does not belong to a part of type {part.type[:_MAX_SHOWN]!r}")
        if part.type not in _PARTS.get(role, _TEXT_PARTS):
            known = part.type[:_MAX_SHOWN]
            found.add(f"{where}.type", f"{known!r} is not a part that a {role.value} message can have")
        elif getattr(part, part.type) is None:
            found.add(f"{where}.{part.type}", "is required")
        elif part.text is not None and part.type == "text":
            parts.append(model.TextPart(part.text, extra_of(nested, where)))
        elif part.refusal is not None and part.type == "refusal":
            refusal += part.refusal
            for name in nested.get(where, ()):
                found.add(f"{where}.{name}", UNKNOWN_FIELD)
        else:
            parts.append(replace(_media_part(part, where, found), extra=extra_of(nested, where, (part.type,))))
    if role is Role.USER:
        return "", tuple(parts), refusal, None
    texts = tuple((part.text, part.extra) for part in parts if isinstance(part, model.TextPart))
    extra = model.Extra(texts=texts) if any(more for _, more in texts) else None
    return "".join(text for text, _ in texts), (), refusal, extra


def _media_part(part: ContentPart, where: str, found: Violations) -> model.MediaPart:
    said: model.MediaPart
    if part.type == "image_url" and part.image_url is not None:
        said = model.ImagePart(part.image_url.url, part.image_url.detail or "", place=where)
    elif part.type == "input_audio" and part.input_audio is not None:
        said = model.AudioPart(part.input_audio.data, part.input_audio.format, place=where)
    else:
        file = part.file or InputFile()
        said = model.FilePart(file.file_data or "", file.file_id or "", file.filename or "", place=where)
    if field := wrong_base64(said):
        found.add(f"{where}.{PART_FIELDS.get(field, field)}", BASE64_RULE)
    return known(said)


def _tool_call(call: ToolCall, where: str, found: Violations, nested: NestedFields) -> model.ToolCall:
    if call.type != "function":
        found.add(f"{where}.type", "must be function")
    return model.ToolCall(
        call.id,
        call.function.name,
        call.function.arguments,
        _provider_data(call.extra_content),
        extra_of(nested, where, ("function", "extra_content")),
    )
