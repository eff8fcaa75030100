"""What a user gets: conversations that go on over requests, gateways and restarts, and end when they should."""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from callstream.client import STREAMS
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

PROPAGATION_SECONDS = 0.25
"""From the answer to a change until every turn that begins uses it, with the watch of config_svc up."""

pytestmark = pytest.mark.usefixtures("forgetful_model")


@pytest.fixture
def forgetful_model(parley_system: System) -> None:
    parley_system.model.reset()


def eventually(happened: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.02)
    return happened()


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:8]}"


def get(system: System, path: str, gateway: int = 0, **params: Any) -> httpx.Response:
    with system.client(gateway) as client:
        return client.get(path, params=params)


def test_the_second_prompt_holds_the_first_turn_whichever_gateway_serves_it(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent, instructions="You answer for {{company}}.", parameters={"company": "Acme"})
    first = parley_system.chat(agent, "My name is Ada.", session_id=session, gateway=0)
    assert first.headers["X-Session-ID"] == session
    assert first.headers["X-Session-Created"] == "true"
    assert first.headers["X-Agent-Revision"] == "1"
    second = parley_system.chat(agent, "What is my name?", session_id=session, gateway=1)
    assert "X-Session-Created" not in second.headers
    answer = first.json()["choices"][0]["message"]["content"]
    assert parley_system.model.prompts == [
        [
            {"role": "system", "content": "You answer for Acme."},
            {"role": "user", "content": "My name is Ada."},
        ],
        [
            {"role": "system", "content": "You answer for Acme."},
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "What is my name?"},
        ],
    ]


def test_without_a_session_id_a_session_is_made_and_named(parley_system: System) -> None:
    agent = new_id("agent")
    parley_system.create_agent(agent)
    first = parley_system.chat(agent, "one")
    session = first.headers["X-Session-ID"]
    with parley_system.client() as client:
        second = client.post(
            "/v1/chat/completions",
            headers={"X-Session-ID": session},
            json={"model": agent, "messages": [{"role": "user", "content": "two"}]},
        )
    assert second.headers["X-Session-ID"] == session
    assert len(parley_system.model.prompts[1]) == 4


