"""A provider that says exactly what a test has it say, byte by byte, and an HTTP client that calls it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession

from chat_gateway.model.turn import Delta, Message, Sampling
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import MAX_ANSWER_BYTES, HttpProvider, ProviderBounds
from chat_gateway.providers.kinds import make_provider
from chat_gateway.providers.provider import ModelCall
from chat_gateway.providers.settings import ProviderSettings
from contract.enums import Role

CALL = ModelCall("m", [Message(Role.USER, "hi")], Sampling())
BOUNDS = ProviderBounds(connect=60.0, first_token=60.0, between_tokens=60.0, answer=60.0)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def answer(text: str = "hello", *, head: str = "HTTP/1.1 200 OK", headers: str = "") -> bytes:
    body = b'{"choices": [{"message": {"content": "%b"}, "finish_reason": "stop"}]}' % text.encode()
    return f"{head}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


OK = answer()
BODY = OK.partition(b"\r\n\r\n")[2]
EVIL = answer("evil")
CHUNKED = chunked(BODY[:7], BODY[7:])
LATER = b"<later>"
"""Where a server pauses within an answer, so that what came before it has been read."""
ENDLESS = 100_000
"""Lines of what a hostile server never ends: far more than any bound."""


class Server:
    """Answers each request of a connection with the next of `answers`; `part` cuts it, `closes` ends it."""

    def __init__(self, *answers: bytes, part: int = 0, closes: bool = False) -> None:
        self._answers = list(answers)
        self._part = part
        self._closes = closes
        self.connections = 0
        self.left = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                said = self._answers.pop(0)
                for section in said.split(LATER):
                    for start in range(0, len(section), self._part or len(section) or 1):
                        writer.write(section[start : start + (self._part or len(section))])
                        if self._part:
                            await asyncio.sleep(0)
                    if LATER in said:
                        await asyncio.sleep(0.05)
                await writer.drain()
                if self._closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.left += 1
        finally:
            writer.close()


@asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Yields the server's base URL."""
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield f"https://localhost:{server.port}/v1/" if tls else f"http://127.0.0.1:{server.port}/v1/"
    finally:
        for writer in server.writers:
            writer.close()
        listener.close()
        await listener.wait_closed()


@asynccontextmanager
async def calling(
    server: Server, tls: ssl.SSLContext | None = None, *, idle_seconds: float = 60.0, bounds: ProviderBounds = BOUNDS
) -> AsyncIterator[HttpProvider]:
    async with listening(server, tls) as url, open_client(bounds.connect, idle_seconds=idle_seconds) as client:
        yield provider_at(url, client, bounds=bounds)


def provider_at(url: str, client: ClientSession, *, bounds: ProviderBounds = BOUNDS, **settings: Any) -> HttpProvider:
    """Makes the provider `local`, which needs no key unless the settings say so."""
    fields = {"base_url": url, "extra_headers": {"Authorization": "Bearer key-1"}, **settings}
    answer_bytes = fields.pop("max_answer_bytes", MAX_ANSWER_BYTES)
    return make_provider("local", ProviderSettings(**fields), bounds, client, max_answer_bytes=answer_bytes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(provider: HttpProvider) -> str:
    return (await provider.complete(CALL, None)).message.content


async def ignore(_: Delta) -> None:
    pass
