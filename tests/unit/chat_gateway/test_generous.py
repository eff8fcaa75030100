"""What providers say, read generously."""

import pytest

from chat_gateway.providers.generous import MAX_COUNT, count


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (10**400, MAX_COUNT),
        (-(10**400), 0),
        ("1e999", None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("7", 7),
        (6.6, 7),
        ([], None),
    ],
)
def test_a_count_is_one_or_none(said: object, right: int | None) -> None:
    assert count(said) == right
