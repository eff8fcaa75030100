"""Every reason that an error can have, over HTTP and over gRPC: the named error, and nothing left behind."""

import ast
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from parley.chat.v1 import chat_service_pb2
from parley.config.v1 import provider_service_pb2
from parley.errors.v1 import reason_pb2
from parley.session.v1 import message_pb2
from parley_client import ParleyError
from tests.servers.mock_model import MODEL, Behaviour
from tests.servers.ports import free_port
from tests.servers.system import PROVIDER, OpenSystem, System

ROOT = Path(__file__).resolve().parents[2]
AGENT = "support"


@pytest.fixture(scope="module")
def system(open_system: OpenSystem) -> Iterator[System]:
    """One gateway with room for one turn, a provider with short bounds, and one that is not there."""
    with open_system("bad-input", gateways=0) as started:
        providers = {
            PROVIDER: {"base_url": started.model.url, "max_retries": 0, "breaker_failures": 0},
            "down": {"base_url": f"http://127.0.0.1:{free_port()}/v1"},
            "hurried": {"base_url": started.model.url, "first_token_timeout": 0.5, "answer_timeout": 0.5},
        }
        env = {"PARLEY_GATEWAY_MAX_RUNNING_TURNS": "1", "PARLEY_GATEWAY_MAX_QUEUED_TURNS": "0"}
        started.new_gateway({"PARLEY_PROVIDERS": json.dumps(providers), **env}).start()
        started.create_agent(AGENT)
        started.create_agent("other")
        started.create_agent("down", model={"provider": "down", "name": "m"})
        started.create_agent("hurried", model={"provider": "hurried", "name": "m"})
        _publish_elsewhere(started, "not-configured")
        started.create_agent("nowhere", model={"provider": "not-configured", "name": "m"})
        started.create_agent("open", instructions="For {{customer}}.", metadata_keys=["customer"])
        yield started


def _publish_elsewhere(system: System, provider: str) -> None:
    """Says that another gateway has a provider, as while providers are renamed by a rolling upgrade."""
    request = provider_service_pb2.PublishProvidersRequest(gateway_id=str(uuid4()))
    request.providers.add(name=provider)
    with system.grpc_client() as client:
        client.providers.PublishProviders(request, timeout=30)


@dataclass(frozen=True)
class Chat:
    """A chat completion that fails."""

    reason: str
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    behaviour: Behaviour | None = None
    model_calls: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    code: str = ""
    """The error's code over HTTP where it is not the reason: what the provider called it."""


