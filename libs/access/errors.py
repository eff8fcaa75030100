"""The errors for refused callers. Reasons are documented in parley.errors.v1.Reason."""

from typing import Final

from contract.reasons import Reason
from servicekit.errors import Code, ServiceError

CALL_CREDENTIALS: Final = "authorization"
"""In the metadata of `Unauthenticated`: the error is about the credentials of the call itself."""


class Unauthenticated(ServiceError):
    """Credentials are missing or invalid. The reason is not disclosed.

    Metadata `credentials` distinguishes the call's own credentials from those that it asks about (CheckApiKey).
    """

    code = Code.UNAUTHENTICATED
    reason = Reason.UNAUTHENTICATED

    def __init__(self, message: str = "the credentials are not valid", *, of_the_call: bool = True) -> None:
        super().__init__(message, metadata={"credentials": CALL_CREDENTIALS} if of_the_call else {})


class ScopeMissing(ServiceError):
    """The credentials do not carry the scope that is needed."""

    code = Code.PERMISSION_DENIED
    reason = Reason.SCOPE_MISSING

    def __init__(self, scope: str) -> None:
        super().__init__(f"the credentials do not carry the scope {scope!r}", metadata={"scope": scope})


class ProjectDenied(ServiceError):
    """The request names a project other than that of the credentials, existing or not."""

    code = Code.PERMISSION_DENIED
    reason = Reason.PROJECT_DENIED

    def __init__(self, project: str) -> None:
        super().__init__(f"the credentials are for project {project!r} only", metadata={"project": project})


class UserDenied(ServiceError):
    """The request names a user other than the one that the credentials are bound to."""

    code = Code.PERMISSION_DENIED
    reason = Reason.USER_DENIED

    def __init__(self) -> None:
        super().__init__("the credentials are bound to one user, and the request names another")
