"""Passes an answer on and records whether any of it was passed on, after which there are no retries."""

from chat_gateway.model.turn import Delta, OnDelta


class Relay:
    """An `OnDelta` in front of another one."""

    __slots__ = ("_on_delta", "passed")

    def __init__(self, on_delta: OnDelta) -> None:
        self._on_delta = on_delta
        self.passed = False
        """Whether a piece of the answer was passed on."""

    async def __call__(self, delta: Delta) -> None:
        """Passes the next piece on."""
        self.passed = True
        await self._on_delta(delta)
