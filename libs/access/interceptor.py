"""The one place where gRPC calls are authenticated, authorized and bound to the caller."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from access.authenticator import Authenticator, bearer, service
from access.caller import ANONYMOUS, KEY_SCOPES, OPERATOR, SERVICE, Caller, note_user_token, set_current
from access.errors import ScopeMissing, Unauthenticated
from access.rules import OPEN, MethodRule
from servicekit.errors import InvalidArgument, Violation
from servicekit.interceptors import Behavior, Context, HandlerInterceptor
from servicekit.peers import address_of, peer_names

CALLER_KEY = "parley-caller"
USER_KEY = "parley-user"
REQUEST_ID_KEY = "parley-request-id"
SOURCE_KEY = "parley-source"
SCOPES_KEY = "parley-scopes"
_OWN_REQUEST_ID = "x-request-id"
_WANTED = frozenset({"authorization", CALLER_KEY, USER_KEY, REQUEST_ID_KEY, SOURCE_KEY, SCOPES_KEY, _OWN_REQUEST_ID})
_MAX_ID = 256
_GIVEN = KEY_SCOPES | {OPERATOR}

Identify = Callable[[Context[Any, Any]], str]
"""Returns the service that the connection (mutual TLS) proves the peer to be; "" for none."""


def no_identity(context: Context[Any, Any]) -> str:
    """The `Identify` of connections without TLS."""
    return ""


def by_certificate(accepted: Collection[str]) -> Identify:
    """Returns an `Identify` that compares the names in the peer's verified certificate exactly."""
    names = frozenset(accepted)

    def identify(context: Context[Any, Any]) -> str:
        return next((name for name in peer_names(context) if name in names), "")

    return identify


class AccessInterceptor(HandlerInterceptor):
    """Admits callers with valid credentials and the scope of the method, and makes them `current()`. A method without a
    rule is refused, unless it is open to all (`rules.OPEN`). Only services may name another caller for whom they call:
    `current()` is then that caller, with its rights only.
    """

    def __init__(
        self, authenticator: Authenticator, rules: Mapping[str, MethodRule], identify: Identify = no_identity
    ) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._rules = rules
        self._identify = identify

    async def admit(self, method: str, context: Context[Any, Any]) -> None:
        """Raises if the caller of a method that is not open to all is unknown: the request need not be read."""
        if not method.startswith(OPEN):
            await self._caller(_wanted(context).get("authorization"), context)

    async def _caller(self, header: str | None, context: Context[Any, Any]) -> tuple[Caller, str]:
        """Returns who calls, and the credential."""
        if header is None:
            return self._peer(context), ""
        credential = bearer(header)
        caller = self._authenticator.known(credential)
        if caller is None:
            caller = await self._authenticator.caller_of(credential, address_of(context.peer()))
        return caller, credential

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        if method.startswith(OPEN):
            return behavior
        rule = self._rules.get(method)

        async def guarded(request: Any, context: Context[Any, Any]) -> Any:
            metadata = _wanted(context)
            caller, credential = await self._caller(metadata.get("authorization"), context)
            if rule is None:
                raise ScopeMissing("none: the method states no access rule")
            rule.admit(caller, request)
            set_current(_on_behalf(caller, metadata))
            note_user_token(caller, credential)
            return await behavior(request, context)

        return guarded

    def _peer(self, context: Context[Any, Any]) -> Caller:
        name = self._identify(context)
        if not name:
            raise Unauthenticated("credentials are required: send `authorization: Bearer …` metadata")
        return service(name)


class Origin(HandlerInterceptor):
    """For authentication off: every caller is anonymous, and only the origin of a request is recorded. Methods that
    only services call are not intercepted.
    """

    def __init__(self, rules: Mapping[str, MethodRule]) -> None:
        super().__init__()
        self._rules = rules

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        rule = self._rules.get(method)
        if rule is None or rule.scope == SERVICE:
            return behavior

        async def anonymous(request: Any, context: Context[Any, Any]) -> Any:
            set_current(_on_behalf(ANONYMOUS, _wanted(context)))
            return await behavior(request, context)

        return anonymous


def _wanted(context: Context[Any, Any]) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    given = [(key, value) for key, value in metadata if key in _WANTED and isinstance(value, str)]
    wanted = dict(given)
    if len(wanted) < len(given):  # other parties may have used either of them
        twice = [key for key in wanted if sum(key == other for other, _ in given) > 1]
        raise InvalidArgument([Violation(key, "must be given once") for key in twice])
    return wanted


def _on_behalf(caller: Caller, metadata: Mapping[str, str]) -> Caller:
    if SERVICE in caller.scopes and CALLER_KEY in metadata:
        return replace(
            caller,
            id=metadata[CALLER_KEY][:_MAX_ID],
            user_id=metadata.get(USER_KEY, "")[:_MAX_ID],
            request_id=metadata.get(REQUEST_ID_KEY, "")[:_MAX_ID],
            source=metadata.get(SOURCE_KEY, "grpc")[:_MAX_ID],
            scopes=caller.scopes if caller is ANONYMOUS else _GIVEN.intersection(metadata.get(SCOPES_KEY, "").split()),
        )
    if SERVICE in caller.scopes and caller is not ANONYMOUS:
        return caller
    return replace(caller, request_id=metadata.get(_OWN_REQUEST_ID, "")[:_MAX_ID], source="grpc")
