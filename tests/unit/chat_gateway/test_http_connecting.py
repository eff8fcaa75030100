"""How connections to providers are made: addresses raced (RFC 8305), and the time that it may take."""

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from chat_gateway.model.provider_errors import ProviderTimeout
from chat_gateway.providers.http_client import open_client
from tests.unit.chat_gateway.raw_provider import OK, Server, ask, listening, provider_at

SILENT = "192.0.2.1"
"""An address for documentation (RFC 5737): nobody answers there."""


class Resolver(aiohttp.abc.AbstractResolver):
    """Says of every name that it has the given addresses, in that order."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets connecting to `SILENT` and to every IPv6 address never end; returns what was tried."""
    tried: list[str] = []
    selector_connect = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(self: Any, sock: socket.socket, address: Any) -> None:
        tried.append(address[0])
        if address[0] == SILENT or ":" in address[0]:
            await asyncio.Event().wait()
        await selector_connect(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return tried


async def test_an_address_that_does_not_answer_holds_up_nobody(black_hole: list[str]) -> None:
    server = Server(OK)
    async with listening(server), open_client(600.0) as session:
        assert isinstance(session.connector, aiohttp.TCPConnector)
        session.connector._resolver = Resolver("2001:db8::1", "127.0.0.1")
        provider = provider_at(f"http://provider.test:{server.port}/v1", session)
        assert await asyncio.wait_for(ask(provider), 60) == "hello"
    assert black_hole == ["2001:db8::1", "127.0.0.1"], "the second is tried while the first is silent"


async def test_a_provider_has_a_connect_timeout_of_its_own(black_hole: list[str]) -> None:
    async with open_client(600.0) as session:
        assert isinstance(session.connector, aiohttp.TCPConnector)
        session.connector._resolver = Resolver(SILENT)
        provider = provider_at("http://provider.test:1/v1", session, connect_timeout=0.01)
        with pytest.raises(ProviderTimeout, match="connect"):
            await asyncio.wait_for(ask(provider), 60)
