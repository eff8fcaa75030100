"""Takes over turns that no gateway runs: those whose gateway was lost or stopped, and queued ones."""

import asyncio
import contextlib
import random
from dataclasses import dataclass

import structlog

from access.caller import set_current
from chat_gateway.ended_tasks import EndedTasks
from chat_gateway.metrics import PickupMetrics
from chat_gateway.model.background import ClaimedTurn, ResumableTurn
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
    """In seconds, except the count. Gateways poll at different times: every `interval`, plus or minus half of it."""

    interval: float = 1.0
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
        self._woken = asyncio.Event()
        metrics.running(lambda: len(self._running))

    def wake(self) -> None:
        """Polls at once, because a turn was queued here."""
        self._woken.set()

    async def follow(self) -> None:
        """Polls for turns until cancelled; takes none while this gateway is stopping or at capacity."""
        pause = 0.0
        while True:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            pause = self._times.interval * random.uniform(0.5, 1.5)
            if len(self._running) >= self._times.max_running or not self._scheduler.has_room:  # none while this stops
                continue
            try:
                claimed = await self._claims.claim()
            except ServiceError as error:
                if error.reason == Reason.NOT_IMPLEMENTED:
                    pause = self._times.unknown_pause
                continue
            if claimed is None:
                continue
            if claimed.turn is None:
                await self._leave(claimed)
                continue
            self._start(claimed, claimed.turn)
            pause = 0.0

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
        self._woken.set()  # another one fits

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
            await asyncio.sleep(self._times.interval)  # it would come back here at once
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
