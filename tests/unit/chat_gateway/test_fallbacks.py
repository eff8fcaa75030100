"""The models of one agent, asked one after the other."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from chat_gateway.model.agent_config import Fallback
from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Delta, FinishReason, Sampling
from chat_gateway.providers.fallbacks import FallbackProvider, provider_of
from chat_gateway.providers.observed import ModelMetrics
from chat_gateway.providers.provider import Providers
from contract.enums import FallbackTrigger
from servicekit.errors import ServiceError
from tests.unit.chat_gateway.scripted_provider import CALL, ScriptedProvider, withheld
from tests.unit.chat_gateway.world import make_config

DOWN = ProviderUnavailable("first", "is down")
BOTH = frozenset(FallbackTrigger)


def refused(code: str) -> ServiceError:
    return ProviderRejected("first", 400, code=code)


def made(first: Any, *others: tuple[Any, frozenset[FallbackTrigger]]) -> tuple[FallbackProvider, list[Any]]:
    providers = [ScriptedProvider("first", first)]
    fallbacks = []
    for number, (step, also_on) in enumerate(others):
        provider = ScriptedProvider(f"other-{number}", *([] if step is None else [step]))
        providers.append(provider)
        fallbacks.append((Fallback(provider.name, f"model-{number}", also_on), provider))
    return FallbackProvider(providers[0], fallbacks), providers


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        ProviderRateLimited("first", retry_after=None),
        ProviderTimeout("first", "first_token"),
        ProviderTimeout("first", "answer"),
        ProviderBadResponse("first", "x"),
        ProviderMisconfigured("first", "x", status=401),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_where_a_model_cannot_answer_the_next_one_is_asked(failure: ServiceError, streamed: bool) -> None:
    provider, asked = made(failure, (DOWN, frozenset()), (None, frozenset()))
    pieces: list[Delta] = []

    async def keep(delta: Delta) -> None:
        pieces.append(delta)

    answer = await provider.complete(CALL, keep if streamed else None)
    assert (answer.message.content, answer.model, answer.details.provider) == ("other-1", "model-1", "other-1")
    assert [len(one.calls) for one in asked] == [1, 1, 1]
    assert [(piece.content, piece.provider) for piece in pieces] == ([("other-1", "other-1")] if streamed else [])


async def test_nobody_else_is_asked_once_a_token_was_passed_on() -> None:
    provider, asked = made(["tok", DOWN], (None, BOTH))

    async def ignore(delta: Delta) -> None:
        assert delta.provider == ""

    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, ignore)
    assert not asked[1].calls


@pytest.mark.parametrize(
    ("step", "also_on", "asks"),
    [
        (refused("content_filter"), frozenset(), False),
        (refused("content_filter"), {FallbackTrigger.CONTENT_FILTER}, True),
        (refused("context_length_exceeded"), {FallbackTrigger.CONTENT_FILTER}, False),
        (refused("context_length_exceeded"), {FallbackTrigger.CONTEXT_LENGTH}, True),
        (refused("invalid_value"), BOTH, False),
        (ProviderRejected("first", 400), BOTH, False),
    ],
)
async def test_for_refusals_only_those_that_name_them(step: ServiceError, also_on: Any, asks: bool) -> None:
    provider, asked = made(step, (None, frozenset()), (None, frozenset(also_on)))
    if asks:
        assert (await provider.complete(CALL, None)).message.content == "other-1"
    else:
        with pytest.raises(ProviderRejected):
            await provider.complete(CALL, None)
    assert not asked[1].calls


async def test_every_try_counts_in_the_usage() -> None:
    provider, _ = made(withheld(), (None, BOTH))
    answer = await provider.complete(CALL, None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 2)


async def test_an_answer_that_was_withheld_stays_one_where_nobody_else_answers() -> None:
    provider, asked = made(withheld(), (None, frozenset()), (DOWN, BOTH))
    assert (await provider.complete(CALL, None)).finish_reason is FinishReason.CONTENT_FILTER
    assert [len(one.calls) for one in asked] == [1, 0, 1]


async def test_where_all_fail_the_error_is_that_of_the_agents_own_model() -> None:
    provider, _ = made(DOWN, (ProviderRejected("other-0", 400), BOTH))
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, None)


async def test_an_agent_is_built_with_the_fallbacks_that_this_gateway_has() -> None:
    first, spare = ScriptedProvider("local", DOWN), ScriptedProvider("spare")
    registry = CollectorRegistry()
    providers = Providers({"local": first, "spare": spare})
    assert provider_of(make_config(), providers) is first, "an agent without fallbacks pays nothing for them"
    config = make_config(fallbacks=(Fallback("nowhere", "m"), Fallback("spare", "m2")))
    answer = await provider_of(config, providers, ModelMetrics(registry)).complete(CALL, None)
    assert (answer.message.content, answer.model) == ("spare", "m2")
    labels = {"provider": "local", "fallback": "spare", "failure": "down"}
    assert registry.get_sample_value("parley_provider_fallbacks_total", labels) == 1


async def test_a_fallback_is_sampled_its_own_way_but_for_what_the_request_says() -> None:
    first, other = ScriptedProvider("first", DOWN), ScriptedProvider("other")
    own = Fallback("other", "n", sampling=Sampling(temperature=1.0, max_output_tokens=900, stop=("b",)))
    agent = make_config(provider="first", sampling=Sampling(0.2, 0.9, 100, ("a",), 7), fallbacks=(own,))
    provider = provider_of(agent, Providers({"first": first, "other": other}))
    asked = replace(agent.sampling, max_output_tokens=5)  # by the request
    await provider.complete(replace(CALL, sampling=asked), None)
    assert first.calls[0].sampling == asked
    assert other.calls[0].sampling == Sampling(1.0, 0.9, 5, ("b",), 7)
