"""Where the primary is, by what its Sentinels say."""

import asyncio
from collections import Counter

from session_svc.redis_client.address import RedisAddress
from session_svc.redis_client.connection import ask
from session_svc.redis_client.link import RedisFault, RedisUnavailable
from session_svc.redis_client.url import SentinelAddress, at

ASK_SECONDS = 0.4


class SentinelPlace:
    """The `Place` of the primary that Sentinels watch.

    All of them are asked at once, and what most say is taken: one alone may be cut off from the others and not know of
    a failover. Whether the server that they name is a primary is checked when it is connected to.
    """

    def __init__(self, address: SentinelAddress) -> None:
        self._address = address

    async def find(self) -> RedisAddress:
        """See `Place`. Takes at most `ASK_SECONDS`."""
        answers = await asyncio.gather(*(self._ask(sentinel) for sentinel in self._address.sentinels))
        named = Counter(answer for answer in answers if answer is not None)
        if not named:
            raise RedisFault(f"no Sentinel names a primary {self._address.primary!r}")
        [((host, port), _)] = named.most_common(1)
        return at(self._address.node, host, port)

    async def _ask(self, sentinel: RedisAddress) -> tuple[str, int] | None:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.primary)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                [answer] = await ask(sentinel, "session_svc_sentinel", question)
        except (OSError, TimeoutError, RedisUnavailable, RedisFault):
            return None
        return (answer[0].decode(), int(answer[1])) if isinstance(answer, list) and len(answer) == 2 else None
