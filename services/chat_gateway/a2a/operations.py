"""The operations of A2A over the agents of a project: what all three bindings call."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from a2a.types import a2a_pb2 as pb

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.errors import (
    TaskNotCancelable,
    TaskNotFound,
    UnsupportedOperation,
)
from chat_gateway.a2a.events import TaskEvents
from chat_gateway.a2a.ids import parse_task_id
from chat_gateway.a2a.listing import TaskListing
from chat_gateway.a2a.push import TaskPush
from chat_gateway.a2a.requests import answering_turn, check_history_length, check_message, history_length, new_turn
from chat_gateway.a2a.stored import GONE, StoredTask, StoredTasks
from chat_gateway.a2a.tasks import finished_task, is_waiting, with_history
from chat_gateway.background import BackgroundTurns
from chat_gateway.finishing import FinishingTurns
from chat_gateway.model.background import ENDED, TurnState, TurnStatus
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled, TurnBegun
from chat_gateway.model.turn import Delta, OnStarted, TurnOutcome, TurnRequest, TurnStarted
from chat_gateway.ports import Journals
from contract.reasons import Reason
from servicekit.errors import InvalidArgument, ServiceError, Violation, Violations
from servicekit.values import value

Emit = Callable[[pb.StreamResponse], Awaitable[None]]
"""Takes the next event of a stream, and may wait: that is the back-pressure of a slow reader."""

_ON_LOOP_BYTES: Final = 64 * 1024

CANCEL_SECONDS: Final = 30.0
"""How long the end of a task that is cancelled is waited for."""

Entry = JournalEntry | TurnOutcome | ServiceError | None

CAUGHT_UP_SECONDS: Final = 2.0
"""A journal that says nothing for so long has said all that it has at present; session_svc says it at once."""


@value
class _Asked:
    """What a message asks for."""

    turn: TurnRequest
    task_id: str
    """The task that it continues; empty if it begins one."""
    history: tuple[pb.Message, ...]
    """What was said in the task before, without the message."""


class A2AOperations:
    """Runs messages as turns, and reads tasks from sessions and journals. Errors are those of the protocol, or ours."""

    def __init__(
        self,
        turns: FinishingTurns,
        background: BackgroundTurns,
        journals: Journals,
        stored: StoredTasks,
        push: TaskPush,
    ) -> None:
        self._turns = turns
        self._push = push
        self._background = background
        self._journals = journals
        self._stored = stored
        self._listing = TaskListing(stored)

    async def send(self, call: A2ACall, request: pb.SendMessageRequest) -> pb.SendMessageResponse:
        """Runs a message; returns its task once it has ended or waits, or, where that is asked for, at once.

        The task outlives its caller; it is returned as it runs where another gateway goes on with it. What fails before
        the task has begun is raised, and a later failure its state.
        """
        asked = await self._asked(call, request)
        length = history_length(request.configuration)
        if request.configuration.return_immediately:
            task = await self._begin(call, asked, request)
        else:
            task = await self._whole(call, asked, request)
        return pb.SendMessageResponse(task=with_history(task, length))

    async def stream(self, call: A2ACall, request: pb.SendMessageRequest, emit: Emit) -> None:
        """Runs a message, and emits the task's events: the task first, its end last.

        Raises as `send`, and `TurnHandedOver` where the task goes on at another gateway: to be subscribed to.
        """
        asked = await self._asked(call, request)
        length = history_length(request.configuration)
        events: TaskEvents | None = None

        async def on_started(started: TurnStarted) -> None:
            nonlocal events
            events = _events(asked, started)
            history = _history(asked, request.message, events)
            await emit(pb.StreamResponse(task=with_history(events.working(history), length)))

        async def on_delta(delta: Delta) -> None:
            if events is not None and (event := events.delta(delta)) is not None:
                await emit(event)

        try:
            outcome = await self._turns.run(asked.turn, on_started, on_delta, self._before(call, asked, request))
        except ServiceError as error:
            if events is None or error.reason == Reason.TURN_HANDED_OVER:
                raise
            await emit(events.fail(error))
            return
        assert events is not None, "a turn that has ended has started"
        for event in events.finish(outcome):
            await emit(event)

    async def get(self, call: A2ACall, request: pb.GetTaskRequest) -> pb.Task:
        """Returns a task as it is now. Raises `TaskNotFound`."""
        found = Violations()
        check_history_length(request, "history_length", found)
        found.check()
        return with_history(await self.task(call, request.id), history_length(request))

    async def list(self, call: A2ACall, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        """Lists tasks, the last one that changed first."""
        return await self._listing.page(call, request)

    async def subscribe(self, call: A2ACall, request: pb.SubscribeToTaskRequest, emit: Emit) -> None:
        """Emits a running task, all of its events so far and those that come, until its end.

        A task that waits is emitted as it is. Raises `TaskNotFound`, and `UnsupportedOperation` for one that has ended.
        """
        turn_id, session_id = _ids(request.id)
        stored = await self._stored.find(call, turn_id, session_id)
        if stored is not None:
            await emit(pb.StreamResponse(task=_still_open(stored)))
            return
        async with contextlib.aclosing(self._journal(call, turn_id, session_id)) as journal:
            known, ended = await _caught_up(journal)
            if ended:
                raise _task_ended()
            events = _events_of(known, turn_id, session_id)
            await emit(pb.StreamResponse(task=events.working()))
            for entry in known:
                await self._emit(call, events, entry, emit)
            async for entry in journal:
                await self._emit(call, events, entry, emit)

    async def cancel(self, call: A2ACall, request: pb.CancelTaskRequest) -> pb.Task:
        """Cancels a task that is queued or runs, on whichever gateway; returns it once it has ended.

        What one that waits was to be given is not taken any more. Raises `TaskNotFound`, and `TaskNotCancelable` for
        one that had ended or ends by itself first.
        """
        turn_id, session_id = _ids(request.id)
        stored = await self._stored.find(call, turn_id, session_id)
        if stored is not None:
            if stored.waiting:
                return await self._cancel_waiting(call, stored)
            raise TaskNotCancelable
        state = await self._state(call, turn_id, session_id)
        if state.status in ENDED:
            raise TaskNotCancelable
        ended = await self._background.cancel(call.project, session_id, call.user_id, turn_id, CANCEL_SECONDS)
        if ended.status is not TurnStatus.CANCELLED:
            raise TaskNotCancelable
        if state.status is TurnStatus.QUEUED:  # no gateway runs it, which would notify of its end
            self._push.notify(call, request.id, self.task)
        return _task_of(ended)

    async def _cancel_waiting(self, call: A2ACall, stored: StoredTask) -> pb.Task:
        session = stored.session.id
        try:
            await self._background.cancel_waiting(call.project, session, call.user_id, stored.turns[-1].id)
        except ServiceError as error:
            if error.reason in GONE:  # its context has continued meanwhile
                raise TaskNotCancelable from None
            raise
        self._push.notify(call, stored.id, self.task)
        task = await self.task(call, stored.id)
        if task.status.state != pb.TASK_STATE_CANCELED:
            raise TaskNotCancelable
        return task

    async def _emit(self, call: A2ACall, events: TaskEvents, entry: Entry, emit: Emit) -> None:
        match entry:
            case None | TurnBegun() | StepCalled():
                return
            case TurnOutcome():
                # What waits for an approval is in the stored turn only.
                stored = await self._stored.find(call, entry.turn_id, entry.session_id) if is_waiting(entry) else None
                for end in events.finish(entry if stored is None else stored.outcome):
                    await emit(end)
                return
            case ServiceError():
                await emit(events.fail(entry))
                return
        activity = entry.event if isinstance(entry, CallRecorded) else entry
        delta = activity if isinstance(activity, Delta) else Delta(activity=activity)
        if (event := events.delta(delta)) is not None:
            await emit(event)

    async def task(self, call: A2ACall, named: str) -> pb.Task:
        """Returns a task as it is now. Raises `TaskNotFound`."""
        turn_id, session_id = _ids(named)
        stored = await self._stored.find(call, turn_id, session_id)
        if stored is not None:
            return stored.task()
        state = await self._state(call, turn_id, session_id)
        if state.outcome is not None:
            stored = await self._stored.find(call, turn_id, session_id)
            if stored is None:
                raise TaskNotFound
            return stored.task()
        return _task_of(state)

    async def _state(self, call: A2ACall, turn_id: str, session_id: str) -> TurnState:
        try:
            state = await self._background.state(call.project, session_id, call.user_id, turn_id)
        except ServiceError as error:
            if error.reason in GONE:
                raise TaskNotFound from None
            raise
        if call.agent_id and state.agent_id and state.agent_id != call.agent_id:
            raise TaskNotFound
        return state

    async def _journal(self, call: A2ACall, turn_id: str, session_id: str) -> AsyncGenerator[Entry, None]:
        """Yields what the journal of a running turn has; raises `TaskNotFound` where there is none."""
        events = self._journals.watch(call.project, session_id, call.user_id, turn_id, "")
        try:
            async with contextlib.aclosing(events):
                async for one in events:
                    entry = None if one is None else one.entry
                    if isinstance(entry, TurnBegun) and call.agent_id not in ("", entry.agent_id):
                        raise TaskNotFound
                    yield entry
        except ServiceError as error:
            if isinstance(error, TaskNotFound) or error.reason in GONE:
                raise TaskNotFound from None
            if error.reason != Reason.LEASE_LOST:
                raise
            yield error

    async def _asked(self, call: A2ACall, request: pb.SendMessageRequest) -> _Asked:
        check_message(request)
        self._push.check(request)
        message = request.message
        if not message.task_id:
            if not call.agent_id:
                raise InvalidArgument([Violation("tenant", "is required: the id of the agent")])
            if request.ByteSize() <= _ON_LOOP_BYTES:
                turn = new_turn(call, call.agent_id, request)
            else:  # contents are turned into base64, and digested
                turn = await asyncio.to_thread(new_turn, call, call.agent_id, request)
            return _Asked(turn, "", ())
        turn_id, session_id = _ids(message.task_id)
        if message.context_id not in ("", session_id):
            raise InvalidArgument([Violation("message.context_id", "must be that of the task, or empty")])
        stored = await self._stored.find(call, turn_id, session_id)
        if stored is None:
            await self.task(call, message.task_id)
            raise UnsupportedOperation("the task takes a message only while it waits for one")
        if not stored.waiting:
            raise UnsupportedOperation("the task has ended: send the message with its context_id, without its task_id")
        turn = answering_turn(call, stored.session.agent_id, request, stored.outcome)
        turn = replace(turn, task=stored.turns[0].id)
        return _Asked(turn, stored.id, tuple(stored.task().history))

    def _before(self, call: A2ACall, asked: _Asked, request: pb.SendMessageRequest) -> OnStarted | None:
        """Returns what stores the push configuration of a message, if it has one, before its turn continues."""
        if not request.configuration.HasField("task_push_notification_config"):
            return None

        async def before(started: TurnStarted) -> None:
            await self._push.keep(call, _events(asked, started).task_id, request)

        return before

    async def _whole(self, call: A2ACall, asked: _Asked, request: pb.SendMessageRequest) -> pb.Task:
        message = request.message
        events: TaskEvents | None = None

        async def on_started(started: TurnStarted) -> None:
            nonlocal events
            events = _events(asked, started)

        try:
            outcome = await self._turns.run(asked.turn, on_started, _take, self._before(call, asked, request))
        except ServiceError as error:
            if events is None:
                raise
            handed_over = error.reason == Reason.TURN_HANDED_OVER
            task = events.working() if handed_over else events.failed(error)
            task.history.extend(_history(asked, message, events))
            return task
        assert events is not None, "a turn that has ended has started"
        history = _history(asked, message, events)
        return finished_task(outcome, history, id=events.task_id, time=datetime.now(UTC))

    async def _begin(self, call: A2ACall, asked: _Asked, request: pb.SendMessageRequest) -> pb.Task:
        """Queues a turn, which any gateway runs, and another one where that is lost."""
        message = request.message
        try:
            state = await self._background.submit(asked.turn)
        except InvalidArgument as error:
            if error.violations and error.violations[0].field == "background":
                problem = "the agent passes its user's token on, and can't run without its caller"
                raise UnsupportedOperation(problem) from None
            raise
        task = _task_of(state, asked.task_id)
        events = TaskEvents(state.turn_id, state.session_id, state.begin_time or datetime.now(UTC), id=asked.task_id)
        if request.configuration.HasField("task_push_notification_config"):
            config = await self._push.keep(call, events.task_id, request)
            self._push.notify(call, events.task_id, self.task, only=config.id)
        history = _history(asked, message, events)
        if state.outcome is not None:
            return finished_task(state.outcome, history, id=events.task_id, time=datetime.now(UTC))
        task.history.extend(history)
        return task


async def _take(delta: Delta) -> None:
    """Ignores a piece of an answer, which is in the turn's journal by then."""


