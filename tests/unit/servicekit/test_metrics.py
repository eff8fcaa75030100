import asyncio
import contextlib
import json
import time
from collections.abc import Mapping

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from structlog.testing import capture_logs

from servicekit.errors import StartupError
from servicekit.metrics import Down, EndpointLimits, State, call_duration, exposition, observe_tasks, serve_metrics


async def fetch(port: int | None, path: str, method: str = "GET") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, answer.content_type, await answer.text()


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("turns", "Turns.", registry=registry).inc(7)
    return registry


async def test_port_0_is_off() -> None:
    async with serve_metrics("127.0.0.1", 0) as port:
        assert port is None


async def test_metrics_and_liveness(free_port: int, registry: CollectorRegistry) -> None:
    async with serve_metrics("127.0.0.1", free_port, registry=registry) as port:
        assert port == free_port
        status, content_type, body = await fetch(port, "/metrics")
        assert (status, content_type) == (200, "text/plain")
        assert "turns_total 7.0" in body
        assert (await fetch(port, "/livez"))[0] == 200
        assert (await fetch(port, "/readyz"))[0] == 200
        assert (await fetch(port, "/secret"))[0] == 404
        assert (await fetch(port, "/metrics", "POST"))[0] == 405


async def test_readiness_tells_which_part_is_away(free_port: int) -> None:
    parts = {"postgres": True, "feed": True}

    async def check() -> Mapping[str, bool]:
        return parts

    async with serve_metrics("127.0.0.1", free_port, readiness=check):
        assert (await fetch(free_port, "/readyz"))[0] == 200
        parts["postgres"] = False
        status, _, body = await fetch(free_port, "/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "parts": {"postgres": "unavailable", "feed": "up"}}


async def test_readiness_says_why_a_part_is_unavailable(free_port: int) -> None:
    async def check() -> Mapping[str, State]:
        return {"postgres": Down("no such database"), "feed": Down("")}

    async with serve_metrics("127.0.0.1", free_port, readiness=check):
        status, _, body = await fetch(free_port, "/readyz")
    assert status == 503
    assert json.loads(body) == {
        "ready": False,
        "parts": {"postgres": "unavailable", "feed": "unavailable"},
        "reasons": {"postgres": "no such database"},
    }


async def test_readiness_warns_of_what_does_not_keep_the_service_from_its_work(free_port: int) -> None:
    async def check() -> Mapping[str, bool | str]:
        return {"redis": True, "redis policy": "may evict"}

    async with serve_metrics("127.0.0.1", free_port, readiness=check):
        status, _, body = await fetch(free_port, "/readyz")
    assert status == 200
    assert json.loads(body) == {
        "ready": True,
        "parts": {"redis": "up", "redis policy": "impaired"},
        "warnings": {"redis policy": "may evict"},
    }


@pytest.mark.parametrize("behaviour", ["hangs", "raises"])
async def test_a_check_that_fails_is_not_ready(free_port: int, behaviour: str) -> None:
    async def check() -> Mapping[str, bool]:
        if behaviour == "raises":
            raise KeyError("x")
        await asyncio.Event().wait()
        return {}

    limits = EndpointLimits(check_seconds=0.05)
    with capture_logs() as logs:
        async with serve_metrics("127.0.0.1", free_port, readiness=check, limits=limits):
            assert (await fetch(free_port, "/readyz"))[0] == 503
    assert [line["event"] for line in logs] == ["readiness_check_failed"]


async def test_a_flood_of_probes_makes_one_check_at_a_time(free_port: int) -> None:
    checks = under_way = most = 0
    released = asyncio.Event()

    async def check() -> Mapping[str, bool]:
        nonlocal checks, under_way, most
        checks, under_way = checks + 1, under_way + 1
        most = max(most, under_way)
        await released.wait()
        under_way -= 1
        return {"postgres": True}

    limits = EndpointLimits(check_seconds=30, request_seconds=30)
    async with serve_metrics("127.0.0.1", free_port, readiness=check, limits=limits), asyncio.timeout(60):
        flood = [await asyncio.open_connection("127.0.0.1", free_port) for _ in range(20)]
        for _, writer in flood:
            writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
        flood[0][1].transport.abort()  # whoever began it leaves
        assert (await fetch(free_port, "/livez"))[0] == 200
        released.set()
        answers = await asyncio.gather(*(reader.read() for reader, _ in flood[1:]))
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
        assert most == 1
        assert checks < 20
        for _, writer in flood:
            writer.close()


async def test_a_flood_of_scrapes_takes_little_of_the_loop(free_port: int, registry: CollectorRegistry) -> None:
    """Nobody gets an old exposition, and those who wait get one together."""
    labelled, writes = Gauge("wide", "w", ["x"], registry=registry), 0
    labelled.labels("x").set_function(lambda: slow())

    def slow() -> float:
        nonlocal writes
        writes += 1
        time.sleep(0.02)
        return writes

    async with serve_metrics("127.0.0.1", free_port, registry=registry), asyncio.timeout(60):
        answers = await asyncio.gather(*(fetch(free_port, "/metrics") for _ in range(20)))
        assert {status for status, _, _ in answers} == {200}
        assert writes < 10
        before = writes
        assert f"{before + 1}.0" in (await fetch(free_port, "/metrics"))[2]


async def test_started_is_not_ready(free_port: int) -> None:
    started = False

    async def redis_is_away() -> dict[str, bool]:
        return {"redis": False}

    async with serve_metrics("127.0.0.1", free_port, readiness=redis_is_away, started=lambda: started):
        assert (await fetch(free_port, "/startedz"))[0] == 503
        started = True
        assert (await fetch(free_port, "/startedz"))[0] == 200
        assert (await fetch(free_port, "/readyz"))[0] == 503


async def test_a_taken_port_is_named(taken_port: int) -> None:
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{taken_port}"):
        async with serve_metrics("127.0.0.1", taken_port):
            pass


@pytest.mark.parametrize("head", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "TLS"])
async def test_an_idle_connection_is_closed(free_port: int, head: bytes) -> None:
    limits = EndpointLimits(request_seconds=0.1)
    async with serve_metrics("127.0.0.1", free_port, limits=limits), asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
        writer.write(head)
        with contextlib.suppress(ConnectionResetError):  # closed before it read them
            assert await reader.read() == b""
        writer.close()


