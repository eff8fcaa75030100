"""Connections to servers that speak before they are asked, close at once, or are not who they should be."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from servicekit.egress import EgressRules
from servicekit.egress_http import GuardedClient
from servicekit.http_connections import AnswerConnector, NotHttp
from tests.servers.certificates import Authority, CertificateFolder


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


@pytest.mark.parametrize(
    ("name", "lifetime", "is_known", "passes"),
    [
        ("localhost", 1.0, True, True),
        ("elsewhere.example", 1.0, True, False),
        ("localhost", -1.0, True, False),
        ("localhost", 1.0, False, False),
    ],
)
async def test_a_certificate_is_of_the_name_in_time_and_of_a_known_authority(
    name: str, lifetime: float, is_known: bool, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    files = CertificateFolder(tmp_path, authority, name)
    files.write(authority, name, lifetime=lifetime)
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
    client = GuardedClient(EgressRules([f"{url.rstrip('/')}"]), connect_timeout=60.0, proxies={})
    try:
        async with asyncio.timeout(60):
            if passes:
                assert (await client.send("GET", url, headers={})).status == 200
            else:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await client.send("GET", url, headers={"Authorization": "Bearer s3cret"})
        assert len(asked) == int(passes)
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
