"""The REST binding: maps paths and methods to operations and requests."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from google.protobuf.json_format import ParseDict, ParseError

from chat_gateway.a2a.methods import REQUESTS
from chat_gateway.http_edge.wire.errors import MethodNotAllowed, RouteNotFound
from servicekit.errors import InvalidArgument, Violation

_TASK: Final = r"/tasks/(?P<task>[^/:]+)"
_CONFIGS: Final = _TASK + "/pushNotificationConfigs"
_ROUTES: Final = tuple(
    (re.compile(pattern), methods)
    for pattern, methods in (
        ("/message:send", {"POST": "SendMessage"}),
        ("/message:stream", {"POST": "SendStreamingMessage"}),
        ("/tasks", {"GET": "ListTasks"}),
        (_TASK, {"GET": "GetTask"}),
        (_TASK + ":cancel", {"POST": "CancelTask"}),
        (_TASK + ":subscribe", {"GET": "SubscribeToTask", "POST": "SubscribeToTask"}),
        (_CONFIGS, {"GET": "ListTaskPushNotificationConfigs", "POST": "CreateTaskPushNotificationConfig"}),
        (
            _CONFIGS + "/(?P<config>[^/:]+)",
            {"GET": "GetTaskPushNotificationConfig", "DELETE": "DeleteTaskPushNotificationConfig"},
        ),
        ("/extendedAgentCard", {"GET": "GetExtendedAgentCard"}),
    )
)
_TASK_FIELD: Final = frozenset({"GetTask", "CancelTask", "SubscribeToTask"})


def operation_of(method: str, path: str) -> tuple[str, Mapping[str, str]]:
    """Returns the operation and what the path names. Raises `RouteNotFound`, `MethodNotAllowed`."""
    for pattern, methods in _ROUTES:
        if (found := pattern.fullmatch(path)) is not None:
            if method not in methods:
                raise MethodNotAllowed(method, path, ", ".join(methods))
            return methods[method], found.groupdict()
    raise RouteNotFound(method, path)


def request_of(operation: str, named: Mapping[str, str], query: bytes, document: Any) -> Any:
    """Returns the request of an operation. Raises `InvalidArgument` for what it does not have, and for wrong values."""
    fields: dict[str, Any] = dict(document) if isinstance(document, dict) else {}
    if document is not None and not isinstance(document, dict):
        raise InvalidArgument([Violation("", "the body must be a JSON object")])
    fields |= _query(operation, query)
    if "task" in named:
        fields["id" if operation in _TASK_FIELD else "taskId"] = unquote(named["task"])
    if "config" in named:
        fields["id"] = unquote(named["config"])
    return parsed(operation, fields)


def parsed(operation: str, fields: Any) -> Any:
    """Returns the request that JSON says. Raises `InvalidArgument`."""
    request = REQUESTS[operation]()
    try:
        ParseDict(fields, request)
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        problem = f"the request is no {REQUESTS[operation].DESCRIPTOR.name}: {error}"
        raise InvalidArgument(message=problem[:500]) from None
    return request


def _query(operation: str, query: bytes) -> dict[str, Any]:
    descriptor = REQUESTS[operation].DESCRIPTOR
    known = {field.json_name: field for field in descriptor.fields if field.message_type is None or _is_time(field)}
    said: dict[str, Any] = {}
    for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "A2A-Version":
            continue
        if name not in known or name in said:
            problem = "must be given once" if name in said else "is not a query parameter of this method"
            raise InvalidArgument([Violation(name, problem)])
        field = known[name]
        said[name] = {"true": True, "false": False}.get(text, text) if field.type == field.TYPE_BOOL else text
    return said


def _is_time(field: Any) -> bool:
    return str(field.message_type.full_name) == "google.protobuf.Timestamp"


def version_in(query: bytes) -> str:
    """Returns the version that a query names, for callers that can't send headers."""
    return dict(parse_qsl(query.decode("latin-1"))).get("A2A-Version", "")


STREAMED: Final = frozenset({"SendStreamingMessage", "SubscribeToTask"})
BODIES: Final = frozenset({"SendMessage", "SendStreamingMessage", "CreateTaskPushNotificationConfig", "CancelTask"})
