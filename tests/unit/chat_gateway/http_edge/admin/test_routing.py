import pytest

from chat_gateway.http_edge.admin.routing import merged_etag
from servicekit.errors import InvalidArgument


@pytest.mark.parametrize(
    ("header", "body", "etag"),
    [
        (None, None, ""),
        ('"e1"', None, "e1"),
        ('W/"e1"', "e1", "e1"),
        ("*", None, ""),
        ("*", "e1", "e1"),
        ("e1", "", "e1"),
    ],
)
def test_etags_by_header_or_body(header: str | None, body: str | None, etag: str) -> None:
    assert merged_etag(header, body) == etag


def test_an_etag_by_header_must_not_contradict_the_body() -> None:
    with pytest.raises(InvalidArgument):
        merged_etag('"e1"', "e2")
