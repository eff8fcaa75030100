"""Limits for work without a session."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat_gateway.aborts import Aborts
from chat_gateway.leases import HeldLease, LeaseTimes
from chat_gateway.model.stored_turn import Begun, begun_stateless
from chat_gateway.model.turn import TurnLimit, TurnRequest
from chat_gateway.ports import Sessions
from chat_gateway.turn_stop import TurnStop
from servicekit.values import value


@value
class Admission:
    """Takes limits and holds places in them."""

    sessions: Sessions
    aborts: Aborts
    lease_times: LeaseTimes

    @asynccontextmanager
    async def limited(
        self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...], stop: TurnStop
    ) -> AsyncIterator[Begun]:
        """Takes the limits, and holds the places in them while open. Makes no call without limits.

        Raises `RemoteError` (RATE_LIMITED).
        """
        if not limits:
            yield begun_stateless(request)
            return
        with self.aborts.unless_answered(request, turn_id, limits):
            begun = await self.sessions.take_limits(request, turn_id, limits)
        if begun.lease is None or not begun.lease.limits:
            yield begun
            return
        async with HeldLease(begun.lease, stop, self.sessions, self.aborts, self.lease_times) as lease:
            yield begun
            await lease.release()


def new_turn_id() -> str:
    """Returns 96 random bits as text: short, since every stored turn carries it."""
    return secrets.token_urlsafe(12)
