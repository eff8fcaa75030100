"""A server that push notifications go to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
WAIT_SECONDS = 60.0


@dataclass
class Notification:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes
    json: Any


@dataclass
class Receiver:
    """Keeps what comes, and answers with what `answers` has for each, then with 204."""

    url: str = ""
    received: list[Notification] = field(default_factory=list)
    answers: list[Answer | int] = field(default_factory=list)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for(self, number: int, path: str = "") -> list[Notification]:
        """Return what has come (for a path) once so many have."""
        async with asyncio.timeout(WAIT_SECONDS), self._came:
            await self._came.wait_for(lambda: len(self.at(path)) >= number)
            return self.at(path)

    def at(self, path: str) -> list[Notification]:
        """Return what has come for a path; empty: all."""
        return [one for one in self.received if path in ("", one.path)]

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read()
        headers = {name.lower(): text for name, text in request.headers.items()}
        document = await request.json() if body else None
        async with self._came:
            self.received.append(Notification(request.path, headers, body, document))
            self._came.notify_all()
        answer = self.answers.pop(0) if self.answers else 204
        return web.Response(status=answer) if isinstance(answer, int) else await answer(request)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve on a port of this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        receiver.url = f"http://127.0.0.1:{port}"
        yield receiver
    finally:
        await runner.cleanup()
