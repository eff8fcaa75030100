"""ChatService over the turn runner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chat_gateway.background import BackgroundTurns
from chat_gateway.coalescing import CoalescedDeltas
from chat_gateway.convert.messages import message_to_proto
from chat_gateway.convert.times import to_timestamp
from chat_gateway.finishing import FinishingTurns
from chat_gateway.grpc_edge.background import state_to_proto, turn_named
from chat_gateway.grpc_edge.convert import (
    events_to_proto,
    large_parts_bytes,
    messages_to_proto,
    outcome_to_proto,
    request_from_proto,
    started_to_proto,
    tools_to_proto,
    unavailable_to_proto,
)
from chat_gateway.grpc_edge.watch import WatchedTurn, check_watch
from chat_gateway.model.turn import Delta, TurnRequest, TurnStarted
from chat_gateway.ports import Journals
from chat_gateway.preview import PromptPreview
from contract.fields import DEFAULT_PROJECT
from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1 import chat_service_pb2_grpc
from servicekit.server import remaining

_ANSWER_MARGIN = 0.05
"""Seconds before the caller's deadline at which a turn ends, so that its caller still learns which bound it hit."""


class ChatServicer(chat_service_pb2_grpc.ChatServiceServicer):
    """Serves `parley.chat.v1.ChatService`."""

    def __init__(
        self,
        turns: FinishingTurns,
        background: BackgroundTurns,
        preview: PromptPreview,
        journals: Journals,
    ) -> None:
        self._turns = turns
        self._background = background
        self._preview = preview
        self._journals = journals

    async def Complete(self, request: pb.CompleteRequest, context: Any) -> pb.CompleteResponse:  # noqa: N802
        """Runs one turn; see the proto."""
        async with self._asked(request.input, context) as turn:
            outcome = await self._turns.run(turn)
        return pb.CompleteResponse(message=message_to_proto(outcome.message), outcome=outcome_to_proto(outcome))

    async def StreamComplete(self, request: pb.StreamCompleteRequest, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        """Runs one turn and streams it; see the proto. Writes to the context, so that it needs no queue of its own."""

        async def send_started(started: TurnStarted) -> None:
            await context.write(pb.StreamCompleteResponse(started=started_to_proto(started), event_id=started.event_id))

        async def send_deltas(deltas: list[Delta]) -> None:
            for event in events_to_proto(deltas):
                await context.write(event)

        deltas = CoalescedDeltas(send_deltas)
        try:
            async with self._asked(request.input, context) as turn:
                outcome = await self._turns.run(turn, send_started, deltas)
            await deltas.flush()
        finally:
            await deltas.close()
        await context.write(pb.StreamCompleteResponse(finished=outcome_to_proto(outcome)))

    async def WatchTurn(self, request: pb.WatchTurnRequest, context: Any) -> AsyncIterator[pb.WatchTurnResponse]:  # noqa: N802
        """Goes on with the stream of a turn; see the proto."""
        check_watch(request)
        events = self._journals.watch(
            request.project or DEFAULT_PROJECT, request.session_id, request.user_id, request.turn_id, ""
        )
        watched = WatchedTurn(request)
        async with contextlib.aclosing(events):
            async for one in events:
                for response in watched.responses(one):
                    yield response

    async def SubmitTurn(self, request: pb.SubmitTurnRequest, context: Any) -> pb.SubmitTurnResponse:  # noqa: N802
        """Queues a turn; see the proto."""
        async with self._asked(request.input, context) as turn:
            return pb.SubmitTurnResponse(turn=state_to_proto(await self._background.submit(turn)))

    async def GetTurn(self, request: pb.GetTurnRequest, context: Any) -> pb.GetTurnResponse:  # noqa: N802
        """Returns how far a turn is; see the proto."""
        return pb.GetTurnResponse(turn=state_to_proto(await self._background.state(*turn_named(request))))

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Any) -> pb.CancelTurnResponse:  # noqa: N802
        """Ends a turn; see the proto."""
        ended = await self._background.cancel(*turn_named(request), timeout=_time_for(context))
        return pb.CancelTurnResponse(turn=state_to_proto(ended))

    async def PreviewPrompt(self, request: pb.PreviewPromptRequest, context: Any) -> pb.PreviewPromptResponse:  # noqa: N802
        """Shows a prompt; see the proto."""
        async with self._asked(request.input, context) as turn:
            prompt = await self._preview.show(turn)
        return pb.PreviewPromptResponse(
            messages=messages_to_proto(prompt.messages),
            omitted_message_count=prompt.omitted_message_count,
            agent_revision=prompt.agent_revision,
            session_expire_time=to_timestamp(prompt.session_expire_time) if prompt.session_expire_time else None,
            tools=tools_to_proto(prompt.tools),
            unavailable_tool_servers=unavailable_to_proto(prompt.unavailable),
        )

    @asynccontextmanager
    async def _asked(self, turn: pb.TurnInput, context: Any) -> AsyncIterator[TurnRequest]:
        if large_parts_bytes(turn):
            yield await asyncio.to_thread(request_from_proto, turn, _time_for(context))
        else:
            yield request_from_proto(turn, _time_for(context))


def _time_for(context: Any) -> float | None:
    left = remaining(context)
    return None if left is None else max(left - _ANSWER_MARGIN, left / 2)
