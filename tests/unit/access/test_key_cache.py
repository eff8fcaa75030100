import asyncio
import time
from collections import Counter

import pytest

from access.api_key import digest_of, mark_secret_of, new_api_key
from access.errors import Unauthenticated
from access.key_cache import KeyCache, KeyTimes
from access.stranger_checks import OF_ONE_SOURCE_AT_ONCE
from servicekit.errors import Unavailable
from tests.unit.access.keys import Checker, Clock
from tests.unit.event_loop import settle


class World:
    def __init__(self, **options: object) -> None:
        self.clock, self.wall, self.checker = Clock(), Clock(), Checker()
        self.cache = KeyCache(self.checker, clock=self.clock, wall=self.wall, **options)  # type: ignore[arg-type]

    def pass_quietly(self, seconds: float) -> None:
        """Time passes, and the watch goes on beating."""
        self.clock.now += seconds
        self.cache.heard()


async def test_a_known_key_costs_no_second_check() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    caller = await world.cache.caller_of(key)
    assert (caller.id, caller.project) == ("k1", "acme")
    for _ in range(10):
        world.pass_quietly(0.25)
        assert await world.cache.caller_of(key) is caller
    assert len(world.checker.asked) == 1


async def test_garbage_is_refused_without_asking() -> None:
    world = World()
    key = world.checker.add()
    for wrong in (key[:-1], key + "x", key[:-1] + ("0" if key[-1] != "0" else "1"), "parley_sk_", "sk-1234"):
        with pytest.raises(Unauthenticated):
            await world.cache.caller_of(wrong)
    assert world.checker.asked == []


async def test_an_unknown_key_is_asked_about_once_in_a_while() -> None:
    world = World()
    key = new_api_key()
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await world.cache.caller_of(key)
    assert len(world.checker.asked) == 1
    world.clock.now += KeyTimes().refusal + 0.1
    with pytest.raises(Unauthenticated):
        await world.cache.caller_of(key)
    assert len(world.checker.asked) == 2


async def test_a_revocation_that_the_watch_tells_is_at_once() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key)
    del world.checker.good[key]
    assert world.cache.known(digest_of(key.encode())) is not None
    world.cache.heard(["other", "k1"])
    assert world.cache.known(digest_of(key.encode())) is None
    with pytest.raises(Unauthenticated):
        await world.cache.caller_of(key)


async def test_a_revocation_told_while_the_answer_is_on_its_way_is_not_lost() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    world.checker.gate = asyncio.Event()
    asking = asyncio.create_task(world.cache.caller_of(key))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.checker.asked == [key]
    del world.checker.good[key]
    world.cache.heard(["k1"])
    world.checker.gate.set()
    with pytest.raises(Unauthenticated):
        await asking


async def test_what_was_known_before_the_watch_began_is_checked_again() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.cache.watch_lost()
    del world.checker.good[key]  # and nobody pushes it
    world.clock.now += 0.1
    world.cache.watch_began()
    with pytest.raises(Unauthenticated):
        await world.cache.caller_of(key)


@pytest.mark.parametrize("silent", [True, False])
async def test_without_a_watch_a_revocation_is_seen_within_a_second(silent: bool) -> None:
    """Silent: the watch is stuck and does not know it. Else it is known to be down."""
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key)
    if not silent:
        world.cache.watch_lost()
    del world.checker.good[key]
    refused_after = None
    for step in range(20):
        try:
            await world.cache.caller_of(key)
        except Unauthenticated:
            refused_after = step * 0.1
            break
        world.clock.now += 0.1
    assert refused_after is not None
    assert 0.3 < refused_after < 1.0


async def test_while_nobody_can_be_asked_known_keys_go_on_for_a_bound() -> None:
    world = World(times=KeyTimes(max_age=60.0))
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.cache.watch_lost()
    world.checker.unreachable = True
    for _ in range(59):
        world.clock.now += 1.0
        assert (await world.cache.caller_of(key)).id == "k1"
        assert world.cache.unreachable
    world.clock.now += 2.0
    with pytest.raises(Unavailable):
        await world.cache.caller_of(key)
    with pytest.raises(Unavailable):
        await world.cache.caller_of(world.checker.add("k2"))
    world.checker.unreachable = False
    world.clock.now += 1.0
    assert (await world.cache.caller_of(key)).id == "k1"
    assert not world.cache.unreachable


async def test_a_check_that_hangs_holds_a_known_key_up_for_its_patience_only() -> None:
    world = World(times=KeyTimes(patience=0.02))
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.checker.gate = asyncio.Event()
    world.clock.now += 5.0
    async with asyncio.timeout(60):
        assert (await world.cache.caller_of(key)).id == "k1"
        assert (await world.cache.caller_of(key)).id == "k1"
    assert len(world.checker.asked) == 2
    await world.cache.close()


async def test_an_answer_that_comes_as_patience_ends_is_no_revocation() -> None:
    world = World(times=KeyTimes(patience=0.05))
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.clock.now += 5.0
    gate = world.checker.gate = asyncio.Event()
    asking = asyncio.create_task(world.cache.caller_of(key))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.04, gate.set)
    asyncio.get_running_loop().call_soon(
        time.sleep, 0.1
    )  # the loop lags: it finds the answer and the end of the wait in one turn
    assert (await asking).id == "k1"
    await world.cache.close()


