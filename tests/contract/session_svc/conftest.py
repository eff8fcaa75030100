"""Every contract test of the stores runs on both adapters."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.session_svc.bench import Bench, memory_bench, redis_bench


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield memory_bench()
        return
    async with redis_bench(request.getfixturevalue("redis_url")) as made:
        yield made
