"""The dependencies that this gateway can reach."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from access.key_cache import KeyCache
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC
from chat_gateway.ports import KnownConfigs
from servicekit.server import GrpcServer
from servicekit.supervision import restarting

CHECK_SECONDS = 2.5
RECHECK_SECONDS = 0.5
"""The interval of checks while a peer is not serving."""
CHECK_TIMEOUT = 1.0


class Readiness:
    """Asks the peers' health every 2.5 s, more often while one does not serve.

    The last result is kept, so probes cost nothing and never wait. Ready means that a turn of a known agent can run, so
    session_svc must be serving; while config_svc is unavailable, the gateway uses its cache and reports that. A failing
    provider is reported but does not make the gateway unready, since other gateways use it too. A new gateway has an
    empty cache: it is ready, and counts as started, once config_svc has its templates.
    """

    def __init__(
        self,
        config_channel: grpc.aio.Channel,
        session_channel: grpc.aio.Channel,
        configs: KnownConfigs,
        keys: KeyCache | None = None,
        providers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._providers = providers
        self._health = {
            CONFIG_SVC: health_pb2_grpc.HealthStub(config_channel),
            SESSION_SVC: health_pb2_grpc.HealthStub(session_channel),
        }
        self._unreachable_since: dict[str, float | None] = {name: time.monotonic() for name in self._health}
        self._configs = configs
        self._keys = keys
        self._published = False
        self._draining = False
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether turns can be run."""
        return self.started and self._unreachable_since[SESSION_SVC] is None

    @property
    def started(self) -> bool:
        """Whether this gateway has started and does not drain, whatever its peers do since."""
        return self._published and not self._draining

    def report(self) -> Mapping[str, str]:
        """Returns `ok` or the problem for each dependency."""
        parts = {
            name: "ok" if since is None else _unreachable(since) for name, since in self._unreachable_since.items()
        }
        if self._unreachable_since[CONFIG_SVC] is not None and len(self._configs):
            parts[CONFIG_SVC] += f", serving the {len(self._configs)} agent configs known here"
        parts["config_watch"] = "ok" if self._configs.watching else "down: configs are checked before use"
        parts["templates"] = "ok" if self._published else "not published yet"
        if self._keys is not None and not self._keys.watching:
            known = f"the {len(self._keys)} API keys known here go on unchecked"
            parts["access_watch"] = f"down: {known if self._keys.unreachable else 'API keys are checked before use'}"
        elif self._keys is not None:
            parts["access_watch"] = "ok"
        parts |= self._providers()
        parts |= {name: f"restarts after a fault ({fault})" for name, fault in restarting().items()}
        if self._draining:
            parts["chat_gateway"] = "draining"
        return parts

    def published(self) -> None:
        """Notes that config_svc has the templates of this gateway."""
        self._published = True
        self._changed.set()

    def drain(self) -> None:
        """Turns readiness off for good, since this process is about to stop."""
        self._draining = True

    async def publish(self, server: GrpcServer, services: Sequence[str]) -> None:
        """Keeps the server's health equal to `ready`, for ever; meant to run as a background task."""
        while True:
            self._changed.clear()
            if self.started:
                await server.set_started()
            for service in ("", *services):
                await server.set_serving(service, self.ready)
            await self._changed.wait()

    async def follow(self) -> None:
        """Checks for ever; meant to be a background task."""
        while True:
            await asyncio.gather(*(self._check(name) for name in self._health))
            serving = all(since is None for since in self._unreachable_since.values())
            await asyncio.sleep(CHECK_SECONDS if serving else RECHECK_SECONDS)

    async def _check(self, name: str) -> None:
        serves, served = await self._serves(name), self._unreachable_since[name] is None
        if serves != served:
            self._unreachable_since[name] = None if serves else time.monotonic()
            self._changed.set()

    async def _serves(self, name: str) -> bool:
        try:
            answer = await self._health[name].Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _unreachable(since: float) -> str:
    return f"unreachable for {time.monotonic() - since:.0f} s"
