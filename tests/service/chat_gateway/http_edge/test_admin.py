"""The admin API over a real socket, with scripted peers: agents, templates, instances, health, metrics."""

from typing import Any

import pytest

from parley.config.v1 import agent_config_service_pb2 as config_pb
from parley.config.v1 import template_service_pb2 as template_pb
from parley.config.v1.agent_config_pb2 import AgentConfigRevision
from parley.session.v1 import session_service_pb2 as session_pb
from servicekit.errors import Code, RemoteError, Violation
from tests.service.chat_gateway.http_edge.edge import Edge
from tests.service.chat_gateway.http_edge.samples import TIME, WRITTEN, agent_config, session

READ = WRITTEN | {
    "template_version": "1.0.0",
    "object": "agent",
    "uid": "u1",
    "revision": 2,
    "etag": "e2",
    "create_time": "2026-05-04T03:02:01Z",
    "update_time": "2026-05-04T03:02:01Z",
}


async def test_create_answers_201_with_what_was_stored(edge: Edge) -> None:
    edge.peers.answers["CreateAgentConfig"] = config_pb.CreateAgentConfigResponse(agent_config=agent_config())
    answer = await edge.client.post("/v1/agents", json=WRITTEN)
    assert answer.status_code == 201
    assert answer.json() == READ
    assert answer.headers["etag"] == '"e2"'
    assert answer.headers["location"] == "/v1/agents/support"
    request = edge.peers.asked("CreateAgentConfig")
    assert request.project == "default"
    expected = agent_config(template_version="", etag="", uid="", revision=0, project="")
    expected.ClearField("create_time")
    expected.ClearField("update_time")
    assert request.agent_config == expected


async def test_what_is_read_can_be_written_back(edge: Edge) -> None:
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    edge.peers.answers["UpdateAgentConfig"] = config_pb.UpdateAgentConfigResponse(agent_config=agent_config())
    read = await edge.client.get("/v1/agents/support", params={"revision": 2})
    assert edge.peers.asked("GetAgentConfig").revision == 2
    assert read.json() == READ
    answer = await edge.client.put("/v1/agents/support", json=read.json())
    assert answer.status_code == 200
    request = edge.peers.asked("UpdateAgentConfig")
    assert request.update_mask.paths == ["*"]
    assert request.agent_config.etag == "e2"
    assert request.agent_config.memory.HasField("max_messages")
    assert request.agent_config.session.max_lifetime.seconds == 86400


