"""Messages and turns between the domain and the contract."""

from datetime import UTC, datetime

from chat_gateway.convert.messages import message_from_proto, message_to_proto, turn_from_proto, turn_to_proto
from chat_gateway.grpc_edge.convert import deltas_to_proto
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    ProviderData,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from contract.enums import Role

SIGNED = ProviderData("anthropic", "claude", b'{"thinking":[]}')
ANSWER = Message(
    Role.ASSISTANT,
    "4",
    tool_calls=(ToolCall("c", "f", "{}", ProviderData("gemini", "g", b'"sig"')), ToolCall("d", "f", "{}")),
    reasoning="two and two",
    provider_data=SIGNED,
)
DETAILS = AnswerDetails("claude", "fp", "flex", b"[1]", b"{}")
TURN = Turn(
    "t", (ANSWER,), 1, Usage(5, 4, 3, 2, 1), FinishReason.STOP, datetime(2026, 1, 1, tzinfo=UTC), "m", 7, DETAILS
)


def test_reasoning_and_what_providers_keep_go_there_and_back() -> None:
    assert message_from_proto(message_to_proto(ANSWER)) == ANSWER


def test_a_stored_turn_has_all_but_logprobs() -> None:
    stored = turn_to_proto(TURN)
    stored.number = 7
    turn = turn_from_proto(stored)
    assert turn.details == AnswerDetails("claude", "fp", "flex", b"[1]")
    assert (turn.messages, turn.usage) == (TURN.messages, TURN.usage)


def test_a_plain_turn_stores_no_details() -> None:
    plain = Turn("t", (Message(Role.ASSISTANT, "4"),), 1, Usage(), FinishReason.STOP, TURN.begin_time, "m")
    stored = turn_to_proto(plain)
    assert not stored.HasField("details")
    assert turn_from_proto(stored).details is NO_DETAILS


def test_deltas_that_are_joined_keep_reasoning_and_provider_data() -> None:
    call = ToolCallDelta(0, "c", "f", "", SIGNED)
    joined = deltas_to_proto(
        [Delta(reasoning="two "), Delta(reasoning="and", provider_data=SIGNED), Delta("4", (call,))]
    )
    assert (joined.reasoning, joined.content) == ("two and", "4")
    assert joined.provider_data.json == joined.tool_calls[0].provider_data.json == SIGNED.json
