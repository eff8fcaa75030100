import pytest

from chat_gateway.http_edge.wire.auth import acting_user
from servicekit.errors import InvalidArgument


def test_a_user_by_header_must_not_contradict_the_request() -> None:
    assert acting_user("ann", None) == acting_user(None, "ann") == acting_user("ann", "ann") == "ann"
    with pytest.raises(InvalidArgument):
        acting_user("ann", "bob")
