"""Protobuf's wire format, as far as it is written by hand: to put bytes that are there already into a message.

Fields written one after the other are a message, and bytes that are a message already need not be parsed to become a
field of another one.
"""


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


_SMALL = tuple(bytes((number,)) for number in range(128))
