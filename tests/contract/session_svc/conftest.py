"""Every contract test of the stores runs on every adapter: memory, one Redis, and a Redis cluster."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.session_svc.bench import Bench, memory_bench, redis_bench

URLS = {"redis": "redis_url", "cluster": "cluster_url"}


@pytest.fixture(params=["memory", *URLS])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield memory_bench()
        return
    async with redis_bench(request.getfixturevalue(URLS[request.param])) as made:
        yield made
