"""Agents with tools, end to end: a real MCP server, other agents, approvals, over both edges."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest

from parley.chat.v1 import chat_service_pb2 as chat_pb
from parley.session.v1 import message_pb2
from tests.servers.mcp_server import McpServerUnderTest
from tests.servers.mock_model import Behaviour
from tests.servers.system import OpenSystem, System

pytestmark = pytest.mark.servers
EGRESS = {"PARLEY_GATEWAY_EGRESS_ALLOW": "public,http://127.0.0.1:*"}


@pytest.fixture(scope="module")
def system(open_system: OpenSystem) -> Iterator[System]:
    with open_system("tools", gateway_env=EGRESS) as started:
        yield started


@pytest.fixture(scope="module")
def mcp() -> Iterator[McpServerUnderTest]:
    with McpServerUnderTest() as server:
        yield server


@pytest.fixture(scope="module")
def tool_server(system: System, mcp: McpServerUnderTest) -> str:
    with system.client() as client:
        answer = client.post("/v1/tool_servers", json={"id": "numbers", "name": "Numbers", "mcp": {"url": mcp.url}})
    assert answer.status_code == 201, answer.text
    return "numbers"


@pytest.fixture(autouse=True)
def _forgetful(system: System, mcp: McpServerUnderTest) -> None:
    system.model.reset()
    mcp.recorder.calls.clear()


@pytest.fixture
def agent(system: System, tool_server: str) -> str:
    tools = [{"mcp": {"tool_server": tool_server, "allow": ["add", "charge"], "approval": ["charge"]}}]
    return str(system.create_agent(f"agent-{uuid4().hex[:8]}", tools=tools)["id"])


def calls(*made: tuple[str, str, str], text: str = "") -> Behaviour:
    return Behaviour(text=text, tool_calls=made, finish_reason="tool_calls")


def listed(system: System, session_id: str) -> list[dict[str, Any]]:
    with system.client() as client:
        answer = client.get(f"/v1/sessions/{session_id}/messages")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def chat(system: System, agent: str, text: str, **fields: Any) -> httpx.Response:
    answer = system.chat(agent, text, **fields)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_tool_of_an_mcp_server_is_called_and_all_is_stored(
    system: System, mcp: McpServerUnderTest, agent: str
) -> None:
    system.model.script(calls(("c1", "add", '{"a": 2, "b": 3}'), text="Let me see."), Behaviour(text="It is 5."))
    session = f"s-{uuid4().hex}"
    answer = chat(system, agent, "2 + 3?", session_id=session).json()
    assert answer["choices"][0]["message"]["content"] == "Let me see.\n\nIt is 5."
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert [(one.tool, one.arguments) for one in mcp.recorder.calls] == [("add", {"a": 2, "b": 3})]
    offered = system.model.requests[0]["tools"]
    assert sorted(tool["function"]["name"] for tool in offered) == ["add", "charge"]
    assert system.model.requests[1]["messages"][-1] == {"role": "tool", "content": "5", "tool_call_id": "c1"}
    assert [one["role"] for one in listed(system, session)] == ["user", "assistant", "tool", "assistant"]
    # The caller's transcript of what it saw goes on.
    system.model.script(Behaviour(text="Bye."))
    seen = [{"role": "user", "content": "2 + 3?"}, answer["choices"][0]["message"]]
    with system.client() as client:
        body = {"model": agent, "session_id": session, "messages": [*seen, {"role": "user", "content": "bye"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert [one["role"] for one in system.model.requests[2]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


def test_the_official_client_streams_over_what_it_does_not_know(system: System, agent: str) -> None:
    system.model.script(calls(("c1", "add", '{"a": 1, "b": 1}')), Behaviour(text="Two."))
    with openai.OpenAI(base_url=f"{system.http_url}/v1", api_key="none", timeout=30) as client:
        stream = client.chat.completions.create(
            model=agent, messages=[{"role": "user", "content": "1 + 1?"}], stream=True
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Two."
    events = [chunk.model_extra["parley"]["event"] for chunk in chunks if "parley" in (chunk.model_extra or {})]
    assert events == ["tool_call_started", "tool_call_finished", "step_finished"]
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices)


def test_grpc_callers_see_events_and_previews_show_the_tools(system: System, agent: str) -> None:
    system.model.script(calls(("c1", "add", '{"a": 1, "b": 1}')), Behaviour(text="Two."))
    said = chat_pb.TurnInput(agent_id=agent, messages=[message_pb2.Message(role=message_pb2.ROLE_USER, content="1+1")])
    with system.grpc_client() as client:
        events = list(client.chat.StreamComplete(chat_pb.StreamCompleteRequest(input=said), timeout=30))
        shown = client.chat.PreviewPrompt(chat_pb.PreviewPromptRequest(input=said), timeout=30)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:4] == ["started", "tool_call_started", "tool_call_finished", "step_finished"]
    assert kinds[-1] == "finished"
    assert events[2].tool_call_finished.outcome == chat_pb.TOOL_OUTCOME_OK
    assert events[2].tool_call_finished.server == "numbers"
    assert {tool.name for tool in shown.tools} == {"add", "charge"}


def test_a_call_waits_for_its_approval(system: System, mcp: McpServerUnderTest, agent: str) -> None:
    charge = calls(("c1", "charge", '{"amount": 5}'), ("c2", "charge", '{"amount": 7}'), text="Ok?")
    system.model.script(charge, Behaviour(text="Charged 5."))
    session = f"s-{uuid4().hex}"
    answer = chat(system, agent, "charge", session_id=session).json()
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert [one["tool_call_id"] for one in answer["parley"]["requires_approval"]] == ["c1", "c2"]
    assert mcp.recorder.calls == []
    body = {"model": agent, "session_id": session, "messages": []}
    with system.client() as client:
        unknown = client.post(
            "/v1/chat/completions", json=body | {"approvals": [{"tool_call_id": "x", "approve": True}]}
        )
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "approval_unknown")
        approval = [{"tool_call_id": "c1", "approve": True}, {"tool_call_id": "c2", "approve": False, "note": "no"}]
        done = client.post("/v1/chat/completions", json=body | {"approvals": approval})
        assert done.json()["choices"][0]["message"]["content"] == "Charged 5.", done.text
    assert [one.arguments for one in mcp.recorder.calls] == [{"amount": 5}]
    sent = system.model.requests[-1]["messages"][-2:]
    assert [one["content"] for one in sent] == ["charged 5", "Not run: the user rejected this call: no"]


def test_a_response_says_which_tools_there_are_once(system: System, agent: str) -> None:
    add = ("c1", "add", '{"a": 2, "b": 3}')
    system.model.script(calls(add), Behaviour(text="It is 5."), Behaviour(text="Yes."))
    with openai.OpenAI(base_url=f"{system.http_url}/v1", api_key="none", timeout=60) as client:
        stream = list(client.responses.create(model=agent, input="2 + 3?", stream=True))
        made = stream[-1].response  # type: ignore[union-attr]
        offered, called, message = made.output
        assert (offered.type, offered.server_label, called.type, message.type) == (
            "mcp_list_tools",
            "numbers",
            "mcp_call",
            "message",
        )
        assert {tool.name for tool in offered.tools} == {"add", "charge"}
        assert offered.tools[0].input_schema["type"] == "object"
        assert "response.mcp_list_tools.completed" in [event.type for event in stream]
        assert client.responses.retrieve(made.id).output == made.output
        items = client.conversations.items
        kept = items.retrieve(offered.id, conversation_id=made.conversation.id)
        assert kept.model_dump() == offered.model_dump()
        again = client.responses.create(model=agent, input="Sure?", previous_response_id=made.id)
        assert [item.type for item in again.output] == ["message"]
        taken_back: Any = [item.model_dump(exclude_none=True) for item in made.output]
        system.model.script(Behaviour(text="So it is."))
        sent_again = client.responses.create(model=agent, input=taken_back, store=False)
        assert [item.type for item in sent_again.output] == ["message"]


def test_another_message_goes_on_without_what_waits(system: System, mcp: McpServerUnderTest, agent: str) -> None:
    system.model.script(calls(("c1", "charge", '{"amount": 5}')), Behaviour(text="Never mind."))
    session = f"s-{uuid4().hex}"
    chat(system, agent, "charge", session_id=session)
    answer = chat(system, agent, "forget it", session_id=session).json()
    assert answer["choices"][0]["message"]["content"] == "Never mind."
    assert mcp.recorder.calls == []


def test_an_agent_calls_another_one_whose_session_goes_with_its_own(system: System) -> None:
    helper = str(system.create_agent(f"helper-{uuid4().hex[:8]}")["id"])
    tools = [{"agent": {"agent_id": helper, "name": "expert", "description": "Knows."}}]
    boss = str(system.create_agent(f"boss-{uuid4().hex[:8]}", tools=tools)["id"])
    system.model.script(
        calls(("c1", "expert", '{"message": "what is it?"}')),
        Behaviour(text="A kettle."),
        Behaviour(text="It is a kettle."),
    )
    session = f"s-{uuid4().hex}"
    answer = chat(system, boss, "ask", session_id=session, user_id="ann").json()
    assert answer["choices"][0]["message"]["content"] == "It is a kettle."
    assert [one["content"] for one in listed(system, f"{session}:expert")] == ["what is it?", "A kettle."]
    with system.client() as client:
        assert client.delete(f"/v1/sessions/{session}").status_code == 204
        assert client.get(f"/v1/sessions/{session}:expert").status_code == 404


def test_a_dead_server_is_named_and_the_turn_goes_on(system: System) -> None:
    with system.client() as client:
        body = {"id": "dead", "name": "Dead", "mcp": {"url": "http://127.0.0.1:9/mcp"}}
        assert client.post("/v1/tool_servers", json=body).status_code == 201
    agent = str(system.create_agent(f"agent-{uuid4().hex[:8]}", tools=[{"mcp": {"tool_server": "dead"}}])["id"])
    system.model.script(Behaviour(text="Without."))
    answer = chat(system, agent, "hi").json()
    assert answer["choices"][0]["message"]["content"] == "Without."
    assert [one["tool_server"] for one in answer["parley"]["unavailable_tool_servers"]] == ["dead"]
    needs = [{"mcp": {"tool_server": "dead", "required": True}}]
    strict = str(system.create_agent(f"agent-{uuid4().hex[:8]}", tools=needs)["id"])
    failed = system.chat(strict, "hi")
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "tool_server_unavailable")


def test_an_approved_call_of_a_server_that_is_unavailable_by_then_says_so_wherever_it_is_read(
    system: System, mcp: McpServerUnderTest
) -> None:
    with system.client() as client:
        server = {"id": "moves", "name": "Moves", "mcp": {"url": mcp.url}}
        assert client.post("/v1/tool_servers", json=server).status_code == 201
        tools = [{"mcp": {"tool_server": "moves", "approval": "always"}}]
        agent = str(system.create_agent(f"agent-{uuid4().hex[:8]}", tools=tools)["id"])
        system.model.script(calls(("c1", "charge", '{"amount": 5}')), Behaviour(text="I can't."))
        session = f"s-{uuid4().hex}"
        asked = chat(system, agent, "charge", session_id=session, resumable=True).json()
        watched = client.get(f"/v1/chat/completions/{asked['id']}/events")
        assert last_notes(watched.text)["requires_approval"] == asked["parley"]["requires_approval"]
        assert asked["parley"]["requires_approval"][0]["tool_call_id"] == "c1"
        moved = {"mcp": {"url": "http://127.0.0.1:9/mcp"}}
        assert client.patch("/v1/tool_servers/moves", json=moved).status_code == 200
        hi = {"model": agent, "messages": [{"role": "user", "content": "hi"}]}
        deadline = time.monotonic() + 60
        while not client.post("/v1/chat/completions:preview", json=hi).json()["unavailable_tool_servers"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        body = {"model": agent, "session_id": session, "messages": [], "resumable": True}
        approval = body | {"approvals": [{"tool_call_id": "c1", "approve": True}]}
        key = {"Idempotency-Key": uuid4().hex}
        done, again = (client.post("/v1/chat/completions", json=approval, headers=key).json() for _ in range(2))
        stored = client.get(f"/v1/chat/completions/{done['id']}").json()
        watched = client.get(f"/v1/chat/completions/{done['id']}/events")
    assert done["choices"][0]["message"]["content"] == "I can't.", done
    assert [one["tool_server"] for one in done["parley"]["unavailable_tool_servers"]] == ["moves"]
    assert done["parley"] == again["parley"] == stored["parley"] == last_notes(watched.text)
    told = system.model.requests[-1]["messages"][-1]["content"]
    assert told.startswith("Not run: the tool 'charge' of 'moves' is unavailable: ")
    assert mcp.recorder.calls == []


def last_notes(events: str) -> dict[str, Any]:
    """Returns what the last chunk that says something for Parley says."""
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    notes: dict[str, Any] = next(chunk["parley"] for chunk in reversed(chunks) if "parley" in chunk)
    return notes


def test_only_who_may_use_the_session_approves(system: System, mcp: McpServerUnderTest, agent: str) -> None:
    system.model.script(calls(("c1", "charge", '{"amount": 5}')), Behaviour(text="done"))
    session = f"s-{uuid4().hex}"
    chat(system, agent, "charge", session_id=session, user_id="ann")
    body = {
        "model": agent,
        "session_id": session,
        "approvals": [{"tool_call_id": "c1", "approve": True}],
        "messages": [],
    }
    with system.client() as client:
        other = client.post("/v1/chat/completions", json=body | {"user_id": "bob"})
        assert (other.status_code, other.json()["error"]["code"]) == (404, "session_not_found")
        assert mcp.recorder.calls == []
        own = client.post("/v1/chat/completions", json=body | {"user_id": "ann"})
    assert own.status_code == 200
    assert len(mcp.recorder.calls) == 1


def test_a_server_that_dies_in_mid_call_is_a_result_and_the_next_turn_has_its_tools_again(
    system: System, mcp: McpServerUnderTest
) -> None:
    tools = [{"mcp": {"tool_server": "numbers", "allow": ["hang", "add"]}}]
    agent = str(system.create_agent(f"agent-{uuid4().hex[:8]}", tools=tools)["id"])
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="It went away."))
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(chat, system, agent, "hang")
        deadline = time.monotonic() + 60
        while not mcp.recorder.calls:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        mcp.stop()
        answer = turn.result(60).json()
    assert answer["choices"][0]["message"]["content"] == "It went away."
    assert system.model.requests[-1]["messages"][-1]["role"] == "tool"
    mcp.start()
    deadline = time.monotonic() + 60
    while True:
        system.model.reset()
        system.model.script(calls(("c1", "add", '{"a": 1, "b": 1}')), Behaviour(text="2"))
        answer = chat(system, agent, "1 + 1?").json()
        if "parley" not in answer:
            break
        assert time.monotonic() < deadline, "connected again"
        time.sleep(0.5)
    assert system.model.requests[-1]["messages"][-1]["content"] == "2"


def test_an_agent_elsewhere_is_a_tool_by_a2a(system: System) -> None:
    helper = str(system.create_agent(f"helper-{uuid4().hex[:8]}", name="Expert")["id"])
    server = f"remote-{uuid4().hex[:8]}"
    with system.client() as client:
        body = {"id": server, "a2a": {"url": f"{system.http_url}/a2a/{helper}"}}
        made = client.post("/v1/tool_servers", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["a2a"]["url"].endswith(helper)
        tested = client.post(f"/v1/tool_servers/{server}:test").json()
        assert (tested["ok"], [tool["name"] for tool in tested["tools"]]) == (True, [server]), tested
        assert "Expert" in tested["tools"][0]["description"]
        listed_servers = client.get("/v1/tool_servers", params={"filter": "kind = a2a"}).json()["data"]
        assert server in [one["id"] for one in listed_servers]
        wrong = client.post("/v1/agents", json={"id": "wrong", "tools": [{"mcp": server}]})
        assert wrong.status_code == 400
    boss = str(system.create_agent(f"boss-{uuid4().hex[:8]}", tools=[{"a2a": server}])["id"])
    session = f"s-{uuid4().hex}"
    for number in (1, 2):
        arguments = f'{{"message": "question {number}"}}'
        system.model.script(
            calls(("c1", server, arguments)), Behaviour(text=f"A kettle {number}."), Behaviour(text="It is a kettle.")
        )
        answer = chat(system, boss, "ask", session_id=session).json()
        assert answer["choices"][0]["message"]["content"] == "It is a kettle."
    results = [one["content"] for one in listed(system, session) if one["role"] == "tool"]
    assert results == ["A kettle 1.", "A kettle 2."]
    # Both questions were asked in one context, whose id is no secret of the session's.
    asked = system.model.requests[-2]["messages"]
    assert [one["content"] for one in asked if one["role"] == "user"] == ["question 1", "question 2"]
    with system.client() as client:
        assert client.delete(f"/v1/tool_servers/{server}").status_code == 400
