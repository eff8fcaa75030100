"""Checks API keys of config_svc's own callers directly, without RPCs."""

from contextlib import aclosing

import structlog

from access.binding import scopes_of
from access.caller import Caller, CallerLimits
from access.key_cache import CheckedKey, KeyCache
from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_feed import AccessFeed
from servicekit.backoff import Backoff
from servicekit.errors import ServiceError

_RECONNECT_SECONDS = 0.1

log = structlog.get_logger("config_svc.own_keys")


class OwnKeys:
    """Implements `access.key_cache.KeyChecker`."""

    def __init__(self, keys: ApiKeys, feed: AccessFeed) -> None:
        self._keys = keys
        self._feed = feed

    async def check(self, key: str) -> CheckedKey:
        """Returns the rights of the key. Raises `Unauthenticated`."""
        found = await self._keys.check(key)
        caller = Caller(
            id=found.id,
            project=found.project,
            scopes=scopes_of(found.scopes, user_bound=bool(found.user_id)),
            user_id=found.user_id,
            limits=CallerLimits(found.requests_per_minute, found.concurrent_turns),
        )
        return CheckedKey(caller, found.expire_time.timestamp() if found.expire_time is not None else None)

    async def follow(self, cache: KeyCache) -> None:
        """Reports every key that ends to the cache, for ever; meant to be a background task."""
        async for _ in Backoff(_RECONNECT_SECONDS, _RECONNECT_SECONDS):
            try:
                async with aclosing(self._feed.watch(None)) as ends:
                    await anext(ends)
                    cache.watch_began()
                    async for ended in ends:
                        cache.heard(ended)
            except ServiceError as error:
                log.debug("own_key_watch_down", reason=error.reason)
            finally:
                cache.watch_lost()