async def _caught_up(journal: AsyncGenerator[Entry, None]) -> tuple[list[Entry], bool]:
    """Returns all that a journal has at present, and whether the turn has ended."""
    known: list[Entry] = []
    with contextlib.suppress(StopAsyncIteration, TimeoutError):
        while True:
            async with asyncio.timeout(CAUGHT_UP_SECONDS):
                entry = await anext(journal)
            if entry is None:
                break
            known.append(entry)
    return known, bool(known) and isinstance(known[-1], TurnOutcome | ServiceError)


def _events_of(known: list[Entry], turn_id: str, session_id: str) -> TaskEvents:
    begun = next((entry.begin_time for entry in known if isinstance(entry, TurnBegun)), datetime.now(UTC))
    return TaskEvents(turn_id, session_id, begun)


def _ids(named: str) -> tuple[str, str]:
    ids = parse_task_id(named)
    if ids is None:
        raise TaskNotFound
    return ids


def _still_open(stored: StoredTask) -> pb.Task:
    if not stored.waiting:
        raise _task_ended()
    return stored.task()


def _task_ended() -> UnsupportedOperation:
    return UnsupportedOperation("the task has ended: get it instead")


def _events(asked: _Asked, started: TurnStarted) -> TaskEvents:
    return TaskEvents(started.turn_id, started.session_id, started.begin_time, id=asked.task_id)


def _history(asked: _Asked, message: pb.Message, events: TaskEvents) -> list[pb.Message]:
    said = pb.Message()
    said.CopyFrom(message)
    said.task_id, said.context_id = events.task_id, events.context_id
    return [*asked.history, said]


def _task_of(state: TurnState, id: str = "") -> pb.Task:
    """Returns a task that is not stored."""
    events = TaskEvents(state.turn_id, state.session_id, state.begin_time or datetime.now(UTC), id=id)
    if state.error is not None:
        return events.failed(state.error)
    task = events.working()
    if state.status is TurnStatus.QUEUED:
        task.status.state = pb.TASK_STATE_SUBMITTED
    return task
