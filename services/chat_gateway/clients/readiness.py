"""Which parts of the system this gateway can reach."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC
from chat_gateway.ports import KnownConfigs

CHECK_INTERVAL = 1.0
CHECK_TIMEOUT = 1.0


class Readiness:
    """Asks the peers' health once a second; keeps the last answer, so that a probe costs nothing and never waits.

    Ready means: a turn on an agent that this gateway knows can be run. So session_svc must serve; while config_svc is
    away the gateway goes on with what it knows and says so.
    """

    def __init__(
        self, config_channel: grpc.aio.Channel, session_channel: grpc.aio.Channel, configs: KnownConfigs
    ) -> None:
        self._health = {
            CONFIG_SVC: health_pb2_grpc.HealthStub(config_channel),
            SESSION_SVC: health_pb2_grpc.HealthStub(session_channel),
        }
        self._away_since: dict[str, float | None] = {name: time.time() for name in self._health}
        self._configs = configs
        self._draining = False

    @property
    def ready(self) -> bool:
        """Whether turns can be run."""
        return not self._draining and self._away_since[SESSION_SVC] is None

    def report(self) -> Mapping[str, str]:
        """Returns for each part `ok`, or what is wrong with it."""
        parts = {name: "ok" if since is None else _away(since) for name, since in self._away_since.items()}
        if self._away_since[CONFIG_SVC] is not None and len(self._configs):
            parts[CONFIG_SVC] += f", serving the {len(self._configs)} agent configs known here"
        parts["config_watch"] = "ok" if self._configs.watching else "down: configs are checked before use"
        if self._draining:
            parts["chat_gateway"] = "draining"
        return parts

    def drain(self) -> None:
        """Turns readiness off for good: this process is about to stop."""
        self._draining = True

    async def follow(self) -> None:
        """Checks for ever; meant to be a background task."""
        while True:
            await asyncio.gather(*(self._check(name) for name in self._health))
            await asyncio.sleep(CHECK_INTERVAL)

    async def _check(self, name: str) -> None:
        if await self._serves(name):
            self._away_since[name] = None
        elif self._away_since[name] is None:
            self._away_since[name] = time.time()

    async def _serves(self, name: str) -> bool:
        try:
            answer = await self._health[name].Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _away(since: float) -> str:
    return f"away for {time.time() - since:.0f} s"
