"""The field rules of sessions and turns that only session_svc applies. All violations are reported at once."""

import json
import re
from collections.abc import Sequence

from contract.fields import (
    check_agent_uid,
    check_metadata,
    check_request_id,
    check_resource_id,
    check_session_id,
    check_turn_id,
    check_user_id,
)
from contract.messages import DIGEST_BYTES
from servicekit.errors import Violations
from session_svc.model.limits import TurnLimit
from session_svc.model.session import LONGEST_LIFETIME_MS, Fork, NewSession, Purge, SessionChange, SessionKey
from session_svc.model.turn import BeginTurn, KeptContent, Lease, RequestMark

MAX_MESSAGES = 10_256
MAX_TURN_BYTES = 1024 * 1024
MAX_EVENTS = 256
MAX_EVENTS_BYTES = 1024 * 1024
MAX_TURN_METADATA_BYTES = 4096
MAX_TURN_METADATA_DEPTH = 16
"""Objects and lists in each other. Each is up to three messages of protobuf, which reads at most a hundred. Deeper,
a turn that came in by itself could not be read where it stands within other messages, as in an answer of `Turns`."""
MAX_TOKENS = 2**31
MAX_NOTES_BYTES = 16 * 1024
MAX_TOOLS_LISTED_BYTES = 16 * 1024
MAX_TOOL_RUNS = 4096
MAX_UNAVAILABLE_TOOLS = 64
MAX_HANDED_TO = 16
MAX_WINDOW_MESSAGES = 1000
MAX_DIGEST_BYTES = 64
MAX_LIMITS = 8
MAX_PARTS_A_READ = 500
MAX_READ_BYTES = 64 * 1024 * 1024
MAX_SUBJECT = 200
MAX_REQUESTS = 1_000_000
MAX_CONCURRENT = 100_000
SHORTEST_MS = 1000
LONGEST_IDLE_MS = 30 * 24 * 60 * 60 * 1000

_SUBJECT = re.compile(r"(key|agent):[\x21-\x7e]+")


def check_begin(turn: BeginTurn) -> None:
    """Raises `InvalidArgument`. The session id may be empty: one is generated then."""
    found = Violations()
    check_resource_id(found, "project", turn.key.project)
    if turn.limits:
        _check_limits(found, turn.limits)
    if turn.stateless:
        check_turn_id(found, "turn_id", turn.turn_id)
        if not turn.limits:
            found.add("limits", "must be given with stateless")
        found.check()
        return
    if turn.key.session_id:
        check_session_id(found, "session_id", turn.key.session_id)
    elif turn.must_exist:
        found.add("session_id", "must be set with session_must_exist")
    if turn.after_turn:
        check_turn_id(found, "after_turn_id", turn.after_turn)
        if not turn.key.session_id:
            found.add("session_id", "must be set with after_turn_id")
    if turn.parent_id:
        check_session_id(found, "parent_session_id", turn.parent_id)
        if turn.parent_id == turn.key.session_id:
            found.add("parent_session_id", "must be another session")
    without_agent = turn.must_exist and not (turn.agent_id or turn.agent_uid)
    _check_owner(found, "", turn.agent_id, turn.agent_uid, turn.user_id, without_agent=without_agent)
    check_turn_id(found, "turn_id", turn.turn_id)
    if not 0 <= turn.window_messages <= MAX_WINDOW_MESSAGES:
        found.add("window_messages", f"must be 0 to {MAX_WINDOW_MESSAGES}")
    _check_idle(found, "idle_ttl", turn.idle_ms)
    _check_lifetime(found, "max_lifetime", turn.lifetime_ms)
    _check_request(found, turn.request)
    if turn.metadata:
        check_metadata(found, "metadata", turn.metadata)
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
    """Adds violations for an invalid lease; if its token may be unknown, it may be 0. A lease that only holds limits
    has no session and no token.
    """
    check_resource_id(found, "lease.project", lease.key.project)
    stateless = stateless_allowed and bool(lease.limits) and not lease.key.session_id
    if not stateless:
        check_session_id(found, "lease.session_id", lease.key.session_id)
    check_turn_id(found, "lease.turn_id", lease.turn_id)
    if lease.limits:
        _check_subjects(found, "lease.limits", lease.limits)
    if not stateless and lease.token < (1 if token_known else 0):
        found.add("lease.token", "must be the token that BeginTurn gave")


