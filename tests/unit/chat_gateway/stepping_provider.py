"""A provider that says one scripted message a model call, streamed or not, and keeps what it was asked."""

from collections.abc import Awaitable, Callable

from chat_gateway.model.turn import (
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    OnDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role

Say = Message | Callable[[ModelCall], Message | Awaitable[Message]]


def text(content: str) -> Message:
    return Message(Role.ASSISTANT, content)


def calling(*calls: tuple[str, str, str], content: str = "") -> Message:
    """A message with calls: id, name and arguments of each."""
    return Message(Role.ASSISTANT, content, tool_calls=tuple(ToolCall(*call) for call in calls))


class SteppingProvider:
    """Says the next message of its script; the last one again and again."""

    name = "local"

    def __init__(self, *script: Message, finish_reason: FinishReason | None = None) -> None:
        self.script = list(script)
        self.calls: list[ModelCall] = []
        self.finish_reason = finish_reason

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        said = self.script[min(len(self.calls), len(self.script) - 1)]
        self.calls.append(call)
        if on_delta is not None:
            for piece in filter(None, (said.content[:3], said.content[3:])):
                await on_delta(Delta(piece))
            for index, one in enumerate(said.tool_calls):
                await on_delta(Delta(tool_calls=(ToolCallDelta(index, one.id, one.name),)))
                await on_delta(Delta(tool_calls=(ToolCallDelta(index, arguments=one.arguments),)))
            if said.provider_data is not None:
                await on_delta(Delta(provider_data=said.provider_data))
        reason = FinishReason.TOOL_CALLS if said.tool_calls else FinishReason.STOP
        number = len(self.calls)
        return ModelAnswer(
            said,
            self.finish_reason or reason,
            Usage(10, number),
            "m-2026",
            AnswerDetails(system_fingerprint=f"step-{number}"),
        )
