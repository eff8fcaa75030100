"""Several agents, each with a model of its own, in one small world."""

from collections.abc import Awaitable, Callable
from typing import Any

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.turn import Message, OnDelta
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from tests.unit.chat_gateway.stepping_provider import SteppingProvider
from tests.unit.chat_gateway.world import FakeConfigs, World, make_config


class Models:
    """A model for each agent, by its instructions."""

    name = "local"

    def __init__(self, **agents: Callable[[ModelCall], Message | Awaitable[Message]]) -> None:
        self.agents = agents
        self.calls: list[tuple[str, ModelCall]] = []

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        name = call.messages[0].content.partition("\n")[0]
        self.calls.append((name, call))
        said = self.agents[name](call)
        message = said if isinstance(said, Message) else await said
        return await SteppingProvider(message).complete(call, on_delta)


def agent(name: str, *tools: Any, **changes: Any) -> AgentConfig:
    return make_config(id=name, uid=f"uid-{name}", instructions=name, tools=tools, **changes)


def make_world(models: Models, *configs: AgentConfig, **more: Any) -> World:
    return World(provider=models, configs=FakeConfigs(*configs), **more)
