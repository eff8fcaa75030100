"""Push notifications: keys, and deliveries to receivers that do not do as they should."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import jwt
import pytest
from a2a.types import a2a_pb2 as pb
from aiohttp import web
from prometheus_client import CollectorRegistry

from chat_gateway.a2a.push_configs import PushConfigs
from chat_gateway.a2a.push_keys import PushKeys
from chat_gateway.a2a.push_sender import PushSender, PushTimes
from chat_gateway.metrics import PushMetrics
from chat_gateway.model.background import TurnOfUser
from servicekit.egress import EgressRules
from servicekit.egress_http import GuardedClient
from tests.servers.receiver import Receiver, receiving

TURN = TurnOfUser("default", "s1", "ann", "t1")
TIMES = PushTimes(timeout=60.0, pauses=(0.01, 0.01), last=300.0, max_tasks=3)


class MemoryStore:
    """A `PushStore`."""

    def __init__(self) -> None:
        self.kept: dict[tuple[TurnOfUser, str], bytes] = {}

    async def put(self, turn: TurnOfUser, config_id: str, content: bytes) -> None:
        self.kept[turn, config_id] = content

    async def list(self, turn: TurnOfUser) -> list[tuple[str, bytes]]:
        return [(name, content) for (of, name), content in self.kept.items() if of == turn]

    async def delete(self, turn: TurnOfUser, config_id: str) -> None:
        self.kept.pop((turn, config_id), None)


class Bench:
    """A sender with all that it needs."""

    def __init__(self, *allowed: str, times: PushTimes = TIMES) -> None:
        self.registry = CollectorRegistry()
        self.keys, self.store = PushKeys(b"secret"), MemoryStore()
        client = GuardedClient(EgressRules(allowed), connect_timeout=60.0)
        self.configs = PushConfigs(self.store, self.keys, client.rules)
        self.sender = PushSender(
            client, self.configs, self.keys, "https://p.example", PushMetrics(self.registry), times
        )

    async def keep(self, url: str, name: str = "a") -> None:
        await self.configs.put(TURN, pb.TaskPushNotificationConfig(url=url, id=name))

    def notify(self, state: "pb.TaskState" = pb.TASK_STATE_COMPLETED) -> None:
        async def read() -> pb.Task:
            return pb.Task(id="t1.s1", status=pb.TaskStatus(state=state))

        self.sender.start(TURN, read)

    def counted(self, outcome: str) -> float:
        return self.registry.get_sample_value("parley_push_notifications_total", {"outcome": outcome}) or 0.0


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


def test_one_secret_makes_the_same_keys_everywhere() -> None:
    one, other = PushKeys(b"secret"), PushKeys(b"secret")
    assert one.jwks == other.jwks != PushKeys(b"another").jwks
    assert PushKeys(b"").jwks != PushKeys(b"").jwks
    [key] = other.jwks["keys"]
    assert "d" not in key
    assert jwt.decode(one.sign({"task_id": "t"}), jwt.PyJWK(key), ["ES256"]) == {"task_id": "t"}


def test_what_is_sealed_opens_at_its_place_with_its_secret() -> None:
    one = PushKeys(b"secret")
    sealed = one.seal(b"token", "default/s1/t1/a")
    assert b"token" not in sealed
    assert PushKeys(b"secret").open(sealed, "default/s1/t1/a") == b"token"
    assert one.open(sealed, "default/s2/t1/a") is None
    assert PushKeys(b"another").open(sealed, "default/s1/t1/a") is None
    assert PushKeys(b"").open(sealed, "default/s1/t1/a") is None
    assert one.open(sealed[:5], "default/s1/t1/a") is None
    open_to_all = PushKeys(b"").seal(b"token", "default/s1/t1/a")
    assert one.open(open_to_all, "default/s1/t1/a") == b"token"


async def test_a_task_that_runs_is_not_notified_of(receiver: Receiver) -> None:
    bench = Bench("http://127.0.0.1:*")
    await bench.keep(receiver.url)
    bench.notify(pb.TASK_STATE_WORKING)
    await bench.sender.close()
    assert receiver.received == []


@pytest.mark.slow
async def test_a_receiver_that_is_silent_or_gone_has_its_tries(receiver: Receiver) -> None:
    silent = asyncio.Event()

    async def say_nothing(request: web.Request) -> web.StreamResponse:
        await silent.wait()
        return web.Response()

    bench = Bench("http://127.0.0.1:*", times=replace(TIMES, timeout=2.0))
    receiver.answers = [say_nothing] * 3
    await bench.keep(receiver.url)
    await bench.keep("http://127.0.0.1:1/", "b")
    bench.notify()
    await bench.sender.close()
    silent.set()
    assert len(receiver.received) == 3
    assert bench.counted("failed") == 2


async def test_nothing_of_an_answer_is_read(receiver: Receiver) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    bench = Bench("http://127.0.0.1:*")
    receiver.answers = [endless]
    await bench.keep(receiver.url)
    bench.notify()
    await bench.sender.close()
    assert bench.counted("delivered") == 1


async def test_where_the_operator_allows_nothing_nothing_is_sent(receiver: Receiver) -> None:
    """Also to a name that was good when the configuration was made, and leads elsewhere now."""
    bench = Bench("public")
    port = receiver.url.rpartition(":")[2]
    await bench.keep(receiver.url)
    await bench.keep(f"http://localhost:{port}/", "b")
    bench.notify()
    await bench.sender.close()
    assert receiver.received == []
    assert bench.counted("failed") == 2


async def test_what_is_under_way_is_bounded(receiver: Receiver) -> None:
    bench = Bench("http://127.0.0.1:*")
    await bench.keep(receiver.url)
    for _ in range(5):
        bench.notify()
    await bench.sender.close()
    assert (bench.counted("delivered"), bench.counted("dropped")) == (3, 2)


async def test_a_configuration_that_is_damaged_hides_no_other() -> None:
    bench = Bench("http://127.0.0.1")
    await bench.keep("http://127.0.0.1/a", "a")
    await bench.keep("http://127.0.0.1/b", "b")
    for damaged in (b"\0\xff\xff\xff", b"\1short", b"", b"\7\0"):
        bench.store.kept[TURN, "a"] = damaged
        assert [one.id for one in await bench.configs.list(TURN)] == ["b"]
