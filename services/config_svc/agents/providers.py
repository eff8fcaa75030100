"""Use cases of providers, which gateways publish for a limited time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from config_svc import paging
from config_svc.model.provider import (
    DEFAULT_TTL,
    MAX_TTL,
    MIN_TTL,
    GatewayProviders,
    Provider,
    union,
)
from config_svc.model.rules import check_duration
from config_svc.ports.store import Store
from servicekit.errors import Violations


class PublishedProviders:
    """The use cases."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def publish(self, gateway: str, providers: Sequence[Provider], ttl: timedelta | None) -> datetime:
        """Replaces a gateway's providers until the returned time. An empty list withdraws them."""
        found = Violations()
        check_duration(found, "ttl", ttl, minimum=MIN_TTL, maximum=MAX_TTL)
        held = DEFAULT_TTL if ttl is None else min(max(ttl, MIN_TTL), MAX_TTL)
        published = GatewayProviders(gateway.lower(), tuple(providers), self._clock() + held)
        published.check(found)
        found.check()
        await self._store.publish_providers(published)
        return published.expire_time

    async def list(self, *, size: int, token: str) -> tuple[Sequence[Provider], str]:
        """Reads one page of the providers of live gateways, and the token of the next, which is empty on the last."""
        limit = paging.page_size(size)
        bound = ("providers",)
        start = paging.read_token(bound, token, [str])[0] if token else ""
        known = union(await self._store.published_providers(self._clock()))
        left = [provider for name, provider in known.items() if name > start]
        page = left[:limit]
        return page, paging.make_token(bound, (page[-1].name,)) if len(left) > limit else ""
