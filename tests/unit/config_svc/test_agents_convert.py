"""Agent configs between the contract's messages and the domain's values."""

import pytest
from google.protobuf.json_format import MessageToDict

from config_svc.edge.agents_convert import difference_to_proto, spec_of
from config_svc.model.agent import ModelFallback
from config_svc.model.fields import Difference
from parley.config.v1 import agent_config_pb2 as pb
from servicekit.errors import InvalidArgument, Violations


def test_a_trigger_that_does_not_exist_is_a_violation() -> None:
    message = pb.AgentConfig(model={"provider": "p", "name": "m", "fallbacks": [{"provider": "q", "name": "m"}]})
    message.model.fallbacks[0].also_on.extend([0, 1, 7])
    found = Violations()
    spec_of(message).model.check(found, "model")
    with pytest.raises(InvalidArgument) as caught:
        found.check()
    assert [violation.field for violation in caught.value.violations] == [
        "model.fallbacks[0].also_on[0]",
        "model.fallbacks[0].also_on[2]",
    ]


def test_fallbacks_that_differ_are_shown_as_json() -> None:
    fallbacks = (ModelFallback("p", "m", ("content_filter",)), ModelFallback("q", "m"))
    shown = MessageToDict(difference_to_proto(Difference("model.fallbacks", (), fallbacks)))
    assert shown == {
        "path": "model.fallbacks",
        "fromValue": [],
        "toValue": [
            {"provider": "p", "name": "m", "also_on": ["content_filter"]},
            {"provider": "q", "name": "m"},
        ],
    }
