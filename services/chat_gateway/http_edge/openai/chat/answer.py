"""A turn's answer in OpenAI's format: complete, or as chunks, which are cheap to encode."""

from dataclasses import replace
from typing import Any

import msgspec

from chat_gateway.http_edge.openai.chat.ids import completion_id
from chat_gateway.http_edge.openai.chat.schema import (
    AnswerMessage,
    ChatCompletion,
    Choice,
    CompletionTokensDetails,
    CompletionUsage,
    ExtraContent,
    FunctionCall,
    KeptData,
    PendingApproval,
    PromptTokensDetails,
    ToolCall,
    TurnNotes,
    UnavailableToolServer,
)
from chat_gateway.http_edge.wire.errors import encode_error, error_body
from chat_gateway.http_edge.wire.sse import event
from chat_gateway.model.background import TurnState, TurnStatus
from chat_gateway.model.tools import CallFinished, CallStarted, StepFinished, ToolActivity, TurnResumed
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    OtherAnswer,
    ProviderData,
    ToolCallDelta,
    TurnOutcome,
    TurnStarted,
    Usage,
)
from chat_gateway.model.usage import NO_USAGE
from servicekit.errors import ServiceError

DONE = event(b"[DONE]")

_encode = msgspec.json.Encoder().encode


def completion(outcome: TurnOutcome, model_name: str) -> bytes:
    """Returns the answer's JSON. `model_name` is what the caller asked for."""
    return _encode(completion_object(outcome, model_name))


def completion_object(outcome: TurnOutcome, model_name: str) -> ChatCompletion:
    """Returns the answer as OpenAI has it. `model_name` is what the caller asked for."""
    details = outcome.details
    return ChatCompletion(
        id=completion_id(outcome.turn_id, outcome.session_id),
        object="chat.completion",
        created=int(outcome.begin_time.timestamp()),
        model=model_name,
        choices=[
            Choice(
                index=0,
                message=_message(outcome.message, details),
                logprobs=msgspec.Raw(details.logprobs) if details.logprobs else None,
                finish_reason=_reason(outcome.finish_reason),
            ),
            *[_other_choice(index, other) for index, other in enumerate(outcome.others, 1)],
        ],
        usage=_usage(outcome.usage),
        system_fingerprint=details.system_fingerprint or msgspec.UNSET,
        service_tier=details.service_tier or msgspec.UNSET,
        parley=_notes(outcome) or msgspec.UNSET,
    )


_STATUSES = {
    TurnStatus.QUEUED: "queued",
    TurnStatus.RUNNING: "in_progress",
    TurnStatus.FINISHED: "completed",
    TurnStatus.REQUIRES_APPROVAL: "requires_approval",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}


def completion_state(state: TurnState) -> ChatCompletion:
    """Returns a turn, as far as it is, as a completion."""
    if state.outcome is not None:
        whole = completion_object(state.outcome, state.agent_id)
    else:
        created = int(state.begin_time.timestamp()) if state.begin_time is not None else 0
        name = completion_id(state.turn_id, state.session_id)
        whole = ChatCompletion(name, "chat.completion", created, state.agent_id, [], _usage(NO_USAGE))
    whole.status = _STATUSES[state.status]
    if state.error is not None:
        whole.error = error_body(state.error).error
    return whole


def encode_state(state: TurnState) -> bytes:
    """Returns a turn, as far as it is, as the JSON of a completion."""
    return _encode(completion_state(state))


def _other_choice(index: int, answer: OtherAnswer) -> Choice:
    return Choice(
        index=index,
        message=_message(answer.message, answer.details),
        logprobs=msgspec.Raw(answer.details.logprobs) if answer.details.logprobs else None,
        finish_reason=_reason(answer.finish_reason),
    )


