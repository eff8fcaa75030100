"""The end of a turn from outside its own code: at its timeout, or because its lease is lost."""

import asyncio
from types import TracebackType
from typing import Self

from chat_gateway.model.errors import TurnTimeout
from servicekit.errors import Cancelled, Internal, ServiceError


class TurnStop:
    """Bounds a turn while open, by its own timeout and the caller's (seconds). Raises `TurnTimeout`, or the error that
    the turn was stopped with before.
    """

    __slots__ = ("_armed", "_own", "_scope", "_waits", "error")

    def __init__(self, own: float, waits: float | None = None) -> None:
        self._own = own
        self._waits = own if waits is None else waits
        self._armed = True
        self.error: ServiceError | None = None

    async def __aenter__(self) -> Self:
        self._scope = asyncio.timeout(min(self._own, self._waits))
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, trace)
            if isinstance(error, TimeoutError):
                raise error
        except TimeoutError:
            raise self.error or TurnTimeout("deadline" if self._waits < self._own else "turn") from None

    def __call__(self, error: ServiceError) -> None:
        """Ends the turn with `error`; the first call wins."""
        if self._armed and self.error is None and not self._scope.expired():
            self.error = error
            self._scope.reschedule(asyncio.get_running_loop().time())

    @property
    def has_stopped(self) -> bool:
        """Whether the turn ends by this, or at its timeout."""
        return self.error is not None or self._scope.expired()

    def reason_of(self, error: BaseException | None) -> ServiceError:
        """Returns the error for the journal of a turn that ended with this exception."""
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, asyncio.CancelledError):
            if self.error is not None:
                return self.error
            return TurnTimeout("turn") if self._scope.expired() else Cancelled("the turn was cancelled")
        return Internal()

    def end_in(self, seconds: float) -> None:
        """Sets the turn's timeout, in seconds from now."""
        if self._armed and not self.has_stopped:
            self._scope.reschedule(asyncio.get_running_loop().time() + seconds)

    async def disarm(self) -> None:
        """Removes the turn's timeout, because only its reply may end a commit. Does not return if the timeout has
        expired.
        """
        if self._scope.expired():
            await asyncio.sleep(1)  # a pending cancellation arrives here, before anything is sent
        self._armed = False
        self.error = None
        self._scope.reschedule(None)
