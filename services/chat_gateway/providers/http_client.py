"""The HTTP client shared by all providers: its settings, and the mapping of its errors."""

import contextvars
import io
import ssl
from collections.abc import Mapping
from urllib.request import getproxies

import aiohttp
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError
from cachetools import LRUCache
from yarl import URL

from chat_gateway.model.provider_errors import ProviderBadResponse, ProviderUnavailable
from servicekit.errors import ServiceError
from servicekit.http_connections import AnswerConnector, AnswerProtocol
from servicekit.proxies import proxy_for
from servicekit.tls import system_authorities
from servicekit.version import release

IDLE_SECONDS = 4.0
"""How long an idle connection is kept. Many servers close theirs after 5 s: one about to close must not be used."""

_READ_BYTES = 64 * 1024
"""Bytes that have arrived and were not read; beyond twice as much, reading from the server pauses."""


def _user_agent() -> str:
    known = release()
    return f"parley/{known}" if known else "parley"


_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}
_CUT_SHORT = (ContentLengthError, TransferEncodingError)
_MAX_PATHS = 256
_MAX_WRITTEN_AT_ONCE = 512 * 1024
"""Bytes of a body; a larger one is written in pieces, each of which waits for the connection."""

_connection: contextvars.ContextVar[AnswerProtocol | None] = contextvars.ContextVar("connection", default=None)
"""The connection that the task's request went over."""
_only_new: contextvars.ContextVar[bool] = contextvars.ContextVar("only_new", default=False)
"""Whether the task's request may only go over a connection that no other has used."""


class _Connector(AnswerConnector):
    """Remembers the connection of a task's request, and takes a new one where only that will do."""

    def __init__(self, *, idle_seconds: float) -> None:
        super().__init__(limit=0, keepalive_timeout=idle_seconds, ssl=system_authorities())

    def may_use(self, protocol: AnswerProtocol) -> bool:
        return not (protocol.requests and _only_new.get())

    def uses(self, protocol: AnswerProtocol) -> None:
        _connection.set(protocol)


def open_client(connect_timeout: float, *, idle_seconds: float = IDLE_SECONDS) -> aiohttp.ClientSession:
    """Returns a session for any number of providers; `async with` it. Times are in seconds.

    It trusts the system's certificate authorities, or those of `SSL_CERT_FILE`. It keeps no cookie and asks for no
    compression, but reads what is compressed. Callers bound the number of calls and their time, except
    for connecting.
    """
    return aiohttp.ClientSession(
        connector=_Connector(idle_seconds=idle_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _user_agent(), **_HEADERS},
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        read_bufsize=_READ_BYTES,
    )


class Endpoint:
    """One URL that calls go to, with the headers of each, by way of the proxy that the environment names for it.

    That is `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` excepts the host or the host is this
    machine.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, str] = {},
        ca_file: str = "",
        proxy: str | None = None,
        connect_timeout: float | None = None,
    ) -> None:
        """Every request has the query and the headers. `ca_file` (PEM) is trusted in place of the system's authorities.

        `proxy` goes before the environment's; empty: none. `connect_timeout`, in seconds, goes before the session's.
        Raises `ValueError` for a URL with credentials, which belong in a header, and for what can't be sent or read.
        """
        base = URL(base_url)
        if base.user is not None or base.password is not None:
            raise ValueError("its URL must not carry credentials")
        if base.raw_query_string or base.fragment:
            raise ValueError("its URL must not have a query or a fragment")
        for name, value in headers.items():
            if not value.isprintable() or not value.isascii():
                raise ValueError(f"the header {name} holds what can't be sent")
        self._session = session
        self._timeout = (
            session.timeout if connect_timeout is None else aiohttp.ClientTimeout(total=None, connect=connect_timeout)
        )
        self._base = base
        self._query = dict(query)
        self._urls: LRUCache[str, URL] = LRUCache(_MAX_PATHS)
        self._headers = {"Content-Type": "application/json", **headers}
        self._ssl: ssl.SSLContext | bool = True
        if ca_file:
            try:
                self._ssl = ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"its ca_file can't be read ({type(error).__name__})") from None
        # Once, and not by `trust_env`, which reads the environment and ~/.netrc in a thread for every call.
        self._proxy = _proxy_for(base) if proxy is None else _proxy_url(proxy)

    async def send(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """Posts JSON and returns the response's head; leaving the response before its end closes the connection.

        A kept connection that turns out to be closed, before any byte of the answer, is replaced by a new one, once:
        its server had closed it, and has not seen the request.
        """
        try:
            return await self._post(path, body, headers)
        except aiohttp.ClientConnectionError as error:
            connection = _connection.get()
            reused = connection is not None and connection.requests > 1 and not connection.answered
            if not reused or isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
                raise
        fresh = _only_new.set(True)
        try:
            return await self._post(path, body, headers)
        finally:
            _only_new.reset(fresh)

    def _post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None
    ) -> "aiohttp.client._RequestContextManager":
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._url(path)
        return self._session.post(
            url,
            data=io.BytesIO(body) if len(body) > _MAX_WRITTEN_AT_ONCE else body,
            headers={**self._headers, **headers} if headers else self._headers,
            proxy=self._proxy,
            ssl=self._ssl,
            timeout=self._timeout,
            allow_redirects=False,
        )

    def _url(self, path: str) -> URL:
        path, _, query = path.partition("?")
        url = URL(f"{str(self._base).rstrip('/')}{path}", encoded=True)
        return url.with_query({**URL(f"?{query}").query, **self._query}) if query or self._query else url


def transport_error(provider: str, error: aiohttp.ClientError) -> ServiceError:
    """Returns what a call means that failed below the level of HTTP statuses; timeouts have been caught before."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return ProviderUnavailable(provider, "can't be reached", retry_after=1.0)
    if isinstance(error, aiohttp.ClientConnectionError) or isinstance(error.__cause__, _CUT_SHORT):
        return ProviderUnavailable(provider, "closed the connection before its answer was complete")
    return ProviderBadResponse(provider, f"not HTTP as it should be ({type(error).__name__})")


def _proxy_for(url: URL) -> URL | None:
    proxy = proxy_for(url.scheme, url.host or "", url.port, getproxies())
    return None if proxy is None else _proxy_url(proxy)


def _proxy_url(proxy: str) -> URL | None:
    if not proxy:
        return None
    found = URL(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError("its proxy must have an http or https URL")
    return found
