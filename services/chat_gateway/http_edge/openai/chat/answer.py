"""A turn's answer as OpenAI writes it: whole, or as chunks, which are encoded with the least work for each."""

from typing import Any

import msgspec

from chat_gateway.http_edge.openai.chat.schema import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionRequest,
    Choice,
    CompletionUsage,
    FunctionCall,
    PromptTokensDetails,
    ToolCall,
)
from chat_gateway.http_edge.wire.sse import event
from chat_gateway.model.turn import Delta, ToolCallDelta, TurnOutcome, TurnStarted, Usage

DONE = event(b"[DONE]")

_encode = msgspec.json.Encoder().encode


def completion(outcome: TurnOutcome, model_name: str) -> bytes:
    """Returns the answer's JSON. `model_name` is what the caller asked for."""
    message = outcome.message
    return _encode(
        ChatCompletion(
            id=_completion_id(outcome.turn_id),
            object="chat.completion",
            created=int(outcome.begin_time.timestamp()),
            model=model_name,
            choices=[
                Choice(
                    index=0,
                    message=AnswerMessage(
                        role="assistant",
                        content=message.content or (None if message.tool_calls or message.refusal else ""),
                        refusal=message.refusal or None,
                        tool_calls=[
                            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
                            for call in message.tool_calls
                        ]
                        or msgspec.UNSET,
                    ),
                    logprobs=None,
                    finish_reason=outcome.finish_reason.value,
                )
            ],
            usage=_usage(outcome.usage),
        )
    )


class CompletionChunks:
    """The chunks of one answer: same id and created on each, whatever does not change encoded once."""

    __slots__ = ("_head", "_include_usage", "_model", "_tail", "_text_head", "_usage_head")

    def __init__(self, chat: ChatCompletionRequest) -> None:
        self._model = chat.model
        self._include_usage = chat.stream_options is not None and chat.stream_options.include_usage is True
        self._head = self._tail = self._text_head = self._usage_head = b""

    def start(self, started: TurnStarted) -> bytes:
        """Returns the first chunk, which names the role."""
        head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(_completion_id(started.turn_id)),
            int(started.begin_time.timestamp()),
            _encode(self._model),
        )
        self._usage_head = head + b'],"usage":'
        self._head = head + b'{"index":0,"delta":'
        self._tail = b"}]%b}\n\n" % (b',"usage":null' if self._include_usage else b"")
        self._text_head = self._head + b'{"content":'
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

    def finish(self, outcome: TurnOutcome) -> bytes:
        """Returns the end of a stored turn: finish_reason, the usage where it was asked for, `[DONE]`."""
        reason = _encode(outcome.finish_reason.value)
        finish = b'%b{},"logprobs":null,"finish_reason":%b%b' % (self._head, reason, self._tail)
        if not self._include_usage:
            return finish + DONE
        return b"%b%b%b}\n\n%b" % (finish, self._usage_head, _encode(_usage(outcome.usage)), DONE)


def _completion_id(turn_id: str) -> str:
    return f"chatcmpl-{turn_id}"


def _usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )


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
