"""Answers of providers, whole and streamed, and whom a request of HTTP says that it is for."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from chat_gateway.http_edge.wire.targets import target_fault
from chat_gateway.model.turn import Message, Sampling
from chat_gateway.providers.adapter import Adapter, BadAnswer, ReportedError
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role
from tests.fuzz.inputs import foreign, with_foreign_members

_CALL = ModelCall("m", [Message(Role.USER, "hi")], Sampling())
_USAGE = {"input_tokens": 3, "output_tokens": 4}
_TOOL_USE = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
_BLOCKS: list[dict[str, Any]] = [{"type": "text", "text": "Hi"}, _TOOL_USE]
_ANTHROPIC: list[dict[str, Any]] = [
    {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": _BLOCKS,
        "stop_reason": "end_turn",
        "usage": _USAGE,
    },
    {"type": "message_start", "message": {"model": "m", "usage": _USAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": _BLOCKS[1]},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
]
_PARTS = [{"text": "Hi"}, {"functionCall": {"name": "n", "args": {"a": 1}}}, {"text": "so", "thought": True}]
_GEMINI: list[dict[str, Any]] = [
    {
        "candidates": [{"content": {"role": "model", "parts": _PARTS}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 1},
        "modelVersion": "m",
    },
    {"promptFeedback": {"blockReason": "SAFETY"}, "candidates": []},
    {"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}},
]


def _pieces(kind: list[dict[str, Any]]) -> st.SearchStrategy[list[bytes]]:
    good = [json.dumps(piece).encode() for piece in kind]
    foreign_member = st.sampled_from([piece for piece in kind if piece]).flatmap(with_foreign_members)
    return st.lists(st.sampled_from(good) | foreign_member | foreign(*good), min_size=1, max_size=6)


anthropic_pieces, gemini_pieces = _pieces(_ANTHROPIC), _pieces(_GEMINI)
heads = st.tuples(
    st.sampled_from([b"GET", b"CONNECT", b"OPTIONS"]),
    foreign(b"/a?b", b"http://x:80/a", b"*", b"http://[::1]/"),
    st.lists(foreign(b"x:80", b"[::1]:8080", b""), max_size=2),
    st.sampled_from(["1.0", "1.1"]),
)


def _answer(adapter: Adapter, pieces: list[bytes]) -> None:
    """Whole or in pieces: an answer of ours, or an error of ours."""
    for piece in pieces:
        with suppress(BadAnswer, ReportedError):
            answer = adapter.read(piece, _CALL)
            assert min(answer.usage.prompt_tokens, answer.usage.completion_tokens) >= 0
    stream = adapter.stream(_CALL)
    with suppress(BadAnswer, ReportedError):
        for piece in pieces:
            stream.add([piece])
            assert stream.size >= 0
        stream.answer()


def anthropic(pieces: list[bytes]) -> None:
    _answer(AnthropicAdapter("p"), pieces)


def gemini(pieces: list[bytes]) -> None:
    _answer(GeminiAdapter("p"), pieces)


def request_target(head: tuple[bytes, bytes, list[bytes], str]) -> None:
    method, target, hosts, version = head
    fault = target_fault(method, target, [(b"host", host) for host in hosts], version)
    assert fault is not None or len(hosts) <= 1