async def asked(port: int, head: bytes, *, ends: bool = False) -> bytes:
    """Returns all that is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        if ends:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def test_a_request_without_end_is_cut_off(free_port: int) -> None:
    async with serve_metrics("127.0.0.1", free_port), asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            answer = await asked(free_port, b"GET / HTTP/1.1\r\nx: " + b"x" * 20_000)
            assert answer.startswith(b"HTTP/1.1 431 ")
        assert (await fetch(free_port, "/livez"))[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET  /livez HTTP/1.1\r\n\r\n",
        b"GET livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/2.0\r\n\r\n",
        b"GET /li vez HTTP/1.1\r\n\r\n",
        b"G\xc3\xa9T /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nname : space\r\n\r\n",
        b"GET /livez HTTP/1.1\r\na: b\0c\r\n\r\n",
        b"GET /livez HTTP/1.1\na: b\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_a_malformed_head_is_refused(free_port: int, head: bytes) -> None:
    async with serve_metrics("127.0.0.1", free_port), asyncio.timeout(60):
        answer = await asked(free_port, head)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert (await asked(free_port, b"GET /livez?x=1 HTTP/1.0\r\nHost: a\r\nEmpty:\r\n\r\n")).endswith(b"ok\n")


async def test_half_a_head_is_refused(free_port: int) -> None:
    async with serve_metrics("127.0.0.1", free_port), asyncio.timeout(60):
        assert (await asked(free_port, b"GET /livez", ends=True)).startswith(b"HTTP/1.1 400 ")
        assert await asked(free_port, b"", ends=True) == b""


async def test_an_answer_that_is_not_read_does_not_hold_its_connection(free_port: int) -> None:
    registry = CollectorRegistry()
    Counter("large", "x" * 16_000_000, registry=registry)
    limits = EndpointLimits(write_seconds=0.2, max_connections=1)
    async with serve_metrics("127.0.0.1", free_port, registry=registry, limits=limits), asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", free_port, limit=1024)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        await reader.read(1)
        while True:  # its place is taken until it is cut off
            with contextlib.suppress(ConnectionError):
                if (await asked(free_port, b"GET /livez HTTP/1.1\r\n\r\n")).endswith(b"ok\n"):
                    break
            await asyncio.sleep(0.05)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1 << 20):
                taken += len(part)
        writer.close()
    assert taken < 16_000_000


async def test_a_source_cannot_take_all_places(free_port: int) -> None:
    limits = EndpointLimits(max_connections=4, max_connections_per_source=2)
    async with serve_metrics("0.0.0.0", free_port, limits=limits), asyncio.timeout(60):
        idle = [await asyncio.open_connection("127.0.0.1", free_port) for _ in range(4)]
        done, _ = await asyncio.wait(
            [asyncio.ensure_future(reader.read()) for reader, _ in idle[2:]], return_when=asyncio.ALL_COMPLETED
        )
        assert len(done) == 2
        reader, writer = await asyncio.open_connection("127.0.0.1", free_port, local_addr=("127.0.0.2", 0))
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"ok\n")
        for _, one in [*idle, (reader, writer)]:
            one.close()


async def test_connections_beyond_the_bound_are_closed(free_port: int) -> None:
    limits = EndpointLimits(max_connections=1)
    async with serve_metrics("127.0.0.1", free_port, limits=limits), asyncio.timeout(60):
        _, first = await asyncio.open_connection("127.0.0.1", free_port)
        await asyncio.sleep(0.05)
        reader, second = await asyncio.open_connection("127.0.0.1", free_port)
        assert await reader.read() == b""
        first.close()
        second.close()


async def test_leaving_closes_what_is_open(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60):
        async with serve_metrics("127.0.0.1", free_port):
            reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
            await asyncio.sleep(0.05)
        assert await reader.read() == b""
        writer.close()
    assert caplog.records == []


def test_openmetrics_is_given_to_those_who_ask(registry: CollectorRegistry) -> None:
    body, content_type = exposition(registry, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_one_histogram_a_registry(registry: CollectorRegistry) -> None:
    assert call_duration(registry) is call_duration(registry)
    assert call_duration(CollectorRegistry()) is not call_duration(registry)


async def test_tasks_are_counted_when_they_are_read(registry: CollectorRegistry) -> None:
    observe_tasks(registry)
    observe_tasks(registry)
    before = registry.get_sample_value("parley_asyncio_tasks")
    assert before == len(asyncio.all_tasks())
    done = asyncio.Event()
    tasks = [asyncio.create_task(done.wait()) for _ in range(3)]
    assert registry.get_sample_value("parley_asyncio_tasks") == before + 3
    done.set()
    await asyncio.gather(*tasks)
    assert registry.get_sample_value("parley_asyncio_tasks") == before
