"""Tasks as they are stored: a turn, with the turns that answered what it waited for."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from a2a.types import a2a_pb2 as pb

from access.binding import may_read_turns
from access.caller import current
from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.content import data_part
from chat_gateway.a2a.ids import task_id
from chat_gateway.a2a.tasks import finished_task, history_of, is_waiting, status_of
from chat_gateway.clients.stubs import Stubs
from chat_gateway.convert.messages import turn_from_proto
from chat_gateway.convert.times import from_timestamp, to_timestamp
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.turn import TurnOutcome
from chat_gateway.outcomes import stored_outcome
from contract.enums import Role
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as sessions_pb
from parley.session.v1.session_service_pb2 import Session
from servicekit.channels import Peer
from servicekit.errors import ServiceError
from servicekit.values import value

GONE: Final = frozenset({Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD})
_PAGE: Final = 100


@value
class StoredTask:
    """A task of a session: its turns, oldest first, and when the last of them ended at the latest."""

    session: Session
    turns: tuple[Turn, ...]
    time: datetime
    superseded: bool = False
    """Whether it waited, and was cancelled, or the session went on without an answer."""

    @property
    def outcome(self) -> TurnOutcome:
        """How its last turn ended."""
        return stored_outcome(self.turns[-1], self.session.id)

    @property
    def id(self) -> str:
        """The task's id: that of its first turn."""
        return task_id(self.turns[0].id, self.session.id)

    @property
    def waiting(self) -> bool:
        """Whether a message may answer it."""
        return not self.superseded and is_waiting(self.outcome)

    def task(self) -> pb.Task:
        """Returns the task as callers see it."""
        task = finished_task(self.outcome, self._history(), id=self.id, time=self.time)
        if self.superseded:
            status = pb.TaskStatus(state=pb.TASK_STATE_CANCELED, timestamp=to_timestamp(self.time))
            task.status.CopyFrom(status)
        return task

    def _history(self) -> list[pb.Message]:
        history: list[pb.Message] = []
        for number, turn in enumerate(self.turns):
            start = -1 if turn.answer_start is None else turn.answer_start
            asked = turn.messages[:start]
            results = [one for one in asked if one.role is Role.TOOL]
            if results:
                data = {"tool_results": [{"id": one.tool_call_id, "content": one.content} for one in results]}
                history.append(
                    pb.Message(
                        message_id=f"{turn.id}-results",
                        context_id=self.session.id,
                        task_id=self.id,
                        role=pb.ROLE_USER,
                        parts=[data_part(data)],
                    )
                )
            history += history_of(asked, turn.id, self.id, self.session.id)
            if number < len(self.turns) - 1:
                history.append(status_of(stored_outcome(turn, self.session.id), self.id).message)
        return history


class StoredTasks:
    """Reads tasks from session_svc, as the running task's caller may see them."""

    def __init__(self, stubs: Stubs, session_svc: Peer) -> None:
        self._sessions = stubs.sessions
        self._session_svc = session_svc

    async def find(self, call: A2ACall, turn_id: str, session_id: str) -> StoredTask | None:
        """Returns the task that began with a turn; None where the turn is not stored, or not the caller's to see."""
        request = sessions_pb.GetTurnRequest(
            project=call.project, session_id=session_id, turn_id=turn_id, user_id=call.user_id
        )
        try:
            found = await self._session_svc.call(self._sessions.GetTurn, request)
        except ServiceError as error:
            if error.reason in GONE:
                return None
            raise
        session, turn = found.session, turn_from_proto(found.turn)
        if not may_see(call, session):
            return None
        last = turn.number >= session.turn_count
        time = from_timestamp(session.last_activity_time) if last else turn.begin_time
        task = _task(session, (turn,), time, newer=False)
        return task if last or not is_waiting(task.outcome) else await self._answered(call, session, turn)

    async def session(self, call: A2ACall, session_id: str) -> Session | None:
        """Returns a session that the caller may see."""
        request = sessions_pb.GetSessionRequest(project=call.project, id=session_id, user_id=call.user_id)
        try:
            session = (await self._session_svc.call(self._sessions.GetSession, request)).session
        except ServiceError as error:
            if error.reason in GONE:
                return None
            raise
        return session if may_see(call, session) else None

    async def sessions(self, call: A2ACall, limit: int) -> list[Session] | None:
        """Returns the sessions of the call's agent, and user; None where they are more than `limit`."""
        request = sessions_pb.ListSessionsRequest(
            project=call.project, agent_id=call.agent_id, user_id=call.user_id, page_size=limit
        )
        found: list[Session] = []
        while True:
            page = await self._session_svc.call(self._sessions.ListSessions, request)
            found += page.sessions
            if len(found) > limit:
                return None
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def of_session(self, call: A2ACall, session: Session) -> AsyncIterator[StoredTask]:
        """Yields the tasks of a session, the newest first."""
        group: list[Turn] = []
        newer, time = False, from_timestamp(session.last_activity_time)
        async for turn in self._newest(call, session.id):
            group.insert(0, turn)
            if not answers(turn):
                yield _task(session, group, time, newer)
                group, newer, time = [], True, turn.begin_time
        if group:
            yield _task(session, group, time, newer)

    async def _answered(self, call: A2ACall, session: Session, first: Turn) -> StoredTask:
        group: list[Turn] = []
        newer, time = False, from_timestamp(session.last_activity_time)
        async for turn in self._newest(call, session.id):
            if turn.number <= first.number:
                break
            if answers(turn):
                group.insert(0, turn)
            else:
                group, newer, time = [], True, turn.begin_time
        return _task(session, [first, *group], time, newer)

    async def _newest(self, call: A2ACall, session_id: str) -> AsyncIterator[Turn]:
        request = sessions_pb.ListMessagesRequest(
            project=call.project,
            session_id=session_id,
            user_id=call.user_id,
            page_size=_PAGE,
            order=sessions_pb.ORDER_NEWEST_FIRST,
            omit_parts=True,
        )
        while True:
            try:
                page = await self._session_svc.call(self._sessions.ListMessages, request)
            except ServiceError as error:
                if error.reason in GONE:
                    return
                raise
            for turn in page.turns:
                yield turn_from_proto(turn)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def may_see(call: A2ACall, session: Session) -> bool:
    """Whether a session is the caller's to see: of the agent that is called, and of the user that is named."""
    if call.agent_id and session.agent_id != call.agent_id:
        return False
    return may_read_turns(current(), call.user_id, session.user_id)


def answers(turn: Turn) -> bool:
    """Whether a turn begins with results of calls, or with approved ones, of the turn before."""
    return bool(turn.messages) and turn.messages[0].role is Role.TOOL


def _task(session: Session, turns: Sequence[Turn], time: datetime, newer: bool) -> StoredTask:
    task = StoredTask(session, tuple(turns), time)
    left = newer or session.cancelled_turn_id == turns[-1].id
    return replace(task, superseded=True) if left and is_waiting(task.outcome) else task
