"""Request bodies: read within a bound, decoded strictly, with errors that name the field."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from litestar.types import Receive

from chat_gateway.http_edge.wire.errors import MalformedBody, UnknownEncoding
from servicekit.errors import DeadlineExceeded, InvalidArgument, MessageTooLarge, Violation
from servicekit.json_width import is_wider_than, marks_of

T = TypeVar("T")

MAX_DEPTH = 24
"""How deep free-form JSON may nest. protobuf stops at 100 levels, and each of ours takes three there."""

MAX_VALUES = 20_000
"""How many values free-form JSON may hold."""
MAX_ITEMS = 10_000
"""How many messages, and parts of them, a body may list."""

MAX_BODY_VALUES = 50_000
"""How many values, and lists and objects of them, a body may hold that is decoded whole."""

SMALL_BODY = 64 * 1024
_SIMPLE = 20_000
"""Commas and brackets up to which a body is decoded at once: it holds no more values, and costs some milliseconds."""
_MAX_STRUCTURE_BYTES = 256 * 1024
"""Of a field that is an object or a list, in a body that is not small and simple."""
_MESSAGES = "messages"

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MAX_QUOTED = 200
"""Characters of a field's path, and of what is wrong with it, in an error: the caller chooses them."""
_FIELD = re.compile(r"^Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)


class ClientGone(Exception):
    """The client closed the connection before its request was answered."""


class BodyTooWide(MalformedBody):
    """The body holds too many values to be read."""


class BodyTimeout(DeadlineExceeded):
    """The body did not arrive in time."""

    def __init__(self, timeout: float) -> None:
        super().__init__(f"the body did not arrive within {timeout:g} s", bound="body")


async def read_body(
    receive: Receive, limit: int, timeout: float | None, on_large: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """Returns the whole body; `timeout` None means that all of it has arrived.

    `on_large` is awaited once, before more than `SMALL_BODY` bytes are read on. Raises `MessageTooLarge` as soon as it
    exceeds `limit` bytes, `BodyTimeout` after `timeout` seconds, `ClientGone`.
    """
    if timeout is None:
        return await _read(receive, limit, on_large)
    try:
        async with asyncio.timeout(timeout):
            return await _read(receive, limit, on_large)
    except TimeoutError:
        raise BodyTimeout(timeout) from None


async def _read(receive: Receive, limit: int, on_large: Callable[[], Awaitable[None]] | None) -> bytes:
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
        if size > SMALL_BODY and on_large is not None:
            await on_large()
            on_large = None
        if not message["more_body"]:
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def unpack(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Returns the body without its content coding. Raises `MessageTooLarge`, `MalformedBody`, `UnknownEncoding`."""
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding not in (b"gzip", b"x-gzip"):
        raise UnknownEncoding
    unpacked = bytearray()
    try:
        while body:  # a gzip file may have several members
            member = zlib.decompressobj(wbits=31)
            unpacked += member.decompress(body, limit + 1 - len(unpacked))
            if len(unpacked) > limit:
                raise too_large(limit)
            if not member.eof:
                raise MalformedBody("the body is not gzip: it ends too early")
            body = member.unused_data
    except zlib.error:
        raise MalformedBody("the body is not gzip") from None
    return bytes(unpacked)


def check_width(body: bytes, *, unbounded: str = "", items: str = _MESSAGES) -> None:
    """Raises `BodyTooWide` for JSON that would take long to decode: fields or lists of them with too many values.

    Texts are not bounded here, nor is the field `unbounded`; `items` is that of messages. Costs nothing for small
    bodies, and little for large ones of few values.
    """
    if len(body) <= SMALL_BODY or marks_of(body) <= _SIMPLE:
        return
    fields = decode(_FIELDS.decode, body)
    for name, raw in fields.items():
        if name == items:
            _check_items(name, raw)
        elif name != unbounded and len(data := bytes(raw)) > _MAX_STRUCTURE_BYTES and data[:1] in (b"{", b"["):
            raise _too_wide(name[:64], f"must have at most {_MAX_STRUCTURE_BYTES} bytes as JSON")


def check_values(body: bytes) -> None:
    """Raises `InvalidArgument` for JSON with more than `MAX_BODY_VALUES` values: for bodies that are decoded whole."""
    if is_wider_than(body, MAX_BODY_VALUES):
        raise InvalidArgument(message=f"the body holds more than {MAX_BODY_VALUES} values")


def is_large(body: bytes) -> bool:
    """Returns whether a body may take more than some milliseconds to convert, and should leave the event loop."""
    return len(body) > SMALL_BODY


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class _Items(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


_ITEMS = msgspec.json.Decoder(_Items)


def _check_items(name: str, raw: msgspec.Raw) -> None:
    if bytes(raw)[:1] != b"[":
        return
    messages = decode(_LIST.decode, bytes(raw))
    if len(messages) > MAX_ITEMS:
        raise _too_wide(name, f"must have at most {MAX_ITEMS} messages")
    left = MAX_ITEMS
    for message in messages:
        items = decode(_ITEMS.decode, bytes(message))
        for part in (items.content, items.tool_calls, items.output):
            if (data := bytes(part))[:1] == b"[":
                left -= len(decode(_LIST.decode, data))
        if left < 0:
            raise _too_wide(name, f"must have at most {MAX_ITEMS} parts and tool calls")


def _too_wide(field: str, rule: str) -> BodyTooWide:
    return BodyTooWide(f"{field}: {rule}", violations=[Violation(field, rule)])


def _violated(field: str, rule: str) -> MalformedBody:
    return MalformedBody(f"{field}: {rule}", violations=[Violation(field, rule)])


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
    path, what = _short(path), _short(what.removesuffix(" - at `key`"))
    violation = Violation(path, what[:1].lower() + what[1:])
    message = f"{path}: {violation.description}" if path else f"the body has the wrong shape: {violation.description}"
    return MalformedBody(message, violations=[violation])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def check_free_form(value: Any, field: str) -> None:
    """Raises `MalformedBody` for JSON beyond `MAX_DEPTH` or `MAX_VALUES`, and for numbers that are too large."""
    level = [value]
    left = MAX_VALUES
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
        left -= len(level)
        if left < 0:
            raise _violated(field, f"must hold at most {MAX_VALUES} values")
        if any(type(item) is int and not -_MAX_NUMBER < item < _MAX_NUMBER for item in level):
            raise _violated(field, "must hold no number that a double can't")
    raise MalformedBody(
        f"{field}: nests deeper than {MAX_DEPTH} levels",
        violations=[Violation(field, f"must not nest deeper than {MAX_DEPTH} levels")],
    )


_MAX_NUMBER = 10**308
_anything = msgspec.json.Decoder().decode


def raw_json(raw: msgspec.Raw, field: str) -> bytes:
    """Returns JSON that is passed on as it came. Raises `MalformedBody` where others could not read it.

    The decoder skips what it is not asked for: it may hold bytes that are no UTF-8, half a surrogate pair, numbers
    beyond any double, any nesting.
    """
    text = bytes(raw)
    try:
        check_free_form(_anything(text), field)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        rule = f"must be JSON that can be read: {error}"[:200]
        raise MalformedBody(f"{field}: {rule}", violations=[Violation(field, rule)]) from None
    return text


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
