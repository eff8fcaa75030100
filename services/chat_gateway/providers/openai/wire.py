"""The shapes of completions and chunks, read leniently: malformed values are repaired and cost no answer.

Nearly every text fits the shapes below, which costs least. One that does not is read as plain JSON and mended: numbers
that are text, lists for texts, `index: null`, NaN, broken UTF-8.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from chat_gateway.providers.adapter import BadAnswer
from chat_gateway.providers.openai.usage import MAX_TOKENS, CompletionDetails, PromptDetails, UpstreamUsage

Halves = dict[str, str]
"""Halves of surrogate pairs, by what they are of."""

_ABSENT = msgspec.Raw()
_NULL = (b"", b"null", b"[]", b"{}", b'""', b"false", b"0")
_encode = msgspec.json.Encoder().encode
_anything = msgspec.json.Decoder().decode


class UpstreamFunction(msgspec.Struct):
    """The function of a tool call, whole or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class UpstreamToolCall(msgspec.Struct):
    """A tool call, whole or a piece of it."""

    index: int | None = None
    id: str | None = None
    function: UpstreamFunction | None = None
    extra_content: msgspec.Raw = _ABSENT
    name: str | None = None
    arguments: str | None = None
    """Beside the function's where a server has none."""


class UpstreamMessage(msgspec.Struct):
    """The message of a choice, or its delta."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[UpstreamToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    reasoning_text: str | None = None
    function_call: UpstreamFunction | None = None
    """What one call was before there were several."""
    reasoning_details: msgspec.Raw = _ABSENT
    extra_content: msgspec.Raw = _ABSENT
    thinking_blocks: msgspec.Raw = _ABSENT
    annotations: msgspec.Raw = _ABSENT
    images: msgspec.Raw = _ABSENT
    audio: msgspec.Raw = _ABSENT


class UpstreamChoice(msgspec.Struct):
    """A choice; we ask for one."""

    message: UpstreamMessage | None = None
    delta: UpstreamMessage | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _ABSENT
    index: int | None = None
    usage: UpstreamUsage | None = None
    error: msgspec.Raw = _ABSENT
    text: str | None = None
    """In place of a message, as completions before there were chats."""


class UpstreamGroq(msgspec.Struct):
    """What Groq says of a stream at its end."""

    usage: UpstreamUsage | None = None


class UpstreamCompletion(msgspec.Struct):
    """A completion, or one chunk of a streamed one."""

    choices: list[UpstreamChoice] | None = None
    model: str | None = None
    usage: UpstreamUsage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: msgspec.Raw = _ABSENT
    x_groq: UpstreamGroq | None = None
    object: str | None = None
    type: str | None = None
    """Either is `error` where some servers report one."""


_decode = msgspec.json.Decoder(UpstreamCompletion).decode


def decode_completion(text: bytes, halves: Halves | None = None) -> UpstreamCompletion:
    """Returns a completion or a chunk. Raises `BadAnswer` for what is not JSON, or no object.

    `halves` has what the chunks before ended with, of characters that are cut in two.
    """
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _mended(text, halves)


def one_choice(choices: Sequence[UpstreamChoice], index: int | None) -> UpstreamChoice | None:
    """Returns the choice of this index, the first one where that is not known yet; None where it is not among them."""
    if len(choices) == 1 and (index is None or choices[0].index in (None, index)):
        return choices[0]
    if index is None:
        return min(choices, key=lambda choice: choice.index or 0, default=None)
    return next((choice for choice in choices if choice.index == index), None)


def said(raw: msgspec.Raw) -> bytes:
    """Returns JSON unchanged; nothing for null, empty and unreadable values."""
    text = bytes(raw)
    if text in _NULL:
        return b""
    try:
        _anything(text)  # the decoder skips over what it leaves as it is, whatever bytes it holds
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return b""
    return text


def reported_usage(completion: UpstreamCompletion, choice: UpstreamChoice | None) -> UpstreamUsage | None:
    """Returns the counts of a completion or a chunk, wherever in it they are."""
    if completion.usage is not None:
        return completion.usage
    if completion.x_groq is not None and completion.x_groq.usage is not None:
        return completion.x_groq.usage
    return choice.usage if choice is not None else None


def calls_of(message: UpstreamMessage) -> Sequence[UpstreamToolCall]:
    """Returns the tool calls of a message, or of a piece of one."""
    if message.function_call is not None and not message.tool_calls:
        return (UpstreamToolCall(index=0, function=message.function_call),)
    return message.tool_calls or ()


def thought(message: UpstreamMessage) -> str:
    """Returns the reasoning of a message, by whichever name it goes."""
    return message.reasoning_content or message.reasoning or message.thinking or message.reasoning_text or ""


def _mended(text: bytes, halves: Halves | None) -> UpstreamCompletion:
    try:
        body = json.loads(text.decode("utf-8-sig", "replace"), parse_constant=lambda _: None, parse_int=_integer)
    except (ValueError, RecursionError):
        raise BadAnswer("not a chat completion") from None
    if not isinstance(body, dict):
        raise BadAnswer("not a chat completion")
    try:
        return UpstreamCompletion(
            choices=[_choice(choice, halves) for choice in _objects(body.get("choices"))],
            model=_text(body.get("model")),
            usage=_usage(body.get("usage")),
            system_fingerprint=_text(body.get("system_fingerprint")),
            service_tier=_text(body.get("service_tier")),
            error=_raw(body.get("error")),
            x_groq=_groq(body.get("x_groq")),
            object=_text(body.get("object")),
            type=_text(body.get("type")),
        )
    except RecursionError:
        raise BadAnswer("not a chat completion") from None


def _choice(choice: Mapping[str, Any], halves: Halves | None) -> UpstreamChoice:
    return UpstreamChoice(
        message=_message(choice.get("message"), None),
        delta=_message(choice.get("delta"), halves),
        finish_reason=_text(choice.get("finish_reason")),
        logprobs=_raw(choice.get("logprobs")),
        index=_count(choice.get("index")),
        usage=_usage(choice.get("usage")),
        error=_raw(choice.get("error")),
        text=_text(choice.get("text")),
    )


def _message(message: object, halves: Halves | None) -> UpstreamMessage | None:
    if isinstance(message, list) and len(message) == 1:
        message = message[0]
    if isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, dict):
        return None
    content, thought = _content(_whole(message.get("content"), halves, "content"))
    return UpstreamMessage(
        content=content,
        refusal=_text(message.get("refusal")) or _refusal(message.get("content")),
        tool_calls=[_tool_call(call, halves) for call in _objects(message.get("tool_calls"))],
        reasoning_content=_thoughts(_whole(message.get("reasoning_content"), halves, "reasoning")) or thought or None,
        reasoning=_thoughts(message.get("reasoning")),
        thinking=_content(message.get("thinking"))[0],
        reasoning_text=_text(message.get("reasoning_text")),
        function_call=_function(message.get("function_call"), halves, "function_call"),
        reasoning_details=_raw(message.get("reasoning_details")),
        extra_content=_raw(message.get("extra_content")),
        thinking_blocks=_raw(message.get("thinking_blocks")),
        annotations=_raw(message.get("annotations")),
        images=_raw(message.get("images")),
        audio=_raw(message.get("audio")),
    )


def _content(content: object) -> tuple[str | None, str]:
    """Returns the text of content that may be a list of parts, and what its parts of type `thinking` hold."""
    if isinstance(content, dict):
        # Anything else is the JSON that was asked for.
        content = [content] if content.keys() & {"type", "text"} else _encode(content).decode()
    if not isinstance(content, list):
        return _text(content), ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(_text(part) or "")
        elif isinstance(part, dict) and part.get("type") == "thinking":
            thoughts.append(_content(part.get("thinking"))[0] or "")
        elif isinstance(part, dict):
            texts.append(_text(part.get("text")) or "")
    return "".join(texts), "".join(thoughts)


def _thoughts(said: object) -> str | None:
    """Returns reasoning that may be an object or a list of parts."""
    if isinstance(said, dict):
        said = said.get("text") or said.get("content") or said.get("summary")
    return _content(said)[0] if isinstance(said, list) else _text(said)


def _refusal(content: object) -> str | None:
    """Returns what the parts of type `refusal` among content hold."""
    parts = [one for one in _objects(content) if one.get("type") == "refusal"]
    return "".join(_text(part.get("refusal")) or "" for part in parts) or None


def _tool_call(call: Mapping[str, Any], halves: Halves | None) -> UpstreamToolCall:
    index = _count(call.get("index")) if call.get("index") is not None else None
    of = f"arguments {index}"
    found = _function(call.get("function"), halves, of)
    beside = _function(call, halves, of) if found is None else None
    return UpstreamToolCall(
        index,
        _text(call.get("id")),
        found or beside,
        _raw(call.get("extra_content")),
    )


def _function(function: object, halves: Halves | None, of: str) -> UpstreamFunction | None:
    if not isinstance(function, dict):
        return None
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = _encode(arguments).decode()
    return UpstreamFunction(_text(function.get("name")), _text(_whole(arguments, halves, of)))


def _groq(said: object) -> UpstreamGroq | None:
    return UpstreamGroq(_usage(said.get("usage"))) if isinstance(said, dict) else None


def _usage(usage: object) -> UpstreamUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    completion = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return UpstreamUsage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        PromptDetails(_count(prompt.get("cached_tokens")), _count(prompt.get("cache_write_tokens")))
        if isinstance(prompt, dict)
        else None,
        CompletionDetails(_count(completion.get("reasoning_tokens"))) if isinstance(completion, dict) else None,
        _count(usage.get("prompt_cache_hit_tokens")),
        _count(usage.get("total_tokens")),
        _count(usage.get("input_tokens")),
        _count(usage.get("output_tokens")),
    )


def _count(number: object) -> int | None:
    """Returns a count that may be written as text or with a fraction, rounded half up; None for what is none."""
    if isinstance(number, str):
        try:
            number = float(number)
        except ValueError:
            return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if isinstance(number, float) and not math.isfinite(number):  # an integer may be larger than any float
        return None
    return math.floor(min(max(number, -1.0), float(MAX_TOKENS)) + 0.5)


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 20 else MAX_TOKENS


def _whole(said: object, halves: Halves | None, of: str) -> object:
    """Returns a piece of text with the half of a character that the one before it ended with, and without its own."""
    if halves is None or not isinstance(said, str):
        return said
    said = halves.pop(of, "") + said
    if said and "\ud800" <= said[-1] <= "\udbff":
        halves[of] = said[-1]
        return said[:-1]
    return said


def _text(said: object) -> str | None:
    """Returns text that can be sent on: half a surrogate pair can't."""
    if isinstance(said, str):
        return said if said.isascii() else said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(said) if isinstance(said, int | float) and not isinstance(said, bool) else None


def _raw(said: object) -> msgspec.Raw:
    if said is None:
        return _ABSENT
    try:
        return msgspec.Raw(_encode(said))
    except (msgspec.MsgspecError, UnicodeEncodeError, ValueError):
        return _ABSENT


def _objects(listed: object) -> Iterable[dict[str, Any]]:
    if isinstance(listed, dict):
        return [listed]
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
