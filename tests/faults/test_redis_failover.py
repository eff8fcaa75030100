"""The whole system on a Redis cluster of 3 primaries and 3 replicas, whose primaries are killed under load.

The clients and the checker are those of the history runs; `WAIT 1` is on. Three gateways, two session_svc.
"""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.history.run import Scenario, run
from tests.faults.history.story import report
from tests.servers.redis_nodes import HURRIED_MS, RedisCluster
from tests.servers.stores import Choice

SECONDS = 10.0
KILLS = 2
TAKE_OVER_SECONDS = 60.0


class Killer:
    """Kills one primary after the other, and lets each come back as a replica once another took its place."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self.took_over: list[float] = []
        """How long each slot was without a primary, in seconds."""

    async def run(self, folder: Path) -> None:
        while not (folder / "gateway0.log").exists():
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        for key in ("idx:project:{default}", "{default:s1}:meta")[:KILLS]:
            await asyncio.to_thread(self._kill, key)
            await asyncio.sleep(1)

    def _kill(self, key: str) -> None:
        victim = self._cluster.owner(key)
        victim.kill()
        began = time.monotonic()
        while self._cluster.owner(key) is victim:
            assert time.monotonic() - began < TAKE_OVER_SECONDS, f"nobody took the place of {victim.name}"
            time.sleep(0.02)
        self.took_over.append(time.monotonic() - began)
        self._cluster.mend()


async def test_failovers_of_a_cluster_make_no_anomaly(
    tmp_path: Path, server_choice: Choice, capsys: pytest.CaptureFixture[str]
) -> None:
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers make a cluster")
    with RedisCluster(tmp_path / "cluster", node_timeout_ms=HURRIED_MS) as cluster:
        settings = {"PARLEY_SESSION_REDIS_URL": cluster.url, "PARLEY_SESSION_WAIT_REPLICAS": "1"}
        scenario = Scenario(seed=1, seconds=SECONDS, pace=0, session_settings=settings, quiet_phases=False)
        killer = Killer(cluster)
        folder = tmp_path / "system"
        folder.mkdir()
        result, _ = await asyncio.gather(run(scenario, folder), killer.run(folder))
    with capsys.disabled():
        print(f"\n{report(result)}\nslots without a primary: {[round(s, 1) for s in killer.took_over]} s")
    assert not result.anomalies
    assert len(killer.took_over) == KILLS
    assert sum(1 for operation in result.history.operations if operation.acknowledgement) >= 10
