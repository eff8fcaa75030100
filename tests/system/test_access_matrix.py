"""Every RPC of every service and every HTTP route, with every kind of credentials, on the real system.

The methods come from the services' descriptors and the routes from the OpenAPI document: a new one is in the matrix
without anybody's doing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import grpc
import httpx
import pytest
from a2a.types import a2a_pb2
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from access.api_key import new_api_key
from access.authenticator import peer_credential
from access.caller import (
    AGENTS_READ,
    AGENTS_WRITE,
    IMPLIED,
    KEY_SCOPES,
    OPERATOR,
    SERVICE,
    SESSIONS_READ,
    TOOLS_WRITE,
    USER_SCOPES,
)
from chat_gateway.a2a.calls import SCOPES as A2A_SCOPES
from chat_gateway.http_edge.wire.auth import ANY_CREDENTIALS
from parley.access.v1 import rule_pb2
from tests.servers.system import System
from tests.system.methods import METHODS, TRIES, UNAVAILABLE, refusal, scope_of, target_of

KINDS = ("none", "garbage", "unknown", "other project", "missing scope", "revoked", "expired", "other user", "right")
UNAUTHENTICATED = {"none", "garbage", "unknown", "revoked", "expired"}
DENIED = {"UNAUTHENTICATED", "SCOPE_MISSING", "PROJECT_DENIED", "USER_DENIED"}
AGENT = {"name": "X", "template_id": "assistant", "model": {"provider": "mock", "name": "mock-1"}}
TOOL_SERVER = {"id": "xtool_server_idx", "mcp": {"url": "https://mcp.example/mcp"}}
CHAT = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "store": False}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/v1/chat/completions"): CHAT,
    ("post", "/v1/chat/completions:preview"): CHAT,
    ("post", "/v1/chat/completions/{completion_id}"): {"metadata": {}},
    ("post", "/v1/conversations"): {},
    ("post", "/v1/conversations/{conversation_id}"): {"metadata": {}},
    ("post", "/v1/conversations/{conversation_id}/items"): {"items": [{"role": "user", "content": "Hi"}]},
    ("post", "/v1/responses"): {"model": "hello", "input": "Hi", "store": False},
    ("post", "/v1/responses/compact"): {"model": "hello", "input": "Hi"},
    ("post", "/v1/embeddings"): {"model": "hello", "input": "Hi"},
    ("post", "/v1/agents"): AGENT,
    ("put", "/v1/agents/{agent_id}"): AGENT,
    ("patch", "/v1/agents/{agent_id}"): {"name": "X"},
    ("post", "/v1/agents/{agent_id}:rollback"): {"revision": 1},
    ("post", "/v1/agents/{agent_id}:undelete"): {},
    ("post", "/v1/tool_servers"): TOOL_SERVER,
    ("put", "/v1/tool_servers/{tool_server_id}"): TOOL_SERVER,
    ("patch", "/v1/tool_servers/{tool_server_id}"): {"name": "X"},
    ("patch", "/v1/sessions/{session_id}"): {"metadata": {"a": "b"}},
    ("post", "/v1/sessions/{session_id}:fork"): {},
    ("post", "/v1/sessions:purge"): {"agent_id": "nothing"},
    ("post", "/v1/users:export"): {"user_id": "bob"},
    ("post", "/v1/users:erase"): {"user_id": "bob"},
    ("post", "/v1/projects"): {"id": "Not an id"},
    ("post", "/v1/api_keys"): {"scopes": ["chat"]},
    ("post", "/v1/api_keys/{key_id}:rotate"): {},
    ("post", "/v1/instances:evict"): {},
}


@dataclass
class Guarded:
    """The system with two projects, and keys of every kind."""

    system: System
    client: httpx.Client
    keys: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, scopes: frozenset[str], project: str = "acme", **fields: Any) -> str:
        body = {"project": project, "scopes": sorted(scopes), "display_name": name} | fields
        answer = self.client.post("/v1/api_keys", json=body)
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["key"]
        self.keys[name] = key
        return key

    def credential(self, kind: str, scope: str) -> str | None:
        """What a caller of this kind shows where this scope is needed."""
        match kind:
            case "none":
                return None
            case "garbage":
                return "parley_sk_garbage"
            case "unknown":
                return new_api_key()
            case "missing scope":
                return self.keys.get(f"without {scope}", self.keys["everything"])
            case "right" if scope == OPERATOR:
                return self.system.operator_key
            case "right" if scope == SERVICE:
                return peer_credential(self.system.operator_key, "chat_gateway")
            case "right":
                return self.keys["everything"]
            case _:
                return self.keys[kind]

    def expected(self, kind: str, scope: str, *, names_project: bool, names_user: bool) -> str:
        """The reason for which the call is refused; "" for none."""
        if kind in UNAUTHENTICATED:
            return "UNAUTHENTICATED"
        if kind == "right" or scope == ANY_CREDENTIALS:
            return ""
        if kind == "missing scope" or scope in (OPERATOR, SERVICE):
            return "SCOPE_MISSING"
        if kind == "other project":
            return "PROJECT_DENIED" if names_project else ""
        if scope not in USER_SCOPES:
            return "SCOPE_MISSING"
        return "USER_DENIED" if names_user else ""


@pytest.fixture(scope="module")
def guarded(guarded_system: System) -> Iterator[Guarded]:
    with guarded_system.client() as client:
        world = Guarded(guarded_system, client)
        for project in ("acme", "other"):
            assert client.post("/v1/projects", json={"id": project}).status_code == 201
        world.make("everything", KEY_SCOPES)
        world.make("other project", KEY_SCOPES, "other")
        world.make("other user", USER_SCOPES, user_id="ann")
        for scope in KEY_SCOPES:
            implying = {other for other, implied in IMPLIED.items() if scope in implied}
            world.make(f"without {scope}", KEY_SCOPES - {scope} - implying)
        world.make("without chat or sessions:read", KEY_SCOPES - {"chat", SESSIONS_READ, "sessions:admin"})
        world.make("revoked", KEY_SCOPES)
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
        world.make("expired", KEY_SCOPES, expire_time=soon)
        [revoked] = [
            key
            for key in client.get("/v1/api_keys", headers={"X-Project-ID": "acme"}).json()["data"]
            if key["display_name"] == "revoked"
        ]
        assert client.delete(f"/v1/api_keys/{revoked['id']}", headers={"X-Project-ID": "acme"}).status_code == 204
        wait_until_refused(world, "revoked", "expired")
        yield world


def wait_until_refused(world: Guarded, *kinds: str) -> None:
    """Wait until every service has heard that keys of these kinds count no more."""
    asked = {where: method for where, method in METHODS if not method.server_streaming and scope_of(method)}
    deadline = time.monotonic() + 60
    for where, method in asked.items():
        request = message_factory.GetMessageClass(method.input_type)()
        with grpc.insecure_channel(target_of(world.system, where)) as channel:
            for kind in kinds:
                while refusal(channel, method, request, world.keys[kind]) != "UNAUTHENTICATED":
                    assert time.monotonic() < deadline, f"{where} goes on with a key that is {kind}"
                    time.sleep(0.05)


def named(message: Any, path: str, value: str) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, name, value)


@pytest.mark.parametrize("number", range(len(METHODS)), ids=[method.full_name for _, method in METHODS])
def test_an_rpc_with_every_kind_of_credentials(guarded: Guarded, number: int) -> None:
    where, method = METHODS[number]
    rule = method.GetOptions().Extensions[rule_pb2.rule]
    system = guarded.system
    if where == "gateway":
        assert rule.scope != SERVICE  # a gateway takes calls of no service
    with grpc.insecure_channel(target_of(system, where)) as channel:
        for kind in KINDS:
            request = message_factory.GetMessageClass(method.input_type)()
            if kind == "other project" and rule.project:
                named(request, rule.project, "acme")
            if kind == "other user" and rule.user:
                named(request, rule.user, "bob")
            if method.name == "CheckApiKey":
                named(request, "key", guarded.keys["everything"])  # its own answer may be UNAUTHENTICATED, too
            expected = guarded.expected(kind, rule.scope, names_project=bool(rule.project), names_user=bool(rule.user))
            # A stream that is not refused may have nothing to say.
            patience = 30.0 if expected else 1.0
            reason = refusal(channel, method, request, guarded.credential(kind, rule.scope), patience)
            assert reason == expected if expected else reason not in DENIED, f"{kind}: {reason}"
            assert reason not in ("INTERNAL", "UNKNOWN"), kind


def operations(system: System) -> dict[tuple[str, str], Any]:
    with httpx.Client(base_url=system.http_url, timeout=30, trust_env=False) as stranger:
        document = stranger.get("/docs/openapi.json").json()
    return {(method, path): operation for path, item in document["paths"].items() for method, operation in item.items()}


def answered(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask again where a part can't answer for a moment, as callers do: the machine may stand still."""
    for _ in range(TRIES):
        if (answer := ask()).status_code != 503:
            break
        time.sleep(0.5)
    return answer


