"""The field rules of sessions and turns, each written once. Every broken rule of a request is reported at once.

Values are checked as they are: messages by structure, so that what came over the wire need not be copied first.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from servicekit.errors import Violations
from session_svc.model.limits import TurnLimit
from session_svc.model.session import (
    LONGEST_LIFETIME_MS,
    BeginTurn,
    Fork,
    Lease,
    NewSession,
    Purge,
    RequestMark,
    Role,
    SessionChange,
    SessionKey,
)

MAX_MESSAGES = 256
MAX_PARTS = 64
MAX_TOOL_CALLS = 128
MAX_NAME_CHARACTERS = 64
MAX_TURN_BYTES = 1024 * 1024
MAX_TURN_METADATA_BYTES = 4096
MAX_TURN_METADATA_DEPTH = 16
"""Objects and lists in each other. Each is up to three messages of protobuf, which reads at most a hundred. Deeper,
a turn that came in by itself could not be read where it stands within other messages, as in an answer of `Turns`."""
MAX_TOKENS = 2**31
MAX_WINDOW_MESSAGES = 1000
MAX_METADATA_PAIRS = 64
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_DIGEST_BYTES = 64
MAX_LIMITS = 8
MAX_SUBJECT = 200
MAX_REQUESTS = 1_000_000
MAX_CONCURRENT = 100_000
SHORTEST_MS = 1000
LONGEST_IDLE_MS = 30 * 24 * 60 * 60 * 1000
IMAGE_DETAILS = ("", "auto", "low", "high")

# As plain numbers, which are compared in a fraction of the time that a member of an enum takes.
_SYSTEM, _USER, _ASSISTANT, _TOOL = map(int, (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL))

_PROJECT = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TURN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_AGENT_UID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_USER_ID = re.compile(r"[\x21-\x7e]{1,256}")
_SUBJECT = re.compile(r"(key|agent):[\x21-\x7e]+")
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,255}")


class ImageView(Protocol):
    """What the rules read of an image."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def detail(self) -> str: ...  # noqa: D102


class PartView(Protocol):
    """What the rules read of a content part."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def image_url(self) -> ImageView: ...  # noqa: D102


class ToolCallView(Protocol):
    """What the rules read of a tool call."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102


class MessageView(Protocol):
    """What the rules read of a message."""

    @property
    def role(self) -> int: ...  # noqa: D102
    @property
    def content(self) -> str: ...  # noqa: D102
    @property
    def parts(self) -> Sequence[PartView]: ...  # noqa: D102
    @property
    def tool_calls(self) -> Sequence[ToolCallView]: ...  # noqa: D102
    @property
    def tool_call_id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102


def check_begin(turn: BeginTurn) -> None:
    """Raises `InvalidArgument`. The session id may be empty: one is made then."""
    found = Violations()
    _check_project(found, turn.key.project)
    if turn.limits:
        _check_limits(found, turn.limits)
    if turn.stateless:
        _check_turn_id(found, "turn_id", turn.turn_id)
        if not turn.limits:
            found.add("limits", "must be given with stateless")
        found.check()
        return
    if turn.key.session_id:
        _check_session_id(found, "session_id", turn.key.session_id)
    elif turn.must_exist:
        found.add("session_id", "must be set with session_must_exist")
    _check_owner(found, "", turn.agent_id, turn.agent_uid, turn.user_id)
    _check_turn_id(found, "turn_id", turn.turn_id)
    if not 0 <= turn.window_messages <= MAX_WINDOW_MESSAGES:
        found.add("window_messages", f"must be 0 to {MAX_WINDOW_MESSAGES}")
    _check_idle(found, "idle_ttl", turn.idle_ms)
    _check_lifetime(found, "max_lifetime", turn.lifetime_ms)
    _check_request(found, turn.request)
    if turn.metadata:
        _check_metadata(found, "metadata", turn.metadata)
    found.check()


def _check_limits(found: Violations, limits: tuple[TurnLimit, ...]) -> None:
    _check_subjects(found, "limits", [limit.subject for limit in limits])
    for index, limit in enumerate(limits):
        if not 0 <= limit.requests_per_minute <= MAX_REQUESTS:
            found.add(f"limits[{index}].requests_per_minute", f"must be 0 to {MAX_REQUESTS}")
        if not 0 <= limit.concurrent_turns <= MAX_CONCURRENT:
            found.add(f"limits[{index}].concurrent_turns", f"must be 0 to {MAX_CONCURRENT}")


