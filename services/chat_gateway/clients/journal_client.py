"""session_svc's TurnService as the port `Journals`."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from chat_gateway.clients.stubs import SESSION_SVC, Stubs
from chat_gateway.convert.journal import event_from_proto
from chat_gateway.model.journal import JournalEvent, TurnBegun
from chat_gateway.open_watches import OpenWatches
from contract.reasons import Reason
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.backoff import Backoff
from servicekit.channels import stream
from servicekit.errors import UNREACHABLE, Draining, ServiceError

SILENCE_SECONDS = 15.0
"""A watch that is silent for this long is broken: session_svc sends a heartbeat every 5 s."""
MAX_TRIES = 8
"""Consecutive attempts that may fail, about ten seconds."""
_FIRST_PAUSE, _MAX_PAUSE = 0.05, 2.0


class JournalClient:
    """Watches journals, each over a stream of its own."""

    def __init__(self, stubs: Stubs, open_watches: OpenWatches) -> None:
        self._turns = stubs.turns
        self._open = open_watches
        self._waiting: set[asyncio.Task[object]] = set()
        """Tasks that wait for the next event of a turn."""
        self._stopped = False

    def stop(self) -> None:
        """Ends every watch with `Draining`, and those that come later: others go on behind their last events."""
        self._stopped = True
        while self._waiting:
            self._waiting.pop().cancel()

    async def watch(
        self,
        project: str,
        session_id: str,
        user_id: str,
        turn_id: str,
        after: str,
        *,
        present_only: bool = False,
    ) -> AsyncGenerator[JournalEvent | None, None]:
        """Continues after the last event if a replica stops or is unreachable for a while.

        Raises `TooManyWatches` before the first event, and `Draining` once this gateway stops.
        """
        watched = self._watch(project, session_id, user_id, turn_id, after, present_only)
        async with contextlib.aclosing(watched) as events:
            if present_only:  # existing entries are read without holding a call open
                async for event in events:
                    yield event
                return
            with self._open.one_more(project, session_id), contextlib.suppress(StopAsyncIteration):
                while True:
                    yield await self._unless_stopped(events)

    async def _unless_stopped(self, events: AsyncGenerator[JournalEvent | None, None]) -> JournalEvent | None:
        task = asyncio.current_task()
        if task is None or self._stopped:
            raise Draining
        self._waiting.add(task)
        try:
            return await anext(events)
        except asyncio.CancelledError:
            if task in self._waiting or task.uncancel():
                raise
            raise Draining from None
        finally:
            self._waiting.discard(task)

    async def _watch(
        self, project: str, session_id: str, user_id: str, turn_id: str, after: str, present_only: bool
    ) -> AsyncGenerator[JournalEvent | None, None]:
        request = pb.WatchTurnRequest(
            project=project,
            session_id=session_id,
            user_id=user_id,
            turn_id=turn_id,
            after_event_id=after,
            present_only=present_only,
        )
        begun: TurnBegun | None = None
        backoff, failures = Backoff(_FIRST_PAUSE, _MAX_PAUSE), 0
        async for _ in backoff:
            try:
                async with contextlib.aclosing(self._stream(request)) as responses:
                    async for response in responses:
                        failures = 0
                        backoff.reset()
                        for event in response.events:
                            request.after_event_id = event.id
                            found = event_from_proto(event, begun, turn_id, session_id)
                            if found is not None and isinstance(found.entry, TurnBegun):
                                begun = found.entry
                            yield found
                        if not response.events:
                            yield None
                return
            except ServiceError as error:
                failures += 1
                passing = error.code in UNREACHABLE or error.reason == Reason.DRAINING
                if not passing or failures >= MAX_TRIES:
                    raise

    def _stream(self, request: pb.WatchTurnRequest) -> AsyncGenerator[pb.WatchTurnResponse, None]:
        return stream(self._turns.WatchTurn, request, timeout=None, silence=SILENCE_SECONDS, peer=SESSION_SVC)
