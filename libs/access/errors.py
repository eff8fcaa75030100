"""Why a caller is refused. Reasons are documented in parley.errors.v1.Reason."""

from typing import Final

from contract.reasons import Reason
from servicekit.errors import Code, ServiceError

CALL_CREDENTIALS: Final = "authorization"
"""In the metadata of `Unauthenticated`: the credentials that the call itself came with are meant."""


class Unauthenticated(ServiceError):
    """No credentials, or none that are valid. The reason is not disclosed.

    Metadata `credentials` distinguishes those that came with the call itself from those that it asks about
    (CheckApiKey).
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
    """The request names another project than the credentials are for, whether or not there is one."""

    code = Code.PERMISSION_DENIED
    reason = Reason.PROJECT_DENIED

    def __init__(self, project: str) -> None:
        super().__init__(f"the credentials are for project {project!r} only", metadata={"project": project})


class UserDenied(ServiceError):
    """The request names another user than the credentials are bound to."""

    code = Code.PERMISSION_DENIED
    reason = Reason.USER_DENIED

    def __init__(self) -> None:
        super().__init__("the credentials are bound to one user, and the request names another")
