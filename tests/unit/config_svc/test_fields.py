"""Update masks: what is named is taken over, what is not stays."""

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_svc.model.agent import (
    AgentLimits,
    AgentSpec,
    MemoryPolicy,
    ModelConfig,
    ModelFallback,
    RequestPolicy,
    SessionPolicy,
)
from config_svc.model.fields import GROUPS, NOT_SET, NOT_WRITABLE, WRITABLE, Difference, compared, differences, merge
from config_svc.model.tools import AgentCall, AgentTool, ClientTool, ServerTools, ToolPolicy
from parley.config.v1.agent_config_pb2 import AgentConfig as AgentConfigMessage
from servicekit.errors import Violations

words = st.sampled_from(["", "a", "b"])
numbers = st.none() | st.integers(1, 2)
spans = st.none() | st.sampled_from([timedelta(seconds=1), timedelta(hours=1)])
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | words, lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
specs = st.builds(
    AgentSpec,
    display_name=words,
    template_id=st.just("t"),
    template_version=st.just("1.0.0"),
    parameters=st.dictionaries(st.sampled_from(["a", "b.c"]), values),
    instructions=words,
    model=st.builds(
        ModelConfig,
        words,
        words,
        numbers,
        numbers,
        numbers,
        st.tuples(),
        numbers,
        numbers,
        numbers,
        st.lists(st.builds(ModelFallback, words, words), max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["x", "y"]), values),
    ),
    memory=st.builds(MemoryPolicy, numbers),
    session=st.builds(SessionPolicy, spans, spans),
    limits=st.builds(AgentLimits, numbers, spans),
    labels=st.dictionaries(st.sampled_from(["a", "b.c"]), words),
    metadata_keys=st.lists(st.sampled_from(["a", "b"]), unique=True).map(tuple),
    tools=st.lists(
        st.builds(AgentTool, mcp=st.builds(ServerTools, words))
        | st.builds(AgentTool, agent=st.builds(AgentCall, words))
        | st.builds(AgentTool, client=st.builds(ClientTool, words)),
        max_size=2,
    ).map(tuple),
    tool_policy=st.builds(ToolPolicy, words, st.none() | st.booleans(), numbers, numbers, spans, numbers),
    requests=st.builds(
        RequestPolicy,
        st.none() | st.booleans(),
        st.none() | st.sampled_from(["match", "replace"]),
        st.none() | st.lists(words, max_size=2).map(tuple),
    ),
)
PATHS = sorted(WRITABLE | {f"{group}.{name}" for group, names in GROUPS.items() for name in names})


def merged(current: AgentSpec, given_: AgentSpec, *paths: str) -> AgentSpec:
    found = Violations()
    result = merge(found, current, given_, paths)
    found.check()
    return result


def at(spec: AgentSpec, path: str) -> Any:
    head, _, rest = path.partition(".")
    value = getattr(spec, head)
    return getattr(value, rest) if rest else value


@settings(deadline=None)
@given(specs, specs, st.lists(st.sampled_from(PATHS)))
def test_exactly_what_is_named_is_taken_over(current: AgentSpec, other: AgentSpec, paths: list[str]) -> None:
    result = merged(current, other, *paths)
    for path in paths:
        assert at(result, path) == at(other, path)
    for changed in differences(current, result):
        assert changed in paths or changed.partition(".")[0] in paths


@settings(deadline=None)
@given(specs, specs)
def test_a_comparison_is_a_mask_with_both_values(current: AgentSpec, other: AgentSpec) -> None:
    found = compared(current, other)
    assert differences(merged(current, other, *(one.path for one in found)), other) == ()
    assert [replace(one, before=one.after, after=one.before) for one in compared(other, current)] == found
    assert compared(current, current) == []


def test_maps_are_compared_entry_by_entry() -> None:
    old = AgentSpec(parameters={"a": None, "same": [1], "one": 1}, labels={"x.y": "1"})
    new = AgentSpec(parameters={"same": [1], "one": True}, labels={"x.y": "2"})
    assert compared(old, new) == [
        Difference("parameters.a", None, NOT_SET),
        Difference("parameters.one", 1, True),
        Difference("labels.`x.y`", "1", "2"),
    ]


@settings(deadline=None)
@given(specs, specs)
def test_a_star_takes_everything_and_nothing_takes_nothing(current: AgentSpec, other: AgentSpec) -> None:
    assert merged(current, other, "*") == other
    assert merged(current, other) == current
    assert merged(current, other, *sorted(NOT_WRITABLE)) == current


@settings(deadline=None)
@given(specs, specs)
def test_the_differences_are_a_mask_that_makes_the_one_the_other(current: AgentSpec, other: AgentSpec) -> None:
    changed = differences(current, other)
    assert differences(merged(current, other, *changed), other) == ()
    assert differences(current, current) == ()


@settings(deadline=None)
@given(specs, specs, st.sampled_from(["labels", "parameters"]), st.sampled_from(["a", "b.c"]), st.booleans())
def test_one_entry_of_a_map_is_taken_over(
    current: AgentSpec, other: AgentSpec, field: str, key: str, ticks: bool
) -> None:
    result = getattr(merged(current, other, f"{field}.`{key}`" if ticks else f"{field}.{key}"), field)
    before, given_ = getattr(current, field), getattr(other, field)
    assert result.get(key, "none") == given_.get(key, "none")
    assert {k: v for k, v in result.items() if k != key} == {k: v for k, v in before.items() if k != key}


@pytest.mark.parametrize(
    "path",
    ["", ".", "x", "model.", "model.x", "model.name.x", "memory.labels", "labels.", "id.x", "stop", "Model", "*.x"],
)
def test_what_is_no_path(path: str) -> None:
    found = Violations()
    assert merge(found, AgentSpec(), AgentSpec(), [path, "display_name"])
    with pytest.raises(Exception, match="update_mask"):
        found.check()


def test_a_star_stands_alone() -> None:
    found = Violations()
    merge(found, AgentSpec(), AgentSpec(), ["*", "display_name"])
    assert found


def test_another_template_comes_with_its_newest_version() -> None:
    old = AgentSpec(template_id="a", template_version="1.0.0")
    assert merged(old, AgentSpec(template_id="b", template_version="9.0.0"), "template_id").template_version == ""
    assert merged(old, replace(old, template_id="b"), "template_id", "template_version").template_version == "1.0.0"
    assert merged(old, old, "template_id") == old


def test_every_field_of_the_contract_is_known() -> None:
    names = {field.name for field in AgentConfigMessage.DESCRIPTOR.fields}
    assert names == WRITABLE | NOT_WRITABLE | {"parameters_json"}  # another form of parameters
    for group, members in GROUPS.items():
        message: Any = AgentConfigMessage.DESCRIPTOR.fields_by_name[group].message_type
        assert members == {field.name for field in message.fields}
    assert {member.name for member in fields(AgentSpec)} == WRITABLE
