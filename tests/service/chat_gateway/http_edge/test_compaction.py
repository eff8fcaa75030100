"""POST /v1/responses/compact, and the item that it answers with as input."""

from typing import Any

import pytest
from openai.types.responses import ResponseCompactionItem, ResponseUsage

from chat_gateway.model.turn import FinishReason, Message
from contract.enums import Role
from tests.openai_types import strictly
from tests.service.chat_gateway.http_edge.edge import Edge, whole

CONVERSATION = [
    {"role": "user", "content": "I am Ann."},
    {"role": "assistant", "content": "Hello Ann."},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "wet"},
    {"role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
]


async def compact(edge: Edge, **fields: Any) -> Any:
    return await edge.client.post("/v1/responses/compact", json={"model": "hello"} | fields)


async def test_a_conversation_is_made_shorter_and_taken_back(edge: Edge) -> None:
    edge.turns.script = whole("Ann asked about the weather.")
    answered = await compact(edge, input=CONVERSATION, instructions="In English.", previous_response_id=None)
    assert answered.status_code == 200
    asked = edge.turns.requests[-1]
    assert (asked.stateless, asked.tool_choice, asked.instructions, len(asked.messages)) == (
        True,
        "none",
        "In English.",
        1,
    )
    for said in ("user: I am Ann.", "assistant calls weather (c1): {}", "result of c1: wet", "user: And now?"):
        assert said in asked.messages[0].content
    body = answered.json()
    assert (body["object"], ResponseUsage.model_validate(body["usage"]).total_tokens) == ("response.compaction", 15)
    *users, item = body["output"]
    strictly(ResponseCompactionItem, item)
    assert [(one["role"], one["content"][0]["text"]) for one in users] == [("user", "I am Ann."), ("user", "And now?")]
    made = {"model": "hello", "input": [*body["output"], {"role": "user", "content": "Go on."}]}
    assert (await edge.client.post("/v1/responses", json=made)).status_code == 200
    summary = Message(Role.USER, "Summary of the conversation so far:\n\nAnn asked about the weather.")
    assert edge.turns.requests[-1].messages[2:] == (summary, Message(Role.USER, "Go on."))
    again = await compact(edge, input=made["input"])
    assert [one["type"] for one in again.json()["output"]] == ["message", "message", "message", "compaction"]


async def test_a_summary_that_is_cut_is_no_compaction(edge: Edge) -> None:
    for script in (whole("Ann", finish_reason=FinishReason.LENGTH), whole(" ")):
        edge.turns.script = script
        answered = await compact(edge, input="Hi")
        assert (answered.status_code, answered.json()["error"]["code"]) == (500, "provider_bad_response")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "Hi", "stream": True}, "stream"),
        ({"input": "Hi", "image": {"context_compression": "enabled"}}, "image"),
        ({"input": "Hi", "conversation": "c1"}, "conversation"),
        ({"input": [{"type": "compaction", "encrypted_content": "bm9uZQ=="}]}, "input[0].encrypted_content"),
        ({"input": [{"type": "compaction", "encrypted_content": "é"}]}, "input[0].encrypted_content"),
        ({"input": 5}, "input"),
        ({"input": "Hi", "model": 5}, "model"),
    ],
)
async def test_what_is_no_compaction_is_refused_by_name(edge: Edge, fields: dict[str, Any], param: str) -> None:
    answered = await compact(edge, **fields)
    assert (answered.status_code, answered.json()["error"]["param"]) == (400, param)
    assert not edge.turns.requests
