"""Embeddings under the limits and bounds of turns: whose model is asked, and what counts where."""

import asyncio
from collections.abc import Iterator

import pytest

from access.caller import ANONYMOUS, CHAT, Caller, CallerLimits, set_current
from chat_gateway.admission import Admission
from chat_gateway.embedding import EmbeddingRequest, Embeddings
from chat_gateway.leases import LeaseTimes
from chat_gateway.model.errors import TurnQueueFull, TurnTimeout
from chat_gateway.model.not_found import AgentNotFound, ModelNotFound
from chat_gateway.model.turn import LimitState, TurnLimit, Usage
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, Providers
from chat_gateway.scheduler import Scheduler, TurnLimits
from servicekit.errors import Code, ServiceError
from tests.doubles.chat_gateway.sessions import remote
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, make_config

KEY = Caller("ak-1", "default", frozenset({CHAT}), limits=CallerLimits(requests_per_minute=60, concurrent_turns=2))
OWN = EmbeddingRequest("default", ["x"], provider="local", model="e")
AGENT = EmbeddingRequest("default", ["x"], agent_id="support")


class EmbeddingProvider(FakeProvider):
    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[EmbeddingCall] = []
        self.gate: asyncio.Event | None = None

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        self.embedded.append(call)
        if self.gate is not None:
            await self.gate.wait()
        return EmbeddingAnswer((b"[1]",), Usage(3), "e-1", "local")


def make(
    world: World, provider: EmbeddingProvider, *models: str, limits: TurnLimits | None = None, timeout: float = 60
) -> Embeddings:
    return Embeddings(
        configs=world.configs,
        providers=Providers({"local": provider}),
        models={"local": models},
        scheduler=Scheduler(limits or TurnLimits()),
        admission=Admission(world.sessions, world.aborts, LeaseTimes()),
        timeout=timeout,
    )


@pytest.fixture(autouse=True)
def _anybody() -> Iterator[None]:
    yield
    set_current(ANONYMOUS)


async def test_an_agent_embeds_with_its_model_and_counts_in_its_limits() -> None:
    config = make_config(model="e-3", requests_per_minute=90, revision=4)
    world, provider = World(configs=FakeConfigs(config)), EmbeddingProvider()
    world.sessions.states = (LimitState("agent:uid-1", 90, 89, 1.0),)
    set_current(KEY)
    outcome = await make(world, provider).run(AGENT)
    assert (outcome.vectors, outcome.agent_revision, outcome.limits) == ((b"[1]",), 4, world.sessions.states)
    assert provider.embedded[0].model == "e-3"
    assert world.sessions.limits == [(TurnLimit("key:ak-1", 60, 2), TurnLimit("agent:uid-1", 90, 0, wait=True))]
    assert world.sessions.aborted_limits == [("key:ak-1",)]  # the place is released


async def test_a_providers_own_model_counts_for_the_key_alone() -> None:
    world, provider = World(), EmbeddingProvider()
    embeddings = make(world, provider)
    assert (await embeddings.run(OWN)).agent_revision == 0
    assert world.sessions.limits == []  # without a limit there is no call
    set_current(KEY)
    world.sessions.begin_errors.append(remote("RATE_LIMITED", Code.RESOURCE_EXHAUSTED))
    with pytest.raises(ServiceError, match="rate_limited"):
        await embeddings.run(OWN)
    assert world.sessions.limits == [(TurnLimit("key:ak-1", 60, 2),)]
    assert len(provider.embedded) == 1


async def test_what_is_not_here_is_not_found() -> None:
    embeddings = make(World(), EmbeddingProvider(), "e")
    assert (await embeddings.run(OWN)).vectors
    for provider, model in (("local", "other"), ("nobody", "e")):
        with pytest.raises(ModelNotFound):
            await embeddings.run(EmbeddingRequest("default", ["x"], provider=provider, model=model))
    with pytest.raises(AgentNotFound):
        await embeddings.run(EmbeddingRequest("default", ["x"], agent_id="nobody"))


async def test_it_ends_at_its_bound_and_is_refused_where_too_much_waits() -> None:
    world, provider = World(), EmbeddingProvider()
    provider.gate = asyncio.Event()
    with pytest.raises(TurnTimeout):
        await make(world, provider, timeout=0.01).run(OWN)
    full = make(world, provider, limits=TurnLimits(running=1, queued=0))
    async with asyncio.TaskGroup() as group:
        group.create_task(full.run(OWN))
        await asyncio.sleep(0)
        with pytest.raises(TurnQueueFull):
            await full.run(OWN)
        provider.gate.set()
