"""The access control of one service, built once from its settings for all of its edges."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from access.api_key import mark_secret_of
from access.authenticator import Authenticator, TokenVerifier, fixed_callers, peer_credential
from access.interceptor import AccessInterceptor, Origin, by_certificate, no_identity
from access.key_cache import KeyCache, KeyChecker, KeyTimes
from access.rules import MethodRule, rules_of
from access.settings import AccessSettings
from servicekit.bounded_calls import Admit
from servicekit.errors import StartupError
from servicekit.interceptors import HandlerInterceptor

CHAT_GATEWAY: Final = "chat_gateway"
SESSION_SVC: Final = "session_svc"


@dataclass(frozen=True, slots=True)
class AccessControl:
    """With authentication off, `authenticator` and `keys` are None."""

    authenticator: Authenticator | None
    keys: KeyCache | None
    tokens: TokenVerifier | None
    interceptors: tuple[HandlerInterceptor, ...]
    """What the gRPC server needs."""
    admit: Admit | None = None
    """Says by a call's metadata whether its request need be read; None where anybody's is."""

    async def close(self) -> None:
        """Cancels running checks. Idempotent."""
        if self.keys is not None:
            await self.keys.close()
        if self.tokens is not None:
            await self.tokens.close()


def build_access_control(
    settings: AccessSettings,
    *,
    services: Iterable[str],
    checker: KeyChecker,
    peers: Collection[str] = (),
    record_origin: bool = True,
    more_rules: Mapping[str, MethodRule] | None = None,
) -> AccessControl:
    """Returns the access control of a process that serves `services` and is called by the services `peers`.

    Where the services use mutual TLS, their certificates identify them, and `PARLEY_TLS_PEERS` says whose calls are
    accepted; credentials derived from the operator key are then not accepted. With `record_origin` false, calls are not
    intercepted while authentication is off. `more_rules` are for methods of third-party protos. Raises `StartupError`
    for a method without a rule.
    """
    rules = {**rules_of(services), **(more_rules or {})}
    if settings.auth == "off":
        return AccessControl(None, None, None, (Origin(rules),) if record_origin else ())
    keys = KeyCache(checker, key_times(settings), limit=settings.max_known_keys, mark_secret=mark_secret(settings))
    over_tls = settings.tls_files is not None
    fixed = fixed_callers(settings.read_operator_key(), () if over_tls else peers)
    tokens = _tokens(settings)
    authenticator = Authenticator(fixed, keys, tokens)
    identify = by_certificate(settings.tls_peers) if over_tls and not settings.edge else no_identity
    guard = AccessInterceptor(authenticator, rules, identify)
    return AccessControl(authenticator, keys, tokens, (guard,), guard.admit)


def _tokens(settings: AccessSettings) -> TokenVerifier | None:
    if not settings.oidc:
        return None
    try:
        from access.oidc import OidcTokens  # imported only if used: it is an optional dependency
    except ModuleNotFoundError as error:
        raise StartupError(f"PARLEY_OIDC needs {error.name}: install parley[oidc]") from None
    return OidcTokens(settings.oidc, limit=settings.max_known_keys)


def key_times(settings: AccessSettings) -> KeyTimes:
    """Returns for how long cached keys may be used."""
    return KeyTimes(max_age=settings.key_max_age)


def mark_secret(settings: AccessSettings) -> bytes | None:
    """Returns the secret of this installation's marks on API keys; None without an operator key."""
    try:
        return mark_secret_of(settings.read_operator_key())
    except ValueError:
        return None


def own_credential(settings: AccessSettings, name: str) -> str | None:
    """Returns the credential that the service `name` presents to other services. None while authentication is off, and
    with mutual TLS.
    """
    if settings.auth == "off" or settings.tls_files is not None:
        return None
    return peer_credential(settings.read_operator_key(), name)
