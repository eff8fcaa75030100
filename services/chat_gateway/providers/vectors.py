"""Embeddings as JSON: read in either of OpenAI's two formats, written in the requested one."""

import base64
import binascii
import math
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from chat_gateway.providers.adapter import BadAnswer, ReportedError
from chat_gateway.providers.generous import decode
from chat_gateway.providers.provider import VectorFormat

_FLOAT_BYTES: Final = 4
_encode = msgspec.json.Encoder().encode
_floats = msgspec.json.Decoder(list[float]).decode
_text = msgspec.json.Decoder(str).decode


class _Response(Protocol):
    """A response that may hold an error instead of embeddings."""

    error: msgspec.Raw


_R = TypeVar("_R", bound=_Response)


def read_response(body: bytes, decoder: Callable[[bytes], _R]) -> _R:
    """Returns a response to an embedding call. Raises `BadAnswer`, and `ReportedError` for one that is an error."""
    try:
        response = decoder(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if decode(body).get("error"):
            raise ReportedError(body) from None
        raise BadAnswer("not embeddings") from None
    if bytes(response.error) not in (b"", b"null"):
        raise ReportedError(body)
    return response


def check_count(vectors: Sequence[object], inputs: Sequence[object]) -> None:
    """Raises `BadAnswer` unless there is one embedding for each input."""
    if len(vectors) != len(inputs):
        raise BadAnswer(f"{len(vectors)} embeddings of {len(inputs)} inputs")


def as_asked(vector: msgspec.Raw, asked: VectorFormat) -> bytes:
    """Returns a vector as JSON in the requested format. Raises `BadAnswer` for an invalid one."""
    said = bytes(vector).strip()
    try:
        if said[:1] == b'"':
            packed = base64.b64decode(_text(said), validate=True)
            if not packed or len(packed) % _FLOAT_BYTES:
                raise BadAnswer("an embedding that is not whole")
            if asked is VectorFormat.BASE64:
                return said
            numbers = list(_unpacked(packed))
            if not all(map(math.isfinite, numbers)):
                raise BadAnswer("an embedding with a value that is not a number")
            return _encode(numbers)
        numbers = _floats(said)
        if not numbers:
            raise BadAnswer("an embedding without numbers")
        return said if asked is VectorFormat.FLOAT else b'"%b"' % base64.b64encode(packed_floats(numbers))
    except (msgspec.MsgspecError, binascii.Error, struct.error, OverflowError, UnicodeError):
        raise BadAnswer("an embedding that is no vector") from None


def packed_floats(numbers: Sequence[float]) -> bytes:
    """Returns numbers as 32-bit floats, little-endian."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _unpacked(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // _FLOAT_BYTES}f", packed)