async def test_a_revocation_seen_while_nobody_answers_ends_the_key() -> None:
    world = World(times=KeyTimes(patience=0.02))
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.clock.now += 5.0
    world.checker.gate = asyncio.Event()
    asking = asyncio.create_task(world.cache.caller_of(key))
    while len(world.checker.asked) < 2:
        await asyncio.sleep(0)  # no longer: its patience runs
    world.cache.heard(["k1"])
    with pytest.raises(Unauthenticated):
        await asking
    await world.cache.close()


async def test_a_key_ends_by_itself() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add(expire_time=world.wall.now + 10)
    await world.cache.caller_of(key)
    world.wall.now += 9.9
    assert await world.cache.caller_of(key)
    world.wall.now += 0.1
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await world.cache.caller_of(key)


async def test_many_requests_share_one_check() -> None:
    world = World()
    key = world.checker.add()
    callers = await asyncio.gather(*(world.cache.caller_of(key) for _ in range(50)))
    assert len({id(caller) for caller in callers}) == 1
    assert len(world.checker.asked) == 1


async def test_a_request_that_leaves_does_not_take_the_check_along() -> None:
    world = World()
    key = world.checker.add()
    world.checker.gate = asyncio.Event()
    first, second = (asyncio.create_task(world.cache.caller_of(key)) for _ in range(2))
    await settle()
    first.cancel()
    world.checker.gate.set()
    assert (await second).id == "k1"
    assert first.cancelled()


async def test_what_is_kept_is_bounded() -> None:
    world = World(limit=10)
    keys = [world.checker.add(f"k{number}") for number in range(30)]
    for key in keys:
        await world.cache.caller_of(key)
    assert len(world.cache) == 10
    for _ in range(30):
        with pytest.raises(Unauthenticated):
            await world.cache.caller_of(new_api_key())
    assert len(world.cache) == 10
    assert len(world.cache._refused) == 10
    asked = len(world.checker.asked)
    world.cache.watch_began()
    await world.cache.caller_of(keys[-1])
    assert len(world.checker.asked) == asked + 1


async def test_unknown_keys_can_not_flood_the_one_who_knows() -> None:
    world = World(max_checks=5)
    world.checker.gate = asyncio.Event()
    flood = [asyncio.create_task(world.cache.caller_of(new_api_key())) for _ in range(20)]
    await settle()
    assert len(world.checker.asked) == 5
    world.checker.gate.set()
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert sorted({type(outcome) for outcome in outcomes}, key=lambda kind: kind.__name__) == [
        Unauthenticated,
        Unavailable,
    ]


async def test_made_up_keys_take_no_check_from_keys_of_this_installation() -> None:
    secret = mark_secret_of("an operator key")
    world = World(mark_secret=secret)
    world.checker.gate = asyncio.Event()
    flood = [
        asyncio.create_task(world.cache.caller_of(made_up, "192.0.2.1"))
        for made_up in (new_api_key(mark_secret_of("an attacker's") if number % 2 else None) for number in range(400))
    ]
    await settle()
    assert len(world.checker.asked) == OF_ONE_SOURCE_AT_ONCE, "one source has no more of them checked at once"
    new = [world.checker.add(f"n{number}", key=new_api_key(secret)) for number in range(40)]
    old = [world.checker.add(f"o{number}") for number in range(4)]
    others = [asyncio.create_task(world.cache.caller_of(key, "192.0.2.1")) for key in new]
    others += [asyncio.create_task(world.cache.caller_of(key, "192.0.2.2")) for key in old]
    await settle()
    assert set(new + old) <= set(world.checker.asked), "each is being checked, behind the gate"
    world.checker.gate.set()
    assert [caller.id for caller in await asyncio.gather(*others)] == [f"n{n}" for n in range(40)] + [
        f"o{n}" for n in range(4)
    ]
    outcomes = Counter(type(outcome) for outcome in await asyncio.gather(*flood, return_exceptions=True))
    assert set(outcomes) == {Unauthenticated, Unavailable}
    assert not world.cache._strangers._sources


async def test_a_known_key_of_before_the_mark_is_as_good_in_a_flood() -> None:
    world = World(mark_secret=mark_secret_of("an operator key"))
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key, "192.0.2.1")
    world.cache.watch_began()  # it has to be checked again
    world.checker.gate = asyncio.Event()
    flood = [asyncio.create_task(world.cache.caller_of(new_api_key(), "192.0.2.1")) for _ in range(100)]
    asking = asyncio.create_task(world.cache.caller_of(key, "192.0.2.1"))
    await settle()
    assert world.checker.asked.count(key) == 2
    world.checker.gate.set()
    assert (await asking).id == "k1"
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_key_in_use_is_checked_now_and_then_unnoticed() -> None:
    world = World()
    world.cache.watch_began()
    key = world.checker.add()
    await world.cache.caller_of(key)
    world.pass_quietly(KeyTimes().refresh_after + 1)
    world.checker.gate = asyncio.Event()
    assert await world.cache.caller_of(key)
    assert await world.cache.caller_of(key)
    await settle()
    assert len(world.checker.asked) == 2
    world.checker.gate.set()
    await world.cache.close()
