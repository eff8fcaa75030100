"""Between the messages of TurnService and session_svc's own values. Requests are checked here by the rules."""

from collections.abc import Mapping, Sequence

from google.protobuf.json_format import MessageToJson, SerializeToJsonError
from google.protobuf.message import DecodeError, Message

from contract.fields import DEFAULT_PROJECT
from contract.messages import MessageForm, PartView, check_messages
from contract.wire import BUSY_POLICIES
from parley.session.v1 import message_pb2, turn_event_pb2, turn_service_pb2
from servicekit.errors import InvalidArgument, MessageTooLarge, Violation, Violations
from servicekit.wire import bytes_tag, varint
from session_svc.edge.session_convert import fill_session
from session_svc.edge.times import duration, fill_time, milliseconds
from session_svc.model import rules
from session_svc.model.limits import LimitState, TurnLimit
from session_svc.model.session import DEFAULT_IDLE_MS, DEFAULT_LIFETIME_MS, SessionKey, Usage
from session_svc.model.turn import (
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Joined,
    KeptContent,
    Lease,
    PartContent,
    Replayed,
    RequestMark,
    StatelessTurn,
)

# Field numbers of BeginTurnResponse that hold stored bytes, as tags of length-delimited fields.
_WINDOW_TAG = bytes_tag(turn_service_pb2.BeginTurnResponse.WINDOW_FIELD_NUMBER)
_PARTS_TAG = bytes_tag(turn_service_pb2.ReadPartsResponse.PARTS_FIELD_NUMBER)
_NOT_MADE = ("denied", "invalid_arguments")
"""Outcomes of calls that did not reach their tools."""
_CONTENT_TAG = bytes_tag(message_pb2.PartContent.CONTENT_FIELD_NUMBER)
_REPLAYED_TAG = bytes_tag(turn_service_pb2.BeginTurnResponse.REPLAYED_TURN_FIELD_NUMBER)


def _part(part: message_pb2.ContentPart) -> PartView:
    kept = (part.kept.digest, part.kept.size) if part.HasField("kept") else None
    match part.WhichOneof("part"):
        case "text":
            return PartView("text", part.text, kept=kept)
        case "image_url":
            return PartView("image", part.image_url.url, part.image_url.detail, kept=kept)
        case "input_audio":
            return PartView("audio", part.input_audio.data, format=part.input_audio.format, kept=kept)
        case "file":
            return PartView("file", part.file.data, file_id=part.file.id, file_name=part.file.name, kept=kept)
    return PartView(kept=kept)


_FORM = MessageForm(
    system=message_pb2.ROLE_SYSTEM,
    user=message_pb2.ROLE_USER,
    assistant=message_pb2.ROLE_ASSISTANT,
    tool=message_pb2.ROLE_TOOL,
    part=_part,
)


def begin_turn(request: turn_service_pb2.BeginTurnRequest) -> BeginTurn:
    """Returns the request. Raises `InvalidArgument`."""
    busy = BUSY_POLICIES.get(request.busy)
    if busy is None:
        raise InvalidArgument([Violation("busy", "must be a policy of the contract")])
    turn = BeginTurn(
        key=SessionKey(request.project or DEFAULT_PROJECT, request.session_id),
        agent_id=request.agent_id,
        agent_uid=request.agent_uid,
        turn_id=request.turn_id,
        user_id=request.user_id,
        window_messages=request.window_messages,
        idle_ms=milliseconds(request.idle_ttl) if request.HasField("idle_ttl") else DEFAULT_IDLE_MS,
        lifetime_ms=milliseconds(request.max_lifetime) if request.HasField("max_lifetime") else DEFAULT_LIFETIME_MS,
        must_exist=request.session_must_exist,
        busy=busy,
        request=_request_mark(request.request_id, request.request_digest),
        metadata=dict(request.metadata),
        limits=tuple(_limit(limit) for limit in request.limits) if request.limits else (),
        stateless=request.stateless,
        continues=request.continues,
        parent_id=request.parent_session_id,
        may_cut=request.may_cut,
        within_chain=request.within_chain,
        after_turn=request.after_turn_id,
        join_repeat=request.join_repeat,
    )
    rules.check_begin(turn)
    return turn


