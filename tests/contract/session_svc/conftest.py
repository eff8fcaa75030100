"""Every contract test of the stores runs on every adapter: memory, one Redis, twice, and a Redis cluster.

The turns of these tests are too short to be compressed; on the second Redis all are, whether that pays or not.
"""

from collections.abc import AsyncIterator

import pytest

from session_svc.redis_store import turn_codec as stored_turns
from tests.contract.session_svc.bench import Bench, memory_bench, redis_bench

URLS = {"redis": "redis_url", "redis, compressed": "redis_url", "cluster": "cluster_url"}


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.servers) for kind in URLS)])
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield memory_bench()
        return
    if request.param.endswith("compressed"):
        monkeypatch.setattr(stored_turns, "MIN_TURN_BYTES", 0)
        monkeypatch.setattr(stored_turns, "saves_enough", lambda size, compressed: True)
    async with redis_bench(request.getfixturevalue(URLS[request.param])) as made:
        yield made