def test_a_streamed_turn_names_its_session_and_is_stored_when_it_says_so(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    body = {
        "model": agent,
        "session_id": session,
        "messages": [{"role": "user", "content": "hello there"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with parley_system.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["X-Session-ID"] == session
        frames = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    chunks = [json.loads(frame) for frame in frames[:-1]]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == "echo:2:hello there"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] > 0
    messages = get(parley_system, f"/v1/sessions/{session}/messages").json()["data"]
    assert [(m["role"], m["content"]) for m in messages] == [("user", "hello there"), ("assistant", text)]


def test_creating_an_agent_builds_nothing_and_the_first_message_does(parley_system: System) -> None:
    agent = new_id("agent")
    parley_system.create_agent(agent)

    def instances() -> list[Any]:
        data: list[Any] = get(parley_system, "/v1/instances").json()["data"]
        return [instance for instance in data if instance["agent_id"] == agent]

    assert instances() == []
    parley_system.chat(agent, "hi")
    assert len(instances()) == 1
    with parley_system.client() as client:
        assert client.post("/v1/instances:evict", json={"agent_id": agent}).json()["evicted"] == 1
    assert instances() == []
    assert parley_system.chat(agent, "hi").status_code == 200


@pytest.mark.timing
def test_a_change_reaches_every_gateway_within_the_bound(parley_system: System) -> None:
    """One good try will do: what is measured is what the system waits for, not what a busy machine does to it."""
    agent = new_id("agent")
    parley_system.create_agent(agent)
    assert [runs_on(parley_system, agent, gateway) for gateway in (0, 1)] == [1, 1]
    for revision in range(2, 12):
        with parley_system.client() as client:
            changed = client.patch(f"/v1/agents/{agent}", json={"instructions": f"Changed to {revision}."})
        assert (changed.status_code, changed.json()["revision"]) == (200, revision)
        time.sleep(PROPAGATION_SECONDS)
        in_time = [runs_on(parley_system, agent, gateway) for gateway in (0, 1)] == [revision, revision]
        for gateway in (0, 1):
            assert eventually(lambda g=gateway, r=revision: runs_on(parley_system, agent, g) == r)  # type: ignore[misc]
        assert parley_system.model.prompts[-1][0]["content"] == f"Changed to {revision}."
        if in_time:
            return
    pytest.fail(f"no change was everywhere within {PROPAGATION_SECONDS:g} s")


def runs_on(system: System, agent: str, gateway: int) -> int:
    return int(system.chat(agent, "hi", gateway=gateway).headers["X-Agent-Revision"])


def test_deleting_an_agent_ends_its_turns_sessions_and_instances_everywhere(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    for gateway in (0, 1):
        parley_system.chat(agent, "hi", session_id=session, gateway=gateway)
    with parley_system.client() as client:
        assert client.delete(f"/v1/agents/{agent}").status_code == 204
    for gateway in (0, 1):
        refused = parley_system.chat(agent, "hi", session_id=session, gateway=gateway)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "agent_not_found")
    assert get(parley_system, f"/v1/sessions/{session}").status_code == 404
    assert get(parley_system, "/v1/sessions", agent_id=agent).json()["data"] == []

    def instances_gone() -> bool:
        found = [get(parley_system, "/v1/instances", gateway=g).json()["data"] for g in (0, 1)]
        return not [i for data in found for i in data if i["agent_id"] == agent]

    assert eventually(instances_gone)


def test_an_agent_that_is_made_again_does_not_see_the_old_sessions(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    old = parley_system.create_agent(agent)
    parley_system.chat(agent, "secret", session_id=session)
    with parley_system.client() as client:
        client.delete(f"/v1/agents/{agent}")
    new = parley_system.create_agent(agent)
    assert new["uid"] != old["uid"]
    for gateway in (0, 1):
        parley_system.chat(agent, "hi", session_id=f"{session}-{gateway}", gateway=gateway)
    again = parley_system.chat(agent, "hi", session_id=session)
    assert again.headers["X-Session-Created"] == "true"
    assert "secret" not in json.dumps(parley_system.model.prompts[1:])


def test_a_session_past_its_timeout_is_gone_with_its_history(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent, session={"idle_ttl": "8s", "max_lifetime": "60s"})
    parley_system.chat(agent, "one", session_id=session)
    shown = get(parley_system, f"/v1/sessions/{session}").json()
    assert shown["message_count"] == 2
    assert shown["expire_time"] > shown["last_activity_time"]

    def gone() -> bool:
        answer = get(parley_system, f"/v1/sessions/{session}")
        return answer.status_code == 404 and answer.json()["error"]["code"] == "session_not_found"

    assert eventually(gone)
    assert get(parley_system, "/v1/sessions", agent_id=agent).json()["data"] == []
    again = parley_system.chat(agent, "two", session_id=session)
    assert again.headers["X-Session-Created"] == "true"
    assert len(parley_system.model.prompts[-1]) == 2


def test_a_session_must_exist_when_the_caller_says_so(parley_system: System) -> None:
    agent = new_id("agent")
    parley_system.create_agent(agent)
    refused = parley_system.chat(agent, "hi", session_id=new_id("s"), session_must_exist=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "session_not_found")
    assert parley_system.model.requests == []


def test_store_false_keeps_nothing(parley_system: System) -> None:
    agent = new_id("agent")
    parley_system.create_agent(agent)
    answer = parley_system.chat(agent, "hi", store=False)
    assert answer.status_code == 200
    assert "X-Session-ID" not in answer.headers
    assert get(parley_system, "/v1/sessions", agent_id=agent).json()["data"] == []


def test_a_repeated_request_gets_the_first_answer_without_a_model_call(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    body = {"model": agent, "session_id": session, "messages": [{"role": "user", "content": "once"}]}
    key = {"Idempotency-Key": new_id("key")}
    with parley_system.client() as client:
        first = client.post("/v1/chat/completions", json=body, headers=key)
        second = client.post("/v1/chat/completions", json=body, headers=key)
        other = client.post("/v1/chat/completions", json={**body, "temperature": 0.5}, headers=key)
    assert first.json() == second.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert len(parley_system.model.requests) == 1


def test_turns_of_one_session_run_one_at_a_time_and_none_is_lost(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent, memory={"max_messages": 100})

    def say(number: int) -> httpx.Response:
        return parley_system.chat(agent, f"n{number}", session_id=session, gateway=number % 2)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(say, range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    # Each prompt is the one before plus one whole turn: nothing interleaved, nothing lost, nothing doubled.
    sizes = [len(prompt) for prompt in parley_system.model.prompts]
    assert sizes == list(range(2, 34, 2))
    messages = get(parley_system, f"/v1/sessions/{session}/messages").json()["data"]
    said = [message["content"] for message in messages if message["role"] == "user"]
    assert sorted(said) == sorted(f"n{n}" for n in range(16))
    replies = [message["content"] for message in messages if message["role"] == "assistant"]
    assert replies == [f"echo:{2 * turn + 2}:{text}" for turn, text in enumerate(said)]


def test_a_busy_session_is_refused_when_the_caller_says_so(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    parley_system.model.hold_again()
    parley_system.model.script(Behaviour(hold=True))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(parley_system.chat, agent, "slow", session_id=session)
        parley_system.model.wait_for_requests(1)
        refused = parley_system.chat(agent, "hi", session_id=session, busy="reject", gateway=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["x-should-retry"] == "true"
        parley_system.model.release()
        assert running.result().status_code == 200


def test_sessions_are_listed_by_agent_and_user_and_purged(parley_system: System) -> None:
    agent = new_id("agent")
    parley_system.create_agent(agent)
    for user, session in (("ann", "a1"), ("ann", "a2"), ("bob", "b1")):
        parley_system.chat(agent, "hi", session_id=f"{agent}.{session}", user_id=f"{agent}.{user}")

    def listed(**params: str) -> list[str]:
        data = get(parley_system, "/v1/sessions", **params).json()["data"]
        return sorted(session["id"].removeprefix(f"{agent}.") for session in data)

    assert listed(agent_id=agent) == ["a1", "a2", "b1"]
    assert listed(user_id=f"{agent}.ann") == ["a1", "a2"]
    assert listed(agent_id=agent, user_id=f"{agent}.bob") == ["b1"]
    with parley_system.client() as client:
        assert client.post("/v1/sessions:purge", json={"user_id": f"{agent}.ann"}).json() == {"deleted": 2}
        assert client.delete(f"/v1/sessions/{agent}.b1").status_code == 204
    assert listed(agent_id=agent) == []


def test_another_users_session_is_not_there(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    parley_system.chat(agent, "mine", session_id=session, user_id="ann")
    for intruder in ("bob", None):
        who = {"user_id": intruder} if intruder else {}
        refused = parley_system.chat(agent, "hi", session_id=session, **who)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "session_not_found")
    assert len(parley_system.model.requests) == 1


def test_the_window_is_cut_at_whole_turns(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent, memory={"max_messages": 3}, instructions="")
    for number in range(4):
        parley_system.chat(agent, f"n{number}", session_id=session)
    assert [m["content"] for m in parley_system.model.prompts[-1] if m["role"] == "user"] == ["n2", "n3"]


@pytest.mark.timing
def test_an_interruption_ends_the_running_turn_at_once_wherever_it_runs(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    parley_system.chat(agent, "before", session_id=session)
    took: list[float] = []
    while min(took, default=math.inf) >= 2.5 and len(took) < 5:
        parley_system.model.reset()
        parley_system.model.script(Behaviour(hold=True))
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(parley_system.chat, agent, "slow", session_id=session)
            parley_system.model.wait_for_requests(1)
            time.sleep(0.5)  # a turn that has run for a while holds a renewal open, and that is what is told
            began = time.monotonic()
            other = parley_system.chat(agent, "instead", session_id=session, busy="interrupt", gateway=1)
            interrupted = running.result(timeout=60)
            took.append(time.monotonic() - began)
        assert other.status_code == 200
        assert (interrupted.status_code, interrupted.json()["error"]["code"]) == (409, "turn_interrupted")
        assert interrupted.headers["x-should-retry"] == "false"
        assert eventually(lambda: parley_system.model.abandoned == 1)
    assert min(took) < 2.5, "told, not found out at the next renewal, 4 s after the one before"
    messages = get(parley_system, f"/v1/sessions/{session}/messages").json()["data"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["before", *["instead"] * len(took)]


def test_a_caller_that_leaves_can_have_its_turn_finished(parley_system: System) -> None:
    agent, session = new_id("agent"), new_id("s")
    parley_system.create_agent(agent)
    body = {"model": agent, "session_id": session, "messages": [{"role": "user", "content": "finish this please"}]}
    parley_system.model.script(Behaviour(chunk_delay=0.1))
    with (
        parley_system.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True, "on_disconnect": "finish"}
        ) as response,
    ):
        next(response.iter_lines())

    def stored() -> bool:
        answer = get(parley_system, f"/v1/sessions/{session}/messages")
        return answer.status_code == 200 and len(answer.json()["data"]) == 2

    assert eventually(stored)
    assert parley_system.model.abandoned == 0


def test_the_calls_of_turns_go_over_streams(parley_system: System) -> None:
    def streams() -> float:
        text = get(parley_system, "/metrics").text
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith("parley_turn_streams ")]
        return float(value)

    assert eventually(lambda: streams() == STREAMS), "unary calls would work, too, at many times the cost"
