"""Finds all faults in the shape of a request, where a decoder stops at the first."""

from typing import Any, Final

import msgspec

from access.caller import Caller
from chat_gateway.http_edge.openai.chat.nested_fields import without_unknown
from chat_gateway.http_edge.openai.chat.request import to_turn_request
from chat_gateway.http_edge.openai.chat.schema import ChatCompletionRequest, ChatMessage
from chat_gateway.http_edge.wire.bodies import decode, wrong_shape
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.rules import RequestBounds
from servicekit.errors import InvalidArgument, Violations

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_message = msgspec.json.Decoder(ChatMessage)
_DECODERS: Final = {
    field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(ChatCompletionRequest)
}
_GOOD_MESSAGE: Final = ChatMessage(role="user", content="-")
_GOOD: Final[dict[str, Any]] = {"model": "a", "messages": [_GOOD_MESSAGE]}
"""A replacement for an invalid required field, so that the rest can be checked."""


def all_faults(
    first: MalformedBody, body: bytes, headers: TurnHeaders, caller: Caller, bounds: RequestBounds
) -> MalformedBody:
    """Returns the error with every violation, given the first one that the decoder found."""
    if not first.violations:
        return first
    try:
        known, nested = without_unknown(body, ChatCompletionRequest)
        said = decode(_fields, known)
    except MalformedBody:
        return first
    found = Violations()
    good: dict[str, Any] = dict(_GOOD)
    for name, decoder in _DECODERS.items():
        if name not in said:
            if name in _GOOD and not (name == "messages" and "approvals" in said):
                found.add(name, "is required")
        elif name == "messages" and bytes(said[name])[:1] == b"[":
            good[name] = [_decoded(found, f"{name}[{i}]", _message, raw) for i, raw in enumerate(_items(said[name]))]
            good[name] = [_GOOD_MESSAGE if one is None else one for one in good[name]]
        elif (value := _decoded(found, name, decoder, said[name])) is not None:
            good[name] = value
    try:
        to_turn_request(ChatCompletionRequest(**good), headers, caller, bounds=bounds, nested=nested)
    except (InvalidArgument, MalformedBody, ModelNotFound, UnsupportedField) as error:
        for violation in error.violations:
            if violation.field not in found.fields():
                found.add(violation.field, violation.description)
    try:
        found.check()
    except InvalidArgument as error:
        return MalformedBody(error.message, violations=error.violations)
    return first


def _decoded(found: Violations, path: str, decoder: "msgspec.json.Decoder[Any]", raw: msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        [violation] = wrong_shape(str(error)).violations
        inner = violation.field
        found.add(path + (inner if inner.startswith("[") or not inner else f".{inner}"), violation.description)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.add(path, "is not JSON that can be read")
    return None
