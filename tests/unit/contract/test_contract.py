"""The library of the contract's rules says what the protos say."""

import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.enums import BusyPolicy, HistoryPolicy, Role
from contract.fields import check_metadata, check_resource_id, check_user_id, is_resource_id
from contract.json_numbers import normalized, parsed, text_unless_exact
from contract.messages import MAX_PARTS, MAX_TOOL_CALLS, MessageForm, PartView, check_messages
from contract.reasons import Reason
from contract.wire import BUSY_POLICIES, BUSY_POLICY_NUMBERS, HISTORY_POLICY_NUMBERS, ROLE_NUMBERS, ROLES
from parley.chat.v1 import chat_service_pb2
from parley.config.v1 import agent_config_pb2
from parley.errors.v1 import reason_pb2
from parley.session.v1 import message_pb2, turn_service_pb2
from servicekit.errors import ServiceError, Violations

FORM = MessageForm(system=1, user=2, assistant=3, tool=4, part=lambda part: PartView("text" if part.text else ""))


def names(enum: object, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # type: ignore[attr-defined]  # noqa: SIM118


def test_the_enumerations_have_the_members_of_the_protos() -> None:
    assert set(Reason.__members__) == names(reason_pb2.Reason, "REASON_")
    assert all(reason.name == reason.value for reason in Reason)
    assert set(Role.__members__) == names(message_pb2.Role, "ROLE_")
    for proto in (agent_config_pb2.HistoryPolicy, chat_service_pb2.HistoryPolicy):
        assert set(HistoryPolicy.__members__) == names(proto, "HISTORY_POLICY_")
        assert {policy: proto.Value(f"HISTORY_POLICY_{policy.name}") for policy in HistoryPolicy} == (
            HISTORY_POLICY_NUMBERS
        )
    assert set(BusyPolicy.__members__) == names(turn_service_pb2.BusyPolicy, "BUSY_POLICY_")


def test_numbers_and_members_are_each_others_inverse() -> None:
    assert {number: role for role, number in ROLE_NUMBERS.items()} == ROLES
    assert all(message_pb2.Role.Name(ROLE_NUMBERS[role]) == f"ROLE_{role.name}" for role in Role)
    assert all(BUSY_POLICIES[BUSY_POLICY_NUMBERS[policy]] is policy for policy in BusyPolicy)
    assert BUSY_POLICIES[0] is BusyPolicy.WAIT


def subclasses(kind: type[ServiceError]) -> list[type[ServiceError]]:
    found = kind.__subclasses__()
    return found + [deeper for one in found for deeper in subclasses(one)]


@pytest.mark.parametrize("service", ["config_svc", "session_svc", "chat_gateway"])
def test_every_error_has_a_reason_of_the_contract(service: str) -> None:
    importlib.import_module(f"{service}.wiring")
    parts = (f"{service}.", "access.", "servicekit.")
    ours = [
        kind
        for kind in subclasses(ServiceError)
        if kind.__module__.startswith(parts) and kind.domain == ServiceError.domain
    ]
    assert len(ours) > 20
    assert {kind.reason for kind in ours} <= set(Reason)


@given(st.text(alphabet="aZ09-", max_size=66))
def test_a_resource_id_is_a_dns_label_that_begins_with_a_letter(text: str) -> None:
    inner = all(letter in "a09-" for letter in text)
    assert is_resource_id(text) == (inner and 1 <= len(text) <= 63 and text[0] == "a" and text[-1] != "-")
    found = Violations()
    check_resource_id(found, "id", text)
    assert bool(found) != is_resource_id(text)


@pytest.mark.parametrize(("user", "required", "wrong"), [("", False, False), ("", True, True), ("a b", False, True)])
def test_a_user_may_be_left_out_unless_required(user: str, required: bool, wrong: bool) -> None:
    found = Violations()
    check_user_id(found, "user_id", user, required=required)
    assert bool(found) == wrong


def test_metadata_has_bounds_for_pairs_keys_and_values() -> None:
    for metadata in ({str(i): "" for i in range(65)}, {"": "x"}, {"k" * 65: "x"}, {"k": "v" * 513}):
        found = Violations()
        check_metadata(found, "metadata", metadata)
        assert found
    found = Violations()
    check_metadata(found, "metadata", {str(i): "v" * 512 for i in range(64)} | {})
    assert not found


def message(role: int, **fields: object) -> message_pb2.Message:
    return message_pb2.Message(role=role, **fields)  # type: ignore[arg-type]


def call(call_id: str) -> message_pb2.ToolCall:
    return message_pb2.ToolCall(id=call_id, name="f")


def checked(messages: list[message_pb2.Message], *, one_turn: bool = True) -> tuple[Violations, bool]:
    found = Violations()
    continues = check_messages(found, "messages", messages, FORM, max_messages=4, one_turn=one_turn)
    return found, continues


def test_results_before_the_agent_speaks_continue_the_turn_before() -> None:
    early = [message(4, content="x", tool_call_id="c"), message(3, content="y")]
    own = [message(3, tool_calls=[call("c")]), message(4, content="x", tool_call_id="c")]
    late = [message(3, content="y"), message(4, content="x", tool_call_id="c")]
    assert checked(early)[1] is True
    assert checked(own)[1] is False
    assert not checked(early)[0]
    assert not checked(own)[0]
    assert checked(late)[0]
    assert not checked(late, one_turn=False)[0]


def test_ids_of_tool_calls_are_unique_within_a_message_only() -> None:
    again = [message(3, tool_calls=[call("c")]), message(3, tool_calls=[call("c")])]
    assert not checked(again)[0]
    assert checked([message(3, tool_calls=[call("c"), call("c")])])[0]


def test_what_is_over_a_bound_is_noted_and_not_read_further() -> None:
    part = message_pb2.ContentPart(text="x")
    for messages in (
        [],
        [message(2, content="x")] * 5,
        [message(2, parts=[part] * MAX_PARTS + [message_pb2.ContentPart()])],
        [message(3, tool_calls=[call(str(i)) for i in range(MAX_TOOL_CALLS)] + [message_pb2.ToolCall()])],
    ):
        found, _ = checked(messages)
        with pytest.raises(ServiceError) as refused:
            found.check()
        assert len(refused.value.violations) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_whole_numbers_are_exact_through_doubles_or_stand_as_text(value: Any) -> None:
    exact = normalized(value)
    assert exact == value
    assert repr(parsed(json.dumps(value))) == repr(normalized(exact)) == repr(exact)
    text = text_unless_exact(exact)
    assert repr(parsed(text) if text else normalized(doubles(exact))) == repr(exact)


def doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: doubles(one) for name, one in value.items()}
    if isinstance(value, list):
        return [doubles(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "[" * 100_000])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|deeply"):
        parsed(text)
