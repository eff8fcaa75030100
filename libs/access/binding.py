"""What a caller may name: its own project and, where it is bound to one, its own user."""

from collections.abc import Iterable

from access.caller import IMPLIED, KEY_SCOPES, OPERATOR, SERVICE, SESSIONS_READ, USER_SCOPES, Caller
from access.errors import ProjectDenied, ScopeMissing, UserDenied


def require(caller: Caller, scope: str) -> None:
    """Raises `ScopeMissing` unless the caller has the scope."""
    if not caller.may(scope):
        raise ScopeMissing(scope)


def bound_project(caller: Caller, named: str) -> str:
    """Returns the project that a request is about; what was named stays for a caller who may name any.

    Raises `ProjectDenied` where another project than the caller's is named.
    """
    if not caller.project or named == caller.project:
        return named
    if named:
        raise ProjectDenied(caller.project)
    return caller.project


def bound_user(caller: Caller, named: str) -> str:
    """Returns the user that a request is about; what was named stays for a caller who is bound to none.

    Raises `UserDenied` where another user than the caller's is named.
    """
    if not caller.user_id or named == caller.user_id or _is_trusted(caller):
        return named
    if named:
        raise UserDenied
    return caller.user_id


def may_read_turns(caller: Caller, named: str, owner: str) -> bool:
    """Returns whether turns of the user `owner` ("" for none) can be read by a caller who names the user `named`.

    Who names no user reads turns of none, and with the right to read sessions all.
    """
    return named == owner or (not named and caller.may(SESSIONS_READ))


def scopes_of(given: Iterable[str], *, user_bound: bool) -> frozenset[str]:
    """Returns what credentials of a project may do: what they carry, with what that implies.

    What no such credentials can carry is left out: a token that claims `operator` is none.
    """
    carried = frozenset(given) & (USER_SCOPES if user_bound else KEY_SCOPES)
    return carried.union(*(IMPLIED[scope] for scope in carried if scope in IMPLIED))


def _is_trusted(caller: Caller) -> bool:
    # The user of a service's call is the one on whose behalf it is made, and binds nothing: its edge did that.
    return SERVICE in caller.scopes or OPERATOR in caller.scopes