SAYS = [{"role": "user", "content": "hi"}]
CHATS = {
    "unknown agent": Chat("AGENT_NOT_FOUND", 404, {"model": "nobody"}),
    "a model that can't be an agent": Chat("MODEL_NOT_FOUND", 404, {"model": "gpt-4.1"}),
    "a model that can't be an agent, and more": Chat("INVALID_FIELD", 400, {"model": "gpt-4.1", "temperature": 9}),
    "unknown revision": Chat("REVISION_NOT_FOUND", 404, {"model": f"{AGENT}@7"}),
    "no messages": Chat("INVALID_FIELD", 400, {"messages": []}),
    "too many messages": Chat("INVALID_FIELD", 400, {"messages": [{"role": "user", "content": "x"}] * 1001}),
    "a role that does not exist": Chat("INVALID_FIELD", 400, {"messages": [{"role": "oracle", "content": "x"}]}),
    "messages of the wrong kind": Chat("MALFORMED_BODY", 400, {"messages": "hi"}),
    "a session id that can't be one": Chat("INVALID_FIELD", 400, {"session_id": "a b"}),
    "two choices": Chat("INVALID_FIELD", 400, {"n": 2}),
    "broken JSON": Chat("MALFORMED_BODY", 400, content=b'{"model": "support", '),
    "not text": Chat("MALFORMED_BODY", 400, content=b"\xff\xfe"),
    "a message of 5 MB": Chat("MESSAGE_TOO_LARGE", 413, {"messages": [{"role": "user", "content": "x" * 5_000_000}]}),
    "messages over 768 KiB": Chat("MESSAGE_TOO_LARGE", 413, {"messages": [{"role": "user", "content": "x" * 800_000}]}),
    "a session that must exist": Chat("SESSION_NOT_FOUND", 404, {"session_must_exist": True}),
    "an open placeholder": Chat("PLACEHOLDER_MISSING", 400, {"model": "open"}),
    "a provider that is not configured": Chat("PROVIDER_UNKNOWN", 400, {"model": "nowhere"}),
    "a provider that is down": Chat("PROVIDER_UNAVAILABLE", 503, {"model": "down"}),
    "a provider that answers 500": Chat("PROVIDER_UNAVAILABLE", 503, behaviour=Behaviour(status=500), model_calls=1),
    "a provider that answers 400": Chat(
        "PROVIDER_REJECTED", 400, behaviour=Behaviour(status=400), model_calls=1, code="mock"
    ),
    "a provider that answers 401": Chat("PROVIDER_MISCONFIGURED", 502, behaviour=Behaviour(status=401), model_calls=1),
    "a provider that answers 429": Chat("PROVIDER_RATE_LIMITED", 429, behaviour=Behaviour(status=429), model_calls=1),
    "a provider that times out": Chat(
        "PROVIDER_TIMEOUT", 504, {"model": "hurried"}, behaviour=Behaviour(hold=True), model_calls=1
    ),
    "a provider that answers garbage": Chat(
        "PROVIDER_BAD_RESPONSE", 500, behaviour=Behaviour(body=b"<html>"), model_calls=1
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CHATS.values(), ids=CHATS.keys())
def test_a_chat_that_fails_is_named_and_leaves_nothing(system: System, case: Chat, stream: bool) -> None:
    session = f"bad-{uuid4().hex}"
    system.model.reset()
    if case.behaviour is not None:
        system.model.script(case.behaviour)
    body = {"model": AGENT, "messages": SAYS, "session_id": session, "stream": stream, **case.body}
    content = case.content if case.content is not None else json.dumps(body).encode()
    with system.client() as client:
        response = client.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
        error = _streamed_error(response) if response.status_code == 200 else response.json()["error"]
        assert error["code"] == (case.code or case.reason.lower())
        assert set(error) - {"violations"} == {"message", "type", "param", "code"}
        if response.status_code != 200:
            assert response.status_code == case.status
        assert len(system.model.requests) == case.model_calls
        assert client.get(f"/v1/sessions/{session}").status_code == 404
        # The lease is given back, too: the session is free for a turn at once.
        again = system.chat(AGENT, "hi", session_id=session, busy="reject", timeout=30) if " " not in session else None
    assert again is not None
    assert again.status_code == 200
    assert again.headers["X-Session-Created"] == "true"


def _streamed_error(response: httpx.Response) -> dict[str, Any]:
    frames = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert "[DONE]" not in frames
    error: dict[str, Any] = json.loads(frames[-1])["error"]
    return error


GRPC_STATUS = {
    400: {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION},
    413: {grpc.StatusCode.INVALID_ARGUMENT},
    404: {grpc.StatusCode.NOT_FOUND},
    429: {grpc.StatusCode.RESOURCE_EXHAUSTED},
    502: {grpc.StatusCode.INTERNAL},
    500: {grpc.StatusCode.INTERNAL},
    503: {grpc.StatusCode.UNAVAILABLE},
    504: {grpc.StatusCode.DEADLINE_EXCEEDED},
}
OVER_GRPC = [
    name
    for name, case in CHATS.items()
    if case.content is None and not {"n"} & case.body.keys() and case.body.get("messages") != "hi"
    if case.reason != "MODEL_NOT_FOUND"  # over gRPC it is the agent's id, and INVALID_FIELD
]
ROLES = {"user": message_pb2.ROLE_USER, "oracle": 99}


@pytest.mark.parametrize("name", OVER_GRPC)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_the_same_over_grpc(system: System, name: str, stream: bool) -> None:
    case = CHATS[name]
    system.model.reset()
    if case.behaviour is not None:
        system.model.script(case.behaviour)
    agent, _, revision = str(case.body.get("model", AGENT)).partition("@")
    said = case.body.get("messages", SAYS)
    asked = chat_service_pb2.TurnInput(
        agent_id=agent,
        agent_revision=int(revision or 0),
        messages=[message_pb2.Message(role=ROLES[m["role"]], content=m["content"]) for m in said],  # type: ignore[arg-type]
        session_id=case.body.get("session_id", "over-grpc"),
        session_must_exist=case.body.get("session_must_exist", False),
    )
    with system.grpc_client() as client, pytest.raises(ParleyError) as caught:
        if stream:
            list(client.chat.StreamComplete(chat_service_pb2.StreamCompleteRequest(input=asked), timeout=30))
        else:
            client.chat.Complete(chat_service_pb2.CompleteRequest(input=asked), timeout=30)
    assert caught.value.reason == case.reason
    assert caught.value.code in GRPC_STATUS[case.status]
    with system.client() as client:
        assert client.get("/v1/sessions/over-grpc").status_code == 404


@dataclass(frozen=True)
class Admin:
    """A request of the admin API that fails."""

    reason: str
    status: int
    method: str
    path: str
    body: Any = None
    param: str | None = None


MODEL_FIELDS = {"provider": PROVIDER, "name": MODEL}
ADMIN = {
    "unknown template": Admin(
        "TEMPLATE_NOT_FOUND", 400, "POST", "/v1/agents", {"id": "x", "template_id": "oracle", "model": MODEL_FIELDS}
    ),
    "parameters that break the schema": Admin(
        "PARAMETERS_INVALID", 400, "POST", "/v1/agents", {"id": "x", "parameters": {"a": {}}, "model": MODEL_FIELDS}
    ),
    "no model": Admin("INVALID_FIELD", 400, "POST", "/v1/agents", {"id": "x"}),
    "a bad id": Admin("INVALID_FIELD", 400, "POST", "/v1/agents", {"id": "X!", "model": MODEL_FIELDS}, "id"),
    "an unknown field": Admin(
        "MALFORMED_BODY", 400, "POST", "/v1/agents", {"id": "x", "modle": 1, "model": MODEL_FIELDS}
    ),
    "an id that is taken": Admin(
        "AGENT_ALREADY_EXISTS", 409, "POST", "/v1/agents", {"id": AGENT, "model": MODEL_FIELDS}
    ),
    "a stale etag": Admin("ETAG_MISMATCH", 409, "PATCH", f"/v1/agents/{AGENT}", {"name": "x", "etag": "stale"}),
    "a model that can't be an agent": Admin("MODEL_NOT_FOUND", 404, "GET", "/v1/models/gpt-4.1", None, "model"),
    "an agent that is not there": Admin("AGENT_NOT_FOUND", 404, "GET", "/v1/agents/nobody"),
    "a deletion of nothing": Admin("AGENT_NOT_FOUND", 404, "DELETE", "/v1/agents/nobody"),
    "a rollback to nowhere": Admin("REVISION_NOT_FOUND", 404, "POST", f"/v1/agents/{AGENT}:rollback", {"revision": 99}),
    "a wrong page token": Admin("INVALID_PAGE_TOKEN", 400, "GET", "/v1/agents?page_token=garbage"),
    "a wrong page token of sessions": Admin("INVALID_PAGE_TOKEN", 400, "GET", "/v1/sessions?page_token=garbage"),
    "a session that is not there": Admin("SESSION_NOT_FOUND", 404, "GET", "/v1/sessions/none"),
    "broken JSON": Admin("MALFORMED_BODY", 400, "POST", "/v1/agents", b"{"),
    "a route that is not there": Admin("ROUTE_NOT_FOUND", 404, "GET", "/v1/oracle"),
    "a purge of everything": Admin("INVALID_FIELD", 400, "POST", "/v1/sessions:purge", {}),
}


@pytest.mark.parametrize("case", ADMIN.values(), ids=ADMIN.keys())
def test_an_admin_request_that_fails_is_named_and_leaves_nothing(system: System, case: Admin) -> None:
    with system.client() as client:
        before = client.get("/v1/agents").json()
        content = case.body if isinstance(case.body, bytes) or case.body is None else json.dumps(case.body).encode()
        response = client.request(case.method, case.path, content=content, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["error"]["code"]) == (case.status, case.reason.lower())
        if case.param is not None:
            assert response.json()["error"]["param"] == case.param
        assert client.get("/v1/agents").json() == before


def _holding(system: System, session: str, work: Callable[[], None]) -> None:
    """Does `work` while a turn of `session` is running, and lets that turn finish."""
    system.model.reset()
    system.model.hold_again()
    system.model.script(Behaviour(hold=True))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(system.chat, AGENT, "slow", session_id=session)
        try:
            system.model.wait_for_requests(1)
            work()
        finally:
            system.model.release()
        assert running.result().status_code == 200


def test_more_turns_than_fit_are_refused_with_a_time_to_retry(system: System) -> None:
    def refused() -> None:
        response = system.chat("other", "hi")
        assert (response.status_code, response.json()["error"]["code"]) == (429, "turn_queue_full")
        assert int(response.headers["Retry-After"]) >= 1
        assert response.headers["x-should-retry"] == "true"

    _holding(system, "full", refused)
    assert len(system.model.requests) == 1


def test_a_session_of_another_agent_is_refused(system: System) -> None:
    system.model.reset()
    system.chat(AGENT, "hi", session_id="mine")
    refused = system.chat("other", "hi", session_id="mine")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "session_agent_mismatch")
    assert len(system.model.requests) == 1


