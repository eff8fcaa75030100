"""A model call as a request of generateContent."""

import mimetypes
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from chat_gateway.model.turn import (
    AudioPart,
    FilePart,
    ImagePart,
    MediaPart,
    Message,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
)
from chat_gateway.providers.extras import Beside, Extras
from chat_gateway.providers.formats import asked_schema, unknown_fields
from chat_gateway.providers.gemini.schema import translate
from chat_gateway.providers.generous import as_object
from chat_gateway.providers.media import Untaken, inline
from chat_gateway.providers.paired import NO_RESULT, Result, Utterance, message_text, pair
from chat_gateway.providers.provider import ModelCall
from servicekit.errors import Violations

KIND: Final = "gemini"
NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Gemini 3 documents for calls that it did not make itself: without a signature it refuses them."""

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.:-]")
_SIGNS: Final = re.compile(r"(?:^|/)gemini-(?:[3-9]|\d\d)")
_RESOLUTIONS: Final = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}
_AUDIO: Final = frozenset({"aac", "aiff", "flac", "mp3", "mpeg", "ogg", "wav"})
_MAX_SEED: Final = 2**31
_BEGINNING: Final = {"text": "(The conversation began earlier.)"}
_FIELDS: Final = frozenset({"parallel_tool_calls", "reasoning_effort", "top_k"})
"""Request fields beyond those of a turn that have a counterpart."""
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
"""Tokens of thinking by `reasoning_effort`, as Google documents them for models before Gemini 3."""
_encode = msgspec.json.Encoder().encode
_PLAN: Final = msgspec.json.Decoder(list[int | str | list[Any] | dict[str, Any]])
_OWN: Final = msgspec.json.Decoder(dict[str, str])


def encode_call(call: ModelCall, provider: str, extra_body: Mapping[str, Any]) -> bytes:
    """Returns the body of a call. Raises `InvalidArgument` with all that the API has no word for."""
    found = Violations()
    system, utterances = pair(call.messages)
    untaken = Untaken(provider)
    extras = Extras(call, provider, _FIELDS, found)
    contents = _Contents(provider, untaken, signs=_SIGNS.search(call.model) is not None)
    newest = max((n for n, one in enumerate(utterances) if one.message and not one.by_model), default=0)
    for number, utterance in enumerate(utterances):
        contents.add(utterance, current=number > newest)
    body: dict[str, Any] = {**extra_body, "contents": contents.finished()}
    if system:
        body["systemInstruction"] = {"parts": [{"text": message_text(message)} for message in system]}
    if extras.parallel_tool_calls is False and call.tools:
        found.add("parallel_tool_calls", f"can't be false for providers of kind {KIND}")
    if call.tools:
        declared = [_tool(tool, f"tools[{number}].parameters", found) for number, tool in enumerate(call.tools)]
        others = body.get("tools")
        body["tools"] = [*(others if isinstance(others, list) else ()), {"functionDeclarations": declared}]
        mode = _calling(call)
        if mode is not None:
            body["toolConfig"] = {"functionCallingConfig": mode}
    config = {**extra_body.get("generationConfig", {}), **_generation_config(call.sampling, found)}
    _add_extras(config, extras, call.model, found)
    _add_format(config, call.response_format, found)
    if contents.resolution:
        config["mediaResolution"] = contents.resolution
    if config:
        body["generationConfig"] = config
    found.check()
    untaken.check()
    beside = Beside(frozenset())
    beside.unknown += unknown_fields(call.response_format or {})
    beside.check(provider, call)
    return _encode(body)


class _Contents:
    """Puts the contents together: roles take turns, results follow their calls, no part is empty."""

    def __init__(self, provider: str, untaken: Untaken, *, signs: bool) -> None:
        self._provider = provider
        self._untaken = untaken
        self._signs = signs
        self._out: list[dict[str, Any]] = []
        self.resolution = ""

    def add(self, utterance: Utterance, *, current: bool) -> None:
        if utterance.message is None:
            parts = [self._result(result) for result in utterance.results]
            # Images follow all results: those must be as many as the calls, and together.
            for result in utterance.results:
                if result.message is not None:
                    parts += [self._media(part) for part in result.message.parts if not isinstance(part, TextPart)]
            self._say("user", parts)
        elif utterance.by_model:
            self._say("model", self._model_parts(utterance.message, current=current))
        else:
            self._say("user", self._user_parts(utterance.message))

    def finished(self) -> list[dict[str, Any]]:
        if not self._out or self._out[0]["role"] != "user":
            self._out.insert(0, {"role": "user", "parts": [_BEGINNING]})
        return self._out

    def _say(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        if self._out and self._out[-1]["role"] == role:
            self._out[-1]["parts"].extend(parts)
        else:
            self._out.append({"role": role, "parts": parts})

    def _user_parts(self, message: Message) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        if not message.parts:
            parts += _text_parts(message_text(message))
        for part in message.parts:
            parts += _text_parts(part.text) if isinstance(part, TextPart) else [self._media(part)]
        if message.name and parts:
            parts.insert(0, {"text": f"[{message.name}]"})
        return parts

    def _media(self, part: MediaPart) -> dict[str, Any]:
        if isinstance(part, ImagePart):
            asked = _RESOLUTIONS.get(part.detail, "")
            if asked and self.resolution != _RESOLUTIONS["high"]:
                self.resolution = asked
        if isinstance(part, AudioPart) and part.format not in _AUDIO:
            return self._instead(part, f"providers of kind {KIND} take no audio of format {part.format!r}")
        found = inline(part)
        if found is not None:
            media_type, data = found
            if not media_type:
                return self._instead(part, "must say its media type: by a data: URL, or by its filename")
            return {"inlineData": {"mimeType": media_type, "data": data}}
        url = part.url if isinstance(part, ImagePart) else part.id if isinstance(part, FilePart) else ""
        if not url.lower().startswith(("https://", "http://", "gs://")):
            return self._instead(part, f"must hold something, or be at a URL that providers of kind {KIND} can read")
        media_type = mimetypes.guess_type(urlsplit(url).path)[0] or ""
        return {"fileData": {**({"mimeType": media_type} if media_type else {}), "fileUri": url}}

    def _instead(self, part: MediaPart, why: str) -> dict[str, Any]:
        return {"text": self._untaken.add(part, why).text}

    def _result(self, result: Result) -> dict[str, Any]:
        said = NO_RESULT if result.message is None else message_text(result.message)
        response: dict[str, Any] = {"name": _name(result.call.name), "response": {"output": _output(said)}}
        call_id = self._own(result.call).get("id")
        return {"functionResponse": {"id": call_id, **response} if call_id else response}

    def _model_parts(self, message: Message, *, current: bool) -> list[dict[str, Any]]:
        calls = [self._call(call) for call in message.tool_calls]
        if calls and current and self._signs and not any("thoughtSignature" in call for call in calls):
            calls[0]["thoughtSignature"] = NO_SIGNATURE
        data = message.provider_data
        if data is not None and (data.kind, data.provider) == (KIND, self._provider):
            kept = _in_order(data.json, message_text(message), calls)
            if kept is not None:
                return kept
        return [*_text_parts(message_text(message)), *calls]

    def _call(self, call: ToolCall) -> dict[str, Any]:
        own = self._own(call)
        said: dict[str, Any] = {"name": _name(call.name), "args": as_object(call.arguments)}
        part: dict[str, Any] = {"functionCall": {"id": own["id"], **said} if own.get("id") else said}
        if own.get("thoughtSignature"):
            part["thoughtSignature"] = own["thoughtSignature"]
        return part

    def _own(self, call: ToolCall) -> dict[str, str]:
        """What Gemini wrote beside a call of its own; nothing where the call is another provider's."""
        data = call.provider_data
        if data is None or (data.kind, data.provider) != (KIND, self._provider):
            return {}
        try:
            return _OWN.decode(data.json)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}


