"""session_svc's TurnService as the port `Sessions`."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc

from callstream.client import CallStreamClient
from chat_gateway.clients.stubs import SESSION_SVC, Stubs
from chat_gateway.clients.turn_calls import ABORT, APPEND, BEGIN, COMMIT, RENEW
from chat_gateway.convert.begun_turns import (
    MAX_COMPARED_MESSAGES,
    begun_from_proto,
    end_of,
    lease_from_proto,
    lease_to_proto,
    limit_states,
    limit_to_proto,
    messages_to_read,
    window_of,
)
from chat_gateway.convert.journal import committed_to_proto, entry_to_proto, failed_to_proto
from chat_gateway.convert.messages import turn_from_proto, turn_to_proto
from chat_gateway.convert.times import from_timestamp, to_duration
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.history import is_transcript, new_part
from chat_gateway.model.journal import JournalEntry, UnwrittenEntries
from chat_gateway.model.pairing import continues
from chat_gateway.model.parts import content_of, media_parts
from chat_gateway.model.stored_turn import Begun, Committed, Lease, Turn, begun_stateless
from chat_gateway.model.turn import Kept, TurnLimit, TurnRequest
from chat_gateway.ports import StoredWindow
from contract.enums import BusyPolicy, HistoryPolicy
from contract.errors import SessionAgentMismatch
from contract.reasons import Reason
from contract.wire import BUSY_POLICY_NUMBERS
from parley.session.v1 import session_service_pb2
from parley.session.v1 import turn_service_pb2 as pb
from parley.session.v1.message_pb2 import KeptContent, PartContent
from servicekit.channels import call
from servicekit.errors import RemoteError, ServiceError
from servicekit.wire import bytes_tag, varint

MAX_READ_PAGES = 50
"""Pages of a hundred turns that are read to compare a transcript without a turn's lease, and so without its digest."""
MAX_PAGE = 100
"""Turns that session_svc lists at a time."""
MAX_LARGE_CALLS = 2
"""Calls with large contents at a time: each is several times its size in memory, at both ends."""
_BYTES_A_SECOND = 8 * 1024 * 1024
_PARTS_TAG = bytes_tag(pb.CommitTurnRequest.PARTS_FIELD_NUMBER)
_CONTENT_TAG = bytes_tag(PartContent.CONTENT_FIELD_NUMBER)
_OTHER_REPLICA_PAUSES = (0.0, 0.05, 0.2)
"""Seconds before a turn whose replica stops is begun at another one."""


