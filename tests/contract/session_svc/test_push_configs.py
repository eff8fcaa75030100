"""Where notices of turns go: kept with the session, in Redis alone."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from servicekit.errors import InvalidArgument
from session_svc.model.errors import TurnNotFound
from session_svc.model.journal import NewEvents
from session_svc.model.push import PushConfig, PushTurn
from session_svc.model.session import SessionKey
from session_svc.redis_store.push_configs import MAX_OF_SESSION, MAX_OF_TURN, RedisPushConfigs
from tests.contract.session_svc.bench import Bench, redis_bench

pytestmark = pytest.mark.servers

TURN = PushTurn(SessionKey("default", "s1"), "", "t1")


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with redis_bench(redis_url) as made:
        yield made


@pytest.fixture
def configs(bench: Bench) -> RedisPushConfigs:
    assert bench.push_configs is not None
    return bench.push_configs


async def test_they_are_kept_replaced_and_removed(bench: Bench, configs: RedisPushConfigs) -> None:
    begun = await bench.begun("t1")
    assert await configs.list(TURN) == []
    first, second = PushConfig("a", bytes(range(256))), PushConfig("b", b"two")
    await configs.put(TURN, first)
    await configs.put(TURN, second)
    await bench.commit(begun)
    assert await configs.list(TURN) == [first, second]
    assert await configs.list(replace(TURN, turn_id="t2")) == []
    changed = PushConfig("a", b"one")
    await configs.put(TURN, changed)
    assert await configs.list(TURN) == [changed, second]
    for _ in range(2):
        await configs.delete(TURN, "a")
        assert await configs.list(TURN) == [second]
    await bench.turn("t2")
    assert await configs.list(TURN) == [second]


async def test_they_are_the_users_and_go_with_the_session(bench: Bench, configs: RedisPushConfigs) -> None:
    await bench.turn("t1", user="ann")
    anns = replace(TURN, user_id="ann")
    await configs.put(anns, PushConfig("a", b"one"))
    for other in (TURN, replace(TURN, user_id="bob"), replace(anns, key=SessionKey("default", "s2"))):
        with pytest.raises(TurnNotFound):
            await configs.put(other, PushConfig("b", b"two"))
        with pytest.raises(TurnNotFound):
            await configs.list(other)
        with pytest.raises(TurnNotFound):
            await configs.delete(other, "a")
    assert len(await configs.list(anns)) == 1
    await bench.sessions.delete(TURN.key)
    with pytest.raises(TurnNotFound):
        await configs.list(anns)


async def test_they_are_bounded(bench: Bench, configs: RedisPushConfigs) -> None:
    await bench.turn("t1")
    for turn in ("t1", "t2", "t3"):
        for number in range(MAX_OF_TURN):
            await configs.put(replace(TURN, turn_id=turn), PushConfig(str(number), b"x"))
        with pytest.raises(InvalidArgument):
            await configs.put(replace(TURN, turn_id=turn), PushConfig("more", b"x"))
        await configs.put(replace(TURN, turn_id=turn), PushConfig("0", b"y"))
    kept = [len(await configs.list(replace(TURN, turn_id=turn))) for turn in ("t1", "t2", "t3")]
    assert kept == [MAX_OF_SESSION - 2 * MAX_OF_TURN, MAX_OF_TURN, MAX_OF_TURN]


async def test_those_of_a_turn_that_failed_outlive_its_session_as_its_journal_does(
    bench: Bench, configs: RedisPushConfigs
) -> None:
    begun = await bench.begun("t1")
    await bench.journals.append(NewEvents(begun.lease, 1, (b"a",)))
    await configs.put(TURN, PushConfig("a", b"one"))
    await bench.turns.abort(begun.lease, b"end")
    assert await configs.list(TURN) == [PushConfig("a", b"one")]
