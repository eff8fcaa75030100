"""The SSE parser against every way a network can cut a stream."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.providers.sse import MAX_EVENT_BYTES, MAX_EVENT_LINES, EventTooLarge, SseParser

STREAM = (
    b': comment\r\n\r\ndata: {"a": 1}\n\nevent: x\ndata:two\r\n\r\nid: 7\ndata: l1\ndata: l2\n\n\n\ndata: [DONE]\n\n'
)
EVENTS = [b'{"a": 1}', b"two", b"l1\nl2", b"[DONE]"]
PLAIN_STREAM = b'data: {"a": 1}\n\ndata: two\n\ndata: \n\ndata: [DONE]\n\n'
PLAIN_EVENTS = [b'{"a": 1}', b"two", b"", b"[DONE]"]
AT_MOST = max(len(STREAM), len(PLAIN_STREAM))


@pytest.mark.parametrize(("stream", "events"), [(STREAM, EVENTS), (PLAIN_STREAM, PLAIN_EVENTS)])
@given(cuts=st.lists(st.integers(0, AT_MOST), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_arrive(stream: bytes, events: list[bytes], cuts: list[int]) -> None:
    parser = SseParser()
    edges = [0, *sorted(cuts), AT_MOST]
    found = [event for a, b in pairwise(edges) for event in parser.feed(stream[a:b])]
    assert found == events


def one_byte_at_a_time(chunk: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for at in range(len(chunk)) for event in parser.feed(chunk[at : at + 1])]


@given(
    st.lists(st.sampled_from([b"data: a", b"data:b", b"data: ", b"x", b"\n", b"\n\n", b"\r\n", b": c"]), max_size=12)
)
def test_a_chunk_of_whole_events_has_no_meaning_of_its_own(parts: list[bytes]) -> None:
    chunk = b"data: 0\n\n" + b"".join(parts) + b"\n\n"
    assert SseParser().feed(chunk) == one_byte_at_a_time(chunk)


def test_an_unfinished_event_is_not_given_out() -> None:
    assert SseParser().feed(b"data: half\n") == []


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_without_end_is_refused(chunk: bytes) -> None:
    parser = SseParser()
    with pytest.raises(EventTooLarge):
        for _ in range(MAX_EVENT_BYTES // 1000 + 10):
            parser.feed(chunk)


@pytest.mark.parametrize("line", [b"data:\n", b"data: x\n", b"x", b": c\n", b"\n", b"\r"])
def test_time_and_memory_go_with_the_bytes(line: bytes) -> None:
    parser = SseParser()
    parsed = 0
    try:
        for _ in range(64):
            parser.feed(line * (64 * 1024 // len(line)))
            parsed += 1
    except EventTooLarge:
        assert parsed < 64
    else:
        assert len(parser.close()) <= 1


@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_a_stream_may_begin_with_a_byte_order_mark_and_end_its_lines_with_carriage_returns(cuts: list[int]) -> None:
    stream = b"\xef\xbb\xbfdata: a\r\rdata: b\r\n\r\ndata\r\rdata: c"
    parser = SseParser()
    edges = [0, *sorted(cuts), len(stream)]
    found = [event for a, b in pairwise(edges) for event in parser.feed(stream[a:b])]
    assert [*found, *parser.close()] == [b"a", b"b", b"", b"c"]


def test_an_event_has_so_many_lines() -> None:
    parser = SseParser()
    assert parser.feed(b"data:\n" * MAX_EVENT_LINES + b"\n") == [b"\n" * (MAX_EVENT_LINES - 1)]
    with pytest.raises(EventTooLarge):
        parser.feed(b"data:\n" * (MAX_EVENT_LINES + 1))
