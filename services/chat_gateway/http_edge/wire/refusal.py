"""Refuses a request without reading its body into memory."""

import asyncio

from litestar.types import Receive

from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import encode_error, error_headers, http_status
from chat_gateway.http_edge.wire.protocol import LINGER_BYTES, LINGER_SECONDS
from servicekit.errors import ServiceError


async def refuse(error: ServiceError, context: RequestContext) -> int:
    """Answers with the error, lets the client finish sending within bounds, then has the connection closed.

    Returns the status.
    """
    body = encode_error(error)
    status = http_status(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-request-id", context.id),
        *error_headers(error),
    ]
    await context.send({"type": "http.response.start", "status": status, "headers": headers})
    await context.send({"type": "http.response.body", "body": body, "more_body": True})
    await _drain(context.receive)
    await context.send({"type": "http.response.body", "body": b"", "more_body": False})
    return status


async def _drain(receive: Receive) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                left -= len(message["body"])
    except TimeoutError:
        return
