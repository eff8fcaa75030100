"""A primary and its replica: what an acknowledgement means with and without `wait_replicas`."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.session.v1 import session_service_pb2
from tests.servers.redis_nodes import PASSWORD, Node, ReplicatedRedis
from tests.servers.stores import Choice
from tests.service.session_svc.replica import UID, Replica, refused, replica, texts

pytestmark = pytest.mark.usefixtures("patient_with_stores")


@pytest.fixture
def pair(server_choice: Choice, tmp_path: Path) -> Iterator[ReplicatedRedis]:
    """A primary and one replica that this test may kill."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers have replicas")
    with ReplicatedRedis(tmp_path, replicas=1) as servers:
        yield servers


def url_of(node: Node) -> str:
    return f"redis://:{PASSWORD}@{node.address}/0"


def resume(pair: ReplicatedRedis) -> None:
    """Lets the replica go on, and waits until it has caught up."""
    pair.servers[1].resume()
    catch_up(pair.servers[0])


def catch_up(primary: Node) -> None:
    """Waits until the replica has all that was written up to now."""
    primary.client.set("written", "last")  # WAIT counts from the last write of its own connection
    assert primary.client.wait(1, 60_000) == 1


async def talk(svc: Replica, session: str, acknowledged: dict[str, list[str]], gone: asyncio.Event) -> None:
    """Has one turn after the other until Redis is gone, and notes which were acknowledged."""
    for n in itertools.count():
        try:
            begun = await svc.begin(session)
            while True:
                with contextlib.nullcontext() if gone.is_set() else contextlib.suppress(grpc.aio.AioRpcError):
                    await svc.commit(begun, f"{session} {n}")
                    break
        except grpc.aio.AioRpcError:
            return
        acknowledged.setdefault(session, []).append(f"{session} {n}")


async def resolved(call: Callable[[], Awaitable[Any]]) -> Any:
    """Returns the answer to a call that is made again for as long as replicas are too slow for it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


async def test_what_was_acknowledged_with_wait_outlives_the_primary(pair: ReplicatedRedis) -> None:
    acknowledged: dict[str, list[str]] = {}
    primary, follower = pair.servers
    gone = asyncio.Event()
    async with replica(url_of(primary), wait_replicas=1) as svc:
        talking = [asyncio.create_task(talk(svc, f"s{n}", acknowledged, gone)) for n in range(8)]
        async with asyncio.timeout(60):
            while sum(map(len, acknowledged.values())) < 100:
                await asyncio.sleep(0.02)
        gone.set()
        primary.kill()
        await asyncio.gather(*talking)
    follower.promote()
    async with replica(url_of(follower)) as svc:
        for session, said in acknowledged.items():
            found = await svc.said(session)
            assert found[: len(said)] == said
            assert len(found) <= len(said) + 1, "only what was under way may be there as well"


async def test_without_wait_it_may_not(pair: ReplicatedRedis) -> None:
    primary, follower = pair.servers
    async with replica(url_of(primary)) as svc:
        await svc.turn(text="known to the replica")
        catch_up(primary)
        follower.client.replicaof("127.0.0.1", 1)  # cut off: it waits for a primary that is not there
        await svc.turn(text="acknowledged")
        primary.kill()
    follower.promote()
    async with replica(url_of(follower)) as svc:
        assert texts(await svc.begin()) == ["known to the replica"]


async def test_a_commit_that_no_replica_has_is_unknown_until_a_repeat_resolves_it(pair: ReplicatedRedis) -> None:
    primary, follower = pair.servers
    async with replica(url_of(primary), wait_replicas=1, wait_timeout=1.0) as svc:
        request_id = {"request_id": "r1", "request_digest": b"d"}
        begun = await svc.begin(**request_id)
        follower.pause()
        with refused("PEER_UNAVAILABLE") as outcome:
            await svc.commit(begun, **request_id)
        assert outcome.error.metadata == {"peer": "redis replicas"}
        assert outcome.error.retry_after
        with refused("PEER_UNAVAILABLE"):
            await svc.commit(begun, **request_id)
        # The same request once more would be answered from what is stored, and with that be acknowledged.
        with refused("PEER_UNAVAILABLE") as outcome:
            await svc.begin(**request_id)
        assert outcome.error.metadata == {"peer": "redis replicas"}
        resume(pair)
        assert (await resolved(lambda: svc.commit(begun, **request_id))).turn_number == 1
        assert (await resolved(lambda: svc.begin(**request_id))).HasField("replayed_turn")
        primary.kill()
    follower.promote()
    async with replica(url_of(follower)) as svc:
        assert texts(await svc.begin()) == ["hi"]


async def test_a_fence_that_no_replica_has_is_not_acknowledged(pair: ReplicatedRedis) -> None:
    primary, follower = pair.servers
    request = session_service_pb2.DeleteSessionsRequest(agent_id="hello", agent_uid=UID, fence_agent=True)
    async with replica(url_of(primary), wait_replicas=1, wait_timeout=1.0) as svc:
        begun = await svc.begin()
        await resolved(lambda: svc.commit(begun))
        follower.pause()
        with refused("PEER_UNAVAILABLE"):
            await svc.sessions.DeleteSessions(request)
        resume(pair)
        await resolved(lambda: svc.sessions.DeleteSessions(request))
        primary.kill()
    follower.promote()
    async with replica(url_of(follower)) as svc:
        with refused("AGENT_DELETED"):
            await svc.begin()
