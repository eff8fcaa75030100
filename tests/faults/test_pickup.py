"""Turns whose gateway is killed, stopped or cut off, with tools that are counted: another gateway goes on with them."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.servers.mcp_server import McpServerUnderTest
from tests.servers.mock_model import Behaviour
from tests.servers.processes import ServiceProcess
from tests.servers.stores import RedisServer
from tests.servers.system import OpenSystem, System

pytestmark = pytest.mark.servers
WAIT_SECONDS = 60.0
LEASE_SECONDS = 5
"""Longer than the machine stands still: a turn whose gateway lives is taken over by nobody."""
GATEWAY = {
    "PARLEY_GATEWAY_EGRESS_ALLOW": "public,http://127.0.0.1:*",
    "PARLEY_GATEWAY_LEASE_RENEW_INTERVAL": "0.5",
    "PARLEY_GATEWAY_DRAIN_TIMEOUT": "0.5",
    "PARLEY_GATEWAY_DRAIN_NOTICE": "0",
}


@pytest.fixture(scope="module")
def mcp() -> Iterator[McpServerUnderTest]:
    with McpServerUnderTest() as server:
        yield server


@pytest.fixture(scope="module")
def whole(open_system: OpenSystem, mcp: McpServerUnderTest) -> Iterator[System]:
    with open_system(
        "pickup",
        gateways=2,
        gateway_env=GATEWAY,
        session_env={"PARLEY_SESSION_LEASE": str(LEASE_SECONDS)},
    ) as started:
        with started.client() as client:
            body = {"id": "numbers", "name": "Numbers", "mcp": {"url": mcp.url}}
            assert client.post("/v1/tool_servers", json=body).status_code == 201
        for name, idempotent in (("careful", []), ("bold", ["hang"])):
            offered = {"tool_server": "numbers", "allow": ["add", "charge", "hang"], "idempotent": idempotent}
            started.create_agent(name, tools=[{"mcp": offered}])
        yield started


@pytest.fixture
def system(whole: System, mcp: McpServerUnderTest) -> Iterator[System]:
    whole.model.reset()
    mcp.recorder.calls.clear()
    mcp.recorder.release.clear()
    yield whole
    mcp.recorder.release.set()
    whole.model.reset()
    for service in whole.services:
        if not service.running:
            service.start()


def calls(*made: tuple[str, str, str]) -> Behaviour:
    return Behaviour(tool_calls=made, finish_reason="tool_calls")


BOTH_KINDS = calls(("c1", "add", '{"a": 2, "b": 3}'), ("c2", "charge", '{"amount": 5}'))
"""A tool that may be called again, and one that may not."""


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Turn:
    """A turn that was begun at a gateway, which may be lost."""

    def __init__(self, system: System, agent: str, **fields: Any) -> None:
        self._system = system
        self.session = f"s-{uuid4().hex}"
        self.client = system.client(0)
        body = {"model": agent, "messages": [{"role": "user", "content": "go"}], "session_id": self.session}
        body |= {"stream": True, "resumable": True, **fields}
        self.stream = self.client.stream("POST", "/v1/chat/completions", json=body)
        self.lines = self.stream.__enter__().iter_lines()
        self.seen = [self._next()]
        self.id = json.loads(self.seen[0])["id"]

    def _next(self) -> str:
        return next(line.removeprefix("data: ") for line in self.lines if line.startswith("data: "))

    def read_text(self) -> None:
        while '"content":"' not in self.seen[-1]:
            self.seen.append(self._next())

    def leave(self) -> None:
        self.client.close()

    def events(self, gateway: int = 1) -> list[Any]:
        path, deadline = f"/v1/chat/completions/{self.id}/events", time.monotonic() + WAIT_SECONDS
        with self._system.client(gateway) as client:
            # A part that was stopped may take a while to be found again.
            while (answer := client.get(path, timeout=WAIT_SECONDS)).status_code == 503:
                assert time.monotonic() < deadline, answer.text
        assert answer.status_code == 200, answer.text
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[: len(self.seen)] == self.seen, "what was streamed before stays"
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def stored(self, gateway: int = 1) -> list[Any]:
        with self._system.client(gateway) as client:
            answer = client.get(f"/v1/sessions/{self.session}/messages").json()
            return list(answer.get("data", []))  # a store that was stopped may take a while to be found again


def activity(events: list[Any]) -> list[str]:
    return [chunk["parley"]["event"] for chunk in events if "event" in chunk.get("parley", {})]


def kill(gateway: ServiceProcess) -> None:
    gateway.kill()


@pytest.mark.parametrize(("agent", "made"), [("careful", 1), ("bold", 2)])
def test_a_gateway_that_is_killed_in_mid_call(system: System, mcp: McpServerUnderTest, agent: str, made: int) -> None:
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Well."))
    turn = Turn(system, agent)
    until(lambda: mcp.recorder.calls, "the tool was not called")
    kill(system.gateways[0])
    turn.leave()
    mcp.recorder.release.set()
    events = turn.events()
    assert "turn_resumed" in activity(events)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(mcp.recorder.calls) == made
    told = system.model.requests[-1]["messages"][-1]
    assert ("unknown" in told["content"]) is (made == 1), told
    assert [one["role"] for one in turn.stored()] == ["user", "assistant", "tool", "assistant"]
    assert len(system.model.requests) == 2, "no step was repeated"
    system.model.script(Behaviour(text="Next."))
    assert system.chat(agent, "next", gateway=1, session_id=turn.session).status_code == 200


def test_a_gateway_that_is_killed_after_a_call(system: System, mcp: McpServerUnderTest) -> None:
    system.model.script(BOTH_KINDS, Behaviour(text="It is", hold=True), Behaviour(text="It is 5."))
    turn = Turn(system, "careful")
    until(lambda: len(system.model.requests) == 2, "the second step was not asked for")
    kill(system.gateways[0])
    turn.leave()
    events = turn.events()
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    made = sorted(one.tool for one in mcp.recorder.calls)
    assert made == ["add", "charge"], "a call with a result is not made again, whatever the tool"
    assert turn.stored()[-1]["content"] == "It is 5."
    assert system.model.requests[2]["messages"] == system.model.requests[1]["messages"]


def test_a_gateway_that_is_killed_before_any_call(system: System, mcp: McpServerUnderTest) -> None:
    system.model.script(
        Behaviour(text="one two three", hold_after_chunks=2), BOTH_KINDS, Behaviour(text="whole answer")
    )
    turn = Turn(system, "careful")
    turn.read_text()
    kill(system.gateways[0])
    turn.leave()
    events = turn.events()
    resumed = next(place for place, chunk in enumerate(events) if chunk.get("parley", {}).get("event"))
    assert events[resumed]["parley"] == {"event": "turn_resumed", "step": 1, "attempt": 2}
    text = "".join(one["delta"].get("content") or "" for chunk in events[resumed:] for one in chunk["choices"])
    assert text == "whole answer" == turn.stored()[-1]["content"]
    assert sorted(one.tool for one in mcp.recorder.calls) == ["add", "charge"]


def test_a_gateway_that_stops_hands_its_turn_over(system: System, mcp: McpServerUnderTest) -> None:
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Well."))
    with system.client(0) as client:
        body = {"model": "bold", "messages": [{"role": "user", "content": "go"}], "background": True}
        queued = client.post("/v1/chat/completions", json=body).json()
    until(lambda: mcp.recorder.calls, "the tool was not called")
    runs = [gateway for gateway in system.gateways if "turn_taken_over" in gateway.log.read_text()]
    stopping = next(one for one in runs if one.log.read_text().count(queued["id"].split(".")[0][9:]))
    stopping.stop()
    mcp.recorder.release.set()
    other = 1 - system.gateways.index(stopping)
    with system.client(other) as client:

        def read() -> Any:
            return client.get(f"/v1/chat/completions/{queued['id']}").json()

        until(lambda: read()["status"] == "completed", "nobody went on with the turn")
    assert "turn_handed_over" in stopping.log.read_text()
    assert len(mcp.recorder.calls) == 2


def test_a_session_svc_that_restarts_in_mid_call(system: System, mcp: McpServerUnderTest) -> None:
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Well."))
    turn = Turn(system, "careful")
    until(lambda: mcp.recorder.calls, "the tool was not called")
    system.session.kill()
    system.session.start()
    mcp.recorder.release.set()
    events = turn.events()
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(mcp.recorder.calls) == 1
    turn.leave()


def test_a_repeat_while_a_turn_is_taken_over_gets_that_turn(system: System, mcp: McpServerUnderTest) -> None:
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Once."))
    headers = {"Idempotency-Key": uuid4().hex}
    body = {"model": "careful", "messages": [{"role": "user", "content": "go"}], "session_id": f"s-{uuid4().hex}"}
    with system.client(0) as client, ThreadPoolExecutor(1) as threads:
        kept = body | {"on_disconnect": "finish"}
        asked = threads.submit(client.post, "/v1/chat/completions", json=kept, headers=headers)
        until(lambda: mcp.recorder.calls, "the tool was not called")
        kill(system.gateways[0])
        with pytest.raises(httpx.TransportError):
            asked.result(WAIT_SECONDS)
    mcp.recorder.release.set()
    with system.client(1) as client:
        answer = client.post("/v1/chat/completions", json=body, headers=headers, timeout=WAIT_SECONDS)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true"), answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Once."
    assert len(mcp.recorder.calls) == 1


@pytest.mark.parametrize(("agent", "made"), [("careful", 1), ("bold", 2)])
def test_a_gateway_that_stands_still_for_longer_than_its_lease(
    system: System, mcp: McpServerUnderTest, agent: str, made: int
) -> None:
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Well."), Behaviour(text="Never."))
    turn = Turn(system, agent)
    until(lambda: mcp.recorder.calls, "the tool was not called")
    paused = system.gateways[0]
    paused.pause()
    try:
        until(lambda: f'"{turn.session}"' in system.gateways[1].log.read_text(), "nobody took the turn over")
        mcp.recorder.release.set()
        events = turn.events()
    finally:
        paused.resume()
    turn.leave()
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    stored = turn.stored()
    assert [one["role"] for one in stored] == ["user", "assistant", "tool", "assistant"]
    # The one that stood still has its answer now, and writes nothing any more.
    with system.client(0) as client:
        assert client.get(f"/v1/sessions/{turn.session}/messages", timeout=WAIT_SECONDS).json()["data"] == stored
    assert len(mcp.recorder.calls) == made


def test_a_redis_that_stands_still_for_longer_than_a_lease(
    system: System, redis_server: RedisServer, mcp: McpServerUnderTest
) -> None:
    pid = getattr(redis_server, "pid", None)
    if pid is None:
        pytest.skip("only an embedded Redis is stopped by its process")
    system.model.script(calls(("c1", "hang", "{}")), Behaviour(text="Well."), Behaviour(text="Well."))
    turn = Turn(system, "careful")
    until(lambda: mcp.recorder.calls, "the tool was not called")
    server = psutil.Process(pid)
    server.suspend()
    try:
        time.sleep(LEASE_SECONDS + 0.5)
    finally:
        server.resume()
    mcp.recorder.release.set()
    turn.leave()
    until(lambda: len(turn.stored()) == 4, "nobody went on with the turn")
    assert [one["role"] for one in turn.stored()] == ["user", "assistant", "tool", "assistant"]
    assert len(mcp.recorder.calls) == 1
