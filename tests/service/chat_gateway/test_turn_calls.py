"""How much Python the gateway runs for a plain turn: counted, since time varies with the machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from chat_gateway.clients.session_client import SessionClient
from chat_gateway.clients.turn_calls import turn_calls
from chat_gateway.finishing import FinishingTurns
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.keys import Keys
from chat_gateway.providers.observed import ModelMetrics, ObservedProvider
from chat_gateway.providers.resilient import ResilientProvider
from chat_gateway.providers.settings import ProviderSettings
from parley.session.v1 import message_pb2
from parley.session.v1 import turn_service_pb2 as pb
from tests.doubles.python_calls import PythonCalls
from tests.service.chat_gateway.http_edge.edge import running_edge
from tests.unit.chat_gateway.raw_provider import Server, answer, listening, provider_at
from tests.unit.chat_gateway.world import World

MAX_CALLS = 676
"""Some 5 % more than there are. A feature that a plain turn does not use costs it nothing."""
WARM, TURNS = 12, 40
"""The first fill caches and the window. Of the others, the one with the fewest calls had no timer in it."""
WINDOW = 5
BODY = msgspec.json.encode(
    {"model": "support", "session_id": "s1", "messages": [{"role": "user", "content": "How do I get my money back?"}]}
)
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class SessionService:
    """The channel of a session_svc that is not there: one stream, on which each call is answered at once."""

    def stream_stream(self, path: str, response_deserializer: Any) -> Any:
        return lambda **_: Line(response_deserializer)

    def unary_unary(self, path: str, **_: Any) -> Any:
        return None


class Line:
    def __init__(self, deserialize: Any) -> None:
        self._deserialize = deserialize
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._answers.put_nowait(b"")
        messages = [
            message_pb2.Message(role=message_pb2.ROLE_USER, content="And now?"),
            message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content="The same."),
        ]
        self._window = [message_pb2.Turn(id=f"w{n}", number=n, messages=messages) for n in range(1, WINDOW + 1)]

    async def read(self) -> Any:
        return self._deserialize(await self._answers.get())

    async def write(self, data: bytes) -> None:
        for call in pb.TurnsRequest.FromString(data).calls:
            result = pb.TurnResult(id=call.id)
            if call.HasField("begin"):
                result.begin.lease.MergeFrom(pb.TurnLease(session_id="s1", turn_id=call.begin.turn_id, token=1))
                result.begin.session.id = "s1"
                result.begin.window.extend(self._window)
            else:
                result.commit.turn_number = WINDOW + 1
            self._answers.put_nowait(pb.TurnsResponse(results=[result]).SerializeToString())

    async def done_writing(self) -> None:
        self._answers.put_nowait(b"")

    def cancel(self) -> None:
        pass


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[int]:
    """Yields the HTTP port of a gateway whose peers and provider are scripted."""
    channel: Any = SessionService()
    async with (
        listening(Server(*[answer()] * TURNS)) as url,
        open_client(10) as http,
        turn_calls(channel).open() as calls,
    ):
        await asyncio.sleep(0)
        observed = ObservedProvider(provider_at(url, http), ModelMetrics(CollectorRegistry()))
        keys = Keys("local", lambda key: observed)
        provider = ResilientProvider("local", keys, ProviderSettings(base_url=url).resilience)
        sessions: Any = SessionClient(calls, timeout=60, wait_timeout=60)
        world = World(provider=provider, sessions=sessions, turn_timeout=60.0)
        async with running_edge(runs=FinishingTurns(world.runner)) as edge:
            yield edge.port


async def test_a_plain_turn_calls_no_more_python_than_it_did() -> None:
    counts = list[PythonCalls]()
    async with gateway() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(TURNS):
            counted = PythonCalls()
            with counted.counting():
                writer.write(REQUEST)
                async with asyncio.timeout(60):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    body = await reader.readexactly(length)
            assert b"hello" in body, body
            counts.append(counted)
        writer.close()
    least = min(counts[WARM:], key=lambda counted: counted.number)
    assert least.number <= MAX_CALLS, least.called.most_common()
