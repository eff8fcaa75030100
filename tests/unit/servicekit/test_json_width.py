"""How many values JSON holds."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.json_width import ValueCount, is_wider_than

MANY = 1_000_000
WIDE = [b"{},", b"1,", b'"",', b'"a":1,', b"[", b'{"\\\\":', b'""', b'"a" ']


@pytest.mark.parametrize("piece", WIDE)
def test_what_is_wide_is_not_read_to_its_end(piece: bytes) -> None:
    begun = time.process_time()
    assert is_wider_than(b"[" + piece * MANY + b"," * 1000, 1000)
    assert time.process_time() - begun < 2.0


@pytest.mark.parametrize(("values", "wide"), [(999, False), (1000, True)])
def test_values_are_counted_and_texts_are_not_looked_into(values: int, wide: bool) -> None:
    text = "{,[" * MANY + '\\"' * 1000
    assert is_wider_than(json.dumps({"text": text, "list": [1] * values}).encode(), 1001) is wide
    named = {f"{number}": f"{number}" for number in range(values)}
    assert is_wider_than(json.dumps({"text": text, "named": named}).encode(), 1001) is wide


def test_a_text_without_an_end_is_read_once() -> None:
    begun = time.process_time()
    assert not is_wider_than(b'"' + b"," * MANY + b'\\"' * MANY, 1000)
    assert time.process_time() - begun < 4.0


LETTERS = st.text(alphabet='a"\\\\,[]{}:\n', max_size=12)
JSON = st.recursive(LETTERS | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(LETTERS, inner))


@given(JSON, st.integers(1, 7), st.integers(0, 40))
def test_parts_hold_what_the_whole_holds(content: object, size: int, maximum: int) -> None:
    body = json.dumps(content, ensure_ascii=False).encode()
    count = ValueCount()
    for start in range(0, len(body), size):
        count.add(body[start : start + size])
    assert count.exceeds(maximum) == is_wider_than(body, maximum)


def test_parts_are_read_once() -> None:
    begun, count = time.process_time(), ValueCount()
    for part in (b'"' + b'\\"' * MANY, b"\\" * (2 * MANY + 1), b"," * MANY, b'"' + b"[" * 1000):
        count.add(part)
    assert (count.exceeds(999), count.exceeds(1000)) == (True, False)
    assert time.process_time() - begun < 4.0
