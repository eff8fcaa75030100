"""Providers behind the proxies that the environment names."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.providers.http_client import Endpoint, open_client
from chat_gateway.providers.http_provider import HttpProvider
from servicekit.errors import ServiceError, StartupError
from tests.servers.certificates import Authority, CertificateFolder
from tests.unit.chat_gateway.raw_provider import (
    OK,
    PROXIES,
    Server,
    ask,
    calling,
    listening,
    provider_at,
)


class Proxy:
    """A forward proxy: absolute URLs for HTTP, CONNECT for HTTPS. `refuses` says with what status."""

    def __init__(self, refuses: int = 0) -> None:
        self._refuses = refuses
        self.heads: list[bytes] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if self._refuses:
                    writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._refuses)
                    continue
                method, target, _ = head.split(b" ", 2)
                host = target.removeprefix(b"http://").partition(b"/")[0]
                port = int(host.rpartition(b":")[2])
                there = await asyncio.open_connection("127.0.0.1", port)
                if method == b"CONNECT":
                    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    there[1].write(head)
                await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Proxy]:
    made = Proxy(getattr(request, "param", 0))
    listener = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{made.port}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{made.port}")
    yield made
    listener.close()


@asynccontextmanager
async def calling_by_name(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpProvider]:
    """A provider under a name that only the proxy knows: what is on this machine is never asked for by way of one."""
    async with listening(server, tls), open_client(10.0) as session:
        scheme = "https" if tls else "http"
        yield provider_at(f"{scheme}://provider.test:{server.port}/v1", session)


async def test_a_proxy_of_the_environment_is_used(proxy: Proxy) -> None:
    server = Server(OK, OK)
    async with calling_by_name(server) as provider:
        assert [await ask(provider), await ask(provider)] == ["hello"] * 2
    assert proxy.heads[0].startswith(b"POST http://provider.test:%d/v1/chat/completions HTTP/1.1" % server.port)
    assert b"proxy-authorization: basic bwu6c2vjcmv0" in proxy.heads[0].lower()
    assert len(server.requests) == 2


async def test_no_proxy_is_honoured(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "other.test,.test")
    async with calling_by_name(Server(OK)) as provider:
        with pytest.raises(ProviderUnavailable, match="can't be reached"):
            await ask(provider)
    assert proxy.heads == []


async def test_this_machine_is_reached_without_a_proxy(proxy: Proxy) -> None:
    async with calling(Server(OK)) as provider:
        assert await ask(provider) == "hello"
    assert proxy.heads == []


async def test_https_goes_through_a_tunnel(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CertificateFolder(tmp_path, Authority(), "provider.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    server = Server(OK)
    async with calling_by_name(server, context) as provider:
        assert await ask(provider) == "hello"
    assert proxy.heads[0].startswith(b"CONNECT provider.test:%d HTTP/1.1" % server.port)
    assert b"key-1" not in proxy.heads[0]


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1080", "http://"])
async def test_a_proxy_that_can_not_be_used_is_said_at_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    async with open_client(1.0) as session:
        with pytest.raises(StartupError, match="its proxy must have an http or https URL"):
            provider_at("https://provider.test/v1", session)


@pytest.mark.parametrize("proxy", [407], indirect=True)
async def test_a_proxy_that_refuses_leaves_the_provider_unreachable(proxy: Proxy) -> None:
    async with open_client(5.0) as session:
        provider = provider_at("https://provider.test:1/v1", session)
        with pytest.raises(ServiceError) as caught:
            await ask(provider)
    assert isinstance(caught.value, ProviderUnavailable)
    assert "secret" not in str(caught.value)
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy"])
async def test_all_proxy_stands_in_for_the_others(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    for name in PROXIES:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, url)
    server = Server(OK)
    async with calling_by_name(server) as provider:
        assert await ask(provider) == "hello"
    assert proxy.heads[0].startswith(b"POST http://provider.test:")


@pytest.mark.parametrize(
    ("url", "none", "by_proxy"),
    [
        ("http://10.1.2.3/v1", "10.0.0.0/8", False),
        ("http://10.1.2.3:8000/v1", "x.test, 10.1.2.3/32", False),
        ("http://[fd00::1]/v1", "fd00::/8", False),
        ("http://11.1.2.3/v1", "10.0.0.0/8", True),
        ("http://10.example/v1", "10.0.0.0/8,nonsense/99", True),
        ("http://10.1.2.3/v1", "*", False),
    ],
)
async def test_no_proxy_takes_networks(url: str, none: str, by_proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", none)
    async with open_client(1) as client:
        assert (Endpoint(client, url, {})._proxy is not None) == by_proxy
