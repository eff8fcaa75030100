"""Converts messages of OpenAI's chat completion requests to those of a turn."""

from collections.abc import Sequence
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
_REASONING_PARTS: Final = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
"""What other APIs have in answers, and clients that keep them send again: it is no content of a message here."""
_CALL_PARTS: Final = frozenset({"tool_use", "tool_call", "function_call"})
_REASONING_TEXTS: Final = ("thinking", "reasoning", "reasoning_content", "text", "summary")
_SIGNED: Final = ("extra_content", "thought_signature", "thoughtSignature", "signature")
_BESIDE_ANSWERS: Final = (
    *_SIGNED,
    "audio",
    "encrypted_content",
    "images",
    "reasoning",
    "reasoning_details",
    "reasoning_items",
    "reasoning_opaque",
    "reasoning_signature",
    "reasoning_text",
    "thinking",
    "thinking_blocks",
    "thinking_signature",
)
"""What providers and gateways put beside the content of their answers."""
_MAX_SHOWN: Final = 100
_decode = msgspec.json.Decoder().decode


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
    by_model = role is Role.ASSISTANT
    said = _Content(content, [call.id for call in calls or ()] if by_model else (), role, index, found, nested)
    extra = said.extra
    path = f"messages[{index}]"
    if of_message := extra_of(nested, path, ("extra_content",), _BESIDE_ANSWERS if by_model else ()):
        extra = of_message if extra is None else replace(of_message, texts=extra.texts)
    return model.Message(
        role=role,
        content=said.text,
        parts=said.parts,
        tool_calls=tuple(
            [
                _tool_call(call, f"messages[{index}].tool_calls[{i}]", found, nested)
                for i, call in enumerate(calls or ())
            ]
        ),
        tool_call_id=message.tool_call_id or "",
        name=message.name or "",
        refusal=message.refusal or said.refusal,
        reasoning=(message.reasoning_content or said.reasoning) if by_model else "",
        provider_data=_provider_data(message.extra_content) if by_model else None,
        extra=extra,
    )


def _provider_data(extra: ExtraContent | msgspec.UnsetType | None) -> model.ProviderData | None:
    if not extra or extra.parley is None:
        return None
    kept = extra.parley
    return model.ProviderData(kept.kind, kept.provider, raw_json(kept.data, "messages.extra_content.parley.data"))


class _Content:
    """The content of a message. Only users have parts; those of others are joined to one text."""

    def __init__(
        self,
        content: str | list[ContentPart] | None,
        call_ids: Sequence[str],
        role: Role,
        index: int,
        found: Violations,
        nested: NestedFields,
    ) -> None:
        self.text = content if isinstance(content, str) else ""
        self.parts: tuple[model.Part, ...] = ()
        self.refusal = self.reasoning = ""
        self.extra: model.Extra | None = None
        if content is None or isinstance(content, str):
            return
        self._role, self._call_ids, self._found, self._nested = role, call_ids, found, nested
        read = [self._part(part, f"messages[{index}].content[{number}]") for number, part in enumerate(content)]
        parts = tuple([part for part in read if part is not None])
        if role is Role.USER:
            self.parts = parts
            return
        texts = tuple((part.text, part.extra) for part in parts if isinstance(part, model.TextPart))
        self.extra = model.Extra(texts=texts) if any(more for _, more in texts) else None
        self.text = "".join(text for text, _ in texts)

    def _part(self, part: ContentPart, where: str) -> model.Part | None:
        found, nested = self._found, self._nested
        if self._role is Role.ASSISTANT and self._is_beside_content(part, where):
            return None
        for other in _PART_KINDS if part.type in _PART_KINDS else ():
            if other != part.type and getattr(part, other) is not None:
                found.add(f"{where}.{other}", f"does not belong to a part of type {part.type[:_MAX_SHOWN]!r}")
        if part.type not in _PARTS.get(self._role, _TEXT_PARTS):
            known = part.type[:_MAX_SHOWN]
            found.add(f"{where}.type", f"{known!r} is not a part that a {self._role.value} message can have")
        elif getattr(part, part.type) is None:
            found.add(f"{where}.{part.type}", "is required")
        elif part.text is not None and part.type == "text":
            return model.TextPart(part.text, extra_of(nested, where))
        elif part.refusal is not None and part.type == "refusal":
            self.refusal += part.refusal
            for name in nested.get(where, ()):
                found.add(f"{where}.{name}", UNKNOWN_FIELD)
        else:
            return replace(_media_part(part, where, found), extra=extra_of(nested, where, (part.type,)))
        return None

    def _is_beside_content(self, part: ContentPart, where: str) -> bool:
        """Whether a part of an answer is reasoning, which is kept as such, or a call that the message has anyway."""
        said = self._nested.get(where, {})
        if part.type in _REASONING_PARTS:
            texts = [part.text or "", *[_text_in(said[name]) for name in _REASONING_TEXTS if name in said]]
            self.reasoning += next(filter(None, texts), "")
            return True
        named = [_text_in(said[name]) for name in ("id", "call_id") if name in said]
        return part.type in _CALL_PARTS and any(one in self._call_ids for one in named)


def _text_in(raw: msgspec.Raw) -> str:
    """Returns a text, or that of a part or a list of parts; nothing for anything else."""
    said = _decode(raw)
    if isinstance(said, str):
        return said
    parts = said if isinstance(said, list) else [said]
    return "".join(text for one in parts if isinstance(one, dict) and isinstance(text := one.get("text"), str))


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
        extra_of(nested, where, ("function", "extra_content"), _SIGNED),
    )
