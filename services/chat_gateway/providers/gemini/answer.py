"""Responses of generateContent, complete or as a stream."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec

from chat_gateway.model.turn import (
    NO_DETAILS,
    Delta,
    FinishReason,
    Message,
    ProviderData,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from chat_gateway.providers.adapter import PIECE_BYTES, BadAnswer, ReportedError, check_calls
from chat_gateway.providers.answered_media import Media
from chat_gateway.providers.gemini.request import KIND
from chat_gateway.providers.generous import add_counts, arguments, count, decode, listed, mapping, text
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role

_REASONS: Final = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "ESCALATION"),
        FinishReason.CONTENT_FILTER,
    ),
    **dict.fromkeys(
        ("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
        FinishReason.CONTENT_FILTER,
    ),
}
"""OTHER, MALFORMED_FUNCTION_CALL, MISSING_THOUGHT_SIGNATURE and others are failures, as is any word not known."""
_UNSAID: Final = "FINISH_REASON_UNSPECIFIED"
"""What some write into every response before the last."""
_NAMES: Final = {
    "function_call": "functionCall",
    "inline_data": "inlineData",
    "thought_signature": "thoughtSignature",
}
_encode = msgspec.json.Encoder().encode


def read_response(body: bytes, call: ModelCall, provider: str) -> ModelAnswer:
    """Returns a whole answer. Raises `BadAnswer` and `ReportedError`."""
    answer = _Answer(call, provider)
    answer.take(body, _Added())
    return answer.whole()


class ContentStream:
    """Implements `AnswerStream`. The API marks no end: the stream is closed after the last response."""

    __slots__ = ("_answer", "alive", "ended", "finished", "size")

    def __init__(self, call: ModelCall, provider: str) -> None:
        self._answer = _Answer(call, provider)
        self.size = 0
        self.alive = self.finished = self.ended = False

    def add(self, events: Sequence[bytes]) -> Delta | None:
        added = _Added()
        for event in events:
            said = event.strip()
            self.ended = self.ended or said == b"[DONE]"
            if self.ended:
                break
            if said:
                self._answer.take(event, added)
        if self._answer.reason is not None and not self.finished:
            self.finished = True
            added.provider_data = self._answer.provider_data()
        self.size += added.size
        delta = added.delta()
        self.alive = self.alive or self.finished or added.media or delta is not None
        return delta

    def answer(self) -> ModelAnswer:
        if not self.finished:
            raise BadAnswer("a stream that ended without a finishReason")
        return self._answer.whole()


class _Added:
    """What responses that came together add."""

    __slots__ = ("calls", "content", "media", "provider_data", "reasoning", "size")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCallDelta] = []
        self.provider_data: ProviderData | None = None
        self.media = False
        self.size = 0

    def delta(self) -> Delta | None:
        content, reasoning = "".join(self.content), "".join(self.reasoning)
        if not (content or reasoning or self.calls or self.provider_data):
            return None
        return Delta(content, tuple(self.calls), reasoning=reasoning, provider_data=self.provider_data)


class _Answer:
    """Puts the parts of one answer together."""

    def __init__(self, call: ModelCall, provider: str) -> None:
        self._provider = provider
        self._model = call.model
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._plan: list[Any] = []
        """What is kept for the next request (`request._in_order`)."""
        self._counts: dict[str, int] = {}
        self._found = Media()
        self.reason: FinishReason | None = None

    def take(self, body: bytes, added: _Added) -> None:
        """Takes one response. Raises `BadAnswer` and `ReportedError`."""
        said = decode(body)
        if said.get("error"):
            raise ReportedError(body)
        self._model = text(said.get("modelVersion")) or self._model
        add_counts(self._counts, mapping(said.get("usageMetadata")))
        for candidate in map(mapping, listed(said.get("candidates"))):
            if not count(candidate.get("index")):  # others are unsolicited answers
                self._candidate(candidate, added)
                break
        if self.reason is None and mapping(said.get("promptFeedback")).get("blockReason"):
            self.reason = FinishReason.CONTENT_FILTER

    def provider_data(self) -> ProviderData | None:
        """What the next request has to repeat unchanged: signed text, and unknown parts."""
        if all(item == "call" or isinstance(item, int) for item in self._plan):
            return None
        return ProviderData(KIND, self._provider, _encode(self._plan))

    def whole(self) -> ModelAnswer:
        reason = self.reason
        if reason is None:
            raise BadAnswer("an answer without a candidate that ended")
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        message = Message(
            Role.ASSISTANT,
            "".join(self._content),
            tool_calls=tuple(self._calls),
            reasoning="".join(self._reasoning),
            provider_data=self.provider_data(),
        )
        return ModelAnswer(message, reason, self._usage(), self._model, self._found.added(NO_DETAILS))

    def _usage(self) -> Usage:
        of = self._counts.get
        thoughts = of("thoughtsTokenCount", 0)
        prompt = of("promptTokenCount", 0) + of("toolUsePromptTokenCount", 0)
        return Usage(prompt, of("candidatesTokenCount", 0) + thoughts, of("cachedContentTokenCount", 0), thoughts)

    def _candidate(self, candidate: dict[str, Any], added: _Added) -> None:
        for content in map(mapping, listed(candidate.get("content"))):
            for part in listed(content.get("parts")):
                if isinstance(part, dict):
                    self._part(_in_camel_case(part), added)
        word = text(candidate.get("finishReason")) or text(candidate.get("finish_reason"))
        if word and word.upper() != _UNSAID:
            reason = _REASONS.get(word.upper())
            if reason is None:
                self.reason = None
                raise BadAnswer("an answer that ended for a reason that is a failure, or unknown")
            # What was cut off, or filtered, was not ended by being said to have ended.
            if self.reason is None or reason is not FinishReason.STOP:
                self.reason = reason

    def _part(self, part: dict[str, Any], added: _Added) -> None:
        signature = text(part.get("thoughtSignature"))
        if isinstance(part.get("functionCall"), dict):
            self._call(part["functionCall"], signature, added)
        elif isinstance(part.get("text"), str):
            self._text(part["text"], signature, added, thought=part.get("thought") is True)
        elif isinstance(part.get("inlineData"), dict) and part.get("thought") is not True:
            self._media(part["inlineData"], added)
        elif set(part) - {"thoughtSignature", "thought"}:
            self._plan.append(part)
            added.size += len(_encode(part)) + PIECE_BYTES
        elif signature:
            self._sign("", signature, added)

    def _text(self, said: str, signature: str, added: _Added, *, thought: bool) -> None:
        added.size += len(said.encode())
        if thought:
            if said:
                self._reasoning.append(said)
                added.reasoning.append(said)
            if signature:
                self._plan.append({"text": said, "thought": True, "thoughtSignature": signature})
                added.size += len(said.encode()) + len(signature) + PIECE_BYTES
            return
        if said:
            self._content.append(said)
            added.content.append(said)
        if signature:
            self._sign(said, signature, added)
        elif self._plan and isinstance(self._plan[-1], int):
            self._plan[-1] += len(said)
        elif said:
            self._plan.append(len(said))

    def _media(self, said: dict[str, Any], added: _Added) -> None:
        """Takes an image or a sound. It is passed on, and not kept for the next request: it may be larger than that."""
        kind, data = text(said.get("mimeType")).lower(), text(said.get("data"))
        added.media = True
        if kind.startswith("audio/"):
            self._found.take(b"", _encode({"data": data, "format": kind.removeprefix("audio/")}))
        elif data:
            url = f"data:{kind or 'application/octet-stream'};base64,{data}"
            self._found.take(_encode([{"type": "image_url", "image_url": {"url": url}}]), b"")

    def _sign(self, said: str, signature: str, added: _Added) -> None:
        self._plan.append([len(said), signature])
        added.size += len(signature) + PIECE_BYTES

    def _call(self, said: dict[str, Any], signature: str, added: _Added) -> None:
        name, given = text(said.get("name")), text(said.get("id"))
        if not name:
            raise BadAnswer("a tool call without a name")
        taken = any(call.id == given for call in self._calls)
        own = {"id": "" if taken else given, "thoughtSignature": signature}
        own = {key: value for key, value in own.items() if value}
        data = ProviderData(KIND, self._provider, _encode(own)) if own else None
        call = ToolCall(own.get("id") or f"call_{uuid4().hex}", name, arguments(said.get("args")), data)
        added.calls.append(ToolCallDelta(len(self._calls), call.id, name, call.arguments, data))
        added.size += len(call.id) + len(name) + len(call.arguments.encode()) + len(signature)
        self._calls.append(call)
        check_calls(len(self._calls))
        self._plan.append("call")


def _in_camel_case(part: dict[str, Any]) -> dict[str, Any]:
    """Returns a part by the names that JSON has for its fields; some servers write those of the protos."""
    if not part.keys() & _NAMES.keys():
        return part
    return {_NAMES.get(name, name): value for name, value in part.items()}
