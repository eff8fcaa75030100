"""Responses of the Messages API, complete or as a stream of events."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec

from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    ProviderData,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from chat_gateway.providers.adapter import PIECE_BYTES, BadAnswer, ReportedError, check_calls
from chat_gateway.providers.anthropic.pauses import paused
from chat_gateway.providers.anthropic.request import KIND
from chat_gateway.providers.finish_reasons import finish_reason
from chat_gateway.providers.generous import add_counts, arguments, count, decode, listed, mapping, text
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role

_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_PAUSED: Final = "pause_turn"
_BETWEEN_THOUGHTS: Final = "\n\n"
_encode = msgspec.json.Encoder().encode


def read_message(body: bytes, call: ModelCall, provider: str) -> ModelAnswer:
    """Returns a whole answer. Raises `BadAnswer` and `ReportedError`."""
    said = decode(body)
    if said.get("type") == "error" or said.get("error"):
        raise ReportedError(body)
    if said.get("content") is None:
        raise BadAnswer("a message without content")
    answer = _Answer(call, provider)
    answer.start(said)
    for block in _blocks(said):
        answer.open(block)
    answer.stop(said)
    return answer.whole()


class MessageStream:
    """Implements `AnswerStream`."""

    __slots__ = ("_answer", "_by_index", "_kept_size", "alive", "ended", "finished", "size")

    def __init__(self, call: ModelCall, provider: str) -> None:
        self._answer = _Answer(call, provider)
        self._by_index: dict[object, _Block] = {}
        self._kept_size = -1
        self.size = 0
        self.alive = self.finished = self.ended = False

    def add(self, events: Sequence[bytes]) -> Delta | None:
        added = _Added()
        for event in events:
            if self.ended:
                break
            if event.strip() and event.strip() != b"[DONE]":
                self._event(event, decode(event), added)
        self.size += added.size
        return added.delta()

    def answer(self) -> ModelAnswer:
        if not self.finished:
            raise BadAnswer("a stream that ended without a stop_reason")
        return self._answer.whole()

    def _event(self, event: bytes, said: dict[str, Any], added: "_Added") -> None:
        kind = said.get("type")
        if kind == "content_block_start":
            self.alive = True
            self._by_index[_key(said)] = self._answer.open(mapping(said.get("content_block")), added)
        elif kind == "content_block_delta":
            self.alive = True
            block = self._by_index.get(_key(said)) or self._answer.last(mapping(said.get("delta")), added)
            self._answer.more(block, mapping(said.get("delta")), added)
        elif kind == "message_start":
            message = mapping(said.get("message"))
            self._answer.start(message)
            for said_already in _blocks(message):
                self.alive = True
                self._answer.close(self._answer.open(said_already, added), added)
            self._stop(message, added)
        elif kind == "content_block_stop":
            key = _key(said)
            if key in self._by_index:
                self._answer.close(self._by_index.pop(key), added)
        elif kind == "message_delta":
            self._answer.usage(said.get("usage"))
            self._stop(mapping(said.get("delta")), added)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error" or said.get("error"):
            raise ReportedError(event)
        # Others are `ping` and what the API may add: its versioning policy says to ignore them.

    def _stop(self, delta: dict[str, Any], added: "_Added") -> None:
        if not delta.get("stop_reason"):
            return
        self.alive = self.finished = True
        for block in self._by_index.values():
            self._answer.close(block, added)
        self._by_index.clear()
        refusal = self._answer.refusal
        self._answer.stop(delta)
        if self._answer.refusal != refusal:
            added.refusal += self._answer.refusal
            added.size += len(self._answer.refusal.encode())
        if not self._answer.paused and self._kept_size != (size := self.size + added.size):
            self._kept_size = size
            added.provider_data = self._answer.provider_data()


class _Block:
    """One block of content as far as it has come."""

    __slots__ = ("call", "json", "said", "signature", "texts", "type")

    def __init__(self, said: dict[str, Any]) -> None:
        self.type = text(said.get("type"))
        self.said = _kept_of(said, self.type)
        self.signature: list[str] = []
        self.texts: list[str] = []
        self.json: list[str] = []
        self.call = -1

    def kept(self) -> Any:
        """Returns what the block is in what is kept for the next request (`request._in_order`)."""
        if self.type == "text":
            return sum(map(len, self.texts))
        if self.type == "tool_use":
            return "call"
        if self.type == "thinking":
            return {**self._signed(), "thinking": "".join(self.texts)}
        if not self.json:
            return self._signed()
        try:
            return {**self._signed(), "input": decode("".join(self.json).encode())}
        except BadAnswer:
            return self._signed()  # it was cut off

    def _signed(self) -> dict[str, Any]:
        if not self.signature:
            return self.said
        return {**self.said, "signature": text(self.said.get("signature")) + "".join(self.signature)}


class _Added:
    """What events that came together add."""

    __slots__ = ("calls", "content", "provider_data", "reasoning", "refusal", "size")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCallDelta] = []
        self.refusal = ""
        self.provider_data: ProviderData | None = None
        self.size = 0

    def delta(self) -> Delta | None:
        content, reasoning = "".join(self.content), "".join(self.reasoning)
        if not (content or reasoning or self.calls or self.refusal or self.provider_data):
            return None
        return Delta(content, tuple(self.calls), self.refusal, reasoning, self.provider_data)


class _Answer:
    """Puts the blocks of one answer together."""

    def __init__(self, call: ModelCall, provider: str) -> None:
        self._provider = provider
        self._call = call
        self._model = call.model
        self._container: dict[str, str] = {}
        self._blocks: list[_Block] = []
        self._calls: list[ToolCall] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._counts: dict[str, int] = {}
        self._tier = ""
        self._reason: FinishReason | None = None
        self.refusal = ""
        self.paused = False

    def start(self, message: dict[str, Any]) -> None:
        self._model = text(message.get("model")) or self._model
        self._contained(message)
        self.usage(message.get("usage"))

    def _contained(self, said: dict[str, Any]) -> None:
        # What code of the answer runs in: to go on, the API wants it named.
        if name := text(mapping(said.get("container")).get("id")):
            self._container = {"container": name}

    def usage(self, said: object) -> None:
        # Cumulative, and each report holds those counts only that it is about.
        usage = mapping(said)
        add_counts(self._counts, usage)
        thinking = count(mapping(usage.get("output_tokens_details")).get("thinking_tokens"))
        if thinking is not None:
            self._counts["thinking_tokens"] = thinking
        self._tier = text(usage.get("service_tier")) or self._tier

    def open(self, said: dict[str, Any], added: _Added | None = None) -> _Block:
        """Begins a block with what its start holds of it; without `added`, it is whole."""
        block = _Block(said)
        self._blocks.append(block)
        whole = added is None
        added = added or _Added()
        added.size += PIECE_BYTES + len(_encode(block.said))
        if block.type == "text":
            self._text(block, text(said.get("text")), added)
        elif block.type == "thinking":
            self._thought(block, text(said.get("thinking")), added)
        elif block.type == "tool_use":
            self._open_call(block, said, added)
        if whole:
            self.close(block, added)
        return block

    def last(self, delta: dict[str, Any], added: _Added) -> _Block:
        """The block that a piece without a known index is of."""
        kind = {"text_delta": "text", "thinking_delta": "thinking"}.get(text(delta.get("type")), "")
        if self._blocks and (not kind or self._blocks[-1].type == kind):
            return self._blocks[-1]
        if not kind:
            raise BadAnswer("a piece of a block that never began")
        return self.open({"type": kind}, added)

    def more(self, block: _Block, delta: dict[str, Any], added: _Added) -> None:
        kind = delta.get("type")
        if kind == "text_delta" and block.type == "text":
            self._text(block, text(delta.get("text")), added)
        elif kind == "thinking_delta" and block.type == "thinking":
            self._thought(block, text(delta.get("thinking")), added)
        elif kind == "signature_delta":
            block.signature.append(text(delta.get("signature")))
            added.size += len(block.signature[-1]) + PIECE_BYTES
        elif kind == "input_json_delta":
            self._input(block, text(delta.get("partial_json")), added)

    def close(self, block: _Block, added: _Added) -> None:
        if block.call < 0:
            return
        call = self._calls[block.call]
        if not block.json:
            block.json.append(arguments(block.said.get("input")))
            added.calls.append(ToolCallDelta(block.call, arguments=block.json[0]))
        self._calls[block.call] = ToolCall(call.id, call.name, "".join(block.json))

    def stop(self, said: dict[str, Any]) -> None:
        self._contained(said)
        word = text(said.get("stop_reason"))
        # An answer with calls ends here, however it says so: the API goes on once it has their results.
        self.paused = word == _PAUSED and not self._calls
        reason = FinishReason.STOP if word == _PAUSED else _REASONS.get(word) or finish_reason(word)
        if reason is None:
            raise BadAnswer("an answer that ended for an unknown reason")
        if reason is FinishReason.STOP and self._reason is not None:
            return  # what was cut off, or refused, was not ended by being said to have ended
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        if reason is FinishReason.TOOL_CALLS and not self._calls:
            raise BadAnswer("an answer that ended for tool calls and has none")
        self._reason = reason
        if reason is FinishReason.CONTENT_FILTER:
            self.refusal = text(mapping(said.get("stop_details")).get("explanation"))

    def provider_data(self) -> ProviderData | None:
        """What the next request has to repeat unchanged: signed thinking, and unknown blocks."""
        if all(block.type in ("text", "tool_use") for block in self._blocks):
            return None
        return ProviderData(KIND, self._provider, _encode([block.kept() for block in self._blocks]))

    def whole(self) -> ModelAnswer:
        if self._reason is None:
            raise BadAnswer("an answer without a stop_reason")
        message = Message(
            Role.ASSISTANT,
            "".join(self._content),
            tool_calls=tuple(self._calls),
            refusal=self.refusal,
            reasoning="".join(self._reasoning),
            provider_data=self.provider_data(),
        )
        details = AnswerDetails(service_tier=self._tier) if self._tier else NO_DETAILS
        answer = ModelAnswer(message, self._reason, self._usage(), self._model, details)
        return paused(self._call, answer, self._container) if self.paused else answer

    def _usage(self) -> Usage:
        of = self._counts.get
        read, written = of("cache_read_input_tokens", 0), of("cache_creation_input_tokens", 0)
        prompt = of("input_tokens", 0) + read + written
        return Usage(prompt, of("output_tokens", 0), read, of("thinking_tokens", 0), written)

    def _text(self, block: _Block, piece: str, added: _Added) -> None:
        if piece:
            block.texts.append(piece)
            self._content.append(piece)
            added.content.append(piece)
            added.size += len(piece.encode())

    def _thought(self, block: _Block, piece: str, added: _Added) -> None:
        if piece:
            shown = _BETWEEN_THOUGHTS + piece if self._reasoning and not block.texts else piece
            block.texts.append(piece)
            self._reasoning.append(shown)
            added.reasoning.append(shown)
            added.size += len(piece.encode())

    def _open_call(self, block: _Block, said: dict[str, Any], added: _Added) -> None:
        name, call_id = text(said.get("name")), text(said.get("id"))
        if not name:
            raise BadAnswer("a tool call without a name")
        if not call_id or any(call.id == call_id for call in self._calls):
            call_id = f"call_{uuid4().hex}"
        block.call = len(self._calls)
        self._calls.append(ToolCall(call_id, name, ""))
        check_calls(len(self._calls))
        added.calls.append(ToolCallDelta(block.call, call_id, name))
        added.size += len(call_id) + len(name)

    def _input(self, block: _Block, piece: str, added: _Added) -> None:
        if not piece:
            return
        block.json.append(piece)
        added.size += len(piece.encode())
        if block.call >= 0:
            added.calls.append(ToolCallDelta(block.call, arguments=piece))


def _kept_of(said: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns what is kept of a block as it begins, beside its texts."""
    match kind:
        case "text":
            return {}
        case "tool_use":
            return {"input": said.get("input")}
        case "thinking" if "thinking" in said:
            return {**said, "thinking": ""}
    return said


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = listed(message.get("content"))
    return [{"type": "text", "text": one} if isinstance(one, str) else _object(one) for one in content if one]


def _object(block: object) -> dict[str, Any]:
    if not isinstance(block, dict):
        raise BadAnswer("a block of content that is no object")
    return block


def _key(said: dict[str, Any]) -> object:
    index = said.get("index")
    return count(index)
