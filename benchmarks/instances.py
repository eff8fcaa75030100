"""How much memory one cached agent instance takes: `python -m benchmarks.instances` prints bytes.

Built by the gateway's own `Instances` from configs of its own `AgentConfig`, each with instructions of its own, in a
process that has nothing else to do; a config counts as part of its instance.
"""

import gc
import sys
import tracemalloc
import uuid
from datetime import UTC, datetime, timedelta

from chat_gateway.instances import Instances
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.turn import Sampling
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Provider, Providers
from chat_gateway.templates.assistant import AssistantTemplate
from chat_gateway.templates.catalog import TemplateCatalog

COUNT = 5000
INSTRUCTIONS = "You are the assistant number {} of {{{{company}}}}. " + "Answer from the handbook. " * 15


class NoProvider:
    """Stands for a provider that nobody calls."""

    name = "mock"

    async def complete(self, call: ModelCall, on_delta: object) -> ModelAnswer:
        """Raise: nobody calls it."""
        raise NotImplementedError


def config(number: int) -> AgentConfig:
    """Returns an agent config such as people write: some 450 bytes of instructions and a parameter."""
    return AgentConfig(
        project="default",
        id=f"agent-{number}",
        uid=str(uuid.uuid4()),
        revision=1,
        template_id="assistant",
        template_version=AssistantTemplate.version,
        parameters={"company": f"company {number}"},
        instructions=INSTRUCTIONS.format(number),
        provider="mock",
        model=f"model-{number % 7}",
        sampling=Sampling(temperature=0.2),
        window_messages=20,
        idle_ttl=timedelta(minutes=30),
        max_lifetime=timedelta(days=1),
        max_concurrent_turns=None,
        requests_per_minute=None,
        turn_timeout=None,
        create_time=datetime.now(UTC),
    )


def bytes_per_instance(count: int = COUNT) -> float:
    """Builds so many instances, and returns what each takes."""
    template, provider = AssistantTemplate(), NoProvider()
    kept: Provider = provider
    instances = Instances(TemplateCatalog([template]), Providers({"mock": kept}), limit=count)
    instances.get(config(-1))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        instances.get(config(number))
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / count


if __name__ == "__main__":
    sys.stdout.write(f"{bytes_per_instance():.0f}\n")