def test_every_route_with_every_kind_of_credentials(guarded: Guarded) -> None:
    routes = operations(guarded.system)
    assert {route for route, operation in routes.items() if "requestBody" in operation} == set(BODIES)
    wrong = []
    with httpx.Client(base_url=guarded.system.http_url, timeout=60, trust_env=False) as client:
        for (method, path), operation in routes.items():
            scope, or_scope = operation["x-parley-scope"], operation.get("x-parley-or-scope", "")
            assert operation["security"] == ([{"api_key": []}] if scope else [])
            headers = {parameter["name"] for parameter in operation.get("parameters", [])}
            for kind in KINDS:
                sent = {}
                credential = guarded.credential(kind, scope)
                if kind == "missing scope" and or_scope:
                    credential = guarded.keys[f"without {scope} or {or_scope}"]
                if credential is not None:
                    sent["Authorization"] = f"Bearer {credential}"
                if kind == "other project":
                    sent["X-Project-ID"] = "acme"
                if kind == "other user":
                    sent["X-User-ID"] = "bob"
                url = path.replace("{", "x").replace("}", "x")
                body = BODIES.get((method, path))
                answer = answered(partial(client.request, method, url, headers=sent, json=body))
                expected = (
                    ""
                    if not scope
                    else guarded.expected(
                        kind, scope, names_project="X-Project-ID" in headers, names_user="X-User-ID" in headers
                    )
                )
                expected = {"UNAUTHENTICATED": "invalid_api_key"}.get(expected, expected.lower())
                code = answer.json().get("error", {}).get("code", "") if answer.status_code >= 400 else ""
                status = {"": None, "invalid_api_key": 401}.get(expected, 403)
                fits = (
                    answer.status_code == status and code == expected
                    if status
                    else (answer.status_code not in (401, 403) and answer.status_code < 500)
                )
                if not fits:
                    wrong.append((method, path, kind, answer.status_code, code, expected))
    assert wrong == []


