"""Every rule of a turn request, one violation each, and all of them at once."""

from dataclasses import replace

import pytest

from chat_gateway.model.rules import MAX_MESSAGES_BYTES, RequestBounds, check_tool_choice, check_turn_request
from chat_gateway.model.tools import Approval, ClientTool
from chat_gateway.model.turn import ImagePart, Message, Sampling, TextPart, Tool, ToolCall, TurnRequest
from contract.enums import Role
from servicekit.errors import InvalidArgument, MessageTooLarge
from tests.unit.chat_gateway.world import asks, make_config

CALL = ToolCall("c", "f", "{}")
HI = Message(Role.USER, "hi")
ASKS_TOOL = Message(Role.ASSISTANT, tool_calls=(CALL,))
SAYS = Message(Role.ASSISTANT, "hello")
RESULT = Message(Role.TOOL, "x", tool_call_id="c")


def calling(*calls: ToolCall) -> tuple[Message, ...]:
    return (HI, Message(Role.ASSISTANT, tool_calls=calls))


BROKEN = [
    (asks(agent_id="Not An Id"), "agent_id"),
    (asks(project="-"), "project"),
    (asks(session_id="a b"), "session_id"),
    (asks(session_id="x" * 129), "session_id"),
    (asks(session_must_exist=True), "session_must_exist"),
    (asks(session_id="s", stateless=True), "session_id"),
    (asks(user_id="ü"), "user_id"),
    (asks(request_id="\n"), "request_id"),
    (asks(agent_revision=-1), "agent_revision"),
    (asks(messages=()), "messages"),
    (asks(messages=(HI,) * 1001), "messages"),
    (asks(messages=(HI, Message(Role.TOOL, "x"))), "messages[1].tool_call_id"),
    (asks(messages=(Message(Role.USER, "x", tool_call_id="c"),)), "messages[0].tool_call_id"),
    (asks(messages=(Message(Role.USER, "x", tool_calls=(CALL,)),)), "messages[0].tool_calls"),
    (asks(messages=(Message(Role.USER, "x", name="n" * 65),)), "messages[0].name"),
    (asks(messages=(Message(Role.SYSTEM, parts=(TextPart("x"),)),)), "messages[0].parts"),
    (asks(messages=(Message(Role.USER, parts=(TextPart("x"),) * 501),)), "messages[0].parts"),
    (asks(messages=(Message(Role.USER, "x", parts=(TextPart("x"),)),)), "messages[0].content"),
    (asks(messages=(Message(Role.USER, parts=(ImagePart("ftp://x"),)),)), "messages[0].parts[0].image_url.url"),
    (
        asks(messages=(Message(Role.USER, parts=(ImagePart("data:,x", "huge"),)),)),
        "messages[0].parts[0].image_url.detail",
    ),
    (asks(messages=calling(ToolCall("", "f", ""))), "messages[1].tool_calls[0].id"),
    (asks(messages=calling(ToolCall("c", "", ""))), "messages[1].tool_calls[0].name"),
    (asks(messages=calling(CALL, CALL)), "messages[1].tool_calls[1].id"),
    (asks(messages=calling(*(ToolCall(str(n), "f", "") for n in range(129)))), "messages[1].tool_calls"),
    (asks(messages=(HI, SAYS, RESULT)), "messages[2].tool_call_id"),
    (asks(messages=(HI, SAYS, RESULT), stateless=True), "messages[2].tool_call_id"),
    (asks(messages=(RESULT, HI)), "messages[0].tool_call_id"),
    (asks(messages=(RESULT, HI), stateless=True), "messages[0].tool_call_id"),
    (asks(messages=(RESULT, RESULT), session_id="s"), "messages[1].tool_call_id"),
    (asks(messages=(ASKS_TOOL, RESULT, RESULT), stateless=True), "messages[2].tool_call_id"),
    (asks(messages=(ASKS_TOOL, RESULT, SAYS, RESULT), session_id="s"), "messages[3].tool_call_id"),
    (asks(messages=(ASKS_TOOL, Message(Role.TOOL, "x", tool_call_id="d"))), "messages[1].tool_call_id"),
    (asks(sampling=Sampling(temperature=2.1)), "sampling.temperature"),
    (asks(sampling=Sampling(temperature=float("nan"))), "sampling.temperature"),
    (asks(sampling=Sampling(top_p=0.0)), "sampling.top_p"),
    (asks(sampling=Sampling(max_output_tokens=0)), "sampling.max_output_tokens"),
    (asks(sampling=Sampling(stop=("a",) * 5)), "sampling.stop"),
    (asks(sampling=Sampling(presence_penalty=-3)), "sampling.presence_penalty"),
    (asks(sampling=Sampling(frequency_penalty=3)), "sampling.frequency_penalty"),
    (asks(tools=(Tool("no spaces"),)), "tools[0].name"),
    (asks(tools=(Tool("f"), Tool("f"))), "tools"),
    (asks(tools=(Tool("f"),) * 129), "tools"),
    (asks(tool_choice="no name"), "tool_choice"),
    (asks(approvals=(Approval("c", True),)), "approvals"),
    (asks(session_id="s", approvals=(Approval("c", True), Approval("c", False))), "approvals"),
    (asks(session_id="s", approvals=(Approval("", True),)), "approvals[0].tool_call_id"),
    (asks(session_id="s", approvals=(Approval("c", False, "x" * 1001),)), "approvals[0].note"),
    (asks(session_id="s", approvals=tuple(Approval(str(n), True) for n in range(129))), "approvals"),
    (asks(metadata={"k": "v" * 513}), "metadata"),
    (asks(metadata={str(n): "v" for n in range(65)}), "metadata"),
]