def early_calls(data: bytes) -> tuple[str, ...]:
    """Returns which calls of the turn before it, where they waited for approvals, a stored turn made."""
    runs = message_pb2.Turn.FromString(data).tool_runs
    return tuple(run.tool_call_id for run in runs if run.HasField("call") and run.outcome not in _NOT_MADE)


def is_turn(data: bytes) -> bool:
    """Returns whether a stored turn is readable: an unreadable one would break the message that contains it."""
    try:
        message_pb2.Turn.FromString(data)
    except DecodeError:
        return False
    return True


def begun_on_the_wire(outcome: Begun | Replayed | Joined, received: float) -> bytes:
    """Returns a serialized BeginTurnResponse, to a request that was `received` then. Stored turns are copied into it
    unparsed: concatenated protobuf messages are one message with the fields of all.
    """
    response = turn_service_pb2.BeginTurnResponse()
    if isinstance(outcome, Joined):
        response.session.project, response.session.id = outcome.key.project, outcome.key.session_id
        response.joined_turn_id = outcome.turn_id
        return response.SerializeToString()
    fill_session(response.session, outcome.session)
    if isinstance(outcome, Replayed):
        return response.SerializeToString() + _REPLAYED_TAG + varint(len(outcome.turn)) + outcome.turn
    _fill_lease(response.lease, outcome.lease, received)
    if outcome.limits:
        response.limits.extend(map(_limit_state, outcome.limits))
    response.created = outcome.created
    response.full = outcome.full
    response.history_digest = outcome.session.history_digest
    if outcome.session.begun_calls:
        response.begun_call_ids.extend(outcome.session.begun_calls)
    pieces = [response.SerializeToString()]
    for turn in outcome.window:
        pieces += (_WINDOW_TAG, varint(len(turn)), turn)
    return b"".join(pieces)


def stateless_on_the_wire(admitted: StatelessTurn, received: float) -> bytes:
    """Returns a serialized BeginTurnResponse for a stateless turn."""
    return turn_service_pb2.BeginTurnResponse(
        lease=lease_message(admitted.lease, received), limits=map(_limit_state, admitted.limits)
    ).SerializeToString()


def lease(message: turn_service_pb2.TurnLease) -> Lease:
    """Returns the lease. Raises `InvalidArgument` for an invalid one."""
    converted = _lease(message)
    found = Violations()
    rules.check_lease(found, converted)
    found.check()
    return converted


def lease_message(held: Lease, received: float) -> turn_service_pb2.TurnLease:
    """Returns the lease as the contract has it, for a request that was `received` then."""
    message = turn_service_pb2.TurnLease()
    _fill_lease(message, held, received)
    return message


def lasts_ms(held: Lease, received: float) -> int:
    """Returns how long the lease lasts from when its request was `received`, by `time.monotonic()`; 0 if not known."""
    return max(int((held.ends - received) * 1000), 1) if held.ends else 0


def committed_message(committed: Committed) -> turn_service_pb2.CommitTurnResponse:
    """Returns the answer to a commit."""
    message = turn_service_pb2.CommitTurnResponse(turn_number=committed.turn_number)
    fill_time(message.expire_time, committed.expire_ms)
    return message


def _as_json(struct: Message) -> str | None:
    """Returns it as JSON; None for values without a JSON form (NaN and infinities)."""
    try:
        return MessageToJson(struct, indent=None)
    except (SerializeToJsonError, ValueError):
        return None


def abort_turn(request: turn_service_pb2.AbortTurnRequest) -> tuple[Lease, bytes]:
    """Returns the lease, and the end of the turn's journal or nothing. Raises `InvalidArgument`."""
    held, found = _lease(request.lease), Violations()
    rules.check_lease(found, held, token_known=False)
    end_event = _end_event(found, request) if request.HasField("end_event") else b""
    found.check()
    return held, end_event


