"""A tool server that is an HTTP service: the operations of its OpenAPI document, or single calls."""

import asyncio
import functools
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from chat_gateway.model.tool_servers import HttpService
from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools import argument_check, openapi
from chat_gateway.tools.credentials import Credentials, CredentialsRefused
from chat_gateway.tools.http_operation import BadArgument, HttpOperation, HttpRequest, of_call
from chat_gateway.tools.offered import Offer, OfferedTool, offer
from chat_gateway.tools.results import failed
from chat_gateway.tools.secrets import Redaction, redaction_of
from chat_gateway.tools.server import MAX_RESULT_BYTES, CallOptions
from servicekit import traces
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient, ResponseTooLarge, read_bounded

_ACCEPT = "application/json, text/*;q=0.9, */*;q=0.1"
_CHARSETS = re.compile(
    r"us-ascii|utf-?(8|16|32)([bl]e)?|iso-8859-[0-9]{1,2}|windows-125[0-8]|cp[0-9]{3,4}|koi8-[ru]"
    r"|shift_jis|euc-(jp|kr)|iso-2022-jp|gbk|gb2312|gb18030|big5",
    re.IGNORECASE,
)
"""Not every codec of Python is a charset: punycode takes minutes for what a service may answer."""
_UNKNOWN = "the connection was lost before the service answered: the call may have been carried out or not"


class HttpServiceClient:
    """Implements `ServerClient`. Arguments are checked against the tool's schema before anything is sent."""

    def __init__(self, service: HttpService, client: GuardedClient, credentials: Credentials) -> None:
        self._service = service
        self._client = client
        self._credentials = credentials
        self._operations: Mapping[str, HttpOperation] | None = None
        self._offer = Offer(())

    @property
    def redaction(self) -> Redaction:
        return redaction_of(self._credentials.secrets())

    async def offer(self) -> Offer:
        if self._operations is None:
            # A document of 1 MiB takes tens of milliseconds.
            self._operations, self._offer = await asyncio.to_thread(self._read)
        return self._offer

    async def call(self, tool: str, arguments: Mapping[str, Any], options: CallOptions) -> ToolResult:
        await self.offer()
        operation = (self._operations or {}).get(tool)
        if operation is None:
            return failed(f"there is no tool {tool[:64]!r}", ToolOutcome.INVALID_ARGUMENTS)
        schema = operation.parameters()
        if wrong := await asyncio.to_thread(argument_check.problems, schema, arguments):
            return failed("the arguments are wrong: " + "; ".join(wrong), ToolOutcome.INVALID_ARGUMENTS)
        try:
            request = operation.request(arguments)
        except BadArgument as error:
            return failed(f"the arguments are wrong: {error}", ToolOutcome.INVALID_ARGUMENTS)
        try:
            async with asyncio.timeout(options.seconds):
                return await self._exchange(operation, request, options)
        except TimeoutError:
            return failed(f"the service did not answer within {options.seconds:g} s", ToolOutcome.TIMEOUT)
        except EgressDenied as error:
            return failed(error.message, ToolOutcome.DENIED)
        except CredentialsRefused as error:
            return failed(f"the service {error}", ToolOutcome.UNAVAILABLE)

    async def close(self) -> None:
        """Connections are shared, and close by themselves."""

    def _read(self) -> tuple[Mapping[str, HttpOperation], Offer]:
        service = self._service
        found = openapi.operations(service.openapi) if service.openapi else [of_call(one) for one in service.calls]
        tools = (OfferedTool(one.name, one.description, one.parameters(), one.idempotent) for one in found)
        return {one.name: one for one in found}, offer(tools, self.redaction.clean)

    async def _exchange(self, operation: HttpOperation, request: HttpRequest, options: CallOptions) -> ToolResult:
        for attempt in range(2):
            try:
                return await self._once(operation, request, options)
            except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
                return failed("the service can't be reached", ToolOutcome.UNAVAILABLE)
            except ResponseTooLarge:
                return failed(f"the service answers with more than {MAX_RESULT_BYTES >> 20} MiB")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if isinstance(error, TimeoutError):
                    raise
                if attempt or not options.idempotent:
                    return failed(_UNKNOWN, ToolOutcome.UNKNOWN)
        raise AssertionError

    async def _once(self, operation: HttpOperation, request: HttpRequest, options: CallOptions) -> ToolResult:
        url = self._service.base_url.rstrip("/") + request.path
        send = functools.partial(self._client.follow, operation.method, url, body=request.body)
        fixed = {**request.headers, **self._service.headers, "Accept": _ACCEPT, **dict(traces.outgoing())}
        if request.body is not None:
            fixed["Content-Type"] = "application/json"
        if not operation.idempotent:
            fixed["Idempotency-Key"] = options.call_id
        credentials = await self._credentials.headers()
        response = await send(headers={**fixed, **credentials})
        if response.status == 401 and self._credentials.refused(credentials):
            response.close()
            response = await send(headers={**fixed, **await self._credentials.headers()})
        async with response:
            text = _as_text(response, await read_bounded(response, MAX_RESULT_BYTES))
        if 200 <= response.status < 300:
            return ToolResult(text or f"(status {response.status}, without a body)")
        return failed(f"the service answered with status {response.status}\n{text}".rstrip())


def _as_text(response: aiohttp.ClientResponse, body: bytes) -> str:
    kind = response.content_type.lower()
    if not body:
        return ""
    if kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "yaml", "x-www-form-urlencoded")):
        charset = response.charset or ""
        try:
            return body.decode(charset if _CHARSETS.fullmatch(charset) else "utf-8", "replace")
        except LookupError:
            return body.decode("utf-8", "replace")
    return f"[{kind or 'binary'}, {len(body)} bytes: not shown]"
