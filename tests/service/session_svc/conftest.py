"""Replicas of session_svc for the tests in this folder."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.servers.redis_nodes import HURRIED_MS, RedisCluster
from tests.servers.stores import Choice
from tests.service.session_svc.replica import Replica, replica


@pytest.fixture
async def svc(redis_url: str) -> AsyncIterator[Replica]:
    """One replica with the settings of `replica`."""
    async with replica(redis_url) as made:
        yield made


@pytest.fixture(scope="package")
def own_cluster(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster whose nodes the tests of this folder may kill; `breakable` has it whole again for each."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers make a cluster")
    with RedisCluster(tmp_path_factory.mktemp("own-cluster"), node_timeout_ms=HURRIED_MS) as cluster:
        yield cluster


@pytest.fixture
def breakable(own_cluster: RedisCluster) -> Iterator[RedisCluster]:
    yield own_cluster
    own_cluster.mend()
    own_cluster.flush()
