"""Turns that wait for a busy session, over real gRPC and real Redis, also across replicas."""

import asyncio
import contextlib
from dataclasses import replace

import grpc
import pytest
import redis
import redis.asyncio as aioredis

from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from servicekit.errors import Code
from tests.service.session_svc.replica import (
    INTERRUPT,
    LEASE_SECONDS,
    WAIT,
    Replica,
    refused,
    replica,
    texts,
)


async def queue_has(redis_url: str, waiting: int) -> None:
    """Waits until as many turns wait for session `s1`."""
    async with aioredis.from_url(redis_url) as client, asyncio.timeout(60):
        while await client.llen("{default:s1}:queue") != waiting:
            await asyncio.sleep(0.01)


async def test_waiting_is_fair_across_replicas(redis_url: str) -> None:
    # Whoever is not woken looks again by itself only after the callers' deadline.
    async with replica(redis_url) as one, replica(redis_url) as two:
        running = await one.begin()
        order: list[int] = []

        async def wait_for_turn(number: int) -> None:
            svc = (one, two)[number % 2]
            begun = await svc.begin(busy=WAIT)
            order.append(number)
            await svc.commit(begun, str(number))

        waiters = []
        for number in range(8):
            waiters.append(asyncio.create_task(wait_for_turn(number)))
            await queue_has(redis_url, number + 1)
        await one.commit(running, "first")
        await asyncio.gather(*waiters)
        assert order == list(range(8))
        assert texts(await one.begin()) == ["first", *map(str, range(8))]


async def test_a_wait_ends_before_the_deadline(svc: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_svc.turns.ANSWER_MARGIN", 30.0)
    await svc.begin()
    for timeout in (30.5, 29.0):
        with refused("SESSION_BUSY") as outcome:
            await svc.begin(timeout=timeout, busy=WAIT)
        assert outcome.error.retry_after > 0


async def test_the_queue_of_a_session_is_bounded(redis_url: str) -> None:
    async with replica(redis_url, queue_per_session=2) as svc:
        running = await svc.begin()
        waiters = [asyncio.create_task(svc.begin()) for _ in range(2)]
        await queue_has(redis_url, 2)
        with refused("TURN_QUEUE_FULL") as outcome:
            await svc.begin()
        assert outcome.error.code is Code.RESOURCE_EXHAUSTED
        assert outcome.error.quota_subject == "session:s1"
        await svc.commit(running)
        done, _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        await svc.commit(done.pop().result())
        await asyncio.gather(*waiters)


async def test_a_cancelled_waiter_gives_up_its_place(svc: Replica, redis_url: str) -> None:
    running = await svc.begin()
    cancelled = asyncio.create_task(svc.begin(timeout=60))
    await queue_has(redis_url, 1)
    patient = asyncio.create_task(svc.begin(timeout=60))
    await queue_has(redis_url, 2)
    cancelled.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    await queue_has(redis_url, 1)
    await svc.commit(running)
    async with asyncio.timeout(50):  # less than the lease that a place of nobody would have got
        await patient


async def test_the_waiter_of_a_replica_that_died_holds_up_nobody_for_long(redis_url: str) -> None:
    async with replica(redis_url, claim=0.3) as svc:
        await svc.turn()
        running = await svc.begin()
        with redis.Redis.from_url(redis_url) as client:  # what a dead replica leaves: a ticket for which nobody comes
            client.rpush("{default:s1}:queue", "dead|deadbeef.1|9999999999999|0")
        await svc.commit(running)
        async with asyncio.timeout(50):  # less than a lease
            await svc.begin()


async def test_interrupt_across_replicas(redis_url: str) -> None:
    async with replica(redis_url) as one, replica(redis_url) as two:
        await one.turn(text="before")
        running = await one.begin()
        begun = await two.begin(busy=INTERRUPT)
        with refused("TURN_INTERRUPTED"):
            await one.renew(running)
        with refused("TURN_INTERRUPTED"):
            await one.commit(running, "lost")
        await one.abort(running)
        await two.commit(begun, "after")
        assert texts(await one.begin()) == ["before", "after"]


async def test_a_dead_holder_blocks_a_waiter_for_one_lease_at_most(redis_url: str) -> None:
    async with replica(redis_url) as svc, replica(redis_url, lease=1) as dead:
        await svc.turn()
        held = await dead.begin()
        begun = await svc.begin()
        waited_ms = begun.lease.expire_time.ToMilliseconds() - held.lease.expire_time.ToMilliseconds()
        assert waited_ms >= LEASE_SECONDS * 1000, "not before the other lease had run out"
        assert waited_ms < LEASE_SECONDS * 1000 + 50_000


async def test_a_replica_that_ends_sends_waiting_turns_to_another_and_leaves_no_place_behind(redis_url: str) -> None:
    async with replica(redis_url) as other, contextlib.AsyncExitStack() as channels:
        async with replica(redis_url, drain_timeout=60) as ending:
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ending.port}"))
            staying = replace(ending, turns=TurnServiceStub(channel))
            held = await other.begin()
            waiting = asyncio.create_task(staying.begin(timeout=60))
            renewing = asyncio.create_task(staying.renew(held, hold=30))
            await queue_has(redis_url, 1)
            assert not waiting.done()
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 30, "it did not wait for the turns that wait in it"
        with refused("DRAINING"):
            await waiting
        assert (await renewing).expire_time.ToMilliseconds() > 0
        next_in_line = asyncio.create_task(other.begin())
        await other.commit(held, "one")
        assert texts(await next_in_line) == ["one"]
