"""A client of Parley's gRPC API; `docs/grpc.md` shows how it is used.

It needs none of Parley's other packages: `parley` (the generated stubs), gRPC and protobuf are all that it imports.
"""

from parley_client.async_client import AsyncClient
from parley_client.channels import Tls, open_async_channel, open_channel, service_config
from parley_client.chat import Answer, turn_input, user
from parley_client.client import Client
from parley_client.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    ParleyError,
    PreconditionFailed,
    Unavailable,
    UpstreamError,
)
from parley_client.health import is_serving, is_serving_async
from parley_client.paging import async_objects, objects
from parley_client.servers import Servers

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Answer",
    "AsyncClient",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "FieldViolation",
    "InternalError",
    "InvalidRequest",
    "LimitExceeded",
    "NotFound",
    "ParleyError",
    "PreconditionFailed",
    "Servers",
    "Tls",
    "Unavailable",
    "UpstreamError",
    "async_objects",
    "is_serving",
    "is_serving_async",
    "objects",
    "open_async_channel",
    "open_channel",
    "service_config",
    "turn_input",
    "user",
]
