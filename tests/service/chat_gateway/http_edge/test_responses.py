"""POST /v1/responses over a real socket."""

import json
from typing import Any

import pytest

from chat_gateway.model.provider_errors import ProviderTimeout
from chat_gateway.model.tools import (
    Approval,
    CallFinished,
    CallStarted,
    PendingApproval,
    StepFinished,
    ToolOutcome,
    ToolRun,
)
from chat_gateway.model.turn import (
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from contract.enums import BusyPolicy, Role
from tests.openai_types import events_of, response_of
from tests.service.chat_gateway.http_edge.edge import Edge, failing, pieces, whole
from tests.service.chat_gateway.http_edge.responses import WEATHER, ask


async def test_a_whole_response(edge: Edge) -> None:
    answered = await ask(edge, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5, tools=[WEATHER])
    assert answered.status_code == 200
    body = answered.json()
    response = response_of(body)
    assert (response.id, response.status, response.model) == ("resp_t1.s1", "completed", "hello")
    assert (response.output_text, response.instructions, response.temperature) == ("Hello!", "Be brief.", 0.5)
    assert response.conversation is not None
    assert response.conversation.id == "s1"
    assert body["tools"] == [WEATHER]
    assert (body["metadata"], body["store"], body["text"]["format"]) == ({"a": "b"}, True, {"type": "text"})
    assert response.usage is not None
    assert response.usage.model_dump() == {
        "input_tokens": 10,
        "input_tokens_details": {
            "cached_tokens": 2,
            "cache_write_tokens": 0,
            "cache_write_tokens_details": None,
        },
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    asked = edge.turns.requests[-1]
    assert asked.messages == (Message(Role.USER, "Hi"),)
    assert (asked.instructions, asked.sampling.temperature, asked.busy) == ("Be brief.", 0.5, BusyPolicy.REJECT)
    assert answered.headers["x-session-id"] == "s1"


async def test_a_stream_in_the_documented_order(edge: Edge) -> None:
    edge.turns.script = pieces([Delta(reasoning="hm"), Delta("Hel"), Delta("lo!")], "Hello!")
    answered = await ask(edge, stream=True)
    assert answered.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(answered.text)
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0].sequence_number == 0
    assert events[0].response.status == "in_progress"
    assert events[-1].response.output_text == "Hello!"
    assert [item.id for item in events[-1].response.output] == ["rs_1.t1.s1", "msg_1.t1.s1"]


async def test_calls_of_the_callers_functions(edge: Edge) -> None:
    calls = (ToolCall("c1", "weather", '{"city":"A"}'), ToolCall("c2", "weather", "{}"))
    deltas = [
        Delta("Let me see."),
        Delta(tool_calls=(ToolCallDelta(0, "c1", "weather", ""),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='{"city"'),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments=':"A"}'), ToolCallDelta(1, "c2", "weather", "{}"))),
    ]
    said = Message(Role.ASSISTANT, "Let me see.", tool_calls=calls)
    edge.turns.script = pieces(deltas, "", finish_reason=FinishReason.TOOL_CALLS, message=said, said=(said,))
    streamed = events_of((await ask(edge, stream=True, tools=[WEATHER])).text)
    answered = response_of((await ask(edge, tools=[WEATHER])).json())
    assert answered.status == "completed"
    assert [(one.type, one.id) for one in answered.output] == [
        ("message", "msg_1.t1.s1"),
        ("function_call", "fc_1-0.t1.s1"),
        ("function_call", "fc_1-1.t1.s1"),
    ]
    assert streamed[-1].response.output == answered.output
    done = [event for event in streamed if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == ['{"city":"A"}', "{}"]
    deltas = [event.delta for event in streamed if event.type == "response.function_call_arguments.delta"]
    assert deltas == ['{"city"', ':"A"}', "{}"]


async def test_calls_of_the_agents_own_tools(edge: Edge) -> None:
    said = (
        Message(Role.TOOL, "paid", tool_call_id="c0"),
        Message(Role.ASSISTANT, "I look.", tool_calls=(ToolCall("c1", "find", "{}"), ToolCall("c2", "find", "[]"))),
        Message(Role.TOOL, "found", tool_call_id="c1"),
        Message(Role.TOOL, "wrong", tool_call_id="c2"),
        Message(Role.ASSISTANT, "Here.", tool_calls=(ToolCall("c3", "pay", '{"n":1}'),)),
    )
    runs = (
        ToolRun("c0", "shop", name="pay", arguments='{"n":2}'),
        ToolRun("c1", "docs"),
        ToolRun("c2", "docs", ToolOutcome.ERROR),
        ToolRun("c3", "shop", ToolOutcome.UNKNOWN),
    )
    deltas = [
        Delta(activity=CallStarted(0, "c0", "pay", '{"n":2}', "shop")),
        Delta(activity=CallFinished(0, "c0", "pay", "shop", ToolOutcome.OK, 0.1, "paid")),
        Delta("I look."),
        Delta(activity=CallStarted(1, "c1", "find", "{}", "docs")),
        Delta(activity=CallStarted(1, "c2", "find", "[]", "docs")),
        Delta(activity=CallFinished(1, "c1", "find", "docs", ToolOutcome.OK, 0.1, "found")),
        Delta(activity=CallFinished(1, "c2", "find", "docs", ToolOutcome.ERROR, 0.1, "wrong")),
        Delta(activity=StepFinished(1, Usage())),
        Delta("\n\nHere."),
    ]
    fields: dict[str, Any] = {
        "finish_reason": FinishReason.REQUIRES_APPROVAL,
        "said": said,
        "runs": runs,
        "pending": (PendingApproval("c3", "pay", '{"n":1}'),),
    }
    edge.turns.script = pieces(deltas, "I look.\n\nHere.", **fields)
    streamed = events_of((await ask(edge, stream=True)).text)
    answered = response_of((await ask(edge)).json())
    assert streamed[-1].response.output == answered.output
    paid, _, found, wrong, here, waits = answered.output
    assert (paid.type, paid.output, paid.name, paid.arguments) == ("mcp_call", "paid", "pay", '{"n":2}')
    assert (found.server_label, found.status, wrong.status) == ("docs", "completed", "failed")
    assert here.content[0].text == "Here."
    assert (waits.type, waits.server_label, waits.name) == ("mcp_approval_request", "shop", "pay")
    kinds = [event.type for event in streamed]
    assert kinds.count("response.mcp_call.completed") == 2
    assert kinds.count("response.mcp_call.failed") == 1
    decision = {"type": "mcp_approval_response", "approval_request_id": waits.id, "approve": True}
    await ask(edge, input=[decision], previous_response_id=answered.id)
    asked = edge.turns.requests[-1]
    assert (asked.approvals, asked.session_id, asked.messages) == ((Approval("c3", True),), "s1", ())


async def test_a_refusal(edge: Edge) -> None:
    said = Message(Role.ASSISTANT, refusal="No.")
    edge.turns.script = pieces([Delta(refusal="N"), Delta(refusal="o.")], "", message=said, said=(said,))
    streamed = events_of((await ask(edge, stream=True)).text)
    assert [event.type for event in streamed if "refusal" in event.type] == [
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
    ]
    assert streamed[-1].response.output == response_of((await ask(edge)).json()).output


@pytest.mark.parametrize(
    ("reason", "said"),
    [(FinishReason.LENGTH, "max_output_tokens"), (FinishReason.CONTENT_FILTER, "content_filter")],
)
async def test_an_answer_that_is_cut(edge: Edge, reason: FinishReason, said: str) -> None:
    edge.turns.script = whole("Hel", finish_reason=reason)
    response = response_of((await ask(edge)).json())
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == said
    events = events_of((await ask(edge, stream=True)).text)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output == response.output


async def test_an_error_in_mid_stream(edge: Edge) -> None:
    edge.turns.script = failing(ProviderTimeout("mock", "answer"), after=[Delta("Hel")])
    events = events_of((await ask(edge, stream=True)).text)
    assert events[-1].type == "response.failed"
    error = events[-1].response.error
    assert error is not None
    assert (error.code, error.type) == ("server_error", "provider_timeout")


async def test_an_error_before_the_stream_has_its_own_status(edge: Edge) -> None:
    edge.turns.script = failing(ProviderTimeout("mock", "answer"))
    answered = await ask(edge, stream=True)
    assert answered.status_code == 504
    assert answered.json()["error"]["code"] == "provider_timeout"


async def test_logprobs_of_a_stream(edge: Edge) -> None:
    said = {"content": [{"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}], "refusal": None}
    edge.turns.script = pieces([Delta("Hi", logprobs=json.dumps(said).encode())], "Hi")
    events = events_of((await ask(edge, stream=True, include=["message.output_text.logprobs"])).text)
    delta = next(event for event in events if event.type == "response.output_text.delta")
    assert [(one.token, one.logprob) for one in delta.logprobs] == [("Hi", -0.5)]


async def test_citations(edge: Edge) -> None:
    cited = [
        {"type": "url_citation", "url_citation": {"url": "https://a", "title": "A", "start_index": 0, "end_index": 2}}
    ]
    edge.turns.script = whole("Hi", details=AnswerDetails(annotations=json.dumps(cited).encode()))
    answered = response_of((await ask(edge)).json())
    events = events_of((await ask(edge, stream=True)).text)
    assert events[-1].response.output == answered.output
    assert answered.output[0].content[0].annotations[0].url == "https://a"
    assert [event.type for event in events].count("response.output_text.annotation.added") == 1
