"""Binds requests to the caller's project and, if the caller is bound to one, its user."""

from collections.abc import Iterable

from access.caller import IMPLIED, KEY_SCOPES, OPERATOR, SERVICE, SESSIONS_READ, USER_SCOPES, Caller
from access.errors import ProjectDenied, ScopeMissing, UserDenied


def require(caller: Caller, scope: str) -> None:
    """Raises `ScopeMissing` unless the caller has the scope."""
    if not caller.may(scope):
        raise ScopeMissing(scope)


def bound_project(caller: Caller, named: str) -> str:
    """Returns the project of a request: the caller's, or the one named by a caller who may name any.

    Raises `ProjectDenied` if a project other than the caller's is named.
    """
    if not caller.project or named == caller.project:
        return named
    if named:
        raise ProjectDenied(caller.project)
    return caller.project


def bound_user(caller: Caller, named: str) -> str:
    """Returns the user of a request: the caller's, or the one named by a caller who is not bound to a user.

    Raises `UserDenied` if a user other than the caller's is named.
    """
    if not caller.user_id or named == caller.user_id or _is_trusted(caller):
        return named
    if named:
        raise UserDenied
    return caller.user_id


def may_read_turns(caller: Caller, named: str, owner: str) -> bool:
    """Returns whether turns of the user `owner` ("" for none) can be read by a caller who names the user `named`.

    A caller who names no user can read turns without a user, and all turns with the right to read sessions.
    """
    return named == owner or (not named and caller.may(SESSIONS_READ))


def scopes_of(given: Iterable[str], *, user_bound: bool) -> frozenset[str]:
    """Returns the scopes of a project's credentials, with the scopes that they imply. Scopes that such credentials
    can't have, such as `operator` in a token, are dropped.
    """
    carried = frozenset(given) & (USER_SCOPES if user_bound else KEY_SCOPES)
    return carried.union(*(IMPLIED[scope] for scope in carried if scope in IMPLIED))


def _is_trusted(caller: Caller) -> bool:
    # The user of a service's call is the one on whose behalf it is made, and binds nothing: its edge did that.
    return SERVICE in caller.scopes or OPERATOR in caller.scopes
