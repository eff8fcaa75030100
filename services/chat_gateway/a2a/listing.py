"""Lists of tasks, over the sessions of an agent."""

import base64
import binascii
import heapq
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from a2a.types import a2a_pb2 as pb

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.requests import check_history_length, history_length
from chat_gateway.a2a.stored import StoredTask, StoredTasks
from chat_gateway.a2a.tasks import with_history
from chat_gateway.convert.times import from_timestamp
from parley.session.v1.session_service_pb2 import Session
from servicekit.errors import InvalidArgument, Violation, Violations

MAX_SESSIONS: Final = 1000
"""Contexts that are looked through where a request names none."""
_DEFAULT_PAGE: Final = 50
_MAX_PAGE: Final = 100

_Place = tuple[datetime, str]
"""The position of a task in a list, which is in descending order."""


class TaskListing:
    """Lists stored tasks, the last one that changed first. What runs is not listed: its caller has its id."""

    def __init__(self, stored: StoredTasks) -> None:
        self._stored = stored

    async def page(self, call: A2ACall, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        """Returns one page. Raises `InvalidArgument` with every violation."""
        after = _check(request)
        size = request.page_size or _DEFAULT_PAGE
        sessions = await self._sessions(call, request.context_id)
        since = from_timestamp(request.status_timestamp_after) if request.HasField("status_timestamp_after") else None
        page: list[StoredTask] = []
        more = False
        async for stored in self._merged(call, sessions):
            if since is not None and stored.time < since:
                break
            if after is not None and _place(stored) >= after:
                continue
            if request.status and stored.task().status.state != request.status:
                continue
            if len(page) == size:
                more = True
                break
            page.append(stored)
        return pb.ListTasksResponse(
            tasks=[_listed(stored, request) for stored in page],
            next_page_token=_token(page[-1]) if more else "",
            page_size=size,
            total_size=sum(int(session.turn_count) for session in sessions),
        )

    async def _sessions(self, call: A2ACall, context_id: str) -> list[Session]:
        if context_id:
            session = await self._stored.session(call, context_id)
            return [] if session is None else [session]
        sessions = await self._stored.sessions(call, MAX_SESSIONS)
        if sessions is None:
            rule = f"is required of an agent that has more than {MAX_SESSIONS} contexts"
            raise InvalidArgument([Violation("context_id", rule)])
        return sessions

    async def _merged(self, call: A2ACall, sessions: list[Session]) -> AsyncIterator[StoredTask]:
        """Yields the tasks of all sessions in order. A session is read once its last activity is reached."""
        waiting = sorted(sessions, key=lambda one: from_timestamp(one.last_activity_time))
        heap: list[tuple[float, int, StoredTask, AsyncIterator[StoredTask]]] = []
        count = 0
        while waiting or heap:
            while waiting and (not heap or from_timestamp(waiting[-1].last_activity_time).timestamp() >= -heap[0][0]):
                tasks = self._stored.of_session(call, waiting.pop())
                if (first := await anext(tasks, None)) is not None:
                    count += 1
                    heapq.heappush(heap, (-first.time.timestamp(), count, first, tasks))
            if not heap:
                return
            _, _, stored, tasks = heapq.heappop(heap)
            yield stored
            if (following := await anext(tasks, None)) is not None:
                count += 1
                heapq.heappush(heap, (-following.time.timestamp(), count, following, tasks))


def _check(request: pb.ListTasksRequest) -> _Place | None:
    found = Violations()
    if request.HasField("page_size") and not 1 <= request.page_size <= _MAX_PAGE:
        found.add("page_size", f"must be from 1 to {_MAX_PAGE}")
    if request.status not in pb.TaskState.values():
        found.add("status", "must be a state that exists")
    check_history_length(request, "history_length", found)
    place = None
    if request.page_token:
        place = _place_of(request.page_token)
        if place is None:
            found.add("page_token", "must be the next_page_token of a list")
    found.check()
    return place


def _listed(stored: StoredTask, request: pb.ListTasksRequest) -> pb.Task:
    task = with_history(stored.task(), history_length(request))
    if not request.include_artifacts:
        task.ClearField("artifacts")
    return task


def _place(stored: StoredTask) -> _Place:
    return stored.time, stored.id


def _token(stored: StoredTask) -> str:
    microseconds = round(stored.time.timestamp() * 1e6)
    return base64.urlsafe_b64encode(f"{microseconds} {stored.id}".encode()).decode()


def _place_of(token: str) -> _Place | None:
    try:
        microseconds, task = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
        return datetime.fromtimestamp(int(microseconds) / 1e6, UTC), task
    except (ValueError, binascii.Error, OverflowError, OSError):
        return None
