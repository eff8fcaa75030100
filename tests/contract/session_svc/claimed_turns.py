"""Turns that gateways lose, queue and take over, on every store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from session_svc.model.journal import ClaimedTurn, NewEvents, TurnProgress, TurnStage, TurnWatch, UnheardEnd
from session_svc.model.limits import PickupBounds
from session_svc.model.session import SessionKey
from session_svc.model.turn import Begun
from session_svc.ports import ClaimStore
from tests.contract.session_svc.bench import LIMITS, Bench, memory_bench, redis_bench

BOUNDS = replace(LIMITS, pickup=PickupBounds(wait_ms=60_000, queue_ms=600_000, max_lost=2, queued=3))
URLS = {"redis": "redis_url", "cluster": "cluster_url"}
STORES = ["memory", *(pytest.param(kind, marks=pytest.mark.servers) for kind in URLS)]


@asynccontextmanager
async def open_bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Yields the store that a fixture's parameter names."""
    if request.param == "memory":
        yield memory_bench(BOUNDS)
        return
    async with redis_bench(request.getfixturevalue(URLS[request.param]), BOUNDS) as made:
        yield made


def claims(bench: Bench) -> ClaimStore:
    assert bench.claims is not None
    return bench.claims


def watch(turn_id: str = "t1", session: str = "s1", user: str = "", project: str = "default") -> TurnWatch:
    return TurnWatch(SessionKey(project, session), user, turn_id)


async def begun(bench: Bench, turn_id: str = "t1", session: str = "s1", **more: object) -> Begun:
    """Begins a turn whose journal has what another gateway needs."""
    turn = await bench.begun(turn_id, session, **more)
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), b"request of " + turn_id.encode()))
    return turn


async def queued(bench: Bench, turn_id: str = "t1", session: str = "s1", **more: object) -> None:
    turn = await begun(bench, turn_id, session, **more)
    await claims(bench).hand_over(turn.lease, queued=True)


async def claimed(bench: Bench) -> ClaimedTurn:
    found = await claims(bench).claim()
    assert found is not None
    return found


async def lose_gateway(bench: Bench) -> None:
    await bench.pass_time(BOUNDS.lease_ms + 1)


async def forget(bench: Bench) -> None:
    assert bench.forget_waiting is not None
    await bench.forget_waiting(SessionKey("default", "s1"), "t1")


async def progress(bench: Bench, *which: str) -> TurnProgress:
    return await claims(bench).progress(watch(*which))


async def end_of(bench: Bench, *which: str) -> UnheardEnd | None:
    found = await progress(bench, *which)
    assert found.stage is TurnStage.ENDED
    assert found.ended is not None
    return found.ended.unheard
