"""Publishes to config_svc which providers and models this gateway has, for as long as it runs."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from google.protobuf.duration_pb2 import Duration

from chat_gateway.clients.stubs import CONFIG_SVC, Stubs
from parley.config.v1 import provider_service_pb2 as pb
from servicekit.backoff import Backoff
from servicekit.channels import call
from servicekit.errors import UNREACHABLE, ServiceError

log = structlog.get_logger(__name__)

_TIMEOUT = 5.0
_WITHDRAWAL_TIMEOUT = 1.0
_PAUSE_SECONDS = 0.5


class ProviderPublisher:
    """Publishes providers, by name with their models (none: any), under an id of this process.

    `ttl` and `pause`, between two attempts while config_svc is unavailable, are in seconds.
    """

    def __init__(
        self, stubs: Stubs, providers: Mapping[str, Sequence[str]], ttl: float, *, pause: float = _PAUSE_SECONDS
    ) -> None:
        self._stub = stubs.providers
        self._ttl = ttl
        self._pause = pause
        self._request = pb.PublishProvidersRequest(
            gateway_id=str(uuid.uuid4()),
            providers=[pb.Provider(name=name, models=models) for name, models in providers.items()],
        )
        held = Duration()
        held.FromTimedelta(timedelta(seconds=ttl))
        self._request.ttl.CopyFrom(held)

    async def publish(self) -> None:
        """Publishes once, retrying while config_svc is unavailable. Gives up if an older config_svc refuses."""
        async for _ in Backoff(self._pause, self._pause):
            try:
                await call(self._stub.PublishProviders, self._request, timeout=_TIMEOUT, peer=CONFIG_SVC)
                return
            except ServiceError as error:
                if error.code not in UNREACHABLE:
                    log.warning("providers_not_published", reason=error.reason, message=error.message)
                    return

    async def repeat(self) -> None:
        """Publishes for ever, often enough that two attempts may fail; meant to run as a background task."""
        while True:
            await asyncio.sleep(self._ttl / 3)
            await self.publish()

    async def withdraw(self) -> None:
        """Withdraws the publication for good; if that fails, it expires."""
        del self._request.providers[:]
        try:
            await call(self._stub.PublishProviders, self._request, timeout=_WITHDRAWAL_TIMEOUT, peer=CONFIG_SVC)
        except ServiceError as error:
            log.info("providers_not_withdrawn", reason=error.reason)
