"""Messages as OpenAI's chat completions JSON, and back. The only place that knows that format's upstream side."""

from typing import Any

import msgspec

from chat_gateway.model.turn import FinishReason, ImagePart, Message, TextPart, Tool, ToolCall, ToolCallDelta, Usage
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role

_encode = msgspec.json.Encoder().encode
_ROLES = {role: role.value for role in Role}  # `value` is a property in Python: three times a look-up
MAX_TOKENS = 2**31
"""No model call counts more tokens than this: what a provider says beyond it is not true."""


class UpstreamFunction(msgspec.Struct):
    """The function of a tool call, whole or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class UpstreamToolCall(msgspec.Struct):
    """A tool call, whole or a piece of it."""

    index: int = 0
    id: str | None = None
    function: UpstreamFunction | None = None


class UpstreamMessage(msgspec.Struct):
    """The message of a choice, or its delta."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[UpstreamToolCall] | None = None


class UpstreamChoice(msgspec.Struct):
    """A choice; we ask for one."""

    message: UpstreamMessage | None = None
    delta: UpstreamMessage | None = None
    finish_reason: str | None = None


class UpstreamCached(msgspec.Struct):
    """Where prompt tokens came from."""

    cached_tokens: int | None = None


class UpstreamUsage(msgspec.Struct):
    """Token counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: UpstreamCached | None = None


class UpstreamCompletion(msgspec.Struct):
    """A completion, or one chunk of a streamed one."""

    choices: list[UpstreamChoice] = []
    model: str | None = None
    usage: UpstreamUsage | None = None
    error: Any = None


decode_completion = msgspec.json.Decoder(UpstreamCompletion).decode
"""Parses a completion or a chunk. Raises `msgspec.MsgspecError`, or `UnicodeDecodeError`."""


def encode_call(call: ModelCall, *, stream: bool) -> bytes:
    """Returns the request body of a call."""
    body: dict[str, Any] = {"model": call.model, "messages": list(map(message_json, call.messages))}
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    _add_sampling(body, call)
    if call.tools:
        body["tools"] = [_tool_json(tool) for tool in call.tools]
        if call.tool_choice:
            body["tool_choice"] = _tool_choice_json(call.tool_choice)
    if call.response_format is not None:
        body["response_format"] = call.response_format
    return _encode(body)


def message_json(message: Message) -> dict[str, Any]:
    """Returns a message as OpenAI writes it."""
    out: dict[str, Any] = {"role": _ROLES[message.role], "content": message.content}
    if message.parts:
        out["content"] = [_part_json(part) for part in message.parts]
    if message.tool_calls:
        out["tool_calls"] = [tool_call_json(call) for call in message.tool_calls]
        out["content"] = message.content or None
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.name:
        out["name"] = message.name
    return out


def tool_call_json(call: ToolCall) -> dict[str, Any]:
    """Returns a tool call as OpenAI writes it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def to_call_delta(call: UpstreamToolCall) -> ToolCallDelta:
    """Returns what a chunk adds to a tool call."""
    function = call.function or UpstreamFunction()
    return ToolCallDelta(call.index, call.id or "", function.name or "", function.arguments or "")


def to_message(message: UpstreamMessage) -> Message:
    """Returns the answer of a completion that was not streamed."""
    calls = tuple(
        ToolCall(call.id or "", call.function.name or "", call.function.arguments or "")
        for call in message.tool_calls or ()
        if call.function
    )
    return Message(Role.ASSISTANT, message.content or "", tool_calls=calls, refusal=message.refusal or "")


def to_usage(usage: UpstreamUsage | None) -> Usage:
    """Returns the token counts, each from 0 to `MAX_TOKENS`; zeros for what the provider did not count."""
    if usage is None:
        return Usage()
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    return Usage(_tokens(usage.prompt_tokens), _tokens(usage.completion_tokens), _tokens(cached))


def to_finish_reason(text: str) -> FinishReason:
    """Returns the reason; one that OpenAI does not know counts as `stop`."""
    try:
        return FinishReason(text)
    except ValueError:
        return FinishReason.STOP


def _tokens(count: int | None) -> int:
    return min(max(count or 0, 0), MAX_TOKENS)


def _part_json(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    image = {"url": part.url, "detail": part.detail} if part.detail else {"url": part.url}
    return {"type": "image_url", "image_url": image}


def _tool_json(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice_json(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _add_sampling(body: dict[str, Any], call: ModelCall) -> None:
    sampling = call.sampling
    said = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_output_tokens,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": sampling.stop or None,
    }
    body.update({name: value for name, value in said.items() if value is not None})
