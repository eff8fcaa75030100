"""A model call as a request of the Messages API."""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chat_gateway.model.parts import kind_of
from chat_gateway.model.turn import AudioPart, FilePart, ImagePart, MediaPart, Message, Sampling, TextPart, Tool
from chat_gateway.providers.anthropic.effort import EFFORTS, add_effort, check_thinking
from chat_gateway.providers.extras import Beside, Extras
from chat_gateway.providers.formats import asked_schema, unknown_fields
from chat_gateway.providers.generous import as_object
from chat_gateway.providers.media import Untaken, inline
from chat_gateway.providers.paired import NO_RESULT, Result, Utterance, message_text, pair
from chat_gateway.providers.provider import ModelCall
from servicekit.errors import Violations

KIND: Final = "anthropic"
DEFAULT_MAX_TOKENS: Final = 4096
"""The limit of output tokens, which the API requires, if there is no other."""

_CACHED: Final = {"type": "ephemeral"}
_BESIDE: Final = frozenset({"cache_control"})
"""What callers may say of messages, parts, calls and tools beyond the contract."""
_PICTURES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_BEGINNING: Final = {"type": "text", "text": "(The conversation began earlier.)"}
_FIELDS: Final = frozenset({"parallel_tool_calls", "reasoning_effort", "safety_identifier", "service_tier", "top_k"})
"""Request fields beyond those of a turn that have a counterpart."""
_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_encode = msgspec.json.Encoder().encode
_PLAN: Final = msgspec.json.Decoder(list[int | str | dict[str, Any]])


def encode_call(call: ModelCall, provider: str, extra_body: Mapping[str, Any], *, stream: bool) -> bytes:
    """Returns the body of a call. Raises `InvalidArgument` with all that the API has no word for."""
    found = Violations()
    extras = Extras(call, provider, _FIELDS, found)
    system, utterances = pair(call.messages)
    untaken = Untaken(provider)
    beside = Beside(_BESIDE)
    messages = _Messages(provider, untaken, beside)
    for utterance in utterances:
        messages.add(utterance)
    body: dict[str, Any] = {"max_tokens": DEFAULT_MAX_TOKENS, **extra_body, "model": call.model}
    body["messages"] = messages.finished()
    if system:
        body["system"] = [block for message in system for block in messages.system(message)]
    tools = [beside.put(_tool(tool), tool.extra) for tool in call.tools]
    choice = _tool_choice(call.tool_choice) if call.tools else None
    if not tools and messages.tools:
        # A history with calls is refused without tools; `none` keeps the model from calling any.
        tools = [_tool(Tool(name)) for name in messages.tools]
        choice = {"type": "none"}
    if extras.parallel_tool_calls is False and call.tools and choice != {"type": "none"}:
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    # What an agent's prompts begin with is the same in every call: tools, then instructions. A caller that says what is
    # to be cached says all of it: there are four such places in a request.
    if not beside.used:
        for first in (body.get("system", ())[:1], tools[-1:]):
            for block in first:
                block["cache_control"] = _CACHED
    if tools:
        body["tools"] = tools
    if choice is not None:
        body["tool_choice"] = choice
    _add_sampling(body, call.sampling, found)
    _add_extras(body, extras, limited=call.sampling.max_output_tokens is not None, found=found)
    _add_format(body, call.response_format, found)
    beside.unknown += unknown_fields(call.response_format or {})
    body.update(call.go_on)
    if stream:
        body["stream"] = True
    found.check()
    untaken.check()
    beside.check(provider)
    return _encode(body)


