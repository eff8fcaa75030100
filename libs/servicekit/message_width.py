"""How many values a message may hold: protobuf makes an object of every two bytes that say so, all at once."""

from typing import Final

from google.protobuf.descriptor import Descriptor

from servicekit.errors import InvalidArgument

SMALL_BYTES: Final = 64 * 1024
"""Up to here a message is not looked at: what it holds is small, however much it is."""
MAX_VALUES: Final = 250_000
_MAX_DEPTH: Final = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}


class _Broken(Exception):
    """The bytes are no message: parsing them says so."""


def check_width(data: bytes, descriptor: Descriptor, max_values: int = MAX_VALUES) -> None:
    """Raises `InvalidArgument` for a message with more than `max_values` fields, those of its messages among them.

    Takes some microseconds for each field, and nothing for the bytes of texts. What is no message passes.
    """
    if len(data) <= SMALL_BYTES:
        return
    try:
        _count(memoryview(data), descriptor, max_values, 0)
    except (_Broken, IndexError):
        return


def _count(data: memoryview, descriptor: Descriptor, left: int, depth: int) -> int:
    """Returns how many fields of `left` remain."""
    if depth > _MAX_DEPTH:
        raise _Broken
    messages = {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        kind = tag & 7
        left -= 1
        if left < 0:
            raise InvalidArgument(message="the request holds more values than a request may")
        if kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in _FIXED:
            place += _FIXED[kind]
        elif kind == _BYTES:
            length, place = _varint(data, place)
            inner = messages.get(tag >> 3)
            if place + length > end:
                raise _Broken
            if inner is not None and length:
                left = _count(data[place : place + length], inner, left, depth + 1)
            place += length
        else:
            raise _Broken  # groups: no message of ours has them
    return left


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    byte = data[place]
    place += 1
    if byte < 0x80:
        return byte, place
    value, shift = byte & 0x7F, 7
    while shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise _Broken
