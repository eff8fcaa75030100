"""The scripted model behind OpenAI's HTTP API, on a thread of this process: it costs a start nothing.

The models that a wheel carries are too small to call tools. This one is no language model (see `script`), and is there
so that a fresh system can show a tool call from end to end.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from parley_cli.embedded.script import MODEL_NAME, Call, Json, reply
from parley_cli.errors import PortTaken
from parley_cli.processes.ports import LOOPBACK, is_free

MAX_REQUEST_BYTES = 16 * 2**20
IDLE_SECONDS = 120.0
"""How long a connection may be silent."""


class ScriptedModel:
    """The server on the loopback interface, from `start` to `stop`. Both may be called again."""

    name = "scripted model"
    provider = "scripted"
    """Its name in agent configs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible API, `/v1` included."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    def start(self) -> None:
        """Serve from now on; raises PortTaken."""
        if self._server is not None:
            return
        if not is_free(self.port):
            raise PortTaken(self.name, self.port)
        self._server = _Server((LOOPBACK, self.port), _Handler)
        threading.Thread(target=self._server.serve_forever, name=self.name, daemon=True).start()

    def stop(self) -> None:
        """Stops listening; answers that are being sent may be cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer that it is healthy, or which model there is."""
        if self.path == "/health":
            self._send(HTTPStatus.OK, {"status": "ok"})
        elif self.path == "/v1/models":
            model = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "parley"}
            self._send(HTTPStatus.OK, {"object": "list", "data": [model]})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"no {self.path} here")

    def do_POST(self) -> None:
        """Answer a chat completion, streamed or whole."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
            self.close_connection = True
            self._refuse(HTTPStatus.BAD_REQUEST, f"a body of up to {MAX_REQUEST_BYTES} bytes, with its length, please")
            return
        body = self.rfile.read(int(length))
        if self.path != "/v1/chat/completions":
            self._refuse(HTTPStatus.NOT_FOUND, f"no {self.path} here")
            return
        try:
            request = json.loads(body)
            answer = reply(request)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"not a chat completion: {error}")
            return
        usage = _usage(body, answer)
        if request.get("stream"):
            asked = (request.get("stream_options") or {}).get("include_usage")
            self._stream(answer, usage if asked else None)
        else:
            self._send(HTTPStatus.OK, _completion(answer, usage))

    def _stream(self, answer: str | Call, usage: Json | None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head = _head("chat.completion.chunk")
        frames = [json.dumps(head | {"choices": [choice], "usage": None}) for choice in _choices(answer)]
        if usage is not None:
            frames.append(json.dumps(head | {"choices": [], "usage": usage}))
        for frame in (*frames, "[DONE]"):
            data = f"data: {frame}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def _send(self, status: HTTPStatus, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keeps the terminal of `parley up` free."""


def _head(kind: str) -> Json:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": MODEL_NAME}


def _usage(body: bytes, answer: str | Call) -> Json:
    """Returns the counts of words, since a script has no tokens."""
    sent, made = len(body.split()), len((answer if isinstance(answer, str) else answer.arguments).split())
    return {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}


def _tool_call(call: Call) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _completion(answer: str | Call, usage: Json) -> Json:
    message: Json = {"role": "assistant", "content": None}
    message |= {"content": answer} if isinstance(answer, str) else {"tool_calls": [_tool_call(answer)]}
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
    return _head("chat.completion") | {"choices": [choice], "usage": usage}


def _choices(answer: str | Call) -> Iterator[Json]:
    """Yields the choice of each chunk: the text word by word, or the call."""
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    if isinstance(answer, str):
        deltas += [{"content": word} for word in answer.replace(" ", " \0").split("\0")]
    else:
        deltas.append({"tool_calls": [{"index": 0, **_tool_call(answer)}]})
    for delta in deltas:
        yield {"index": 0, "delta": delta, "finish_reason": None}
    yield {"index": 0, "delta": {}, "finish_reason": _finish(answer)}


def _finish(answer: str | Call) -> str:
    return "stop" if isinstance(answer, str) else "tool_calls"
