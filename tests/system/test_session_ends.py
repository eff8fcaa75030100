"""Every answer that shows or touches a session says when it ends; an agent's new TTL applies from the next turn on."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2, session_service_pb2
from tests.servers.system import System

IDLE = timedelta(seconds=600)
SLACK = timedelta(seconds=30)


@pytest.fixture
def agent(parley_system: System) -> str:
    agent_id = f"agent-{uuid4().hex[:8]}"
    parley_system.create_agent(agent_id, session={"idle_ttl": f"{IDLE.total_seconds():.0f}s", "max_lifetime": "7200s"})
    return agent_id


def ends_in(idle: timedelta, expire_time: str | None) -> bool:
    """Tell whether a time is so far from now, give or take what a test takes."""
    assert expire_time, "the answer does not say when the session ends"
    left = datetime.fromisoformat(expire_time) - datetime.now(UTC)
    return idle - SLACK < left <= idle


def test_over_http(parley_system: System, agent: str) -> None:
    session = f"s-{uuid4().hex}"
    chats: list[dict[str, Any]] = [
        {"session_id": session},
        {"session_id": session, "stream": True},
        {},
        {"stream": True},
    ]
    for body in chats:
        answer = parley_system.chat(agent, "hi", **body)
        assert ends_in(IDLE, answer.headers.get("X-Session-Expires")), body
    with parley_system.client() as client:
        headers = {"Idempotency-Key": "again"}
        asked = {"model": agent, "session_id": session, "messages": [{"role": "user", "content": "hi"}]}
        for _ in ("first", "replayed"):
            answer = client.post("/v1/chat/completions", json=asked, headers=headers)
            assert ends_in(IDLE, answer.headers.get("X-Session-Expires"))
        assert answer.headers["Idempotent-Replayed"] == "true"
        path = f"/v1/sessions/{session}"
        shown = [
            client.get(path).json(),
            client.get("/v1/sessions", params={"agent_id": agent}).json()["data"][0],
            client.patch(path, json={"metadata": {"a": "b"}}).json(),
            client.post(f"{path}:fork", json={}).json(),
        ]
        assert all(ends_in(IDLE, one["expire_time"]) for one in shown)
        assert ends_in(IDLE, client.get(f"{path}/messages").headers.get("X-Session-Expires"))


def test_over_grpc(parley_system: System, agent: str) -> None:
    session = f"s-{uuid4().hex}"
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    asked = pb.TurnInput(agent_id=agent, session_id=session, messages=[said], request_id="again")
    with parley_system.grpc_client() as client:
        chat = client.chat
        times = [chat.Complete(pb.CompleteRequest(input=asked), timeout=30).outcome.session_expire_time]
        asked.request_id = ""
        for event in chat.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=30):
            times += [part.session_expire_time for part in (event.started, event.finished) if part.session_id]
        asked.request_id = "again"
        replayed = chat.Complete(pb.CompleteRequest(input=asked), timeout=30).outcome
        preview = chat.PreviewPrompt(pb.PreviewPromptRequest(input=asked), timeout=30)
        times += [replayed.session_expire_time, preview.session_expire_time]
    assert replayed.replayed
    with parley_system.grpc_client() as client:
        sessions = client.sessions
        one = session_service_pb2.Session(id=session, metadata={"a": "b"})
        update = session_service_pb2.UpdateSessionRequest(session=one)
        update.update_mask.paths.append("metadata")
        shown = [
            sessions.GetSession(session_service_pb2.GetSessionRequest(id=session)).session,
            sessions.ListSessions(session_service_pb2.ListSessionsRequest(agent_id=agent)).sessions[0],
            sessions.UpdateSession(update).session,
            sessions.ForkSession(session_service_pb2.ForkSessionRequest(session_id=session)).session,
        ]
        listed = sessions.ListMessages(session_service_pb2.ListMessagesRequest(session_id=session))
    times += [*(each.expire_time for each in shown), listed.session_expire_time]
    assert len(times) == 10
    assert all(ends_in(IDLE, each.ToDatetime(UTC).isoformat()) for each in times)


def test_a_streams_last_word_on_the_end_is_that_of_the_commit(parley_system: System, agent: str) -> None:
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    asked = pb.TurnInput(agent_id=agent, messages=[said])
    with parley_system.grpc_client() as client:
        chat = client.chat
        events = list(chat.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=30))
    last = events[-1].finished
    with parley_system.client() as client:
        stored = client.get(f"/v1/sessions/{last.session_id}").json()["expire_time"]
    assert datetime.fromisoformat(stored) == last.session_expire_time.ToDatetime(UTC)


def test_an_agents_new_ttl_applies_to_its_sessions_from_their_next_turn_on(parley_system: System, agent: str) -> None:
    session, other = f"s-{uuid4().hex}", f"s-{uuid4().hex}"
    for each in (session, other):
        assert parley_system.chat(agent, "one", session_id=each).status_code == 200
    with parley_system.client() as client:
        changed = client.patch(f"/v1/agents/{agent}", json={"session": {"idle_ttl": "60s"}})
        assert changed.status_code == 200, changed.text
        assert ends_in(IDLE, client.get(f"/v1/sessions/{session}").json()["expire_time"]), "not before the next turn"
        deadline = time.monotonic() + 60
        while parley_system.chat(agent, "two", session_id=session).headers["X-Agent-Revision"] != "2":
            assert time.monotonic() < deadline
        shown = client.get(f"/v1/sessions/{session}").json()
        assert (shown["idle_ttl"], ends_in(timedelta(seconds=60), shown["expire_time"])) == ("60s", True)
        assert ends_in(IDLE, client.get(f"/v1/sessions/{other}").json()["expire_time"])
        longer = client.patch(f"/v1/agents/{agent}", json={"session": {"idle_ttl": "3600s"}})
        assert longer.status_code == 200, longer.text
        while parley_system.chat(agent, "three", session_id=session).headers["X-Agent-Revision"] != "3":
            assert time.monotonic() < deadline + 60
        assert ends_in(timedelta(hours=1), client.get(f"/v1/sessions/{session}").json()["expire_time"])
