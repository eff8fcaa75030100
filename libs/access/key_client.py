"""config_svc as the one who knows the API keys: CheckApiKey, and the watch that tells of revocations."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration

from access.binding import scopes_of
from access.caller import Caller, Limits
from access.errors import AT_THE_DOOR, Unauthenticated
from access.key_cache import CONFIG_SVC, CheckedKey, KeyCache, KeyTimes
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1.access_service_pb2_grpc import AccessServiceStub
from servicekit.channels import call, stream
from servicekit.errors import Code, RemoteError, ServiceError, Unavailable

if TYPE_CHECKING:
    # The generated type hints know an asyncio kind of each stub; at run time there is one kind.
    from parley.config.v1.access_service_pb2_grpc import AccessServiceAsyncStub

HEARTBEAT = 0.25
RECONNECT_PAUSE = 0.1

log = structlog.get_logger("access.keys")


class KeyClient:
    """The `KeyChecker` over gRPC. `timeout` bounds each check, in seconds."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float = 2.0) -> None:
        self._stub: AccessServiceAsyncStub = AccessServiceStub(channel)
        self._timeout = timeout

    async def check(self, key: str) -> CheckedKey:
        """See `KeyChecker.check`."""
        request = pb.CheckApiKeyRequest(key=key)
        try:
            response = await call(self._stub.CheckApiKey, request, timeout=self._timeout, peer=CONFIG_SVC)
        except RemoteError as error:
            if error.code is not Code.UNAUTHENTICATED:
                raise
            if error.metadata.get("credentials") == AT_THE_DOOR:
                log.error("config_svc refuses this service: do both have the same operator key?")
                raise Unavailable(CONFIG_SVC) from None
            raise Unauthenticated from None
        return checked_key(response.api_key)

    async def follow(self, cache: KeyCache, times: KeyTimes) -> None:
        """Tells the cache of every revocation, for ever; meant to be a background task."""
        while True:
            try:
                await self._follow_once(cache, times.silence)
            except ServiceError as error:
                log.info("access_watch_down", reason=error.reason)
            finally:
                cache.watch_lost()
            await asyncio.sleep(RECONNECT_PAUSE)

    async def _follow_once(self, cache: KeyCache, silence: float) -> None:
        request = pb.WatchAccessRequest(heartbeat_interval=Duration(nanos=int(HEARTBEAT * 1e9)))
        messages = stream(self._stub.WatchAccess, request, timeout=None, peer=CONFIG_SVC)
        first = True
        async with aclosing(messages):
            while True:
                try:
                    async with asyncio.timeout(silence):
                        message = await anext(messages, None)
                except TimeoutError:
                    raise Unavailable(CONFIG_SVC) from None
                if message is None:
                    return
                if first:
                    cache.watch_began()
                    first = False
                cache.heard(message.api_key_ids)


def checked_key(api_key: pb.ApiKey) -> CheckedKey:
    """Returns what an API key may do."""
    return CheckedKey(
        Caller(
            id=api_key.id,
            project=api_key.project,
            scopes=scopes_of(api_key.scopes, user_bound=bool(api_key.user_id)),
            user_id=api_key.user_id,
            limits=Limits(api_key.limits.requests_per_minute, api_key.limits.concurrent_turns),
        ),
        api_key.expire_time.ToNanoseconds() / 1e9 if api_key.HasField("expire_time") else None,
    )
