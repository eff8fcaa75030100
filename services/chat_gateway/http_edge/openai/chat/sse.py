"""Server-sent events of one streamed chat completion, encoded with the least work for each."""

from typing import Any

import msgspec

from chat_gateway.model.turn import Delta, FinishReason, ToolCallDelta, Usage

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Chunks:
    """The chunks of one answer: same id and created on each, whatever does not change encoded once."""

    __slots__ = ("_head", "_tail", "_text_head", "_usage")

    def __init__(self, completion_id: str, created: int, model: str, include_usage: bool) -> None:
        head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(completion_id),
            created,
            _encode(model),
        )
        self._usage = head + b'],"usage":' if include_usage else b""
        self._head = head + b'{"index":0,"delta":'
        self._tail = b"}]%b}\n\n" % (b',"usage":null' if include_usage else b"")
        self._text_head = self._head + b'{"content":'

    def role(self) -> bytes:
        """Returns the first chunk."""
        return b'%b{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null%b' % (
            self._head,
            self._tail,
        )

    def delta(self, delta: Delta) -> bytes:
        """Returns one more piece of the answer."""
        if not delta.tool_calls and not delta.refusal:
            return b'%b%b},"logprobs":null,"finish_reason":null%b' % (
                self._text_head,
                _encode(delta.content),
                self._tail,
            )
        fields: dict[str, Any] = {}
        if delta.content:
            fields["content"] = delta.content
        if delta.refusal:
            fields["refusal"] = delta.refusal
        if delta.tool_calls:
            fields["tool_calls"] = [_tool_call(call) for call in delta.tool_calls]
        return b'%b%b,"logprobs":null,"finish_reason":null%b' % (self._head, _encode(fields), self._tail)

    def finish(self, reason: FinishReason, usage: Usage) -> bytes:
        """Returns the end of a stored turn: finish_reason, the usage where it was asked for, `[DONE]`."""
        finish = b'%b{},"logprobs":null,"finish_reason":%b%b' % (self._head, _encode(reason.value), self._tail)
        if not self._usage:
            return finish + DONE
        return b"%b%b%b}\n\n%b" % (finish, self._usage, _encode(usage_json(usage)), DONE)


def usage_json(usage: Usage) -> dict[str, Any]:
    """Returns the tokens by OpenAI's names."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def error_frame(body: bytes) -> bytes:
    """Returns an error in mid-stream: one frame, and no `[DONE]` after it."""
    return b"data: %b\n\n" % body


def _tool_call(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, str] = {"arguments": call.arguments}
    if not call.id:
        return {"index": call.index, "function": function}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
