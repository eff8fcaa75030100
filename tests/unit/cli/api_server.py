"""A server that answers what a test says, and the chunks of a streamed answer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Answers `METHOD path?query` from a table and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.credentials: list[str | None] = []
        self.projects: list[str | None] = []
        self.reached = threading.Event()
        self.hold: threading.Event | None = None
        """Until it is set, nothing is answered."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = f"{self.command} {self.path}"
        self.server.asked.append((asked, json.loads(body) if body else None))
        self.server.credentials.append(self.headers.get("Authorization"))
        self.server.projects.append(self.headers.get("X-Project-ID"))
        self.server.reached.set()
        if self.server.hold is not None:
            self.server.hold.wait(60)
        status, answer = self.server.answers.get(asked, (501, {"error": {"code": "no_answer", "message": asked}}))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("X-Session-ID", "s-9")
        self.send_header("Content-Length", str(len(data) if status != 204 else 0))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def sse(*frames: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(frame)}\n\n" for frame in frames] + (["data: [DONE]\n\n"] if done else [])
    return (": keep-alive\n\n" + "".join(lines)).encode()


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
