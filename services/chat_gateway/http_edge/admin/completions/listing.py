"""Lists stored chat completions of many sessions by the time at which they were begun.

The sessions are in the order of their creation, or of their last activity, and a turn lies between the two: so a
session is read only once nothing of the others comes before what it may hold.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chat_gateway.http_edge.dependencies import Dependencies
from contract.reasons import Reason
from parley.session.v1 import message_pb2
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import InvalidArgument, ServiceError, Violation

MAX_SESSIONS: Final = 5000
_PAGE: Final = 1000
_MAX_TURNS_A_READ: Final = 100

Place = tuple[int, str, int]
"""The position of a turn in the list: time in nanoseconds, session, number. Negative numbers: newest first."""


@dataclass
class CompletionQuery:
    """Which completions, and how many."""

    project: str
    user_id: str
    agent_id: str
    metadata: Mapping[str, str]
    limit: int
    newest_first: bool


@dataclass
class _Walk:
    """One session, read turn by turn."""

    session: pb.Session
    turns: list[message_pb2.Turn] = field(default_factory=list)
    token: str = ""
    begun: bool = False


class Listing:
    """One list of completions."""

    def __init__(self, deps: Dependencies, query: CompletionQuery) -> None:
        self._deps = deps
        self._query = query
        self._sign = -1 if query.newest_first else 1

    def place(self, turn: message_pb2.Turn, session: pb.Session) -> Place:
        """Returns the position of a turn. Turns that a fork has copied have the fork's time."""
        low, high = session.create_time.ToNanoseconds(), session.last_activity_time.ToNanoseconds()
        time = min(max(turn.begin_time.ToNanoseconds(), low), high)
        return self._sign * time, session.id, self._sign * turn.number

    async def page(self, after: Place | None) -> tuple[list[tuple[message_pb2.Turn, pb.Session]], bool]:
        """Returns the turns behind a place, with their sessions, and whether more follow."""
        waiting = [one for one in await self._sessions() if after is None or self._last(one) >= after[0]]
        waiting.sort(key=self._first, reverse=True)
        heads: list[tuple[Place, message_pb2.Turn, _Walk]] = []
        found: list[tuple[message_pb2.Turn, pb.Session]] = []
        while heads or waiting:
            if waiting and (not heads or self._first(waiting[-1]) <= heads[0][0][0]):
                await self._advance(heads, _Walk(waiting.pop()), after)
                continue
            _, turn, walk = heapq.heappop(heads)
            if len(found) == self._query.limit:
                return found, True
            found.append((turn, walk.session))
            await self._advance(heads, walk, None)
        return found, False

    def _first(self, session: pb.Session) -> int:
        time = session.last_activity_time if self._query.newest_first else session.create_time
        return self._sign * time.ToNanoseconds()

    def _last(self, session: pb.Session) -> int:
        time = session.create_time if self._query.newest_first else session.last_activity_time
        return self._sign * time.ToNanoseconds()

    async def _sessions(self) -> list[pb.Session]:
        query, found = self._query, list[pb.Session]()
        request = pb.ListSessionsRequest(
            project=query.project, agent_id=query.agent_id, user_id=query.user_id, page_size=_PAGE
        )
        wanted = query.metadata.items()
        while True:
            page = await self._deps.session_svc.call(self._deps.stubs.sessions.ListSessions, request)
            found += [one for one in page.sessions if one.turn_count and wanted <= dict(one.metadata).items()]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found
            if len(found) >= MAX_SESSIONS:
                if not query.newest_first:
                    rule = f"must be desc where there are more than {MAX_SESSIONS} sessions, or model or user named"
                    raise InvalidArgument([Violation("order", rule)])
                return found

    async def _advance(
        self, heads: list[tuple[Place, message_pb2.Turn, _Walk]], walk: _Walk, after: Place | None
    ) -> None:
        while True:
            if not walk.turns and not await self._read(walk):
                return
            turn = walk.turns.pop()
            place = self.place(turn, walk.session)
            if after is None or place > after:
                heapq.heappush(heads, (place, turn, walk))
                return

    async def _read(self, walk: _Walk) -> bool:
        if walk.begun and not walk.token:
            return False
        request = pb.ListMessagesRequest(
            project=self._query.project,
            session_id=walk.session.id,
            user_id=self._query.user_id,
            page_size=min(self._query.limit + 1, _MAX_TURNS_A_READ),
            page_token=walk.token,
            order=pb.ORDER_NEWEST_FIRST if self._query.newest_first else pb.ORDER_OLDEST_FIRST,
        )
        try:
            page = await self._deps.session_svc.call(self._deps.stubs.sessions.ListMessages, request)
        except ServiceError as error:
            if error.reason == Reason.SESSION_NOT_FOUND:
                return False  # it has ended meanwhile
            raise
        walk.begun, walk.token, walk.turns = True, page.next_page_token, list(page.turns)[::-1]
        return bool(walk.turns)
