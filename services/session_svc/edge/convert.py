"""Between the contract's messages and session_svc's own values. Requests are checked here by the rules."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contract.fields import DEFAULT_PROJECT
from contract.messages import MessageForm, PartView, check_messages
from contract.wire import BUSY_POLICIES
from parley.session.v1 import message_pb2, session_service_pb2, turn_service_pb2
from servicekit.errors import InvalidArgument, MessageTooLarge, Violation, Violations
from servicekit.wire import bytes_tag, varint
from session_svc.model import rules
from session_svc.model.errors import InvalidPageToken
from session_svc.model.limits import LimitState, TurnLimit
from session_svc.model.session import (
    DEFAULT_IDLE_MS,
    DEFAULT_LIFETIME_MS,
    Admitted,
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Fork,
    Lease,
    ListPosition,
    NewSession,
    Purge,
    Replayed,
    RequestMark,
    Session,
    SessionChange,
    SessionKey,
    SessionQuery,
    TurnQuery,
    Usage,
    new_session_id,
)


def _part(part: message_pb2.ContentPart) -> PartView:
    return PartView(part.text or None, part.image_url.url or None, part.image_url.detail)


_FORM = MessageForm(
    system=message_pb2.ROLE_SYSTEM,
    user=message_pb2.ROLE_USER,
    assistant=message_pb2.ROLE_ASSISTANT,
    tool=message_pb2.ROLE_TOOL,
    part=_part,
)
_CHANGEABLE = ("metadata", "idle_ttl", "pinned_revision")
_DEFAULT_PAGE = 50
_MAX_SESSIONS = 1000
_MAX_TURNS = 100

# Field numbers of BeginTurnResponse that hold stored bytes, as tags of length-delimited fields.
_WINDOW_TAG = bytes_tag(turn_service_pb2.BeginTurnResponse.WINDOW_FIELD_NUMBER)
_REPLAYED_TAG = bytes_tag(turn_service_pb2.BeginTurnResponse.REPLAYED_TURN_FIELD_NUMBER)


def begin_turn(request: turn_service_pb2.BeginTurnRequest) -> BeginTurn:
    """Returns what is asked for. Raises `InvalidArgument`."""
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
        idle_ms=_milliseconds(request.idle_ttl) if request.HasField("idle_ttl") else DEFAULT_IDLE_MS,
        lifetime_ms=_milliseconds(request.max_lifetime) if request.HasField("max_lifetime") else DEFAULT_LIFETIME_MS,
        must_exist=request.session_must_exist,
        busy=busy,
        request=_request_mark(request.request_id, request.request_digest),
        metadata=dict(request.metadata),
        limits=tuple(_limit(limit) for limit in request.limits) if request.limits else (),
        stateless=request.stateless,
    )
    rules.check_begin(turn)
    return turn


def begun_on_the_wire(outcome: Begun | Replayed) -> bytes:
    """Returns a serialized BeginTurnResponse. Stored turns go into it as they are, never parsed.

    Protobuf messages written one after the other are one message with the fields of all.
    """
    response = turn_service_pb2.BeginTurnResponse()
    _fill_session(response.session, outcome.session)
    if isinstance(outcome, Replayed):
        return response.SerializeToString() + _REPLAYED_TAG + varint(len(outcome.turn)) + outcome.turn
    _fill_lease(response.lease, outcome.lease)
    if outcome.limits:
        response.limits.extend(map(_limit_state, outcome.limits))
    response.created = outcome.created
    pieces = [response.SerializeToString()]
    for turn in outcome.window:
        pieces += (_WINDOW_TAG, varint(len(turn)), turn)
    return b"".join(pieces)


def admitted_on_the_wire(admitted: Admitted) -> bytes:
    """Returns a serialized BeginTurnResponse for a turn without a session."""
    return turn_service_pb2.BeginTurnResponse(
        lease=lease_message(admitted.lease), limits=map(_limit_state, admitted.limits)
    ).SerializeToString()


def lease(message: turn_service_pb2.TurnLease, *, token_known: bool = True) -> Lease:
    """Returns the lease. Raises `InvalidArgument` for what can't be one."""
    converted = _lease(message)
    found = Violations()
    rules.check_lease(found, converted, token_known=token_known)
    found.check()
    return converted


