"""Free-form JSON of callers is bounded before it is converted."""

import json
import tracemalloc
from collections.abc import Callable

import pytest
from google.protobuf.struct_pb2 import NullValue, Struct

from config_svc.edge.access_convert import event_of
from config_svc.edge.agents_convert import spec_of, template_of
from config_svc.edge.json_objects import MAX_DEPTH, object_of, struct
from config_svc.model.rules import canonical
from parley.config.v1 import access_service_pb2, agent_config_pb2, agent_config_service_pb2, template_service_pb2
from servicekit.errors import InvalidArgument


def nested(depth: int) -> Struct:
    """An object with `depth` levels."""
    message = inner = Struct()
    for _ in range(depth - 1):
        inner = inner.fields["x"].struct_value
    inner.fields["x"].number_value = 1
    return message


def holding(number: float) -> Struct:
    """An object with a number in it."""
    message = Struct()
    message.fields["x"].list_value.values.add().number_value = number
    return message


def wide(count: int) -> Struct:
    """An object with many small values in a list."""
    message = Struct()
    message.fields["x"].list_value.MergeFromString(b"\x0a\x02\x08\x00" * count)
    return message


def without_kind() -> Struct:
    """An object with a value that is not even null."""
    message = Struct()
    message.fields["x"].list_value.values.add()
    return message


REFUSED = [
    pytest.param(wide(2_000_000), "must have at most 65536 bytes as JSON", id="wide"),
    pytest.param(wide(40_000), "must have at most 65536 bytes as JSON", id="many values"),
    pytest.param(struct({"x": "y" * 500_000}), "must have at most 65536 bytes as JSON", id="long text"),
    pytest.param(nested(MAX_DEPTH + 1), "must not nest deeper than 24 levels", id="deep"),
    pytest.param(holding(float("nan")), "must not hold a number that is not finite", id="nan"),
    pytest.param(holding(float("-inf")), "must not hold a number that is not finite", id="infinity"),
    pytest.param(without_kind(), "must not hold a value of no kind", id="no kind"),
]


def agent(given: Struct) -> None:
    """An agent config's parameters."""
    spec_of(agent_config_pb2.AgentConfig(parameters=given))


def template(given: Struct) -> None:
    """A template's schema."""
    template_of(template_service_pb2.Template(parameters_schema=given))


@pytest.mark.parametrize(("given", "problem"), REFUSED)
@pytest.mark.parametrize(
    ("convert", "field"), [(agent, "agent_config.parameters"), (template, "template.parameters_schema")]
)
def test_what_costs_too_much_or_is_no_json_is_refused_by_name(
    convert: Callable[[Struct], None], field: str, given: Struct, problem: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert(given)
    assert [(one.field, one.description) for one in caught.value.violations] == [(field, problem)]


def test_states_that_other_services_record_are_bounded_too() -> None:
    event = access_service_pb2.AuditEvent(after=nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidArgument) as caught:
        event_of(event)
    assert caught.value.violations[0].field == "audit_event.after"


def test_a_wide_object_costs_nothing_before_it_is_refused() -> None:
    given = wide(2_000_000)
    # Threads of other tests' servers, in the same process, may allocate at one time or another.
    assert min(allocated(lambda: agent(given)) for _ in range(5)) < 32 * 1024 * 1024


def allocated(refused: Callable[[], object]) -> int:
    """Return by how many bytes the memory grew at most until the call was refused."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(InvalidArgument):
            refused()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_labels_and_fallbacks_beyond_their_number_are_not_converted() -> None:
    message = agent_config_pb2.AgentConfig(labels={f"k{number}": "v" for number in range(1000)})
    for _ in range(1000):
        message.model.fallbacks.add(provider="p", name="m")
    spec = spec_of(message)
    assert (len(spec.labels), len(spec.model.fallbacks)) == (65, 5)


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join("1" * 32_760) + "]",
        "[" + ",".join(["[]"] * 21_800) + "]",
        '{"' + '":0,"'.join(str(number) for number in range(6_000)) + '":0}',
        '"' + "é" * 32_000 + '"',
        '[null,true,1.5,{"":{}}]',
    ],
    ids=["numbers", "lists", "objects", "text", "mixed"],
)
def test_every_object_within_the_bound_is_taken(text: str) -> None:
    value = {"x": json.loads(text)}
    assert len(canonical(value).encode()) <= 64 * 1024
    assert object_of(struct(value), "x") == value


def test_what_is_taken_can_be_read_wherever_it_is_shown() -> None:
    given = nested(MAX_DEPTH)
    assert object_of(given, "x")
    revisions = agent_config_service_pb2.ListAgentConfigRevisionsResponse()
    revisions.revisions.add().agent_config.parameters.CopyFrom(given)
    events = access_service_pb2.ListAuditEventsResponse()
    events.audit_events.add().after.fields["parameters"].struct_value.CopyFrom(given)
    for message in (revisions, events):
        assert type(message).FromString(message.SerializeToString()) == message


def test_null_is_a_value() -> None:
    message = Struct()
    message.fields["x"].null_value = NullValue.NULL_VALUE
    assert object_of(message, "x") == {"x": None}
