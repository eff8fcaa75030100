"""The Open Responses specification (2026-04-24): what its compliance suite sends, and the shapes that it wants back."""

import json
from typing import Any

import jsonschema
import pytest

from chat_gateway.model.turn import AnswerDetails, Delta, FinishReason, Message, ToolCall, ToolCallDelta
from contract.enums import Role
from tests.service.chat_gateway.http_edge.edge import Edge, pieces

TEXT, NUMBER, INTEGER, FLAG, LIST, OBJECT = (
    {"type": kind} for kind in ("string", "number", "integer", "boolean", "array", "object")
)


def or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


def shape(**fields: Any) -> dict[str, Any]:
    """An object that has all of these fields, and may have more."""
    return {"type": "object", "required": list(fields), "properties": fields}


def one_of(*words: str) -> dict[str, Any]:
    return {"enum": list(words)}


STATUS = one_of("in_progress", "completed", "incomplete")


def list_of(kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": kind}


TOKEN = {"token": TEXT, "logprob": NUMBER, "bytes": list_of(INTEGER)}
LOGPROBS = list_of(shape(**TOKEN, top_logprobs=list_of(shape(**TOKEN))))
CITATION = shape(type=one_of("url_citation"), url=TEXT, start_index=INTEGER, end_index=INTEGER, title=TEXT)
OUTPUT_TEXT = shape(type=one_of("output_text"), text=TEXT, annotations=list_of(CITATION), logprobs=LOGPROBS)
FUNCTION_CHOICE = shape(type=one_of("function"), name=TEXT)
CHOICES = one_of("none", "auto", "required")
ITEM = {
    "oneOf": [
        shape(
            type=one_of("message"),
            id=TEXT,
            status=STATUS,
            role=one_of("user", "assistant", "system", "developer"),
            content={"type": "array", "items": {"oneOf": [OUTPUT_TEXT, shape(type=one_of("refusal"), refusal=TEXT)]}},
        ),
        shape(type=one_of("function_call"), id=TEXT, call_id=TEXT, name=TEXT, arguments=TEXT, status=STATUS),
        shape(type=one_of("reasoning"), id=TEXT, summary=LIST),
    ]
}
USAGE = shape(
    input_tokens=INTEGER,
    output_tokens=INTEGER,
    total_tokens=INTEGER,
    input_tokens_details=shape(cached_tokens=INTEGER),
    output_tokens_details=shape(reasoning_tokens=INTEGER),
)
RESPONSE = shape(
    id=TEXT,
    object=one_of("response"),
    created_at=INTEGER,
    completed_at=or_null(INTEGER),
    status=one_of("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
    incomplete_details=or_null(shape(reason=TEXT)),
    model=TEXT,
    previous_response_id=or_null(TEXT),
    instructions=or_null(TEXT),
    output={"type": "array", "items": ITEM},
    error=or_null(shape(code=TEXT, message=TEXT)),
    tools={
        "type": "array",
        "items": shape(
            type=one_of("function"),
            name=TEXT,
            description=or_null(TEXT),
            parameters=or_null(OBJECT),
            strict=or_null(FLAG),
        ),
    },
    tool_choice={
        "oneOf": [
            CHOICES,
            FUNCTION_CHOICE,
            shape(type=one_of("allowed_tools"), tools=list_of(FUNCTION_CHOICE), mode=CHOICES),
        ]
    },
    truncation=one_of("auto", "disabled"),
    parallel_tool_calls=FLAG,
    text=shape(format=shape(type=one_of("text", "json_object", "json_schema"))),
    top_p=NUMBER,
    presence_penalty=NUMBER,
    frequency_penalty=NUMBER,
    top_logprobs=INTEGER,
    temperature=NUMBER,
    reasoning=or_null(
        shape(
            effort=or_null(one_of("none", "low", "medium", "high", "xhigh")),
            summary=or_null(one_of("concise", "detailed", "auto")),
        )
    ),
    usage=or_null(USAGE),
    max_output_tokens=or_null(INTEGER),
    max_tool_calls=or_null(INTEGER),
    store=FLAG,
    background=FLAG,
    service_tier=TEXT,
    metadata={},
    safety_identifier=or_null(TEXT),
    prompt_cache_key=or_null(TEXT),
)
PLACE = {"item_id": TEXT, "output_index": INTEGER}
IN_PART = PLACE | {"content_index": INTEGER}
EVENTS: dict[str, dict[str, Any]] = {
    **{
        f"response.{name}": {"response": RESPONSE}
        for name in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
    },
    "response.output_item.added": {"output_index": INTEGER, "item": ITEM},
    "response.output_item.done": {"output_index": INTEGER, "item": ITEM},
    "response.content_part.added": IN_PART | {"part": OBJECT},
    "response.content_part.done": IN_PART | {"part": OBJECT},
    "response.output_text.delta": IN_PART | {"delta": TEXT, "logprobs": LOGPROBS},
    "response.output_text.done": IN_PART | {"text": TEXT, "logprobs": LOGPROBS},
    "response.output_text.annotation.added": IN_PART | {"annotation_index": INTEGER, "annotation": CITATION},
    "response.refusal.delta": IN_PART | {"delta": TEXT},
    "response.refusal.done": IN_PART | {"refusal": TEXT},
    "response.reasoning_summary_part.added": PLACE | {"summary_index": INTEGER, "part": OBJECT},
    "response.reasoning_summary_part.done": PLACE | {"summary_index": INTEGER, "part": OBJECT},
    "response.reasoning_summary_text.delta": PLACE | {"summary_index": INTEGER, "delta": TEXT},
    "response.reasoning_summary_text.done": PLACE | {"summary_index": INTEGER, "text": TEXT},
    "response.function_call_arguments.delta": PLACE | {"delta": TEXT},
    "response.function_call_arguments.done": PLACE | {"arguments": TEXT},
}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
IMAGE = [
    {"type": "input_text", "text": "What is it?"},
    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
]
FILE = [
    {"type": "input_text", "text": "What is its title?"},
    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjEK"},
]
REQUESTS: dict[str, dict[str, Any]] = {
    "basic": {"input": [message("user", "Say hello.")]},
    "system prompt": {"input": [message("system", "You are a pirate."), message("user", "Say hello.")]},
    "tool calling": {"input": [message("user", "What's the weather?")], "tools": [WEATHER]},
    "image": {"input": [message("user", IMAGE)]},
    "file": {"input": [message("user", FILE)]},
    "forced call": {"input": "Use it.", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
    "multi-turn": {"input": [message("user", "I am Ann."), message("assistant", "Hello!"), message("user", "Who?")]},
}


def events_in(stream: str) -> list[dict[str, Any]]:
    """Returns the events, read as the suite reads them: `data:` of each, `[DONE]` left out."""
    *frames, done = [frame for frame in stream.split("\n\n") if frame]
    assert done == "data: [DONE]"
    events = [json.loads(frame.split("data: ", 1)[1]) for frame in frames]
    for event in events:
        jsonschema.validate(event, shape(type=TEXT, sequence_number=INTEGER, **EVENTS[event["type"]]))
    return events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
async def test_what_the_compliance_suite_sends(edge: Edge, name: str, stream: bool) -> None:
    said = Message(Role.ASSISTANT, "Arr.", reasoning="hm")
    deltas = [Delta(reasoning="hm"), Delta("Arr.")]
    if "tools" in REQUESTS[name]:
        said = Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "get_weather", '{"location":"SF"}'),))
        deltas = [Delta(tool_calls=(ToolCallDelta(0, "c", "get_weather", '{"location":"SF"}'),))]
    edge.turns.script = pieces(deltas, "", message=said, said=(said,), finish_reason=FinishReason.STOP)
    answered = await edge.client.post("/v1/responses", json={"model": "hello", "stream": stream, **REQUESTS[name]})
    assert answered.status_code == 200, answered.text
    body = answered.json() if not stream else events_in(answered.text)[-1]["response"]
    jsonschema.validate(body, RESPONSE)
    assert body["status"] == "completed"
    assert ("function_call" in [item["type"] for item in body["output"]]) is ("tools" in REQUESTS[name])
    if stream and "tools" in REQUESTS[name]:
        kinds = [(event["type"], event.get("item", {}).get("type")) for event in events_in(answered.text)]
        assert [kind for kind in kinds if "function_call" in str(kind)] == [
            ("response.output_item.added", "function_call"),
            ("response.function_call_arguments.delta", None),
            ("response.function_call_arguments.done", None),
            ("response.output_item.done", "function_call"),
        ]