async def test_a_body_of_another_agent_is_refused(edge: Edge) -> None:
    answer = await edge.client.put("/v1/agents/sales", json=WRITTEN)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "id")


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"mcp": {"tool_server": "a"}, "client": {"name": "b"}}, "tools[0]"),
        ({"mcp": {"tool_server": "a", "approval": "sometimes"}}, "tools[0].mcp.approval"),
        ({"mcp": {"tool_sever": "a"}}, "tools[0].mcp.tool_sever"),
        ({"client": {"name": "a", "parameters": {"n": 10**400}}}, "tools[0].client.parameters"),
    ],
)
async def test_a_tool_of_the_wrong_shape_is_named(edge: Edge, tool: dict[str, Any], field: str) -> None:
    answer = await edge.client.post("/v1/agents", json=WRITTEN | {"tools": [tool]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_the_short_form_of_a_server_s_tools(edge: Edge) -> None:
    edge.peers.answers["CreateAgentConfig"] = config_pb.CreateAgentConfigResponse(agent_config=agent_config())
    assert (await edge.client.post("/v1/agents", json=WRITTEN | {"tools": [{"mcp": "github"}]})).status_code == 201
    (tool,) = edge.peers.asked("CreateAgentConfig").agent_config.tools
    assert tool.mcp.tool_server == "github"


PATCHES = {
    "a field": ({"name": "New"}, ["display_name"], lambda c: c.display_name == "New" and c.instructions),
    "one of an object": (
        {"model": {"temperature": None, "top_p": 0.5}},
        ["model"],
        lambda c: not c.model.HasField("temperature") and c.model.top_p == 0.5 and c.model.name == "smollm2",
    ),
    "a label": ({"labels": {"team": None, "x": "y"}}, ["labels"], lambda c: dict(c.labels) == {"x": "y"}),
    "a parameter": (
        {"parameters": {"depth": {"n": None}}},
        ["parameters"],
        lambda c: c.parameters["company"] == "Acme" and "n" not in c.parameters["depth"].fields,
    ),
    "a whole object": ({"memory": None}, ["memory"], lambda c: not c.HasField("memory")),
    "another template": (
        {"template_id": "other"},
        ["template_id", "template_version"],
        lambda c: c.template_id == "other" and c.template_version == "",
    ),
    "nothing": ({}, [], lambda c: c.etag == "e2"),
}


@pytest.mark.parametrize("name", PATCHES)
async def test_a_patch_merges_and_names_what_it_changes(edge: Edge, name: str) -> None:
    patch, paths, holds = PATCHES[name]
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    edge.peers.answers["UpdateAgentConfig"] = config_pb.UpdateAgentConfigResponse(agent_config=agent_config())
    answer = await edge.client.patch("/v1/agents/support", json=patch)
    assert answer.status_code == 200
    if not paths:
        assert "UpdateAgentConfig" not in edge.peers.requests
        return
    request = edge.peers.asked("UpdateAgentConfig")
    assert request.update_mask.paths == paths
    assert request.agent_config.etag == "e2"
    assert holds(request.agent_config)


@pytest.mark.parametrize("validate_only", [True, False])
async def test_turns_of_this_gateway_run_on_what_was_changed_through_it(edge: Edge, validate_only: bool) -> None:
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    edge.peers.answers["UpdateAgentConfig"] = config_pb.UpdateAgentConfigResponse(agent_config=agent_config())
    changes = {"params": {"validate_only": validate_only}, "json": {"name": "New"}}
    assert (await edge.client.patch("/v1/agents/support", **changes)).status_code == 200
    read = ("default", "support", agent_config().uid)
    assert edge.configs.forgotten == ([] if validate_only else [read])


async def test_a_patch_between_two_others_is_tried_again(edge: Edge) -> None:
    edge.peers.answers["GetAgentConfig"] = [
        config_pb.GetAgentConfigResponse(agent_config=agent_config(etag=etag)) for etag in ("e2", "e3")
    ]
    stale = RemoteError("stale", code=Code.ABORTED, reason="ETAG_MISMATCH")
    edge.peers.answers["UpdateAgentConfig"] = [
        stale,
        config_pb.UpdateAgentConfigResponse(agent_config=agent_config()),
    ]
    answer = await edge.client.patch("/v1/agents/support", json={"name": "New"})
    assert answer.status_code == 200
    assert edge.peers.asked("UpdateAgentConfig").agent_config.etag == "e3"


async def test_a_patch_with_a_stale_etag_is_refused(edge: Edge) -> None:
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    edge.peers.answers["UpdateAgentConfig"] = RemoteError("stale", code=Code.ABORTED, reason="ETAG_MISMATCH")
    answer = await edge.client.patch("/v1/agents/support", json={"name": "New"}, headers={"If-Match": '"e1"'})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "etag_mismatch")
    assert answer.headers["x-should-retry"] == "false"
    assert edge.peers.asked("UpdateAgentConfig").agent_config.etag == "e1"
    assert len(edge.peers.requests["UpdateAgentConfig"]) == 1


async def test_delete_goes_everywhere_with_the_etag(edge: Edge) -> None:
    answer = await edge.client.delete("/v1/agents/support", headers={"If-Match": '"e2"'})
    assert (answer.status_code, answer.content) == (204, b"")
    assert edge.deletion.deleted == [("default", "support", "e2")]


async def test_agents_are_listed_by_pages(edge: Edge) -> None:
    edge.peers.answers["ListAgentConfigs"] = config_pb.ListAgentConfigsResponse(
        agent_configs=[agent_config()], next_page_token="n"
    )
    answer = await edge.client.get("/v1/agents", params={"page_size": 1, "page_token": "p", "order_by": "id desc"})
    assert answer.json() == {"object": "list", "data": [READ], "next_page_token": "n"}
    request = edge.peers.asked("ListAgentConfigs")
    assert (request.page_size, request.page_token, request.order_by) == (1, "p", "id desc")


async def test_agents_are_models(edge: Edge) -> None:
    edge.peers.answers["ListAgentConfigs"] = config_pb.ListAgentConfigsResponse(agent_configs=[agent_config()])
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    card = {"id": "support", "object": "model", "created": 1777863721, "owned_by": "default"}
    assert (await edge.client.get("/v1/models")).json() == {"object": "list", "data": [card], "next_page_token": ""}
    assert (await edge.client.get("/v1/models/support")).json() == card


async def test_revisions_and_rollback(edge: Edge) -> None:
    revision = AgentConfigRevision(
        agent_config=agent_config(), author="a", comment="c", create_time=TIME, changed_fields=["display_name", "model"]
    )
    edge.peers.answers["ListAgentConfigRevisions"] = config_pb.ListAgentConfigRevisionsResponse(revisions=[revision])
    edge.peers.answers["RollbackAgentConfig"] = config_pb.RollbackAgentConfigResponse(agent_config=agent_config())
    listed = (await edge.client.get("/v1/agents/support/revisions")).json()["data"]
    assert listed == [
        {
            "object": "agent.revision",
            "revision": 2,
            "create_time": "2026-05-04T03:02:01Z",
            "author": "a",
            "comment": "c",
            "changed_fields": ["name", "model"],
            "agent": READ,
        }
    ]
    answer = await edge.client.post("/v1/agents/support:rollback", json={"revision": 1, "etag": "e2"})
    assert answer.status_code == 200
    assert answer.json() == READ
    request = edge.peers.asked("RollbackAgentConfig")
    assert (request.id, request.revision, request.etag) == ("support", 1, "e2")
    assert edge.configs.forgotten == [("default", "support", agent_config().uid)]


async def test_templates_are_listed(edge: Edge) -> None:
    template = template_pb.Template(id="assistant", version="1.0.0", description="d", create_time=TIME)
    template.parameters_schema.update({"type": "object", "maxProperties": 5})
    edge.peers.answers["ListTemplates"] = template_pb.ListTemplatesResponse(templates=[template])
    assert (await edge.client.get("/v1/templates")).json()["data"] == [
        {
            "object": "template",
            "id": "assistant",
            "version": "1.0.0",
            "description": "d",
            "parameters_schema": {"type": "object", "maxProperties": 5},
            "create_time": "2026-05-04T03:02:01Z",
        }
    ]


async def test_instances_are_listed_and_evicted(edge: Edge) -> None:
    listed = (await edge.client.get("/v1/instances")).json()["data"]
    assert listed == [
        {
            "object": "instance",
            "agent_id": "hello",
            "agent_uid": "u1",
            "agent_revision": 3,
            "template_id": "assistant",
            "build_time": "2026-05-04T03:02:01Z",
            "last_used_time": "2026-05-04T03:32:01.5Z",
            "turn_count": 7,
        }
    ]
    assert (await edge.client.get("/v1/instances", params={"agent_id": "x"})).json()["data"] == []
    assert (await edge.client.post("/v1/instances:evict", json={"agent_id": "hello"})).json() == {"evicted": 1}
    assert (await edge.client.post("/v1/instances:evict", json={})).json() == {"evicted": 1}
    assert (await edge.client.post("/v1/instances:evict")).json() == {"evicted": 1}
    assert edge.instances.evicted == [("default", "hello"), ("default", ""), ("default", "")]


async def test_health_names_the_part_that_is_unavailable(edge: Edge) -> None:
    assert (await edge.client.get("/livez")).json() == {"status": "ok"}
    ready = await edge.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    edge.readiness.parts["session_svc"] = "unavailable for 3 s"
    assert (await edge.client.get("/startedz")).status_code == 200
    unready = await edge.client.get("/readyz")
    assert (unready.status_code, unready.json()) == (
        503,
        {"ready": False, "parts": {"config_svc": "ok", "session_svc": "unavailable for 3 s"}},
    )


async def test_metrics_are_for_prometheus(edge: Edge) -> None:
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    await edge.client.get("/v1/sessions/s1")
    await edge.client.post("/v1/instances:evict", json={})
    await edge.client.get("/somewhere/else")
    text = (await edge.client.get("/metrics")).text
    for route, method, status in (
        ("/v1/sessions/{session_id}", "GET", "2xx"),
        ("/v1/instances:evict", "POST", "2xx"),
        ("unknown", "GET", "4xx"),
    ):
        assert (
            f'http_server_request_duration_seconds_count{{http_request_method="{method}",'
            f'http_response_status_class="{status}",http_route="{route}"}} 1.0'
        ) in text


BAD_REQUESTS: dict[str, tuple[str, str, Any, int, str, str | None]] = {
    "unknown field": ("POST", "/v1/agents", {"id": "a", "modle": {}}, 400, "malformed_body", "modle"),
    "unknown field inside": ("POST", "/v1/agents", {"model": {"nam": ""}}, 400, "malformed_body", "model.nam"),
    "wrong type": ("POST", "/v1/agents", {"model": {"temperature": "x"}}, 400, "malformed_body", "model.temperature"),
    "number for text": ("PUT", "/v1/agents/a", {"name": 5}, 400, "malformed_body", "name"),
    "text for number": ("POST", "/v1/agents/a:rollback", {"revision": "1"}, 400, "malformed_body", "revision"),
    "out of 32 bits": (
        "POST",
        "/v1/agents",
        {"memory": {"max_messages": 2**31}},
        400,
        "malformed_body",
        "memory.max_messages",
    ),
    "bad duration": ("POST", "/v1/agents", {"session": {"idle_ttl": "30m"}}, 400, "invalid_field", "session.idle_ttl"),
    "nested parameters": (
        "POST",
        "/v1/agents",
        {"parameters": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]}},
        400,
        "malformed_body",
        "parameters",
    ),
    "no body": ("POST", "/v1/agents", None, 400, "malformed_body", None),
    "list for body": ("POST", "/v1/agents", [], 400, "malformed_body", None),
    "unknown field cleared": ("PATCH", "/v1/agents/a", {"modle": None}, 400, "malformed_body", "modle"),
    "list for patch": ("PATCH", "/v1/agents/a", [], 400, "malformed_body", None),
    "page size": ("GET", "/v1/agents?page_size=x", None, 400, "invalid_field", "page_size"),
    "page size below 0": ("GET", "/v1/sessions?page_size=-1", None, 400, "invalid_field", "page_size"),
    "order": ("GET", "/v1/sessions/s/messages?order=up", None, 400, "invalid_field", "order"),
    "unknown route": ("GET", "/v1/agent", None, 404, "route_not_found", None),
    "unknown verb": ("POST", "/v1/agents/a:revive", {}, 404, "route_not_found", None),
    "wrong method": ("PUT", "/v1/agents", {}, 405, "route_not_found", None),
    "wrong method of a verb": ("GET", "/v1/sessions:purge", None, 405, "route_not_found", None),
    "unknown file": ("GET", "/docs/passwd", None, 404, "route_not_found", None),
    "outside of docs": ("GET", "/docs/..%2f__init__.py", None, 404, "route_not_found", None),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_is_a_named_error(edge: Edge, name: str) -> None:
    method, path, body, status, code, param = BAD_REQUESTS[name]
    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    answer = await edge.client.request(method, path, json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) - {"violations"} == {"message", "type", "param", "code"}
    assert param is None or error["violations"][0]["field"] == param
    assert (error["code"], error["param"]) == (code, param)
    assert answer.headers["x-request-id"]


