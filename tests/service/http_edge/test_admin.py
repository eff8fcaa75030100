"""The admin API over a real socket, with scripted peers."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from parley.config.v1 import agent_config_service_pb2 as config_pb
from parley.config.v1 import template_service_pb2 as template_pb
from parley.config.v1.agent_config_pb2 import AgentConfig, AgentConfigRevision
from parley.session.v1 import message_pb2 as message_pb
from parley.session.v1 import session_service_pb2 as session_pb
from servicekit.errors import Code, RemoteError, Violation
from tests.service.http_edge.edge import Edge

TIME = Timestamp(seconds=1777863721)
WRITTEN = {
    "id": "support",
    "name": "Support",
    "template_id": "assistant",
    "instructions": "You answer for {{company}}.",
    "parameters": {"company": "Acme", "depth": {"n": 3, "x": [1.5, None, True]}},
    "model": {"provider": "local", "name": "smollm2", "temperature": 0.2, "stop": ["END"]},
    "memory": {"max_messages": 0},
    "session": {"idle_ttl": "1800s", "max_lifetime": "86400s"},
    "limits": {"max_concurrent_turns": 2, "turn_timeout": "1.500s", "requests_per_minute": 90},
    "labels": {"team": "cx"},
    "metadata_keys": ["customer"],
}
READ = WRITTEN | {
    "template_version": "1.0.0",
    "object": "agent",
    "uid": "u1",
    "revision": 2,
    "etag": "e2",
    "create_time": "2026-05-04T03:02:01Z",
    "update_time": "2026-05-04T03:02:01Z",
}


def agent_config(**fields: Any) -> AgentConfig:
    config = AgentConfig(
        project="default",
        id="support",
        uid="u1",
        display_name="Support",
        template_id="assistant",
        template_version="1.0.0",
        instructions="You answer for {{company}}.",
        model={"provider": "local", "name": "smollm2", "temperature": 0.2, "stop": ["END"]},
        memory={"max_messages": 0},
        session={"idle_ttl": {"seconds": 1800}, "max_lifetime": {"seconds": 86400}},
        limits={
            "max_concurrent_turns": 2,
            "turn_timeout": {"seconds": 1, "nanos": 500_000_000},
            "requests_per_minute": 90,
        },
        labels={"team": "cx"},
        metadata_keys=["customer"],
        revision=2,
        etag="e2",
        create_time=TIME,
        update_time=TIME,
    )
    config.parameters.update(WRITTEN["parameters"])
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def session(**fields: Any) -> session_pb.Session:
    values: dict[str, Any] = {
        "project": "default",
        "id": "s:1",
        "agent_id": "support",
        "agent_uid": "u1",
        "user_id": "ann",
        "agent_revision": 2,
        "turn_count": 1,
        "message_count": 2,
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 1},
        "metadata": {"lang": "en"},
        "create_time": TIME,
        "last_activity_time": TIME,
        "expire_time": TIME,
        "idle_ttl": {"seconds": 1800},
        "max_lifetime": {"seconds": 86400},
    }
    return session_pb.Session(**values | fields)


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


SESSION = {
    "object": "session",
    "id": "s:1",
    "agent_id": "support",
    "agent_uid": "u1",
    "user_id": "ann",
    "agent_revision": 2,
    "pinned_revision": 0,
    "turn_count": 1,
    "message_count": 2,
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 1},
    "metadata": {"lang": "en"},
    "create_time": "2026-05-04T03:02:01Z",
    "last_activity_time": "2026-05-04T03:02:01Z",
    "expire_time": "2026-05-04T03:02:01Z",
    "idle_ttl": "1800s",
    "max_lifetime": "86400s",
}


async def test_sessions_are_listed_and_read(edge: Edge) -> None:
    edge.peers.answers["ListSessions"] = session_pb.ListSessionsResponse(sessions=[session()], next_page_token="n")
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    listed = await edge.client.get("/v1/sessions", params={"agent_id": "support", "user_id": "ann", "page_size": 5})
    assert listed.json() == {"object": "list", "data": [SESSION], "next_page_token": "n"}
    request = edge.peers.asked("ListSessions")
    assert (request.agent_id, request.user_id, request.page_size) == ("support", "ann", 5)
    assert (await edge.client.get("/v1/sessions/s:1", headers={"X-User-ID": "ann"})).json() == SESSION
    assert edge.peers.asked("GetSession").user_id == "ann"
    assert edge.peers.asked("GetSession").id == "s:1"


async def test_a_session_id_may_look_like_a_verb(edge: Edge) -> None:
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    edge.peers.answers["ForkSession"] = session_pb.ForkSessionResponse(session=session())
    await edge.client.get("/v1/sessions/a:fork")
    assert edge.peers.asked("GetSession").id == "a:fork"
    await edge.client.post("/v1/sessions/a:fork:fork", json={})
    assert edge.peers.asked("ForkSession").session_id == "a:fork"


async def test_two_users_in_one_request_are_refused(edge: Edge) -> None:
    answer = await edge.client.get("/v1/sessions", params={"user_id": "ann"}, headers={"X-User-ID": "bob"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user_id")


@pytest.mark.parametrize(("order", "roles"), [("asc", ["user", "assistant"]), ("desc", ["assistant", "user"])])
async def test_messages_are_listed_in_either_order(edge: Edge, order: str, roles: list[str]) -> None:
    turn = message_pb.Turn(
        id="t1", number=1, agent_revision=2, begin_time=TIME, finish_reason=message_pb.FINISH_REASON_TOOL_CALLS
    )
    asked = turn.messages.add(role=message_pb.ROLE_USER, name="Ann")
    asked.parts.add(text="What is this?")
    asked.parts.add(image_url={"url": "https://x/y.png", "detail": "low"})
    turn.messages.add(role=message_pb.ROLE_ASSISTANT).tool_calls.add(id="c1", name="look", arguments="{}")
    edge.peers.answers["ListMessages"] = session_pb.ListMessagesResponse(turns=[turn])
    answer = await edge.client.get("/v1/sessions/s1/messages", params={"order": order, "page_size": 3})
    data = answer.json()["data"]
    assert [message["role"] for message in data] == roles
    shared = {
        "object": "session.message",
        "turn_number": 1,
        "turn_id": "t1",
        "create_time": "2026-05-04T03:02:01Z",
        "agent_revision": 2,
    }
    by_role = {message["role"]: message for message in data}
    assert by_role["user"] == shared | {
        "role": "user",
        "name": "Ann",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        ],
    }
    assert by_role["assistant"] == shared | {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        "finish_reason": "tool_calls",
    }
    assert edge.peers.asked("ListMessages").page_size == 3


async def test_deleting_a_session_answers_204(edge: Edge) -> None:
    edge.peers.answers["DeleteSession"] = session_pb.DeleteSessionResponse()
    answer = await edge.client.delete("/v1/sessions/s1", headers={"X-User-ID": "ann"})
    assert (answer.status_code, answer.content) == (204, b"")
    request = edge.peers.asked("DeleteSession")
    assert (request.id, request.user_id, request.allow_missing) == ("s1", "ann", False)


async def test_patching_a_session_merges_its_metadata(edge: Edge) -> None:
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    edge.peers.answers["UpdateSession"] = session_pb.UpdateSessionResponse(session=session())
    patch = {"metadata": {"lang": None, "tone": "kind"}, "idle_ttl": "60s", "pinned_revision": 1}
    answer = await edge.client.patch("/v1/sessions/s1", json=patch)
    assert answer.json() == SESSION
    request = edge.peers.asked("UpdateSession")
    assert request.update_mask.paths == ["metadata", "idle_ttl", "pinned_revision"]
    assert dict(request.session.metadata) == {"tone": "kind"}
    assert request.session.idle_ttl.seconds == 60
    assert request.session.pinned_revision == 1


async def test_forking_answers_201_with_the_new_session(edge: Edge) -> None:
    edge.peers.answers["ForkSession"] = session_pb.ForkSessionResponse(session=session(id="s2"))
    answer = await edge.client.post("/v1/sessions/s1:fork", json={"id": "s2", "up_to_turn": 4})
    assert (answer.status_code, answer.json()["id"]) == (201, "s2")
    assert answer.headers["location"] == "/v1/sessions/s2"
    request = edge.peers.asked("ForkSession")
    assert (request.session_id, request.new_session_id, request.up_to_turn) == ("s1", "s2", 4)


async def test_a_purge_goes_on_until_nothing_is_left(edge: Edge) -> None:
    late = RemoteError("late", code=Code.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED")
    deleted = [session_pb.DeleteSessionsResponse(deleted_count=count) for count in (500, 7, 0)]
    edge.peers.answers["DeleteSessions"] = [deleted[0], late, deleted[1], deleted[2]]
    answer = await edge.client.post("/v1/sessions:purge", json={"agent_id": "support", "idle_longer_than": "3600s"})
    assert answer.json() == {"deleted": 507}
    request = edge.peers.asked("DeleteSessions")
    assert (request.agent_id, request.idle_longer_than.seconds, request.fence_agent) == ("support", 3600, False)


async def test_a_purge_of_everything_is_refused(edge: Edge) -> None:
    answer = await edge.client.post("/v1/sessions:purge", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_field")


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


async def test_health_names_the_part_that_is_away(edge: Edge) -> None:
    assert (await edge.client.get("/livez")).json() == {"status": "ok"}
    ready = await edge.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    edge.readiness.parts["session_svc"] = "away for 3 s"
    away = await edge.client.get("/readyz")
    assert (away.status_code, away.json()) == (
        503,
        {"ready": False, "parts": {"config_svc": "ok", "session_svc": "away for 3 s"}},
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
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "message_too_large")


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


async def test_a_peer_that_is_away_is_503(edge: Edge) -> None:
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
