"""The headers of turns in every protocol: session, user, project, revision, limits."""

from collections.abc import Mapping
from typing import Final

from chat_gateway.http_edge.wire.limit_headers import Headers, limit_headers
from chat_gateway.http_edge.wire.times import timestamp
from chat_gateway.model.background import TurnState
from chat_gateway.model.turn import TurnOutcome, TurnStarted
from servicekit.values import value

PROVIDER_HEADER: Final = b"x-parley-provider"

REQUEST_HEADERS: Final[Mapping[bytes, str]] = {
    b"x-session-id": "session_id",
    b"x-user-id": "user_id",
    b"x-project-id": "project",
    b"x-session-busy": "busy",
    b"x-session-history": "history",
    b"idempotency-key": "request_id",
}
"""The request headers of a turn, and the fields of `TurnHeaders` that they fill."""


@value
class TurnHeaders:
    """What a request's headers say about its turn; empty where a header was not sent."""

    session_id: str = ""
    user_id: str = ""
    project: str = ""
    busy: str = ""
    history: str = ""
    request_id: str = ""


def read_turn_headers(headers: Mapping[bytes, bytes]) -> TurnHeaders:
    """Returns what the headers of a request say about its turn."""
    sent = {field: headers[name].decode("latin-1") for name, field in REQUEST_HEADERS.items() if name in headers}
    return TurnHeaders(**sent)


def state_headers(state: TurnState) -> Headers:
    """Returns the headers of an answer about a turn that has not ended."""
    headers: Headers = [(b"x-session-id", state.session_id.encode("latin-1"))]
    if state.agent_revision:
        headers.append((b"x-agent-revision", b"%d" % state.agent_revision))
    return headers


def answer_headers(turn: TurnStarted | TurnOutcome) -> Headers:
    """Returns the headers of an answer: what of the turn its body has no place for."""
    headers: Headers = [(b"x-agent-revision", b"%d" % turn.agent_revision)]
    if turn.session_id:
        headers.append((b"x-session-id", turn.session_id.encode("latin-1")))
    if turn.session_created:
        headers.append((b"x-session-created", b"true"))
    if turn.session_expire_time is not None:
        headers.append((b"x-session-expires", timestamp(turn.session_expire_time).encode()))
    if turn.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    provider = turn.provider if isinstance(turn, TurnStarted) else turn.details.provider
    if provider:
        headers.append((PROVIDER_HEADER, provider.encode("latin-1")))
    if turn.limits:
        headers += limit_headers(turn.limits)
    return headers
