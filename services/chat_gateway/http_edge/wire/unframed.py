"""Responses for HTTP/1.0 clients."""

from typing import Any

from litestar.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(app: Any, cycle: RequestResponseCycle) -> Any:
    """Returns the application for a client that knows no chunks: the connection's end is that of an open answer."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        unframed = False

        async def send_unframed(message: Message) -> None:
            nonlocal unframed
            if message["type"] == "http.response.start":
                unframed = all(name.lower() != b"content-length" for name, _ in message["headers"])
                if unframed:
                    cycle.chunked_encoding = False
            elif unframed and message["type"] == "http.response.body":
                cycle.expected_content_length = len(message["body"])
            await send(message)

        await app(scope, receive, send_unframed)

    return serve
