"""What turns wait for where an MCP server does not list its tools. The session is a double, and so is the clock."""

import asyncio
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from chat_gateway.tools import mcp_client
from chat_gateway.tools.credentials import FixedCredentials
from chat_gateway.tools.mcp_client import McpClient, McpTimes
from chat_gateway.tools.mcp_plain import CallAnswer
from chat_gateway.tools.offered import OfferedTool
from chat_gateway.tools.server import CallOptions, ServerUnavailable

LISTING_SECONDS = 0.2


def _no_streams(sdk: Any) -> Any:
    """The double opens none."""


class World:
    """A server that may hang, the sessions that were opened to it, and the time."""

    def __init__(self) -> None:
        self.hangs = True
        self.refuses = False
        self.sessions: list[Session] = []
        self.lists = 0
        self.now = 100.0
        self.answer = asyncio.Event()

    def client(self) -> McpClient:
        times = McpTimes(connect=30, listing=LISTING_SECONDS, fresh=60)
        return McpClient("default/hung", _no_streams, FixedCredentials({}), times, clock=lambda: self.now)


class Session:
    """A session of the world's server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ended = False
        world.sessions.append(self)

    async def opened(self) -> None:
        pass

    async def tools(self) -> list[OfferedTool]:
        self._world.lists += 1
        if self._world.refuses:
            await asyncio.sleep(0)
            raise ServerUnavailable("does not list its tools")
        if self._world.hangs:
            await asyncio.Event().wait()
        return [OfferedTool("add", "Adds.", {"type": "object"}, False)]

    async def call(self, name: str, arguments: Any, meta: Any, seconds: float) -> CallAnswer:
        await self._world.answer.wait()
        return CallAnswer("done", False)

    async def close(self) -> None:
        self.ended = True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @contextmanager
    def exchanging(seconds: float, headers: Any) -> Any:
        yield SimpleNamespace()

    class NeverError(Exception):
        pass

    sdk = SimpleNamespace(
        McpSession=lambda *args, **named: Session(made),
        Mirrored=object,
        MCPError=NeverError,
        ValidationError=NeverError,
        exchanging=exchanging,
    )

    async def load_sdk() -> Any:
        return sdk

    monkeypatch.setattr(mcp_client, "load_sdk", load_sdk)
    return made


async def failures_of(client: McpClient, turns: int) -> list[str]:
    found = await asyncio.gather(*(client.offer() for _ in range(turns)), return_exceptions=True)
    assert all(isinstance(one, ServerUnavailable) for one in found), found
    return [str(one) for one in found]


async def test_a_server_that_hangs_costs_all_that_wait_for_its_tools_one_time(world: World) -> None:
    client = world.client()
    assert await failures_of(client, 5) == ["did not list its tools in time"] * 5
    assert world.lists == 1

    # Nor does it cost each turn that follows: pauses grow as those between connections do.
    assert await failures_of(client, 5) == ["did not list its tools in time"] * 5
    assert world.lists == 1
    world.now += 1.01
    await failures_of(client, 2)
    assert world.lists == 2
    world.now += 1.01
    await failures_of(client, 2)
    assert world.lists == 2

    world.now += 1.01
    world.hangs = False
    assert [tool.name for tool in (await client.offer()).tools] == ["add"]
    assert world.lists == 3


async def test_a_failure_is_that_of_all_that_waited_and_the_next_turn_tries_again(world: World) -> None:
    world.refuses = True
    client = world.client()
    turns = [asyncio.create_task(failures_of(client, 1)) for _ in range(2)]
    while not world.lists:
        await asyncio.sleep(0)
    world.now += 0.5  # it takes a while to refuse
    await asyncio.gather(*turns)
    assert world.lists == 1
    world.refuses = False
    world.hangs = False
    assert (await client.offer()).tools


async def test_what_hangs_is_connected_again_unless_calls_are_under_way(world: World) -> None:
    client = world.client()
    call = asyncio.create_task(client.call("add", {}, CallOptions("c", 30, idempotent=False)))
    while not world.sessions:
        await asyncio.sleep(0)
    await failures_of(client, 1)
    assert not world.sessions[0].ended
    world.answer.set()
    assert (await call).text == "done"

    world.now += 1.01
    await failures_of(client, 1)
    assert world.sessions[0].ended
    world.now += 2.01
    world.hangs = False
    assert (await client.offer()).tools
    assert len(world.sessions) == 2