def _check_subjects(found: Violations, field: str, subjects: Sequence[str]) -> None:
    if len(subjects) > MAX_LIMITS or len(set(subjects)) < len(subjects):
        found.add(field, f"must be at most {MAX_LIMITS}, each of another subject")
    for index, subject in enumerate(subjects):
        if len(subject) > MAX_SUBJECT or not _SUBJECT.fullmatch(subject):
            found.add(f"{field}[{index}].subject", f"must match {_SUBJECT.pattern}, at most {MAX_SUBJECT} characters")


def check_lease(found: Violations, lease: Lease, *, token_known: bool = True, stateless_allowed: bool = True) -> None:
    """Notes what can't be a lease that BeginTurn gave; where its token may be unknown, it may be 0.

    A lease that only holds limits has no session and no token.
    """
    _check_project(found, lease.key.project, "lease.project")
    stateless = stateless_allowed and bool(lease.limits) and not lease.key.session_id
    if not stateless:
        _check_session_id(found, "lease.session_id", lease.key.session_id)
    _check_turn_id(found, "lease.turn_id", lease.turn_id)
    if lease.limits:
        _check_subjects(found, "lease.limits", lease.limits)
    if not stateless and lease.token < (1 if token_known else 0):
        found.add("lease.token", "must be the token that BeginTurn gave")


def check_commit(found: Violations, lease: Lease, turn_id: str, idle_ms: int, request: RequestMark | None) -> None:
    """Notes what is wrong with a commit apart from its messages."""
    check_lease(found, lease, stateless_allowed=False)
    if turn_id not in ("", lease.turn_id):
        found.add("turn.id", "must be the lease's turn_id")
    _check_idle(found, "idle_ttl", idle_ms)
    _check_request(found, request)


def check_messages(found: Violations, messages: Sequence[MessageView]) -> bool:
    """Notes what is wrong with a turn's messages; returns whether the turn continues the one before.

    It does when it has results of tool calls that are not its own. They must come before the agent speaks: a later
    result answers a call of the turn.
    """
    if not 1 <= len(messages) <= MAX_MESSAGES:
        found.add("turn.messages", f"must be 1 to {MAX_MESSAGES}")
    calls: set[str] = set()
    continues = spoken = False
    for index, message in enumerate(messages):
        role, tool_calls, tool_call_id = message.role, message.tool_calls, message.tool_call_id
        if role == _TOOL:
            if not tool_call_id:
                found.add(f"turn.messages[{index}].tool_call_id", "must be set for role tool")
            elif tool_call_id not in calls:
                if spoken:
                    path = f"turn.messages[{index}].tool_call_id"
                    found.add(path, "must be the id of a tool call earlier in the turn")
                continues = True
        elif role == _ASSISTANT:
            spoken = True
            if tool_calls:
                _check_tool_calls(found, f"turn.messages[{index}]", tool_calls, calls)
        elif role not in (_SYSTEM, _USER):
            found.add(f"turn.messages[{index}].role", "must be system, user, assistant or tool")
        if tool_calls or tool_call_id or message.parts or message.name:
            _check_shape(found, f"turn.messages[{index}]", message)
    return continues


def check_turn_metadata(found: Violations, metadata: str | None) -> None:
    """Notes when a turn's metadata, given as JSON, is too large or nested too deep, or is no JSON (None)."""
    if metadata is None:
        found.add("turn.metadata", "must be JSON: numbers must be finite, and each value of a kind")
    elif len(metadata.encode()) > MAX_TURN_METADATA_BYTES:
        found.add("turn.metadata", f"must be at most {MAX_TURN_METADATA_BYTES} bytes as JSON")
    elif _depth(json.loads(metadata)) > MAX_TURN_METADATA_DEPTH:
        found.add("turn.metadata", f"must be nested at most {MAX_TURN_METADATA_DEPTH} deep")


def _depth(value: object) -> int:
    """Returns how many objects and lists of JSON stand in each other."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def check_key(key: SessionKey, user_id: str = "", field: str = "id") -> None:
    """Raises `InvalidArgument` for what can't name a session."""
    found = Violations()
    _check_project(found, key.project)
    _check_session_id(found, field, key.session_id)
    _check_user(found, "user_id", user_id)
    found.check()


