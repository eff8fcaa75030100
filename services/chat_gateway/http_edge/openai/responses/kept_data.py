"""What providers need back of a step, as the opaque text that callers without a conversation keep. It is not secret."""

import base64
import binascii
from typing import Any

import msgspec

from chat_gateway.http_edge.openai.chat.schema import KeptData
from chat_gateway.http_edge.wire.bodies import raw_json
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.model.turn import Message, ProviderData
from servicekit.values import value


class _Kept(msgspec.Struct, omit_defaults=True):
    message: KeptData | None = None
    calls: dict[str, KeptData] = {}


@value
class KeptOfStep:
    """What a provider needs back with the message of a step, and with its calls by their ids."""

    message: ProviderData | None
    calls: dict[str, ProviderData]


_decoder = msgspec.json.Decoder(_Kept)


def encrypted_content(message: Message) -> str:
    """Returns what the provider of a message needs back; empty where that is nothing."""
    calls = {call.id: _kept(call.provider_data) for call in message.tool_calls if call.provider_data is not None}
    if message.provider_data is None and not calls:
        return ""
    data = _Kept(None if message.provider_data is None else _kept(message.provider_data), calls)
    return base64.urlsafe_b64encode(msgspec.json.encode(data)).decode()


def kept_of_step(text: str) -> KeptOfStep | None:
    """Returns what `encrypted_content` made the text of; None for any other."""
    try:
        kept = _decoder.decode(base64.urlsafe_b64decode(text))
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    try:
        message = None if kept.message is None else _data(kept.message)
        return KeptOfStep(message, {call_id: _data(one) for call_id, one in kept.calls.items()})
    except MalformedBody:
        return None


def _kept(data: ProviderData) -> KeptData:
    return KeptData(data.kind, data.provider, msgspec.Raw(data.json))


def _data(kept: Any) -> ProviderData:
    return ProviderData(kept.kind, kept.provider, raw_json(kept.data, "encrypted_content"))
