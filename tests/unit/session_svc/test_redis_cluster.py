"""How commands find their node in a cluster, against nodes that answer what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import hiredis
import pytest
from redis.crc import key_slot

from session_svc.redis_client import cluster
from session_svc.redis_client.cluster import ClusterLink
from session_svc.redis_client.link import RedisUnavailable
from session_svc.wiring import open_redis
from tests.unit.session_svc.fake_redis import FakeNode

SLOT = key_slot(b"x")
pytestmark = pytest.mark.usefixtures("patient_with_stores")


@contextlib.asynccontextmanager
async def nodes(count: int) -> AsyncIterator[tuple[ClusterLink, list[FakeNode]]]:
    """A link to a cluster whose first node serves every slot; the others are empty."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(FakeNode().open()) for _ in range(count)]
        for node in made:
            node.slots = lambda: [(0, 16383, made[0])]
        [link], _ = await stack.enter_async_context(open_redis(f"redis+cluster://127.0.0.1:{made[0].port}", 1))
        yield cast("ClusterLink", link), made


def refusing(refusal: str, refused: str, times: int = 1) -> Callable[[str], str]:
    """Returns an answer that refuses one command so many times."""
    left = [times]

    def answer(command: str) -> str:
        if command == refused and left[0]:
            left[0] -= 1
            return f"-{refusal}"
        return f"+{command}"

    return answer


async def test_a_node_without_slots_is_asked_where_another_says_so() -> None:
    async with nodes(2) as (link, [owner, empty]):
        owner.answer = refusing(f"ASK {SLOT} 127.0.0.1:{empty.port}", "INCR x", times=9)
        replies = await link.send_in_order([("SET", "x", 1), ("INCR", "x"), ("WAIT", 1, 10)])
        assert replies == [b"SET x 1", b"INCR x", b"WAIT 1 10"]
        assert owner.ran == ["SET x 1", "INCR x", "WAIT 1 10"]
        assert empty.ran == ["ASKING", "INCR x", "ASKING", "WAIT 1 10"]


async def test_a_slot_that_moved_to_a_new_node_is_found_there_at_once_from_then_on() -> None:
    async with nodes(2) as (link, [old, new]):
        await link.ping()
        old.answer = refusing(f"MOVED {SLOT} 127.0.0.1:{new.port}", "GET x", times=9)
        new.slots = old.slots = lambda: [(0, SLOT - 1, old), (SLOT, SLOT, new), (SLOT + 1, 16383, old)]
        assert await link.send_in_order([("GET", "x")]) == [b"GET x"]
        assert await link.send_in_order([("GET", "x")]) == [b"GET x"]
        assert (old.ran, new.ran) == (["GET x"], ["GET x", "GET x"])
        assert await link.send_in_order([("GET", "y")]) == [b"GET y"]
        assert old.ran == ["GET x", "GET y"]


@pytest.mark.parametrize("refusal", ["TRYAGAIN wait", "CLUSTERDOWN wait", "LOADING wait", f"MOVED {SLOT} :1"])
async def test_what_a_node_can_not_run_now_is_sent_again_with_what_stands_behind_it(refusal: str) -> None:
    async with nodes(1) as (link, [node]):
        node.answer = refusing(refusal, "INCR x", times=2)
        replies = await link.send_in_order([("SET", "x", 1), ("INCR", "x"), ("GET", "x")], [("GET", "y")])
        assert replies == [b"SET x 1", b"INCR x", b"GET x", b"GET y"]
        assert node.ran == ["SET x 1", *["INCR x", "GET x"] * 3, "GET y"]


@pytest.mark.parametrize(
    "refusal", ["TRYAGAIN wait", f"MOVED {SLOT} 127.0.0.1:{{port}}", f"ASK {SLOT} 127.0.0.1:{{port}}"]
)
async def test_what_nobody_runs_is_given_up(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RETRY_PAUSES", (0.01,) * 4)
    async with nodes(1) as (link, [node]):
        node.answer = refusing(refusal.format(port=node.port), "GET x", times=99)
        with pytest.raises(RedisUnavailable) as outcome:
            await link.send_in_order([("GET", "y")], [("GET", "x"), ("GET", "z")])
        assert outcome.value.stage == 1
        assert node.ran.count("GET x") == 4


async def test_a_script_that_was_torn_apart_may_have_written() -> None:
    async with nodes(1) as (link, [node]):
        node.answer = refusing("ERR Script attempted to access a non local key in a cluster node", "EVALSHA a 1 x")
        with pytest.raises(RedisUnavailable):
            await link.send_in_order([("EVALSHA", "a", 1, "x")])
        assert node.ran == ["EVALSHA a 1 x"]


async def test_other_errors_stand_where_their_reply_would() -> None:
    async with nodes(1) as (link, [node]):
        node.answer = refusing("NOSCRIPT no", "EVALSHA a 1 x")
        error, reply = await link.send_in_order([("EVALSHA", "a", 1, "x"), ("GET", "x")])
        assert (type(error), str(error), reply) == (hiredis.ReplyError, "NOSCRIPT no", b"GET x")


async def test_nodes_that_are_no_primaries_any_more_are_left() -> None:
    async with nodes(2) as (link, [old, new]):
        await link.ping()
        generation = link.generation
        new.slots = old.slots = lambda: [(0, 16383, new)]
        link.demoted()
        async with asyncio.timeout(60):
            while await link.send_in_order([("GET", "x")]) and not new.ran:
                await asyncio.sleep(0.01)
        assert list(cast("Any", link)._links) == [f"127.0.0.1:{new.port}"]
        assert link.generation > generation


async def test_why_no_primary_answers_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        async def ping(self) -> None:
            raise RedisUnavailable("invalid username-password pair")

    async with nodes(1) as (link, _):
        await link.ping()
        monkeypatch.setattr(ClusterLink, "_link", lambda *_: Refused())
        with pytest.raises(RedisUnavailable) as outcome:
            await link.ping()
        assert outcome.value.why == "invalid username-password pair"
