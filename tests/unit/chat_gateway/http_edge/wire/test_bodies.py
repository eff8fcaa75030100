import msgspec
import pytest

from chat_gateway.http_edge.wire.bodies import MAX_DEPTH, ClientGone, check_free_form, read_body, wrong_shape
from chat_gateway.http_edge.wire.errors import MalformedBody
from servicekit.errors import MessageTooLarge


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: int


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    items: list[_Inner]
    label: str = ""


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"items":[{"n":1},{"n":"x"}]}', "items[1].n"),
        (b'{"items":[{"m":1}]}', "items[0].m"),
        (b'{"items":[{}]}', "items[0].n"),
        (b'{"items":[],"x`y":1}', "x`y"),
        (b"{}", "items"),
        (b"[]", ""),
    ],
)
def test_a_complaint_names_the_field(body: bytes, param: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=_Outer)
    error = wrong_shape(str(caught.value))
    assert error.violations[0].field == param
    assert error.message.startswith(f"{param}: " if param else "the body has the wrong shape: ")


def test_depth_is_bounded() -> None:
    deep: object = "x"
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    check_free_form(deep, "parameters")
    with pytest.raises(MalformedBody):
        check_free_form({"a": [deep]}, "parameters")


async def test_a_body_is_read_no_further_than_its_limit() -> None:
    asked = 0

    async def receive():
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    with pytest.raises(MessageTooLarge) as caught:
        await read_body(receive, 25, 1.0)
    assert asked == 3
    assert caught.value.metadata == {"limit_bytes": "25"}


async def test_a_client_that_leaves_before_its_body_is_whole() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    with pytest.raises(ClientGone):
        await read_body(receive, 25, 1.0)