def check_new(session: NewSession) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    _check_project(found, session.key.project)
    _check_session_id(found, "session.id", session.key.session_id)
    _check_owner(found, "session.", session.agent_id, session.agent_uid, session.user_id)
    _check_idle(found, "session.idle_ttl", session.idle_ms)
    _check_lifetime(found, "session.max_lifetime", session.lifetime_ms)
    _check_metadata(found, "session.metadata", session.metadata)
    if session.pinned_revision < 0:
        found.add("session.pinned_revision", "must not be negative")
    found.check()


def check_change(change: SessionChange, unknown_paths: Sequence[str]) -> None:
    """Raises `InvalidArgument`. `unknown_paths` are those of the update mask that can't be changed."""
    found = Violations()
    _check_project(found, change.key.project)
    _check_session_id(found, "session.id", change.key.session_id)
    _check_user(found, "user_id", change.user_id)
    if change.metadata is None and change.idle_ms is None and change.pinned_revision is None and not unknown_paths:
        found.add("update_mask", "must name a field")
    for path in unknown_paths:
        found.add("update_mask", f"{path!r} can't be changed: metadata, idle_ttl and pinned_revision can")
    if change.metadata is not None:
        _check_metadata(found, "session.metadata", change.metadata)
    if change.idle_ms is not None:
        _check_idle(found, "session.idle_ttl", change.idle_ms)
    if change.pinned_revision is not None and change.pinned_revision < 0:
        found.add("session.pinned_revision", "must not be negative")
    found.check()


def check_scope(project: str, agent_id: str = "", user_id: str = "", *, page_size: int = 0) -> None:
    """Raises `InvalidArgument` for what can't narrow a list."""
    found = Violations()
    _check_project(found, project)
    if agent_id and not _PROJECT.fullmatch(agent_id):
        found.add("agent_id", _AGENT_ID_RULE)
    _check_user(found, "user_id", user_id)
    if page_size < 0:
        found.add("page_size", "must not be negative")
    found.check()


def check_user(project: str, user_id: str) -> None:
    """Raises `InvalidArgument` unless both are set and well-formed."""
    found = Violations()
    _check_project(found, project)
    if not user_id:
        found.add("user_id", "must be set")
    _check_user(found, "user_id", user_id)
    found.check()


def check_purge(purge: Purge, *, fence: bool) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    _check_project(found, purge.project)
    if not (purge.agent_id or purge.user_id or purge.idle_longer_than_ms is not None):
        found.add("", "one of agent_id, user_id and idle_longer_than must be set")
    if purge.agent_id and not _PROJECT.fullmatch(purge.agent_id):
        found.add("agent_id", _AGENT_ID_RULE)
    if purge.agent_uid:
        if not _AGENT_UID.fullmatch(purge.agent_uid):
            found.add("agent_uid", "must be the uid of an agent")
        if not purge.agent_id:
            found.add("agent_id", "must be set with agent_uid")
    if fence and not purge.agent_uid:
        found.add("agent_uid", "must be set with fence_agent")
    _check_user(found, "user_id", purge.user_id)
    if purge.idle_longer_than_ms is not None and purge.idle_longer_than_ms < 0:
        found.add("idle_longer_than", "must not be negative")
    found.check()


def check_fork(fork: Fork) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    _check_project(found, fork.source.project)
    _check_session_id(found, "session_id", fork.source.session_id)
    _check_session_id(found, "new_session_id", fork.new_id)
    _check_user(found, "user_id", fork.user_id)
    if fork.up_to < 0:
        found.add("up_to_turn", "must not be negative")
    found.check()


_AGENT_ID_RULE = "must be [a-z]([a-z0-9-]{0,61}[a-z0-9])?"


