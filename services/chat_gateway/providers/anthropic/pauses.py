"""Answers that the API pauses (`pause_turn`): it goes on with one once it is sent back as it is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from chat_gateway.model.turn import Message, ProviderData
from chat_gateway.model.usage import added
from chat_gateway.providers.anthropic.request import KIND
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Pause

_decode = msgspec.json.Decoder(list[Any]).decode
_encode = msgspec.json.Encoder().encode
_BETWEEN_THOUGHTS = "\n\n"


def paused(call: ModelCall, answer: ModelAnswer, fields: Mapping[str, Any]) -> ModelAnswer:
    """Returns the answer to a call as a paused one; `fields` are those of the request that goes on."""

    def joined(more: ModelAnswer) -> ModelAnswer:
        message = _joined(answer.message, more.message)
        whole = replace(more, message=message, usage=added(answer.usage, more.usage), pause=None)
        return whole if more.pause is None else paused(call, whole, {**fields, **more.pause.call.go_on})

    goes_on = replace(call, messages=[*call.messages, answer.message], go_on=fields)
    return replace(answer, pause=Pause(goes_on, joined))


def _joined(first: Message, second: Message) -> Message:
    data = second.provider_data or first.provider_data
    if data is not None:
        data = ProviderData(KIND, data.provider, _encode(_plan(first) + _plan(second)))
    return replace(
        second,
        content=first.content + second.content,
        reasoning=_BETWEEN_THOUGHTS.join(filter(None, (first.reasoning, second.reasoning))),
        provider_data=data,
    )


def _plan(message: Message) -> list[Any]:
    """Returns the blocks of a message as they are kept (`request._in_order`)."""
    if message.provider_data is not None:
        return _decode(message.provider_data.json)
    return [len(message.content)] * bool(message.content) + ["call"] * len(message.tool_calls)
