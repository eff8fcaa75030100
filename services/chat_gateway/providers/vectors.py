"""Vectors of embeddings as JSON: read in either of OpenAI's two forms, written in the one that was asked for."""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from chat_gateway.providers.adapter import BadAnswer
from chat_gateway.providers.provider import VectorFormat

_FLOAT_BYTES: Final = 4
_encode = msgspec.json.Encoder().encode
_floats = msgspec.json.Decoder(list[float]).decode
_text = msgspec.json.Decoder(str).decode


def as_asked(vector: msgspec.Raw, asked: VectorFormat) -> bytes:
    """Returns a vector as JSON in the form that was asked for. Raises `BadAnswer` for what is no vector."""
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
                raise BadAnswer("an embedding with what is no number")
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