def test_the_routes_need_what_they_are_meant_to(guarded: Guarded) -> None:
    """The table of scopes, by hand: the matrix above goes by what the routes say of themselves."""
    routes = operations(guarded.system)
    scopes = {route: operation["x-parley-scope"] for route, operation in routes.items()}
    read_by_id = {
        ("get", "/v1/responses/{response_id}"),
        ("get", "/v1/responses/{response_id}/input_items"),
        ("get", "/v1/chat/completions/{completion_id}"),
        ("get", "/v1/chat/completions/{completion_id}/messages"),
        ("get", "/v1/chat/completions/{completion_id}/events"),
    }
    others = {route: operation.get("x-parley-or-scope") for route, operation in routes.items()}
    assert {route: scope for route, scope in others.items() if scope} == dict.fromkeys(read_by_id, SESSIONS_READ)
    open_paths = {path for (_, path), scope in scopes.items() if scope == ""}
    assert open_paths == {"/livez", "/health", "/readyz", "/startedz", "/v1/auth"}
    assert {path for (_, path), scope in scopes.items() if scope == OPERATOR} == {
        "/metrics",
        "/v1/figures",
        "/v1/replicas",
        "/v1/projects",
        "/v1/projects/{project_id}",
    }
    for (method, path), scope in scopes.items():
        collection = path.split("/")[2].split(":")[0] if path.startswith("/v1/") else path
        reading = method == "get" or path == "/v1/users:export"
        stored = SESSIONS_READ if reading else "sessions:admin"
        of_chat = {("post", "/v1/chat/completions"), ("post", "/v1/responses"), *read_by_id}
        of_chat.add(("post", "/v1/responses/compact"))
        of_chats = path.endswith(("/events", ":preview", ":cancel", "/cancel")) or (method, path) in of_chat
        expected = {
            "chat": "chat" if of_chats else stored,
            "responses": "chat" if of_chats else stored,
            "conversations": stored,
            "embeddings": "chat",
            "agents": AGENTS_READ if reading else AGENTS_WRITE,
            "tool_servers": AGENTS_READ if reading else TOOLS_WRITE,
            "templates": AGENTS_READ,
            "providers": AGENTS_READ,
            "models": AGENTS_READ,
            "sessions": SESSIONS_READ if reading else "sessions:admin",
            "users": SESSIONS_READ if reading else "sessions:admin",
            "instances": "runtime:admin",
            "api_keys": "keys:admin",
            "auth": "",
            "caller": ANY_CREDENTIALS,
            "audit": "audit:read",
        }
        assert scope == expected.get(collection, scope), (method, path)
        assert collection in expected or scope in ("", OPERATOR), (method, path)


