"""Makes faults, one after the other in each of four lanes, by a plan that follows from the seed alone."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from parley_cli.errors import ChildDied, NotReady
from tests.faults.history.cluster import LEASE_SECONDS, Cluster, Service
from tests.faults.history.records import Fault

RESTART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a plan: after `pause` seconds, `kind` befalls `target` for `lasting` seconds."""

    pause: float
    kind: str
    target: str
    lasting: float


def plan(seed: int, lane: str, targets: list[str], kinds: dict[str, float], pace: float) -> Iterator[Planned]:
    """Yield the faults of one lane without end; `kinds` has a weight for each, `pace` is their mean distance."""
    draw = random.Random(f"{seed}:{lane}")
    names, weights = list(kinds), list(kinds.values())
    while True:
        [kind] = draw.choices(names, weights)
        longest = 2 * LEASE_SECONDS if kind == "pause" and draw.random() < 0.3 else 1.0
        yield Planned(draw.expovariate(1 / pace), kind, draw.choice(targets), draw.uniform(0.05, longest))


class Nemesis:
    """Runs the lanes until it is stopped; then everything is whole again."""

    def __init__(self, cluster: Cluster, seed: int, pace: float = 1.0) -> None:
        self.faults: list[Fault] = []
        self.complaints: list[str] = []
        """What did not come back, or did not leave, as it must."""
        self._cluster = cluster
        gateways = [service.name for service in cluster.gateways]
        replicas = [service.name for service in cluster.sessions]
        kinds = {"kill": 1.0, "pause": 1.5, "drain": 0.5}
        self._plans = [
            plan(seed, "services", gateways, kinds, pace),
            plan(seed, "replicas", replicas, kinds, 2 * pace),
            plan(seed, "stores", ["redis", "redis", "postgres", "config"], {"kill": 1.0, "pause": 1.0}, 3 * pace),
            plan(
                seed,
                "network",
                list(cluster.links),
                {"reset": 2.0, "cut": 2.0, "delay": 1.0, "blackhole": 1.0, "refuse": 1.0},
                0.5 * pace,
            ),
        ]

    async def run(self, until: float) -> None:
        """Make faults until `until` (`time.monotonic()`), each of them healed before this returns."""
        async with asyncio.TaskGroup() as lanes:
            for faults in self._plans:
                lanes.create_task(self._lane(faults, until))
        for link in self._cluster.links.values():
            link.heal()

    async def _lane(self, faults: Iterator[Planned], until: float) -> None:
        for fault in faults:
            await asyncio.sleep(min(fault.pause, max(until - time.monotonic(), 0.0)))
            if time.monotonic() >= until:
                return
            began = time.monotonic()
            if fault.target in self._cluster.links:
                await self._on_link(fault)
            elif fault.target in self._cluster.services:
                await self._on_service(fault)
            else:
                await self._on_store(fault)
            self.faults.append(Fault(fault.kind, fault.target, began, time.monotonic()))

    async def _on_link(self, fault: Planned) -> None:
        link = self._cluster.links[fault.target]
        match fault.kind:
            case "reset":
                link.reset()
            case "cut":
                link.cut()
            case "delay":
                link.delay(fault.lasting / 3)
            case "blackhole":
                link.blackhole()
            case "refuse":
                await asyncio.to_thread(link.refuse)
        if fault.kind in ("delay", "blackhole", "refuse"):
            await asyncio.sleep(fault.lasting)
            await asyncio.to_thread(link.heal)

    async def _on_service(self, fault: Planned) -> None:
        service = self._cluster.services[fault.target]
        match fault.kind:
            case "pause":
                service.pause()
                await asyncio.sleep(fault.lasting)
                service.resume()
                return
            case "kill":
                await asyncio.to_thread(service.kill)
                await asyncio.sleep(fault.lasting)
            case "drain":
                await self._drain(service)
        await asyncio.to_thread(self._bring_back, service)

    async def _drain(self, service: Service) -> None:
        try:
            await asyncio.to_thread(service.stop)
        except AssertionError as error:
            self.complaints.append(f"{service.name} did not drain: {error}")

    def _bring_back(self, service: Service) -> None:
        """Start a service as a supervisor does: again, if what it needs was away just then."""
        deadline = time.monotonic() + RESTART_SECONDS
        while time.monotonic() < deadline:
            try:
                service.start(RESTART_SECONDS)
            except ChildDied:
                time.sleep(0.2)
            except NotReady as error:
                self.complaints.append(f"{service.name} is not ready after {RESTART_SECONDS} s: {error}")
                return
            else:
                return
        self.complaints.append(f"{service.name} dies again and again")

    async def _on_store(self, fault: Planned) -> None:
        cluster = self._cluster
        processes = cluster.store_processes(fault.target) if fault.kind == "pause" else []
        if processes:
            for process in processes:
                process.suspend()
            await asyncio.sleep(fault.lasting)
            for process in reversed(processes):
                process.resume()
            return
        store, start = (
            (cluster.redis, cluster.start_redis)
            if fault.target == "redis"
            else (cluster.postgres, cluster.postgres.start)
        )
        await asyncio.to_thread(store.kill)
        await asyncio.sleep(fault.lasting)
        await asyncio.to_thread(start)
