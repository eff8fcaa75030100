"""A request that is repeated while its first try still runs, elsewhere and in the other form: one turn, one answer."""

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

WHOLE, STREAMED = False, True


def ask(system: System, agent: str, session: str, key: str, *, gateway: int, stream: bool) -> tuple[str, bool]:
    """Run the turn over HTTP; return its answer, and whether it is the stored one."""
    body = {"model": agent, "session_id": session, "messages": [{"role": "user", "content": "once"}], "stream": stream}
    with system.client(gateway) as client:
        answer = client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return text_of(answer, stream), answer.headers.get("Idempotent-Replayed") == "true"


def text_of(answer: httpx.Response, stream: bool) -> str:
    """Return what the assistant said; a stream must have its end."""
    if not stream:
        content: str = answer.json()["choices"][0]["message"]["content"]
        return content
    frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    choices = [choice for frame in frames for choice in json.loads(frame)["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def ask_grpc(system: System, agent: str, session: str, key: str, *, stream: bool) -> tuple[str, bool]:
    """Run the turn over gRPC."""
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="once")
    asked = pb.TurnInput(agent_id=agent, session_id=session, messages=[said], request_id=key)
    with system.grpc_client(1) as client:
        stub = client.chat
        if not stream:
            whole = stub.Complete(pb.CompleteRequest(input=asked), timeout=60)
            return whole.message.content, whole.outcome.replayed
        events = list(stub.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=60))
        return "".join(event.delta.content for event in events), events[-1].finished.replayed


@pytest.mark.parametrize("second", [WHOLE, STREAMED], ids=["then-whole", "then-streamed"])
@pytest.mark.parametrize("first", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_a_repeat_waits_for_the_first_try_and_gets_its_answer(parley_system: System, first: bool, second: bool) -> None:
    agent, session, key = f"agent-{uuid4().hex[:8]}", f"s-{uuid4().hex}", uuid4().hex
    parley_system.create_agent(agent)
    model = parley_system.model
    model.reset()
    model.script(Behaviour(hold_after_chunks=1) if first else Behaviour(hold=True))
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(ask, parley_system, agent, session, key, gateway=0, stream=first)
        model.wait_for_requests(1)
        repeated = threads.submit(ask, parley_system, agent, session, key, gateway=1, stream=second)
        with pytest.raises(TimeoutError):
            repeated.result(0.3)
        model.release()
        answers = [running.result(60), repeated.result(60)]
    assert answers == [("echo:2:once", False), ("echo:2:once", True)]
    assert ask_grpc(parley_system, agent, session, key, stream=not second) == ("echo:2:once", True)
    assert len(model.requests) == 1
    with parley_system.client() as client:
        assert client.get(f"/v1/sessions/{session}").json()["turn_count"] == 1


def test_a_repeat_of_a_try_that_failed_runs(parley_system: System) -> None:
    agent, session, key = f"agent-{uuid4().hex[:8]}", f"s-{uuid4().hex}", uuid4().hex
    parley_system.create_agent(agent)
    model = parley_system.model
    model.reset()
    model.script(Behaviour(status=500))
    body = {"model": agent, "session_id": session, "messages": [{"role": "user", "content": "once"}]}
    with parley_system.client() as client:
        failed = client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": key})
    assert failed.status_code == 503
    answer, replayed = ask(parley_system, agent, session, key, gateway=1, stream=False)
    assert (answer, replayed) == ("echo:2:once", False)
