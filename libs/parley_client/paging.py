"""Lists of any length, page by page (AIP-158)."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from google.protobuf.message import Message

FIRST_FIELD = 1
"""The field of a list response that has the objects."""


def objects(method: Callable[..., Any], request: Message, **options: Any) -> Iterator[Any]:
    """Yields the objects that a stub's `List…` method lists, reading further pages as needed. `request` gives the page
    size and where to begin; it is not changed. `options` are passed to each call, such as `timeout`.
    """
    asked = _copy(request)
    while True:
        page = method(asked, **options)
        yield from _objects(page)
        if not page.next_page_token:
            return
        asked.page_token = page.next_page_token


async def async_objects(method: Callable[..., Any], request: Message, **options: Any) -> AsyncIterator[Any]:
    """As `objects`, for asyncio."""
    asked = _copy(request)
    while True:
        page = await method(asked, **options)
        for one in _objects(page):
            yield one
        if not page.next_page_token:
            return
        asked.page_token = page.next_page_token


def _copy(request: Message) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def _objects(page: Any) -> Any:
    return getattr(page, page.DESCRIPTOR.fields_by_number[FIRST_FIELD].name)
