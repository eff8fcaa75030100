"""A turn's journal as the stream of its events."""

from collections.abc import Iterator

from chat_gateway.grpc_edge.convert import activity_to_proto, deltas_to_proto, outcome_to_proto, started_to_proto
from chat_gateway.model.answers import whole_delta
from chat_gateway.model.journal import CallRecorded, JournalEvent, StepCalled, TurnBegun, event_place
from chat_gateway.model.tools import ToolActivity
from chat_gateway.model.turn import Delta, TurnOutcome, TurnStarted
from contract.fields import check_resource_id, check_session_id, check_turn_id, check_user_id
from parley.chat.v1 import chat_service_pb2 as pb
from servicekit.errors import ServiceError, Violations


def check_watch(request: pb.WatchTurnRequest) -> None:
    """Raises `InvalidArgument` with every violation."""
    found = Violations()
    if request.project:
        check_resource_id(found, "project", request.project)
    check_session_id(found, "session_id", request.session_id)
    check_user_id(found, "user_id", request.user_id)
    check_turn_id(found, "turn_id", request.turn_id)
    if event_place(request.after_event_id) is None:
        found.add("after_event_id", "must be the id of an event")
    found.check()


class WatchedTurn:
    """Turns a journal, which is read from its begin, into the responses behind an event."""

    def __init__(self, request: pb.WatchTurnRequest) -> None:
        self._turn_id = request.turn_id
        self._session_id = request.session_id
        self._after = event_place(request.after_event_id) or ()
        self._answered = False
        """Whether the journal has the pieces of the answer; that of a turn that is not resumable has the end only."""

    def responses(self, one: JournalEvent | None) -> Iterator[pb.WatchTurnResponse]:
        """Yields what an event becomes. Raises the error that the turn failed with."""
        if one is None:
            yield pb.WatchTurnResponse()
            return
        for event in self._events(one):
            if (event_place(one.id) or ()) > self._after:
                event.event_id = one.id
                yield pb.WatchTurnResponse(event=event)

    def _events(self, one: JournalEvent) -> Iterator[pb.StreamCompleteResponse]:
        entry = one.entry
        match entry:
            case TurnBegun():
                yield pb.StreamCompleteResponse(started=started_to_proto(self._started(entry)))
            case Delta():
                self._answered = True
                yield pb.StreamCompleteResponse(delta=deltas_to_proto([entry]))
            case StepCalled():
                return
            case CallRecorded():
                yield from _activity(entry.event)
            case TurnOutcome():
                if not self._answered:
                    yield pb.StreamCompleteResponse(delta=deltas_to_proto([whole_delta(entry.message)]))
                yield pb.StreamCompleteResponse(finished=outcome_to_proto(entry))
            case ServiceError():
                raise entry
            case _:
                yield from _activity(entry)

    def _started(self, begun: TurnBegun) -> TurnStarted:
        return TurnStarted(
            self._turn_id, self._session_id, begun.session_created, None, begun.agent_revision, begun.begin_time
        )


def _activity(activity: ToolActivity) -> Iterator[pb.StreamCompleteResponse]:
    if (event := activity_to_proto(activity)) is not None:
        yield event