async def test_a_call_and_its_result_in_the_next_response(edge: Edge) -> None:
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "get_weather", "{}"),))
    edge.turns.script = pieces([], "", message=call, said=(call,), finish_reason=FinishReason.TOOL_CALLS)
    first = (await edge.client.post("/v1/responses", json={"model": "hello", **REQUESTS["forced call"]})).json()
    [called] = first["output"]
    result = {"type": "function_call_output", "call_id": called["call_id"], "output": "64 degrees and clear"}
    edge.turns.script = pieces([], "Clear.")
    asked = {"model": "hello", "previous_response_id": first["id"], "input": [result]}
    answered = await edge.client.post("/v1/responses", json=asked)
    assert answered.status_code == 200, answered.text
    jsonschema.validate(answered.json(), RESPONSE)
    assert (answered.json()["status"], answered.json()["previous_response_id"]) == ("completed", first["id"])
    assert edge.turns.requests[-1].messages == (Message(Role.TOOL, "64 degrees and clear", tool_call_id="c"),)


PROBABILITIES = (
    b'{"content":[{"token":"Arr","logprob":-0.5,"bytes":[65,114,114],"top_logprobs":[{"token":"Hi","logprob":-1}]}]}'
)


@pytest.mark.parametrize("asked", [True, False])
async def test_log_probabilities_and_citations(edge: Edge, asked: bool) -> None:
    cited = b'[{"type":"url_citation","url_citation":{"url":"https://a.example","start_index":0,"end_index":3}}]'
    details = AnswerDetails(annotations=cited, logprobs=PROBABILITIES)
    edge.turns.script = pieces([Delta("Arr", logprobs=PROBABILITIES)], "Arr", details=details)
    request = {"model": "hello", "input": "Hi", "include": ["message.output_text.logprobs"] if asked else []}
    whole = (await edge.client.post("/v1/responses", json=request)).json()
    events = events_in((await edge.client.post("/v1/responses", json=request | {"stream": True})).text)
    jsonschema.validate(whole, RESPONSE)
    assert events[-1]["response"]["output"] == whole["output"]
    [part] = whole["output"][0]["content"]
    top = {"token": "Hi", "logprob": -1.0, "bytes": [72, 105]}
    said = {"token": "Arr", "logprob": -0.5, "bytes": [65, 114, 114], "top_logprobs": [top]}
    assert part["logprobs"] == ([said] if asked else [])
    assert part["annotations"][0]["title"] == ""
