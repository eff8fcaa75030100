"""Holders of a lease who never got it, and holders who are told that it is gone."""

import asyncio
from dataclasses import replace

from contract.enums import BusyPolicy
from session_svc.model.turn import Begun, Waiting
from tests.contract.session_svc.bench import Bench

UNKNOWN = {"token": 0}


async def test_an_answer_that_never_arrived_is_taken_back_by_its_turn_id(bench: Bench) -> None:
    lost = await bench.begun("t1")
    await bench.turns.abort(replace(lost.lease, **UNKNOWN))
    assert (await bench.begun("t2")).created


async def test_a_place_in_the_queue_is_taken_back_too(bench: Bench) -> None:
    holder = await bench.begun("t1")
    assert isinstance(await bench.begin("t2", wait_ms=60_000), Waiting)
    await bench.turns.abort(replace(holder.lease, turn_id="t2", **UNKNOWN))
    await bench.turns.abort(holder.lease)
    assert isinstance(await bench.begin("t3"), Begun)


async def test_another_turns_lease_is_left_alone(bench: Bench) -> None:
    holder = await bench.begun("t1")
    await bench.turns.abort(replace(holder.lease, turn_id="t2", **UNKNOWN))
    assert (await bench.commit(holder)).turn_number == 1


async def test_a_session_that_is_not_there_is_no_error(bench: Bench) -> None:
    holder = await bench.begun("t1", session="other")
    await bench.turns.abort(replace(holder.lease, key=replace(holder.lease.key, session_id="s1"), **UNKNOWN))


async def test_whoever_renewed_last_is_woken_when_the_lease_is_taken_away(bench: Bench) -> None:
    holder = await bench.begun("t1")
    waiter_id = bench.turns.new_waiter_id()
    await bench.turns.renew(holder.lease, waiter_id)
    told = asyncio.create_task(bench.turns.wait_for_wakeup(waiter_id, 600))
    await asyncio.sleep(0.05)
    assert not told.done()
    await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    await asyncio.wait_for(told, 60)
