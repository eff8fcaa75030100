"""An HTTP service that records what it is asked, for tests of tools."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from chat_gateway.model.tool_servers import HttpCall
from tests.unit.chat_gateway.tools.opened import Room, opened_room


class Recorded:
    """An HTTP service that records requests, answers as it is told, and gives tokens."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, dict[str, str]]] = []
        self.tokens = 0
        self.valid = ""
        self.token_answers: list[web.Response] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return await self._token(request)
        body = await request.text()
        self.requests.append((request.method, request.raw_path, body, dict(request.headers)))
        match request.path:
            case "/text":
                return web.Response(text="plain")
            case "/picture":
                return web.Response(body=b"\x89PNG" * 25, content_type="image/png")
            case "/missing":
                return web.json_response({"why": "no such order"}, status=404)
            case "/big":
                return web.Response(text="x" * (11 * 1024 * 1024))
            case "/broken-json":
                return web.Response(text='{"a": ', content_type="application/json")
            case "/drop":
                assert request.transport is not None
                request.transport.abort()
            case "/hang":
                await asyncio.sleep(60)
            case "/echo":
                return web.json_response(dict(request.headers))
            case "/guarded" if request.headers.get("Authorization") != f"Bearer {self.valid}":
                return web.Response(status=401)
            case "/elsewhere":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
        return web.Response(text="ok")

    async def _token(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path, await request.text(), dict(request.headers)))
        if self.token_answers:
            return self.token_answers.pop(0)
        await asyncio.sleep(0.05)
        self.tokens += 1
        self.valid = f"token-number-{self.tokens}"
        return web.json_response({"access_token": self.valid, "token_type": "Bearer", "expires_in": 3600})


@asynccontextmanager
async def recording() -> AsyncIterator[Recorded]:
    """Serves on a port of its own while open."""
    served = Recorded()
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()


def call(name: str, path: str | None = None, method: str = "GET", **fields: Any) -> HttpCall:
    """Returns a call whose path is its name."""
    return HttpCall(name, name, method, path or f"/{name}", **fields)


@asynccontextmanager
async def with_secrets(tmp_path: Path, **secrets: str) -> AsyncIterator[Room]:
    """Opens a room with secrets of the project `default`."""
    (tmp_path / "default").mkdir()
    for name, text in secrets.items():
        (tmp_path / "default" / name).write_text(text)
    async with opened_room(secrets_dir=str(tmp_path)) as room:
        yield room
