"""Page tokens: only what was made comes back, and only for its own query."""

import base64
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_svc import paging
from config_svc.model.errors import InvalidPageToken
from servicekit.errors import InvalidArgument

queries = st.lists(st.text(), max_size=4)
QUERY = ("agents", "default")


@settings(deadline=None)
@given(queries, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers())
def test_a_token_gives_its_place_back(query: list[str], text: str, number: int) -> None:
    time = datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)
    uid = str(uuid.uuid4())
    token = paging.make_token(query, [text, number, time, uid])
    if len(token) <= 4096:
        assert paging.read_token(query, token, [str, int, datetime, uuid.UUID]) == [text, number, time, uid]


@settings(deadline=None)
@given(queries, queries)
def test_a_token_is_for_its_query_only(one: list[str], other: list[str]) -> None:
    token = paging.make_token(one, ["a"])
    if one != other:
        with pytest.raises(InvalidPageToken):
            paging.read_token(other, token, [str])


@settings(deadline=None)
@given(st.integers(0, 30), st.characters())
def test_a_changed_token_is_refused(place: int, letter: str) -> None:
    token = paging.make_token(QUERY, ["abcdefghijkl"])
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(InvalidPageToken):
            paging.read_token(QUERY, changed, [str])


@pytest.mark.parametrize(
    ("body", "types"),
    [
        (b"", [str]),
        (b"{", [str]),
        (b"{}", [str]),
        (b"1", [str]),
        (b'["a", "b"]', [str]),
        (b"[1]", [str]),
        (b'["\\u0000"]', [str]),
        (b'["x"]', [uuid.UUID]),
        (b"[1]", [uuid.UUID]),
        (b'["x"]', [datetime]),
        (b"[null]", [datetime]),
        (b'["x"]', [int]),
        (b"[1.5]", [int]),
        (b'["0001-01-01T00:00:00+23:00"]', [datetime]),
        (b"\xff", [str]),
    ],
)
def test_a_made_up_token_is_a_wrong_token(body: bytes, types: list[type[Any]]) -> None:
    forged = base64.urlsafe_b64encode(paging._checksum(QUERY, body) + body).rstrip(b"=").decode()
    with pytest.raises(InvalidPageToken):
        paging.read_token(QUERY, forged, types)


def test_page_sizes() -> None:
    assert [paging.page_size(asked) for asked in (0, 1, 1000, 1001, 2**31 - 1)] == [50, 1, 1000, 1000, 1000]
    with pytest.raises(InvalidArgument):
        paging.page_size(-1)
