"""A provider of models that sends whatever bytes an attack consists of; the model asked for names the attack."""

import contextlib
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator

from parley_cli.processes.ports import LOOPBACK

GOOD = "good"
SECONDS = 20.0
"""How long an attack that goes on without end is tried; the gateway ends it long before."""
_OK = b"HTTP/1.1 200 OK\r\n"
_JSON, _EVENTS = b"content-type: application/json\r\n", b"content-type: text/event-stream\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"

Attack = Callable[[socket.socket], None]


def completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "1", "object": "chat.completion", "choices": choices, "usage": usage}).encode()


def whole(body: bytes, head: bytes = _JSON) -> bytes:
    return _OK + head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def good(connection: socket.socket) -> None:
    connection.sendall(whole(completion("good")))


def endless(connection: socket.socket, start: bytes, piece: bytes) -> None:
    connection.settimeout(SECONDS)
    connection.sendall(start)
    for _ in range(max(256 * 1024 * 1024 // len(piece), 1)):
        connection.sendall(piece)


def trailing(connection: socket.socket) -> None:
    """An answer, and behind it one for somebody else."""
    connection.sendall(whole(completion("good")) + whole(completion("poison")))


def gzip_bomb(connection: socket.socket) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join([packer.compress(b" " * 1024 * 1024) for _ in range(64)]) + packer.flush()
    connection.sendall(whole(packed, _JSON + b"content-encoding: gzip\r\n"))


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
_ATTACKS: dict[str, Attack] = {
    GOOD: good,
    "data-lines": lambda one: endless(one, _STREAM, chunk(b"data:\n" * 700_000)),
    "one-event": lambda one: endless(one, _STREAM, chunk(b"data: " + b"x" * 1_000_000)),
    "comments": lambda one: endless(one, _STREAM, chunk(b": x\n\n" * 200_000)),
    "tool-calls": lambda one: endless(one, _STREAM, tool_calls()),
    "arguments": lambda one: endless(one, _STREAM, pieces(tool_calls=[ARGUMENT])),
    "audio": lambda one: endless(one, _STREAM, pieces(audio={"data": "AAAA"})),
    "trailers": lambda one: endless(one, _OK + _JSON + _CHUNKED + b"0\r\n", b"a: " + b"x" * 1000 + b"\r\n"),
    "headers": lambda one: endless(one, _OK, b"a: " + b"x" * 1000 + b"\r\n"),
    "status-line": lambda one: endless(one, b"HTTP/1.1 200 ", b"x" * 65536),
    "body": lambda one: endless(one, _OK + _JSON + _CHUNKED, chunk(b" " * 1_000_000)),
    "chunk-extension": lambda one: endless(one, _OK + _JSON + _CHUNKED + b"1;", b"x" * 65536),
    "small-chunks": lambda one: endless(one, _OK + _JSON + _CHUNKED, chunk(b" ") * 10_000),
    "informational": lambda one: endless(one, b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "gzip": gzip_bomb,
    "trailing": trailing,
    "nan": lambda one: one.sendall(whole(completion("x").replace(b'"prompt_tokens": 1', b'"prompt_tokens": NaN'))),
    "huge": lambda one: one.sendall(whole(completion("x").replace(b": 1,", b": 1" + b"0" * 5000 + b","))),
    "deep": lambda one: one.sendall(whole(b'{"choices":' * 100_000)),
    "redirect": lambda one: one.sendall(b"HTTP/1.1 307 x\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
}
ATTACKS = sorted(_ATTACKS.keys() - {GOOD})


@contextlib.contextmanager
def hostile_provider() -> Iterator[str]:
    """Serve on a thread for each connection; yields the base URL."""
    with socket.create_server((LOOPBACK, 0), backlog=64) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}/v1"


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as reader:
        while line := reader.readline():
            length = 0
            while line not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
                line = reader.readline()
            asked = json.loads(reader.read(length) or b"{}")
            attack = _ATTACKS.get(asked.get("model", GOOD), good)
            attack(connection)
            if attack not in (good, trailing):
                return
