"""What a turn may expect of `Sessions`: of the fake of the unit tests as of the client of a session_svc on Redis."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from callstream.client import CallStreamClient
from chat_gateway.clients.session_client import SessionClient
from chat_gateway.clients.turn_calls import turn_calls
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.journal import TurnBegun, UnwrittenEntries, event_place
from chat_gateway.model.stored_turn import Begun, Lease, Turn
from chat_gateway.model.turn import Delta, FinishReason, Message, TurnLimit, TurnRequest, Usage
from chat_gateway.ports import Sessions
from contract.enums import BusyPolicy, Role
from parley.session.v1.turn_service_pb2 import AppendTurnEventsRequest, WatchTurnRequest
from servicekit.errors import ServiceError
from tests.doubles.chat_gateway.sessions import FakeSessions
from tests.service.session_svc.replica import replica
from tests.unit.chat_gateway.world import asks, make_config

CONFIG = make_config(uid="5f0c7f0e-0000-4000-8000-000000000001")
LIMIT = TurnLimit("key:ak-1", 0, 1)


@pytest.fixture(params=["fake", pytest.param("session_svc", marks=pytest.mark.servers)])
async def sessions(request: pytest.FixtureRequest) -> AsyncIterator[Sessions]:
    if request.param == "fake":
        yield FakeSessions()
        return
    async with (
        replica(request.getfixturevalue("redis_url")) as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
        turn_calls(channel).open() as calls,
    ):
        yield SessionClient(calls, timeout=60, wait_timeout=60)


def ask(**changes: Any) -> TurnRequest:
    return asks("hi", **({"session_id": "s"} | changes))


def turn(turn_id: str, text: str = "hi") -> Turn:
    said = (Message(Role.USER, text), Message(Role.ASSISTANT, f"{text}!"))
    return Turn(turn_id, said, 1, Usage(1, 1), FinishReason.STOP, datetime.now(UTC), "m")


async def begin(
    sessions: Sessions, turn_id: str, request: TurnRequest | None = None, config: AgentConfig = CONFIG, **rest: Any
) -> Begun:
    return await sessions.begin(request or ask(), config, turn_id, rest.pop("digest", b""), **rest)


async def leased(sessions: Sessions, turn_id: str, request: TurnRequest | None = None) -> Lease:
    lease = (await begin(sessions, turn_id, request)).lease
    assert lease is not None
    return lease


async def commit(sessions: Sessions, lease: Lease, text: str = "hi", request_id: str = "", digest: bytes = b"") -> int:
    stored = await sessions.commit(lease, turn(lease.turn_id, text), CONFIG, request_id, digest)
    return stored.turn_number


async def refused(call: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.reason


async def test_what_is_committed_is_what_the_next_turn_sees(sessions: Sessions) -> None:
    first = await begin(sessions, "t1")
    assert (first.session_id, first.created, first.window) == ("s", True, ())
    assert first.lease is not None
    assert await commit(sessions, first.lease, "one") == 1
    second = await begin(sessions, "t2")
    assert not second.created
    assert [message.content for message in second.window] == ["one", "one!"]
    assert second.lease is not None
    assert second.lease.token > first.lease.token
    assert await commit(sessions, second.lease, "two") == 2


async def test_the_rest_of_a_journal_is_committed_with_its_turn(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    begun = TurnBegun(CONFIG.id, 1, True, datetime.now(UTC), b"request")
    first = await sessions.append(lease, 1, [begun])
    held, rest = replace(lease, journaled=True), UnwrittenEntries(2, (Delta("h"), Delta("i!")))
    stored = await sessions.commit(held, turn("t1"), CONFIG, "", b"", rest)
    again = await sessions.commit(held, turn("t1"), CONFIG, "", b"", rest)
    assert (stored.turn_number, stored.event_id) == (again.turn_number, again.event_id)
    assert event_place(stored.event_id) > event_place(first)


async def test_a_replica_that_does_not_know_commits_with_events_is_given_them_apart(redis_url: str) -> None:
    async with (
        replica(redis_url) as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
        turn_calls(channel).open() as calls,
    ):
        sessions = SessionClient(OlderReplica(calls), timeout=10, wait_timeout=20)
        lease = await leased(sessions, "t1")
        await sessions.append(lease, 1, [TurnBegun(CONFIG.id, 1, True, datetime.now(UTC), b"request")])
        rest = UnwrittenEntries(2, (Delta("hi!"),))
        stored = await sessions.commit(replace(lease, journaled=True), turn("t1"), CONFIG, "", b"", rest)
        watched = served.turns.WatchTurn(WatchTurnRequest(session_id="s", turn_id="t1"), timeout=30)
        events = [event async for page in watched for event in page.events]
    assert [event.WhichOneof("event") for event in events] == ["begun", "delta", "ended"]
    assert (stored.turn_number, stored.event_id) == (1, events[1].id)


class OlderReplica(CallStreamClient):
    """Calls a replica that does not know a field of the requests."""

    def __init__(self, calls: CallStreamClient) -> None:
        self._calls = calls

    async def call(self, method: Any, request: Any, *, timeout: float) -> Any:
        if isinstance(request, AppendTurnEventsRequest):
            request.ClearField("commit")
        return await self._calls.call(method, request, timeout=timeout)


async def test_a_session_that_is_made_has_an_id_of_its_own(sessions: Sessions) -> None:
    made = [await begin(sessions, turn_id, ask(session_id="")) for turn_id in ("t1", "t2")]
    assert all(begun.created and begun.session_id for begun in made)
    assert made[0].session_id != made[1].session_id


async def test_a_session_that_has_to_be_there_and_is_not(sessions: Sessions) -> None:
    assert await refused(begin(sessions, "t1", ask(session_must_exist=True))) == "SESSION_NOT_FOUND"


async def test_a_session_of_another_agent(sessions: Sessions) -> None:
    await commit(sessions, await leased(sessions, "t1"))
    other = replace(CONFIG, uid="5f0c7f0e-0000-4000-8000-000000000002")
    assert await refused(begin(sessions, "t2", config=other)) == "SESSION_AGENT_MISMATCH"


async def test_a_busy_session_rejects_who_asks_for_that(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    assert await refused(begin(sessions, "t2", ask(busy=BusyPolicy.REJECT))) == "SESSION_BUSY"
    assert await commit(sessions, lease) == 1
    assert (await begin(sessions, "t2", ask(busy=BusyPolicy.REJECT))).lease is not None


async def test_who_waits_begins_when_the_turn_before_has_ended_in_order(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    second = asyncio.create_task(begin(sessions, "t2"))
    await asyncio.sleep(0.1)
    third = asyncio.create_task(begin(sessions, "t3"))
    await asyncio.sleep(0.1)
    assert not second.done()
    await commit(sessions, lease, "one")
    begun = await asyncio.wait_for(second, 60)
    assert [message.content for message in begun.window] == ["one", "one!"]
    assert not third.done()
    assert begun.lease is not None
    await sessions.abort(begun.lease)
    assert (await asyncio.wait_for(third, 60)).lease is not None


async def test_an_interruption_ends_the_renewal_and_refuses_the_commit(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    renewal = asyncio.create_task(sessions.renew(lease, 10.0))
    await asyncio.sleep(0.1)
    interrupter = asyncio.create_task(begin(sessions, "t2", ask(busy=BusyPolicy.INTERRUPT)))
    assert await asyncio.wait_for(refused(renewal), 60) == "TURN_INTERRUPTED"
    assert await refused(commit(sessions, lease)) in ("TURN_INTERRUPTED", "LEASE_LOST")
    await sessions.abort(lease)
    begun = await asyncio.wait_for(interrupter, 60)
    assert begun.window == ()
    assert begun.lease is not None
    assert await commit(sessions, begun.lease) == 1


async def test_a_lease_that_was_released_commits_nothing(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    await sessions.abort(lease)
    await sessions.abort(lease)
    assert await refused(commit(sessions, lease, "late")) == "LEASE_LOST"
    assert await refused(sessions.renew(lease, 0.0)) == "LEASE_LOST"
    assert (await begin(sessions, "t2")).window == ()


async def test_a_holder_whose_session_went_on_is_fenced_off(sessions: Sessions) -> None:
    old = await leased(sessions, "t1")
    await sessions.abort(old)
    new = await leased(sessions, "t2")
    assert await refused(commit(sessions, old, "late")) == "LEASE_LOST"
    assert await commit(sessions, new, "one") == 1
    assert [message.content for message in (await begin(sessions, "t3")).window] == ["one", "one!"]


async def test_an_aborted_turn_takes_the_session_that_was_made_for_it_along(sessions: Sessions) -> None:
    await sessions.abort(await leased(sessions, "t1"))
    assert await refused(begin(sessions, "t2", ask(session_must_exist=True))) == "SESSION_NOT_FOUND"


async def test_a_begin_whose_answer_was_lost_is_aborted_without_its_token(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    await sessions.abort(replace(lease, token=0))
    assert (await begin(sessions, "t2", ask(busy=BusyPolicy.REJECT))).lease is not None


async def test_a_commit_that_is_repeated_stores_once(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    assert [await commit(sessions, lease), await commit(sessions, lease)] == [1, 1]
    assert len((await begin(sessions, "t2")).window) == 2


async def test_a_renewal_is_held_and_moves_the_end(sessions: Sessions) -> None:
    lease = await leased(sessions, "t1")
    start = asyncio.get_running_loop().time()
    renewed = await sessions.renew(lease, 0.3)
    assert asyncio.get_running_loop().time() - start >= 0.25
    assert renewed.expire_time >= lease.expire_time
    assert (renewed.turn_id, renewed.token) == (lease.turn_id, lease.token)


async def test_a_repeated_request_is_replayed_and_another_one_under_its_id_refused(sessions: Sessions) -> None:
    request, digest = ask(request_id="r-1"), b"\1" * 32
    first = await begin(sessions, "t1", request, digest=digest)
    assert first.lease is not None
    await commit(sessions, first.lease, "one", "r-1", digest)
    again = await begin(sessions, "t2", request, digest=digest)
    assert again.lease is None
    assert again.replayed is not None
    assert (again.replayed.id, again.replayed.number) == ("t1", 1)
    assert [message.content for message in again.replayed.messages] == ["one", "one!"]
    assert await refused(begin(sessions, "t3", request, digest=b"\2" * 32)) == "IDEMPOTENCY_KEY_REUSED"


async def test_places_in_limits_are_held_until_the_turn_ends(sessions: Sessions) -> None:
    begun = await begin(sessions, "t1", limits=(LIMIT,))
    assert begun.lease is not None
    assert begun.lease.limits == (LIMIT.subject,)
    assert await refused(begin(sessions, "t2", ask(session_id="other"), limits=(LIMIT,))) == "RATE_LIMITED"
    assert await refused(sessions.take_limits(ask(session_id="", stateless=True), "t3", (LIMIT,))) == "RATE_LIMITED"
    await commit(sessions, begun.lease)
    stateless = await sessions.take_limits(ask(session_id="", stateless=True), "t4", (LIMIT,))
    assert stateless.lease is not None
    assert (stateless.session_id, stateless.lease.session_id) == ("", "")
    assert await refused(begin(sessions, "t5", limits=(LIMIT,))) == "RATE_LIMITED"
    await sessions.abort(stateless.lease)
    assert (await begin(sessions, "t6", limits=(LIMIT,))).lease is not None
