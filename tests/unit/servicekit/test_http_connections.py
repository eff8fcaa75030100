"""Connections to servers that speak before they are asked, or close at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from servicekit.http_connections import AnswerConnector, NotHttp


class _Patient(AnswerConnector):
    """Looks at a new connection once what its server does first has arrived."""

    async def _create_connection(self, *arguments: Any) -> ResponseHandler:
        made = await super()._create_connection(*arguments)
        async with asyncio.timeout(60):
            while not made.should_close:
                await asyncio.sleep(0.001)
        return made


def _speak(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")


@pytest.mark.parametrize(
    ("first", "error"), [(_speak, NotHttp), (lambda writer: writer.close(), aiohttp.ServerDisconnectedError)]
)
async def test_a_server_that_does_so_costs_one_connection(
    first: Callable[[asyncio.StreamWriter], None], error: type[Exception]
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        first(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession(connector=_Patient()) as session, asyncio.timeout(60):
            with pytest.raises(error):
                await session.post(f"http://127.0.0.1:{port}/")
        assert len(writers) == 1
    finally:
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
