"""Two projects on the real system: what is in one is, for the other, as if it had never been."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from access.caller import KEY_SCOPES, USER_SCOPES
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System
from tests.system.methods import METHODS, TRIES, refusal, scope_of, target_of

AGENT = {"template_id": "assistant", "model": {"provider": PROVIDER, "name": MODEL}}
NOWHERE = "nowhere"
"""In place of an id that exists."""
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@dataclass
class World:
    """Two projects with an agent `hello` each; all else is in the first, and its user's where a user owns it."""

    system: System
    operator: httpx.Client
    owner: httpx.Client
    other_project: httpx.Client
    other_user: httpx.Client
    keys: dict[str, str]
    ids: dict[str, str]
    """Of what exists, by kind."""


def client_of(system: System, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=system.http_url, headers=headers, timeout=60, trust_env=False)


def new_project(operator: httpx.Client, prefix: str = "p") -> str:
    name = f"{prefix}{uuid4().hex[:12]}"
    operator.post("/v1/projects", json={"id": name}).raise_for_status()
    return name


def new_key(operator: httpx.Client, project: str, scopes: frozenset[str] = KEY_SCOPES, **fields: Any) -> dict[str, Any]:
    body = {"project": project, "scopes": sorted(scopes), **fields}
    answer = operator.post("/v1/api_keys", json=body).raise_for_status()
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture(scope="module")
def world(guarded_system: System) -> Iterator[World]:
    with guarded_system.client() as operator:
        first, second = new_project(operator), new_project(operator)
        keys = {
            "owner": new_key(operator, first, USER_SCOPES, user_id="ann")["key"],
            "other user": new_key(operator, first, USER_SCOPES, user_id="bob")["key"],
            "other project": new_key(operator, second)["key"],
        }
        ids = {"key": new_key(operator, first, frozenset({"chat"}))["id"]}
        with (
            client_of(guarded_system, new_key(operator, first)["key"]) as admin,
            client_of(guarded_system, keys["owner"]) as owner,
            client_of(guarded_system, keys["other project"]) as other_project,
            client_of(guarded_system, keys["other user"]) as other_user,
        ):
            for client in (admin, other_project):
                client.post("/v1/agents", json={"id": "hello", **AGENT}).raise_for_status()
            ids["agent"], ids["tool server"] = f"a{uuid4().hex[:8]}", f"t{uuid4().hex[:8]}"
            admin.post("/v1/agents", json={"id": ids["agent"], **AGENT}).raise_for_status()
            server = {"id": ids["tool server"], "mcp": {"url": "https://mcp.example/mcp"}}
            admin.post("/v1/tool_servers", json=server).raise_for_status()
            ids["session"] = f"s-{uuid4().hex[:8]}"
            chat = owner.post("/v1/chat/completions", json={"model": "hello", "session_id": ids["session"], **CHAT})
            ids["completion"] = chat.raise_for_status().json()["id"]
            ids["turn"] = ids["completion"].removeprefix("chatcmpl-").partition(".")[0]
            said = {"model": "hello", "input": "Hi"}
            ids["response"] = owner.post("/v1/responses", json=said).raise_for_status().json()["id"]
            items = {"items": [{"role": "user", "content": "Hi"}]}
            ids["conversation"] = owner.post("/v1/conversations", json=items).raise_for_status().json()["id"]
            listed = owner.get(f"/v1/conversations/{ids['conversation']}/items").json()
            ids["item"] = listed["data"][0]["id"]
            yield World(guarded_system, operator, owner, other_project, other_user, keys, ids)


