"""Turns that run without their caller: submitted, polled, watched, cancelled, by their session's user alone."""

import json
import time
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

WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _agent(parley_system: System) -> Iterator[None]:
    parley_system.model.reset()
    parley_system.create_agent("background")
    yield
    parley_system.model.reset()
    with parley_system.client() as client:
        client.delete("/v1/agents/background")


@pytest.fixture
def client(parley_system: System) -> Iterator[httpx.Client]:
    with parley_system.client() as made:
        yield made


def asked(session: str = "", text: str = "hi", **fields: Any) -> dict[str, Any]:
    body = {"model": "background", "messages": [{"role": "user", "content": text}], "background": True, **fields}
    return body | ({"session_id": session} if session else {})


def submit(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions", json=asked(**fields), headers=headers)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] in ("queued", "in_progress")
    assert body["choices"] == []
    return body


def read(client: httpx.Client, completion: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = client.get(f"/v1/chat/completions/{completion}", headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def until(client: httpx.Client, completion: str, *statuses: str, headers: dict[str, str] | None = None) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while (body := read(client, completion, headers))["status"] not in statuses:
        assert time.monotonic() < deadline, body
        time.sleep(0.05)
    return body


def test_a_turn_runs_without_its_caller_and_is_read_watched_and_stored(
    parley_system: System, client: httpx.Client
) -> None:
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=1))
    queued = submit(client, headers={"X-User-ID": "ann"})
    ann = {"X-User-ID": "ann"}
    running = until(client, queued["id"], "in_progress", headers=ann)
    assert (running["model"], running["created"]) == ("background", queued["created"])
    assert client.get(f"/v1/chat/completions/{queued['id']}", headers={"X-User-ID": "bob"}).status_code == 404
    parley_system.model.release()
    done = until(client, queued["id"], "completed", headers=ann)
    assert done["choices"][0]["message"]["content"] == "one two three"
    with parley_system.client(len(parley_system.gateways) - 1) as other:
        events = other.get(f"/v1/chat/completions/{queued['id']}/events", headers=ann).text
        assert read(other, queued["id"], ann)["status"] == "completed"
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    text = "".join(one["delta"].get("content") or "" for chunk in chunks for one in chunk["choices"])
    assert text == "one two three"
    assert "data: [DONE]" in events
    assert len(parley_system.model.prompts) == 1


def test_a_failed_turn_says_why(parley_system: System, client: httpx.Client) -> None:
    parley_system.model.script(Behaviour(status=400))
    failed = until(client, submit(client)["id"], "failed")
    assert failed["error"]["type"] == "invalid_request_error"
    assert failed["choices"] == []


def test_a_running_turn_is_cancelled_once_and_for_all(parley_system: System, client: httpx.Client) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=1))
    queued = submit(client, session=session)
    until(client, queued["id"], "in_progress")
    for _ in range(2):
        answer = client.post(f"/v1/chat/completions/{queued['id']}:cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert read(client, queued["id"])["error"]["code"] == "turn_cancelled"
    parley_system.model.reset()
    assert parley_system.chat("background", "next", session_id=session).status_code == 200


def test_only_the_user_of_the_session_cancels(client: httpx.Client) -> None:
    queued = submit(client, headers={"X-User-ID": "ann"})
    path = f"/v1/chat/completions/{queued['id']}:cancel"
    for headers in ({}, {"X-User-ID": "bob"}):
        assert client.post(path, headers=headers).status_code == 404
    until(client, queued["id"], "completed", headers={"X-User-ID": "ann"})
    answer = client.post(path, headers={"X-User-ID": "ann"})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


def test_a_repeat_of_a_request_is_its_turn(parley_system: System, client: httpx.Client) -> None:
    parley_system.model.script(Behaviour(text="once", hold=True))
    headers = {"Idempotency-Key": uuid4().hex}
    first = submit(client, headers=headers)
    assert submit(client, headers=headers)["id"] == first["id"]
    assert client.post("/v1/chat/completions", json=asked(text="other"), headers=headers).status_code == 409
    parley_system.model.release()
    until(client, first["id"], "completed")
    answer = client.post("/v1/chat/completions", json=asked(), headers=headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (202, first["id"], "completed")
    assert len(parley_system.model.prompts) == 1


def test_a_session_is_its_turn_s_until_that_has_ended(parley_system: System, client: httpx.Client) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text="first", hold=True))
    queued = submit(client, session=session)
    until(client, queued["id"], "in_progress")
    parley_system.model.wait_for_requests(1)  # this turn is held, not the one that interrupts it
    refused = parley_system.chat("background", "second", session_id=session, busy="reject")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_busy")
    second = parley_system.chat("background", "second", session_id=session, busy="interrupt")
    assert second.status_code == 200, second.text
    assert until(client, queued["id"], "failed")["error"]["code"] == "turn_interrupted"


@pytest.mark.parametrize("fields", [{"store": False}, {"stream": True}, {"n": 2}, {"on_disconnect": "cancel"}])
def test_what_can_not_be_is_refused(client: httpx.Client, fields: dict[str, Any]) -> None:
    refused = client.post("/v1/chat/completions", json=asked(**fields))
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] in ("background", *fields)


def test_over_grpc(parley_system: System) -> None:
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    turn = pb.TurnInput(agent_id="background", messages=[message], user_id="ann")
    with parley_system.grpc_client() as client:
        stub = client.chat
        queued = stub.SubmitTurn(pb.SubmitTurnRequest(input=turn), timeout=30).turn
        assert queued.status == pb.TURN_STATUS_QUEUED
        named = {"session_id": queued.session_id, "user_id": "ann", "turn_id": queued.turn_id}
        events = [
            one.event for one in stub.WatchTurn(pb.WatchTurnRequest(**named), timeout=30) if one.HasField("event")
        ]
        assert events[-1].finished.turn_number == 1
        state = stub.GetTurn(pb.GetTurnRequest(**named), timeout=30).turn
        assert (state.status, state.message.content) == (pb.TURN_STATUS_FINISHED, "echo:2:hi")
        assert stub.CancelTurn(pb.CancelTurnRequest(**named), timeout=30).turn == state
        with pytest.raises(NotFound):
            stub.GetTurn(pb.GetTurnRequest(session_id=queued.session_id, turn_id=queued.turn_id), timeout=30)
