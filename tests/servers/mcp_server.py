"""MCP servers made with the official SDK, which record the calls that they get; over HTTP on a thread, or over stdio.

`python -m tests.servers.mcp_server` serves on stdin and stdout.
"""

import asyncio
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import ToolAnnotations

from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port

WAIT_SECONDS = 60.0


@dataclass
class Call:
    """One call as the server saw it."""

    tool: str
    arguments: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cancelled: bool = False
    request_id: object = None


class Recorder:
    """The calls of one server, which may be started again."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.requests: list[tuple[str, str]] = []
        """HTTP method and MCP method of each request, as far as headers say."""
        self.release = threading.Event()

    def note(self, context: Context[Any, Any], tool: str, **arguments: Any) -> Call:
        """Records a call."""
        meta = context.request_context.meta or {}
        headers = {name.lower(): text for name, text in (context.headers or {}).items()}
        call = Call(tool, arguments, dict(meta), headers, request_id=context.request_context.request_id)
        self.calls.append(call)
        return call


def default_tools(recorder: Recorder) -> MCPServer[Any]:
    """Returns a server whose tools do what tests of clients need; structured output only where a tool says so."""
    server: MCPServer[Any] = MCPServer("tools-under-test", version="1", log_level="CRITICAL")

    @server.tool(description="Adds two numbers.", annotations=ToolAnnotations(read_only_hint=True))
    async def add(a: int, b: int, context: Context[Any, Any]) -> str:
        recorder.note(context, "add", a=a, b=b)
        return str(a + b)

    @server.tool(description="Charges a card.")
    async def charge(amount: int, context: Context[Any, Any]) -> str:
        recorder.note(context, "charge", amount=amount)
        return f"charged {amount}"

    @server.tool(description="Fails.", annotations=ToolAnnotations(idempotent_hint=True))
    async def fail(context: Context[Any, Any]) -> str:
        recorder.note(context, "fail")
        raise ValueError("the stars are not right")

    @server.tool(description="Answers when the test lets it.")
    async def hang(context: Context[Any, Any]) -> str:
        call = recorder.note(context, "hang")
        try:
            while not recorder.release.is_set():
                await asyncio.sleep(0.01)
        except BaseException:
            call.cancelled = True
            raise
        return "released"

    @server.tool(description="Answers with so many bytes.", structured_output=False)
    async def big(size: int, context: Context[Any, Any]) -> str:
        recorder.note(context, "big", size=size)
        return "x" * size

    @server.tool(description="Returns what it was sent in confidence.", structured_output=False)
    async def echo_headers(context: Context[Any, Any]) -> str:
        recorder.note(context, "echo_headers")
        return repr(dict(context.headers or {}))

    _add_odd_tools(server, add)
    return server


def _add_odd_tools(server: MCPServer[Any], add: Callable[..., Any]) -> None:
    @server.tool(description="Returns a picture.", structured_output=False)
    async def picture() -> Image:
        return Image(data=b"\x89PNG" * 100, format="png")

    @server.tool(description="Returns structured content.")
    async def structured() -> dict[str, int]:
        return {"answer": 42}

    @server.tool(description="Tells clients that the tools have changed, and adds one.", structured_output=False)
    async def grow(context: Context[Any, Any]) -> str:
        server.add_tool(add, name="grown", description="It was not there before.")
        await context.notify_tools_changed()
        if (context.protocol_version or "") < "2026":
            await context.session.send_tool_list_changed()
        return "grown"

    @server.tool(description="Asks the user.", structured_output=False)
    async def ask(context: Context[Any, Any]) -> str:
        from pydantic import BaseModel

        class Answer(BaseModel):
            name: str

        return repr(await context.elicit("What is your name?", Answer))


class _Eras:
    """Refuses the protocol of 2026-07-28 where a test asks for it, as older servers do; records requests."""

    def __init__(self, app: Any, recorder: Recorder, *, modern: bool) -> None:
        self._app = app
        self._recorder = recorder
        self._modern = modern

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): text.decode() for name, text in scope["headers"]}
            self._recorder.requests.append((scope["method"], headers.get("mcp-method", "")))
            if not self._modern and headers.get("mcp-protocol-version", "") >= "2026":
                await send(
                    {"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]}
                )
                await send({"type": "http.response.body", "body": b"Bad Request: Unsupported protocol version"})
                return
        await self._app(scope, receive, send)


class McpServerUnderTest:
    """An MCP server over streamable HTTP on a thread; `with` it. `modern`: whether it speaks 2026-07-28, too."""

    def __init__(
        self,
        make: Callable[[Recorder], MCPServer[Any]] = default_tools,
        *,
        modern: bool = True,
        port: int = 0,
        json_response: bool = False,
        stateless: bool = False,
    ) -> None:
        self.recorder = Recorder()
        self.port = port
        self._make = make
        self.modern = modern
        self._json_response = json_response
        self._stateless = stateless
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loops: queue.SimpleQueue[asyncio.AbstractEventLoop] = queue.SimpleQueue()

    @property
    def url(self) -> str:
        """Where it speaks MCP."""
        return f"http://{LOOPBACK}:{self.port}/mcp"

    def start(self, make: Callable[[Recorder], MCPServer[Any]] | None = None) -> None:
        """Serves, on the same port as before; `make` is another release."""
        served = (make or self._make)(self.recorder)
        app = _Eras(
            served.streamable_http_app(json_response=self._json_response, stateless_http=self._stateless),
            self.recorder,
            modern=self.modern,
        )
        # Of protocol TCP by name: asyncio leaves Nagle's algorithm on for connections of any other listener.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = self.port or free_port()  # no port of its clients, who could have it while this is stopped
        listener.bind((LOOPBACK, self.port))
        listener.listen(128)
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=0, ws="none")
        )
        self._thread = threading.Thread(target=self._run, args=(self._server, listener), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline:
                raise RuntimeError("the MCP server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it as a crash does: connections are closed, calls go unanswered. Idempotent."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        loop = self._loops.get(timeout=WAIT_SECONDS)
        loop.call_soon_threadsafe(self._break_off, server)
        thread.join(WAIT_SECONDS)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.recorder.release.set()
        self.stop()

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        with asyncio.Runner() as runner:
            self._loops.put(runner.get_loop())
            runner.run(server.serve([listener]))

    @staticmethod
    def _break_off(server: uvicorn.Server) -> None:
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        server.force_exit = True
        server.should_exit = True


def main() -> None:
    """Serves on stdin and stdout. `PARLEY_TEST_STDERR` is written to stderr first."""
    sys.stderr.write(os.environ.get("PARLEY_TEST_STDERR", ""))
    sys.stderr.flush()
    server = default_tools(Recorder())

    @server.tool(description="Ends the process.", structured_output=False)
    async def die() -> str:
        os._exit(3)

    @server.tool(description="Shows an environment variable, or all names.", structured_output=False)
    async def environment(name: str = "") -> str:
        return os.environ.get(name, "") if name else ",".join(sorted(os.environ))

    @server.tool(description="The process and its directory.", structured_output=False)
    async def process() -> str:
        return f"{os.getpid()} {os.getcwd()}"

    asyncio.run(server.run_stdio_async())


if __name__ == "__main__":
    main()
