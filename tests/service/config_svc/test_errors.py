"""Each reason that config_svc answers with, as it arrives over gRPC."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from access.api_key import new_api_key
from parley.config.v1 import access_service_pb2 as access_pb
from parley.config.v1 import agent_config_pb2 as agents_pb
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1 import template_service_pb2 as templates_pb
from parley.config.v1 import tool_server_service_pb2 as tools_pb
from servicekit.errors import ServiceError
from servicekit.rpc_status import from_rpc_error
from tests.service.config_svc.conftest import Running, agent, publish

Call = Callable[[Running], Awaitable[Any]]


async def failure(call: Awaitable[Any]) -> ServiceError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def create(config: agents_pb.AgentConfig, **fields: Any) -> Call:
    return lambda service: service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=config, **fields))


def get(agent_id: str, **fields: Any) -> Call:
    return lambda service: service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id=agent_id, **fields))


def listing(**fields: Any) -> Call:
    return lambda service: service.agents.ListAgentConfigs(pb.ListAgentConfigsRequest(**fields))


def update(config: agents_pb.AgentConfig, *paths: str, **fields: Any) -> Call:
    return lambda service: service.agents.UpdateAgentConfig(
        pb.UpdateAgentConfigRequest(agent_config=config, update_mask=FieldMask(paths=paths), **fields)
    )


def watch(**fields: Any) -> Call:
    return lambda service: service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest(**fields)).read()


def publishing(**fields: Any) -> Call:
    return lambda service: service.templates.PublishTemplate(publish(**fields))


def deleting(agent_id: str, **fields: Any) -> Call:
    return lambda service: service.agents.DeleteAgentConfig(pb.DeleteAgentConfigRequest(id=agent_id, **fields))


def undeleting(uid: str, **fields: Any) -> Call:
    return lambda service: service.agents.UndeleteAgentConfig(pb.UndeleteAgentConfigRequest(uid=uid, **fields))


def rolling_back(agent_id: str, revision: int, **fields: Any) -> Call:
    request = pb.RollbackAgentConfigRequest(id=agent_id, revision=revision, **fields)
    return lambda service: service.agents.RollbackAgentConfig(request)


def access(method: str, **fields: Any) -> Call:
    """A call of AccessService."""
    request = getattr(access_pb, f"{method}Request")(**fields)
    return lambda service: getattr(service.access, method)(request)


def new_key(*scopes: str, **fields: Any) -> Call:
    return access("CreateApiKey", api_key=access_pb.ApiKey(scopes=scopes, **fields))


def tools(method: str, **fields: Any) -> Call:
    """A call of ToolServerService."""
    request = getattr(tools_pb, f"{method}Request")(**fields)
    return lambda service: getattr(service.tool_servers, method)(request)


def server(server_id: str = "github", **fields: Any) -> dict[str, Any]:
    return {"id": server_id, "mcp": {"url": "https://mcp.example/mcp"}, **fields}


UID = str(uuid.uuid4())

REASONS: list[tuple[str, str, Call, dict[str, str]]] = [
    ("INVALID_ARGUMENT", "INVALID_FIELD", create(agent("No")), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", create(agent(), request_id="1"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", create(agent(), project="No"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", create(agent(), comment="x" * 1001), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", get(""), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", get("there", revision=-1), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", get("there", uid="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", get("there", project="\0"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", listing(page_size=-1), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", listing(order_by="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", update(agents_pb.AgentConfig()), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", update(agent("there"), "nothing"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", rolling_back("there", 0), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", undeleting(""), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", undeleting(UID, id="No"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", watch(cursor="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", watch(heartbeat_interval=Duration(seconds=61)), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", publishing(version="1"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", publishing(properties={"a": {"type": "nonsense"}}), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", listing(page_token="x"), {}),
    (
        "INVALID_ARGUMENT",
        "INVALID_PAGE_TOKEN",
        lambda service: service.templates.ListTemplates(templates_pb.ListTemplatesRequest(page_token="x")),
        {},
    ),
    ("INVALID_ARGUMENT", "TEMPLATE_NOT_FOUND", create(agent(template_id="none")), {"template_id": "none"}),
    ("INVALID_ARGUMENT", "TEMPLATE_NOT_FOUND", create(agent(template_version="9.9.9")), {"template_id": "assistant"}),
    ("INVALID_ARGUMENT", "TEMPLATE_NOT_FOUND", update(agent("there", template_id="none")), {"template_id": "none"}),
    (
        "INVALID_ARGUMENT",
        "TEMPLATE_NOT_FOUND",
        lambda service: service.templates.GetTemplate(templates_pb.GetTemplateRequest(id="none")),
        {"template_id": "none"},
    ),
    ("INVALID_ARGUMENT", "PARAMETERS_INVALID", create(agent(template_id="strict")), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("CreateProject", project=access_pb.Project(id="No")), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("DeleteProject"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key(), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key("operator"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key("keys:admin", user_id="u"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key("chat", expire_time=Timestamp(seconds=1)), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key("chat", expire_time=Timestamp(seconds=2**62)), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", new_key("chat", limits={"concurrent_turns": -1}), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("RotateApiKey", id="k", overlap=Duration(seconds=-1)), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("RevokeApiKey"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("RevokeUserApiKeys"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("RecordAuditEvent"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("EraseAuditSubject"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("ListAuditEvents", actor="\0"), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", access("ListAuditEvents", page_token="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", access("ListApiKeys", page_token="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", access("ListProjects", page_token="x"), {}),
    ("NOT_FOUND", "PROJECT_NOT_FOUND", create(agent(), project="nowhere"), {"project": "nowhere"}),
    ("NOT_FOUND", "PROJECT_NOT_FOUND", create(agent(), project="nowhere", validate_only=True), {}),
    ("NOT_FOUND", "PROJECT_NOT_FOUND", access("DeleteProject", id="nowhere"), {"project": "nowhere"}),
    ("NOT_FOUND", "PROJECT_NOT_FOUND", new_key("chat", project="nowhere"), {"project": "nowhere"}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", access("GetApiKey"), {}),
    ("NOT_FOUND", "API_KEY_NOT_FOUND", access("GetApiKey", id="key_0"), {"api_key_id": "key_0"}),
    ("NOT_FOUND", "API_KEY_NOT_FOUND", access("RevokeApiKey", id="key_0"), {"api_key_id": "key_0"}),
    ("NOT_FOUND", "API_KEY_NOT_FOUND", access("RotateApiKey", id="\0"), {"api_key_id": "\0"}),
    (
        "ALREADY_EXISTS",
        "PROJECT_ALREADY_EXISTS",
        access("CreateProject", project=access_pb.Project(id="default")),
        {"project": "default"},
    ),
    ("FAILED_PRECONDITION", "PROJECT_IN_USE", access("DeleteProject", id="default"), {"project": "default"}),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", access("CheckApiKey", key="x"), {}),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", access("CheckApiKey", key=new_api_key()), {}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", get("nobody"), {"agent_id": "nobody"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", get("Not An Id\0"), {"agent_id": "Not An Id\0"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", get("there", uid=UID), {"agent_id": "there"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", get("there", project="other"), {"agent_id": "there"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", update(agent("nobody")), {"agent_id": "nobody"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", deleting("nobody"), {"agent_id": "nobody"}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", undeleting(UID), {"agent_id": UID}),
    ("NOT_FOUND", "AGENT_NOT_FOUND", rolling_back("nobody", 1), {"agent_id": "nobody"}),
    ("NOT_FOUND", "REVISION_NOT_FOUND", get("there", revision=9), {"agent_id": "there", "revision": "9"}),
    ("NOT_FOUND", "REVISION_NOT_FOUND", rolling_back("there", 2**63 - 1), {}),
    ("ALREADY_EXISTS", "AGENT_ALREADY_EXISTS", create(agent("there")), {"agent_id": "there"}),
    (
        "ALREADY_EXISTS",
        "TEMPLATE_CONFLICT",
        publishing(description="other"),
        {"template_id": "assistant", "template_version": "1.0.0"},
    ),
    ("ABORTED", "ETAG_MISMATCH", update(agent("there", etag="stale")), {"agent_id": "there"}),
    ("ABORTED", "ETAG_MISMATCH", deleting("there", etag="stale"), {"agent_id": "there"}),
    ("ABORTED", "ETAG_MISMATCH", rolling_back("there", 1, etag="stale"), {"agent_id": "there"}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("CreateToolServer", tool_server=server("No")), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("CreateToolServer", tool_server=server(), request_id="1"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("CreateToolServer", tool_server={"id": "a"}), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("CreateToolServer", tool_server=server(), project="No"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("GetToolServer"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("ListToolServers", filter="model = x"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("UpdateToolServer"), {}),
    ("INVALID_ARGUMENT", "INVALID_FIELD", tools("DeleteToolServer"), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", tools("ListToolServers", page_token="x"), {}),
    ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", tools("ListToolServerRevisions", id="used", page_token="x"), {}),
    ("NOT_FOUND", "PROJECT_NOT_FOUND", tools("CreateToolServer", tool_server=server(), project="nowhere"), {}),
    ("NOT_FOUND", "TOOL_SERVER_NOT_FOUND", tools("GetToolServer", id="none"), {"tool_server_id": "none"}),
    ("NOT_FOUND", "TOOL_SERVER_NOT_FOUND", tools("GetToolServer", id="No\0"), {"tool_server_id": "No\0"}),
    ("NOT_FOUND", "TOOL_SERVER_NOT_FOUND", tools("UpdateToolServer", tool_server=server("none")), {}),
    ("NOT_FOUND", "TOOL_SERVER_NOT_FOUND", tools("DeleteToolServer", id="none"), {}),
    ("NOT_FOUND", "TOOL_SERVER_NOT_FOUND", tools("ListToolServerRevisions", id="none"), {}),
    (
        "ALREADY_EXISTS",
        "TOOL_SERVER_ALREADY_EXISTS",
        tools("CreateToolServer", tool_server=server("used")),
        {"tool_server_id": "used"},
    ),
    (
        "ABORTED",
        "ETAG_MISMATCH",
        tools("UpdateToolServer", tool_server=server("used", etag="stale")),
        {"tool_server_id": "used"},
    ),
    ("ABORTED", "ETAG_MISMATCH", tools("DeleteToolServer", id="used", etag="stale"), {"tool_server_id": "used"}),
    (
        "FAILED_PRECONDITION",
        "TOOL_SERVER_IN_USE",
        tools("DeleteToolServer", id="used"),
        {"tool_server_id": "used", "agent_ids": "there", "agent_count": "1"},
    ),
    ("INVALID_ARGUMENT", "INVALID_FIELD", create(agent(tools=[{"mcp": {"tool_server": "none"}}])), {}),
    ("OUT_OF_RANGE", "CURSOR_TOO_OLD", watch(cursor="A" * 32), {}),
]


@pytest.fixture
async def furnished(service: Running) -> Running:
    """The service with one agent config, `there`, that uses the tool server `used`, and the template `strict`."""
    await service.templates.PublishTemplate(publish(template_id="strict", required=["company"]))
    await tools("CreateToolServer", tool_server=server("used"))(service)
    await create(agent("there", tools=[{"mcp": {"tool_server": "used"}}]))(service)
    return service


async def test_each_reason(furnished: Running) -> None:
    before = await listing(show_deleted=True)(furnished)
    for code, reason, call, metadata in REASONS:
        error = await failure(call(furnished))
        assert (error.code.name, error.reason) == (code, reason)
        assert metadata.items() <= error.metadata.items()
        assert bool(error.violations) == (reason == "INVALID_FIELD" or bool(error.violations))
        for secret in ("psycopg", "sqlalchemy", "SELECT", "Traceback"):
            assert secret not in str(error)
    assert await listing(show_deleted=True)(furnished) == before


async def test_every_violation_of_a_tool_server_comes_at_once(furnished: Running) -> None:
    call = {"name": "a b", "method": "HEAD", "path": "x", "parameters": {"type": "string"}}
    bad = {
        "id": "-",
        "display_name": "x" * 201,
        "http": {
            "base_url": "ftp://x",
            "headers": {"Authorization": "x", "Host": "x", "a b": "x", "ok": "ä"},
            "calls": [call],
            "openapi": "[",
        },
        "auth": {"oauth": {"token_url": "https://u:p@x/", "client_secret": "/etc/passwd", "scopes": ["a b"]}},
        "labels": {"Bad Key": "v"},
    }
    error = await failure(tools("CreateToolServer", tool_server=bad, request_id="1", comment="\0")(furnished))
    assert [violation.field for violation in error.violations] == [
        "tool_server.id",
        "request_id",
        "comment",
        "tool_server.display_name",
        "tool_server.http.base_url",
        "tool_server.http.headers",
        "tool_server.http.headers",
        "tool_server.http.headers",
        "tool_server.http.headers.ok",
        "tool_server.http",
        "tool_server.http.calls[0].name",
        "tool_server.http.calls[0].description",
        "tool_server.http.calls[0].method",
        "tool_server.http.calls[0].path",
        "tool_server.auth.oauth.token_url",
        "tool_server.auth.oauth.client_id",
        "tool_server.auth.oauth.client_secret",
        "tool_server.auth.oauth.scopes[0]",
        "tool_server.labels",
        "tool_server.http.openapi",
        "tool_server.http.calls[0].parameters.type",
    ]


async def test_a_tool_server_comes_back_as_it_was_written(furnished: Running) -> None:
    call = {"name": "get", "description": "Gets.", "method": "GET", "path": "/a", "idempotent": True}
    headers = {"X-Team": "cx"}
    kinds: list[dict[str, Any]] = [
        {"mcp": {"url": "https://mcp.example:8443/mcp?a=b", "headers": headers}, "auth": {"bearer": {"secret": "a.b"}}},
        {
            "http": {"base_url": "http://crm", "calls": [call | {"parameters": {"type": "object"}}]},
            "auth": {"header": {"name": "X-Key", "secret": "k"}},
        },
        {
            "http": {
                "base_url": "http://crm",
                "openapi": '{"openapi": "3.0.3", "paths": {"/a": {"get": {"operationId": "a"}}}}',
            },
            "auth": {"oauth": {"token_url": "https://idp/", "client_id": "c", "client_secret": "s", "scopes": ["x"]}},
            "labels": {"team": "cx"},
            "display_name": "CRM",
        },
    ]
    for index, kind in enumerate(kinds):
        wanted = tools_pb.ToolServerRevision(tool_server={"id": f"s{index}", **kind}).tool_server
        made = (await tools("CreateToolServer", tool_server=wanted)(furnished)).tool_server
        read = (await tools("GetToolServer", id=f"s{index}")(furnished)).tool_server
        assert read == made
        assert (read.project, read.revision, bool(read.uid), bool(read.etag)) == ("default", 1, True, True)
        for name in ("project", "uid", "revision", "etag", "create_time", "update_time"):
            read.ClearField(name)
        assert read == wanted
    listed = (await tools("ListToolServers", filter="kind = http")(furnished)).tool_servers
    assert [one.id for one in listed] == ["s1", "s2"]
    changed = await tools("UpdateToolServer", tool_server={"id": "s0", "mcp": {"url": "https://other/"}})(furnished)
    assert changed.tool_server.mcp.headers == headers
    revisions = (await tools("ListToolServerRevisions", id="s0")(furnished)).revisions
    assert [(one.tool_server.revision, list(one.changed_fields)) for one in revisions] == [(2, ["mcp.url"]), (1, [])]


async def test_a_reused_request_id(furnished: Running) -> None:
    await create(agent("a"), request_id=UID)(furnished)
    error = await failure(create(agent("b"), request_id=UID)(furnished))
    assert (error.code.name, error.reason) == ("ABORTED", "IDEMPOTENCY_KEY_REUSED")
    assert error.metadata == {"request_id": UID}


async def test_every_violation_comes_at_once_with_its_path(furnished: Running) -> None:
    bad = agents_pb.AgentConfig(
        id="-",
        display_name="x" * 201,
        template_id="none",
        instructions="\0",
        model=agents_pb.ModelConfig(temperature=3, top_p=0, max_output_tokens=0, stop=["", "a", "b", "c", "d"]),
        memory=agents_pb.MemoryPolicy(max_messages=-1),
        session=agents_pb.SessionPolicy(idle_ttl=Duration(seconds=-(2**62)), max_lifetime=Duration(seconds=2**62)),
        limits=agents_pb.AgentLimits(max_concurrent_turns=0, turn_timeout=Duration(nanos=1), requests_per_minute=0),
        labels={"Bad Key": "v", "ok": "x" * 257},
    )
    bad.model.presence_penalty = float("nan")
    bad.model.frequency_penalty = 2.5
    error = await failure(create(bad, request_id="1", comment="\0", validate_only=True)(furnished))
    assert error.reason == "INVALID_FIELD"
    assert [violation.field for violation in error.violations] == [
        "agent_config.id",
        "request_id",
        "comment",
        "agent_config.display_name",
        "agent_config.instructions",
        "agent_config.model.provider",
        "agent_config.model.name",
        "agent_config.model.temperature",
        "agent_config.model.top_p",
        "agent_config.model.max_output_tokens",
        "agent_config.model.stop",
        "agent_config.model.stop[0]",
        "agent_config.model.presence_penalty",
        "agent_config.model.frequency_penalty",
        "agent_config.memory.max_messages",
        "agent_config.session.idle_ttl",
        "agent_config.session.max_lifetime",
        "agent_config.limits.max_concurrent_turns",
        "agent_config.limits.requests_per_minute",
        "agent_config.limits.turn_timeout",
        "agent_config.labels",
        "agent_config.labels.ok",
        "agent_config.template_id",
    ]


async def test_parameters_are_checked_against_the_template(furnished: Running) -> None:
    schema: dict[str, Any] = {
        "properties": {"company": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["company", "tone"],
        "additionalProperties": False,
    }
    await furnished.templates.PublishTemplate(publish(template_id="shop", **schema))
    config = agent(template_id="shop")
    config.parameters.update({"company": 1, "tags": ["a", 2], "extra": True})
    error = await failure(create(config)(furnished))
    assert error.reason == "PARAMETERS_INVALID"
    assert sorted(violation.field for violation in error.violations) == [
        "agent_config.parameters.company",
        "agent_config.parameters.extra",
        "agent_config.parameters.tags[1]",
        "agent_config.parameters.tone",
    ]
    config.model.temperature = 9
    both = await failure(create(config)(furnished))
    assert both.reason == "INVALID_FIELD"
    assert len(both.violations) == 5
