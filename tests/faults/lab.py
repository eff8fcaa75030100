"""A system for tests of one fault each: a proxy on every link, a model that does as it is told, all mended after."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.faults.history.cluster import Cluster
from tests.faults.proxy import Proxies
from tests.servers.mock_model import MODEL, MockModel
from tests.servers.system import PROVIDER

TURN_SECONDS = 30.0
"""What a turn may take, whatever is broken: no test is to meet it because the machine is busy."""
LEASE_SECONDS = 5.0
"""Longer than the machine stands still: a turn whose gateway lives keeps its session."""
SLACK_SECONDS = 20.0
"""On top of any bound: the machine's processors are shared with other tests."""
RETRY_SECONDS = 60.0


class Lab:
    """Gateways, session_svc and the rest behind proxies; a context manager."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.model = MockModel()
        self._folder = folder
        self._options = options
        self._proxies = Proxies()
        self._agents = 0

    def __enter__(self) -> Self:
        self.model.start()
        self._proxies.__enter__()
        self.cluster = Cluster(self._folder, self._proxies, f"127.0.0.1:{self.model.port}", **self._options)
        try:
            self.cluster.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()
        self._proxies.__exit__()
        self.model.close()

    def mend(self) -> None:
        """Heal every link, bring everything back that was killed, forget what the model was told."""
        for link in self.cluster.links.values():
            link.heal()
        self.cluster.resume_stores()
        self.cluster.postgres.start()
        self.cluster.start_redis()
        for service in self.cluster.services.values():
            if service.running:
                service.resume()
            service.start()
        for gateway in self.cluster.gateways:
            self._wait_until_connected(gateway.http_url)
        self.model.reset()

    def _wait_until_connected(self, url: str) -> None:
        """Wait until a gateway reaches its peers; lists go to every replica of session_svc in turn."""
        deadline = time.monotonic() + RETRY_SECONDS
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while {client.get(path).status_code for path in ("/v1/agents", *["/v1/sessions"] * 4)} != {200}:
                assert time.monotonic() < deadline, f"{url} does not reach its peers"
                time.sleep(0.1)

    def new_agent(self, **fields: Any) -> str:
        """Create an agent of the mock model; `fields` replace or add to its body. Returns its id."""
        self._agents += 1
        agent_id = f"agent-{self._agents}"
        self.create(agent_id, **fields)
        return agent_id

    def create(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create an agent under this id."""
        body = {
            "id": agent_id,
            "name": agent_id,
            "template_id": "assistant",
            "instructions": "You are a test.",
            "model": {"provider": PROVIDER, "name": MODEL},
        }
        deadline = time.monotonic() + RETRY_SECONDS
        with httpx.Client(base_url=self.cluster.gateways[0].http_url, timeout=60, trust_env=False) as client:
            # A gateway that was just started may not have reached config_svc yet.
            while (answer := client.post("/v1/agents", json=body | fields)).status_code == 503:
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def client(self, gateway: int = 0) -> httpx.AsyncClient:
        """Return a client of one gateway; the caller closes it."""
        return httpx.AsyncClient(base_url=self.cluster.gateways[gateway].http_url, timeout=60, trust_env=False)

    async def get(self, path: str, *, gateway: int = 0, **query: str) -> httpx.Response:
        """Read something."""
        async with self.client(gateway) as client:
            return await client.get(path, params=query)

    async def chat(
        self, agent: str, text: str, session: str, *, gateway: int = 0, key: str = "", **fields: Any
    ) -> httpx.Response:
        """Run one unary turn, with whatever outcome; `fields` go into the body."""
        headers = {"Idempotency-Key": key} if key else {}
        async with self.client(gateway) as client:
            return await client.post("/v1/chat/completions", json=turn(agent, text, session, **fields), headers=headers)

    @asynccontextmanager
    async def streaming(
        self, agent: str, text: str, session: str, *, gateway: int = 0, **fields: Any
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Stream one turn; leaving early is a client that disconnects."""
        body = turn(agent, text, session, stream=True, **fields)
        async with self.client(gateway) as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield answer.aiter_lines()

    async def stored(self, session: str, gateway: int = 0) -> list[tuple[str, str]]:
        """Return role and content of every stored message, oldest first; nothing when there is no such session."""
        answer = await self.get(f"/v1/sessions/{session}/messages", gateway=gateway, page_size="100")
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        return [(message["role"], message["content"]) for message in answer.json()["data"]]


def turn(agent: str, text: str, session: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a turn."""
    return {"model": agent, "session_id": session, "messages": [{"role": "user", "content": text}], **fields}


def exchange(number: int, text: str) -> list[tuple[str, str]]:
    """Return a whole stored turn of one message, whose prompt had `number` messages, instructions included."""
    return [("user", text), ("assistant", f"echo:{number}:{text}")]


async def eventually(happened: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until `happened` (a function, or a coroutine function) answers true."""
    deadline = time.monotonic() + seconds
    while True:
        answer = happened()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


async def takes_a_turn(lab: Lab, agent: str, session: str, *, gateway: int = 0, text: str = "and now?") -> float:
    """Assert that the session takes a turn within one lease, and return how long it took."""
    began = time.monotonic()
    answer = await lab.chat(agent, text, session, gateway=gateway)
    took = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    assert took < LEASE_SECONDS + SLACK_SECONDS
    return took


async def recovers(lab: Lab, agent: str, session: str, *, gateway: int = 0, text: str = "and now?") -> None:
    """Assert that the session takes a turn soon after everything came back: one lease and some seconds."""

    async def taken() -> bool:
        return (await lab.chat(agent, text, session, gateway=gateway)).status_code == 200

    await eventually(taken, LEASE_SECONDS + SLACK_SECONDS)