def _check_project(found: Violations, project: str, field: str = "project") -> None:
    if not _PROJECT.fullmatch(project):
        found.add(field, "must be [a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def _check_session_id(found: Violations, field: str, session_id: str) -> None:
    if not _SESSION_ID.fullmatch(session_id):
        found.add(field, "must be 1 to 128 of A-Z a-z 0-9 . _ : -")


def _check_turn_id(found: Violations, field: str, turn_id: str) -> None:
    if not _TURN_ID.fullmatch(turn_id):
        found.add(field, "must be 1 to 64 of A-Z a-z 0-9 . _ : -")


def _check_user(found: Violations, field: str, user_id: str) -> None:
    if user_id and not _USER_ID.fullmatch(user_id):
        found.add(field, "must be at most 256 printable ASCII characters without spaces")


def _check_owner(found: Violations, prefix: str, agent_id: str, agent_uid: str, user_id: str) -> None:
    if not _PROJECT.fullmatch(agent_id):
        found.add(f"{prefix}agent_id", _AGENT_ID_RULE)
    if not _AGENT_UID.fullmatch(agent_uid):
        found.add(f"{prefix}agent_uid", "must be the uid of an agent")
    _check_user(found, f"{prefix}user_id", user_id)


def _check_idle(found: Violations, field: str, idle_ms: int) -> None:
    if not SHORTEST_MS <= idle_ms <= LONGEST_IDLE_MS:
        found.add(field, "must be 1 s to 30 days")


def _check_lifetime(found: Violations, field: str, lifetime_ms: int) -> None:
    if not SHORTEST_MS <= lifetime_ms <= LONGEST_LIFETIME_MS:
        found.add(field, "must be 1 s to 90 days")


def _check_request(found: Violations, request: RequestMark | None) -> None:
    if request is None:
        return
    if not _REQUEST_ID.fullmatch(request.request_id):
        found.add("request_id", "must be at most 255 printable ASCII characters")
    if not 1 <= len(request.digest) <= MAX_DIGEST_BYTES:
        found.add("request_digest", f"must be 1 to {MAX_DIGEST_BYTES} bytes with a request_id")


def _check_metadata(found: Violations, field: str, metadata: Mapping[str, str]) -> None:
    if len(metadata) > MAX_METADATA_PAIRS:
        found.add(field, f"must be at most {MAX_METADATA_PAIRS} pairs")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            found.add(field, f"keys must have 1 to {MAX_METADATA_KEY} characters")
        if len(value) > MAX_METADATA_VALUE:
            found.add(f"{field}[{key[:MAX_METADATA_KEY]}]", f"must have at most {MAX_METADATA_VALUE} characters")


def _check_tool_calls(found: Violations, path: str, tool_calls: Sequence[ToolCallView], calls: set[str]) -> None:
    if len(tool_calls) > MAX_TOOL_CALLS:
        found.add(f"{path}.tool_calls", f"must be at most {MAX_TOOL_CALLS}")
    for index, call in enumerate(tool_calls):
        if not call.id or call.id in calls:
            found.add(f"{path}.tool_calls[{index}].id", "must be set and unique within the turn")
        if not call.name:
            found.add(f"{path}.tool_calls[{index}].name", "must be set")
        calls.add(call.id)


def _check_shape(found: Violations, path: str, message: MessageView) -> None:
    if len(message.name) > MAX_NAME_CHARACTERS:
        found.add(f"{path}.name", f"must have at most {MAX_NAME_CHARACTERS} characters")
    parts = message.parts
    if parts:
        _check_parts(found, path, message, parts)
    if message.role != Role.ASSISTANT and message.tool_calls:
        found.add(f"{path}.tool_calls", "must be empty unless the role is assistant")
    if message.role != Role.TOOL and message.tool_call_id:
        found.add(f"{path}.tool_call_id", "must be empty unless the role is tool")


def _check_parts(found: Violations, path: str, message: MessageView, parts: Sequence[PartView]) -> None:
    if message.role != Role.USER:
        found.add(f"{path}.parts", "must be empty unless the role is user")
    if message.content:
        found.add(f"{path}.content", "must be empty when parts are given")
    if len(parts) > MAX_PARTS:
        found.add(f"{path}.parts", f"must be at most {MAX_PARTS}")
    for index, part in enumerate(parts):
        url = part.image_url.url
        if url and not url.startswith(("https:", "data:")):
            found.add(f"{path}.parts[{index}].image_url.url", "must be an https: or data: URL")
        if not url and not part.text:
            found.add(f"{path}.parts[{index}]", "must be text or an image")
        if part.image_url.detail not in IMAGE_DETAILS:
            found.add(f"{path}.parts[{index}].image_url.detail", "must be auto, low or high")
