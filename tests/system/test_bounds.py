"""Every bound on a turn, over both protocols: the error names it, in time, and the session is free again."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import grpc
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from parley_client import ParleyError
from tests.servers.mock_model import Behaviour
from tests.servers.system import PROVIDER, OpenSystem, System

SECONDS = 0.5
"""Of each bound on the provider."""
ON_ANSWERS = ("first-token", "between-tokens", "answer")
IN_TIME = 30.0
"""What a held turn would take is a minute or more."""
STREAMED, WHOLE = True, False


@contextmanager
def nobody_accepts() -> Iterator[int]:
    """Yield a port to which no connection can be made, though somebody listens: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(2)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


@pytest.fixture(scope="module")
def system(open_system: OpenSystem) -> Iterator[System]:
    """Each bound is that of an agent, named after it, and of its provider, which has no other to meet."""
    with (
        open_system("bounds", gateways=0) as started,
        nobody_accepts() as full,
    ):
        url = started.model.url
        providers = {
            PROVIDER: {"base_url": url},
            "connect": {"base_url": f"http://127.0.0.1:{full}/v1", "connect_timeout": SECONDS},
            **{name: {"base_url": url, f"{name.replace('-', '_')}_timeout": SECONDS} for name in ON_ANSWERS},
        }
        started.new_gateway({"PARLEY_PROVIDERS": json.dumps(providers)}).start()
        started.create_agent("plain")
        for name in ("connect", *ON_ANSWERS):
            started.create_agent(name, model={"provider": name, "name": "m"})
        started.create_agent("turn", limits={"turn_timeout": "1s"})
        yield started


@dataclass(frozen=True)
class Bound:
    """How a bound is met."""

    reason: str
    streamed: bool
    agent: str = "plain"
    behaviour: Behaviour | None = None

    @property
    def name(self) -> str:
        return self.agent.replace("-", "_")


HOLD, HOLD_LATER = Behaviour(hold=True), Behaviour(hold_after_chunks=2)
BOUNDS = [
    Bound("PROVIDER_TIMEOUT", WHOLE, agent="connect"),
    Bound("PROVIDER_TIMEOUT", STREAMED, agent="connect"),
    Bound("PROVIDER_TIMEOUT", STREAMED, agent="first-token", behaviour=HOLD),
    Bound("PROVIDER_TIMEOUT", STREAMED, agent="between-tokens", behaviour=HOLD_LATER),
    Bound("PROVIDER_TIMEOUT", WHOLE, agent="answer", behaviour=HOLD),
    Bound("DEADLINE_EXCEEDED", WHOLE, agent="turn", behaviour=HOLD),
    Bound("DEADLINE_EXCEEDED", STREAMED, agent="turn", behaviour=HOLD),
    Bound("DEADLINE_EXCEEDED", STREAMED, agent="turn", behaviour=HOLD_LATER),
]
IDS = [
    f"{bound.name}-{'streamed' if bound.streamed else 'whole'}{'-later' if bound.behaviour is HOLD_LATER else ''}"
    for bound in BOUNDS
]


def prepare(system: System, bound: Bound) -> str:
    system.model.reset()
    if bound.behaviour is not None:
        system.model.script(bound.behaviour)
    return f"s-{uuid4().hex}"


def free_again(system: System, session: str) -> None:
    answer = system.chat("plain", "hi", session_id=session, busy="reject")
    assert (answer.status_code, answer.headers["X-Session-Created"]) == (200, "true"), answer.text


@pytest.mark.parametrize("bound", BOUNDS, ids=IDS)
def test_a_bound_names_itself_over_http(system: System, bound: Bound) -> None:
    session = prepare(system, bound)
    began = time.monotonic()
    answer = system.chat(bound.agent, "hi", session_id=session, stream=bound.streamed)
    assert time.monotonic() - began < IN_TIME
    if answer.status_code == 200:
        frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        error = json.loads(frames[-1])["error"]
    else:
        assert answer.status_code == 504
        error = answer.json()["error"]
    assert error["code"] == bound.reason.lower()
    assert f"'{bound.name}'" in error["message"]
    free_again(system, session)


def over_grpc(system: System, bound: Bound, session: str, timeout: float) -> ParleyError:
    """Ask, and return the error that comes."""
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    asked = pb.TurnInput(agent_id=bound.agent, session_id=session, messages=[said])
    with system.grpc_client() as client, pytest.raises(ParleyError) as caught:
        if bound.streamed:
            list(client.chat.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=timeout))
        else:
            client.chat.Complete(pb.CompleteRequest(input=asked), timeout=timeout)
    return caught.value


@pytest.mark.parametrize("bound", BOUNDS, ids=IDS)
def test_a_bound_names_itself_over_grpc(system: System, bound: Bound) -> None:
    session = prepare(system, bound)
    began = time.monotonic()
    error = over_grpc(system, bound, session, timeout=60)
    assert time.monotonic() - began < IN_TIME
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, bound.reason)
    assert error.metadata["bound"] == bound.name
    free_again(system, session)


@pytest.mark.parametrize("streamed", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_the_callers_deadline_bounds_the_turn_and_names_itself(system: System, streamed: bool) -> None:
    bound = Bound("DEADLINE_EXCEEDED", streamed, behaviour=HOLD)
    for seconds in (1.0, 4.0, 10.0, 20.0):
        session = prepare(system, bound)
        error = over_grpc(system, bound, session, timeout=seconds)
        if error.metadata:  # else the caller's own clock was first: on a busy machine the answer comes too late
            break
    assert (error.code, error.reason, error.metadata["bound"]) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "deadline",
    )
    deadline = time.monotonic() + IN_TIME
    while system.model.running:
        assert time.monotonic() < deadline, "the model call goes on"
        time.sleep(0.01)
    free_again(system, session)


@pytest.mark.parametrize("streamed", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_the_callers_deadline_bounds_the_wait_for_a_busy_session(system: System, streamed: bool) -> None:
    session = prepare(system, Bound("", streamed, behaviour=HOLD))
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="first")
    first = pb.TurnInput(agent_id="plain", session_id=session, messages=[said])
    with system.grpc_client() as client:
        running = client.chat.Complete.future(pb.CompleteRequest(input=first), timeout=120)
        system.model.wait_for_requests(1)
        began = time.monotonic()
        error = over_grpc(system, Bound("", streamed), session, timeout=1.0)
        assert time.monotonic() - began < IN_TIME
        assert (error.code, error.reason) in (
            (grpc.StatusCode.ABORTED, "SESSION_BUSY"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        )
        system.model.release()
        assert running.result(120).message.content == "echo:2:first"
