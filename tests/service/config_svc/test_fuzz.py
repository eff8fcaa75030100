"""Random messages to every RPC of the contract: whatever comes, it is answered, and never with a fault of ours."""

import random
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from parley.config.v1 import access_service_pb2 as access_pb
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1 import provider_service_pb2 as providers_pb
from parley.config.v1 import template_service_pb2 as templates_pb
from parley.config.v1 import tool_server_service_pb2 as tools_pb
from servicekit.rpc_status import from_rpc_error
from tests.service.config_svc.conftest import Running

TEXTS = [
    "", "a", "assistant", "1.0.0", "default", "*", "model.temperature", "labels.x", "labels.", "parameters.`a.b`", "\0",
    "a\0b", "ü🙂", "x" * 300, "x" * 70_000, "'; DROP TABLE feed; --", "%s %(x)s {0}", "id desc", "create_time",
    "labels.x = 'y' OR NOT model != z", "create_time > 0001-01-01T00:00:00+23:59",
    "update_time<9999-12-31T23:59:59-23:59",
    "00000000-0000-0000-0000-000000000000", "A" * 32, "\U0001d4b3", "\ud7ff", "\ufffe", "\\", "\x7f\x80",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 50, 1000, 2**31 - 1, -(2**31)]
LARGE = [*NUMBERS, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, 0.5, -2.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
MAX_DEPTH = 6


def scalar(field: Any, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_INT32:
            return chance.choice(NUMBERS)
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice(LARGE)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return 0
    raise AssertionError(field.full_name)


def fill(message: Message, chance: random.Random, depth: int = 0) -> None:
    """Sets some fields to something."""
    field: Any
    for field in message.DESCRIPTOR.fields:
        if chance.random() < (0.4 if depth < MAX_DEPTH else 1.0):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fill_map(getattr(message, field.name), field, chance, depth)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(chance.randrange(4)):
                if field.message_type is not None:
                    fill(values.add(), chance, depth + 1)
                else:
                    values.append(scalar(field, chance))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), chance, depth + 1)
        else:
            setattr(message, field.name, scalar(field, chance))


def fill_map(values: Any, field: Any, chance: random.Random, depth: int) -> None:
    value_field = field.message_type.fields_by_name["value"]
    for _ in range(chance.randrange(3)):
        key = chance.choice(TEXTS)
        if value_field.message_type is not None:
            fill(values[key], chance, depth + 1)
        else:
            values[key] = scalar(value_field, chance)


def mend_access(message: Message, chance: random.Random) -> bool:
    """Does the same for messages of AccessService; returns whether it did."""
    if chance.random() < 0.3:
        return False
    if isinstance(message, access_pb.CreateApiKeyRequest):
        message.api_key.project, message.api_key.user_id, message.api_key.display_name = "", "", ""
        message.api_key.scopes[:] = ["chat"]
        message.api_key.ClearField("limits")
    elif isinstance(message, access_pb.CreateProjectRequest):
        message.project.id = chance.choice(["a", "b", "c"])
    elif isinstance(message, access_pb.RecordAuditEventRequest):
        event = message.audit_event
        event.id, event.project, event.actor, event.action = str(uuid.UUID(int=chance.getrandbits(128))), "", "a", "a.b"
        event.resource, event.user_id, event.source, event.request_id = "users/u", "u", "", ""
    else:
        return False
    return True


def mend_tool_server(message: Message, chance: random.Random) -> bool:
    """Does the same for messages that write tool servers."""
    if not isinstance(message, tools_pb.CreateToolServerRequest | tools_pb.UpdateToolServerRequest):
        return False
    if chance.random() < 0.7:
        message.project, message.comment = "", ""
        message.tool_server.Clear()
        message.tool_server.id = chance.choice(["a", "b", "c"])
        message.tool_server.mcp.url = chance.choice(["https://a/", "https://b/"])
    return True


def mend(message: Message, chance: random.Random) -> None:
    """Makes some messages good enough to get past the first checks."""
    if isinstance(message, pb.CreateAgentConfigRequest | pb.UpdateAgentConfigRequest) and chance.random() < 0.7:
        for field in ("project", "comment"):
            message.ClearField(field)
        config = message.agent_config
        config.id = chance.choice(["a", "b", "c"])
        config.etag = ""
        for name in (
            "labels",
            "session",
            "limits",
            "memory",
            "template_id",
            "template_version",
            "tools",
            "tool_policy",
        ):
            if chance.random() < 0.8:
                config.ClearField(name)
        if chance.random() < 0.8:
            config.model.Clear()
            config.model.provider, config.model.name = "p", "m"
    elif isinstance(message, templates_pb.PublishTemplateRequest) and chance.random() < 0.7:
        message.template.id, message.template.version, message.template.description = "t", "1.0.0", ""
        message.template.parameters_schema.update({"type": "object"})
    elif mend_access(message, chance) or mend_tool_server(message, chance):
        return
    elif "project" in message.DESCRIPTOR.fields_by_name and chance.random() < 0.7:
        message.ClearField("project")
        for field in chance.sample(["page_size", "page_token", "filter", "order_by"], 3):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
        if "id" in message.DESCRIPTOR.fields_by_name:
            setattr(message, "id", chance.choice(["a", "b", "c"]))  # noqa: B010


MODULES: dict[str, Any] = {
    "agents": pb,
    "templates": templates_pb,
    "providers": providers_pb,
    "access": access_pb,
    "tool_servers": tools_pb,
}
METHODS = [
    (stub, method)
    for stub, service in (
        ("agents", pb.DESCRIPTOR.services_by_name["AgentConfigService"]),
        ("templates", templates_pb.DESCRIPTOR.services_by_name["TemplateService"]),
        ("providers", providers_pb.DESCRIPTOR.services_by_name["ProviderService"]),
        ("access", access_pb.DESCRIPTOR.services_by_name["AccessService"]),
        ("tool_servers", tools_pb.DESCRIPTOR.services_by_name["ToolServerService"]),
    )
    for method in service.methods
]


@pytest.mark.parametrize("seed", range(4))
async def test_no_message_makes_a_fault(service: Running, seed: int) -> None:
    chance = random.Random(seed)
    answered = 0
    for _ in range(40):
        for stub, method in METHODS:
            request = getattr(MODULES[stub], method.input_type.name)()
            fill(request, chance)
            mend(request, chance)
            call = getattr(getattr(service, stub), method.name)(request)
            try:
                await (call.read() if method.server_streaming else call)
                answered += 1
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                assert failure.code.name not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"), f"{method.name}: {request}"
            finally:
                call.cancel()
    assert answered > 20
