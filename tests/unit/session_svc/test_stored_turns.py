"""How turns stand in Redis: what is written is what is read, and damage is an error with a name."""

import random
import struct
import zlib

import pytest
from benchmarks.prose import prose
from hypothesis import example, given
from hypothesis import strategies as st
from lz4.block import compress

from servicekit.errors import Code, ServiceError
from servicekit.wire import varint
from session_svc.model.errors import TurnDamaged
from session_svc.model.rules import MAX_TURN_BYTES
from session_svc.redis_store.turn_codec import (
    MIN_TURN_BYTES,
    body_of,
    number_of,
    plain_element,
    stored_turn,
    token_of,
)

HEADER = struct.Struct(">HBIQI")
PROSE = prose(0, 2000).encode()
COMPRESSED = 2

texts = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda place, size: prose(place, size).encode(), st.integers(0, 60_000), st.integers(0, 5000)),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=40), st.integers(0, 200)),
)


def element_of(body: bytes, flags: int, number: int = 7, *, messages: int = 2, token: int = 5) -> bytes:
    """What scripts/commit.lua stores."""
    field = b"" if flags & COMPRESSED else b"\x10" + varint(number)
    return HEADER.pack(messages, flags, number, token, 9) + body + field


@given(turn=texts, number=st.integers(1, 2**32 - 1), continues=st.booleans(), compressing=st.booleans())
@example(turn=b"a" * MAX_TURN_BYTES, number=1, continues=True, compressing=True)
def test_a_turn_is_read_as_it_was_given_however_it_is_stored(
    turn: bytes, number: int, continues: bool, compressing: bool
) -> None:
    body, flags = body_of(turn, continues=continues, compressing=compressing)
    element = element_of(body, flags, number)
    read = stored_turn(element)
    numbered = turn + b"\x10" + varint(number)
    assert (read.message_count, read.continues, read.number) == (2, continues, number)
    assert read.turn() == numbered
    assert read.size == len(numbered)
    assert (number_of(element), token_of(element)) == (number, 5)
    assert len(body) <= len(turn)
    assert plain_element(element) == element_of(turn, int(continues), number)


@pytest.mark.parametrize(
    ("turn", "compressed"),
    [
        (PROSE, True),
        (PROSE[: MIN_TURN_BYTES - 1], False),
        (b"a" * (MIN_TURN_BYTES - 1), False),
        (b"a" * MIN_TURN_BYTES, True),
        (random.Random(0).randbytes(5000), False),
        (b"a" * MAX_TURN_BYTES, True),
        (b"a" * (MAX_TURN_BYTES + 1), False),
    ],
    ids=["prose", "short prose", "short", "just long enough", "random", "largest", "too large to be read"],
)
def test_it_is_compressed_where_that_pays(turn: bytes, compressed: bool) -> None:
    body, flags = body_of(turn, continues=False, compressing=True)
    assert (flags, len(body) < len(turn)) == ((COMPRESSED, True) if compressed else (0, False))
    assert body_of(turn, continues=True, compressing=False) == (turn, 1)


@given(place=st.integers(0, len(PROSE) - 100), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_compressed_turn_is_noticed(place: int, bit: int) -> None:
    element = bytearray(element_of(*body_of(PROSE, continues=False, compressing=True)))
    element[HEADER.size + place % (len(element) - HEADER.size)] ^= 1 << bit
    with pytest.raises(TurnDamaged):
        stored_turn(bytes(element)).turn()


@given(kept=st.integers(0, 10_000))
def test_a_compressed_turn_that_is_cut_off_is_noticed(kept: int) -> None:
    element = element_of(*body_of(PROSE, continues=False, compressing=True))
    with pytest.raises(TurnDamaged):
        stored_turn(element[: kept % len(element)]).turn()


@given(body=st.binary(max_size=100), size=st.integers(0, 2**32 - 1))
def test_what_has_a_right_check_sum_and_is_no_turn_is_an_error_too(body: bytes, size: int) -> None:
    """And never makes more of itself than the largest turn."""
    element = element_of(struct.pack(">II", zlib.crc32(body, size), size) + body, COMPRESSED)
    try:
        read = stored_turn(element).turn()
    except TurnDamaged:
        return
    assert size <= MAX_TURN_BYTES
    assert len(read) == size + 2


@pytest.mark.parametrize("flags", [4, 8, 6, 255])
def test_a_flag_of_a_later_release_is_an_error_not_a_guess(flags: int) -> None:
    with pytest.raises(TurnDamaged) as caught:
        stored_turn(element_of(b"what it may be", flags, 12))
    error: ServiceError = caught.value
    assert (error.code, error.reason, error.metadata) == (Code.DATA_LOSS, "TURN_DAMAGED", {"turn_number": "12"})
    assert "what it may be" not in str(error)


def test_a_small_turn_takes_less_than_a_fast_search_would_leave() -> None:
    turns = [prose(place, 673).encode() for place in range(0, 50_000, 1000)]
    stored = sum(len(body_of(turn, continues=False, compressing=True)[0]) for turn in turns)
    assert stored < 0.98 * sum(8 + len(compress(turn, store_size=False)) for turn in turns)
