"""Takes over turns that no gateway runs: those whose gateway was lost or stopped, and queued ones."""

import asyncio
import contextlib
import random
from dataclasses import dataclass

import structlog

from access.caller import set_current
from chat_gateway.ended_tasks import EndedTasks
from chat_gateway.metrics import PickupMetrics
from chat_gateway.model.background import ClaimedTurn, NothingClaimed, ResumableTurn
from chat_gateway.model.errors import TurnHandedOver
from chat_gateway.model.journal import JournalEntry
from chat_gateway.model.turn import TurnOutcome
from chat_gateway.ports import Claims, Journals
from chat_gateway.resumption import steps_of
from chat_gateway.scheduler import Scheduler
from chat_gateway.turn import TurnRunner
from contract.reasons import Reason
from servicekit.errors import ServiceError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PickupTimes:
    """In seconds, except the count. session_svc holds a call until there may be a turn. Where it does not, gateways
    poll at different times: every `interval`, plus or minus half of it.
    """

    hold: float = 10.0
    """How long a call may be held: if its replica hangs, no other is asked before its end."""
    interval: float = 1.0
    min_pause: float = 0.02
    """The pause after a held call that found no turn."""
    unknown_pause: float = 30.0
    """The pause before retrying a session_svc that does not know the method."""
    max_running: int = 64
    """The maximum number of concurrent turns."""


class Pickups:
    """The turns that this gateway has taken over. `close` it once no turn runs."""

    def __init__(
        self,
        runner: TurnRunner,
        claims: Claims,
        journals: Journals,
        scheduler: Scheduler,
        times: PickupTimes,
        metrics: PickupMetrics,
        ended_tasks: EndedTasks | None = None,
    ) -> None:
        self._runner = runner
        self._ended_tasks = ended_tasks
        self._claims = claims
        self._journals = journals
        self._scheduler = scheduler
        self._times = times
        self._metrics = metrics
        self._running: set[asyncio.Task[None]] = set()
        self._asking = 0
        self._claim_from = 0.0
        self._queued_here = asyncio.Event()
        self._fits = asyncio.Event()
        metrics.running(lambda: len(self._running))

    def wake(self) -> None:
        """Claims at once, because a turn was queued here."""
        self._queued_here.set()

    async def follow(self) -> None:
        """Takes over turns until cancelled; takes none while this gateway is stopping or at capacity."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow_held(), name="turns to take over")
            both.create_task(self._follow_queued_here(), name="turns queued here")

    async def _follow_held(self) -> None:
        pause = 0.0
        while True:
            self._fits.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._fits.wait()
            pause = await self._claim_or_wait()

    async def _follow_queued_here(self) -> None:
        while True:
            await self._queued_here.wait()
            self._queued_here.clear()
            with contextlib.suppress(ServiceError):
                while self._may_claim and await self._claim(0.0) is None:
                    pass

    async def _claim_or_wait(self) -> float:
        """Takes over a turn, or waits until there may be one; returns the pause before the next claim."""
        pause = self._times.interval * random.uniform(0.5, 1.5)
        if not self._may_claim:
            return pause
        try:
            if await self._claim(0.0) is None:
                return 0.0
            nothing = await self._claim(self._times.hold)
        except ServiceError as error:
            return self._times.unknown_pause if error.reason == Reason.NOT_IMPLEMENTED else pause
        if nothing is None:
            return 0.0
        return self._times.min_pause if nothing.held else pause

    async def _claim(self, hold: float) -> NothingClaimed | None:
        """Starts a turn that it took over; returns what there was instead."""
        self._asking += 1
        try:
            claimed = await self._claims.claim(hold)
        finally:
            self._asking -= 1
        if isinstance(claimed, NothingClaimed):
            return claimed
        if claimed.turn is None:
            await self._leave(claimed)
            return NothingClaimed()
        self._start(claimed, claimed.turn)
        return None

    @property
    def _may_claim(self) -> bool:
        has_room = len(self._running) + self._asking < self._times.max_running and self._scheduler.has_room
        return has_room and asyncio.get_running_loop().time() >= self._claim_from

    async def close(self) -> None:
        """Cancels the turns that still run here, which other gateways take over."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, claimed: ClaimedTurn, turn: ResumableTurn) -> None:
        task = asyncio.get_running_loop().create_task(self._run(claimed, turn), name="turn taken over")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fits.set()

    async def _run(self, claimed: ClaimedTurn, turn: ResumableTurn) -> None:
        set_current(turn.caller)
        lease = claimed.lease
        fields = {"turn_id": lease.turn_id, "session_id": lease.session_id, "attempt": lease.attempt}
        log.info("turn_taken_over", **fields)
        outcome = "failed"
        try:
            await self._go_on(claimed, turn)
            outcome = "finished"
        except TurnHandedOver:
            outcome = "handed_over"
            # Otherwise it would come back here at once.
            self._claim_from = asyncio.get_running_loop().time() + self._times.interval
        except ServiceError as error:
            outcome = "cancelled" if error.reason == Reason.TURN_CANCELLED else "failed"
            log.info("turn_taken_over_failed", reason=error.reason, **fields)
        except asyncio.CancelledError:
            outcome = "handed_over"
            raise
        except Exception as error:
            log.error("turn_taken_over_failed", exc_info=error, **fields)
        finally:
            self._metrics.ended(outcome)
        if self._ended_tasks is not None and outcome != "handed_over":
            self._ended_tasks.ended(turn.request, lease.session_id, lease.turn_id)

    async def _go_on(self, claimed: ClaimedTurn, turn: ResumableTurn) -> TurnOutcome:
        lease, entries = claimed.lease, list[JournalEntry]()
        events = self._journals.watch(
            lease.project, lease.session_id, turn.request.user_id, lease.turn_id, "", present_only=True
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if event is not None and not isinstance(event.entry, TurnOutcome | ServiceError):
                    entries.append(event.entry)
        return await self._runner.go_on(lease, turn, steps_of(entries))

    async def _leave(self, claimed: ClaimedTurn) -> None:
        log.warning("turn_of_later_release", turn_id=claimed.lease.turn_id)
        with contextlib.suppress(ServiceError):
            await self._claims.hand_over(claimed.lease, queued=False)
