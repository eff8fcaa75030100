"""Between the journal's messages of TurnService and session_svc's own values. Requests are checked here."""

import re
from collections.abc import Sequence

from contract.fields import DEFAULT_PROJECT, check_resource_id, check_session_id, check_turn_id, check_user_id
from parley.session.v1 import turn_event_pb2, turn_service_pb2
from servicekit.errors import Violations
from servicekit.wire import bytes_tag, varint
from session_svc.edge import turns_convert
from session_svc.edge.times import fill_time
from session_svc.model import rules
from session_svc.model.journal import JournalEvent, NewEvents, TurnWatch
from session_svc.model.session import SessionKey

_EVENTS_TAG = bytes_tag(turn_service_pb2.WatchTurnResponse.EVENTS_FIELD_NUMBER)
_EVENT_ID = re.compile(r"[0-9]{1,16}-[0-9]{1,16}")


def new_events(request: turn_service_pb2.AppendTurnEventsRequest) -> NewEvents:
    """Returns what is to be added. Raises `InvalidArgument`."""
    held, found = turns_convert.lease(request.lease), Violations()
    if not 1 <= request.first_sequence < 2**53:
        found.add("first_sequence", "must be 1 or more")
    if not 1 <= len(request.events) <= rules.MAX_EVENTS:
        found.add("events", f"must have 1 to {rules.MAX_EVENTS} entries")
    for index, event in enumerate(request.events[: rules.MAX_EVENTS]):
        if event.WhichOneof("event") in (None, "ended"):
            found.add(f"events[{index}]", "must be an event other than the end, which CommitTurn and AbortTurn bring")
    events = tuple(map(turns_convert.stored_event, request.events)) if not found else ()
    if sum(map(len, events)) > rules.MAX_EVENTS_BYTES:
        found.add("events", f"must have at most {rules.MAX_EVENTS_BYTES} bytes")
    found.check()
    return NewEvents(held, request.first_sequence, events)


def turn_watch(request: turn_service_pb2.WatchTurnRequest) -> TurnWatch:
    """Returns what is watched. Raises `InvalidArgument`."""
    key, found = SessionKey(request.project or DEFAULT_PROJECT, request.session_id), Violations()
    check_resource_id(found, "project", key.project)
    check_session_id(found, "session_id", key.session_id)
    check_user_id(found, "user_id", request.user_id)
    check_turn_id(found, "turn_id", request.turn_id)
    if request.after_event_id and not _EVENT_ID.fullmatch(request.after_event_id):
        found.add("after_event_id", "must be the id of an event")
    found.check()
    return TurnWatch(key, request.user_id, request.turn_id, request.after_event_id)


def events_on_the_wire(events: Sequence[JournalEvent]) -> bytes:
    """Returns a serialized WatchTurnResponse. Stored events go into it as they are, never parsed.

    Protobuf messages written one after the other are one message with the fields of all: the id, and what only the
    commit knew, come behind.
    """
    pieces: list[bytes] = []
    for event in events:
        data = event.data + _known_later(event).SerializeToString()
        pieces += (_EVENTS_TAG, varint(len(data)), data)
    return b"".join(pieces)


def _known_later(event: JournalEvent) -> turn_event_pb2.TurnEvent:
    message = turn_event_pb2.TurnEvent(id=event.id)
    if event.turn_number:
        committed = message.ended.committed
        committed.turn_number = event.turn_number
        fill_time(committed.session_expire_time, event.expire_ms)
    return message
