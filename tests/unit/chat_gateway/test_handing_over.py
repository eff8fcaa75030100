"""What a turn ends with that others could go on with, and can't here; and a session_svc that knows no such turns."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from access.caller import ANONYMOUS
from chat_gateway.aborts import Aborts, AbortTimes
from chat_gateway.agents.toolbox import NO_STEPS
from chat_gateway.clients.claim_client import ClaimClient
from chat_gateway.clients.stubs import make_stubs
from chat_gateway.leases import HeldLease, LeaseTimes
from chat_gateway.metrics import PickupMetrics
from chat_gateway.model.background import ClaimedTurn, NothingClaimed, ResumableTurn, TurnProgress, TurnStatus
from chat_gateway.model.errors import TurnHandedOver
from chat_gateway.model.provider_errors import ProviderTimeout
from chat_gateway.model.stored_turn import Lease
from chat_gateway.pickup import Pickups, PickupTimes
from chat_gateway.turn_stop import TurnStop
from contract.reasons import Reason
from servicekit.errors import Code, ServiceError, Unavailable
from tests.doubles.chat_gateway.sessions import FakeSessions, remote
from tests.unit.chat_gateway.world import World, asks

TIMES = AbortTimes(retry_pause=0.01, resolve=2)
NOT_FOUND = remote("TURN_NOT_FOUND", Code.NOT_FOUND)


class FakeClaims:
    """Knows one turn, or none: `error` is what it is asked for in vain."""

    def __init__(self, error: ServiceError | None = None) -> None:
        self.error = error
        self.handed_over: list[str] = []
        self.asked: list[tuple[str, ...]] = []
        self.claims = 0

    async def claim(self, hold: float) -> ClaimedTurn | NothingClaimed:
        self.claims += 1
        if self.error is not None:
            raise self.error
        return NothingClaimed()

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        self.handed_over.append(lease.turn_id)

    async def cancel(self, project: str, session_id: str, user_id: str, turn_id: str, timeout: float | None) -> None:
        raise NOT_FOUND

    async def progress(self, project: str, session_id: str, user_id: str, turn_id: str) -> TurnProgress:
        self.asked.append((project, session_id, user_id, turn_id))
        if self.error is not None:
            raise self.error
        return TurnProgress(TurnStatus.RUNNING, 2, "a", 1, None, None)


def goes_on_for(seconds: float) -> Lease:
    """Return the lease of a turn that others go on with."""
    return Lease("p", "s", "t", 7, datetime.now(UTC) + timedelta(seconds=seconds), journaled=True, goes_on=True)


async def end_of(
    claims: FakeClaims,
    error: ServiceError,
    sessions: FakeSessions,
    times: LeaseTimes = LeaseTimes(),
    left_seconds: float = 60,
    clock_off: timedelta = timedelta(),
) -> ServiceError:
    """Return what a turn that fails with `error` ends with, where others could go on with it."""
    aborts, lease = Aborts(sessions, TIMES, claims), goes_on_for(left_seconds)
    if clock_off:
        ends = time.monotonic() + left_seconds
        lease = replace(lease, expire_time=lease.expire_time - clock_off, ends=ends)
    with pytest.raises(ServiceError) as caught:
        async with TurnStop(60) as stop, HeldLease(lease, stop, sessions, aborts, times, "ann"):
            raise error
    await aborts.close(60)
    return caught.value


async def test_a_turn_that_is_taken_over_too_late_is_left_to_the_next_gateway() -> None:
    claims, sessions = FakeClaims(), FakeSessions()
    assert isinstance(await end_of(claims, remote("SESSION_BUSY", Code.ABORTED), sessions), TurnHandedOver)
    assert claims.handed_over == ["t"]
    assert sessions.aborted == [], "it is not ended: another gateway goes on with it"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, Reason.TURN_HANDED_OVER),
        (Unavailable("session_svc"), Reason.TURN_HANDED_OVER),
        (NOT_FOUND, Reason.LEASE_LOST),
    ],
    ids=["another gateway has it", "nobody knows", "its session was deleted"],
)
async def test_a_lost_lease_is_a_turn_handed_over_where_the_turn_is_still_known(
    answer: ServiceError | None, expected: Reason
) -> None:
    claims = FakeClaims(answer)
    ended = await end_of(claims, remote("LEASE_LOST", Code.ABORTED), FakeSessions())
    assert ended.reason == expected
    assert claims.asked == [("p", "s", "ann", "t")]
    assert claims.handed_over == []


@pytest.mark.parametrize(
    ("answers", "left_seconds", "expected"),
    [
        (True, 60, Reason.PROVIDER_TIMEOUT),
        (False, 60, Reason.TURN_HANDED_OVER),
        (True, -1, Reason.TURN_HANDED_OVER),
    ],
    ids=["it ends", "session_svc does not hear of it", "its lease was over"],
)
async def test_a_failure_is_the_turn_s_end_only_where_session_svc_knows_of_it(
    answers: bool, left_seconds: float, expected: Reason
) -> None:
    """A caller who is told that a turn has failed may send it again, while another gateway stores it."""
    sessions = FakeSessions()
    sessions.abort_errors = [] if answers else [Unavailable("session_svc")] * 1000
    failure = ProviderTimeout("openai", "answer")
    ended = await end_of(FakeClaims(), failure, sessions, LeaseTimes(end_wait=0.2 if not answers else 60), left_seconds)
    assert ended.reason == expected


async def test_so_is_a_timeout_of_the_turn() -> None:
    sessions = FakeSessions()
    sessions.abort_errors = [Unavailable("session_svc")] * 1000
    aborts = Aborts(sessions, TIMES, FakeClaims())
    with pytest.raises(TurnHandedOver):
        async with (
            TurnStop(0.1) as stop,
            HeldLease(goes_on_for(60), stop, sessions, aborts, LeaseTimes(end_wait=0.2), "ann"),
        ):
            await asyncio.sleep(60)
    await aborts.close(60)


@asynccontextmanager
async def older_session_svc() -> AsyncIterator[ClaimClient]:
    """A server that has none of the methods."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield ClaimClient(make_stubs(channel, channel), timeout=60)
    await server.stop(None)