class CompletionChunks:
    """The chunks of one answer: same id and created on each, whatever does not change encoded once."""

    __slots__ = ("_choices", "_head", "_include_usage", "_model", "_tail", "_text_head", "_usage_head")

    def __init__(self, model: str, *, include_usage: bool, choices: int = 1) -> None:
        self._model = model
        self._choices = choices
        self._include_usage = include_usage
        self._head = self._tail = self._text_head = self._usage_head = b""

    def start(self, started: TurnStarted) -> bytes:
        """Returns the first chunk, which names the role; one for each answer."""
        head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(completion_id(started.turn_id, started.session_id)),
            int(started.begin_time.timestamp()),
            _encode(self._model),
        )
        self._usage_head = head + b'],"usage":'
        self._head = head + b'{"index":0,"delta":'
        self._tail = b"}]%b}\n\n" % (b',"usage":null' if self._include_usage else b"")
        self._text_head = self._head + b'{"content":'
        first = b'%b{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null%b' % (
            self._head,
            self._tail,
        )
        return first if self._choices == 1 else b"".join(_of(choice, first) for choice in range(self._choices))

    def delta(self, delta: Delta) -> bytes:
        """Returns one more piece of the answer, or an empty one that says what the turn does meanwhile."""
        if delta.choice:
            return _of(delta.choice, self.delta(replace(delta, choice=0)))
        if delta.content and not (delta.tool_calls or delta.refusal or _has_more(delta)):
            return b'%b%b},"logprobs":null,"finish_reason":null%b' % (
                self._text_head,
                _encode(delta.content),
                self._tail,
            )
        if delta.activity is not None:
            if (said := _activity(delta.activity)) is None:
                return b""
            end = self._with(b"parley", _encode(said))
            return b'%b{},"logprobs":null,"finish_reason":null%b' % (self._head, end)
        fields: dict[str, Any] = {}
        if delta.content:
            fields["content"] = delta.content
        if delta.refusal:
            fields["refusal"] = delta.refusal
        if delta.tool_calls:
            fields["tool_calls"] = [_tool_call(call) for call in delta.tool_calls]
        if delta.reasoning:
            fields["reasoning_content"] = delta.reasoning
        if delta.provider_data is not None:
            fields["extra_content"] = extra_content(delta.provider_data)
        return b'%b%b,"logprobs":%b,"finish_reason":null%b' % (
            self._head,
            _encode(fields),
            delta.logprobs or b"null",
            self._tail,
        )

    def finish(self, outcome: TurnOutcome) -> bytes:
        """Returns the end of a stored turn: finish_reason, the usage where it was asked for, `[DONE]`."""
        reason = _encode(_reason(outcome.finish_reason))
        finish = b'%b{},"logprobs":null,"finish_reason":%b%b' % (self._head, reason, self._tail)
        notes = _notes(outcome)
        if outcome.details is not NO_DETAILS or notes is not None:
            finish = self._detailed(reason, outcome.details, notes)
        for index, other in enumerate(outcome.others, 1):
            finish += _of(index, self._detailed(_encode(_reason(other.finish_reason)), other.details, None))
        if not self._include_usage:
            return finish + DONE
        return b"%b%b%b}\n\n%b" % (finish, self._usage_head, _encode(_usage(outcome.usage)), DONE)

    def fail(self, error: ServiceError) -> bytes:
        """Returns the error as the last event; no `[DONE]` follows."""
        return event(encode_error(error))

    def _with(self, name: bytes, value: bytes) -> bytes:
        return b'%b,"%b":%b}\n\n' % (self._tail.removesuffix(b"}\n\n"), name, value)

    def _detailed(self, reason: bytes, details: AnswerDetails, notes: TurnNotes | None) -> bytes:
        of_message = [(name, getattr(details, name)) for name in ("annotations", "images", "audio")]
        delta = b"{%b}" % b",".join([b'"%b":%b' % (name.encode(), said) for name, said in of_message if said])
        end = self._tail.removesuffix(b"}\n\n")
        for name in ("system_fingerprint", "service_tier"):
            if said := getattr(details, name):
                end += b',"%b":%b' % (name.encode(), _encode(said))
        if notes is not None:
            end += b',"parley":%b' % _encode(notes)
        return b'%b%b,"logprobs":null,"finish_reason":%b%b}\n\n' % (self._head, delta, reason, end)


