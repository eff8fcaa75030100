"""Refusals of the protocol before there is a request."""

from collections.abc import Sequence

from chat_gateway.http_edge.wire.errors import MalformedBody, encode_error

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 128
MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to the one before them."""

_STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


class RefusedRequest(Exception):
    """The request that is being read is beyond a bound."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def answer(self) -> bytes:
        """Returns the whole response, after which the connection ends."""
        body = encode_error(MalformedBody(self.message))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        return _STATUS_LINES[self.status] + head + body


NOT_HTTP = RefusedRequest(400, "the request is not HTTP/1.1 that can be read")
HEAD_TOO_LARGE = RefusedRequest(431, f"the request's headers are larger than {MAX_HEAD_BYTES} bytes")
TOO_MANY_HEADERS = RefusedRequest(431, f"the request has more than {MAX_HEADERS} headers")
UNKNOWN_VERSION = RefusedRequest(400, "the request is neither HTTP/1.1 nor HTTP/1.0")
UNKNOWN_CODING = RefusedRequest(400, "the request's Transfer-Encoding is not chunked alone, by HTTP/1.1")
TOO_MUCH_FRAMING = RefusedRequest(431, f"the body's framing and trailers are larger than {MAX_HEAD_BYTES} bytes")
TOO_MANY_REQUESTS = RefusedRequest(400, f"more than {MAX_PIPELINED} requests wait for their answers on this connection")
HEAD_TOO_SLOW = RefusedRequest(408, "the request's headers took too long")


def is_too_large(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Returns whether a head is larger than `MAX_HEAD_BYTES`, however it arrived."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD_BYTES
