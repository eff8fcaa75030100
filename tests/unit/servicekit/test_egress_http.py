"""Requests within egress rules: what a name resolves to when it is connected to, redirects, proxies, bounds."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from servicekit.egress import EgressDenied, EgressRules
from servicekit.egress_http import GuardedClient, ResponseTooLarge, read_bounded


class Names(AbstractResolver):
    """Resolves names to lists of addresses; a list of lists is what it says at one time after the other."""

    def __init__(self, names: Mapping[str, list[list[str]]]) -> None:
        self._names = {name: list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class Server:
    """An HTTP server on loopback that records requests."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.port = 0
        self.answers: dict[str, web.Response] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        found = self.answers.get(request.path)
        if found is None:
            return web.Response(text=f"{request.method} {await request.text()}")
        return web.Response(status=found.status, headers=found.headers, body=found.body)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    served = Server()
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def refusing_proxy() -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that opens no tunnel; yields its port, and the request lines that it gets."""
    lines: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.decode().partition("\r\n")[0])
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], lines


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def client(
    stack: AsyncExitStack,
    rules: list[str],
    names: Mapping[str, list[list[str]]] | None = None,
    proxies: Mapping[str, str] | None = None,
) -> GuardedClient:
    made = GuardedClient(
        EgressRules(rules),
        connect_timeout=5,
        resolver=Names(names) if names is not None else None,
        proxies=proxies or {},
    )
    stack.push_async_callback(made.close)
    return made


async def test_a_name_that_resolves_to_what_is_not_allowed_is_not_connected_to(stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(serving())
    guarded = client(
        stack, ["http://*:*"], {"evil.example.com": [["127.0.0.1"], ["::ffff:7f00:1"], ["64:ff9b::7f00:1"]]}
    )
    for _ in range(3):
        with pytest.raises(EgressDenied):
            await guarded.send("GET", f"http://evil.example.com:{server.port}/", headers={})
    assert server.requests == []


async def test_only_the_addresses_that_were_checked_are_connected_to(stack: AsyncExitStack) -> None:
    """A name that changes from one answer to the next is asked once a connection, and its bad answers are refused."""
    server = await stack.enter_async_context(serving())
    names = {"rebinds.example.com": [["127.0.0.1", "127.0.0.9"], ["127.0.0.2"], ["10.0.0.1"]]}
    guarded = client(stack, ["http://127.0.0.1:*"], names)
    url = f"http://rebinds.example.com:{server.port}/"
    async with await guarded.send("GET", url, headers={"Connection": "close"}) as response:
        assert response.status == 200
    for _ in range(2):
        with pytest.raises(EgressDenied):
            await guarded.send("GET", url, headers={})
    assert len(server.requests) == 1


async def test_the_scheme_that_a_rule_names_counts_for_the_connection(stack: AsyncExitStack) -> None:
    guarded = client(stack, ["public", "http://127.0.0.1:*"], {"x.example.com": [["127.0.0.1"]]})
    with pytest.raises(EgressDenied):
        await guarded.send("GET", "https://x.example.com:8443/", headers={})


async def test_redirects_are_checked_again(stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(serving())
    for path, location in {
        "/meta": "http://169.254.169.254/latest/meta-data/",
        "/file": "file:///etc/passwd",
        "/odd": "http://2130706433/",
        "/other": "http://127.0.0.2:1/",
    }.items():
        server.answers[path] = web.Response(status=302, headers={"Location": location})
    guarded = client(stack, ["http://127.0.0.1:*"])
    for path in server.answers:
        with pytest.raises(EgressDenied):
            await guarded.follow("GET", f"http://127.0.0.1:{server.port}{path}", headers={})


async def test_no_redirect_leads_from_https_to_http(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = client(stack, ["https://tools.example.com", "http://tools.example.com"])
    sent: list[str] = []

    async def send(method: str, url: str, **_: object) -> web.Response:
        sent.append(url)
        return web.Response(status=302, headers={"Location": "http://tools.example.com/b"})

    monkeypatch.setattr(guarded, "send", send)
    response = await guarded.follow("GET", "https://tools.example.com/a", headers={"Authorization": "Bearer s3cret"})
    assert (response.status, sent) == (302, ["https://tools.example.com/a"])


async def test_credentials_stay_with_the_origin_that_they_are_for(stack: AsyncExitStack) -> None:
    first = await stack.enter_async_context(serving())
    second = await stack.enter_async_context(serving())
    first.answers["/there"] = web.Response(status=302, headers={"Location": f"http://127.0.0.1:{second.port}/x"})
    first.answers["/here"] = web.Response(status=307, headers={"Location": "/end?a=b"})
    first.answers["/form"] = web.Response(status=303, headers={"Location": "/end"})
    first.answers["/loop"] = web.Response(status=302, headers={"Location": "/loop"})
    guarded = client(stack, ["http://127.0.0.1:*"])
    base = f"http://127.0.0.1:{first.port}"
    headers = {"Authorization": "Bearer s3cret", "X-Key": "s3cret"}

    async with await guarded.follow("GET", f"{base}/there", headers=headers) as response:
        assert response.status == 200
    assert "s3cret" not in str(second.requests[0].headers)

    async with await guarded.follow("POST", f"{base}/there", headers=headers, body=b"{}") as response:
        assert response.status == 302
    assert len(second.requests) == 1

    async with await guarded.follow("POST", f"{base}/here", headers=headers, body=b"{}") as response:
        assert await response.text() == "POST {}"
    assert first.requests[-1].headers["Authorization"] == "Bearer s3cret"
    async with await guarded.follow("POST", f"{base}/form", headers=headers, body=b"{}") as response:
        assert await response.text() == "GET "
    async with await guarded.follow("GET", f"{base}/loop", headers=headers) as response:
        assert response.status == 302


async def test_a_proxy_is_asked_for_the_address_that_was_checked(stack: AsyncExitStack) -> None:
    port, lines = await stack.enter_async_context(refusing_proxy())
    names = {"tools.example.com": [["8.8.8.8"]], "evil.example.com": [["10.0.0.1"]]}
    proxies = {"https": f"http://127.0.0.1:{port}", "http": f"http://127.0.0.1:{port}"}
    guarded = client(stack, ["public", "named.internal", "http://named.internal", "http://*"], names, proxies)
    for url in ("https://evil.example.com/", "http://tools.example.com/", "https://10.0.0.1/"):
        with pytest.raises(EgressDenied):
            await guarded.send("GET", url, headers={})
    assert lines == []
    for url in ("https://tools.example.com/x", "https://named.internal/"):
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await guarded.send("GET", url, headers={})
    async with await guarded.send("GET", "http://named.internal/y", headers={}) as response:
        assert response.status == 502
    assert lines == [
        "CONNECT 8.8.8.8:443 HTTP/1.1",
        "CONNECT named.internal:443 HTTP/1.1",
        "GET http://named.internal/y HTTP/1.1",
    ]


async def test_a_body_is_read_up_to_its_bound(stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(serving())
    server.answers["/big"] = web.Response(body=b"x" * 300_000)
    guarded = client(stack, ["http://127.0.0.1:*"])
    url = f"http://127.0.0.1:{server.port}/big"
    async with await guarded.send("GET", url, headers={}) as response:
        assert len(await read_bounded(response, 300_000)) == 300_000
    async with await guarded.send("GET", url, headers={}) as response:
        with pytest.raises(ResponseTooLarge):
            await read_bounded(response, 299_999)


@pytest.mark.slow
async def test_a_host_that_answers_nothing_leaves_the_others_their_connections(stack: AsyncExitStack) -> None:
    connected = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        connected.release()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    open_ones: list[asyncio.StreamWriter] = []
    hung = await asyncio.start_server(silent, "127.0.0.1", 0)
    stack.push_async_callback(_closed, hung)
    server = await stack.enter_async_context(serving())
    guarded = GuardedClient(EgressRules(["http://127.0.0.1:*"]), connect_timeout=4, max_connections=48, proxies={})
    stack.push_async_callback(guarded.close)
    url = f"http://127.0.0.1:{hung.sockets[0].getsockname()[1]}/"
    asked = [asyncio.create_task(guarded.send("GET", url, headers={})) for _ in range(60)]
    async with asyncio.timeout(60):
        for _ in range(6):
            await connected.acquire()
        for _ in range(20):
            async with await guarded.send("GET", f"http://127.0.0.1:{server.port}/", headers={}) as response:
                assert response.status == 200
        done: set[asyncio.Task[aiohttp.ClientResponse]] = set()
        while len(done) < 54:  # for those beyond an eighth the time to connect ends
            done |= (await asyncio.wait(asked, timeout=0.1))[0]
    assert {type(one.exception()) for one in done} <= {aiohttp.ConnectionTimeoutError}
    assert len(open_ones) == 6
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
