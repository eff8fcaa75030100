"""Pages of an index, by activity: members that a page has had do not come again."""

import math
from collections.abc import Sequence

from session_svc.model.session import ListPosition
from session_svc.redis_store.script_runner import RedisScripts

BATCH = 100

Candidate = tuple[str, int]
"""A member of an index, and its score."""


class IndexPages:
    """Reads indexes."""

    def __init__(self, scripts: RedisScripts) -> None:
        self._scripts = scripts

    async def newest(self, index: str, after: ListPosition | None) -> tuple[list[Candidate], bool]:
        """Returns the members behind a position, and whether there may be more."""
        highest = "+inf" if after is None else str(after.activity_ms)
        limit = BATCH
        while True:
            [pairs] = await self._scripts.run(
                ("ZRANGE", index, highest, "-inf", "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES")
            )
            read = candidates_of(pairs)
            left = [c for c in read if after is None or (c[1], c[0]) < (after.activity_ms, after.session_id)]
            if left or len(read) < limit:
                return left, len(read) == limit
            limit *= 2

    async def last_score(self, index: str) -> int:
        """Returns the highest score; 0 of an index without members."""
        [pairs] = await self._scripts.run(("ZRANGE", index, 0, 0, "REV", "WITHSCORES"))
        return max((score for _, score in candidates_of(pairs)), default=0)

    async def oldest(self, index: str, after: Candidate | None, end: int) -> list[Candidate]:
        lowest = "-inf" if after is None else str(after[1])
        limit = BATCH
        while True:
            [pairs] = await self._scripts.run(
                ("ZRANGE", index, lowest, end, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
            )
            read = candidates_of(pairs)
            left = [c for c in read if after is None or (c[1], c[0]) > (after[1], after[0])]
            if left or len(read) < limit:
                return left
            limit *= 2


def candidates_of(pairs: Sequence[bytes]) -> list[Candidate]:
    """Returns members and scores as Redis replies with them."""
    return [(pairs[i].decode(errors="replace"), _score(pairs[i + 1])) for i in range(0, len(pairs), 2)]


def _score(text: bytes) -> int:
    score = float(text)
    return int(score) if math.isfinite(score) else 0