async def test_an_older_session_svc_says_that_it_does_not_know_the_methods() -> None:
    lease = Lease("p", "s", "t", 7, datetime.now(UTC))
    async with older_session_svc() as claims:
        calls: list[Any] = [
            claims.claim(1.0),
            claims.hand_over(lease, queued=True),
            claims.cancel("p", "s", "", "t", 5),
            claims.progress("p", "s", "", "t"),
        ]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(end, "reason", end) for end in ends] == [Reason.NOT_IMPLEMENTED] * 4


@pytest.mark.parametrize(("pause", "rarely"), [(60.0, True), (0.0, False)])
async def test_an_older_session_svc_is_not_asked_all_the_time_and_plain_turns_run(pause: float, rarely: bool) -> None:
    world, claims = World(), FakeClaims(remote("NOT_IMPLEMENTED", Code.UNIMPLEMENTED))
    times = PickupTimes(interval=0.0, unknown_pause=pause)
    journals: Any = None  # no turn is taken over
    pickups = Pickups(world.runner, claims, journals, world.scheduler, times, PickupMetrics(CollectorRegistry()))
    following = asyncio.create_task(pickups.follow())
    for _ in range(50):
        await asyncio.sleep(0)
    assert (claims.claims == 1) is rarely
    assert (await world.runner.run(asks("hi", session_id="s"))).turn_number == 1
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_turn_that_was_taken_over_stays_its_holders_where_its_begin_is_not_answered() -> None:
    """An abort by who only asked for its window would free its session, and nobody would say how it ended."""
    world = World()
    world.sessions.begin_errors.append(Unavailable("session_svc"))
    asked = ResumableTurn(asks("hi", session_id="s"), ANONYMOUS, 1, b"", datetime.now(UTC))
    lease = Lease("default", "s", "t", 7, datetime.now(UTC) + timedelta(minutes=1), journaled=True, goes_on=True)
    claims = FakeClaims()
    world.aborts._claims = claims
    with pytest.raises(TurnHandedOver):
        await world.runner.go_on(lease, asked, NO_STEPS)
    await world.aborts.close(60)
    assert claims.handed_over == ["t"]
    assert world.sessions.aborted == []


@pytest.mark.parametrize("clock_off", [timedelta(hours=3), timedelta(hours=-3)], ids=["ahead", "behind"])
async def test_a_gateway_whose_clock_is_hours_off_knows_whether_its_lease_has_ended(clock_off: timedelta) -> None:
    late = remote("DEADLINE_EXCEEDED", Code.DEADLINE_EXCEEDED)
    ended = await end_of(FakeClaims(), late, FakeSessions(), left_seconds=-1, clock_off=clock_off)
    assert isinstance(ended, TurnHandedOver)
    sessions = FakeSessions()
    assert await end_of(FakeClaims(), late, sessions, left_seconds=60, clock_off=clock_off) is late
    assert sessions.aborted, "the lease is its own still: it ends the turn itself"
