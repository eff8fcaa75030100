"""Coalesces the pieces of an answer, where a message costs far more than the token in it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from chat_gateway.model.turn import Delta
from servicekit.supervision import cancel_and_wait

INTERVAL = 0.015
"""Seconds between messages; the first piece never waits."""
MAX_PENDING = 256
"""The maximum of buffered pieces: beyond it, a slow reader slows the model down."""


class CoalescedDeltas:
    """An `OnDelta` that joins pieces within `INTERVAL` of the previous message into one. With `joins_first`, pieces
    that arrive together with the first are joined with it.
    """

    def __init__(self, send: Callable[[list[Delta]], Awaitable[None]], *, joins_first: bool = False) -> None:
        self._send = send
        self._joins_first = joins_first
        self._pending: list[Delta] = []
        self._flush: asyncio.Task[None] | None = None
        self._first = True
        self._finishing = asyncio.Event()

    async def __call__(self, delta: Delta) -> None:
        """Adds the next piece. Raises the error of an earlier message."""
        first, self._first = self._first, False
        if first and not self._joins_first:
            await self._send([delta])
            return
        self._pending.append(delta)
        if self._flush is None or self._flush.done():
            if self._flush is not None:
                self._flush.result()
            send = self._send_all() if first else self._send_soon()
            self._flush = asyncio.get_running_loop().create_task(send)
        elif len(self._pending) >= MAX_PENDING:
            await asyncio.shield(self._flush)

    async def flush(self) -> None:
        """Sends the buffered pieces; more may follow. Raises the error of an earlier message."""
        self._finishing.set()
        if self._flush is not None:
            await self._flush
        await self._send_pending()
        self._finishing.clear()

    async def take(self) -> list[Delta]:
        """Returns the buffered pieces instead of sending them. Raises the error of an earlier message."""
        pending, self._pending = self._pending, []
        await self.flush()  # what is being sent
        return pending

    async def close(self) -> None:
        """Drops the buffered pieces. Idempotent; must always be called."""
        self._pending.clear()
        if self._flush is not None:
            await cancel_and_wait(self._flush)

    async def _send_soon(self) -> None:
        # The end of the answer does not wait for the interval.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await self._finishing.wait()
        await self._send_all()

    async def _send_all(self) -> None:
        # Pieces that arrive during a write are sent with the next message, without waiting for another piece.
        while self._pending:
            await self._send_pending()

    async def _send_pending(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            await self._send(pending)
