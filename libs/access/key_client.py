"""Client of config_svc for API keys: CheckApiKey, and the watch of revocations."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration

from access.binding import scopes_of
from access.caller import NO_REQUESTS, Caller, CallerLimits, CallerRequests
from access.errors import CALL_CREDENTIALS, Unauthenticated
from access.key_cache import CONFIG_SVC, CheckedKey, KeyCache, KeyTimes
from contract.wire import HISTORY_POLICIES
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1.access_service_pb2_grpc import AccessServiceStub
from servicekit.backoff import Backoff
from servicekit.channels import call, stream
from servicekit.errors import Code, RemoteError, ServiceError, Unavailable
from servicekit.supervision import cancel_and_wait

if TYPE_CHECKING:
    # The generated type hints know an asyncio kind of each stub; at run time there is one kind.
    from parley.config.v1.access_service_pb2_grpc import AccessServiceAsyncStub

HEARTBEAT_SECONDS = 0.25
IDLE_HEARTBEAT_SECONDS = 5.0
IDLE_AFTER_SECONDS = 15.0
"""After this long without a look-up, a stuck watch need not be noticed within a second, so heartbeats are slow.

The first key looked up after that is checked, because the watch's last message is too old.
"""

RECONNECT_SECONDS = 0.1

log = structlog.get_logger("access.keys")


class KeyClient:
    """The `KeyChecker` over gRPC. `timeout` bounds each check, in seconds."""

    def __init__(
        self, channel: grpc.aio.Channel, *, timeout: float = 2.0, idle_after_seconds: float = IDLE_AFTER_SECONDS
    ) -> None:
        self._stub: AccessServiceAsyncStub = AccessServiceStub(channel)
        self._timeout = timeout
        self._idle_after_seconds = idle_after_seconds

    async def check(self, key: str) -> CheckedKey:
        request = pb.CheckApiKeyRequest(key=key)
        try:
            response = await call(self._stub.CheckApiKey, request, timeout=self._timeout, peer=CONFIG_SVC)
        except RemoteError as error:
            if error.code is not Code.UNAUTHENTICATED:
                raise
            if error.metadata.get("credentials") == CALL_CREDENTIALS:
                log.error("service_refused", peer=CONFIG_SVC, check="both need the same operator key")
                raise Unavailable(CONFIG_SVC) from None
            raise Unauthenticated from None
        return checked_key(response.api_key)

    async def follow(self, cache: KeyCache, times: KeyTimes) -> None:
        """Reports every revocation to the cache, for ever; meant to run as a background task."""
        idle_silence = 3 * IDLE_HEARTBEAT_SECONDS
        async for _ in Backoff(RECONNECT_SECONDS, RECONNECT_SECONDS):
            try:
                while True:
                    await self._follow_until(self._unused(cache), cache, HEARTBEAT_SECONDS, times.silence)
                    await self._follow_until(cache.asked.wait(), cache, IDLE_HEARTBEAT_SECONDS, idle_silence)
            except ServiceError as error:
                log.info("access_watch_down", reason=error.reason)
            finally:
                cache.watch_lost()

    async def _unused(self, cache: KeyCache) -> None:
        """Returns after a while without a look-up."""
        while True:
            cache.asked.clear()
            await asyncio.sleep(self._idle_after_seconds)
            if not cache.asked.is_set():
                return

    async def _follow_until(
        self, end: Coroutine[Any, Any, object], cache: KeyCache, heartbeat: float, silence: float
    ) -> None:
        """Follows one watch until `end` returns. Raises `ServiceError` if the watch ends earlier."""
        following = asyncio.create_task(self._follow_once(cache, heartbeat, silence), name="access watch")
        ending = asyncio.create_task(end, name="access watch in use")
        try:
            await asyncio.wait((following, ending), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                await following
        finally:
            await cancel_and_wait(following, ending)

    async def _follow_once(self, cache: KeyCache, heartbeat: float, silence: float) -> None:
        interval = Duration()
        interval.FromNanoseconds(int(heartbeat * 1e9))
        request = pb.WatchAccessRequest(heartbeat_interval=interval)
        messages = stream(self._stub.WatchAccess, request, timeout=None, silence=silence, peer=CONFIG_SVC)
        first = True
        async with aclosing(messages):
            async for message in messages:
                if first:
                    cache.watch_began(silence)
                    first = False
                cache.heard(message.api_key_ids)
        raise Unavailable(CONFIG_SVC)


def checked_key(api_key: pb.ApiKey) -> CheckedKey:
    """Returns the rights of an API key."""
    return CheckedKey(
        Caller(
            id=api_key.id,
            project=api_key.project,
            scopes=scopes_of(api_key.scopes, user_bound=bool(api_key.user_id)),
            user_id=api_key.user_id,
            limits=CallerLimits(api_key.limits.requests_per_minute, api_key.limits.concurrent_turns),
            requests=_requests(api_key.requests) if api_key.HasField("requests") else NO_REQUESTS,
        ),
        api_key.expire_time.ToNanoseconds() / 1e9 if api_key.HasField("expire_time") else None,
    )


def _requests(said: pb.ApiKeyRequests) -> CallerRequests:
    return CallerRequests(said.store if said.HasField("store") else None, HISTORY_POLICIES.get(said.history))
