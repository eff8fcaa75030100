"""HTTP by aiohttp within egress rules: what is checked is the address that a connection is really made to."""

import asyncio
import contextvars
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.request import getproxies

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from servicekit.egress import EgressDenied, EgressRules, Target
from servicekit.http_connections import AnswerConnector
from servicekit.proxies import proxy_for
from servicekit.tls import system_authorities
from servicekit.version import release

MAX_REDIRECTS = 5


def _without_authorities() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# aiohttp reads the system's authorities twice when it is imported, 2 MB: its clients share ours, and one that verifies
# nothing (none of ours) needs none. Its own go first, since ours take their place in memory.
vars(aiohttp.connector).pop("_SSL_CONTEXT_VERIFIED", None)
aiohttp.connector._SSL_CONTEXT_UNVERIFIED = _without_authorities()
aiohttp.connector._SSL_CONTEXT_VERIFIED = system_authorities()

_IDLE_SECONDS = 4.0
"""Many servers close connections that are idle for 5 s: one about to close must not be used."""
_READ_BYTES = 64 * 1024
_HOST_SHARE, _MIN_PER_HOST = 8, 4
"""Of all connections one host has an eighth: one that answers nothing leaves the others theirs."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})

_target: contextvars.ContextVar[Target | None] = contextvars.ContextVar("egress_target", default=None)
"""What the connection is made for; None: the operator's proxy."""


class ResponseTooLarge(Exception):
    """A body is larger than its reader takes."""


class GuardedClient:
    """HTTP requests within egress rules. Keeps no cookie; `close` it, also after nothing was sent.

    A name's addresses are resolved, filtered by the rules, and connected to as they are: nothing resolves them again,
    so a name that changes its mind changes nothing. By way of the environment's proxy, which the operator trusts, a
    host that a rule names is handed over by name; any other is resolved and checked here, and its address is what the
    proxy is asked for (with TLS for the name, so over https only).
    """

    def __init__(
        self,
        rules: EgressRules,
        *,
        connect_timeout: float,
        max_connections: int = 512,
        resolver: AbstractResolver | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        """`proxies` are by scheme, as in the environment, which is read where they are not given."""
        self.rules = rules
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._resolver = resolver
        self._proxies = dict(getproxies() if proxies is None else proxies)
        self._opened: tuple[aiohttp.ClientSession, _GuardedConnector] | None = None

    async def close(self) -> None:
        """Closes every connection. Idempotent."""
        if self._opened is not None:
            await self._opened[0].close()

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """Makes one request, follows no redirect, and returns the response's head; the caller releases it.

        Raises `EgressDenied`, and what aiohttp raises. Its time is bounded by the caller, but for connecting.
        """
        target = self.rules.check_url(url)
        session, connector = self._open()
        parsed = URL(url, encoded=True)
        proxy, server_hostname = self._proxy_for(target), None
        if proxy is not None and not self.rules.names(target):
            parsed, server_hostname = await _checked_here(connector, target, parsed)
            if server_hostname is not None:
                headers = {**headers, "Host": target.authority}
        return await session.request(
            method,
            parsed,
            headers=headers,
            data=body,
            proxy=proxy,
            server_hostname=server_hostname,
            allow_redirects=False,
        )

    async def follow(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """As `send`, and follows up to `MAX_REDIRECTS` redirects, each of them checked.

        None leads from https to http. One to another origin is followed for GET only, and without any of the headers:
        they were meant for the origin that was asked. What is not followed is returned as it is.
        """
        for _ in range(MAX_REDIRECTS):
            response = await self.send(method, url, headers=headers, body=body)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            here = self.rules.check_url(url)
            try:
                url = str(URL(url, encoded=True).join(URL(location)).with_fragment(None))
                there = self.rules.check_url(url)
            except ValueError:
                return response
            except EgressDenied:
                response.close()
                raise
            if (here.scheme, there.scheme) == ("https", "http") or (here != there and method != "GET"):
                return response
            response.close()
            if here != there:
                headers = {}
            if response.status not in _KEEPS_METHOD and method not in ("GET", "HEAD"):
                method, body = "GET", None
                headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return await self.send(method, url, headers=headers, body=body)

    def _proxy_for(self, target: Target) -> URL | None:
        proxy = proxy_for(target.scheme, target.host, target.port, self._proxies)
        return None if proxy is None else URL(proxy)

    def _open(self) -> "tuple[aiohttp.ClientSession, _GuardedConnector]":
        if self._opened is None:
            known = release()
            connector = _GuardedConnector(self.rules, self._max_connections, self._resolver)
            session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"parley/{known}" if known else "parley", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
                read_bufsize=_READ_BYTES,
            )
            self._opened = session, connector
        return self._opened


async def _checked_here(connector: "_GuardedConnector", target: Target, url: URL) -> tuple[URL, str | None]:
    """Returns what the proxy is asked for, and for which name TLS is checked."""
    token = _target.set(target)
    try:
        found = await connector.resolve(target.host, target.port)
    except OSError:
        raise EgressDenied(f"{target}, whose name can't be resolved here, by way of the proxy") from None
    finally:
        _target.reset(token)
    if found[0]["host"] == target.host:
        return url, None
    if target.scheme != "https":
        raise EgressDenied(f"{target} by way of the proxy, without TLS")
    return url.with_host(found[0]["host"]), target.host


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Reads a body to its end. Raises `ResponseTooLarge` for one of more bytes, which also closes the connection."""
    parts: list[bytes] = []
    left = max_bytes
    async for part in response.content.iter_any():
        left -= len(part)
        if left < 0:
            response.close()
            raise ResponseTooLarge
        parts.append(part)
    return b"".join(parts)


class _GuardedConnector(AnswerConnector):
    """Resolves, filters by the rules, and connects to what is left; to the operator's proxy as it is."""

    def __init__(self, rules: EgressRules, max_connections: int, resolver: AbstractResolver | None) -> None:
        super().__init__(
            limit=max_connections,
            limit_per_host=max(max_connections // _HOST_SHARE, _MIN_PER_HOST),
            keepalive_timeout=_IDLE_SECONDS,
            ssl=system_authorities(),
            resolver=_Resolver() if resolver is None else resolver,
            use_dns_cache=False,
        )
        self._rules = rules

    async def resolve(self, host: str, port: int) -> list[ResolveResult]:
        """Returns the addresses that may be connected to, at least one. Raises `EgressDenied`."""
        return await self._resolve_host(host, port)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        url = req.url
        target = None if req.proxy else Target(url.scheme, (url.host or "").rstrip("."), url.port or 0)
        token = _target.set(target)
        try:
            return await super()._create_connection(req, traces, timeout)
        finally:
            _target.reset(token)

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> list[ResolveResult]:
        found = await super()._resolve_host(host, port, traces)
        target = _target.get()
        if target is None:
            return found
        permitted = [one for one in found if self._rules.permits(target, ipaddress.ip_address(one["host"]))]
        if not permitted:
            raise EgressDenied(str(target))
        return permitted


class _Resolver(aiohttp.ThreadedResolver):
    """Takes addresses of every family, and within a bound: the threads that resolve are few."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        async with asyncio.timeout(5.0):
            return await super().resolve(host, port, family)