def _in_order(kept: bytes, text: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Returns the parts as the model had written them; None where the message is no longer the one that it wrote.

    `kept` is a list: a number is so many characters of the text, a pair of a number and a signature is signed text,
    "call" is the next call, an object is a part.
    """
    try:
        plan = _PLAN.decode(kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if plan.count("call") != len(calls) or not all(map(_is_kept, plan)):
        return None
    parts: list[dict[str, Any]] = []
    start, next_call = 0, iter(calls)
    for item in plan:
        if isinstance(item, list):
            parts.append({"text": text[start : start + item[0]], "thoughtSignature": item[1]})
            start += item[0]
        elif isinstance(item, int):
            parts += _text_parts(text[start : start + item])
            start += item
        else:
            parts.append(next(next_call) if isinstance(item, str) else item)
    return parts if start == len(text) else None


def _is_kept(item: Any) -> bool:
    # A caller's history holds what the caller says that it does.
    if isinstance(item, dict):
        return not item.keys() & {"functionCall", "functionResponse"}
    if isinstance(item, list):
        return len(item) == 2 and type(item[0]) is int and item[0] >= 0 and isinstance(item[1], str)
    return item == "call" or (type(item) is int and item >= 0)


def _text_parts(text: str) -> list[dict[str, Any]]:
    return [{"text": text}] if text.strip() else []


def _output(said: str) -> Any:
    if said.lstrip().startswith("{"):
        structured = as_object(said)
        return structured if isinstance(structured, msgspec.Raw) else said
    return said


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:64] or "tool"


def _tool(tool: Tool, field: str, found: Violations) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.parameters:
        out["parametersJsonSchema"] = translate(tool.parameters, field, found)
    return out


def _calling(call: ModelCall) -> dict[str, Any] | None:
    choice = call.tool_choice
    if choice in ("", "auto"):
        # VALIDATED is AUTO with arguments that keep to their schemas.
        strict = any(tool.strict for tool in call.tools)
        return {"mode": "VALIDATED"} if strict else {"mode": "AUTO"} if choice else None
    if choice == "none":
        return {"mode": "NONE"}
    return {"mode": "ANY"} if choice == "required" else {"mode": "ANY", "allowedFunctionNames": [choice]}


def _generation_config(sampling: Sampling, found: Violations) -> dict[str, Any]:
    if sampling.seed is not None and not -_MAX_SEED <= sampling.seed < _MAX_SEED:
        found.add("sampling.seed", f"must have 32 bits for providers of kind {KIND}")
    said = {
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "maxOutputTokens": sampling.max_output_tokens,
        "stopSequences": list(sampling.stop) or None,
        "seed": sampling.seed,
        "presencePenalty": sampling.presence_penalty,
        "frequencyPenalty": sampling.frequency_penalty,
    }
    return {name: value for name, value in said.items() if value is not None}


def _add_extras(config: dict[str, Any], extras: Extras, model: str, found: Violations) -> None:
    top_k = extras.of_type("top_k", int, "a number")
    if top_k is not None:
        config["topK"] = top_k
    effort = extras.one_of("reasoning_effort", tuple(_BUDGETS))
    if not effort:
        return
    asked: dict[str, Any]
    if _SIGNS.search(model) is None:
        asked = {"thinkingBudget": _BUDGETS[effort]}
    elif effort == "none":
        found.add("reasoning_effort", f"can't be none for {model[:100]}, which always thinks")
        return
    else:
        # Of Gemini 3, Pro has no level below low.
        lowest = "low" if "pro" in model else "minimal"
        asked = {"thinkingLevel": {"minimal": lowest, "xhigh": "high"}.get(effort, effort)}
    others = config.get("thinkingConfig")
    kept = {name: value for name, value in others.items() if name == "includeThoughts"} if others else {}
    config["thinkingConfig"] = {**kept, **asked}


def _add_format(config: dict[str, Any], asked: Mapping[str, Any] | None, found: Violations) -> None:
    kind = asked.get("type", "text") if asked is not None else "text"
    if asked is None or kind == "text":
        return
    schema = asked_schema(asked)
    if kind not in ("json_object", "json_schema") or (kind == "json_schema" and schema is None):
        found.add("response_format", f"must be text, json_object or json_schema for providers of kind {KIND}")
        return
    config["responseMimeType"] = "application/json"
    if kind == "json_schema":
        config["responseJsonSchema"] = translate(schema, "response_format", found)
