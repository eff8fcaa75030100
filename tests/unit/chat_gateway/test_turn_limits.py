"""The limits of a turn: which it counts in, and that whatever becomes of it they are released."""

import asyncio
from collections.abc import Iterator

import pytest

from access.caller import ANONYMOUS, CHAT, Caller, CallerLimits, set_current
from chat_gateway.leases import LeaseTimes
from chat_gateway.limits import held, turn_limits
from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.turn import LimitState, TurnLimit, TurnStarted
from servicekit.errors import Code, ServiceError, Unavailable
from tests.doubles.chat_gateway.sessions import remote
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, asks, make_config

KEY = Caller("ak-1", "default", frozenset({CHAT}), limits=CallerLimits(requests_per_minute=60, concurrent_turns=2))
BY_KEY = TurnLimit("key:ak-1", 60, 2)
QUICK = LeaseTimes(renew_after=0.01, renew_interval=0.02, retry_pause=0.01)
UNKNOWN = Unavailable("session_svc")


@pytest.fixture(autouse=True)
def by_key() -> Iterator[None]:
    set_current(KEY)
    yield
    set_current(ANONYMOUS)


def test_most_turns_have_no_limit() -> None:
    assert turn_limits(ANONYMOUS, make_config()) == ()
    assert turn_limits(Caller("ak-1", "default", frozenset()), make_config()) == ()


def test_a_turn_counts_for_its_key_and_waits_for_its_agent() -> None:
    config = make_config(uid="u1", max_concurrent_turns=3, requests_per_minute=90)
    assert turn_limits(KEY, config) == (BY_KEY, TurnLimit("agent:u1", 90, 3, wait=True))
    assert turn_limits(ANONYMOUS, make_config(uid="u1", requests_per_minute=90)) == (
        TurnLimit("agent:u1", 90, 0, wait=True),
    )
    assert held(turn_limits(KEY, make_config(uid="u1", requests_per_minute=90))) == ("key:ak-1",)


@pytest.mark.parametrize("name", ["token: a b", "token:ü", "x" * 500])
def test_any_subject_has_a_plain_name(name: str) -> None:
    [limit] = turn_limits(Caller(name, "", frozenset(), limits=CallerLimits(1, 1)), make_config())
    assert len(limit.subject) < 200
    assert limit.subject.isascii()
    assert " " not in limit.subject


async def test_the_limits_go_with_begin_and_come_back_in_the_outcome() -> None:
    world = World()
    world.sessions.states = (LimitState("key:ak-1", 60, 59, 60.0),)
    started: list[TurnStarted] = []

    async def note(event: TurnStarted) -> None:
        started.append(event)

    async def ignore(_: object) -> None:
        pass

    outcome = await world.runner.run(asks("hi", session_id="s"), note, ignore)
    assert world.sessions.limits == [(BY_KEY,)]
    assert outcome.limits == started[0].limits == world.sessions.states
    assert world.sessions.aborted == []


@pytest.mark.parametrize("session_id", ["s", ""])
async def test_what_an_answer_that_never_came_may_have_taken_is_released(session_id: str) -> None:
    world = World(times=QUICK)
    world.sessions.begin_errors = [UNKNOWN]
    with pytest.raises(Unavailable):
        await world.runner.run(asks("hi", session_id=session_id))
    await world.aborts.close(10)
    assert world.sessions.aborted_limits == [("key:ak-1",)]


async def test_a_refusal_took_nothing() -> None:
    world = World()
    world.sessions.begin_errors = [remote("RATE_LIMITED", Code.RESOURCE_EXHAUSTED)]
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks("hi", session_id="s"))
    assert caught.value.reason == "RATE_LIMITED"
    await world.aborts.close(10)
    assert world.sessions.aborted == []
    assert not world.provider.calls


async def test_a_stateless_turn_takes_its_limits_and_frees_them_before_it_is_answered() -> None:
    world = World()
    world.sessions.states = (LimitState("key:ak-1", 60, 59, 60.0),)
    outcome = await world.runner.run(asks("hi", stateless=True))
    assert outcome.limits == world.sessions.states
    assert world.sessions.limits == [(BY_KEY,)]
    assert world.sessions.aborted_limits == [("key:ak-1",)]
    assert world.sessions.commits == 0


async def test_a_stateless_turn_and_limits_asks_nobody() -> None:
    set_current(ANONYMOUS)
    world = World()
    await world.runner.run(asks("hi", stateless=True))
    assert world.sessions.limits == []
    assert world.sessions.aborted == []


async def test_a_limit_on_requests_alone_has_nothing_to_free() -> None:
    set_current(ANONYMOUS)
    world = World(configs=FakeConfigs(make_config(requests_per_minute=5)))
    await world.runner.run(asks("hi", stateless=True))
    assert len(world.sessions.limits) == 1
    assert world.sessions.aborted == []


async def test_a_stateless_turn_that_fails_frees_its_limits() -> None:
    async def fail() -> None:
        raise ProviderUnavailable("local", "can't be reached")

    world = World(provider=FakeProvider(before=fail), times=QUICK)
    with pytest.raises(ProviderUnavailable):
        await world.runner.run(asks("hi", stateless=True))
    assert world.sessions.aborted_limits == [("key:ak-1",)]
    world.sessions.begin_errors = [UNKNOWN]
    with pytest.raises(Unavailable):
        await world.runner.run(asks("hi", stateless=True))
    await world.aborts.close(10)
    assert len(world.sessions.aborted_limits) == 2


async def test_a_long_turn_without_a_session_keeps_its_places_and_survives_when_it_can_not() -> None:
    async def slow() -> None:
        async with asyncio.timeout(60):
            while world.sessions.renew_errors or world.sessions.renewed < wanted:
                await asyncio.sleep(0.01)

    wanted = 0

    world = World(provider=FakeProvider(before=slow), times=QUICK)
    world.sessions.renew_errors = [remote("LEASE_LOST", Code.ABORTED)]
    assert (await world.runner.run(asks("hi", stateless=True))).message.content == "hello"
    world.sessions.renewed, wanted = 0, 3
    await world.runner.run(asks("hi", stateless=True))
    assert world.sessions.renewed > 2


async def test_an_older_revision_does_not_get_round_the_limits_of_now() -> None:
    set_current(ANONYMOUS)
    older = make_config(uid="u1", revision=1)
    now = make_config(uid="u1", revision=2, requests_per_minute=5, max_concurrent_turns=3)
    configs = FakeConfigs(now)
    configs.revisions["u1", 1] = older
    world = World(configs=configs)
    outcome = await world.runner.run(asks("hi", session_id="s", agent_revision=1))
    assert outcome.agent_revision == 1
    assert world.sessions.limits == [(TurnLimit("agent:u1", 5, 3, wait=True),)]
