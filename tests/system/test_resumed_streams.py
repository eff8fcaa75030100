"""Streams that go on after their connection broke: from any gateway, behind any event, by the session's user alone."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from parley_client import NotFound
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

TEXT = "one two three four"


@pytest.fixture(autouse=True)
def _agent(parley_system: System) -> Iterator[None]:
    parley_system.model.reset()
    parley_system.create_agent("resumable")
    yield
    parley_system.model.reset()
    with parley_system.client() as client:
        client.delete("/v1/agents/resumable")


def asked(session: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {
        "model": "resumable",
        "messages": messages,
        "session_id": session,
        "stream": True,
        "resumable": True,
        **fields,
    }


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yields id and data of each event."""
    event_id = ""
    for line in lines:
        if line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            yield event_id, line.removeprefix("data: ")
            event_id = ""


def text_of(data: list[str]) -> str:
    chunks = [json.loads(one) for one in data if one != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def path_of(chunk: str) -> str:
    return f"/v1/chat/completions/{json.loads(chunk)['id']}/events"


def stream(client: httpx.Client, path: str, **more: Any) -> list[tuple[str, str]]:
    with client.stream("GET", path, **more) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(events(answer.iter_lines()))


def test_a_stream_that_broke_goes_on_at_another_gateway(parley_system: System) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
    with parley_system.client() as client, client.stream("POST", "/v1/chat/completions", json=asked(session)) as answer:
        arriving = events(answer.iter_lines())
        seen = [next(arriving)]
        while not text_of([data for _, data in seen]):
            seen.append(next(arriving))
    assert all(event_id for event_id, _ in seen)
    parley_system.model.release()
    last_gateway = len(parley_system.gateways) - 1
    with parley_system.client(last_gateway) as client:
        rest = stream(client, path_of(seen[0][1]), headers={"Last-Event-ID": seen[-1][0]})
        again = stream(client, path_of(seen[0][1]), params={"after": seen[-1][0], "include_usage": True})
        whole = stream(client, path_of(seen[0][1]))
        stored = client.get(f"/v1/sessions/{session}/messages").json()["data"]
    assert text_of([data for _, data in seen + rest]) == TEXT
    assert rest[-1][1] == "[DONE]"
    assert json.loads(rest[-2][1])["choices"][0]["finish_reason"] == "stop"
    assert json.loads(again[-2][1])["usage"]["completion_tokens"] > 0
    assert [one for one in whole if one[0]][: len(seen)] == seen
    assert text_of([data for _, data in whole]) == TEXT
    assert [message["content"] for message in stored] == ["hi", TEXT]
    assert len(parley_system.model.prompts) == 1


def test_a_turn_that_failed_says_so(parley_system: System) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text=TEXT, chunks_before_cut=3))
    with parley_system.client() as client:
        with client.stream("POST", "/v1/chat/completions", json=asked(session)) as answer:
            seen = list(events(answer.iter_lines()))
        assert "error" in json.loads(seen[-1][1])
        again = stream(client, path_of(seen[0][1]))
    assert json.loads(again[-1][1])["error"]["code"] == json.loads(seen[-1][1])["error"]["code"]


def test_no_other_user_watches(parley_system: System) -> None:
    session = f"s-{uuid4().hex}"
    with parley_system.client() as client:
        answer = client.post("/v1/chat/completions", json=asked(session, stream=False), headers={"X-User-ID": "ann"})
        path = f"/v1/chat/completions/{answer.json()['id']}/events"
        refused = client.get(path, headers={"X-User-ID": "bob"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "turn_not_found")
        for headers in ({"X-User-ID": "ann"}, {}):  # who may read sessions, and names no user, reads those of all
            assert text_of([data for _, data in stream(client, path, headers=headers)]) == "echo:2:hi"


def test_a_turn_without_a_journal_comes_from_what_is_stored(parley_system: System) -> None:
    session = f"s-{uuid4().hex}"
    with parley_system.client() as client:
        answer = client.post("/v1/chat/completions", json=asked(session, stream=False, resumable=False))
        path = f"/v1/chat/completions/{answer.json()['id']}/events"
        found = stream(client, path)
        assert client.get(path, headers={"X-User-ID": "bob"}).status_code == 404
    assert text_of([data for _, data in found]) == "echo:2:hi"
    assert found[-1][1] == "[DONE]"


@pytest.mark.parametrize("after", ["x", "1", "1-2-3", "-1"])
def test_what_is_no_event_is_refused(parley_system: System, after: str) -> None:
    with parley_system.client() as client:
        refused = client.get("/v1/chat/completions/chatcmpl-t.s/events", params={"after": after})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")


def test_resumable_is_refused_where_it_can_not_be(parley_system: System) -> None:
    with parley_system.client() as client:
        for fields, param in (({"store": False}, "resumable"), ({"on_disconnect": "cancel"}, "on_disconnect")):
            body = {**asked(""), **fields}
            del body["session_id"]
            refused = client.post("/v1/chat/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_over_grpc(parley_system: System) -> None:
    session = f"s-{uuid4().hex}"
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    turn = pb.TurnInput(agent_id="resumable", messages=[message], session_id=session, resumable=True)
    with parley_system.grpc_client(-1) as client:
        stub = client.chat
        sent = list(stub.StreamComplete(pb.StreamCompleteRequest(input=turn), timeout=30))
        started = sent[0].started
        watch = pb.WatchTurnRequest(session_id=started.session_id, turn_id=started.turn_id)
        watched = [one.event for one in stub.WatchTurn(watch, timeout=30) if one.HasField("event")]
        assert [one.event_id for one in sent[:-1]] == [one.event_id for one in watched[:-1]]
        assert "".join(one.delta.content for one in watched) == "echo:2:hi"
        assert watched[-1].finished.turn_number == sent[-1].finished.turn_number == 1
        watch.after_event_id = watched[-2].event_id
        assert [one.event for one in stub.WatchTurn(watch, timeout=30)] == watched[-1:]
        watch.turn_id = "unknown"
        with pytest.raises(NotFound) as raised:
            list(stub.WatchTurn(watch, timeout=30))
    assert raised.value.reason == "TURN_NOT_FOUND"
