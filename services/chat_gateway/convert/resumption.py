"""The format in which a gateway writes a turn so that another one can continue it: MessagePack of the values, with
messages as protos. Fields are only added. A field that must not be ignored needs a new `form`, which earlier releases
leave to later ones.
"""

from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, Final, get_type_hints

import msgspec

from access.caller import Caller
from chat_gateway.convert.messages import message_from_proto, message_to_proto
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.turn import TurnRequest
from parley.session.v1 import message_pb2
from servicekit.errors import MessageTooLarge

FORM: Final = 1
FORM_OF_ALLOWED_TOOLS: Final = 2
"""That of a request with `allowed_tools`, of which earlier releases would offer all."""
MAX_REQUEST_BYTES: Final = 1024 * 1024


class _Head(msgspec.Struct):
    form: int


def _request_form() -> type[msgspec.Struct]:
    """Returns the fields of a request without its messages, whose parts are of types that can't be told apart there."""
    hints, made = get_type_hints(TurnRequest), list[Any]()
    for one in fields(TurnRequest):
        if one.default_factory is not MISSING:
            made.append((one.name, hints[one.name], msgspec.field(default_factory=one.default_factory)))
        elif one.default is not MISSING:
            made.append((one.name, hints[one.name], one.default))
        elif one.name != "messages":
            made.append((one.name, hints[one.name]))
    return msgspec.defstruct("_Request", made, omit_defaults=True, kw_only=True)


_REQUEST: Any = _request_form()


class _Stored(msgspec.Struct):
    form: int
    request: msgspec.Raw
    messages: list[bytes]
    caller: Caller
    agent_revision: int
    digest: bytes
    begin_time: datetime


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(_REQUEST).decode


def resumable_to_bytes(turn: ResumableTurn) -> bytes:
    """Returns the turn as it is written; nothing for one that is too large to be taken over.

    Raises `MessageTooLarge` for one that can't run otherwise.
    """
    request = _REQUEST(**{name: getattr(turn.request, name) for name in _REQUEST.__struct_fields__})
    data = _encode(
        _Stored(
            FORM_OF_ALLOWED_TOOLS if turn.request.allowed_tools else FORM,
            msgspec.Raw(_encode(request)),
            [message_to_proto(message).SerializeToString() for message in turn.request.messages],
            turn.caller,
            turn.agent_revision,
            turn.digest,
            turn.begin_time,
        )
    )
    if len(data) <= MAX_REQUEST_BYTES:
        return data
    if turn.request.background:
        raise MessageTooLarge(f"a background turn's request has {len(data)} bytes", limit=MAX_REQUEST_BYTES)
    return b""


def resumable_from_bytes(data: bytes) -> ResumableTurn | None:
    """Returns the turn; None where a later release wrote it, in a form that this one does not know."""
    if msgspec.msgpack.decode(data, type=_Head).form not in (FORM, FORM_OF_ALLOWED_TOOLS):
        return None
    stored = msgspec.msgpack.decode(data, type=_Stored)
    messages = tuple([message_from_proto(message_pb2.Message.FromString(one)) for one in stored.messages])
    said = _decode_request(stored.request)
    request = TurnRequest(messages=messages, **{name: getattr(said, name) for name in _REQUEST.__struct_fields__})
    return ResumableTurn(request, stored.caller, stored.agent_revision, stored.digest, stored.begin_time)