class _Messages:
    """Puts the messages together: roles take turns, ids are unique and of the API's form, no text is blank."""

    def __init__(self, provider: str, untaken: Untaken, beside: Beside) -> None:
        self._provider = provider
        self._untaken = untaken
        self._beside = beside
        self._out: list[dict[str, Any]] = []
        self._ids: dict[str, str] = {}
        self._used: set[str] = set()
        self.tools: dict[str, None] = {}

    def add(self, utterance: Utterance) -> None:
        if utterance.message is None:
            self._say("user", [self._result(result) for result in utterance.results])
        elif utterance.by_model:
            self._say("assistant", self._model_blocks(utterance.message))
        else:
            self._say("user", self._user_blocks(utterance.message))

    def finished(self) -> list[dict[str, Any]]:
        if not self._out or self._out[0]["role"] != "user":
            self._out.insert(0, {"role": "user", "content": [_BEGINNING]})
        last = self._out[-1]
        if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
            # The API refuses a final assistant message that ends in white space.
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
        return self._out

    def _say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if not blocks:
            return
        if self._out and self._out[-1]["role"] == role:
            self._out[-1]["content"].extend(blocks)
        else:
            self._out.append({"role": role, "content": blocks})

    def _user_blocks(self, message: Message) -> list[dict[str, Any]]:
        blocks = self._content(message)
        if message.name and blocks:
            blocks.insert(0, {"type": "text", "text": f"[{message.name}]"})
        return self._marked(blocks, message)

    def system(self, message: Message) -> list[dict[str, Any]]:
        """Returns the blocks of a message that is instructions."""
        return self._marked(self._texts(message), message)

    def _texts(self, message: Message) -> list[dict[str, Any]]:
        texts = (message.extra and message.extra.texts) or ((message_text(message), None),)
        return [self._beside.put(block, more) for text, more in texts for block in _text_blocks(text)]

    def _content(self, message: Message) -> list[dict[str, Any]]:
        if not message.parts:
            return self._texts(message)
        blocks: list[dict[str, Any]] = []
        for part in message.parts:
            of_part = _text_blocks(part.text) if isinstance(part, TextPart) else [self._media(part)]
            blocks += [self._beside.put(block, part.extra) for block in of_part]
        return blocks

    def _marked(self, blocks: list[dict[str, Any]], message: Message) -> list[dict[str, Any]]:
        """What is said of a message is said of its last block."""
        return [*blocks[:-1], self._beside.put(blocks[-1], message.extra)] if blocks else blocks

    def _media(self, part: MediaPart) -> dict[str, Any]:
        if isinstance(part, AudioPart):
            return self._instead(part, f"providers of kind {KIND} take no audio")
        found = inline(part)
        if found is not None:
            return self._inline(part, *found)
        if isinstance(part, FilePart) and part.id:
            return _document({"type": "file", "file_id": part.id}, part)
        if isinstance(part, ImagePart) and part.url.lower().startswith("https://"):
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        return self._instead(part, "must be an https: URL, or a data: URL that holds something")

    def _inline(self, part: MediaPart, media_type: str, data: str) -> dict[str, Any]:
        source = {"type": "base64", "media_type": media_type, "data": data}
        if media_type == "application/pdf":
            return _document(source, part)
        if media_type in _PICTURES:
            return {"type": "image", "source": source}
        if media_type.startswith("text/") and (text := _plain_text(data)):
            return _document({"type": "text", "media_type": "text/plain", "data": text}, part)
        return self._instead(part, f"providers of kind {KIND} take no {kind_of(part)} of type {media_type[:100]!r}")

    def _instead(self, part: MediaPart, why: str) -> dict[str, Any]:
        return {"type": "text", "text": self._untaken.add(part, why).text}

    def _result(self, result: Result) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._ids[result.call.id]}
        message = result.message
        content = _text_blocks(NO_RESULT) if message is None else self._marked(self._content(message), message)
        return {**block, "content": content} if content else block

    def _model_blocks(self, message: Message) -> list[dict[str, Any]]:
        self._ids = {}
        calls = [
            self._beside.put(self._call(call.id, call.name, call.arguments), call.extra) for call in message.tool_calls
        ]
        data = message.provider_data
        if data is not None and (data.kind, data.provider) == (KIND, self._provider):
            kept = _in_order(data.json, message_text(message), calls)
            if kept is not None:
                return self._marked(kept, message)
        return self._marked([*self._content(message), *calls], message)

    def _call(self, call_id: str, name: str, arguments: str) -> dict[str, Any]:
        plain = _NOT_IN_NAMES.sub("_", call_id)[:200] or "call"
        unique, number = plain, 1
        while unique in self._used:
            number += 1
            unique = f"{plain}_{number}"
        self._used.add(unique)
        self._ids[call_id] = unique
        name = _NOT_IN_NAMES.sub("_", name)[:128] or "tool"
        self.tools[name] = None
        return {"type": "tool_use", "id": unique, "name": name, "input": as_object(arguments)}


