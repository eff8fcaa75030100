"""Request bodies: read within a bound, decoded strictly, with errors that name the field."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from litestar.types import Receive

from chat_gateway.http_edge.wire.errors import MalformedBody
from servicekit.errors import DeadlineExceeded, MessageTooLarge, Violation

T = TypeVar("T")

MAX_DEPTH = 24
"""How deep free-form JSON may nest. protobuf stops at 100 levels, and each of ours takes three there."""

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


class BodyTimeout(DeadlineExceeded):
    """The body did not arrive in time."""

    def __init__(self, timeout: float) -> None:
        super().__init__(f"the body did not arrive within {timeout:g} s", bound="body")


async def read_body(receive: Receive, limit: int, timeout: float | None) -> bytes:
    """Returns the whole body; `timeout` None means that all of it has arrived.

    Raises `MessageTooLarge` as soon as it exceeds `limit` bytes, `BodyTimeout` after `timeout` seconds, `ClientGone`.
    """
    if timeout is None:
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(timeout):
            return await _read(receive, limit)
    except TimeoutError:
        raise BodyTimeout(timeout) from None


async def _read(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message["body"]
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        if not message["more_body"]:
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def too_large(limit: int) -> MessageTooLarge:
    """Returns the error of a body over `limit` bytes."""
    return MessageTooLarge(f"the body is larger than {limit} bytes", limit=limit)


def decode(decoder: Callable[[bytes], T], body: bytes) -> T:
    """Returns what `decoder` makes of the body. Raises `MalformedBody` that names the field if there is one."""
    try:
        return decoder(body)
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise MalformedBody("the body is not JSON that can be read: it nests too deeply") from None


def wrong_shape(text: str) -> MalformedBody:
    """Returns msgspec's complaint as an error whose violation has the field's path in our form (`a.b[0].c`)."""
    where = _WHERE.match(text)
    what, path = (where["what"], where["path"] or "") if where else (text, "")
    field = _FIELD.match(what)
    if field:
        path = f"{path}.{field['field']}" if path else field["field"]
        what = "is not a field" if field["what"] == "contains unknown" else "is required"
    what = what.removesuffix(" - at `key`")
    violation = Violation(path, what[:1].lower() + what[1:])
    message = f"{path}: {violation.description}" if path else f"the body has the wrong shape: {violation.description}"
    return MalformedBody(message, violations=[violation])


def check_depth(value: Any, field: str) -> None:
    """Raises `MalformedBody` where free-form JSON nests deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise MalformedBody(
        f"{field}: nests deeper than {MAX_DEPTH} levels",
        violations=[Violation(field, f"must not nest deeper than {MAX_DEPTH} levels")],
    )


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
