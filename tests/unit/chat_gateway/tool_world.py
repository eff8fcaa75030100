"""A world whose agent has the tools of a server, for tests of the tool loop."""

import asyncio
from typing import Any

from chat_gateway.leases import LeaseTimes
from chat_gateway.model.tools import (
    ServerTools,
    ToolPolicy,
    ToolResult,
)
from chat_gateway.model.turn import Delta, TurnOutcome
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes
from tests.unit.chat_gateway.stepping_provider import calling
from tests.unit.chat_gateway.world import FakeConfigs, World, make_config

QUICK = LeaseTimes(renew_after=0.01, renew_interval=0.05, retry_pause=0.01, commit_resolve=0.1)
TOOLS = (ServerTools(tool_server="files"),)
ONE = calling(("c1", "read", '{"x": 1}'))


def world_of(provider: Any, boxes: FakeToolboxes, *, tools: Any = TOOLS, config: Any = None, **more: Any) -> World:
    policy = ToolPolicy(**(config or {}))
    return World(
        provider=provider,
        toolboxes=boxes,
        configs=FakeConfigs(make_config(tools=tools, tool_policy=policy)),
        times=QUICK,
        **more,
    )


async def hang(arguments: str) -> ToolResult:
    await asyncio.sleep(60)
    raise AssertionError


async def streamed(world: World, request: Any) -> tuple[TurnOutcome, list[Delta]]:
    deltas: list[Delta] = []

    async def on_started(_: Any) -> None:
        pass

    async def on_delta(delta: Delta) -> None:
        deltas.append(delta)

    return await world.runner.run(request, on_started, on_delta), deltas


def roles(messages: Any) -> list[str]:
    return [message.role.value for message in messages]
