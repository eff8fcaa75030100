"""Between the journal's messages of TurnService and session_svc's own values. Requests are checked here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from google.protobuf.message import DecodeError

from contract.fields import DEFAULT_PROJECT, check_resource_id, check_session_id, check_turn_id, check_user_id
from parley.session.v1 import turn_event_pb2, turn_service_pb2
from servicekit.errors import Violations
from servicekit.rpc_status import to_status
from servicekit.wire import bytes_tag, varint
from session_svc.edge import turn_convert
from session_svc.edge.times import fill_time
from session_svc.model import rules
from session_svc.model.errors import LeaseLost, SessionDamaged, TurnCancelled, TurnGivenUp, TurnInterrupted
from session_svc.model.journal import (
    ClaimedTurn,
    JournalEvent,
    NewEvents,
    NothingClaimed,
    TurnProgress,
    TurnStage,
    TurnWatch,
    UnheardEnd,
)
from session_svc.model.session import SessionKey
from session_svc.model.turn import CommitTurn

_EVENTS_TAG = bytes_tag(turn_service_pb2.WatchTurnResponse.EVENTS_FIELD_NUMBER)
_BEGUN_TAG = bytes_tag(turn_service_pb2.GetTurnStateResponse.BEGUN_FIELD_NUMBER)
_ENDED_TAG = bytes_tag(turn_service_pb2.GetTurnStateResponse.ENDED_FIELD_NUMBER)
_STATES = {
    TurnStage.QUEUED: turn_service_pb2.TURN_STATE_QUEUED,
    TurnStage.RUNNING: turn_service_pb2.TURN_STATE_RUNNING,
    TurnStage.ENDED: turn_service_pb2.TURN_STATE_ENDED,
}
_UNHEARD: Mapping[UnheardEnd, type[LeaseLost] | type[TurnInterrupted] | type[TurnCancelled] | type[TurnGivenUp]] = {
    UnheardEnd.LOST: LeaseLost,
    UnheardEnd.INTERRUPTED: TurnInterrupted,
    UnheardEnd.CANCELLED: TurnCancelled,
    UnheardEnd.GIVEN_UP: TurnGivenUp,
}
_EVENT_ID = re.compile(r"[0-9]{1,16}-[0-9]{1,16}")


def new_events(request: turn_service_pb2.AppendTurnEventsRequest) -> NewEvents:
    """Returns the events to be added. Raises `InvalidArgument`."""
    held, found = turn_convert.lease(request.lease), Violations()
    if not 1 <= request.first_sequence < 2**53:
        found.add("first_sequence", "must be 1 or more")
    if not 1 <= len(request.events) <= rules.MAX_EVENTS:
        found.add("events", f"must have 1 to {rules.MAX_EVENTS} entries")
    for index, event in enumerate(request.events[: rules.MAX_EVENTS]):
        if event.WhichOneof("event") in (None, "ended"):
            found.add(f"events[{index}]", "must be an event other than the end, which CommitTurn and AbortTurn bring")
    to_go_on_with = b""
    if not found and request.events[0].HasField("begun"):
        # Kept apart, so that watchers of the turn do not get it.
        to_go_on_with = request.events[0].begun.request
        request.events[0].begun.ClearField("request")
    events = tuple(map(turn_convert.stored_event, request.events)) if not found else ()
    if len(to_go_on_with) > rules.MAX_EVENTS_BYTES:
        found.add("events[0].begun.request", f"must have at most {rules.MAX_EVENTS_BYTES} bytes")
    if sum(map(len, events)) > rules.MAX_EVENTS_BYTES:
        found.add("events", f"must have at most {rules.MAX_EVENTS_BYTES} bytes")
    found.check()
    begun, denied = _decided_calls(request.events)
    return NewEvents(held, request.first_sequence, events, to_go_on_with, begun, denied)


def commit_with(new: NewEvents, request: turn_service_pb2.AppendTurnEventsRequest) -> CommitTurn:
    """Returns the commit of a turn with its last events. Raises `InvalidArgument`, `MessageTooLarge`."""
    found = Violations()
    if new.request or new.begun_calls or new.denied_calls:
        found.add("events", "must be events of a turn that has begun, and of its steps, where `commit` is given")
    if not request.commit.HasField("end_event"):
        found.add("commit.end_event", "required")
    if request.commit.parts:
        found.add("commit.parts", "must be empty: contents need CommitTurn")
    found.check()
    request.commit.lease.CopyFrom(request.lease)
    return replace(turn_convert.commit_turn(request.commit), events=new.events, first_event=new.first)


def _decided_calls(events: Sequence[turn_event_pb2.TurnEvent]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the calls begun before the first step, which are those of the previous turn, and those denied."""
    early = [event for event in events if not event.step]
    begun = [event.tool_call_started.call.id for event in early if event.HasField("tool_call_started")]
    ended = [event.tool_call_finished for event in early if event.HasField("tool_call_finished")]
    return tuple(begun), tuple(one.tool_call_id for one in ended if one.outcome == "denied")