def test_every_operation_of_a2a_with_every_kind_of_credentials(guarded: Guarded) -> None:
    """A2A's proto has no place for our rules: the table of scopes, over its three bindings."""
    service = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
    assert {method.name for method in service.methods} == set(A2A_SCOPES)
    wrong = []
    with (
        httpx.Client(base_url=guarded.system.http_url, timeout=60, trust_env=False) as client,
        grpc.insecure_channel(guarded.system.grpc_target) as channel,
    ):
        for method, kind in product(service.methods, KINDS):
            scope = A2A_SCOPES[method.name]
            expected = guarded.expected(kind, scope, names_project=True, names_user=True)
            sent = {"a2a-version": "1.0"}
            if (credential := guarded.credential(kind, scope)) is not None:
                sent["authorization"] = f"Bearer {credential}"
            sent |= {"other project": {"x-project-id": "acme"}, "other user": {"x-user-id": "bob"}}.get(kind, {})
            seen = [grpc_reason(channel, method, sent)]
            body = {"jsonrpc": "2.0", "id": 1, "method": method.name}
            answers = [answered(partial(client.post, "/a2a/hello", json=body, headers=sent))]
            for verb, path in a2a_paths(method):
                answers.append(answered(partial(client.request, verb, f"/a2a/hello{path}", headers=sent)))
            for answer in answers:
                refused = answer.json().get("error", {})
                details = refused.get("details", refused.get("data", []))
                seen.append(details[0].get("reason", "") if details else "")
                wrong += [(method.name, kind, answer.status_code)] if answer.status_code >= 500 else []
            if any(reason != expected if expected else reason in DENIED for reason in seen):
                wrong.append((method.name, kind, seen))
        for kind in KINDS:
            credential = guarded.credential(kind, "chat")
            sent = {} if credential is None else {"authorization": f"Bearer {credential}"}
            answer = answered(partial(client.get, "/a2a/hello/.well-known/agent-card.json", headers=sent))
            refused = answer.json().get("error", {}).get("details", [{}])[0].get("reason", "")
            expected = guarded.expected(kind, "chat", names_project=False, names_user=False)
            if refused != expected and (expected or refused in DENIED):
                wrong.append(("card", kind, refused))
    assert wrong == []


def grpc_reason(channel: grpc.Channel, method: MethodDescriptor, metadata: dict[str, str]) -> str:
    for _ in range(TRIES):
        if (reason := _grpc_reason(channel, method, metadata)) not in UNAVAILABLE:
            break
        time.sleep(0.5)
    return reason


def _grpc_reason(channel: grpc.Channel, method: MethodDescriptor, metadata: dict[str, str]) -> str:
    request = message_factory.GetMessageClass(method.input_type)()
    answer = message_factory.GetMessageClass(method.output_type)
    kind = "unary_stream" if method.server_streaming else "unary_unary"
    call = getattr(channel, kind)(
        f"/lf.a2a.v1.A2AService/{method.name}", type(request).SerializeToString, answer.FromString
    )
    try:
        called = call(request, timeout=30, metadata=tuple(metadata.items()))
        _ = list(called) if method.server_streaming else called
    except grpc.RpcError as error:
        for one in rpc_status.from_call(error).details:  # type: ignore[arg-type, union-attr]
            info = error_details_pb2.ErrorInfo()
            if one.Unpack(info):
                return str(info.reason)
        return error.code().name  # type: ignore[attr-defined, no-any-return]
    return ""


def a2a_paths(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern") or ""
    yield verb.upper(), getattr(rule, verb).replace("{id=*}", "x.y").replace("{task_id=*}", "x.y")
