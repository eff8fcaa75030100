"""Pages of lists. Their tokens are opaque, and bound to the query that they continue (AIP-158)."""

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from config_svc.model.errors import InvalidPageToken
from config_svc.model.query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from servicekit.errors import InvalidArgument, Violation

PAGE_BYTES = 4 * 1024 * 1024
"""The maximum size of a page, except its last entry; messages are limited to 8 MiB."""

CHUNK = 64

T = TypeVar("T")
Place: TypeAlias = tuple[Any, ...]

_CHECKSUM_BYTES = 8
_MAX_TOKEN_CHARACTERS = 4096


def page_size(asked: int) -> int:
    """Returns how many entries a page has: the default for 0, the most allowed for more. Raises InvalidArgument."""
    if asked < 0:
        raise InvalidArgument([Violation("page_size", "must not be negative")])
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


async def read_page(
    fetch: Callable[[Place | None, int], Awaitable[Sequence[T]]],
    query: Sequence[str],
    *,
    size: int,
    token: str,
    types: Sequence[type[Any]],
    place_of: Callable[[T], Place],
    weigh: Callable[[T], int],
) -> tuple[list[T], str]:
    """Returns a page of the list that `query` describes, and the token of the next page, empty on the last.

    `fetch(place, count)` reads the next `count` entries after a place, or the first ones for None. `place_of` returns
    an entry's place, whose members have these `types`. Raises InvalidArgument for the size, and InvalidPageToken.
    """
    limit = page_size(size)
    start = tuple(read_token(query, token, types)) if token else None

    async def following(last: T | None, count: int) -> Sequence[T]:
        return await fetch(start if last is None else place_of(last), count)

    page, more = await filled(following, limit, weigh)
    return page, make_token(query, place_of(page[-1])) if more else ""


async def filled(
    fetch: Callable[[T | None, int], Awaitable[Sequence[T]]], limit: int, weigh: Callable[[T], int]
) -> tuple[list[T], bool]:
    """Returns a page of at most `limit` entries, and whether there are more.

    A page that grows heavier than PAGE_BYTES ends early (AIP-158 allows that), so that it fits into a message.
    `fetch(last, count)` reads the next `count` entries after `last`, a few at a time.
    """
    page: list[T] = []
    weight = 0
    while True:
        wanted = min(CHUNK, limit + 1 - len(page))
        chunk = await fetch(page[-1] if page else None, wanted)
        for entry in chunk:
            if len(page) == limit or weight >= PAGE_BYTES:
                return page, True
            page.append(entry)
            weight += weigh(entry)
        if len(chunk) < wanted:
            return page, False


def make_token(query: Sequence[str], place: Sequence[str | int | datetime]) -> str:
    """Returns the token for the page after `place`, in the list that `query` describes."""
    body = json.dumps([one.isoformat() if isinstance(one, datetime) else one for one in place]).encode()
    return base64.urlsafe_b64encode(_checksum(query, body) + body).rstrip(b"=").decode()


def read_token(query: Sequence[str], token: str, types: Sequence[type[Any]]) -> list[Any]:
    """Returns the place that `make_token` was given; raises InvalidPageToken for any other text, or another query."""
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidPageToken from error
    checksum, body = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if len(token) > _MAX_TOKEN_CHARACTERS or checksum != _checksum(query, body):
        raise InvalidPageToken
    try:
        place = json.loads(body)
        return [_typed(one, kind) for one, kind in zip(place, types, strict=True)]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidPageToken from error


def _typed(value: Any, kind: type[Any]) -> Any:
    # The checksum is not secret, so a forged token must be handled like any invalid one.
    if kind is int and isinstance(value, int):
        return value
    if kind is int or not isinstance(value, str) or "\0" in value:
        raise TypeError
    if kind is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)
    return str(uuid.UUID(value)) if kind is uuid.UUID else value


def _checksum(query: Sequence[str], body: bytes) -> bytes:
    bound = hashlib.blake2b(json.dumps(list(query)).encode(), digest_size=16).digest()
    return hashlib.blake2b(bound + body, digest_size=_CHECKSUM_BYTES).digest()
