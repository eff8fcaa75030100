"""The SSE parser against every way a network can cut a stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.providers.sse import MAX_EVENT_BYTES, EventTooLarge, SseParser

STREAM = (
    b': comment\r\n\r\ndata: {"a": 1}\n\nevent: x\ndata:two\r\n\r\nid: 7\ndata: l1\ndata: l2\n\n\n\ndata: [DONE]\n\n'
)
EVENTS = [b'{"a": 1}', b"two", b"l1\nl2", b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    parser = SseParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    found = [event for a, b in pairwise(edges) for event in parser.feed(STREAM[a:b])]
    assert found == EVENTS


def test_an_unfinished_event_is_not_given_out() -> None:
    assert SseParser().feed(b"data: half\n") == []


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_without_end_is_refused(chunk: bytes) -> None:
    parser = SseParser()
    with pytest.raises(EventTooLarge):
        for _ in range(MAX_EVENT_BYTES // 1000 + 10):
            parser.feed(chunk)
