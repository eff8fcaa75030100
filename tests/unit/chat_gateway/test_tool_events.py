"""What callers see of a turn with tools: events over gRPC, `parley` objects among OpenAI's chunks."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chat_gateway.a2a.events import TaskEvents
from chat_gateway.grpc_edge.convert import events_to_proto, outcome_to_proto, request_from_proto, tools_to_proto
from chat_gateway.grpc_edge.watch import WatchedTurn
from chat_gateway.http_edge.admin.completions.schema import stored_completion, stored_messages
from chat_gateway.http_edge.openai.chat.answer import CompletionChunks, completion
from chat_gateway.http_edge.openai.chat.request import decode_request, to_turn_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.journal import JournalEvent
from chat_gateway.model.tools import (
    Approval,
    CallFinished,
    CallStarted,
    PendingApproval,
    StepFinished,
    ToolOutcome,
    ToolsUnavailable,
)
from chat_gateway.model.tools_listed import ListedServer, ListedTool, ToolsListed
from chat_gateway.model.turn import Delta, FinishReason, Message, Tool, TurnOutcome, TurnStarted, Usage
from contract.enums import Role
from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from parley.session.v1.session_service_pb2 import Session

TIME = datetime(2026, 1, 1, tzinfo=UTC)
ACTIVITIES = (
    CallStarted(1, "c1", "read", '{"x":1}', "files"),
    CallFinished(1, "c1", "read", "files", ToolOutcome.TIMEOUT, 0.25),
    StepFinished(1, Usage(10, 2)),
)
OUTCOME = TurnOutcome(
    turn_id="t",
    session_id="s",
    session_created=False,
    turn_number=1,
    session_expire_time=None,
    agent_revision=1,
    message=Message(Role.ASSISTANT, "Ok?"),
    finish_reason=FinishReason.REQUIRES_APPROVAL,
    usage=Usage(1, 1),
    model="m",
    begin_time=TIME,
    unavailable=(ToolsUnavailable("mail", "can't be reached"),),
    pending=(PendingApproval("a1", "delete", "{}"),),
)
NOTES = {
    "requires_approval": [{"tool_call_id": "a1", "name": "delete", "arguments": "{}"}],
    "unavailable_tool_servers": [{"tool_server": "mail", "reason": "can't be reached"}],
}


def chunks_of(events: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in events.split(b"\n\n") if line]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def make_chunks(*, include_usage: bool = False) -> CompletionChunks:
    chunks = CompletionChunks("a", include_usage=include_usage)
    chunks.start(TurnStarted("t", "s", False, None, 1, TIME))
    return chunks


def test_pieces_between_two_events_are_one_and_the_order_stays() -> None:
    deltas = [Delta("a"), Delta("b"), *(Delta(activity=one) for one in ACTIVITIES), Delta("c")]
    events = events_to_proto(deltas)
    assert [event.WhichOneof("event") for event in events] == [
        "delta",
        "tool_call_started",
        "tool_call_finished",
        "step_finished",
        "delta",
    ]
    assert events[0].delta.content == "ab"
    assert events[1].tool_call_started == pb.ToolCallStarted(
        step=1, tool_call_id="c1", name="read", arguments='{"x":1}', server="files"
    )
    assert events[2].tool_call_finished.outcome == pb.TOOL_OUTCOME_TIMEOUT
    assert events[2].tool_call_finished.duration_ms == 250
    assert events[3].step_finished.usage.prompt_tokens == 10


@pytest.mark.parametrize("include_usage", [True, False])
def test_what_a_turn_does_is_an_empty_chunk_with_a_parley_object(include_usage: bool) -> None:
    chunks = make_chunks(include_usage=include_usage)
    seen = [chunks_of(chunks.delta(Delta(activity=one)))[0] for one in ACTIVITIES]
    assert all(one["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}] for one in seen)
    assert [one["parley"]["event"] for one in seen] == ["tool_call_started", "tool_call_finished", "step_finished"]
    assert seen[1]["parley"]["outcome"] == "timeout"
    assert seen[2]["parley"]["usage"]["total_tokens"] == 12


def test_the_tools_of_a_turn_are_shown_by_responses_only() -> None:
    listed = ToolsListed((ListedServer("files", (ListedTool("read"),)),))
    assert [event.WhichOneof("event") for event in events_to_proto([Delta("a"), Delta(activity=listed)])] == ["delta"]
    assert make_chunks().delta(Delta(activity=listed)) == b""
    assert TaskEvents("t", "s", TIME).delta(Delta(activity=listed)) is None
    watched = WatchedTurn(pb.WatchTurnRequest(turn_id="t", session_id="s"))
    assert list(watched.responses(JournalEvent("1-2", listed))) == []


def test_an_answer_that_waits_for_approvals_says_so() -> None:
    whole = json.loads(completion(OUTCOME, "a"))
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["parley"] == NOTES
    last = chunks_of(make_chunks().finish(OUTCOME))[-1]
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    assert last["parley"] == NOTES
    sent = outcome_to_proto(OUTCOME)
    assert sent.finish_reason == message_pb2.FINISH_REASON_REQUIRES_APPROVAL
    assert [one.tool_call_id for one in sent.pending_approvals] == ["a1"]
    assert [one.tool_server for one in sent.unavailable_tool_servers] == ["mail"]


def test_approvals_are_read_at_both_edges() -> None:
    body = b"""{"model": "a", "messages": [], "session_id": "s", "approvals":
        [{"tool_call_id": "a1", "approve": true}, {"tool_call_id": "a2", "approve": false, "note": "no"}]}"""
    approvals = (Approval("a1", True), Approval("a2", False, "no"))
    assert to_turn_request(decode_request(body)[0], TurnHeaders()).approvals == approvals
    given = [pb.Approval(tool_call_id="a1", approve=True), pb.Approval(tool_call_id="a2", note="no")]
    assert request_from_proto(pb.TurnInput(approvals=given), None).approvals == approvals


def test_a_preview_shows_tools_as_the_provider_gets_them() -> None:
    [tool] = tools_to_proto([Tool("read", "Reads.", {"type": "object"}, strict=True)])
    assert (tool.name, tool.description, dict(tool.parameters), tool.strict) == (
        "read",
        "Reads.",
        {"type": "object"},
        True,
    )


def test_a_stored_completion_is_what_its_caller_saw() -> None:
    user, assistant, tool = message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT, message_pb2.ROLE_TOOL
    call = message_pb2.ToolCall(id="c1", name="read", arguments="{}")
    waits = message_pb2.ToolCall(id="a1", name="delete", arguments="{}")
    messages = [
        message_pb2.Message(role=user, content="hi"),
        message_pb2.Message(role=assistant, content="Wait.", tool_calls=[call]),
        message_pb2.Message(role=tool, tool_call_id="c1", content="x"),
        message_pb2.Message(role=assistant, content="Ok?", tool_calls=[waits]),
    ]
    turn = message_pb2.Turn(id="t", messages=messages, answer_start=1, awaiting_approval=["a1"])
    turn.finish_reason = message_pb2.FINISH_REASON_REQUIRES_APPROVAL
    session = Session(id="s", agent_id="a")
    stored = stored_completion(turn, session)
    assert stored.choices[0].message.content == "Wait.\n\nOk?"
    assert stored.choices[0].finish_reason == "tool_calls"
    assert [one.tool_call_id for one in stored.parley.requires_approval] == ["a1"]  # type: ignore[union-attr]
    assert [one.content for one in stored_messages(turn, session)] == ["hi"]
