"""The errors that A2A has names for (specification, 3.3.2 and 5.4), and how each binding writes an error."""

from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from contract.reasons import Reason
from servicekit.errors import Code, InvalidArgument, ServiceError
from servicekit.rpc_status import to_status

DOMAIN: Final = "a2a-protocol.org"
OTHER_ERROR: Final = -32000
"""What JSON-RPC leaves to implementations: the error has a name of ours, and is not internal."""
_INTERNAL: Final = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})


class A2AError(ServiceError):
    """An error of the protocol; `json_rpc` is its code in the JSON-RPC binding."""

    code = Code.FAILED_PRECONDITION
    domain = DOMAIN
    json_rpc: int = -32603


class TaskNotFound(A2AError):
    """There is no such task, or not for this caller."""

    code = Code.NOT_FOUND
    reason = "TASK_NOT_FOUND"
    json_rpc = -32001

    def __init__(self) -> None:
        super().__init__("there is no such task")


class TaskNotCancelable(A2AError):
    """The task has ended."""

    reason = "TASK_NOT_CANCELABLE"
    json_rpc = -32002

    def __init__(self) -> None:
        super().__init__("the task has ended")


class PushNotificationNotSupported(A2AError):
    """No push notifications."""

    reason = "PUSH_NOTIFICATION_NOT_SUPPORTED"
    json_rpc = -32003

    def __init__(self) -> None:
        super().__init__("push notifications are not supported")


class UnsupportedOperation(A2AError):
    """The operation, or this use of it, is not supported."""

    reason = "UNSUPPORTED_OPERATION"
    json_rpc = -32004


class ContentTypeNotSupported(A2AError):
    """A media type that agents do not take, or do not answer with."""

    code = Code.INVALID_ARGUMENT
    reason = "CONTENT_TYPE_NOT_SUPPORTED"
    json_rpc = -32005


class VersionNotSupported(A2AError):
    """The caller speaks another version of the protocol."""

    reason = "VERSION_NOT_SUPPORTED"
    json_rpc = -32009


class MalformedJson(A2AError):
    """The body is not JSON."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"
    json_rpc = -32700


class InvalidRequest(A2AError):
    """The body is JSON, but no request of JSON-RPC 2.0."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"
    json_rpc = -32600


class MethodNotFound(A2AError):
    """The protocol has no such method."""

    code = Code.NOT_FOUND
    reason = "METHOD_NOT_FOUND"
    json_rpc = -32601


class InvalidParams(A2AError):
    """Fields break their rules: as ours, in the words of the protocol."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_PARAMS"
    json_rpc = -32602


class MessageIdReused(A2AError):
    """The context has a message with this id that says something else."""

    code = Code.ABORTED
    domain = ServiceError.domain
    reason = Reason.IDEMPOTENCY_KEY_REUSED
    json_rpc = -32602

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"message id {message_id!r} was used for another message: each message has an id of its own",
            metadata={"request_id": message_id},
        )


def in_words_of_protocol(error: ServiceError) -> ServiceError:
    """Returns the error with the reason that the protocol's clients know, where there is one."""
    if isinstance(error, InvalidArgument):
        return InvalidParams(error.message, violations=error.violations)
    if error.reason == Reason.IDEMPOTENCY_KEY_REUSED:
        return MessageIdReused(error.metadata.get("request_id", ""))
    return error


def json_rpc_code(error: ServiceError) -> int:
    """Returns the code of an error in the JSON-RPC binding."""
    if isinstance(error, A2AError):
        return error.json_rpc
    if error.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND):
        return -32602
    return -32603 if error.code in _INTERNAL else OTHER_ERROR


def details(error: ServiceError) -> list[dict[str, Any]]:
    """Returns the details of an error's `google.rpc.Status` as JSON: ErrorInfo first, then BadRequest, RetryInfo …"""
    return [MessageToDict(one) for one in to_status(error).details]


def rest_error(error: ServiceError, status: int) -> dict[str, Any]:
    """Returns the body of an error in the REST binding (AIP-193)."""
    body = {"code": status, "status": error.code.name, "message": error.message, "details": details(error)}
    return {"error": body}
