"""`parley.session.v1.TurnService`: convert in, one call, convert out."""

# ruff: noqa: N802 (methods bear the names of the RPCs)

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from callstream.protocol import Method, Protocol
from callstream.server import CallStreams
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.interceptors import Behavior
from servicekit.server import as_called
from session_svc.branches import Branches
from session_svc.claims import Claims
from session_svc.edge import journal_convert, push_convert
from session_svc.edge import turn_convert as convert
from session_svc.edge.times import seconds, timestamp
from session_svc.journal import Journals
from session_svc.ports import PartStore, PushConfigStore
from session_svc.turns import Turns

NAME = pb.DESCRIPTOR.services_by_name["TurnService"].full_name

TURNS = Protocol(f"{NAME}/Turns", pb.TurnsRequest, pb.TurnsResponse)
BEGIN = TURNS.method("BeginTurn", "begin", pb.BeginTurnResponse)
RENEW = TURNS.method("RenewTurn", "renew", pb.RenewTurnResponse)
COMMIT = TURNS.method("CommitTurn", "commit", pb.CommitTurnResponse)
ABORT = TURNS.method("AbortTurn", "abort", pb.AbortTurnResponse)
APPEND = TURNS.method("AppendTurnEvents", "append", pb.AppendTurnEventsResponse)

Context = grpc.aio.ServicerContext[Any, Any]


class TurnServicer:
    """Serves TurnService.

    BeginTurn and WatchTurn return bytes, because stored turns and events are never parsed here.
    """

    def __init__(
        self,
        turns: Turns,
        branches: Branches,
        journals: Journals,
        parts: PartStore,
        claims: Claims,
        push_configs: PushConfigStore,
    ) -> None:
        self._turns = turns
        self._branches = branches
        self._claims = claims
        self._journals = journals
        self._parts = parts
        self._push_configs = push_configs

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Context) -> bytes:
        received, turn = time.monotonic(), convert.begin_turn(request)
        if turn.stateless:
            return convert.stateless_on_the_wire(
                await self._turns.begin_stateless(turn, context.time_remaining()), received
            )
        return convert.begun_on_the_wire(await self._branches.begin(turn, context.time_remaining()), received)

    async def ReadParts(self, request: pb.ReadPartsRequest, context: Context) -> bytes:
        key, wanted = convert.read_parts(request)
        return convert.parts_on_the_wire(await self._parts.read(key, wanted))

    async def RenewTurn(self, request: pb.RenewTurnRequest, context: Context) -> pb.RenewTurnResponse:
        received = time.monotonic()
        renewed = await self._turns.renew(convert.lease(request.lease), seconds(request.hold))
        return pb.RenewTurnResponse(
            expire_time=timestamp(renewed.expire_ms), lasts_ms=convert.lasts_ms(renewed, received)
        )

    async def CommitTurn(self, request: pb.CommitTurnRequest, context: Context) -> pb.CommitTurnResponse:
        return convert.committed_message(await self._turns.commit(convert.commit_turn(request)))

    async def AbortTurn(self, request: pb.AbortTurnRequest, context: Context) -> pb.AbortTurnResponse:
        await self._turns.abort(*convert.abort_turn(request))
        return pb.AbortTurnResponse()

    async def AppendTurnEvents(
        self, request: pb.AppendTurnEventsRequest, context: Context
    ) -> pb.AppendTurnEventsResponse:
        new = journal_convert.new_events(request)
        if not request.HasField("commit"):
            return pb.AppendTurnEventsResponse(last_event_id=await self._journals.append(new))
        committed = await self._turns.commit(journal_convert.commit_with(new, request))
        return pb.AppendTurnEventsResponse(
            last_event_id=committed.event_id, committed=convert.committed_message(committed)
        )

    async def HandOverTurn(self, request: pb.HandOverTurnRequest, context: Context) -> pb.HandOverTurnResponse:
        await self._claims.hand_over(convert.lease(request.lease), queued=request.queued)
        return pb.HandOverTurnResponse()

    async def ClaimTurn(self, request: pb.ClaimTurnRequest, context: Context) -> bytes:
        received, hold = time.monotonic(), seconds(request.hold) if request.HasField("hold") else None
        return journal_convert.claimed_on_the_wire(await self._claims.claim(hold, context.time_remaining()), received)

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.CancelTurnResponse:
        watch = journal_convert.turn_watch(request)
        if request.waiting:
            await self._claims.cancel_waiting(watch)
        else:
            await self._claims.cancel(watch, context.time_remaining())
        return pb.CancelTurnResponse()

    async def GetTurnState(self, request: pb.GetTurnStateRequest, context: Context) -> bytes:
        watch = journal_convert.turn_watch(request)
        progress = await self._claims.progress(watch, with_request=request.with_request)
        return journal_convert.progress_on_the_wire(progress, watch.key.session_id)

    async def PutPushConfig(self, request: pb.PutPushConfigRequest, context: Context) -> pb.PutPushConfigResponse:
        await self._push_configs.put(push_convert.push_turn(request), push_convert.config_of(request.push_config))
        return pb.PutPushConfigResponse()

    async def ListPushConfigs(self, request: pb.ListPushConfigsRequest, context: Context) -> pb.ListPushConfigsResponse:
        found = await self._push_configs.list(push_convert.push_turn(request))
        return pb.ListPushConfigsResponse(push_configs=map(push_convert.message_of, found))

    async def DeletePushConfig(
        self, request: pb.DeletePushConfigRequest, context: Context
    ) -> pb.DeletePushConfigResponse:
        await self._push_configs.delete(push_convert.push_turn(request), request.push_config_id)
        return pb.DeletePushConfigResponse()

    async def WatchTurn(self, request: pb.WatchTurnRequest, context: Context) -> AsyncIterator[bytes]:
        watch = journal_convert.turn_watch(request, request.after_event_id, present_only=request.present_only)
        async with contextlib.aclosing(self._journals.watch(watch)) as pages:
            async for events in pages:
                yield journal_convert.events_on_the_wire(events, watch.key.session_id)


