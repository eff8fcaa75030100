"""session_svc follows config_svc's feed; here the feed is a real gRPC server that tests write to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import redis

from parley.config.v1 import agent_config_pb2
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1.agent_config_service_pb2_grpc import (
    AgentConfigServiceServicer,
    add_AgentConfigServiceServicer_to_server,
)
from parley.session.v1 import session_service_pb2
from servicekit.errors import Code, RemoteError
from servicekit.rpc_status import to_grpc_status
from servicekit.supervision import restarting
from tests.service.session_svc.replica import UID, Replica, refused, replica


class Feed(AgentConfigServiceServicer):
    """Changes in memory; a cursor is the number of changes seen."""

    def __init__(self) -> None:
        self.changes: list[pb.WatchAgentConfigsResponse] = []
        self.alive = {UID}
        self.oldest = 0
        self.cursors: list[str] = []
        self.news = asyncio.Condition()
        self.port = 0
        self.server: Any = None

    async def WatchAgentConfigs(self, request: Any, context: Any) -> AsyncIterator[pb.WatchAgentConfigsResponse]:  # noqa: N802
        self.cursors.append(request.cursor)
        if request.cursor and not request.cursor.isdecimal():
            await self._fail(context, Code.INVALID_ARGUMENT, "INVALID_FIELD")
        position = int(request.cursor) if request.cursor else len(self.changes)
        if position < self.oldest:
            await self._fail(context, Code.OUT_OF_RANGE, "CURSOR_TOO_OLD")
        yield pb.WatchAgentConfigsResponse(cursor=str(position))
        while True:
            async with self.news:
                await self.news.wait_for(lambda: len(self.changes) > position)  # noqa: B023
            position += 1
            yield self.changes[position - 1]

    async def GetAgentConfig(self, request: Any, context: Any) -> pb.GetAgentConfigResponse:  # noqa: N802
        if request.uid not in self.alive:
            await self._fail(context, Code.NOT_FOUND, "AGENT_NOT_FOUND")
        config = agent_config_pb2.AgentConfig(project=request.project, id=request.id, uid=request.uid)
        return pb.GetAgentConfigResponse(agent_config=config)

    async def _fail(self, context: Any, code: Code, reason: str) -> None:
        await context.abort(*to_grpc_status(RemoteError(reason, code=code, reason=reason)))

    async def tell(self, change_type: Any, uid: str = UID, *, old_news: bool = False) -> None:
        """Adds a change; old news of a creation is of an agent that has been deleted since."""
        if change_type == pb.CHANGE_TYPE_DELETED:
            self.alive.discard(uid)
        elif change_type == pb.CHANGE_TYPE_CREATED and not old_news:
            self.alive.add(uid)
        config = agent_config_pb2.AgentConfig(project="default", id="hello", uid=uid)
        cursor = str(len(self.changes) + 1)
        self.changes.append(pb.WatchAgentConfigsResponse(cursor=cursor, change_type=change_type, agent_config=config))
        async with self.news:
            self.news.notify_all()

    async def start(self) -> None:
        """Serves on the same port as before, where there was one."""
        self.server = grpc.aio.server()
        add_AgentConfigServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(0)


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    made = Feed()  # type: ignore[abstract]
    await made.start()
    yield made
    await made.stop()


def following(redis_url: str, feed: Feed) -> Any:
    return replica(redis_url, config_target=f"127.0.0.1:{feed.port}")


async def listed(svc: Replica) -> list[str]:
    page = await svc.sessions.ListSessions(session_service_pb2.ListSessionsRequest())
    return sorted(session.id for session in page.sessions)


async def until(condition: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def cursor_is(redis_url: str, expected: str) -> None:
    async def kept() -> bool:
        with redis.Redis.from_url(redis_url) as client:
            return bool(client.get("follower:cursor") == expected.encode())

    await until(kept)


async def test_sessions_of_a_deleted_agent_go(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        await svc.turn("s1")
        await svc.turn("s2")
        await svc.turn("other", agent_id="other", agent_uid="uid-2")
        await feed.tell(pb.CHANGE_TYPE_DELETED)
        await cursor_is(redis_url, "1")
        assert await listed(svc) == ["other"]
        with refused("AGENT_DELETED"):
            await svc.begin("s3")


async def test_a_replica_goes_on_from_where_the_last_one_was(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        await svc.turn("s1")
    await feed.tell(pb.CHANGE_TYPE_UPDATED)
    await feed.tell(pb.CHANGE_TYPE_DELETED)
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "2")
        assert feed.cursors[-1] == "0"
        assert await listed(svc) == []


async def test_the_feed_may_be_away_and_come_back(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        await svc.turn("s1")
        await feed.stop()
        await svc.turn("s1")
        assert await svc.serves(), "sessions do not need config_svc"

        async def disconnected() -> bool:
            return bool(svc.registry.get_sample_value("parley_follower_connected") == 0.0)

        await until(disconnected)
        await feed.tell(pb.CHANGE_TYPE_DELETED)
        await feed.start()
        await cursor_is(redis_url, "1")
        assert await listed(svc) == []


async def test_a_cursor_that_is_too_old_is_made_up_for_by_asking(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        feed.alive.add("uid-2")
        await svc.turn("gone")
        await svc.turn("stays", agent_id="other", agent_uid="uid-2")
    for _ in range(3):
        await feed.tell(pb.CHANGE_TYPE_DELETED)
    feed.oldest = 3
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "3")
        assert await listed(svc) == ["stays"]
        with refused("AGENT_DELETED"):
            await svc.begin("new")
        await svc.begin("stays", agent_id="other", agent_uid="uid-2")


async def test_an_undeleted_agent_has_turns_again(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        await feed.tell(pb.CHANGE_TYPE_DELETED)
        await cursor_is(redis_url, "1")
        with refused("AGENT_DELETED"):
            await svc.begin()
        await feed.tell(pb.CHANGE_TYPE_CREATED)
        await cursor_is(redis_url, "2")
        await svc.turn()


async def test_old_news_of_a_delete_does_no_harm(redis_url: str, feed: Feed) -> None:
    await feed.tell(pb.CHANGE_TYPE_DELETED)
    await feed.tell(pb.CHANGE_TYPE_CREATED)
    with redis.Redis.from_url(redis_url) as client:
        client.set("follower:cursor", "0")  # a slow replica has put it back
    async with replica(redis_url) as svc:
        await svc.turn("s1")
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "2")
        assert await listed(svc) == ["s1"]


async def test_old_news_of_a_creation_does_no_harm(redis_url: str, feed: Feed) -> None:
    async with following(redis_url, feed) as svc:
        await cursor_is(redis_url, "0")
        await feed.tell(pb.CHANGE_TYPE_DELETED)
        await cursor_is(redis_url, "1")
        await feed.tell(pb.CHANGE_TYPE_CREATED, old_news=True)
        await cursor_is(redis_url, "2")
        with refused("AGENT_DELETED"):
            await svc.begin()


class DeletedMeanwhile(Feed):
    """An agent that is deleted, and fenced by another replica, right after it was first asked about."""

    redis_url = ""

    async def GetAgentConfig(self, request: Any, context: Any) -> pb.GetAgentConfigResponse:  # noqa: N802
        answer = await super().GetAgentConfig(request, context)
        self.alive.discard(request.uid)
        with redis.Redis.from_url(self.redis_url) as client:
            client.set(f"fence:{{default:{request.uid}}}", "hello")
        return answer


async def test_a_delete_while_a_creation_is_followed_stays(redis_url: str) -> None:
    feed = DeletedMeanwhile()  # type: ignore[abstract]
    feed.redis_url = redis_url
    await feed.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(feed.stop)
        svc = await stack.enter_async_context(following(redis_url, feed))
        await cursor_is(redis_url, "0")
        await feed.tell(pb.CHANGE_TYPE_CREATED)
        await cursor_is(redis_url, "1")
        with refused("AGENT_DELETED"):
            await svc.begin()


async def test_replicas_follow_side_by_side(redis_url: str, feed: Feed) -> None:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(following(redis_url, feed)) for _ in range(3)]
        await cursor_is(redis_url, "0")
        for n in range(20):
            await replicas[n % 3].turn(f"s{n}")
        await feed.tell(pb.CHANGE_TYPE_DELETED)
        await cursor_is(redis_url, "1")
        for svc in replicas:
            assert await listed(svc) == []
            with refused("AGENT_DELETED"):
                await svc.begin()


@pytest.mark.parametrize("key", ["agents", "follower:cursor", f"fence:{{default:{UID}}}", "idx:agent:{default:hello}"])
async def test_a_key_of_a_wrong_type_neither_ends_nor_stops_the_follower(redis_url: str, feed: Feed, key: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        if key.startswith(("agents", "idx")):
            client.set(key, "x")
        else:
            client.rpush(key, "x")
        async with following(redis_url, feed) as svc:

            async def served() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await svc.turn()
                    return True
                return False

            await until(lambda: _starts(feed))
            if not key.startswith("fence"):
                await until(served)  # the follower may not have removed the key yet
            await feed.tell(pb.CHANGE_TYPE_DELETED)

            async def gone() -> bool:
                return await listed(svc) == [] and client.get("follower:cursor") == b"1"

            await until(gone, 20)
            assert "follower" not in restarting()
            assert client.type(f"fence:{{default:{UID}}}") == b"string"


async def test_a_cursor_that_nobody_made_is_left_behind(redis_url: str, feed: Feed) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("follower:cursor", b"\xff")
        client.zadd("agents", {"x": 1, b"\xff": 2})
        async with following(redis_url, feed) as svc:
            await svc.turn()
            await feed.tell(pb.CHANGE_TYPE_DELETED)

            async def gone() -> bool:
                return await listed(svc) == [] and client.get("follower:cursor") == b"1"

            await until(gone, 20)


async def _starts(feed: Feed) -> bool:
    return bool(feed.cursors)
