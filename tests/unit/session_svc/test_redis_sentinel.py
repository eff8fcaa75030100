"""Which server Sentinels name as the primary."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from redis.exceptions import RedisError

from session_svc.redis_client import server, url
from session_svc.redis_client.link import NotSent
from session_svc.wiring import open_redis
from tests.unit.session_svc.fake_redis import FakeNode


@contextlib.asynccontextmanager
async def nodes(count: int) -> AsyncIterator[list[FakeNode]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeNode().open()) for _ in range(count)]


def naming(primary: FakeNode, flags: str = "master") -> Callable[[str], str]:
    state = {"name": "mine", "ip": "127.0.0.1", "port": primary.port, "flags": flags, "num-other-sentinels": 2}
    fields = [str(part) for pair in state.items() for part in pair]
    bulk = [f"${len(field)}\r\n{field}" for field in fields]
    return lambda _: "\r\n".join(["*1", f"*{len(bulk)}", *bulk])


def role(name: str) -> Callable[[str], str]:
    return lambda command: f"*1\r\n${len(name)}\r\n{name}" if command == "ROLE" else f"+{command}"


def url_of(sentinels: list[FakeNode]) -> str:
    return "redis+sentinel://" + ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels) + "/mine"


@pytest.mark.usefixtures("patient_with_stores")
async def test_most_sentinels_decide_and_those_that_do_not_answer_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(url, "ASK_SECONDS", 1.0)  # so that only the one that hangs takes longer
    monkeypatch.setattr(server, "CONNECT_SECONDS", 10.0)
    async with nodes(7) as [old, new, *sentinels]:
        old.answer = new.answer = role("master")
        cut_off, hangs, down, one, other = sentinels
        cut_off.answer, one.answer, other.answer = naming(old), naming(new), naming(new)
        hangs.answer = lambda _: ""
        down.answer = naming(old, "master,s_down")
        async with open_redis(url_of(sentinels), 1) as ([link], _), asyncio.timeout(60):
            await link.send_in_order([("GET", "x")])
        assert (old.ran, new.ran) == ([], ["ROLE", "GET x"])


@pytest.mark.usefixtures("patient_with_stores")
async def test_a_server_that_is_no_primary_is_not_used_until_another_is_named() -> None:
    async with nodes(3) as [replica, primary, sentinel]:
        replica.answer, primary.answer = role("slave"), role("master")
        sentinel.answer = naming(replica)
        async with open_redis(url_of([sentinel]), 1) as ([link], _), asyncio.timeout(60):
            with pytest.raises(NotSent):
                await link.send_in_order([("GET", "x")])
            sentinel.answer = naming(primary)
            while "GET x" not in primary.ran:
                with contextlib.suppress(NotSent):
                    await link.send_in_order([("GET", "x")])
                await asyncio.sleep(0.01)
            link.demoted()
            assert await link.send_in_order([("GET", "y")]) == [b"GET y"]
        assert set(replica.ran) == {"ROLE"}
        assert primary.ran == ["ROLE", "GET x", "ROLE", "GET y"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_connection_to_a_server_that_does_not_say_its_role_is_closed(cancelled: bool) -> None:
    async with nodes(2) as [primary, sentinel], asyncio.timeout(60):
        primary.answer = lambda _: ""
        sentinel.answer = naming(primary)
        dial = url.parse_redis_url(url_of([sentinel]))
        assert not isinstance(dial, list)
        dialling = asyncio.ensure_future(dial())
        while "ROLE" not in primary.ran:
            await asyncio.sleep(0.01)
        if cancelled:
            dialling.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError, RedisError)):
            await dialling
        while not primary.left:
            await asyncio.sleep(0.01)