def check_commit(found: Violations, lease: Lease, turn_id: str, idle_ms: int, request: RequestMark | None) -> None:
    """Adds violations of a commit, except those of its messages."""
    check_lease(found, lease, stateless_allowed=False)
    if turn_id not in ("", lease.turn_id):
        found.add("turn.id", "must be the lease's turn_id")
    _check_idle(found, "idle_ttl", idle_ms)
    _check_request(found, request)


def check_turn_metadata(found: Violations, metadata: str | None) -> None:
    """Adds a violation for a turn's JSON metadata that is too large, nested too deeply, or invalid (None)."""
    if metadata is None:
        found.add("turn.metadata", "must be JSON: numbers must be finite, and each value of a kind")
    elif len(metadata.encode()) > MAX_TURN_METADATA_BYTES:
        found.add("turn.metadata", f"must be at most {MAX_TURN_METADATA_BYTES} bytes as JSON")
    elif _depth(json.loads(metadata)) > MAX_TURN_METADATA_DEPTH:
        found.add("turn.metadata", f"must be nested at most {MAX_TURN_METADATA_DEPTH} deep")


def _depth(value: object) -> int:
    """Returns the nesting depth of JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def check_turn_of(key: SessionKey, turn_id: str, user_id: str) -> None:
    """Raises `InvalidArgument` for an invalid session or turn id."""
    found = Violations()
    check_resource_id(found, "project", key.project)
    check_session_id(found, "session_id", key.session_id)
    check_turn_id(found, "turn_id", turn_id)
    check_user_id(found, "user_id", user_id)
    found.check()


def check_key(key: SessionKey, user_id: str = "", field: str = "id") -> None:
    """Raises `InvalidArgument` for an invalid session key."""
    found = Violations()
    check_resource_id(found, "project", key.project)
    check_session_id(found, field, key.session_id)
    check_user_id(found, "user_id", user_id)
    found.check()


def check_new(session: NewSession) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    check_resource_id(found, "project", session.key.project)
    check_session_id(found, "session.id", session.key.session_id)
    without_agent = session.for_any_agent and not (session.agent_id or session.agent_uid or session.pinned_revision)
    _check_owner(found, "session.", session.agent_id, session.agent_uid, session.user_id, without_agent=without_agent)
    _check_idle(found, "session.idle_ttl", session.idle_ms)
    _check_lifetime(found, "session.max_lifetime", session.lifetime_ms)
    check_metadata(found, "session.metadata", session.metadata)
    if session.pinned_revision < 0:
        found.add("session.pinned_revision", "must not be negative")
    found.check()


def check_change(change: SessionChange, unknown_paths: Sequence[str]) -> None:
    """Raises `InvalidArgument`. `unknown_paths` are those of the update mask that can't be changed."""
    found = Violations()
    check_resource_id(found, "project", change.key.project)
    check_session_id(found, "session.id", change.key.session_id)
    check_user_id(found, "user_id", change.user_id)
    if change.metadata is None and change.idle_ms is None and change.pinned_revision is None and not unknown_paths:
        found.add("update_mask", "must name a field")
    for path in unknown_paths:
        found.add("update_mask", f"{path!r} can't be changed: metadata, idle_ttl and pinned_revision can")
    if change.metadata is not None:
        check_metadata(found, "session.metadata", change.metadata)
    if change.idle_ms is not None:
        _check_idle(found, "session.idle_ttl", change.idle_ms)
    if change.pinned_revision is not None and change.pinned_revision < 0:
        found.add("session.pinned_revision", "must not be negative")
    found.check()


