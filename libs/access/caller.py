"""The caller of a request, once it is known who that is."""

import contextvars
from dataclasses import dataclass, field
from typing import Final

from contract.enums import HistoryPolicy

CHAT: Final = "chat"
AGENTS_READ: Final = "agents:read"
AGENTS_WRITE: Final = "agents:write"
TOOLS_WRITE: Final = "tools:write"
SESSIONS_READ: Final = "sessions:read"
SESSIONS_ADMIN: Final = "sessions:admin"
RUNTIME_ADMIN: Final = "runtime:admin"
KEYS_ADMIN: Final = "keys:admin"
AUDIT_READ: Final = "audit:read"
OPERATOR: Final = "operator"
"""Everything, in every project. Only the operator key has it."""
SERVICE: Final = "service"
"""Everything, in every project, and on behalf of whoever the peer names. Only Parley's own services have it."""

KEY_SCOPES: Final = frozenset(
    {CHAT, AGENTS_READ, AGENTS_WRITE, TOOLS_WRITE, SESSIONS_READ, SESSIONS_ADMIN, RUNTIME_ADMIN, KEYS_ADMIN, AUDIT_READ}
)
"""The scopes that an API key or a token of a project can carry."""

USER_SCOPES: Final = frozenset({CHAT, AGENTS_READ, SESSIONS_READ, SESSIONS_ADMIN})
"""Those of them that credentials bound to one user can carry: the others reach beyond any user."""

IMPLIED: Final = {
    AGENTS_WRITE: frozenset({AGENTS_READ}),
    TOOLS_WRITE: frozenset({AGENTS_READ}),
    SESSIONS_ADMIN: frozenset({SESSIONS_READ}),
}
"""Who may write may read."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """How much a caller may do over all gateways together; 0 means no limit."""

    requests_per_minute: int = 0
    concurrent_turns: int = 0


@dataclass(frozen=True, slots=True)
class CallerRequests:
    """What a caller's requests for turns get where they say nothing; None: what the agent config says."""

    store: bool | None = None
    history: HistoryPolicy | None = None


NO_REQUESTS: Final = CallerRequests()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `scopes` holds what they imply, too."""

    id: str
    """Stands in the audit log: an API key's id, `token:` and a user or subject, `operator`, `service:` and a name,
    or `anonymous` where authentication is off."""
    project: str
    """The only project that it may name; empty for any."""
    scopes: frozenset[str]
    user_id: str = ""
    """The only user that it may name; empty for any."""
    limits: CallerLimits = field(default_factory=CallerLimits)
    requests: CallerRequests = NO_REQUESTS
    request_id: str = ""
    source: str = ""
    """`http` or `grpc`: how the request came in at the edge."""

    def may(self, scope: str) -> bool:
        """Returns whether the caller has the scope, itself or by one that implies it."""
        return scope in self.scopes or SERVICE in self.scopes or (OPERATOR in self.scopes and scope != SERVICE)


ANONYMOUS: Final = Caller("anonymous", "", frozenset({OPERATOR, SERVICE}))
"""Everybody, where authentication is off: then only this machine can connect."""

TOKEN_PREFIX: Final = "token:"
"""What ids of callers begin with that came with a token of an identity provider."""

_current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller", default=ANONYMOUS)
_user_token: contextvars.ContextVar[str] = contextvars.ContextVar("user_token", default="")


def current() -> Caller:
    """Returns the caller of the request that the running task serves, on whose behalf a peer calls where it says so."""
    return _current.get()


def set_current(caller: Caller) -> contextvars.Token[Caller]:
    """Makes `caller` the running task's; the edge does, once a request."""
    return _current.set(caller)


def note_user_token(caller: Caller, credential: str) -> None:
    """Keeps the token that `caller` came with for the running task; a credential of any other kind is not kept."""
    _user_token.set(credential if caller.id.startswith(TOKEN_PREFIX) else "")


def user_token() -> str:
    """Returns the identity provider's token that the running task's request came with; empty where it had another."""
    return _user_token.get()
