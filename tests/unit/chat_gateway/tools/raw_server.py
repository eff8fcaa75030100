"""A tool server that speaks just as much MCP as a test gives it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Answer = Callable[[web.BaseRequest, dict[str, Any]], Awaitable[web.StreamResponse]]


def result(message: dict[str, Any], value: Any) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": value})


def tool(name: str = "t", **fields: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **fields}


class RawServer:
    """Speaks just as much MCP (2025-11-25) as a test gives it; `listing` and `calling` answer, `requests` are kept."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.tools: list[Any] = [tool()]
        self.listing: Answer = self._list
        self.calling: Answer = self._call
        self.unasked: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None
        """Answers the request for a stream of notifications; it has none where this is not given."""

    def methods(self) -> list[str]:
        return [str(message.get("method")) for message, _ in self.requests]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and self.unasked is not None:
            return await self.unasked(request)
        if request.method != "POST":
            return web.Response(status=405)
        message = json.loads(await request.text())
        self.requests.append((message, dict(request.headers)))
        match message.get("method"):
            case "server/discover":
                error = {"code": -32601, "message": "Method not found"}
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
            case "initialize":
                info = {"name": "raw", "version": "1"}
                value = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
                answer = result(message, value)
                if self.unasked is not None:
                    answer.headers["Mcp-Session-Id"] = "s"
                return answer
            case "tools/list":
                return await self.listing(request, message)
            case "tools/call":
                return await self.calling(request, message)
        return web.Response(status=202)

    async def _list(self, request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        return result(message, {"tools": self.tools})

    async def _call(self, request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        return result(message, {"content": [{"type": "text", "text": "fine"}]})


@asynccontextmanager
async def raw_server() -> AsyncIterator[RawServer]:
    served = RawServer()
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    try:
        yield served
    finally:
        await runner.cleanup()
