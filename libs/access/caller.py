"""The authenticated caller of a request."""

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
"""Everything, in every project, and on behalf of any caller. Only Parley's own services have it."""

KEY_SCOPES: Final = frozenset(
    {CHAT, AGENTS_READ, AGENTS_WRITE, TOOLS_WRITE, SESSIONS_READ, SESSIONS_ADMIN, RUNTIME_ADMIN, KEYS_ADMIN, AUDIT_READ}
)
"""The scopes that an API key or a token of a project can carry."""

USER_SCOPES: Final = frozenset({CHAT, AGENTS_READ, SESSIONS_READ, SESSIONS_ADMIN})
"""The scopes that credentials bound to a user can carry: the others reach beyond one user."""

IMPLIED: Final = {
    AGENTS_WRITE: frozenset({AGENTS_READ}),
    TOOLS_WRITE: frozenset({AGENTS_READ}),
    SESSIONS_ADMIN: frozenset({SESSIONS_READ}),
}
"""Write scopes imply read scopes."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """A caller's limits across all gateways; 0 means no limit."""

    requests_per_minute: int = 0
    concurrent_turns: int = 0


@dataclass(frozen=True, slots=True)
class CallerRequests:
    """Defaults for a caller's turns; None leaves the agent config's."""

    store: bool | None = None
    history: HistoryPolicy | None = None


NO_REQUESTS: Final = CallerRequests()


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller. `scopes` includes implied scopes."""

    id: str
    """The actor in the audit log: an API key's id, `token:` and a user or subject, `operator`, `service:` and a name,
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
"""Every caller while authentication is off, when only this machine can connect."""

TOKEN_PREFIX: Final = "token:"
"""The prefix of caller ids that come from tokens of an identity provider."""

_current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller", default=ANONYMOUS)
_user_token: contextvars.ContextVar[str] = contextvars.ContextVar("user_token", default="")


def current() -> Caller:
    """Returns the caller of the running task's request: the one that a peer service calls for, if it names one."""
    return _current.get()


def set_current(caller: Caller) -> contextvars.Token[Caller]:
    """Sets the running task's caller; called by the edge, once per request."""
    return _current.set(caller)


def note_user_token(caller: Caller, credential: str) -> None:
    """Keeps the caller's token for the running task; other credentials are not kept."""
    _user_token.set(credential if caller.id.startswith(TOKEN_PREFIX) else "")


def user_token() -> str:
    """Returns the identity provider's token of the running task's request; empty if it had another credential."""
    return _user_token.get()
