"""Turns that outlive their callers, and those that the end of the process cuts short."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import structlog

from chat_gateway.ended_tasks import EndedTasks
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved, TurnCutShort
from chat_gateway.model.turn import Delta, OnDelta, OnDisconnect, OnStarted, TurnOutcome, TurnRequest, TurnStarted
from chat_gateway.turn import TurnRunner
from contract.reasons import Reason
from servicekit.errors import Draining, ServiceError
from servicekit.supervision import cancel_and_wait

log = structlog.get_logger(__name__)


class FinishingTurns:
    """Runs turns as `TurnRunner` does, except that a turn asked for with `OnDisconnect.FINISH` is not cancelled.

    Such a turn runs in a task of its own. When its caller's task is cancelled it continues, and counts as running for
    the scheduler, so a drain waits for it. Turns that `stop` cuts short end with an error that names their outcome,
    whichever edge serves their callers.
    """

    def __init__(self, runner: TurnRunner, ended_tasks: EndedTasks | None = None) -> None:
        self._runner = runner
        self._ended_tasks = ended_tasks
        self._alone: set[asyncio.Task[TurnOutcome]] = set()
        self._running: set[asyncio.Task[Any]] = set()

    def run(
        self,
        request: TurnRequest,
        on_started: OnStarted | None = None,
        on_delta: OnDelta | None = None,
        before: OnStarted | None = None,
    ) -> Coroutine[Any, Any, TurnOutcome]:
        """Runs one turn as `TurnRunner.run` does; raises what `stop` says besides.

        `before`, of a turn of a task, is awaited before `on_started` whether its caller has left or not; what it raises
        ends the turn.
        """
        if request.on_disconnect is OnDisconnect.CANCEL:
            return self._run(request, on_started, on_delta)
        return self._run_apart(request, on_started, on_delta, before)

    async def _run_apart(
        self,
        request: TurnRequest,
        on_started: OnStarted | None,
        on_delta: OnDelta | None,
        before: OnStarted | None,
    ) -> TurnOutcome:
        caller = _Caller(on_started, on_delta)
        started = caller.started if on_started is not None else None
        heard = caller.delta if on_delta is not None else None
        if request.task is None or self._ended_tasks is None:
            run = self._run(request, started, heard)
        else:
            run = self._run_of_task(request, started, heard, before, self._ended_tasks)
        turn = asyncio.get_running_loop().create_task(run)
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:
            caller.leave()
            self._alone.add(turn)
            turn.add_done_callback(self._finished)
            raise

    async def _run_of_task(
        self,
        request: TurnRequest,
        on_started: OnStarted | None,
        on_delta: OnDelta | None,
        before: OnStarted | None,
        ended_tasks: EndedTasks,
    ) -> TurnOutcome:
        begun: TurnStarted | None = None

        async def started(event: TurnStarted) -> None:
            nonlocal begun
            begun = event
            if before is not None:
                await before(event)
            if on_started is not None:
                await on_started(event)

        try:
            outcome = await self._run(request, started, on_delta)
        except ServiceError as error:
            if begun is not None and error.reason != Reason.TURN_HANDED_OVER:
                ended_tasks.ended(request, begun.session_id, begun.turn_id)
            raise
        ended_tasks.ended(request, outcome.session_id, outcome.turn_id)
        return outcome

    def stop(self) -> None:
        """Cuts every turn short: it raises `TurnHandedOver` where another gateway goes on with it.

        Otherwise `CommitUnresolved`, where it may have been stored and a repeat is not safe, or `Draining`.
        """
        while self._running:
            self._running.pop().cancel()

    async def close(self) -> None:
        """Cancels turns that still run without their caller; after `stop` there are none."""
        await cancel_and_wait(*self._alone)

    async def _run(self, request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
        task = asyncio.current_task()
        assert task is not None, "a coroutine that runs is some task's"
        self._running.add(task)
        try:
            return await self._runner.run(request, on_started, on_delta)
        except asyncio.CancelledError as cut:
            if task in self._running or task.uncancel():
                raise  # its caller has left, too
            raise error_of(cut) from cut
        finally:
            self._running.discard(task)

    def _finished(self, turn: asyncio.Task[TurnOutcome]) -> None:
        self._alone.discard(turn)
        error = None if turn.cancelled() else turn.exception()
        if isinstance(error, ServiceError):
            log.info("turn_without_caller_failed", reason=error.reason)
        elif error is not None:
            log.error("turn_without_caller_failed", exc_info=error)


def error_of(cut: asyncio.CancelledError) -> ServiceError:
    """Returns what a turn that the end of the process has cut short ends with."""
    match cut:
        case TurnCutShort():
            return cut.error
        case CommitCutShort():
            return CommitUnresolved()
    return Draining()


class _Caller:
    """Forwards events to a caller until it leaves, which also releases an event being delivered."""

    def __init__(self, on_started: OnStarted | None, on_delta: OnDelta | None) -> None:
        self._on_started = on_started
        self._on_delta = on_delta
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    async def started(self, event: TurnStarted) -> None:
        if self._on_started is not None and not self._left.done():
            await self._deliver(self._on_started(event))

    async def delta(self, event: Delta) -> None:
        if self._on_delta is not None and not self._left.done():
            await self._deliver(self._on_delta(event))

    async def _deliver(self, delivery: Awaitable[None]) -> None:
        sent = asyncio.ensure_future(delivery)
        try:
            await asyncio.wait((sent, self._left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sent.cancel()
        failed = (await asyncio.gather(sent, return_exceptions=True))[0]
        if isinstance(failed, Exception):
            log.info("caller_left", error=type(failed).__name__)
            self.leave()