def _in_order(kept: bytes, text: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Returns the blocks as the model had written them; None where the message is no longer the one that it wrote.

    `kept` is a list: a number is so many characters of the text, "call" is the next call, an object is a block.
    """
    try:
        plan = _PLAN.decode(kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if plan.count("call") != len(calls) or not all(map(_is_kept, plan)):
        return None
    blocks: list[dict[str, Any]] = []
    start, next_call = 0, iter(calls)
    for item in plan:
        if isinstance(item, int):
            blocks += _text_blocks(text[start : start + item])
            start += item
        else:
            blocks.append(next(next_call) if isinstance(item, str) else item)
    return blocks if start == len(text) else None


def _is_kept(item: int | str | dict[str, Any]) -> bool:
    # A caller's history holds what the caller says that it does.
    if isinstance(item, dict):
        return isinstance(item.get("type"), str) and item["type"] not in ("text", "tool_use", "tool_result")
    return item == "call" or (isinstance(item, int) and item >= 0)


def _document(source: dict[str, Any], part: MediaPart) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "document", "source": source}
    return {**block, "title": part.name} if isinstance(part, FilePart) and part.name else block


def _plain_text(data: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except ValueError:
        return ""


def _text_blocks(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _tool(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict:
        out["strict"] = True
    return out


def _tool_choice(choice: str) -> dict[str, Any] | None:
    if not choice:
        return None
    if choice in ("auto", "none"):
        return {"type": choice}
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}


def _add_sampling(body: dict[str, Any], sampling: Sampling, found: Violations) -> None:
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        said = getattr(sampling, name)
        if said is not None and (name == "seed" or said != 0):
            found.add(f"sampling.{name}", f"is not taken by providers of kind {KIND}")
    if sampling.temperature is not None:
        if sampling.temperature > 1:
            found.add("sampling.temperature", f"must be from 0 to 1 for providers of kind {KIND}")
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.max_output_tokens is not None:
        body["max_tokens"] = sampling.max_output_tokens
    if sampling.stop:
        if any(not stop.strip() for stop in sampling.stop):
            found.add("sampling.stop", f"must not be white space only for providers of kind {KIND}")
        body["stop_sequences"] = list(sampling.stop)


def _add_extras(body: dict[str, Any], extras: Extras, *, limited: bool, found: Violations) -> None:
    top_k = extras.of_type("top_k", int, "a number")
    if top_k is not None:
        body["top_k"] = top_k
    tier = extras.one_of("service_tier", tuple(_TIERS))
    if tier:
        body["service_tier"] = _TIERS[tier]
    user = extras.of_type("safety_identifier", str, "a text")
    if user:
        body["metadata"] = {"user_id": user}
    effort = extras.one_of("reasoning_effort", EFFORTS)
    if effort:
        add_effort(body, effort, limited=limited, found=found)
        check_thinking(body, found)


def _add_format(body: dict[str, Any], asked: Mapping[str, Any] | None, found: Violations) -> None:
    kind = asked.get("type", "text") if asked is not None else "text"
    if asked is None or kind == "text":
        return
    schema = asked_schema(asked)
    if kind != "json_schema" or schema is None:
        found.add("response_format", f"must be text, or json_schema with a schema, for providers of kind {KIND}")
        return
    config = body.get("output_config")
    output_format = {"type": "json_schema", "schema": schema}
    body["output_config"] = {**(config if isinstance(config, Mapping) else {}), "format": output_format}
