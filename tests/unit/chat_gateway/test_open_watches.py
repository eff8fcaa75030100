"""How many watches of turns a gateway has open."""

from contextlib import ExitStack

import pytest

from chat_gateway.model.watches import WatchBounds
from chat_gateway.open_watches import OpenWatches
from contract.errors import TooManyWatches


def test_watches_are_bounded_and_the_bound_is_named() -> None:
    watches = OpenWatches(WatchBounds(in_all=5, per_project=3, per_session=2))

    def refused(project: str, session: str) -> str:
        with pytest.raises(TooManyWatches) as refusal, watches.one_more(project, session):
            pass
        assert refusal.value.retry_after
        return refusal.value.metadata["scope"]

    with ExitStack() as first:
        for project, session in (("a", "s1"), ("a", "s1")):
            first.enter_context(watches.one_more(project, session))
        assert refused("a", "s1") == "session"
        with watches.one_more("a", "s2"):
            assert refused("a", "s3") == "project"
            with watches.one_more("b", "s1"), watches.one_more("b", "s1"):
                assert refused("c", "s1") == "gateway"
    with watches.one_more("a", "s1"):
        pass
    assert not watches._open, "nothing is left of watches that have ended"
