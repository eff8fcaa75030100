"""The large images, audio and files of earlier turns that a prompt shows."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chat_gateway.memory import MemoryBudget
from chat_gateway.model.parts import newest_kept, with_contents
from chat_gateway.model.turn import Message
from chat_gateway.ports import StoredParts


class WindowParts:
    """Reads the parts that a window refers to, newest first, up to a number and `max_bytes`."""

    def __init__(self, stored: StoredParts, max_bytes: int, memory: MemoryBudget) -> None:
        self._stored = stored
        self._max_bytes = max_bytes
        self._memory = memory

    @asynccontextmanager
    async def filled(
        self, project: str, session_id: str, window: Sequence[Message], max_parts: int
    ) -> AsyncIterator[tuple[Message, ...]]:
        """Yields the window with the contents that it shows, which count in the memory budget while open. A note
        replaces each of the others, and those that the session no longer has. Raises `TurnQueueFull`, and `RemoteError`
        (TURN_DAMAGED).
        """
        wanted = newest_kept(window, max_parts, self._max_bytes)
        if not wanted:
            yield with_contents(window, {}, {})
            return
        distinct = {one.digest: one for one in wanted.values()}
        async with self._memory.held(sum(one.size for one in distinct.values())):
            contents = await self._stored.read(project, session_id, tuple(distinct.values()))
            yield with_contents(window, wanted, contents)