def make_streams(servicer: TurnServicer) -> CallStreams:
    """Returns the server of the stream of the same methods."""
    behaviors: dict[Method[Any], Behavior] = {
        BEGIN: servicer.BeginTurn,
        RENEW: servicer.RenewTurn,
        COMMIT: servicer.CommitTurn,
        ABORT: servicer.AbortTurn,
        APPEND: servicer.AppendTurnEvents,
    }
    called = {method: as_called(f"/{method.name}", behavior) for method, behavior in behaviors.items()}
    return CallStreams(TURNS, called, name="session_svc")


def add_turn_servicer_to_server(servicer: tuple[TurnServicer, CallStreams], server: Any) -> None:
    """Registers both, as the generated function does, except that some responses are bytes."""
    unary, streams = servicer
    handlers = {
        "BeginTurn": _handler(unary.BeginTurn, pb.BeginTurnRequest, None),
        "ReadParts": _handler(unary.ReadParts, pb.ReadPartsRequest, None),
        "RenewTurn": _handler(unary.RenewTurn, pb.RenewTurnRequest, pb.RenewTurnResponse),
        "CommitTurn": _handler(unary.CommitTurn, pb.CommitTurnRequest, pb.CommitTurnResponse),
        "AbortTurn": _handler(unary.AbortTurn, pb.AbortTurnRequest, pb.AbortTurnResponse),
        "AppendTurnEvents": _handler(unary.AppendTurnEvents, pb.AppendTurnEventsRequest, pb.AppendTurnEventsResponse),
        "HandOverTurn": _handler(unary.HandOverTurn, pb.HandOverTurnRequest, pb.HandOverTurnResponse),
        "ClaimTurn": _handler(unary.ClaimTurn, pb.ClaimTurnRequest, None),
        "CancelTurn": _handler(unary.CancelTurn, pb.CancelTurnRequest, pb.CancelTurnResponse),
        "GetTurnState": _handler(unary.GetTurnState, pb.GetTurnStateRequest, None),
        "PutPushConfig": _handler(unary.PutPushConfig, pb.PutPushConfigRequest, pb.PutPushConfigResponse),
        "ListPushConfigs": _handler(unary.ListPushConfigs, pb.ListPushConfigsRequest, pb.ListPushConfigsResponse),
        "DeletePushConfig": _handler(unary.DeletePushConfig, pb.DeletePushConfigRequest, pb.DeletePushConfigResponse),
        "WatchTurn": grpc.unary_stream_rpc_method_handler(
            unary.WatchTurn, request_deserializer=pb.WatchTurnRequest.FromString
        ),
        "Turns": grpc.stream_stream_rpc_method_handler(streams.serve, request_deserializer=TURNS.read_requests),
    }
    server.add_registered_method_handlers(NAME, handlers)


def _handler(behavior: Any, request: Any, response: Any) -> Any:
    serialize = response.SerializeToString if response is not None else None
    return grpc.unary_unary_rpc_method_handler(
        behavior, request_deserializer=request.FromString, response_serializer=serialize
    )
