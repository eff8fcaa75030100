"""Exceptions of the framework's routes as our errors."""

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from chat_gateway.http_edge.admin.agents.schema import with_api_names
from chat_gateway.http_edge.wire.bodies import ClientGone
from chat_gateway.http_edge.wire.context import current_request
from chat_gateway.http_edge.wire.errors import (
    ErrorBody,
    MalformedBody,
    MethodNotAllowed,
    RouteNotFound,
    error_body,
    error_headers,
    http_status,
)
from contract.reasons import Reason
from servicekit.errors import Cancelled, Internal, InvalidArgument, ServiceError, Violation

log = structlog.get_logger("chat_gateway.http")


def answer_error(request: Request[Any, Any, Any], exception: Exception) -> Response[ErrorBody]:
    """Answers an exception of a route with our error body."""
    error = _as_service_error(request, exception)
    headers = {name.decode(): value.decode("latin-1") for name, value in error_headers(error)}
    if error.reason == Reason.MESSAGE_TOO_LARGE:
        headers["connection"] = "close"
    return Response(error_body(error), status_code=http_status(error), headers=headers, media_type="application/json")


def _as_service_error(request: Request[Any, Any, Any], exception: Exception) -> ServiceError:
    match exception:
        case ServiceError():
            return with_api_names(exception)
        case ValidationException():
            return _invalid(exception)
        case MethodNotAllowedException():
            allowed = (exception.headers or {}).get("allow", "")
            return MethodNotAllowed(request.method, request.url.path, allowed)
        case NotFoundException():
            return RouteNotFound(request.method, request.url.path)
        case ClientGone():
            return Cancelled("the client left")
        case HTTPException() if exception.status_code < 500:
            return InvalidArgument(message=exception.detail)
        case _:
            request_id = current_request().id.decode("latin-1")
            log.error("unexpected_exception", request_id=request_id, exc_info=exception)
            return Internal()


def _invalid(exception: ValidationException) -> ServiceError:
    """Turns the framework's validation errors of parameters, or a missing body, into violations."""
    extra = exception.extra if isinstance(exception.extra, list) else []
    if any(item.get("source") == "body" for item in extra):
        return MalformedBody("a JSON body is required")
    violations = [Violation(item.get("key", ""), item.get("message", "is not valid")) for item in extra]
    return InvalidArgument(violations or [Violation("", exception.detail)])
