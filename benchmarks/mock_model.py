"""An OpenAI-compatible upstream that is never the bottleneck, and checks what it is sent.

A raw asyncio protocol with httptools on uvloop, in a process of its own: `python -m benchmarks.mock_model`. It prints
its port. For each `/v1/chat/completions` it checks that the prompt is the instructions, then exactly the turns of one
session that the model's profile asks for, in order, each answered but the last. `GET /_log` returns the counts and the
first fault, `POST /_reset` forgets them.
"""

import argparse
import asyncio
from functools import lru_cache
from typing import Any

import httptools
import msgspec
import uvloop

from benchmarks.conversation import INSTRUCTIONS, TOOL, Profile, reply_tag, tag_in, user_tag

_KEEP = b"connection: keep-alive\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n" + _KEEP + b"\r\n"


class PromptMessage(msgspec.Struct):
    """One message of a prompt."""

    role: str
    content: str | None = None
    tool_calls: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


class CompletionRequest(msgspec.Struct):
    """What the mock reads of a request."""

    model: str
    messages: list[PromptMessage]
    stream: bool = False
    stream_options: dict[str, bool] = {}
    tools: list[msgspec.Raw] = []


class Log(msgspec.Struct):
    """What the mock has seen since the last reset."""

    calls: int = 0
    streamed: int = 0
    faults: int = 0
    first_fault: str = ""


_decode = msgspec.json.Decoder(CompletionRequest).decode
_encode = msgspec.json.Encoder().encode
_profile = lru_cache(maxsize=64)(Profile.parse)


def said_of(messages: list[PromptMessage]) -> list[PromptMessage]:
    """Returns the messages without calls of tools and their results."""
    return [message for message in messages if message.role != "tool" and not message.tool_calls]


def calling_answer(body: CompletionRequest, turn: int) -> bytes:
    """Returns the response that calls the tool."""
    function = {"name": TOOL, "arguments": f'{{"turn":{turn}}}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": function}],
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    answer = {"id": "chatcmpl-mock", "object": "chat.completion", "created": 1_700_000_000, "model": body.model}
    return _response(b"200 OK", _encode({**answer, "choices": choices, "usage": usage}))


def fault_of(messages: list[PromptMessage], profile: Profile, session: int, turn: int) -> str:
    """Returns what is wrong with a prompt, or an empty string."""
    if messages[0].role != "system" or messages[0].content != INSTRUCTIONS:
        return "the instructions are not first"
    first = profile.first_turn(turn)
    said = messages[1:]
    if len(said) != 2 * (turn - first) + 1:
        return f"turn {turn} of session {session} carries {len(said)} messages, not {2 * (turn - first) + 1}"
    for at, message in enumerate(said):
        number = first + at // 2
        role, tag = ("assistant", reply_tag) if at % 2 else ("user", user_tag)
        if message.role != role or not (message.content or "").startswith(tag(session, number)):
            return f"turn {turn} of session {session}: message {at + 1} is not turn {number}'s of the {role}"
    return ""


def whole_answer(body: CompletionRequest, profile: Profile, session: int, turn: int) -> bytes:
    """Returns the response to a plain request."""
    answer = _encode(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": body.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": profile.reply(session, turn)},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 32, "total_tokens": 132},
        }
    )
    return _response(b"200 OK", answer)


def streamed_answer(body: CompletionRequest, profile: Profile, session: int, turn: int) -> list[bytes]:
    """Returns the response to a streamed request: the head with the role, the pieces, the end."""
    head = b'data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1700000000,"model":%b,' % _encode(
        body.model
    )
    choice = head + b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
    parts = [_STREAM_HEAD + _chunk(choice % (b'{"role":"assistant","content":""}', b"null"))]
    pieces = profile.pieces(session, turn)
    parts += [_chunk(choice % (b'{"content":%b}' % _encode(piece), b"null")) for piece in pieces]
    end = choice % (b"{}", b'"stop"')
    if body.stream_options.get("include_usage"):
        end += head + b'"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":32,"total_tokens":132}}\n\n'
    parts.append(_chunk(end + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return parts


class Connection(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._path = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is no HTTP ends the connection."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """Begin a request."""
        self._path, self._body = url, []

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        if self._path == b"/v1/chat/completions":
            self._complete(b"".join(self._body))
        elif self._path == b"/_log":
            self._transport.write(_response(b"200 OK", _encode(self._log)))
        elif self._path == b"/_reset":
            self._log.calls = self._log.streamed = self._log.faults = 0
            self._log.first_fault = ""
            self._transport.write(_response(b"200 OK", b"{}"))
        else:
            self._transport.write(_response(b"404 Not Found", b"{}"))

    def _complete(self, data: bytes) -> None:
        try:
            body = _decode(data)
            profile = _profile(body.model)
            said = said_of(body.messages)
            session, turn = tag_in(said[-1].content or "")
        except (msgspec.MsgspecError, ValueError, IndexError) as error:
            self._note(str(error))
            self._transport.write(_response(b"400 Bad Request", b'{"error":{"message":"not of this benchmark"}}'))
            return
        self._log.calls += 1
        self._log.streamed += body.stream
        if fault := fault_of(said, profile, session, turn):
            self._note(fault)
        if body.tools and body.messages[-1].role != "tool":
            self._later(profile.delay, calling_answer(body, turn))
            return
        if not body.stream:
            self._later(profile.delay, whole_answer(body, profile, session, turn))
            return
        parts = streamed_answer(body, profile, session, turn)
        if not profile.chunk_delay:
            self._later(profile.delay, b"".join(parts))
            return
        # The pieces are one chunk delay apart; the end comes with the last of them.
        *parts, end = parts
        parts[-1] += end
        for number, part in enumerate(parts):
            self._later(profile.delay + number * profile.chunk_delay, part)

    def _later(self, milliseconds: int, data: bytes) -> None:
        if milliseconds:
            self._loop.call_later(milliseconds / 1000, self._write, data)
        else:
            self._transport.write(data)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _note(self, fault: str) -> None:
        self._log.faults += 1
        self._log.first_fault = self._log.first_fault or fault


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _response(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        _KEEP,
        body,
    )


async def _serve(port: int) -> None:
    log = Log()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(log), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    uvloop.run(_serve(arguments.parse_args().port))
