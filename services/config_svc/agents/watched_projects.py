"""Watched projects: a stream ends with its project, even if another replica deleted it."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from config_svc.ports.store import Tail


class WatchedProjects:
    """Which lives of projects are watched, and which of them have ended.

    The feed's one reader asks for all of them at once, every `poll` seconds at most, and not at all while nobody
    watches a single project.
    """

    def __init__(self, *, poll: float) -> None:
        self._poll = poll
        self._watched: Counter[str] = Counter()
        self._ended: set[str] = set()
        self._due = 0.0

    @contextmanager
    def watching(self, uid: str) -> Iterator[None]:
        """Watches the project with this uid while the block runs."""
        self._watched[uid] += 1
        try:
            yield
        finally:
            self._watched[uid] -= 1
            if not self._watched[uid]:
                del self._watched[uid]
                self._ended.discard(uid)

    async def gone(self, tail: Tail) -> Collection[str]:
        """Reads which watched projects no longer exist; nothing where that was read just before."""
        now = asyncio.get_running_loop().time()
        if now < self._due or not self._watched:
            return ()
        self._due = now + self._poll
        return await tail.missing_projects(list(self._watched))

    def end(self, uids: Collection[str]) -> None:
        """Records that all changes of these projects have been read, and that there will be no more."""
        self._ended.update(uid for uid in uids if uid in self._watched)

    def ended(self, uid: str) -> bool:
        """Returns whether the project is gone, with all of its changes read."""
        return uid in self._ended
