"""The real grpcurl against the real system: reflection, an agent config, a chat, unary and streamed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import a2a.types.a2a_pb2  # noqa: F401
import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2  # noqa: F401
from grpc_reflection.v1alpha import reflection_pb2

import parley.chat.v1.chat_service_pb2
import parley.chat.v1.runtime_service_pb2
import parley.config.v1.access_service_pb2
import parley.config.v1.agent_config_service_pb2
import parley.config.v1.provider_service_pb2
import parley.config.v1.template_service_pb2
import parley.session.v1.session_service_pb2
import parley.session.v1.turn_service_pb2  # noqa: F401 - what is described must be known here
from servicekit import reflection
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System

GRPCURL = Path(sys.executable).parent / "grpcurl"


def grpcurl(target: str, *arguments: str, data: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    sent = ["-d", json.dumps(data)] if data is not None else []
    command = [str(GRPCURL), "-plaintext", *sent, target, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def answers(text: str) -> list[dict[str, Any]]:
    """The JSON objects that grpcurl printed, one after the other."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def test_services_are_listed_by_reflection(parley_system: System) -> None:
    expected = {
        parley_system.grpc_target: {
            "parley.chat.v1.ChatService",
            "parley.chat.v1.RuntimeService",
            "lf.a2a.v1.A2AService",
        },
        parley_system.config.grpc_target: {
            "parley.config.v1.AgentConfigService",
            "parley.config.v1.TemplateService",
            "parley.config.v1.AccessService",
            "parley.config.v1.ToolServerService",
        },
        parley_system.session.grpc_target: {"parley.session.v1.SessionService", "parley.session.v1.TurnService"},
    }
    for target, services in expected.items():
        listed = grpcurl(target, "list")
        assert listed.returncode == 0, listed.stderr
        assert services | {"grpc.health.v1.Health"} <= set(listed.stdout.split())
    described = grpcurl(parley_system.grpc_target, "describe", "parley.chat.v1.ChatService")
    assert "rpc StreamComplete" in described.stdout


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_every_element_is_described(parley_system: System, version: str) -> None:
    """Each service with its methods, and all messages, fields, enums and values that they lead to."""
    for target in (parley_system.grpc_target, parley_system.config.grpc_target, parley_system.session.grpc_target):
        symbols = {"parley.errors.v1.Reason", "google.rpc.ErrorInfo", "google.rpc.BadRequest.FieldViolation"}
        services = set(grpcurl(target, "list").stdout.split())
        assert services >= set(reflection.SERVICES)
        for service in services - {reflection.SERVICES[0]}:  # of which no stub is here
            symbols |= elements(service)
        asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=one) for one in sorted(symbols)]
        with grpc.insecure_channel(target) as channel:
            reflect = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            answers = list(reflect(iter(asked), timeout=60))
        assert len(answers) == len(symbols) > 100
        unknown = [one for one in answers if not one.HasField("file_descriptor_response")]
        assert [one.original_request.file_containing_symbol for one in unknown] == []


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("parley.chat.v1.ChatService", "service"),
        ("parley.chat.v1.ChatService.Complete", "method"),
        ("parley.session.v1.Message", "message"),
        ("parley.session.v1.Message.content", "field"),
        ("parley.session.v1.Role", "enum"),
        ("parley.session.v1.Role.ROLE_USER", "enum value"),
        ("parley.errors.v1.Reason", "enum"),
        ("parley.access.v1.rule", "extension"),
        ("grpc.reflection.v1.ServerReflection.ServerReflectionInfo", "method"),
        ("lf.a2a.v1.AgentCard", "message"),
    ],
)
def test_each_kind_of_element_is_described(parley_system: System, symbol: str, kind: str) -> None:
    described = grpcurl(parley_system.grpc_target, "describe", symbol)
    assert described.returncode == 0, described.stderr
    assert described.stdout.startswith(f"{symbol} is a"), described.stdout
    assert f" {kind}" in described.stdout.splitlines()[0]
    unknown = grpcurl(parley_system.grpc_target, "describe", f"{symbol}No")
    assert "not found" in unknown.stderr


