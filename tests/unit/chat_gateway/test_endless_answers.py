"""What a provider may send without end in one answer: everything counts, and each piece costs the same."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chat_gateway.model.provider_errors import ProviderBadResponse
from chat_gateway.model.turn import NO_DETAILS, Delta
from chat_gateway.providers import http_provider
from chat_gateway.providers.adapter import MAX_TOOL_CALLS, PIECE_BYTES, AnswerStream, BadAnswer
from chat_gateway.providers.answered_media import Media
from chat_gateway.providers.anthropic.answer import MessageStream
from chat_gateway.providers.gemini.answer import ContentStream
from chat_gateway.providers.generous import add_counts
from chat_gateway.providers.openai.answer import CompletionStream
from chat_gateway.providers.openai.dialect import Dialects
from tests.unit.chat_gateway.raw_provider import CALL, LATER, Server, calling

CPU_SECONDS = 8.0
"""Of linear work that takes tenths of a second; what is quadratic takes minutes."""


@contextmanager
def in_linear_time() -> Iterator[None]:
    begun = time.process_time()
    yield
    assert time.process_time() - begun < CPU_SECONDS


def openai() -> CompletionStream:
    return CompletionStream("m", Dialects("compatible", {}).of("m"), "p")


def chunk(**delta: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def block(index: int, **content: Any) -> bytes:
    return json.dumps({"type": "content_block_start", "index": index, "content_block": content}).encode()


def parts(*said: dict[str, Any]) -> bytes:
    return json.dumps({"candidates": [{"content": {"parts": said}}]}).encode()


BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": ""},
    {"type": "thinking", "thinking": ""},
    {"type": "redacted_thinking"},
]


@pytest.mark.parametrize("content", BLOCKS)
def test_a_block_without_content_counts(content: dict[str, Any]) -> None:
    stream = MessageStream(CALL, "p")
    stream.add([event for n in range(100) for event in (block(n, **content), b'{"type": "content_block_stop"}')])
    assert stream.size >= 100 * PIECE_BYTES


@pytest.mark.parametrize("kind", ["thinking", "redacted_thinking"])
def test_whatever_is_kept_of_a_block_counts(kind: str) -> None:
    stream = MessageStream(CALL, "p")
    stream.add([block(0, type=kind, signature="x" * 5000)])
    assert stream.size >= 5000


def test_what_is_not_kept_of_a_text_does_not_count() -> None:
    stream = MessageStream(CALL, "p")
    stream.add([block(0, type="text", text="a", citations=["x" * 5000])])
    assert stream.size < 5000


def openai_call(number: int) -> bytes:
    return chunk(tool_calls=[{"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": "{"}}])


def anthropic_call(number: int) -> bytes:
    return block(number, type="tool_use", id=f"c{number}", name="f")


def gemini_call(number: int) -> bytes:
    return parts({"functionCall": {"name": "f", "id": f"c{number}"}})


@pytest.mark.parametrize(
    ("stream", "call"),
    [
        (openai(), openai_call),
        (MessageStream(CALL, "p"), anthropic_call),
        (ContentStream(CALL, "p"), gemini_call),
    ],
)
def test_one_call_too_many_ends_the_answer_at_once(stream: AnswerStream, call: Callable[[int], bytes]) -> None:
    stream.add([call(number) for number in range(MAX_TOOL_CALLS)])
    with pytest.raises(BadAnswer, match="more than 128 tool calls"):
        stream.add([call(MAX_TOOL_CALLS)])


def test_ids_and_names_of_calls_count() -> None:
    stream = openai()
    stream.add([chunk(tool_calls=[{"index": 0, "id": "x" * 5_000, "function": {"name": "f", "arguments": ""}}])])
    stream.add([chunk(tool_calls=[{"index": 0, "id": "x" * 5_000, "function": {"name": "f" * 3_000}}])])
    assert stream.size >= 8_000 + PIECE_BYTES


ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("x", {"id": "c", "name": "f"}),
    ("}", {"name": "f"}),
    ("{}", {"name": "f"}),
    ("{x}", {"id": "c"}),
    (" ", {"name": "f"}),
]


@pytest.mark.parametrize(("piece", "said"), ARGUMENTS)
def test_pieces_of_arguments_take_linear_time(piece: str, said: dict[str, Any]) -> None:
    given = {name: one for name, one in said.items() if name == "id"}

    def call(arguments: str) -> bytes:
        function = {"name": said.get("name"), "arguments": arguments}
        return chunk(tool_calls=[{"index": 0, **given, "function": function}])

    stream, event = openai(), call(piece)
    with in_linear_time():
        stream.add([call('{"a": "'), *[event] * 20_000])


def test_messages_behind_the_pieces_of_an_answer_take_linear_time() -> None:
    stream = openai()
    stream.add([chunk(content="a"), chunk(reasoning="b")] * 40_000)
    empty = json.dumps({"choices": [{"index": 0, "message": {"content": "c", "reasoning": "d"}}]}).encode()
    with in_linear_time():
        stream.add([empty] * 20_000)


def test_a_message_behind_the_pieces_of_an_answer_has_what_is_beyond_them() -> None:
    stream = openai()
    stream.add([chunk(content="ab"), chunk(content="c")])
    whole = {"choices": [{"message": {"content": "abcd"}, "finish_reason": "stop"}]}
    assert stream.add([json.dumps(whole).encode()]) == Delta("d")
    assert stream.answer().message.content == "abcd"


def test_pieces_of_audio_take_linear_time() -> None:
    media, piece = Media(), json.dumps({"id": "a", "data": "A" * 200, "transcript": "b"}).encode()
    with in_linear_time():
        for _ in range(25_000):
            media.take(b"", piece)
        said = json.loads(media.added(NO_DETAILS).audio)
    assert said == {"id": "a", "data": "A" * 5_000_000, "transcript": "b" * 25_000}
    with pytest.raises(BadAnswer, match="images and audio"):
        for _ in range(25_000):
            media.take(b"", b"{}")
        for _ in range(200_000):
            media.take(b"", b"{}")


def test_signatures_and_counts_are_bounded() -> None:
    stream = MessageStream(CALL, "p")
    stream.add([block(0, type="thinking", thinking="")])
    signature = {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}}
    stream.add([json.dumps(signature).encode()] * 100)
    assert stream.size >= 100 * PIECE_BYTES
    stream.add([b'{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}'])
    kept = stream.answer().message.provider_data
    assert kept is not None
    assert json.loads(kept.json)[0]["signature"] == "s" * 100
    counts: dict[str, int] = {"output_tokens": 1}
    for number in range(10_000):
        add_counts(counts, {f"x{number}": 1, "output_tokens": number})
    assert len(counts) < 100
    assert counts["output_tokens"] == 9_999


def test_the_end_said_again_and_again_costs_no_copy_of_the_answer() -> None:
    stream = MessageStream(CALL, "p")
    stream.add([block(0, type="redacted_thinking", data="x" * 200_000)])
    end = b'{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}'
    first = stream.add([end])
    assert first is not None
    assert first.provider_data is not None
    assert stream.add([end]) is None


def test_half_a_character_is_kept_by_the_number_of_its_call() -> None:
    stream = openai()
    for number in range(1000):
        call = {"index": "x" * 1000 + str(number), "function": {"name": "f", "arguments": "\ud83d"}}
        stream.add([chunk(tool_calls=[call])])
    assert len(stream._halves) <= 1


@pytest.mark.parametrize("stream", [openai(), MessageStream(CALL, "p"), ContentStream(CALL, "p")])
@pytest.mark.parametrize("said", [b"[" * 100_000, b'{"a": ' * 100_000, b'{"a": NaN, "b": ' + b"[" * 100_000])
def test_nesting_without_end_is_a_bad_answer(stream: AnswerStream, said: bytes) -> None:
    with pytest.raises(BadAnswer):
        stream.add([said])


async def test_what_is_read_of_one_stream_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_provider, "_MAX_STREAM_BYTES", 100_000)
    ignored = b'data: {"choices": [{"index": 1, "delta": {"content": "x"}}]}\n\n' * 100
    first = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + first + (ignored + LATER) * 1000)
    async with calling(server) as provider:

        async def take(delta: Delta) -> None:
            assert delta.content == "x"

        with pytest.raises(ProviderBadResponse, match="a stream of more than 100000 bytes"):
            await provider.complete(CALL, take)
