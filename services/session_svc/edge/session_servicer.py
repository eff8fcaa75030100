"""`parley.session.v1.SessionService`: convert in, one call, convert out."""

# ruff: noqa: N802 (methods bear the names of the RPCs)

from collections.abc import AsyncIterator
from typing import Any

import grpc

from parley.session.v1 import session_service_pb2 as pb
from parley.session.v1 import session_service_pb2_grpc as pb_grpc
from session_svc.edge import session_convert as convert
from session_svc.edge.times import timestamp
from session_svc.model.session import Session
from session_svc.sessions import Sessions

NAME = pb.DESCRIPTOR.services_by_name["SessionService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Serves SessionService as documented in the proto."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        created = await self._sessions.create(convert.new_session(request))
        return pb.CreateSessionResponse(session=convert.session(created))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        key = convert.session_key(request.project, request.id, request.user_id)
        found = await self._sessions.get(key, request.user_id)
        return pb.GetSessionResponse(session=convert.session(found))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        query, size, position = convert.session_query(request)
        page = await self._sessions.list_sessions(query, size, position)
        return pb.ListSessionsResponse(
            sessions=[convert.session(found) for found in page.sessions],
            next_page_token=convert.session_page_token(query, page.next),
        )

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.UpdateSessionResponse:
        changed = await self._sessions.update(convert.session_change(request))
        return pb.UpdateSessionResponse(session=convert.session(changed))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        key = convert.session_key(request.project, request.id, request.user_id)
        await self._sessions.delete(key, request.user_id, allow_missing=request.allow_missing)
        return pb.DeleteSessionResponse()

    async def DeleteSessions(self, request: pb.DeleteSessionsRequest, context: Context) -> pb.DeleteSessionsResponse:
        removed = await self._sessions.purge(convert.purge(request), fence=request.fence_agent)
        return pb.DeleteSessionsResponse(deleted_count=removed.sessions)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        query = convert.turn_query(request)
        page = await self._sessions.turns(query)
        return pb.ListMessagesResponse(
            turns=convert.turns(page.turns),
            next_page_token=convert.turn_page_token(query, page.next),
            session_expire_time=timestamp(page.expire_ms),
        )

    async def GetTurn(self, request: pb.GetTurnRequest, context: Context) -> pb.GetTurnResponse:
        key = convert.turn_key(request)
        turn, session = await self._sessions.turn(key, request.turn_id, request.user_id)
        return pb.GetTurnResponse(turn=convert.turn(turn, request.turn_id), session=convert.session(session))

    async def DeleteTurn(self, request: pb.DeleteTurnRequest, context: Context) -> pb.DeleteTurnResponse:
        key = convert.turn_key(request)
        left = await self._sessions.delete_turn(key, request.turn_id, request.user_id)
        return pb.DeleteTurnResponse(session=convert.session(left))

    async def ForkSession(self, request: pb.ForkSessionRequest, context: Context) -> pb.ForkSessionResponse:
        forked = await self._sessions.fork(convert.fork(request))
        return pb.ForkSessionResponse(session=convert.session(forked))

    async def ExportUser(self, request: pb.ExportUserRequest, context: Context) -> AsyncIterator[pb.ExportUserResponse]:
        async for item in self._sessions.export(convert.user_query(request.project, request.user_id)):
            if isinstance(item, Session):
                yield pb.ExportUserResponse(session=convert.session(item))
            else:
                [turn] = convert.turns([item])
                yield pb.ExportUserResponse(turn=turn)

    async def EraseUser(self, request: pb.EraseUserRequest, context: Context) -> pb.EraseUserResponse:
        erased = await self._sessions.erase(convert.user_query(request.project, request.user_id))
        return pb.EraseUserResponse(
            session_count=erased.removed.sessions,
            turn_count=erased.removed.turns,
            erase_time=timestamp(erased.erase_ms),
            audit_event_count=erased.audit_events,
            revoked_api_key_count=erased.api_keys,
        )
