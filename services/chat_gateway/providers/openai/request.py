"""A model call as the JSON of OpenAI's chat completions."""

import hashlib
import re
import string
from typing import Any

import msgspec

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import AudioPart, Extra, ImagePart, Message, Part, ProviderData, TextPart, Tool, ToolCall
from chat_gateway.providers.extras import Beside
from chat_gateway.providers.openai.dialect import Dialect
from chat_gateway.providers.paired import one_system_message
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role

KIND = "openai"
KEPT_FIELDS = ("reasoning_details", "thinking_blocks", "extra_content")
"""What providers of this kind want back with a message or a tool call, word for word."""
OPTIONAL_FIELDS = frozenset(
    {
        "logit_bias",
        "logprobs",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_mode",
        "reasoning_effort",
        "safe_prompt",
        "safety_identifier",
        "service_tier",
        "top_logprobs",
        "verbosity",
        "web_search_options",
    }
)
"""What a provider that takes no fields of others takes beside what a turn itself says."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_ROLES = {role: role.value for role in Role}  # `value` is a property in Python: three times a look-up
_SHORT_ID = frozenset(string.ascii_letters + string.digits)
_SHORT_ID_LENGTH = 9
_NOT_IN_NAMES = re.compile(r"[\s<|\\/>]")
"""What OpenAI refuses in the name of a speaker."""


def encode_call(call: ModelCall, dialect: Dialect, provider: str, *, stream: bool) -> bytes:
    """Returns the request body of a call to the provider of that name."""
    messages = one_system_message(call.messages) if dialect.single_system else call.messages
    beside = Beside() if dialect.extra_fields else Beside(frozenset())
    write = _Writer(dialect, provider, beside)
    body: dict[str, Any] = {"model": call.model, "messages": list(map(write.message, messages))}
    if stream:
        body["stream"] = True
        if dialect.stream_usage:
            body["stream_options"] = {"include_usage": True}
    _add_sampling(body, call, dialect)
    if call.tools:
        body["tools"] = [_tool_json(tool, beside) for tool in call.tools]
        if call.tool_choice:
            body["tool_choice"] = _tool_choice_json(call.tool_choice)
        if call.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = call.parallel_tool_calls
    if call.response_format is not None:
        body["response_format"] = call.response_format
    if call.extra or beside.unknown:
        body.update(_extra(call, dialect, provider, beside))
    if dialect.extra_body:
        body = {**dialect.extra_body, **body}
    return _encode(body)


def _extra(call: ModelCall, dialect: Dialect, provider: str, beside: Beside) -> dict[str, msgspec.Raw]:
    unknown = [] if dialect.extra_fields else [name for name in call.extra if name not in OPTIONAL_FIELDS]
    if unknown or beside.unknown:
        raise UnsupportedField(provider, unknown + beside.unknown)
    return {name: msgspec.Raw(value) for name, value in call.extra.items()}


class _Writer:
    """Writes messages for one provider."""

    __slots__ = ("_beside", "_dialect", "_provider")

    def __init__(self, dialect: Dialect, provider: str, beside: Beside) -> None:
        self._dialect = dialect
        self._provider = provider
        self._beside = beside

    def message(self, message: Message) -> dict[str, Any]:
        role = message.role
        out: dict[str, Any] = {"role": _ROLES[role], "content": message.content}
        if role is Role.SYSTEM:
            out["role"] = self._dialect.system_role
        if message.parts:
            out["content"] = [self._beside.put(_part_json(part), part.extra) for part in message.parts]
        if role is Role.ASSISTANT:
            self._add_answer(out, message)
        if message.tool_call_id:
            out["tool_call_id"] = self._call_id(message.tool_call_id)
        if message.name and self._dialect.names:
            out["name"] = _NOT_IN_NAMES.sub("_", message.name) if self._dialect.plain_names else message.name
        return out if message.extra is None else self._with_extra(out, message.extra)

    def _with_extra(self, out: dict[str, Any], extra: Extra) -> dict[str, Any]:
        texts = [self._beside.put({"type": "text", "text": text}, more) for text, more in extra.texts if text.strip()]
        if texts:
            out["content"] = texts
        return self._beside.put(out, extra)

    def _add_answer(self, out: dict[str, Any], message: Message) -> None:
        if message.tool_calls:
            out["tool_calls"] = [self._tool_call(call) for call in message.tool_calls]
            out["content"] = message.content or None
        if message.reasoning:
            send = self._dialect.send_reasoning
            if send == "always" or (send == "tool_calls" and message.tool_calls):
                out[self._dialect.reasoning_field] = message.reasoning
        if message.provider_data is not None:
            out.update(self._kept(message.provider_data))

    def _tool_call(self, call: ToolCall) -> dict[str, Any]:
        out: dict[str, Any] = {
            "id": self._call_id(call.id),
            "type": "function",
            # A call without arguments has an empty object: strict servers parse what they are given.
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
        }
        if call.provider_data is not None:
            out.update(self._kept(call.provider_data))
        return self._beside.put(out, call.extra)

    def _kept(self, data: ProviderData) -> dict[str, Any]:
        if data.kind != KIND or data.provider != self._provider:
            return {}
        try:
            kept = _decode(data.json)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        # It may have come with a caller's history: it never overrides what was said.
        return {name: kept[name] for name in KEPT_FIELDS if name in kept} if isinstance(kept, dict) else {}

    def _call_id(self, call_id: str) -> str:
        if not self._dialect.short_call_ids or (len(call_id) == _SHORT_ID_LENGTH and _SHORT_ID.issuperset(call_id)):
            return call_id
        return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:_SHORT_ID_LENGTH]


def _part_json(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        image = {"url": part.url, "detail": part.detail} if part.detail else {"url": part.url}
        return {"type": "image_url", "image_url": image}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    said = {"file_data": part.data, "file_id": part.id, "filename": part.name}
    return {"type": "file", "file": {name: value for name, value in said.items() if value}}


def _tool_json(tool: Tool, beside: Beside) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict:
        function["strict"] = True
    return beside.put({"type": "function", "function": function}, tool.extra)


def _tool_choice_json(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _add_sampling(body: dict[str, Any], call: ModelCall, dialect: Dialect) -> None:
    sampling = call.sampling
    said = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        dialect.token_limit: sampling.max_output_tokens,
        dialect.seed_field: sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": sampling.stop or None,
    }
    body.update({name: value for name, value in said.items() if value is not None})
