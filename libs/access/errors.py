"""Why a caller is turned away. Reasons are documented in parley.errors.v1.Reason."""

from typing import Final

from contract.reasons import Reason
from servicekit.errors import Code, ServiceError

AT_THE_DOOR: Final = "authorization"


class Unauthenticated(ServiceError):
    """No credentials, or none that are valid. What is wrong with them is not told: nobody could do better with it.

    Metadata `credentials` tells those that came with the call itself from those that it asks about (CheckApiKey).
    """

    code = Code.UNAUTHENTICATED
    reason = Reason.UNAUTHENTICATED

    def __init__(self, message: str = "the credentials are not valid", *, at_the_door: bool = True) -> None:
        super().__init__(message, metadata={"credentials": AT_THE_DOOR} if at_the_door else {})


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