@pytest.mark.parametrize(("request_", "field"), BROKEN, ids=[f"{n}-{field}" for n, (_, field) in enumerate(BROKEN)])
def test_a_broken_rule_names_its_field(request_: TurnRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_turn_request(request_)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_all_violations_come_at_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_turn_request(asks(agent_id="X", messages=(), user_id="ü"))
    assert [v.field for v in caught.value.violations] == ["agent_id", "user_id", "messages"]


@pytest.mark.parametrize(
    "request_",
    [
        asks(),
        asks(session_id="A:b.c_d-9", session_must_exist=True, user_id="u@x", request_id="r 1", agent_revision=3),
        asks(messages=(Message(Role.ASSISTANT, tool_calls=(CALL,)), Message(Role.TOOL, "", tool_call_id="c"))),
        asks(messages=(RESULT, Message(Role.TOOL, "y", tool_call_id="d"), HI, SAYS), session_id="s"),
        asks(messages=(RESULT, ASKS_TOOL, RESULT), session_id="s"),
        asks(messages=(ASKS_TOOL, RESULT, HI, ASKS_TOOL, RESULT)),
        asks(messages=(ASKS_TOOL, HI, SAYS, RESULT)),
        asks(messages=(Message(Role.SYSTEM), Message(Role.USER), Message(Role.ASSISTANT))),
        asks(messages=(Message(Role.USER, parts=(TextPart(""),)),)),
        asks(messages=(Message(Role.USER, "x" * 1024),) * 2000, stateless=True),
        asks(messages=calling(CALL, ToolCall("d", "f", "{}"))),
        asks(messages=(ASKS_TOOL, RESULT, HI, ASKS_TOOL, RESULT), stateless=True),
        asks(messages=(Message(Role.USER, parts=(TextPart("x"), ImagePart("data:,x"))),)),
        asks(messages=(Message(Role.USER, parts=tuple(ImagePart("data:,x", d) for d in ("", "auto", "low", "high"))),)),
        asks(tools=(Tool("f"),), tool_choice="f", sampling=Sampling(temperature=0, top_p=1.0, stop=("a",))),
    ],
)
def test_good_requests_pass(request_: TurnRequest) -> None:
    check_turn_request(request_)


def test_bounds_are_what_they_are_set_to() -> None:
    bounds = RequestBounds(2, 4)
    check_turn_request(asks(messages=(HI, HI)), bounds)
    check_turn_request(asks(messages=(HI,) * 3, stateless=True), bounds)
    check_turn_request(asks(messages=(HI,) * 3), RequestBounds(3))
    with pytest.raises(InvalidArgument, match="1 to 2 messages"):
        check_turn_request(asks(messages=(HI,) * 3), bounds)
    with pytest.raises(MessageTooLarge) as caught:
        check_turn_request(asks(messages=(HI, Message(Role.USER, "hi!"))), bounds)
    assert caught.value.metadata == {"limit_bytes": "4"}


def test_size_is_counted_in_bytes_over_all_messages() -> None:
    half = "ü" * (MAX_MESSAGES_BYTES // 4)
    check_turn_request(asks(messages=(Message(Role.USER, half),) * 2))
    with pytest.raises(MessageTooLarge) as caught:
        check_turn_request(asks(messages=(Message(Role.USER, half),) * 2 + (HI,)))
    assert caught.value.metadata == {"limit_bytes": str(MAX_MESSAGES_BYTES)}


@pytest.mark.parametrize(
    "messages",
    [
        (
            Message(Role.ASSISTANT, tool_calls=(ToolCall("ü" * (MAX_MESSAGES_BYTES // 4 + 1), "f", ""),)),
            Message(Role.TOOL, tool_call_id="ü" * (MAX_MESSAGES_BYTES // 4 + 1)),
        ),
        (Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "ü" * (MAX_MESSAGES_BYTES // 2), "{}"),)),),
        (Message(Role.ASSISTANT, "x", refusal="r" * MAX_MESSAGES_BYTES),),
    ],
    ids=["tool_call_id", "tool_calls", "refusal"],
)
def test_size_counts_every_text(messages: tuple[Message, ...]) -> None:
    with pytest.raises(MessageTooLarge):
        check_turn_request(asks(messages=messages))


def test_the_choice_of_a_tool_names_one_of_the_request_or_the_agent() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_tool_choice(asks(tool_choice="g"), make_config())
    assert [violation.field for violation in caught.value.violations] == ["tool_choice"]
    check_tool_choice(asks(tool_choice="g", tools=(Tool("g"),)), make_config())
    check_tool_choice(asks(tool_choice="g"), make_config(tools=(ClientTool("g"),)))


def test_allowed_tools_are_those_of_the_request_or_the_agent() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_tool_choice(asks(allowed_tools=frozenset({"f", "g"}), tools=(Tool("f"),)), make_config())
    assert [violation.field for violation in caught.value.violations] == ["tool_choice"]
    check_tool_choice(asks(allowed_tools=frozenset({"f"}), tools=(Tool("f"),)), make_config())
    check_tool_choice(asks(allowed_tools=frozenset({"g"})), make_config(tools=(ClientTool("g"),)))


def test_approvals_need_no_message() -> None:
    check_turn_request(replace(asks(session_id="s", approvals=(Approval("c", True),)), messages=()))
