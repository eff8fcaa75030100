"""Protobuf's wire format, as far as it is written by hand: to put bytes that are there already into a message.

Fields written one after the other are a message, and bytes that are a message already need not be parsed to become a
field of another one. And to read the parts of a message that as a whole can't be read.
"""

from collections.abc import Iterator


def varint(number: int) -> bytes:
    """Returns a number that is not negative as a varint."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def number_tag(field_number: int) -> bytes:
    """Returns the tag of a varint field."""
    return varint(field_number << 3)


def bytes_tag(field_number: int) -> bytes:
    """Returns the tag of a field that is bytes, a string or a message; its length follows."""
    return varint(field_number << 3 | 2)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Yields the fields of a message in their order: the number, the value (of a varint its number), the whole field.

    Raises `ValueError` where it is no message; groups, which proto3 has not, are none.
    """
    begin, end = 0, len(data)
    while begin < end:
        tag, at = _read_varint(data, begin)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            size, at = _read_varint(data, at) if kind == _BYTES else (_FIXED.get(kind, end), at)
            if at + size > end:
                raise ValueError("a field ends behind its message, or is of no type of proto3")
            value, at = data[at : at + size], at + size
        yield number, value, data[begin:at]
        begin = at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("no varint")


_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_SMALL = tuple(bytes((number,)) for number in range(128))