def turn_watch(
    request: turn_service_pb2.WatchTurnRequest
    | turn_service_pb2.CancelTurnRequest
    | turn_service_pb2.GetTurnStateRequest,
    after_event_id: str = "",
    *,
    present_only: bool = False,
) -> TurnWatch:
    """Returns the turn to watch, and the event after which to begin. Raises `InvalidArgument`."""
    key, found = SessionKey(request.project or DEFAULT_PROJECT, request.session_id), Violations()
    check_resource_id(found, "project", key.project)
    check_session_id(found, "session_id", key.session_id)
    check_user_id(found, "user_id", request.user_id)
    check_turn_id(found, "turn_id", request.turn_id)
    if after_event_id and not _EVENT_ID.fullmatch(after_event_id):
        found.add("after_event_id", "must be the id of an event")
    found.check()
    return TurnWatch(key, request.user_id, request.turn_id, after_event_id, present_only)


def events_on_the_wire(events: Sequence[JournalEvent], session_id: str) -> bytes:
    """Returns a serialized WatchTurnResponse. Stored events are copied into it unparsed. Concatenated protobuf messages
    are one message with the fields of all: the id, and what only the commit knew, are appended. Raises
    `SessionDamaged`.
    """
    pieces: list[bytes] = []
    for event in events:
        data = _on_the_wire(event, session_id)
        pieces += (_EVENTS_TAG, varint(len(data)), data)
    return b"".join(pieces)


def claimed_on_the_wire(claimed: ClaimedTurn | NothingClaimed, received: float) -> bytes:
    """Returns a serialized ClaimTurnResponse, to a request that was `received` then."""
    if isinstance(claimed, NothingClaimed):
        return turn_service_pb2.ClaimTurnResponse(held=claimed.held).SerializeToString()
    return turn_service_pb2.ClaimTurnResponse(
        lease=turn_convert.lease_message(claimed.lease, received), request=claimed.request, attempt=claimed.attempt
    ).SerializeToString()


def progress_on_the_wire(progress: TurnProgress, session_id: str) -> bytes:
    """Returns a serialized GetTurnStateResponse."""
    pieces = [
        turn_service_pb2.GetTurnStateResponse(
            state=_STATES[progress.stage], attempt=progress.attempt, request=progress.request
        ).SerializeToString()
    ]
    for tag, event in ((_BEGUN_TAG, progress.begun), (_ENDED_TAG, progress.ended)):
        if event is not None:
            data = _on_the_wire(event, session_id)
            pieces += (tag, varint(len(data)), data)
    return b"".join(pieces)


def _on_the_wire(event: JournalEvent, session_id: str) -> bytes:
    try:
        turn_event_pb2.TurnEvent.FromString(event.data)
    except DecodeError:
        raise SessionDamaged from None  # it would break the message that contains it
    return event.data + _known_later(event, session_id).SerializeToString()


def _known_later(event: JournalEvent, session_id: str) -> turn_event_pb2.TurnEvent:
    message = turn_event_pb2.TurnEvent(id=event.id)
    if event.unheard is not None:
        message.ended.failure = to_status(_UNHEARD[event.unheard](session_id)).SerializeToString()
    if event.turn_number:
        committed = message.ended.committed
        committed.turn_number = event.turn_number
        fill_time(committed.session_expire_time, event.expire_ms)
    return message