def stored_event(event: turn_event_pb2.TurnEvent) -> bytes:
    """Returns the event as it is stored; its position is its id."""
    event.ClearField("id")
    return event.SerializeToString()


def _end_event(
    found: Violations, request: turn_service_pb2.CommitTurnRequest | turn_service_pb2.AbortTurnRequest
) -> bytes:
    data = stored_event(request.end_event)
    if request.end_event.WhichOneof("event") != "ended":
        found.add("end_event", "must be an end")
    if len(data) > rules.MAX_EVENTS_BYTES:
        found.add("end_event", f"must have at most {rules.MAX_EVENTS_BYTES} bytes")
    return data


def commit_turn(request: turn_service_pb2.CommitTurnRequest) -> CommitTurn:
    """Returns the commit, with the turn serialized. Raises `InvalidArgument`, `MessageTooLarge`."""
    turn, held, found = request.turn, _lease(request.lease), Violations()
    idle_ms = milliseconds(request.idle_ttl) if request.HasField("idle_ttl") else DEFAULT_IDLE_MS
    mark = _request_mark(request.request_id, request.request_digest)
    rules.check_commit(found, held, turn.id, idle_ms, mark)
    continues = check_messages(found, "turn.messages", turn.messages, _FORM, max_messages=rules.MAX_MESSAGES)
    if len(request.history_digest) > rules.MAX_DIGEST_BYTES:
        found.add("history_digest", f"must be at most {rules.MAX_DIGEST_BYTES} bytes")
    if request.cut_after_turn < 0:
        found.add("cut_after_turn", "must be 0 or more")
    if len(turn.request_notes) > rules.MAX_NOTES_BYTES:
        found.add("turn.request_notes", f"must have at most {rules.MAX_NOTES_BYTES} bytes")
    if len(turn.tools_listed) > rules.MAX_TOOLS_LISTED_BYTES:
        found.add("turn.tools_listed", f"must have at most {rules.MAX_TOOLS_LISTED_BYTES} bytes")
    if len(turn.tool_runs) > rules.MAX_TOOL_RUNS:
        found.add("turn.tool_runs", f"must have at most {rules.MAX_TOOL_RUNS} runs")
    if len(turn.unavailable_tools) > rules.MAX_UNAVAILABLE_TOOLS:
        found.add("turn.unavailable_tools", f"must have at most {rules.MAX_UNAVAILABLE_TOOLS} entries")
    if len(turn.handed_to) > rules.MAX_HANDED_TO:
        found.add("turn.handed_to", f"must have at most {rules.MAX_HANDED_TO} agents")
    if turn.HasField("metadata"):
        rules.check_turn_metadata(found, _as_json(turn.metadata))
    end_event = _end_event(found, request) if request.HasField("end_event") else b""
    found.check()
    turn.ClearField("number")
    turn.id = held.turn_id
    data = turn.SerializeToString()
    parts = _parts(turn, request.parts)
    if len(data) > rules.MAX_TURN_BYTES:
        raise MessageTooLarge(f"the turn has {len(data)} bytes", limit=rules.MAX_TURN_BYTES)
    return CommitTurn(
        lease=held,
        turn=data,
        message_count=len(turn.messages),
        continues=continues,
        usage=_usage(turn.usage),
        agent_revision=max(turn.agent_revision, 0),
        idle_ms=idle_ms,
        request=mark,
        history_digest=request.history_digest,
        cut_after=request.cut_after_turn if request.HasField("cut_after_turn") else None,
        end_event=end_event,
        parts=parts,
    )


def read_parts(request: turn_service_pb2.ReadPartsRequest) -> tuple[SessionKey, list[KeptContent]]:
    """Returns the session and the requested digests. Raises `InvalidArgument`."""
    key = SessionKey(request.project or DEFAULT_PROJECT, request.session_id)
    rules.check_key(key, "", "session_id")
    wanted = [KeptContent(one.digest, one.size) for one in request.kept]
    rules.check_kept(wanted)
    return key, wanted