def elements(name: str) -> set[str]:
    """The full names of everything that a service's methods lead to."""
    service = descriptor_pool.Default().FindServiceByName(name)
    found = {service.full_name} | {method.full_name for method in service.methods}
    waiting = [kind for method in service.methods for kind in (method.input_type, method.output_type)]
    while waiting:
        kind = waiting.pop()
        if kind.full_name in found:
            continue
        found |= {kind.full_name} | {part.full_name for part in (*kind.fields, *kind.oneofs)}
        waiting += [field.message_type for field in kind.fields if field.message_type is not None]
        for enum in [field.enum_type for field in kind.fields if field.enum_type is not None]:
            found |= {enum.full_name} | {f"{enum.full_name}.{value.name}" for value in enum.values}
    return found


def test_an_agent_config_is_created_and_chatted_with(parley_system: System) -> None:
    agent, session = f"agent-{uuid4().hex[:8]}", f"s-{uuid4().hex[:8]}"
    config = {"id": agent, "model": {"provider": PROVIDER, "name": MODEL}, "instructions": "Be brief."}
    created = grpcurl(
        parley_system.config.grpc_target,
        "parley.config.v1.AgentConfigService/CreateAgentConfig",
        data={"agent_config": config},
    )
    assert created.returncode == 0, created.stderr
    assert answers(created.stdout)[0]["agent_config"]["revision"] == "1"

    said = {"agent_id": agent, "session_id": session, "messages": [{"role": "ROLE_USER", "content": "hello there"}]}
    unary = grpcurl(parley_system.grpc_target, "parley.chat.v1.ChatService/Complete", data={"input": said})
    assert unary.returncode == 0, unary.stderr
    (answer,) = answers(unary.stdout)
    assert answer["message"] == {"role": "ROLE_ASSISTANT", "content": "echo:2:hello there"}
    assert answer["outcome"]["session_id"] == session
    assert answer["outcome"]["turn_number"] == "1"

    streamed = grpcurl(parley_system.grpc_target, "parley.chat.v1.ChatService/StreamComplete", data={"input": said})
    assert streamed.returncode == 0, streamed.stderr
    first, *deltas, last = answers(streamed.stdout)
    assert first["started"]["session_id"] == session
    assert "".join(delta["delta"]["content"] for delta in deltas) == "echo:4:hello there"
    assert last["finished"]["turn_number"] == "2"
    assert last["finished"]["finish_reason"] == "FINISH_REASON_STOP"


def test_a_prompt_is_shown_without_a_model_call(parley_system: System) -> None:
    agent, session = f"agent-{uuid4().hex[:8]}", f"s-{uuid4().hex[:8]}"
    parley_system.create_agent(agent, memory={"max_messages": 2})
    for text in ("one", "two"):
        parley_system.chat(agent, text, session_id=session)
    calls = len(parley_system.model.requests)
    said = {"agent_id": agent, "session_id": session, "messages": [{"role": "ROLE_USER", "content": "three"}]}
    shown = grpcurl(parley_system.grpc_target, "parley.chat.v1.ChatService/PreviewPrompt", data={"input": said})
    assert shown.returncode == 0, shown.stderr
    (prompt,) = answers(shown.stdout)
    assert [m["content"] for m in prompt["messages"]] == ["You are a test.", "two", "echo:4:two", "three"]
    assert prompt["omitted_message_count"] == "2"
    assert len(parley_system.model.requests) == calls


def test_instances_and_load_are_told(parley_system: System) -> None:
    agent = f"agent-{uuid4().hex[:8]}"
    parley_system.create_agent(agent)
    parley_system.chat(agent, "hi")
    listed = grpcurl(parley_system.grpc_target, "parley.chat.v1.RuntimeService/ListInstances", data={"agent_id": agent})
    (instance,) = answers(listed.stdout)[0]["instances"]
    assert (instance["agent_revision"], instance["turn_count"]) == ("1", "1")
    load = answers(grpcurl(parley_system.grpc_target, "parley.chat.v1.RuntimeService/GetLoad", data={}).stdout)[0]
    assert load["max_running_turns"] == 256
    assert "running_turns" not in load


def test_an_error_comes_with_its_reason(parley_system: System) -> None:
    said = {"agent_id": "nobody", "messages": [{"role": "ROLE_USER", "content": "hi"}]}
    refused = grpcurl(parley_system.grpc_target, "parley.chat.v1.ChatService/Complete", data={"input": said})
    assert "Code: NotFound" in refused.stderr
    assert "AGENT_NOT_FOUND" in refused.stderr


def test_projects_are_listed(parley_system: System) -> None:
    listed = grpcurl(parley_system.config.grpc_target, "parley.config.v1.AccessService/ListProjects", data={})
    assert [project["id"] for project in answers(listed.stdout)[0]["projects"]] == ["default"]