async def test_broken_json_is_a_named_error(edge: Edge) -> None:
    answer = await edge.client.post("/v1/agents", content=b'{"id": ')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


async def test_a_wrong_method_says_which_are_allowed(edge: Edge) -> None:
    answer = await edge.client.put("/v1/agents")
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "POST"}


async def test_a_body_over_the_limit_is_refused(edge: Edge) -> None:
    answer = await edge.client.post("/v1/agents", json={"instructions": "x" * 5_000_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "message_too_large")


async def test_a_peers_violations_carry_our_names(edge: Edge) -> None:
    edge.peers.answers["CreateAgentConfig"] = RemoteError(
        "agent_config.display_name: is too long; agent_config.parameters.n: is too big",
        code=Code.INVALID_ARGUMENT,
        reason="PARAMETERS_INVALID",
        violations=[
            Violation("agent_config.display_name", "is too long"),
            Violation("agent_config.parameters.n", "is too big"),
        ],
    )
    error = (await edge.client.post("/v1/agents", json=WRITTEN)).json()["error"]
    assert error == {
        "message": "name: is too long; parameters.n: is too big",
        "type": "invalid_request_error",
        "param": "name",
        "code": "parameters_invalid",
        "violations": [
            {"field": "name", "description": "is too long"},
            {"field": "parameters.n", "description": "is too big"},
        ],
    }


async def test_a_peer_that_is_unavailable_is_503(edge: Edge) -> None:
    edge.peers.answers["GetAgentConfig"] = RemoteError(
        "config_svc is unavailable", code=Code.UNAVAILABLE, reason="PEER_UNAVAILABLE"
    )
    answer = await edge.client.get("/v1/agents/a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "peer_unavailable")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")


async def test_head_is_get_without_a_body(edge: Edge) -> None:
    answer = await edge.client.head("/livez")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "15"