class SessionClient:
    """Calls session_svc. `timeout` bounds each call but BeginTurn's wait for a busy session, in seconds."""

    def __init__(
        self, turns: CallStreamClient, *, timeout: float, wait_timeout: float, large_part_bytes: int = 0
    ) -> None:
        """Contents of parts that have `large_part_bytes` are given beside their turns; 0: none is."""
        self._turns = turns
        self._timeout = timeout
        self._wait_timeout = wait_timeout
        self._keep_from = large_part_bytes or None
        self._large = asyncio.Semaphore(MAX_LARGE_CALLS)

    async def begin(
        self,
        request: TurnRequest,
        config: AgentConfig,
        turn_id: str,
        digest: bytes,
        limits: tuple[TurnLimit, ...] = (),
    ) -> Begun:
        """A caller that waits for a busy session waits no longer than its own timeout.

        A replica that stops while the turn waits there has taken nothing: the next replica is asked, at the end of the
        session's queue.
        """
        begin = self._begin_request(request, config, turn_id, digest)
        if limits:
            begin.limits.extend(map(limit_to_proto, limits))
        waits = self._wait_timeout if request.timeout is None else min(request.timeout, self._wait_timeout)
        response, sent = await self._begin(begin, self._timeout if request.busy is BusyPolicy.REJECT else waits)
        return begun_from_proto(response, config, sent, goes_on=begin.continues)

    async def history(
        self, begun: Begun, request: TurnRequest, config: AgentConfig, digest: bytes
    ) -> tuple[Turn, ...] | None:
        """Begins the turn again, with another window: it holds the lease already."""
        assert begun.lease is not None, "the turn holds its lease"
        begin = self._begin_request(request, config, begun.lease.turn_id, digest)
        begin.session_id, begin.session_must_exist = begun.session_id, True
        begin.window_messages, begin.continues = MAX_COMPARED_MESSAGES, False
        begin.busy = BUSY_POLICY_NUMBERS[BusyPolicy.REJECT]
        response, _ = await self._begin(begin, self._timeout)
        turns = tuple(turn_from_proto(turn) for turn in response.window)
        return turns if sum(len(turn.messages) for turn in turns) == response.session.message_count else None

    def _begin_request(
        self, request: TurnRequest, config: AgentConfig, turn_id: str, digest: bytes
    ) -> pb.BeginTurnRequest:
        return pb.BeginTurnRequest(
            project=request.project,
            session_id=request.session_id,
            session_must_exist=request.session_must_exist,
            agent_id=config.id,
            agent_uid=config.uid,
            user_id=request.user_id,
            turn_id=turn_id,
            window_messages=messages_to_read(config) if config.tools else config.window_messages,
            idle_ttl=to_duration(config.idle_ttl),
            max_lifetime=to_duration(config.max_lifetime),
            busy=BUSY_POLICY_NUMBERS[request.busy],
            request_id=request.request_id,
            request_digest=digest,
            metadata=request.metadata,
            continues=bool(request.approvals) or continues(new_part(request)),
            parent_session_id=request.parent_session_id,
            within_chain=True,
            after_turn_id=request.after_turn,
            may_cut=request.history is HistoryPolicy.REPLACE and is_transcript(request),
            join_repeat=request.background,
        )

    async def take_limits(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Begun:
        waits = self._wait_timeout if request.timeout is None else min(request.timeout, self._wait_timeout)
        begin = pb.BeginTurnRequest(
            project=request.project, turn_id=turn_id, stateless=True, limits=map(limit_to_proto, limits)
        )
        response, sent = await self._begin(begin, waits)
        return begun_stateless(request, lease_from_proto(response.lease, sent), limit_states(response))

    async def _begin(self, begin: pb.BeginTurnRequest, timeout: float) -> tuple[pb.BeginTurnResponse, float]:
        """Returns the answer, and when what it answers was sent."""
        clock = time.monotonic
        give_up = clock() + timeout
        for pause in _OTHER_REPLICA_PAUSES:
            sent = clock()
            try:
                return await self._turns.call(BEGIN, begin, timeout=max(give_up - sent, 0.0)), sent
            except RemoteError as error:
                if error.reason != Reason.DRAINING:
                    raise
            await asyncio.sleep(pause)
        sent = clock()
        return await self._turns.call(BEGIN, begin, timeout=max(give_up - sent, 0.0)), sent

    async def renew(self, lease: Lease, hold: float) -> Lease:
        request = pb.RenewTurnRequest(lease=lease_to_proto(lease), hold=to_duration(timedelta(seconds=hold)))
        sent = time.monotonic()
        response = await self._turns.call(RENEW, request, timeout=self._timeout + hold)
        return replace(lease, expire_time=from_timestamp(response.expire_time), ends=end_of(response.lasts_ms, sent))

    async def commit(
        self,
        lease: Lease,
        turn: Turn,
        config: AgentConfig,
        request_id: str,
        digest: bytes,
        rest: UnwrittenEntries | None = None,
    ) -> Committed:
        request = pb.CommitTurnRequest(
            lease=lease_to_proto(lease),
            turn=turn_to_proto(turn, self._keep_from),
            request_id=request_id,
            request_digest=digest,
            idle_ttl=to_duration(config.idle_ttl),
        )
        if turn.history_digest:
            request.history_digest = turn.history_digest
        if turn.cut_after is not None:
            request.cut_after_turn = turn.cut_after
        if lease.journaled:
            request.end_event.CopyFrom(committed_to_proto(turn))
        contents, event_id = self._contents(turn), ""
        if rest is not None:
            appended = await self._append(lease, rest.first, rest.entries, None if contents else request)
            event_id = appended.last_event_id
            if appended.HasField("committed"):
                stored = appended.committed
                return Committed(stored.turn_number, from_timestamp(stored.expire_time), event_id)
        if contents:
            response = await self._commit_large(request, contents)
        else:
            response = await self._turns.call(COMMIT, request, timeout=self._timeout)
        return Committed(response.turn_number, from_timestamp(response.expire_time), event_id)

    def _contents(self, turn: Turn) -> dict[bytes, str]:
        """Returns what is given beside the turn, by digest."""
        least = self._keep_from
        for message in turn.messages:
            if message.parts:
                break
        else:
            return {}
        return {
            part.kept.digest: content_of(part)
            for part in media_parts(turn.messages)
            if part.kept is not None and least is not None and part.kept.size >= least
        }

    async def _commit_large(
        self, request: pb.CommitTurnRequest, contents: Mapping[bytes, str]
    ) -> pb.CommitTurnResponse:
        async with self._large:
            data = await asyncio.to_thread(_with_contents, request.SerializeToString(), contents)
            return await self._turns.call(COMMIT, data, timeout=self._timeout + len(data) / _BYTES_A_SECOND)

    async def abort(self, lease: Lease, error: ServiceError | None = None) -> None:
        request = pb.AbortTurnRequest(lease=lease_to_proto(lease))
        if lease.journaled and error is not None:
            request.end_event.CopyFrom(failed_to_proto(error))
        await self._turns.call(ABORT, request, timeout=self._timeout)

    async def append(self, lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        return (await self._append(lease, first, entries)).last_event_id

    async def _append(
        self, lease: Lease, first: int, entries: Sequence[JournalEntry], commit: pb.CommitTurnRequest | None = None
    ) -> pb.AppendTurnEventsResponse:
        request = pb.AppendTurnEventsRequest(
            lease=lease_to_proto(lease), first_sequence=first, events=map(entry_to_proto, entries), commit=commit
        )
        if lease.attempt > 1:
            for event in request.events:
                event.attempt = lease.attempt
        return await self._turns.call(APPEND, request, timeout=self._timeout)


class PartClient:
    """session_svc's ReadParts as the port `StoredParts`. `timeout` bounds each call, in seconds, size aside."""

    def __init__(self, session_channel: grpc.aio.Channel, *, timeout: float) -> None:
        self._read: Any = session_channel.unary_unary(
            "/parley.session.v1.TurnService/ReadParts",
            request_serializer=pb.ReadPartsRequest.SerializeToString,
            response_deserializer=pb.ReadPartsResponse.FromString,
        )
        self._timeout = timeout
        self._large = asyncio.Semaphore(MAX_LARGE_CALLS)

    async def read(self, project: str, session_id: str, wanted: Sequence[Kept]) -> Mapping[bytes, str]:
        request = pb.ReadPartsRequest(
            project=project,
            session_id=session_id,
            kept=[KeptContent(digest=one.digest, size=one.size) for one in wanted],
        )
        timeout = self._timeout + sum(one.size for one in wanted) / _BYTES_A_SECOND
        async with self._large:
            response = await call(self._read, request, timeout=timeout, peer=SESSION_SVC)
            contents: dict[bytes, str] = {}
            for part in response.parts:
                contents[part.digest] = part.content.decode("utf-8", "replace")
                await asyncio.sleep(0)  # each takes some milliseconds
        return contents


class SessionReaderClient:
    """session_svc's SessionService as the port `SessionReader`. `timeout` bounds each call, in seconds."""

    def __init__(self, stubs: Stubs, *, timeout: float) -> None:
        self._sessions = stubs.sessions
        self._timeout = timeout

    async def window(self, request: TurnRequest, config: AgentConfig) -> StoredWindow:
        read = session_service_pb2.GetSessionRequest(
            project=request.project, id=request.session_id, user_id=request.user_id
        )
        session = (await call(self._sessions.GetSession, read, timeout=self._timeout, peer=SESSION_SVC)).session
        if session.agent_uid != config.uid:
            raise SessionAgentMismatch(request.session_id, config.id)
        goes_on = bool(request.approvals) or continues(new_part(request))
        newest = session_service_pb2.ListMessagesRequest(
            project=request.project,
            session_id=request.session_id,
            user_id=request.user_id,
            # Every turn has at least two messages: what was asked, and the answer.
            page_size=MAX_PAGE if goes_on else min(max(config.window_messages // 2, 1), MAX_PAGE),
            order=session_service_pb2.ORDER_NEWEST_FIRST,
            omit_parts=True,
        )
        listed = await call(self._sessions.ListMessages, newest, timeout=self._timeout, peer=SESSION_SVC)
        window = window_of(listed.turns[::-1], config, goes_on=goes_on)
        if continues(window) and newest.page_size < MAX_PAGE:
            newest.page_size = MAX_PAGE  # the chain of tool calls that it begins in has its task further back
            listed = await call(self._sessions.ListMessages, newest, timeout=self._timeout, peer=SESSION_SVC)
            window = window_of(listed.turns[::-1], config, goes_on=goes_on)
        return StoredWindow(
            window,
            session.message_count,
            dict(session.metadata),
            session.pinned_revision,
            from_timestamp(session.expire_time),
            session.part_bytes,
            session.user_id,
        )

    async def turns(self, request: TurnRequest) -> tuple[Turn, ...] | None:
        """At most `MAX_READ_PAGES` pages are read."""
        found: list[Turn] = []
        page = session_service_pb2.ListMessagesRequest(
            project=request.project,
            session_id=request.session_id,
            user_id=request.user_id,
            page_size=MAX_PAGE,
            omit_parts=True,
        )
        for _ in range(MAX_READ_PAGES):
            listed = await call(self._sessions.ListMessages, page, timeout=self._timeout, peer=SESSION_SVC)
            found += map(turn_from_proto, listed.turns)
            if not listed.next_page_token:
                return tuple(found)
            page.page_token = listed.next_page_token
        return None


class SessionAdminClient:
    """session_svc's SessionService as the port `SessionRemover`. `timeout` bounds each call, in seconds."""

    def __init__(self, stubs: Stubs, *, timeout: float) -> None:
        self._sessions = stubs.sessions
        self._timeout = timeout

    async def remove_agent(self, project: str, agent_id: str, uid: str) -> None:
        request = session_service_pb2.DeleteSessionsRequest(
            project=project, agent_id=agent_id, agent_uid=uid, fence_agent=True
        )
        await call(self._sessions.DeleteSessions, request, timeout=self._timeout, peer=SESSION_SVC)


def _with_contents(commit: bytes, contents: Mapping[bytes, str]) -> bytes:
    """Returns a serialized CommitTurnRequest with contents, which are copied once."""
    pieces = [commit]
    for digest, content in contents.items():
        head, data = PartContent(digest=digest).SerializeToString(), content.encode("utf-8", "replace")
        size = varint(len(data))
        pieces += (_PARTS_TAG, varint(len(head) + len(_CONTENT_TAG) + len(size) + len(data)))
        pieces += (head, _CONTENT_TAG, size, data)
    return b"".join(pieces)