PARAMETERS = {
    "agent_id": "agent",
    "tool_server_id": "tool server",
    "session_id": "session",
    "completion_id": "completion",
    "response_id": "response",
    "conversation_id": "conversation",
    "item_id": "item",
    "key_id": "key",
}
SHARED = {"template_id", "project_id"}
"""Of templates, which are the installation's, and of projects, which are the operator's."""
OF_THE_PROJECT = {"agent", "tool server", "key"}
"""What belongs to no user."""
BODIES: dict[str, Any] = {
    "put /v1/agents/{agent_id}": AGENT,
    "patch /v1/agents/{agent_id}": {"name": "Taken"},
    "post /v1/agents/{agent_id}:rollback": {"revision": 1},
    "put /v1/tool_servers/{tool_server_id}": {"mcp": {"url": "https://taken.example/mcp"}},
    "patch /v1/tool_servers/{tool_server_id}": {"name": "Taken"},
    "patch /v1/sessions/{session_id}": {"metadata": {"a": "taken"}},
    "post /v1/chat/completions/{completion_id}": {"metadata": {"a": "taken"}},
    "post /v1/conversations/{conversation_id}": {"metadata": {"a": "taken"}},
    "post /v1/conversations/{conversation_id}/items": {"items": [{"role": "user", "content": "Hi"}]},
}


