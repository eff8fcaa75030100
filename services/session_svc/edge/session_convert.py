"""Between the messages of SessionService and session_svc's own values. Requests are checked here by the rules."""

from collections.abc import Sequence

from contract.fields import DEFAULT_PROJECT
from parley.session.v1 import message_pb2, session_service_pb2
from session_svc.edge.page_tokens import make_token, query_digest, read_token
from session_svc.edge.times import fill_time, milliseconds
from session_svc.model import rules
from session_svc.model.errors import InvalidPageToken, StoredTurnNotFound
from session_svc.model.session import (
    DEFAULT_IDLE_MS,
    DEFAULT_LIFETIME_MS,
    Fork,
    ListPosition,
    NewSession,
    Purge,
    Session,
    SessionChange,
    SessionKey,
    SessionQuery,
    new_session_id,
)
from session_svc.model.turn import TurnQuery

_CHANGEABLE = ("metadata", "idle_ttl", "pinned_revision")
_DEFAULT_PAGE = 50
_MAX_SESSIONS = 1000
_MAX_TURNS = 100


def session(stored: Session) -> session_service_pb2.Session:
    """Returns a session as the contract has it."""
    message = session_service_pb2.Session()
    fill_session(message, stored)
    return message


def fill_session(message: session_service_pb2.Session, stored: Session) -> None:
    """Sets the fields of a session in place."""
    # In place, here and below: passing a message to a constructor copies it, at twice the cost.
    message.project = stored.key.project
    message.id = stored.key.session_id
    message.agent_id = stored.agent_id
    message.agent_uid = stored.agent_uid
    message.user_id = stored.user_id
    message.agent_revision = stored.agent_revision
    message.turn_count = stored.turn_count
    message.message_count = stored.message_count
    message.pinned_revision = stored.pinned_revision
    if stored.part_bytes:
        message.part_bytes = stored.part_bytes
    if stored.running_turn_id:
        message.running_turn_id = stored.running_turn_id
    if stored.cancelled_turn_id:
        message.cancelled_turn_id = stored.cancelled_turn_id
    used, usage = stored.usage, message.usage
    usage.prompt_tokens = used.prompt_tokens
    usage.completion_tokens = used.completion_tokens
    usage.cached_tokens = used.cached_tokens
    usage.reasoning_tokens = used.reasoning_tokens
    usage.cache_write_tokens = used.cache_write_tokens
    if stored.metadata:
        message.metadata.update(stored.metadata)
    fill_time(message.create_time, stored.created_ms)
    fill_time(message.last_activity_time, stored.activity_ms)
    fill_time(message.expire_time, stored.expire_ms)
    fill_time(message.idle_ttl, stored.idle_ms)
    fill_time(message.max_lifetime, stored.lifetime_ms)


def new_session(request: session_service_pb2.CreateSessionRequest) -> NewSession:
    """Returns the new session, with a generated id if none is given. Raises `InvalidArgument`."""
    given = request.session
    wanted = NewSession(
        key=SessionKey(request.project or DEFAULT_PROJECT, given.id or new_session_id()),
        agent_id=given.agent_id,
        agent_uid=given.agent_uid,
        user_id=given.user_id,
        idle_ms=milliseconds(given.idle_ttl) if given.HasField("idle_ttl") else DEFAULT_IDLE_MS,
        lifetime_ms=milliseconds(given.max_lifetime) if given.HasField("max_lifetime") else DEFAULT_LIFETIME_MS,
        pinned_revision=given.pinned_revision,
        metadata=dict(given.metadata),
        for_any_agent=request.for_any_agent,
    )
    rules.check_new(wanted)
    return wanted


def session_key(project: str, session_id: str, user_id: str) -> SessionKey:
    """Returns the key. Raises `InvalidArgument`."""
    key = SessionKey(project or DEFAULT_PROJECT, session_id)
    rules.check_key(key, user_id)
    return key


def session_change(request: session_service_pb2.UpdateSessionRequest) -> SessionChange:
    """Returns the change. Raises `InvalidArgument`."""
    given, paths = request.session, set(request.update_mask.paths)
    idle_ms = milliseconds(given.idle_ttl) if given.HasField("idle_ttl") else DEFAULT_IDLE_MS
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
        match read_token(request.page_token, query_digest(query)):
            case [int(activity_ms), str(session_id)]:
                position = ListPosition(activity_ms, session_id)
            case _:
                raise InvalidPageToken
    return query, min(request.page_size or _DEFAULT_PAGE, _MAX_SESSIONS), position


def session_page_token(query: SessionQuery, position: ListPosition | None) -> str:
    """Returns the token of the next page of this query; empty if there is none."""
    if position is None:
        return ""
    return make_token(query_digest(query), [position.activity_ms, position.session_id])


def purge(request: session_service_pb2.DeleteSessionsRequest) -> Purge:
    """Returns the purge. Raises `InvalidArgument`."""
    idle = milliseconds(request.idle_longer_than) if request.HasField("idle_longer_than") else None
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
    """Returns the query for turns. Raises `InvalidArgument`, `InvalidPageToken`."""
    key = SessionKey(request.project or DEFAULT_PROJECT, request.session_id)
    rules.check_key(key, request.user_id, "session_id")
    rules.check_scope(key.project, page_size=request.page_size)
    newest_first = request.order == session_service_pb2.ORDER_NEWEST_FIRST
    start = request.from_turn if request.from_turn > 0 else None
    if request.page_token:
        match read_token(request.page_token, query_digest(key, request.user_id, newest_first)):
            case [int(number)]:
                start = number
            case _:
                raise InvalidPageToken
    size = min(request.page_size or _DEFAULT_PAGE, _MAX_TURNS)
    return TurnQuery(key, request.user_id, start, size, newest_first, request.omit_parts)


def turn_page_token(query: TurnQuery, number: int | None) -> str:
    """Returns the token of the next page of this query; empty if there is none."""
    if number is None:
        return ""
    return make_token(query_digest(query.key, query.user_id, query.newest_first), [number])


def turns(stored: Sequence[bytes]) -> list[message_pb2.Turn]:
    """Returns stored turns as the contract has them."""
    return [message_pb2.Turn.FromString(turn) for turn in stored]


def turn_key(request: session_service_pb2.GetTurnRequest | session_service_pb2.DeleteTurnRequest) -> SessionKey:
    """Returns the key of a turn's session. Raises `InvalidArgument`, also for an invalid turn id."""
    key = SessionKey(request.project or DEFAULT_PROJECT, request.session_id)
    rules.check_turn_of(key, request.turn_id, request.user_id)
    return key


def turn(stored: bytes, turn_id: str) -> message_pb2.Turn:
    """Returns a stored turn as the contract has it. Raises `StoredTurnNotFound` where it is another one."""
    found = message_pb2.Turn.FromString(stored)
    if found.id != turn_id:  # the store looks for a check sum
        raise StoredTurnNotFound(turn_id)
    return found


def fork(request: session_service_pb2.ForkSessionRequest) -> Fork:
    """Returns the fork, with a generated id if none is given. Raises `InvalidArgument`."""
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
