"""Clients that have one turn after the other through whatever happens to Redis, and know what must be stored."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from tests.service.session_svc.replica import Replica, replica

PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)


class Talker:
    """Has one turn after the other in a session of its own, and repeats what it does not know the outcome of."""

    def __init__(self, session: str, replicas: Sequence[Replica]) -> None:
        self.session = session
        self.acknowledged: list[str] = []
        self.last_at = 0.0
        self._replicas = itertools.cycle(replicas)

    async def run(self, stop: asyncio.Event) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                begun = await next(self._replicas).begin(self.session, timeout=3)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
                await asyncio.sleep(0.05)
            else:
                await self._commit(begun, f"{self.session} {number}")

    async def _commit(self, begun: Any, text: str) -> None:
        async with asyncio.timeout(180):
            while True:
                try:
                    await next(self._replicas).commit(begun, text)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.ABORTED:  # LEASE_LOST: nothing was stored
                        return
                    if error.code() not in PASSING:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    self.acknowledged.append(text)
                    self.last_at = asyncio.get_running_loop().time()
                    return


async def stored_in(replica: Replica, session: str) -> list[str]:
    """Returns what is stored; a busy machine may have the replica lose Redis once more after the last turn."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await replica.said(session)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def load(url: str, sessions: Sequence[str], **settings: Any) -> AsyncIterator[list[Talker]]:
    """Has two replicas of session_svc under load; in the end what is stored is what was acknowledged, in order."""
    async with replica(url, **settings) as one, replica(url, **settings) as two:
        stop = asyncio.Event()
        talkers = [Talker(session, [one, two]) for session in sessions]
        async with asyncio.TaskGroup() as group:
            for talker in talkers:
                group.create_task(talker.run(stop))
            yield talkers
            stop.set()
        for talker in talkers:
            stored = await stored_in(one, talker.session)
            lost = [text for text in talker.acknowledged if text not in stored]
            unasked = [text for text in stored if text not in talker.acknowledged]
            assert (stored, lost, unasked) == (talker.acknowledged, [], []), (
                f"lost {lost}, never acknowledged {unasked}"
            )


async def all_go_on(talkers: Sequence[Talker], seconds: float = 60) -> None:
    """Waits until each has had a turn acknowledged that began from now on."""
    now = asyncio.get_running_loop().time()
    before = {talker.session: len(talker.acknowledged) + 1 for talker in talkers}
    async with asyncio.timeout(seconds):
        while any(len(talker.acknowledged) <= before[talker.session] for talker in talkers):
            await asyncio.sleep(0.02)
    assert all(talker.last_at > now for talker in talkers)
