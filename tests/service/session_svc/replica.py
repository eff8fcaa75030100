"""A session_svc in this process behind a real gRPC server, and what tests say to it."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from parley.session.v1 import message_pb2, session_service_pb2, turn_service_pb2
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from servicekit.errors import ServiceError
from servicekit.rpc_status import from_rpc_error
from session_svc.metrics import Metrics
from session_svc.settings import SessionSettings
from session_svc.wiring import build

UID = "5f0c7f0e-0000-4000-8000-000000000001"
LEASE_SECONDS = 120
USER, ASSISTANT, TOOL = message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT, message_pb2.ROLE_TOOL
WAIT, REJECT, INTERRUPT = (
    turn_service_pb2.BUSY_POLICY_WAIT,
    turn_service_pb2.BUSY_POLICY_REJECT,
    turn_service_pb2.BUSY_POLICY_INTERRUPT,
)


def say(text: str, answer: str = "yes") -> list[message_pb2.Message]:
    """Returns the messages of a plain turn."""
    return [message_pb2.Message(role=USER, content=text), message_pb2.Message(role=ASSISTANT, content=answer)]


@dataclass
class Replica:
    """One replica and its stubs; `turns` and `sessions` are Any, for their stubs are typed for both flavours."""

    port: int
    turns: Any
    sessions: Any
    health: Any
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def begin(self, session: str = "s1", *, timeout: float = 60, **fields: Any) -> Any:
        """Calls BeginTurn with what a test does not care about filled in."""
        return await self.turns.BeginTurn(self.begin_request(session, **fields), timeout=timeout)

    def begin_request(self, session: str, **fields: Any) -> turn_service_pb2.BeginTurnRequest:
        """Returns the request of `begin`."""
        values: dict[str, Any] = {
            "agent_id": "hello",
            "agent_uid": UID,
            "turn_id": uuid.uuid4().hex,
            "window_messages": 1000,
        } | fields
        return turn_service_pb2.BeginTurnRequest(session_id=session, **values)

    async def commit(self, begun: Any, text: str = "hi", **fields: Any) -> Any:
        """Calls CommitTurn."""
        turn = message_pb2.Turn(messages=say(text))
        request = turn_service_pb2.CommitTurnRequest(**({"lease": begun.lease, "turn": turn} | fields))
        return await self.turns.CommitTurn(request, timeout=60)

    async def turn(self, session: str = "s1", text: str = "hi", **fields: Any) -> Any:
        """Begins and commits a turn."""
        return await self.commit(await self.begin(session, **fields), text)

    async def abort(self, begun: Any) -> None:
        """Calls AbortTurn."""
        await self.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(lease=begun.lease), timeout=60)

    async def renew(self, begun: Any, hold: float = 0) -> Any:
        """Calls RenewTurn, which is held for `hold` seconds."""
        request = turn_service_pb2.RenewTurnRequest(lease=begun.lease, hold=seconds(hold))
        return await self.turns.RenewTurn(request, timeout=60 + hold)

    async def said(self, session: str = "s1") -> list[str]:
        """Returns what the user said in each stored turn, oldest first."""
        found: list[str] = []
        request = session_service_pb2.ListMessagesRequest(session_id=session, page_size=100)
        while True:
            page = await self.sessions.ListMessages(request)
            found += [turn.messages[0].content for turn in page.turns]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def serves(self) -> bool:
        """Whether the health check says so."""
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=""), timeout=60)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.asynccontextmanager
async def replica(redis_url: str, **settings: Any) -> AsyncIterator[Replica]:
    """Serves one replica while open; the config feed is nobody unless a `config_target` is given.

    A lease and a place are held for longer than a busy machine stalls, and for longer than any test waits.
    """
    values: dict[str, Any] = {
        "grpc_port": 0,
        "config_target": "127.0.0.1:1",
        "drain_timeout": 0.2,
        "lease": LEASE_SECONDS,
        "claim": 60,
        "log_level": "error",
    } | settings
    registry = CollectorRegistry()
    async with build(SessionSettings(redis_url=redis_url, **values), Metrics(registry)) as details:
        port = int(str(details["grpc_port"]))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Replica(
                port,
                TurnServiceStub(channel),
                SessionServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
                registry,
            )


class Refused:
    """What a refused call said; set when the `refused` block is left."""

    error: ServiceError


@contextlib.contextmanager
def refused(reason: str) -> Iterator[Any]:
    """Expects the call inside to fail with this reason."""
    outcome = Refused()
    try:
        yield outcome
    except grpc.aio.AioRpcError as error:
        outcome.error = from_rpc_error(error)
        assert outcome.error.reason == reason, f"{outcome.error.reason}: {outcome.error}"
    else:
        raise AssertionError(f"the call was not refused with {reason}")


def seconds(value: float) -> Duration:
    """Returns a duration."""
    duration = Duration()
    duration.FromNanoseconds(int(value * 1e9))
    return duration


def texts(begun: Any) -> list[str]:
    """Returns what the user said in each turn of a window."""
    return [turn.messages[0].content for turn in begun.window]