def id_routes(world: World) -> Iterator[tuple[str, str, list[str]]]:
    """Every operation whose path names something that belongs to a project, and the kinds of what it names."""
    document = world.owner.get("/docs/openapi.json").json()
    for path, item in document["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        if names and not set(names) & SHARED:
            for method in item:
                yield method, path, [PARAMETERS[name] for name in names]


def answered(client: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
    for _ in range(TRIES):
        if (answer := client.request(method, path, json=body)).status_code != 503:
            break
        time.sleep(0.5)
    return answer


def seen(answer: httpx.Response, ids: dict[str, str]) -> str:
    """What an answer shows, without what differs by the request itself."""
    headers = {name: text for name, text in answer.headers.items() if name not in ("x-request-id", "date")}
    text = f"{answer.status_code} {answer.text} {json.dumps(headers)}"
    for one in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(one, NOWHERE)
    return re.sub(r'"content-length": "\d+"', "", text)


def absent(kind: str) -> str:
    """The id of nothing, in the form of one of this kind."""
    return {
        "completion": "chatcmpl-AAAAAAAAAAAAAAAA.nothing",
        "response": "resp_AAAAAAAAAAAAAAAA.nothing",
        "conversation": "conv_nothing",
        "item": "msg_i0.AAAAAAAAAAAAAAAA.nothing",
        "key": "key_AAAAAAAAAAAAAAAAAAAA",
    }.get(kind, "nothing")


def test_what_another_has_is_answered_for_as_what_never_was(world: World) -> None:
    wrong = []
    for method, path, kinds in id_routes(world):
        route = f"{method} {path}"
        strangers = {"other project": world.other_project, "other user": world.other_user}
        if OF_THE_PROJECT & set(kinds):
            del strangers["other user"]
        real, made_up = path, path
        for name, kind in zip(re.findall(r"{(\w+)}", path), kinds, strict=True):
            real = real.replace(f"{{{name}}}", world.ids[kind])
            made_up = made_up.replace(f"{{{name}}}", absent(kind))
        for who, client in strangers.items():
            body = BODIES.get(route, {} if method == "post" else None)
            there = answered(client, method, real, body)
            nothing = answered(client, method, made_up, body)
            made_up_ids = {kind: absent(kind) for kind in world.ids}
            if there.status_code < 400 or seen(there, world.ids) != seen(nothing, made_up_ids):
                wrong.append((who, route, seen(there, world.ids), seen(nothing, made_up_ids)))
    assert wrong == []


def test_what_was_tried_has_changed_nothing(world: World) -> None:
    """Runs after the test above, which tries to change and to delete everything."""
    owner = world.owner
    assert owner.get(f"/v1/agents/{world.ids['agent']}").json()["name"] == ""
    assert owner.get(f"/v1/tool_servers/{world.ids['tool server']}").json()["mcp"]["url"] == "https://mcp.example/mcp"
    session = owner.get(f"/v1/sessions/{world.ids['session']}").json()
    assert (session["turn_count"], session["metadata"]) == (1, {})
    conversation = world.ids["conversation"]
    assert owner.get(f"/v1/conversations/{conversation}").json()["metadata"] == {}
    assert len(owner.get(f"/v1/conversations/{conversation}/items").json()["data"]) == 1
    for path in (f"/v1/responses/{world.ids['response']}", f"/v1/chat/completions/{world.ids['completion']}"):
        assert owner.get(path).status_code == 200


def test_ids_in_bodies_name_what_is_the_caller_s_only(world: World) -> None:
    say = {"model": "hello", "input": "And?"}
    bodies = (
        ("/v1/responses", say | {"previous_response_id": "response"}),
        ("/v1/responses", say | {"conversation": "conversation"}),
        ("/v1/responses/compact", say | {"previous_response_id": "response"}),
        ("/v1/chat/completions", {"model": "hello", "session_id": "session", "session_must_exist": True, **CHAT}),
        ("/v1/chat/completions", {"model": "agent", **CHAT}),
        ("/v1/chat/completions:preview", {"model": "agent", **CHAT}),
        ("/v1/embeddings", {"model": "agent", "input": "Hi"}),
    )
    for path, body in bodies:
        for who, client in (("other project", world.other_project), ("other user", world.other_user)):
            if who == "other user" and body["model"] == "agent":
                continue
            real = {name: world.ids.get(text, text) if isinstance(text, str) else text for name, text in body.items()}
            made_up = {
                name: absent(text) if isinstance(text, str) and text in world.ids else text
                for name, text in body.items()
            }
            there, nothing = answered(client, "post", path, real), answered(client, "post", path, made_up)
            made_up_ids = {kind: absent(kind) for kind in world.ids}
            assert there.status_code == 404, (path, who, there.text)
            assert seen(there, world.ids) == seen(nothing, made_up_ids), (path, who)


PAGED = ("/v1/agents", "/v1/tool_servers", "/v1/api_keys", "/v1/audit", "/v1/sessions")


def test_page_tokens_and_etags_and_request_ids_count_where_they_were_made(world: World) -> None:
    with client_of(world.system, new_key(world.operator, new_project(world.operator))["key"]) as first:
        second = world.other_project
        for number in range(2):
            first.post("/v1/agents", json={"id": f"a{number}", **AGENT}).raise_for_status()
            first.post("/v1/tool_servers", json={"id": f"t{number}", "mcp": {"url": "https://m.example/"}})
            first.post("/v1/api_keys", json={"scopes": ["chat"]}).raise_for_status()
            first.post("/v1/conversations", json={}).raise_for_status()
        for path in PAGED:
            page = first.get(path, params={"page_size": 1}).raise_for_status().json()
            assert first.get(path, params={"page_size": 1, "page_token": page["next_page_token"]}).status_code == 200
            refused = second.get(path, params={"page_size": 1, "page_token": page["next_page_token"]})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_page_token"), path
        etag = first.get("/v1/agents/a0").headers["etag"]
        second.post("/v1/agents", json={"id": "a0", **AGENT}).raise_for_status()
        assert second.get("/v1/agents/a0", headers={"If-None-Match": etag}).status_code == 200
        taken = second.patch("/v1/agents/a0", json={"name": "X"}, headers={"If-Match": etag})
        assert taken.json()["error"]["code"] == "etag_mismatch"
    repeated = {"Idempotency-Key": uuid4().hex}
    said = {"model": "hello", **CHAT}
    clients = (world.owner, world.other_user, world.other_project)
    ids = {client.post("/v1/chat/completions", json=said, headers=repeated).json()["id"] for client in clients}
    assert len(ids) == len(clients)


def test_a_project_under_the_id_of_one_that_was_deleted_has_nothing_of_it(world: World) -> None:
    """Sessions of no agent, too; also where the deletion was cut off before they were removed."""
    operator, name = world.operator, new_project(world.operator, "gone")
    with client_of(world.system, new_key(operator, name)["key"]) as first:
        items = {"items": [{"role": "user", "content": "of the first project"}]}
        made = first.post("/v1/conversations", json=items).raise_for_status().json()["id"]
        assert len(first.get("/v1/sessions").json()["data"]) == 1
    assert operator.delete(f"/v1/projects/{name}").status_code == 204
    operator.post("/v1/projects", json={"id": name}).raise_for_status()
    with client_of(world.system, new_key(operator, name)["key"]) as second:
        assert second.get("/v1/sessions").json()["data"] == []
        assert second.get(f"/v1/conversations/{made}").status_code == 404
    assert operator.delete(f"/v1/projects/{name}").status_code == 204
    left = {"X-Project-ID": name}
    operator.post("/v1/conversations", json={}, headers=left).raise_for_status()
    assert operator.delete(f"/v1/projects/{name}").json()["error"]["code"] == "project_not_found"
    assert operator.get("/v1/sessions", headers=left).json()["data"] == []


IDS = {
    "id": "",
    "agent_id": "agent",
    "session_id": "session",
    "turn_id": "turn",
    "tool_server_id": "tool server",
    "key_id": "key",
}
OWN_KIND = {
    "AgentConfigService": "agent",
    "ToolServerService": "tool server",
    "AccessService": "key",
    "SessionService": "session",
}
"""What `id` is of, in the requests of a service."""
LISTED = {"ListSessions", "DeleteSessions", "ListInstances", "EvictInstances", "ListAgentConfigs"}
"""Ids narrow what they are about: nothing, where nothing has that id."""
CREATING = re.compile("Create|Complete|Submit|Preview|Templates?$")
NESTED = {
    "UpdateAgentConfig": ("agent_config", "agent", "displayName"),
    "UpdateToolServer": ("tool_server", "tool server", "displayName"),
    "UpdateSession": ("session", "session", "metadata"),
}
"""What has the id in a message, which, and a field to change."""
MORE: dict[str, dict[str, Any]] = {
    "RollbackAgentConfig": {"revision": 1},
    "UndeleteAgentConfig": {"uid": "00000000-0000-4000-8000-000000000000"},
    "CompareAgentConfigRevisions": {"from_revision": 1, "to_revision": 1},
}


def id_fields(method: MethodDescriptor) -> dict[str, str]:
    own = OWN_KIND.get(method.containing_service.name, "")
    fields = method.input_type.fields_by_name
    return {name: kind or own for name, kind in IDS.items() if name in fields and (kind or own)}


def request_of(method: MethodDescriptor, ids: Callable[[str], str]) -> Any:
    fields: dict[str, Any] = {name: ids(kind) for name, kind in id_fields(method).items()}
    if method.name in NESTED:
        field, kind, changed = NESTED[method.name]
        fields |= {field: {"id": ids(kind)}, "update_mask": changed}
    return json_format.ParseDict(
        fields | MORE.get(method.name, {}), message_factory.GetMessageClass(method.input_type)()
    )


BY_ID = [
    (where, method)
    for where, method in METHODS
    if scope_of(method) in KEY_SCOPES
    and (id_fields(method) or method.name in NESTED)
    and method.name not in LISTED
    and not CREATING.search(method.name)
]


def test_every_method_that_changes_something_by_its_id_is_tried() -> None:
    assert {method.name for _, method in METHODS if method.name.startswith("Update")} == set(NESTED)
    assert len(BY_ID) > 20


@pytest.mark.parametrize("number", range(len(BY_ID)), ids=[method.full_name for _, method in BY_ID])
def test_an_rpc_by_id_knows_nothing_of_another_project_s(world: World, number: int) -> None:
    where, method = BY_ID[number]
    kinds = {NESTED[method.name][1]} if method.name in NESTED else set(id_fields(method).values())
    strangers = ["other project"] if OF_THE_PROJECT & kinds else ["other project", "other user"]
    requests = [request_of(method, world.ids.__getitem__), request_of(method, absent)]
    with grpc.insecure_channel(target_of(world.system, where)) as channel:
        for who in strangers:
            reasons = [refusal(channel, method, request, world.keys[who]) for request in requests]
            assert reasons[0] == reasons[1], who
            assert reasons[0].endswith("NOT_FOUND"), who
