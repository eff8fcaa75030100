"""A provider of models that sends whatever bytes an attack consists of; the model asked for names the attack."""

import contextlib
import json
import zlib
from collections.abc import Iterator

from tests.hostile.server import Answer, Request, Wire, chunk, hostile_server

GOOD = "good"
_OK = b"HTTP/1.1 200 OK\r\n"
_JSON, _EVENTS = b"content-type: application/json\r\n", b"content-type: text/event-stream\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


def completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "1", "object": "chat.completion", "choices": choices, "usage": usage}).encode()


def whole(body: bytes, head: bytes = _JSON) -> bytes:
    return _OK + head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def good(wire: Wire) -> None:
    wire.send(whole(completion("good")))


def trailing(wire: Wire) -> None:
    """An answer, and behind it one for somebody else."""
    wire.send(whole(completion("good")) + whole(completion("poison")))


def gzip_bomb(wire: Wire) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join([packer.compress(b" " * 1024 * 1024) for _ in range(64)]) + packer.flush()
    wire.send(whole(packed, _JSON + b"content-encoding: gzip\r\n"))


def tool_calls() -> bytes:
    """Half a megabyte of calls, each with another index and a long id."""
    calls = [{"index": n, "id": f"{n}" * 1000, "function": {"name": "f", "arguments": "{"}} for n in range(100, 200)]
    choices = [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]
    return chunk(b"data: " + json.dumps({"id": "1", "choices": choices}).encode() + b"\n\n")


def pieces(**delta: object) -> bytes:
    """Many small pieces of one thing."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return chunk((b"data: " + json.dumps({"id": "1", "choices": choices}).encode() + b"\n\n") * 300)


ARGUMENT = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "1"}}
_STREAM = _OK + _EVENTS + _CHUNKED
_ATTACKS: dict[str, Answer] = {
    GOOD: good,
    "data-lines": lambda wire: wire.endless(_STREAM, chunk(b"data:\n" * 700_000)),
    "one-event": lambda wire: wire.endless(_STREAM, chunk(b"data: " + b"x" * 1_000_000)),
    "comments": lambda wire: wire.endless(_STREAM, chunk(b": x\n\n" * 200_000)),
    "tool-calls": lambda wire: wire.endless(_STREAM, tool_calls()),
    "arguments": lambda wire: wire.endless(_STREAM, pieces(tool_calls=[ARGUMENT])),
    "audio": lambda wire: wire.endless(_STREAM, pieces(audio={"data": "AAAA"})),
    "trailers": lambda wire: wire.endless(_OK + _JSON + _CHUNKED + b"0\r\n", b"a: " + b"x" * 1000 + b"\r\n"),
    "headers": lambda wire: wire.endless(_OK, b"a: " + b"x" * 1000 + b"\r\n"),
    "status-line": lambda wire: wire.endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "body": lambda wire: wire.endless(_OK + _JSON + _CHUNKED, chunk(b" " * 1_000_000)),
    "chunk-extension": lambda wire: wire.endless(_OK + _JSON + _CHUNKED + b"1;", b"x" * 65536),
    "small-chunks": lambda wire: wire.endless(_OK + _JSON + _CHUNKED, chunk(b" ") * 10_000),
    "informational": lambda wire: wire.endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "gzip": gzip_bomb,
    "trailing": trailing,
    "nan": lambda wire: wire.send(whole(completion("x").replace(b'"prompt_tokens": 1', b'"prompt_tokens": NaN'))),
    "huge": lambda wire: wire.send(whole(completion("x").replace(b": 1,", b": 1" + b"0" * 5000 + b","))),
    "deep": lambda wire: wire.send(whole(b'{"choices":' * 100_000)),
    "redirect": lambda wire: wire.send(b"HTTP/1.1 307 x\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
}
ATTACKS = sorted(_ATTACKS.keys() - {GOOD})


@contextlib.contextmanager
def hostile_provider() -> Iterator[str]:
    """Yields the base URL."""
    with hostile_server(_attack) as server:
        yield f"{server.url}/v1"


def _attack(request: Request) -> Answer:
    return _ATTACKS.get(json.loads(request.body or b"{}").get("model", GOOD), good)
