"""Agent configs between the contract's messages and the domain's values."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from config_svc.edge.agents_convert import (
    _model_of,
    _model_to_proto,
    agent_to_proto,
    difference_to_proto,
    spec_of,
    update_paths,
)
from config_svc.model.agent import AgentConfig, AgentSpec, ModelConfig, ModelFallback, RequestPolicy
from config_svc.model.fields import Difference
from config_svc.model.rules import canonical
from parley.config.v1 import agent_config_pb2 as pb
from parley.config.v1 import agent_config_service_pb2 as service_pb
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


def shown(spec: AgentSpec) -> pb.AgentConfig:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return agent_to_proto(AgentConfig("default", "a", "", spec, 1, now, now))


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 14, "x": 0.5},
        {"n": 9007199254740993},
        {"deep": [{"n": -(2**64)}], "big": 10**30 + 1},
        {"text": "9007199254740993", "yes": True},
    ],
)
def test_every_number_of_parameters_comes_back_as_it_was(parameters: dict[str, Any]) -> None:
    message = shown(AgentSpec(parameters=parameters))
    assert canonical(spec_of(message).parameters) == canonical(parameters)
    exact = not {"n": 14, "text": ""}.keys().isdisjoint(parameters) and parameters.get("n", 14) == 14
    assert bool(message.parameters_json) is not exact


def test_a_caller_that_knows_one_form_of_parameters_only_goes_on() -> None:
    old = pb.AgentConfig()
    old.parameters.update({"n": 14})
    assert spec_of(old).parameters == {"n": 14}
    assert spec_of(pb.AgentConfig(parameters_json='{"n": 9007199254740993}')).parameters == {"n": 2**53 + 1}


@pytest.mark.parametrize(
    "text", ['{"n": 15}', "[]", "{", '{"n": NaN}', '{"n": 1e400}', '{"n":' + "[" * 30 + "]" * 30 + "}", "x" * 70_000]
)
def test_parameters_as_text_are_refused_by_name_where_they_are_none(text: str) -> None:
    message = pb.AgentConfig(parameters_json=text)
    message.parameters.update({"n": 14})
    with pytest.raises(InvalidArgument) as caught:
        spec_of(message)
    assert [violation.field for violation in caught.value.violations] == ["agent_config.parameters_json"]


def test_parameters_as_text_are_the_field_parameters_in_masks() -> None:
    agent = pb.AgentConfig(parameters_json="{}")
    assert update_paths(service_pb.UpdateAgentConfigRequest(agent_config=agent)) == ["parameters"]
    named = service_pb.UpdateAgentConfigRequest(agent_config=agent, update_mask={"paths": ["parameters_json"]})
    assert update_paths(named) == ["parameters"]


def test_numbers_that_differ_are_shown_exactly() -> None:
    difference = difference_to_proto(Difference("parameters.n", 2**53 + 1, 14))
    assert (difference.from_json, difference.to_json) == ("9007199254740993", "")
    assert difference.to_value.number_value == 14


def test_what_requests_get_and_may_say_comes_back_as_it_was() -> None:
    for policy in (
        RequestPolicy(),
        RequestPolicy(store=False, history="replace", overridable=("temperature", "tools")),
        RequestPolicy(store=True, overridable=()),
    ):
        spec = AgentSpec(model=ModelConfig("p", "m", extra={"a": 2**60, "b": {"c": [1, None]}}), requests=policy)
        assert spec_of(shown(spec)) == spec


def test_what_breaks_the_rules_of_requests_and_extra_is_named() -> None:
    message = pb.AgentConfig(
        model={"provider": "p", "name": "m", "extra": {"temperature": "1", "a b": "1"}},
        requests={"history": 9, "overridable": {"names": ["a", "a", "b c"]}},  # type: ignore[dict-item]
    )
    found = Violations()
    spec_of(message).check(found, "agent_config")
    with pytest.raises(InvalidArgument) as caught:
        found.check()
    assert {violation.field for violation in caught.value.violations} == {
        "agent_config.model.extra.temperature",
        "agent_config.model.extra",
        "agent_config.requests.history",
        "agent_config.requests.overridable[1]",
        "agent_config.requests.overridable[2]",
    }
    with pytest.raises(InvalidArgument, match=r"model\.extra\.x"):
        spec_of(pb.AgentConfig(model={"extra": {"x": "{"}}))


def test_a_fallback_has_sampling_of_its_own() -> None:
    own = ModelFallback("q", "m", temperature=0.0, stop=("a",), seed=2**60)
    spec = AgentSpec(model=ModelConfig("p", "m", fallbacks=(own, ModelFallback("r", "m"))))
    message = pb.AgentConfig(model=_model_to_proto(spec.model))
    assert not message.model.fallbacks[1].HasField("temperature")
    assert _model_of(message.model) == spec.model
    shown = MessageToDict(difference_to_proto(Difference("model.fallbacks", (), (own,))))
    assert shown["toValue"] == [{"provider": "q", "name": "m", "temperature": 0.0, "stop": ["a"], "seed": str(2**60)}]