def parts_on_the_wire(parts: Sequence[PartContent]) -> bytes:
    """Returns a serialized ReadPartsResponse, whose contents are copied once."""
    pieces: list[bytes] = []
    for part in parts:
        head = message_pb2.PartContent(digest=part.digest).SerializeToString()
        size = varint(len(part.content))
        length = len(head) + len(_CONTENT_TAG) + len(size) + len(part.content)
        pieces += (_PARTS_TAG, varint(length), head, _CONTENT_TAG, size, part.content)
    return b"".join(pieces)


def named_parts(data: bytes) -> list[KeptContent]:
    """Returns the contents that a stored turn refers to."""
    return [KeptContent(part.kept.digest, part.kept.size) for part in _kept(message_pb2.Turn.FromString(data))]


def filled_turn(data: bytes, contents: Mapping[bytes, bytes]) -> bytes:
    """Returns a stored turn with the given contents that it refers to."""
    turn, changed = message_pb2.Turn.FromString(data), False
    for part in _kept(turn):
        content = contents.get(part.kept.digest)
        if content is None:
            continue
        said = content.decode("utf-8", "replace")
        match part.WhichOneof("part"):
            case "image_url":
                part.image_url.url = said
            case "input_audio":
                part.input_audio.data = said
            case "file":
                part.file.data = said
        part.ClearField("kept")
        changed = True
    return turn.SerializeToString() if changed else data


def _kept(turn: message_pb2.Turn) -> list[message_pb2.ContentPart]:
    return [part for message in turn.messages if message.parts for part in message.parts if part.HasField("kept")]


def _parts(turn: message_pb2.Turn, given: Sequence[message_pb2.PartContent]) -> tuple[PartContent, ...]:
    """Returns the contents sent with a turn. Raises `InvalidArgument` unless the turn refers to them."""
    if not given:
        for message in turn.messages:
            if message.parts:
                break
        else:
            return ()
    named = {part.kept.digest: part.kept.size for part in _kept(turn)}
    if not (named or given):
        return ()
    parts = tuple([PartContent(part.digest, part.content) for part in given])
    if {part.digest: len(part.content) for part in parts} != named or len(parts) != len(named):
        raise InvalidArgument([Violation("parts", "must be the contents that the turn names, each once")])
    return parts


def _usage(said: message_pb2.Usage) -> Usage:
    counts = (
        said.prompt_tokens,
        said.completion_tokens,
        said.cached_tokens,
        said.reasoning_tokens,
        said.cache_write_tokens,
    )
    return Usage(*[min(max(count, 0), rules.MAX_TOKENS) if count else 0 for count in counts])


def _fill_lease(message: turn_service_pb2.TurnLease, held: Lease, received: float) -> None:
    message.project = held.key.project
    message.session_id = held.key.session_id
    message.turn_id = held.turn_id
    message.token = held.token
    fill_time(message.expire_time, held.expire_ms)
    message.lasts_ms = lasts_ms(held, received)
    if held.limits:
        message.limits.extend(held.limits)


def _lease(message: turn_service_pb2.TurnLease) -> Lease:
    return Lease(
        SessionKey(message.project or DEFAULT_PROJECT, message.session_id),
        message.turn_id,
        message.token,
        limits=tuple(message.limits),
    )


def _limit(message: turn_service_pb2.TurnLimit) -> TurnLimit:
    return TurnLimit(message.subject, message.requests_per_minute, message.concurrent_turns, message.wait)


def _limit_state(state: LimitState) -> turn_service_pb2.TurnLimitState:
    return turn_service_pb2.TurnLimitState(
        subject=state.subject,
        requests_per_minute=state.requests_per_minute,
        remaining=state.remaining,
        reset=duration(state.reset_ms),
    )


def _request_mark(request_id: str, digest: bytes) -> RequestMark | None:
    return RequestMark(request_id, digest) if request_id else None
