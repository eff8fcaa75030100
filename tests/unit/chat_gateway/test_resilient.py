"""One provider in its bad moments: retries, keys, the breaker, the limit on calls. No test waits for a real pause."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from chat_gateway.model.errors import TurnQueueFull
from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Delta
from chat_gateway.providers.breaker import BreakerBounds, CircuitBreaker, CircuitState
from chat_gateway.providers.health import ProvidersHealth
from chat_gateway.providers.keys import Keys
from chat_gateway.providers.resilient import ResilienceBounds, ResilientProvider
from servicekit.errors import ServiceError, StartupError
from tests.unit.chat_gateway.scripted_provider import CALL, ScriptedProvider

FAST = {"first_backoff": 0.0001, "max_backoff": 0.001}


def down(status: int = 502) -> ServiceError:
    return ProviderUnavailable("p", "is down", status=status)


def limited(retry_after: float | None = None) -> ServiceError:
    return ProviderRateLimited("p", retry_after=retry_after)


def make(*steps: Any, **bounds: Any) -> tuple[ResilientProvider, ScriptedProvider]:
    inner = ScriptedProvider("p", *steps)
    return ResilientProvider("p", Keys("p", lambda _: inner), ResilienceBounds(**{**FAST, **bounds})), inner


def wrong_key(status: int = 401) -> ServiceError:
    return ProviderMisconfigured("p", "refuses the key", status=status)


async def ignore(delta: Delta) -> None:
    pass


@pytest.mark.parametrize("on_delta", [None, ignore])
@pytest.mark.parametrize("failure", [down(), down(0), down(503), limited(), ProviderTimeout("p", "connect")])
async def test_a_call_that_failed_before_its_first_token_is_tried_again(failure: ServiceError, on_delta: Any) -> None:
    provider, inner = make(failure, failure)
    answer = await provider.complete(CALL, on_delta)
    assert (answer.message.content, len(inner.calls), provider.retries) == ("p", 3, 2)


async def test_retries_are_bounded() -> None:
    provider, inner = make(*[down() for _ in range(9)])
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, None)
    assert len(inner.calls) == 3


@pytest.mark.parametrize(
    "failure",
    [ProviderRejected("p", 400), ProviderTimeout("p", "first_token"), ProviderBadResponse("p", "x"), limited(60.0)],
    ids=["rejected", "slow", "garbage", "asked for longer than the bound"],
)
async def test_what_a_retry_would_not_mend_is_not_tried_again(failure: ServiceError) -> None:
    provider, inner = make(failure)
    with pytest.raises(type(failure)):
        await provider.complete(CALL, ignore)
    assert len(inner.calls) == 1


async def test_after_a_token_there_is_no_second_try() -> None:
    provider, inner = make(["tok", down()])
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, ignore)
    assert len(inner.calls) == 1


@pytest.mark.parametrize(
    ("asked", "jitter", "pause"), [(None, 0.5, 0.125), (2.0, 0.5, 2.125), (4.9, 1.0, 5.0), (5.1, 0.0, None)]
)
def test_a_pause_is_what_was_asked_for_and_jitter_within_the_bound(
    asked: float | None, jitter: float, pause: float | None
) -> None:
    bounds = ResilienceBounds(first_backoff=0.25, max_backoff=5.0)
    provider = ResilientProvider("p", Keys("p", lambda _: ScriptedProvider("p")), bounds, jitter=lambda: jitter)
    assert provider._pause(limited(asked), 0) == pause


async def test_a_provider_that_keeps_failing_is_left_alone_and_tried_again_later() -> None:
    now = 0.0
    bounds = BreakerBounds(min_failures=3, open_time=10.0)
    inner = ScriptedProvider("p", *[down() for _ in range(4)])
    breaker = CircuitBreaker(bounds, clock=lambda: now)
    registry = CollectorRegistry()
    provider = ResilientProvider(
        "p", Keys("p", lambda _: inner), ResilienceBounds(**FAST, breaker=bounds), breaker=breaker
    )
    health = ProvidersHealth({"p": provider}, registry)
    assert health.report() == {"provider:p": "ok"}
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, None)
    with pytest.raises(ProviderUnavailable) as caught:
        await provider.complete(CALL, None)
    assert (len(inner.calls), caught.value.retry_after) == (3, 10.0), "nobody asks it, and callers hear for how long"
    assert health.report() == {"provider:p": "circuit open"}
    assert registry.get_sample_value("parley_provider_circuit_state", {"provider": "p"}) == 2
    assert registry.get_sample_value("parley_provider_retries_total", {"provider": "p"}) == 2
    now = 10.0
    assert health.report() == {"provider:p": "circuit half-open"}
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, None)
    assert (len(inner.calls), provider.circuit) == (4, CircuitState.OPEN), "a probe that fails is not repeated"
    now = 20.0
    await provider.complete(CALL, None)
    assert provider.circuit is CircuitState.CLOSED


async def test_refusals_do_not_open_the_circuit() -> None:
    provider, _ = make(*[ProviderRejected("p", 400) for _ in range(9)], breaker=BreakerBounds(min_failures=3))
    for _ in range(9):
        with pytest.raises(ProviderRejected):
            await provider.complete(CALL, None)
    assert provider.circuit is CircuitState.CLOSED


async def test_calls_beyond_the_limit_wait_and_then_hear_so() -> None:
    provider, inner = make(max_concurrent_calls=1, max_wait=0.01)
    inner.gate = asyncio.Event()
    first = asyncio.create_task(provider.complete(CALL, None))
    while not inner.calls:
        await asyncio.sleep(0)
    with pytest.raises(TurnQueueFull):
        await provider.complete(CALL, None)
    assert (len(inner.calls), provider.running) == (1, 1)
    inner.gate.set()
    await first
    await provider.complete(CALL, None)
    assert provider.running == 0


def keyed(tmp_path: Path, steps: dict[str, Sequence[Any]], **bounds: Any) -> tuple[ResilientProvider, dict[str, Any]]:
    file = tmp_path / "keys"
    file.write_text("# ours\n" + "\n".join(steps) + "\n\n")
    made: dict[str, Any] = {}

    def make_one(key: str | None) -> ScriptedProvider:
        assert key is not None
        made[key] = ScriptedProvider("p", *steps.get(key, ()))
        return made[key]

    provider = ResilientProvider("p", Keys("p", make_one, files=[str(file)]), ResilienceBounds(**{**FAST, **bounds}))
    return provider, made


async def test_keys_are_used_in_turn(tmp_path: Path) -> None:
    provider, made = keyed(tmp_path, {"a": (), "b": (), "c": ()})
    for _ in range(6):
        await provider.complete(CALL, None)
    assert [len(one.calls) for one in made.values()] == [2, 2, 2]


@pytest.mark.parametrize("refusal", [limited(30.0), wrong_key(), wrong_key(403)])
async def test_a_key_that_is_refused_is_set_aside_and_the_others_go_on(tmp_path: Path, refusal: ServiceError) -> None:
    provider, made = keyed(tmp_path, {"a": [refusal], "b": ()}, max_retries=0)
    for _ in range(4):
        assert (await provider.complete(CALL, None)).message.content == "p"
    assert [len(one.calls) for one in made.values()] == [1, 4]
    assert provider.health == "1 of 2 keys set aside"


async def test_when_every_key_is_refused_the_caller_hears_it(tmp_path: Path) -> None:
    provider, made = keyed(tmp_path, {"a": [wrong_key()], "b": [wrong_key()]})
    with pytest.raises(ProviderMisconfigured):
        await provider.complete(CALL, None)
    assert [len(one.calls) for one in made.values()] == [1, 1]
    await provider.complete(CALL, None)


async def test_keys_follow_their_files(tmp_path: Path) -> None:
    provider, made = keyed(tmp_path, {"a": (), "b": ()})
    following = asyncio.create_task(provider.keys.follow(interval=0.001))
    kept = made["b"]
    try:
        (tmp_path / "keys").write_text("b\nc\n")
        async with asyncio.timeout(60):
            while "c" not in made:
                await asyncio.sleep(0.001)
        for _ in range(4):
            await provider.complete(CALL, None)
        assert [len(made[key].calls) for key in "abc"] == [0, 2, 2]
        assert made["b"] is kept, "a key that stays keeps what is known of it"
        (tmp_path / "keys").unlink()
        await asyncio.sleep(0.01)
        await provider.complete(CALL, None)
        assert len(provider.keys) == 2
    finally:
        following.cancel()


@pytest.mark.parametrize("content", [None, b"", b"# none\n", b"\xff\n"])
def test_a_file_without_a_key_is_refused_at_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match="the file of keys"):
        Keys("p", lambda _: ScriptedProvider("p"), files=[str(file)])
