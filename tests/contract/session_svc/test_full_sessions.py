"""A session with as many turns as it may keep, where the policy is to refuse."""

from dataclasses import replace

import pytest

from session_svc.model.errors import SessionFull
from session_svc.model.session import WhenFull
from tests.contract.session_svc.bench import LIMITS, Bench, memory_bench, redis_bench

FULL = replace(LIMITS, turns_per_session=3, when_full=WhenFull.REFUSE)


@pytest.mark.parametrize("adapter", ["memory", pytest.param("redis", marks=pytest.mark.servers)])
async def test_a_full_session_refuses_where_it_is_told_to(adapter: str, request: pytest.FixtureRequest) -> None:
    if adapter == "memory":
        await _fill_up(memory_bench(FULL))
        return
    async with redis_bench(request.getfixturevalue("redis_url"), FULL) as bench:
        await _fill_up(bench)


async def _fill_up(bench: Bench) -> None:
    for n in range(3):
        await bench.turn(f"t{n}")
    with pytest.raises(SessionFull):
        await bench.begin("t3")
    begun = await bench.begun("t0", session="other")
    await bench.commit(begun)
    assert not begun.full
    begun = await bench.begun("t4", may_cut=True)
    assert begun.full
    with pytest.raises(SessionFull):
        await bench.commit(begun)
    assert (await bench.commit(begun, cut_after=1)).turn_number == 2
    assert [turn[:2] for turn in (await bench.begun("t5")).window] == [b"t0", b"t4"]