def seconds(duration: Duration) -> float:
    """Returns a span of time in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def lease_message(held: Lease) -> turn_service_pb2.TurnLease:
    """Returns the lease as the contract has it."""
    message = turn_service_pb2.TurnLease()
    _fill_lease(message, held)
    return message


def committed_message(committed: Committed) -> turn_service_pb2.CommitTurnResponse:
    """Returns the answer to a commit."""
    message = turn_service_pb2.CommitTurnResponse(turn_number=committed.turn_number)
    _fill_time(message.expire_time, committed.expire_ms)
    return message


def _as_json(struct: Message) -> str | None:
    """Returns it as JSON; None for what JSON has no word for: NaN and infinities."""
    try:
        return MessageToJson(struct, indent=None)
    except (SerializeToJsonError, ValueError):
        return None


def commit_turn(request: turn_service_pb2.CommitTurnRequest) -> CommitTurn:
    """Returns what is asked for, the turn serialized. Raises `InvalidArgument`, `MessageTooLarge`."""
    turn, held, found = request.turn, _lease(request.lease), Violations()
    idle_ms = _milliseconds(request.idle_ttl) if request.HasField("idle_ttl") else DEFAULT_IDLE_MS
    mark = _request_mark(request.request_id, request.request_digest)
    rules.check_commit(found, held, turn.id, idle_ms, mark)
    continues = check_messages(found, "turn.messages", turn.messages, _FORM, max_messages=rules.MAX_MESSAGES)
    if turn.HasField("metadata"):
        rules.check_turn_metadata(found, _as_json(turn.metadata))
    found.check()
    usage = turn.usage
    turn.ClearField("number")
    turn.id = held.turn_id
    data = turn.SerializeToString()
    if len(data) > rules.MAX_TURN_BYTES:
        raise MessageTooLarge(f"the turn has {len(data)} bytes", limit=rules.MAX_TURN_BYTES)
    return CommitTurn(
        lease=held,
        turn=data,
        message_count=len(turn.messages),
        continues=continues,
        usage=Usage(_tokens(usage.prompt_tokens), _tokens(usage.completion_tokens), _tokens(usage.cached_tokens)),
        agent_revision=max(turn.agent_revision, 0),
        idle_ms=idle_ms,
        request=mark,
    )


def _tokens(count: int) -> int:
    return min(max(count, 0), rules.MAX_TOKENS)


def session(stored: Session) -> session_service_pb2.Session:
    """Returns a session as the contract has it."""
    message = session_service_pb2.Session()
    _fill_session(message, stored)
    return message


def _fill_session(message: session_service_pb2.Session, stored: Session) -> None:
    # In place, here and below: a message that is made first and handed to a constructor is copied, at twice the cost.
    message.project = stored.key.project
    message.id = stored.key.session_id
    message.agent_id = stored.agent_id
    message.agent_uid = stored.agent_uid
    message.user_id = stored.user_id
    message.agent_revision = stored.agent_revision
    message.turn_count = stored.turn_count
    message.message_count = stored.message_count
    message.pinned_revision = stored.pinned_revision
    used, usage = stored.usage, message.usage
    usage.prompt_tokens = used.prompt_tokens
    usage.completion_tokens = used.completion_tokens
    usage.cached_tokens = used.cached_tokens
    if stored.metadata:
        message.metadata.update(stored.metadata)
    _fill_time(message.create_time, stored.created_ms)
    _fill_time(message.last_activity_time, stored.activity_ms)
    _fill_time(message.expire_time, stored.expire_ms)
    _fill_time(message.idle_ttl, stored.idle_ms)
    _fill_time(message.max_lifetime, stored.lifetime_ms)


def _fill_lease(message: turn_service_pb2.TurnLease, held: Lease) -> None:
    message.project = held.key.project
    message.session_id = held.key.session_id
    message.turn_id = held.turn_id
    message.token = held.token
    _fill_time(message.expire_time, held.expire_ms)
    if held.limits:
        message.limits.extend(held.limits)


def _fill_time(message: Timestamp | Duration, milliseconds: int) -> None:
    message.seconds = milliseconds // 1000
    message.nanos = milliseconds % 1000 * 1_000_000


def new_session(request: session_service_pb2.CreateSessionRequest) -> NewSession:
    """Returns what is asked for, with an id that is made where none is given. Raises `InvalidArgument`."""
    given = request.session
    wanted = NewSession(
        key=SessionKey(request.project or DEFAULT_PROJECT, given.id or new_session_id()),
        agent_id=given.agent_id,
        agent_uid=given.agent_uid,
        user_id=given.user_id,
        idle_ms=_milliseconds(given.idle_ttl) if given.HasField("idle_ttl") else DEFAULT_IDLE_MS,
        lifetime_ms=_milliseconds(given.max_lifetime) if given.HasField("max_lifetime") else DEFAULT_LIFETIME_MS,
        pinned_revision=given.pinned_revision,
        metadata=dict(given.metadata),
    )
    rules.check_new(wanted)
    return wanted


def session_key(project: str, session_id: str, user_id: str) -> SessionKey:
    """Returns the key. Raises `InvalidArgument`."""
    key = SessionKey(project or DEFAULT_PROJECT, session_id)
    rules.check_key(key, user_id)
    return key


def session_change(request: session_service_pb2.UpdateSessionRequest) -> SessionChange:
    """Returns what is to be changed. Raises `InvalidArgument`."""
    given, paths = request.session, set(request.update_mask.paths)
    idle_ms = _milliseconds(given.idle_ttl) if given.HasField("idle_ttl") else DEFAULT_IDLE_MS
    change = SessionChange(
        key=SessionKey(request.project or DEFAULT_PROJECT, given.id),
        user_id=request.user_id,
        metadata=dict(given.metadata) if "metadata" in paths else None,
        idle_ms=idle_ms if "idle_ttl" in paths else None,
        pinned_revision=given.pinned_revision if "pinned_revision" in paths else None,
    )
    rules.check_change(change, sorted(paths.difference(_CHANGEABLE)))
    return change


def session_query(
    request: session_service_pb2.ListSessionsRequest,
) -> tuple[SessionQuery, int, ListPosition | None]:
    """Returns query, page size and position. Raises `InvalidArgument`, `InvalidPageToken`."""
    project = request.project or DEFAULT_PROJECT
    rules.check_scope(project, request.agent_id, request.user_id, page_size=request.page_size)
    query = SessionQuery(project, request.agent_id, request.user_id)
    position = None
    if request.page_token:
        match _read_token(request.page_token, _bound_to(query)):
            case [int(activity_ms), str(session_id)]:
                position = ListPosition(activity_ms, session_id)
            case _:
                raise InvalidPageToken
    return query, min(request.page_size or _DEFAULT_PAGE, _MAX_SESSIONS), position


def session_page_token(query: SessionQuery, position: ListPosition | None) -> str:
    """Returns the token with which the next page of this query, and of no other, is asked for; empty for none."""
    if position is None:
        return ""
    return _make_token(_bound_to(query), [position.activity_ms, position.session_id])


def purge(request: session_service_pb2.DeleteSessionsRequest) -> Purge:
    """Returns what is to be removed. Raises `InvalidArgument`."""
    idle = _milliseconds(request.idle_longer_than) if request.HasField("idle_longer_than") else None
    wanted = Purge(
        project=request.project or DEFAULT_PROJECT,
        agent_id=request.agent_id,
        agent_uid=request.agent_uid,
        user_id=request.user_id,
        idle_longer_than_ms=idle,
    )
    rules.check_purge(wanted, fence=request.fence_agent)
    return wanted


def turn_query(request: session_service_pb2.ListMessagesRequest) -> TurnQuery:
    """Returns which turns are asked for. Raises `InvalidArgument`, `InvalidPageToken`."""
    key = SessionKey(request.project or DEFAULT_PROJECT, request.session_id)
    rules.check_key(key, request.user_id, "session_id")
    rules.check_scope(key.project, page_size=request.page_size)
    newest_first = request.order == session_service_pb2.ORDER_NEWEST_FIRST
    start = None
    if request.page_token:
        match _read_token(request.page_token, _bound_to(key, request.user_id, newest_first)):
            case [int(number)]:
                start = number
            case _:
                raise InvalidPageToken
    size = min(request.page_size or _DEFAULT_PAGE, _MAX_TURNS)
    return TurnQuery(key, request.user_id, start, size, newest_first)


def turn_page_token(query: TurnQuery, number: int | None) -> str:
    """Returns the token with which the next page of this query is asked for; empty for none."""
    if number is None:
        return ""
    return _make_token(_bound_to(query.key, query.user_id, query.newest_first), [number])


def turns(stored: Sequence[bytes]) -> list[message_pb2.Turn]:
    """Returns stored turns as the contract has them."""
    return [message_pb2.Turn.FromString(turn) for turn in stored]


def fork(request: session_service_pb2.ForkSessionRequest) -> Fork:
    """Returns what is to be copied, with an id that is made where none is given. Raises `InvalidArgument`."""
    wanted = Fork(
        source=SessionKey(request.project or DEFAULT_PROJECT, request.session_id),
        new_id=request.new_session_id or new_session_id(),
        up_to=request.up_to_turn,
        user_id=request.user_id,
    )
    rules.check_fork(wanted)
    return wanted


def user_query(project: str, user_id: str) -> SessionQuery:
    """Returns the query for all sessions of a user. Raises `InvalidArgument`."""
    query = SessionQuery(project or DEFAULT_PROJECT, user_id=user_id)
    rules.check_user(query.project, user_id)
    return query


def timestamp(milliseconds: int) -> Timestamp:
    """Returns a time as the contract has it."""
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


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
        reset=_duration(state.reset_ms),
    )


def _request_mark(request_id: str, digest: bytes) -> RequestMark | None:
    return RequestMark(request_id, digest) if request_id else None


def _milliseconds(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def _duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _bound_to(*query: object) -> str:
    """Returns what a page token is checked by: it belongs to one query."""
    return hashlib.sha256(repr(query).encode()).hexdigest()[:16]


def _make_token(bound_to: str, position: list[int | str]) -> str:
    text = json.dumps([bound_to, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str, bound_to: str) -> list[int | str]:
    try:
        read = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidPageToken from error
    if not isinstance(read, list) or not read or read[0] != bound_to:
        raise InvalidPageToken
    return read[1:]