def check_scope(project: str, agent_id: str = "", user_id: str = "", *, page_size: int = 0) -> None:
    """Raises `InvalidArgument` for invalid filters of a list."""
    found = Violations()
    check_resource_id(found, "project", project)
    if agent_id:
        check_resource_id(found, "agent_id", agent_id)
    check_user_id(found, "user_id", user_id)
    if page_size < 0:
        found.add("page_size", "must not be negative")
    found.check()


def check_user(project: str, user_id: str) -> None:
    """Raises `InvalidArgument` unless both are set and well-formed."""
    found = Violations()
    check_resource_id(found, "project", project)
    check_user_id(found, "user_id", user_id, required=True)
    found.check()


def check_purge(purge: Purge, *, fence: bool) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    check_resource_id(found, "project", purge.project)
    if not (purge.agent_id or purge.user_id or purge.idle_longer_than_ms is not None):
        found.add("", "one of agent_id, user_id and idle_longer_than must be set")
    if purge.agent_id:
        check_resource_id(found, "agent_id", purge.agent_id)
    if purge.agent_uid:
        check_agent_uid(found, "agent_uid", purge.agent_uid)
        if not purge.agent_id:
            found.add("agent_id", "must be set with agent_uid")
    if fence and not purge.agent_uid:
        found.add("agent_uid", "must be set with fence_agent")
    check_user_id(found, "user_id", purge.user_id)
    if purge.idle_longer_than_ms is not None and purge.idle_longer_than_ms < 0:
        found.add("idle_longer_than", "must not be negative")
    found.check()


def check_fork(fork: Fork) -> None:
    """Raises `InvalidArgument`."""
    found = Violations()
    check_resource_id(found, "project", fork.source.project)
    check_session_id(found, "session_id", fork.source.session_id)
    check_session_id(found, "new_session_id", fork.new_id)
    check_user_id(found, "user_id", fork.user_id)
    if fork.up_to < 0:
        found.add("up_to_turn", "must not be negative")
    found.check()


def check_kept(wanted: Sequence[KeptContent]) -> None:
    """Raises `InvalidArgument` for invalid digests."""
    found = Violations()
    if not 1 <= len(wanted) <= MAX_PARTS_A_READ:
        found.add("kept", f"must have 1 to {MAX_PARTS_A_READ} contents")
    for index, one in enumerate(wanted[:MAX_PARTS_A_READ]):
        if len(one.digest) != DIGEST_BYTES:
            found.add(f"kept[{index}].digest", f"must be {DIGEST_BYTES} bytes")
    if sum(max(one.size, 0) for one in wanted) > MAX_READ_BYTES:
        found.add("kept", f"must have at most {MAX_READ_BYTES} bytes")
    found.check()


def _check_owner(
    found: Violations, prefix: str, agent_id: str, agent_uid: str, user_id: str, *, without_agent: bool
) -> None:
    if not without_agent:
        check_resource_id(found, f"{prefix}agent_id", agent_id)
        check_agent_uid(found, f"{prefix}agent_uid", agent_uid)
    check_user_id(found, f"{prefix}user_id", user_id)


def _check_idle(found: Violations, field: str, idle_ms: int) -> None:
    if not SHORTEST_MS <= idle_ms <= LONGEST_IDLE_MS:
        found.add(field, "must be 1 s to 30 days")


def _check_lifetime(found: Violations, field: str, lifetime_ms: int) -> None:
    if not SHORTEST_MS <= lifetime_ms <= LONGEST_LIFETIME_MS:
        found.add(field, "must be 1 s to 90 days")


def _check_request(found: Violations, request: RequestMark | None) -> None:
    if request is None:
        return
    check_request_id(found, "request_id", request.request_id)
    if not 1 <= len(request.digest) <= MAX_DIGEST_BYTES:
        found.add("request_digest", f"must be 1 to {MAX_DIGEST_BYTES} bytes with a request_id")
