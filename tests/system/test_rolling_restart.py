"""Every replica of every service is restarted under load: nothing fails, nothing is lost."""

import asyncio
import itertools
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psutil
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1 import chat_service_pb2_grpc
from parley.session.v1 import message_pb2
from parley_client import open_async_channel
from tests.servers.mock_model import MODEL, Behaviour, MockModel
from tests.servers.processes import ServiceProcess
from tests.servers.replicas import Replicas, targets
from tests.servers.stores import Choice
from tests.servers.system import PROVIDER

AGENT = "rolling"
NOTICE_SECONDS = 4.0
"""Longer than the machine stands still: whoever is asked within it is told that the replica stops."""
PROBE_SECONDS = 0.25
"""How often the balancer asks for readiness; Kubernetes asks less often and is given more notice."""
DRAIN_SECONDS = 6.0
STOP_SECONDS = NOTICE_SECONDS + DRAIN_SECONDS + 20.0
SETTLE_SECONDS = 4.0
"""Once all who call a replica are connected to it again: in which they hear that it serves (minReadySeconds is 5)."""
RECONNECT_SECONDS = 60.0
PAUSE_SECONDS = 0.5
"""Of each caller between two requests: a restart meets dozens of them, and the other tests need the machine, too."""
SETTINGS = {
    f"PARLEY_{kind}_{name}": value
    for kind in ("CONFIG", "SESSION", "GATEWAY")
    for name, value in (("DRAIN_NOTICE", str(NOTICE_SECONDS)), ("DRAIN_TIMEOUT", str(DRAIN_SECONDS)))
}


ANSWERED_OVER_GRPC = 'rpc_server_call_duration_seconds_count{rpc_method="parley.chat.v1.ChatService/'

Ask = Callable[[str, str], Awaitable[str]]


class Balancer:
    """What stands in front of the gateways: requests go round those whose /readyz says yes. It never tries again."""

    def __init__(self, urls: list[str], http: aiohttp.ClientSession) -> None:
        self._http = http
        self._ready = dict.fromkeys(urls, True)
        self._turn = itertools.count()

    async def pick(self) -> str:
        deadline = time.monotonic() + RECONNECT_SECONDS
        # Where the machine stood still, no gateway has heard of its peers for a moment.
        while not (ready := [url for url, yes in self._ready.items() if yes]):
            assert time.monotonic() < deadline, "no gateway is ready"
            await asyncio.sleep(PROBE_SECONDS)
        return ready[next(self._turn) % len(ready)]

    async def follow(self) -> None:
        while True:
            for url in self._ready:
                try:
                    async with self._http.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=1)) as answer:
                        self._ready[url] = answer.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    self._ready[url] = False
            await asyncio.sleep(PROBE_SECONDS)


class Load:
    """Callers that go on until `stop` is set; `failures` has everything that any of them was refused."""

    def __init__(self, balancer: Balancer, http: aiohttp.ClientSession, channel: grpc.aio.Channel) -> None:
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()
        self.said: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.stop = asyncio.Event()
        self._balancer = balancer
        self._http = http
        self._stub = chat_service_pb2_grpc.ChatServiceStub(channel)

    async def run(self) -> None:
        kinds: list[tuple[str, Ask]] = [
            ("http plain", self._http_plain),
            ("http stream", self._http_stream),
            ("grpc plain", self._grpc_plain),
            ("grpc stream", self._grpc_stream),
        ]
        async with asyncio.TaskGroup() as callers:
            for number, (kind, ask) in enumerate(kinds * 2):
                callers.create_task(self._turns(f"own-{number}", kind, ask))
            for kind, ask in kinds:
                callers.create_task(self._turns("shared", kind, ask))
            for path in (f"/v1/agents/{AGENT}", "/v1/sessions", "/v1/models", "/v1/sessions/own-0/messages"):
                callers.create_task(self._reads(path))

    async def _turns(self, session: str, kind: str, ask: Ask) -> None:
        for number in itertools.count():
            if self.stop.is_set():
                return
            text = f"{kind} {number}"
            try:
                async with asyncio.timeout(60):
                    answer = await ask(session, text)
            except Exception as error:
                self.failures.append(f"{session}: {text}: {error!r}")
                continue
            self.done[kind] += 1
            self.said[session].append((text, answer))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _reads(self, path: str) -> None:
        while not self.stop.is_set():
            try:
                url = await self._balancer.pick()
                async with self._http.get(url + path, timeout=aiohttp.ClientTimeout(total=60)) as answer:
                    assert answer.status == 200, f"{answer.status}: {await answer.text()}"
            except Exception as error:
                self.failures.append(f"GET {path}: {error!r}")
            self.done["read"] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _http_plain(self, session: str, text: str) -> str:
        url = await self._balancer.pick()
        async with self._http.post(f"{url}/v1/chat/completions", json=body_of(session, text)) as answer:
            assert answer.status == 200, f"{answer.status} by {url}: {await answer.text()}"
            content: str = (await answer.json())["choices"][0]["message"]["content"]
            return content

    async def _http_stream(self, session: str, text: str) -> str:
        url, content, ended = await self._balancer.pick(), "", False
        body = body_of(session, text)
        async with self._http.post(f"{url}/v1/chat/completions", json=body | {"stream": True}) as answer:
            assert answer.status == 200, f"{answer.status} by {url}: {await answer.text()}"
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    assert "error" not in event, f"by {url}: {event}"
                    content += event["choices"][0]["delta"].get("content") or ""
                ended = ended or line.startswith(b"data: [DONE]")
        assert ended
        return content

    def _input(self, session: str, text: str) -> pb.TurnInput:
        message = message_pb2.Message(role=message_pb2.ROLE_USER, content=text)
        return pb.TurnInput(agent_id=AGENT, session_id=session, messages=[message])

    async def _grpc_plain(self, session: str, text: str) -> str:
        whole = await self._stub.Complete(pb.CompleteRequest(input=self._input(session, text)), timeout=55)
        content: str = whole.message.content
        return content

    async def _grpc_stream(self, session: str, text: str) -> str:
        content, finished = "", False
        async for event in self._stub.StreamComplete(
            pb.StreamCompleteRequest(input=self._input(session, text)), timeout=55
        ):
            content += event.delta.content
            finished = finished or event.HasField("finished")
        assert finished
        return content


