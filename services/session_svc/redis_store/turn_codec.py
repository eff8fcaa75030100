"""The form of a turn in Redis: a header, then the serialized turn, plain or compressed.

A flag in the header says which, so both kinds may stand in one session; whoever reads reads both. The header is the
scripts' (scripts/prelude.lua): they write it and read it, and never look behind it.

    plain       header, the turn, field `number` of the turn, which the script adds when it has counted
    compressed  header, check sum (4), size of the turn without its number (4), the turn as an LZ4 block
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from lz4.block import LZ4BlockError, compress, decompress

from servicekit.wire import varint
from session_svc.model.errors import TurnDamaged
from session_svc.model.rules import MAX_TURN_BYTES

IsTurn: TypeAlias = Callable[[bytes], bool]
"""Whether a serialized turn can be read by those whom it is sent to."""
EarlyCalls: TypeAlias = Callable[[bytes], Sequence[str]]
"""Returns which calls of the turn before it a stored turn made."""

_HEADER = struct.Struct(">HBIQI")
_SUM_AND_SIZE = struct.Struct(">II")
_BLOCK_AT = _HEADER.size + _SUM_AND_SIZE.size
_CONTINUES = 1
_COMPRESSED = 2
_NUMBER_TAG = b"\x10"

MIN_TURN_BYTES = 256
"""Turns with fewer are stored as they are: what one could save does not pay for reading it."""
MIN_SAVED = 16
"""Compressed is stored what becomes smaller by this part of it, or more."""


MAX_SEARCHED_BYTES = 8 * 1024
"""Turns with up to so many are searched longer for what repeats: 4 % less of prose, for 8 µs."""
_SMALL: dict[str, Any] = {"mode": "high_compression", "compression": 3}
_LARGE: dict[str, Any] = {}


class StoredTurn(NamedTuple):
    """A stored turn with what a window needs to know of it; it is not decompressed before `turn` is called."""

    message_count: int
    continues: bool
    number: int
    size: int
    """Bytes of the serialized turn."""
    stored: bytes
    number_field: bytes
    """What is added to the turn once it is decompressed; empty where it is not compressed."""

    def turn(self, is_turn: IsTurn = lambda data: True) -> bytes:
        """Returns the serialized turn. Raises `TurnDamaged`.

        What is compressed has a check sum; what is not has to pass `is_turn`.
        """
        if not self.number_field:
            if not is_turn(self.stored):
                raise TurnDamaged(self.number)
            return self.stored
        size = self.size - len(self.number_field)
        try:
            turn: bytes = decompress(self.stored, size)
        except LZ4BlockError as error:
            raise TurnDamaged(self.number) from error
        if len(turn) != size:
            raise TurnDamaged(self.number)
        return turn + self.number_field


def body_of(turn: bytes, *, continues: bool, compressing: bool) -> tuple[bytes, int]:
    """Returns what a script stores behind the header, and the header's flags.

    Compressed only where that pays, and never what is larger than any turn that a reader would decompress.
    """
    flags = _CONTINUES if continues else 0
    size = len(turn)
    if compressing and MIN_TURN_BYTES <= size <= MAX_TURN_BYTES:
        mode = _SMALL if size <= MAX_SEARCHED_BYTES else _LARGE
        block: bytes = compress(turn, store_size=False, **mode)
        if saves_enough(size, _SUM_AND_SIZE.size + len(block)):
            return _SUM_AND_SIZE.pack(_check_sum(block, size), size) + block, flags | _COMPRESSED
    return turn, flags


def saves_enough(size: int, compressed_size: int) -> bool:
    """Returns whether storing this many bytes instead is worthwhile."""
    return size - compressed_size >= size // MIN_SAVED


def stored_turn(element: bytes) -> StoredTurn:
    """Returns a turn in its stored form. Raises `TurnDamaged`, also for one that a later release wrote."""
    try:
        messages, flags, number, _, _ = _HEADER.unpack_from(element)
    except struct.error as error:
        raise TurnDamaged(0) from error
    if flags <= _CONTINUES:
        plain = element[_HEADER.size :]
        return StoredTurn(messages, flags == _CONTINUES, number, len(plain), plain, b"")
    if flags > _CONTINUES | _COMPRESSED or len(element) < _BLOCK_AT:
        raise TurnDamaged(number)
    check_sum, size = _SUM_AND_SIZE.unpack_from(element, _HEADER.size)
    block = element[_BLOCK_AT:]
    if size > MAX_TURN_BYTES or _check_sum(block, size) != check_sum:
        raise TurnDamaged(number)
    field = _NUMBER_TAG + varint(number)
    return StoredTurn(messages, bool(flags & _CONTINUES), number, size + len(field), block, field)


def plain_element(element: bytes) -> bytes:
    """Returns the element as it is when nothing is compressed. Raises `TurnDamaged`."""
    stored = stored_turn(element)
    if not stored.number_field:
        return element
    messages, flags, number, token, id_sum = _HEADER.unpack_from(element)
    return _HEADER.pack(messages, flags & ~_COMPRESSED, number, token, id_sum) + stored.turn()


def number_of(element: bytes) -> int:
    """Returns a stored turn's number. Raises `TurnDamaged`."""
    return _header(element)[2]


def message_count_of(element: bytes) -> int:
    """Returns how many messages a stored turn has. Raises `TurnDamaged`."""
    return _header(element)[0]


def token_of(element: bytes) -> int:
    """Returns the fencing token of the lease that a stored turn was committed under. Raises `TurnDamaged`."""
    return _header(element)[3]


def id_sum_of(element: bytes) -> int:
    """Returns the check sum of a stored turn's id. Raises `TurnDamaged`."""
    return _header(element)[4]


def id_sum(turn_id: str) -> int:
    """Returns the check sum of a turn id for the header of its stored turn."""
    return zlib.crc32(turn_id.encode())


def _header(element: bytes) -> tuple[int, int, int, int, int]:
    try:
        return _HEADER.unpack_from(element)
    except struct.error as error:
        raise TurnDamaged(0) from error


def _check_sum(block: bytes, size: int) -> int:
    return zlib.crc32(block, size)
