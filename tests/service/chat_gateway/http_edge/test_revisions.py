"""Revisions, checks without a write, deleted agents, providers: over a real socket, with scripted peers."""

from google.protobuf.struct_pb2 import Value

from parley.config.v1 import agent_config_service_pb2 as config_pb
from parley.config.v1 import provider_service_pb2 as provider_pb
from parley.config.v1 import template_service_pb2 as template_pb
from parley.config.v1.agent_config_pb2 import FieldDifference
from servicekit.errors import Code, RemoteError
from tests.service.chat_gateway.http_edge.edge import Edge
from tests.service.chat_gateway.http_edge.samples import TIME, WRITTEN, agent_config

ASKING = {"validate_only": "true", "comment": "why"}


async def test_a_check_stores_nothing_and_says_what_would_be(edge: Edge) -> None:
    would = agent_config(uid="", etag="")
    edge.peers.answers["CreateAgentConfig"] = config_pb.CreateAgentConfigResponse(agent_config=would)
    answer = await edge.client.post("/v1/agents", json=WRITTEN, params=ASKING)
    assert (answer.status_code, answer.json()["uid"]) == (200, "")
    assert not {"etag", "location"} & set(answer.headers)
    request = edge.peers.asked("CreateAgentConfig")
    assert (request.validate_only, request.comment) == (True, "why")

    edge.peers.answers["GetAgentConfig"] = config_pb.GetAgentConfigResponse(agent_config=agent_config())
    edge.peers.answers["UpdateAgentConfig"] = config_pb.UpdateAgentConfigResponse(agent_config=agent_config(revision=3))
    for method in ("PUT", "PATCH"):
        answer = await edge.client.request(method, "/v1/agents/support", json={"name": "X"}, params=ASKING)
        assert (answer.status_code, answer.json()["revision"]) == (200, 3)
        assert "etag" not in answer.headers
        request = edge.peers.asked("UpdateAgentConfig")
        assert (request.validate_only, request.comment) == (True, "why")


async def test_a_comparison_has_only_the_values_that_are_set(edge: Edge) -> None:
    edge.peers.answers["CompareAgentConfigRevisions"] = config_pb.CompareAgentConfigRevisionsResponse(
        from_revision=1,
        to_revision=3,
        differences=[
            FieldDifference(path="display_name", to_value=Value(string_value="A")),
            FieldDifference(path="model.seed", from_value=Value(number_value=7)),
            FieldDifference(path="parameters.x", from_value=Value(null_value=0), to_value=Value(bool_value=True)),
        ],
    )
    answer = await edge.client.get("/v1/agents/support/compare", params={"from_revision": 1, "to_revision": 3})
    assert answer.json() == {
        "object": "agent.comparison",
        "from_revision": 1,
        "to_revision": 3,
        "differences": [
            {"path": "name", "to": "A"},
            {"path": "model.seed", "from": 7},
            {"path": "parameters.x", "from": None, "to": True},
        ],
    }
    request = edge.peers.asked("CompareAgentConfigRevisions")
    assert (request.project, request.id, request.from_revision, request.to_revision) == ("default", "support", 1, 3)
    await edge.client.get("/v1/agents/support/compare")
    assert edge.peers.asked("CompareAgentConfigRevisions").to_revision == 0
    wrong = await edge.client.get("/v1/agents/support/compare", params={"from_revision": -1})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "from_revision")


async def test_a_deleted_agent_is_listed_when_asked_for_and_brought_back(edge: Edge) -> None:
    deleted = agent_config()
    deleted.delete_time.CopyFrom(TIME)
    edge.peers.answers["ListAgentConfigs"] = config_pb.ListAgentConfigsResponse(agent_configs=[deleted])
    listed = await edge.client.get("/v1/agents", params={"show_deleted": "true"})
    assert listed.json()["data"][0]["delete_time"] == "2026-05-04T03:02:01Z"
    assert edge.peers.asked("ListAgentConfigs").show_deleted
    await edge.client.get("/v1/agents")
    assert not edge.peers.asked("ListAgentConfigs").show_deleted

    edge.peers.answers["UndeleteAgentConfig"] = config_pb.UndeleteAgentConfigResponse(agent_config=agent_config())
    back = await edge.client.post("/v1/agents/support:undelete", json={})
    assert (back.status_code, back.headers["etag"]) == (200, '"e2"')
    assert edge.peers.asked("UndeleteAgentConfig") == config_pb.UndeleteAgentConfigRequest(
        project="default", deleted_id="support"
    )
    await edge.client.post("/v1/agents/support:undelete", json={"uid": "u1", "id": "other"})
    assert edge.peers.asked("UndeleteAgentConfig") == config_pb.UndeleteAgentConfigRequest(
        project="default", deleted_id="support", uid="u1", id="other"
    )
    edge.peers.answers["UndeleteAgentConfig"] = RemoteError(
        "x", code=Code.ALREADY_EXISTS, reason="AGENT_ALREADY_EXISTS"
    )
    assert (await edge.client.post("/v1/agents/support:undelete", json={})).status_code == 409


async def test_providers_and_placeholders_are_told(edge: Edge) -> None:
    provider = provider_pb.Provider(name="local", models=["small"])
    edge.peers.answers["ListProviders"] = provider_pb.ListProvidersResponse(providers=[provider], next_page_token="t")
    assert (await edge.client.get("/v1/providers?page_size=1")).json() == {
        "object": "list",
        "data": [{"object": "provider", "name": "local", "models": ["small"]}],
        "next_page_token": "t",
    }
    template = template_pb.Template(id="t", version="1.0.0", create_time=TIME, placeholders={"names": ["today"]})
    edge.peers.answers["ListTemplates"] = template_pb.ListTemplatesResponse(templates=[template])
    assert (await edge.client.get("/v1/templates")).json()["data"][0]["placeholders"] == {
        "parameters": False,
        "session_metadata": False,
        "names": ["today"],
    }