def _of(choice: int, chunk: bytes) -> bytes:
    """Returns a chunk of the first answer as one of another; its head has the first `"choices"`."""
    return chunk.replace(_FIRST_CHOICE, b'"choices":[{"index":%d,' % choice, 1)


_FIRST_CHOICE = b'"choices":[{"index":0,'


def _notes(outcome: TurnOutcome) -> TurnNotes | None:
    if not (outcome.pending or outcome.unavailable):
        return None
    return TurnNotes(
        [PendingApproval(one.call_id, one.name, one.arguments) for one in outcome.pending],
        [UnavailableToolServer(one.server, one.reason) for one in outcome.unavailable],
    )


def _activity(activity: ToolActivity) -> dict[str, Any] | None:
    match activity:
        case CallStarted():
            return {
                "event": "tool_call_started",
                "step": activity.step,
                "tool_call_id": activity.call_id,
                "name": activity.name,
                "arguments": activity.arguments,
                "server": activity.server,
            }
        case CallFinished():
            return {
                "event": "tool_call_finished",
                "step": activity.step,
                "tool_call_id": activity.call_id,
                "name": activity.name,
                "server": activity.server,
                "outcome": activity.outcome.value,
                "duration_ms": round(activity.seconds * 1000),
            }
        case ToolsListed():
            return None
        case StepFinished():
            return {"event": "step_finished", "step": activity.step, "usage": _usage(activity.usage)}
        case TurnResumed():
            return {"event": "turn_resumed", "step": activity.step, "attempt": activity.attempt}


def extra_content(data: ProviderData) -> ExtraContent:
    """Returns what a provider needs back, as clients keep it."""
    return ExtraContent(KeptData(data.kind, data.provider, msgspec.Raw(data.json)))


def _message(message: Message, details: AnswerDetails) -> AnswerMessage:
    said_otherwise = message.tool_calls or message.refusal or message.reasoning
    data = message.provider_data
    return AnswerMessage(
        role="assistant",
        content=message.content or (None if said_otherwise else ""),
        refusal=message.refusal or None,
        tool_calls=[
            ToolCall(
                id=call.id,
                function=FunctionCall(name=call.name, arguments=call.arguments),
                extra_content=extra_content(call.provider_data) if call.provider_data is not None else msgspec.UNSET,
            )
            for call in message.tool_calls
        ]
        or msgspec.UNSET,
        reasoning_content=message.reasoning or msgspec.UNSET,
        annotations=msgspec.Raw(details.annotations) if details.annotations else msgspec.UNSET,
        images=msgspec.Raw(details.images) if details.images else msgspec.UNSET,
        audio=msgspec.Raw(details.audio) if details.audio else msgspec.UNSET,
        extra_content=extra_content(data) if data is not None else msgspec.UNSET,
    )


def _has_more(delta: Delta) -> bool:
    return bool(delta.reasoning or delta.logprobs or delta.provider_data is not None)


def _reason(reason: FinishReason) -> str:
    # OpenAI has no word for it; `parley` says what waits.
    return FinishReason.TOOL_CALLS.value if reason is FinishReason.REQUIRES_APPROVAL else reason.value


def _usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(usage.cached_tokens, usage.cache_write_tokens or msgspec.UNSET),
        completion_tokens_details=CompletionTokensDetails(usage.reasoning_tokens),
    )


def _tool_call(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, str] = {"arguments": call.arguments}
    out: dict[str, Any] = {"index": call.index, "function": function}
    if call.id:
        function = {"name": call.name, "arguments": call.arguments}
        out = {"index": call.index, "id": call.id, "type": "function", "function": function}
    if call.provider_data is not None:
        out["extra_content"] = extra_content(call.provider_data)
    return out