def body_of(session: str, text: str) -> dict[str, Any]:
    return {"model": AGENT, "session_id": session, "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def replicas(server_choice: Choice, tmp_path: Path) -> Iterator[Replicas]:
    postgres, redis = server_choice.own_postgres(tmp_path), server_choice.own_redis(tmp_path)
    postgres.start()
    redis.start()
    try:
        with MockModel() as model:
            model.default = Behaviour(delay=0.1, chunk_delay=0.3)
            urls = postgres.database_url("postgres"), redis.database_url(0)
            with Replicas(*urls, model, folder=tmp_path, env=SETTINGS).running() as running:
                yield running
    finally:
        redis.remove()
        postgres.remove()


@asynccontextmanager
async def load_on(replicas: Replicas) -> AsyncIterator[Load]:
    """Loads the replicas while open; afterwards every caller has had its answer."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False) as http,
        open_async_channel(targets(replicas.gateways), retry=False) as channel,
        asyncio.TaskGroup() as group,
    ):
        url = replicas.gateways[0].http_url
        agent = {
            "id": AGENT,
            "name": "Rolling",
            "template_id": "assistant",
            "instructions": "You are a test.",
            "model": {"provider": PROVIDER, "name": MODEL},
            "memory": {"max_messages": 10},
        }
        async with http.post(f"{url}/v1/agents", json=agent) as answer:
            assert answer.status == 201, await answer.text()
        balancer = Balancer([gateway.http_url for gateway in replicas.gateways], http)
        following = group.create_task(balancer.follow())
        load = Load(balancer, http, channel)
        async with http.post(f"{url}/v1/chat/completions", json=body_of("own-0", "first")) as answer:
            assert answer.status == 200, await answer.text()
            load.said["own-0"].append(("first", (await answer.json())["choices"][0]["message"]["content"]))
        for service in [*replicas.configs, *replicas.sessions]:
            await settled(replicas, service)
        running = group.create_task(load.run())
        try:
            yield load
        finally:
            load.stop.set()
            await running
            following.cancel()


async def settled(replicas: Replicas, restarted: ServiceProcess) -> None:
    """Waits until all who call a replica have found it again, as a rollout does (minReadySeconds).

    A channel takes up to 2 s (servicekit.channels), and longer on a busy machine. Connected is not enough: only a
    channel that has also heard of the replica's health sends it calls. A gateway counts those of the load.
    """
    callers = {"config_svc": [*replicas.sessions, *replicas.gateways], "session_svc": replicas.gateways}
    pids = [caller.pid for caller in callers.get(restarted.name.partition("-")[0], [])] or [os.getpid()]
    port = int(restarted.grpc_target.rpartition(":")[2])
    deadline = time.monotonic() + RECONNECT_SECONDS
    while not all(_connected(pid, port) for pid in pids):
        assert time.monotonic() < deadline, f"not all are connected to {restarted.name} again"
        await asyncio.sleep(0.05)
    if restarted not in replicas.gateways:
        await asyncio.sleep(SETTLE_SECONDS)
        return
    while not await _has_answered_grpc(restarted):
        assert time.monotonic() < deadline, f"the load's channel sends no call to {restarted.name}"
        await asyncio.sleep(PROBE_SECONDS)


async def _has_answered_grpc(gateway: ServiceProcess) -> bool:
    async with aiohttp.ClientSession(trust_env=False) as http, http.get(f"{gateway.http_url}/metrics") as answer:
        return ANSWERED_OVER_GRPC in await answer.text()


def _connected(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections("tcp")
    return any(c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in connections)


async def stored(url: str, session: str) -> list[tuple[str, str]]:
    """Return what was asked and answered in a session, oldest turn first."""
    contents: list[str] = []
    token = ""
    async with aiohttp.ClientSession(trust_env=False) as http:
        while True:
            query = {"page_size": "100", **({"page_token": token} if token else {})}
            async with http.get(f"{url}/v1/sessions/{session}/messages", params=query) as answer:
                page = await answer.json()
            contents += [message["content"] for message in page["data"]]
            token = page.get("next_page_token") or ""
            if not token:
                return list(zip(contents[::2], contents[1::2], strict=True))


async def test_a_rolling_restart_of_everything_fails_and_loses_nothing(replicas: Replicas) -> None:
    times: dict[str, float] = {}
    async with load_on(replicas) as load:
        for service in replicas.services:
            began = time.monotonic()
            await asyncio.to_thread(service.stop)  # asserts exit code 0
            times[service.name] = time.monotonic() - began
            await asyncio.to_thread(service.start)
            await settled(replicas, service)
    assert not load.failures, "\n".join((f"{len(load.failures)} failures", *load.failures[:20]))
    assert max(times.values()) < STOP_SECONDS, times
    assert min(load.done[kind] for kind in ("http plain", "http stream", "grpc plain", "grpc stream", "read")) > 20
    for session, said in load.said.items():
        kept = await stored(replicas.gateways[0].http_url, session)
        assert sorted(kept) == sorted(said), session