def test_a_repeated_key_with_another_body_is_refused(system: System) -> None:
    system.model.reset()
    body = {"model": AGENT, "session_id": "keys", "messages": SAYS}
    with system.client() as client:
        client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "k"})
        other = client.post("/v1/chat/completions", json={**body, "seed": 1}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"


TURNS = "tests/contract/session_svc/test_turns.py"
# Reasons whose cause lies deeper than a request, with the test that shows each.
ELSEWHERE = {
    "SESSION_BUSY": "tests/system/test_conversation.py::test_a_busy_session_is_refused_when_the_caller_says_so",
    "PEER_UNAVAILABLE": "tests/system/test_restarts.py::"
    "test_without_sessions_a_chat_fails_fast_and_leaves_nothing_half_done",
    "PROJECT_NOT_FOUND": "tests/service/config_svc/test_errors.py::test_each_reason",
    "PROJECT_ALREADY_EXISTS": "tests/service/config_svc/test_errors.py::test_each_reason",
    "EGRESS_DENIED": "tests/unit/chat_gateway/tools/test_mcp.py::"
    "test_what_the_operator_does_not_allow_is_denied_by_name",
    "TOOL_SERVER_UNAVAILABLE": "tests/unit/chat_gateway/test_tool_loop_ends.py::"
    "test_a_required_server_that_is_unavailable_fails_the_turn",
    "TOOL_CALLS_REPEATED": "tests/unit/chat_gateway/test_tool_loop.py::"
    "test_the_same_call_three_times_running_ends_the_turn",
    "AGENT_DEPTH_EXCEEDED": "tests/unit/chat_gateway/test_agents_as_tools.py::"
    "test_agents_that_call_each_other_in_a_circle_end_at_the_depth",
    "APPROVAL_UNKNOWN": "tests/unit/chat_gateway/test_approvals.py::test_only_a_call_that_waits_can_be_approved",
    "TOOL_SERVER_NOT_FOUND": "tests/service/config_svc/test_errors.py::test_each_reason",
    "TOOL_SERVER_ALREADY_EXISTS": "tests/service/config_svc/test_errors.py::test_each_reason",
    "TOOL_SERVER_IN_USE": "tests/service/config_svc/test_errors.py::test_each_reason",
    "PROJECT_IN_USE": "tests/service/config_svc/test_errors.py::test_each_reason",
    "API_KEY_NOT_FOUND": "tests/service/config_svc/test_errors.py::test_each_reason",
    "DRAINING": "tests/unit/chat_gateway/test_scheduler.py::test_draining_refuses_new_turns_and_waits_for_the_rest",
    "DEADLINE_EXCEEDED": "tests/unit/chat_gateway/test_turn.py::test_a_turn_ends_at_its_bound_and_names_it",
    "LEASE_LOST": f"{TURNS}::test_a_holder_that_was_paused_is_fenced_off_by_the_next",
    "TURN_INTERRUPTED": "tests/contract/session_svc/test_busy_sessions.py::test_interrupt_takes_the_lease_at_once",
    "TURN_CANCELLED": "tests/contract/session_svc/test_queued_turns.py::"
    "test_a_running_turn_is_ended_by_whoever_runs_it",
    "TURN_GIVEN_UP": "tests/contract/session_svc/test_claims.py::"
    "test_a_turn_that_loses_one_gateway_after_the_other_is_given_up",
    "TURN_HANDED_OVER": "tests/unit/chat_gateway/test_tool_loop_ends.py::test_a_lost_lease_cancels_the_calls",
    "SESSION_FULL": "tests/contract/session_svc/test_full_sessions.py::test_a_full_session_refuses_where_it_is_told_to",
    "TURN_DAMAGED": "tests/service/session_svc/test_stored_turns.py::test_a_damaged_turn_is_named_and_frees_its_lease",
    "AGENT_DELETED": f"{TURNS}::test_no_turn_starts_on_a_fenced_agent_and_nothing_is_left_of_it",
    "SESSION_ALREADY_EXISTS": "tests/contract/session_svc/test_sessions.py::test_an_id_is_taken_until_its_session_ends",
    "FIELD_NOT_OVERRIDABLE": "tests/system/test_apply.py::"
    "test_numbers_and_what_requests_get_come_back_as_files_have_them",
    "UNSUPPORTED_FIELD": "tests/unit/chat_gateway/test_openai_request.py::"
    "test_other_fields_go_on_or_are_refused_by_name",
    "TURN_NOT_FOUND": "tests/system/test_openai_client.py::test_it_reads_lists_changes_and_deletes_stored_completions",
    "TURN_NOT_LAST": "tests/contract/session_svc/test_sessions.py::"
    "test_the_last_turn_can_be_deleted_with_what_is_remembered_of_its_request",
    "EMBEDDINGS_UNSUPPORTED": "tests/unit/chat_gateway/test_provider_embeddings.py::"
    "test_a_kind_without_embeddings_is_named",
    "CANCELLED": "tests/service/chat_gateway/http_edge/test_connections.py::"
    "test_a_client_that_does_not_read_is_cut_off_and_its_turn_cancelled",
    "TEMPLATE_CONFLICT": "tests/service/config_svc/test_errors.py::test_each_reason",
    "CURSOR_TOO_OLD": "tests/contract/config_svc/test_change_feed.py::test_a_cursor_before_what_is_kept_is_too_old",
    "WATCHER_TOO_SLOW": "tests/service/config_svc/test_watch.py::test_a_slow_watcher_is_cut_off",
    "INTERNAL": "tests/unit/servicekit/test_interceptors.py::test_an_unexpected_exception_leaks_no_text_and_is_logged",
    "RATE_LIMITED": "tests/system/test_turn_limits.py::test_grpc_says_whose_limit_it_is_and_when_to_ask_again",
    "NOT_IMPLEMENTED": "tests/service/session_svc/test_turn_streams.py::test_what_is_no_call_is_refused",
    "TOO_MANY_API_KEYS": "tests/service/config_svc/test_access.py::"
    "test_the_bound_on_keys_is_a_setting_and_its_error_has_a_name",
    "TOO_MANY_CALLS": "tests/unit/servicekit/test_bounded_calls.py::test_one_address_has_so_many_calls_open",
    "TOO_MANY_WATCHES": "tests/unit/chat_gateway/test_open_watches.py::test_watches_are_bounded_and_the_bound_is_named",
    "TEMPLATE_NOT_BUILDABLE": "tests/unit/chat_gateway/test_instances.py::test_a_template_that_is_not_here_is_named",
}


# Reasons of who may call what: tests/system/test_access_matrix.py, with every kind of credentials.
def test_a_transcript_that_contradicts_its_session_is_named_and_may_replace_it(system: System) -> None:
    system.model.reset()
    asked = {"model": AGENT, "session_id": f"resent-{uuid4().hex}"}
    with system.client() as client:

        def chat(*messages: dict[str, str], **more: str) -> httpx.Response:
            return client.post("/v1/chat/completions", json={**asked, "messages": messages, **more})

        one, other, two = ({"role": "user", "content": text} for text in ("one", "other", "two"))
        answer = chat(one).json()["choices"][0]["message"]
        refused = chat(other, answer, two)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "history_mismatch")
        assert refused.json()["error"]["param"] == "messages[0]"
        assert chat(one, answer, two).status_code == 200
        assert chat(other, answer, two, history="replace").status_code == 200
        kept = client.get(f"/v1/sessions/{asked['session_id']}/messages")
        assert kept.status_code == 200
        assert '"other"' in kept.text
        assert '"one"' not in kept.text


MATRIX = {"UNAUTHENTICATED", "SCOPE_MISSING", "PROJECT_DENIED", "USER_DENIED"}
HERE = {"HISTORY_MISMATCH", "TURN_QUEUE_FULL", "SESSION_AGENT_MISMATCH", "IDEMPOTENCY_KEY_REUSED"}


def test_every_reason_has_its_test() -> None:
    shown = {case.reason for case in CHATS.values()} | {case.reason for case in ADMIN.values()} | HERE
    named = {name.removeprefix("REASON_") for name in list(reason_pb2.Reason.keys())} - {"UNSPECIFIED"}
    assert named == shown | ELSEWHERE.keys() | MATRIX
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        functions = {n.name for n in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(n, "name")}
        assert test in functions, place
