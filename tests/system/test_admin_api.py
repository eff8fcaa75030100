"""The admin API on the real services: what scripted peers can't show."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System


@pytest.fixture
def http(parley_system: System) -> Iterator[httpx.Client]:
    parley_system.model.reset()
    with parley_system.client() as client:
        yield client


@pytest.fixture
def agent(parley_system: System) -> dict[str, Any]:
    return parley_system.create_agent(
        f"agent-{uuid4().hex[:8]}",
        parameters={"company": "Acme", "tone": "kind"},
        model={"provider": PROVIDER, "name": MODEL, "temperature": 0.2},
        labels={"team": "cx", "tier": "1"},
        memory={"max_messages": 10},
        session={"idle_ttl": "60s", "max_lifetime": "600s"},
    )


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    if param is not None:
        assert error["param"] == param, answer.text


def test_what_is_read_can_be_written_back_and_changes_nothing(http: httpx.Client, agent: dict[str, Any]) -> None:
    read = http.get(f"/v1/agents/{agent['id']}")
    assert read.json() == agent
    written = http.put(f"/v1/agents/{agent['id']}", json=read.json())
    assert written.status_code == 200, written.text
    assert written.json() == agent
    assert written.headers["etag"] == read.headers["etag"]


def test_creating_twice_with_one_key_creates_once(http: httpx.Client) -> None:
    body, key = {"model": {"provider": PROVIDER, "name": MODEL}}, {"Idempotency-Key": str(uuid4())}
    first, again = (http.post("/v1/agents", json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = http.post("/v1/agents", json=body | {"name": "Other"}, headers=key)
    refused(other, 409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"
    refused(
        http.post("/v1/agents", json=body, headers={"Idempotency-Key": "k"}), 400, "invalid_field", "Idempotency-Key"
    )


def test_a_put_takes_what_it_leaves_out_back_to_the_default(http: httpx.Client, agent: dict[str, Any]) -> None:
    body = {"name": "New", "model": {"provider": PROVIDER, "name": MODEL}}
    written = http.put(f"/v1/agents/{agent['id']}", json=body).json()
    assert (written["revision"], written["name"], written["instructions"]) == (2, "New", "")
    assert (written["labels"], written["parameters"]) == ({}, {})
    assert "temperature" not in written["model"]


def test_a_patch_changes_what_it_names_and_nothing_else(http: httpx.Client, agent: dict[str, Any]) -> None:
    patch = {"labels": {"tier": None, "new": "x"}, "model": {"top_p": 0.5}, "parameters": {"tone": None}}
    written = http.patch(f"/v1/agents/{agent['id']}", json=patch).json()
    assert written["labels"] == {"team": "cx", "new": "x"}
    assert written["model"] == {"provider": PROVIDER, "name": MODEL, "temperature": 0.2, "top_p": 0.5}
    assert written["parameters"] == {"company": "Acme"}
    same = ("name", "instructions", "memory", "session", "template_id", "uid", "create_time")
    assert {field: written[field] for field in same} == {field: agent[field] for field in same}


def test_etags_guard_writes(http: httpx.Client, agent: dict[str, Any]) -> None:
    path, stale = f"/v1/agents/{agent['id']}", {"If-Match": f'"{agent["etag"]}"'}
    assert http.patch(path, json={"name": "New"}, headers=stale).status_code == 200
    refused(http.patch(path, json={"name": "Newer"}, headers=stale), 409, "etag_mismatch")
    refused(http.put(path, json=agent), 409, "etag_mismatch")
    refused(http.delete(path, headers=stale), 409, "etag_mismatch")
    assert http.get(path).json()["name"] == "New"


def test_revisions_are_kept_and_can_be_gone_back_to(http: httpx.Client, agent: dict[str, Any]) -> None:
    path = f"/v1/agents/{agent['id']}"
    http.patch(path, json={"name": "New"})
    back = http.post(f"{path}:rollback", json={"revision": 1})
    assert back.status_code == 200, back.text
    assert (back.json()["revision"], back.json()["name"]) == (3, agent["name"])
    revisions = http.get(f"{path}/revisions").json()["data"]
    assert [revision["revision"] for revision in revisions] == [3, 2, 1]
    assert revisions[1]["changed_fields"] == ["name"]
    assert http.get(path, params={"revision": 2}).json()["name"] == "New"
    refused(http.post(f"{path}:rollback", json={"revision": 9}), 404, "revision_not_found")


def test_a_chat_may_ask_for_a_revision(http: httpx.Client, agent: dict[str, Any], parley_system: System) -> None:
    http.patch(f"/v1/agents/{agent['id']}", json={"instructions": "Second."})
    first = parley_system.chat(f"{agent['id']}@1", "hi")
    assert (first.headers["x-agent-revision"], first.json()["model"]) == ("1", f"{agent['id']}@1")
    assert parley_system.chat(agent["id"], "hi").headers["x-agent-revision"] == "2"
    refused(parley_system.chat(f"{agent['id']}@7", "hi"), 404, "revision_not_found")


def test_a_session_may_pin_a_revision(http: httpx.Client, agent: dict[str, Any], parley_system: System) -> None:
    def ran_on(model: str) -> str:
        return str(parley_system.chat(model, "hi", session_id=session).headers["x-agent-revision"])

    session = f"pin-{agent['id']}"
    assert ran_on(agent["id"]) == "1"
    http.patch(f"/v1/agents/{agent['id']}", json={"instructions": "Second."})
    assert ran_on(agent["id"]) == "2"
    http.patch(f"/v1/sessions/{session}", json={"pinned_revision": 1})
    assert ran_on(agent["id"]) == "1"
    assert ran_on(f"{agent['id']}@2") == "2", "what a request asks for comes before the pin"


def test_what_no_gateway_has_is_refused_with_every_field(http: httpx.Client, parley_system: System) -> None:
    listed = {one["name"] for one in http.get("/v1/providers").json()["data"]}
    assert listed == {PROVIDER}
    wrong = {"instructions": "{{nobody}}", "model": {"provider": "nowhere", "name": MODEL, "top_p": 3}}
    refusal = http.post("/v1/agents?validate_only=true", json=wrong)
    refused(refusal, 400, "invalid_field")
    fields = {one["field"] for one in refusal.json()["error"]["violations"]}
    assert fields == {"instructions", "model.provider", "model.top_p"}


def test_wrong_fields_carry_the_names_that_the_caller_used(http: httpx.Client) -> None:
    model = {"provider": PROVIDER, "name": MODEL}
    refused(http.post("/v1/agents", json={"model": model, "name": "x" * 201}), 400, "invalid_field", "name")
    refused(http.post("/v1/agents", json={"model": model | {"top_p": 3}}), 400, "invalid_field", "model.top_p")
    refused(http.post("/v1/agents", json={"id": "No!", "model": model}), 400, "invalid_field", "id")
    refused(http.post("/v1/agents", json={"model": model, "template_id": "none"}), 400, "template_not_found")
    refused(http.get("/v1/agents?page_token=x"), 400, "invalid_page_token")
    refused(http.get("/v1/sessions?page_token=x"), 400, "invalid_page_token")
    refused(http.get("/v1/agents/nobody"), 404, "agent_not_found")


IMAGE = "messages[0].content[0].image_url.url"


def test_a_chat_s_wrong_fields_carry_openais_names(agent: dict[str, Any], parley_system: System) -> None:
    for fields, param in (
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]}, IMAGE),
        ({"session_id": "a b"}, "session_id"),
        ({"model": "support@x"}, "model"),
    ):
        refused(parley_system.chat(agent["id"], "hi", **fields), 400, "invalid_field", param)


def test_a_session_can_be_listed_changed_forked_and_deleted(
    http: httpx.Client, agent: dict[str, Any], parley_system: System
) -> None:
    session, copy = f"s-{uuid4().hex}", f"s-{uuid4().hex}"
    for text in ("one", "two"):
        parley_system.chat(agent["id"], text, session_id=session, user_id="ann", metadata={"lang": "en", "a": "b"})
    listed = http.get("/v1/sessions", params={"agent_id": agent["id"]}).json()["data"]
    assert [(s["id"], s["user_id"], s["message_count"]) for s in listed] == [(session, "ann", 4)]
    changed = http.patch(f"/v1/sessions/{session}", json={"metadata": {"a": None, "c": "d"}, "pinned_revision": 1})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["metadata"], changed.json()["pinned_revision"]) == ({"lang": "en", "c": "d"}, 1)
    pages = []
    page: dict[str, Any] = {"next_page_token": ""}
    while page["next_page_token"] or not pages:
        params = {"page_size": 1, "page_token": page["next_page_token"]}
        page = http.get(f"/v1/sessions/{session}/messages", params=params).json()
        pages.append([message["content"] for message in page["data"]])
    assert [texts[0] for texts in pages if texts] == ["one", "two"]
    newest = http.get(f"/v1/sessions/{session}/messages", params={"order": "desc"}).json()["data"]
    assert [message["content"] for message in newest][1::2] == ["two", "one"]
    forked = http.post(f"/v1/sessions/{session}:fork", json={"id": copy, "up_to_turn": 1})
    if forked.status_code != 501:
        assert (forked.status_code, forked.json()["message_count"]) == (201, 2)
    assert http.delete(f"/v1/sessions/{session}").status_code == 204
    refused(http.get(f"/v1/sessions/{session}"), 404, "session_not_found")
    refused(http.delete(f"/v1/sessions/{session}"), 404, "session_not_found")


def test_another_users_session_is_not_there(http: httpx.Client, agent: dict[str, Any], parley_system: System) -> None:
    session, bob = f"s-{uuid4().hex}", {"X-User-ID": "bob"}
    parley_system.chat(agent["id"], "hi", session_id=session, user_id="ann")
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/messages", None),
        ("DELETE", "", None),
        ("PATCH", "", {"metadata": {"a": "b"}}),
        ("PATCH", "", {"idle_ttl": "5s"}),
    ):
        answer = http.request(method, f"/v1/sessions/{session}{path}", headers=bob, json=body)
        refused(answer, 404, "session_not_found")
    assert http.get("/v1/sessions", params={"agent_id": agent["id"]}, headers=bob).json()["data"] == []
    assert http.get(f"/v1/sessions/{session}", headers={"X-User-ID": "ann"}).status_code == 200


def test_a_purge_says_how_many_it_deleted(http: httpx.Client, agent: dict[str, Any], parley_system: System) -> None:
    for user in ("ann", "ann", "bob"):
        parley_system.chat(agent["id"], "hi", user_id=user)
    purge = {"agent_id": agent["id"]}
    assert http.post("/v1/sessions:purge", json=purge | {"idle_longer_than": "3600s"}).json() == {"deleted": 0}
    assert http.post("/v1/sessions:purge", json=purge, headers={"X-User-ID": "ann"}).json() == {"deleted": 2}
    assert http.post("/v1/sessions:purge", json=purge).json() == {"deleted": 1}
    assert http.get("/v1/sessions", params=purge).json()["data"] == []


def test_readiness_and_documents_are_there(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while (ready := http.get("/readyz")).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert {"config_svc", "session_svc"} <= set(ready.json()["parts"])
    assert http.get("/docs").status_code == 200
    assert "/v1/chat/completions" in http.get("/docs/openapi.json").json()["paths"]
    assert "http_server_request_duration_seconds_bucket" in http.get("/metrics").text
    assert [template["id"] for template in http.get("/v1/templates").json()["data"]] == ["assistant", "router"]
