"""Pages of items, and the fields that callers ask to include."""

from collections.abc import Sequence
from typing import Any, Final

from litestar import Request

from chat_gateway.http_edge.openai.responses.answer_schema import Item, ItemList
from chat_gateway.http_edge.openai.responses.options import INCLUDES
from servicekit.errors import InvalidArgument, Violation

INCLUDE: Final = ("include",)
"""The query parameter that lists what to show, which OpenAI's clients send as `include[]`, once for each."""


def includes_of(request: Request[Any, Any, Any], single: str | None) -> frozenset[str]:
    """Returns what a request asks to be shown. Raises `InvalidArgument` for what there is not."""
    given = request.query_params.multi_items()
    names = [value for name, value in given if name in INCLUDE or name.startswith("include[")]
    asked = frozenset(name for name in (*names, single) if name)
    unknown = sorted(asked - INCLUDES)
    if unknown:
        raise InvalidArgument([Violation("include", f"{name[:64]!r} is not supported") for name in unknown])
    return asked


def page_of(items: Sequence[Item], after: str, limit: int) -> ItemList:
    """Returns a page of items that are in the order asked for. Raises `InvalidArgument` for an id that none has."""
    if after:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise InvalidArgument([Violation("after", "must be the id of an item of the list")])
        items = items[ids.index(after) + 1 :]
    page = list(items[:limit])
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else "",
        last_id=page[-1]["id"] if page else "",
        has_more=len(items) > limit,
    )
