"""One trace through everything that a turn passes, received by a real OTLP receiver."""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.mock_model import Behaviour
from tests.servers.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.servers.processes import ServiceProcess
from tests.servers.system import OpenSystem, System

SECRET = "the-secret-word-nobody-may-see"
INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(receiver: OtlpReceiver, open_system: OpenSystem) -> Iterator[System]:
    with open_system(
        "traced",
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"},
    ) as system:
        system.create_agent("tracer", instructions=f"Never say {SECRET}.")
        yield system


def spans_of(spans: list[ReceivedSpan], trace_id: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.trace_id == trace_id]


def chat(system: System, trace_id: str, text: str = SECRET, **fields: object) -> httpx.Response:
    parent = "00f067aa0ba902b7"
    with system.client() as client:
        return client.post(
            "/v1/chat/completions",
            json={"model": "tracer", "messages": [{"role": "user", "content": text}], **fields},
            headers={"traceparent": f"00-{trace_id}-{parent}-01", "x-session-id": "traced-session"},
        )


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_is_one_trace_from_the_edge_to_the_commit(traced: System, receiver: OtlpReceiver, stream: bool) -> None:
    trace_id = secrets.token_hex(16)
    assert chat(traced, trace_id, stream=stream).status_code == 200

    def whole(spans: list[ReceivedSpan]) -> bool:
        ended = {(span.kind, span.name) for span in spans_of(spans, trace_id)}
        served = {(SERVER, f"parley.session.v1.TurnService/{name}") for name in ("BeginTurn", "CommitTurn")}
        return {(SERVER, "POST /v1/chat/completions"), *served} <= ended

    found = spans_of(receiver.wait_for(whole), trace_id)
    named = {(span.service, span.kind, span.name): span for span in found}
    edge = named["chat_gateway", SERVER, "POST /v1/chat/completions"]
    turn = named["chat_gateway", INTERNAL, "invoke_agent tracer"]
    model = named["chat_gateway", CLIENT, "chat mock-model"]
    begin = named["chat_gateway", CLIENT, "parley.session.v1.TurnService/BeginTurn"]
    commit = named["chat_gateway", CLIENT, "parley.session.v1.TurnService/CommitTurn"]
    begun = named["session_svc", SERVER, "parley.session.v1.TurnService/BeginTurn"]
    committed = named["session_svc", SERVER, "parley.session.v1.TurnService/CommitTurn"]
    assert edge.parent_id == "00f067aa0ba902b7"
    assert turn.parent_id == edge.span_id
    assert {model.parent_id, begin.parent_id, commit.parent_id} == {turn.span_id}
    assert (begun.parent_id, committed.parent_id) == (begin.span_id, commit.span_id)
    assert named["session_svc", CLIENT, "redis begin"].parent_id == begun.span_id
    assert named["session_svc", CLIENT, "redis commit"].parent_id == committed.span_id
    assert edge.attributes["http.response.status_code"] == 200
    assert turn.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert turn.attributes["gen_ai.agent.id"] == "tracer"
    assert turn.attributes["gen_ai.conversation.id"] == "traced-session"
    assert model.attributes["gen_ai.provider.name"] == "mock"
    assert model.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert model.attributes["gen_ai.usage.output_tokens"] > 0
    assert committed.attributes["rpc.response.status_code"] == "OK"


def test_the_provider_gets_the_context_of_its_call(traced: System, receiver: OtlpReceiver) -> None:
    trace_id = secrets.token_hex(16)
    chat(traced, trace_id)
    found = receiver.wait_for(lambda spans: any(span.name.startswith("chat ") for span in spans_of(spans, trace_id)))
    [model] = [span for span in spans_of(found, trace_id) if span.name.startswith("chat ")]
    sent = [headers.get("traceparent") for headers in traced.model.headers]
    assert f"00-{trace_id}-{model.span_id}-01" in sent


def test_an_error_is_noted_by_its_reason(traced: System, receiver: OtlpReceiver) -> None:
    trace_id = secrets.token_hex(16)
    assert chat(traced, trace_id, model="tracer@99").status_code == 404

    def whole(spans: list[ReceivedSpan]) -> bool:
        served = {span.service for span in spans_of(spans, trace_id) if span.kind == SERVER}
        return {"chat_gateway", "config_svc"} <= served

    found = spans_of(receiver.wait_for(whole), trace_id)
    [turn] = [span for span in found if span.name == "invoke_agent tracer"]
    assert (turn.status, turn.attributes["error.type"]) == (ERROR, "REVISION_NOT_FOUND")
    [asked] = [span for span in found if span.service == "config_svc"]
    assert asked.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert asked.attributes["error.type"] == "REVISION_NOT_FOUND"


def test_no_span_and_no_log_line_carries_what_was_said_or_a_secret(traced: System, receiver: OtlpReceiver) -> None:
    trace_id = secrets.token_hex(16)
    chat(traced, trace_id)
    refusal = json.dumps({"error": {"message": f"you said {SECRET}"}}).encode()
    traced.model.script(Behaviour(status=400, body=refusal), Behaviour(status=200, body=refusal))
    assert [chat(traced, secrets.token_hex(16)).status_code for _ in range(2)] == [400, 503]
    found = receiver.wait_for(lambda spans: len(spans_of(spans, trace_id)) >= 9)
    assert SECRET not in json.dumps([[span.name, span.attributes] for span in found], default=str)
    for service in traced.services:
        ours = [line for line in log_of(service).splitlines() if '"event": "provider_' not in line]
        assert SECRET not in "\n".join(ours), service
    told = [line for line in log_of(traced.gateways[0]).splitlines() if SECRET in line]
    assert len(told) == 2, "a provider's own words are logged once for each of its errors, for the operator"


def test_log_lines_carry_the_ids_of_their_trace(traced: System) -> None:
    trace_id = secrets.token_hex(16)
    with traced.client() as client:
        client.get("/v1/agents/tracer", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    [line] = request_lines(traced.gateways[0], trace_id)
    assert line["route"] == "/v1/agents/{agent_id}"
    assert line["request_id"]


def request_lines(service: ServiceProcess, trace_id: str) -> list[dict[str, Any]]:
    """The log's lines of the requests in a trace; one is written when its answer has been sent, so it is waited for."""
    give_up = time.monotonic() + 60
    while True:
        lines = [json.loads(line) for line in complete_lines(log_of(service)) if '"request"' in line]
        found = [line for line in lines if line.get("trace_id") == trace_id]
        if found or time.monotonic() > give_up:
            return found
        time.sleep(0.02)


def complete_lines(log: str) -> list[str]:
    """A log without the line that is being written."""
    return log[: log.rfind("\n") + 1].splitlines()


def log_of(service: ServiceProcess) -> str:
    return service.log.read_text()
